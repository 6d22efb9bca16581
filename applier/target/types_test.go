package target

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

// column definitions and the values that are hardest on each, in SQL.
type typeCase struct {
	name   string
	flavor server.Flavor // empty: both
	from   [2]int        // first version, zero: any
	column string
	values []string
	sql    bool // rows of such a table go as SQL, not as row events
}

var typeCases = []typeCase{
	{name: "tinyint", column: "TINYINT", values: []string{"-128", "127", "0"}},
	{name: "tinyint unsigned", column: "TINYINT UNSIGNED", values: []string{"255"}},
	{name: "smallint", column: "SMALLINT", values: []string{"-32768", "32767"}},
	{name: "smallint unsigned", column: "SMALLINT UNSIGNED", values: []string{"65535"}},
	{name: "mediumint", column: "MEDIUMINT", values: []string{"-8388608", "8388607"}},
	{name: "mediumint unsigned", column: "MEDIUMINT UNSIGNED ZEROFILL", values: []string{"16777215"}},
	{name: "int", column: "INT", values: []string{"-2147483648", "2147483647"}},
	{name: "int unsigned", column: "INT UNSIGNED", values: []string{"4294967295"}},
	{name: "bigint", column: "BIGINT", values: []string{"-9223372036854775808", "9223372036854775807"}},
	{name: "bigint unsigned", column: "BIGINT UNSIGNED", values: []string{"18446744073709551615", "0"}},
	{name: "decimal", column: "DECIMAL(65,30)", values: []string{"99999999999999999999999999999999999.999999999999999999999999999999", "-0.000000000000000000000000000001", "0"}},
	{name: "decimal unsigned", column: "DECIMAL(5,0) UNSIGNED", values: []string{"99999"}},
	{name: "float", column: "FLOAT", values: []string{"3.4028234663852886e+38", "1.401298464324817e-45", "1.1754943508222875e-38", "0.1", "-16777217", "0"}},
	{name: "float rounded", column: "FLOAT(7,3)", values: []string{"1234.567", "-0.001"}, sql: true},
	{name: "double", column: "DOUBLE", values: []string{"1.7976931348623157e308", "5e-324", "2.2250738585072011e-308", "0.1", "-1e-5", "123456789012345678"}},
	{name: "double rounded", column: "DOUBLE(10,2)", values: []string{"12345678.91"}, sql: true},
	{name: "negative zero", flavor: server.MySQL, column: "DOUBLE", values: []string{"-0e0", "0e0"}},
	{name: "negative zero float", flavor: server.MySQL, column: "FLOAT", values: []string{"-0e0"}},
	{name: "bit 1", column: "BIT(1)", values: []string{"b'1'", "b'0'"}},
	{name: "bit 64", column: "BIT(64)", values: []string{"b'1111111111111111111111111111111111111111111111111111111111111111'", "39"}},
	{name: "bit 12", column: "BIT(12)", values: []string{"2087"}},
	{name: "year", column: "YEAR", values: []string{"0", "1901", "2155", "2000"}},
	{name: "date", column: "DATE", values: []string{"'0000-00-00'", "'9999-12-31'", "'2020-02-31'", "'2020-00-10'"}},
	{name: "time", column: "TIME(6)", values: []string{"'-838:59:59.000000'", "'838:59:58.999999'", "'-00:00:00.000001'", "'00:00:00'"}},
	{name: "time 0", column: "TIME", values: []string{"'-01:00:00'", "'23:59:59'"}},
	{name: "time 3", column: "TIME(3)", values: []string{"'-01:00:00.100'"}},
	{name: "datetime", column: "DATETIME(6)", values: []string{"'0000-00-00 00:00:00'", "'9999-12-31 23:59:59.999999'", "'1000-01-01 00:00:00.000001'"}},
	{name: "datetime 0", column: "DATETIME", values: []string{"'2024-02-29 12:00:00'", "'0000-00-00 00:00:00'"}},
	{name: "timestamp", column: "TIMESTAMP(6) NULL", values: []string{"'0000-00-00 00:00:00'", "'1970-01-01 00:00:01.000000'", "'2038-01-19 03:14:07.999999'", "NULL"}},
	{name: "timestamp 0", column: "TIMESTAMP NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP", values: []string{"'2021-03-28 01:30:00'"}},
	{name: "timestamp far", flavor: server.MariaDB, from: [2]int{11, 8}, column: "TIMESTAMP NULL", values: []string{"'2100-01-01 00:00:00'"}},
	{name: "char", column: "CHAR(20)", values: []string{"'a'", "''", "'it''s \\\\ \"q\" `b`'", "'日本 🚲'", "x'000102'"}},
	{name: "varchar", column: "VARCHAR(50)", values: []string{"'trailing  '", "'\\0\\n\\r\\Z%_'", "_utf8mb4 x'F09F9AB2'", "'--'", "'/*'"}},
	{name: "varchar long", column: "VARCHAR(300)", values: []string{"REPEAT('é',300)"}},
	{name: "text", column: "TEXT", values: []string{"REPEAT('x',65535)", "'a; DROP TABLE x'"}},
	{name: "longtext", column: "LONGTEXT", values: []string{"REPEAT('日',100000)"}},
	{name: "latin1", column: "VARCHAR(50) CHARACTER SET latin1", values: []string{"_latin1 x'e4f6fc80ff81'", "'plain'"}},
	{name: "gbk", column: "VARCHAR(50) CHARACTER SET gbk", values: []string{"_gbk x'b0a1815c8140'", "'plain'"}},
	{name: "sjis", column: "VARCHAR(50) CHARACTER SET sjis", values: []string{"_sjis x'835c5c'"}},
	{name: "utf32", column: "VARCHAR(50) CHARACTER SET utf32", values: []string{"_utf32 x'0001F6B200000041'", "'plain'"}},
	{name: "utf16", column: "TEXT CHARACTER SET utf16", values: []string{"_utf16 x'41424344'"}},
	{name: "ucs2", column: "CHAR(9) CHARACTER SET ucs2", values: []string{"_ucs2 x'41424344'"}},
	{name: "utf8mb3", column: "VARCHAR(9) CHARACTER SET utf8mb3", values: []string{"'日本'"}},
	{name: "ascii", column: "VARCHAR(9) CHARACTER SET ascii", values: []string{"'ok'"}},
	{name: "big5", column: "CHAR(9) CHARACTER SET big5", values: []string{"_big5 x'a5c0'"}},
	{name: "gb18030", flavor: server.MySQL, column: "CHAR(9) CHARACTER SET gb18030", values: []string{"_gb18030 x'8130813041'"}},
	{name: "binary", column: "BINARY(5)", values: []string{"x'6100000000'", "x'0000000000'", "x'61'", "x'2020202020'", "x'ff27225c60'"}},
	{name: "varbinary", column: "VARBINARY(300)", values: []string{"x'6100'", "''", "x'275c'", "'plain'"}},
	{name: "blob", column: "BLOB", values: []string{"x'00ff00'", "'plain'", "''"}},
	{name: "longblob", column: "LONGBLOB", values: []string{"REPEAT(x'00ff', 100000)"}},
	{name: "enum", column: "ENUM('a','b','1','2','it''s','日本','')", values: []string{"'a'", "'1'", "'2'", "'it''s'", "'日本'", "7"}},
	{name: "enum beyond the basic plane", column: "ENUM('x🚲','y')", values: []string{"1", "2"}},
	{name: "enum many", column: "ENUM(" + labels(300) + ")", values: []string{"1", "255", "256", "300"}},
	{name: "enum gbk", column: "ENUM('啊','b') CHARACTER SET gbk", values: []string{"1", "2"}},
	{name: "set", column: "SET(" + labels(64) + ")", values: []string{"1", "18446744073709551615", "9223372036854775808", "0"}},
	{name: "geometry", column: "GEOMETRY", values: []string{
		"ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)", "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')",
		"ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)))')"}},
	{name: "point", column: "POINT", values: []string{"ST_GeomFromText('POINT(39 92)', 4326)"}},
	{name: "json", flavor: server.MySQL, column: "JSON", values: []string{`'{"b": [1, "x", null, true, {"c": 1.5}], "a": "日本\\n\\u0000"}'`, `'1'`, `'"text"'`, `'null'`, `'[]'`}},
	{name: "json text", flavor: server.MariaDB, column: "JSON", values: []string{`'{"b": 1,  "a":2}'`}},
	{name: "vector", flavor: server.MySQL, column: "VECTOR(4)", values: []string{"TO_VECTOR('[1,2.5,-3,0.1]')", "TO_VECTOR('[1]')"}},
	{name: "vector", flavor: server.MariaDB, from: [2]int{11, 8}, column: "VECTOR(2)", values: []string{"VEC_FromText('[1,-2.5]')", "x'2720272027202720'"}, sql: true},
	{name: "uuid", flavor: server.MariaDB, column: "UUID", values: []string{"'12345678-9abc-1def-8123-456789ab0000'", "'12345678-9abc-7def-8123-456789abcdef'", "'00000000-0000-0000-0000-000000000000'", "'61616161-6161-6161-6161-616161616161'"}, sql: true},
	{name: "inet6", flavor: server.MariaDB, column: "INET6", values: []string{"'::'", "'ffee::1'", "'::ffff:1.2.3.4'", "'6161:6161:6161:6161:6161:6161:6161:6161'"}, sql: true},
	{name: "inet4", flavor: server.MariaDB, column: "INET4", values: []string{"'0.0.0.0'", "'255.1.2.3'", "'97.97.97.97'"}, sql: true},
}

