package check

import (
	"cmp"
	"slices"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// Bridge counts offsets as if the gaps that readers met were not there: a forced
// takeover passes over 2^40 of them. What lies in a gap is the end of what came
// before it. What remains has to hold as ever.
func Bridge(records []history.Record) []history.Record {
	gaps := map[string][]span{} // both ends belong to them; ascending
	for _, r := range records {
		if g := (span{r.From, r.To}); r.Kind == history.Gap && !slices.Contains(gaps[r.Stream], g) {
			gaps[r.Stream] = append(gaps[r.Stream], g)
		}
	}
	if len(gaps) == 0 {
		return records
	}
	for _, g := range gaps {
		slices.SortFunc(g, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	}
	var out []history.Record
	for _, r := range records {
		if r.Kind == history.Gap {
			continue
		}
		last := func(o int64) int64 { // of the entries up to an offset
			passed := int64(0)
			for _, g := range gaps[r.Stream] {
				switch {
				case o > g.to:
					passed += g.to - g.from + 1
				case o >= g.from:
					return g.from - 1 - passed
				}
			}
			return o - passed
		}
		next := func(o int64) int64 { return last(o-1) + 1 } // the first entry from an offset on
		switch r.Kind {
		case history.Open, history.Append, history.Bounds:
			r.Offset = last(r.Offset)
		case history.Attach:
			r.Offset, r.To = next(r.Offset), next(r.To)
		case history.Final:
			r.Offset = next(r.Offset)
		case history.Read:
			r.From, r.To = next(r.From), next(r.To)
			r.Seen = slices.Clone(r.Seen)
			for i := range r.Seen {
				r.Seen[i].Offset = last(r.Seen[i].Offset)
			}
		}
		out = append(out, r)
	}
	return out
}
