package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

const (
	applyTables    = 8
	applyTableRows = 10000
	nativeWorkers  = "4"
)

// apply times how fast a backlog reaches the target: native replication with
// four workers and relay log already fetched, against our consumer and lanes with
// the log already filled. Both targets have full durability; they take turns, and
// the one that is not measured stands still.
func apply(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp("", "twinspan-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // scratch
	run := func(opts ...mysqltest.Option) (*mysqltest.Server, error) {
		o := mysqltest.Options{Flavor: mysqltest.MySQL97, Durable: true}
		for _, f := range append(opts, mysqltest.With("innodb-buffer-pool-size", "512M"), mysqltest.With("innodb-redo-log-capacity", "512M")) {
			f(&o)
		}
		return mysqltest.Run(ctx, o)
	}
	source, err := run(mysqltest.With("sync-binlog", "0"), mysqltest.With("innodb-flush-log-at-trx-commit", "2"))
	if err != nil {
		return err
	}
	defer closing(source)
	native, err := run(mysqltest.With("replica-parallel-workers", nativeWorkers))
	if err != nil {
		return err
	}
	defer closing(native)
	target, err := run()
	if err != nil {
		return err
	}
	defer closing(target)
	if err := native.ReplicateFrom(ctx, source); err != nil {
		return err
	}
	p, err := startPipeline(ctx, s.binary, dir, source, target)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := applyPrepare(ctx, source.DB()); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(uint64(s.seed), 1))
	everywhere := func(want gtid.Set) error {
		return errors.Join(awaitNative(ctx, native, want), p.await(ctx, want))
	}
	if err := settled(ctx, source, everywhere); err != nil {
		return err
	}

	var nat, own []float64
	fmt.Printf("apply: %d tables of %d rows, %d row changes a round, MySQL 9.7, full durability, native with %s workers\n",
		applyTables, applyTableRows, s.rows, nativeWorkers)
	for round := range s.rounds {
		if _, err := native.DB().ExecContext(ctx, "STOP REPLICA SQL_THREAD"); err != nil {
			return err
		}
		p.freeze()
		changes, err := applyLoad(ctx, source.DB(), rng, s.rows)
		if err != nil {
			return err
		}
		want, err := executed(ctx, source)
		if err != nil {
			return err
		}
		if err := errors.Join(awaitFetched(ctx, native, want), p.awaitLogged(ctx, want)); err != nil {
			return err
		}
		timeNative := func() (float64, float64, error) {
			cpu, began := cpuSeconds(native.PID()), time.Now()
			if _, err := native.DB().ExecContext(ctx, "START REPLICA SQL_THREAD"); err != nil {
				return 0, 0, err
			}
			err := awaitNative(ctx, native, want)
			return float64(changes) / time.Since(began).Seconds(), (cpuSeconds(native.PID()) - cpu) / float64(changes) * 1e6, err
		}
		var cpuTwinspan float64
		timeOwn := func() (float64, float64, error) {
			cpu, mine, began := cpuSeconds(target.PID()), cpuSeconds(p.consumer.Process.Pid), time.Now()
			p.thaw()
			err := p.await(ctx, want)
			cpuTwinspan = (cpuSeconds(p.consumer.Process.Pid) - mine) / float64(changes) * 1e6
			return float64(changes) / time.Since(began).Seconds(), (cpuSeconds(target.PID()) - cpu) / float64(changes) * 1e6, err
		}
		var n, o, cn, co float64
		var err1, err2 error
		if round%2 == 0 {
			n, cn, err1 = timeNative()
			o, co, err2 = timeOwn()
		} else {
			o, co, err2 = timeOwn()
			n, cn, err1 = timeNative()
		}
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		nat, own = append(nat, n), append(own, o)
		fmt.Printf("  round %d: native %7.0f rows/s (mysqld %4.0f µs/row)   twinspan %7.0f rows/s (mysqld %4.0f µs/row, twinspan %4.0f)   ratio %.2f\n",
			round+1, n, cn, o, co, cpuTwinspan, o/n)
	}
	fmt.Printf("RESULT bench-apply native_rows_per_second=%.0f twinspan_rows_per_second=%.0f ratio=%.2f\n", median(nat), median(own), median(own)/median(nat))
	return nil
}

