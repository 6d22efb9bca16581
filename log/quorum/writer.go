package quorum

import (
	"fmt"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
)

// MemberState is how a writer stands with one member of its segment.
type MemberState uint8

// The states of a member.
const (
	Connecting MemberState = iota // not attached to this segment yet
	Attached
	Lost // was attached; the connection is gone, and may resume at Mark+1
	Out  // will not come back in this segment: refused, lagging beyond the ring, or it lost entries
)

func (s MemberState) String() string {
	return [...]string{"connecting", "attached", "lost", "out"}[s]
}

// Settings of a writer; zero values are the defaults. Time is what the shell
// says it is: any clock that does not go back.
type Settings struct {
	// RollAfter is how long a member may be gone, or owe acknowledgements
	// without giving one, before the writer goes on without it. 2 s.
	RollAfter time.Duration
	// RollEvery keeps rolls apart that nobody is blocked by. 5 s.
	RollEvery time.Duration
	// PenaltyAfter keeps a member that was rolled out for its slowness out for
	// so long. 30 s.
	PenaltyAfter time.Duration
	// RestoreAfter is how long the full rule must be possible again before a
	// degraded stream returns to it. 2 s.
	RestoreAfter time.Duration
	// SegmentBytes closes a segment when so many payload bytes are confirmed in
	// it; 0: never for its size.
	SegmentBytes int64
	// LACAfter is how long nothing was appended when the LAC goes out by
	// itself. 1 ms.
	LACAfter time.Duration
}

func (s Settings) filled() Settings {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&s.RollAfter, 2 * time.Second}, {&s.RollEvery, 5 * time.Second}, {&s.PenaltyAfter, 30 * time.Second},
		{&s.RestoreAfter, 2 * time.Second}, {&s.LACAfter, time.Millisecond},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	return s
}

// Writer is the only appender of a stream at its epoch: it numbers entries,
// confirms them by its segment's rule, and moves from segment to segment (rolls)
// when members are lost, slow or back. It is driven like this:
//
//   - Attach to each member that Wants says, with the segment's descriptor and
//     epoch; report Attached, which tells where to send from, or Broken, Refuse,
//     Fence. Send every entry from there on, in order.
//   - Report acknowledgements with Acked, under the segment they came from.
//   - Ask Decide now and then. On a roll: Roll, propose the Advance, feed the
//     Outcome back until it is known. After Done all members are Connecting again:
//     those of the new segment.
//
// It is not safe for concurrent use.
type Writer struct {
	desc    Descriptor
	quorum  Quorum
	set     Settings
	window  *Window
	members []member
	kept    log.Offset // oldest entry that the shell can still send
	spans   []span     // where protection changed, oldest first
	roll    *Advance   // proposed, outcome not known
	unknown bool
	err     error
	judge   judge

	told   log.Offset // LAC that the last append or announcement carried
	seen   log.Offset // next, when the idle clock was started
	seenAt time.Duration
}

type member struct {
	state MemberState
	since time.Duration // of the state
	// A member that owes acknowledgements and gives none is stalled.
	mark      log.Offset
	waiting   bool
	waitSince time.Duration
	// lying: it came back with less than it had acknowledged, so its
	// acknowledgements prove nothing.
	lying bool
}

// span: entries from here on were confirmed with or without the full rule.
type span struct {
	from      log.Offset
	protected bool
}

// spansMax bounds how many changes of protection a writer remembers; what is
// older is reported unprotected.
const spansMax = 256

// NewWriter starts in a segment that metadata has just opened, with nothing in it.
func NewWriter(d Descriptor, s Settings, now time.Duration) (*Writer, error) {
	q, err := d.Quorum()
	if err != nil {
		return nil, fmt.Errorf("write segment %d of stream %q: %w", d.Segment, d.Stream, err)
	}
	w := &Writer{
		set: s.filled(), kept: d.First, told: d.First - 1, seen: d.First, seenAt: now,
		window: NewWindow(d.First-1, d.FirstLSO, len(d.Members), q.Ack),
	}
	w.enter(d, q, now)
	return w, nil
}

// enter makes d the segment that is written.
func (w *Writer) enter(d Descriptor, q Quorum, now time.Duration) {
	w.desc, w.quorum = d, q
	w.members = make([]member, len(d.Members))
	for i := range w.members {
		w.members[i] = member{since: now, mark: d.First - 1}
	}
	if n := len(w.spans); n == 0 || w.spans[n-1].protected != d.Protected {
		w.spans = append(w.spans, span{d.First, d.Protected})
		if len(w.spans) > spansMax {
			w.spans = append(w.spans[:0], w.spans[1:]...)
		}
	}
}

// Descriptor of the segment that is written.
func (w *Writer) Descriptor() *Descriptor { return &w.desc }

