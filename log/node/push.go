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
	"github.com/twinspan/twinspan/log/segment"
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
// nothing costs the node two goroutines and one buffer.
func (c *conn) reads(ctx context.Context, m wire.Read) error {
	n := c.node
	if len(m.Topics) > 1024 {
		return fmt.Errorf("a reader of %d topics: %w", len(m.Topics), log.ErrProtocol)
	}
	if m.From < 0 || m.To < 0 {
		return c.refuse(fmt.Errorf("stream %q: read from %d to %d: %w", m.Stream, m.From, m.To, log.ErrProtocol))
	}
	r, err := n.rowOf(ctx, m.Stream)
	if err != nil {
		return c.refuse(err)
	}
	r.join(ctx)
	defer r.leave()
	f := &feed{node: n, row: r, q: segment.Query{From: m.From, To: m.To, Topics: m.Topics, Committed: m.Committed, BytesMax: pushBytes}}
	version := r.hub.state()
	entries, err := f.read() // so that what can't be served is refused at once
	if err != nil && !errors.Is(err, log.ErrSuspect) {
		return c.refuse(err)
	}
	bounds, err := r.bounds()
	if err != nil {
		return c.refuse(err)
	}
	if err := c.link.Send(&wire.Reading{Bounds: bounds}); err != nil {
		return err
	}
	n.count(&n.readers, 1)
	defer n.count(&n.readers, -1)
	return c.flow(ctx, m.Credit, func(ctx context.Context, window *credit) error {
		p := &pusher{conn: c, feed: f, row: r, window: window, sent: bounds, next: m.From}
		if len(entries) > 0 || f.q.From > m.From {
			for p.window.left() <= 0 {
				select {
				case <-p.window.more:
				case <-ctx.Done():
					return nil
				}
			}
			if err := p.send(ctx, entries); err != nil {
				return err
			}
		}
		return p.run(ctx, version)
	})
}

