package target

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// objects are what a statement is about.
type objects struct {
	tables  []schema.Name
	schema  string      // a database; empty: none
	other   schema.Name // a routine, trigger or event; zero: none
	storage bool        // general tablespaces
}

func objectsOf(st *ddl.Statement) objects {
	o := objects{tables: st.Tables}
	switch st.Class {
	case ddl.CreateDatabase, ddl.AlterDatabase, ddl.DropDatabase:
		o.schema = st.Object.Schema
	case ddl.Tablespace:
		o.storage = true
	default:
		o.other = st.Object
	}
	return o
}

// found is what exists of a statement's objects.
type found struct {
	digest string
	tables map[schema.Name]bool
	schema bool
	// blind: a table whose storage has no identity that could be seen, so
	// that emptying or swapping it leaves no trace.
	blind bool
}

var autoIncrement = regexp.MustCompile(` AUTO_INCREMENT=[0-9]+`)

// look describes the objects so that whatever a statement does to them changes
// the digest: definitions without the AUTO_INCREMENT counter, and the storage
// engine's own ids of tables and partitions, which tell TRUNCATE, EXCHANGE
// PARTITION and swapped names from nothing at all.
func look(ctx context.Context, q server.Querier, info server.Info, o objects) (found, error) {
	f := found{tables: map[schema.Name]bool{}}
	h := sha256.New()
	note := func(parts ...string) {
		for _, p := range parts {
			var n [8]byte
			binary.BigEndian.PutUint64(n[:], uint64(len(p)))
			h.Write(n[:])
			h.Write([]byte(p))
		}
	}
	for _, name := range o.tables {
		def, engine, err := definition(ctx, q, name)
		if err != nil {
			return f, fmt.Errorf("definition of %s: %w", name, err)
		}
		note("table", name.Schema, name.Table, autoIncrement.ReplaceAllString(def, ""))
		f.tables[name] = def != ""
		if def == "" || engine == "" {
			continue
		}
		ids, err := storageIDs(ctx, q, info, name)
		if err != nil {
			return f, fmt.Errorf("storage of %s: %w", name, err)
		}
		f.blind = f.blind || len(ids) == 0
		note(ids...)
	}
	if o.schema != "" {
		def, err := databaseDefinition(ctx, q, o.schema)
		if err != nil {
			return f, fmt.Errorf("definition of database %s: %w", o.schema, err)
		}
		f.schema = def != ""
		tables, err := firstColumn(ctx, q, "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? ORDER BY 1", o.schema)
		if err != nil {
			return f, err
		}
		note("database", def)
		note(tables...)
	}
	if o.other != (schema.Name{}) {
		lines, err := otherDefinitions(ctx, q, info, o.other)
		if err != nil {
			return f, fmt.Errorf("definition of %s: %w", o.other, err)
		}
		note("other")
		note(lines...)
	}
	if o.storage && info.Flavor == server.MySQL {
		lines, err := firstColumn(ctx, q, "SELECT CONCAT_WS(':', SPACE, NAME) FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'General' ORDER BY SPACE")
		if err != nil {
			return f, err
		}
		note("storage")
		note(lines...)
	}
	f.digest = hex.EncodeToString(h.Sum(nil))
	return f, nil
}

// definition is SHOW CREATE of a table, view or sequence; "" when there is none.
// engine is empty for views.
func definition(ctx context.Context, q server.Querier, n schema.Name) (def, engine string, err error) {
	var kind string
	var eng sql.NullString
	err = q.QueryRowContext(ctx, "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?", n.Schema, n.Table).Scan(&kind, &eng)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	verb := "SHOW CREATE TABLE "
	if strings.Contains(kind, "VIEW") {
		verb = "SHOW CREATE VIEW "
	}
	def, err = second(ctx, q, verb+server.QuoteName(n.Schema)+"."+server.QuoteName(n.Table))
	if code := server.ErrorNumber(err); code == 1146 || code == 1049 {
		return "", "", nil
	}
	return def, eng.String, err
}

