package sim

import (
	"bytes"
	"time"

	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// takeover: a city is lost, and the majority of the metadata with it. The
// survivors start a new generation from what they know, which may be old; later
// the city returns as it was. Only where the real metadata runs, and what is closed
// can be rebuilt: the survivors hold all of it, or at times what they have of it is left
// and the rest is lost. What is open they need not cover, and there may be segments that
// they never heard of: then the stream goes on behind a gap.
func (w *world) takeover(d *rng, long int64) {
	w.loseFor(d, uint8(d.n(len(w.lay.cities))), 4, long)
}

// wentAlone: the metadata has opened a segment in one city alone. That city may be
// lost soon, without the other one's ever hearing of it.
func (w *world) wentAlone(s *segment) {
	if w.mirror == nil || s.protected || len(s.nodes) == 0 || !w.dice.oneIn(3) {
		return
	}
	for _, n := range s.nodes {
		if w.nodes[n].city != w.nodes[s.nodes[0]].city {
			return
		}
	}
	w.push(event{at: w.now + w.dice.between(2000, 20000), kind: evAlone, seg: s.idx})
}

// alone: it is lost, unless the segment is closed by now; or a little later, when the
// others are up.
func (w *world) alone(idx int32) {
	s := w.segs[idx]
	if !s.known || s.closed || s.gone || w.calm {
		return
	}
	if d := &w.dice; !w.loseFor(d, w.nodes[s.nodes[0]].city, 200, w.dice.between(20000, 100000)) {
		w.push(event{at: w.now + 10000, kind: evAlone, seg: idx})
	}
}

// loseFor loses a city. age: the survivors' metadata may be so many commands old.
func (w *world) loseFor(d *rng, city uint8, age int, long int64) bool {
	gone := func(n *node) bool { return n.city == city }
	closed := w.events%4 == 0 // with segments that only the city's nodes had all of
	if w.mirror == nil || len(w.mirror.views) == 0 || len(w.lay.cities) < 2 || !w.bears(gone, nothing, d.oneIn(2), closed) {
		return false
	}
	for i := range w.nodes[:w.count] {
		if n := &w.nodes[i]; w.meta.nodes[i] != n.inc || n.gen != w.meta.gen || !gone(n) && !n.up {
			return false
		}
	}
	view := w.survivors(d, city, age)
	if closed && !w.bears(gone, nothing, true, false) {
		view = len(w.mirror.views) - 1 // disks were lost besides the city, and who has new ones has heard the news
	}
	if w.trace != nil {
		w.tracef("takeover without city %s, the metadata is %d commands old", cityNames[city], len(w.mirror.views)-1-view)
	}
	for i := range w.nodes[:w.count] { // the survivors are stopped
		if n := &w.nodes[i]; !gone(n) {
			w.crash(n, -1)
			w.restart(n)
		}
	}
	seed := w.seed(w.mirror.views[view], city)
	if !w.bearable(seed, gone) {
		return false
	}
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if gone(n) {
			w.crash(n, -1)
			w.later(evNodeUp, n.idx, long)
		} else {
			n.gen = uint32(seed.Generation)
		}
	}
	if w.succeed(seed, city) {
		w.leaps++
		w.lead()
	}
	w.takeovers++
	w.start()
	return true
}

// survivors picks how old the survivors' metadata is: at least as new as anything
// that one of them has acted on, and as the disks that they have now: one with a new
// disk votes again once it has heard of its own registration.
func (w *world) survivors(d *rng, city uint8, age int) int {
	newest := len(w.mirror.views) - 1
	oldest := newest - d.n(age)
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if n.city == city {
			continue
		}
		oldest = max(oldest, w.meta.since[i])
		if n.seen != nil {
			oldest = max(oldest, n.seen.at)
		}
	}
	for _, idx := range w.meta.listed { // what was closed below its rule may not be found again
		if s := w.segs[idx]; s.closed && (s.partial || !s.protected || s.lost) {
			return newest
		}
	}
	return min(max(oldest, 0), newest)
}

