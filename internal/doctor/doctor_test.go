package doctor

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

func TestMain(m *testing.M) {
	mysqltest.Main(m, func() error {
		// glog comes with the collations and flushes for ever.
		return goleak.Find(goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
	})
}

// states maps each check to its worst outcome: "ok", "unknown", "advisory" or
// "mandatory".
func states(r *Report) map[string]string {
	out := map[string]string{}
	for _, f := range r.Findings {
		s := string(f.Outcome)
		if f.Outcome == Failed {
			s = string(f.Severity)
		}
		if old := out[f.Check]; old == "" || old == "ok" {
			out[f.Check] = s
		}
	}
	return out
}

func dump(r *Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-9s %-9s %-30s %s | %s\n", f.Outcome, f.Severity, f.Check, f.Detail, f.Remedy)
	}
	return b.String() + r.Error
}

func expect(t *testing.T, r *Report, want map[string]string) {
	t.Helper()
	got := states(r)
	for check, s := range want {
		if got[check] != s {
			t.Errorf("%s is %q, expected %q", check, got[check], s)
		}
	}
	if t.Failed() {
		t.Logf("\n%s", dump(r))
	}
}

// account makes a user without privileges and connects as it.
func account(t *testing.T, s *mysqltest.Server, name string, grants ...string) *sql.DB {
	t.Helper()
	s.Exec(t, fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'pw'", name))
	for _, g := range grants {
		s.Exec(t, fmt.Sprintf("GRANT %s TO '%s'@'%%'", g, name))
	}
	e := s.Endpoint()
	e.User, e.Password, e.TLS.Mode = name, "pw", "preferred"
	db, err := server.Open(e, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Global privileges count from the next connection on.
	db.SetMaxIdleConns(0)
	t.Cleanup(func() { db.Close() })
	return db
}

func TestHealthyServers(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s, _ := mysqltest.Shared(t, f)
			ctx := context.Background()
			r := Source(ctx, s.DB(), SourceOptions{Address: s.Address, ServerID: 77})
			if bad := r.Failed(Mandatory); len(bad) > 0 || r.Err != nil {
				t.Errorf("source:\n%s", dump(r))
			}
			expect(t, r, map[string]string{"source.clock": "ok", "source.durability": "advisory", "source.select": ""})
			r = Target(ctx, s.DB(), TargetOptions{Address: s.Address})
			if bad := r.Failed(Mandatory); len(bad) > 0 || r.Err != nil {
				t.Errorf("target:\n%s", dump(r))
			}
			for _, f := range r.Findings {
				if f.Outcome == Unknown {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// Every setting that is wrong is found, and the statements repair it.
func TestSourceSettingsAreFoundAndRepaired(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			opts := []mysqltest.Option{mysqltest.With("binlog-format", "MIXED"), mysqltest.With("binlog-row-image", "MINIMAL"),
				mysqltest.With("binlog-row-metadata", "MINIMAL"), mysqltest.With("binlog-expire-logs-seconds", "3600")}
			want := map[string]string{
				"source.binlog_format": "mandatory", "source.binlog_row_image": "mandatory",
				"source.binlog_row_metadata": "mandatory", "source.retention": "advisory", "source.durability": "advisory",
			}
			if f.IsMariaDB() {
				opts = append(opts, mysqltest.With("gtid-strict-mode", "OFF"))
				want["source.gtid_strict_mode"] = "advisory"
			} else {
				opts = append(opts, mysqltest.With("binlog-row-value-options", "PARTIAL_JSON"), mysqltest.With("gtid-mode", "OFF"),
					mysqltest.With("enforce-gtid-consistency", "OFF"))
				want["source.partial_json"], want["source.gtid_mode"] = "mandatory", "mandatory"
				want["source.enforce_gtid_consistency"] = "mandatory"
			}
			s := mysqltest.Start(t, f, opts...)
			ctx := context.Background()
			r := Source(ctx, s.DB(), SourceOptions{Address: s.Address})
			expect(t, r, want)
			for _, f := range r.Findings {
				if f.Outcome != Failed {
					continue
				}
				for _, q := range f.SQL {
					if !strings.HasPrefix(q, "--") {
						s.Exec(t, q)
					}
				}
			}
			after := Source(ctx, s.DB(), SourceOptions{Address: s.Address})
			for check := range want {
				want[check] = "ok"
			}
			expect(t, after, want)
		})
	}
}

func TestSourceWithoutBinlog(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			remove := []string{"log-bin", "log-replica-updates", "log-slave-updates"}
			var opts []mysqltest.Option
			opts = append(opts, mysqltest.Without(remove...))
			if !f.IsMariaDB() {
				opts = append(opts, mysqltest.WithArgs("--skip-log-bin"))
			}
			s := mysqltest.Start(t, f, opts...)
			r := Source(context.Background(), s.DB(), SourceOptions{Address: s.Address})
			expect(t, r, map[string]string{"source.log_bin": "mandatory", "source.binlog_format": ""})
			if text := Script(r); !strings.Contains(text, "-- log_bin = binlog under [") {
				t.Errorf("script:\n%s", text)
			}
		})
	}
}

