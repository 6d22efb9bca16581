package sim

import "errors"

// More disks are lost at once than the rule bears: what was acknowledged in the open
// segment may be on none that is left. Only an operator can end it then. What must
// hold: nothing that anybody who is left has is lost, and no offset that may have
// been acknowledged is ever used again.

var errForced = errors.New("it closed the segment by force, and opens none")

// lostEntries is how many offsets a forced close passes over.
const lostEntries = 4096

// doubleLoss says whether disks may be lost although the open segment is not
// covered by the others then. Closed segments stay as they must; nobody is writing.
func (w *world) doubleLoss(mask uint32) bool {
	s := w.meta.newest(w)
	if s == nil || s.closed || !w.dice.oneIn(2) || !w.bears(func(x *node) bool { return mask>>x.idx&1 == 1 }, nothing, true, false) {
		return false
	}
	for k, n := range s.nodes { // who is left says where its entries end
		x := &w.nodes[n]
		if x.inc != s.incs[k] || mask>>n&1 == 1 || int(s.num) >= len(x.reps) {
			continue
		}
		if r := x.reps[s.num]; r != nil && (r.disk.rot >= 0 || r.m.Suspect()) {
			return false
		}
	}
	for i := max(0, len(w.calls)-200); i < len(w.calls); i++ { // what opens the next segment may be on its way
		if c := &w.calls[i]; !c.over && c.command.verb == cmdAdvance {
			return false
		}
	}
	for i := range w.writers { // they die with the disks, or they would go on without them
		w.die(&w.writers[i], errKilled)
	}
	w.start()
	if w.trace != nil {
		w.tracef("more disks are lost than segment %d bears", s.num)
	}
	w.losses++
	w.push(event{at: w.now + w.dice.between(20000, 120000), kind: evForce, seg: s.idx})
	return true
}

// forgotten members of a segment: their disks are gone, and the metadata knows.
func (w *world) forgotten(s *segment) (set uint64) {
	for k, n := range s.nodes {
		if w.meta.nodes[n] != s.incs[k] {
			set |= 1 << k
		}
	}
	return set
}

// forces: an operator sees that nobody can open the stream, and decides.
func (w *world) forces(idx int32) {
	s := w.segs[idx]
	if !s.known || s.closed || s.gone {
		return
	}
	if q, err := s.desc.Quorum(); err != nil || q.Covers(q.All()&^w.forgotten(s)) {
		w.push(event{at: w.now + 20000, kind: evForce, seg: idx}) // not everybody is forgotten yet who has to be
		return
	}
	s.force = true
	if !w.dice.oneIn(4) {
		w.away(s)
	}
	w.start()
	if w.trace != nil {
		w.tracef("an operator gives up the lost members of segment %d", s.num)
	}
}

// away stops the member that has most of what is left of a segment, for a while. It is
// not given up, so the close must wait for it, whoever else has answered.
func (w *world) away(s *segment) {
	var most *node
	for k, i := range s.nodes {
		n := &w.nodes[i]
		if n.inc == s.incs[k] && n.up && (most == nil || w.has(n.idx, s) > w.has(most.idx, s)) {
			most = n
		}
	}
	if most == nil {
		return
	}
	w.crash(most, -1)
	w.later(evNodeUp, most.idx, w.dice.between(20000, 100000))
}

// giveUp tells a recovery what the operator decided.
func (w *world) giveUp(p *writer) {
	if p.seg != nil && p.seg.force {
		p.rec.GiveUp(w.forgotten(p.seg))
	}
}

// lostTo is where a forced close lets the next segment start, but for one.
func (w *world) lostTo(last int32) int32 {
	for _, c := range w.meta.cursors[:len(w.readers)] {
		last = max(last, c)
	}
	if w.bug == BugLostReused {
		return last
	}
	return last + lostEntries
}

// passes: the metadata has closed a segment by force.
func (w *world) passes(s *segment, c *command) {
	for k, n := range s.nodes {
		if w.nodes[n].inc == s.incs[k] && s.durable[k] > c.last {
			w.violate(2, "segment %d is closed by force at %d, n%d has %d", s.num, c.last, n, s.durable[k])
		}
	}
	if n := int32(len(w.canon)); n-1 > c.o {
		w.violate(2, "segment %d is closed by force at %d, entries up to %d are passed over, %d was acknowledged", s.num, c.last, c.o, n-1)
	}
	a := &w.meta
	hole := w.hole(a.number, a.gen, c.epoch, c.last+1, c.o, c.lso)
	a.listed = append(a.listed, hole.idx)
	a.number, a.first = a.number+1, c.o+1
	w.canon = w.canon[:c.last+1]
	w.fillHole(hole)
	if c.o > c.last {
		w.forced++
	}
}

// hole is a segment that nobody has, from an offset to another one.
func (w *world) hole(num, gen, epoch uint32, first, end, lso int32) *segment {
	s := &segment{
		idx: int32(len(w.segs)), num: num, gen: gen, epoch: epoch, first: first, firstLSO: lso,
		known: true, closed: true, lost: true, end: end, endLSO: lso,
	}
	for i := range s.index {
		s.index[i] = -1
	}
	w.segs = append(w.segs, s)
	return s
}

// fillHole fixes its offsets: they never come to mean anything. Whoever resumes behind
// it resumes from what came before it.
func (w *world) fillHole(s *segment) {
	var before fixed
	if n := len(w.canon); n > 0 {
		before = w.canon[n-1]
	}
	for int32(len(w.canon)) <= s.end {
		w.canon = append(w.canon, fixed{content: before.content, seg: s.idx})
	}
	w.confirmed = s.end
}
