package sim

import (
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// settings of the writers: small, so that much happens in few events.
var settings = quorum.Settings{
	RollAfter: 25 * time.Millisecond, RollEvery: 40 * time.Millisecond, PenaltyAfter: 60 * time.Millisecond,
	RestoreAfter: 20 * time.Millisecond, SegmentBytes: 60, LACAfter: time.Millisecond,
}

const degradeAfter = 40 * time.Millisecond

// view is what a writer decides from.
func (w *world) view(p *writer) *quorum.View {
	v := &w.scratch
	v.Nodes, v.Degraded, v.Rule, v.Spare, v.DegradeAfter = v.Nodes[:0], v.Degraded[:0], w.ruleNode, w.lay.spare, 0
	v.Seen = cityNames[:]
	k := &w.meta.known
	if w.left(p) {
		k = &w.before
	}
	for i := range w.nodes[:w.count] {
		inc := k.nodes[i]
		if inc == 0 || k.drained[i] {
			continue
		}
		v.Nodes = append(v.Nodes, quorum.Candidate{Member: w.member(uint8(i), inc), Reachable: p.conns[i].state == connUp && w.conns[p.conns[i].gen].inc == inc && p.shun[i] <= w.now})
	}
	for c, d := range k.degraded {
		if d {
			v.Degraded = append(v.Degraded, cityNames[c])
		}
	}
	if w.lay.loss == lossAfter {
		v.DegradeAfter = degradeAfter
	}
	return v
}

// decide asks the machine what to do, and does it.
func (w *world) decide(p *writer) {
	if p.call != 0 || p.phase != phaseOpen && p.phase != phaseRun {
		return
	}
	v := w.view(p)
	var m quorum.Move
	if p.phase == phaseOpen {
		w.giveUp(p)
		w.copyOn(p)
		m = p.rec.Decide(w.time(), v, settings.RollAfter)
	} else {
		m = p.q.Decide(w.time(), v)
	}
	switch m.Verb {
	case quorum.Roll:
		w.roll(p, m.Plan)
	case quorum.Degrade, quorum.Restore:
		p.call = 1 + w.ask(p.idx, p.id, command{verb: cmdDegrade, city: m.City[0] - 'a', off: m.Verb == quorum.Restore, open: -1})
	case quorum.Stay, quorum.Blocked:
		if p.finish && p.phase == phaseRun && p.q.InFlight() == 0 {
			adv, err := p.q.Finish()
			if err == nil {
				p.adv = adv
				w.propose(p)
			}
		}
	}
}

func (w *world) roll(p *writer, plan quorum.Plan) {
	var err error
	p.next = nil
	if p.phase == phaseOpen {
		p.adv, err = p.rec.Propose(&plan, uint64(p.gen))
	} else {
		p.adv, err = p.q.Roll(plan, uint64(p.gen))
	}
	if err != nil {
		w.die(p, err)
		return
	}
	if w.trace != nil {
		w.tracef("w%d     rolls to %s: %s", p.idx, showMembers(plan.Members), plan.Reason)
	}
	w.propose(p)
}

// copyOn sends what a recovery wants copied. It reads the source at once: what
// matters is what the source has on disk.
func (w *world) copyOn(p *writer) {
	for _, c := range p.rec.Copies() {
		from, to := p.seg.nodes[c.From], p.seg.nodes[c.To]
		src := &w.nodes[from]
		if p.conns[from].state != connUp || p.conns[to].state != connUp || !src.up || src.frozen > w.now {
			continue
		}
		if int(p.seg.num) >= len(src.reps) {
			continue
		}
		r := src.reps[p.seg.num]
		if r == nil || r.dropped || r.seg != p.seg {
			continue
		}
		first := int32(c.First)
		if p.copyAt[to] == p.conns[to].gen {
			first = max(first, p.copied[to]+1)
		}
		for o := first; o <= int32(c.Last); o++ {
			if o == r.disk.rot {
				r.m.Damaged()
				p.rec.Suspect(c.From)
				break
			}
			if o > r.disk.last() {
				break
			}
			en := r.disk.ents[o-r.disk.first]
			w.send(p, to, event{kind: mAppend, seg: p.seg.idx, epoch: p.epoch, o: o, lac: int32(log.None), content: en.content, ends: en.ends})
			p.copied[to], p.copyAt[to] = o, p.conns[to].gen
			if w.bug == BugCopiedWhenSent {
				w.hasCopied(p, c.To, o)
			}
		}
	}
}

// hasCopied reports copies to the recovery, with the LSO that goes with them.
func (w *world) hasCopied(p *writer, i int, last int32) {
	lso := p.seg.firstLSO
	for o := min(last, p.seg.first+int32(len(p.seg.content))-1); o >= p.seg.first; o-- {
		if p.seg.at(o).ends {
			lso = o
			break
		}
	}
	p.rec.Copied(i, off(last), off(lso))
}
