package target

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/change"
)

// Kind names how the target differs from what a change was made on. Every change
// is applied once (the lane's position is stored with it), so no replay explains
// such a difference: someone else wrote to the target.
type Kind string

// The kinds.
const (
	InsertExists  Kind = "insert-exists"  // the row to insert, or the one an UPDATE moves to, is there
	UpdateMissing Kind = "update-missing" // the row to update is not there
	UpdateDiffers Kind = "update-differs" // it is there, and is not the before image
	DeleteMissing Kind = "delete-missing" // the row to delete is not there
	DeleteDiffers Kind = "delete-differs" // it is there, and is not the before image
	UniqueHolder  Kind = "unique-holder"  // another row holds a secondary unique key of the after image
)

// Kinds are all of them.
var Kinds = []Kind{InsertExists, UpdateMissing, UpdateDiffers, DeleteMissing, DeleteDiffers, UniqueHolder}

// Sight is what Look found in the way of a change.
type Sight struct {
	Kind Kind // empty: the target is as the change expects it
	// Present is the target's row in the way, in the source table's columns;
	// nil where there is none, or a column could not be read in the source's terms.
	Present []change.Value
	// Done: the target's row is as the change leaves it already.
	Done bool
}

// Look compares the target with the state that one change was made on: the before
// image bit for bit, the row of the after image's identity. It locks the rows it
// reads. Other unique keys are not looked at: applying the change tells about
// them. Tables whose rows nothing names are not looked at either.
func (p *Plan) Look(ctx context.Context, conn Execer, row *change.Row) (Sight, error) {
	var f Sight
	if p.mode == modeMultiset || p.mode == modeSequence {
		return f, nil
	}
	if err := p.check(row, row.Flags); err != nil {
		return f, fmt.Errorf("row for %s: %w", p.table.Name, err)
	}
	r, err := p.newRun(ctx, conn, row)
	if err != nil {
		return f, err
	}
	first := row.Before
	if row.Op == change.Insert {
		first = row.After
	}
	there, err := r.present(first, nil, row.Before, row.After)
	if err != nil {
		return f, r.lookError(err)
	}
	switch {
	case row.Op == change.Insert && there.found:
		f = Sight{Kind: InsertExists, Present: there.image, Done: there.after}
	case row.Op == change.Insert:
	case row.Op == change.Delete && !there.found:
		f = Sight{Kind: DeleteMissing, Done: true}
	case row.Op == change.Delete && !there.before:
		f = Sight{Kind: DeleteDiffers, Present: there.image}
	case row.Op == change.Update && there.found && !there.before:
		f = Sight{Kind: UpdateDiffers, Present: there.image, Done: there.after}
	case row.Op == change.Update:
		if there.found && !p.identityChanges(row) {
			break
		}
		// Where the update moves the row to must be free.
		to, err := r.present(row.After, row.Before, nil, row.After)
		if err != nil {
			return f, r.lookError(err)
		}
		switch {
		case !there.found:
			f = Sight{Kind: UpdateMissing, Present: to.image, Done: to.found && to.after}
		case to.found:
			f = Sight{Kind: InsertExists, Present: to.image}
		}
	}
	return f, nil
}

// newRun is a run of one row.
func (p *Plan) newRun(ctx context.Context, conn Execer, row *change.Row) (*run, error) {
	r := &run{p: p, ctx: ctx, conn: conn, rows: []change.Row{*row}, flags: row.Flags}
	if p.packet.Load() == 0 {
		n, err := packetLimit(ctx, conn)
		if err != nil {
			return nil, fmt.Errorf("max_allowed_packet of the target: %w", err)
		}
		p.packet.Store(int64(n))
	}
	r.packet = int(p.packet.Load()) - 64
	return r, nil
}

// lookError: a key that can't be written for the target is on no row of it, and
// applying the change will say so.
func (r *run) lookError(err error) error {
	if errors.Is(err, errValue) {
		return nil
	}
	return fmt.Errorf("look at a row of %s: %w", r.p.table.Name, err)
}

// glimpse is a row of the target beside the images of a change.
type glimpse struct {
	found         bool
	image         []change.Value // nil where it can't be read
	before, after bool           // it is that image, bit for bit
}

// present reads and locks the row named by who's identity, unless it is not's.
func (r *run) present(who, not, before, after []change.Value) (glimpse, error) {
	var s glimpse
	p := r.p
	r.sql = append(r.sql[:0], "SELECT "...)
	for i := range p.source.Columns {
		r.sql = append(p.selectExpression(r.sql, i), ',')
	}
	plain := len(r.sql)
	exact := func() {
		r.exactly(before)
		r.sql = append(r.sql, ',')
		r.exactly(after)
	}
	exact()
	compared := len(r.sql) <= r.packet/2
	if !compared { // two long images do not fit one statement
		r.sql = append(r.sql[:plain], "0,0"...)
	}
	r.sql = append(append(append(r.sql, " FROM "...), p.name...), " WHERE "...)
	if err := r.identity(who, false); err != nil {
		return s, fmt.Errorf("%w: %w", errValue, err)
	}
	if not != nil {
		r.sql = append(r.sql, " AND NOT ("...)
		if err := r.identity(not, false); err != nil {
			return s, fmt.Errorf("%w: %w", errValue, err)
		}
		r.sql = append(r.sql, ')')
	}
	r.sql = append(r.sql, " LIMIT 1 FOR UPDATE"...)
	if err := r.fits(); err != nil {
		return s, err
	}
	rows, err := r.conn.QueryContext(r.ctx, string(r.sql))
	if err != nil {
		return s, err
	}
	defer rows.Close()
	if !rows.Next() {
		return s, rows.Err()
	}
	n := len(p.source.Columns)
	raw, err := scanRaw(rows, n+2)
	if err != nil {
		return s, err
	}
	s.found = true
	s.before, s.after = string(raw[n]) == "1", string(raw[n+1]) == "1"
	s.image = make([]change.Value, n)
	for i := range n {
		if s.image[i], err = p.readValue(i, raw[i]); err != nil {
			s.image = nil // a label the source has not, say: it certainly differs
			break
		}
	}
	if !compared && s.image != nil {
		s.before, s.after = equalImages(s.image, before), equalImages(s.image, after)
	}
	return s, rows.Err()
}

