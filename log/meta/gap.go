package meta

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// GapMax bounds what one forced close may pass over.
const GapMax = 1 << 50

// lose makes the offsets behind the segment that was just closed a gap. Where that
// segment stayed empty the gap begins with it.
func (st *stream) lose(v *View, c *Close, l *Lost) error {
	for _, x := range st.Cursors {
		if x.Offset > l.To {
			return fmt.Errorf("group %q stands at %d, behind the loss up to %d: %w", x.Group, x.Offset, l.To, log.ErrProtocol)
		}
	}
	switch {
	case l.To <= c.Last || l.To-c.Last > GapMax:
		return fmt.Errorf("a loss from %d to %d: %w", c.Last+1, l.To, log.ErrProtocol)
	case st.live.count+st.kept.count >= SegmentsMax:
		return fmt.Errorf("there are %d segments already: %w", SegmentsMax, log.ErrFull)
	}
	st.pass(v, quorum.Descriptor{Epoch: st.Epoch, Generation: v.generation, Rule: st.Policy.Rule}, l.To, st.NextLSO, l.Reason, l.By)
	return nil
}

// pass lists a segment that nobody has, from where the stream ends up to to, and
// records the gap. lso is where transactions end behind it.
func (st *stream) pass(v *View, d quorum.Descriptor, to, lso log.Offset, reason, by string) {
	d.Stream, d.Segment, d.First, d.FirstLSO, d.Protected = st.Name, st.NextSegment, st.NextFirst, st.NextLSO, false
	st.live.push(&Segment{Descriptor: d, Closed: true, Last: to, LSO: lso, ClosedAt: v.now, Lost: true})
	st.NextSegment, st.NextFirst, st.NextLSO = d.Segment+1, to+1, lso
	st.gap(v, d.First, to, reason, by)
}

// gapsMax of a stream are remembered; the oldest are dropped.
const gapsMax = 1024

// salvage finds new holders for a closed segment that nobody is listed to hold: those
// who have all of it, and had not said so; else those with its longest prefix. What
// lies behind is lost, and recorded, and so is the whole where nobody has anything.
// left is from nodes that stay. It returns how many entries are lost.
//
// Of a damaged copy nobody knows here what can be read. It counts for how far it
// goes, because what it has is more than nothing and may be mended from others, but
// nobody is sent to it who could be sent to a good one.
func (st *stream) salvage(v *View, number uint32, left []Left, reason, by string) (lost int64) {
	c, p, ok := st.find(number)
	if !ok {
		return 0
	}
	s := *c.at(p)
	before, upto := s.Left(), s.First-1
	left = slices.DeleteFunc(slices.Clone(left), func(l Left) bool { return !v.stores(l.Node, l.UUID) })
	for _, l := range left {
		upto = min(max(upto, l.Last), before)
	}
	lost = int64(before - upto)
	if upto < s.First {
		s.Lost, s.Holders = true, nil
	} else {
		if s.Holders = v.holding(left, upto, false); len(s.Holders) == 0 {
			s.Holders = v.holding(left, upto, true)
		}
		if lost > 0 {
			s.LostTail, s.LeftLSO = s.LostTail+lost, s.FirstLSO
			for _, l := range left {
				if l.Last == upto && l.LSO >= s.First && l.LSO <= upto {
					s.LeftLSO = max(s.LeftLSO, l.LSO)
				}
			}
			s.Bytes = 0 // a holder tells
		}
	}
	c.replace(p, &s)
	if lost > 0 {
		st.forfeit(upto+1, before) // a window of it never ends with copies
		st.gap(v, upto+1, before, reason, by)
	}
	st.short = withShort(withShort(st.short, &s, false), &s, !s.Lost && !satisfies(s.Holders, st.Policy.Rule))
	return lost
}

// Is says that a descriptor is the segment's, not that of another one that bears its
// number.
func (s *Segment) Is(d *quorum.Descriptor) bool { return sameDescriptor(&s.Descriptor, d) }

// stores says that a node is registered under that identity, and not as a witness.
func (v *View) stores(node, uuid string) bool {
	n, known := v.Node(node)
	return known && n.UUID == uuid && !n.Witness
}

// holding are those who have a segment up to an entry, without damage or only with it.
func (v *View) holding(left []Left, upto log.Offset, damaged bool) (out []quorum.Member) {
	for _, l := range left {
		if l.Damaged != damaged || l.Last < upto || slices.ContainsFunc(out, func(m quorum.Member) bool { return m.Node == l.Node }) {
			continue
		}
		n, _ := v.Node(l.Node)
		out = append(out, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
	}
	slices.SortFunc(out, func(a, b quorum.Member) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// left is what replicas are of a segment, not of another one that bears its number.
func (st *stream) left(number uint32, replicas []Replica) (out []Left) {
	c, p, ok := st.find(number)
	if !ok {
		return nil
	}
	for i := range replicas {
		if r := &replicas[i]; sameDescriptor(&c.at(p).Descriptor, &r.Descriptor) {
			out = append(out, Left{r.Node, r.UUID, r.Last, r.LSO, r.Suspect && !r.Partial})
		}
	}
	return out
}

// gap records one, in its place. Neighbours are not joined: each has its reason.
func (st *stream) gap(v *View, from, to log.Offset, reason, by string) {
	short := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), reasonBytesMax)], "") }
	i, _ := slices.BinarySearchFunc(st.Gaps, from, func(g Gap, from log.Offset) int { return int(min(1, max(-1, g.From-from))) })
	st.Gaps = slices.Insert(slices.Clone(st.Gaps), i, Gap{From: from, To: to, Reason: short(reason), By: short(by), At: v.now})
	st.Gaps = st.Gaps[max(0, len(st.Gaps)-gapsMax):]
}
