package sim

import (
	"errors"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
	"github.com/twinspan/twinspan/log/quorum"
)

type phase uint8

const (
	phaseDown phase = iota
	phaseOwn
	phaseOpen // recovery, and the opening of the next segment
	phaseRun
)

const (
	ringMax   = 96 // entries a writer keeps for members that come back
	windowMax = 64 // entries in flight
)

// writer is a process that wants to append: the shell around Recovery and Writer.
type writer struct {
	idx    uint8
	city   uint8
	id     uint32 // of the process
	phase  phase
	frozen int64 // until
	epoch  uint32
	gen    uint32
	rec    *quorum.Recovery
	q      *quorum.Writer
	seg    *segment // that is recovered, or written; nil: there was none
	next   *segment // proposed
	adv    quorum.Advance
	call   uint32 // 1 + the command whose answer is awaited
	conns  [nodesMax]end
	shun   [nodesMax]int64  // a node that refused, until when
	asked  [nodesMax]uint32 // connection over which it was asked to attach or seal
	sent   [nodesMax]int32  // newest entry sent, by node
	copied [nodesMax]int32  // newest copy sent, by node
	copyAt [nodesMax]uint32 // and over which connection

	ring   []ent // entries from base on
	base   int32
	conf   int32 // newest entry it acknowledged
	gtid   uint64
	memory uint64 // newest transaction it knows to be confirmed, across restarts
	finish bool
}

// startWriter begins a process anew.
func (w *world) startWriter(p *writer) {
	w.ids++
	*p = writer{idx: p.idx, city: p.city, id: w.ids, phase: phaseOwn, memory: p.memory, conns: p.conns, ring: p.ring[:0]}
	for i := range p.conns {
		p.conns[i] = end{retryAt: w.now}
	}
	if w.trace != nil {
		w.tracef("w%d     starts", p.idx)
	}
	p.call = 1 + w.ask(p.idx, p.id, command{verb: cmdOwn, open: -1})
	w.push(event{at: w.now + 1000, kind: evTick, who: p.idx, gen: p.id})
	w.push(event{at: w.now + 1000, kind: evLoad, who: p.idx, gen: p.id})
}

// die ends a process. What it had in flight has an unknown outcome.
func (w *world) die(p *writer, err error) {
	if p.phase == phaseDown {
		return
	}
	if w.trace != nil {
		w.tracef("w%d     dies: %v", p.idx, err)
	}
	if errors.Is(err, log.ErrSuspect) || errors.Is(err, log.ErrProtocol) {
		w.violate(3, "w%d: %v", p.idx, err)
	}
	p.phase = phaseDown
	for i := range p.conns {
		p.conns[i].state = connDown
	}
	if p.idx == w.leader || w.dice.oneIn(3) {
		w.push(event{at: w.now + w.dice.between(2000, 15000), kind: evStart, who: p.idx, gen: p.id})
	}
}

// told: the metadata's answer, or that there is none.
func (w *world) told(p *writer, c *command, r *reply) {
	if p.phase == phaseDown {
		return
	}
	if w.trace != nil {
		w.tracef("w%d     hears: %s -> %v", p.idx, w.describe(c), r.outcome)
	}
	switch c.verb {
	case cmdOwn:
		if r.outcome != quorum.Done {
			p.call = 1 + w.ask(p.idx, p.id, *c)
			return
		}
		w.own(p, r)
	case cmdAdvance:
		w.advanced(p, r)
	case cmdDegrade:
		w.decide(p)
	}
}

func (w *world) own(p *writer, r *reply) {
	p.epoch, p.gen, p.phase = r.epoch, r.gen, phaseOpen
	for i := range p.conns { // made before the generation was known
		p.conns[i] = end{retryAt: w.now}
	}
	if r.open < 0 {
		p.rec = quorum.NewOpening(streamName, r.number, off(r.first), off(r.lso), log.Epoch(r.epoch))
		w.decide(p)
		return
	}
	p.seg = w.segs[r.open]
	rec, err := quorum.NewRecovery(p.seg.desc, log.Epoch(r.epoch))
	if err != nil {
		w.violate(0, "recovery: %v", err)
		return
	}
	p.rec = rec
	for i := range p.conns {
		if p.conns[i].state == connUp {
			w.peered(p, uint8(i))
		}
	}
}