// moreTypeCases are those that a short run leaves out.
var moreTypeCases = []typeCase{
	{name: "zerofill", column: "INT(8) UNSIGNED ZEROFILL", values: []string{"42", "4294967295"}},
	{name: "decimal digits", column: "DECIMAL(65,0)", values: []string{"-99999999999999999999999999999999999999999999999999999999999999999", "1"}},
	{name: "decimal fraction", column: "DECIMAL(30,30)", values: []string{"0.999999999999999999999999999999", "-0.000000000000000000000000000001"}},
	{name: "decimal zerofill", column: "DECIMAL(18,9) ZEROFILL", values: []string{"123456789.987654321", "0.000000001"}},
	{name: "decimal odd", column: "DECIMAL(13,3)", values: []string{"-1000000000.001", "9999999999.999"}},
	{name: "decimal least", column: "DECIMAL(1,0)", values: []string{"-9", "0"}},
	{name: "bit 7", column: "BIT(7)", values: []string{"127"}},
	{name: "bit 8", column: "BIT(8)", values: []string{"255"}},
	{name: "bit 9", column: "BIT(9)", values: []string{"511"}},
	{name: "bit 63", column: "BIT(63)", values: []string{"9223372036854775807"}},
	{name: "time 1", column: "TIME(1)", values: []string{"'-838:59:59.0'", "'00:00:00.9'", "'-00:00:00.1'"}},
	{name: "time 2", column: "TIME(2)", values: []string{"'-12:34:56.99'", "'-00:00:00.01'"}},
	{name: "time 4", column: "TIME(4)", values: []string{"'-12:34:56.9999'", "'-00:00:00.0001'"}},
	{name: "time 5", column: "TIME(5)", values: []string{"'-12:34:56.99999'", "'838:59:58.99999'"}},
	{name: "datetime 1", column: "DATETIME(1)", values: []string{"'9999-12-31 23:59:59.9'", "'2020-00-00 00:00:00.1'"}},
	{name: "datetime 2", column: "DATETIME(2)", values: []string{"'9999-12-31 23:59:59.99'", "'0000-01-01 00:00:00'"}},
	{name: "datetime 3", column: "DATETIME(3)", values: []string{"'2021-02-31 23:59:59.999'"}},
	{name: "datetime 4", column: "DATETIME(4)", values: []string{"'1000-01-01 00:00:00.0001'"}},
	{name: "datetime 5", column: "DATETIME(5)", values: []string{"'1000-01-01 00:00:00.00001'"}},
	{name: "timestamp 1", column: "TIMESTAMP(1) NULL", values: []string{"'1970-01-01 00:00:01.9'"}},
	{name: "timestamp 3", column: "TIMESTAMP(3) NULL", values: []string{"'2038-01-19 03:14:07.999'", "'0000-00-00 00:00:00'"}},
	{name: "timestamp 4", column: "TIMESTAMP(4) NULL", values: []string{"'2001-09-09 01:46:40.0001'"}},
	{name: "timestamp 5", column: "TIMESTAMP(5) NULL", values: []string{"'2001-09-09 01:46:40.99999'"}},
	{name: "date parts", column: "DATE", values: []string{"'0000-01-01'", "'1000-00-31'", "'2023-02-29'"}},
	{name: "char of 255 bytes", column: "CHAR(255) CHARACTER SET latin1", values: []string{"REPEAT(_latin1 x'ff',255)", "' '", "'  a'"}},
	{name: "char of 256 bytes", column: "CHAR(64)", values: []string{"REPEAT('🚲',64)", "'a '"}},
	{name: "char of 1020 bytes", column: "CHAR(255)", values: []string{"REPEAT('🚲',255)"}},
	{name: "char utf16", column: "CHAR(30) CHARACTER SET utf16", values: []string{"_utf16 x'00200061D83DDEB2'", "''"}},
	{name: "char pad bytes", column: "BINARY(255)", values: []string{"REPEAT(x'00',255)", "REPEAT(x'20',3)", "CONCAT(REPEAT(x'00',254),x'01')"}},
	{name: "varchar of 252 bytes", column: "VARCHAR(63)", values: []string{"REPEAT('🚲',63)", "' '"}},
	{name: "varchar of 256 bytes", column: "VARCHAR(64)", values: []string{"REPEAT('🚲',64)", "''"}},
	{name: "varbinary of 255 bytes", column: "VARBINARY(255)", values: []string{"REPEAT(x'00',255)"}},
	{name: "varbinary of 256 bytes", column: "VARBINARY(256)", values: []string{"REPEAT(x'20',256)"}},
	{name: "varchar binary charset", column: "VARCHAR(9) CHARACTER SET binary", values: []string{"x'ff0020'"}},
	{name: "tinytext", column: "TINYTEXT", values: []string{"REPEAT('é',127)", "''"}},
	{name: "tinyblob", column: "TINYBLOB", values: []string{"REPEAT(x'ff',255)", "''"}},
	{name: "mediumtext", column: "MEDIUMTEXT", values: []string{"REPEAT('日',30000)"}},
	{name: "mediumblob", column: "MEDIUMBLOB", values: []string{"REPEAT(x'00',70000)"}},
	{name: "text latin1", column: "TEXT CHARACTER SET latin1", values: []string{"_latin1 x'80ff'"}},
	{name: "utf16le", column: "VARCHAR(9) CHARACTER SET utf16le", values: []string{"_utf16le x'3DD8B2DE'"}},
	{name: "cp1251", column: "VARCHAR(9) CHARACTER SET cp1251", values: []string{"_cp1251 x'c0ff'"}},
	{name: "koi8r", column: "CHAR(9) CHARACTER SET koi8r", values: []string{"_koi8r x'c0ff'"}},
	{name: "cp932", column: "VARCHAR(9) CHARACTER SET cp932", values: []string{"_cp932 x'835c'"}},
	{name: "ujis", column: "VARCHAR(9) CHARACTER SET ujis", values: []string{"_ujis x'8fb0a1a4a2'"}},
	{name: "euckr", column: "VARCHAR(9) CHARACTER SET euckr", values: []string{"_euckr x'b0a1'"}},
	{name: "gb2312", column: "VARCHAR(9) CHARACTER SET gb2312", values: []string{"_gb2312 x'b0a1'"}},
	{name: "enum of 255", column: "ENUM(" + labels(255) + ")", values: []string{"255"}},
	{name: "enum of 256", column: "ENUM(" + labels(256) + ")", values: []string{"255", "256"}},
	{name: "enum latin1", column: "ENUM('ä','b') CHARACTER SET latin1", values: []string{"1", "2"}},
	{name: "set of 8", column: "SET(" + labels(8) + ")", values: []string{"255", "0"}},
	{name: "set of 9", column: "SET(" + labels(9) + ")", values: []string{"511", "256"}},
	{name: "set of 24", column: "SET(" + labels(24) + ")", values: []string{"16777215"}},
	{name: "set of 33", column: "SET(" + labels(33) + ")", values: []string{"8589934591"}},
	{name: "set of 40", column: "SET(" + labels(40) + ")", values: []string{"1099511627775"}},
	{name: "polygon", column: "POLYGON", values: []string{"ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"}},
	{name: "multipoint", column: "MULTIPOINT", values: []string{"ST_GeomFromText('MULTIPOINT(0 0,1 1)')"}},
	{name: "point of one system", flavor: server.MySQL, column: "POINT SRID 4326", values: []string{"ST_GeomFromText('POINT(39 92)', 4326)"}},
	{name: "vector of 2000", flavor: server.MySQL, column: "VECTOR(2000)", values: []string{"REPEAT(x'0000803f', 2000)"}},
	{name: "varchar compressed", flavor: server.MariaDB, column: "VARCHAR(200) COMPRESSED", values: []string{"REPEAT('a',150)", "''", "'é'"}, sql: true},
	{name: "text compressed", flavor: server.MariaDB, column: "TEXT COMPRESSED", values: []string{"REPEAT('a',5000)", "'x'"}, sql: true},
	{name: "blob compressed", flavor: server.MariaDB, column: "LONGBLOB COMPRESSED", values: []string{"REPEAT(x'00',5000)", "''"}, sql: true},
}