func TestPrivilegesAreNamedExactly(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s, _ := mysqltest.Shared(t, f)
			ctx := context.Background()
			db := account(t, s, "doc_none")
			r := Source(ctx, db, SourceOptions{Address: s.Address, ServerID: 77})
			expect(t, r, map[string]string{"source.privileges": "mandatory", "source.tables": "unknown"})
			i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Check == "source.privileges" })
			want := "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'doc_none'@'%'"
			if f.IsMariaDB() {
				want = "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'doc_none'@'%'"
			}
			if got := r.Findings[i].SQL; len(got) != 1 || got[0] != want {
				t.Errorf("%q", got)
			}
			// All the script's statements run, and then nothing is missing.
			for _, f := range r.Findings {
				for _, q := range f.SQL {
					if f.Outcome == Failed && strings.HasPrefix(q, "GRANT") {
						s.Exec(t, q)
					}
				}
			}
			r = Source(ctx, db, SourceOptions{Address: s.Address, ServerID: 77})
			id := "ok"
			if f.IsMariaDB() {
				id = "unknown" // listing replicas asks for far more there
			}
			expect(t, r, map[string]string{"source.privileges": "ok", "source.standby": "ok", "source.server_id": id, "source.binlog_filter": "ok"})

			db = account(t, s, "doc_target", "SELECT ON *.*")
			r = Target(ctx, db, TargetOptions{Address: s.Address})
			expect(t, r, map[string]string{"target.privileges": "mandatory", "target.read_only": "advisory", "target.applier": ""})
			for _, f := range r.Findings {
				for _, q := range f.SQL {
					if f.Outcome == Failed && f.Check != "target.read_only" && strings.HasPrefix(q, "GRANT") {
						s.Exec(t, q)
					}
				}
			}
			s.Exec(t, "SET GLOBAL read_only = ON")
			defer s.Exec(t, "SET GLOBAL read_only = OFF")
			r = Target(ctx, db, TargetOptions{Address: s.Address})
			expect(t, r, map[string]string{"target.privileges": "", "target.read_only": "mandatory"})
			for _, f := range r.Findings {
				for _, q := range f.SQL {
					if f.Outcome == Failed && strings.HasPrefix(q, "GRANT") {
						s.Exec(t, q)
					}
				}
			}
			r = Target(ctx, db, TargetOptions{Address: s.Address})
			expect(t, r, map[string]string{"target.privileges": "", "target.read_only": "", "target.applier": "ok"})
		})
	}
}

