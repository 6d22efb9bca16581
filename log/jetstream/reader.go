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
		limits: map[log.Epoch]log.Offset{}, changed: make(chan struct{}),
	}
	r.options.Topics = slices.Clone(o.Topics)
	if err := l.adopt(r); err != nil {
		cancel()
		return nil, err
	}
	p := &pull{log: l, names: n, next: start.seq, room: r.room, take: r.takeFiltered}
	for _, topic := range r.options.Topics {
		if s := n.topic(topic); !slices.Contains(p.filters, s) {
			p.filters = append(p.filters, s)
		}
	}
	if len(p.filters) == 0 {
		r.chain = chain{fence: start.opened, epoch: start.epoch, seq: start.seq - 1, next: o.From}
		p.take = r.take
	}
	r.loops.Go(func() { r.fail(p.run(ctx)) })
	if r.scouted() {
		r.loops.Go(func() { r.fail(r.scout(ctx, t)) })
	} else {
		r.loops.Go(func() { r.refresh(ctx) })
	}
	return r, nil
}

func onlySchema(topics []log.Topic) bool { return len(topics) == 1 && topics[0] == log.TopicSchema }

// reader receives ahead of its user, within a window. With all topics it sees
// which entries count. With some, what it receives is held against what its
// scout sees.
type reader struct {
	log     *Log
	names   names
	options log.ReaderOptions
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	chain   chain // of the receiving loop

	mu      sync.Mutex
	bounds  log.Bounds               // of entries that count
	last    map[log.Topic]log.Offset // newest entry of each topic, up to bounds.LAC
	limits  map[log.Epoch]log.Offset // the last entry that counts, of epochs that are over
	next    log.Offset               // every wanted entry below it was handed out
	queue   []queued                 // bounded by the window
	held    int64                    // bytes of queue
	closed  bool
	err     error         // the end, once the queue is empty
	changed chan struct{} // closed and replaced at each change
}

