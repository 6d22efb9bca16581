package sim

import (
	"bytes"
	"time"

	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// takeover: a city is lost, and the majority of the metadata with it. The
// survivors start a new generation from what they know, which may be old; later
// the city returns as it was. Only where the real metadata runs, and what it lost
// can be rebuilt: the survivors cover, and hold all that is closed.
func (w *world) takeover(d *rng, long int64) {
	city := uint8(d.n(len(w.lay.cities)))
	gone := func(n *node) bool { return n.city == city }
	if w.mirror == nil || len(w.lay.cities) < 2 || !w.survives(gone, nothing) {
		return
	}
	for i := range w.nodes[:w.count] {
		if n := &w.nodes[i]; w.meta.nodes[i] != n.inc || n.gen != w.meta.gen || !gone(n) && !n.up {
			return
		}
	}
	view := w.survivors(d, city)
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
		return
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
	w.succeed(seed, city)
	w.takeovers++
	w.start()
}

// survivors picks how old the survivors' metadata is: at least as new as anything
// that one of them has acted on.
func (w *world) survivors(d *rng, city uint8) int {
	newest := len(w.mirror.views) - 1
	oldest := newest - d.n(4)
	for i := range w.nodes[:w.count] {
		if n := &w.nodes[i]; n.city != city && n.seen != nil {
			oldest = max(oldest, n.seen.at)
		}
	}
	for _, idx := range w.meta.listed { // what was closed below its rule may not be found again
		if s := w.segs[idx]; s.partial || !s.protected || s.lost {
			return newest
		}
	}
	return min(max(oldest, 0), newest)
}

// seed makes the metadata of the next generation, as an operator would.
func (w *world) seed(v *meta.View, city uint8) meta.Seed {
	var state bytes.Buffer
	if err := v.Save(&state); err != nil {
		w.violate(0, "takeover: %v", err)
	}
	var exports []meta.Export
	var voters []meta.Peer
	var replicas []meta.Replica
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if n.city == city {
			continue
		}
		m := w.member(n.idx, n.inc)
		voters = append(voters, meta.Peer{Name: m.Node, Address: m.Node + ":1"})
		exports = append(exports, meta.Export{Node: m.Node, Generation: v.Generation(), Index: 1, Term: 1, TermSeen: 1, State: state.Bytes()})
		for _, r := range n.live {
			if !r.disk.made || r.dropped {
				continue
			}
			s := r.m.State()
			replicas = append(replicas, meta.Replica{
				Node: m.Node, UUID: m.UUID, Descriptor: r.seg.desc, Fence: s.Fence, Last: s.Last, LAC: s.LAC,
				Closed: s.Closed, ClosedLast: s.End, ClosedLSO: s.EndLSO, Suspect: s.Suspect,
			})
		}
	}
	seed, err := meta.MakeSeed(exports, replicas, voters, "lost", time.UnixMicro(w.now))
	if err != nil {
		w.violate(7, "takeover: %v", err)
	}
	return seed
}

// bearable: what is open again, because the survivors never heard of its end, is
// covered by what they have. Else a disk was lost besides the city.
func (w *world) bearable(seed meta.Seed, gone func(n *node) bool) bool {
	state, err := meta.Load(bytes.NewReader(seed.State))
	if err != nil {
		w.violate(7, "takeover: %v", err)
	}
	list, _ := state.View().Segments(streamName, 1, 1<<20)
	for i := range list {
		s := w.find(&list[i].Descriptor)
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

// succeed puts the new metadata in the old one's place, model and mirror.
func (w *world) succeed(seed meta.Seed, city uint8) {
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
	a.gen, a.epoch, a.number, a.first, a.lso = uint32(v.Generation()), uint32(st.Epoch), st.NextSegment, int32(st.NextFirst), int32(st.NextLSO)
	a.listed, a.emptied = nil, nil
	for i := range list {
		s := w.find(&list[i].Descriptor)
		if s == nil {
			w.violate(7, "takeover: it lists segment %d from %d, which never was", list[i].Segment, list[i].First)
		}
		w.relisted(s, &list[i])
		a.listed = append(a.listed, s.idx)
	}
	for _, idx := range old {
		s := w.segs[idx]
		if containsIndex(a.listed, idx) {
			continue
		}
		if n := int32(len(w.canon)); n > s.first && (!s.closed || s.end >= s.first) && w.canon[s.first].seg == idx {
			w.violate(2, "takeover: segment %d from %d is not listed any more, and has entries that were confirmed", s.num, s.first)
		}
		s.known, s.closed, s.gone = false, false, true
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
func (w *world) relisted(s *segment, m *meta.Segment) {
	s.gone = false
	s.holders = [nodesMax]uint16{}
	if s.lost && m.Lost {
		return
	}
	if !m.Closed {
		s.closed, s.partial = false, false
		return
	}
	end := int32(m.Last)
	if s.closed && s.end != end {
		w.violate(7, "takeover: segment %d ended at %d, now at %d", s.num, s.end, end)
	}
	if end >= s.first+int32(len(s.content)) {
		w.violate(2, "takeover: segment %d ends at %d, it has %d entries from %d", s.num, end, len(s.content), s.first)
	}
	for o := s.first; o <= end; o++ {
		en := s.at(o)
		w.settle(o, s, en.content, en.ends, false)
	}
	known := s.closed
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
