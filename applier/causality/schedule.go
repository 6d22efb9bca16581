// Package causality decides which lane applies a change and what it has to wait
// for, so that lanes working in parallel leave the target as if every change
// had been applied in log order. It has no goroutines, no clock and no I/O: the
// applier drives it under one lock, and the tests in every hostile order.
package causality

import (
	"math"

	"github.com/twinspan/twinspan/change"
)

// Start is the place before the first change of a log.
var Start = change.Place{Offset: -1}

// Item is one dispatched row change, several that follow each other in the log and
// share a lane, or a whole transaction.
type Item[T any] struct {
	Place change.Place // of the last
	Work  T            // what the lane needs to apply it

	seq  int64
	cost int64
	rows int32
	// waits are the changes of others that come first; nil for most items, of
	// which there are many.
	waits *wait
}

// Rows is how many row changes the item is.
func (i *Item[T]) Rows() int { return int(i.rows) }

// wait: the item may not be applied before the lane is durable up to seq.
type wait struct {
	lane int32
	seq  int64
	next *wait
}

// touch is the newest change of a key, as latest keeps it: its number, and below
// that its lane, of which there are at most laneMask+1.
type touch uint64

const (
	laneBits = 12
	laneMask = 1<<laneBits - 1
)

func touchOf(lane int, seq int64) touch { return touch(seq)<<laneBits | touch(lane) }

func (t touch) lane() int  { return int(t & laneMask) }
func (t touch) seq() int64 { return int64(t >> laneBits) }

// Schedule is the state of all lanes: what they have to do, what they are
// doing, what is durable. A sequence number counts everything that was
// dispatched, from 1, and means nothing outside this Schedule.
//
// Its invariants:
//   - a lane applies its items in log order;
//   - two changes that touch one key are in one lane, or the later one waits
//     until the earlier one is durable;
//   - waits point backwards in the log, to items that are in a lane already, so
//     the oldest undurable change of all never waits, and there is no deadlock;
//   - a change at or below its lane's stored place is never applied again.
type Schedule[T any] struct {
	lanes []lane[T]
	last  latest // the touch of each key
	seq   int64  // of the newest thing dispatched
	marks marks

	// Faults are seeded bugs for tests that must catch them.
	faults Faults
}

// Faults turn rules off. Only tests set them.
type Faults struct {
	NoWaits bool // naive hashing: lanes never wait for each other
	NoSkip  bool // changes below a lane's stored place are applied again
	NoOrder bool // Sequence: groups are committed as they come
	Newest  bool // Sequence: of what an item has to wait for, only the newest counts
}

type lane[T any] struct {
	start   change.Place // stored: changes up to here are durable
	queue   []Item[T]    // dispatched, not taken
	taken   []Item[T]    // being applied
	durable int64        // every item of the lane up to this seq is durable
	pending int          // row changes in both
}

// New makes a schedule for lanes whose durable places were read from the
// target, one for each of at most 4096 lanes.
func New[T any](start []change.Place) *Schedule[T] {
	if len(start) > laneMask+1 {
		panic("causality: too many lanes") // the applier allows fewer
	}
	s := &Schedule[T]{lanes: make([]lane[T], len(start))}
	for i, p := range start {
		s.lanes[i].start = p
	}
	return s
}

// SetFaults is for tests.
func (s *Schedule[T]) SetFaults(f Faults) { s.faults = f }

// Lanes is how many there are.
func (s *Schedule[T]) Lanes() int { return len(s.lanes) }

// LaneOf is which of n lanes a footprint belongs to: hashes are spread by their high
// bits (multiply and shift).
func LaneOf(f Footprint, n int) int {
	return int((f.Home >> 32) * uint64(n) >> 32)
}

// Add dispatches one row change, or so many that are one item, with the place of the
// last and the footprint of all of them, in log order. It answers false when that is
// durable already: its lane's stored place is at or past it. The cost counts for Load until the
// watermark has passed the item.
func (s *Schedule[T]) Add(p change.Place, f Footprint, rows int, cost int64, work T) (laneIndex int, added bool) {
	at := LaneOf(f, len(s.lanes))
	l := &s.lanes[at]
	s.seq++
	if p.Compare(l.start) <= 0 && !s.faults.NoSkip {
		return at, false
	}
	item := Item[T]{Place: p, Work: work, seq: s.seq, rows: int32(rows), cost: cost}
	for _, k := range f.Touches {
		t := touch(s.last.swap(k, uint64(touchOf(at, s.seq)), s.pending))
		if t != 0 && t.lane() != at && s.pending(uint64(t)) && !s.faults.NoWaits {
			item.wait(t.lane(), t.seq())
		}
	}
	l.queue = push(l.queue, item)
	l.pending += rows
	s.marks.add(s.seq, rows, cost)
	return at, true
}

// pending: who touches the key of the touch next has to wait, unless in its lane.
func (s *Schedule[T]) pending(t uint64) bool {
	return touch(t).seq() > s.lanes[touch(t).lane()].durable
}

// push appends to a queue whose front is cut off all the time. append would grow
// it by a quarter, and copy each item five times.
func push[T any](q []Item[T], item Item[T]) []Item[T] {
	if len(q) == cap(q) {
		q = append(make([]Item[T], 0, 2*len(q)+64), q...)
	}
	return append(q, item)
}

