package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// pair has two values that look alike or compare as equal, and are not the same.
type pair struct{ column, source, target string }

var pairs = map[string][]pair{
	"": {
		{"FLOAT", "0.1", "0.10000001"}, {"FLOAT", "16777216", "16777215"},
		{"DOUBLE", "0.1e0", "0.1e0+1e-17"}, {"DOUBLE", "5e-324", "0"}, {"DOUBLE(15,4)", "12345678901.2345", "12345678901.2346"},
		{"DECIMAL(65,30)", "0.000000000000000000000000000001", "0"}, {"CHAR(5)", "'a'", "'A'"}, {"CHAR(5)", "'e'", "'é'"},
		{"VARCHAR(5)", "'a'", "'a '"}, {"VARCHAR(5)", "''", "NULL"}, {"VARCHAR(5)", "'NULL'", "NULL"}, {"VARBINARY(5)", "x'00'", "x'0000'"},
		{"VARCHAR(5) CHARACTER SET gbk", "_gbk x'8140'", "_gbk x'8141'"}, {"VARCHAR(9) CHARACTER SET utf32", "'😀'", "'😁'"},
		{"ENUM('','a')", "''", "0"}, {"ENUM('a','A') COLLATE utf8mb4_bin", "'a'", "'A'"}, {"SET('x','y')", "'x'", "'x,y'"},
		{"BIT(9)", "b'100000000'", "b'0'"}, {"DATE", "'0000-00-00'", "NULL"}, {"DATETIME(6)", "'2020-01-01 00:00:00'", "'2020-01-01 00:00:00.000001'"},
		{"TIME(6)", "'-00:00:00.000001'", "'00:00:00.000001'"}, {"YEAR", "0", "2000"},
		{"BLOB", "REPEAT('x',9000)", "CONCAT(REPEAT('x',8999),'y')"}, {"BLOB", "REPEAT('x',4096)", "CONCAT(REPEAT('x',4095),'y')"},
		{"BLOB", "REPEAT('x',4097)", "CONCAT('#4097 bytes, SHA-256 ', SHA2(REPEAT('x',4097),256))"}, {"BLOB", "''", "NULL"},
		{"LONGTEXT", "REPEAT('é',90000)", "REPEAT('é',90001)"}, {"TEXT", "'a'", "'A'"},
		{"GEOMETRY", "ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POINT(1 2)',4326)"},
		{"INT(7) ZEROFILL", "7", "70"},
	},
	"mysql": {
		{"FLOAT", "0e0", "-0e0"}, {"DOUBLE", "0e0", "-0e0"}, // MariaDB 10.11 stores no negative zero
		{"JSON", "JSON_ARRAY(1.5)", "JSON_ARRAY(1.5e0)"}, {"JSON", "JSON_ARRAY(12345.67)", "JSON_ARRAY(12345.67e0)"},
		{"JSON", "JSON_OBJECT('a',JSON_ARRAY(CAST(5 AS UNSIGNED)))", "JSON_OBJECT('a',JSON_ARRAY(5))"},
		{"JSON", "JSON_ARRAY(CAST('2020-01-02' AS DATE))", "'[\"2020-01-02\"]'"}, {"JSON", "JSON_ARRAY(x'00')", "'[\"base64:type253:AA==\"]'"},
		{"JSON", "CAST(CAST(1.5 AS DECIMAL(3,1)) AS JSON)", "'1.5'"}, {"JSON", "'null'", "NULL"}, {"JSON", "'[]'", "'{}'"},
		{"JSON", "JSON_OBJECT('a',1,'b',JSON_ARRAY(2,3.5))", "JSON_OBJECT('a',1,'b',JSON_ARRAY(2,3.5e0))"},
		{"JSON", "JSON_OBJECT('k',REPEAT('x',9000),'n',1.5)", "JSON_OBJECT('k',REPEAT('x',9000),'n',1.5e0)"},
		{"VECTOR(3)", "x'000000000000000000000000'", "x'000000800000000000000000'"}, {"VECTOR(2000)", "REPEAT(x'0000803f',2000)", "REPEAT(x'0000803f',1999)"},
	},
	"mariadb": {
		{"UUID", "'123e4567-e89b-12d3-a456-426655440000'", "'123e4567-e89b-12d3-a456-426655440001'"}, {"INET6", "'::1'", "'::2'"},
		{"JSON", "'[1]'", "'[ 1]'"},
	},
	"mariadb118": {{"FLOAT", "0e0", "-0e0"}, {"DOUBLE", "0e0", "-0e0"}, {"VECTOR(3)", "x'000000000000000000000000'", "x'000000800000000000000000'"}},
}