// Err is why the writer is dead. Entries that are not confirmed have an unknown
// outcome.
func (w *Writer) Err() error { return w.err }

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("writer of stream %q at epoch %d: %w", w.desc.Stream, w.desc.Epoch, err)
		w.window.Freeze()
	}
	return w.err
}

// Append numbers an entry and returns its offset; its bytes count as in flight
// until it is confirmed. The frame that carries it carries Confirmed as its LAC.
func (w *Writer) Append(bytes int, ends bool) log.Offset {
	w.told = w.window.confirmed
	return w.window.Append(bytes, ends)
}

// Next is the offset that the next entry will get.
func (w *Writer) Next() log.Offset { return w.window.next }

// Confirmed is the LAC: the newest entry that satisfies its segment's rule.
func (w *Writer) Confirmed() log.Offset { return w.window.confirmed }

// LSO is the newest confirmed entry that ends a transaction.
func (w *Writer) LSO() log.Offset { return w.window.lso }

// InFlight is the bytes of the entries that are not confirmed.
func (w *Writer) InFlight() int64 { return w.window.bytes }

// Protected says whether the stream's full rule held when entry o was confirmed.
func (w *Writer) Protected(o log.Offset) bool {
	for i := len(w.spans) - 1; i >= 0; i-- {
		if s := w.spans[i]; o >= s.from {
			return (s.protected || fault.Is(fault.SilentDegrade)) && o <= w.window.confirmed
		}
	}
	return false
}

// IdleLAC says whether Confirmed has to be sent by itself, because no append
// carried it and none came for a while. Asking again after it was due asks for
// the next one: send it to every attached member.
func (w *Writer) IdleLAC(now time.Duration) (lac log.Offset, due bool) {
	if w.window.next != w.seen {
		w.seen, w.seenAt = w.window.next, now
	}
	if w.told == w.window.confirmed || w.err != nil || now-w.seenAt < w.set.LACAfter {
		return w.window.confirmed, false
	}
	w.told = w.window.confirmed
	return w.told, true
}

// Wants is the set of members to attach to: those not attached that may come.
func (w *Writer) Wants() (set uint64) {
	if w.err != nil {
		return 0
	}
	for i := range w.members {
		if s := w.members[i].state; s == Connecting || s == Lost {
			set |= 1 << i
		}
	}
	return set
}

// State of member i.
func (w *Writer) State(i int) MemberState { return w.members[i].state }

// Mark is the newest entry that member i acknowledged.
func (w *Writer) Mark(i int) log.Offset { return w.window.Mark(i) }

// Attached takes member i's answer to an attach to segment: the newest entry it
// has there, which is to be reported with Acked, too. from is the entry to send
// first. ok is false when the member has to
// be left: the answer is about another segment than the present one, or the
// entries it misses are no longer kept, or it has lost some.
func (w *Writer) Attached(i int, segment uint32, last log.Offset, now time.Duration) (from log.Offset, ok bool) {
	if segment != w.desc.Segment || w.err != nil {
		return 0, false
	}
	m := &w.members[i]
	switch {
	case last < w.window.Mark(i):
		m.lying = true
		w.window.Forget(i, last)
		w.turn(m, Out, now)
		return 0, false
	case last >= w.window.next || last < w.desc.First-1 || m.state == Out:
		w.turn(m, Out, now)
		return 0, false
	case last+1 < w.kept:
		w.turn(m, Out, now)
		return 0, false
	}
	w.turn(m, Attached, now)
	m.waiting = false
	if fault.Is(fault.ResendSkips) && last+2 < w.window.next {
		return last + 2, true
	}
	return last + 1, true
}

func (w *Writer) turn(m *member, s MemberState, now time.Duration) {
	if m.state != s {
		m.state, m.since = s, now
	}
}

// Broken: the connection to member i is gone.
func (w *Writer) Broken(i int, segment uint32, now time.Duration) {
	if segment != w.desc.Segment {
		return
	}
	if m := &w.members[i]; m.state == Attached {
		w.turn(m, Lost, now)
	}
}

// Refuse: member i will not store this segment: another directory answers under
// its name, it is suspect, or its disk is full.
func (w *Writer) Refuse(i int, segment uint32, now time.Duration) {
	if segment == w.desc.Segment {
		w.turn(&w.members[i], Out, now)
	}
}

// Fence: a node, or the metadata, knows a newer epoch. The writer is dead.
func (w *Writer) Fence() error { return w.fail(log.ErrFenced) }

// Acked takes member i's cumulative acknowledgement in a segment, and reports
// whether more is confirmed. One from another segment than the present is old
// news. An acknowledgement of what was never appended kills the writer:
// log.ErrProtocol.
func (w *Writer) Acked(i int, segment uint32, last log.Offset) (bool, error) {
	if segment != w.desc.Segment && !fault.Is(fault.StaleAck) || w.err != nil {
		return false, w.err
	}
	more, err := w.window.Acked(i, last)
	if err != nil {
		return false, w.fail(err)
	}
	return more, nil
}

