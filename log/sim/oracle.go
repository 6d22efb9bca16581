package sim

import "fmt"

// Violation is a broken invariant, by its number in DESIGN.md; 0 stands for a
// machine that panicked or refused what it must take, 15 for a system that did
// not come back to life.
type Violation struct {
	Invariant int
	Text      string
	At        int64 // event
}

func (v *Violation) Error() string {
	return fmt.Sprintf("invariant %d: %s (event %d)", v.Invariant, v.Text, v.At)
}

func (w *world) violate(invariant int, format string, args ...any) {
	panic(&Violation{Invariant: invariant, Text: fmt.Sprintf(format, args...), At: w.events})
}

// fixed is an entry of the stream that was acknowledged or closed over: it may
// never change again.
type fixed struct {
	content uint64
	seg     int32
	ends    bool
	acked   bool
}

// settle fixes the next entry of the stream, or compares it with what was fixed.
func (w *world) settle(o int32, s *segment, content uint64, ends, acked bool) {
	if int(o) < len(w.canon) {
		f := &w.canon[o]
		if f.content != content || f.seg != s.idx {
			w.violate(2, "entry %d was %x of segment %d, is %x of segment %d", o, f.content, w.segs[f.seg].num, content, s.num)
		}
		f.acked = f.acked || acked
		return
	}
	if int(o) > len(w.canon) {
		w.violate(5, "entry %d follows %d", o, len(w.canon)-1)
	}
	var before uint64
	if o > 0 {
		before = w.canon[o-1].content >> 20
	}
	if content>>20 != before+1 {
		w.violate(9, "entry %d bears transaction %d behind %d", o, content>>20, before)
	}
	w.canon = append(w.canon, fixed{content: content, seg: s.idx, ends: ends, acked: acked})
	w.confirmed = o
}

// confirm: a writer acknowledges entries.
func (w *world) confirm(p *writer) {
	to := int32(p.q.Confirmed())
	s := p.seg
	if !s.known && !s.beside {
		w.violate(13, "w%d acknowledges %d in segment %d, which the metadata does not know", p.idx, to, s.num)
	}
	if to < s.first {
		w.violate(4, "w%d confirms %d before its segment from %d", p.idx, to, s.first)
	}
	has := s.has(w, to)
	if !s.rule.holds(has) {
		w.violate(1, "w%d acknowledges %d with disks %v, rule %q", p.idx, to, has, s.desc.Rule)
	}
	if p.q.Protected(off(to)) {
		if !w.lay.rule.holds(has) {
			w.violate(11, "w%d says %d is protected by disks %v, rule %q", p.idx, to, has, w.ruleNode)
		}
	} else {
		w.unprotected++
	}
	for o := max(s.first, p.conf+1); o <= to; o++ {
		en := &p.ring[o-p.base]
		if s.beside && o > s.end {
			w.acknowledgedBeside(p, o, en)
			continue
		}
		if (s.closed || s.gone) && o > s.end {
			w.violate(2, "w%d acknowledges %d, segment %d ended at %d", p.idx, o, s.num, s.end)
		}
		w.settle(o, s, en.content, en.ends, true)
		w.acked++
	}
	p.conf = to
	p.memory = p.ring[to-p.base].gtid()
}

// closes: the metadata closes a segment.
func (w *world) closes(s *segment, c *command) {
	if n := int32(len(w.canon)); c.last < n-1 && n-1 >= s.first && !c.lost {
		w.violate(2, "segment %d is closed at %d, %d was acknowledged", s.num, c.last, n-1)
	}
	if c.last >= s.first+int32(len(s.content)) {
		w.violate(2, "segment %d is closed at %d, it has %d entries from %d", s.num, c.last, len(s.content), s.first)
	}
	lso := s.firstLSO
	for o := s.first; o <= c.last; o++ {
		en := s.at(o)
		w.settle(o, s, en.content, en.ends, false)
		if en.ends {
			lso = o
		}
	}
	if c.lso != lso {
		w.violate(5, "segment %d closes at %d with LSO %d, it is %d", s.num, c.last, c.lso, lso)
	}
	held := [citiesMax]int{}
	for n, h := range c.holders {
		if h != 0 {
			s.end = c.last
			w.claims(s, uint8(n), h)
			held[w.nodes[n].city]++
		}
	}
	if c.last >= s.first && !c.reason && !s.rule.holds(held) {
		w.violate(11, "segment %d closes at %d with holders %v below rule %q and no reason", s.num, c.last, held, s.desc.Rule)
	}
}

