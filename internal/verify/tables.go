package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/schema"
)

var errGone = errors.New("no such table")

// own are the schemas that belong to the servers and to twinspan.
const own = "'mysql','information_schema','performance_schema','sys','twinspan'"

// column as information_schema describes it.
type column struct {
	name      string
	dataType  string // int, varchar, …
	fullType  string // int unsigned, varchar(20), …
	charset   string
	collation string
	nullable  bool
}

// description of a table on one side.
type description struct {
	name    schema.Name
	columns []column
	key     *rowKey // nil: none is of use
	width   int64   // average bytes a row, by statistics
}

// rowKey is the primary key, else the first UNIQUE key, that tells rows apart and
// whose index sorts them: whole columns, none of which may be NULL.
type rowKey struct {
	name    string
	columns []int // indexes into columns
}

type listed struct{ rows int64 }

// list reads the tables of both sides. Where they disagree it settles and reads
// again.
func (r *run) list(ctx context.Context) (src, tgt map[schema.Name]listed, err error) {
	for attempt := 0; ; attempt++ {
		if src, err = r.listTables(ctx, r.cfg.Source, true); err != nil {
			return nil, nil, fmt.Errorf("tables of the source: %w", err)
		}
		if attempt > 0 || r.cfg.Settle != nil {
			if err = r.settle(ctx); err != nil {
				return nil, nil, err
			}
		}
		if tgt, err = r.listTables(ctx, r.cfg.Target, false); err != nil {
			return nil, nil, fmt.Errorf("tables of the target: %w", err)
		}
		same := len(src) == len(tgt)
		for n := range src {
			if _, ok := tgt[n]; !ok {
				same = false
			}
		}
		if same || r.cfg.Settle == nil || attempt >= 3 {
			return src, tgt, nil
		}
	}
}

// wanted is the source's name of what a side has; false: it is not compared.
func (r *run) wanted(n schema.Name, source bool) (schema.Name, bool) {
	if r.cfg.Names != nil {
		var ok bool
		if source {
			_, ok = r.cfg.Names.Target(n)
		} else {
			n, ok = r.cfg.Names.Source(n)
		}
		if !ok {
			return n, false
		}
	}
	return n, r.cfg.Include == nil || r.cfg.Include(n)
}

// listTables lists a side's tables by the names of the source.
func (r *run) listTables(ctx context.Context, s Side, source bool) (map[schema.Name]listed, error) {
	rows, err := s.DB.QueryContext(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(TABLE_ROWS, 0) FROM information_schema.TABLES "+
		"WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE') AND TABLE_SCHEMA NOT IN ("+own+")")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[schema.Name]listed{}
	for rows.Next() {
		var n schema.Name
		var l listed
		if err := rows.Scan(&n.Schema, &n.Table, &l.rows); err != nil {
			return nil, err
		}
		if n, ok := r.wanted(n, source); ok {
			out[n] = l
		}
	}
	return out, rows.Err()
}

// objects compares views and routines by name.
func (r *run) objects(ctx context.Context) ([]Difference, error) {
	const q = "SELECT 'view', TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN (" + own + ") UNION ALL " +
		"SELECT LOWER(ROUTINE_TYPE), ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN (" + own + ")"
	read := func(s Side, source bool) (map[string]bool, error) {
		rows, err := s.DB.QueryContext(ctx, q)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		out := map[string]bool{}
		for rows.Next() {
			var kind string
			var n schema.Name
			if err := rows.Scan(&kind, &n.Schema, &n.Table); err != nil {
				return nil, err
			}
			if n, ok := r.wanted(n, source); ok {
				out[kind+" "+n.String()] = true
			}
		}
		return out, rows.Err()
	}
	for attempt := 0; ; attempt++ {
		src, err := read(r.cfg.Source, true)
		if err != nil {
			return nil, fmt.Errorf("views and routines of the source: %w", err)
		}
		if err := r.settle(ctx); err != nil {
			return nil, err
		}
		tgt, err := read(r.cfg.Target, false)
		if err != nil {
			return nil, fmt.Errorf("views and routines of the target: %w", err)
		}
		var out []Difference
		for n := range src {
			if !tgt[n] {
				out = append(out, Difference{Kind: Missing, Detail: n})
			}
		}
		for n := range tgt {
			if !src[n] {
				out = append(out, Difference{Kind: Extra, Detail: n})
			}
		}
		if len(out) == 0 || r.cfg.Settle == nil || attempt >= 3 {
			return out, nil
		}
	}
}

