package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

// ruled is a scene whose consumer has filters and routes.
type ruled struct {
	*scene
	rules map[harness.Role][]string // the pipeline's own
}

func newRuled(t *testing.T, f mysqltest.Flavor, rules ...string) *ruled {
	t.Helper()
	set := map[harness.Role][]string{harness.Consumer: rules}
	return &ruled{scene: pair(t, f, set), rules: set}
}

// restart starts the consumer anew with other rules.
func (s *ruled) restart(t *testing.T, rules ...string) {
	t.Helper()
	if err := s.pipeline.Kill(harness.Consumer); err != nil {
		t.Fatal(err)
	}
	s.rules[harness.Consumer] = rules
	if err := s.pipeline.Start(t.Context(), harness.Consumer); err != nil {
		t.Fatal(err)
	}
}

// command runs an operator's command with the consumer's rules.
func (s *ruled) command(t *testing.T, want int, args ...string) string {
	t.Helper()
	for _, r := range s.rules[harness.Consumer] {
		args = append(args, "--set", r)
	}
	var said strings.Builder
	c := s.pipeline.Command(t.Context(), args...)
	c.Stderr = &said
	out, err := c.Output()
	code := 0
	if exit := (*exec.ExitError)(nil); err != nil && asExit(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if code != want {
		t.Fatalf("twinspan %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, said.String())
	}
	return string(out)
}

func (s *ruled) settleAll(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s.settle(ctx, t)
}

var doneRemedy = regexp.MustCompile(`add (\S+) to apply\.filters\.done`)

// TestRoutes: what is included arrives under its new name, what is left out does
// not, a statement that would cross the border halts, and other rules do too.
func TestRoutes(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s := newRuled(t, f, "apply.filters.include=shop.*,crm.*", "apply.filters.exclude=*.tmp_*,crm.audit", "apply.filters.skip_delete=crm.log",
				"apply.routes=shop.* -> shop_b.*,crm.people -> crm.persons")
			s.start(t)
			s.primary.Exec(t,
				"CREATE DATABASE shop", "CREATE DATABASE crm", "CREATE DATABASE hr", "USE shop",
				"CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(20), UNIQUE (name))",
				"CREATE TABLE orders (id INT PRIMARY KEY, c INT, FOREIGN KEY (c) REFERENCES customers (id) ON DELETE CASCADE)",
				"CREATE TABLE tmp_x LIKE orders", "CREATE TABLE heap (a INT, b INT)",
				"CREATE TABLE crm.people (id INT PRIMARY KEY, x INT)", "CREATE TABLE crm.audit (id INT PRIMARY KEY)", "CREATE TABLE crm.log (id INT PRIMARY KEY)",
				"CREATE TABLE hr.t (id INT PRIMARY KEY)",
				"CREATE VIEW big AS SELECT o.id, shop.customers.name FROM orders o JOIN shop.customers ON o.c = shop.customers.id",
				"BEGIN", "INSERT INTO customers VALUES (1,'a'),(2,'b'),(3,'c')", "INSERT INTO tmp_x VALUES (1,1)", "INSERT INTO orders VALUES (10,1),(11,2)",
				"INSERT INTO hr.t VALUES (1)", "INSERT INTO heap VALUES (1,1),(1,1),(2,2)", "INSERT INTO crm.audit VALUES (1)", "INSERT INTO crm.people VALUES (7,7)",
				"INSERT INTO crm.log VALUES (1),(2)", "COMMIT",
				"BEGIN", "DELETE FROM customers WHERE id = 2", "DELETE FROM crm.log WHERE id = 1", "DELETE FROM heap WHERE a = 1 LIMIT 1", "UPDATE crm.people SET id = 8", "COMMIT",
				"ALTER TABLE orders ADD note VARCHAR(10) DEFAULT 'n'", "ALTER TABLE tmp_x ADD y INT",
				"CREATE TABLE gone (id INT PRIMARY KEY)", "CREATE TABLE tmp_y LIKE gone", "DROP TABLE tmp_y, gone",
				"CREATE TABLE one (id INT PRIMARY KEY)", "RENAME TABLE tmp_x TO tmp_z, one TO two",
				"INSERT INTO two VALUES (1)", "INSERT INTO orders VALUES (12,3,'x')", "INSERT INTO tmp_z VALUES (5,5,5)",
				"CREATE TABLE copied AS SELECT * FROM orders", "ALTER TABLE copied ADD PRIMARY KEY (id)")
			s.settleAll(t)
			for q, want := range map[string]string{
				"SELECT GROUP_CONCAT(id, c, note ORDER BY id) FROM shop_b.orders": "101n,123x",
				"SELECT GROUP_CONCAT(name ORDER BY id) FROM shop_b.customers":     "a,c",
				"SELECT GROUP_CONCAT(id) FROM crm.persons":                        "8",
				"SELECT GROUP_CONCAT(id ORDER BY id) FROM crm.log":                "1,2",
				"SELECT COUNT(*) FROM shop_b.heap":                                "2",
				"SELECT COUNT(*) FROM shop_b.two":                                 "1",
				"SELECT GROUP_CONCAT(id, name ORDER BY id) FROM shop_b.big":       "10a,12c",
				"SELECT GROUP_CONCAT(id ORDER BY id) FROM shop_b.copied":          "10,12",
				"SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME LIKE 'tmp\\_%' OR TABLE_SCHEMA IN ('shop', 'hr') OR TABLE_NAME IN ('audit', 'people', 'gone')": "0",
			} {
				if got := s.target.Value(t, q); got != want {
					t.Errorf("%s: %s, want %s", q, got, want)
				}
			}
			var report struct {
				Tables []struct {
					Table, Target string
					Included      bool
					Differs       bool
				}
				Troubles []any
			}
			if err := json.Unmarshal([]byte(s.command(t, 0, "filters", "check", "-o", "json")), &report); err != nil {
				t.Fatal(err)
			}
			seen := map[string]string{}
			for _, x := range report.Tables {
				seen[x.Table] = x.Target
				if x.Differs != (x.Table == "crm.log") {
					t.Errorf("%s: differs %t", x.Table, x.Differs)
				}
			}
			if seen["shop.orders"] != "shop_b.orders" || seen["crm.people"] != "crm.persons" || seen["hr.t"] != "" || seen["shop.tmp_z"] != "" {
				t.Errorf("filters check: %v", seen)
			}
			s.command(t, 0, "verify", "-o", "json")
			s.target.Exec(t, "DELETE FROM shop_b.two")
			if out := s.command(t, 3, "verify"); !strings.Contains(out, "shop.two missing id=1") {
				t.Errorf("verify: %s", out)
			}
			s.target.Exec(t, "INSERT INTO shop_b.two VALUES (1)")

			t.Log("a rename out of the filter")
			s.primary.Exec(t, "RENAME TABLE shop.two TO shop.tmp_two", "INSERT INTO shop.customers VALUES (50,'late')")
			s.awaitHalt(t, harness.Consumer, "FILTER_RENAME")
			h, err := s.pipeline.Halted(harness.Consumer)
			if err != nil || h == nil {
				t.Fatal(h, err)
			}
			id := doneRemedy.FindStringSubmatch(h.Remedy)
			if id == nil {
				t.Fatalf("the remedy names no GTID: %s", h.Remedy)
			}
			s.target.Exec(t, "DROP TABLE shop_b.two")
			s.restart(t, append(s.rules[harness.Consumer], "apply.filters.done="+id[1])...)
			s.settleAll(t)
			if got := s.target.Value(t, "SELECT name FROM shop_b.customers WHERE id = 50"); got != "late" {
				t.Errorf("after the halt: %s", got)
			}

			t.Log("a table that would become another's")
			s.primary.Exec(t, "CREATE TABLE crm.persons (id INT PRIMARY KEY)")
			s.awaitHalt(t, harness.Consumer, "ROUTE_COLLISION")
			s.primary.Exec(t, "DROP TABLE crm.persons")
			old := s.rules[harness.Consumer]
			s.restart(t, append(old[2:len(old):len(old)], "apply.filters.include=shop.*,crm.*", "apply.filters.exclude=*.tmp_*,crm.audit,crm.persons")...)
			s.awaitHalt(t, harness.Consumer, "FILTERS_CHANGED")
			s.command(t, 3, "filters", "check")
			if out := s.command(t, 0, "filters", "accept"); !strings.Contains(out, "Nothing was changed") {
				t.Errorf("filters accept: %s", out)
			}
			s.command(t, 0, "filters", "accept", "--yes")
			s.awaitGoingOn(t)
			s.settleAll(t)
			s.command(t, 0, "verify")
		})
	}
}

