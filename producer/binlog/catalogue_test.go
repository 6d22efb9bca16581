package binlog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// catalogueMembers of an ENUM or SET: 'm1','m2',...
func catalogueMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",'m%d'", i+1)
	}
	return b.String()[1:]
}

type catalogueCase struct {
	name, only, columns, options string
	before                       string // a statement on the same session
	after                        string // an ALTER TABLE
}

var catalogueCases = []catalogueCase{
	{name: "numbers", columns: "a TINYINT, b TINYINT UNSIGNED NOT NULL, c SMALLINT, d SMALLINT UNSIGNED, e MEDIUMINT, f MEDIUMINT UNSIGNED, y YEAR, g INT, h INT UNSIGNED, i BIGINT, j BIGINT UNSIGNED, k BOOLEAN, z INT(7) UNSIGNED ZEROFILL NOT NULL, l FLOAT, m DOUBLE UNSIGNED, n FLOAT(7,3), o DOUBLE(15,4), p FLOAT UNSIGNED, q REAL, r SERIAL"},
	{name: "decimals", columns: "a DECIMAL(65,30), b DECIMAL(1,0), c DECIMAL(10,2) UNSIGNED, d DECIMAL, e NUMERIC(4,4), f DECIMAL(38,30), g FIXED(5,1)"},
	{name: "times", columns: "a DATE, b TIME, c TIME(3), d DATETIME, e DATETIME(6), f TIMESTAMP NULL, g TIMESTAMP(1) NULL, h YEAR(4)"},
	{name: "bits", columns: "a BIT, b BIT(7), c BIT(9), d BIT(64) NOT NULL"},
	{name: "text", columns: "a CHAR(0), b CHAR(255) CHARACTER SET utf8mb4, c CHAR(255) CHARACTER SET latin1, d CHAR CHARACTER SET utf8mb3, e VARCHAR(255) CHARACTER SET ascii, f VARCHAR(256) CHARACTER SET ascii, g VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, i VARCHAR(50) CHARACTER SET gbk, j VARCHAR(50) CHARACTER SET utf32, k CHAR(20) CHARACTER SET ucs2, l VARCHAR(20) CHARACTER SET sjis, m TINYTEXT, n TEXT CHARACTER SET latin1, o MEDIUMTEXT, p LONGTEXT CHARACTER SET utf16, q TEXT(20), r TEXT(100000) CHARACTER SET ascii, s CHAR(64) CHARACTER SET utf8mb4, t VARCHAR(9999) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_520_ci", options: "ROW_FORMAT=DYNAMIC"},
	{name: "binary", columns: "a BINARY(0), b BINARY(255), c BINARY NOT NULL, d VARBINARY(255), e VARBINARY(256), f TINYBLOB, g BLOB, h MEDIUMBLOB, i LONGBLOB, j CHAR(10) CHARACTER SET binary, k VARCHAR(10) CHARACTER SET binary, l TEXT CHARACTER SET binary, m BLOB(100000), n CHAR(9) BYTE"},
	{name: "labels", columns: "a ENUM('x','y') NOT NULL, b ENUM(" + catalogueMembers(300) + "), c SET('p','q'), d SET(" + catalogueMembers(64) + "), g ENUM('','a'), h ENUM('it''s','a\"b','ü','订单','a,b','x)','back\\\\slash','new\\nline','tab\\t','cr\\rx','end ') CHARACTER SET utf8mb4, i ENUM('é','ß') CHARACTER SET latin1, j SET('é','z') CHARACTER SET latin1 COLLATE latin1_bin, k ENUM('Ж','z') CHARACTER SET cp1251, m SET('é','日') CHARACTER SET ucs2, n ENUM('a') CHARACTER SET binary"},
	{name: "labels beyond the BMP", columns: "a ENUM('😀','b') CHARACTER SET utf8mb4, b SET('x😀') CHARACTER SET utf32"},
	{name: "json", columns: "a JSON, b JSON NOT NULL"},
	{name: "geometry", columns: "a GEOMETRY, b POINT NOT NULL, c LINESTRING, d POLYGON, e MULTIPOINT, f MULTILINESTRING, g MULTIPOLYGON, h GEOMETRYCOLLECTION, i VARCHAR(3)"},
	{name: "spatial reference", only: "mysql", columns: "a POINT SRID 4326 NOT NULL"},
	{name: "vector", only: "mysql", columns: "a VECTOR(3), b VECTOR, c VECTOR(16383)"},
	{name: "vector", only: "mariadb118", columns: "a VECTOR(3), b VECTOR(9000) NOT NULL"},
	{name: "own types", only: "mariadb", columns: "a UUID, b INET6 NOT NULL, c INET4"},
	{name: "uca1400", only: "mariadb", columns: "a VARCHAR(9) CHARACTER SET utf8mb4 COLLATE uca1400_ai_ci, b CHAR(3) CHARACTER SET ucs2 COLLATE uca1400_as_cs, c ENUM('x') CHARACTER SET utf8mb3 COLLATE uca1400_swedish_ai_ci, d TEXT COLLATE utf8mb4_uca1400_nopad_as_cs"},
	{name: "0900", only: "mysql", columns: "a VARCHAR(9) COLLATE utf8mb4_0900_as_cs, b ENUM('x') COLLATE utf8mb4_ja_0900_as_cs_ks, c CHAR(2) CHARACTER SET gb18030"},
	{name: "generated", columns: "a INT PRIMARY KEY, b INT GENERATED ALWAYS AS (a+1) STORED, c INT GENERATED ALWAYS AS (a*2) VIRTUAL, d VARCHAR(9) AS (CONCAT('x',a)) VIRTUAL, KEY (c)"},
	{name: "functional keys", only: "mysql", columns: "a INT, b VARCHAR(10), j JSON, KEY((a+1)), UNIQUE KEY((LOWER(b))), KEY((CAST(j->'$.x' AS UNSIGNED ARRAY)))"},
	{name: "hash keys", only: "mariadb", columns: "a INT, b LONGTEXT UNIQUE, c BLOB, UNIQUE(c)"},
	{name: "invisible", columns: "a INT, b INT INVISIBLE, c INT, d INT INVISIBLE, e INT INVISIBLE, f INT, g INT, h INT, i INT INVISIBLE"},
	{name: "key", columns: "a INT, b BIGINT NOT NULL PRIMARY KEY"},
	{name: "composite key in another order", columns: "a INT, b VARCHAR(10), c CHAR(5), PRIMARY KEY(c, a)"},
	{name: "key with prefixes", columns: "a VARCHAR(20) CHARACTER SET utf8mb4, b VARBINARY(40), c TEXT CHARACTER SET utf8mb3, d INT, e CHAR(9) CHARACTER SET gbk, f BLOB, PRIMARY KEY (d, c(10), a(7), b(9), e(2), f(3))"},
	{name: "prefix as long as the column", columns: "a VARCHAR(20) CHARACTER SET utf8mb4, b VARCHAR(20) CHARACTER SET ucs2, PRIMARY KEY (a(20), b(19))"},
	{name: "descending key", columns: "a INT, b INT, PRIMARY KEY (a DESC, b)"},
	{name: "unique key only", columns: "a INT NOT NULL, UNIQUE(a)"},
	{name: "unique keys, none usable", columns: "a INT NOT NULL, b INT, c VARCHAR(20) NOT NULL, d TEXT NOT NULL, UNIQUE(b), UNIQUE(a,b), UNIQUE(c(5)), UNIQUE(d(20)), KEY(a)"},
	{name: "unique keys, the first is nullable", columns: "a INT, b INT NOT NULL, c INT NOT NULL, UNIQUE z(a), UNIQUE y(c), UNIQUE x(b)"},
	{name: "unique keys of several columns", columns: "a INT, b INT NOT NULL, c INT NOT NULL, d VARCHAR(5) NOT NULL, KEY(a), UNIQUE z(c,a), UNIQUE y(d(5),c), UNIQUE x(b)"},
	{name: "unique keys added later", columns: "a INT, b INT NOT NULL, c INT NOT NULL, d VARCHAR(5) NOT NULL, UNIQUE z(a)", after: "ADD UNIQUE x(d), ADD UNIQUE a(c), ADD UNIQUE m(b)"},
	{name: "unique generated", columns: "a INT NOT NULL, b INT GENERATED ALWAYS AS (a+1) VIRTUAL, c INT GENERATED ALWAYS AS (a+2) STORED, UNIQUE(b), UNIQUE(c)"},
	{name: "unique generated not null", only: "mysql", columns: "a INT NOT NULL, b INT GENERATED ALWAYS AS (a+1) VIRTUAL NOT NULL, c INT GENERATED ALWAYS AS (a+2) STORED NOT NULL, UNIQUE(b), UNIQUE(c)"},
	{name: "unique functional", only: "mysql", columns: "a INT NOT NULL, b INT NOT NULL, UNIQUE((a+1)), UNIQUE((ABS(b)),a)"},
	{name: "unique functional and not", only: "mysql", columns: "a INT NOT NULL, b INT NOT NULL, UNIQUE((a+1)), UNIQUE(b)"},
	{name: "unique in bytes", columns: "a VARBINARY(20) NOT NULL, b BINARY(4) NOT NULL, UNIQUE(a(20)), UNIQUE(b)"},
	{name: "unique period", only: "mariadb", columns: "a INT NOT NULL, s DATE DEFAULT '2020-01-01', e DATE DEFAULT '2021-01-01', PERIOD FOR p(s,e), UNIQUE(a, p WITHOUT OVERLAPS)"},
	{name: "unique hash not null", only: "mariadb", columns: "a LONGTEXT NOT NULL, b INT NOT NULL, UNIQUE(a), UNIQUE(b)"},
	{name: "hash keys of all sorts", only: "mariadb", columns: "a INT NOT NULL, b VARCHAR(5000) CHARACTER SET utf8mb4, c TEXT, d BLOB NOT NULL, e INT, PRIMARY KEY(e), UNIQUE k1(a) USING HASH, UNIQUE(b), UNIQUE(c,a), UNIQUE(d)"},
	{name: "hash keys after a drop", only: "mariadb", columns: "a TEXT, b TEXT, c TEXT NOT NULL, UNIQUE(a), UNIQUE(b), UNIQUE(c)", after: "DROP KEY a, ADD d INT"},
	{name: "memory", columns: "a INT NOT NULL, b INT NOT NULL, UNIQUE(b) USING HASH, UNIQUE(a) USING BTREE", options: "ENGINE=MEMORY"},
	{name: "myisam unique", columns: "a INT NOT NULL, b INT, UNIQUE(b), UNIQUE(a)", options: "ENGINE=MyISAM"},
	{name: "generated key", only: "mysql", before: "SET sql_generate_invisible_primary_key=1", columns: "a INT, b TEXT"},
	{name: "odd names", columns: "`a``b` INT, `订 单` INT, `select` INT, `a\"b'` INT, `.` INT, PRIMARY KEY(`订 单`)"},
	{name: "partitions", columns: "a INT PRIMARY KEY, b TEXT", options: "PARTITION BY HASH(a) PARTITIONS 3"},
	{name: "period", only: "mariadb", columns: "a INT, s DATE DEFAULT '2020-01-01', e DATE DEFAULT '2021-01-01', PERIOD FOR p(s,e), UNIQUE(a, p WITHOUT OVERLAPS)"},
	{name: "myisam", columns: "a INT, b TEXT", options: "ENGINE=MyISAM"},
}

