package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/test/harness"
)

type parked struct {
	ID         int64
	State      string
	Table, Key string
	Cause      string
	Kind, Now  string
	Behind     int64
	Reason     string
	ResolvedBy string `json:"resolved_by"`
	Present    []struct {
		Column string
		Value  *string
	}
}

// listed are the exceptions, by "schema.table (key)", the first of each.
func (s *ruled) listed(t *testing.T, args ...string) map[string]parked {
	t.Helper()
	var all []parked
	if err := json.Unmarshal([]byte(s.command(t, 0, append([]string{"exceptions", "list", "-o", "json"}, args...)...)), &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]parked{}
	for _, e := range all {
		name := strings.TrimSpace(e.Table + " " + e.Key)
		if _, known := out[name]; !known {
			out[name] = e
		}
	}
	return out
}

// TestExceptions: what an operator does about double writes, with the built binary:
// every kind is parked with what follows it, shown, tried again, mended or given up
// with a reason, with a consumer and without one, and verify finds nothing in the end.
func TestExceptions(t *testing.T) {
	for _, c := range []struct {
		f         mysqltest.Flavor
		atomicity string
	}{{mysqltest.MySQL97, "row"}, {mysqltest.MariaDB1011, "transaction"}} {
		t.Run(string(c.f)+"/"+c.atomicity, func(t *testing.T) {
			s := newRuled(t, c.f, "apply.atomicity="+c.atomicity, "apply.conflicts.policy=exception", "apply.exceptions.on=conflict,data,missing-table",
				"apply.exceptions.retry.first=0s")
			s.start(t)
			s.primary.Exec(t, "CREATE DATABASE d", "USE d", "CREATE TABLE stock (id INT PRIMARY KEY, n INT, sku VARCHAR(9), UNIQUE (sku))",
				"CREATE TABLE gone (id INT PRIMARY KEY)", "CREATE TABLE narrow (id INT PRIMARY KEY, v VARCHAR(20))", "CREATE TABLE heap (a INT)")
			s.settleAll(t)
			s.target.Exec(t, "ALTER TABLE d.narrow ADD CONSTRAINT short CHECK (CHAR_LENGTH(v) <= 3)")
			s.primary.Exec(t, "USE d",
				"INSERT INTO stock VALUES (1,1,'a'),(2,2,'b'),(3,3,'c'),(4,4,'d'),(5,5,'e')", "INSERT INTO gone VALUES (1)", "INSERT INTO narrow VALUES (9,'x')", "INSERT INTO heap VALUES (1),(2)")
			s.settleAll(t)
			s.target.Exec(t, "USE d", "DELETE FROM stock WHERE id = 1", "UPDATE stock SET n = 77 WHERE id IN (2, 3)", "INSERT INTO stock VALUES (10,0,'x'),(20,0,'y')",
				"DROP TABLE gone", "DELETE FROM heap WHERE a = 2")
			s.primary.Exec(t, "USE d",
				"BEGIN", "UPDATE stock SET n = 11 WHERE id = 1", "UPDATE stock SET n = 22 WHERE id = 2", "UPDATE stock SET n = 44 WHERE id = 4", "COMMIT",
				"UPDATE stock SET n = 23 WHERE id = 2", "DELETE FROM stock WHERE id = 3", "INSERT INTO stock VALUES (10,1,'z')", "INSERT INTO stock VALUES (21,1,'y')",
				"INSERT INTO gone VALUES (2)", "DELETE FROM gone WHERE id = 2", "INSERT INTO narrow VALUES (1,'too long')", "DELETE FROM heap WHERE a = 2")
			s.settleAll(t)
			if got := s.target.Value(t, "SELECT GROUP_CONCAT(id, '=', n ORDER BY id) FROM d.stock"); got != "2=77,3=77,4=44,5=5,10=0,20=0" {
				t.Errorf("the target has %s", got)
			}
			open := s.listed(t)
			want := map[string]string{
				"d.stock (id=1)": "update-missing", "d.stock (id=2)": "update-differs", "d.stock (id=3)": "delete-differs", "d.stock (id=10)": "insert-exists",
				"d.stock (id=21)": "unique-holder", "d.gone (id=2)": "missing-table", "d.heap": "delete-missing",
			}
			checks := c.f == mysqltest.MySQL97 // MariaDB checks no replicated row, as its own replication
			if checks {
				want["d.narrow (id=1)"] = "data"
			}
			for name, why := range want {
				if e := open[name]; e.Kind != why && e.Cause != why || e.State != "open" {
					t.Errorf("%s: %+v, want %s", name, e, why)
				}
			}
			if len(open) != len(want) {
				t.Errorf("%d rows are parked: %+v", len(open), open)
			}
			id := func(name string) string { return fmt.Sprint(open[name].ID) }

			var shown parked
			if err := json.Unmarshal([]byte(s.command(t, 0, "exceptions", "show", id("d.stock (id=21)"), "-o", "json")), &shown); err != nil {
				t.Fatal(err)
			}
			if shown.Now != "unique-holder" || len(shown.Present) != 3 || *shown.Present[0].Value != "20" {
				t.Errorf("the row in the way: %+v", shown)
			}
			admin, err := url.Parse(s.pipeline.AdminURL(harness.Consumer))
			if err != nil {
				t.Fatal(err)
			}
			if out := s.command(t, 0, "conflicts", "--admin", admin.Host, "--kind", "update-differs"); !strings.Contains(out, "update of d.stock (id=2), exception "+id("d.stock (id=2)")) {
				t.Errorf("conflicts: %s", out)
			}
			s.command(t, 3, "exceptions", "retry", "--all")
			s.command(t, 3, "exceptions", "retry", id("d.gone (id=2)"), "--dry-run")
			s.command(t, 3, "verify")

			t.Log("mended, with the consumer at work, and without one")
			s.target.Exec(t, "USE d", "INSERT INTO stock VALUES (1,1,'a')", "DELETE FROM stock WHERE id IN (10, 20)", "CREATE TABLE gone (id INT PRIMARY KEY)", "INSERT INTO gone VALUES (1)")
			s.command(t, 0, "exceptions", "retry", id("d.stock (id=1)"))
			if out := s.command(t, 0, "exceptions", "show", id("d.stock (id=10)")); !strings.Contains(out, "nothing is in its way") {
				t.Errorf("show: %s", out)
			}
			s.command(t, 0, "exceptions", "retry", "--table", "d.gone")
			if err := s.pipeline.Kill(harness.Consumer); err != nil {
				t.Fatal(err)
			}
			s.command(t, 5, "conflicts", "--admin", admin.Host)
			s.command(t, 0, "exceptions", "retry", id("d.stock (id=2)"), "--source-wins")
			s.command(t, 3, "exceptions", "retry", "--table", "d.stock") // 3 still differs; the others are applied
			s.target.Exec(t, "ALTER TABLE d.narrow DROP CONSTRAINT short")
			if checks {
				s.command(t, 0, "exceptions", "retry", id("d.narrow (id=1)"))
			}

			t.Log("given up")
			skip := []string{"exceptions", "skip", id("d.stock (id=3)")}
			s.command(t, 2, append(skip, "--yes")...)
			if s.command(t, 0, skip...); s.listed(t)["d.stock (id=3)"].State != "open" {
				t.Error("a preview changed something")
			}
			s.command(t, 0, append(skip, "--yes", "--reason", "ticket 4711")...)
			s.command(t, 1, append(skip, "--yes", "--reason", "ticket 4711")...)
			s.command(t, 0, "exceptions", "skip", id("d.heap"), "--yes", "--reason", "was deleted by hand")
			if left := s.listed(t); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
			if e := s.listed(t, "--history")["d.stock (id=3)"]; e.State != "skipped" || e.Reason != "ticket 4711" || e.ResolvedBy == "" {
				t.Errorf("history: %+v", e)
			}
			s.target.Exec(t, "DELETE FROM d.stock WHERE id = 3")
			s.restart(t, s.rules[harness.Consumer]...)
			s.primary.Exec(t, "UPDATE d.stock SET n = n + 1", "DELETE FROM d.gone")
			s.settleAll(t)
			s.command(t, 0, "verify")
		})
	}
}

