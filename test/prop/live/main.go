// Command live plays random histories on real servers through the built twinspan,
// while its processes and the servers beside them are killed with SIGKILL at random
// points. Native replication of the same source runs beside it. After each history
// every row of source, native replica and target is compared, by twinspan verify and
// by means that share no code with it; the balances of a bank must add up whenever
// the target has all of a GTID set, and in transaction mode, which every second
// history uses, at every instant.
//
// Its last line is a RESULT. Exit codes: 0 all is well, 1 it could not be finished, 2
// usage, 3 a breach.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

type settings struct {
	binary  string
	n       int
	seed    uint64
	slice   time.Duration
	slices  int
	flavors []mysqltest.Flavor
}

func main() {
	s := settings{}
	flavors := ""
	flag.StringVar(&s.binary, "twinspan", "bin/twinspan", "the built `binary`")
	flag.IntVar(&s.n, "n", 20, "histories, of every flavour")
	flag.Uint64Var(&s.seed, "seed", 0, "of the first history; 0: by the clock. With -n 1 it replays one")
	flag.DurationVar(&s.slice, "slice", 3*time.Second, "load between two looks at the bank")
	flag.IntVar(&s.slices, "slices", 2, "such looks in a history")
	flag.StringVar(&flavors, "flavor", "mysql97,mariadb1011,mariadb118", "servers")
	flag.Parse()
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano() % 1e9)
	}
	for name := range strings.SplitSeq(flavors, ",") {
		f, err := mysqltest.ParseFlavor(name)
		if err != nil || flag.NArg() > 0 {
			fmt.Fprintln(os.Stderr, "prop-live:", err, flag.Args())
			os.Exit(2)
		}
		s.flavors = append(s.flavors, f)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, s)
	stop()
	os.Exit(code)
}

// result is what was counted.
type result struct {
	histories, kills, drained, instants                    int
	transactions, rows, ddl, differences, native, breaches int64
	lost, doubled, disorder                                int
}

func (r result) good() bool {
	return r.differences+r.native+r.breaches == 0 && r.lost+r.doubled+r.disorder == 0
}

func run(ctx context.Context, s settings) int {
	began := time.Now()
	var all result
	var failed error
	for _, f := range s.flavors {
		if err := flavor(ctx, s, f, &all); err != nil {
			failed = fmt.Errorf("%s: %w", f, err)
			break
		}
		if !all.good() {
			break
		}
	}
	if failed != nil {
		fmt.Fprintln(os.Stderr, "prop-live:", failed)
	}
	fmt.Printf("RESULT prop-live histories=%d seed=%d transactions=%d rows=%d ddl=%d kills=%d drained_sums=%d instants=%d differences=%d native_differences=%d sum_breaches=%d lost=%d doubled=%d disorder=%d seconds=%.0f\n",
		all.histories, s.seed, all.transactions, all.rows, all.ddl, all.kills, all.drained, all.instants, all.differences, all.native, all.breaches, all.lost, all.doubled, all.disorder, time.Since(began).Seconds())
	switch {
	case !all.good():
		return 3
	case failed != nil:
		return 1
	}
	return 0
}

// scene is the servers of one flavour and the processes between them.
type scene struct {
	settings
	flavor                   mysqltest.Flavor
	primary, standby, target *mysqltest.Server
	pipeline                 *harness.Pipeline
	set                      map[harness.Role][]string // the pipeline's own
	result                   *result
	mu                       sync.Mutex // guards result.instants and breaches while the bank is watched
}

// flavor plays the histories of one flavour.
func flavor(ctx context.Context, s settings, f mysqltest.Flavor, all *result) (err error) {
	dir, err := os.MkdirTemp("", "twinspan-prop-live-")
	if err != nil {
		return err
	}
	sc := &scene{settings: s, flavor: f, result: all, set: map[harness.Role][]string{}}
	for _, into := range []**mysqltest.Server{&sc.primary, &sc.standby, &sc.target} {
		srv, e := mysqltest.Run(ctx, mysqltest.Options{Flavor: f})
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, srv.Close()) }()
		*into = srv
	}
	if err := sc.standby.ReplicateFrom(ctx, sc.primary); err != nil {
		return err
	}
	sc.pipeline, err = harness.New(harness.Config{Binary: s.binary, Dir: filepath.Join(dir, "twinspan"), Stream: "live", Source: sc.standby, Target: sc.target, Set: sc.set})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil || !all.good() {
			for _, r := range sc.pipeline.Roles() {
				fmt.Fprintf(os.Stderr, "prop-live: %s said last:\n%s\n", r, sc.pipeline.Log(r, 12))
			}
			fmt.Fprintln(os.Stderr, "prop-live: configuration and logs are in", dir)
		}
		all.kills += sc.pipeline.Kills()
		err = errors.Join(err, sc.pipeline.Stop())
		if err == nil && all.good() {
			_ = os.RemoveAll(dir) // nobody needs it any more
		}
	}()
	if err := sc.pipeline.StartAll(ctx); err != nil {
		return err
	}
	for n := range s.n {
		if err := sc.history(ctx, s.seed+uint64(n), (s.seed+uint64(n))%2 == 1); err != nil {
			return fmt.Errorf("seed %d (replay: make prop-live FLAVOR=%s N=1 SEED=%d): %w", s.seed+uint64(n), f, s.seed+uint64(n), err)
		}
		if !all.good() {
			return nil
		}
	}
	return sc.audit(ctx)
}

