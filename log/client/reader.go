package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
)

// OpenReader connects and starts the flow.
func (c *Client) OpenReader(ctx context.Context, stream string, o log.ReaderOptions) (log.Reader, error) {
	if err := c.alive(); err != nil {
		return nil, err
	}
	r := &reader{
		client: c, stream: stream, options: o, next: o.From, taken: o.From,
		changed: make(chan struct{}), stop: make(chan struct{}),
	}
	r.options.Topics = slices.Clone(o.Topics)
	s, err := r.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open reader of stream %q: %w", stream, err)
	}
	if err := c.adopt(r); err != nil {
		s.close()
		return nil, err
	}
	r.loop.Go(func() { r.run(s) })
	return r, nil
}

// reader receives ahead of its user, within the window it grants the node, and
// comes back at the next offset when it loses the connection.
type reader struct {
	client  *Client
	stream  string
	options log.ReaderOptions
	loop    sync.WaitGroup
	stop    chan struct{} // closed by Close
	once    sync.Once

	mu      sync.Mutex
	session *session // the present one; nil while there is none
	bounds  log.Bounds
	next    log.Offset    // where to go on after a reconnect
	taken   log.Offset    // every entry below it was handed out
	queue   []batch       // bounded by the window
	held    int64         // bytes of queue
	owed    int64         // bytes handed out, and not yet granted again
	err     error         // the end, once the queue is empty
	changed chan struct{} // closed and replaced at each change
}

// batch is the entries of one frame, and its size once they are all taken.
type batch struct {
	entries []wire.Stored
	bytes   int64
}

