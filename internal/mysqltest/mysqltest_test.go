package mysqltest

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { Main(m, func() error { return goleak.Find() }) }

func TestStart(t *testing.T) {
	for _, f := range Flavors() {
		t.Run(string(f), func(t *testing.T) {
			began := time.Now()
			s := Start(t, f)
			t.Logf("ready after %s", time.Since(began))
			s.Exec(t, "CREATE DATABASE d", "USE d", "CREATE TABLE t (a INT PRIMARY KEY, b TEXT)", "INSERT INTO t VALUES (1, NULL)")
			if got := s.Query(t, "SELECT * FROM d.t"); len(got) != 1 || got[0][0] != "1" || got[0][1] != Null {
				t.Fatalf("rows: %v", got)
			}
			for name, want := range map[string]string{
				"binlog_format": "ROW", "binlog_row_image": "FULL", "binlog_row_metadata": "FULL", "log_bin": "1",
			} {
				if got := s.Value(t, "SELECT @@global."+name); got != want {
					t.Errorf("%s is %s, want %s", name, got, want)
				}
			}
			// What was committed survives a crash.
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := s.Restart(context.Background(), With("max_connections", "77")); err != nil {
				t.Fatal(err)
			}
			if got := s.Value(t, "SELECT COUNT(*) FROM d.t"); got != "1" {
				t.Errorf("rows after a crash: %s", got)
			}
			if got := s.Value(t, "SELECT @@max_connections"); got != "77" {
				t.Errorf("changed setting: %s", got)
			}
		})
	}
}

func TestReplicateFrom(t *testing.T) {
	for _, f := range Flavors() {
		t.Run(string(f), func(t *testing.T) {
			ctx := context.Background()
			primary, replica := Start(t, f), Start(t, f)
			primary.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
			if err := replica.ReplicateFrom(ctx, primary); err != nil {
				t.Fatal(err)
			}
			if err := replica.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			primary.Exec(t, "INSERT INTO d.t VALUES (2)")
			set, err := primary.GTIDs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := replica.WaitForGTIDs(ctx, set); err != nil {
				t.Fatal(err)
			}
			if got := replica.Value(t, "SELECT COUNT(*) FROM d.t"); got != "2" {
				t.Errorf("rows on the replica: %s", got)
			}
		})
	}
}

func TestSharedIsOneServerWithManySchemas(t *testing.T) {
	one, a := Shared(t, MySQL97)
	two, b := Shared(t, MySQL97)
	if one != two || a == b {
		t.Errorf("servers %s, %s; schemas %s, %s", one.Address, two.Address, a, b)
	}
	other, _ := Shared(t, MySQL97, With("lower_case_table_names", "1"))
	if other == one || other.Value(t, "SELECT @@lower_case_table_names") != "1" {
		t.Errorf("a server with other settings is the same one")
	}
}

func TestMissingServerNamesTheInstaller(t *testing.T) {
	t.Setenv("TWINSPAN_SERVERS", t.TempDir())
	_, err := Run(context.Background(), Options{Flavor: MySQL97})
	if err == nil || !strings.Contains(err.Error(), "scripts/servers.sh mysql97") {
		t.Fatalf("error: %v", err)
	}
}

func TestBadSettingShowsTheServersWords(t *testing.T) {
	_, err := Run(context.Background(), Options{Flavor: MySQL97, Args: []string{"--no-such-option=1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Fatalf("error: %v", err)
	}
}

func TestSweepRemovesOnlyTheDead(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"1-dead", "2-alive", "3-unowned"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "1-dead", "owner"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := lockFile(filepath.Join(root, "2-alive", "owner"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sweep(root)
	for d, want := range map[string]bool{"1-dead": false, "2-alive": true, "3-unowned": true} {
		if _, err := os.Stat(filepath.Join(root, d)); (err == nil) != want {
			t.Errorf("%s exists: %v, want %v", d, err == nil, want)
		}
	}
}

// A server that is not Durable still keeps every commit it has answered, whatever
// kills it.
func TestCommitsSurviveKill(t *testing.T) {
	for _, f := range Flavors() {
		t.Run(string(f), func(t *testing.T) {
			s := Start(t, f)
			s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.c (id INT PRIMARY KEY, n BIGINT)", "INSERT INTO d.c VALUES (0,0),(1,0),(2,0)")
			var acked [3]int64 // one for each client
			for round := range 4 {
				var clients sync.WaitGroup
				for k := range acked {
					clients.Go(func() {
						for {
							if _, err := s.DB().Exec("UPDATE d.c SET n = ? WHERE id = ?", acked[k]+1, k); err != nil {
								return // killed
							}
							acked[k]++
						}
					})
				}
				time.Sleep(time.Duration(50+50*round) * time.Millisecond)
				if err := s.Kill(); err != nil {
					t.Fatal(err)
				}
				clients.Wait()
				if err := s.Restart(context.Background()); err != nil {
					t.Fatal(err)
				}
				for k := range acked {
					n, err := strconv.ParseInt(s.Value(t, "SELECT n FROM d.c WHERE id = ?", k), 10, 64)
					if err != nil {
						t.Fatal(err)
					}
					if n < acked[k] {
						t.Errorf("round %d: client %d was told %d commits, the server has %d", round, k, acked[k], n)
					}
					acked[k] = n
				}
			}
		})
	}
}
