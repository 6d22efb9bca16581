package applier

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/internal/history"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

var (
	liveSeed    = flag.Uint64("live-seed", 0, "replay this history on the servers; 0: by the clock")
	liveChanges = flag.Int("live-changes", 8000, "changes of a history on the servers")
)

// liveHistory makes the history of a seed; parent and child processes make the
// same.
func liveHistory(seed uint64, flavor server.Flavor, changes int) (*history.Generator, []string, []fed) {
	g := history.New(rand.New(rand.NewPCG(seed, 7)))
	g.Spread, g.Bulk, g.DDL = 40, 250, true
	if flavor == server.MariaDB {
		g.Collations = []string{"utf8mb4_general_ci", "utf8mb4_unicode_ci", "utf8mb4_bin", "utf8mb4_unicode_520_ci"}
	}
	var tables []history.Table
	for len(tables) < 5 { // with foreign keys, please
		tables = g.Schema()
		for i := range tables {
			tables[i].Def.PrimaryKey = nil
		}
		if tables[0].Rep.Table == "" {
			tables = nil
			continue
		}
		more := history.New(g.Rand)
		more.Collations, more.Spread = g.Collations, g.Spread
		for len(tables) < 5 {
			for _, t := range more.Schema() {
				if t.Rep.Table == "" {
					t.Def.Name.Table = fmt.Sprintf("t%d", len(tables))
					tables = append(tables, t)
				}
			}
		}
	}
	tables = append(tables, history.Bulk("dense", true), history.Bulk("heap", false))
	g.DB = history.NewDatabase(tables)
	var create []string
	for i := range tables {
		create = append(create, tables[i].SQL())
	}
	var out []fed
	var t *fed
	n := 0
	for _, s := range g.History(changes) {
		if t == nil {
			n++
			t = &fed{place: s.Place, t: change.Transaction{GTID: fmt.Sprintf("0-1-%d", n), CommitTime: time.Now(), ServerID: 1}}
			if flavor == server.MySQL {
				t.t.GTID = fmt.Sprintf("3e11fa47-71ca-11e1-9e33-c80aa9429562:%d", n)
			}
		}
		switch {
		case s.DDL != "":
			t.t.DDL = &change.DDL{Text: s.DDL, CharsetClient: 45, CollationConnection: 45, CollationServer: 45, Timestamp: time.Now()}
		case s.Row != nil:
			if t.t.Rows = append(t.t.Rows, *s.Row); len(t.t.Rows) == partRows {
				part := *t
				part.t.Continued = true
				out = append(out, part)
				t.place.Index += partRows
				t.t.Rows, t.t.Continues = nil, true
			}
		default:
			out = append(out, *t)
			t = nil
		}
	}
	return g, create, out
}

// partRows is how many rows of a transaction are fed at once.
const partRows = 70

func lastPlace(h []fed) change.Place {
	end := h[len(h)-1]
	p := end.place
	p.Index += int32(len(end.t.Rows))
	if end.t.DDL != nil {
		p.Index++
	}
	return p
}

// difference compares the target with what the history leads to.
func difference(ctx context.Context, srv *mysqltest.Server, g *history.Generator) string {
	for i := range g.DB.Tables {
		t := &g.DB.Tables[i]
		var want, got []string
		for _, r := range g.DB.Rows[i] {
			want = append(want, history.Text(r))
		}
		rows, err := srv.DB().QueryContext(ctx, t.Query())
		if err != nil {
			return err.Error()
		}
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				return err.Error()
			}
			got = append(got, s)
		}
		if err := rows.Err(); err != nil {
			return err.Error()
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			return fmt.Sprintf("%s (%s)\nhas  %v\nwant %v", t.Def.Name, t.SQL(), got, want)
		}
	}
	return ""
}

func liveConfig(srv *mysqltest.Server, lanes int) Config {
	return Config{Stream: "live", Target: srv.Endpoint(), Lanes: lanes, BatchRows: 20, WindowBytes: 1 << 20,
		ProgressInterval: 20 * time.Millisecond, Lease: 4 * time.Second}
}

