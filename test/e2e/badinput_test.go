package e2e

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/test/harness"
)

// pair is one source and one target, without a standby: enough to see what bad
// input does.
func pair(t *testing.T, f mysqltest.Flavor, set map[harness.Role][]string, source ...mysqltest.Option) *scene {
	t.Helper()
	s := &scene{primary: mysqltest.Start(t, f, source...), target: mysqltest.Start(t, f)}
	s.between(t, s.primary, s.target, set, nil)
	return s
}

func (s *scene) start(t *testing.T) {
	t.Helper()
	if err := s.pipeline.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// awaitHalt returns the halt when the role has halted with the code.
func (s *scene) awaitHalt(t *testing.T, r harness.Role, code string) *harness.Halt {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		h, err := s.pipeline.Halted(r)
		if err != nil {
			t.Fatal(err)
		}
		if h != nil {
			if h.Code != code || h.Detail == "" || h.Remedy == "" {
				t.Fatalf("%s: %v; wanted %s with detail and remedy", r, h, code)
			}
			t.Log(h)
			return h
		}
		if time.Now().After(end) {
			t.Fatalf("%s has not halted with %s:\n%s", r, code, s.pipeline.Log(r, 10))
		}
	}
}

// awaitLog returns when a role has said the words.
func (s *scene) awaitLog(t *testing.T, r harness.Role, words string) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); !strings.Contains(s.pipeline.Log(r, 200), words); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s has not said %q:\n%s", r, words, s.pipeline.Log(r, 10))
		}
	}
}

var someRows = []string{"CREATE DATABASE d", "USE d", "CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1,1),(2,2),(3,3)"}

// TestRefused: what cannot be replicated exactly stops the producer by name,
// everything before it arrives, and nothing after it is skipped to.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, code string
		statements []string
	}{
		{"statement-format", "STATEMENT", []string{"SET SESSION binlog_format = 'STATEMENT'", "UPDATE t SET v = 10 WHERE id = 1"}},
		{"minimal-image", "PARTIAL_IMAGE", []string{"SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE t SET v = 10 WHERE id = 1"}},
	} {
		for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB118} {
			t.Run(c.name+"/"+string(f), func(t *testing.T) {
				s := pair(t, f, nil)
				s.start(t)
				s.primary.Exec(t, someRows...)
				s.settle(t.Context(), t)
				s.primary.Exec(t, append([]string{"USE d"}, c.statements...)...)
				s.primary.Exec(t, "UPDATE d.t SET v = 30 WHERE id = 3")
				s.awaitHalt(t, harness.Producer, c.code)
				if got := s.target.Value(t, "SELECT GROUP_CONCAT(v ORDER BY id) FROM d.t"); got != "1,2,3" {
					t.Errorf("rows on the target: %s", got)
				}
			})
		}
	}
}

func TestServerWithoutBinlogOrGTIDs(t *testing.T) {
	t.Run("no-binlog", func(t *testing.T) {
		s := &scene{primary: mysqltest.Start(t, mysqltest.MySQL97, mysqltest.Without("log-bin", "log-replica-updates"), mysqltest.WithArgs("--skip-log-bin", "--log-replica-updates=OFF")), target: mysqltest.Start(t, mysqltest.MySQL97)}
		s.between(t, s.primary, s.target, nil, nil)
		s.start(t)
		s.awaitHalt(t, harness.Producer, "PREFLIGHT")
	})
	t.Run("no-gtids", func(t *testing.T) {
		s := pair(t, mysqltest.MySQL97, nil, mysqltest.With("gtid_mode", "OFF"), mysqltest.With("enforce_gtid_consistency", "OFF"))
		s.primary.Exec(t, someRows...)
		s.start(t)
		s.awaitHalt(t, harness.Producer, "PREFLIGHT")
	})
}

// TestPurgedGTIDs: what the server has thrown away is a gap, never skipped.
func TestPurgedGTIDs(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			s := pair(t, f, nil)
			s.start(t)
			s.primary.Exec(t, someRows...)
			s.settle(t.Context(), t)
			if err := s.pipeline.Kill(harness.Producer); err != nil {
				t.Fatal(err)
			}
			s.primary.Exec(t, "UPDATE d.t SET v = 10 WHERE id = 1", "FLUSH BINARY LOGS", "UPDATE d.t SET v = 20 WHERE id = 2", "FLUSH BINARY LOGS")
			// A server keeps what the dead producer's session still reads.
			for _, session := range s.primary.Query(t, "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'") {
				s.primary.Exec(t, "KILL "+session[0])
			}
			for logs := s.primary.Query(t, "SHOW BINARY LOGS"); len(logs) > 1; logs = s.primary.Query(t, "SHOW BINARY LOGS") {
				s.primary.Exec(t, "PURGE BINARY LOGS TO '"+logs[len(logs)-1][0]+"'")
				time.Sleep(50 * time.Millisecond)
			}
			s.primary.Exec(t, "UPDATE d.t SET v = 30 WHERE id = 3")
			s.start(t)
			s.awaitHalt(t, harness.Producer, "GAP")
			if got := s.target.Value(t, "SELECT GROUP_CONCAT(v ORDER BY id) FROM d.t"); got != "1,2,3" {
				t.Errorf("rows on the target: %s", got)
			}
		})
	}
}

