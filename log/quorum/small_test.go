package quorum_test

import (
	"bytes"
	"fmt"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// The small scope: 4 nodes in two cities, the rule one of each, 3 entries. The
// first writer owns the segment, appends, and may roll once to the nodes that one
// is missing from; the second one may take over at any time, before, during and
// after that, and recovers what it finds. Every order in which messages arrive,
// disks finish and proposals are decided or go unanswered is looked at. What is
// taken together: an acknowledgement arrives with the disk's word, and a seal's
// answer with its fence, because neither says anything that was not true before;
// a copy is one step.
const smallNodes = 4

// scope says what is looked at in one search.
type scope struct {
	name          string
	entries       log.Offset
	roll, doubt   bool
	lose, readers bool
}

var scopes = []scope{
	{name: "takeover, two entries", entries: 2, readers: true},
	{name: "takeover, a connection lost", entries: 3, lose: true},
	{name: "roll and takeover, one entry", entries: 1, roll: true, doubt: true, lose: true, readers: true},
	{name: "roll and takeover", entries: 3, roll: true, doubt: true, lose: true, readers: true},
}

// small is a state of the small scope.
type small struct {
	scope *scope
	reps  [2][smallNodes]quorum.Replica // of segment 1 and 2
	made  [2][smallNodes]bool
	sent  [smallNodes]int8 // entries that the first writer has sent on its connection
	cut   [smallNodes]bool // the connection broke; it is made anew once
	lost  int8             // connections that broke
	w     *quorum.Writer
	seg   int8 // that w writes, 0 or 1
	adv   *quorum.Advance
	rec   *quorum.Recovery
	spare *quorum.Recovery // space for one
	on    int8             // segment that rec recovers
	next  *quorum.Advance

	// The metadata.
	epoch   log.Epoch
	closed  [2]int8 // last entry; -2: open; -3: not opened
	doubt   int8    // outcomes that were lost
	descs   [2]*quorum.Descriptor
	quorums [2]quorum.Quorum
	index   [2][smallNodes]int8
	sealing [smallNodes]bool // asked by the second writer
	acked   int8             // newest entry that was acknowledged, ever
}

func newSmall(sc *scope) *small {
	d := quorum.Descriptor{
		Stream: "s", Segment: 1, FirstLSO: log.None, Epoch: 1, Generation: 1, Protected: true,
		Members: members("a", "a", "b", "b"), Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}},
	}
	w, err := quorum.NewWriter(d, quorum.Settings{}, 0)
	if err != nil {
		panic(err)
	}
	s := &small{scope: sc, w: w, epoch: 1, closed: [2]int8{-2, -3}, acked: -1}
	s.opened(0, &d)
	s.index[1] = [smallNodes]int8{-1, -1, -1, -1}
	for i := range smallNodes {
		s.make(0, i, 1)
		w.Attached(i, 1, log.None, 0)
	}
	for range sc.entries { // when they are appended does not matter, only when they arrive
		w.Append(1, true)
	}
	return s
}

func (s *small) make(seg, n int, fence log.Epoch) {
	first := s.descs[seg].First
	s.reps[seg][n] = quorum.NewReplica(quorum.ReplicaState{First: first, Fence: fence, Last: first - 1, LSO: first - 1, LAC: log.None})
	s.made[seg][n] = true
}

// copyTo uses the space that c has.
func (s *small) copyTo(c *small) {
	w, rec := c.w, c.spare
	if w == nil {
		w, rec = &quorum.Writer{}, &quorum.Recovery{}
	}
	*c = *s
	s.w.CopyTo(w)
	c.w, c.spare = w, rec
	if s.rec != nil {
		s.rec.CopyTo(rec)
		c.rec = rec
	}
}

