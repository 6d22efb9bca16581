package quorum

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
)

// Copy is a range of entries that a recovery wants on another member, in offset
// order, appended with the recovery's epoch.
type Copy struct {
	From, To    int // members
	First, Last log.Offset
}

// Recovery ends an open segment whose writer is gone, for the owner of a higher
// epoch. It is driven like this:
//
//  1. Seal the members in Wanted, again and again, and report each answer with
//     Sealed, Suspect, Foreign, Fenced; a connection that broke with Broken.
//  2. Perform Copies, reporting progress with Copied. They change with every
//     report; a copy that is no longer listed may be finished or given up.
//  3. Once Ready, Propose, and feed the Outcome back until Done or an error.
//
// An entry n that was acknowledged has a set Q with Ack(Q); a covering set of
// sealed members holds one of Q, whose newest entry was n or above before its
// fence; so the largest newest entry of a covering set is at or above n.
//
// It is not safe for concurrent use.
type Recovery struct {
	desc    Descriptor
	epoch   log.Epoch
	quorum  Quorum
	way     *Quorum // the weaker rule that is enough, when the stream is degraded
	rest    bool    // what the members that are left hold is enough
	given   uint64  // members that an operator gave up
	told    uint64  // members that have answered a seal, whatever it proves: they take nothing of an old writer any more
	tried   uint64  // members that could not be asked, or were lost since
	members []sealed
	empty   bool     // there is no open segment, only one to be opened behind desc
	open    *Advance // proposed, outcome not known
	unknown bool     // at least once
	done    bool
	err     error

	waiting   bool // for the rule, or for nodes, since
	waitSince time.Duration
	progress  bool // something came, and the time to wait for more begins anew
	restSince time.Duration
	again     bool   // before a partial end all are asked again, since
	asked     uint64 // of these
	askedAt   time.Duration
}

type sealed struct {
	Sealed
	state sealState
}

type sealState uint8

const (
	sealAsk  sealState = iota // no answer yet
	sealHere                  // sealed and connected
	sealAway                  // sealed; the connection is gone
	sealNone                  // its answer proves nothing: suspect, or another directory
)

// NewRecovery of segment d by the owner of epoch.
func NewRecovery(d Descriptor, epoch log.Epoch) (*Recovery, error) {
	q, err := d.Quorum()
	if err != nil {
		return nil, fmt.Errorf("recover segment %d of stream %q: %w", d.Segment, d.Stream, err)
	}
	return &Recovery{desc: d, epoch: epoch, quorum: q, members: make([]sealed, len(d.Members))}, nil
}

// NewOpening is for a stream without an open segment: there is nothing to
// recover, and only the next segment to be opened, of that number, behind that
// newest entry and LSO.
func NewOpening(stream string, segment uint32, first, lso log.Offset, epoch log.Epoch) *Recovery {
	return &Recovery{
		desc: Descriptor{Stream: stream, Segment: segment - 1, First: first, FirstLSO: lso}, epoch: epoch, empty: true,
	}
}

// Epoch is the epoch to seal with.
func (r *Recovery) Epoch() log.Epoch { return r.epoch }

// Descriptor of the segment that is recovered; of an opening, without members.
func (r *Recovery) Descriptor() *Descriptor { return &r.desc }

// Err is why the recovery is over without success: log.ErrFenced, or
// log.ErrSuspect when the answers contradict each other.
func (r *Recovery) Err() error { return r.err }

func (r *Recovery) fail(err error) error {
	if r.err == nil {
		r.err = fmt.Errorf("recover segment %d of stream %q at epoch %d: %w", r.desc.Segment, r.desc.Stream, r.epoch, err)
	}
	return r.err
}

// Wanted is the set of members to seal: those that have not answered, and those
// whose connection broke since. One that was given up is wanted until it has
// answered: what it says does not count, but while it lives it could still take
// entries of the old writer, who would think them confirmed.
func (r *Recovery) Wanted() uint64 {
	if r.err != nil || r.done {
		return 0
	}
	return r.in(sealAsk) | r.in(sealAway) | r.given&^r.told
}

func (r *Recovery) in(s sealState) (set uint64) {
	for i := range r.members {
		if r.members[i].state == s {
			set |= 1 << i
		}
	}
	return set
}