// Values that differ in the smallest way are told apart, in tables with a key and
// without, and each equals itself.
func TestTheSmallestDifferences(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			src, tgt, cfg := sides(t, f)
			cfg.KeysMax = 1000
			var all []pair
			for prefix, some := range pairs {
				if strings.HasPrefix(string(f), prefix) {
					all = append(all, some...)
				}
			}
			for i, p := range all {
				for _, keyed := range []string{"id INT PRIMARY KEY", "id INT"} {
					table := fmt.Sprintf("v.t%03d%s", i, map[bool]string{true: "k", false: "m"}[strings.Contains(keyed, "PRIMARY")])
					create := []string{"SET sql_mode=''", "SET NAMES utf8mb4", "CREATE DATABASE IF NOT EXISTS v", "CREATE TABLE " + table + " (" + keyed + ", c " + p.column + ") CHARACTER SET utf8mb4"}
					src.Exec(t, append(create, "INSERT INTO "+table+" VALUES (1,"+p.source+"),(2,"+p.source+"),(3,"+p.target+")")...)
					tgt.Exec(t, append(create, "INSERT INTO "+table+" VALUES (1,"+p.source+"),(2,"+p.target+"),(3,"+p.target+")")...)
				}
			}
			rep, err := Run(context.Background(), cfg)
			if err != nil || len(rep.Tables) != 2*len(all) {
				t.Fatalf("%d tables: %v", len(rep.Tables), err)
			}
			for _, tr := range rep.Tables {
				var n int
				if _, err := fmt.Sscanf(tr.Table, "v.t%03d", &n); err != nil {
					t.Fatal(err)
				}
				want := int64(1)
				if strings.HasSuffix(tr.Table, "m") {
					want = 2 // one row is missing, another one extra
				}
				if tr.Differences != want || tr.Rows != 3 {
					t.Errorf("%+v: %+v", all[n], tr)
				}
				if d := tr.Listed; want == 1 && (len(d) != 1 || d[0].Kind != Different || d[0].Key != "id=2" ||
					len(d[0].Columns) != 1 || d[0].Columns[0].Name != "c") {
					t.Errorf("%+v: listed %+v", all[n], d)
				}
			}
		})
	}
}

