package binlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// TestFingerprintsAgree: a table read from the binlog has the fingerprint of the
// same table read from the catalogue, whatever its columns and keys.
func TestFingerprintsAgree(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		cols := collationsOf(t, s)
		info, err := server.Detect(context.Background(), s.DB())
		if err != nil {
			t.Fatal(err)
		}
		var definitions []string
		values := map[string]string{}
		for _, tc := range typeCases {
			if tc.only == "" || (tc.only == "mariadb") == s.Flavor.IsMariaDB() {
				d := "id INT PRIMARY KEY, " + strings.Join(tc.columns, ", ")
				definitions = append(definitions, d)
				if tc.rows != nil {
					values[d] = "(1," + tc.rows[0] + ")"
				}
			}
		}
		definitions = append(definitions,
			"a INT, b INT NOT NULL, UNIQUE (b)", "a INT, UNIQUE (a)", "a VARCHAR(20) NOT NULL, b INT NOT NULL, UNIQUE (a(5)), UNIQUE (b)",
			"a VARCHAR(20) CHARACTER SET utf8mb4, b VARBINARY(40), c TEXT CHARACTER SET utf8mb3, d INT, PRIMARY KEY (d, c(10), a(7), b(9))",
			"a INT INVISIBLE, b INT", "`a``b` INT, `订 单` INT, `a\"b'` INT", "e ENUM('a''b','c\\\\d','\\n\\r\\t','\"','ü') CHARACTER SET utf8mb4, s SET('x y','z''')",
			"a CHAR(3) CHARACTER SET binary, b TEXT CHARACTER SET binary, c ENUM('x') CHARACTER SET binary, d LONGTEXT CHARACTER SET latin1",
			"a INT(5) ZEROFILL, b DECIMAL(6,2) UNSIGNED ZEROFILL, c REAL, d DEC, e SERIAL, f BOOL, g NCHAR(3), h NVARCHAR(5), i LONG, j LONG VARBINARY",
		)
		if s.Flavor.IsMariaDB() {
			definitions = append(definitions, "a UUID, b INET6, c INET4", "a TEXT, UNIQUE (a)", "a TEXT NOT NULL, b INT, UNIQUE (a, b), UNIQUE (b)", "a JSON, b VARCHAR(10) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin")
		} else {
			definitions = append(definitions, "a INT, INDEX i ((a + 1))", "j JSON, INDEX z ((CAST(j->'$.a' AS UNSIGNED ARRAY)))", "a INT, UNIQUE ((a * 2))")
		}
		// And random mixtures of all column types: the metadata counts columns
		// by kind, so what stands beside what matters.
		var pool []string
		for _, tc := range typeCases {
			if tc.only != "" && (tc.only == "mariadb") != s.Flavor.IsMariaDB() {
				continue
			}
			for _, c := range tc.columns {
				if _, typ, _ := strings.Cut(c, " "); !strings.Contains(typ, "NOT NULL") && !strings.Contains(typ, "GENERATED") {
					pool = append(pool, typ)
				}
			}
		}
		r := rand.New(rand.NewPCG(seed, 3))
		for range 25 {
			var mix []string
			size := 0
			for i := range 1 + r.IntN(30) {
				typ := pool[r.IntN(len(pool))]
				if size += 1 + strings.Count(typ, "CHAR("); size > 12 && strings.Contains(typ, "CHAR(") {
					continue // rows have a size limit
				}
				mix = append(mix, fmt.Sprintf("c%d %s", i, typ))
			}
			definitions = append(definitions, strings.Join(mix, ", "))
		}
		statements := []string{"SET sql_mode='" + looseMode + "'"}
		for i, definition := range definitions {
			insert := fmt.Sprintf("INSERT IGNORE INTO f%d VALUES %s", i, values[definition])
			if values[definition] == "" {
				insert = fmt.Sprintf("INSERT IGNORE INTO f%d () VALUES ()", i)
			}
			statements = append(statements, fmt.Sprintf("CREATE TABLE f%d (%s)", i, definition), insert)
		}
		events := map[string]rowsEvent{}
		for _, e := range capture(t, s, db, statements...) {
			events[string(e.table.Table)] = e
		}
		for i, definition := range definitions {
			name := fmt.Sprintf("f%d", i)
			event, ok := events[name]
			if !ok {
				t.Errorf("%s: no event", definition)
				continue
			}
			fromMap, err := TableFromMap(event.table, cols)
			if err != nil {
				t.Errorf("%s: %v", definition, err)
				continue
			}
			catalogued, err := schema.FromCatalogue(context.Background(), s.DB(), info, cols, schema.Name{Schema: db, Table: name})
			if err != nil {
				t.Errorf("%s: %v", definition, err)
				continue
			}
			if schema.FingerprintOf(schema.AsCatalogued(fromMap)) != schema.FingerprintOf(catalogued) {
				t.Errorf("%s (-catalogue +binlog):\n%s", definition, cmp.Diff(catalogued, fromMap))
			}
			if err := Matches(event.table, catalogued); err != nil {
				t.Errorf("%s: %v", definition, err)
			}
		}
	})
}

// TestMariaDBTypes: UUID and the INETs travel as their bytes in network order,
// which is also what the server takes as a binary string.
func TestMariaDBTypes(t *testing.T) {
	for _, flavor := range []mysqltest.Flavor{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		s, db := mysqltest.Shared(t, flavor)
		table, got := decodeAll(t, collationsOf(t, s), capture(t, s, db, "CREATE TABLE u (a UUID, b INET6, c INET4, d UUID)",
			"INSERT INTO u VALUES ('123e4567-e89b-12d3-a456-426655440000','2001:db8::','1.2.3.0','123e4567-e89b-72d3-a456-426655440000')"))
		want := "x123E4567E89B12D3A456426655440000|x20010DB8000000000000000000000000|x01020300|x123E4567E89B72D3A456426655440000"
		if g := textsOf(table, got[change.Insert][0].after); g != want {
			t.Errorf("%s: %s, want %s", flavor, g, want)
		}
		s.Exec(t, "TRUNCATE "+db+".u", "INSERT INTO "+db+".u (a, b, c) VALUES (x'123E4567E89B12D3A456426655440000', x'20010DB8000000000000000000000000', x'01020300')")
		if g := strings.Join(s.Query(t, "SELECT a, b, c FROM "+db+".u")[0], " "); g != "123e4567-e89b-12d3-a456-426655440000 2001:db8:: 1.2.3.0" {
			t.Errorf("%s: %s", flavor, g)
		}
	}
}
