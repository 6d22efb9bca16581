package target

import (
	"github.com/twinspan/twinspan/change"
)

// slot is what became of one row within a merged run.
type slot struct {
	last  int  // index of its last change
	fresh bool // its first change was an INSERT: the target should not have it
	first int
}

// collapse merges a run into one final image per row. It is right for a table
// whose only unique key is the identity:
//
// Rows are told apart by the bytes of their identity, which is finer than what
// the database calls equal. Of all byte forms the database calls one row, a
// valid history leaves at most one alive at the end. Deleting every form that
// ends dead first, and then writing those that end alive, therefore leaves
// exactly the final row. An UPDATE that changes the identity's bytes ends the
// run and goes alone.
func (r *run) collapse() error {
	p := r.p
	slots := map[string]int{}
	var pending []slot
	var key []byte
	flush := func() error {
		err := r.flush(pending)
		pending = pending[:0]
		clear(slots)
		return err
	}
	start := 0
	for i := range r.rows {
		row := &r.rows[i]
		alone := row.Op == change.Update && p.identityChanges(row) || holdsErrorValue(row.After)
		if alone {
			if err := r.settle(flush, start, i); err != nil {
				return err
			}
			if err := r.one(i); err != nil {
				return err
			}
			start = i + 1
			continue
		}
		image := row.After
		if row.Op == change.Delete {
			image = row.Before
		}
		key = p.identityOf(key[:0], image)
		at, known := slots[string(key)]
		if !known {
			at = len(pending)
			slots[string(key)] = at
			pending = append(pending, slot{first: i, fresh: row.Op == change.Insert})
		}
		pending[at].last = i
	}
	return r.settle(flush, start, len(r.rows))
}

// settle flushes merged rows; where the server refuses them it goes through the
// run row by row, which finds the one.
func (r *run) settle(flush func() error, from, to int) error {
	err := flush()
	switch classify(err) {
	case failRow, failDuplicate:
	default:
		return err
	}
	return r.each(from, to)
}

// each applies rows one by one. The statements before it may have had part of
// their effect: intents say what must be so afterwards, so they may be repeated.
func (r *run) each(from, to int) error {
	counted := r.out
	for i := from; i < to; i++ {
		if err := r.one(i); err != nil {
			return err
		}
	}
	// What was found or missing may be our own doing here.
	statements := r.out.Statements
	r.out = counted
	r.out.Statements = statements
	return nil
}

// flush writes the merged rows: deletes, then the rows that should be new, then
// those that should be there.
func (r *run) flush(pending []slot) error {
	var dead, fresh, known []int
	deadKnown, unchanged, spare := 0, 0, 0
	for i := range pending {
		s := &pending[i]
		row := &r.rows[s.last]
		switch {
		case row.Op == change.Delete:
			dead = append(dead, s.last)
			if !s.fresh {
				deadKnown++
			}
		case s.fresh:
			fresh = append(fresh, s.last)
		default:
			known = append(known, s.last)
			if equalImages(r.rows[s.first].Before, row.After) {
				unchanged++
			}
		}
	}
	if len(dead) > 0 {
		_, n, err := r.deleteMany(dead)
		if err != nil {
			return err
		}
		r.out.DeleteMissing += max(0, deadKnown-n)
		// A form that was born and died within the run took the row of another
		// form with it, which the statements below write anew.
		spare = max(0, n-deadKnown)
	}
	if len(fresh) > 0 {
		_, n, err := r.insertMany(fresh, r.p.upsert)
		if err != nil {
			return err
		}
		r.out.InsertFound += max(0, n-len(fresh)) // a row found and changed counts 2
	}
	if len(known) > 0 {
		_, n, err := r.insertMany(known, r.p.upsert)
		if err != nil {
			return err
		}
		r.out.UpdateMissing += max(0, 2*len(known)-unchanged-n-spare)
	}
	return nil
}

func equalImages(a, b []change.Value) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

func holdsErrorValue(image []change.Value) bool {
	for _, v := range image {
		if isErrorValue(v) {
			return true
		}
	}
	return false
}

