package sim

// A city that was given up may live on. Its metadata is gone from this model, but a
// segment that it opened before may have a writer, and be of its nodes alone: nobody tells
// either of them. What that writer appends is on the disks that the segment's own rule
// asks for, so it is confirmed to it, as README says a city that was not cut off may do. It
// is no part of the stream, and canon does not hold it. What is promised of it: the new
// generation never gives its offset to another entry, because it lies in the gap that the
// takeover left; nothing that a survivor has of it is passed over; and `protected` is said
// of none that the survivors lack, but where the stream's rule asks for none of them. It
// ends when the nodes or the writer meet the new generation: the nodes are quarantined
// then, and export what they have.

// left: a takeover went on without this writer.
func (w *world) left(p *writer) bool { return p.gen != 0 && p.gen != w.meta.gen }

// leaves keeps what the writers that a takeover leaves behind go on to believe.
func (w *world) leaves(city uint8) {
	w.before = w.meta.known
	w.lonely = [citiesMax]int{}
	for _, n := range w.nodes[:w.count] {
		if n.city == city {
			w.lonely[city]++
		}
	}
}

// lead has another writer open the stream for the new generation, so that those of
// the old one may live on. One that has no other dies for it.
func (w *world) lead() {
	if p := &w.writers[w.leader]; p.phase != phaseDown {
		w.leader = uint8((int(w.leader) + 1) % len(w.writers))
		w.die(&w.writers[w.leader], errKilled)
	}
}

// acknowledgedBeside: a writer that was left behind acknowledges an entry that its
// segment, as the new generation has it, does not hold.
func (w *world) acknowledgedBeside(p *writer, o int32, en *ent) {
	s := p.seg
	if !w.left(p) {
		w.violate(13, "w%d of generation %d acknowledges %d in segment %d, which a takeover ended at %d", p.idx, p.gen, o, s.num, s.end)
	}
	w.beside++
	if int(o) >= len(w.canon) {
		w.violate(2, "w%d acknowledges %d in segment %d beside a takeover, which passed over no more than %d", p.idx, o, s.num, len(w.canon)-1)
	}
	f := &w.canon[o]
	in := w.segs[f.seg]
	if !in.lost && f.content == en.content {
		return // the survivors have it from the segment before
	}
	for k, n := range s.nodes {
		if x := &w.nodes[n]; x.inc == s.incs[k] && x.gen == w.meta.gen && s.durable[k] >= o {
			w.violate(2, "w%d acknowledges %d in segment %d beside a takeover, which passed over it, n%d has it", p.idx, o, s.num, n)
		}
	}
	switch {
	case in.lost:
	case in.gen == w.meta.gen:
		w.violate(2, "w%d acknowledges %d in segment %d beside a takeover, which put another entry there", p.idx, o, s.num)
	case p.q.Protected(off(o)) && !w.lay.rule.holds(w.lonely): // else it was in flight when the cities were cut off (log/meta/DESIGN.md)
		w.violate(11, "w%d says %d is protected beside a takeover, which kept another entry", p.idx, o)
	}
}