// connect asks a node for the entries from next on.
func (r *reader) connect(ctx context.Context) (*session, error) {
	s, err := r.client.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	from := r.next
	window := r.client.cfg.ReadWindowBytes
	credit := max(0, window-r.held)
	r.owed = min(0, window-r.held) // credit, owed and held always make up the window
	r.mu.Unlock()
	var reading wire.Reading
	err = r.client.within(ctx, s, func(ctx context.Context) error {
		if err := s.Send(&wire.Read{
			Stream: r.stream, From: from, To: r.options.To, Committed: r.options.Committed, Credit: uint64(credit), Topics: r.options.Topics,
		}); err != nil {
			return err
		}
		return s.Expect(ctx, &reading)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped() { // Close may have come while there was no session to close
		s.close()
		return nil, fmt.Errorf("reader of stream %q: %w", r.stream, log.ErrClosed)
	}
	r.session, r.bounds = s, reading.Bounds
	r.grantLocked() // what was taken while there was no session
	return s, nil
}

// run receives until the end, reconnecting in between.
func (r *reader) run(s *session) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.loop.Go(func() {
		select {
		case <-r.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	for {
		err := r.receive(ctx, s)
		if r.finished() {
			err = io.EOF // whatever ended the connection, nothing more is wanted
		}
		r.mu.Lock()
		r.session = nil
		r.mu.Unlock()
		s.close()
		if s = r.comeBack(ctx, err); s == nil {
			return
		}
	}
}

// comeBack connects again unless err is final. nil: the reader has ended.
func (r *reader) comeBack(ctx context.Context, err error) *session {
	deadline := time.Now().Add(r.client.cfg.ReconnectFor)
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if r.stopped() {
			r.fail(fmt.Errorf("reader of stream %q: %w", r.stream, log.ErrClosed))
			return nil
		}
		if errors.Is(err, io.EOF) && r.finished() {
			return nil
		}
		if final(err) {
			r.fail(err)
			return nil
		}
		if time.Now().After(deadline) {
			r.fail(fmt.Errorf("reader of stream %q: no node for %v: %w: %w", r.stream, r.client.cfg.ReconnectFor, log.ErrUnavailable, err))
			return nil
		}
		var s *session
		if s, err = r.connect(ctx); err == nil {
			r.client.cfg.Logger.Info().Str("stream", r.stream).Str("node", s.node).Msg("log reader is connected again")
			return s
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// finished says that everything below To has arrived.
func (r *reader) finished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.options.To > 0 && r.next >= r.options.To
}

func (r *reader) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

// final says that trying again would not help.
func final(err error) bool {
	if !isReply(err) {
		return errors.Is(err, log.ErrSuspect) || errors.Is(err, log.ErrProtocol) && !errors.Is(err, wire.ErrFrame)
	}
	return !errors.Is(err, log.ErrUnavailable)
}

// receive takes frames of one connection.
func (r *reader) receive(ctx context.Context, s *session) error {
	for {
		k, body, err := s.Next(ctx, wire.BodyMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindData:
			// The entries go to the user, the body belongs to the link.
			var m wire.Data
			if err := wire.Decode(&m, s.Own(body)); err != nil {
				return err
			}
			if err := r.take(&m, int64(wire.HeaderSize+len(body))); err != nil {
				return err
			}
		case wire.KindTail:
			var m wire.Tail
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			r.mu.Lock()
			r.bounds = m.Bounds
			r.next = max(r.next, m.Next)
			if r.options.To > 0 && r.next >= r.options.To {
				r.wakeLocked()
			}
			r.mu.Unlock()
		case wire.KindError:
			var m wire.Error
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return m.Err()
		default:
			return fmt.Errorf("%v to a reader: %w", k, log.ErrProtocol)
		}
	}
}

// take checks and queues the entries of one frame.
func (r *reader) take(m *wire.Data, bytes int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held > r.client.cfg.ReadWindowBytes {
		return fmt.Errorf("stream %q: the node sends beyond the credit of its reader: %w", r.stream, log.ErrProtocol)
	}
	at := r.next
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Offset < at || len(r.options.Topics) == 0 && e.Offset != at {
			return fmt.Errorf("stream %q: entry %d where %d should come: %w", r.stream, e.Offset, at, log.ErrProtocol)
		}
		if got := segment.Checksum(e.Payload); got != e.Checksum {
			return fmt.Errorf("stream %q: entry %d arrived with checksum %08x, written with %08x: %w", r.stream, e.Offset, got, e.Checksum, log.ErrSuspect)
		}
		at = e.Offset + 1
	}
	if m.Next < at {
		return fmt.Errorf("stream %q: entries up to %d, but next is %d: %w", r.stream, at-1, m.Next, log.ErrProtocol)
	}
	r.next, r.bounds = m.Next, m.Bounds
	r.queue = append(r.queue, batch{m.Entries, bytes})
	r.held += bytes
	r.wakeLocked()
	return nil
}

func (r *reader) wakeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	r.wakeLocked()
}

func (r *reader) Bounds() log.Bounds {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bounds
}

func (r *reader) Next(ctx context.Context) (log.Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.stopped() {
			return log.Entry{}, fmt.Errorf("reader of stream %q: %w", r.stream, log.ErrClosed)
		}
		if len(r.queue) > 0 {
			b := &r.queue[0]
			if len(b.entries) > 0 {
				e := b.entries[0].Entry
				if r.options.To > 0 && e.Offset >= r.options.To {
					return log.Entry{}, io.EOF
				}
				b.entries = b.entries[1:]
				r.taken = e.Offset + 1
				if len(b.entries) == 0 {
					r.dropLocked()
				}
				return e, nil
			}
			r.dropLocked()
			continue
		}
		if r.options.To > 0 && r.next >= r.options.To {
			return log.Entry{}, io.EOF
		}
		if r.options.To > 0 && r.next >= r.options.To {
			return log.Entry{}, io.EOF
		}
		if r.err != nil {
			return log.Entry{}, r.err
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
			r.mu.Lock()
		case <-r.stop:
			r.mu.Lock()
		case <-ctx.Done():
			r.mu.Lock()
			return log.Entry{}, ctx.Err()
		}
	}
}

// dropLocked gives up the first batch, which is used up.
func (r *reader) dropLocked() {
	b := r.queue[0].bytes
	r.queue[0] = batch{}
	r.queue = r.queue[1:]
	r.held -= b
	r.owed += b
	r.grantLocked()
}

// grantLocked gives the bytes taken back to the node, a quarter of the window at
// a time. The lock is released meanwhile.
func (r *reader) grantLocked() {
	if r.session == nil || r.owed <= 0 || r.owed < r.client.cfg.ReadWindowBytes/4 {
		return
	}
	n, s := r.owed, r.session
	r.owed = 0
	r.mu.Unlock()
	if err := s.Send(&wire.Credit{Bytes: uint64(n)}); err != nil {
		_ = s.Link.Close() // the receiving loop notices, and comes back
	}
	r.mu.Lock()
}

// Close ends the reader; a Next under way returns log.ErrClosed.
func (r *reader) Close() error {
	r.once.Do(func() { close(r.stop) })
	r.mu.Lock()
	if r.session != nil {
		_ = r.session.Link.Close() // it only received
	}
	r.wakeLocked()
	r.mu.Unlock()
	r.loop.Wait()
	r.client.disown(r)
	return nil
}
