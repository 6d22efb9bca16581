package meta

import (
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// What the lost nodes may have done by themselves before a takeover: confirmed
// entries that no survivor has, in a segment that the survivors do not cover or in
// one that they never heard of. Such an entry's offset must never come to mean
// another one, so the stream goes on behind a gap, as after a forced close.

// survivor is a node that goes on, as a takeover knows it.
type survivor struct{ node, uuid string }

// alone says that the nodes in lost may have confirmed entries of the stream that
// no survivor has. known: the survivors' metadata had the stream, so its policy is
// known. One whose policy is to block, and whose rule the lost could not meet, was
// confirmed nowhere else than in segments that the survivors cover.
func (st *stream) alone(known bool, survivors []survivor, replicas []Replica, lost []quorum.Member) bool {
	if s := st.open(); s != nil && !st.covered(s, survivors, replicas) {
		return true
	}
	if len(lost) == 0 { // of those that store
		return false
	}
	newest := st.live.last(0)
	return !known || st.Policy.Loss != LossBlock || len(st.Degraded) > 0 || newest != nil && !newest.Lost && !newest.Protected || satisfies(lost, st.Policy.Rule)
}

// covered says that nothing of an open segment can have been confirmed without a
// survivor that still has it. One that never heard of the segment has none of it,
// and knows so.
func (st *stream) covered(s *Segment, survivors []survivor, replicas []Replica) bool {
	q, err := s.Quorum()
	if err != nil {
		return false
	}
	var have uint64
	for _, x := range survivors {
		if i := s.Index(x.node, x.uuid); i >= 0 {
			have |= 1 << i
		}
	}
	for _, r := range replicas {
		i := s.Index(r.Node, r.UUID)
		if i < 0 || r.Descriptor.Stream != s.Stream || r.Descriptor.Segment != s.Segment {
			continue
		}
		if have |= 1 << i; r.Suspect {
			have &^= 1 << i
		}
	}
	return q.Covers(have)
}

// leap ends the open segment at the newest entry that any survivor has, and lets
// the stream go on behind a gap. Nothing that a survivor has is given up.
func (st *stream) leap(v *View, replicas []Replica, pass log.Offset, reason string) {
	if s := st.open(); s != nil {
		var here []Replica
		last, lso := s.First-1, s.FirstLSO
		for _, r := range replicas {
			if r.Descriptor.Stream != s.Stream || r.Descriptor.Segment != s.Segment {
				continue
			}
			// A damaged copy does not say where the segment ends, but what it has
			// is there, but for what is damaged: it is not given up.
			if here = append(here, r); r.Last > last {
				if last, lso = r.Last, s.FirstLSO; r.LSO >= s.First && r.LSO <= r.Last {
					lso = r.LSO
				}
			}
		}
		st.shut(v, last, lso, here)
	}
	to := st.NextFirst - 1
	for _, c := range st.Cursors { // what a group took over was confirmed
		to = max(to, c.Offset)
	}
	st.pass(v, quorum.Descriptor{Epoch: st.Epoch, Generation: v.generation, Rule: st.Policy.Rule}, to+pass, st.NextLSO, reason, "")
}

// after is what a takeover has left to do when the lost nodes are forgotten: to let
// streams that may have gone on without the survivors go on behind a gap, and to
// say of closed segments what nobody has of them any more.
func (v *View) after(base *View, x *Succession, survivors []survivor, lost []quorum.Member) {
	reason := "takeover: " + x.Reason
	byStream := map[string][]Replica{}
	for _, r := range x.Replicas {
		if slices.ContainsFunc(survivors, func(s survivor) bool { return s.node == r.Node }) {
			byStream[r.Descriptor.Stream] = append(byStream[r.Descriptor.Stream], r)
		}
	}
	for _, name := range v.streams.keys() {
		st, _ := v.streams.get(name)
		next, here := *st, byStream[name]
		_, known := base.streams.get(name)
		care := func() {
			for _, n := range next.orphans() {
				next.salvage(v, n, next.left(n, here), reason, "")
			}
		}
		care()
		if next.alone(known, survivors, here, lost) {
			next.leap(v, here, x.Pass, reason)
			care() // of what was just closed
		}
		next.short = next.allShort()
		next.settle(v)
		v.streams.put(name, &next)
	}
}

// orphans are the numbers of the closed segments that nobody is listed to hold.
func (st *stream) orphans() (out []uint32) {
	for _, c := range []chain{st.kept, st.live} {
		c.each(place{}, func(s *Segment) bool {
			if s.Closed && !s.Lost && len(s.Holders) == 0 {
				out = append(out, s.Segment)
			}
			return true
		})
	}
	return out
}
