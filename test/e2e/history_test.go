package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
)

// TestHistories runs random loads with definitions in mid-stream while every
// process, and the servers beside them, are killed at random points; then every
// row must be there once.
func TestHistories(t *testing.T) {
	rounds := 1
	if v := os.Getenv("SOAK"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("SOAK=%q: %v", v, err)
		}
		rounds = n
	}
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			seed := seed(t)
			s := newScene(t, f, nil)
			if err := s.pipeline.StartAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			for n := range rounds {
				began := time.Now()
				ok := t.Run(fmt.Sprint(n), func(t *testing.T) { s.history(t, seed+uint64(n)) })
				t.Logf("history %d of %d, seed %d: ok %v, %.1f s, %d kills so far", n+1, rounds, seed+uint64(n), ok, time.Since(began).Seconds(), s.pipeline.Kills())
				if !ok {
					return
				}
			}
			s.audit(t.Context(), t)
		})
	}
}

func (s *scene) history(t *testing.T, seed uint64) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := workload.New(workload.Config{
		Seed: seed, DB: s.primary.DB(), Clients: 4, Types: true, DDLEvery: 20 * time.Millisecond, BulkEvery: 400 * time.Millisecond, Log: zerolog.Nop(),
	})
	// Crashes begin before the tables do.
	crash, stopCrashes := context.WithCancel(ctx)
	var crashes sync.WaitGroup
	defer crashes.Wait()
	defer stopCrashes()
	crashes.Go(func() { s.crash(crash, t, seed) })
	if err := w.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	var large sync.WaitGroup
	large.Go(func() {
		if err := w.Large(run, 3000); err != nil && run.Err() == nil {
			t.Errorf("large transaction: %v", err)
		}
	})
	if err := w.Run(run); err != nil {
		t.Error(err)
	}
	large.Wait()
	st := w.Stats()
	t.Logf("%d transactions, %d rows, %d DDL, refused %v", st.Transactions, st.Rows, st.DDL, st.Refused)
	if len(st.Unexpected) > 0 {
		t.Errorf("statements the server does not take: %v", st.Unexpected)
	}
	stopCrashes()
	crashes.Wait()
	if t.Failed() {
		return
	}
	s.settle(ctx, t)
	s.compare(ctx, t)
	if err := workload.CheckSum(ctx, s.target.DB()); err != nil {
		t.Error(err)
	}
	s.verify(ctx, t)
}

// crash kills something every now and then until the context ends, and leaves
// everything running.
func (s *scene) crash(ctx context.Context, t *testing.T, seed uint64) {
	if err := s.pipeline.StrikeUntil(ctx, rand.New(rand.NewPCG(seed, 7)), s.standby, s.target); err != nil {
		t.Errorf("crash: %v", err)
	}
}

func (s *scene) strike(r *rand.Rand) error { return s.pipeline.Strike(r, s.standby, s.target) }
