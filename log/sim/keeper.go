package sim

// repair is a copy of a closed segment under way, to a node that misses it.
type repair struct {
	seg  int32
	to   uint8
	inc  uint16 // of the target's disk
	boot uint32
}

// keep is the work of the lease's holder: repair and retention.
func (w *world) keep() {
	w.push(event{at: w.now + w.dice.between(4000, 15000), kind: evKeep})
	if w.dice.oneIn(3) && len(w.meta.listed) > 2 {
		before := w.meta.cursors[0]
		if w.bug != BugTrimIgnoresCursors {
			for _, c := range w.meta.cursors[:len(w.readers)] {
				before = min(before, c)
			}
		}
		if before > 0 {
			w.ask(keeper, 0, command{verb: cmdTrim, before: before + 1, evict: w.bug == BugTrimIgnoresCursors, open: -1})
		}
	}
	for _, idx := range w.meta.listed {
		s := w.segs[idx]
		if s.closed && !s.lost && !w.lay.rule.holds(w.cities(s.holders)) && w.dice.oneIn(2) {
			if w.startRepair(s) {
				return
			}
		}
	}
}

// startRepair has a node that misses a segment fetch it from those that have it.
func (w *world) startRepair(s *segment) bool {
	have := w.cities(s.holders)
	start := w.dice.n(int(w.count))
	for i := range int(w.count) {
		n := &w.nodes[(start+i)%int(w.count)]
		short := have[n.city] < w.lay.rule.cities[n.city]
		all := true
		for c, k := range have {
			all = all && k >= w.lay.rule.cities[c]
		}
		if !n.up || n.full || n.frozen > w.now || w.meta.nodes[n.idx] != n.inc {
			continue
		}
		if int(s.num) < len(n.reps) && n.reps[s.num] != nil && n.reps[s.num].seg == s && n.reps[s.num].m.Suspect() {
			if w.mend(n, n.reps[s.num]) {
				return true
			}
		}
		if !short && !all || s.holders[n.idx] == n.inc {
			continue
		}
		r := w.replica(n, s, true)
		if r.seg != s || r.dropped || r.fills || r.m.Suspect() || len(r.waiting) > 0 {
			continue
		}
		if _, _, ok := r.m.Closed(); !ok {
			w.closeReplica(n, r, s.end, s.endLSO)
		}
		r.fills = true
		w.repairs = append(w.repairs, repair{seg: s.idx, to: n.idx, inc: n.inc, boot: n.boot})
		w.push(event{at: w.now + 1000, kind: evRepair, gen: uint32(len(w.repairs) - 1)})
		if w.trace != nil {
			w.tracef("keeper n%d fetches segment %d", n.idx, s.num)
		}
		switch w.bug {
		case BugHeldEarly:
			w.ask(keeper, 0, command{verb: cmdHeld, seg: s.idx, node: n.idx, inc: n.inc, open: -1})
		case BugRepairMoves:
			if src := w.source(n, s, s.upto()); src != nil {
				w.dropped(src, src.reps[s.num])
			}
		}
		return true
	}
	return false
}

// mend fetches the entry that is damaged on a node from one where it is not. The
// rest of what the node has is good.
func (w *world) mend(n *node, r *replica) bool {
	if _, _, ok := r.m.Closed(); !ok || r.busy != opNone || r.m.Queued() != r.m.Last() || r.disk.rot >= 0 && w.source(n, r.seg, r.disk.rot) == nil {
		return false
	}
	if w.trace != nil {
		w.tracef("keeper n%d mends entry %d of segment %d", n.idx, r.disk.rot, r.seg.num)
	}
	r.disk.rot = -1
	w.reopen(n, r)
	if r.complete() {
		w.filled(n, r)
	}
	return true
}

// source is a node from which another one can fetch an entry of a closed segment.
func (w *world) source(to *node, s *segment, o int32) *node {
	start := w.dice.n(int(w.count))
	for i := range int(w.count) {
		n := &w.nodes[(start+i)%int(w.count)]
		if n == to || !n.up || n.gen != w.meta.gen || n.frozen > w.now || int(s.num) >= len(n.reps) || !w.linked(to.idx, n.idx) || !w.linked(n.idx, to.idx) {
			continue
		}
		if r := n.reps[s.num]; r != nil && r.seg == s && !r.dropped && r.disk.last() >= o && r.disk.rot != o {
			return n
		}
	}
	return nil
}

// repairOn copies the next few entries.
func (w *world) repairOn(e *event) {
	j := &w.repairs[e.gen]
	s := w.segs[j.seg]
	n := &w.nodes[j.to]
	if n.inc != j.inc || n.boot != j.boot || !n.up || s.gone {
		return
	}
	r := n.reps[s.num]
	if r == nil || r.seg != s || r.dropped {
		return
	}
	if _, _, ok := r.m.Closed(); !ok || r.m.Suspect() || n.full || n.frozen > w.now {
		r.fills = false // given up; the next round tries again
		return
	}
	o := int32(r.m.Queued()) + 1
	for range 16 {
		if o > s.upto() {
			break
		}
		src := w.source(n, s, o)
		if src == nil {
			r.fills = false
			return
		}
		en := src.reps[s.num].disk.ents[o-s.first]
		if fresh, err := r.m.Fill(off(o)); err != nil || !fresh {
			w.violate(0, "n%d does not take %d of segment %d from a repair: %v", n.idx, o, s.num, err)
		}
		en.epoch, en.lac = ^uint32(0), s.end
		w.enqueue(n, record{rep: r, o: o, ent: en})
		o++
	}
	w.filled(n, r)
	if r.fills {
		w.push(event{at: w.now + w.far + 500, kind: evRepair, gen: e.gen})
	}
}

// filled: a repair got further.
func (w *world) filled(n *node, r *replica) {
	if !r.complete() {
		return
	}
	r.fills = false
	w.ask(keeper, 0, command{verb: cmdHeld, seg: r.seg.idx, node: n.idx, inc: n.inc, open: -1})
}