func liveServer(t *testing.T, f mysqltest.Flavor, opts ...mysqltest.Option) (*mysqltest.Server, uint64, *history.Generator, []fed) {
	seed := *liveSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -live-seed=%d", seed)
	srv := mysqltest.Start(t, f, opts...)
	g, create, h := liveHistory(seed, f.Server(), *liveChanges)
	srv.Exec(t, append([]string{"CREATE DATABASE hist"}, create...)...)
	return srv, seed, g, h
}

// noDoubt: with places that skip what is durable, no change of ours ever meets
// a state that it was not logged in, whatever broke on the way.
func noDoubt(t *testing.T, s Status) {
	t.Helper()
	if s.InsertFound+s.UpdateMissing+s.DeleteMissing > 0 {
		t.Errorf("changes met another state than the log's: %+v", s)
	}
}

// TestChaosOnServers applies a history while connections are killed, the server
// is restarted and crashes, and the applier is replaced by one with other lanes.
func TestChaosOnServers(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) { chaos(t, f) })
	}
}

// TestTargetLosesCommits: the server crashes, and its last commits are gone, for
// it does not write its log at each of them. The applier finds out before it
// writes on top of that, and resumes from what the server has.
func TestTargetLosesCommits(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			regressed := chaos(t, f, mysqltest.With("innodb-flush-log-at-trx-commit", "0"), mysqltest.WithArgs("--skip-log-bin"),
				mysqltest.Without("log-bin", "log-replica-updates", "log-slave-updates", "gtid-mode", "enforce-gtid-consistency"))
			t.Logf("%d times the applier found less than had been confirmed", regressed)
		})
	}
}

