package binlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// assembler puts the events of one dump together to transactions and gives them
// to the sink. It is used by the stream's goroutine only.
type assembler struct {
	flavor server.Flavor
	reader *eventReader
	order  *sequence
	tables *tables
	judge  *judge
	sink   Sink
	skip   map[string]bool // GTIDs whose content the operator gave up
	// committed holds back what is in the binlog and not committed yet.
	committed *commitGate
	// own halts on a transaction that began on a standby itself.
	own   func(ctx context.Context, id string) error
	count *Counters
	arena Arena

	// done is what was handed over completely; the stream resumes from it.
	done *gtid.Set
	// last is where the last complete event ended.
	source change.Source

	tx  transaction
	xa  prepared
	row change.Row
}

// transaction is the one that is open.
type transaction struct {
	open   bool
	id     string
	header Header
	begun  bool // a BEGIN was seen, or is implied: it ends with a commit event
	rows   int64
	// statements counts the DDLs handed over.
	statements int
	skip       bool
	xid        string // of the XA transaction it prepares; empty: none
}

// source of the events of MySQL that go-mysql has no name for or that nothing
// is done with.
func ignored(t replication.EventType) bool {
	switch t {
	case replication.FORMAT_DESCRIPTION_EVENT, replication.STOP_EVENT, replication.HEARTBEAT_EVENT, replication.HEARTBEAT_LOG_EVENT_V2,
		replication.PREVIOUS_GTIDS_EVENT, replication.IGNORABLE_EVENT, replication.ROWS_QUERY_EVENT,
		replication.TRANSACTION_CONTEXT_EVENT, replication.VIEW_CHANGE_EVENT,
		replication.MARIADB_ANNOTATE_ROWS_EVENT, replication.MARIADB_BINLOG_CHECKPOINT_EVENT,
		replication.MARIADB_GTID_LIST_EVENT, replication.MARIADB_START_ENCRYPTION_EVENT:
		return true
	}
	return false
}

func isRows(t replication.EventType) bool {
	_, err := rowsKindOf(t)
	return err == nil || errors.Is(err, ErrPartialJSON)
}

// event takes the next event of the dump.
func (a *assembler) event(ctx context.Context, e *event) error {
	a.count.event(e)
	err := a.dispatch(ctx, e)
	if err == nil {
		return nil
	}
	if h := AsHalt(err); h != nil && h.GTID == "" && a.tx.open {
		h.GTID = a.tx.id
	}
	return err
}

func (a *assembler) dispatch(ctx context.Context, e *event) error {
	if e.end != 0 {
		a.source.Position = uint64(e.end)
	}
	switch {
	case isRows(e.typ):
		return a.rows(ctx, e)
	case e.typ == replication.TABLE_MAP_EVENT:
		if err := a.inside(e); err != nil || a.tx.skip {
			return err
		}
		if a.tx.xid != "" {
			return a.xa.keep(a.tx.xid, e)
		}
		return a.named(e, a.tables.define(ctx, a.reader, e))
	case ignored(e.typ):
		return nil
	}
	switch e.typ {
	case replication.ROTATE_EVENT:
		if len(e.body) < 8 {
			return fmt.Errorf("%w: rotate event of %d bytes", ErrDamaged, len(e.body))
		}
		a.source.File, a.source.Position = string(e.body[8:]), binary.LittleEndian.Uint64(e.body)
		return nil
	case replication.GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT:
		return a.beginMySQL(ctx, e)
	case replication.MARIADB_GTID_EVENT:
		return a.beginMariaDB(ctx, e)
	case replication.ANONYMOUS_GTID_EVENT:
		return haltf(HaltNoGTID, remedyNoGTID, "a transaction without GTID %s", a.where(e))
	case replication.QUERY_EVENT, replication.MARIADB_QUERY_COMPRESSED_EVENT:
		return a.query(ctx, e)
	case replication.XID_EVENT:
		if err := a.inside(e); err != nil {
			return err
		}
		return a.end(ctx)
	case replication.XA_PREPARE_LOG_EVENT:
		return a.prepare(ctx, e)
	case replication.INCIDENT_EVENT:
		return a.incident(ctx, e)
	case replication.INTVAR_EVENT, replication.RAND_EVENT, replication.USER_VAR_EVENT, replication.LOAD_EVENT, replication.NEW_LOAD_EVENT,
		replication.CREATE_FILE_EVENT, replication.APPEND_BLOCK_EVENT, replication.EXEC_LOAD_EVENT, replication.DELETE_FILE_EVENT,
		replication.BEGIN_LOAD_QUERY_EVENT, replication.EXECUTE_LOAD_QUERY_EVENT:
		if a.tx.skip {
			return nil
		}
		return haltf(HaltStatement, remedyRow, "%s, a part of a change logged as a statement, %s", e.typ, a.where(e))
	}
	if e.flags&replication.LOG_EVENT_IGNORABLE_F != 0 {
		return nil
	}
	return haltf(HaltDecode, remedyDamaged, "event type %d is not known, %s", byte(e.typ), a.where(e))
}

// where says where an event stands, for people.
func (a *assembler) where(e *event) string {
	return fmt.Sprintf("ending at %s:%d", a.source.File, e.end)
}

// inside checks that an event that belongs to a transaction is in one.
func (a *assembler) inside(e *event) error {
	if a.tx.open {
		return nil
	}
	return haltf(HaltNoGTID, remedyNoGTID, "%s without a GTID before it, %s", e.typ, a.where(e))
}

// beginMySQL and beginMariaDB differ in what else the GTID event says.
func (a *assembler) beginMySQL(ctx context.Context, e *event) error {
	h, _, err := a.reader.header(e)
	if err != nil {
		return err
	}
	return a.begin(ctx, h, false)
}

