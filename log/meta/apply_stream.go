package meta

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

func checkPolicy(p Policy) error {
	switch p.Loss {
	case LossBlock, LossDegradeManual, LossDegradeAfter:
	default:
		return fmt.Errorf("policy %q on the loss of a city: %w", p.Loss, log.ErrProtocol)
	}
	if p.Rule.Total < 0 || p.Rule.Total > quorum.NodesMax || len(p.Rule.Cities) > quorum.NodesMax {
		return fmt.Errorf("rule %q: %w", p.Rule, log.ErrProtocol)
	}
	for city, n := range p.Rule.Cities {
		if err := checkName("city", city); err != nil {
			return err
		}
		if n < 1 || n > quorum.NodesMax {
			return fmt.Errorf("rule %q: %w", p.Rule, log.ErrProtocol)
		}
	}
	if p.After < 0 || p.BytesMax < 0 || p.AgeMax < 0 || p.BytesCap < 0 {
		return fmt.Errorf("policy with a limit below 0: %w", log.ErrProtocol)
	}
	return nil
}

func (v *View) create(c *Create) error {
	if err := checkName("stream", c.Stream); err != nil {
		return err
	}
	if _, known := v.streams.get(c.Stream); known {
		return nil
	}
	if err := checkPolicy(c.Policy); err != nil {
		return err
	}
	if v.streams.count >= StreamsMax {
		return fmt.Errorf("there are %d streams already: %w", StreamsMax, log.ErrFull)
	}
	v.streams.put(c.Stream, &stream{Stream: Stream{
		Name: c.Stream, Policy: c.Policy, Version: 1, NextSegment: 1, NextFirst: 0, NextLSO: log.None,
	}})
	return nil
}

func (st *stream) setPolicy(v *View, p Policy) (bool, error) {
	if err := checkPolicy(p); err != nil {
		return false, err
	}
	st.Policy = p
	st.short = st.allShort()
	st.settle(v)
	return true, nil
}

// allShort finds the segments that have too few copies for the policy, all anew.
func (st *stream) allShort() []short {
	var out []short
	for _, c := range []chain{st.kept, st.live} {
		c.each(place{}, func(s *Segment) bool {
			if s.Closed && !s.Lost && !satisfies(s.Holders, st.Policy.Rule) {
				out = append(out, short{s.Segment, s.First, s.Left()})
			}
			return true
		})
	}
	return out
}

func (st *stream) own(o *Own) (bool, error) {
	if len(o.Owner) > NameBytesMax {
		return false, fmt.Errorf("an owner's name of %d bytes: %w", len(o.Owner), log.ErrProtocol)
	}
	st.Epoch++
	st.Owner = o.Owner
	return true, nil
}

func (st *stream) degrade(d *Degrade) (bool, error) {
	if err := checkName("city", d.City); err != nil {
		return false, err
	}
	i, found := slices.BinarySearch(st.Degraded, d.City)
	switch {
	case d.Off && found:
		st.Degraded = slices.Delete(slices.Clone(st.Degraded), i, i+1)
	case d.Off || found:
		return false, nil
	case st.Policy.Loss == LossBlock:
		return false, fmt.Errorf("its policy is to block, set %s first: %w", LossDegradeManual, log.ErrProtocol)
	case len(st.Degraded) >= quorum.NodesMax:
		return false, fmt.Errorf("%d cities: %w", len(st.Degraded), log.ErrFull)
	default:
		st.Degraded = slices.Insert(slices.Clone(st.Degraded), i, d.City)
	}
	return true, nil
}