// TestThrottle: nothing is written while a replica of the target is too far behind,
// which status, lanes and metrics tell; what an operator sets holds until the
// configuration has something else.
func TestThrottle(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			s := newRuled(t, f)
			replica := mysqltest.Start(t, f)
			if err := replica.ReplicateFrom(t.Context(), s.target); err != nil {
				t.Fatal(err)
			}
			stop, start, delay := "STOP REPLICA SQL_THREAD", "START REPLICA SQL_THREAD", "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = "
			if f.IsMariaDB() {
				stop, start, delay = "STOP SLAVE", "START SLAVE", "CHANGE MASTER TO MASTER_DELAY = "
			}
			file := s.pipeline.ConfigFile(harness.Consumer)
			plain, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			configure := func(throttle string) {
				t.Helper()
				if err := os.WriteFile(file, append(plain, fmt.Sprintf("apply: {throttle: {replicas: [%q], %s}}\n", replica.Address, throttle)...), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			reload := func() {
				t.Helper()
				pid, _ := s.pipeline.Process(harness.Consumer)
				if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
			configure("replica_lag: 2s")
			s.start(t)
			s.primary.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, n INT)", "INSERT INTO d.t VALUES (1, 0)")
			s.settleAll(t)
			admin, err := url.Parse(s.pipeline.AdminURL(harness.Consumer))
			if err != nil {
				t.Fatal(err)
			}
			lanes := func(args ...string) string {
				t.Helper()
				return s.command(t, 0, append(append([]string{"lanes"}, args...), "--admin", admin.Host)...)
			}
			await := func(what string, args ...string) {
				t.Helper()
				out := ""
				for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
					if out = lanes(args...); strings.Contains(out, what) {
						return
					}
				}
				t.Fatalf("lanes do not say %q:\n%s", what, out)
			}
			replica.Exec(t, stop, delay+"3600", start)
			s.primary.Exec(t, "UPDATE d.t SET n = 1")
			s.settleAll(t)
			await("behind, more than 2s")
			s.primary.Exec(t, "UPDATE d.t SET n = 2")
			if v, err := s.pipeline.Metric(t.Context(), harness.Consumer, "twinspan_applier_throttle_paused", ""); err != nil || v != 1 {
				t.Errorf("metric: %v %v", v, err)
			}
			if out := s.command(t, 0, "status", "--admin", admin.Host); !strings.Contains(out, "behind, more than 2s") {
				t.Errorf("status: %s", out)
			}
			if got := s.target.Value(t, "SELECT n FROM d.t"); got != "1" {
				t.Errorf("written although the replica is behind: %s", got)
			}
			if out := s.command(t, 0, "lanes", "throttle", "--replica-lag", "0s", "--rows-per-second", "700", "--admin", admin.Host); !strings.Contains(out, "700 rows/s;") {
				t.Errorf("throttle: %s", out)
			}
			s.settleAll(t)
			reload() // for another reason: what the operator set stays
			s.awaitLog(t, harness.Consumer, "read again")
			await("700 rows/s;")
			configure("replica_lag: 3s")
			reload()
			await("throttle: replicas at most 3s behind")
			await("behind, more than 3s")
			s.primary.Exec(t, "UPDATE d.t SET n = 3")
			replica.Exec(t, stop, delay+"0", start)
			s.settleAll(t)
			replica.Exec(t, stop)
			await("does not replicate")
			s.primary.Exec(t, "UPDATE d.t SET n = 4")
			s.settleAll(t)
			if out := s.command(t, 0, "lanes", "throttle", "--off", "--admin", admin.Host); !strings.Contains(out, "throttle: none") {
				t.Errorf("throttle: %s", out)
			}
			if err := s.pipeline.Kill(harness.Consumer); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.pipeline.Start(ctx, harness.Consumer); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(40 * time.Second); s.pipeline.Command(ctx, "lanes", "--admin", admin.Host).Run() != nil && time.Now().Before(end); {
				time.Sleep(100 * time.Millisecond)
			}
			await("throttle: replicas at most 3s behind") // a restart knows the configuration alone
		})
	}
}
