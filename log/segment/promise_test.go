package segment_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
)

// fact is what has been promised of a replica: it must hold in every image of the
// disk that is taken later.
type fact struct {
	d         quorum.Descriptor
	fence     log.Epoch
	acked     log.Offset // durable
	closed    bool
	last      log.Offset // of a closed one
	complete  bool       // closed and whole
	compacted bool
	dropped   bool
}

// intent is what may have happened as well: it was begun.
type intent struct{ close, compact, drop bool }

// promise is all of them. Facts are noted when an answer came, intents before the
// question.
type promise struct {
	mu         sync.Mutex
	facts      map[segment.ID]fact
	intents    map[segment.ID]intent
	generation uint64
}

func newPromise() *promise {
	return &promise{facts: map[segment.ID]fact{}, intents: map[segment.ID]intent{}}
}

func (p *promise) copy() *promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &promise{facts: maps.Clone(p.facts), intents: maps.Clone(p.intents), generation: p.generation}
}

func (p *promise) fact(id segment.ID, change func(*fact)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.facts[id]
	change(&f)
	p.facts[id] = f
}

func (p *promise) intend(id segment.ID, change func(*intent)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.intents[id]
	change(&i)
	p.intents[id] = i
}

// kept are the segments of a stream that were not given up, ascending.
func (p *promise) kept(stream string) []segment.ID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []segment.ID
	for id := range p.facts {
		if id.Stream == stream && !p.facts[id].dropped && !p.intents[id].drop {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b segment.ID) int { return int(a.Segment) - int(b.Segment) })
	return out
}

func (p *promise) of(id segment.ID) (fact, intent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.facts[id], p.intents[id]
}

// entryAt is the only entry that an offset of a stream can ever hold.
func entryAt(stream string, o log.Offset, epoch log.Epoch) segment.Stored {
	r := rand.New(rand.NewPCG(uint64(len(stream))<<32+uint64(stream[0]), uint64(o)))
	text := fmt.Sprintf("%s/%d/", stream, o)
	b := []byte(text + strings.Repeat("x", r.IntN(1<<r.IntN(12))))
	for i := len(text); i < len(b); i += 3 { // shrinks, but not to nothing
		b[i] = byte(r.Uint32())
	}
	if r.IntN(40) == 0 {
		b = append(b, make([]byte, 6<<10)...)
	}
	return segment.Stored{Checksum: segment.Checksum(b), Entry: log.Entry{
		Offset: o, Topic: topicAt(o), Epoch: epoch, AppendedAt: time.UnixMicro(1e15 + int64(o)).UTC(), EndsTransaction: o%5 == 4, Payload: b,
	}}
}

func topicAt(o log.Offset) log.Topic {
	if o%20 == 0 {
		return log.TopicSchema
	}
	return log.TopicData
}

// lsoAt is the newest end of a transaction up to o.
func lsoAt(o log.Offset) log.Offset { return (o+1)/5*5 - 1 }

// work does random things to a store and keeps count of what it was promised.
func work(r *rand.Rand, s *segment.Store, p *promise) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range []string{"a", "b/ü", "c"}[:1+r.IntN(3)] {
		for range 1 + r.IntN(5) {
			if err := step(ctx, r, s, p, name); err != nil {
				return fmt.Errorf("stream %s: %w", name, err)
			}
		}
	}
	if r.IntN(3) == 0 {
		g := s.Generation() + 1
		if err := s.SetGeneration(ctx, g); err != nil {
			return err
		}
		p.mu.Lock()
		p.generation = g
		p.mu.Unlock()
	}
	return nil
}