// exactly appends a condition that is true for a row that is the image bit for
// bit. A value that can't be written for its column is on no row.
func (r *run) exactly(image []change.Value) {
	if image == nil {
		r.sql = append(r.sql, '0')
		return
	}
	mark := len(r.sql)
	r.sql = append(r.sql, '(')
	for n, c := range r.p.match {
		if n > 0 {
			r.sql = append(r.sql, " AND "...)
		}
		var err error
		if r.sql, err = r.p.writers[c].appendExact(r.sql, r.p.quoted[c], image[c], &r.p.table.Columns[r.p.to[c]]); err != nil {
			r.sql = append(r.sql[:mark], '0')
			return
		}
	}
	r.sql = append(r.sql, ')')
}

// expectRows is how many rows one statement of Expected asks for.
const expectRows = 200

// Expected tells whether the target is as a run of changes expects it: the first
// before image of each row is there, bit for bit, and what is inserted first is
// not. It costs a statement for some hundred rows, which it locks, and may answer
// false where Look, row by row, finds nothing: keys that differ in bytes and are
// one to the database, rows that others take with them. For tables whose rows
// nothing names it is always true: applying the changes tells.
func (p *Plan) Expected(ctx context.Context, conn Execer, rows []change.Row) (bool, error) {
	if p.mode == modeMultiset || p.mode == modeSequence || len(rows) == 0 {
		return true, nil
	}
	r, err := p.newRun(ctx, conn, &rows[0])
	if err != nil {
		return false, err
	}
	seen := map[string]bool{}
	first := func(image []change.Value) bool {
		k := string(p.identityOf(nil, image))
		if seen[k] {
			return false
		}
		seen[k] = true
		return true
	}
	var there, free [][]change.Value
	for i := range rows {
		row := &rows[i]
		if row.Before != nil && first(row.Before) {
			there = append(there, row.Before)
		}
		if row.After != nil && first(row.After) {
			free = append(free, row.After)
		}
	}
	for _, part := range []struct {
		images [][]change.Value
		exact  bool
	}{{there, true}, {free, false}} {
		for left := part.images; len(left) > 0; {
			n, found, err := r.countSome(left, part.exact)
			if err != nil {
				return false, err
			}
			if part.exact && found != n || !part.exact && found != 0 || n == 0 {
				return false, nil
			}
			left = left[n:]
		}
	}
	return true, nil
}

// countSome locks and counts the rows of the first images, as many as go into one
// statement; n is 0 where not even one does.
func (r *run) countSome(images [][]change.Value, exact bool) (n, found int, err error) {
	r.sql = append(append(append(r.sql[:0], "SELECT COUNT(*) FROM "...), r.p.name...), " WHERE "...)
	for n < len(images) && n < expectRows {
		mark := len(r.sql)
		if n > 0 {
			r.sql = append(r.sql, " OR "...)
		}
		r.sql = append(r.sql, '(')
		if r.identity(images[n], false) != nil {
			return 0, 0, nil //nolint:nilerr // told when it is the row's turn
		}
		if exact {
			r.sql = append(r.sql, " AND "...)
			r.exactly(images[n])
		}
		r.sql = append(r.sql, ')')
		if len(r.sql) > min(statementBytes, r.packet)-16 {
			if n == 0 {
				return 0, 0, nil
			}
			r.sql = r.sql[:mark]
			break
		}
		n++
	}
	r.sql = append(r.sql, " FOR UPDATE"...)
	found, err = r.count()
	return n, found, err
}

// KindOf tells which kind of conflict an error of Apply is; empty: none.
func KindOf(err error, op change.Op) Kind {
	switch {
	case errors.Is(err, ErrConflict):
		return UniqueHolder
	case errors.Is(err, ErrMissing) && op == change.Update:
		return UpdateMissing
	case errors.Is(err, ErrMissing) && op == change.Delete:
		return DeleteMissing
	}
	return ""
}

// Present reads the row that stands where a change would go: that of its before
// image's identity, or else of its after image's; nil where there is none, or
// nothing names the table's rows. It locks the row.
func (p *Plan) Present(ctx context.Context, conn Execer, row *change.Row) ([]change.Value, error) {
	if p.mode == modeMultiset || p.mode == modeSequence {
		return nil, nil
	}
	r, err := p.newRun(ctx, conn, row)
	if err != nil {
		return nil, err
	}
	for _, image := range [][]change.Value{row.Before, row.After} {
		if image == nil {
			continue
		}
		there, err := r.present(image, nil, row.Before, row.After)
		if err != nil {
			return nil, r.lookError(err)
		}
		if there.found {
			return there.image, nil
		}
	}
	return nil, nil
}

// Describe names the row of an image by its identity, for people: " (id=5)".
func (p *Plan) Describe(row *change.Row) string {
	if row.Before != nil {
		return p.describe(row.Before)
	}
	return p.describe(row.After)
}