// Sealed takes member i's answer. One that has less than before has lost entries
// and proves nothing any more; the error says so, and the recovery goes on.
func (r *Recovery) Sealed(i int, s Sealed) error {
	r.told |= 1 << i
	m := &r.members[i]
	if s.Last < r.desc.First-1 || (m.state == sealHere || m.state == sealAway) && s.Last < m.Last {
		m.state = sealNone
		return fmt.Errorf("member %s answers %d after %d: %w", r.desc.Members[i].Node, s.Last, m.Last, log.ErrSuspect)
	}
	if m.state != sealNone {
		r.progress = r.progress || m.state == sealAsk || m.Last != s.Last
		m.Sealed, m.state = s, sealHere
	}
	return nil
}

// Suspect: member i can't say where its entries end, now or after it was sealed.
func (r *Recovery) Suspect(i int) {
	r.told |= 1 << i // it is fenced all the same
	r.members[i].state = sealNone
}

// Foreign: under member i's name answers another directory, which holds nothing.
func (r *Recovery) Foreign(i int) {
	r.told |= 1 << i // nobody appends to a directory that is gone
	r.members[i].state = sealNone
	if fault.Is(fault.ForeignCounts) {
		r.members[i] = sealed{Sealed{Last: r.desc.First - 1, LAC: log.None, LSO: r.desc.FirstLSO}, sealHere}
	}
}

// Fenced: a node, or the metadata, knows a higher epoch. The recovery is over.
func (r *Recovery) Fenced() error { return r.fail(log.ErrFenced) }

// Broken: the connection to member i is gone, or there was none. Its seal stays good.
func (r *Recovery) Broken(i int) {
	r.tried |= 1 << i
	if r.members[i].state == sealHere {
		r.members[i].state = sealAway
	}
}

// GiveUp ends the wait for members that never answer again, or only with damage:
// an operator says so. The segment can then be closed although the others do not
// cover it, once every one of them is sealed: what any of them has is kept, what
// only those given up had is lost. Which entries that may be is Lost. Those given up
// are asked as well, and waited for a little, so that one which lives is fenced.
func (r *Recovery) GiveUp(members uint64) {
	r.given |= members & r.quorum.All()
	for i := range r.members {
		if r.given>>i&1 == 1 {
			r.members[i].state = sealNone
		}
	}
}

// Covered says that no entry above End was ever acknowledged, nor will be; or that
// an operator gave up those who may know of one, and all others are sealed.
func (r *Recovery) Covered() bool {
	sealed := r.in(sealHere) | r.in(sealAway)
	if fault.Is(fault.ForcedEarly) && r.given != 0 && sealed != 0 {
		return true
	}
	return r.empty || r.quorum.Covers(sealed) || r.given != 0 && sealed|r.given == r.quorum.All()
}

// Lost says that entries above End may have been acknowledged: they were on
// members that were given up, and nobody is left who would know. Their offsets
// must never be used again.
func (r *Recovery) Lost() bool {
	return r.given != 0 && !r.empty && !r.quorum.Covers(r.in(sealHere)|r.in(sealAway))
}

// End is where the segment will be closed: the largest newest entry over the
// sealed members, or where metadata once closed it. ok is false before Covered.
// Members that were sealed and are gone do not count when the others cover.
func (r *Recovery) End() (last, lso log.Offset, ok bool) {
	if !r.Covered() {
		return 0, 0, false
	}
	set := r.in(sealHere)
	if !r.empty && !r.quorum.Covers(set) {
		set |= r.in(sealAway)
	}
	last, lso = r.desc.First-1, r.desc.FirstLSO
	for s := set; s != 0; s &= s - 1 {
		m := &r.members[bits.TrailingZeros64(s)]
		if m.Closed {
			return m.End, m.EndLSO, true
		}
		if m.Last > last {
			last, lso = m.Last, m.LSO
		}
		if fault.Is(fault.FirstLast) {
			break
		}
	}
	if fault.Is(fault.SmallestLast) {
		for s := set; s != 0; s &= s - 1 {
			if m := &r.members[bits.TrailingZeros64(s)]; m.Last < last {
				last, lso = m.Last, m.LSO
			}
		}
	}
	return last, lso, true
}

// holders are the sealed members that have everything up to last.
func (r *Recovery) holders(last log.Offset) (set uint64) {
	for i := range r.members {
		if m := &r.members[i]; (m.state == sealHere || m.state == sealAway) && m.Last >= last {
			set |= 1 << i
		}
	}
	return set
}