// seed makes the metadata of the next generation, as an operator would.
func (w *world) seed(v *meta.View, city uint8) meta.Seed {
	var state bytes.Buffer
	truth := v
	if w.bug == BugTakeoverReuses {
		v = w.changed(v, nil)
	}
	if err := v.Save(&state); err != nil {
		w.violate(0, "takeover: %v", err)
	}
	var exports []meta.Export
	var voters []meta.Peer
	var lost []meta.Node // by the cluster's list, which old metadata may be behind
	var replicas []meta.Replica
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		m := w.member(n.idx, n.inc)
		if n.city == city {
			lost = append(lost, meta.Node{Name: m.Node, City: m.City})
			continue
		}
		voters = append(voters, meta.Peer{Name: m.Node, Address: m.Node + ":1"})
		exports = append(exports, meta.Export{Node: m.Node, UUID: m.UUID, Generation: v.Generation(), Index: 1, Term: 1, TermSeen: 1, State: state.Bytes()})
		for _, r := range n.live {
			if !r.disk.made || r.dropped {
				continue
			}
			s := r.m.State()
			if w.bug == BugTakeoverBuries && s.Closed && s.Last < s.End {
				continue
			}
			replicas = append(replicas, meta.Replica{
				Node: m.Node, UUID: m.UUID, Descriptor: r.seg.desc, Fence: s.Fence, Last: s.Last, LAC: s.LAC, LSO: off(r.lso),
				Closed: s.Closed, ClosedLast: s.End, ClosedLSO: s.EndLSO, Suspect: s.Suspect,
			})
		}
	}
	seed, err := meta.MakeSeed(meta.Succession{Exports: exports, Replicas: replicas, Voters: voters, Lost: lost, Reason: "lost", Now: time.UnixMicro(w.now), Pass: lostEntries})
	if err != nil {
		w.violate(7, "takeover: %v", err)
	}
	if w.bug == BugTakeoverReuses {
		taken, err := meta.Load(bytes.NewReader(seed.State))
		if err != nil {
			w.violate(7, "takeover: %v", err)
		}
		st, _ := truth.Stream(streamName)
		state.Reset()
		if err := w.changed(taken.View(), &st).Save(&state); err != nil {
			w.violate(7, "takeover: %v", err)
		}
		seed.State = state.Bytes()
	}
	return seed
}

// changed is a view with the policy of another one; nil: as if the stream's rule had
// always asked for both cities.
func (w *world) changed(v *meta.View, to *meta.Stream) *meta.View {
	var b bytes.Buffer
	if err := v.Save(&b); err != nil {
		w.violate(0, "takeover: %v", err)
	}
	state, err := meta.Load(&b)
	if err != nil {
		w.violate(0, "takeover: %v", err)
	}
	st, _ := v.Stream(streamName)
	var commands []meta.Command
	if to != nil {
		commands = append(commands, meta.Command{SetPolicy: &meta.SetPolicy{Stream: streamName, Policy: to.Policy}})
		for _, city := range to.Degraded {
			commands = append(commands, meta.Command{Degrade: &meta.Degrade{Stream: streamName, City: city}})
		}
	} else {
		for _, city := range st.Degraded {
			commands = append(commands, meta.Command{Degrade: &meta.Degrade{Stream: streamName, City: city, Off: true}})
		}
		st.Policy.Loss = meta.LossBlock
		commands = append(commands, meta.Command{SetPolicy: &meta.SetPolicy{Stream: streamName, Policy: st.Policy}})
	}
	for _, c := range commands {
		if _, err := state.Apply(c); err != nil {
			w.violate(0, "takeover: %v", err)
		}
	}
	return state.View()
}

// bearable: what is open again, because the survivors never heard of its end, is
// covered by what they have. Else a disk was lost besides the city. And what they
// keep is what was confirmed, as far as anything was: of an entry that was in flight
// when the cities were cut off the survivors can't tell that it was not, and keep it,
// where the lost city's next writer may have put another one (log/meta/DESIGN.md). What
// retention had given up, and old metadata lists again, must not be damaged for good.
func (w *world) bearable(seed meta.Seed, gone func(n *node) bool) bool {
	state, err := meta.Load(bytes.NewReader(seed.State))
	if err != nil {
		w.violate(7, "takeover: %v", err)
	}
	list, _ := state.View().Segments(streamName, 1, 1<<20)
	for i := range list {
		s := w.find(&list[i].Descriptor)
		if s != nil && list[i].Closed && !list[i].Lost && !w.sameAs(s, int32(list[i].Last)) {
			return false
		}
		if s != nil && !list[i].Lost && !w.curable(s, gone) {
			return false
		}
		if list[i].Closed || s == nil {
			continue
		}
		var lost [citiesMax]int
		for k, n := range s.nodes {
			if x := &w.nodes[n]; x.inc != s.incs[k] || gone(x) {
				lost[x.city]++
			}
		}
		if s.rule.holds(lost) {
			return false
		}
	}
	return true
}

