package schema

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

var (
	// ErrNoTable: the catalogue has no such base table.
	ErrNoTable = errors.New("no such table")
	// ErrUnsupported: a table that can't be replicated exactly.
	ErrUnsupported = errors.New("unsupported table")
)

// SystemSchemas are the servers' own, which no table of an application is in.
var SystemSchemas = []string{"information_schema", "mysql", "performance_schema", "sys"}

// catalogueAttempts is how often a definition is read again that changes while it
// is being read.
const catalogueAttempts = 5

// FromCatalogue reads a table's definition from information_schema and builds
// the same Table that the binlog's table map builds, so that both have one
// fingerprint. Generated columns are columns like others: both servers have
// them, virtual ones too, in their row images. The hidden columns of MySQL's
// functional keys are in neither; those of MariaDB's UNIQUE keys over long
// columns are in the images, and are added here: see Column.Hidden.
//
// Labels with characters beyond the Basic Multilingual Plane come out of
// information_schema as '?', so that such a table has another fingerprint than
// the binlog's: compare with AsCatalogued.
//
// It fails with ErrNoTable (also for views) and ErrUnsupported. q may be a pool:
// a connection is taken from it. cols are the server's: see LoadCollations.
func FromCatalogue(ctx context.Context, q server.Querier, info server.Info, cols Collations, name Name) (*Table, error) {
	all, err := readCatalogue(ctx, q, info, cols, &name)
	if err != nil {
		return nil, fmt.Errorf("definition of %s: %w", name, err)
	}
	for _, d := range all {
		if d.name != name { // the server may compare names without case
			continue
		}
		if d.err != nil {
			return nil, fmt.Errorf("definition of %s: %w", name, d.err)
		}
		return d.table, nil
	}
	return nil, fmt.Errorf("definition of %s: %w", name, ErrNoTable)
}

// AsCatalogued is the table as information_schema would tell it: with '?' for
// each character of a label that is beyond the Basic Multilingual Plane. It is t
// itself where there is none. A table from the binlog and one from the catalogue
// are the same when the fingerprint of the first one's AsCatalogued is the
// second one's.
func AsCatalogued(t *Table) *Table {
	beyond := func(r rune) bool { return r > 0xffff }
	out := t
	for i := range t.Columns {
		for k, m := range t.Columns[i].Members {
			if strings.IndexFunc(m, beyond) < 0 {
				continue
			}
			if out == t {
				c := *t
				c.Columns = slices.Clone(t.Columns)
				for j := range c.Columns {
					c.Columns[j].Members = slices.Clone(c.Columns[j].Members)
				}
				out = &c
			}
			out.Columns[i].Members[k] = strings.Map(func(r rune) rune {
				if beyond(r) {
					return '?'
				}
				return r
			}, m)
		}
	}
	return out
}

// AllFromCatalogue reads the definitions of all base tables outside of
// SystemSchemas, sorted by name. It fails as FromCatalogue does, so one
// unsupported table fails it; skip leaves tables out (nil: none).
func AllFromCatalogue(ctx context.Context, q server.Querier, info server.Info, cols Collations, skip func(Name) bool) ([]*Table, error) {
	all, err := readCatalogue(ctx, q, info, cols, nil)
	if err != nil {
		return nil, fmt.Errorf("definitions of all tables: %w", err)
	}
	out := make([]*Table, 0, len(all))
	for _, d := range all {
		if skip != nil && skip(d.name) {
			continue
		}
		if d.err != nil {
			return nil, fmt.Errorf("definition of %s: %w", d.name, d.err)
		}
		out = append(out, d.table)
	}
	slices.SortFunc(out, func(a, b *Table) int { return a.Name.Compare(b.Name) })
	return out, nil
}

// definition is a table, or why there is none.
type definition struct {
	name  Name
	table *Table
	err   error
}

// readCatalogue reads one table, or all where name is nil. Columns and keys are
// two statements, so the columns are read again after the keys: when nothing
// changed, both are of one moment.
func readCatalogue(ctx context.Context, q server.Querier, info server.Info, cols Collations, name *Name) ([]definition, error) {
	if pool, ok := q.(*sql.DB); ok {
		conn, err := pool.Conn(ctx)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		q = conn
	}
	restore, err := showHiddenKeys(ctx, q, info)
	if err != nil {
		return nil, err
	}
	all, err := readUnchanged(ctx, q, info, cols, name)
	return all, errors.Join(err, restore())
}

