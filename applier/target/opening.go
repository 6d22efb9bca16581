package target

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"unsafe"

	"github.com/twinspan/twinspan/internal/server"
)

// ErrNotLed: the statement that opens a transaction did not change its one row.
var ErrNotLed = errors.New("the transaction's first statement changed no row")

// Opens says that runs, all of a transaction's, should be given to TryAll. Every run
// has rows.
func (w *Writer) Opens(runs []Run) bool {
	if !w.packs || w.rest > 0 || len(runs) == 0 {
		return false
	}
	n, _ := w.alike(runs)
	return n == len(runs)
}

// TryAll is Try for all runs of a transaction that it opens itself with lead, a
// statement that changes exactly one row. What a short transaction takes before its
// COMMIT goes in one packet: lead, the savepoint, a statement that keeps the tables as
// they are until the end, the look whether that is what their plans think (as
// Plan.Unchanged has it, which need not be called then), and the rows.
//
// open says that the transaction is open, and lead carried out. Where it is not and
// there is no error, nothing was sent. Errors: as Try; ErrNotLed, ErrChanged, and
// what lead was refused with.
//
// The rows come last since servers lose count of a packet's answers in BINLOG.
func (w *Writer) TryAll(ctx context.Context, lead string, runs []Run) (sum Outcome, open, done bool, err error) {
	w.reset()
	w.tables(runs)
	w.opening(lead)
	if w.led = false; len(w.ahead) > w.packet-64 {
		w.ahead = w.ahead[:0]
		return sum, false, false, nil
	}
	if err = w.runs(ctx, runs, &sum); err == nil && len(w.ahead) > 0 {
		err = w.ask(ctx, w.ahead, &sum) // nothing is left of the rows
	}
	if len(w.ahead) > 0 { // the rows themselves are in the way, and SQL tells which
		w.ahead = w.ahead[:0]
		w.hesitate(err)
		return Outcome{}, false, false, nil
	}
	done, err = w.settle(ctx, &sum, err)
	return sum, w.led, done, err
}

// opening puts together what comes before the rows.
func (w *Writer) opening(lead string) {
	w.ahead = append(append(w.ahead[:0], lead...), "; SELECT ROW_COUNT(); SAVEPOINT twinspan; SELECT 1 FROM "...)
	for n, p := range w.plans {
		if n > 0 {
			w.ahead = append(w.ahead, ',')
		}
		w.ahead = append(w.ahead, p.name...)
	}
	w.ahead = append(w.ahead, " LIMIT 0"...)
	for _, p := range w.plans {
		w.ahead = append(append(w.ahead, "; SHOW CREATE TABLE "...), p.name...)
	}
}

// openingStatements are those of the opening that Outcome counts: what is written by
// SQL takes the others, too.
const openingStatements = 2

// ask sends the opening, with or without rows behind it, and reads the answers.
func (w *Writer) ask(ctx context.Context, query []byte, sum *Outcome) (err error) {
	w.ahead = w.ahead[:0]
	sum.Statements += openingStatements
	// The driver copies it into its packet; a copy more would cost as much.
	rows, err := w.conn.QueryContext(ctx, unsafe.String(unsafe.SliceData(query), len(query)))
	if err != nil {
		return err // the first statement's
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	var changed int64
	for rows.Next() {
		if err := rows.Scan(&changed); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if w.led = changed == 1; !w.led {
		return ErrNotLed
	}
	if !rows.NextResultSet() { // of the SELECT, and the savepoint has none
		return w.refused(rows)
	}
	for _, p := range w.plans {
		if !rows.NextResultSet() {
			return w.refused(rows)
		}
		if err := p.asShown(rows); err != nil {
			return err
		}
	}
	if rows.NextResultSet() {
		return errors.New("the target gave more answers than it was asked for")
	}
	if err := rows.Err(); err != nil {
		return refusal(err)
	}
	return nil
}

// refused is why there is no next answer of the opening.
func (w *Writer) refused(rows *sql.Rows) error {
	err := rows.Err()
	switch {
	case err == nil:
		return errors.New("the target gave fewer answers than it was asked for")
	case server.ErrorNumber(err) == 0 || Retryable(err):
		return err
	}
	return fmt.Errorf("%w: %w", errDoubt, err) // a table is gone, for one
}

// asShown reads the answer to SHOW CREATE TABLE. Fails with ErrChanged.
func (p *Plan) asShown(rows *sql.Rows) error {
	cols, err := rows.Columns()
	if err != nil {
		return err
	}
	var now uint64
	for rows.Next() {
		raw, err := scanRaw(rows, len(cols))
		if err != nil {
			return err
		}
		now = definitionHash(raw[1])
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return p.same(now)
}

// short appends the rows' statement to the opening, if that is short enough to be
// sent together.
func (w *Writer) short() (query []byte, fits bool) {
	n := len(w.ahead) + len("; BINLOG ''") + base64.StdEncoding.EncodedLen(len(w.events))
	if n >= min(narrowFrom, w.packet-64) {
		return nil, false
	}
	query = append(append(w.sql[:0], w.ahead...), "; BINLOG '"...)
	query = append(base64.StdEncoding.AppendEncode(query, w.events), '\'')
	w.sql = query
	return query, true
}
