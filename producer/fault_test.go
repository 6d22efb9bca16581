package producer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
)

// TestLogFails: appends fail at random, stored or not; the log is away for a
// while; the producer loses and doubles nothing.
func TestLogFails(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 3))
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (n BIGINT PRIMARY KEY, client INT NOT NULL, of_client INT NOT NULL, in_tx INT NOT NULL, pad VARCHAR(200))")
			l := newMemLog()
			injected := 0
			l.fail = func(log.Draft) (error, bool) {
				if injected < 60 && r.IntN(8) == 0 {
					injected++
					return fmt.Errorf("%w: %w", log.ErrUnknown, errInjected), r.IntN(2) == 0
				}
				return nil, false
			}
			ctx, cancel := context.WithCancel(context.Background())
			var clients sync.WaitGroup
			for c := range 2 {
				rnd := rand.New(rand.NewPCG(seed, uint64(c)+10))
				clients.Go(func() { load(ctx, t, srv.DB(), rnd, c) })
			}
			p := start(t, srv, l, func(c *Config) {
				c.Start, c.BatchBytesMax, c.TransactionChunkBytes, c.BackoffMax = StartEarliest, 4<<10, 8<<10, 5*time.Millisecond
			})
			time.Sleep(2 * time.Second)
			l.mu.Lock()
			l.refuse = log.ErrUnavailable
			l.mu.Unlock()
			time.Sleep(300 * time.Millisecond)
			l.mu.Lock()
			l.refuse = nil
			l.mu.Unlock()
			cancel()
			clients.Wait()
			p.holds(t, srv)
			txs := readLog(t, string(f.Server()), l.all())
			once(t, txs)
			checkLoad(t, srv, txs)
			inBinlogOrder(t, srv, txs)
			if injected == 0 {
				t.Error("no failure was injected")
			}
			t.Logf("injected=%d transactions=%d epochs=%d", injected, len(txs), p.Status().Epoch)
		})
	}
}

// TestServerRestarts: the server is frozen, killed and restarted under load.
func TestServerRestarts(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB118} {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")
			l := newMemLog()
			p := start(t, srv, l, func(c *Config) { c.Start, c.Binlog.ReadTimeout = StartEarliest, 600*time.Millisecond })
			p.holds(t, srv)
			n := 0
			some := func() {
				for range 20 {
					srv.Exec(t, fmt.Sprintf("INSERT INTO d.t (v) VALUES (%d)", n))
					n++
				}
			}
			some()
			// A link that is dead without a word is noticed by its silence.
			if err := srv.Freeze(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the silence is noticed", func() bool { return !p.Status().Connected })
			if s := p.Status(); s.State != StateTrouble || s.LastError == "" {
				t.Errorf("%+v", s)
			}
			if err := srv.Thaw(); err != nil {
				t.Fatal(err)
			}
			some()
			p.holds(t, srv)
			for range 3 {
				some()
				if err := srv.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := srv.Restart(context.Background()); err != nil {
					t.Fatal(err)
				}
				some()
			}
			p.holds(t, srv)
			if s := p.Status(); s.State != StateRunning || s.LastError != "" {
				t.Errorf("%+v", s)
			}
			txs := readLog(t, string(f.Server()), l.all())
			once(t, txs)
			next := 0
			for _, x := range txs {
				for _, row := range x.rows {
					if got := row.After[1].Integer(); got != int64(next) {
						t.Fatalf("%s: row %d where %d was next", x.gtid, got, next)
					}
					next++
				}
			}
			if next != n {
				t.Errorf("%d rows in the log, want %d", next, n)
			}
		})
	}
}

// TestBrokenOff: the connection ends again and again within a transaction of which
// parts are in the log. It begins anew under another epoch each time (readLog).
func TestBrokenOff(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB118} {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(450))", "INSERT INTO d.t (v) VALUES (REPEAT('x',450))")
			for range 16 {
				srv.Exec(t, "INSERT INTO d.t (v) SELECT v FROM d.t")
			}
			l := newMemLog()
			const breaks = 3
			parts, broken := 0, 0
			l.fail = func(d log.Draft) (error, bool) { // called by one appender at a time
				switch {
				case d.EndsTransaction:
					parts = 0
				case d.Topic == log.TopicData:
					parts++
				}
				// Of the last one, 15 MB, far more is to come then than sockets hold.
				if parts < 20 || broken == breaks {
					return nil, false
				}
				for _, row := range srv.Query(t, "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'") {
					srv.Exec(t, "KILL "+row[0])
				}
				parts, broken = 0, broken+1
				return nil, false
			}
			p := start(t, srv, l, func(c *Config) { c.Start, c.TransactionChunkBytes = StartEarliest, 64<<10 })
			p.holds(t, srv)
			if broken != breaks {
				t.Fatalf("the connection was broken %d times, want %d", broken, breaks)
			}
			txs := readLog(t, string(f.Server()), l.all())
			once(t, txs)
			rows := 0
			for _, x := range txs {
				rows += len(x.rows)
			}
			if rows != 1<<16 {
				t.Errorf("%d rows in the log, want %d", rows, 1<<16)
			}
			epochs, all := map[log.Epoch]bool{}, l.all()
			for _, e := range all {
				epochs[e.Epoch] = true
			}
			if len(epochs) < 2 {
				t.Errorf("%d epochs: no transaction was broken off", len(epochs))
			}
		})
	}
}