// TestRoutesHalts: whatever would make the target differ unseen stops the consumer
// at that place.
func TestRoutesHalts(t *testing.T) {
	for _, c := range []struct {
		name, code string
		rules      []string
		statements []string
	}{
		{"foreign-key-out", "FILTER_REFERENCE", []string{"apply.filters.exclude=d.p"},
			[]string{"CREATE TABLE d.p (id INT PRIMARY KEY)", "CREATE TABLE d.c (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES d.p (id))"}},
		{"like", "FILTER_REFERENCE", []string{"apply.filters.exclude=d.p"}, []string{"CREATE TABLE d.p (id INT PRIMARY KEY)", "CREATE TABLE d.c LIKE d.p"}},
		{"two-become-one", "ROUTE_COLLISION", []string{"apply.routes=d1.* -> d.*"}, []string{"CREATE DATABASE d1", "CREATE TABLE d1.t (id INT PRIMARY KEY)", "INSERT INTO d1.t VALUES (1)", "UPDATE d.t SET v = 2 WHERE id = 1"}},
		{"procedure", "FILTER_DEFINITION", []string{"apply.routes=d.t -> d.u"}, []string{"CREATE PROCEDURE d.p() DELETE FROM t"}},
		{"drop-database", "FILTER_SCHEMA", []string{"apply.filters.exclude=d.x"}, []string{"DROP DATABASE d"}},
	} {
		for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
			t.Run(c.name+"/"+string(f), func(t *testing.T) {
				s := newRuled(t, f, c.rules...)
				s.target.Exec(t, "CREATE DATABASE d", "USE d", "CREATE TABLE mine (id INT)")
				s.start(t)
				s.primary.Exec(t, "CREATE DATABASE IF NOT EXISTS d0", "USE d0")
				s.settleAll(t)
				s.target.Exec(t, "DROP DATABASE d")
				s.primary.Exec(t, someRows...)
				if c.code == "ROUTE_COLLISION" {
					s.awaitHalt(t, harness.Consumer, c.code) // d.t itself belongs to d1.t
					return
				}
				s.settleAll(t)
				s.primary.Exec(t, c.statements...)
				s.awaitHalt(t, harness.Consumer, c.code)
			})
		}
	}
}

