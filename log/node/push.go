package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment/single"
	"github.com/twinspan/twinspan/log/wire"
)

// credit is how many bytes a reader still takes. It may go below zero by one
// frame, so that an entry larger than the window passes.
type credit struct {
	mu    sync.Mutex
	bytes int64
	more  chan struct{} // one token; owner: the credit; never closed
}

const creditMax = 1 << 30

func (c *credit) add(n uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > creditMax || c.bytes+int64(n) > creditMax {
		return fmt.Errorf("credit of %d bytes on top of %d: %w", n, c.bytes, log.ErrProtocol)
	}
	c.bytes += int64(n)
	select {
	case c.more <- struct{}{}:
	default:
	}
	return nil
}

func (c *credit) use(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= int64(n)
}

func (c *credit) left() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// reads serves a read connection: entries are pushed as they are confirmed,
// within the reader's credit. The journal is its queue, so a reader that takes
// nothing costs the node one goroutine and one buffer.
func (c *conn) reads(ctx context.Context, m wire.Read) error {
	st, err := c.node.store.Stream(m.Stream)
	if err != nil {
		return c.refuse(err)
	}
	bounds, err := startFrom(st, m.From)
	if err != nil {
		return c.refuse(err)
	}
	if len(m.Topics) > 1024 {
		return fmt.Errorf("a reader of %d topics: %w", len(m.Topics), log.ErrProtocol)
	}
	q := segment.Query{From: m.From, To: m.To, Topics: m.Topics, Committed: m.Committed, BytesMax: pushBytes}
	if err := st.Readable(q); err != nil {
		return c.refuse(err)
	}
	if err := c.link.Send(&wire.Reading{Bounds: bounds}); err != nil {
		return err
	}
	c.node.count(&c.node.readers, 1)
	defer c.node.count(&c.node.readers, -1)

	window := &credit{more: make(chan struct{}, 1)}
	if err := window.add(m.Credit); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	pushed := make(chan error, 1) // the pusher's end, read once below
	go func() {
		err := c.push(ctx, st, q, window)
		if err != nil {
			c.drop()
		}
		pushed <- err
	}()
	err = c.takeCredit(ctx, window)
	cancel()
	if pushErr := <-pushed; pushErr != nil {
		return pushErr
	}
	return err
}

func (c *conn) takeCredit(ctx context.Context, window *credit) error {
	for {
		k, body, err := c.link.Next(ctx, wire.GreetingMax)
		if err != nil {
			return err
		}
		if k != wire.KindCredit {
			return fmt.Errorf("%v on a read connection: %w", k, log.ErrProtocol)
		}
		var m wire.Credit
		if err := wire.Decode(&m, body); err != nil {
			return err
		}
		if err := window.add(m.Bytes); err != nil {
			return err
		}
	}
}

const (
	pushBytes = 256 << 10              // of one Data message, but for a single larger entry
	tailEvery = 200 * time.Millisecond // bounds that moved without entries are told no more often
)

// push sends what is confirmed, then waits for more.
func (c *conn) push(ctx context.Context, st *segment.Stream, q segment.Query, window *credit) error {
	var entries []segment.Stored
	var buf, out []byte
	msg := wire.Data{}
	// What the reader was told last, and when: of the bounds, and how far its
	// topics have been searched. A reader with an end waits for the latter.
	var told time.Time
	tail := time.NewTimer(tailEvery)
	defer tail.Stop()
	sent, sentNext := log.Bounds{}, q.From
	for {
		for window.left() <= 0 {
			select {
			case <-window.more:
			case <-ctx.Done():
				return nil
			}
		}
		status, changed, _ := st.Status() // Read meets the store's error as well
		var next log.Offset
		var err error
		entries, buf, next, err = st.Read(q, entries, buf)
		if err != nil {
			return errors.Join(err, c.link.Send(wire.ErrorOf(err)))
		}
		moved := next > q.From
		q.From = next
		if len(entries) > 0 {
			msg.Next, msg.Bounds, msg.Entries = next, status.Bounds, msg.Entries[:0]
			for i := range entries {
				msg.Entries = append(msg.Entries, wire.Stored(entries[i]))
			}
			out = wire.Encode(out[:0], &msg)
			window.use(len(out))
			if err := c.link.SendBuffers(net.Buffers{out}); err != nil {
				return err
			}
			sent, sentNext, told = status.Bounds, next, time.Now()
			if cap(buf) > 4*pushBytes {
				buf, out = nil, nil // a large entry came by
			}
			continue
		}
		if q.To > 0 && next >= q.To {
			// All that was wanted: the reader goes when it has taken it.
			if err := c.link.Send(&wire.Tail{Next: next, Bounds: status.Bounds}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}
		if moved {
			continue
		}
		news := status.Bounds != sent || next != sentNext
		if news && time.Since(told) >= tailEvery {
			if err := c.link.Send(&wire.Tail{Next: next, Bounds: status.Bounds}); err != nil {
				return err
			}
			sent, sentNext, told, news = status.Bounds, next, time.Now(), false
		}
		if news {
			tail.Reset(tailEvery)
		}
		select {
		case <-changed:
		case <-tail.C:
		case <-c.gone:
			return io.EOF
		case <-ctx.Done():
			return nil
		}
	}
}