// everyType is the cases that this server and run have.
func (b *bench) everyType() (cases []typeCase) {
	all := typeCases
	if !testing.Short() {
		all = slices.Concat(typeCases, moreTypeCases)
	}
	for _, c := range all {
		if (c.flavor == "" || c.flavor == b.info.Flavor) && b.info.AtLeast(c.from[0], c.from[1]) {
			cases = append(cases, c)
		}
	}
	return cases
}

func labels(n int) string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf("'m%d'", i+1)
	}
	return strings.Join(s, ",")
}

// TestTypesBitForBit writes each value with Apply and compares the row images
// that the server logs with those of the original INSERT. Several columns share a
// table to save time; where one differs, each goes alone.
func TestTypesBitForBit(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.exec("FLUSH BINARY LOGS")
		cases := b.everyType()
		slices.SortStableFunc(cases, func(a, b typeCase) int {
			switch {
			case a.sql == b.sql:
				return 0
			case a.sql:
				return 1
			}
			return -1
		})
		tables := 0
		for len(cases) > 0 {
			n := 1
			// One alone that goes as SQL, to see that it does.
			for n < min(10, len(cases)) && !cases[n].sql {
				n++
			}
			group := cases[:n]
			cases = cases[n:]
			tables++
			if b.roundTrip(fmt.Sprintf("g%d", tables), group) == "" {
				continue
			}
			for _, c := range group {
				tables++
				if failed := b.roundTrip(fmt.Sprintf("g%d", tables), []typeCase{c}); failed != "" {
					t.Errorf("%s: %s", c.name, failed)
				}
			}
		}
	})
}

