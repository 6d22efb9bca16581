package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
)

// OpenReader finds the first entry's sequence and starts the flow.
func (l *Log) OpenReader(ctx context.Context, stream string, o log.ReaderOptions) (log.Reader, error) {
	n, err := l.cfg.names(stream)
	if err != nil {
		return nil, err
	}
	r, err := l.openReader(ctx, n, o)
	if err != nil {
		return nil, fmt.Errorf("open reader of stream %q at %d: %w", stream, o.From, err)
	}
	return r, nil
}

func (l *Log) openReader(ctx context.Context, n names, o log.ReaderOptions) (*reader, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	if o.From < 0 || o.To < 0 {
		return nil, fmt.Errorf("from %d to %d: %w", o.From, o.To, log.ErrProtocol)
	}
	t, err := l.tail(ctx, n)
	// A leader that has only just been elected may not show all it has yet.
	for deadline := time.Now().Add(2 * time.Second); err == nil && o.From > t.offset+1; t, err = l.tail(ctx, n) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the stream ends at %d: %w", t.offset, log.ErrSuspect)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.closed:
			return nil, l.alive()
		}
	}
	if err != nil {
		return nil, err
	}
	b, err := l.bounds(ctx, n, t)
	if err != nil {
		return nil, err
	}
	if o.From < b.First && !onlySchema(o.Topics) {
		return nil, fmt.Errorf("entries are kept from %d on: %w", b.First, log.ErrTrimmed)
	}
	start, err := l.locate(ctx, n, t, o.From)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{
		log: l, names: n, options: o, cancel: cancel, next: o.From, bounds: b, last: t.last,
		fence: start.opened, changed: make(chan struct{}),
	}
	r.options.Topics = slices.Clone(o.Topics)
	if err := l.adopt(r); err != nil {
		cancel()
		return nil, err
	}
	p := &pull{log: l, names: n, filters: r.filters(), next: start.seq, room: r.room, take: r.take}
	r.loops.Go(func() { r.fail(p.run(ctx)) })
	if r.scouted() {
		s := &scout{reader: r, fence: t.opened}
		// From the newest message on, which tells again what is known.
		sp := &pull{log: l, names: n, bare: true, next: max(t.seq, 1), room: s.room, take: s.take}
		r.loops.Go(func() { r.fail(sp.run(ctx)) })
	} else {
		r.loops.Go(func() { r.refresh(ctx) })
	}
	return r, nil
}

func onlySchema(topics []log.Topic) bool { return len(topics) == 1 && topics[0] == log.TopicSchema }

// reader receives ahead of its user, within a window.
type reader struct {
	log     *Log
	names   names
	options log.ReaderOptions
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	fence   uint64 // sequence of the newest fence received; of the receiving loop

	mu      sync.Mutex
	bounds  log.Bounds
	last    map[log.Topic]log.Offset // newest entry of each topic, up to bounds.LAC
	next    log.Offset               // every wanted entry below it was received
	queue   []log.Entry              // bounded by the window
	held    int64                    // bytes of queue
	closed  bool
	err     error         // the end, once the queue is empty
	changed chan struct{} // closed and replaced at each change
}