// advanced: the outcome of a close, an opening, or both.
func (w *world) advanced(p *writer, r *reply) {
	if p.phase == phaseOpen {
		if err := p.rec.Outcome(r.outcome); err != nil {
			w.die(p, err)
			return
		}
		switch {
		case p.rec.Finished() && p.adv.Open == nil:
			w.die(p, errForced)
			w.start()
		case p.rec.Finished():
			w.open(p)
		case r.outcome == quorum.Unknown:
			w.propose(p)
		}
		return
	}
	more, err := p.q.Outcome(r.outcome, w.time())
	if more {
		w.confirm(p)
	}
	if err != nil {
		w.die(p, err)
		return
	}
	if adv, again := p.q.Rolling(); again {
		p.adv = adv
		w.propose(p)
		return
	}
	if r.outcome == quorum.Done || p.q.Descriptor().Segment != p.seg.desc.Segment {
		w.enter(p)
	}
}

// propose sends the Advance to the metadata, once more perhaps.
func (w *world) propose(p *writer) {
	c := command{verb: cmdAdvance, epoch: uint32(p.adv.Epoch), open: -1, reason: p.adv.Reason != ""}
	if cl := p.adv.Close; cl != nil {
		c.close, c.seg, c.last, c.lso = true, p.seg.idx, int32(cl.Last), int32(cl.LSO)
		for _, m := range cl.Holders {
			c.holders[m.Node[1]-'0'] = incarnation(m.UUID)
		}
	}
	if p.adv.Lost {
		c.lost, c.o = true, w.lostTo(c.last)
	}
	if p.adv.Open != nil {
		if p.next == nil {
			p.next = w.segmentOf(p.adv.Open)
		}
		c.open = p.next.idx
	}
	p.call = 1 + w.ask(p.idx, p.id, c)
	if w.bug == BugAttachEarly && p.phase == phaseRun && p.next != nil && w.dice.oneIn(4) {
		if _, err := p.q.Outcome(quorum.Done, w.time()); err == nil {
			p.call = 0
			w.enter(p)
		}
	}
}

// open: the first segment of this writer is there.
func (w *world) open(p *writer) {
	old := p.seg
	p.seg, p.next = p.next, nil
	q, err := quorum.NewWriter(p.seg.desc, settings, w.time())
	if err != nil {
		w.violate(0, "writer: %v", err)
		return
	}
	p.rec, p.q, p.phase = nil, q, phaseRun
	p.base, p.conf = p.seg.first, p.seg.first-1
	p.gtid = w.tail(p.seg.first)
	if w.bug == BugResumeFromMemory && p.memory > 0 {
		p.gtid = p.memory
	}
	w.tellClose(p, old)
	w.attachAll(p)
}

// enter: the writer rolled into its next segment.
func (w *world) enter(p *writer) {
	old := p.seg
	p.seg, p.next = p.next, nil
	if p.seg == nil { // a refused roll
		p.seg = old
		return
	}
	w.tellClose(p, old)
	w.attachAll(p)
}

// tellClose spreads the end of a segment; nodes learn it from metadata, too.
func (w *world) tellClose(p *writer, s *segment) {
	if s == nil || !s.known || !s.closed && !s.gone {
		return
	}
	if w.left(p) { // a takeover may have ended it elsewhere
		return
	}
	for _, n := range s.nodes {
		w.send(p, n, event{kind: mClose, seg: s.idx, o: s.end, lac: s.endLSO})
	}
}

func (w *world) attachAll(p *writer) {
	p.asked = [nodesMax]uint32{}
	for i := range p.conns {
		if p.conns[i].state == connUp {
			w.peered(p, uint8(i))
		}
	}
}

