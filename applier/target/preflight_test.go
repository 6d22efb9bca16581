package target

import (
	"context"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

func TestPreflight(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE nokey (id INT, u INT NULL UNIQUE)", "CREATE TABLE isam (id INT PRIMARY KEY) ENGINE=MyISAM", "CREATE TABLE isam0 (id INT) ENGINE=MyISAM",
			"CREATE TABLE good (id INT NOT NULL UNIQUE)", "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES good (id))",
			"CREATE TRIGGER tr AFTER INSERT ON nokey FOR EACH ROW SET @a = 1",
			"CREATE USER IF NOT EXISTS pre@'%' IDENTIFIED BY ''", "GRANT SELECT, INSERT ON `"+b.schema+"`.* TO pre@'%'")
		defer b.exec("DROP USER pre@'%'")
		o := PreflightOptions{Replicates: func(s string) bool { return s == b.schema }, MaxAllowedPacket: 1 << 30, LowerCaseTableNames: 2}
		found, err := Preflight(context.Background(), b.db, o)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"triggers": "`tr`", "key": "`nokey`", "foreign_keys": "`child`", "lower_case_table_names": "0", "max_allowed_packet": "268435456", "read_only": "anyone",
		}
		for _, f := range found {
			if f.Check == "privileges" {
				t.Errorf("root lacks something: %+v", f)
			}
			if w, ok := want[f.Check]; ok && strings.Contains(f.Message, w) {
				delete(want, f.Check)
			}
			if f.Check == "key" && (strings.Contains(f.Message, "good") || strings.Contains(f.Message, "isam")) {
				t.Errorf("%s", f.Message)
			}
			if f.Check == "engine" && f.Severity == Mandatory && !strings.Contains(f.Message, "`isam0`") {
				t.Errorf("%s", f.Message)
			}
		}
		if len(want) > 0 {
			t.Errorf("not found: %v in %+v", want, found)
		}
		e := b.server.Endpoint()
		e.User = "pre"
		poor, err := server.Open(e, server.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer poor.Close()
		found, err = Preflight(context.Background(), poor, PreflightOptions{Replicates: o.Replicates, LowerCaseTableNames: -1})
		if err != nil {
			t.Fatal(err)
		}
		var fixes []string
		for _, f := range found {
			if f.Check == "privileges" && f.Severity == Mandatory {
				fixes = append(fixes, f.FixSQL...)
			}
		}
		if len(fixes) < 2 {
			t.Fatalf("%+v", found)
		}
		for _, f := range found {
			if f.Check == "functions" {
				fixes = append(fixes, f.FixSQL...)
				defer b.exec("SET GLOBAL log_bin_trust_function_creators = OFF")
			}
		}
		// The fixes are what is missing, and nothing more is missing then.
		b.exec(fixes...)
		found, err = Preflight(context.Background(), poor, PreflightOptions{Replicates: o.Replicates, LowerCaseTableNames: -1})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Check == "privileges" && f.Severity == Mandatory {
				t.Errorf("still: %+v", f)
			}
		}
		// That is enough for everything the applier does.
		again, err := Open(e) // privileges count from the next connection on
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		conn, err := OpenSession(context.Background(), again)
		if err != nil {
			t.Fatal(err)
		}
		defer Discard(conn)
		low := *b
		low.conn, low.db = conn, again
		low.exec("USE "+b.schema, "CREATE TABLE low (id INT PRIMARY KEY, e ENUM('a'), p INT, FOREIGN KEY (p) REFERENCES good (id))")
		p := low.plan("low", "low")
		row := p.insert(image(1, change.OrdinalOf(0), 77)...)
		row.Flags = change.NoForeignKeyChecks
		low.mustApply(p, row)
		low.want("SELECT id, e+0, p FROM low", "1|0|77")
		r := low.replay()
		for _, text := range []string{"CREATE DEFINER=`pre`@`%` VIEW vlow AS SELECT * FROM low", "TRUNCATE low", "CREATE DEFINER=`pre`@`%` FUNCTION flow() RETURNS INT DETERMINISTIC NO SQL RETURN 1", "DROP TABLE low"} {
			d := r.statement(text)
			if b.info.Flavor == server.MySQL {
				d.Variables = map[string]string{"default_collation_for_utf8mb4": "utf8mb4_0900_ai_ci", "explicit_defaults_for_timestamp": "0"}
			}
			if err := r.run(d); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestParseGrants(t *testing.T) {
	g := parseGrants([]string{
		"GRANT SELECT, INSERT ON *.* TO `u`@`%`", "GRANT ALL PRIVILEGES ON `a\\_b`.* TO `u`@`%`", "GRANT UPDATE ON `c%`.* TO `u`@`%`",
		"GRANT DELETE ON `x`.`y` TO `u`@`%`", "GRANT SELECT (a) ON `q`.* TO `u`@`%`", "GRANT `role`@`%` TO `u`@`%`"})
	for _, c := range []struct {
		schema, word string
		want         bool
	}{{"z", "SELECT", true}, {"z", "UPDATE", false}, {"a_b", "DROP", true}, {"axb", "DROP", false}, {"cde", "UPDATE", true}, {"x", "DELETE", false}} {
		if got := g.on(c.schema, c.word); got != c.want {
			t.Errorf("%s on %s: %v", c.word, c.schema, got)
		}
	}
	if g.account != "`u`@`%`" {
		t.Error(g.account)
	}
}