// awaitGoingOn returns when the consumer has looked at its halt again and goes on.
func (s *ruled) awaitGoingOn(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		h, err := s.pipeline.Halted(harness.Consumer)
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it does not go on by itself: %v", h)
		}
	}
}

// TestRoutesPreflight: a foreign key whose cascades never come keeps the consumer
// from starting.
func TestRoutesPreflight(t *testing.T) {
	s := newRuled(t, mysqltest.MariaDB118, "apply.filters.exclude=d.p")
	make := []string{"CREATE DATABASE d", "CREATE TABLE d.p (id INT PRIMARY KEY)", "CREATE TABLE d.c (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES d.p (id) ON DELETE CASCADE)"}
	s.target.Exec(t, make...)
	s.start(t)
	s.awaitHalt(t, harness.Consumer, "FILTER_REFERENCE")
	s.target.Exec(t, "DROP TABLE d.c")
	s.awaitGoingOn(t)
	s.primary.Exec(t, make...)
	if out := s.command(t, 3, "filters", "check"); !strings.Contains(out, "FILTER_REFERENCE") {
		t.Errorf("filters check: %s", out)
	}
}

// TestRoutesUnderCrashes runs the load of the other tests through filters and
// routes while every process is killed at random.
func TestRoutesUnderCrashes(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			seed := seed(t)
			// The load begins with DROP DATABASE IF EXISTS, which halts where only a
			// part of a schema is replicated; here there is nothing to drop.
			rules := []string{"apply.filters.exclude=load_main.key_c*,load_main.order_line,load_main.visit",
				"apply.routes=load_main.* -> other.b_*,load_ddl.* -> ddl_b.*"}
			set := map[harness.Role][]string{harness.Consumer: rules}
			s := &ruled{scene: newScene(t, f, set), rules: set}
			first := "SELECT CONCAT(@@server_uuid, ':1')"
			if f.IsMariaDB() {
				first = "SELECT CONCAT(@@gtid_domain_id, '-', @@server_id, '-1')"
			}
			set[harness.Consumer] = append(rules, "apply.filters.done="+s.primary.Value(t, first))
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			s.target.Exec(t, "CREATE DATABASE other")
			if err := s.pipeline.StartAll(ctx); err != nil {
				t.Fatal(err)
			}
			w := workload.New(workload.Config{Seed: seed, DB: s.primary.DB(), Clients: 4, Types: true, DDLEvery: 30 * time.Millisecond, Log: zerolog.Nop()})
			crash, stopCrashes := context.WithCancel(ctx)
			var crashes sync.WaitGroup
			crashes.Go(func() { s.crash(crash, t, seed) })
			err := w.Prepare(ctx)
			if err == nil {
				run, stop := context.WithTimeout(ctx, 6*time.Second)
				err = w.Run(run)
				stop()
			}
			stopCrashes()
			crashes.Wait()
			if err != nil {
				t.Fatal(err)
			}
			s.settleAll(t)
			out := strings.TrimSpace(s.command(t, 0, "verify"))
			t.Log(out[strings.LastIndexByte(out, '\n')+1:])
		})
	}
}
