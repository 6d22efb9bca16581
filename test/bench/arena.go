package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// arena is the servers of one workload, and our processes between them.
type arena struct {
	flavor                 mysqltest.Flavor
	source, native, target *mysqltest.Server
	pipeline               *pipeline
	loader                 *loader // of the source
	dir                    string
	profile                string // folder for profiles of our consumer; "": none
	// took is how long our consumer took the last time, and how often it was timed.
	took struct {
		last time.Duration
		n    int
	}
}

func (a *arena) close() {
	if a.pipeline != nil {
		a.pipeline.stop()
	}
	a.loader.close()
	for _, srv := range []*mysqltest.Server{a.target, a.native, a.source} {
		if srv != nil {
			closing(srv)
		}
	}
	_ = os.RemoveAll(a.dir) // scratch
}

func newArena(ctx context.Context, s settings, atomicity string) (a *arena, err error) {
	a = &arena{flavor: s.flavor}
	if a.dir, err = os.MkdirTemp("", "twinspan-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	run := func(opts ...mysqltest.Option) (*mysqltest.Server, error) {
		o := mysqltest.Options{Flavor: s.flavor, Durable: true}
		opts = append(opts, mysqltest.With("innodb-buffer-pool-size", "1G"))
		if s.flavor.IsMariaDB() {
			opts = append(opts, mysqltest.With("innodb-log-file-size", "512M"))
		} else {
			opts = append(opts, mysqltest.With("innodb-redo-log-capacity", "1G"))
		}
		for _, f := range opts {
			f(&o)
		}
		return mysqltest.Run(ctx, o)
	}
	if a.source, err = run(mysqltest.With("sync-binlog", "0"), mysqltest.With("innodb-flush-log-at-trx-commit", "2")); err != nil {
		return a, err
	}
	if a.native, err = run(); err != nil {
		return a, err
	}
	if a.target, err = run(); err != nil {
		return a, err
	}
	if a.loader, err = newLoader(ctx, a.source); err != nil {
		return a, err
	}
	if err = a.native.ReplicateFrom(ctx, a.source); err != nil {
		return a, err
	}
	a.pipeline, err = startPipeline(ctx, s.binary, a.dir, atomicity, a.source, a.target)
	a.profile = s.profile
	return a, err
}

// nativeSQL stops or starts the native applier alone; the relay log goes on.
func (a *arena) nativeSQL(ctx context.Context, verb string) error {
	what := " REPLICA SQL_THREAD"
	if a.flavor.IsMariaDB() {
		what = " SLAVE SQL_THREAD"
	}
	_, err := a.native.DB().ExecContext(ctx, verb+what)
	return err
}

