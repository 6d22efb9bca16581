package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

var errGone = errors.New("no such table")

// own are the schemas that belong to the servers and to twinspan.
const own = "'mysql','information_schema','performance_schema','sys','twinspan'"

// column as information_schema describes it, lower case type words.
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
	key     []int // indexes of the key's columns: PRIMARY, else the first unique one without NULLs
	width   int64 // average bytes a row, by statistics
}

type listed struct{ rows int64 }

// list reads the tables of both sides. Where they disagree it settles and reads
// again.
func (r *run) list(ctx context.Context) (src, tgt map[schema.Name]listed, err error) {
	for attempt := 0; ; attempt++ {
		if src, err = listTables(ctx, r.cfg.Source, r.cfg.Include); err != nil {
			return nil, nil, fmt.Errorf("tables of the source: %w", err)
		}
		if attempt > 0 || r.cfg.Settle != nil {
			if err = r.settle(ctx); err != nil {
				return nil, nil, err
			}
		}
		if tgt, err = listTables(ctx, r.cfg.Target, r.cfg.Include); err != nil {
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

func listTables(ctx context.Context, s Side, include func(schema.Name) bool) (map[schema.Name]listed, error) {
	rows, err := s.DB.QueryContext(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(TABLE_ROWS, 0) FROM information_schema.TABLES "+
		"WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ("+own+")")
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
		if include == nil || include(n) {
			out[n] = l
		}
	}
	return out, rows.Err()
}

// objects compares views and routines by name.
func (r *run) objects(ctx context.Context) ([]Difference, error) {
	const q = "SELECT 'view', TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN (" + own + ") UNION ALL " +
		"SELECT LOWER(ROUTINE_TYPE), ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN (" + own + ")"
	read := func(s Side) (map[string]bool, error) {
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
			if r.cfg.Include == nil || r.cfg.Include(n) {
				out[kind+" "+n.String()] = true
			}
		}
		return out, rows.Err()
	}
	for attempt := 0; ; attempt++ {
		src, err := read(r.cfg.Source)
		if err != nil {
			return nil, fmt.Errorf("views and routines of the source: %w", err)
		}
		if err := r.settle(ctx); err != nil {
			return nil, err
		}
		tgt, err := read(r.cfg.Target)
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
	rows, err := s.DB.QueryContext(ctx, "SELECT COLUMN_NAME, LOWER(DATA_TYPE), LOWER(CAST(COLUMN_TYPE AS CHAR)), COALESCE(CHARACTER_SET_NAME, ''), COALESCE(COLLATION_NAME, ''), "+
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
	rows, err = s.DB.QueryContext(ctx, "SELECT INDEX_NAME, COALESCE(COLUMN_NAME, ''), COALESCE(SUB_PART, 0) FROM information_schema.STATISTICS "+
		"WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX", n.Schema, n.Table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	keys := map[string][]int{}
	bad := map[string]bool{}
	var order []string
	for rows.Next() {
		var index, col string
		var sub int
		if err := rows.Scan(&index, &col, &sub); err != nil {
			return nil, err
		}
		if _, ok := keys[index]; !ok {
			order = append(order, index)
		}
		i, ok := at[col]
		keys[index] = append(keys[index], i)
		// A unique prefix makes the whole column unique too, so only nulls
		// and expressions disqualify.
		if !ok || d.columns[i].nullable {
			bad[index] = true
		}
	}
	for _, k := range order {
		if !bad[k] {
			d.key = keys[k]
			break
		}
	}
	return d, rows.Err()
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
	for n := range byName {
		why = append(why, fmt.Sprintf("column %s is on the target only", n))
	}
	return why
}

// shape is how a table present on both sides is read: one select list that both
// servers answer with the same bytes for the same value.
type shape struct {
	name    schema.Name
	columns []string
	types   []string // data types, by column
	list    string   // the select list
	key     []keyColumn
	width   int64 // average bytes a row
	fields  int // of the select list
}

type keyColumn struct {
	at    int    // index in columns
	order string // expression that sorts and compares
	style literalStyle
	set   string // charset introducer for text
}

type literalStyle uint8

const (
	digits literalStyle = iota
	quoted              // dates and times
	hexed               // bytes
)

func newShape(s, t *description) *shape {
	sh := &shape{name: s.name, width: max(s.width, t.width)}
	tcol := map[string]column{}
	for _, c := range t.columns {
		tcol[c.name] = c
	}
	var list []string
	for _, c := range s.columns {
		sh.columns = append(sh.columns, c.name)
		sh.types = append(sh.types, c.dataType)
		list = append(list, selectExpr(c))
	}
	sh.list = strings.Join(list, ", ")
	sh.fields = len(list)
	for _, i := range s.key {
		c := s.columns[i]
		k := keyColumn{at: i, order: server.QuoteName(c.name)}
		switch c.dataType {
		case "float", "double", "json", "geometry", "uuid", "inet4", "inet6":
			// No literal compares exactly, or not in the same order on both.
			k.order, k.style, k.set = "CAST("+selectExpr(c)+" AS BINARY)", hexed, "_binary"
		case "bit", "enum", "set":
			// Compared as a string, sorted as a number: make both the number.
			k.order, k.style = "("+k.order+" + 0)", digits
		case "date", "time", "datetime", "timestamp":
			k.style = quoted
		case "char", "varchar", "tinytext", "text", "mediumtext", "longtext":
			k.style, k.set = hexed, "_"+c.charset
			if tcol[c.name].collation != c.collation {
				k.order, k.set = "CAST("+k.order+" AS BINARY)", "_binary"
			}
		case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector":
			k.style, k.set = hexed, "_binary"
		}
		sh.key = append(sh.key, k)
	}
	return sh
}

// selectExpr reads a column so that equal bytes mean equal values.
func selectExpr(c column) string {
	q := server.QuoteName(c.name)
	switch c.dataType {
	case "float":
		// The text of a FLOAT has six digits; as a DOUBLE it has them all.
		return "CAST(" + q + " AS DOUBLE)"
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext":
		return "CAST(" + q + " AS BINARY)"
	case "enum", "set":
		// The error value 0 reads as '', and so may a label.
		return "CONCAT(" + q + " + 0, ':', HEX(" + q + "))"
	case "uuid", "inet4", "inet6":
		return "CAST(CAST(" + q + " AS CHAR) AS BINARY)"
	case "bit":
		return "HEX(" + q + ")"
	case "json":
		return "CAST(CAST(" + q + " AS CHAR CHARACTER SET utf8mb4) AS BINARY)"
	}
	return q
}
