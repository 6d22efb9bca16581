package causality

import (
	"github.com/twinspan/twinspan/change"
)

// Sequence is the schedule of Ordered: lanes take groups of consecutive
// transactions, work on them at the same time, and commit them one after the
// other. So what is durable is at every instant all of the log up to some
// transaction's end, and each commit moves that end. A number counts everything
// that was dispatched, from 1, as in Schedule.
//
// Its invariants:
//   - the groups in the lanes' hands are consecutive in the log, and the queue
//     follows the last of them;
//   - a group is worked on only when every earlier change of each key that it
//     touches is durable, or is in the same group;
//   - only the oldest group may be committed; so the highest of the lanes' stored
//     places tells what is durable, whichever lane had which group.
type Sequence[T any] struct {
	lanes   []change.Place // stored
	top     change.Place   // the highest of them: everything up to it is durable
	queue   []Item[T]      // dispatched, not taken
	queued  int            // rows in the queue
	groups  []group[T]     // in the lanes' hands, oldest first; at most one a lane
	last    latest         // the newest item of each key
	durable int64          // every item up to this number is
	seq     int64
	marks   marks

	faults Faults
}

type group[T any] struct {
	lane  int
	items []Item[T]
}

// NewSequence makes a schedule for lanes whose places were read from the target.
func NewSequence[T any](start []change.Place) *Sequence[T] {
	s := &Sequence[T]{lanes: append([]change.Place(nil), start...), top: Start}
	for _, p := range start {
		if p.Compare(s.top) > 0 {
			s.top = p
		}
	}
	return s
}

// SetFaults is for tests.
func (s *Sequence[T]) SetFaults(f Faults) { s.faults = f }

// Lanes is how many there are.
func (s *Sequence[T]) Lanes() int { return len(s.lanes) }

// Add dispatches a transaction, as Schedule's does. The lane is one that may
// take it.
func (s *Sequence[T]) Add(p change.Place, f Footprint, rows int, cost int64, work T) (laneIndex int, added bool) {
	s.seq++
	if p.Compare(s.top) <= 0 && !s.faults.NoSkip {
		return max(s.free(), 0), false
	}
	item := Item[T]{Place: p, Work: work, seq: s.seq, rows: int32(rows), cost: cost}
	for _, k := range f.Touches {
		after := int64(s.last.swap(k, uint64(s.seq), s.pending))
		if after > s.durable && after != s.seq && !s.faults.NoWaits {
			item.after(after, s.faults.Newest)
		}
	}
	s.queue = push(s.queue, item)
	s.queued += rows
	s.marks.add(s.seq, rows, cost)
	return max(s.free(), 0), true
}

// pending: who touches the key that this item touched has to come after it.
func (s *Sequence[T]) pending(seq uint64) bool { return int64(seq) > s.durable }

// after keeps every wait, not just the newest: that one may come to be in the
// item's own group, and an older one in a lane's hands.
func (i *Item[T]) after(seq int64, newestOnly bool) {
	for w := i.waits; w != nil; w = w.next {
		if w.seq == seq || newestOnly && w.seq > seq {
			return
		}
	}
	w := &wait{seq: seq, next: i.waits}
	if newestOnly {
		w.next = nil
	}
	i.waits = w
}

// Pass gives something that belongs to no lane its number, as Schedule's does.
func (s *Sequence[T]) Pass(cost int64) int64 {
	s.seq++
	s.marks.add(s.seq, 1, cost)
	return s.seq
}

// free is the first lane with empty hands; -1: none.
func (s *Sequence[T]) free() int {
	var busy uint64 // of the first 64; more are found one by one
	for _, g := range s.groups {
		if g.lane < 64 {
			busy |= 1 << g.lane
		}
	}
	for i := range s.lanes {
		if i < 64 && busy&(1<<i) == 0 || i >= 64 && s.groupOf(i) < 0 {
			return i
		}
	}
	return -1
}

func (s *Sequence[T]) groupOf(laneIndex int) int {
	for i := range s.groups {
		if s.groups[i].lane == laneIndex {
			return i
		}
	}
	return -1
}

// pipeline is how many groups are under way before a group has to be worth it:
// one is being committed, and the next is ready when that is over. Commits come
// one after the other, so more of them, and smaller, would only make a longer queue.
const pipeline = 2

