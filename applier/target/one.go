package target

import (
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/change"
)

// errValue: a value can't be rendered for its column.
var errValue = errors.New("value can't be written")

// warnTruncated is the warning for an ENUM set to its error value.
const warnTruncated = 1265

// one applies the row at index i with statements of its own, carefully: a
// unique key that is taken is looked at before anything is overwritten.
func (r *run) one(i int) error {
	row := &r.rows[i]
	var err error
	switch {
	case r.p.mode == modeMultiset:
		err = r.oneOfMany(i)
	case row.Op == change.Insert:
		err = r.insertOne(i, row.After)
	case row.Op == change.Update:
		err = r.updateOne(i)
	default:
		var n int
		if n, err = r.deleteBy(row.Before); err == nil && n == 0 {
			r.out.DeleteMissing++
		}
	}
	if err != nil {
		return r.fail(i, err)
	}
	return nil
}

// deleteBy deletes the row named by the image's identity.
func (r *run) deleteBy(image []change.Value) (int, error) {
	return r.named(func(whole bool) (int, error) {
		r.begin("DELETE", false)
		r.sql = append(append(append(r.sql, "FROM "...), r.p.name...), " WHERE "...)
		if err := r.identity(image, whole); err != nil {
			return 0, fmt.Errorf("%w: %w", errValue, err)
		}
		if err := r.fits(); err != nil {
			return 0, err
		}
		return r.exec()
	})
}

// named runs a statement that names a row: for a prefix key first by the whole
// columns, which an index serves, and only if that finds nothing by the prefix.
func (r *run) named(do func(whole bool) (int, error)) (int, error) {
	if r.p.prefixed {
		if n, err := do(true); n > 0 || err != nil {
			return n, err
		}
	}
	return do(false)
}

// insertOne: afterwards the row exists with this image. Its own row may be there
// already and then becomes the image; another row that holds one of its unique
// keys is a conflict.
func (r *run) insertOne(i int, image []change.Value) error {
	lenient := holdsErrorValue(image)
	r.begin("INSERT", lenient)
	r.sql = append(r.sql, r.p.fastInto...)
	if err := r.values(image); err != nil {
		return fmt.Errorf("%w: %w", errValue, err)
	}
	_, err := r.send(image, lenient)
	if classify(err) != failDuplicate {
		return err
	}
	duplicate := err
	n, err := r.updateTo(image, image)
	switch classify(err) {
	case failNone:
	case failDuplicate:
		return r.conflict(i, image, err)
	default:
		return err
	}
	if n == 0 {
		// Not there; or there, unchanged, on a connection that counts
		// changed rows only.
		there, err := r.exists(image)
		if err != nil {
			return err
		}
		if !there {
			return r.conflict(i, image, duplicate)
		}
	}
	r.out.InsertFound++
	return nil
}

// updateTo sets the row named by who's identity to the image.
func (r *run) updateTo(who, image []change.Value) (int, error) {
	lenient := holdsErrorValue(image)
	return r.named(func(whole bool) (int, error) {
		r.begin("UPDATE", lenient)
		r.sql = append(append(r.sql, r.p.name...), " SET "...)
		if err := r.assignments(image); err != nil {
			return 0, fmt.Errorf("%w: %w", errValue, err)
		}
		r.sql = append(r.sql, " WHERE "...)
		if err := r.identity(who, whole); err != nil {
			return 0, fmt.Errorf("%w: %w", errValue, err)
		}
		return r.send(image, lenient)
	})
}

// updateOne: afterwards the row exists with the after image, and not with the
// before image's identity.
func (r *run) updateOne(i int) error {
	row := &r.rows[i]
	n, err := r.updateTo(row.Before, row.After)
	switch classify(err) {
	case failNone:
		if n > 0 {
			return nil
		}
	case failDuplicate:
		return r.updateTaken(i, err)
	default:
		return err
	}
	there, err := r.exists(row.After)
	if err != nil {
		return err
	}
	if there && !r.p.identityChanges(row) {
		return nil // unchanged, on a connection that counts changed rows only
	}
	r.out.UpdateMissing++
	counted := r.out.InsertFound
	err = r.insertOne(i, row.After)
	r.out.InsertFound = counted // it is one surprise, not two
	return err
}

// updateTaken: the row is there, but a unique key of its after image belongs to
// another row. If that is the after image's own identity, its row becomes the
// image and the old one goes; another key's holder is never touched.
func (r *run) updateTaken(i int, duplicate error) error {
	row := &r.rows[i]
	if !r.p.identityChanges(row) {
		return r.conflict(i, row.After, duplicate)
	}
	own, err := r.exists(row.After)
	if err != nil {
		return err
	}
	if !own {
		return r.conflict(i, row.After, duplicate)
	}
	if _, err := r.deleteBy(row.Before); err != nil {
		return err
	}
	n, err := r.updateTo(row.After, row.After)
	switch classify(err) {
	case failNone:
	case failDuplicate:
		return r.conflict(i, row.After, err)
	default:
		return err
	}
	if n == 0 {
		// The two identities are one to the database.
		return r.insertOne(i, row.After)
	}
	r.out.InsertFound++
	return nil
}

