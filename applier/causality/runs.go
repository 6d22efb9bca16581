package causality

// Runs splits the work of a batch into runs that are applied one after the other, each
// within one table. Rows of tables that are free of each other keep their order
// within their table only, so that more of them merge; free is false for a
// table whose order among others matters (foreign keys), and then the order of
// those tables among each other is kept. The result holds indexes into work.
//
// next says whether b may go into the run that a ended.
func Runs[T any](work []T, table func(T) any, free func(T) bool, next func(a, b T) bool) [][]int {
	var runs [][]int
	open := map[any]int{} // table, or the ordered group, to its open run
	for i, w := range work {
		var group any = ordered{}
		if free(w) {
			group = table(w)
		}
		if at, ok := open[group]; ok {
			r := runs[at]
			last := work[r[len(r)-1]]
			if table(last) == table(w) && next(last, w) {
				runs[at] = append(r, i)
				continue
			}
		}
		open[group] = len(runs)
		runs = append(runs, []int{i})
	}
	return runs
}

// ordered is the group of all tables that are not free.
type ordered struct{}
