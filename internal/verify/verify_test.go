package verify

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// sides are two empty servers of a flavour, which the tests of this package share.
func sides(t *testing.T, f mysqltest.Flavor) (src, tgt *mysqltest.Server, cfg Config) {
	t.Helper()
	src, _ = mysqltest.Shared(t, f)
	tgt, _ = mysqltest.Shared(t, f, mysqltest.With("max_connections", "200"))
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "DROP DATABASE IF EXISTS v")
	}
	return src, tgt, Config{Source: open(t, src.Endpoint()), Target: open(t, tgt.Endpoint()), ChunkRows: 16}
}

func open(t *testing.T, e server.Endpoint) Side {
	t.Helper()
	s, err := Open(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.DB.Close() })
	return s
}

const everyType = `(id %s PRIMARY KEY, ti TINYINT, bu BIGINT UNSIGNED, de DECIMAL(65,30), fl FLOAT, dd DOUBLE, bi BIT(64), ye YEAR, da DATE, ti6 TIME(6),
 dt DATETIME(6), ts TIMESTAMP(6) NULL, ch CHAR(10), vl VARCHAR(50) CHARACTER SET latin1, gb TEXT CHARACTER SET gbk, u3 VARCHAR(10) CHARACTER SET utf32, bn BINARY(8),
 vb VARBINARY(20), bl LONGBLOB, en ENUM('a','','c'), se SET('x','y','z'), js JSON, ge GEOMETRY, gn INT GENERATED ALWAYS AS (ti+1) VIRTUAL)`

func everyRow(id string) string {
	return fmt.Sprintf("(%s,-128,18446744073709551615,-0.000000000000000000000000000001,1.17549e-38,-1.7976931348623157e308,b'1011',2155,'0000-00-00','-838:59:58.000001',"+
		"'9999-12-31 23:59:59.999999','1970-01-01 00:00:01.5','a ',_latin1 0xe4f6,_gbk 0xb6a9b5a5,_utf32 0x0001F600,0x0100,0x010000,REPEAT('x',70000),'',"+
		"'x,z','{\"a\": [1, 2.50, null]}',ST_GeomFromText('POINT(1 2)'))", id)
}

const everyColumn = "(id,ti,bu,de,fl,dd,bi,ye,da,ti6,dt,ts,ch,vl,gb,u3,bn,vb,bl,en,se,js,ge)"

func TestEveryTypeAndEveryKey(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			src, tgt, cfg := sides(t, f)
			keys := []struct{ typ, expr string }{
				{"INT", "%d"}, {"BIGINT UNSIGNED", "%d+18446744073709550000"}, {"DECIMAL(20,4)", "%d/7"}, {"FLOAT", "%d/7"}, {"DOUBLE", "%d/7"},
				{"VARCHAR(20) CHARACTER SET latin1", "CONCAT('k',%d)"}, {"VARCHAR(20) CHARACTER SET utf8mb4", "CONCAT('ß',%d)"}, {"VARBINARY(20)", "CONCAT(0x00ff,%d)"},
				{"CHAR(8) CHARACTER SET gbk", "CONCAT(_gbk 0xb6a9,%d)"}, {"DATETIME(3)", "'2020-01-01' + INTERVAL %d SECOND"}, {"DATE", "'2020-01-01' + INTERVAL %d DAY"},
				{"TIME", "SEC_TO_TIME(%d)"}, {"TIMESTAMP", "'2020-01-01' + INTERVAL %d SECOND"}, {"BIT(32)", "%d"}, {"YEAR", "1950+%d"},
			}
			for i, k := range keys {
				var vals []string
				for n := range 50 {
					vals = append(vals, everyRow(fmt.Sprintf(k.expr, n+1)))
				}
				for _, s := range []*mysqltest.Server{src, tgt} {
					s.Exec(t, "SET sql_mode=''", "CREATE DATABASE IF NOT EXISTS v", fmt.Sprintf("CREATE TABLE v.`t%d` "+everyType, i, k.typ),
						fmt.Sprintf("INSERT INTO v.`t%d` %s VALUES %s", i, everyColumn, strings.Join(vals, ",")))
				}
			}
			rep, err := Run(context.Background(), cfg)
			if err != nil || !rep.Equal() || rep.Rows != int64(50*len(keys)) {
				t.Fatalf("equal data: %v %+v", err, rep)
			}
			for i := range keys {
				tgt.Exec(t, fmt.Sprintf("SET @n = (SELECT COUNT(*) FROM v.`t%d`)", i))
				tgt.Exec(t, fmt.Sprintf("DELETE FROM v.`t%d` ORDER BY id LIMIT 1", i))
				src.Exec(t, fmt.Sprintf("DELETE FROM v.`t%d` ORDER BY id DESC LIMIT 1", i))
			}
			rep, err = Run(context.Background(), cfg)
			if err != nil || rep.Differences != int64(2*len(keys)) {
				t.Fatalf("one missing, one extra per table: %v %+v", err, rep)
			}
			for _, tr := range rep.Tables {
				if tr.Differences != 2 || len(tr.Listed) != 2 || tr.Listed[0].Kind == tr.Listed[1].Kind {
					t.Errorf("%+v", tr)
				}
			}
		})
	}
}

