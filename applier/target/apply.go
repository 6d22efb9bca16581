package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

// Bounds of one statement. More rows bring nothing once a statement's fixed cost
// is spread thin; the server plans each row of a DELETE as a range of its own.
const (
	statementBytes = 1 << 20
	insertRows     = 1000
	deleteRows     = 400
)

// Apply gives rows the state their changes ask for, in the caller's open
// transaction. The rows are of the plan's source version, in log order, with
// equal flags. After it, for each: an INSERT's or UPDATE's new image exists,
// whether or not the row was there; a DELETE's row is gone.
//
// Errors: *Conflict, *RowError, ErrIncompatible for images that do not fit the
// plan, and the server's own. After any error the transaction holds an unknown
// part of the rows: roll it back. Retryable tells whether to try again.
func (p *Plan) Apply(ctx context.Context, conn Execer, rows []change.Row) (Outcome, error) {
	r := &run{p: p, ctx: ctx, conn: conn}
	if len(rows) == 0 {
		return r.out, nil
	}
	r.flags = rows[0].Flags
	for i := range rows {
		if err := p.check(&rows[i], r.flags); err != nil {
			return r.out, fmt.Errorf("row %d of %d for %s: %w", i, len(rows), p.table.Name, err)
		}
		switch rows[i].Op {
		case change.Insert:
			r.out.Inserted++
		case change.Update:
			r.out.Updated++
		case change.Delete:
			r.out.Deleted++
		}
	}
	if p.packet.Load() == 0 {
		n, err := packetLimit(ctx, conn)
		if err != nil {
			return r.out, fmt.Errorf("max_allowed_packet of the target: %w", err)
		}
		p.packet.Store(int64(n))
	}
	r.packet = int(p.packet.Load()) - 64 // room for the command and its frame
	r.rows = rows
	var err error
	switch {
	case p.mode == modeSequence:
		err = r.sequence()
	case p.mode == modeMultiset:
		err = r.multiset()
	case p.collapses(r.flags):
		err = r.collapse()
	default:
		err = r.ordered()
	}
	return r.out, err
}

// check refuses rows that are not the plan's, before anything is written.
func (p *Plan) check(row *change.Row, flags change.Flags) error {
	if row.Flags != flags {
		return fmt.Errorf("%w: flags differ within a run", ErrIncompatible)
	}
	n := len(p.source.Columns)
	bad := func(image []change.Value, want bool) bool { return (image != nil) != want || want && len(image) != n }
	if row.Op > change.Delete || bad(row.Before, row.Op != change.Insert) || bad(row.After, row.Op != change.Delete) {
		return fmt.Errorf("%w: %s with %d values before and %d after, for %d columns", ErrIncompatible, row.Op, len(row.Before), len(row.After), n)
	}
	return nil
}

// run is one call of Apply.
type run struct {
	p      *Plan
	ctx    context.Context // of the one call
	conn   Execer
	rows   []change.Row
	flags  change.Flags
	packet int
	out    Outcome
	sql    []byte // the statement being built, reused
}

// failure is an error with what it means for the rows of its statement.
type failure uint8

const (
	failNone      failure = iota
	failDuplicate         // a unique key is taken
	failRow               // the server refuses a row for what it holds
	failOther             // not the rows' fault: pass it on
)