// flow runs push until the reader goes, beside taking the credit it gives.
func (c *conn) flow(ctx context.Context, first uint64, push func(context.Context, *credit) error) error {
	window := &credit{more: make(chan struct{}, 1)}
	if err := window.add(first); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	pushed := make(chan error, 1) // the pusher's end, read once below
	go func() {
		err := push(ctx, window)
		if err != nil {
			c.drop()
		}
		pushed <- err
	}()
	err := c.takeCredit(ctx, window)
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

// pusher sends one reader what is confirmed, then waits for more.
type pusher struct {
	conn   *conn
	feed   *feed
	row    *row
	window *credit
	msg    wire.Data
	out    []byte

	// What the reader was told last, and when: of the bounds, and how far its
	// topics have been searched. A reader with an end waits for the latter.
	sent log.Bounds
	next log.Offset
	told time.Time
}

func (p *pusher) run(ctx context.Context, version uint64) error {
	hub := p.row.hub
	w := &waiter{wake: make(chan struct{}, 1)}
	defer hub.leave(w)
	tail := time.NewTimer(tailEvery)
	defer tail.Stop()
	for first := true; ; first = false {
		for p.window.left() <= 0 {
			hub.rest(w)
			select {
			case <-p.window.more:
			case <-ctx.Done():
				return nil
			}
		}
		if !first {
			version = hub.state()
		}
		moved, err := p.turn(ctx)
		if err != nil {
			if p.feed.q.From != p.next && errors.Is(err, log.ErrElsewhere) {
				err = errors.Join(err, p.tell()) // over what retention took
			}
			return errors.Join(err, p.conn.link.Send(wire.ErrorOf(err)))
		}
		if moved {
			continue
		}
		if p.feed.ended() {
			// All that was wanted: the reader goes when it has taken it.
			if err := p.tell(); err != nil {
				return err
			}
			hub.rest(w)
			<-ctx.Done()
			return nil
		}
		bounds, err := p.row.bounds()
		if err != nil {
			return errors.Join(err, p.conn.link.Send(wire.ErrorOf(err)))
		}
		news := bounds != p.sent || p.feed.q.From != p.next
		if news && time.Since(p.told) >= tailEvery {
			if err := p.tell(); err != nil {
				return err
			}
			news = false
		}
		if news || !p.feed.promise.IsZero() {
			tail.Reset(tailEvery)
		}
		if !hub.wait(w, version) {
			continue
		}
		select {
		case <-w.wake:
		case <-tail.C:
		case <-p.conn.gone:
			return io.EOF
		case <-ctx.Done():
			return nil
		}
	}
}

// turn sends one frame if there is one, and reports whether anything moved.
func (p *pusher) turn(ctx context.Context) (bool, error) {
	f := p.feed
	from := f.q.From
	if len(f.q.Topics) == 0 && p.row.shared() {
		x, done, err := p.share()
		if err != nil || done {
			return f.q.From > from, err
		}
		if x != nil && x.bounds.LAC >= p.sent.LAC && (f.q.To == 0 || x.next <= f.q.To) {
			f.q.From = x.next
			return true, p.write(ctx, x.bytes, x.bounds, x.next, false)
		}
	}
	entries, err := f.read()
	if err != nil {
		return false, err
	}
	if len(entries) == 0 {
		return f.q.From > from, nil
	}
	return true, p.send(ctx, entries)
}

// share takes or makes the frame at the reader's place. done: there was nothing.
func (p *pusher) share() (x *frame, done bool, err error) {
	f := p.feed
	at := f.q.From
	key := frameKey{at, f.q.Committed}
	x, err = p.row.frames.get(key, func() (*frame, error) {
		to := f.q.To
		f.q.To = 0
		entries, err := f.read()
		f.q.To = to
		next := f.q.From
		if err == nil && len(entries) == 0 {
			done = true
			return nil, nil
		}
		f.q.From = at
		if err != nil {
			return nil, err
		}
		bounds, err := p.row.bounds()
		if err != nil {
			return nil, err
		}
		x := &frame{from: at, next: next, bounds: bounds}
		size := 0
		for i := range entries {
			size += len(entries[i].Payload)
		}
		x.bytes = p.encode(make([]byte, 0, wire.DataSize(len(entries), size)), entries, next, bounds)
		return x, nil
	})
	return x, done, err
}

func (p *pusher) encode(b []byte, entries []segment.Stored, next log.Offset, bounds log.Bounds) []byte {
	p.msg.Next, p.msg.Bounds, p.msg.Entries = next, bounds, p.msg.Entries[:0]
	for i := range entries {
		p.msg.Entries = append(p.msg.Entries, wire.Stored(entries[i]))
	}
	return wire.Encode(b, &p.msg)
}

// send encodes entries for this reader alone.
func (p *pusher) send(ctx context.Context, entries []segment.Stored) error {
	bounds, err := p.row.bounds()
	if err != nil {
		return errors.Join(err, p.conn.link.Send(wire.ErrorOf(err)))
	}
	if len(entries) == 0 {
		return nil
	}
	p.out = p.encode(p.out[:0], entries, p.feed.q.From, bounds)
	err = p.write(ctx, p.out, bounds, p.feed.q.From, true)
	if cap(p.out) > 4*pushBytes {
		p.out, p.feed.buf, p.msg.Entries = nil, nil, nil // a large entry came by
	}
	return err
}

func (p *pusher) write(ctx context.Context, b []byte, bounds log.Bounds, next log.Offset, own bool) error {
	if p.row.crowded() {
		if err := p.conn.node.governor.turn(ctx, len(b), own); err != nil {
			return err
		}
	}
	p.window.use(len(b))
	if err := p.conn.link.SendBuffers(net.Buffers{b}); err != nil {
		return err
	}
	if n := p.conn.node; p.conn.hello.City == n.cfg.City {
		n.pushedNear.Add(int64(len(b)))
	} else {
		n.pushedFar.Add(int64(len(b)))
	}
	p.sent, p.next, p.told = bounds, next, time.Now()
	return nil
}

// tell sends the bounds and the place alone.
func (p *pusher) tell() error {
	bounds, err := p.row.bounds()
	if err != nil {
		return err
	}
	if err := p.conn.link.Send(&wire.Tail{Next: p.feed.q.From, Bounds: bounds}); err != nil {
		return err
	}
	p.sent, p.next, p.told = bounds, p.feed.q.From, time.Now()
	return nil
}