func readUnchanged(ctx context.Context, q server.Querier, info server.Info, cols Collations, name *Name) ([]definition, error) {
	before, err := readColumns(ctx, q, name)
	if err != nil {
		return nil, err
	}
	for range catalogueAttempts {
		keys, err := readKeys(ctx, q, info, name, before)
		if err != nil {
			return nil, err
		}
		after, err := readColumns(ctx, q, name)
		if err != nil {
			return nil, err
		}
		if slices.Equal(before, after) {
			return buildTables(info, cols, after, keys), nil
		}
		before = after
	}
	return nil, fmt.Errorf("changed %d times while it was being read", catalogueAttempts)
}

// showHiddenKeys makes MySQL list generated invisible primary keys, which are in
// every row image, and returns what undoes it.
func showHiddenKeys(ctx context.Context, q server.Querier, info server.Info) (func() error, error) {
	nothing := func() error { return nil }
	if info.Flavor != server.MySQL || !info.AtLeast(8, 0) {
		return nothing, nil
	}
	const variable = "show_gipk_in_create_table_and_information_schema"
	var shown bool
	err := q.QueryRowContext(ctx, "SELECT @@SESSION."+variable).Scan(&shown)
	if server.ErrorNumber(err) == 1193 { // unknown system variable: before 8.0.30
		return nothing, nil
	}
	if err != nil || shown {
		return nothing, err
	}
	set := func(value string) error {
		_, err := q.ExecContext(ctx, "SET SESSION "+variable+" = "+value)
		return err
	}
	return func() error { return set("OFF") }, set("ON")
}

// catalogueColumn is a row of information_schema.columns.
type catalogueColumn struct {
	Name
	tableType  string
	engine     string
	column     string
	nullable   string
	dataType   string
	octets     sql.NullInt64
	precision  sql.NullInt64
	scale      sql.NullInt64
	fraction   sql.NullInt64
	charset    sql.NullString
	collation  sql.NullString
	columnType string
	extra      string
}

// where is the condition on one table, or on all of applications; alias is the
// information_schema table's.
func where(alias string, name *Name) (string, []any) {
	if name != nil {
		return alias + ".table_schema = ? AND " + alias + ".table_name = ?", []any{name.Schema, name.Table}
	}
	return alias + ".table_schema NOT IN ('" + strings.Join(SystemSchemas, "','") + "')", nil
}