// TestUnowned: a producer that begins a transaction anew sees that another one took
// the stream over.
func TestUnowned(t *testing.T) {
	l := newMemLog()
	p := &Producer{log: l, cfg: Config{Stream: "s"}}
	w, err := l.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.unowned(t.Context(), w.Epoch()); err != nil {
		t.Errorf("its own stream: %v", err)
	}
	if _, err := l.OpenWriter(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if err := p.unowned(t.Context(), w.Epoch()); !errors.Is(err, log.ErrFenced) {
		t.Errorf("another's: %v", err)
	}
}

// files lists the server's binlogs, oldest first.
func files(t *testing.T, s *mysqltest.Server) []string {
	t.Helper()
	var out []string
	for _, r := range s.Query(t, "SHOW BINARY LOGS") {
		out = append(out, filepath.Join(s.Dir, "data", r[0]))
	}
	return out
}

// TestHoleInTheBinlog: a binlog file in the middle is lost, and the index knows
// nothing of it.
func TestHoleInTheBinlog(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "FLUSH BINARY LOGS",
				"INSERT INTO d.t VALUES (1)", "INSERT INTO d.t VALUES (2)", "FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (3)")
			lost := files(t, srv)[1]
			index := filepath.Join(srv.Dir, "data", "binlog.index")
			if err := srv.Stop(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(index)
			if err != nil {
				t.Fatal(err)
			}
			var kept []string
			for _, line := range strings.SplitAfter(string(b), "\n") {
				if !strings.Contains(line, filepath.Base(lost)) {
					kept = append(kept, line)
				}
			}
			if err := os.WriteFile(index, []byte(strings.Join(kept, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := srv.Restart(context.Background()); err != nil {
				t.Fatal(err)
			}
			l := newMemLog()
			p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
			p.halts(t, binlog.HaltGap)
			for _, x := range readLog(t, string(f.Server()), l.all()) {
				if len(x.rows) > 0 {
					t.Errorf("%s was shipped", x.gtid)
				}
			}
		})
	}
}

// TestDamagedBinlog: a byte of a row event is wrong on the server's disk.
func TestDamagedBinlog(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(50))", "INSERT INTO d.t VALUES (1,'before')",
				"INSERT INTO d.t VALUES (2,'damaged-from-here')", "INSERT INTO d.t VALUES (3,'after')", "FLUSH BINARY LOGS")
			for _, path := range files(t, srv) {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				s := strings.ReplaceAll(string(b), "damaged-from", "damagEd-from")
				if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l := newMemLog()
			p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
			p.halts(t, binlog.HaltDecode)
			got := story(t, string(f.Server()), l)
			if !strings.HasSuffix(got, "d.t insert >1,before\n") {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// TestSplitBrain: MariaDB lets a session commit under a number that was used.
func TestSplitBrain(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f, mysqltest.With("gtid-strict-mode", "OFF"))
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
			p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
			p.holds(t, srv)
			srv.Exec(t, "SET SESSION server_id=77, SESSION gtid_seq_no=2", "INSERT INTO d.t VALUES (2)")
			p.halts(t, binlog.HaltSplitBrain)
		})
	}
}

// TestErrant: a transaction that began on the standby; and after the primary has
// it, too, it is none.
func TestErrant(t *testing.T) {
	primary, standby := mysqltest.Start(t, mysqltest.MySQL97), mysqltest.Start(t, mysqltest.MySQL97)
	if err := standby.ReplicateFrom(context.Background(), primary); err != nil {
		t.Fatal(err)
	}
	primary.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	set, err := primary.GTIDs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := standby.WaitForGTIDs(context.Background(), set); err != nil {
		t.Fatal(err)
	}
	l := newMemLog()
	e := primary.Endpoint()
	p := start(t, standby, l, func(c *Config) { c.Start, c.Binlog.Primary = StartEarliest, &e })
	p.holds(t, standby)
	standby.Exec(t, "INSERT INTO d.t VALUES (2)")
	errant := newest(t, standby)
	if h := p.halts(t, binlog.HaltErrant); h.GTID != errant && !strings.Contains(standby.Value(t, "SELECT @@GLOBAL.gtid_executed"), h.GTID[:36]) {
		t.Errorf("halted at %s, want %s", h.GTID, errant)
	}
	if got := story(t, "mysql", l); strings.Contains(got, ">2") {
		t.Errorf("got:\n%s", got)
	}
	primary.Exec(t, "SET SESSION gtid_next='"+p.Status().Halt.GTID+"'", "INSERT INTO d.t VALUES (2)", "SET SESSION gtid_next='AUTOMATIC'")
	eventually(t, "the halt heals", func() bool { p.Recheck(); return p.Status().State == StateRunning })
	p.holds(t, standby)
}