// Every table of every type: what the catalogue tells is what the binlog tells.
func TestCatalogueIsTheTableMap(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		ctx := context.Background()
		info, err := server.Detect(ctx, s.DB())
		if err != nil {
			t.Fatal(err)
		}
		cols := collationsOf(t, s)
		var statements []string
		var names []schema.Name
		for i, c := range catalogueCases {
			if c.only != "" && !strings.HasPrefix(string(s.Flavor), c.only) {
				continue
			}
			n := schema.Name{Schema: db, Table: fmt.Sprintf("%02d %s", i, c.name)}
			names = append(names, n)
			if c.before != "" {
				statements = append(statements, c.before)
			}
			q := server.QuoteName(n.Table)
			statements = append(statements, "CREATE TABLE "+q+" ("+c.columns+") "+c.options)
			if c.after != "" {
				statements = append(statements, "ALTER TABLE "+q+" "+c.after)
			}
			statements = append(statements, "INSERT IGNORE INTO "+q+" () VALUES ()")
			if c.name == "geometry" || c.name == "spatial reference" {
				statements[len(statements)-1] = "INSERT INTO " + q + " (" + map[string]string{"geometry": "b", "spatial reference": "a"}[c.name] +
					") VALUES (ST_GeomFromText('POINT(1 1)'" + map[string]string{"spatial reference": ", 4326"}[c.name] + "))"
			}
			if c.name == "json" {
				statements[len(statements)-1] = "INSERT INTO " + q + " VALUES (NULL, '1')"
			}
			if c.name == "vector" {
				statements[len(statements)-1] = "INSERT INTO " + q + " VALUES (NULL" + map[bool]string{true: ", REPEAT(x'0000803f', 9000))", false: ", NULL, NULL)"}[s.Flavor.IsMariaDB()]
			}
			if c.before != "" {
				statements = append(statements, "SET sql_generate_invisible_primary_key=0")
			}
		}
		maps := map[string]rowsEvent{}
		for _, e := range capture(t, s, db, append([]string{"SET NAMES utf8mb4", "SET sql_mode=''"}, statements...)...) {
			maps[string(e.table.Table)] = e
		}
		for _, n := range names {
			t.Run(n.Table, func(t *testing.T) {
				e, ok := maps[n.Table]
				if !ok {
					t.Fatal("no row was written")
				}
				want, err := TableFromMap(e.table, cols)
				if err != nil {
					t.Fatal(err)
				}
				got, err := schema.FromCatalogue(ctx, s.DB(), info, cols, n)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(n.Table, "beyond") {
					if schema.FingerprintOf(want) == schema.FingerprintOf(got) {
						t.Error("the catalogue knows the labels: AsCatalogued is not needed any more")
					}
					want = schema.AsCatalogued(want)
				} else if schema.AsCatalogued(want) != want {
					t.Error("AsCatalogued changed a table that the catalogue knows")
				}
				if d := cmp.Diff(want, got); d != "" || schema.FingerprintOf(want) != schema.FingerprintOf(got) {
					t.Errorf("-binlog +catalogue:\n%s", d)
				}
			})
		}
		all, err := schema.AllFromCatalogue(ctx, s.DB(), info, cols, func(n schema.Name) bool { return n.Schema != db })
		if err != nil || len(all) != len(names) {
			t.Errorf("%d of %d tables: %v", len(all), len(names), err)
		}
	})
}