// sameAs: the entries of a segment up to its end are those that were confirmed, as
// far as something was.
func (w *world) sameAs(s *segment, end int32) bool {
	for o := s.first; o <= min(end, int32(len(w.canon))-1); o++ {
		if w.canon[o].content != s.at(o).content {
			return false
		}
	}
	return true
}

// leapt: the stream goes on behind a gap. Whatever was confirmed behind what is kept
// lies in it, and no survivor has any of it.
func (w *world) leapt(m *meta.Segment) *segment {
	from, to := int32(m.First), int32(m.Last)
	if n := int32(len(w.canon)); n-1 > to {
		w.violate(2, "takeover: entries %d to %d are passed over, %d was confirmed", from, to, n-1)
	}
	for o := from; o < int32(len(w.canon)); o++ {
		s := w.segs[w.canon[o].seg]
		for k, n := range s.nodes {
			if x := &w.nodes[n]; x.inc == s.incs[k] && x.gen == uint32(m.Generation) && min(s.durable[k], w.readableTo(n, s)) >= o {
				w.violate(2, "takeover: entry %d of segment %d is passed over, n%d has it", o, s.num, n)
			}
		}
	}
	hole := w.hole(m.Segment, uint32(m.Generation), uint32(m.Epoch), from, to, int32(m.LSO))
	w.canon = w.canon[:min(int32(len(w.canon)), from)]
	return hole
}

// fence: survivors' replicas of what the new generation has ended take nothing of
// older writers any more, who may live on. What the lost city's nodes had answered
// them is lost with their connections.
func (w *world) fence(city uint8, listed map[int32]bool) {
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if n.city == city {
			continue
		}
		for _, r := range n.live {
			if r.disk.made && (!listed[r.seg.idx] || r.seg.closed) {
				r.disk.fence = max(r.disk.fence, w.meta.epoch)
			}
		}
		w.crash(n, -1)
		w.restart(n)
	}
}

// succeed puts the new metadata in the old one's place, model and mirror. leaps: the
// stream goes on behind a gap.
func (w *world) succeed(seed meta.Seed, city uint8) (leaps bool) {
	state, err := meta.Load(bytes.NewReader(seed.State))
	if err != nil {
		w.violate(7, "takeover: %v", err)
	}
	w.mirror.state = state
	v := state.View()
	st, _ := v.Stream(streamName)
	list, _ := v.Segments(streamName, 1, 1<<20)
	a := &w.meta
	old := a.listed
	w.leaves(city)
	a.gen, a.epoch, a.number, a.first, a.lso = uint32(v.Generation()), uint32(st.Epoch), st.NextSegment, int32(st.NextFirst), int32(st.NextLSO)
	a.listed, a.emptied = nil, nil
	var hole *segment
	if n := len(list) - 1; n >= 0 && list[n].Lost && w.find(&list[n].Descriptor) == nil {
		hole, leaps = w.leapt(&list[n]), true
	}
	listed := map[int32]bool{}
	for i := range list {
		if s := w.find(&list[i].Descriptor); s != nil {
			listed[s.idx] = true
		}
	}
	for i := range list {
		s := w.find(&list[i].Descriptor)
		if s != nil && !s.lost {
			w.inherits(s, &list[i], listed)
		}
		if s == nil {
			w.violate(7, "takeover: it lists segment %d from %d, which never was", list[i].Segment, list[i].First)
		}
		w.relisted(s, &list[i], leaps && i == len(list)-2)
		a.listed = append(a.listed, s.idx)
	}
	if hole != nil {
		w.fillHole(hole)
		w.fence(city, listed)
	}
	for _, idx := range old {
		s := w.segs[idx]
		if containsIndex(a.listed, idx) {
			continue
		}
		if n := int32(len(w.canon)); n > s.first && (!s.closed || s.end >= s.first) && w.canon[s.first].seg == idx {
			w.violate(2, "takeover: segment %d from %d is not listed any more, and has entries that were confirmed", s.num, s.first)
		}
		s.known, s.closed, s.gone, s.beside = false, false, true, s.beside || leaps
		s.end = s.first - 1
	}
	for i := range a.nodes {
		if w.nodes[i].city == city {
			a.forgotten[i] = max(a.forgotten[i], w.nodes[i].inc)
		}
		a.nodes[i], a.drained[i] = 0, false
	}
	for _, n := range v.Nodes() {
		i := n.Name[1] - '0'
		a.nodes[i], a.drained[i] = incarnation(n.UUID), n.Drained
	}
	a.degraded = [citiesMax]bool{}
	for _, c := range st.Degraded {
		a.degraded[c[0]-'a'] = true
	}
	for _, c := range st.Cursors {
		a.cursors[c.Group[1]-'0'] = int32(c.Offset)
	}
	w.mirror.views = append(w.mirror.views, v)
	a.relist(w)
	if !w.lay.loss.allows(st.Policy.Loss) {
		w.violate(7, "takeover: the policy became %+v", st.Policy)
	}
	return leaps
}

