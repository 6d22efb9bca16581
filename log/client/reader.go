package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
)

// OpenReader attaches to a node of the own city that has the entry at From, and
// starts the flow. It tries for Config.OpenFor while no node serves it.
func (c *Client) OpenReader(ctx context.Context, stream string, o log.ReaderOptions) (log.Reader, error) {
	bound, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	r := &reader{
		client: c, stream: stream, options: o, next: o.From, turn: rand.Uint64(), avoid: map[string]shunned{},
		changed: make(chan struct{}), stop: make(chan struct{}),
	}
	r.options.Topics = slices.Clone(o.Topics)
	s, err := r.openPatiently(bound)
	if err != nil {
		return nil, c.said(fmt.Errorf("open reader of stream %q: %w", stream, err))
	}
	if err := c.adopt(r); err != nil {
		if s != nil {
			s.close()
		}
		return nil, err
	}
	r.loop.Go(func() { r.run(s) })
	return r, nil
}

// reader receives ahead of its user, within the window it grants the node, and
// goes on at the next offset, at the same node or another, when it loses the
// connection.
type reader struct {
	client  *Client
	stream  string
	options log.ReaderOptions
	turn    uint64 // spreads readers over nodes
	loop    sync.WaitGroup
	stop    chan struct{} // closed by Close
	once    sync.Once

	// Of the loop, or of OpenReader before it.
	avoid    map[string]shunned // nodes that did not serve this reader, by name
	homeless time.Time          // since when no near node served it; zero: one does

	mu      sync.Mutex
	session *session // the present one; nil while there is none
	bounds  log.Bounds
	next    log.Offset    // where to go on after a reconnect
	heard   time.Time     // when something new came
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

// run receives until the end, reconnecting in between. s is nil while nothing
// can be attached to.
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
	err := errNotThere
	for {
		if s != nil {
			err = r.follow(ctx, s)
			if r.finished() {
				err = io.EOF // whatever ended the connection, nothing more is wanted
			}
			r.mu.Lock()
			r.session = nil
			r.mu.Unlock()
			s.close()
		}
		if s = r.comeBack(ctx, err); s == nil {
			return
		}
	}
}

// follow receives from one node, while another goroutine watches that it is not
// left behind.
func (r *reader) follow(ctx context.Context, s *session) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	var verdict error // written before the watcher ends
	watch.Go(func() {
		if verdict = r.watch(ctx, s); verdict != nil {
			s.cut()
		}
	})
	err := r.receive(ctx, s)
	cancel()
	watch.Wait()
	if verdict != nil && !r.stopped() {
		err = verdict
	}
	switch {
	case errors.Is(err, errHome):
	case errors.Is(err, log.ErrSuspect):
		r.shun(s.hello.Node, err, 30*time.Second)
	case errors.Is(err, errStuck):
		r.shun(s.hello.Node, err, 5*r.client.cfg.StuckAfter)
	}
	return err
}

// comeBack connects again unless err is final. nil: the reader has ended.
func (r *reader) comeBack(ctx context.Context, err error) *session {
	lost := time.Now()
	for pause := newPause(); ; {
		if r.stopped() {
			r.fail(fmt.Errorf("reader of stream %q: %w", r.stream, log.ErrClosed))
			return nil
		}
		if errors.Is(err, io.EOF) && r.finished() {
			r.fail(io.EOF)
			return nil
		}
		if final(err) {
			r.fail(err)
			return nil
		}
		if errors.Is(err, errNotThere) {
			// Nothing is wrong: the writer has not come yet.
			lost, pause.next = time.Now(), min(pause.next, 200*time.Millisecond)
		}
		if time.Since(lost) > r.client.cfg.ReconnectFor {
			r.fail(fmt.Errorf("reader of stream %q: no node for %v: %w: %w", r.stream, r.client.cfg.ReconnectFor, log.ErrUnavailable, err))
			return nil
		}
		s, attachErr := r.attach(ctx)
		if attachErr == nil {
			r.client.cfg.Logger.Debug().Str("stream", r.stream).Str("node", s.hello.Node).AnErr("after", err).Msg("log reader goes on")
			return s
		}
		err = attachErr
		_ = pause.wait(ctx) // stopped is asked above
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

// final says that no node would have a better answer: attach has asked them.
func final(err error) bool {
	var f *finalError
	return errors.As(err, &f)
}

// finalError ends a reader.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// receive takes frames of one connection.
func (r *reader) receive(ctx context.Context, s *session) error {
	for {
		k, body, err := s.Next(ctx, wire.BodyMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindData:
			bytes := int64(wire.HeaderSize + len(body))
			r.client.stats.received(s.hello.City, bytes)
			// The entries go to the user, the body belongs to the link.
			var m wire.Data
			if err := wire.Decode(&m, s.Own(body)); err != nil {
				return err
			}
			if err := r.take(&m, bytes); err != nil {
				return err
			}
		case wire.KindTail:
			var m wire.Tail
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			r.mu.Lock()
			if r.learnLocked(m.Bounds) || m.Next > r.next {
				r.heard = time.Now()
			}
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
			if err := m.Err(); errors.Is(err, log.ErrTrimmed) || errors.Is(err, log.ErrProtocol) {
				return &finalError{err}
			} else {
				return err
			}
		default:
			return fmt.Errorf("%v to a reader: %w", k, log.ErrProtocol)
		}
	}
}

// learnLocked takes in a node's bounds, which may lag behind another one's.
func (r *reader) learnLocked(b log.Bounds) (news bool) {
	if b.LAC > r.bounds.LAC {
		r.bounds.LAC, r.bounds.LSO, news = b.LAC, b.LSO, true
	}
	r.bounds.Epoch = max(r.bounds.Epoch, b.Epoch)
	return news
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
	r.next, r.heard = m.Next, time.Now()
	r.learnLocked(m.Bounds)
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
		s.cut() // the receiving loop notices, and comes back
	}
	r.mu.Lock()
}

// Close ends the reader; a Next under way returns log.ErrClosed.
func (r *reader) Close() error {
	r.once.Do(func() { close(r.stop) })
	r.mu.Lock()
	if r.session != nil {
		r.session.cut() // it only received
	}
	r.wakeLocked()
	r.mu.Unlock()
	r.loop.Wait()
	r.client.disown(r)
	return nil
}