// Take moves the next group into the lane's hands: consecutive transactions up
// to the limits. It stops before one that has to wait for a group in another
// lane's hands, unless what it has by then is little: then all of it had better
// wait and grow, for commits are what is scarce. It answers nil when there is
// nothing to do, or when it has to wait for another lane's commit, blocker.
func (s *Sequence[T]) Take(laneIndex int, limit Limits) (batch []Item[T], blocker int) {
	if g := s.groupOf(laneIndex); g >= 0 {
		return s.groups[g].items, -1
	}
	if len(s.queue) == 0 {
		return nil, -1
	}
	worth := max(1, limit.Rows/4)
	if len(s.groups) >= pipeline && s.queued < worth {
		return nil, s.groups[0].lane
	}
	var cost int64
	n, rows := 0, 0
	for n < len(s.queue) {
		item := &s.queue[n]
		if n > 0 && (rows+item.Rows() > limit.Rows || cost+item.cost > limit.Cost) {
			break
		}
		if b := s.blocked(item); b >= 0 {
			if rows < worth {
				return nil, b
			}
			break
		}
		cost += item.cost
		rows += item.Rows()
		n++
	}
	g := group[T]{lane: laneIndex, items: s.queue[:n:n]}
	s.queue = s.queue[n:]
	s.queued -= rows
	if len(s.queue) == 0 {
		s.queue = nil // let the array go
	}
	s.groups = append(s.groups, g)
	return g.items, -1
}

// blocked is the lane whose group the item has to wait for, the newest of them;
// -1: none, or what it waits for goes into the same group.
func (s *Sequence[T]) blocked(item *Item[T]) int {
	lane, newest := -1, int64(0)
	for w := item.waits; w != nil; w = w.next {
		if w.seq <= max(s.durable, newest) {
			continue
		}
		for _, g := range s.groups {
			if w.seq <= g.items[len(g.items)-1].seq {
				lane, newest = g.lane, w.seq
				break
			}
		}
	}
	return lane
}

// Turn says whether the lane may commit what it has in its hands.
func (s *Sequence[T]) Turn(laneIndex int) bool {
	return len(s.groups) > 0 && s.groups[0].lane == laneIndex || s.faults.NoOrder
}

// Next is a lane with empty hands while something is queued; -1: none.
func (s *Sequence[T]) Next() int {
	if len(s.queue) == 0 {
		return -1
	}
	return s.free()
}

// Done says that what the lane has in its hands, which it had the turn for, is
// durable together with its place.
func (s *Sequence[T]) Done(laneIndex int) {
	at := s.groupOf(laneIndex)
	if at < 0 {
		return
	}
	items := s.groups[at].items
	end := items[len(items)-1]
	s.lanes[laneIndex] = end.Place
	s.groups = append(s.groups[:at], s.groups[at+1:]...)
	if at == 0 || s.faults.NoOrder {
		s.durable = max(s.durable, end.seq)
		if end.Place.Compare(s.top) > 0 {
			s.top = end.Place
		}
	}
}

// Place is the lane's durable place.
func (s *Sequence[T]) Place(laneIndex int) change.Place { return s.lanes[laneIndex] }

// Raise says that every change up to p is durable.
func (s *Sequence[T]) Raise(p change.Place) {
	if p.Compare(s.top) > 0 {
		s.top = p
	}
}

// Pending is how many items are in a lane's hands.
func (s *Sequence[T]) Pending(laneIndex int) int {
	if g := s.groupOf(laneIndex); g >= 0 {
		return len(s.groups[g].items)
	}
	return 0
}

// Oldest is the number of the oldest item in the lane's hands; 0: it has none.
func (s *Sequence[T]) Oldest(laneIndex int) int64 {
	if g := s.groupOf(laneIndex); g >= 0 {
		return s.groups[g].items[0].seq
	}
	return 0
}

// Idle says that everything dispatched is durable.
func (s *Sequence[T]) Idle() bool { return len(s.queue) == 0 && len(s.groups) == 0 }

// Low is the watermark, as Schedule's.
func (s *Sequence[T]) Low() int64 {
	switch {
	case len(s.groups) > 0:
		return s.groups[0].items[0].seq - 1
	case len(s.queue) > 0:
		return s.queue[0].seq - 1
	}
	return s.seq
}

// Load is the cost of everything above the watermark.
func (s *Sequence[T]) Load() int64 { return s.marks.above(s.Low()) }