// wait keeps one wait per lane: the later one covers the earlier.
func (i *Item[T]) wait(lane int, seq int64) {
	for w := i.waits; w != nil; w = w.next {
		if int(w.lane) == lane {
			w.seq = max(w.seq, seq)
			return
		}
	}
	i.waits = &wait{lane: int32(lane), seq: seq, next: i.waits}
}

// Pass gives something that belongs to no lane (the end of a transaction) its
// number: once Low reaches it, everything before it is durable.
func (s *Schedule[T]) Pass(cost int64) int64 {
	s.seq++
	s.marks.add(s.seq, 1, cost)
	return s.seq
}

// Limits of one batch. At least one item is always taken.
type Limits struct {
	Rows int
	Cost int64
}

// Take moves the next batch of a lane from its queue to its hands: the items up
// to the limits, and before the first one that has to wait. It answers nil when
// the lane has nothing to do, or has to wait for another lane, blocker; -1 else.
// A lane takes again only after Done.
func (s *Schedule[T]) Take(laneIndex int, limit Limits) (batch []Item[T], blocker int) {
	l := &s.lanes[laneIndex]
	if len(l.taken) > 0 {
		return l.taken, -1
	}
	var cost int64
	n, rows := 0, 0
	for n < len(l.queue) {
		item := &l.queue[n]
		if b := s.blocked(item); b >= 0 {
			if n == 0 {
				return nil, b
			}
			break
		}
		if n > 0 && (rows+item.Rows() > limit.Rows || cost+item.cost > limit.Cost) {
			break
		}
		cost += item.cost
		rows += item.Rows()
		n++
	}
	if n == 0 {
		return nil, -1
	}
	l.taken = l.queue[:n:n]
	l.queue = l.queue[n:]
	return l.taken, -1
}

func (s *Schedule[T]) blocked(item *Item[T]) int {
	for w := item.waits; w != nil; w = w.next {
		if s.lanes[w.lane].durable < w.seq {
			return int(w.lane)
		}
	}
	return -1
}

// Done says that what the lane had taken is durable, together with its place.
func (s *Schedule[T]) Done(laneIndex int) {
	l := &s.lanes[laneIndex]
	if len(l.taken) == 0 {
		return
	}
	for i := range l.taken {
		l.pending -= l.taken[i].Rows()
	}
	end := l.taken[len(l.taken)-1]
	l.durable, l.start = end.seq, end.Place
	l.taken = nil
	if len(l.queue) == 0 {
		l.queue = nil // let the array go
	}
}

// Turn says whether the lane may commit what it has taken: always, for what
// another lane has to see first is durable before it is taken.
func (s *Schedule[T]) Turn(int) bool { return true }

// Next is a lane that could take something and may not know: none, since Add
// says whose the work is.
func (s *Schedule[T]) Next() int { return -1 }

// Oldest is the number of the lane's oldest undurable item; 0: it has none.
func (s *Schedule[T]) Oldest(laneIndex int) int64 {
	l := &s.lanes[laneIndex]
	switch {
	case len(l.taken) > 0:
		return l.taken[0].seq
	case len(l.queue) > 0:
		return l.queue[0].seq
	}
	return 0
}

// Place is the lane's durable place.
func (s *Schedule[T]) Place(laneIndex int) change.Place { return s.lanes[laneIndex].start }

// Raise says that every change up to p is durable in every lane.
func (s *Schedule[T]) Raise(p change.Place) {
	for i := range s.lanes {
		if s.lanes[i].start.Compare(p) < 0 {
			s.lanes[i].start = p
		}
	}
}

// Pending is how many row changes a lane has not made durable.
func (s *Schedule[T]) Pending(laneIndex int) int { return s.lanes[laneIndex].pending }

// Idle says that everything dispatched is durable.
func (s *Schedule[T]) Idle() bool {
	for i := range s.lanes {
		if len(s.lanes[i].queue)+len(s.lanes[i].taken) > 0 {
			return false
		}
	}
	return true
}

// Low is the watermark: everything dispatched with a number up to it is durable.
func (s *Schedule[T]) Low() int64 {
	low := int64(math.MaxInt64)
	for i := range s.lanes {
		l := &s.lanes[i]
		switch {
		case len(l.taken) > 0:
			low = min(low, l.taken[0].seq-1)
		case len(l.queue) > 0:
			low = min(low, l.queue[0].seq-1)
		}
	}
	return min(low, s.seq)
}

// Load is the cost of everything above the watermark: what one slow lane keeps
// in memory, for the buffers behind it are shared by rows of all lanes.
func (s *Schedule[T]) Load() int64 { return s.marks.above(s.Low()) }

// marks remember what was dispatched, in coarse steps, until the watermark is past.
type marks struct {
	steps []mark
	total int64
}

type mark struct {
	seq  int64 // the newest in this step
	n    int   // rows
	cost int64
}

const markRows = 64

func (m *marks) add(seq int64, rows int, cost int64) {
	m.total += cost
	if n := len(m.steps); n > 0 && m.steps[n-1].n < markRows {
		s := &m.steps[n-1]
		s.seq, s.n, s.cost = seq, s.n+rows, s.cost+cost
		return
	}
	m.steps = append(m.steps, mark{seq: seq, n: rows, cost: cost})
}

func (m *marks) above(low int64) int64 {
	n := 0
	for n < len(m.steps) && m.steps[n].seq <= low {
		m.total -= m.steps[n].cost
		n++
	}
	m.steps = m.steps[n:]
	return m.total
}
