package ddl

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) { mysqltest.Main(m) }

// sample is one line of testdata/statements.txt.
type sample struct {
	line    int
	flavors string
	run     bool
	class   Class
	tables  []schema.Name
	changed []schema.Name
	sql     string
}

func samples(t testing.TB) []sample {
	t.Helper()
	b, err := os.ReadFile("testdata/statements.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []sample
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		part := strings.SplitN(line, "|", 4)
		if len(part) != 4 {
			t.Fatalf("line %d: %q", i+1, line)
		}
		class, norun := strings.CutPrefix(strings.TrimSpace(part[1]), "~")
		s := sample{line: i + 1, flavors: strings.TrimSpace(part[0]), run: !norun, class: Class(class)}
		for _, n := range strings.Split(part[2], ",") {
			if n = strings.TrimSpace(n); n == "" {
				continue
			}
			n, changed := strings.CutSuffix(n, "!")
			db, table, _ := strings.Cut(n, ".")
			s.tables = append(s.tables, schema.Name{Schema: db, Table: table})
			if changed {
				s.changed = append(s.changed, schema.Name{Schema: db, Table: table})
			}
		}
		s.sql = strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(strings.TrimPrefix(part[3], " "))
		out = append(out, s)
	}
	return out
}

func (s sample) on(f mysqltest.Flavor) bool {
	switch s.flavors {
	case "b":
		return true
	case "m":
		return !f.IsMariaDB()
	case "a":
		return f.IsMariaDB()
	case "a118":
		return f == mysqltest.MariaDB118
	}
	return false
}

func (s sample) dialects() []Dialect {
	maria := Dialect{Flavor: server.MariaDB, Version: 101106}
	mysql := Dialect{Flavor: server.MySQL, Version: 90704}
	switch s.flavors[0] {
	case 'm':
		return []Dialect{mysql}
	case 'a':
		return []Dialect{maria}
	}
	return []Dialect{mysql, maria, {Flavor: server.MySQL}, {Flavor: server.MariaDB}}
}

func TestClassify(t *testing.T) {
	all := samples(t)
	if len(all) < 200 {
		t.Errorf("%d statements", len(all))
	}
	for _, s := range all {
		for _, d := range s.dialects() {
			got, err := Classify(s.sql, "d", d)
			if err != nil {
				t.Errorf("line %d: %v", s.line, err)
				continue
			}
			if got.Class != s.class {
				t.Errorf("line %d: %s, want %s: %s", s.line, got.Class, s.class, s.sql)
			}
			if diff := cmp.Diff(s.tables, got.Tables); diff != "" {
				t.Errorf("line %d: %s: tables (-want +got):\n%s", s.line, s.sql, diff)
			}
			if diff := cmp.Diff(s.changed, got.Changed); diff != "" && len(s.changed)+len(got.Changed) > 0 {
				t.Errorf("line %d: %s: changed (-want +got):\n%s", s.line, s.sql, diff)
			}
		}
	}
}

// TestServersAcceptTheStatements runs the statements, so that none of them is
// make-believe, and classifies what the server wrote to its binlog for them.
func TestServersAcceptTheStatements(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s := mysqltest.Start(t, f, mysqltest.With("log_bin_trust_function_creators", "ON"))
			ctx := context.Background()
			c, err := s.DB().Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			exec := func(q string) error { _, err := c.ExecContext(ctx, q); return err }
			for _, q := range []string{"CREATE DATABASE d", "CREATE DATABASE e", "USE d", "SET default_storage_engine=InnoDB", "CREATE TABLE q (id INT)"} {
				if err := exec(q); err != nil {
					t.Fatal(err)
				}
			}
			var ran int
			for _, x := range samples(t) {
				if !x.run || !x.on(f) || strings.Contains(x.sql, "_not_run") || x.class == Empty {
					continue
				}
				if err := exec(x.sql); err != nil {
					t.Errorf("line %d: %s: %v", x.line, x.sql, err)
				}
				ran++
			}
			d := Dialect{Flavor: f.Server()}
			var classes []string
			for _, file := range s.Query(t, "SHOW BINARY LOGS") {
				for _, e := range s.Query(t, "SHOW BINLOG EVENTS IN '"+file[0]+"'") {
					if e[2] != "Query" {
						continue
					}
					text := e[5]
					if strings.HasPrefix(text, "use `") {
						_, text, _ = strings.Cut(text, "; ")
					}
					got, err := Classify(text, "d", d)
					if err != nil {
						t.Errorf("from the binlog: %v", err)
						continue
					}
					if got.Class == DML || got.Class == Admin || got.Class == Empty {
						t.Errorf("from the binlog: %s: %s", got.Class, text)
					}
					if !slices.Contains(classes, string(got.Class)) {
						classes = append(classes, string(got.Class))
					}
				}
			}
			t.Logf("%d statements; classes in the binlog: %v", ran, classes)
		})
	}
}

