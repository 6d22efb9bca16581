package schema

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// hashColumn and a number from 1 is the name of the hidden column in which
// MariaDB keeps the hash of a UNIQUE key that is too long for an index.
const hashColumn = "DB_ROW_HASH_"

// Hidden tells whether the column is one of MariaDB's hidden hash columns: it is
// in row images, behind all others, and no statement can name it.
func (c *Column) Hidden() bool {
	return strings.HasPrefix(c.Name, hashColumn) && c.Type == BigInt && c.Unsigned
}

// catalogueKeys is what a table's keys say about its row images.
type catalogueKeys struct {
	primary []catalogueKey
	hashes  []bool // one hidden hash column for each: may it be NULL
}

type catalogueKey struct {
	column string
	prefix int
}

// readKeys reads the keys of the tables that have columns. A table without a
// primary key has, for both servers and in their table maps, the first of its
// UNIQUE keys that covers whole columns which are NOT NULL. Which is the first
// only SHOW INDEX tells.
func readKeys(ctx context.Context, q server.Querier, info server.Info, name *Name, columns []catalogueColumn) (map[Name]catalogueKeys, error) {
	out, hashed, err := readPrimaryKeys(ctx, q, name)
	if err != nil {
		return nil, err
	}
	for i := range columns {
		n := columns[i].Name
		if i > 0 && columns[i-1].Name == n {
			continue
		}
		keys := out[n]
		// For a MEMORY table HASH is an index like others.
		long := hashed[n] && info.Flavor == server.MariaDB && columns[i].engine != "MEMORY"
		if len(keys.primary) > 0 && !long {
			continue
		}
		promoted, hashes, err := showKeys(ctx, q, n, long)
		if err != nil {
			return nil, fmt.Errorf("keys of %s: %w", n, err)
		}
		if len(keys.primary) == 0 {
			keys.primary = promoted
		}
		keys.hashes = hashes
		out[n] = keys
	}
	return out, nil
}

// readPrimaryKeys reads the parts of primary keys in their order, and which
// tables have a HASH key. A prefix is in characters, as the table map has it.
func readPrimaryKeys(ctx context.Context, q server.Querier, name *Name) (map[Name]catalogueKeys, map[Name]bool, error) {
	cond, args := where("s", name)
	rows, err := q.QueryContext(ctx, `SELECT s.table_schema, s.table_name, s.index_name, s.column_name, COALESCE(s.sub_part, 0)
		FROM information_schema.statistics s
		WHERE `+cond+` AND (s.index_name = 'PRIMARY' OR s.index_type = 'HASH')
		ORDER BY s.table_schema, s.table_name, s.index_name, s.seq_in_index`, args...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	primary, hashed := map[Name]catalogueKeys{}, map[Name]bool{}
	for rows.Next() {
		var n Name
		var index string
		var column sql.NullString
		var prefix int
		if err := rows.Scan(&n.Schema, &n.Table, &index, &column, &prefix); err != nil {
			return nil, nil, err
		}
		if index != "PRIMARY" {
			hashed[n] = true
			continue
		}
		k := primary[n]
		k.primary = append(k.primary, catalogueKey{column.String, prefix})
		primary[n] = k
	}
	return primary, hashed, rows.Err()
}

// shownKey is a key as SHOW INDEX has it.
type shownKey struct {
	name     string
	unique   bool
	hash     bool
	nullable bool // a part may be NULL
	partial  bool // a part is an expression or not a whole column
	parts    []catalogueKey
}

// showKeys finds the key that stands in for a primary key, nil for none, and
// with long which hidden hash columns there are.
func showKeys(ctx context.Context, q server.Querier, n Name, long bool) (promoted []catalogueKey, hashes []bool, err error) {
	keys, err := showIndex(ctx, q, n)
	if server.ErrorNumber(err) == 1146 { // dropped since: its columns will differ
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, k := range keys {
		if long && k.hash {
			hashes = append(hashes, k.nullable)
			continue
		}
		if promoted == nil && k.unique && !k.nullable && !k.partial {
			promoted = k.parts
		}
	}
	return promoted, hashes, nil
}

// showIndex lists keys in the order the server keeps them.
func showIndex(ctx context.Context, q server.Querier, n Name) ([]shownKey, error) {
	rows, err := q.QueryContext(ctx, "SHOW INDEX FROM "+server.QuoteName(n.Schema)+"."+server.QuoteName(n.Table))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	titles, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values, into := make([]sql.NullString, len(titles)), make([]any, len(titles))
	cell := map[string]*sql.NullString{}
	for i, title := range titles { // they differ by server and version
		into[i], cell[strings.ToLower(title)] = &values[i], &values[i]
	}
	for _, want := range []string{"non_unique", "key_name", "column_name", "sub_part", "null", "index_type"} {
		if cell[want] == nil {
			return nil, fmt.Errorf("SHOW INDEX has no column %s", want)
		}
	}
	var out []shownKey
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		if name := cell["key_name"].String; len(out) == 0 || out[len(out)-1].name != name {
			out = append(out, shownKey{name: name, unique: cell["non_unique"].String == "0", hash: cell["index_type"].String == "HASH"})
		}
		k := &out[len(out)-1]
		k.nullable = k.nullable || cell["null"].String != ""
		k.partial = k.partial || !cell["column_name"].Valid || cell["sub_part"].Valid
		k.parts = append(k.parts, catalogueKey{column: cell["column_name"].String})
	}
	return out, rows.Err()
}