// TestAccounts: a refused login or a missing privilege is said, and once it is
// mended everything goes on by itself.
func TestAccounts(t *testing.T) {
	source := map[harness.Role][]string{harness.Producer: {"source.user=reader", "source.password=secret"}}
	s := pair(t, mysqltest.MySQL97, source)
	s.primary.Exec(t, "CREATE USER reader IDENTIFIED BY 'other'", "GRANT SELECT ON *.* TO reader")
	s.primary.Exec(t, someRows...)
	s.start(t)
	s.awaitLog(t, harness.Producer, "Access denied")
	s.primary.Exec(t, "ALTER USER reader IDENTIFIED BY 'secret'")
	s.awaitLog(t, harness.Producer, "REPLICATION SLAVE")
	s.primary.Exec(t, "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO reader")
	// A halted role looks again every half minute.
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		if got, err := s.target.DB().QueryContext(ctx, "SELECT id FROM d.t WHERE id = 3"); err == nil {
			found := got.Next()
			_ = got.Close()
			if found {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the producer has not recovered:\n%s", s.pipeline.Log(harness.Producer, 10))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TestTargetAway: a target that is down for a while loses nothing, and one whose
// table is gone is told by name.
func TestTargetAway(t *testing.T) {
	s := pair(t, mysqltest.MySQL97, nil)
	s.start(t)
	s.primary.Exec(t, someRows...)
	s.settle(t.Context(), t)
	if err := s.target.Kill(); err != nil {
		t.Fatal(err)
	}
	s.primary.Exec(t, "UPDATE d.t SET v = v + 1", "CREATE TABLE d.u (id INT PRIMARY KEY)", "INSERT INTO d.u VALUES (1)")
	time.Sleep(2 * time.Second)
	if err := s.target.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.settle(t.Context(), t)
	if got := s.target.Value(t, "SELECT (SELECT SUM(v) FROM d.t) + (SELECT COUNT(*) FROM d.u)"); got != "10" {
		t.Errorf("rows on the target: %s", got)
	}

	s.target.Exec(t, "RENAME TABLE d.t TO d.hidden")
	s.primary.Exec(t, "INSERT INTO d.t VALUES (4,4)")
	s.awaitHalt(t, harness.Consumer, "TABLE_MISSING")
	s.target.Exec(t, "RENAME TABLE d.hidden TO d.t")
	if err := s.pipeline.Kill(harness.Consumer); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	s.settle(t.Context(), t)
	if got := s.target.Value(t, "SELECT COUNT(*) FROM d.t"); got != "4" {
		t.Errorf("rows on the target: %s", got)
	}
}

// TestGarbageOnTheNodesPort: the node hangs up on what is not its protocol and
// goes on serving.
func TestGarbageOnTheNodesPort(t *testing.T) {
	s := pair(t, mysqltest.MySQL97, nil)
	s.start(t)
	s.primary.Exec(t, someRows...)
	noise := make([]byte, 1<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for name, bytes := range map[string][]byte{
		"noise": noise, "http": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "zeros": make([]byte, 1<<16),
		"huge-length": append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, noise[:100]...), "nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", s.pipeline.NodeAddress())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write(bytes) // the node may hang up in the middle
			if err := c.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			for { // until it hangs up
				if _, err := c.Read(noise); err != nil {
					if os.IsTimeout(err) {
						t.Error("the node keeps the connection")
					}
					break
				}
			}
		})
	}
	s.primary.Exec(t, "INSERT INTO d.t VALUES (9,9)")
	s.settle(t.Context(), t)
}

// TestWrongConfiguration: refused before anything starts, with the line.
func TestWrongConfiguration(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown-key", "stream: s\nroles: [node]\nnode:\n  lissten: 127.0.0.1:1\n", ":4:"},
		{"bad-unit", "stream: s\nroles: [node]\nnode:\n  journal_file_bytes: 64 parsecs\n", ":4:"},
		{"missing-stream", "roles: [node]\n", "stream"},
		{"no-yaml", "stream: [\n", ":"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "twinspan.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(binary, "run", "-c", path).CombinedOutput()
			exit, ok := err.(*exec.ExitError) //nolint:errorlint // exec returns it bare
			if !ok || exit.ExitCode() != 2 || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: wanted exit code 2 and %q in:\n%s", err, c.want, out)
			}
		})
	}
}