// fingerprint tells states apart, but for the names of the nodes within a city.
func (s *small) fingerprint(b []byte) []byte {
	var nodes [smallNodes][32]byte
	for n := range smallNodes {
		p := append(nodes[n][:0], 0, byte(s.sent[n]))
		for seg := range s.reps { // which member it is does not matter, only that it is one
			if s.index[seg][n] >= 0 {
				p[0] |= 1 << seg
			}
			if s.made[seg][n] {
				p[0] |= 4 << seg
				p = s.reps[seg][n].Fingerprint(p)
			} else {
				p = append(p, 0, 0, 0, 0, 0)
			}
		}
		if s.cut[n] {
			p[0] |= 16
		}
		if i := s.index[s.seg][n]; i >= 0 {
			p = s.w.FingerprintMember(p, int(i))
		} else {
			p = append(p, 0, 0)
		}
		if i := s.index[s.on][n]; s.rec != nil && i >= 0 {
			p = s.rec.FingerprintMember(p, int(i))
		}
		if len(p) > len(nodes[n]) {
			panic("the fingerprint of a node does not fit")
		}
	}
	for _, city := range [2]int{0, 2} {
		if bytes.Compare(nodes[city][:], nodes[city+1][:]) > 0 {
			nodes[city], nodes[city+1] = nodes[city+1], nodes[city]
		}
	}
	for n := range smallNodes {
		b = append(b, nodes[n][:]...)
	}
	b = append(b, byte(s.seg), byte(s.on), byte(s.epoch), byte(s.closed[0]), byte(s.closed[1]), byte(s.doubt), byte(s.lost), byte(s.acked))
	b = s.w.Fingerprint(b)
	if s.adv != nil {
		b = append(b, 2)
	}
	if s.descs[1] != nil {
		b = append(b, 4, byte(s.descs[1].First))
	}
	if s.rec != nil {
		b = s.rec.Fingerprint(append(b, 5))
	}
	if s.next != nil {
		b = append(b, 3)
	}
	return b
}

// What may happen next.
const (
	doDeliver = iota
	doConnect
	doLose
	doDisk
	doFence
	doSeal
	doRoll
	doDecide
	doDecideUnheard
	doDrop
	doOwn
	doCopy
	doPropose
	doEnd
)

var doNames = [...]string{"deliver", "connect", "lose", "disk", "fence", "seal", "roll without", "roll decided", "roll decided, unheard", "roll lost", "own", "copy", "propose the end", "end decided"}

// steps makes each state that may follow, in c, and calls yield.
func (s *small) steps(c *small, yield func(what, n int)) {
	try := func(what, n int) {
		if s.copyTo(c); c.do(what, n) {
			yield(what, n)
		}
	}
	alive := s.w.Err() == nil
	for n := range smallNodes {
		i := int(s.index[s.seg][n])
		if alive && i >= 0 {
			if !s.cut[n] && s.w.State(i) == quorum.Attached {
				if log.Offset(s.sent[n]) < s.w.Next() {
					try(doDeliver, n)
				}
				if s.lost == 0 && s.scope.lose {
					try(doLose, n)
				}
			}
			if s.cut[n] {
				try(doConnect, n)
			}
		}
		for seg := range s.reps {
			if r := &s.reps[seg][n]; s.made[seg][n] {
				if r.Queued() > r.State().Last {
					try(doDisk, seg*smallNodes+n)
				}
				if _, ok := r.SealReady(); ok {
					try(doFence, seg*smallNodes+n)
				}
			}
		}
		if s.rec != nil {
			if k := s.index[s.on][n]; k >= 0 && s.rec.Wanted()>>k&1 == 1 && (!s.made[s.on][n] || !s.sealing[n]) {
				try(doSeal, n)
			}
		}
	}
	if alive && s.adv == nil && s.seg == 0 && s.scope.roll {
		try(doRoll, 0) // without another node is the same by symmetry
		try(doRoll, 2)
	}
	if s.adv != nil {
		try(doDecide, 0)
		if s.doubt == 0 && s.scope.doubt {
			try(doDecideUnheard, 0)
			try(doDrop, 0)
		}
	}
	if s.rec == nil {
		try(doOwn, 0)
		return
	}
	if s.next == nil && s.rec.Err() == nil && !s.rec.Finished() {
		for k := range s.rec.Copies() {
			try(doCopy, k)
		}
		if _, ok := s.rec.Ready(); ok {
			try(doPropose, 0)
		}
	}
	if s.next != nil {
		try(doEnd, 0)
	}
}

func (s *small) do(what, n int) bool {
	switch what {
	case doDeliver:
		return s.deliver(n)
	case doConnect:
		return s.connect(n)
	case doLose:
		return s.lose(n)
	case doDisk:
		return s.disk(n/smallNodes, n%smallNodes)
	case doFence:
		r := &s.reps[n/smallNodes][n%smallNodes]
		e, _ := r.SealReady()
		r.FenceDurable(e)
		s.answer(n/smallNodes, n%smallNodes)
		return true
	case doSeal:
		return s.seal(n)
	case doRoll:
		return s.roll(n)
	case doDecide:
		return s.decided(s.adv, true, false)
	case doDecideUnheard:
		return s.decided(s.adv, true, true)
	case doDrop:
		s.doubt++
		s.told(true, quorum.Unknown)
		return true
	case doOwn:
		return s.own()
	case doCopy:
		return s.copied(s.rec.Copies()[n])
	case doPropose:
		return s.propose()
	}
	return s.decided(s.next, false, false)
}

