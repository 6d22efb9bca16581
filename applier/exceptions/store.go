package exceptions

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Parked is what a lane must know of an open exception.
type Parked struct {
	ID    int64
	Table schema.Name
	Shape uint64
	Keys  []uint64
}

// Load reads the open exceptions' keys.
func (s *Store) Load(ctx context.Context, q server.Querier) ([]Parked, error) {
	rows, err := q.QueryContext(ctx, `SELECT e.id, e.table_schema, e.table_name, e.shape, k.hash FROM twinspan.exception_key k
		JOIN twinspan.exception e ON e.id = k.exception_id WHERE k.stream = ? ORDER BY e.id`, s.Stream)
	if err != nil {
		return nil, s.wrap("read the keys", err)
	}
	defer rows.Close()
	var out []Parked
	for rows.Next() {
		var p Parked
		var k uint64
		if err := rows.Scan(&p.ID, &p.Table.Schema, &p.Table.Table, &p.Shape, &k); err != nil {
			return nil, s.wrap("read the keys", err)
		}
		if n := len(out); n == 0 || out[n-1].ID != p.ID {
			out = append(out, p)
		}
		last := &out[len(out)-1]
		last.Keys = append(last.Keys, k)
	}
	return out, s.wrap("read the keys", rows.Err())
}

// Lock takes the stream's lock until the transaction ends, and answers how many
// exceptions are open.
func (s *Store) Lock(ctx context.Context, x target.Execer) (open int, err error) {
	err = one(ctx, x, &open, `SELECT open FROM twinspan.exception_lock WHERE stream = ? FOR UPDATE`, s.Stream)
	return open, s.wrap("lock", err)
}

// one reads a single value.
func one(ctx context.Context, x target.Execer, into any, query string, args ...any) (err error) {
	rows, err := x.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		return errors.Join(rows.Err(), sql.ErrNoRows)
	}
	if err := rows.Scan(into); err != nil {
		return err
	}
	return rows.Err()
}

// inList is "?, ?, …" and its arguments behind the others.
func inList[T any](args []any, values []T) (string, []any) {
	for _, v := range values {
		args = append(args, v)
	}
	return strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", "), args
}

// Holders tells which of the keys an open exception touches, and the newest that
// does. The caller holds the lock, and answers for the keys' order by that.
func (s *Store) Holders(ctx context.Context, x target.Execer, keys []uint64) (map[uint64]int64, error) {
	out := map[uint64]int64{}
	for len(keys) > 0 {
		n := min(len(keys), 500)
		list, args := inList([]any{s.Stream}, keys[:n])
		keys = keys[n:]
		if err := s.holders(ctx, x, out, list, args); err != nil {
			return nil, s.wrap("look up keys", err)
		}
	}
	return out, nil
}

func (s *Store) holders(ctx context.Context, x target.Execer, out map[uint64]int64, list string, args []any) error {
	rows, err := x.QueryContext(ctx, `SELECT hash, MAX(exception_id) FROM twinspan.exception_key WHERE stream = ? AND hash IN (`+list+`) GROUP BY hash`, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k uint64
		var id int64
		if err := rows.Scan(&k, &id); err != nil {
			return err
		}
		out[k] = id
	}
	return rows.Err()
}

// Bounds of what is stored for people.
const (
	keyRunes    = 900
	detailBytes = 16 << 10
)

// Park stores a change in the caller's transaction, which holds the lock. It fails
// with ErrFull.
func (s *Store) Park(ctx context.Context, x target.Execer, open int, c *Change) (id int64, err error) {
	what := fmt.Sprintf("park %s of %s%s", c.Row.Op, c.Table, c.Key)
	if s.Max > 0 && open >= s.Max {
		return 0, s.wrap(what, fmt.Errorf("%w: %d", ErrFull, open))
	}
	codec, err := change.NewCodec(c.Row.Table)
	if err != nil {
		return 0, s.wrap(what, err)
	}
	payload, err := codec.AppendRow(nil, &c.Row, c.GTID, c.Commit)
	if err != nil {
		return 0, s.wrap(what, err)
	}
	if err := s.define(ctx, x, c.Row.Table, codec.Fingerprint()); err != nil {
		return 0, s.wrap(what, err)
	}
	var behind, next, commit any
	if c.Behind != 0 {
		behind = c.Behind
	} else if s.Retry.First > 0 {
		next = s.Retry.First.Microseconds()
	}
	if !c.Commit.IsZero() {
		commit = c.Commit.UTC().Format(timeLayout)
	}
	r, err := x.ExecContext(ctx, `INSERT INTO twinspan.exception (stream, log_offset, log_index, state, table_schema, table_name, operation, row_key,
		cause, kind, detail, behind, gtid, commit_time, fingerprint, payload, shape, parked_at, next_try)
		VALUES (?, ?, ?, 'open', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND)`,
		s.Stream, c.Place.Offset, c.Place.Index, c.Table.Schema, c.Table.Table, c.Row.Op.String(), clip(c.Key, keyRunes), c.Cause, c.Kind,
		clip(c.Detail, detailBytes/4), behind, c.GTID, commit, fingerprintBytes(codec.Fingerprint()), payload, c.Shape, next)
	if err != nil {
		return 0, s.wrap(what, err)
	}
	if id, err = r.LastInsertId(); err != nil {
		return 0, s.wrap(what, err)
	}
	for _, k := range c.Keys {
		if _, err := x.ExecContext(ctx, `INSERT INTO twinspan.exception_key (stream, hash, exception_id) VALUES (?, ?, ?)`, s.Stream, k, id); err != nil {
			return 0, s.wrap(what, err)
		}
	}
	_, err = x.ExecContext(ctx, `UPDATE twinspan.exception_lock SET open = open + 1 WHERE stream = ?`, s.Stream)
	return id, s.wrap(what, err)
}

