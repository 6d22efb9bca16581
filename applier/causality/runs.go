package causality

// Runs splits the work of a batch into runs that are applied one after the other, each
// within one table. Rows of tables that are free of each other keep their order
// within their table only, so that more of them merge; free is false for a
// table whose order among others matters (foreign keys), and then the order of
// those tables among each other is kept. It appends the run of each item to of,
// numbered from 0 in the order of their application, and answers with how many
// runs there are.
//
// next says whether b may go into the run that a ended.
func Runs[T any, K comparable](of []int32, work []T, table func(T) K, free func(T) bool, next func(a, b T) bool) ([]int32, int) {
	var ends []int            // by run: its last item
	open := map[K]int32{}     // free table to its open run
	ordered := int32(-1)      // the open run of all tables that are not free
	from, last := len(of), -1 // last: the item before
	for i, w := range work {
		k, isFree, at := table(w), free(w), int32(-1)
		switch {
		case !isFree:
			at = ordered
		case last >= 0 && free(work[last]) && table(work[last]) == k:
			at = of[from+last] // as most are
		default:
			if run, ok := open[k]; ok {
				at = run
			}
		}
		if last = i; at >= 0 && table(work[ends[at]]) == k && next(work[ends[at]], w) {
			ends[at] = i
			of = append(of, at)
			continue
		}
		at = int32(len(ends))
		if ends = append(ends, i); isFree {
			open[k] = at
		} else {
			ordered = at
		}
		of = append(of, at)
	}
	return of, len(ends)
}