// claims: somebody says that a disk holds all of a closed segment.
func (w *world) claims(s *segment, n uint8, inc uint16) {
	if i := s.index[n]; i >= 0 && s.incs[i] == inc && s.durable[i] >= s.upto() {
		return
	}
	if s.ever[n] == inc || s.cut && w.has(n, s) >= s.left {
		return
	}
	w.violate(10, "n%d is said to hold segment %d up to %d", n, s.num, s.upto())
}

// has is the newest entry of a segment that a node has on its present disk.
func (w *world) has(n uint8, s *segment) int32 {
	x := &w.nodes[n]
	if int(s.num) >= len(x.reps) || x.reps[s.num] == nil || x.reps[s.num].seg != s || x.reps[s.num].dropped {
		return s.first - 1
	}
	return x.reps[s.num].disk.last()
}

// readableTo is has without what lies behind damage.
func (w *world) readableTo(n uint8, s *segment) int32 {
	last := w.has(n, s)
	if x := &w.nodes[n]; last >= s.first && x.reps[s.num].disk.rot >= 0 {
		return min(last, x.reps[s.num].disk.rot-1)
	}
	return last
}

// opens: the metadata opens a segment.
func (w *world) opens(s *segment) {
	if s.first != int32(len(w.canon)) {
		w.violate(7, "segment %d opens at %d behind %d", s.num, s.first, len(w.canon)-1)
	}
	list := w.meta.listed
	if n := len(list); n > 1 {
		b := w.segs[list[n-2]]
		if !b.closed || b.end+1 != s.first || b.num >= s.num {
			w.violate(7, "segment %d from %d follows segment %d up to %d", s.num, s.first, b.num, b.end)
		}
	}
}

// admitted: a node takes an entry into its queue.
func (w *world) admitted(n *node, r *replica, e *event, before int32) {
	s := r.seg
	if e.o != before+1 {
		w.violate(8, "n%d queues %d of segment %d behind %d", n.idx, e.o, s.num, before)
	}
	switch k := int(e.o - s.first); {
	case k == len(s.content):
		s.content = append(s.content, ent{content: e.content, ends: e.ends})
	case k > len(s.content):
		w.violate(8, "n%d queues %d of segment %d, nobody has the one before", n.idx, e.o, s.num)
	case s.content[k].content != e.content || s.content[k].ends != e.ends:
		w.violate(3, "n%d queues %d of segment %d as %x, it is %x", n.idx, e.o, s.num, e.content, s.content[k].content)
	}
}

// stored: an entry is on disk.
func (w *world) stored(n *node, r *replica, rec *record) {
	s := r.seg
	if r.disk.last() != rec.o {
		w.violate(8, "n%d stores %d of segment %d in the place of %d", n.idx, rec.o, s.num, r.disk.last())
	}
	if t := s.at(rec.o); t.content != rec.ent.content {
		w.violate(3, "n%d stores %d of segment %d as %x, it is %x", n.idx, rec.o, s.num, rec.ent.content, t.content)
	}
	if s.closed && rec.o == s.end {
		s.ever[n.idx] = n.inc
	}
	i := s.index[n.idx]
	if i < 0 || s.incs[i] != n.inc {
		return // a copy by repair
	}
	s.durable[i] = max(s.durable[i], rec.o)
	if rec.ent.epoch < s.answered[i] {
		w.violate(6, "n%d stores %d of segment %d from epoch %d after a seal by %d", n.idx, rec.o, s.num, rec.ent.epoch, s.answered[i])
	}
}

// sealed: a node answers a seal.
func (w *world) sealed(n *node, r *replica, epoch uint32) {
	if i := r.seg.index[n.idx]; i >= 0 && r.seg.incs[i] == n.inc {
		r.seg.answered[i] = max(r.seg.answered[i], epoch)
	}
}

func (w *world) checkLAC(n *node, r *replica) {
	if lac := int32(r.m.LAC()); lac > w.confirmed {
		w.violate(4, "n%d knows %d of segment %d as confirmed, %d is", n.idx, lac, r.seg.num, w.confirmed)
	}
}

// shown: a reader is shown an entry.
func (w *world) shown(n *node, s *segment, o int32, en *ent) {
	if int(o) >= len(w.canon) {
		w.violate(5, "n%d shows %d of segment %d, confirmed is %d", n.idx, o, s.num, len(w.canon)-1)
	}
	if f := &w.canon[o]; f.content != en.content || f.ends != en.ends {
		w.violate(5, "n%d shows %d of segment %d as %x, it is %x of segment %d", n.idx, o, s.num, en.content, f.content, w.segs[f.seg].num)
	}
}