// chaos answers how often an applier ended with ErrRegressed.
func chaos(t *testing.T, f mysqltest.Flavor, opts ...mysqltest.Option) (regressed int) {
	srv, seed, g, h := liveServer(t, f, opts...)
	rng := rand.New(rand.NewPCG(seed, 9))
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	last := lastPlace(h)
	did := map[string]int{}
	for attempt := 0; ; attempt++ {
		a, err := New(liveConfig(srv, 1+rng.IntN(8)), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		life, end := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()
		fedAll := make(chan bool, 1)
		go func() { fedAll <- feedAll(life, a, h, last) }()
		var reached bool
		for alive := true; alive; {
			select {
			case reached = <-fedAll:
				alive = false
			case <-time.After(time.Duration(20+rng.IntN(150)) * time.Millisecond):
				k := rng.IntN(10)
				switch {
				case attempt > 8 || k < 2:
				case k < 4 && len(opts) == 0: // else it takes no time
					did["kill at COMMIT"] += killAtCommit(ctx, srv)
				case k < 7:
					did["kill connections"]++
					killConnections(ctx, srv)
				case k == 7:
					did["crash server"]++
					if err := srv.Kill(); err != nil {
						t.Error(err)
					}
					if err := srv.Restart(ctx); err != nil {
						t.Fatal(err)
					}
				default:
					did["replace applier"]++
					end()
				}
			}
		}
		noDoubt(t, a.Status())
		if s := a.Status(); len(s.Halts) > 0 {
			t.Fatalf("halted: %+v", s.Halts)
		}
		end()
		if err := <-ran; errors.Is(err, ErrRegressed) && len(opts) > 0 {
			regressed++
		} else if err != nil {
			t.Errorf("Run: %v", err)
		}
		if ctx.Err() != nil {
			t.Fatalf("not finished: %+v", a.Status())
		}
		if reached {
			break
		}
	}
	if d := difference(ctx, srv, g); d != "" {
		t.Error(d)
	}
	t.Logf("%v", did)
	set := srv.Value(t, "SELECT gtid_set FROM twinspan.progress WHERE stream = 'live'")
	n := 0
	for _, f := range h {
		if !f.t.Continued {
			n++
		}
	}
	if !strings.HasSuffix(set, fmt.Sprint("-", n)) {
		t.Errorf("applied %q after %d transactions", set, n)
	}
	return regressed
}

// killConnections ends every client's connection at whatever it is doing.
func killConnections(ctx context.Context, srv *mysqltest.Server) { killWhere(ctx, srv, "TRUE") }

// killWhere ends the clients' connections that a condition holds for, and says how many.
func killWhere(ctx context.Context, srv *mysqltest.Server, condition string) (killed int) {
	rows, err := srv.DB().QueryContext(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND USER = 'root' AND "+condition)
	if err != nil {
		return 0
	}
	var ids []int64
	for rows.Next() {
		var id int64
		if rows.Scan(&id) == nil {
			ids = append(ids, id)
		}
	}
	if rows.Err() != nil {
		return 0 // the server is on its way down: as good
	}
	for _, id := range ids {
		// A connection that is gone already is as good as killed.
		if _, err := srv.DB().ExecContext(ctx, fmt.Sprintf("KILL %d", id)); err == nil {
			killed++
		}
	}
	return killed
}

// killAtCommit ends the first connections that are seen in their COMMIT, which the
// server is told to take its time over, and says how many.
func killAtCommit(ctx context.Context, srv *mysqltest.Server) (killed int) {
	slow := map[string]int{"binlog_group_commit_sync_delay": 20_000}
	if srv.Flavor.Server() == server.MariaDB {
		slow = map[string]int{"binlog_commit_wait_usec": 20_000, "binlog_commit_wait_count": 100}
	}
	for name, v := range slow {
		// A server that is down gets over it by itself.
		_, _ = srv.DB().ExecContext(ctx, fmt.Sprintf("SET GLOBAL %s = %d", name, v))
		defer func() { _, _ = srv.DB().ExecContext(ctx, fmt.Sprintf("SET GLOBAL %s = 0", name)) }()
	}
	for range 30 {
		if killed = killWhere(ctx, srv, "INFO = 'COMMIT'"); killed > 0 {
			return killed
		}
		time.Sleep(5 * time.Millisecond)
	}
	return 0
}

const childEnv = "TWINSPAN_TEST_APPLIER"

// TestChild is the applier that TestKilledProcess kills.
func TestChild(t *testing.T) {
	var addr, flavor string
	var seed uint64
	var changes, lanes int
	if _, err := fmt.Sscan(os.Getenv(childEnv), &addr, &flavor, &seed, &changes, &lanes); err != nil {
		return // only as a child process
	}
	_, _, h := liveHistory(seed, server.Flavor(flavor), changes)
	cfg := Config{Stream: "live", Target: server.Endpoint{Address: addr, User: "root"}, Lanes: lanes, BatchRows: 20,
		ProgressInterval: 20 * time.Millisecond, Lease: 4 * time.Second}
	a, err := New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	ok := feedAll(ctx, a, h, lastPlace(h))
	noDoubt(t, a.Status())
	cancel()
	if err := <-ran; err != nil || !ok {
		t.Fatalf("fed: %v, Run: %v", ok, err)
	}
}

// TestKilledProcess kills the applier's process with SIGKILL again and again.
func TestKilledProcess(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			srv, seed, g, h := liveServer(t, f)
			rng := rand.New(rand.NewPCG(seed, 11))
			ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
			defer cancel()
			kills := 0
			for {
				c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestChild$", "-test.v")
				c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %d", childEnv, srv.Address, f.Server(), seed, *liveChanges, 1+rng.IntN(6)))
				var out strings.Builder
				c.Stdout, c.Stderr = &out, &out
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				var timer *time.Timer
				if kills < 8 {
					timer = time.AfterFunc(time.Duration(80+rng.IntN(320))*time.Millisecond, func() { _ = c.Process.Kill() })
				}
				err := c.Wait()
				if timer != nil {
					timer.Stop()
				}
				if err == nil {
					break
				}
				if !strings.Contains(err.Error(), "killed") {
					t.Fatalf("%v\n%s", err, out.String())
				}
				kills++
			}
			if d := difference(ctx, srv, g); d != "" {
				t.Error(d)
			}
			t.Logf("%d kills, %d transactions", kills, len(h))
		})
	}
}
