package target

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

// tableCase is a table whose attributes, not types, are what is hard. Its first
// column is id.
type tableCase struct {
	name   string
	flavor server.Flavor
	source string // columns, keys and options: all behind the table's name
	target string // empty: as the source
	rows   []string
	plain  string // part of why rows go as SQL; empty: as row events
	values bool   // the target has types of its own: compare values, texts byte by byte
	texts  []string
}

func manyColumns(n int) (columns string, rows []string) {
	var b strings.Builder
	b.WriteString("(id INT PRIMARY KEY")
	for i := range n - 1 {
		fmt.Fprintf(&b, ", c%d TINYINT", i)
	}
	for r := range 3 { // none, every third and all but every seventh NULL
		v := []string{fmt.Sprint(r)}
		for i := range n - 1 {
			if r == 1 && i%3 == 0 || r == 2 && i%7 > 0 {
				v = append(v, "NULL")
			} else {
				v = append(v, fmt.Sprint(i%256-128))
			}
		}
		rows = append(rows, strings.Join(v, ","))
	}
	return b.String() + ")", rows
}

func tableCases() []tableCase {
	cases := []tableCase{
		{name: "generated stored", source: "(id INT PRIMARY KEY, a INT, g INT AS (a * 2) STORED)", rows: []string{"1, 5, DEFAULT", "2, NULL, DEFAULT"}, plain: "computed"},
		{name: "generated virtual", source: "(id INT PRIMARY KEY, a INT, g INT AS (a * 2) VIRTUAL, KEY (g))", rows: []string{"1, 5, DEFAULT", "2, NULL, DEFAULT"}, plain: "computed"},
		{name: "default expression", source: "(id INT PRIMARY KEY, a VARCHAR(40) DEFAULT (UUID()), b TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3))",
			rows: []string{"1, DEFAULT, '2001-01-01 00:00:00.5'", "2, NULL, DEFAULT"}},
		{name: "functional key", flavor: server.MySQL, source: "(id INT PRIMARY KEY, a VARCHAR(10), UNIQUE ((LOWER(a))), KEY ((id * 2)))", rows: []string{"1, 'A'", "2, 'b'", "3, NULL"}},
		{name: "multi-valued key", flavor: server.MySQL, source: "(id INT PRIMARY KEY, j JSON, KEY ((CAST(j->'$.a' AS UNSIGNED ARRAY))))", rows: []string{`1, '{"a": [1,2,3]}'`, `2, '{"a": []}'`, "3, NULL"}},
		{name: "partitioned by range", source: "(id INT PRIMARY KEY, a INT) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)", rows: []string{"1, 1", "10, 2"}},
		{name: "partitioned by hash", source: "(id INT PRIMARY KEY, a INT) PARTITION BY HASH (id) PARTITIONS 4", rows: []string{"1, 1", "2, 2", "3, NULL"}},
		{name: "partitioned by key and list", source: "(id INT, a INT, PRIMARY KEY (id, a)) PARTITION BY LIST (a) SUBPARTITION BY KEY (id) SUBPARTITIONS 2 (PARTITION p0 VALUES IN (1), PARTITION p1 VALUES IN (2, 3))", rows: []string{"1, 1", "1, 3"}},
		{name: "compressed rows", source: "(id INT PRIMARY KEY, a LONGTEXT) ROW_FORMAT = COMPRESSED", rows: []string{"1, REPEAT('x', 50000)", "2, ''"}},
		{name: "redundant rows", source: "(id INT PRIMARY KEY, a CHAR(20), b LONGBLOB) ROW_FORMAT = REDUNDANT", rows: []string{"1, 'x', REPEAT(x'00', 20000)"}},
		{name: "full-text and spatial keys", source: "(id INT PRIMARY KEY, a TEXT, g POINT NOT NULL, FULLTEXT (a), SPATIAL KEY (g))", rows: []string{"1, 'some words', POINT(1, 2)", "2, NULL, POINT(-1, 0)"}},
		{name: "auto-increment zero", source: "(id INT AUTO_INCREMENT PRIMARY KEY, a INT)", rows: []string{"-5, 2", "0, 1"}},
		{name: "column order", source: "(id INT PRIMARY KEY, a INT, b VARCHAR(9), c ENUM('x', 'y'))", target: "(c ENUM('y', 'x'), b VARCHAR(9), id INT PRIMARY KEY, a INT)", rows: []string{"1, 2, 'b', 'x'", "2, NULL, NULL, 'y'"}, values: true, texts: []string{"b", "c"}},
		{name: "wider types", source: "(id INT PRIMARY KEY, a TINYINT, b INT UNSIGNED, c VARCHAR(9) CHARACTER SET ascii, d FLOAT, e DECIMAL(5,2), f TINYTEXT, g DATETIME(2), h CHAR(5), i SET('a','b'), j BIT(4), k TIME)",
			target: "(id BIGINT PRIMARY KEY, a MEDIUMINT, b BIGINT, c VARCHAR(300) CHARACTER SET utf8mb4, d DOUBLE, e DECIMAL(12,4), f LONGTEXT, g DATETIME(5), h VARCHAR(70), i SET('c','a','b'), j BIT(60), k TIME(4))",
			rows:   []string{"-1, -128, 4294967295, 'x', 0.1, -999.99, 'é', '2020-01-01 00:00:00.99', 'é', 'a,b', b'1001', '-838:59:59'", "2, 127, 0, '', -1e-30, 0, '', '0000-00-00', '', '', b'0', NULL"}, values: true, texts: []string{"c", "f", "h", "i"}},
		{name: "other charset", source: "(id INT PRIMARY KEY, a VARCHAR(9) CHARACTER SET latin1)", target: "(id INT PRIMARY KEY, a VARCHAR(9) CHARACTER SET utf8mb4)", rows: []string{"1, 'äöü'"}, plain: "only SQL converts", values: true, texts: []string{"a"}},
		{name: "column of the target alone", source: "(id INT PRIMARY KEY)", target: "(id INT PRIMARY KEY, a INT DEFAULT 7)", rows: []string{"1"}, plain: "not in the source", values: true},
		{name: "no key", source: "(id INT, a FLOAT)", rows: []string{"NULL, NULL", "1, 0.1", "1, 0.2"}, plain: "no PRIMARY key"},
		{name: "unique key alone", source: "(id INT NOT NULL UNIQUE, a INT)", rows: []string{"1, 1"}, plain: "no PRIMARY key"},
		{name: "prefix key", source: "(id VARCHAR(20), a INT, PRIMARY KEY (id(3)))", rows: []string{"'abcdef', 1", "'abd', 2"}, plain: "no PRIMARY key"},
		{name: "another engine", source: "(id INT PRIMARY KEY, a INT) ENGINE = MyISAM", rows: []string{"1, 1"}, plain: "no PRIMARY key"},
		{name: "spatial reference system", flavor: server.MySQL, source: "(id INT PRIMARY KEY, a POINT NOT NULL SRID 4326, SPATIAL KEY (a))", rows: []string{"1, ST_GeomFromText('POINT(39 92)', 4326)"}},
		{name: "invisible", flavor: server.MySQL, source: "(id INT PRIMARY KEY, a INT INVISIBLE DEFAULT 5)", rows: []string{"1, 6", "2, NULL"}, plain: "invisible"},
		{name: "invisible", flavor: server.MariaDB, source: "(id INT PRIMARY KEY, a INT INVISIBLE DEFAULT 5)", rows: []string{"1, 6", "2, NULL"}, plain: "invisible"},
	}
	for _, n := range []int{8, 9, 65, 251, 300, 1017} {
		columns, rows := manyColumns(n)
		cases = append(cases, tableCase{name: fmt.Sprintf("%d columns", n), source: columns, rows: rows})
	}
	return cases
}