func databaseDefinition(ctx context.Context, q server.Querier, name string) (string, error) {
	def, err := second(ctx, q, "SHOW CREATE DATABASE "+server.QuoteName(name))
	if server.ErrorNumber(err) == 1049 {
		return "", nil
	}
	return def, err
}

// second is the second column of a statement's first row.
func second(ctx context.Context, q server.Querier, query string) (string, error) {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return "", err
	}
	if !rows.Next() {
		return "", rows.Err()
	}
	raw, err := scanRaw(rows, len(cols))
	if err != nil {
		return "", err
	}
	return string(raw[1]), rows.Err()
}

func firstColumn(ctx context.Context, q server.Querier, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// storageIDs are InnoDB's ids of a table and its partitions, with their names;
// none for other engines. The account needs PROCESS.
func storageIDs(ctx context.Context, q server.Querier, info server.Info, n schema.Name) ([]string, error) {
	view := "INNODB_TABLES"
	if info.Flavor == server.MariaDB {
		view = "INNODB_SYS_TABLES"
	}
	ids, err := firstColumn(ctx, q, "SELECT CONCAT_WS(':', NAME, TABLE_ID) FROM information_schema."+view+" WHERE NAME REGEXP ?", fileNamePattern(n))
	slices.Sort(ids)
	return ids, err
}

// fileNamePattern is a regular expression for the name under which InnoDB knows
// a table and its partitions: that of its file. It may also match a table whose
// name differs in an accent or in case, which does no harm in a digest.
// Source: MySQL manual, "Mapping of Identifiers to File Names".
func fileNamePattern(n schema.Name) string {
	var b strings.Builder
	encode := func(s string) {
		for _, r := range s {
			switch {
			case r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
				b.WriteRune(r)
			case r < 0x80:
				fmt.Fprintf(&b, "@%04x", r)
			case r > 0xffff: // not allowed in names: stored as a question mark
				b.WriteString("@003f")
			default: // four hex digits, or two signs for letters with accents
				b.WriteString("@([0-9a-f]{4}|[0-9a-zA-Z]{2})")
			}
		}
	}
	b.WriteByte('^')
	encode(n.Schema)
	b.WriteByte('/')
	encode(n.Table)
	b.WriteString("(#[pP]#.*)?$")
	return b.String()
}

// otherDefinitions describes every routine, trigger and event of a name.
func otherDefinitions(ctx context.Context, q server.Querier, info server.Info, n schema.Name) ([]string, error) {
	var out []string
	for _, query := range []string{
		"SELECT CONCAT_WS('\\0', ROUTINE_TYPE, DTD_IDENTIFIER, ROUTINE_DEFINITION, IS_DETERMINISTIC, SQL_DATA_ACCESS, SECURITY_TYPE, SQL_MODE, ROUTINE_COMMENT, DEFINER, CREATED)" +
			" FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ? AND ROUTINE_NAME = ? ORDER BY ROUTINE_TYPE",
		"SELECT CONCAT_WS('\\0', ROUTINE_TYPE, ORDINAL_POSITION, PARAMETER_MODE, PARAMETER_NAME, DTD_IDENTIFIER)" +
			" FROM information_schema.PARAMETERS WHERE SPECIFIC_SCHEMA = ? AND SPECIFIC_NAME = ? ORDER BY ROUTINE_TYPE, ORDINAL_POSITION",
		"SELECT CONCAT_WS('\\0', EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, ACTION_STATEMENT, CREATED)" +
			" FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ? AND TRIGGER_NAME = ?",
		"SELECT CONCAT_WS('\\0', EVENT_DEFINITION, EVENT_TYPE, EXECUTE_AT, INTERVAL_VALUE, INTERVAL_FIELD, STARTS, ENDS, STATUS, CREATED, LAST_ALTERED)" +
			" FROM information_schema.EVENTS WHERE EVENT_SCHEMA = ? AND EVENT_NAME = ?",
	} {
		lines, err := firstColumn(ctx, q, query, n.Schema, n.Table)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprint(len(lines)))
		out = append(out, lines...)
	}
	return out, nil
}