func TestRoleCarriesPrivileges(t *testing.T) {
	s, _ := mysqltest.Shared(t, mysqltest.MySQL97)
	s.Exec(t, "CREATE ROLE replicator", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO replicator")
	db := account(t, s, "by_role")
	s.Exec(t, "GRANT replicator TO by_role", "SET DEFAULT ROLE ALL TO by_role")
	r := Source(context.Background(), db, SourceOptions{Address: s.Address})
	expect(t, r, map[string]string{"source.privileges": "ok"})
}

func TestTables(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB118} {
		t.Run(string(f), func(t *testing.T) {
			s, schema := mysqltest.Shared(t, f)
			s.Exec(t, "CREATE TABLE "+schema+".keyless (a INT)", "CREATE TABLE "+schema+".old (a INT PRIMARY KEY) ENGINE=MyISAM",
				"CREATE TABLE "+schema+".parent (a INT PRIMARY KEY)",
				"CREATE TABLE "+schema+".child (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES "+schema+".parent (a))",
				"CREATE TRIGGER "+schema+".tr BEFORE INSERT ON "+schema+".parent FOR EACH ROW SET NEW.a = NEW.a",
				"CREATE EVENT "+schema+".ev ON SCHEDULE EVERY 1 DAY DO SELECT 1")
			source := map[string]string{"source.keys": "advisory", "source.engines": "advisory"}
			if f.IsMariaDB() {
				s.Exec(t, "CREATE TABLE "+schema+".versioned (a INT PRIMARY KEY) WITH SYSTEM VERSIONING",
					"CREATE TABLE "+schema+".packed (a INT PRIMARY KEY, b VARCHAR(500) COMPRESSED)", "CREATE SEQUENCE "+schema+".seq")
				source["source.versioned"], source["source.compressed_columns"], source["source.sequences"] = "mandatory", "mandatory", "advisory"
			}
			ctx := context.Background()
			expect(t, Source(ctx, s.DB(), SourceOptions{Address: s.Address}), source)
			target := map[string]string{"target.triggers": "mandatory", "target.events": "", "target.foreign_keys": "advisory", "target.key": "advisory"}
			r := Target(ctx, s.DB(), TargetOptions{Address: s.Address})
			expect(t, r, target)
			if text := Script(r); !strings.Contains(text, "-- keep its definition first (SHOW CREATE …), then: DROP TRIGGER") || strings.Contains(text, "\nDROP") {
				t.Errorf("script:\n%s", text)
			}
			s.Exec(t, "SET GLOBAL event_scheduler = ON")
			defer s.Exec(t, "SET GLOBAL event_scheduler = OFF")
			target["target.events"] = "mandatory"
			r = Target(ctx, s.DB(), TargetOptions{Address: s.Address})
			expect(t, r, target)
			r.Accept([]string{"target.events", "target.triggers"})
			if bad := r.Failed(Mandatory); !f.IsMariaDB() && len(bad) > 0 {
				t.Errorf("accepted, and still %v", bad)
			}
		})
	}
}

func TestStandby(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			primary := mysqltest.Start(t, f)
			standby := mysqltest.Start(t, f)
			if err := standby.ReplicateFrom(ctx, primary); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"source.standby": "", "source.log_replica_updates": "ok", "source.commit_order": "ok", "source.read_only": "advisory"}
			expect(t, Source(ctx, standby.DB(), SourceOptions{Address: standby.Address, ServerID: 77}), want)
			standby.Exec(t, "SET GLOBAL read_only = ON", "STOP REPLICA")
			if !f.IsMariaDB() {
				standby.Exec(t, "SET GLOBAL replica_preserve_commit_order = OFF")
				want["source.commit_order"] = "mandatory"
			}
			want["source.standby"], want["source.read_only"] = "advisory", "ok"
			expect(t, Source(ctx, standby.DB(), SourceOptions{Address: standby.Address}), want)
			// The standby is registered at its primary under its own id.
			standby.Exec(t, "START REPLICA")
			id := uint32(0)
			if _, err := fmt.Sscan(standby.Value(t, "SELECT @@server_id"), &id); err != nil {
				t.Fatal(err)
			}
			deadline := time.Now().Add(20 * time.Second)
			for {
				r := Source(ctx, primary.DB(), SourceOptions{Address: primary.Address, ServerID: id})
				if states(r)["source.server_id"] == "advisory" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the clash is not seen:\n%s", dump(r))
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
}