func (st *stream) advance(v *View, a *Advance) (bool, error) {
	switch {
	case a.Close == nil && a.Open == nil:
		return false, fmt.Errorf("neither closes nor opens: %w", log.ErrProtocol)
	case a.Lost != nil && (a.Close == nil || a.Open != nil):
		return false, fmt.Errorf("accepts a loss without just closing: %w", log.ErrProtocol)
	case a.Epoch < st.Epoch:
		return false, fmt.Errorf("epoch %d, the newest is %d, of %q: %w", a.Epoch, st.Epoch, st.Owner, log.ErrFenced)
	case a.Epoch > st.Epoch:
		return false, fmt.Errorf("epoch %d was never given out, the newest is %d: %w", a.Epoch, st.Epoch, log.ErrProtocol)
	}
	closed := false // as asked for, before
	if a.Close != nil {
		var err error
		if closed, err = st.wasClosed(a.Close); err != nil {
			return false, err
		}
	}
	if a.Open != nil && a.Open.Segment < st.NextSegment {
		c, p, ok := st.find(a.Open.Segment)
		if !ok || !sameDescriptor(&c.at(p).Descriptor, a.Open) || (a.Close != nil && !closed) {
			return false, fmt.Errorf("segment %d was opened before, and otherwise: %w", a.Open.Segment, log.ErrProtocol)
		}
		return false, nil
	}
	if a.Close != nil && !closed {
		if err := st.close(v, a.Close, a.Reason); err != nil {
			return false, fmt.Errorf("close segment %d: %w", a.Close.Segment, err)
		}
		if a.Lost != nil {
			if err := st.lose(v, a.Close, a.Lost); err != nil {
				return false, fmt.Errorf("close segment %d: %w", a.Close.Segment, err)
			}
		}
	}
	if a.Open != nil {
		if err := st.start(v, a); err != nil {
			return false, fmt.Errorf("open segment %d: %w", a.Open.Segment, err)
		}
	}
	if closed && a.Open == nil {
		return false, nil
	}
	st.settle(v)
	return true, nil
}

// wasClosed says that the segment was closed before, and just so.
func (st *stream) wasClosed(c *Close) (bool, error) {
	ch, p, ok := st.find(c.Segment)
	switch {
	case ok && !ch.at(p).Closed:
		return false, nil
	case ok && ch.at(p).Last == c.Last && ch.at(p).LSO == c.LSO:
		return true, nil
	case !ok && c.Segment == st.emptied && c.Last == st.end:
		return true, nil
	case !ok && c.Segment >= st.NextSegment:
		return false, fmt.Errorf("close segment %d: it was never opened: %w", c.Segment, log.ErrProtocol)
	}
	return false, fmt.Errorf("close segment %d at %d: it was closed before, and otherwise: %w", c.Segment, c.Last, log.ErrProtocol)
}

func sameDescriptor(a, b *quorum.Descriptor) bool {
	return a.Stream == b.Stream && a.Segment == b.Segment && a.First == b.First && a.FirstLSO == b.FirstLSO && a.Epoch == b.Epoch &&
		a.Generation == b.Generation && a.Protected == b.Protected && slices.Equal(a.Members, b.Members) &&
		a.Rule.Total == b.Rule.Total && maps.Equal(a.Rule.Cities, b.Rule.Cities)
}

// close closes the open segment. The caller settles.
func (st *stream) close(v *View, c *Close, reason string) error {
	s := st.open()
	if s == nil || s.Segment != c.Segment {
		return fmt.Errorf("it is not the open one: %w", log.ErrProtocol)
	}
	if c.Last < s.First-1 || c.Bytes < 0 || c.LSO > c.Last || c.LSO < s.First && c.LSO != s.FirstLSO {
		return fmt.Errorf("last %d and LSO %d, after first %d with %d: %w", c.Last, c.LSO, s.First, s.FirstLSO, log.ErrProtocol)
	}
	if c.Last < s.First {
		st.emptied, st.end = s.Segment, c.Last
		st.live.pop()
		if !s.Protected {
			st.endWindow(s.First-1, v)
		}
		return nil
	}
	holders, err := v.holders(c.Holders)
	if err != nil {
		return err
	}
	if before := st.live.last(1); before != nil && slices.Equal(before.Holders, holders) {
		holders = before.Holders
	}
	next := *s
	next.Closed, next.Last, next.LSO, next.Bytes, next.ClosedAt, next.Holders = true, c.Last, c.LSO, c.Bytes, v.now, holders
	p, _ := st.live.find(s.Segment)
	st.live.replace(p, &next)
	st.NextFirst, st.NextLSO = c.Last+1, c.LSO
	full := satisfies(holders, st.Policy.Rule)
	st.short = withShort(st.short, &next, !full)
	switch {
	case !s.Protected:
		st.endWindow(c.Last, v)
	case !full:
		st.widen(s.First, c.Last, reason, "closed with too few copies", v)
	}
	return nil
}