func step(ctx context.Context, r *rand.Rand, s *segment.Store, p *promise, name string) error {
	d, epoch, err := newest(ctx, r, s, p, name)
	if err != nil {
		return err
	}
	id := segment.ID{Stream: name, Segment: d.Segment}
	if r.IntN(4) == 0 {
		epoch++
		sealed, err := s.Seal(ctx, d, epoch)
		if err != nil {
			return err
		}
		f, _ := p.of(id)
		if sealed.Last < f.acked && f.fence > 0 {
			return fmt.Errorf("%s: sealed at %d, but %d is durable", id, sealed.Last, f.acked)
		}
		p.fact(id, func(f *fact) {
			if f.fence == 0 {
				f.acked = d.First - 1
			}
			f.d, f.fence = d, epoch
			f.acked = max(f.acked, sealed.Last)
		})
	}
	rep, last, err := s.Attach(ctx, d, epoch)
	if err != nil {
		return err
	}
	p.fact(id, func(f *fact) {
		if f.fence == 0 {
			f.acked = d.First - 1
		}
		f.d, f.fence = d, max(f.fence, epoch)
	})
	next, lac := last+1, rep.Info().LAC
	for range r.IntN(12) {
		for range 1 + r.IntN(15) {
			e := entryAt(name, next, d.Epoch)
			err := rep.Append(ctx, &segment.Append{
				Epoch: epoch, Offset: next, LAC: lac, Topic: e.Topic, Ends: e.EndsTransaction,
				Time: e.AppendedAt.UnixMicro(), Checksum: e.Checksum, Payload: e.Payload,
			})
			if err != nil {
				return err
			}
			next++
		}
		if r.IntN(2) == 0 {
			if err := durable(ctx, rep, epoch, next-1); err != nil {
				return err
			}
			p.fact(id, func(f *fact) { f.acked = next - 1 })
			if lac = next - 1; r.IntN(2) == 0 {
				if err := rep.Confirm(epoch, lac); err != nil {
					return err
				}
			}
		}
		if r.IntN(8) == 0 {
			time.Sleep(2 * time.Millisecond) // an idle commit, archiving
		}
	}
	if r.IntN(3) > 0 {
		return aside(ctx, r, s, p, name)
	}
	// Close it: at what is confirmed, or a little above what is here.
	end := lac + log.Offset(r.Int64N(int64(next-lac)+3))
	if end < d.First {
		return nil
	}
	p.intend(id, func(i *intent) { i.close = true })
	if err := rep.Close(ctx, end, max(lsoAt(end), d.FirstLSO)); err != nil {
		return err
	}
	whole := rep.Info().Complete // not when the disk was full for what was queued
	p.fact(id, func(f *fact) {
		f.closed, f.last, f.acked, f.complete = true, end, min(f.acked, end), whole
	})
	return aside(ctx, r, s, p, name)
}

// newest is the open segment of the stream, or the next one. A crash may have
// closed one whose close was never answered.
func newest(ctx context.Context, r *rand.Rand, s *segment.Store, p *promise, name string) (quorum.Descriptor, log.Epoch, error) {
	ids := p.kept(name)
	if len(ids) == 0 {
		n, first, fence := uint32(1), log.Offset(0), log.Epoch(99)
		p.mu.Lock()
		for id, f := range p.facts { // all were given up
			if id.Stream == name && id.Segment >= n {
				n, first, fence = id.Segment+1, max(f.acked, f.last)+1, f.fence+100
			}
		}
		p.mu.Unlock()
		d, epoch := known(s, describe(name, n, first, first-1, fence+1, 1))
		return d, epoch, nil
	}
	id := ids[len(ids)-1]
	f, i := p.of(id)
	fence := max(f.fence, f.d.Epoch)
	if rep, err := s.Replica(id); err == nil {
		info := rep.Info()
		fence = max(fence, info.Fence) // a seal of before the crash may have come through
		if info.Closed && !f.closed {
			if !i.close {
				return f.d, 0, fmt.Errorf("%s: closed by nobody", id)
			}
			p.fact(id, func(f *fact) {
				f.closed, f.last, f.acked, f.complete = true, info.Last, min(f.acked, info.Last), info.Complete
			})
			f.closed, f.last = true, info.Last
		}
	}
	if !f.closed {
		return f.d, fence + 1, nil
	}
	d, epoch := known(s, describe(name, id.Segment+1, f.last+1, max(lsoAt(f.last), f.d.FirstLSO), fence+1, 1))
	return d, epoch, nil
}

// known is the descriptor that the store has, when a crash took the answer to the
// question that brought it, and the epoch to go on with.
func known(s *segment.Store, d quorum.Descriptor) (quorum.Descriptor, log.Epoch) {
	if rep, err := s.Replica(segment.ID{Stream: d.Stream, Segment: d.Segment}); err == nil {
		return rep.Descriptor(), rep.Info().Fence + 1
	}
	return d, d.Epoch
}