func TestGap(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			s := mysqltest.Start(t, f)
			ctx := context.Background()
			s.Exec(t, "CREATE DATABASE d")
			early, err := s.GTIDs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s.Exec(t, "CREATE DATABASE e", "FLUSH BINARY LOGS")
			logs := s.Query(t, "SHOW BINARY LOGS")
			all, err := s.GTIDs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			r := Source(ctx, s.DB(), SourceOptions{Address: s.Address, Logged: early})
			expect(t, r, map[string]string{"source.gap": "ok"})
			// MariaDB keeps a file until InnoDB has no more need of it.
			for deadline := time.Now().Add(20 * time.Second); len(s.Query(t, "SHOW BINARY LOGS")) > 1 && time.Now().Before(deadline); {
				s.Exec(t, "PURGE BINARY LOGS TO '"+logs[len(logs)-1][0]+"'")
				time.Sleep(50 * time.Millisecond)
			}
			r = Source(ctx, s.DB(), SourceOptions{Address: s.Address, Logged: early})
			expect(t, r, map[string]string{"source.gap": "mandatory"})
			r = Source(ctx, s.DB(), SourceOptions{Address: s.Address, Logged: all})
			expect(t, r, map[string]string{"source.gap": "ok"})
		})
	}
}

func TestPair(t *testing.T) {
	ctx := context.Background()
	a, _ := mysqltest.Shared(t, mysqltest.MySQL97)
	b, _ := mysqltest.Shared(t, mysqltest.MariaDB1011)
	r := Target(ctx, b.DB(), TargetOptions{Address: b.Address, Source: a.DB()})
	expect(t, r, map[string]string{"target.pairing": "ok", "target.flavor": "advisory", "target.lower_case_table_names": ""})
	for _, s := range []*mysqltest.Server{a, b} {
		r = Target(ctx, s.DB(), TargetOptions{Address: s.Address, Source: s.DB()})
		expect(t, r, map[string]string{"target.pairing": "mandatory"})
	}
}

func TestUnreachableAndWrongPassword(t *testing.T) {
	s, _ := mysqltest.Shared(t, mysqltest.MariaDB1011)
	for name, e := range map[string]server.Endpoint{
		"nobody listens": {Address: "127.0.0.1:1", User: "x"},
		"wrong password": {Address: s.Address, User: "root", Password: "wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := server.Open(e, server.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			r := Source(context.Background(), db, SourceOptions{Address: e.Address})
			if r.Err == nil || strings.Contains(r.Error, "\n") || len(r.Findings) > 0 {
				t.Errorf("%s", dump(r))
			}
		})
	}
}

func TestGrantLines(t *testing.T) {
	g := &grants{account: quoteAccount("o'neill@%.example"), on: map[string][]string{}}
	for _, line := range []string{
		"GRANT REPLICATION SLAVE, SELECT (`a`), INSERT ON *.* TO `u`@`%`",
		"GRANT ALL PRIVILEGES ON `pay\\_%`.* TO `u`@`%`",
		"GRANT UPDATE ON `one`.* TO `u`@`%` WITH GRANT OPTION",
		"GRANT DELETE ON `one`.`t` TO `u`@`%`",
		"GRANT `role`@`%` TO `u`@`%`",
		"GRANT PROXY ON ``@`` TO `u`@`%`",
	} {
		g.add(line)
	}
	for _, c := range []struct {
		privilege, scope string
		want             bool
	}{
		{"INSERT", "*.*", true}, {"INSERT", "x.*", true}, {"SELECT", "*.*", false},
		{"SELECT", "pay_eu.*", true}, {"SELECT", "payeu.*", false}, {"CONNECTION_ADMIN", "pay_eu.*", false},
		{"UPDATE", "one.*", true}, {"UPDATE", "*.*", false}, {"DELETE", "one.*", false},
	} {
		if got := g.has(c.privilege, c.scope); got != c.want {
			t.Errorf("%s on %s: %v", c.privilege, c.scope, got)
		}
	}
	if s := g.statement("a`b.*", []string{"SELECT"}); s != "GRANT SELECT ON `a``b`.* TO 'o''neill'@'%.example'" {
		t.Error(s)
	}
}

func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	expect(t, Node(filepath.Join(dir, "not", "yet"), 64<<20), map[string]string{"node.dir": "ok"})
	expect(t, Node(dir, 1<<60), map[string]string{"node.space": "mandatory"})
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	expect(t, Node(file, 1), map[string]string{"node.dir": "mandatory"})
	expect(t, Process([]Secret{{Key: "source.password_file", Path: file}}), map[string]string{"process.file": "advisory"})
	expect(t, Process([]Secret{{Key: "source.password_file", Path: file + "x"}}), map[string]string{"process.file": "mandatory"})
}