// roundTrip answers with what is wrong.
func (b *bench) roundTrip(table string, cases []typeCase) string {
	b.t.Helper()
	var columns []string
	rows := 0
	for i, c := range cases {
		columns = append(columns, fmt.Sprintf("v%d %s", i, c.column))
		rows = max(rows, len(c.values))
	}
	src, keyed, bare, native := table+"s", table+"d", table+"n", table+"e"
	for n, key := range map[string]string{src: "id INT NOT NULL", keyed: "id INT PRIMARY KEY", bare: "id INT NOT NULL", native: "id INT PRIMARY KEY"} {
		b.exec(fmt.Sprintf("CREATE TABLE %s (%s, %s)", n, key, strings.Join(columns, ", ")))
	}
	for r := range rows + 1 { // the last is all NULL
		values := []string{fmt.Sprint(r)}
		for _, c := range cases {
			if r < len(c.values) {
				values = append(values, c.values[r])
			} else {
				values = append(values, "NULL")
			}
		}
		b.exec(fmt.Sprintf("INSERT INTO %s VALUES (%s)", src, strings.Join(values, ", ")))
	}
	defer func() { b.events = false }()
	want := b.loggedRows(src)
	images := b.images(b.plan(src, src), "FROM "+src+" ORDER BY id")
	for _, dst := range []string{keyed, bare, native} {
		p := b.plan(src, dst)
		b.events = dst == native
		if b.events && cases[0].sql == (p.events != nil) {
			return "row events: " + p.plain
		}
		var changes []change.Row
		for _, i := range images {
			changes = append(changes, p.insert(i...))
		}
		if out := b.mustApply(p, changes...); out.Inserted != rows+1 || out.Doubt() {
			return fmt.Sprintf("outcome %+v", out)
		}
		if got := b.loggedRows(dst); len(want) == 0 || !bytes.Equal(want, got) {
			return fmt.Sprintf("row images in %s differ\nsource %.400s\ntarget %.400s", dst, hex.EncodeToString(want), hex.EncodeToString(got))
		}
		// The same values as before images: each finds its own row.
		for step := range 2 {
			for _, i := range images {
				before, after := append([]change.Value(nil), i...), append([]change.Value(nil), i...)
				after[0] = change.IntegerOf(i[0].Integer() + 1000)
				if step == 0 {
					b.mustApply(p, p.update(before, after))
				} else {
					b.mustApply(p, p.remove(after...))
				}
			}
			left := map[int]string{0: fmt.Sprint(rows + 1), 1: "0"}[step]
			if got := b.rows("SELECT COUNT(*) FROM " + dst + " WHERE id >= 1000"); got[0] != left {
				return fmt.Sprintf("step %d: %s rows moved in %s, not %s", step, got[0], dst, left)
			}
		}
	}
	return ""
}

