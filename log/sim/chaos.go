package sim

// chaos lets one thing go wrong, and schedules the next.
func (w *world) chaos() {
	i := w.faults
	w.faults++
	d := rng{s: w.cfg.Seed*0x9e3779b97f4a7c15 ^ uint64(i+1)*0xd1342543de82ef95}
	w.push(event{at: w.now + d.between(1000, w.unrest), kind: evFault})
	if w.cfg.Skip[i] {
		return
	}
	n := &w.nodes[d.n(int(w.count))]
	p := &w.writers[d.n(len(w.writers))]
	long := d.between(5000, 60000)
	if d.oneIn(10) {
		long *= 5
	}
	what := d.n(100)
	if w.trace != nil {
		w.tracef("fault  %d: kind %d at n%d w%d for %d µs", i, what, n.idx, p.idx, long)
	}
	switch {
	case what < 14:
		w.crash(n, -1)
		w.later(evNodeUp, n.idx, long)
	case what < 18:
		n.fail = int8(1 + d.n(2))
		w.later(evNodeUp, n.idx, long)
	case what < 22:
		n.frozen = w.now + long
	case what < 25:
		n.slow = 1 + int64(d.n(30))
		w.later(evHealDisk, n.idx, long)
	case what < 28:
		n.full = true
		w.later(evHealDisk, n.idx, long)
	case what < 33:
		mask := uint32(1) << n.idx
		if d.oneIn(3) {
			mask |= w.pair(&d, long)
		}
		w.ruin(mask, long)
	case what < 39:
		w.rot(n, &d)
	case what < 46: // a link, one way or both
		a, b := uint8(d.n(actors)), uint8(d.n(actors))
		w.block(a, b, long)
		if d.oneIn(2) {
			w.block(b, a, long)
		}
	case what < 51: // a node is alone, one way or both
		in, out := d.oneIn(2), d.oneIn(2)
		for a := range uint8(actors) {
			if in || !out {
				w.block(a, n.idx, long)
			}
			if out || !in {
				w.block(n.idx, a, long)
			}
		}
	case what < 57:
		w.parted(&d, long)
	case what < 62:
		w.lossy = true
		w.later(evHealMeta, 0, long/2)
	case what < 70: // the lease is lost: another one opens
		if p.phase == phaseDown {
			w.startWriter(p)
		} else {
			w.leader = p.idx
		}
	case what < 76: // a process freezes beyond its lease, and comes back
		p.frozen = w.now + long
		if o := &w.writers[d.n(len(w.writers))]; o != p && o.phase == phaseDown {
			w.startWriter(o)
		}
	case what < 80:
		w.die(p, errKilled)
	case what < 84:
		w.cityDown(&d, uint8(d.n(len(w.lay.cities))), long)
	case what < 87:
		w.cityWiped(uint8(d.n(len(w.lay.cities))), long)
	case what < 90:
		if w.lay.loss != lossBlock {
			w.ask(keeper, 0, command{verb: cmdDegrade, city: uint8(d.n(len(w.lay.cities))), off: d.oneIn(4), open: -1})
		}
	case what < 92:
		w.ask(keeper, 0, command{verb: cmdDrain, node: n.idx, off: d.oneIn(2), open: -1})
	case what < 95:
		x := &w.readers[d.n(len(w.readers))]
		x.pos = w.meta.cursors[x.idx] + 1
	case what < 96:
		p.finish = true
	case what < 99:
		w.takeover(&d, long)
	default:
		w.slowLink |= 1 << d.n(actors)
		w.later(evHealLinks, 0, long)
	}
}

func nothing(*node, *segment) bool { return false }

func (w *world) later(k kind, who uint8, d int64) {
	w.push(event{at: w.now + d, kind: k, who: who})
}

// block a link in one direction for a time.
func (w *world) block(from, to uint8, d int64) {
	w.blocked[from] |= 1 << to
	w.push(event{at: w.now + d, kind: evUnblock, who: from, peer: to})
}

// parted cuts a city off, one way or both.
func (w *world) parted(d *rng, long int64) {
	city := uint8(d.n(len(w.lay.cities)))
	in, out := d.oneIn(2), d.oneIn(2)
	for a := range uint8(actors) {
		for b := range uint8(actors) {
			inside, other := a != actorMeta && w.cityOf(a) == city, b != actorMeta && w.cityOf(b) == city
			if inside && !other && (out || !in) || !inside && other && (in || !out) {
				w.block(a, b, long)
			}
		}
	}
}

// cityDown stops everything in a city.
func (w *world) cityDown(d *rng, city uint8, long int64) {
	for i := range w.nodes[:w.count] {
		if n := &w.nodes[i]; n.city == city && !d.oneIn(6) {
			w.crash(n, -1)
			w.later(evNodeUp, n.idx, long+d.between(0, 3000))
		}
	}
	for i := range w.writers {
		if p := &w.writers[i]; p.city == city {
			w.die(p, errKilled)
			w.leader = uint8(d.n(len(w.writers)))
		}
	}
	w.start()
}

// cityWiped stops a city for good.
func (w *world) cityWiped(city uint8, long int64) {
	mask := uint32(0)
	for i := range w.nodes[:w.count] {
		if n := &w.nodes[i]; n.city == city {
			mask |= 1 << i
		}
	}
	w.ruin(mask, long)
}