// holders are those of the list that are registered and store, each node once.
// The list is bounded by the nodes there are.
func (v *View) holders(list []quorum.Member) ([]quorum.Member, error) {
	if len(list) > NodesMax {
		return nil, fmt.Errorf("%d holders: %w", len(list), log.ErrProtocol)
	}
	var out []quorum.Member
	for _, m := range list {
		n, known := v.Node(m.Node)
		if known && n.UUID == m.UUID && !n.Witness && !slices.ContainsFunc(out, func(o quorum.Member) bool { return o.Node == m.Node }) {
			out = append(out, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("none of the %d holders is registered: %w", len(list), log.ErrStale)
	}
	slices.SortFunc(out, func(a, b quorum.Member) int { return strings.Compare(a.Node, b.Node) })
	return out, nil
}

// start opens the next segment.
func (st *stream) start(v *View, a *Advance) error {
	d := *a.Open
	if s := st.open(); s != nil {
		return fmt.Errorf("segment %d is open: %w", s.Segment, log.ErrProtocol)
	}
	switch {
	case d.Stream != st.Name || d.Epoch != a.Epoch:
		return fmt.Errorf("its stream is %q, its epoch %d: %w", d.Stream, d.Epoch, log.ErrProtocol)
	case d.Segment != st.NextSegment || d.First != st.NextFirst || d.FirstLSO != st.NextLSO:
		return fmt.Errorf("it starts at %d with LSO %d, the next is %d at %d with LSO %d: %w",
			d.First, d.FirstLSO, st.NextSegment, st.NextFirst, st.NextLSO, log.ErrProtocol)
	case st.live.count+st.kept.count >= SegmentsMax:
		return fmt.Errorf("there are %d segments already: %w", SegmentsMax, log.ErrFull)
	case d.Generation != v.generation:
		return fmt.Errorf("it is of generation %d, the cluster of %d: %w", d.Generation, v.generation, log.ErrStale)
	}
	for i, m := range d.Members {
		n, known := v.Node(m.Node)
		switch {
		case !known || n.UUID != m.UUID || n.City != m.City:
			return fmt.Errorf("node %q with directory %s in city %q is not registered: %w", m.Node, m.UUID, m.City, log.ErrStale)
		case n.Drained || n.Witness:
			return fmt.Errorf("node %q is drained, or stores nothing: %w", m.Node, log.ErrStale)
		case slices.ContainsFunc(d.Members[:i], func(o quorum.Member) bool { return o.Node == m.Node }):
			return fmt.Errorf("node %q twice: %w", m.Node, log.ErrProtocol)
		}
	}
	if err := checkPolicy(Policy{Rule: d.Rule, Loss: LossBlock}); err != nil {
		return err
	}
	if _, err := d.Quorum(); err != nil {
		return err
	}
	switch {
	case d.Protected && !atLeast(d.Rule, st.Policy.Rule):
		return fmt.Errorf("as protected with the rule %q, the policy's is %q: %w", d.Rule, st.Policy.Rule, log.ErrStale)
	case !d.Protected && st.Policy.Loss != LossDegradeAfter && len(st.Degraded) == 0:
		return fmt.Errorf("unprotected: policy %s, and no city was given up: %w", st.Policy.Loss, log.ErrStale)
	}
	d.Members = slices.Clone(d.Members)
	d.Rule.Cities = maps.Clone(d.Rule.Cities)
	if before := st.live.last(0); before != nil { // most segments are like the one before: keep one copy
		if slices.Equal(before.Members, d.Members) {
			d.Members = before.Members
		}
		if maps.Equal(before.Rule.Cities, d.Rule.Cities) {
			d.Rule.Cities = before.Rule.Cities
		}
	}
	st.live.push(&Segment{Descriptor: d})
	st.NextSegment++
	if !d.Protected {
		st.widen(d.First, log.None, a.Reason, "opened without the full rule", v)
	}
	return nil
}

func (st *stream) held(v *View, h *Held) (bool, error) {
	c, p, ok := st.find(h.Segment)
	switch {
	case !ok && h.Segment < st.NextSegment && h.Segment > 0:
		return false, fmt.Errorf("segment %d: %w", h.Segment, log.ErrTrimmed)
	case !ok:
		return false, fmt.Errorf("segment %d was never opened: %w", h.Segment, log.ErrProtocol)
	case !c.at(p).Closed:
		return false, fmt.Errorf("segment %d is open: %w", h.Segment, log.ErrProtocol)
	case c.at(p).Lost:
		return false, fmt.Errorf("segment %d is lost: %w", h.Segment, log.ErrTrimmed)
	}
	s := *c.at(p)
	i := slices.IndexFunc(s.Holders, func(m quorum.Member) bool { return m.Node == h.Member.Node })
	switch {
	case h.Lost && (i < 0 || s.Holders[i].UUID != h.Member.UUID):
		return false, nil
	case h.Lost && len(s.Holders) == 1:
		return false, fmt.Errorf("segment %d: node %q is the last that holds it: %w", h.Segment, h.Member.Node, log.ErrProtocol)
	case h.Lost:
		s.Holders = slices.Delete(slices.Clone(s.Holders), i, i+1)
	default:
		n, known := v.Node(h.Member.Node)
		if !known || n.UUID != h.Member.UUID || n.Witness {
			return false, fmt.Errorf("segment %d: node %q with directory %s is not registered to store: %w", h.Segment, h.Member.Node, h.Member.UUID, log.ErrStale)
		}
		sized := s.Bytes == 0 && h.Bytes > 0
		if sized {
			s.Bytes = h.Bytes
		}
		if i >= 0 {
			if sized {
				c.replace(p, &s)
			}
			return sized, nil
		}
		s.Holders = append(slices.Clip(s.Holders), quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
		slices.SortFunc(s.Holders, func(a, b quorum.Member) int { return strings.Compare(a.Node, b.Node) })
	}
	c.replace(p, &s)
	st.short = withShort(st.short, &s, !satisfies(s.Holders, st.Policy.Rule))
	st.settle(v)
	return true, nil
}

// disown takes a node from all holders; orphans are segments that have none left.
func (st *stream) disown(v *View, node string) (changed bool, orphans []uint32) {
	is := func(m quorum.Member) bool { return m.Node == node }
	for _, c := range []*chain{&st.kept, &st.live} {
		from := *c
		from.each(place{}, func(s *Segment) bool {
			if !slices.ContainsFunc(s.Holders, is) {
				return true
			}
			next := *s
			next.Holders = slices.DeleteFunc(slices.Clone(s.Holders), is)
			if len(next.Holders) == 0 {
				orphans = append(orphans, s.Segment)
			}
			p, _ := c.find(s.Segment)
			c.replace(p, &next)
			changed = true
			return true
		})
	}
	if changed {
		st.short = st.allShort()
	}
	return changed, orphans
}

func (st *stream) putCursor(v *View, p *PutCursor) (bool, error) {
	c := p.Cursor
	if err := checkName("group", c.Group); err != nil {
		return false, err
	}
	i, known := slices.BinarySearchFunc(st.Cursors, c.Group, func(c log.Cursor, g string) int { return strings.Compare(c.Group, g) })
	if p.Remove {
		if known {
			st.Cursors = slices.Delete(slices.Clone(st.Cursors), i, i+1)
		}
		return known, nil
	}
	if c.UpdatedAt.IsZero() {
		c.UpdatedAt = v.now
	}
	c.UpdatedAt = c.UpdatedAt.UTC().Round(0)
	if known && st.Cursors[i] == c {
		return false, nil
	}
	bytes := len(c.Group) + len(c.GTIDSet)
	for _, o := range st.Cursors {
		if o.Group != c.Group {
			bytes += len(o.Group) + len(o.GTIDSet)
		}
	}
	switch {
	case c.Offset < log.None || !utf8.ValidString(c.GTIDSet):
		return false, fmt.Errorf("no such place: %w", log.ErrProtocol)
	case st.open() == nil && c.Offset >= st.NextFirst:
		return false, fmt.Errorf("the stream ends at %d: %w", st.NextFirst-1, log.ErrProtocol)
	case known && c.Offset < st.Cursors[i].Offset && !p.Seek:
		return false, fmt.Errorf("it is at %d: %w", st.Cursors[i].Offset, log.ErrCursorBehind)
	case bytes > CursorBytesMax:
		return false, fmt.Errorf("the stream's cursors would take %d bytes: %w", bytes, log.ErrTooLarge)
	case !known && len(st.Cursors) >= CursorsMax:
		return false, fmt.Errorf("the stream has %d cursors already: %w", CursorsMax, log.ErrFull)
	case known:
		st.Cursors = slices.Clone(st.Cursors)
		st.Cursors[i] = c
	default:
		st.Cursors = slices.Insert(slices.Clone(st.Cursors), i, c)
	}
	return true, nil
}