// send executes a statement of one row. A lenient one ran without strict mode,
// for the sake of an ENUM's error value: any other warning than that means the
// row was bent, and is an error.
func (r *run) send(image []change.Value, lenient bool) (int, error) {
	if err := r.fits(); err != nil {
		return 0, err
	}
	n, err := r.exec()
	if err != nil || !lenient {
		return n, err
	}
	wanted := 0
	for _, v := range image {
		if isErrorValue(v) {
			wanted++
		}
	}
	rows, err := r.conn.QueryContext(r.ctx, "SHOW WARNINGS")
	if err != nil {
		return n, err
	}
	defer rows.Close()
	for rows.Next() {
		var level, message string
		var code int
		if err := rows.Scan(&level, &code, &message); err != nil {
			return n, err
		}
		if level == "Note" {
			continue
		}
		if wanted--; code != warnTruncated || wanted < 0 {
			return n, fmt.Errorf("%w: warning %d: %s", errValue, code, message)
		}
	}
	return n, rows.Err()
}

// multiset applies rows of a table whose rows nothing names. INSERTs add a row;
// UPDATE and DELETE take one row that is equal in every column. That is not
// repeatable: it relies on the lane's position being stored in the same
// transaction.
func (r *run) multiset() error {
	for i := 0; i < len(r.rows); {
		j := i + 1
		if r.rows[i].Op != change.Insert || holdsErrorValue(r.rows[i].After) {
			if err := r.one(i); err != nil {
				return err
			}
			i = j
			continue
		}
		at := []int{i}
		for j < len(r.rows) && r.rows[j].Op == change.Insert && !holdsErrorValue(r.rows[j].After) {
			at = append(at, j)
			j++
		}
		// One statement at a time: a failed one must not leave the ones
		// before it to be repeated.
		for len(at) > 0 {
			size := min(len(at), 100)
			if err := r.insertSome(at[:size]); err != nil {
				return err
			}
			at = at[size:]
		}
		i = j
	}
	return nil
}

// insertSome inserts rows; where the server refuses them it halves them until it
// has the one.
func (r *run) insertSome(at []int) error {
	r.begin("INSERT", false)
	r.sql = append(r.sql, r.p.fastInto...)
	for n, i := range at {
		if n > 0 {
			r.sql = append(r.sql, ',')
		}
		if err := r.values(r.rows[i].After); err != nil {
			return r.fail(i, fmt.Errorf("%w: %w", errValue, err))
		}
		if n > 0 && len(r.sql) > min(statementBytes, r.packet) {
			if err := r.insertSome(at[:n]); err != nil {
				return err
			}
			return r.insertSome(at[n:])
		}
	}
	if err := r.fits(); err != nil {
		return r.fail(at[0], err)
	}
	_, err := r.exec()
	switch classify(err) {
	case failRow, failDuplicate:
		if len(at) == 1 {
			if classify(err) == failDuplicate {
				return r.conflict(at[0], r.rows[at[0]].After, err)
			}
			return r.fail(at[0], err)
		}
		if err := r.insertSome(at[:len(at)/2]); err != nil {
			return err
		}
		return r.insertSome(at[len(at)/2:])
	}
	return err
}

// oneOfMany changes one row of those that equal the before image.
func (r *run) oneOfMany(i int) error {
	row := &r.rows[i]
	if row.Op == change.Insert {
		lenient := holdsErrorValue(row.After)
		r.begin("INSERT", lenient)
		r.sql = append(r.sql, r.p.fastInto...)
		if err := r.values(row.After); err != nil {
			return fmt.Errorf("%w: %w", errValue, err)
		}
		_, err := r.send(row.After, lenient)
		if classify(err) == failDuplicate {
			return r.conflict(i, row.After, err)
		}
		return err
	}
	lenient := row.Op == change.Update && holdsErrorValue(row.After)
	if row.Op == change.Update {
		r.begin("UPDATE", lenient)
		r.sql = append(append(r.sql, r.p.name...), " SET "...)
		if err := r.assignments(row.After); err != nil {
			return fmt.Errorf("%w: %w", errValue, err)
		}
	} else {
		r.begin("DELETE", false)
		r.sql = append(append(r.sql, "FROM "...), r.p.name...)
	}
	r.sql = append(r.sql, " WHERE "...)
	var err error
	for n, c := range r.p.match {
		if n > 0 {
			r.sql = append(r.sql, " AND "...)
		}
		if r.sql, err = r.p.writers[c].appendExact(r.sql, r.p.quoted[c], row.Before[c], &r.p.table.Columns[r.p.to[c]]); err != nil {
			return fmt.Errorf("%w: %w", errValue, err)
		}
	}
	r.sql = append(r.sql, " LIMIT 1"...)
	n, err := r.send(row.After, lenient)
	switch {
	case classify(err) == failDuplicate:
		return r.conflict(i, row.After, err)
	case err != nil:
		return err
	case n != 1 && !(row.Op == change.Update && equalImages(row.Before, row.After)):
		return ErrMissing
	}
	return nil
}