// Kept tells that entries before o can no longer be sent; o is at most
// Confirmed+1. Members that miss one of them are out, connected or not, but for
// those that have it on its way: sent is what was sent to each.
func (w *Writer) Kept(o log.Offset, sent func(i int) log.Offset, now time.Duration) {
	w.kept = max(w.kept, min(o, w.window.confirmed+1))
	for i := range w.members {
		if m := &w.members[i]; m.state == Attached && sent(i)+1 < w.kept {
			w.turn(m, Out, now)
		}
	}
}

// Needed is the oldest entry that a member of the segment may still have to be
// sent; whatever is older serves nobody.
func (w *Writer) Needed() log.Offset {
	least := w.window.confirmed
	for i := range w.members {
		if w.members[i].state != Out {
			least = min(least, w.window.Mark(i))
		}
	}
	return least + 1
}

// Roll freezes what is confirmed and gives the Advance that closes the segment
// there and opens the next one by p. Until its outcome is known nothing more is
// confirmed. While one is under way the same one is returned. generation is the
// cluster's.
func (w *Writer) Roll(p Plan, generation uint64) (Advance, error) { return w.leave(&p, generation) }

// Finish is Roll without a next segment: the clean end of a writer. It fails with
// log.ErrUnknown while entries are in flight.
func (w *Writer) Finish() (Advance, error) {
	if w.roll == nil && w.window.count > 0 {
		return Advance{}, fmt.Errorf("writer of stream %q: %d entries in flight: %w", w.desc.Stream, w.window.count, log.ErrUnknown)
	}
	return w.leave(nil, 0)
}

func (w *Writer) leave(p *Plan, generation uint64) (Advance, error) {
	if w.err != nil {
		return Advance{}, w.err
	}
	if w.roll != nil {
		return *w.roll, nil
	}
	c := Close{Segment: w.desc.Segment, Last: w.window.confirmed, LSO: w.window.lso, Bytes: w.window.Bytes()}
	a := Advance{Stream: w.desc.Stream, Epoch: w.desc.Epoch, Close: &c}
	if fault.Is(fault.CloseBelow) && c.Last > w.desc.First {
		c.Last--
	}
	if c.Last >= w.desc.First {
		c.Holders = pick(w.desc.Members, w.holders(c.Last))
	}
	if p != nil {
		a.Open, a.Reason = w.desc.Next(c, w.desc.Epoch, generation, *p), p.Reason
		if _, err := a.Open.Quorum(); err != nil {
			return Advance{}, err
		}
	}
	w.window.Freeze()
	w.roll, w.unknown = &a, false
	return a, nil
}

// holders are the members that have acknowledged everything up to last.
func (w *Writer) holders(last log.Offset) (set uint64) {
	for i := range w.members {
		if w.window.Mark(i) >= last && !w.members[i].lying {
			set |= 1 << i
		}
	}
	return set
}

// Rolling gives the Advance whose outcome is awaited.
func (w *Writer) Rolling() (Advance, bool) {
	if w.roll == nil || w.err != nil {
		return Advance{}, false
	}
	return *w.roll, true
}

// Outcome takes the metadata's word on the Advance. Done: the next segment is the
// present one, its members are to be attached, and entries from Confirmed+1 on are
// to be sent to them (of a Finish: the writer is closed, Err is log.ErrClosed).
// Unknown: propose the same again. Refused: as if it had not been proposed; but
// after an unknown outcome the writer dies, because the first proposal may still
// be on its way. more says whether something was confirmed.
func (w *Writer) Outcome(o Outcome, now time.Duration) (more bool, err error) {
	if w.roll == nil || w.err != nil {
		return false, w.err
	}
	switch {
	case o == Unknown && fault.Is(fault.UnknownIsDone):
		o = Done
	case o == Unknown && fault.Is(fault.UnknownIsRefused):
		o = Refused
	}
	switch {
	case o == Fenced:
		return false, w.fail(log.ErrFenced)
	case o == Unknown:
		w.unknown = true
		return false, nil
	case o == Refused && w.unknown:
		return false, w.fail(fmt.Errorf("roll refused after an unknown outcome: %w", log.ErrUnknown))
	case o == Refused:
		w.roll = nil
		return w.window.Thaw(), nil
	}
	next := w.roll.Open
	w.roll = nil
	if next == nil {
		return false, w.fail(log.ErrClosed)
	}
	q, err := next.Quorum()
	if err != nil {
		return false, w.fail(err)
	}
	w.judge.left(w, now)
	w.window.Reset(len(next.Members), q.Ack)
	w.enter(*next, q, now)
	return false, nil
}