// TestTypesAsKeys finds rows by a primary key of each type that can be one.
func TestTypesAsKeys(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		for n, c := range b.everyType() {
			word := strings.ToUpper(strings.FieldsFunc(c.column, func(r rune) bool { return r == ' ' || r == '(' })[0])
			if strings.HasPrefix(c.name, "negative") || strings.Contains(c.column, "COMPRESSED") || strings.HasSuffix(word, "TEXT") || strings.HasSuffix(word, "BLOB") ||
				strings.Contains("JSON GEOMETRY POINT POLYGON MULTIPOINT VECTOR", word) || strings.HasPrefix(c.name, "char of 1020") {
				continue
			}
			table := fmt.Sprintf("k%d", n)
			column := strings.NewReplacer(" NULL DEFAULT NULL", "", " NULL", "").Replace(c.column)
			tables := []string{table}
			b.exec(fmt.Sprintf("CREATE TABLE %s (v %s NOT NULL, n INT, PRIMARY KEY (v))", table, column))
			if n%4 == 0 { // also in order, and as a part of a key
				tables = append(tables, table+"u")
				b.exec(fmt.Sprintf("CREATE TABLE %su (id INT NOT NULL, v %s NOT NULL, n INT, PRIMARY KEY (id, v), UNIQUE (v))", table, column))
			}
			for _, v := range c.values {
				if v != "NULL" {
					b.exec(fmt.Sprintf("INSERT INTO %s VALUES (%s, 0) ON DUPLICATE KEY UPDATE n = 0", table, v))
				}
			}
			if len(tables) > 1 {
				b.exec("INSERT INTO " + table + "u SELECT 0, v, n FROM " + table)
			}
			b.events = n%3 != 0 // the others in SQL
			for _, name := range tables {
				p := b.plan(name, name)
				images := b.images(p, "FROM "+name)
				rows := len(images)
				last := len(p.source.Columns) - 1
				for step := range 3 {
					var changes []change.Row
					for _, i := range images {
						after := append([]change.Value(nil), i...)
						after[last] = change.IntegerOf(int64(step + 1))
						before := append([]change.Value(nil), i...)
						before[last] = change.IntegerOf(int64(step))
						if step < 2 {
							changes = append(changes, p.update(before, after))
						} else {
							changes = append(changes, p.remove(before...))
						}
					}
					var out Outcome
					if step == 0 { // each by itself
						for _, ch := range changes {
							out.Add(b.mustApply(p, ch))
						}
					} else {
						out = b.mustApply(p, changes...)
					}
					if out.Doubt() {
						t.Errorf("%s: step %d: %+v", c.name, step, out)
					}
					want := []string{fmt.Sprintf("%d|%d", rows, step+1)}
					if step == 2 {
						want = []string{"0|NULL"}
					}
					if got := b.rows("SELECT COUNT(*), MIN(n) FROM " + name); got[0] != want[0] {
						t.Errorf("%s: step %d: %v, not %v", c.name, step, got, want)
					}
				}
			}
		}
	})
}