func classify(err error) failure {
	switch {
	case err == nil:
		return failNone
	case Retryable(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return failOther
	case errors.Is(err, mysql.ErrPktTooLarge):
		return failRow
	}
	switch server.ErrorNumber(err) {
	case 0: // not from the server
		return failOther
	case 1022, 1062, 1169, 1557, 1586, 1761, 1762, 1859:
		return failDuplicate
	case 1044, 1045, 1046, 1049, 1051, 1054, 1064, 1072, 1109, 1142, 1143, 1146, 1193, 1227, 1231, 1305, 1370, 1394, 1412, 1449, 1615:
		return failOther // privileges, a table that is not what the plan thinks, our own statement
	case 1015, 1016, 1017, 1023, 1024, 1034, 1035, 1036, 1194, 1195, 1712, 1812, 1877, // files and tables that are locked, damaged or read-only
		1197, 1534, 1598, 1785, // what goes into the binary log
		1135, 1207, 1223, 1436, 3098, 3100: // threads, locks, plugins
		return failOther // the server's state
	}
	return failRow
}

// exec sends what was built and returns the affected rows.
func (r *run) exec() (int, error) {
	r.out.Statements++
	res, err := r.conn.ExecContext(r.ctx, string(r.sql))
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// fail wraps a failed statement of the row at index i.
func (r *run) fail(i int, err error) error {
	row := r.rows[i]
	image := row.Before
	if image == nil {
		image = row.After
	}
	e := &RowError{Table: r.p.table.Name, Index: i, Row: row, Key: r.p.describe(image), Err: err}
	var kept *RowError
	var conflict *Conflict
	switch {
	case errors.As(err, &kept), errors.As(err, &conflict):
		return err
	case errors.Is(err, ErrTooLarge), errors.Is(err, mysql.ErrPktTooLarge):
		e.Kind = ErrTooLarge
	case errors.Is(err, ErrMissing):
		e.Kind, e.Err = ErrMissing, nil
	case errors.Is(err, errValue) || classify(err) == failRow:
		e.Kind = ErrData
	default:
		return fmt.Errorf("%s of %s%s: %w", row.Op, r.p.table.Name, e.Key, err)
	}
	return e
}

// values appends one row's "(v, v, …)" for the written columns.
func (r *run) values(image []change.Value) error {
	var err error
	for n, i := range r.p.write {
		if n == 0 {
			r.sql = append(r.sql, '(')
		} else {
			r.sql = append(r.sql, ',')
		}
		if r.sql, err = r.p.writers[i].append(r.sql, image[i]); err != nil {
			return err
		}
	}
	r.sql = append(r.sql, ')')
	return nil
}

// identity appends the condition that names the image's row. Rows of a prefix
// key are named by the prefix alone; no index serves that, so whole asks for
// the whole columns instead, which finds the row in all but odd cases.
func (r *run) identity(image []change.Value, whole bool) error {
	for n, k := range r.p.identity {
		if n > 0 {
			r.sql = append(r.sql, " AND "...)
		}
		if whole {
			k.prefix = 0
		}
		if err := r.keyPart(k, image[k.column]); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) keyPart(k keyPart, v change.Value) error {
	var err error
	w := &r.p.writers[k.column]
	if k.prefix == 0 {
		r.sql = append(append(r.sql, r.p.quoted[k.column]...), '=')
		r.sql, err = w.appendKey(r.sql, v)
		return err
	}
	r.sql = fmt.Appendf(r.sql, "LEFT(%s,%d)=LEFT(", r.p.quoted[k.column], k.prefix)
	if r.sql, err = w.append(r.sql, v); err != nil {
		return err
	}
	r.sql = fmt.Appendf(r.sql, ",%d)", k.prefix)
	return nil
}

// assignments appends "c=v, c=v" for the written columns.
func (r *run) assignments(image []change.Value) error {
	var err error
	for n, i := range r.p.write {
		if n > 0 {
			r.sql = append(r.sql, ',')
		}
		r.sql = append(append(r.sql, r.p.quoted[i]...), '=')
		if r.sql, err = r.p.writers[i].append(r.sql, image[i]); err != nil {
			return err
		}
	}
	return nil
}

// fits fails when one row's statement is longer than the server takes.
func (r *run) fits() error {
	if len(r.sql) > r.packet {
		return fmt.Errorf("%w: the statement has %d bytes, the target takes %d", ErrTooLarge, len(r.sql), r.packet)
	}
	return nil
}

// begin starts a statement with its verb.
func (r *run) begin(word string, lenient bool) {
	r.sql = append(r.sql[:0], r.p.verb(word, r.flags, lenient)...)
}

// insertMany sends the rows at the given indexes as multi-row INSERTs with an
// optional tail. It stops at the first error and returns how many of the rows
// were done before it, and the affected rows.
func (r *run) insertMany(at []int, tail string) (done, affected int, err error) {
	for len(at) > 0 {
		r.begin("INSERT", false)
		r.sql = append(r.sql, r.p.fastInto...)
		n := 0
		for n < len(at) && n < insertRows {
			mark := len(r.sql)
			if n > 0 {
				r.sql = append(r.sql, ',')
			}
			if err := r.values(r.rows[at[n]].After); err != nil {
				return done, affected, r.fail(at[n], fmt.Errorf("%w: %w", errValue, err))
			}
			if n > 0 && len(r.sql)+len(tail) > min(statementBytes, r.packet) {
				r.sql = r.sql[:mark]
				break
			}
			n++
		}
		r.sql = append(r.sql, tail...)
		if err := r.fits(); err != nil {
			return done, affected, r.fail(at[0], err)
		}
		k, err := r.exec()
		if err != nil {
			return done, affected, err
		}
		affected += k
		done += n
		at = at[n:]
	}
	return done, affected, nil
}

// deleteMany deletes the rows at the given indexes by their before image's
// identity.
func (r *run) deleteMany(at []int) (done, affected int, err error) {
	p := r.p
	single := len(p.identity) == 1 && p.identity[0].prefix == 0
	for len(at) > 0 {
		r.begin("DELETE", false)
		r.sql = append(append(append(r.sql, "FROM "...), p.name...), " WHERE "...)
		if single {
			r.sql = append(append(r.sql, p.quoted[p.identity[0].column]...), " IN ("...)
		}
		n := 0
		for n < len(at) && n < deleteRows {
			mark := len(r.sql)
			var err error
			before := r.rows[at[n]].Before
			switch {
			case single:
				if n > 0 {
					r.sql = append(r.sql, ',')
				}
				c := p.identity[0].column
				r.sql, err = p.writers[c].appendKey(r.sql, before[c])
			default:
				if n > 0 {
					r.sql = append(r.sql, " OR "...)
				}
				r.sql = append(r.sql, '(')
				err = r.identity(before, true)
				r.sql = append(r.sql, ')')
			}
			if err != nil {
				return done, affected, r.fail(at[n], fmt.Errorf("%w: %w", errValue, err))
			}
			if n > 0 && len(r.sql) > min(statementBytes, r.packet) {
				r.sql = r.sql[:mark]
				break
			}
			n++
		}
		if single {
			r.sql = append(r.sql, ')')
		}
		if err := r.fits(); err != nil {
			return done, affected, r.fail(at[0], err)
		}
		k, err := r.exec()
		if err != nil {
			return done, affected, err
		}
		affected += k
		done += n
		at = at[n:]
	}
	return done, affected, nil
}

// sequence sets a MariaDB sequence: an INSERT replaces its only row.
func (r *run) sequence() error {
	for i := len(r.rows) - 1; i >= 0; i-- {
		if r.rows[i].After == nil {
			continue
		}
		_, _, err := r.insertMany([]int{i}, "")
		if err != nil {
			return r.fail(i, err)
		}
		return nil
	}
	return nil
}

// exists asks for a row by the image's identity.
func (r *run) exists(image []change.Value) (bool, error) {
	r.sql = append(append(append(r.sql[:0], "SELECT 1 FROM "...), r.p.name...), " WHERE "...)
	if err := r.identity(image, false); err != nil {
		return false, err
	}
	return r.any()
}

func (r *run) any() (found bool, err error) {
	r.out.Statements++
	rows, err := r.conn.QueryContext(r.ctx, string(append(r.sql, " LIMIT 1"...)))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	found = rows.Next()
	return found, rows.Err()
}

// count runs the built SELECT COUNT(*).
func (r *run) count() (n int, err error) {
	r.out.Statements++
	rows, err := r.conn.QueryContext(r.ctx, string(r.sql))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return 0, err
		}
	}
	return n, rows.Err()
}

// scanRaw reads one row of n columns as the server wrote them.
func scanRaw(rows *sql.Rows, n int) ([]sql.RawBytes, error) {
	raw := make([]sql.RawBytes, n)
	into := make([]any, n)
	for i := range raw {
		into[i] = &raw[i]
	}
	return raw, rows.Scan(into...)
}

// identityChanges: the update moves its row to another identity, as far as bytes
// tell.
func (p *Plan) identityChanges(row *change.Row) bool {
	for _, k := range p.identity {
		if !row.Before[k.column].Equal(row.After[k.column]) {
			return true
		}
	}
	return false
}

// identityOf is a map key: equal for images with the same bytes in the identity.
func (p *Plan) identityOf(dst []byte, image []change.Value) []byte {
	for _, k := range p.identity {
		dst = image[k.column].AppendCanonical(dst)
	}
	return dst
}

var _ Execer = (*sql.Conn)(nil)
var _ Execer = (*sql.Tx)(nil)