// ordered keeps the order: neighbouring INSERTs share a statement, neighbouring
// DELETEs do, and each UPDATE has its own.
func (r *run) ordered() error {
	for i := 0; i < len(r.rows); {
		j := i + 1
		op := r.rows[i].Op
		if op == change.Update {
			for j < len(r.rows) && j-i < updateRows && r.inPlace(j) {
				j++
			}
			if j-i < updateRowsMin || !r.inPlace(i) {
				j = i + 1
			} else {
				done, err := r.updateMany(i, j)
				if err != nil {
					return err
				}
				i += done
			}
			for ; i < j; i++ {
				if err := r.one(i); err != nil {
					return err
				}
			}
			continue
		}
		if holdsErrorValue(r.rows[i].After) {
			if err := r.one(i); err != nil {
				return err
			}
			i = j
			continue
		}
		at := []int{i}
		for j < len(r.rows) && r.rows[j].Op == op && !holdsErrorValue(r.rows[j].After) {
			at = append(at, j)
			j++
		}
		var err error
		var done, n int
		switch {
		case op == change.Insert:
			done, _, err = r.insertMany(at, "")
		case r.p.prefixed:
			// Named by a prefix: one by one.
		default:
			done, n, err = r.deleteMany(at)
			if r.independent() {
				r.out.DeleteMissing += done - n
			}
		}
		if classify(err) == failOther {
			return err
		}
		// InnoDB has undone the statement that failed; one at a time now.
		for k := i + done; k < j; k++ {
			if err := r.one(k); err != nil {
				return err
			}
		}
		i = j
	}
	return nil
}

// Bounds of updateMany: fewer rows are cheaper one by one.
const (
	updateRowsMin = 3
	updateRows    = 400
)

// inPlace: the row is an UPDATE of the row its PRIMARY key names.
func (r *run) inPlace(i int) bool {
	row := &r.rows[i]
	return r.p.upserts && row.Op == change.Update && !r.p.identityChanges(row) && !holdsErrorValue(row.After)
}

// updateMany updates rows with a statement for many, and answers how many of
// them, from the first on, it has done; the others must go one by one.
//
// INSERT … ON DUPLICATE KEY UPDATE would be wrong where a row is missing and
// another one holds its secondary key: it would overwrite that one. So it first
// locks the rows and counts that all are there. InnoDB enters a row into the
// clustered index before any other, so a row whose PRIMARY key exists always
// ends up as an update of exactly that row; a secondary key that is taken is
// then an error, and the statement is undone.
func (r *run) updateMany(from, to int) (int, error) {
	p := r.p
	distinct := map[string]bool{}
	var at []int
	r.sql = append(append(append(r.sql[:0], "SELECT COUNT(*) FROM "...), p.name...), " WHERE "...)
	for i := from; i < to; i++ {
		at = append(at, i)
		k := string(p.identityOf(nil, r.rows[i].Before))
		if distinct[k] {
			continue
		}
		if len(distinct) > 0 {
			r.sql = append(r.sql, " OR "...)
		}
		distinct[k] = true
		r.sql = append(r.sql, '(')
		if err := r.identity(r.rows[i].Before, false); err != nil {
			return 0, nil //nolint:nilerr // told when it is the row's turn
		}
		r.sql = append(r.sql, ')')
	}
	r.sql = append(r.sql, " FOR UPDATE"...)
	if len(r.sql) > min(statementBytes, r.packet) {
		return 0, nil
	}
	there, err := r.count()
	if err != nil {
		return 0, err
	}
	if there != len(distinct) {
		return 0, nil
	}
	done, _, err := r.insertMany(at, p.upsert)
	if classify(err) == failOther {
		return done, err
	}
	return done, nil
}

// independent: no row of the table goes because another one of it goes.
func (r *run) independent() bool {
	if !r.p.enforces(r.flags) {
		return true
	}
	for _, f := range r.p.table.ForeignKeys {
		if f.Parent == r.p.table.Name {
			return false
		}
	}
	return true
}
