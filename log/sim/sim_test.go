package sim

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// EVENTS of each schedule, as in the full run.
const scheduleEvents = 20000

// TestSchedules is a short run of what make sim does at length. SEED replays one
// schedule and prints all of it.
func TestSchedules(t *testing.T) {
	if s := os.Getenv("SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		r := Run(Config{Seed: seed, Events: scheduleEvents, Trace: os.Stdout})
		t.Logf("%+v", r)
		if r.Violation != nil {
			t.Errorf("seed %d: %v", seed, r.Violation)
		}
		return
	}
	n := 200
	if testing.Short() {
		n = 50
	}
	total := Play(t.Context(), Batch{Seed: 1, Schedules: n, Events: scheduleEvents, Workers: runtime.GOMAXPROCS(0)})
	t.Logf("%+v", total)
	if f := total.Found; f != nil {
		t.Fatalf("seed %d (%s): %v; SEED=%d replays it", f.Seed, f.Layout, f.Violation, f.Seed)
	}
	if total.Acked == 0 || total.Unprotected == 0 {
		t.Fatalf("nothing happened: %+v", total)
	}
}

// TestReplay: a seed is a schedule, to the last event.
func TestReplay(t *testing.T) {
	for seed := range uint64(20) {
		a := Run(Config{Seed: seed, Events: 5000})
		b := Run(Config{Seed: seed, Events: 5000})
		if a.Events != b.Events || a.Acked != b.Acked || a.Segments != b.Segments || a.Faults != b.Faults {
			t.Fatalf("seed %d: %+v, then %+v", seed, a, b)
		}
	}
}

// TestBeside: a writer of a city that was given up goes on beside its nodes, and is
// judged. Only every eighth seed has takeovers.
func TestBeside(t *testing.T) {
	for seed := uint64(8); seed < 8*400; seed += 8 {
		r := Run(Config{Seed: seed, Events: scheduleEvents})
		if r.Violation != nil {
			t.Fatalf("seed %d: %v", seed, r.Violation)
		}
		if r.Beside > 0 {
			t.Logf("seed %d: %d of %d", seed, r.Beside, r.Acked+r.Beside)
			return
		}
	}
	t.Fatal("none did")
}

// bugSchedules is the budget of seeds for each bug.
const bugSchedules = 2000

// TestSeededBugs breaks one thing at a time, and wants to be told. It begins with as
// many bugs as fit into its time; BUG=all takes all of them, BUG=7 that one, and
// make sim all of them, too.
func TestSeededBugs(t *testing.T) {
	only, begin := os.Getenv("BUG"), time.Now()
	limit := 12 * time.Second
	if testing.Short() {
		limit = 3 * time.Second
	}
	ctx := t.Context()
	if only == "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, begin.Add(limit))
		defer cancel()
	}
	for i, b := range Bugs() {
		if only != "" && only != "all" && only != strconv.Itoa(int(b)) {
			continue
		}
		total := Play(ctx, Batch{Seed: 1, Schedules: bugSchedules, Events: scheduleEvents, Workers: runtime.GOMAXPROCS(0), Bug: b})
		if total.Found == nil && ctx.Err() != nil {
			t.Logf("%d of %d bugs are left to make sim", len(Bugs())-i, len(Bugs()))
			return
		}
		if total.Found == nil {
			t.Errorf("bug %d, %v: not found in %d seeds", b, b, total.Schedules)
			continue
		}
		t.Logf("bug %2d, %-50v seed %4d, event %6d, invariant %2d: %.90s", b, b, total.Found.Seed, total.Found.Violation.At, total.Found.Violation.Invariant, total.Found.Violation.Text)
	}
}