type queued struct {
	log.Entry
	opened uint64 // sequence of its writer's fence
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

// take checks one message of all topics and queues it.
func (r *reader) take(m message) error {
	counts, err := r.chain.step(m)
	if err != nil {
		return r.gap(err, r.chain.next)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if counts || m.mark.fence {
		r.learnLocked(&m.mark)
	}
	if counts {
		r.queueLocked(m)
	}
	return nil
}

// takeFiltered queues one message of the topics wanted; whether it counts turns
// out when its turn comes.
func (r *reader) takeFiltered(m message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.mark.offset >= r.options.From {
		r.queueLocked(m)
	}
	return nil
}

func (r *reader) queueLocked(m message) {
	k := &m.mark
	r.queue = append(r.queue, queued{log.Entry{
		Offset: k.offset, Topic: k.topic, Epoch: k.epoch, AppendedAt: k.time, EndsTransaction: k.ends, Payload: m.payload,
	}, k.opened})
	r.held += int64(len(m.payload)) + 512
	r.wakeLocked()
}

func (r *reader) dropLocked() {
	r.held -= int64(len(r.queue[0].Payload)) + 512
	r.queue[0] = queued{}
	r.queue = r.queue[1:]
	r.wakeLocked()
}

// gap says why messages are missing: retention took them, or nobody knows.
func (r *reader) gap(err error, want log.Offset) error {
	if !errors.Is(err, errHole) {
		return fmt.Errorf("stream %q: %w", r.names.stream, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.log.cfg.RequestTimeout)
	defer cancel()
	first, look := r.log.trimmed(ctx, r.names)
	if look != nil {
		return look
	}
	if want < first {
		return fmt.Errorf("stream %q: entry %d is wanted, they are kept from %d on: %w", r.names.stream, want, first, log.ErrTrimmed)
	}
	return fmt.Errorf("stream %q: entry %d: %w: %w", r.names.stream, want, log.ErrSuspect, err)
}

// learnLocked takes over what the mark of an entry that counts, or of a fence,
// says about the stream. Whatever a server delivers is confirmed.
func (r *reader) learnLocked(k *mark) {
	r.bounds.Epoch = max(r.bounds.Epoch, k.epoch)
	if k.offset > r.bounds.LAC {
		r.bounds.LAC, r.bounds.LSO, r.last = k.offset, k.lso, k.last
	}
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
func (r *reader) scout(ctx context.Context, t tail) error {
	for {
		c := t.chain()
		p := &pull{
			log: r.log, names: r.names, bare: true, next: t.valid + 1,
			room: func(context.Context) (int64, error) { return 1 << 20, nil },
			take: func(m message) error { return r.see(&c, m) },
		}
		err := p.run(ctx)
		if !errors.Is(err, log.ErrTrimmed) {
			return err
		}
		// Retention overtook the scout; that is no matter to a reader of topics
		// that stay. It goes on at the end.
		if t, err = r.log.tail(ctx, r.names); err != nil {
			return err
		}
		r.mu.Lock()
		r.learnLocked(&mark{epoch: t.epoch, offset: t.offset, lso: t.lso, last: t.last})
		r.mu.Unlock()
	}
}

// see is the scout's step.
func (r *reader) see(c *chain, m message) error {
	before := c.epoch
	counts, err := c.step(m)
	if err != nil {
		return r.gap(err, c.next)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.mark.fence {
		r.limits[before] = m.mark.offset
	}
	if counts || m.mark.fence {
		r.learnLocked(&m.mark)
	}
	return nil
}

// limit asks where an epoch that is over ended: the fence behind its own says it.
func (r *reader) limit(ctx context.Context, q queued) error {
	f, err := r.log.fenceFrom(ctx, r.names, q.opened+1)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.limits) > 1024 { // they can be asked for again
		clear(r.limits)
	}
	r.limits[q.Epoch] = f.mark.offset
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
		if r.finishedLocked(limit) {
			return log.Entry{}, io.EOF
		}
		if len(r.queue) > 0 {
			q := r.queue[0]
			counts, known := r.countsLocked(q)
			switch {
			case !known && q.Epoch < r.bounds.Epoch:
				r.mu.Unlock()
				err := r.limit(ctx, q)
				r.mu.Lock()
				if err != nil {
					return log.Entry{}, err
				}
				continue
			case known && !counts:
				r.dropLocked()
				continue
			case known && r.options.To > 0 && q.Offset >= r.options.To:
				return log.Entry{}, io.EOF
			case known && q.Offset <= limit:
				if q.Offset < r.next {
					return log.Entry{}, fmt.Errorf("stream %q: entry %d comes again where %d should: %w", r.names.stream, q.Offset, r.next, log.ErrSuspect)
				}
				r.next = q.Offset + 1
				r.dropLocked()
				return q.Entry, nil
			}
		}
		if r.err != nil {
			return log.Entry{}, r.err
		}
		if err := r.awaitLocked(ctx); err != nil {
			return log.Entry{}, err
		}
	}
}

// countsLocked says whether an entry counts, as far as that is known.
func (r *reader) countsLocked(q queued) (counts, known bool) {
	if len(r.options.Topics) == 0 {
		return true, true // the chain let it in
	}
	if end, over := r.limits[q.Epoch]; over {
		return q.Offset <= end, true
	}
	return true, q.Epoch == r.bounds.Epoch && q.Offset <= r.bounds.LAC
}

// finishedLocked says that no wanted entry below To is left to come. Every mark
// names the newest entry of each topic, so that what is still to come of the
// topics wanted is known however far away it lies, and whichever replica the
// entries come from.
func (r *reader) finishedLocked(limit log.Offset) bool {
	to := r.options.To
	switch {
	case to == 0:
		return false
	case r.next >= to:
		return true
	case limit < to-1 || len(r.options.Topics) == 0:
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