// trimmed: retention gave up a segment.
func (w *world) trimmed(s *segment) {
	for i, c := range w.meta.cursors[:len(w.readers)] {
		if c < s.end {
			w.violate(10, "segment %d up to %d is trimmed, cursor %d stands at %d", s.num, s.end, i, c)
		}
	}
}

// dropped: a node gives a replica up.
func (w *world) dropped(n *node, r *replica) {
	if r.seg.known && !r.seg.gone {
		w.violate(10, "n%d drops segment %d, which is listed", n.idx, r.seg.num)
	}
}

// tail is the newest transaction in the stream below an offset.
func (w *world) tail(first int32) uint64 {
	if first == 0 {
		return 0
	}
	return w.canon[first-1].content >> 20
}

// survives says whether everything would still be there without some disks: each
// open segment's remaining disks cover, each closed one has a holder left. Faults
// that would break this are more than the rules promise to bear.
func (w *world) survives(lost func(n *node) bool, damaged func(n *node, s *segment) bool) bool {
	return w.bears(lost, damaged, false, false)
}

// bears is survives; with open, the open segments may be lost as far as they are
// on these disks, with closed those that were closed, too.
func (w *world) bears(lost func(n *node) bool, damaged func(n *node, s *segment) bool, open, closed bool) bool {
	for k := range len(w.meta.listed) + 16 {
		var s *segment
		if k < len(w.meta.listed) {
			s = w.segs[w.meta.listed[k]]
		} else if i := len(w.segs) - 1 - (k - len(w.meta.listed)); i < 0 || w.segs[i].known || w.segs[i].gone {
			continue
		} else {
			s = w.segs[i] // proposed, and perhaps opened yet
		}
		if s.lost {
			continue
		}
		if !w.curable(s, lost) {
			return false
		}
		good := func(i uint8, inc uint16) bool {
			n := &w.nodes[i]
			if n.inc != inc || n.gen != w.meta.gen || lost(n) || damaged(n, s) {
				return false
			}
			if int(s.num) < len(n.reps) {
				if r := n.reps[s.num]; r != nil && (r.disk.rot >= 0 || r.m.Suspect() || s.closed && r.disk.last() < s.upto()) {
					return false
				}
			}
			return true
		}
		if s.closed {
			left := false
			for i, h := range s.holders {
				left = left || h != 0 && good(uint8(i), h)
			}
			if !left && (!closed || w.rots(s, lost)) {
				return false
			}
			continue
		}
		if open {
			continue
		}
		var gone [citiesMax]int // an acknowledgement by these alone must be impossible
		for i, n := range s.nodes {
			if !good(n, s.incs[i]) {
				gone[w.nodes[n].city]++
			}
		}
		if s.rule.holds(gone) {
			return false
		}
	}
	for i := len(w.calls) - 1; i >= max(0, len(w.calls)-200); i-- { // an end that is proposed counts on its holders
		if c := &w.calls[i]; !c.over && c.command.verb == cmdAdvance && c.command.close {
			return false
		}
	}
	for i := range w.writers { // also while it is only about to be proposed again
		if p := &w.writers[i]; p.phase == phaseOpen && p.call != 0 && w.calls[p.call-1].command.close {
			return false
		}
	}
	return true
}

// rots: a copy of the segment is damaged on a disk that is not lost.
func (w *world) rots(s *segment, lost func(n *node) bool) bool {
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if lost(n) || int(s.num) >= len(n.reps) || n.reps[s.num] == nil || n.reps[s.num].seg != s {
			continue
		}
		if r := n.reps[s.num]; r.disk.rot >= 0 || r.m.Suspect() {
			return true
		}
	}
	return false
}

// curable: every entry that is damaged on a disk is good on another one that is
// not lost. What was never acknowledged may be closed over, too, and then has to
// be readable.
func (w *world) curable(s *segment, lost func(n *node) bool) bool {
	for i := range w.nodes[:w.count] {
		n := &w.nodes[i]
		if lost(n) || int(s.num) >= len(n.reps) {
			continue
		}
		r := n.reps[s.num]
		if r == nil || r.seg != s || r.disk.rot < 0 {
			continue
		}
		found := false
		for k := range w.nodes[:w.count] {
			o := &w.nodes[k]
			if o == n || lost(o) || o.gen != w.meta.gen || int(s.num) >= len(o.reps) {
				continue
			}
			x := o.reps[s.num]
			found = found || x != nil && x.seg == s && x.disk.last() >= r.disk.rot && x.disk.rot != r.disk.rot
		}
		if !found {
			return false
		}
	}
	return true
}
