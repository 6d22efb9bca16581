package quorum

import (
	"slices"
	"time"
)

// Verb is what a writer should do next.
type Verb uint8

// The verbs.
const (
	Stay    Verb = iota
	Roll         // to Move.Plan
	Blocked      // entries can't be confirmed, and no plan would help: wait, and say so
	Degrade      // have the metadata do without Move.City, then decide again
	Restore      // have the metadata count Move.City again, then decide again
)

// Move is a decision.
type Move struct {
	Verb   Verb
	Plan   Plan
	City   string
	Reason string
}

// judge is what Decide remembers from one call to the next.
type judge struct {
	rolledAt  time.Duration
	unmet     bool // entries can't be confirmed by the members that are attached
	unmetAt   time.Duration
	whole     bool // the full rule is possible again
	wholeAt   time.Duration
	penalties []penalty
	askedAt   time.Duration
}

type penalty struct {
	node  string
	until time.Duration
}

// left remembers, when a segment is left, who was rolled out for its slowness.
func (j *judge) left(w *Writer, now time.Duration) {
	j.rolledAt, j.unmet = now, false
	for i := range w.members {
		if m := &w.members[i]; m.state == Attached && m.waiting && now-m.waitSince > w.muteAfter() || m.lying {
			j.penalties = append(j.penalties, penalty{w.desc.Members[i].Node, now + w.set.PenaltyAfter})
		}
	}
	j.penalties = slices.DeleteFunc(j.penalties, func(p penalty) bool { return p.until <= now })
}

// Decide says what to do about the members, the rule and the segment's size. Call
// it whenever something of that changed, and at least every RollAfter/4.
func (w *Writer) Decide(now time.Duration, v *View) Move {
	paused := now-w.judge.askedAt > w.set.RollAfter
	w.judge.askedAt = now
	if w.err != nil || w.roll != nil {
		return Move{}
	}
	if paused { // nobody asked for so long: the process stood still, so time says nothing about the members
		w.resume(now)
	}
	var live uint64 // attached, and giving acknowledgements
	gone := false   // somebody is, for too long
	for i := range w.members {
		m := &w.members[i]
		stalled := w.stalled(i, now)
		if m.state == Attached && !stalled {
			live |= 1 << i
		}
		gone = gone || stalled || m.state == Out || m.state != Attached && now-m.since > w.set.RollAfter
	}
	met := w.quorum.Ack(live)
	if !met && !w.judge.unmet {
		w.judge.unmetAt = now
	}
	w.judge.unmet = !met
	rule, full := v.effective()
	if !full {
		if city, ok := w.restorable(now, v); ok {
			return Move{Verb: Restore, City: city, Reason: "the rule can be met again"}
		}
	} else {
		w.judge.whole = false
	}

	slow := func(node string) bool { return w.slow(node, now) }
	keep := pick(w.desc.Members, live)
	members, err := v.choose(w.desc.Stream, keep, rule, slow)
	if err != nil && !met { // a node that was slow some time ago is better than none
		slow = func(node string) bool { return w.failing(node, now) }
		members, err = v.choose(w.desc.Stream, keep, rule, slow)
	}
	if err != nil {
		if met {
			return Move{} // the present members do, and other ones would not
		}
		return w.blocked(now, v, slow)
	}
	same := slices.Equal(members, w.desc.Members) && w.desc.Protected == full
	var reason string
	switch {
	case !met && (gone || !same) && now-w.judge.unmetAt > w.set.RollAfter/4 && now-w.judge.rolledAt > w.set.RollAfter/4:
		reason = "members lost"
	case !met:
		return Move{}
	case w.tooLarge():
		reason = "size"
	case now-w.judge.rolledAt < w.set.RollEvery:
		return Move{}
	case gone:
		reason = "members lost"
	case !same:
		reason = "members changed"
	default:
		return Move{}
	}
	p := Plan{Members: members, Rule: rule, Protected: full, Reason: reason}
	if !full {
		p.Reason = "degraded: " + reason
	}
	return Move{Verb: Roll, Plan: p, Reason: p.Reason}
}

// resume starts every clock about the members anew.
func (w *Writer) resume(now time.Duration) {
	w.judge.unmet, w.judge.whole = false, false
	for i := range w.members {
		m := &w.members[i]
		m.waiting = false
		if m.state != Out {
			m.since = now
		}
	}
}

func (w *Writer) tooLarge() bool {
	return w.set.SegmentBytes > 0 && w.window.Bytes() >= w.set.SegmentBytes
}

// slowestLink is what a line between members is expected to carry, in bytes a
// second: a large entry is on its way for a while, and a member that is judged
// mute meanwhile would be sent it anew in the next segment, for ever.
const slowestLink = 4 << 20

// muteAfter is how long a member may owe acknowledgements without giving one.
func (w *Writer) muteAfter() time.Duration {
	return w.set.RollAfter + time.Duration(w.window.bytes)*time.Second/slowestLink
}

// stalled: attached, and for muteAfter owing acknowledgements without giving one.
func (w *Writer) stalled(i int, now time.Duration) bool {
	m := &w.members[i]
	mark := w.window.Mark(i)
	owes := m.state == Attached && mark < w.window.next-1
	if !owes || mark != m.mark || !m.waiting {
		m.mark, m.waiting, m.waitSince = mark, owes, now
	}
	return owes && now-m.waitSince > w.muteAfter()
}

// failing: slow, or without entries it acknowledged, in this segment.
func (w *Writer) failing(node string, now time.Duration) bool {
	for i := range w.members {
		if w.desc.Members[i].Node == node && (w.members[i].lying || w.stalled(i, now)) {
			return true
		}
	}
	return false
}

// slow: failing, or it was not long ago.
func (w *Writer) slow(node string, now time.Duration) bool {
	return w.failing(node, now) ||
		slices.ContainsFunc(w.judge.penalties, func(p penalty) bool { return p.node == node && p.until > now })
}

// restorable names a degraded city whose part of the rule could be met again for
// RestoreAfter.
func (w *Writer) restorable(now time.Duration, v *View) (string, bool) {
	for i, city := range v.Degraded {
		if v.Rule.Cities[city] == 0 {
			continue
		}
		less := *v
		less.Degraded = slices.Delete(slices.Clone(v.Degraded), i, i+1)
		rule, _ := less.effective()
		if _, err := v.choose(w.desc.Stream, nil, rule, func(n string) bool { return w.slow(n, now) }); err != nil {
			continue
		}
		if !w.judge.whole {
			w.judge.whole, w.judge.wholeAt = true, now
		}
		return city, now-w.judge.wholeAt >= w.set.RestoreAfter
	}
	w.judge.whole = false
	return "", false
}

// blocked: nothing but a weaker rule would help.
func (w *Writer) blocked(now time.Duration, v *View, slow func(string) bool) Move {
	if waited := now - w.judge.unmetAt; v.DegradeAfter > 0 && waited >= v.DegradeAfter {
		if m, ok := v.weaker(w.desc.Stream, "the rule could not be met for "+waited.String(), slow); ok {
			return m
		}
	}
	return Move{Verb: Blocked, Reason: "the rule cannot be met by the nodes that can be reached"}
}
