package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// apply times how fast a backlog reaches the target: native replication with its
// relay log already fetched, in turn with each number of workers, against our
// consumer and lanes with the log already filled. Both targets have full
// durability; they take turns, and the one that is not measured stands still.
func apply(ctx context.Context, s settings) error {
	var behind []string
	for _, w := range workloads {
		if s.workload != "" && !strings.Contains(","+s.workload+",", ","+w.name+",") {
			continue
		}
		ok, err := applyOne(ctx, s, w)
		if err != nil {
			return fmt.Errorf("workload %s: %w", w.name, err)
		}
		if !ok {
			behind = append(behind, w.name)
		}
	}
	if len(behind) > 0 && s.strict {
		return fmt.Errorf("below their target: %s", strings.Join(behind, ", "))
	}
	return nil
}

// arena is the servers of one workload, and our processes between them.
type arena struct {
	flavor                 mysqltest.Flavor
	source, native, target *mysqltest.Server
	pipeline               *pipeline
	dir                    string
	profile                string // folder for CPU profiles of our consumer; "": none
}

func (a *arena) close() {
	if a.pipeline != nil {
		a.pipeline.stop()
	}
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

// sample is one timed application of a backlog.
type sample struct {
	rate     float64 // row changes a second
	server   float64 // CPU µs of the target's mysqld per row change
	twinspan float64 // CPU µs of our consumer per row change
	resident float64 // MiB, the most our consumer had
}

func applyOne(ctx context.Context, s settings, w workload) (bool, error) {
	atomicity := "row"
	if w.name == transactionMode {
		atomicity = "transaction"
	}
	a, err := newArena(ctx, s, atomicity)
	if err != nil {
		return false, err
	}
	defer a.close()
	rows := max(1, int(float64(w.rows)*s.scale))
	if err := w.prepare(ctx, a.source.DB(), s.scale); err != nil {
		return false, err
	}
	want, err := a.source.GTIDs(ctx)
	if err != nil {
		return false, err
	}
	if err := errors.Join(a.native.WaitForGTIDs(ctx, want), a.pipeline.await(ctx, a.flavor, want)); err != nil {
		return false, err
	}
	rng := rand.New(rand.NewPCG(uint64(s.seed), 1))
	fmt.Printf("apply %s: %s; %d row changes a round, %s, full durability\n", w.name, w.title, rows, s.flavor)
	native := map[int][]sample{}
	var own []sample
	for round := range s.rounds {
		for turn, workers := range nativeWorkers {
			n, o, err := a.round(ctx, w, rng, rows, workers, (round+turn)%2 == 0)
			if err != nil {
				return false, err
			}
			native[workers], own = append(native[workers], n), append(own, o)
			fmt.Printf("  round %d: native, %d workers %8.0f rows/s (mysqld %5.1f µs/row)   twinspan %8.0f rows/s (mysqld %5.1f µs/row, twinspan %5.1f, %.0f MiB)\n",
				round+1, workers, n.rate, n.server, o.rate, o.server, o.twinspan, o.resident)
		}
	}
	rate := func(v []sample) float64 {
		var out []float64
		for _, x := range v {
			out = append(out, x.rate)
		}
		return median(out)
	}
	best, bestWorkers := 0.0, 0
	for _, n := range nativeWorkers {
		if r := rate(native[n]); r > best {
			best, bestWorkers = r, n
		}
	}
	mine, most := rate(own), 0.0
	for _, o := range own {
		most = max(most, o.resident)
	}
	target := w.target
	if s.flavor.IsMariaDB() {
		target = w.targetMariaDB
	}
	fmt.Printf("RESULT bench-apply workload=%s flavor=%s native_rows_per_second=%.0f native_workers=%d twinspan_rows_per_second=%.0f ratio=%.2f target=%.1f resident_mib_max=%.0f\n",
		w.name, s.flavor, best, bestWorkers, mine, mine/best, target, most)
	return mine >= target*best, nil
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
	changes, err := w.load(ctx, a.source.DB(), rng, rows)
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
		profiled := a.profileOwn(w.name)
		err := errors.Join(a.pipeline.await(ctx, a.flavor, want), profiled())
		o = sample{
			rate: float64(changes) / time.Since(began).Seconds(), server: (cpuSeconds(a.target.PID()) - cpu) * per,
			twinspan: (cpuSeconds(pid) - mine) * per, resident: residentMost(pid),
		}
		return err
	}
	if nativeFirst {
		err = timeNative()
		return n, o, errors.Join(err, timeOwn())
	}
	err = timeOwn()
	return n, o, errors.Join(err, timeNative())
}

// profileOwn takes a CPU profile of our consumer, of two seconds, where one is
// wanted; the answer waits for it.
func (a *arena) profileOwn(name string) func() error {
	if a.profile == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1) // owner: the goroutine below; one value
	go func() {
		out, err := os.Create(filepath.Join(a.profile, "apply-"+name+".pprof"))
		if err != nil {
			done <- err
			return
		}
		r, err := http.Get("http://" + a.pipeline.admin + "/debug/pprof/profile?seconds=2")
		if err == nil {
			_, err = io.Copy(out, r.Body)
			err = errors.Join(err, r.Body.Close())
		}
		done <- errors.Join(err, out.Close())
	}()
	return func() error { return <-done }
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

// pipeline is two processes of the built binary: the producer with its log node,
// and the consumer, which can be stopped while a backlog builds up.
type pipeline struct {
	upstream, consumer *exec.Cmd
	target             *mysqltest.Server
	config             string
	binary             string
	admin              string // address of the consumer's HTTP server
}

func startPipeline(ctx context.Context, binary, dir, atomicity string, source, target *mysqltest.Server) (*pipeline, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	node, admin1, admin2 := freeAddress(), freeAddress(), freeAddress()
	up := fmt.Sprintf("stream: bench\ncity: a\nroles: [producer, node]\ndata_dir: %s/a\nadmin: {listen: %s}\nnode: {listen: %s}\nlog: {nodes: [%s]}\n"+
		"source: {address: %s, user: root}\nproducer: {start: earliest}\n", dir, admin1, node, node, source.Address)
	down := fmt.Sprintf("stream: bench\ncity: b\nroles: [consumer]\ndata_dir: %s/b\nadmin: {listen: %s, pprof: true}\nlog: {nodes: [%s]}\n"+
		"target: {address: %s, user: root, tls: {mode: disabled}}\nconsumer: {group: city-b}\napply: {atomicity: %s}\n", dir, admin2, node, target.Address, atomicity)
	p := &pipeline{target: target, binary: binary, admin: admin2, config: filepath.Join(dir, "up.yaml")}
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
func (p *pipeline) awaitLogged(ctx context.Context, f mysqltest.Flavor, want string) error {
	return until(ctx, "producer", func() (bool, error) {
		out, err := exec.CommandContext(ctx, p.binary, "status", "-c", p.config, "-o", "json").Output()
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		var d admin.Document
		if err := json.Unmarshal(out, &d); err != nil || d.Producer == nil {
			return false, err
		}
		return contains(f, d.Producer.GTIDSet, want)
	})
}

func (p *pipeline) await(ctx context.Context, f mysqltest.Flavor, want string) error {
	return until(ctx, "twinspan's target", func() (bool, error) {
		var text string
		err := p.target.DB().QueryRowContext(ctx, "SELECT gtid_set FROM twinspan.progress WHERE stream = 'bench'").Scan(&text)
		if err != nil {
			return false, nil //nolint:nilerr // not there yet
		}
		return contains(f, text, want)
	})
}