// aside repairs, compacts or drops one of the closed segments.
func aside(ctx context.Context, r *rand.Rand, s *segment.Store, p *promise, name string) error {
	ids := p.kept(name)
	if len(ids) < 2 {
		return nil
	}
	id := ids[r.IntN(len(ids)-1)]
	f, _ := p.of(id)
	if !f.closed {
		return nil
	}
	rep, err := s.Replica(id)
	if err != nil {
		return err
	}
	switch r.IntN(3) {
	case 0:
		c := segment.Copied{Descriptor: f.d, Last: f.last, LSO: max(lsoAt(f.last), f.d.FirstLSO)}
		if i := rep.Info(); i.Compacted {
			c.Kept = i.Kept
		}
		_, err := s.Repair(ctx, c, func(_ context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
			next := min(to, from+1+log.Offset(r.IntN(20)))
			var out []segment.Stored
			for o := from; o < next; o++ {
				out = append(out, entryAt(name, o, f.d.Epoch))
			}
			return out, next, nil
		})
		if err != nil {
			return err
		}
		p.fact(id, func(f *fact) { f.complete, f.acked = true, f.last })
	case 1:
		if !rep.Info().Complete {
			return nil
		}
		p.intend(id, func(i *intent) { i.compact = true })
		if err := rep.Compact(ctx, []log.Topic{log.TopicSchema}, 0); err != nil {
			return err
		}
		p.fact(id, func(f *fact) { f.compacted = true })
	case 2:
		if id != ids[0] {
			return nil
		}
		p.intend(id, func(i *intent) { i.drop = true })
		if err := rep.Drop(ctx); err != nil {
			return err
		}
		p.fact(id, func(f *fact) { f.dropped = true })
	}
	return nil
}

func durable(ctx context.Context, rep *segment.Replica, epoch log.Epoch, o log.Offset) error {
	for {
		p, changed, err := rep.Progress(epoch)
		if err = errors.Join(err, p.Err); err != nil {
			return err
		}
		if p.Last >= o {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// holds checks every promise.
func holds(s *segment.Store, p *promise) error {
	if g := s.Generation(); g < p.generation {
		return fmt.Errorf("generation %d, was %d", g, p.generation)
	}
	for _, i := range s.Replicas() {
		if _, known := p.facts[i.ID()]; !known && i.Held >= i.First && i.Members == nil {
			return fmt.Errorf("%s: nobody made it", i.ID())
		}
	}
	for id, f := range p.facts {
		if err := f.holds(s, id, p.intents[id]); err != nil {
			return fmt.Errorf("%s: %w (promised %+v, begun %+v)", id, err, f, p.intents[id])
		}
	}
	return nil
}

func (f fact) holds(s *segment.Store, id segment.ID, begun intent) error {
	rep, err := s.Replica(id)
	if errors.Is(err, log.ErrElsewhere) && (f.dropped || begun.drop) {
		if _, _, err := s.Attach(context.Background(), f.d, f.fence+1000); !errors.Is(err, log.ErrFenced) {
			return fmt.Errorf("attach of a dropped segment: %w", err)
		}
		return nil
	}
	if err != nil || f.dropped {
		return fmt.Errorf("dropped %v: %w", f.dropped, err)
	}
	i := rep.Info()
	switch {
	case i.Suspect:
		return fmt.Errorf("suspect: %+v", i)
	case i.Fence < f.fence && !i.Archived:
		return fmt.Errorf("fence %d", i.Fence)
	case f.closed && (!i.Closed || i.Last != f.last), !f.closed && i.Closed && !begun.close:
		return fmt.Errorf("closed %v at %d", i.Closed, i.Last)
	case i.Held < f.acked && !(i.Closed && i.Held == i.Last):
		return fmt.Errorf("holds up to %d: %+v", i.Held, i)
	case f.complete && !i.Complete:
		return fmt.Errorf("incomplete: %+v", i)
	case i.Compacted && !begun.compact, f.compacted && !i.Compacted:
		return fmt.Errorf("compacted %v", i.Compacted)
	}
	q := segment.Query{From: i.First, To: i.Held + 1, Unconfirmed: true} // what is still queued may follow
	want := i.Held - i.First + 1
	if i.Compacted {
		q.Topics, q.Unconfirmed, q.To = []log.Topic{log.TopicSchema}, false, 0
		want = 0
		for o := i.First; o <= i.Last; o++ {
			if topicAt(o) == log.TopicSchema {
				want++
			}
		}
	}
	entries, err := readAll(rep, q)
	if err != nil && !(errors.Is(err, log.ErrElsewhere) && i.Closed && i.Held < i.Last) {
		return err
	}
	if len(entries) != int(want) {
		return fmt.Errorf("%d entries, want %d: %+v", len(entries), want, i)
	}
	o := i.First
	for _, e := range entries {
		for i.Compacted && topicAt(o) != log.TopicSchema {
			o++
		}
		w := entryAt(id.Stream, o, f.d.Epoch)
		if e.Offset != o || string(e.Payload) != string(w.Payload) || e.Topic != w.Topic || e.Epoch != w.Epoch ||
			e.EndsTransaction != w.EndsTransaction || !e.AppendedAt.Equal(w.AppendedAt) {
			return fmt.Errorf("entry %d at the place of %d, or another one", e.Offset, o)
		}
		o++
	}
	if lso := max(lsoAt(i.LAC), f.d.FirstLSO); i.LSO > lso {
		return fmt.Errorf("LAC %d, LSO %d", i.LAC, i.LSO)
	}
	return nil
}