// Copies lists what has to be copied so that more members hold the segment up to
// End: at most one range per target, from a source of its own city if there is one.
func (r *Recovery) Copies() []Copy {
	last, _, ok := r.End()
	if !ok || r.err != nil || r.open != nil || r.done {
		return nil
	}
	sources := r.holders(last) & r.in(sealHere)
	var out []Copy
	for t := range r.members {
		m := &r.members[t]
		if m.state != sealHere || m.Closed || m.Last >= last || sources == 0 {
			continue
		}
		from := bits.TrailingZeros64(sources)
		for s := sources; s != 0; s &= s - 1 {
			if i := bits.TrailingZeros64(s); r.desc.Members[i].City == r.desc.Members[t].City {
				from = i
				break
			}
		}
		out = append(out, Copy{From: from, To: t, First: m.Last + 1, Last: last})
	}
	return out
}

// Copied: member i has acknowledged copies up to last, the newest of which that
// ends a transaction is lso, or the one before them.
func (r *Recovery) Copied(i int, last, lso log.Offset) {
	if m := &r.members[i]; last > m.Last {
		m.Last, m.LSO, r.progress = last, lso, true
	}
}

// Ready says that the segment can be closed. partial: not with its rule, but with
// the weaker one that was permitted. full: the rule holds, there is nothing to
// wait for.
func (r *Recovery) Ready() (partial, ok bool) {
	last, _, ok := r.End()
	if !ok || r.err != nil || r.done {
		return false, false
	}
	set := r.holders(last)
	if last < r.desc.First || r.quorum.Ack(set) || fault.Is(fault.EarlyClose) {
		return false, true
	}
	set &= r.in(sealHere) // less than the rule has to be there to be seen
	all := r.given != 0 && set == r.in(sealHere)
	return true, set != 0 && (r.rest || all || r.way != nil && r.way.Ack(set))
}

// Close is what Ready allows.
func (r *Recovery) Close() (c Close, partial, ok bool) {
	if partial, ok = r.Ready(); !ok {
		return Close{}, false, false
	}
	last, lso, _ := r.End()
	for i := range r.members {
		if m := &r.members[i]; (m.state == sealHere || m.state == sealAway) && m.LAC > last && !r.Lost() { // then it says what is lost
			_ = r.fail(fmt.Errorf("member %s knows entry %d as confirmed, the segment would end at %d: %w",
				r.desc.Members[i].Node, m.LAC, last, log.ErrSuspect))
			return Close{}, false, false
		}
	}
	c = Close{Segment: r.desc.Segment, Last: last, LSO: lso}
	if last >= r.desc.First {
		c.Holders = pick(r.desc.Members, r.holders(last))
		if fault.Is(fault.ClaimedHolders) {
			c.Holders = r.desc.Members
		}
	}
	return c, partial, true
}

func pick(members []Member, set uint64) []Member {
	out := make([]Member, 0, bits.OnesCount64(set))
	for ; set != 0; set &= set - 1 {
		out = append(out, members[bits.TrailingZeros64(set)])
	}
	return out
}

// Decide says how to go on. Roll: Propose with Move.Plan. Degrade and Restore: have
// the metadata do without Move.City, or not any more, then decide again. Blocked, Stay: wait for
// members, or for nodes to open the next segment on. Call it after each report
// and at least every graceAfter/4.
//
// A segment whose rule the members that are left can't meet is closed PARTIAL: at
// once where the stream is degraded, by what is left of the rule; else after
// graceAfter without news, if the next segment can be opened and all members that
// can be reached have everything (4 graceAfter: one has). A stream that blocks thus
// waits until its full rule is possible again, with other nodes perhaps. Before a
// PARTIAL end the members are asked once more.
func (r *Recovery) Decide(now time.Duration, v *View, graceAfter time.Duration) Move {
	if r.err != nil || r.open != nil || r.done {
		return Move{}
	}
	if r.given != 0 {
		return r.decideForced(now, graceAfter)
	}
	if v.DegradeAfter > 0 {
		// Who opens a segment need not wait, as one who writes does: there is
		// nothing to disturb, and writers may be too short-lived to wait.
		if city, ok := v.restorable(r.desc.Stream); ok {
			return Move{Verb: Restore, City: city, Reason: "the rule can be met again"}
		}
	}
	plan, err := v.Plan(r.desc.Stream, r.desc.Members)
	r.way = nil
	if way, full := v.without(r.desc.Rule); !full {
		if q, err := way.Of(r.desc.Members); err == nil {
			r.way = &q
		}
	}
	if !r.waiting {
		r.waiting, r.waitSince, r.progress = true, now, true
	}
	if r.progress {
		r.progress, r.restSince = false, now
	}
	last, _, covered := r.End()
	waited, idle := now-r.waitSince, now-r.restSince
	r.rest = err == nil && covered && idle >= graceAfter && (r.in(sealHere)&^r.holders(last) == 0 || idle >= 4*graceAfter)
	if partial, ok := r.Ready(); ok && err == nil && (!partial || r.askAgain(now, graceAfter)) {
		return Move{Verb: Roll, Plan: plan, Reason: plan.Reason}
	}
	if err != nil && v.DegradeAfter > 0 && waited >= v.DegradeAfter {
		if m, ok := v.weaker(r.desc.Stream, "the rule could not be met for "+waited.String(), nil); ok {
			return m
		}
	}
	if waited >= graceAfter {
		return Move{Verb: Blocked, Reason: "not enough members of the last segment, or nodes for the next one, can be reached"}
	}
	return Move{}
}