func (a *assembler) beginMariaDB(ctx context.Context, e *event) error {
	h, flags, err := a.reader.header(e)
	if err != nil {
		return err
	}
	if flags&(mariaPreparedXA|mariaCompletedXA) != 0 && !a.skip[h.GTID] {
		return &Halt{Code: HaltXA, GTID: h.GTID, Detail: "an XA transaction was prepared or completed " + a.where(e),
			Remedy: "let applications use plain transactions on this set; to go on, bring the target in line with this XA transaction and skip " +
				"its GTIDs (of the PREPARE and of the COMMIT)"}
	}
	return a.begin(ctx, h, flags&mariaStandalone == 0)
}

// begin opens a transaction. begun: it ends with a commit event.
func (a *assembler) begin(ctx context.Context, h Header, begun bool) error {
	if a.tx.open {
		return haltf(HaltDecode, remedyDamaged, "transaction %s begins after %s:%d before %s has ended", h.GTID, a.source.File, a.source.Position, a.tx.id)
	}
	if err := a.order.next(ctx, h.GTID); err != nil {
		return err
	}
	if err := a.committed.wait(ctx, h.GTID); err != nil {
		return err
	}
	if err := a.own(ctx, h.GTID); err != nil {
		return err
	}
	a.tx = transaction{open: true, id: h.GTID, header: h, begun: begun, skip: a.skip[h.GTID]}
	clear(a.tables.current)
	return fromSink(a.sink.Begin(h))
}

// end hands the transaction over.
func (a *assembler) end(ctx context.Context) error {
	if !a.tx.open {
		return haltf(HaltDecode, remedyDamaged, "a transaction ends that has not begun")
	}
	if err := a.sink.End(a.source); err != nil {
		return sinkError{err}
	}
	id := a.tx.id
	a.tx = transaction{}
	a.count.Transactions.Add(1)
	return a.done.Add(id)
}

func (a *assembler) rows(ctx context.Context, e *event) error {
	if err := a.inside(e); err != nil || a.tx.skip {
		return err
	}
	if a.tx.xid != "" {
		return a.xa.keep(a.tx.xid, e)
	}
	return a.named(e, a.decode(ctx, e))
}

// decode gives the rows of an event to the sink.
func (a *assembler) decode(_ context.Context, e *event) error {
	h, err := ParseRowsHeader(e.typ, e.body)
	if err != nil {
		return err
	}
	m := a.tables.current[h.TableID]
	if m == nil {
		// The last event of a statement may be an empty one for no table.
		if h.TableID == 0xffffff {
			return nil
		}
		return fmt.Errorf("%w: rows of table id %d, which no table map named", ErrDamaged, h.TableID)
	}
	if m.decoder == nil {
		return nil
	}
	a.row = change.Row{Table: m.decoder.Table(), Op: h.Op, Flags: rowFlags(a.flavor, h.Flags)}
	return m.decoder.Rows(e.typ, e.body, &a.arena, func(before, after []change.Value) error {
		a.row.Position, a.row.Before, a.row.After = a.tx.rows, before, after
		a.tx.rows++
		a.count.Rows.Add(1)
		return fromSink(a.sink.Row(&a.row))
	})
}

func rowFlags(flavor server.Flavor, f uint16) change.Flags {
	var out change.Flags
	if f&replication.NO_FOREIGN_KEY_CHECKS_F != 0 {
		out |= change.NoForeignKeyChecks
	}
	if f&replication.RELAXED_UNIQUE_CHECKS_F != 0 {
		out |= change.RelaxedUniqueChecks
	}
	if flavor == server.MySQL && f&replication.USE_SQL_FOREIGN_KEY_F != 0 {
		out |= change.CascadesLogged
	}
	return out
}

// named turns what is wrong with a table map or row event into a halt that says
// what to do.
func (a *assembler) named(e *event, err error) error {
	switch {
	case err == nil:
		return nil
	case AsHalt(err) != nil:
		return err
	case errors.Is(err, ErrPartialJSON):
		return haltf(HaltPartialJSON, "SET GLOBAL binlog_row_value_options='' (and in every session) on the server where the transaction began; "+
			"then bring the target in line and skip this GTID", "a JSON column was updated by difference, %s", a.where(e)).because(err)
	case errors.Is(err, ErrPartialImage):
		return haltf(HaltPartialImage, "SET GLOBAL binlog_row_image=FULL (and in every session) on the server where the transaction began; "+
			"then bring the target in line and skip this GTID", "a row image lacks columns, %s", a.where(e)).because(err)
	case errors.Is(err, ErrColumnType):
		return haltf(HaltColumnType, "change the column to a type that row events carry exactly, or leave the table out of replication",
			"a table has a column that can't be replicated, %s", a.where(e)).because(err)
	case errors.Is(err, ErrMismatch), errors.Is(err, ErrNoMetadata):
		return haltf(HaltMetadata, remedyMetadata, "a table's definition is not known for certain, %s", a.where(e)).because(err)
	}
	return err
}

// incident: type (2 bytes), message.
func (a *assembler) incident(ctx context.Context, e *event) error {
	r := fieldReader{b: e.body}
	kind, text := r.u16(), r.text()
	if a.tx.skip {
		return a.end(ctx) // nothing follows it in its group
	}
	return haltf(HaltIncident, "the server lost changes before it could log them (see its error log): compare source and target, re-seed what differs, "+
		"and skip this GTID", "the server reports incident %d %q, %s", kind, strings.ToValidUTF8(text, "?"), a.where(e))
}
