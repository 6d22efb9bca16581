package check

import (
	"cmp"
	"slices"
	"time"
)

// availability finds, stream by stream, the times in which a writer was asking
// for something and no entry was confirmed.
func (h *whole) availability(r *Report, o Options) {
	for _, s := range h.streams {
		times := []int64{o.From}
		for _, e := range s.order {
			if e.confirmed > o.From && e.confirmed < o.To {
				times = append(times, e.confirmed)
			}
		}
		slices.Sort(times)
		times = append(times, o.To)
		trying := h.trying(s)
		sum := time.Duration(0)
		for i := 1; i < len(times); i++ {
			gap := span{times[i-1], times[i]}
			tried := covered(gap, &trying)
			r.UnavailableMax = max(r.UnavailableMax, tried)
			if tried >= GapMin {
				sum += tried
			}
		}
		r.Unavailable = max(r.Unavailable, sum)
	}
}

func (s span) length() time.Duration { return time.Duration(s.to - s.from) }

// trying is when any writer was asking for something, as spans that do not touch,
// in order. Of a process that was killed the last sign counts as the end.
func (h *whole) trying(s *stream) []span {
	var all []span
	for _, a := range s.trying {
		all = append(all, span{a.from, min(a.to, h.last[a.process])})
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	for _, a := range all {
		if n := len(out); n > 0 && a.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, a.to)
		} else {
			out = append(out, a)
		}
	}
	return out
}

// covered is how much of the gap lies in the spans. Gaps are asked for in order;
// spans that end before this one are dropped.
func covered(gap span, spans *[]span) time.Duration {
	sum := time.Duration(0)
	for i, s := range *spans {
		if s.to <= gap.from {
			continue
		}
		if s.from >= gap.to {
			*spans = (*spans)[i:]
			return sum
		}
		sum += span{max(s.from, gap.from), min(s.to, gap.to)}.length()
		if s.to > gap.to {
			*spans = (*spans)[i:]
			return sum
		}
	}
	*spans = nil
	return sum
}