// decideForced closes as soon as all members that were not given up are sealed and
// those that are there have everything; after 4 graceAfter without news, one. Those
// given up have graceAfter to answer, unless they can't be reached. It
// opens nothing: that is for the next writer. Roll comes with an empty plan.
func (r *Recovery) decideForced(now, graceAfter time.Duration) Move {
	if !r.waiting {
		r.waiting, r.waitSince, r.progress = true, now, true
	}
	if r.progress {
		r.progress, r.restSince = false, now
	}
	r.rest = r.Covered() && now-r.restSince >= 4*graceAfter
	asked := r.given&^(r.told|r.tried) == 0 || now-r.waitSince >= graceAfter
	if _, ok := r.Ready(); ok && asked {
		return Move{Verb: Roll}
	}
	if now-r.waitSince >= graceAfter {
		return Move{Verb: Blocked, Reason: "not every member that was not given up is sealed and has what the others have"}
	}
	return Move{}
}

// askAgain has every member sealed once more before a partial end, because what
// rests on few disks has to rest on ones that are there. It says whether that is
// done; until then the members are Wanted.
func (r *Recovery) askAgain(now, graceAfter time.Duration) bool {
	if r.again && now-r.askedAt < 4*graceAfter {
		return r.asked&^r.in(sealHere) == 0 || now-r.askedAt >= graceAfter
	}
	r.again, r.asked, r.askedAt = true, r.in(sealHere), now
	for i := range r.members {
		r.Broken(i)
	}
	return false
}

// Propose fixes the close and gives the Advance for the metadata, opening the
// next segment on p's members, or none when p is nil. Until its outcome is known
// nothing changes any more; called again it gives the same Advance.
func (r *Recovery) Propose(p *Plan, generation uint64) (Advance, error) {
	if r.err != nil {
		return Advance{}, r.err
	}
	if r.open != nil {
		return *r.open, nil
	}
	c, partial, ok := r.Close()
	if r.err != nil {
		return Advance{}, r.err
	}
	if !ok {
		return Advance{}, fmt.Errorf("recover segment %d of stream %q: not ready: %w", r.desc.Segment, r.desc.Stream, log.ErrUnavailable)
	}
	a := Advance{Stream: r.desc.Stream, Epoch: r.epoch, Close: &c, Lost: r.Lost()}
	if r.given != 0 {
		p = nil // the operator closes; a writer opens
	}
	if partial {
		a.Reason = "recovered without the full rule"
	}
	if r.empty {
		a.Close = nil
	}
	if p != nil {
		a.Open = r.desc.Next(c, r.epoch, generation, *p)
		if !p.Protected && a.Reason == "" {
			a.Reason = p.Reason
		}
	}
	r.open = &a
	return a, nil
}

// Outcome takes the metadata's word on the Advance. After Unknown it has to be
// proposed again. A refusal after an unknown outcome ends the recovery: the
// earlier proposal may still be on its way, and only a new epoch can outrun it.
func (r *Recovery) Outcome(o Outcome) error {
	switch {
	case r.open == nil || r.err != nil:
	case o == Done:
		r.done = true
	case o == Fenced:
		return r.fail(log.ErrFenced)
	case o == Unknown:
		r.unknown = true
	case r.unknown:
		return r.fail(fmt.Errorf("refused after an unknown outcome: %w", log.ErrUnknown))
	default:
		r.open = nil
	}
	return r.err
}

// Finished says that the segment is closed and the next one, if any, open.
func (r *Recovery) Finished() bool { return r.done }