// peered: a connection is there; ask the node what is to be asked.
func (w *world) peered(p *writer, n uint8) {
	if p.seg == nil || p.seg.index[n] < 0 || p.asked[n] == p.conns[n].gen {
		return
	}
	i := p.seg.index[n]
	switch p.phase {
	case phaseOpen:
		if p.rec.Wanted()>>i&1 == 1 {
			p.asked[n] = p.conns[n].gen
			w.send(p, n, event{kind: mSeal, seg: p.seg.idx, epoch: p.epoch})
		}
	case phaseRun:
		if p.q.Wants()>>i&1 == 1 {
			p.asked[n] = p.conns[n].gen
			w.send(p, n, event{kind: mAttach, seg: p.seg.idx, epoch: p.seg.epoch})
		}
	}
}

func (w *world) lost(p *writer, n uint8) {
	if p.seg == nil || p.seg.index[n] < 0 {
		return
	}
	switch i := int(p.seg.index[n]); p.phase {
	case phaseOpen:
		p.rec.Broken(i)
	case phaseRun:
		p.q.Broken(i, p.seg.num, w.time())
	}
}

// toWriter: a node's answer.
func (w *world) toWriter(p *writer, e *event) {
	if x := &p.conns[e.peer]; p.phase == phaseDown || x.gen != e.gen || x.state != connUp {
		return
	}
	if p.seg == nil || p.seg.idx != e.seg && !(e.kind == rAck && w.bug == Bug(fault.StaleAck)) {
		return
	}
	i := int(p.seg.index[e.peer])
	if i < 0 {
		return
	}
	switch e.kind {
	case rAck:
		w.ackedBy(p, i, e)
	case rAttached:
		if p.phase != phaseRun {
			return
		}
		if from, ok := p.q.Attached(i, p.seg.num, off(e.o), w.time()); ok {
			p.sent[e.peer] = int32(from) - 1
			w.ackedBy(p, i, e)
			if p.phase == phaseRun {
				w.pump(p, i)
			}
		}
	case rSealed:
		if p.phase != phaseOpen || e.epoch != p.epoch {
			return
		}
		p.asked[e.peer] = 0 // it may be asked again
		s := w.answers[e.content]
		if w.trace != nil {
			w.tracef("w%d     n%d sealed: %+v", p.idx, e.peer, s)
		}
		if err := p.rec.Sealed(i, s); err != nil && w.trace != nil {
			w.tracef("w%d     %v", p.idx, err)
		}
		w.decide(p)
	case rError:
		w.refused(p, i, e)
	}
}

func (w *world) ackedBy(p *writer, i int, e *event) {
	switch p.phase {
	case phaseOpen:
		if p.rec.Wanted()>>i&1 == 0 {
			w.hasCopied(p, i, e.o)
			w.decide(p)
		}
	case phaseRun:
		num := p.seg.num
		if w.bug == Bug(fault.StaleAck) {
			num = w.segs[e.seg].num
		}
		more, err := p.q.Acked(i, num, off(e.o))
		if more {
			w.confirm(p)
		}
		if err != nil {
			w.die(p, err)
		}
	}
}

func (w *world) refused(p *writer, i int, e *event) {
	switch code(e.o) {
	case codeFenced:
		var err error
		if p.phase == phaseOpen {
			err = p.rec.Fenced()
		} else {
			err = p.q.Fence()
		}
		w.die(p, err)
	case codeGeneration:
		w.die(p, log.ErrGeneration)
	case codeSuspect, codeIdentity, codeFull, codeClosed:
		p.shun[e.peer] = w.now + 20000
		switch p.phase {
		case phaseRun:
			p.q.Refuse(i, p.seg.num, w.time())
		case phaseOpen:
			switch code(e.o) {
			case codeSuspect:
				p.rec.Suspect(i)
			case codeIdentity:
				p.rec.Foreign(i)
			}
			w.decide(p)
		}
	default: // a gap: entries were dropped on the way; once more from what it has
		x := &p.conns[e.peer]
		w.push(event{at: w.now, kind: evConnDown, who: p.idx, peer: e.peer, gen: x.gen})
	}
}

