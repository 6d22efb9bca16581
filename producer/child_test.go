package producer

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/producer/binlog"
)

const (
	childLog    = "TWINSPAN_TEST_CHILD_LOG"
	childServer = "TWINSPAN_TEST_CHILD_SERVER"
	childNode   = "TWINSPAN_TEST_CHILD_NODE"   // the log is a real node's folder, not a file
	childForget = "TWINSPAN_TEST_CHILD_FORGET" // the producer's own defaults, and no payload kept
)

// runChild runs this test binary as a producer process when it is told to.
func runChild() bool {
	path := os.Getenv(childLog)
	if path == "" {
		return false
	}
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	var l log.Log
	var file *memLog
	var err error
	if os.Getenv(childNode) != "" {
		var n *node.Node
		if n, err = openNode(path); err == nil {
			go func() { fail(n.Run(context.Background())) }()
			l = n.Log()
		}
	} else {
		file, err = openFileLog(path)
		l = file
	}
	if err != nil {
		fail(err)
	}
	cfg := Config{
		Stream: "s", Start: StartEarliest, BatchBytesMax: 4 << 10, TransactionChunkBytes: 8 << 10, BackoffMax: 100 * time.Millisecond,
		Binlog: binlog.Config{Server: server.Endpoint{Address: os.Getenv(childServer), User: "root"}, Heartbeat: 200 * time.Millisecond},
	}
	if os.Getenv(childForget) != "" {
		file.forget, cfg.BatchBytesMax, cfg.TransactionChunkBytes = true, 0, 0
	}
	p, err := New(cfg, l, zerolog.New(os.Stderr))
	if err != nil {
		fail(err)
	}
	if err := p.Run(context.Background()); err != nil {
		fail(err)
	}
	return true
}

// openNode opens a storage node, again as long as the one before holds its folder.
func openNode(dir string) (*node.Node, error) {
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		n, err := node.New(node.Config{Name: "n", Dir: dir, FileBytes: 4 << 20, Logger: zerolog.Nop()})
		if err == nil || time.Since(start) > 10*time.Second {
			return n, err
		}
	}
}

func spawnChild(t testing.TB, addr, path string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), childLog+"="+path, childServer+"="+addr)
	var out bytes.Buffer
	c.Stderr = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, &out
}

// TestKillLoop kills a producer process at random points under load. The log
// must hold every transaction once, in the order of the binlog, with all rows.
func TestKillLoop(t *testing.T) {
	t.Run("mysql97/file", func(t *testing.T) { killLoop(t, mysqltest.MySQL97, false) })
	t.Run("mysql97/node", func(t *testing.T) { killLoop(t, mysqltest.MySQL97, true) })
	t.Run("mariadb118/node", func(t *testing.T) { killLoop(t, mysqltest.MariaDB118, true) })
}

func killLoop(t *testing.T, f mysqltest.Flavor, real bool) {
	if real {
		t.Setenv(childNode, "1")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("TWINSPAN_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	kills := 25
	if testing.Short() {
		kills = 6
	}
	t.Logf("TWINSPAN_SEED=%d, %d kills", seed, kills)
	r := rand.New(rand.NewPCG(seed, 1))
	srv := mysqltest.Start(t, f)
	srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (n BIGINT PRIMARY KEY, client INT NOT NULL, of_client INT NOT NULL, in_tx INT NOT NULL, pad VARCHAR(200))")
	path := filepath.Join(t.TempDir(), "log")

	// Clients commit transactions of random size; every row says which
	// transaction of which client it belongs to.
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for c := range 3 {
		rnd := rand.New(rand.NewPCG(seed, uint64(c)+10))
		clients.Go(func() { load(ctx, t, srv.DB(), rnd, c) })
	}
	for range kills {
		child, out := spawnChild(t, srv.Address, path)
		time.Sleep(time.Duration(r.IntN(250)) * time.Millisecond)
		if err := child.Process.Kill(); err != nil {
			t.Fatalf("kill: %v: %s", err, out)
		}
		var exit *exec.ExitError
		if err := child.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		} else if exit != nil && exit.Exited() {
			t.Fatalf("the child ended by itself: %s", out)
		}
	}
	cancel()
	clients.Wait()

	l := reopen(t, path, real)
	p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
	p.holds(t, srv)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	entries := entriesOf(t, l)
	txs := readLog(t, string(f.Server()), entries)
	once(t, txs)
	checkLoad(t, srv, txs)
	inBinlogOrder(t, srv, txs)
	want, err := srv.GTIDs(ctx)
	if err != nil {
		want, err = srv.GTIDs(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	held := gtid.New(string(f.Server()))
	parts, rows := 0, 0
	for _, x := range txs {
		if err := held.Add(x.gtid); err != nil {
			t.Fatal(err)
		}
		rows += len(x.rows)
		if x.parts > 1 {
			parts++
		}
	}
	if set, err := gtid.Parse(string(f.Server()), want); err != nil || !held.Equal(set) {
		t.Errorf("the log holds %s, the server has %s (%v)", held, want, err)
	}
	t.Logf("kills=%d entries=%d transactions=%d in_parts=%d rows=%d lost=0 doubled=0", kills, len(entries), len(txs), parts, rows)
}

// reopen opens what a killed child has left.
func reopen(t *testing.T, path string, real bool) log.Log {
	t.Helper()
	if !real {
		l, err := openFileLog(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.file.Close() })
		return l
	}
	n, err := openNode(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n.Log()
}

func load(ctx context.Context, t *testing.T, db *sql.DB, r *rand.Rand, client int) {
	for n := 0; ctx.Err() == nil; n++ {
		size := 1 + r.IntN(4)
		if r.IntN(20) == 0 {
			size = 200 + r.IntN(400) // several parts
		}
		var b strings.Builder
		for i := range size {
			fmt.Fprintf(&b, ",(%d,%d,%d,%d,REPEAT('x',%d))", int64(client)<<40|int64(n)<<16|int64(i), client, n, i, r.IntN(120))
		}
		if _, err := db.ExecContext(context.Background(), "INSERT INTO d.t VALUES "+b.String()[1:]); err != nil {
			t.Errorf("client %d: %v", client, err)
			return
		}
		time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
	}
}

// checkLoad compares the log with the table, row by row, and checks that each
// client's transactions are in its order.
func checkLoad(t *testing.T, srv *mysqltest.Server, txs []whole) {
	t.Helper()
	next := map[int64]int64{}
	have := map[int64]string{}
	for _, x := range txs {
		for i, row := range x.rows {
			v := row.After
			client, n, in := v[1].Integer(), v[2].Integer(), v[3].Integer()
			if in != int64(i) {
				t.Fatalf("%s: row %d of the transaction is in place %d", x.gtid, in, i)
			}
			if n != next[client] {
				t.Fatalf("%s: transaction %d of client %d where %d was next", x.gtid, n, client, next[client])
			}
			have[v[0].Integer()] = texts(v)
			_ = change.Insert
		}
		if len(x.rows) > 0 {
			next[x.rows[0].After[1].Integer()]++
		}
	}
	rows := srv.Query(t, "SELECT n, CONCAT_WS(',', n, client, of_client, in_tx, pad) FROM d.t")
	if len(rows) != len(have) {
		t.Errorf("%d rows on the server, %d in the log", len(rows), len(have))
	}
	for _, r := range rows {
		n, err := strconv.ParseInt(r[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if have[n] != r[1] {
			t.Fatalf("row %d is %q on the server and %q in the log", n, r[1], have[n])
		}
	}
}