// TestTablesBothWays writes the rows of each table in SQL and, where they may go
// so, as row events: inserted, every column updated to another row's values, and
// deleted. After each step source and both targets are equal by the bytes of
// every column as the server tells them, and by what it logs of the rows.
func TestTablesBothWays(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.exec("FLUSH BINARY LOGS")
		for n, c := range tableCases() {
			if c.flavor != "" && c.flavor != b.info.Flavor || testing.Short() && n%5 != 0 {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				outer := b.t
				b.t = t
				defer func() { b.t, b.events = outer, false }()
				src := fmt.Sprintf("w%ds", n)
				b.exec("CREATE TABLE " + src + " " + c.source)
				names := b.rows("SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '" + src + "' ORDER BY ORDINAL_POSITION")
				for _, r := range c.rows {
					b.exec("INSERT INTO " + src + " (" + strings.Join(names, ",") + ") VALUES (" + r + ")")
				}
				content := "SELECT "
				for i, name := range names {
					if i > 0 {
						content += ","
					}
					content += "HEX(CAST(" + name + " AS BINARY))"
				}
				want := b.rows(content + " FROM " + src + " ORDER BY 1")
				logged := b.loggedRows(src)
				for way, dst := range map[string]string{"SQL": src[:len(src)-1] + "q", "events": src[:len(src)-1] + "e"} {
					definition := c.target
					if definition == "" {
						definition = c.source
					}
					b.exec("CREATE TABLE " + dst + " " + definition)
					p := b.plan(src, dst)
					if (c.plain == "") != (p.events != nil) || !strings.Contains(p.plain, c.plain) {
						t.Fatalf("events %t: %q", p.events != nil, p.plain)
					}
					b.events = way == "events" && p.events != nil
					images := b.images(b.plan(src, src), "FROM "+src+" ORDER BY 1")
					var inserts, deletes []change.Row
					for _, i := range images {
						inserts = append(inserts, p.insert(i...))
						deletes = append(deletes, p.remove(i...))
					}
					if out := b.mustApply(p, inserts...); out.Doubt() {
						t.Errorf("%s: %+v", way, out)
					}
					if got := b.rows(content + " FROM " + dst + " ORDER BY 1"); !c.values && !slices.Equal(got, want) {
						t.Errorf("%s: rows\n%.600q\nnot\n%.600q", way, got, want)
					}
					equal := "SELECT COUNT(*) FROM " + src + " s JOIN " + dst + " d ON s.id = d.id"
					for _, name := range names {
						equal += fmt.Sprintf(" AND s.%s <=> d.%s", name, name)
					}
					for _, name := range c.texts {
						equal += fmt.Sprintf(" AND HEX(CONVERT(s.%s USING utf8mb4)) <=> HEX(CONVERT(d.%s USING utf8mb4))", name, name)
					}
					if c.values {
						b.want(equal, fmt.Sprint(len(c.rows)))
					} else if got := b.loggedRows(dst); len(logged) == 0 || string(got) != string(logged) {
						t.Errorf("%s: row images\n%.300x\nnot\n%.300x", way, got, logged)
					}
					// Around in a ring: every column of every row takes another's.
					for i := range images {
						after := slices.Clone(images[(i+1)%len(images)])
						for k, name := range names { // what names the row stays
							if name == "id" || len(p.others) > 0 || p.mode != modeMultiset && slices.Contains(p.Identity(), k) {
								after[k] = images[i][k]
							}
						}
						b.mustApply(p, p.update(images[i], after))
						b.mustApply(p, p.update(after, images[i]))
					}
					if c.values {
						b.want(equal, fmt.Sprint(len(c.rows)))
					} else if got := b.rows(content + " FROM " + dst + " ORDER BY 1"); !slices.Equal(got, want) {
						t.Errorf("%s: rows after updates\n%.600q\nnot\n%.600q", way, got, want)
					}
					b.mustApply(p, deletes...)
					b.want("SELECT COUNT(*) FROM "+dst, "0")
				}
			})
		}
	})
}

// TestOldTemporals: columns that MariaDB keeps in its format of 5.3 take the same
// values; rows go as SQL.
func TestOldTemporals(t *testing.T) {
	b := newBench(t, mysqltest.MariaDB1011)
	columns := " (id INT PRIMARY KEY, a TIME(3), b DATETIME(6), c TIMESTAMP(2) NULL, d TIMESTAMP NULL)"
	b.exec("CREATE TABLE s"+columns, "INSERT INTO s VALUES (1, '-838:59:58.999', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.99', '0000-00-00'), (2, '-00:00:00.001', '0000-00-00', NULL, '1970-01-01 00:00:01')",
		"SET GLOBAL mysql56_temporal_format = OFF", "CREATE TABLE d"+columns, "SET GLOBAL mysql56_temporal_format = ON")
	b.events = true
	p := b.plan("s", "d")
	if p.events != nil || !strings.Contains(p.plain, "5.3") {
		t.Errorf("%q", p.plain)
	}
	for _, i := range b.images(p, "FROM s") {
		b.mustApply(p, p.insert(i...))
	}
	content := "SELECT id, a, b, c, d FROM "
	b.want(content+"d ORDER BY id", b.rows(content+"s ORDER BY id")...)
}