func TestEveryColumnsDifferenceIsSeen(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			src, tgt, cfg := sides(t, f)
			for _, s := range []*mysqltest.Server{src, tgt} {
				s.Exec(t, "SET sql_mode=''", "CREATE DATABASE v", "CREATE TABLE v.t "+fmt.Sprintf(everyType, "INT"))
				for n := 1; n <= 40; n++ {
					s.Exec(t, "SET sql_mode=''", "INSERT INTO v.t "+everyColumn+" VALUES "+everyRow(fmt.Sprint(n)))
				}
			}
			changes := []string{"ti=1", "bu=bu-1", "de=-de", "fl=1.17550e-38", "dd=1.7976931348623155e308", "bi=b'1'", "ye=0", "da='0000-01-00'", "ti6='-838:59:59'",
				"dt='9999-12-31 23:59:59.999998'", "ts=NULL", "ch='A'", "vl='ae'", "gb=''", "u3=''", "bn=0x02", "vb=0x0100", "bl=CONCAT(bl,'x')", "en=0", "se='x'",
				"js='{\"a\": [1, 2.5, null, 3]}'", "ge=ST_GeomFromText('POINT(1 2)', 4326)", "en='c'"}
			for i, c := range changes {
				tgt.Exec(t, "SET sql_mode=''", fmt.Sprintf("UPDATE v.t SET %s WHERE id=%d", c, i+1))
			}
			rep, err := Run(context.Background(), cfg)
			if err != nil || rep.Differences != int64(len(changes)) {
				found := map[string]bool{}
				for _, d := range rep.Tables[0].Listed {
					found[d.Key] = true
				}
				t.Fatalf("%v: %d of %d found: %v", err, rep.Differences, len(changes), found)
			}
		})
	}
}

func TestMultisets(t *testing.T) {
	src, tgt, cfg := sides(t, mysqltest.MariaDB1011)
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "CREATE DATABASE v", "CREATE TABLE v.n (a INT, b VARCHAR(10), UNIQUE KEY(a))", "INSERT INTO v.n VALUES (1,'x'),(NULL,'d'),(NULL,'d'),(NULL,NULL)",
			"CREATE TABLE v.d (a INT, b VARCHAR(10))", "INSERT INTO v.d VALUES (1,'x'),(1,'x'),(1,'x'),(2,NULL)")
	}
	rep, err := Run(context.Background(), cfg)
	if err != nil || !rep.Equal() || rep.Rows != 8 {
		t.Fatalf("%v %+v", err, rep)
	}
	tgt.Exec(t, "DELETE FROM v.d WHERE a=1 LIMIT 1", "UPDATE v.n SET b='D' WHERE b='d' LIMIT 1")
	rep, err = Run(context.Background(), cfg)
	if err != nil || rep.Differences != 3 {
		t.Fatalf("%v %+v", err, rep)
	}
}