func TestUnclassified(t *testing.T) {
	for _, q := range []string{
		"FOO BAR", "CREATE", "CREATE TABLE", "CREATE TABLE `t", "CREATE TABLE t (a INT", "CREATE TABLE t (a INT))", "CREATE TABLE t (a INT); DROP TABLE u",
		"DROP TABLE t, ", "DROP TABLE t u", "DROP", "ALTER", "ALTER x", "RENAME TABLE a", "RENAME TABLE a TO", "RENAME a TO b", "'x'", "/* open", "/*! open",
		"CREATE UNIQUE TABLE t (a INT)", "CREATE VIEW v", "BEGIN NOT ATOMIC SELECT 1; END", "1", "CREATE MATERIALIZED VIEW v AS SELECT 1", "ANALYZE", "DELETE t",
		"ALTER TABLE t EXCHANGE PARTITION p", "ALTER TABLE t RENAME", "CREATE TABLE \xff (a INT)", "OPTIMIZE t", "TRUNCATE", "CREATE DEFINER x VIEW",
		"CREATE TABLE t UNION", "CREATE VIEW v AS WITH x SELECT 1 FROM a UNION (SELECT 1", strings.Repeat("(", 20000) + "SELECT 1" + strings.Repeat(")", 20000),
	} {
		if got, err := Classify(q, "d", Dialect{Flavor: server.MySQL}); !errors.Is(err, ErrUnclassified) {
			if !strings.HasPrefix(q, "ANALYZE") && !strings.Contains(q, "WITH x SELECT") {
				t.Errorf("%.60q: %+v, %v", q, got, err)
			}
		}
	}
}