// filters are the subjects of the topics wanted, and the fences: they tell which
// entries count.
func (r *reader) filters() []string {
	if len(r.options.Topics) == 0 {
		return nil
	}
	out := []string{r.names.fences()}
	for _, t := range r.options.Topics {
		if s := r.names.topic(t); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// scouted says that the entries wanted do not tell by themselves how far the
// reader may go.
func (r *reader) scouted() bool { return len(r.options.Topics) > 0 || r.options.Committed }

// room waits until half of the window is free.
func (r *reader) room(ctx context.Context) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	window := r.log.cfg.ReadWindowBytes
	for r.held > window/2 {
		if err := r.awaitLocked(ctx); err != nil {
			return 0, err
		}
	}
	return window - r.held, nil
}

// take checks one message and queues it.
func (r *reader) take(m message) error {
	all := len(r.options.Topics) == 0
	r.mu.Lock()
	defer r.mu.Unlock()
	k := &m.mark
	if k.fence {
		if k.opened > r.fence {
			return fmt.Errorf("the fence before message %d of %s is missing: %w", m.seq, r.names.js, log.ErrSuspect)
		}
		if all && k.offset != r.next-1 {
			return r.gapLocked(m)
		}
		r.fence = m.seq
		r.learnLocked(k)
		return nil
	}
	if k.opened < r.fence {
		return nil // of a writer that was fenced: it does not count
	}
	if k.opened > r.fence {
		return fmt.Errorf("the fence before message %d of %s is missing: %w", m.seq, r.names.js, log.ErrSuspect)
	}
	if k.offset < r.next || all && k.offset != r.next {
		return r.gapLocked(m)
	}
	r.next = k.offset + 1
	r.learnLocked(k)
	r.queue = append(r.queue, log.Entry{
		Offset: k.offset, Topic: k.topic, Epoch: k.epoch, AppendedAt: k.time, EndsTransaction: k.ends, Payload: m.payload,
	})
	r.held += int64(len(m.payload)) + 512
	r.wakeLocked()
	return nil
}

// gapLocked says why an entry is missing. The lock is released meanwhile.
func (r *reader) gapLocked(m message) error {
	want := r.next
	r.mu.Unlock()
	defer r.mu.Lock()
	ctx, cancel := context.WithTimeout(context.Background(), r.log.cfg.RequestTimeout)
	defer cancel()
	first, err := r.log.trimmed(ctx, r.names)
	if err != nil {
		return err
	}
	if want < first {
		return fmt.Errorf("stream %q: entry %d is wanted, they are kept from %d on: %w", r.names.stream, want, first, log.ErrTrimmed)
	}
	return fmt.Errorf("stream %q: message %d holds entry %d where %d should come: %w", r.names.stream, m.seq, m.mark.offset, want, log.ErrSuspect)
}

// learnLocked takes over what a mark says about the stream. Whatever a server
// delivers is confirmed.
func (r *reader) learnLocked(k *mark) {
	r.bounds.Epoch = max(r.bounds.Epoch, k.epoch)
	if k.offset < r.bounds.LAC || k.fence && k.offset == r.bounds.LAC {
		return
	}
	r.bounds.LAC, r.last = k.offset, k.last
	r.bounds.LSO = max(r.bounds.LSO, k.lso)
	r.wakeLocked()
}

// refresh keeps the bounds of a reader that does not scout from getting old.
func (r *reader) refresh(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		t, err := r.log.tail(ctx, r.names)
		if err != nil {
			continue // the receiving loop says so if it lasts
		}
		r.mu.Lock()
		r.learnLocked(&mark{epoch: t.epoch, offset: t.offset, lso: t.lso, last: t.last})
		r.mu.Unlock()
	}
}

// scout follows the stream's end without payloads, for a reader that leaves out
// topics or waits for the ends of transactions.
type scout struct {
	*reader
	fence uint64
}

func (s *scout) room(context.Context) (int64, error) { return 1 << 20, nil }

func (s *scout) take(m message) error {
	k := &m.mark
	switch {
	case k.fence:
		s.fence = max(s.fence, m.seq)
	case k.opened < s.fence:
		return nil
	case k.opened > s.fence:
		return fmt.Errorf("the fence before message %d of %s is missing: %w", m.seq, s.names.js, log.ErrSuspect)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learnLocked(k)
	return nil
}

func (r *reader) wakeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *reader) awaitLocked(ctx context.Context) error {
	changed := r.changed
	r.mu.Unlock()
	defer r.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && !errors.Is(err, context.Canceled) {
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
		if r.closed {
			return log.Entry{}, fmt.Errorf("reader of stream %q: %w", r.names.stream, log.ErrClosed)
		}
		limit := r.bounds.LAC
		if r.options.Committed {
			limit = r.bounds.LSO
		}
		if len(r.queue) > 0 {
			e := r.queue[0]
			if r.options.To > 0 && e.Offset >= r.options.To {
				return log.Entry{}, io.EOF
			}
			if e.Offset <= limit {
				r.queue[0] = log.Entry{}
				r.queue = r.queue[1:]
				r.held -= int64(len(e.Payload)) + 512
				r.wakeLocked()
				return e, nil
			}
		} else if r.finishedLocked(limit) {
			return log.Entry{}, io.EOF
		}
		if r.err != nil {
			return log.Entry{}, r.err
		}
		if err := r.awaitLocked(ctx); err != nil {
			return log.Entry{}, err
		}
	}
}

// finishedLocked says that no wanted entry below To is left to come. Every mark
// names the newest entry of each topic, so that what is still to come of the
// topics wanted is known however far away it lies, and whichever replica the
// entries come from.
func (r *reader) finishedLocked(limit log.Offset) bool {
	to := r.options.To
	if to == 0 || limit < to-1 {
		return to > 0 && r.options.From >= to
	}
	if r.next >= to {
		return true
	}
	if len(r.options.Topics) == 0 {
		return false
	}
	for _, t := range r.options.Topics {
		if o, ok := r.last[t]; ok && o >= r.next {
			return false
		}
	}
	return true
}

// Close ends the reader; a Next under way returns log.ErrClosed.
func (r *reader) Close() error {
	r.mu.Lock()
	r.closed = true
	r.wakeLocked()
	r.mu.Unlock()
	r.cancel()
	r.loops.Wait()
	r.log.disown(r)
	return nil
}
