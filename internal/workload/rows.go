package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// rowTable is a table that gets random inserts, updates, key changes and deletes.
type rowTable struct {
	schema  string // "": Schema
	name    string
	columns []column
	// key are the columns that find a row. Without any, the table has a
	// column id BIGINT AUTO_INCREMENT PRIMARY KEY, unless noKey.
	key   []string
	noKey bool
	// extra definitions, such as PRIMARY KEY (…); options after the bracket.
	extra   []string
	options string
	// before and after are statements around the CREATE TABLE.
	before, after []string
	rows          int // to begin with, and the range of ids
}

func (t rowTable) quoted() string {
	s := t.schema
	if s == "" {
		s = Schema
	}
	return server.QuoteName(s) + "." + server.QuoteName(t.name)
}

func (t rowTable) hasID() bool { return len(t.key) == 0 && !t.noKey }

func (t rowTable) create(ctx context.Context, c *client) error {
	var defs []string
	if t.hasID() {
		defs = append(defs, "id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY")
	}
	for _, col := range t.columns {
		defs = append(defs, server.QuoteName(col.name)+" "+col.def)
	}
	defs = append(defs, t.extra...)
	statements := append([]string{}, t.before...)
	statements = append(statements, "CREATE TABLE "+t.quoted()+" ("+strings.Join(defs, ", ")+") "+t.options)
	statements = append(statements, t.after...)
	for _, q := range statements {
		if err := c.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// edges is the number of rows that show every edge value.
func (t rowTable) edges() int {
	n := 0
	for _, c := range t.columns {
		n = max(n, len(c.edges))
	}
	return n
}

func (t rowTable) written() []column {
	var w []column
	for _, c := range t.columns {
		if !c.hidden {
			w = append(w, c)
		}
	}
	return w
}

// insert makes the statement for row i: edge values first, then random ones.
func (t rowTable) insert(r *rand.Rand, i int) string {
	var names, values []string
	for _, c := range t.written() {
		names = append(names, server.QuoteName(c.name))
		if i >= 0 && i < len(c.edges) {
			values = append(values, c.edges[i])
		} else {
			values = append(values, c.value(r))
		}
	}
	return "INSERT INTO " + t.quoted() + " (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(values, ", ") + ")"
}

func (t rowTable) find(name string) column {
	for _, c := range t.columns {
		if c.name == name {
			return c
		}
	}
	panic("workload: table " + t.name + " has no column " + name)
}

// where finds about one row, or none.
func (t rowTable) where(r *rand.Rand) string {
	if t.hasID() {
		return " WHERE id = " + strconv.Itoa(1+r.IntN(t.rows*3/2+1))
	}
	cols := t.key
	if t.noKey {
		cols = []string{t.columns[0].name}
	}
	parts := make([]string, len(cols))
	for i, k := range cols {
		v := t.find(k).value(r)
		if v == "DEFAULT" {
			v = "NULL"
		}
		parts[i] = server.QuoteName(k) + " <=> " + v
	}
	w := " WHERE " + strings.Join(parts, " AND ")
	if t.noKey {
		w += " LIMIT " + strconv.Itoa(1+r.IntN(2))
	}
	return w
}

// operation is a random statement on the table.
func (t rowTable) operation(r *rand.Rand) string {
	switch n := r.IntN(20); {
	case n < 7:
		return t.insert(r, -1)
	case n < 8:
		return "REPLACE" + strings.TrimPrefix(t.insert(r, -1), "INSERT")
	case n < 15:
		return t.update(r)
	case n < 17:
		return t.moveKey(r)
	default:
		return "DELETE FROM " + t.quoted() + t.where(r)
	}
}

func (t rowTable) update(r *rand.Rand) string {
	cols := t.written()
	var sets []string
	for range 1 + r.IntN(3) {
		c := cols[r.IntN(len(cols))]
		sets = append(sets, server.QuoteName(c.name)+" = "+c.value(r))
	}
	return "UPDATE " + t.quoted() + " SET " + strings.Join(sets, ", ") + t.where(r)
}

// moveKey changes what identifies the row.
func (t rowTable) moveKey(r *rand.Rand) string {
	if t.hasID() {
		return fmt.Sprintf("UPDATE %s SET id = %d%s", t.quoted(), 1+r.IntN(t.rows*3/2+1), t.where(r))
	}
	k := t.columns[0].name
	if !t.noKey {
		k = t.key[r.IntN(len(t.key))]
	}
	return "UPDATE " + t.quoted() + " SET " + server.QuoteName(k) + " = " + t.find(k).value(r) + t.where(r)
}

func intColumn(name, attributes string, most int) column {
	return column{name: name, def: "INT " + attributes, edges: []string{"1"}, random: func(r *rand.Rand) string { return strconv.Itoa(r.IntN(most)) }}
}

func wordColumn(name, def string, words ...string) column {
	for i := range words {
		words[i] = textLiteral(words[i])
	}
	return column{name: name, def: def, edges: words}
}

// keyTables differ in what identifies a row.
func keyTables(info server.Info) []rowTable {
	// Equal for the collation, different as bytes.
	twins := []string{"a", "A", "á", "a ", "ss", "ß", "SS", "é", "e\u0301", "Z", "z", "", "订", "😀", "ﬁ", "fi"}
	long := []string{"prefix-1", "prefix-2", "preFIX-3", "prä", "pra", "x", "xyz-long-one", "xyz-long-two", "订单一", "订单二", ""}
	collation := "utf8mb4_unicode_ci"
	if info.Flavor == server.MySQL {
		collation = "utf8mb4_0900_ai_ci"
	}
	note := column{name: "note", def: "VARCHAR(60)", edges: []string{"'n'"}, random: func(r *rand.Rand) string { return textLiteral(randomText(r, "utf8mb4", r.IntN(40))) }}
	tables := []rowTable{
		{name: "key_composite", columns: []column{intColumn("a", "NOT NULL", 8), wordColumn("b", "VARCHAR(20) NOT NULL", "x", "y", "Y", "z "), intColumn("v", "", 1000), note},
			key: []string{"a", "b"}, extra: []string{"PRIMARY KEY (a, b)"}, rows: 20},
		{name: "key_collated", columns: []column{wordColumn("name", "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE "+collation+" NOT NULL", twins...), note},
			key: []string{"name"}, extra: []string{"PRIMARY KEY (name)"}, rows: 10},
		{name: "key_general_ci", columns: []column{wordColumn("name", "VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL", twins...), note},
			key: []string{"name"}, extra: []string{"PRIMARY KEY (name)"}, rows: 10},
		{name: "key_latin1", columns: []column{wordColumn("name", "CHAR(12) CHARACTER SET latin1 NOT NULL", "a", "A", "ä", "Ä", "ae", "x ", "x", "ß"), note},
			key: []string{"name"}, extra: []string{"PRIMARY KEY (name)"}, rows: 8},
		{name: "key_prefix", columns: []column{wordColumn("name", "VARCHAR(60) NOT NULL", long...), note},
			key: []string{"name"}, extra: []string{"PRIMARY KEY (name(3))"}, rows: 8},
		{name: "key_unique", columns: []column{intColumn("u", "NULL", 60), wordColumn("email", "VARCHAR(40) NULL", "a@x", "A@X", "b@x", "c@x"), note},
			extra: []string{"UNIQUE KEY (u)", "UNIQUE KEY (email, u)"}, rows: 40},
		{name: "key_unique_only", columns: []column{intColumn("u", "NOT NULL", 40), note}, key: []string{"u"}, extra: []string{"UNIQUE KEY uk (u)"}, rows: 20},
		{name: "key_binary", columns: []column{{name: "k", def: "BINARY(4) NOT NULL", edges: []string{"0x00", "0x61", "0x6100", "0x20", "0x6120", "0xffff0000"}}, note},
			key: []string{"k"}, extra: []string{"PRIMARY KEY (k)"}, rows: 6},
		{name: "key_decimal", columns: []column{{name: "k", def: "DECIMAL(12,3) NOT NULL", edges: []string{"0", "-0.001", "1.5", "999999999.999"}, random: func(r *rand.Rand) string { return randomDecimal(r, 5, 3, true) }}, note},
			key: []string{"k"}, extra: []string{"PRIMARY KEY (k)"}, rows: 10},
		{name: "key_temporal", columns: []column{{name: "d", def: "DATETIME(3) NOT NULL", edges: []string{"'2024-01-01 00:00:00'", "'2024-01-01 00:00:00.001'", "'0000-00-00 00:00:00'", "'9999-12-31 23:59:59.999'"}}, intColumn("n", "NOT NULL", 4), note},
			key: []string{"d", "n"}, extra: []string{"PRIMARY KEY (d, n)"}, rows: 10},
		{name: "key_double", columns: []column{{name: "k", def: "DOUBLE NOT NULL", edges: []string{"0", "-0e0", "0.1", "1e300"}}, note}, key: []string{"k"}, extra: []string{"PRIMARY KEY (k)"}, rows: 4},
		{name: "key_enum", columns: []column{{name: "e", def: "ENUM('p','q','r','订') NOT NULL", edges: []string{"'p'", "'q'", "'r'", "'订'"}}, intColumn("n", "UNSIGNED NOT NULL", 5), note},
			key: []string{"e", "n"}, extra: []string{"PRIMARY KEY (e, n)"}, rows: 10},
		{name: "key_none", noKey: true, columns: []column{intColumn("a", "NULL", 6), wordColumn("b", "VARCHAR(20) NULL", "x", "X", "", "ß"), {name: "f", def: "FLOAT", edges: []string{"0.1", "1.5"}}}, rows: 30},
		{name: "key_none_wide", noKey: true, columns: []column{intColumn("a", "NULL", 5), {name: "j", def: "JSON", edges: []string{"'{}'", "'[1, 2]'", "'{\"a\": 1.5}'"}},
			{name: "t", def: "TEXT", edges: []string{"'t'", "''"}}, {name: "bl", def: "BLOB", edges: []string{"0x00", "''", "0x6100"}}, {name: "ts", def: "TIMESTAMP(3) NULL", edges: []string{"'2024-01-01 00:00:00.5'"}}}, rows: 20},
		{name: "key_partitioned", columns: []column{intColumn("id", "NOT NULL", 300), note}, key: []string{"id"}, extra: []string{"PRIMARY KEY (id)"},
			options: "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100), PARTITION p1 VALUES LESS THAN (200), PARTITION p2 VALUES LESS THAN MAXVALUE)", rows: 40},
	}
	if info.Flavor == server.MySQL && info.AtLeast(8, 0) {
		tables = append(tables, rowTable{
			name: "key_gipk", noKey: true, columns: []column{intColumn("a", "NULL", 10), note}, rows: 20,
			before: []string{"SET SESSION sql_generate_invisible_primary_key = ON"}, after: []string{"SET SESSION sql_generate_invisible_primary_key = OFF"},
		}, rowTable{
			name: "key_functional", columns: []column{wordColumn("email", "VARCHAR(40)", "a@x", "A@X", "b@y", "B@y"), intColumn("n", "NOT NULL", 50)},
			extra: []string{"UNIQUE KEY ((LOWER(email)), n)"}, rows: 20,
		})
	}
	return tables
}

// oddTables have names that must be quoted, escaped and kept as they are.
func oddTables() []rowTable {
	names := []string{"a`b", "select", "with space", "订单", "a-b", `double"quote`, "single'quote", "dot.ted", "100", "UPPER", "$1", `back\slash`, "percent%s", "né"}
	columns := []string{"order", "group by", "b`ack", `q"uote`, "it's", "列", "x.y", "-", "@v", `s\l`, "%d", "Ümlaut"}
	tables := make([]rowTable, len(names))
	for i, n := range names {
		t := rowTable{schema: OddSchema, name: n, rows: 6}
		for j := range 4 {
			c := columns[(i+j*3)%len(columns)]
			if j%2 == 0 {
				t.columns = append(t.columns, intColumn(c, "", 100))
			} else {
				t.columns = append(t.columns, column{name: c, def: "VARCHAR(50)", edges: []string{"''", textLiteral(n)},
					random: func(r *rand.Rand) string { return textLiteral(randomText(r, "utf8mb4", r.IntN(20))) }})
			}
		}
		tables[i] = t
	}
	return tables
}