// workers sets how many workers the stopped native applier will have.
func (a *arena) workers(ctx context.Context, n int) error {
	if !a.flavor.IsMariaDB() {
		_, err := a.native.DB().ExecContext(ctx, fmt.Sprintf("SET GLOBAL replica_parallel_workers = %d", n))
		return err
	}
	// Only while the receiver stands still, too. One worker is the serial applier.
	if n == 1 {
		n = 0
	}
	for _, q := range []string{"STOP SLAVE", fmt.Sprintf("SET GLOBAL slave_parallel_threads = %d", n), "START SLAVE IO_THREAD"} {
		if _, err := a.native.DB().ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// round makes a backlog and has both apply it.
func (a *arena) round(ctx context.Context, w workload, rng *rand.Rand, rows, workers int, nativeFirst bool) (n, o sample, err error) {
	if err = a.nativeSQL(ctx, "STOP"); err != nil {
		return n, o, err
	}
	if err = a.workers(ctx, workers); err != nil {
		return n, o, err
	}
	a.pipeline.freeze()
	changes, err := w.load(ctx, a.loader, rng, rows)
	if err != nil {
		return n, o, err
	}
	want, err := a.source.GTIDs(ctx)
	if err != nil {
		return n, o, err
	}
	if err = errors.Join(a.awaitFetched(ctx, want), a.pipeline.awaitLogged(ctx, a.flavor, want)); err != nil {
		return n, o, err
	}
	per := 1e6 / float64(changes)
	timeNative := func() error {
		cpu, began := cpuSeconds(a.native.PID()), time.Now()
		if err := a.nativeSQL(ctx, "START"); err != nil {
			return err
		}
		err := a.native.WaitForGTIDs(ctx, want)
		n = sample{rate: float64(changes) / time.Since(began).Seconds(), server: (cpuSeconds(a.native.PID()) - cpu) * per}
		return err
	}
	timeOwn := func() error {
		pid := a.pipeline.consumer.Process.Pid
		cpu, mine, began := cpuSeconds(a.target.PID()), cpuSeconds(pid), time.Now()
		a.pipeline.thaw()
		profiled := a.profileOwn(fmt.Sprintf("%s-%d", w.name, a.took.n))
		err := a.pipeline.await(ctx, a.flavor, want)
		a.took.last, a.took.n = time.Since(began), a.took.n+1
		o = sample{
			rate: float64(changes) / a.took.last.Seconds(), server: (cpuSeconds(a.target.PID()) - cpu) * per,
			twinspan: (cpuSeconds(pid) - mine) * per, resident: residentMost(pid),
		}
		return errors.Join(err, profiled())
	}
	if nativeFirst {
		err = timeNative()
		return n, o, errors.Join(err, timeOwn())
	}
	err = timeOwn()
	return n, o, errors.Join(err, timeNative())
}

// profileOwn takes profiles of our consumer, where they are wanted: of its CPU for
// most of the time that it will take, and then of its memory. What it answers with
// waits for them.
func (a *arena) profileOwn(name string) func() error {
	if a.profile == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1) // owner: the goroutine below; one value
	seconds := max(1, int(a.took.last.Seconds()*0.8))
	go func() {
		done <- errors.Join(a.fetch(fmt.Sprintf("profile?seconds=%d", seconds), "apply-"+name+".pprof"), a.fetch("heap", "apply-"+name+"-heap.pprof"))
	}()
	return func() error { return <-done }
}

// fetch stores what our consumer's profiler answers.
func (a *arena) fetch(what, file string) error {
	r, err := http.Get("http://" + a.pipeline.admin + "/debug/pprof/" + what)
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }() // was read to its end
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.profile, file), b, 0o600)
}

// nativeWorkers are the numbers of workers that native replication is given.
var nativeWorkers = []int{1, 4, 8}

// residentMost is the most memory the process had resident, in MiB.
func residentMost(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib float64
	_, _ = fmt.Sscan(rest, &kib)
	return kib / 1024
}

func closing(s *mysqltest.Server) {
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
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

// awaitFetched waits until the native replica has all of it in its relay log.
func (a *arena) awaitFetched(ctx context.Context, want string) error {
	q, column := "SHOW REPLICA STATUS", "Retrieved_Gtid_Set"
	if a.flavor.IsMariaDB() {
		q, column = "SHOW SLAVE STATUS", "Gtid_IO_Pos"
	}
	return until(ctx, "native replica's relay log", func() (bool, error) {
		rows, err := a.native.DB().QueryContext(ctx, q)
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
		i := slices.Index(names, column)
		if i < 0 {
			return false, fmt.Errorf("%s has no %s", q, column)
		}
		have, err := gtid.Parse(string(a.flavor.Server()), cells[i].String)
		if err != nil {
			return false, err
		}
		done, err := a.native.GTIDs(ctx)
		if err != nil {
			return false, err
		}
		executed, err := gtid.Parse(string(a.flavor.Server()), done)
		if err == nil {
			err = have.Union(executed)
		}
		if err != nil {
			return false, err
		}
		return contains(a.flavor, have.String(), want)
	})
}

func contains(f mysqltest.Flavor, have, want string) (bool, error) {
	h, err := gtid.Parse(string(f.Server()), have)
	if err != nil {
		return false, err
	}
	w, err := gtid.Parse(string(f.Server()), want)
	return h.Contains(w), err
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