// pair is another node to go down with one, while a third one hears nothing of the
// writers: those that are left of a segment differ in how much they have of it.
func (w *world) pair(d *rng, long int64) uint32 {
	deaf := uint8(d.n(int(w.count)))
	for i := range w.writers {
		w.block(actorWriter+uint8(i), deaf, long)
	}
	return 1 << d.n(int(w.count))
}

// ruin stops nodes; their disks are lost meanwhile.
func (w *world) ruin(mask uint32, long int64) {
	for i := range w.nodes[:w.count] {
		if mask>>i&1 == 1 {
			w.crash(&w.nodes[i], -1)
			w.later(evNodeUp, uint8(i), long)
		}
	}
	w.push(event{at: w.now + long/2, kind: evWipe, gen: mask})
}

// wipes: the disks of nodes that are down turn out to be lost, if the stream can
// bear it.
func (w *world) wipes(mask uint32) {
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if mask>>i&1 == 1 && (n.up || w.now < n.downAt+8000) || w.meta.nodes[i] != n.inc {
			return // the last loss is not known to everybody yet
		}
	}
	for i := range w.writers {
		if p := &w.writers[i]; p.phase != phaseDown && p.frozen > w.now-5000 {
			return // it has not noticed that they are down, and might count on them
		}
	}
	if w.calm || !w.survives(func(x *node) bool { return mask>>x.idx&1 == 1 }, nothing) && !w.doubleLoss(mask) {
		return
	}
	for i := range w.nodes[:w.count] {
		if mask>>i&1 == 1 {
			w.wipe(&w.nodes[i])
		}
	}
}

// rot damages an entry on a disk.
func (w *world) rot(n *node, d *rng) {
	if len(n.live) == 0 {
		return
	}
	r := n.live[d.n(len(n.live))]
	if len(r.disk.ents) == 0 || r.disk.rot >= 0 {
		return
	}
	o := r.disk.first + int32(d.n(len(r.disk.ents)))
	if d.oneIn(3) {
		o = r.disk.last()
	}
	if w.source(n, r.seg, o) == nil { // nobody could ever bring it back
		return
	}
	if !w.survives(func(*node) bool { return false }, func(x *node, s *segment) bool { return x == n && s == r.seg }) {
		return
	}
	r.disk.rot = o
	if w.trace != nil {
		w.tracef("n%d     entry %d of segment %d rots", n.idx, r.disk.rot, r.seg.num)
	}
	if d.oneIn(2) {
		w.crash(n, -1)
		w.later(evNodeUp, n.idx, d.between(1000, 20000))
	}
}

// heal ends every fault there is.
func (w *world) heal() {
	w.calm = true
	w.healedAt = w.now
	w.blocked = [actors]uint32{}
	w.lossy, w.slowLink = false, 0
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		n.full, n.slow, n.frozen, n.fail = false, 1, 0, 0
		w.restart(n)
		w.apply(&command{verb: cmdDrain, node: n.idx, off: true, open: -1})
	}
	for i := range w.writers {
		w.writers[i].frozen = 0
	}
	w.start()
	w.ackedAt = w.acked
	if w.trace != nil {
		w.tracef("everything heals")
	}
}

// start makes sure that somebody wants to write.
func (w *world) start() {
	if p := &w.writers[w.leader]; p.phase == phaseDown {
		w.push(event{at: w.now + 1000, kind: evStart, who: p.idx, gen: p.id})
	}
}

// recovered says whether a healed system has come back to all its duties.
func (w *world) recovered() bool {
	if w.acked < w.ackedAt+20 {
		return false
	}
	a := &w.meta
	if n := a.newest(w); n == nil || n.closed || !n.protected || n.rule != w.lay.rule {
		return false
	}
	for _, idx := range a.listed {
		s := w.segs[idx]
		if s.closed && !s.lost && !w.lay.rule.holds(w.cities(s.holders)) {
			return false
		}
	}
	for i := range w.readers {
		if int(w.readers[i].pos) < w.healedTo {
			return false
		}
	}
	return true
}

// check compares at the end what is on the disks with what was acknowledged.
func (w *world) check() {
	for _, idx := range w.meta.listed {
		s := w.segs[idx]
		if !s.closed || s.lost {
			continue
		}
		var count [citiesMax]int
		for i, h := range s.holders {
			n := &w.nodes[i]
			if h == 0 || n.inc != h || int(s.num) >= len(n.reps) {
				continue
			}
			r := n.reps[s.num]
			if r == nil || r.seg != s || r.dropped || r.m.Suspect() || r.disk.rot >= 0 {
				continue
			}
			if r.disk.last() < s.upto() {
				w.violate(10, "n%d is a holder of segment %d up to %d and has %d", n.idx, s.num, s.upto(), r.disk.last())
			}
			count[n.city]++
			for o := s.first; o <= s.upto(); o++ {
				if f := &w.canon[o]; f.content != r.disk.ents[o-s.first].content {
					w.violate(3, "n%d holds %d of segment %d as another entry", n.idx, o, s.num)
				}
			}
		}
		if count == [citiesMax]int{} {
			w.violate(2, "segment %d from %d to %d is on no disk", s.num, s.first, s.upto())
		}
	}
}