func closing(s *mysqltest.Server) {
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

func applyPrepare(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, "CREATE DATABASE bench"); err != nil {
		return err
	}
	for t := range applyTables {
		if _, err := db.ExecContext(ctx, fmt.Sprintf("CREATE TABLE bench.sbtest%d (id INT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY k (k))", t)); err != nil {
			return err
		}
		for from := 1; from <= applyTableRows; from += 1000 {
			var b strings.Builder
			fmt.Fprintf(&b, "INSERT INTO bench.sbtest%d VALUES ", t)
			for id := from; id < from+1000; id++ {
				if id > from {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, "(%d,%d,REPEAT('%c',119),REPEAT('p',59))", id, id%997, 'a'+rune(id%26))
			}
			if _, err := db.ExecContext(ctx, b.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyLoad is the classic OLTP write mix: per transaction two updates, one
// delete, one insert of the same row. It returns the row changes it made.
func applyLoad(ctx context.Context, db *sql.DB, rng *rand.Rand, rows int) (int, error) {
	done := 0
	for done < rows {
		t, a, b, c := rng.IntN(applyTables), rng.IntN(applyTableRows)+1, rng.IntN(applyTableRows)+1, rng.IntN(applyTableRows)+1
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return done, err
		}
		for _, q := range []string{
			fmt.Sprintf("UPDATE bench.sbtest%d SET k=k+1 WHERE id=%d", t, a),
			fmt.Sprintf("UPDATE bench.sbtest%d SET c=REPEAT('%c',%d) WHERE id=%d", t, 'a'+rune(done%26), 60+done%60, b),
			fmt.Sprintf("DELETE FROM bench.sbtest%d WHERE id=%d", t, c),
			fmt.Sprintf("INSERT INTO bench.sbtest%d VALUES (%d,%d,REPEAT('n',119),REPEAT('q',59))", t, c, done),
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return done, errors.Join(err, tx.Rollback())
			}
			done++
		}
		if err := tx.Commit(); err != nil {
			return done, err
		}
	}
	return done, nil
}

func executed(ctx context.Context, s *mysqltest.Server) (gtid.Set, error) {
	return globalSet(ctx, s, "SELECT @@GLOBAL.gtid_executed")
}

func globalSet(ctx context.Context, s *mysqltest.Server, query string) (gtid.Set, error) {
	var text string
	if err := s.DB().QueryRowContext(ctx, query).Scan(&text); err != nil {
		return gtid.New("mysql"), err
	}
	return gtid.Parse("mysql", text)
}

func settled(ctx context.Context, source *mysqltest.Server, everywhere func(gtid.Set) error) error {
	want, err := executed(ctx, source)
	if err != nil {
		return err
	}
	return everywhere(want)
}

const patience = 5 * time.Minute

// until polls every few milliseconds.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	began := time.Now()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Since(began) > patience {
			return fmt.Errorf("%s: not there after %s", what, patience)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func awaitNative(ctx context.Context, native *mysqltest.Server, want gtid.Set) error {
	return until(ctx, "native replica", func() (bool, error) {
		have, err := executed(ctx, native)
		return have.Contains(want), err
	})
}

func awaitFetched(ctx context.Context, native *mysqltest.Server, want gtid.Set) error {
	return until(ctx, "native replica's relay log", func() (bool, error) {
		rows, err := native.DB().QueryContext(ctx, "SHOW REPLICA STATUS")
		if err != nil {
			return false, err
		}
		defer func() { _ = rows.Close() }() // read only
		names, err := rows.Columns()
		if err != nil || !rows.Next() {
			return false, errors.Join(err, rows.Err())
		}
		cells, into := make([]sql.NullString, len(names)), make([]any, len(names))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return false, err
		}
		for i, n := range names {
			if n == "Retrieved_Gtid_Set" {
				have, err := gtid.Parse("mysql", cells[i].String)
				if err != nil {
					return false, err
				}
				done, err := executed(ctx, native)
				if err == nil {
					err = have.Union(done)
				}
				return have.Contains(want), err
			}
		}
		return false, errors.New("SHOW REPLICA STATUS has no Retrieved_Gtid_Set")
	})
}

// cpuSeconds is user and system time of a process, in seconds.
func cpuSeconds(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	u, _ := strconv.ParseFloat(f[11], 64)
	k, _ := strconv.ParseFloat(f[12], 64)
	return (u + k) / 100
}

// pipeline is two processes of the built binary: the producer with its log node,
// and the consumer, which can be stopped while a backlog builds up.
type pipeline struct {
	upstream, consumer *exec.Cmd
	target             *mysqltest.Server
	config             string
	binary             string
}

func startPipeline(ctx context.Context, binary, dir string, source, target *mysqltest.Server) (*pipeline, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	node, admin1, admin2 := freeAddress(), freeAddress(), freeAddress()
	up := fmt.Sprintf("stream: bench\ncity: a\nroles: [producer, node]\ndata_dir: %s/a\nadmin: {listen: %s}\nnode: {listen: %s}\nlog: {nodes: [%s]}\n"+
		"source: {address: %s, user: root}\nproducer: {start: earliest}\n", dir, admin1, node, node, source.Address)
	down := fmt.Sprintf("stream: bench\ncity: b\nroles: [consumer]\ndata_dir: %s/b\nadmin: {listen: %s}\nlog: {nodes: [%s]}\n"+
		"target: {address: %s, user: root}\nconsumer: {group: city-b}\n", dir, admin2, node, target.Address)
	p := &pipeline{target: target, binary: binary, config: filepath.Join(dir, "up.yaml")}
	if err := os.WriteFile(p.config, []byte(up), 0o600); err != nil {
		return nil, err
	}
	downFile := filepath.Join(dir, "down.yaml")
	if err := os.WriteFile(downFile, []byte(down), 0o600); err != nil {
		return nil, err
	}
	start := func(name, file string) (*exec.Cmd, error) {
		out, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			return nil, err
		}
		defer func() { _ = out.Close() }() // the child has its own descriptor
		c := exec.CommandContext(ctx, binary, "run", "-c", file)
		c.Stdout, c.Stderr = out, out
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return c, c.Start()
	}
	if p.upstream, err = start("upstream", p.config); err != nil {
		return nil, err
	}
	if p.consumer, err = start("consumer", downFile); err != nil {
		return nil, err
	}
	return p, nil
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // loopback without a free port
	}
	defer func() { _ = l.Close() }() // only the number was wanted
	return l.Addr().String()
}