func TestSQLModes(t *testing.T) {
	ansi := Dialect{Flavor: server.MySQL, SQLMode: modeANSIQuotes}
	plain := Dialect{Flavor: server.MySQL}
	noEscapes := Dialect{Flavor: server.MySQL, SQLMode: modeNoBackslashEscapes}
	for _, tc := range []struct {
		name, sql, want string
		d               Dialect
	}{
		{"quotes as names", `CREATE TABLE "a""b"."c.d" ("x" INT)`, `a"b.c.d`, ansi},
		{"quotes as text", `DROP TABLE t /* " */`, "d.t", plain},
		{"escaped quote", `CREATE TABLE t (a CHAR(9) DEFAULT 'x\'', b INT COMMENT ', REFERENCES u (a)')`, "d.t", plain},
		{"backslash is plain", `CREATE TABLE t (a CHAR(9) DEFAULT 'x\', b INT REFERENCES u (a))`, "d.t d.u", noEscapes},
		{"both", `ALTER TABLE "t" RENAME TO "u\"`, `d.t d.u\`, Dialect{Flavor: server.MariaDB, SQLMode: modeANSIQuotes | modeNoBackslashEscapes}},
	} {
		got, err := Classify(tc.sql, "d", tc.d)
		var names []string
		for _, n := range got.Tables {
			names = append(names, n.String())
		}
		if s := strings.Join(names, " "); err != nil || s != tc.want {
			t.Errorf("%s: %s, %v, want %s", tc.name, s, err, tc.want)
		}
	}
}

func TestCharsets(t *testing.T) {
	for _, tc := range []struct{ charset, sql, want string }{
		{"latin1", "CREATE TABLE caf\xe9 (a INT)", "d.café"},
		{"latin1", "CREATE TABLE `caf\xe9` (a INT)", "d.café"},
		{"gbk", "CREATE TABLE t (a CHAR(9) DEFAULT '\xb4\x5c', b INT COMMENT ' REFERENCES u')", "d.t"}, // a second byte like a backslash
		{"gbk", "CREATE TABLE t (a CHAR(9) COMMENT '\xb4\x5c\\', REFERENCES u (')", "d.t"},
		{"sjis", "CREATE TABLE t (a CHAR(9) DEFAULT '\x83\x5c', b CHAR(9) DEFAULT '\xb1\\'')", "d.t"}, // one byte, then an escape
		{"utf8mb3", "CREATE TABLE été (a INT)", "d.été"},
	} {
		got, err := Classify(tc.sql, "d", Dialect{Flavor: server.MySQL, Charset: tc.charset})
		if err != nil || len(got.Tables) != 1 || got.Tables[0].String() != tc.want {
			t.Errorf("%s: %q: %v, %v", tc.charset, tc.sql, got.Tables, err)
		}
	}
	if _, err := Classify("DROP TABLE `\xb4\x5c`", "d", Dialect{Charset: "gbk"}); !errors.Is(err, ErrUnclassified) {
		t.Errorf("a name we can't convert: %v", err)
	}
}

func TestDetails(t *testing.T) {
	maria := Dialect{Flavor: server.MariaDB}
	for _, tc := range []struct {
		sql  string
		want func(Statement) bool
	}{
		{"CREATE TABLE t (a INT) ENGINE=InnoDB START TRANSACTION", func(s Statement) bool { return s.StartTransaction && s.Verb == "CREATE" }},
		{"CREATE TABLE t (a INT COMMENT 'START TRANSACTION')", func(s Statement) bool { return !s.StartTransaction }},
		{"CREATE TABLE t (start INT, transaction INT)", func(s Statement) bool { return !s.StartTransaction }},
		{"CREATE OR REPLACE VIEW v AS SELECT 1", func(s Statement) bool { return s.Replace }},
		{"DROP TRIGGER x.tr", func(s Statement) bool { return s.Object == schema.Name{Schema: "x", Table: "tr"} }},
		{"ALTER EVENT ev DISABLE", func(s Statement) bool { return s.Object == schema.Name{Schema: "d", Table: "ev"} && s.Verb == "ALTER" }},
		{"CREATE DATABASE `x y`", func(s Statement) bool { return s.Object == schema.Name{Schema: "x y"} }},
		{"ALTER DATABASE COLLATE utf8mb4_bin", func(s Statement) bool { return s.Object == schema.Name{Schema: "d"} }},
		{"ALTER DATABASE comment CHARACTER SET latin1", func(s Statement) bool { return s.Object == schema.Name{Schema: "comment"} }},
		{"ALTER DATABASE COMMENT = 'x'", func(s Statement) bool { return s.Object == schema.Name{Schema: "d"} }},
		{"SET STATEMENT a=1 FOR DROP TABLE x", func(s Statement) bool { return s.Class == DropTable && s.Verb == "DROP" }},
		{"CREATE PROCEDURE p() BEGIN SELECT 1; END;", func(s Statement) bool { return s.Object.Table == "p" }},
	} {
		s, err := Classify(tc.sql, "d", maria)
		if err != nil || !tc.want(s) {
			t.Errorf("%s: %+v, %v", tc.sql, s, err)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s.sql, s.flavors[0] == 'a', uint64(0))
	}
	f.Add(`CREATE TABLE "t" (a INT)`, false, uint64(modeANSIQuotes))
	f.Fuzz(func(t *testing.T, sql string, maria bool, mode uint64) {
		d := Dialect{Flavor: server.MySQL, SQLMode: mode}
		if maria {
			d.Flavor = server.MariaDB
		}
		for _, charset := range []string{"", "gbk", "sjis", "latin1"} {
			d.Charset = charset
			s, err := Classify(sql, "d", d)
			if (err == nil) != (s.Class != "") || err != nil && !errors.Is(err, ErrUnclassified) {
				t.Fatalf("%+v, %v", s, err)
			}
			for _, n := range s.Changed {
				if !slices.Contains(s.Tables, n) {
					t.Fatalf("%v is changed but not named", n)
				}
			}
		}
	})
}
