package sim

// reader is a consumer group: it reads from a node of its own city when it can.
type reader struct {
	idx  uint8
	city uint8
	pos  int32 // next entry wanted
	read int64
}

// poll reads what a node shows.
func (w *world) poll(x *reader) {
	w.push(event{at: w.now + w.dice.between(1500, 8000), kind: evRead, who: x.idx})
	if c := w.meta.cursors[x.idx]; x.pos <= c && x.pos < w.meta.below {
		x.pos = c + 1 // it came back to a place before its own cursor, of which it did not know yet
	}
	s := w.listedAt(x.pos)
	if s == nil {
		return
	}
	if s.lost || s.cut && x.pos > s.left { // its operator was told, and moves it behind
		x.pos = s.end + 1
		return
	}
	n := w.readable(x, s)
	if n == nil {
		return
	}
	r := n.reps[s.num]
	vis := int32(r.m.Visible())
	if s.cut { // what a node has of the rest it keeps to itself
		vis = min(vis, s.left)
	}
	for k := 0; x.pos <= vis && k < 12; k++ {
		if x.pos == r.disk.rot {
			r.m.Damaged()
			break
		}
		if int(x.pos-r.disk.first) >= len(r.disk.ents) {
			w.violate(12, "n%d promises %d of segment %d and has it not", n.idx, x.pos, s.num)
		}
		w.shown(n, s, x.pos, &r.disk.ents[x.pos-r.disk.first])
		x.pos++
		x.read++
	}
	if e, _, ok := r.m.Closed(); ok && (!s.closed || int32(e) != s.end) {
		w.violate(7, "n%d has segment %d closed at %d, it is at %d", n.idx, s.num, e, s.end)
	}
	if w.dice.oneIn(10) {
		w.ask(keeper, 0, command{verb: cmdCursor, reader: x.idx, o: x.pos - 1, open: -1})
	}
}

// listedAt is the segment that has, or will have, an entry.
func (w *world) listedAt(o int32) *segment {
	for i := len(w.meta.listed) - 1; i >= 0; i-- {
		if s := w.segs[w.meta.listed[i]]; s.first <= o {
			if s.closed && o > s.end {
				return nil
			}
			return s
		}
	}
	if o < w.meta.below {
		w.violate(10, "entry %d is wanted, everything below %d is trimmed", o, w.meta.below)
	}
	return nil
}

// readable picks a node to read from: near, or else any.
func (w *world) readable(x *reader, s *segment) *node {
	start := w.dice.n(int(w.count))
	var far *node
	a := actorReader + x.idx
	for i := range int(w.count) {
		n := &w.nodes[(start+i)%int(w.count)]
		if !n.up || n.gen != w.meta.gen || n.frozen > w.now || !w.linked(a, n.idx) || !w.linked(n.idx, a) || int(s.num) >= len(n.reps) {
			continue
		}
		r := n.reps[s.num]
		if r == nil || r.seg != s || r.dropped || r.m.Suspect() || r.disk.first > x.pos || int32(r.m.Visible()) < x.pos {
			continue
		}
		if n.city == x.city {
			return n
		}
		far = n
	}
	return far
}