func readColumns(ctx context.Context, q server.Querier, name *Name) ([]catalogueColumn, error) {
	cond, args := where("c", name)
	condT, argsT := where("t", name)
	// For one table the two are tied by values alone: where they are compared,
	// MariaDB does not see that both are given, and opens every table there is.
	tie := "c.table_schema = t.table_schema AND c.table_name = t.table_name"
	if name != nil {
		tie = "CAST(c.table_schema AS BINARY) = CAST(t.table_schema AS BINARY) AND CAST(c.table_name AS BINARY) = CAST(t.table_name AS BINARY)"
	}
	rows, err := q.QueryContext(ctx, `SELECT c.table_schema, c.table_name, t.table_type, COALESCE(t.engine, ''), c.column_name, c.is_nullable, c.data_type,
			c.character_octet_length, c.numeric_precision, c.numeric_scale, c.datetime_precision,
			c.character_set_name, c.collation_name, c.column_type, c.extra
		FROM information_schema.tables t JOIN information_schema.columns c ON `+tie+`
		WHERE `+cond+" AND "+condT+` AND t.table_type NOT IN ('VIEW', 'SYSTEM VIEW')
		ORDER BY c.table_schema, c.table_name, c.ordinal_position`, append(args, argsT...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []catalogueColumn
	for rows.Next() {
		var c catalogueColumn
		if err := rows.Scan(&c.Schema, &c.Table, &c.tableType, &c.engine, &c.column, &c.nullable, &c.dataType,
			&c.octets, &c.precision, &c.scale, &c.fraction, &c.charset, &c.collation, &c.columnType, &c.extra); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// buildTables turns rows, which are in order, into tables.
func buildTables(info server.Info, cols Collations, columns []catalogueColumn, keys map[Name]catalogueKeys) []definition {
	byName := make(map[string]Collation, len(cols))
	for _, c := range cols {
		byName[c.Name] = c
	}
	var out []definition
	for len(columns) > 0 {
		n := 1
		for n < len(columns) && columns[n].Name == columns[0].Name {
			n++
		}
		d := definition{name: columns[0].Name, table: &Table{Name: columns[0].Name}}
		d.err = d.table.fill(info, byName, columns[:n], keys[d.name])
		out, columns = append(out, d), columns[n:]
	}
	return out
}

func (t *Table) fill(info server.Info, collations map[string]Collation, columns []catalogueColumn, keys catalogueKeys) error {
	if columns[0].tableType == "SYSTEM VERSIONED" {
		return fmt.Errorf("%w: its system-versioned rows carry columns that the catalogue hides", ErrUnsupported)
	}
	index := make(map[string]int, len(columns))
	for i := range columns {
		c, err := columns[i].build(info, collations)
		if err != nil {
			return fmt.Errorf("column %s: %w", columns[i].column, err)
		}
		t.Columns = append(t.Columns, c)
		index[c.Name] = i
	}
	for i, nullable := range keys.hashes {
		t.Columns = append(t.Columns, Column{Name: hashColumn + strconv.Itoa(i+1), Type: BigInt, Unsigned: true, Nullable: nullable})
	}
	for _, k := range keys.primary {
		i, ok := index[k.column]
		if !ok {
			return fmt.Errorf("primary key: no column %s", k.column)
		}
		t.PrimaryKey = append(t.PrimaryKey, KeyPart{Column: i, Prefix: k.prefix})
	}
	return t.Validate()
}

// catalogueTypes are the names of types that are not their own word.
var catalogueTypes = map[string]Type{
	"point": Geometry, "linestring": Geometry, "polygon": Geometry, "multipoint": Geometry, "multilinestring": Geometry,
	"multipolygon": Geometry, "geometrycollection": Geometry, "geomcollection": Geometry,
	"uuid": Binary, "inet6": Binary, "inet4": Binary,
}

func (k *catalogueColumn) build(info server.Info, collations map[string]Collation) (Column, error) {
	c := Column{Name: k.column, Nullable: k.nullable == "YES"}
	word := strings.ToLower(k.dataType)
	var ok bool
	if c.Type, ok = typesByWord[word]; !ok {
		if c.Type, ok = catalogueTypes[word]; !ok {
			return c, fmt.Errorf("%w: type %s", ErrUnsupported, k.columnType)
		}
	}
	if c.Type == Vector && info.Flavor == server.MariaDB {
		c.Type = VarBinary // as which it travels
	}
	c.Unsigned = c.Type.IsNumeric() && strings.Contains(k.columnType, " unsigned")
	// MariaDB's table map does not tell which columns are invisible.
	c.Invisible = info.Flavor == server.MySQL && slices.Contains(strings.Fields(k.extra), "INVISIBLE")

	switch c.Type {
	case Char, VarChar, Binary, VarBinary:
		c.Length = int(k.octets.Int64)
		switch word {
		case "uuid", "inet6":
			c.Length = 16
		case "inet4":
			c.Length = 4
		}
	case Bit:
		c.Length = int(k.precision.Int64)
	case Decimal:
		c.Precision, c.Scale = int(k.precision.Int64), int(k.scale.Int64)
	case Time, DateTime, Timestamp:
		c.Scale = int(k.fraction.Int64)
	case Geometry:
		if c.Geometry = word; word == "geomcollection" {
			c.Geometry = "geometrycollection"
		}
	case Vector:
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(k.columnType, "vector("), ")"))
		if err != nil {
			return c, fmt.Errorf("%w: type %s", ErrUnsupported, k.columnType)
		}
		c.Length = n
	case Enum, Set:
		var err error
		if c.Members, err = parseMembers(k.columnType); err != nil {
			return c, err
		}
	}
	if c.Type.IsCharacter() || c.Type == Enum || c.Type == Set {
		c.Charset, c.Collation = "binary", "binary" // how MySQL lists an ENUM of charset binary
		if k.collation.Valid {
			known, ok := collations[k.collation.String]
			if !ok {
				return c, fmt.Errorf("%w: the server did not list collation %s", ErrUnsupported, k.collation.String)
			}
			c.Charset, c.Collation = known.Charset, known.Name
		}
	}
	return c, nil
}

// parseMembers reads the labels of "enum('a','b')" or "set(...)" as both servers
// write them whatever the sql_mode: quotes doubled, and backslash, NUL, newline
// and carriage return escaped with a backslash.
func parseMembers(columnType string) ([]string, error) {
	wrong := fmt.Errorf("labels of %.200q can't be read", columnType)
	_, s, ok := strings.Cut(columnType, "(")
	if !ok {
		return nil, wrong
	}
	var out []string
	for {
		if s == "" || s[0] != '\'' {
			return nil, wrong
		}
		s = s[1:]
		var label []byte
		for {
			if s == "" {
				return nil, wrong
			}
			c := s[0]
			s = s[1:]
			if c == '\'' {
				if !strings.HasPrefix(s, "'") {
					break
				}
				s = s[1:]
			} else if c == '\\' {
				if s == "" {
					return nil, wrong
				}
				switch c = s[0]; c {
				case '0':
					c = 0
				case 'n':
					c = '\n'
				case 'r':
					c = '\r'
				}
				s = s[1:]
			}
			label = append(label, c)
		}
		out = append(out, string(label))
		if strings.HasPrefix(s, ")") {
			return out, nil
		}
		if !strings.HasPrefix(s, ",") {
			return nil, wrong
		}
		s = s[1:]
	}
}
