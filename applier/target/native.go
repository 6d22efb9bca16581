package target

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"github.com/twinspan/twinspan/applier/rowevent"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

// Run is consecutive work on one table, as Plan.Apply takes it.
type Run struct {
	Plan *Plan
	Rows []change.Row
}

// Writer writes runs over one session as row events, which the server carries
// out with the code of its own replication. One goroutine uses it.
//
// A row event does exactly what its source did or fails: an INSERT whose row is
// there, an UPDATE or DELETE whose row is not, a unique key that is taken.
// Whatever fails is undone, for the caller to do it again in SQL, which looks at
// what is in the way; so doubts are told as exactly as without row events.
type Writer struct {
	conn   Execer
	why    string // why the session takes no row events; "" when it does
	server uint32 // the target's server id
	packet int    // bytes of the longest statement
	few    int    // fewer rows go as SQL
	packs  bool   // the session takes several statements in one packet

	rest, wait int   // batches to go, and that were to go, in SQL after a doubt
	doubt      error // the last one

	events []byte // of the statement being built; reused, as are the next five
	sql    []byte
	ahead  []byte           // what is to be sent before the rows; empty once it is
	slots  map[uint64]int32 // newest slot by the hash of an identity
	merged []slot
	key    [2][]byte
	plans  []*Plan          // the tables of the runs that share statements
	ids    map[*Plan]uint32 // theirs, within a statement
	row    rowevent.Rows    // the event being built
	open   bool             // there is one
	of     *Plan
	op     change.Op
	bare   bool // of the statement: without foreign key checks
	led    bool // the first statement of what was ahead has changed its row
	narrow bool // the session reads statements as latin1, which no SQL may meet
}

// eventBytes is about how many bytes of events go into one statement. They grow by
// a third in base64, and the driver keeps buffers of up to 256 KiB.
const eventBytes = 180 << 10

// narrowFrom: a server looks at each character of a statement in utf8mb4, which for a
// long one costs more than the two statements that spare it.
const narrowFrom = 128 << 10

// fewRows: row events take three statements (savepoint, columns, rows), however
// few rows there are, and SQL one or two for each table.
const fewRows = 8