func (p *pipeline) freeze() { _ = p.consumer.Process.Signal(syscall.SIGSTOP) }
func (p *pipeline) thaw()   { _ = p.consumer.Process.Signal(syscall.SIGCONT) }

func (p *pipeline) stop() {
	for _, c := range []*exec.Cmd{p.consumer, p.upstream} {
		_ = c.Process.Signal(syscall.SIGCONT)
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	}
}

// awaitLogged waits until the log holds the set, by the producer's own status.
func (p *pipeline) awaitLogged(ctx context.Context, want gtid.Set) error {
	return until(ctx, "producer", func() (bool, error) {
		out, err := exec.CommandContext(ctx, p.binary, "status", "-c", p.config, "-o", "json").Output()
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		var d admin.Document
		if err := json.Unmarshal(out, &d); err != nil || d.Producer == nil {
			return false, err
		}
		have, err := gtid.Parse("mysql", d.Producer.GTIDSet)
		return have.Contains(want), err
	})
}

func (p *pipeline) await(ctx context.Context, want gtid.Set) error {
	return until(ctx, "twinspan's target", func() (bool, error) {
		var text string
		err := p.target.DB().QueryRowContext(ctx, "SELECT gtid_set FROM twinspan.progress WHERE stream = 'bench'").Scan(&text)
		if err != nil {
			return false, nil //nolint:nilerr // not there yet
		}
		have, err := gtid.Parse("mysql", text)
		return have.Contains(want), err
	})
}