// member of a segment that a node is; -1: none.
func (s *small) member(seg, n int) int { return int(s.index[seg][n]) }

// opened: a segment has a descriptor.
func (s *small) opened(seg int, d *quorum.Descriptor) {
	s.descs[seg] = d
	q, err := d.Quorum()
	if err != nil {
		panic(err)
	}
	s.quorums[seg] = q
	for n := range smallNodes {
		s.index[seg][n] = int8(d.Index(fmt.Sprintf("n%d", n), fmt.Sprintf("u%d", n)))
	}
}

// deliver the first writer's next entry to a node.
func (s *small) deliver(n int) bool {
	seg := int(s.seg)
	i := s.member(seg, n)
	if i < 0 || s.cut[n] || s.w.State(i) != quorum.Attached || log.Offset(s.sent[n]) >= s.w.Next() {
		return false
	}
	o := log.Offset(s.sent[n])
	s.sent[n]++
	if _, err := s.reps[seg][n].Admit(1, o); err != nil {
		s.w.Fence()
		return true
	}
	if s.scope.readers {
		if err := s.reps[seg][n].Confirm(1, s.w.Confirmed()); err != nil {
			panic(err)
		}
	}
	s.acknowledge(seg, n)
	return true
}

// lose the connection to a node, and what it had queued with it.
func (s *small) lose(n int) bool {
	i := s.member(int(s.seg), n)
	if i < 0 || s.w.State(i) != quorum.Attached {
		return false
	}
	s.w.Broken(i, uint32(s.seg)+1, 0)
	s.reps[s.seg][n].Dropped()
	s.cut[n], s.lost = true, s.lost+1
	return true
}

// connect again, and resume.
func (s *small) connect(n int) bool {
	s.cut[n] = false
	return s.attach(n)
}

// attach the first writer to a node.
func (s *small) attach(n int) bool {
	seg := int(s.seg)
	i := s.member(seg, n)
	if i < 0 {
		return true
	}
	if !s.made[seg][n] {
		s.make(seg, n, 1)
	}
	r := &s.reps[seg][n]
	if r.BeginSeal(1) != nil {
		s.w.Fence()
		return true
	}
	from, ok := s.w.Attached(i, uint32(seg)+1, r.Last(), 0)
	if ok {
		s.sent[n] = int8(from)
	}
	return true
}

// disk finishes what a node has queued.
func (s *small) disk(seg, n int) bool {
	r := &s.reps[seg][n]
	r.Durable(r.Queued(), r.Queued())
	s.acknowledge(seg, n)
	return true
}

// acknowledge tells the first writer what a node says it has on disk.
func (s *small) acknowledge(seg, n int) {
	if i := s.member(seg, n); s.w.Err() == nil && i >= 0 && !s.cut[n] {
		if _, err := s.w.Acked(i, uint32(seg)+1, s.reps[seg][n].Last()); err != nil {
			panic(err)
		}
	}
}

func (s *small) answer(seg, n int) {
	a, ok, err := s.reps[seg][n].Sealed(2)
	if err != nil || !ok {
		panic(fmt.Sprint("no answer: ", ok, err))
	}
	if err := s.rec.Sealed(s.member(seg, n), a); err != nil {
		panic(err)
	}
}

// own: the second writer takes over.
func (s *small) own() bool {
	s.epoch = 2
	if s.closed[1] != -3 {
		s.on = 1
	}
	r, err := quorum.NewRecovery(*s.descs[s.on], 2)
	if err != nil {
		panic(err)
	}
	s.rec = r
	return true
}

func (s *small) seal(n int) bool {
	seg := int(s.on)
	i := s.member(seg, n)
	if i < 0 || s.rec.Wanted()>>i&1 == 0 {
		return false
	}
	if !s.made[seg][n] {
		s.make(seg, n, 0)
	}
	s.sealing[n] = true
	if err := s.reps[seg][n].BeginSeal(2); err != nil {
		panic(err)
	}
	return true
}