// define stores the table version that the row is to be read with.
func (s *Store) define(ctx context.Context, x target.Execer, t *schema.Table, f schema.Fingerprint) error {
	var n int
	if err := one(ctx, x, &n, `SELECT COUNT(*) FROM twinspan.exception_schema WHERE fingerprint = ?`, fingerprintBytes(f)); err != nil || n > 0 {
		return err
	}
	v, err := schema.NewTableVersion(t, "")
	if err != nil {
		return err
	}
	b, err := v.Encode()
	if err != nil {
		return err
	}
	_, err = x.ExecContext(ctx, `INSERT IGNORE INTO twinspan.exception_schema (fingerprint, definition) VALUES (?, ?)`, fingerprintBytes(f), b)
	return err
}

func fingerprintBytes(f schema.Fingerprint) []byte { return f[:] }

const timeLayout = "2006-01-02 15:04:05.000000"

// clip bounds a text for people, in runes.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "?")
	n := 0
	for i := range s {
		if n++; n > most {
			return s[:i] + "…"
		}
	}
	return s
}

// OpenOn tells how many changes of these tables are parked; of any table where all
// is set. Names compare as the most careless server compares them.
func (s *Store) OpenOn(ctx context.Context, q server.Querier, names []schema.Name, all bool) (n int, example string, err error) {
	rows, err := q.QueryContext(ctx, `SELECT table_schema, table_name, COUNT(*) FROM twinspan.exception WHERE stream = ? AND state = 'open'
		GROUP BY table_schema, table_name`, s.Stream)
	if err != nil {
		return 0, "", s.wrap("count", err)
	}
	defer rows.Close()
	for rows.Next() {
		var t schema.Name
		var k int
		if err := rows.Scan(&t.Schema, &t.Table, &k); err != nil {
			return 0, "", s.wrap("count", err)
		}
		hit := all
		for _, m := range names {
			hit = hit || strings.EqualFold(m.Schema, t.Schema) && strings.EqualFold(m.Table, t.Table)
		}
		if hit {
			n, example = n+k, t.String()
		}
	}
	return n, example, s.wrap("count", rows.Err())
}

// Due lists the open exceptions whose time for another try has come.
func (s *Store) Due(ctx context.Context, q server.Querier) ([]int64, error) {
	rows, err := q.QueryContext(ctx, `SELECT id FROM twinspan.exception WHERE stream = ? AND state = 'open' AND next_try <= UTC_TIMESTAMP(6)
		ORDER BY log_offset, log_index LIMIT 100`, s.Stream)
	if err != nil {
		return nil, s.wrap("look for due ones", err)
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, s.wrap("look for due ones", err)
		}
		out = append(out, id)
	}
	return out, s.wrap("look for due ones", rows.Err())
}

// stamp reads the text of a DATETIME(6) in UTC.
func stamp(v sql.NullString) *time.Time {
	if !v.Valid {
		return nil
	}
	t, err := time.Parse("2006-01-02 15:04:05.999999", v.String)
	if err != nil {
		return nil
	}
	return &t
}

// OtherShapes tells how many changes of a table are parked under keys of another
// shape.
func (s *Store) OtherShapes(ctx context.Context, q server.Querier, t schema.Name, shape uint64) (int, error) {
	var n int
	err := q.QueryRowContext(ctx, `SELECT COUNT(*) FROM twinspan.exception WHERE stream = ? AND state = 'open' AND table_schema = ? AND table_name = ?
		AND shape <> 0 AND shape <> ?`, s.Stream, t.Schema, t.Table, shape).Scan(&n)
	return n, s.wrap("compare keys", err)
}

// CountOpen tells how many are open.
func (s *Store) CountOpen(ctx context.Context, q server.Querier) (int64, error) {
	var n int64
	err := q.QueryRowContext(ctx, `SELECT open FROM twinspan.exception_lock WHERE stream = ?`, s.Stream).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, s.wrap("count", err)
}