func TestDefinitionsAndTables(t *testing.T) {
	src, tgt, cfg := sides(t, mysqltest.MariaDB1011)
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "CREATE DATABASE v", "CREATE TABLE v.same (a INT PRIMARY KEY)", "CREATE TABLE v.`o d``d` (`sel ect` INT PRIMARY KEY)", "CREATE VIEW v.w AS SELECT 1 AS x")
	}
	src.Exec(t, "CREATE TABLE v.left_only (a INT)", "ALTER TABLE v.same ADD b INT")
	tgt.Exec(t, "CREATE TABLE v.right_only (a INT)", "DROP VIEW v.w")
	for i, c := range []struct{ source, target string }{
		{"a INT, b INT", "b INT, a INT"}, {"a INT NOT NULL, PRIMARY KEY (a)", "a INT NOT NULL"}, {"a ENUM('x','y')", "a ENUM('x','Y')"},
		{"a INT", "a BIGINT"}, {"a INT", "a INT UNSIGNED"}, {"a INT", "a INT NOT NULL"}, {"a CHAR(3) COLLATE utf8mb4_bin", "a CHAR(3) COLLATE utf8mb4_general_ci"},
		{"a CHAR(3)", "a CHAR(4)"}, {"a DATETIME(3)", "a DATETIME"}, {"a INT, b INT", "a INT"}, {"a INT", "a INT, b INT"},
	} {
		src.Exec(t, fmt.Sprintf("CREATE TABLE v.d%d (%s) CHARACTER SET utf8mb4", i, c.source))
		tgt.Exec(t, fmt.Sprintf("CREATE TABLE v.d%d (%s) CHARACTER SET utf8mb4", i, c.target))
	}
	rep, err := Run(context.Background(), cfg)
	if err != nil || rep.Differences != 4+11 {
		t.Fatalf("%v %+v", err, rep)
	}
	for _, tr := range rep.Tables {
		if strings.HasPrefix(tr.Table, "v.d") && (len(tr.Listed) != 1 || tr.Listed[0].Kind != Definition) {
			t.Errorf("%+v", tr)
		}
	}
	cfg.Include = func(n schema.Name) bool { return strings.HasPrefix(n.Table, "o d") }
	if rep, err = Run(context.Background(), cfg); err != nil || !rep.Equal() {
		t.Fatalf("%v %+v", err, rep)
	}
}

// A row that is behind at first and arrives while the comparison settles is not
// a difference; one that never arrives is.
func TestWhatArrivesLateIsNoDifference(t *testing.T) {
	src, tgt, cfg := sides(t, mysqltest.MariaDB1011)
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "CREATE DATABASE v", "CREATE TABLE v.t (a INT PRIMARY KEY, b INT)", "INSERT INTO v.t VALUES (1,1),(2,2)")
	}
	src.Exec(t, "UPDATE v.t SET b=9 WHERE a=1", "INSERT INTO v.t VALUES (3,3),(4,4)")
	calls := 0
	cfg.Settle = func(context.Context) error {
		if calls++; calls == 3 {
			tgt.Exec(t, "UPDATE v.t SET b=9 WHERE a=1", "INSERT INTO v.t VALUES (3,3)")
		}
		return nil
	}
	rep, err := Run(context.Background(), cfg)
	if err != nil || rep.Differences != 1 || rep.Unsettled != 0 || rep.Tables[0].Listed[0].Kind != Missing {
		t.Fatalf("%v %+v", err, rep)
	}
	// A row that changes before every look can't be judged, and says so.
	src.Exec(t, "DELETE FROM v.t WHERE a=4")
	cfg.Attempts = 3
	cfg.Settle = func(context.Context) error { src.Exec(t, "UPDATE v.t SET b=b+1 WHERE a=1"); return nil }
	began := time.Now()
	if rep, err = Run(context.Background(), cfg); err != nil || rep.Differences != 0 || rep.Unsettled != 1 {
		t.Fatalf("%v %+v after %s", err, rep, time.Since(began))
	}
}

// A sequence is compared by where it stands.
func TestSequences(t *testing.T) {
	src, tgt, cfg := sides(t, mysqltest.MariaDB118)
	for _, s := range []*mysqltest.Server{src, tgt} {
		s.Exec(t, "CREATE DATABASE v", "CREATE SEQUENCE v.s NOCACHE", "SELECT NEXTVAL(v.s)")
	}
	if rep, err := Run(context.Background(), cfg); err != nil || !rep.Equal() || rep.Rows != 1 {
		t.Fatalf("%v %+v", err, rep)
	}
	src.Exec(t, "SELECT NEXTVAL(v.s)")
	if rep, err := Run(context.Background(), cfg); err != nil || rep.Differences != 2 {
		t.Fatalf("%v %+v", err, rep)
	}
}