// atomicity restarts the consumer in a mode.
func (s *scene) atomicity(ctx context.Context, whole bool) error {
	mode := "row"
	if whole {
		mode = "transaction"
	}
	if err := s.pipeline.Kill(harness.Consumer); err != nil {
		return err
	}
	s.set[harness.Consumer] = []string{"apply.atomicity=" + mode}
	return s.pipeline.Start(ctx, harness.Consumer)
}

// history plays one, and compares.
func (s *scene) history(ctx context.Context, seed uint64, whole bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	began := time.Now()
	if err := s.atomicity(ctx, whole); err != nil {
		return err
	}
	w := workload.New(workload.Config{Seed: seed, DB: s.primary.DB(), Clients: 4, Types: true, DDLEvery: 20 * time.Millisecond, BulkEvery: 200 * time.Millisecond, Log: zerolog.Nop()})
	watch, stopWatch := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	if whole {
		watcher.Go(func() { s.watchBank(watch, seed) })
	}
	defer watcher.Wait()
	defer stopWatch()
	rng := rand.New(rand.NewPCG(seed, 7))
	for i := range s.slices {
		if err := s.load(ctx, w, i == 0, rng); err != nil {
			return err
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		for _, srv := range []*mysqltest.Server{s.primary, s.standby, s.target} {
			if err := workload.CheckSum(ctx, srv.DB()); err != nil {
				s.breach("seed %d, drained: %s: %v", seed, srv.Address, err)
			}
		}
		s.result.drained++
	}
	stopWatch()
	watcher.Wait()
	st := w.Stats()
	if len(st.Unexpected) > 0 {
		return fmt.Errorf("statements the server does not take: %v", st.Unexpected)
	}
	if err := s.compare(ctx, seed); err != nil {
		return err
	}
	s.result.histories++
	s.result.transactions += st.Transactions
	s.result.rows += st.Rows
	s.result.ddl += st.DDL
	fmt.Printf("prop-live: %s history seed %d, whole transactions %t: %d transactions, %d rows, %d DDL, %d kills so far, differences %d, native %d, breaches %d, %.1f s\n",
		s.flavor, seed, whole, st.Transactions, st.Rows, st.DDL, s.pipeline.Kills(), s.result.differences, s.result.native, s.result.breaches, time.Since(began).Seconds())
	return nil
}

// load runs the workload for a slice while things are killed.
func (s *scene) load(ctx context.Context, w *workload.Workload, first bool, rng *rand.Rand) error {
	crash, stop := context.WithCancel(ctx)
	crashed := make(chan error, 1) // owner: the goroutine below; bound 1; never closed
	go func() { crashed <- s.pipeline.StrikeUntil(crash, rng, s.standby, s.target) }()
	var err error
	if first {
		err = w.Prepare(ctx)
	}
	if err == nil {
		run, end := context.WithTimeout(ctx, s.slice)
		err = w.Run(run)
		end()
	}
	stop()
	return errors.Join(err, <-crashed)
}

func (s *scene) settle(ctx context.Context) error {
	set, err := s.primary.GTIDs(ctx)
	if err != nil {
		return err
	}
	if err := s.standby.WaitForGTIDs(ctx, set); err != nil {
		return fmt.Errorf("native replication: %w", err)
	}
	return s.pipeline.WaitApplied(ctx, set, 2*time.Minute)
}

func (s *scene) breach(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result.breaches++
	fmt.Printf("prop-live: BREACH: "+format+"\n", args...)
}

// watchBank reads the balances on the target as often as it can.
func (s *scene) watchBank(ctx context.Context, seed uint64) {
	want := fmt.Sprintf("%d.00", workload.AccountSum)
	for ctx.Err() == nil {
		var sum *string
		err := s.target.DB().QueryRowContext(ctx, "SELECT CAST(SUM(balance) AS CHAR) FROM "+workload.Schema+".account").Scan(&sum)
		switch {
		case err != nil: // it is down, or the table is not there yet
			time.Sleep(20 * time.Millisecond)
			continue
		case sum != nil && *sum != want:
			s.breach("seed %d: a reader of the target sees balances of %s instead of %s", seed, *sum, want)
			return
		case sum != nil:
			s.mu.Lock()
			s.result.instants++
			s.mu.Unlock()
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// compare holds native replica and target against the source.
func (s *scene) compare(ctx context.Context, seed uint64) error {
	for _, c := range []struct {
		what string
		srv  *mysqltest.Server
		into *int64
	}{{"native replica", s.standby, &s.result.native}, {"target", s.target, &s.result.differences}} {
		found, err := workload.Differences(ctx, s.primary.DB(), c.srv.DB(), workload.Schemas())
		if err != nil {
			return err
		}
		for _, d := range found {
			*c.into++
			fmt.Printf("prop-live: DIFFERENCE, seed %d, %s: %s\n", seed, c.what, d)
		}
	}
	if out, err := s.pipeline.Command(ctx, "verify").CombinedOutput(); err != nil {
		s.result.differences++
		fmt.Printf("prop-live: DIFFERENCE, seed %d, twinspan verify: %v\n%s\n", seed, err, out)
	}
	return nil
}

// audit looks for every transaction in the log, once and in order.
func (s *scene) audit(ctx context.Context) error {
	set, err := s.primary.GTIDs(ctx)
	if err != nil {
		return err
	}
	a, err := s.pipeline.Audit(ctx, set)
	if err != nil {
		return err
	}
	s.result.lost += len(a.Lost) + len(a.Unknown)
	s.result.doubled += len(a.Doubled)
	s.result.disorder += len(a.Disorder)
	return nil
}