// keys of all sorts, with what makes the n-th value.
var keyCases = []struct{ name, only, columns, key, into, values string }{
	{name: "composite", columns: "a INT, b VARCHAR(20), c BIGINT UNSIGNED", key: "PRIMARY KEY (a,b,c)", values: "n DIV 50, CONCAT('k', n MOD 7), 18446744073709551615 - n"},
	{name: "composite, not in order", columns: "a INT, b VARCHAR(20), c DATE", key: "PRIMARY KEY (c,a)", values: "n MOD 3, 'x', '2020-01-01' + INTERVAL n DIV 3 DAY"},
	{name: "unique", columns: "a INT NOT NULL, b INT", key: "UNIQUE (b), UNIQUE (a)", values: "n, NULL"},
	{name: "case", columns: "a VARCHAR(20) COLLATE utf8mb4_bin", key: "PRIMARY KEY (a)", values: "CONCAT(IF(n MOD 2, 'k', 'K'), n DIV 2)"},
	{name: "ci", columns: "a VARCHAR(20) COLLATE utf8mb4_unicode_520_ci", key: "PRIMARY KEY (a)", values: "CONCAT(IF(n MOD 2, 'É', 'f'), n)"},
	{name: "ucs2", columns: "a CHAR(9) CHARACTER SET ucs2", key: "PRIMARY KEY (a)", values: "CONCAT('é', n)"},
	{name: "sjis", columns: "a CHAR(9) CHARACTER SET sjis", key: "PRIMARY KEY (a)", values: "CONCAT('ア', n)"},
	{name: "float", columns: "a FLOAT, b DOUBLE", key: "PRIMARY KEY (a,b)", values: "(n DIV 4) / 7e0, n / 3e0"},
	{name: "bits", columns: "a BIT(40), b BIT(1)", key: "PRIMARY KEY (a,b)", values: "n DIV 2, n MOD 2"},
	{name: "times", columns: "a TIME(3), b TIMESTAMP(6), c YEAR, d DATETIME", key: "PRIMARY KEY (c,a,b,d)", values: "SEC_TO_TIME(n - 50.5), '2020-03-29 00:00:00.5' + INTERVAL n HOUR, 2000 + n MOD 2, '0000-00-00'"},
	{name: "decimal", columns: "a DECIMAL(40,20), b INT(9) ZEROFILL", key: "PRIMARY KEY (a,b)", values: "(n - 60) / 3, n"},
	{name: "binary", columns: "a VARBINARY(9), b BINARY(3)", key: "PRIMARY KEY (a,b)", values: "UNHEX(HEX(n DIV 2)), CHAR(n MOD 2)"},
	{name: "descending", columns: "a INT, b INT", key: "PRIMARY KEY (a DESC, b)", values: "n DIV 10, n"},
	{name: "enum", columns: "a ENUM('z','y'), b SET('p','q'), c INT", key: "PRIMARY KEY (a,b,c)", values: "1 + n MOD 2, n MOD 4, n"},
	{name: "prefix", columns: "a TEXT, b INT", key: "PRIMARY KEY (a(5))", values: "CONCAT(LPAD(n, 5, '0'), 'x'), n"},
	{name: "none", columns: "a INT, b TEXT", key: "KEY (a)", values: "n, NULL"},
	{name: "odd ` 'name'", columns: "`a``\"b` INT, `select` INT", key: "PRIMARY KEY (`a``\"b`)", values: "n, n"},
	{name: "uuid", only: "mariadb", columns: "a UUID, b INET6", key: "PRIMARY KEY (a,b)", values: "CONCAT(LPAD(HEX(n), 8, '0'), '-e89b-12d3-a456-426655440000'), CONCAT('::', HEX(n))"},
	{name: "hash", only: "mariadb", columns: "a TEXT NOT NULL", key: "UNIQUE (a)", values: "CONCAT('x', n)"},
	{name: "functional", only: "mysql", columns: "a INT NOT NULL, b INT", key: "UNIQUE ((a + 1))", values: "n, n"},
	{name: "generated", only: "mysql", columns: "a INT NOT NULL, b INT GENERATED ALWAYS AS (a * 2) VIRTUAL NOT NULL", key: "UNIQUE (b)", into: " (a)", values: "n"},
	{name: "invisible", columns: "a INT, b INT DEFAULT 3 INVISIBLE", key: "PRIMARY KEY (a)", values: "n"},
}

// A row in the first, a middle, and the last chunk is missing, extra, or other.
func TestEveryKindOfKey(t *testing.T) {
	const rows = 100
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			src, tgt, cfg := sides(t, f)
			cfg.KeysMax = 1000
			want := map[string]int{}
			for _, c := range keyCases {
				if c.only != "" && !strings.HasPrefix(string(f), c.only) {
					continue
				}
				q := "v.`" + strings.ReplaceAll(c.name, "`", "``") + "`"
				want["v."+c.name] = 6
				for side, s := range []*mysqltest.Server{src, tgt} {
					// 1, 50 and 100 on the source only; 0, 51 and 101 on the target only.
					left := map[int][]string{0: {"0", "51", "101"}, 1: {"1", "50", "100"}}[side]
					s.Exec(t, "SET sql_mode=''", "SET NAMES utf8mb4", "CREATE DATABASE IF NOT EXISTS v",
						"CREATE TABLE "+q+" ("+c.columns+", "+c.key+") CHARACTER SET utf8mb4",
						"INSERT INTO "+q+c.into+" SELECT "+c.values+" FROM (WITH RECURSIVE r AS (SELECT 0 n UNION ALL SELECT n+1 FROM r WHERE n < 101) SELECT n FROM r) r WHERE n NOT IN ("+strings.Join(left, ",")+")")
				}
			}
			rep, err := Run(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, tr := range rep.Tables {
				got[tr.Table] = int(tr.Differences)
				if tr.Rows != rows-1 || tr.Missing != 3 || tr.Extra != 3 || len(tr.Listed) != 6 {
					t.Errorf("%+v", tr)
				}
				if key := slices.Contains([]string{"v.enum", "v.prefix", "v.none", "v.hash", "v.functional"}, tr.Table); key != (tr.Method == "multiset") {
					t.Errorf("%s was compared by %s", tr.Table, tr.Method)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