// pump sends member i what it has not been sent.
func (w *world) pump(p *writer, i int) {
	if p.q.State(i) != quorum.Attached {
		return
	}
	n := p.seg.nodes[i]
	lac := int32(p.q.Confirmed())
	if w.bug == BugLACAhead {
		lac = int32(p.q.Next()) - 1
	}
	for o := p.sent[n] + 1; o < int32(p.q.Next()); o++ {
		en := &p.ring[o-p.base]
		w.send(p, n, event{kind: mAppend, seg: p.seg.idx, epoch: p.seg.epoch, o: o, lac: lac, content: en.content, ends: en.ends})
		p.sent[n] = o
	}
}

// load appends a burst.
func (w *world) load(p *writer) {
	w.push(event{at: w.now + w.dice.between(500, w.pace), kind: evLoad, who: p.idx, gen: p.id})
	if p.phase != phaseRun || p.q.Err() != nil || p.finish {
		return
	}
	for range 1 + w.dice.n(5) {
		if p.q.InFlight() >= windowMax {
			break
		}
		p.gtid++
		ends := !w.dice.oneIn(3)
		o := int32(p.q.Append(1, ends))
		p.ring = append(p.ring, ent{content: p.gtid<<20 | uint64(p.id&0xfff)<<4, epoch: p.seg.epoch, ends: ends})
		if int(o-p.base) != len(p.ring)-1 {
			w.violate(9, "w%d: entry %d is number %d of the ring from %d", p.idx, o, len(p.ring)-1, p.base)
			return
		}
	}
	for i := range p.seg.nodes {
		w.pump(p, i)
	}
	if len(p.ring) > ringMax+windowMax {
		w.violate(14, "w%d keeps %d entries", p.idx, len(p.ring))
	}
	if len(p.ring) > ringMax {
		w.shorten(p)
	}
}

// shorten forgets old entries of the ring.
func (w *world) shorten(p *writer) {
	to := min(int32(p.q.Confirmed())+1, p.base+int32(len(p.ring))-ringMax/2)
	if to <= p.base {
		return
	}
	p.ring = p.ring[:copy(p.ring, p.ring[to-p.base:])]
	p.base = to
	p.q.Kept(off(to), func(i int) log.Offset { return off(p.sent[p.seg.nodes[i]]) }, w.time())
}

// tick is the writer's timer.
func (w *world) tick(p *writer) {
	d := int64(1500)
	w.push(event{at: w.now + d, kind: evTick, who: p.idx, gen: p.id})
	if p.phase == phaseDown {
		return
	}
	if w.left(p) && (w.calm || w.net.oneIn(64)) && w.linked(actorWriter+p.idx, actorMeta) && w.linked(actorMeta, actorWriter+p.idx) {
		w.die(p, log.ErrGeneration) // the new voters answer it
		return
	}
	for i := range w.nodes[:w.count] {
		if x := &p.conns[i]; x.state == connDown {
			w.connect(p, &w.nodes[i])
		} else if x.state == connUp {
			w.peered(p, uint8(i))
		}
	}
	if p.phase == phaseRun {
		if lac, due := p.q.IdleLAC(w.time()); due {
			for i, n := range p.seg.nodes {
				if p.q.State(i) == quorum.Attached {
					w.send(p, n, event{kind: mLAC, seg: p.seg.idx, epoch: p.seg.epoch, lac: int32(lac)})
				}
			}
		}
		for i := range p.seg.nodes {
			w.pump(p, i)
		}
	}
	if w.now/d%4 == 0 || p.phase == phaseOpen {
		w.decide(p)
	}
}

func (w *world) time() time.Duration { return time.Duration(w.now) * time.Microsecond }