func (s *small) copied(k quorum.Copy) bool {
	from, to := s.node(k.From), s.node(k.To)
	if s.reps[s.on][from].Last() < k.First {
		panic("the source has it not")
	}
	r := &s.reps[s.on][to]
	if _, err := r.Admit(2, k.First); err != nil {
		panic(err)
	}
	r.Durable(k.First, k.First)
	s.rec.Copied(k.To, k.First, k.First)
	return true
}

// node of a member of the segment that is recovered.
func (s *small) node(i int) int { return int(s.descs[s.on].Members[i].Node[1] - '0') }

func (s *small) plan(without int) quorum.Plan {
	all := members("a", "a", "b", "b")
	if without >= 0 {
		all = append(all[:without:without], all[without+1:]...)
	}
	return quorum.Plan{Members: all, Rule: s.descs[0].Rule, Protected: true}
}

func (s *small) roll(without int) bool {
	a, err := s.w.Roll(s.plan(without), 1)
	if err != nil {
		panic(err)
	}
	s.adv = &a
	return true
}

func (s *small) propose() bool {
	if _, ok := s.rec.Ready(); !ok {
		return false
	}
	p := s.plan(-1)
	a, err := s.rec.Propose(&p, 1)
	if err != nil {
		panic(err)
	}
	s.next = &a
	return true
}

// decided: the metadata takes a proposal, or refuses it.
func (s *small) decided(a *quorum.Advance, first, unheard bool) bool {
	seg := a.Close.Segment - 1
	out := quorum.Done
	switch {
	case a.Epoch < s.epoch:
		out = quorum.Fenced
		if s.closed[seg] != -2 && first && s.closed[seg] == int8(a.Close.Last) && s.descs[1] != nil && s.descs[1].Epoch == 1 {
			out = quorum.Fenced // decided once, and fenced since
		}
	case s.closed[seg] == -2:
		if int8(a.Close.Last) < s.acked {
			panic(fmt.Sprintf("closed at %d, %d was acknowledged", a.Close.Last, s.acked))
		}
		s.closed[seg] = int8(a.Close.Last)
		if seg == 0 {
			s.closed[1] = -2
			s.opened(1, a.Open)
		}
	}
	if unheard {
		s.doubt++
		out = quorum.Unknown
	}
	s.told(first, out)
	return true
}

func (s *small) told(first bool, out quorum.Outcome) {
	if !first {
		if err := s.rec.Outcome(out); err == nil {
			s.next = nil
		}
		return
	}
	if _, err := s.w.Outcome(out, 0); err != nil {
		s.adv = nil
		return
	}
	if _, again := s.w.Rolling(); again {
		return
	}
	s.adv, s.seg = nil, 1
	for n := range smallNodes {
		s.sent[n] = int8(s.descs[1].First)
		s.attach(n)
	}
}

// check is what must hold in every state.
func (s *small) check() error {
	if c := int8(s.w.Confirmed()); c > s.acked {
		seg := int(s.seg)
		if s.closed[seg] >= -1 && c > s.closed[seg] || s.closed[seg] == -3 {
			return fmt.Errorf("%d is acknowledged in segment %d, which ends at %d", c, seg+1, s.closed[seg])
		}
		s.acked = c
	}
	for seg := range s.reps {
		if s.closed[seg] == -3 {
			continue
		}
		q := s.quorums[seg]
		for o := s.descs[seg].First; o < s.scope.entries; o++ {
			var have uint64
			for n := range smallNodes {
				if i := s.member(seg, n); i >= 0 && s.made[seg][n] && s.reps[seg][n].State().Last >= o {
					have |= 1 << i
				}
			}
			if int8(o) <= s.acked && !q.Ack(have) && (s.closed[seg] == -2 || int8(o) <= s.closed[seg]) {
				return fmt.Errorf("entry %d of segment %d was acknowledged and is on %b", o, seg+1, have)
			}
		}
		for n := range smallNodes {
			if s.made[seg][n] && s.reps[seg][n].Visible() > log.Offset(s.acked) {
				return fmt.Errorf("n%d shows %d, acknowledged is %d", n, s.reps[seg][n].Visible(), s.acked)
			}
		}
	}
	if s.closed[0] >= -1 && s.descs[1].First != log.Offset(s.closed[0])+1 {
		return fmt.Errorf("segment 2 starts at %d behind %d", s.descs[1].First, s.closed[0])
	}
	return nil
}