// NewWriter prepares a session from OpenSession, outside a transaction. Where it
// may not use row events, Together answers 0, and Reason tells why. After an error
// the session must be thrown away.
func NewWriter(ctx context.Context, conn Execer, info server.Info) (*Writer, error) {
	w := &Writer{conn: conn, few: fewRows, ids: map[*Plan]uint32{}, slots: map[uint64]int32{}}
	err := w.prepare(ctx, info)
	if server.ErrorNumber(err) != 0 && !Retryable(err) && !errors.Is(err, errUndecided) {
		w.why, err = err.Error(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("target session: %w", err)
	}
	return w, nil
}

// prepare tells the server what the events look like that will come.
func (w *Writer) prepare(ctx context.Context, info server.Info) error {
	mode := "@@SESSION.rbr_exec_mode"
	if info.Flavor == server.MariaDB {
		mode = "@@GLOBAL.slave_exec_mode"
	}
	rows, err := w.conn.QueryContext(ctx, "SELECT VERSION(), @@server_id, @@max_allowed_packet, "+mode)
	if err != nil {
		return err
	}
	var version, strict string
	for rows.Next() {
		if err := rows.Scan(&version, &w.server, &w.packet, &strict); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if !strings.EqualFold(strict, "STRICT") {
		w.why = "the server carries row events out in mode " + strict
		return nil
	}
	// Both would let the server bend or leave out rows without a word.
	rows, err = w.conn.QueryContext(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN"+
		" ('slave_skip_errors', 'replica_skip_errors', 'slave_type_conversions', 'replica_type_conversions')")
	if err != nil {
		return err
	}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return errors.Join(err, rows.Close())
		}
		if strings.HasSuffix(name, "_skip_errors") && value != "OFF" && value != "" || strings.Contains(value, "ALL_LOSSY") {
			w.why = fmt.Sprintf("the server carries row events out with %s = %s", name, value)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || w.why != "" {
		return err
	}
	_, err = w.conn.ExecContext(ctx, "DO 0; DO 0")
	if w.packs = err == nil; !w.packs && server.ErrorNumber(err) == 0 {
		return err
	}
	w.sql = append(w.sql[:0], "BINLOG '"...)
	w.sql = append(base64.StdEncoding.AppendEncode(w.sql, rowevent.Format(info.Flavor, version)), '\'')
	if info.Flavor == server.MySQL {
		return w.decided(ctx, string(w.sql))
	}
	if _, err := w.conn.ExecContext(ctx, string(w.sql)); err != nil {
		return err
	}
	// Else it logs each statement's text beside its events. Not every account may
	// say so.
	_, err = w.conn.ExecContext(ctx, "SET SESSION binlog_annotate_row_events = 0")
	if server.ErrorNumber(err) == 0 {
		return err
	}
	return nil
}

// errUndecided: the session can't be used, not even for SQL.
var errUndecided = errors.New("gtid_next could not be set again")

// decided sends MySQL the format, which leaves gtid_next undecided, and decides it
// again. Before that it is set only to see that this account may.
func (w *Writer) decided(ctx context.Context, format string) error {
	const auto = "SET SESSION gtid_next = 'AUTOMATIC'"
	if _, err := w.conn.ExecContext(ctx, auto); err != nil {
		return err
	}
	_, err := w.conn.ExecContext(ctx, format)
	if _, again := w.conn.ExecContext(ctx, auto); again != nil {
		return errors.Join(fmt.Errorf("%w: %w", errUndecided, again), err)
	}
	return err
}

// Reason is why the writer uses no row events; empty when it does.
func (w *Writer) Reason() string { return w.why }

// errDoubt: row events were refused, for a reason that SQL will tell exactly.
var errDoubt = errors.New("row events refused")

// Try writes runs that Together has counted as row events, in order, in the
// caller's open transaction. done is false where they were refused, or should
// not be tried just now; then nothing of them is applied, and Plan.Apply says
// exactly what is in the way.
func (w *Writer) Try(ctx context.Context, runs []Run) (sum Outcome, done bool, err error) {
	if w.why != "" || len(runs) == 0 {
		return sum, false, nil
	}
	if w.rest > 0 {
		w.rest--
		return sum, false, nil
	}
	sum.Statements++
	if _, err := w.conn.ExecContext(ctx, "SAVEPOINT twinspan"); err != nil {
		return sum, false, err
	}
	done, err = w.settle(ctx, &sum, w.write(ctx, runs, &sum))
	return sum, done, err
}

// settle ends what wrote rows behind the savepoint: where they were refused, they
// are undone.
func (w *Writer) settle(ctx context.Context, sum *Outcome, err error) (done bool, _ error) {
	if back := w.widen(ctx, sum); back != nil {
		if err != nil {
			back = fmt.Errorf("%w; before that: %s", back, err.Error())
		}
		return false, back
	}
	if err == nil {
		w.wait = 0
		return true, nil
	}
	if !errors.Is(err, errDoubt) {
		return false, err
	}
	w.hesitate(err)
	if _, err := w.conn.ExecContext(ctx, "ROLLBACK TO SAVEPOINT twinspan"); err != nil {
		return false, fmt.Errorf("undo row events: %w", err)
	}
	*sum = Outcome{Statements: sum.Statements + 1}
	return false, nil
}

// hesitate: doubts come in company, so SQL alone for a while.
func (w *Writer) hesitate(doubt error) {
	w.doubt = doubt
	w.wait = min(2*w.wait+1, 256)
	w.rest = w.wait
}

// widen has the session read statements as utf8mb4 again. Where that fails, the
// session is good for nothing: the error has no server's number, so that none
// takes it for a refusal that leaves the session usable.
func (w *Writer) widen(ctx context.Context, sum *Outcome) error {
	if !w.narrow {
		return nil
	}
	sum.Statements++
	if _, err := w.conn.ExecContext(ctx, "SET character_set_client = utf8mb4"); err != nil {
		return fmt.Errorf("%w: its character set can't be set back: %s", driver.ErrBadConn, err.Error())
	}
	w.narrow = false
	return nil
}

// Doubt is why row events were last refused; nil: they never were.
func (w *Writer) Doubt() error { return w.doubt }

func (w *Writer) write(ctx context.Context, runs []Run, sum *Outcome) error {
	w.reset()
	w.tables(runs)
	if err := w.shape(ctx, sum); err != nil {
		return err
	}
	return w.runs(ctx, runs, sum)
}

// runs builds the rows' events and sends them.
func (w *Writer) runs(ctx context.Context, runs []Run, sum *Outcome) error {
	for i := range runs {
		if err := w.run(ctx, runs[i], sum); err != nil {
			return err
		}
	}
	return w.flush(ctx, sum)
}

// tablesMost bounds the tables that one statement names; servers join up to 61.
const tablesMost = 32

// Together says how many runs, from the first on, should be given to Try at once;
// 0: the first goes by Plan.Apply. Every run has rows.
func (w *Writer) Together(runs []Run) int {
	n, rows := w.alike(runs)
	if rows < w.few {
		return 0
	}
	return n
}

// alike counts the first runs, and their rows, that can share a statement.
func (w *Writer) alike(runs []Run) (n, rows int) {
	if w.why != "" {
		return 0, 0
	}
	for ; n < min(len(runs), tablesMost); n++ {
		r := &runs[n]
		flags := r.Rows[0].Flags
		if !r.Plan.eventful(flags) || r.Plan.bare(flags) != runs[0].Plan.bare(runs[0].Rows[0].Flags) {
			break
		}
		rows += len(r.Rows)
	}
	return n, rows
}

// tables sets up the tables of runs.
func (w *Writer) tables(runs []Run) {
	w.plans = w.plans[:0]
	clear(w.ids)
	for _, r := range runs {
		if _, known := w.ids[r.Plan]; !known {
			w.plans = append(w.plans, r.Plan)
			w.ids[r.Plan] = uint32(len(w.plans))
		}
	}
	w.bare = runs[0].Plan.bare(runs[0].Rows[0].Flags)
}

// shape makes sure that the tables have the columns that the plans know, in their
// order, and keeps them so until the transaction ends. Row events know columns by
// number alone: where someone changed a table by hand, SQL says what is wrong.
func (w *Writer) shape(ctx context.Context, sum *Outcome) error {
	w.sql = append(w.sql[:0], "SELECT "...)
	for n, p := range w.plans {
		if n > 0 {
			w.sql = append(w.sql, ',')
		}
		w.sql = append(append(w.sql, p.name...), ".*"...)
	}
	for n, p := range w.plans {
		if n == 0 {
			w.sql = append(w.sql, " FROM "...)
		} else {
			w.sql = append(w.sql, ',')
		}
		w.sql = append(w.sql, p.name...)
	}
	sum.Statements++
	rows, err := w.conn.QueryContext(ctx, string(append(w.sql, " LIMIT 0"...)))
	if err != nil {
		if server.ErrorNumber(err) == 0 || Retryable(err) {
			return err
		}
		return fmt.Errorf("%w: %w", errDoubt, err)
	}
	names, err := rows.Columns()
	if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, p := range w.plans {
		for i := range p.table.Columns {
			if len(names) == 0 || names[0] != p.table.Columns[i].Name {
				return fmt.Errorf("%w: the columns of %s are not what they were", errDoubt, p.table.Name)
			}
			names = names[1:]
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: a table has more columns than it had", errDoubt)
	}
	return nil
}

// run builds the events of one run.
func (w *Writer) run(ctx context.Context, r Run, sum *Outcome) error {
	for i := range r.Rows {
		if err := r.Plan.check(&r.Rows[i], r.Rows[0].Flags); err != nil {
			return fmt.Errorf("row %d of %d for %s: %w", i, len(r.Rows), r.Plan.table.Name, err)
		}
		sum.count(r.Rows[i].Op)
	}
	if len(r.Rows) > 1 && r.Plan.collapses(r.Rows[0].Flags) {
		return w.collapse(ctx, r.Plan, r.Rows, sum)
	}
	for i := range r.Rows {
		if err := w.add(ctx, r.Plan, r.Rows[i].Op, r.Rows[i].Before, r.Rows[i].After, sum); err != nil {
			return err
		}
	}
	return nil
}

func (o *Outcome) count(op change.Op) {
	switch op {
	case change.Insert:
		o.Inserted++
	case change.Update:
		o.Updated++
	case change.Delete:
		o.Deleted++
	}
}

// collapse merges a run into one change per row; see run.collapse for why that is
// right. A row that was born and died within the run is left out: that its
// INSERT would have found nothing is what exactly one application promises.
func (w *Writer) collapse(ctx context.Context, p *Plan, rows []change.Row, sum *Outcome) error {
	w.merged = w.merged[:0]
	clear(w.slots)
	for i := range rows {
		row := &rows[i]
		if row.Op == change.Update && p.identityChanges(row) {
			if err := w.unload(ctx, p, rows, sum); err != nil {
				return err
			}
			if err := w.add(ctx, p, row.Op, row.Before, row.After, sum); err != nil {
				return err
			}
			continue
		}
		image := named(row)
		w.key[0] = p.identityOf(w.key[0][:0], image)
		h := xxhash.Sum64(w.key[0])
		at, known := w.slots[h]
		if known {
			w.key[1] = p.identityOf(w.key[1][:0], named(&rows[w.merged[at].first]))
			if !bytes.Equal(w.key[0], w.key[1]) { // another row's, with the same hash
				if err := w.unload(ctx, p, rows, sum); err != nil {
					return err
				}
				known = false
			}
		}
		if !known {
			at = int32(len(w.merged))
			w.slots[h] = at
			w.merged = append(w.merged, slot{first: i, fresh: row.Op == change.Insert})
		}
		w.merged[at].last = i
	}
	return w.unload(ctx, p, rows, sum)
}

// named is the image that names the row of a change that does not move it.
func named(row *change.Row) []change.Value {
	if row.Op == change.Delete {
		return row.Before
	}
	return row.After
}

// unload adds what became of the rows so far: the dead first, then the others.
func (w *Writer) unload(ctx context.Context, p *Plan, rows []change.Row, sum *Outcome) error {
	for _, op := range [...]change.Op{change.Delete, change.Insert, change.Update} {
		for i := range w.merged {
			s := &w.merged[i]
			last := &rows[s.last]
			became := change.Update
			switch {
			case last.Op == change.Delete && s.fresh:
				continue
			case last.Op == change.Delete:
				became = change.Delete
			case s.fresh:
				became = change.Insert
			}
			if became != op {
				continue
			}
			if err := w.add(ctx, p, op, rows[s.first].Before, last.After, sum); err != nil {
				return err
			}
		}
	}
	w.merged = w.merged[:0]
	clear(w.slots)
	return nil
}

// add appends one change to the statement.
func (w *Writer) add(ctx context.Context, p *Plan, op change.Op, before, after []change.Value, sum *Outcome) error {
	if len(w.events) > min(eventBytes, w.packet/2) {
		if err := w.flush(ctx, sum); err != nil {
			return err
		}
	}
	if w.open && (w.of != p || w.op != op) {
		w.row.End(w.events, false)
		w.open = false
	}
	if len(w.events) == 0 {
		// All of a statement's tables are named before its first rows.
		for _, t := range w.plans {
			w.events = t.events.AppendMap(w.events, w.server, w.ids[t])
		}
	}
	if !w.open {
		w.events, w.row = p.events.Begin(w.events, w.server, w.ids[p], op, w.bare)
		w.open, w.of, w.op = true, p, op
	}
	var err error
	if w.events, err = w.row.Append(w.events, before, after); err != nil {
		return fmt.Errorf("%w: %w", errDoubt, err) // SQL says which row, or knows better
	}
	return nil
}

func (w *Writer) reset() { w.events, w.open, w.of = w.events[:0], false, nil }

// flush sends what was built.
func (w *Writer) flush(ctx context.Context, sum *Outcome) error {
	if !w.open {
		w.reset()
		return nil
	}
	w.row.End(w.events, true)
	if len(w.ahead) > 0 {
		query, all := w.short()
		if !all {
			query = w.ahead
		} else {
			sum.Statements++
		}
		if err := w.ask(ctx, query, sum); err != nil {
			return err
		}
		if all {
			w.reset()
			return nil
		}
	}
	return w.send(ctx, sum)
}

// send has the server carry out the events.
func (w *Writer) send(ctx context.Context, sum *Outcome) error {
	w.sql = append(w.sql[:0], "BINLOG '"...)
	w.sql = append(base64.StdEncoding.AppendEncode(w.sql, w.events), '\'')
	w.reset()
	if len(w.sql) > w.packet-64 {
		return errDoubt // one long row: SQL may be shorter, or says that it is not
	}
	// Nothing in it is beyond ASCII.
	if !w.narrow && len(w.sql) >= narrowFrom {
		sum.Statements++
		w.narrow = true // if the outcome is unknown, too
		if _, err := w.conn.ExecContext(ctx, "SET character_set_client = latin1"); err != nil {
			return err
		}
	}
	sum.Statements++
	// The driver copies it into its packet; a copy more would cost as much.
	_, err := w.conn.ExecContext(ctx, unsafe.String(unsafe.SliceData(w.sql), len(w.sql)))
	return refusal(err)
}

// refusal is what a statement of rows ended with: errDoubt where SQL is to tell more.
func refusal(err error) error {
	switch classify(err) {
	case failNone:
		return nil
	case failOther:
		// 1030 is also all that some servers say of a row that they can't carry out.
		if n := server.ErrorNumber(err); n == 0 || n != 1030 && Retryable(err) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errDoubt, err)
}
