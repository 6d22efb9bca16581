package meta

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/log"
)

// trim gives up the oldest closed segments.
func (st *stream) trim(v *View, t *Trim) (bool, error) {
	var (
		gone   []*Segment
		whole  int // of gone, up to the last one that ends a transaction
		newest = st.live.last(0)
	)
	for n := 1; newest != nil && (!newest.Closed || newest.Barren()); n++ {
		newest = st.live.last(n)
	}
	st.live.each(place{}, func(s *Segment) bool {
		if !s.Closed || s.Last >= t.Before || s == newest || newest == nil {
			return false
		}
		if gone = append(gone, s); s.LSO == s.Last {
			whole = len(gone)
		}
		return true
	})
	if gone = gone[:whole]; whole == 0 {
		return false, nil
	}
	first, last := gone[0].First, gone[whole-1].Last
	if !t.Evict {
		if len(st.Cursors) == 0 {
			return false, fmt.Errorf("up to %d: no group has a cursor yet: %w", last, log.ErrCursorBehind)
		}
		for _, c := range st.Cursors {
			if c.Offset < last {
				return false, fmt.Errorf("up to %d: group %q is at %d: %w", last, c.Group, c.Offset, log.ErrCursorBehind)
			}
		}
	}
	st.Lost = slices.Clip(st.Lost)
	for _, c := range st.Cursors {
		if c.Offset < last {
			st.Lost = append(st.Lost, CursorLost{Group: c.Group, From: max(c.Offset+1, first), To: last, At: v.now})
		}
	}
	st.Lost = st.Lost[max(0, len(st.Lost)-lostMax):]
	st.live.drop(whole)
	for _, s := range gone {
		if slices.Contains(t.Keep, s.Segment) && !s.Lost {
			kept := *s
			kept.Compacted = true
			st.kept.push(&kept)
			continue
		}
		if n := len(st.short); n > 0 {
			if st.short = withShort(st.short, s, false); len(st.short) < n {
				st.forfeit(s.First, s.Last)
			}
		}
	}
	st.settle(v)
	return true, nil
}

// forfeit notes in their windows that entries go before they were copied.
func (st *stream) forfeit(from, to log.Offset) {
	cloned := false
	for i, w := range st.Windows {
		if w.RestoredAt.IsZero() && w.From <= to && (w.To == log.None || w.To >= from) {
			if !cloned {
				st.Windows, cloned = slices.Clone(st.Windows), true
			}
			st.Windows[i].Trimmed = true
		}
	}
}

// widen extends the newest window to [from, to], or starts one. reason is that of
// the command, or else the other one.
func (st *stream) widen(from, to log.Offset, reason, otherwise string, v *View) {
	if reason == "" {
		reason = otherwise
	}
	reason = strings.ToValidUTF8(reason[:min(len(reason), reasonBytesMax)], "")
	n := len(st.Windows)
	if n > 0 {
		if w := st.Windows[n-1]; w.RestoredAt.IsZero() && (w.To == log.None || w.To+1 == from) {
			st.Windows = slices.Clone(st.Windows)
			st.Windows[n-1].To = to
			return
		}
	}
	st.Windows = append(slices.Clip(st.Windows), Window{From: from, To: to, Reason: reason, Since: v.now})
	if len(st.Windows) <= windowsMax {
		return
	}
	st.Windows = slices.Clone(st.Windows)
	if i := slices.IndexFunc(st.Windows, func(w Window) bool { return !w.RestoredAt.IsZero() }); i >= 0 {
		st.Windows = slices.Delete(st.Windows, i, i+1)
		return
	}
	// All are open: the oldest two become one, which says too much rather than too little.
	st.Windows[1].From, st.Windows[1].Since = st.Windows[0].From, st.Windows[0].Since
	st.Windows[1].Trimmed = st.Windows[1].Trimmed || st.Windows[0].Trimmed
	st.Windows = st.Windows[1:]
}

// endWindow puts the end of the newest window, whose segment was open, at to.
func (st *stream) endWindow(to log.Offset, v *View) {
	n := len(st.Windows)
	if n == 0 || st.Windows[n-1].To != log.None {
		return
	}
	st.Windows = slices.Clone(st.Windows)
	if st.Windows[n-1].From > to { // nothing was ever in it
		st.Windows = st.Windows[:n-1]
		return
	}
	st.Windows[n-1].To = to
}

// settle ends the windows whose segments have all the copies the policy wants.
func (st *stream) settle(v *View) {
	cloned := false
	for i, w := range st.Windows {
		if !w.RestoredAt.IsZero() || w.To == log.None || slices.ContainsFunc(st.short, func(x short) bool { return x.first <= w.To && x.last >= w.From }) {
			continue
		}
		if !cloned {
			st.Windows, cloned = slices.Clone(st.Windows), true
		}
		st.Windows[i].RestoredAt = v.now
	}
}