func describe(ctx context.Context, s Side, n schema.Name) (*description, error) {
	d := &description{name: n}
	err := s.DB.QueryRowContext(ctx, "SELECT COALESCE(AVG_ROW_LENGTH, 0) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
		n.Schema, n.Table).Scan(&d.width)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	rows, err := s.DB.QueryContext(ctx, "SELECT COLUMN_NAME, LOWER(DATA_TYPE), CAST(COLUMN_TYPE AS CHAR), COALESCE(CHARACTER_SET_NAME, ''), COALESCE(COLLATION_NAME, ''), "+
		"IS_NULLABLE = 'YES' FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION", n.Schema, n.Table)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	for rows.Next() {
		var c column
		if err := rows.Scan(&c.name, &c.dataType, &c.fullType, &c.charset, &c.collation, &c.nullable); err != nil {
			rows.Close()
			return nil, err
		}
		at[c.name] = len(d.columns)
		d.columns = append(d.columns, c)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(d.columns) == 0 {
		return nil, errGone
	}
	d.key, err = readKey(ctx, s, n, at, d.columns)
	return d, err
}

func readKey(ctx context.Context, s Side, n schema.Name, at map[string]int, columns []column) (*rowKey, error) {
	rows, err := s.DB.QueryContext(ctx, "SELECT INDEX_NAME, COALESCE(COLUMN_NAME, ''), COALESCE(SUB_PART, 0), INDEX_TYPE FROM information_schema.STATISTICS "+
		"WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX", n.Schema, n.Table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	keys, bad := []*rowKey{}, map[string]bool{}
	for rows.Next() {
		var index, col, kind string
		var sub int
		if err := rows.Scan(&index, &col, &sub, &kind); err != nil {
			return nil, err
		}
		if len(keys) == 0 || keys[len(keys)-1].name != index {
			keys = append(keys, &rowKey{name: index})
		}
		k := keys[len(keys)-1]
		i, ok := at[col]
		k.columns = append(k.columns, i)
		if !ok || columns[i].nullable || sub > 0 || kind != "BTREE" {
			bad[index] = true
		}
	}
	for _, k := range keys {
		if !bad[k.name] {
			return k, rows.Err()
		}
	}
	return nil, rows.Err()
}

// compareDefinitions says how the columns differ. Between flavours only names
// and order count: the types were checked when replication began.
func compareDefinitions(s, t *description, sameFlavor bool) (why []string) {
	byName := map[string]column{}
	for _, c := range t.columns {
		byName[c.name] = c
	}
	for _, c := range s.columns {
		o, ok := byName[c.name]
		switch {
		case !ok:
			why = append(why, fmt.Sprintf("column %s is on the source only", c.name))
		case sameFlavor && (o.fullType != c.fullType || o.collation != c.collation || o.nullable != c.nullable):
			why = append(why, fmt.Sprintf("column %s: source %s %s null=%t, target %s %s null=%t",
				c.name, c.fullType, c.collation, c.nullable, o.fullType, o.collation, o.nullable))
		}
		delete(byName, c.name)
	}
	for _, c := range t.columns {
		if _, ok := byName[c.name]; ok {
			why = append(why, fmt.Sprintf("column %s is on the target only", c.name))
		}
	}
	if a, b := s.names(nil), t.names(nil); len(why) == 0 && a != b {
		why = append(why, fmt.Sprintf("the columns' order: source %s, target %s", a, b))
	}
	if a, b := s.keyNames(), t.keyNames(); sameFlavor && a != b {
		why = append(why, fmt.Sprintf("the key that tells rows apart: source (%s), target (%s)", a, b))
	}
	return why
}

// names lists columns by index; nil: all.
func (d *description) names(which []int) string {
	var out []string
	for i := range d.columns {
		out = append(out, d.columns[i].name)
	}
	if which != nil {
		all := out
		out = nil
		for _, i := range which {
			out = append(out, all[i])
		}
	}
	return strings.Join(out, ", ")
}

func (d *description) keyNames() string {
	if d.key == nil {
		return ""
	}
	return d.names(d.key.columns)
}