// inherits: entries that the lost city's writer had sent to a segment that the
// survivors have, and confirmed in a later one, which they have not, are the former's.
func (w *world) inherits(s *segment, m *meta.Segment, listed map[int32]bool) {
	for o := s.first; m.Closed && o <= int32(m.Last) && o < int32(len(w.canon)); o++ {
		if f := &w.canon[o]; f.seg != s.idx && !listed[f.seg] {
			f.seg = s.idx
		}
	}
}

func containsIndex(list []int32, idx int32) bool {
	for _, x := range list {
		if x == idx {
			return true
		}
	}
	return false
}

func (l loss) allows(p meta.Loss) bool {
	return p == [...]meta.Loss{meta.LossBlock, meta.LossDegradeManual, meta.LossDegradeAfter}[l]
}

// find the segment with a descriptor.
func (w *world) find(d *quorum.Descriptor) *segment {
	for i := len(w.segs) - 1; i >= 0; i-- {
		s := w.segs[i]
		if s.num == d.Segment && s.epoch == uint32(d.Epoch) && off(s.first) == d.First && s.gen == uint32(d.Generation) && s.known {
			return s
		}
	}
	return nil
}

// relisted: a segment as the new metadata has it.
// newest: what comes behind it is passed over, so it may end where nobody had ended it.
func (w *world) relisted(s *segment, m *meta.Segment, newest bool) {
	s.gone = false
	s.holders = [nodesMax]uint16{}
	if m.Closed { // what a survivor has is not lost
		for i := range w.nodes[:w.count] {
			if n := &w.nodes[i]; n.gen == w.meta.gen && w.readableTo(n.idx, s) > int32(m.Left()) && m.Left() < m.Last {
				w.violate(2, "takeover: segment %d is said to be lost behind %d, n%d has it up to %d", s.num, m.Left(), n.idx, w.readableTo(n.idx, s))
			}
		}
	}
	if m.Lost {
		s.lost = true
		return
	}
	if s.cut, s.left, s.barren = m.LostTail > 0, int32(m.Left()), m.Barren(); s.cut {
		w.cuts++
	}
	if !m.Closed {
		s.closed, s.partial = false, false
		return
	}
	end := int32(m.Last)
	s.beside = s.beside || newest
	if s.closed && s.end != end && !newest {
		w.violate(7, "takeover: segment %d ended at %d, now at %d", s.num, s.end, end)
	}
	if end >= s.first+int32(len(s.content)) {
		w.violate(2, "takeover: segment %d ends at %d, it has %d entries from %d", s.num, end, len(s.content), s.first)
	}
	for o := s.first; o <= end; o++ {
		en := s.at(o)
		w.settle(o, s, en.content, en.ends, false)
	}
	known := s.closed && s.end == end
	s.closed, s.end, s.endLSO = true, end, int32(m.LSO)
	for _, h := range m.Holders {
		n, inc := h.Node[1]-'0', incarnation(h.UUID)
		if w.nodes[n].inc == inc { // else it is of before a disk was lost, and old metadata has it again
			w.claims(s, n, inc)
		}
		s.holders[n] = inc
	}
	if !known {
		s.partial = !s.rule.holds(w.cities(s.holders))
	}
}

// quarantine: a node learns that the cluster went on without it. What it has is
// set aside, and it comes back as a new node.
func (w *world) quarantine(n *node) {
	w.crash(n, -1)
	n.inc++
	n.reps, n.live, n.seen = nil, nil, nil
	n.gen = w.meta.gen
	w.later(evNodeUp, n.idx, 5000)
	if w.trace != nil {
		w.tracef("n%d     is of an old generation: quarantined, and rejoins as disk %d", n.idx, n.inc)
	}
}
