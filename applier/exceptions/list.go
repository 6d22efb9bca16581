package exceptions

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Filter chooses exceptions; its zero value takes all open ones.
type Filter struct {
	Table   string // schema.table
	GTID    string
	History bool // those that are not open as well
	Limit   int  // 0: all
}

const columns = `id, state, table_schema, table_name, operation, row_key, cause, kind, detail, behind, gtid, commit_time, log_offset, log_index,
	parked_at, tries, next_try, last_error, resolved_at, resolved_by, reason`

// List reads exceptions in the order of the log.
func (s *Store) List(ctx context.Context, q server.Querier, f Filter) ([]Exception, error) {
	where, args := []string{"stream = ?"}, []any{s.Stream}
	if !f.History {
		where = append(where, "state = 'open'")
	}
	if f.Table != "" {
		where, args = append(where, "CONCAT(table_schema, '.', table_name) = ?"), append(args, f.Table)
	}
	if f.GTID != "" {
		where, args = append(where, "gtid = ?"), append(args, f.GTID)
	}
	tail := ""
	if f.Limit > 0 {
		tail = fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	rows, err := q.QueryContext(ctx, "SELECT "+columns+" FROM twinspan.exception WHERE "+strings.Join(where, " AND ")+
		" ORDER BY log_offset, log_index"+tail, args...)
	if err != nil {
		return nil, s.wrap("list", err)
	}
	defer rows.Close()
	out := []Exception{}
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, s.wrap("list", err)
		}
		out = append(out, e)
	}
	return out, s.wrap("list", rows.Err())
}

func scan(rows *sql.Rows, more ...any) (Exception, error) {
	var e Exception
	var t schema.Name
	var behind sql.NullInt64
	var commit, parked, next, resolved, lastError, by, reason sql.NullString
	into := append([]any{&e.ID, &e.State, &t.Schema, &t.Table, &e.Operation, &e.Key, &e.Cause, &e.Kind, &e.Detail, &behind, &e.GTID, &commit,
		&e.Place.Offset, &e.Place.Index, &parked, &e.Tries, &next, &lastError, &resolved, &by, &reason}, more...)
	if err := rows.Scan(into...); err != nil {
		return e, err
	}
	e.Key = strings.TrimSpace(e.Key)
	e.Table, e.Behind, e.CommitTime, e.NextTry, e.ResolvedAt = t.String(), behind.Int64, stamp(commit), stamp(next), stamp(resolved)
	if p := stamp(parked); p != nil {
		e.ParkedAt = *p
	}
	e.LastError, e.ResolvedBy, e.Reason = lastError.String, by.String, reason.String
	return e, nil
}

// stored is an exception with its change.
type stored struct {
	Exception
	table  schema.Name
	change change.Row
}

// read gets exceptions with their changes, in the order of the log; the query goes
// on with the given condition.
func (s *Store) read(ctx context.Context, q querier, definitions map[schema.Fingerprint]*change.Codec, condition string, args ...any) ([]stored, error) {
	out, raw, err := s.readRaw(ctx, q, condition, args)
	if err != nil {
		return nil, err
	}
	for i := range out {
		codec, err := s.codec(ctx, q, definitions, raw[i].fingerprint)
		if err == nil {
			out[i].change, _, err = codec.DecodeRow(raw[i].payload)
		}
		if err != nil {
			return nil, s.wrap(fmt.Sprintf("read %d", out[i].ID), fmt.Errorf("%w: %w", ErrDamaged, err))
		}
	}
	return out, nil
}

// querier is what a *sql.Conn, *sql.Tx and *sql.DB can do.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

type rawChange struct {
	fingerprint schema.Fingerprint
	payload     []byte
}

func (s *Store) readRaw(ctx context.Context, q querier, condition string, args []any) ([]stored, []rawChange, error) {
	rows, err := q.QueryContext(ctx, "SELECT "+columns+", fingerprint, payload, table_schema, table_name FROM twinspan.exception WHERE stream = ? AND "+condition+
		" ORDER BY log_offset, log_index", append([]any{s.Stream}, args...)...)
	if err != nil {
		return nil, nil, s.wrap("read", err)
	}
	defer rows.Close()
	var out []stored
	var raw []rawChange
	for rows.Next() {
		var e stored
		var fp []byte
		var r rawChange
		if e.Exception, err = scan(rows, &fp, &r.payload, &e.table.Schema, &e.table.Table); err != nil {
			return nil, nil, s.wrap("read", err)
		}
		if len(fp) != len(r.fingerprint) {
			return nil, nil, s.wrap(fmt.Sprintf("read %d", e.ID), fmt.Errorf("%w: fingerprint of %d bytes", ErrDamaged, len(fp)))
		}
		copy(r.fingerprint[:], fp)
		out, raw = append(out, e), append(raw, r)
	}
	return out, raw, s.wrap("read", rows.Err())
}

// codec reads a definition once.
func (s *Store) codec(ctx context.Context, q querier, known map[schema.Fingerprint]*change.Codec, f schema.Fingerprint) (*change.Codec, error) {
	if c := known[f]; c != nil {
		return c, nil
	}
	var b []byte
	if err := one(ctx, q, &b, `SELECT definition FROM twinspan.exception_schema WHERE fingerprint = ?`, fingerprintBytes(f)); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("table version %s is not stored: %w", f.Short(), err)
		}
		return nil, err
	}
	v, err := schema.DecodeTableVersion(b)
	if err != nil {
		return nil, err
	}
	c, err := change.NewCodec(v.Table)
	if err != nil {
		return nil, err
	}
	known[f] = c
	return c, nil
}
