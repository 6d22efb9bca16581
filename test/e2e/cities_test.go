package e2e

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

// newCities is a scene whose log lies in two cities with two nodes each and a
// witness in a third, 20 ms from each other.
func newCities(t *testing.T, f mysqltest.Flavor, policy string) *scene {
	t.Helper()
	s := &scene{primary: mysqltest.Start(t, f), standby: mysqltest.Start(t, f), target: mysqltest.Start(t, f)}
	if err := s.standby.ReplicateFrom(t.Context(), s.primary); err != nil {
		t.Fatal(err)
	}
	s.between(t, s.standby, s.target, map[harness.Role][]string{harness.Node: {"node.journal_file_bytes=8MiB"}},
		&harness.Cities{RoundTrip: 20 * time.Millisecond, Policy: policy})
	if err := s.pipeline.StartAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCities loads a log of two cities while nodes, whole cities, the producer, the
// consumer and the line between the cities fail; then every row must be there once,
// and all nodes must hold the same.
func TestCities(t *testing.T) {
	seed := seed(t)
	s := newCities(t, mysqltest.MySQL97, "{bytes_max: 0}")
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	w := workload.New(workload.Config{Seed: seed, DB: s.primary.DB(), Clients: 4, Rate: 400, Types: true, DDLEvery: 100 * time.Millisecond, Log: zerolog.Nop()})
	if err := w.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	var crashes sync.WaitGroup
	crashes.Go(func() { s.cityFaults(run, t, seed) })
	if err := w.Run(run); err != nil {
		t.Error(err)
	}
	crashes.Wait()
	st := w.Stats()
	t.Logf("%d transactions, %d rows, %d DDL, %d kills", st.Transactions, st.Rows, st.DDL, s.pipeline.Kills())
	if t.Failed() {
		return
	}
	s.settle(ctx, t)
	s.compare(ctx, t)
	if err := workload.CheckSum(ctx, s.target.DB()); err != nil {
		t.Error(err)
	}
	s.verify(ctx, t)
	s.audit(ctx, t)
	s.whole(ctx, t)
}

// cityFaults strikes at random until the context ends, and leaves everything
// running and every line open.
func (s *scene) cityFaults(ctx context.Context, t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(200+r.IntN(1800)) * time.Millisecond):
		}
		var err error
		what := r.IntN(10)
		if n == 1 {
			what = 9 // at least once
		}
		switch {
		case what < 7:
			err = s.strike(r)
		case what == 7:
			cut := wan.Hold
			if r.IntN(2) == 0 {
				cut = wan.Reset
			}
			err = s.pipeline.Partition(context.Background(), "a", "b", cut)
			time.Sleep(time.Duration(500+r.IntN(2500)) * time.Millisecond)
			if e := s.pipeline.Partition(context.Background(), "a", "b", wan.Open); err == nil {
				err = e
			}
		default:
			err = s.cityGone([]string{"a", "b"}[r.IntN(2)], time.Duration(500+r.IntN(2500))*time.Millisecond)
		}
		if err != nil {
			t.Errorf("fault %d: %v", what, err)
			return
		}
	}
}

// cityGone kills all nodes of a city, and starts them again after a while.
func (s *scene) cityGone(city string, after time.Duration) error {
	for _, r := range s.pipeline.In(city) {
		if err := s.pipeline.Kill(r); err != nil {
			return err
		}
	}
	time.Sleep(after)
	for _, r := range s.pipeline.In(city) {
		if err := s.pipeline.Start(context.Background(), r); err != nil {
			return err
		}
	}
	return nil
}

// whole waits until the cluster says that nothing is wrong with it, and compares
// what its nodes hold.
func (s *scene) whole(ctx context.Context, t *testing.T) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(300 * time.Millisecond) {
		out, err := s.pipeline.Command(ctx, "log", "status", "--strict").CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(until) {
			t.Errorf("the cluster is not whole again: %v\n%s", err, out)
			break
		}
	}
	for _, r := range s.pipeline.Nodes() {
		if n, err := s.pipeline.Metric(ctx, r, "twinspan_log_peer_reachable", ""); err != nil || n != 4 {
			t.Errorf("%s sees %.0f of 4 nodes: %v", r, n, err)
		}
	}
	out, err := s.pipeline.Command(ctx, "log", "verify", "-o", "json").Output()
	if err != nil {
		said := ""
		if exit := (*exec.ExitError)(nil); asExit(err, &exit) {
			said = string(exit.Stderr)
		}
		t.Errorf("twinspan log verify: %v\n%s%s", err, out, said)
		return
	}
	var report struct {
		Segments    int   `json:"segments"`
		Entries     int64 `json:"entries"`
		Differences int   `json:"differences"`
	}
	if err := json.Unmarshal(out, &report); err != nil || report.Segments == 0 || report.Entries == 0 || report.Differences != 0 {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("log verify: %d segments, %d entries on all their nodes", report.Segments, report.Entries)
}

func asExit(err error, into **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError) //nolint:errorlint // Output returns it unwrapped
	*into = e
	return ok
}
