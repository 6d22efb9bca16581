// Command cmd runs the log's simulator: many schedules, then every seeded bug. Its
// last line is a RESULT; it exits with 3 on a breach.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/twinspan/twinspan/log/sim"
)

func main() {
	n := flag.Int("n", 100_000, "schedules")
	seed := flag.Uint64("seed", 1, "of the first schedule")
	events := flag.Int64("events", 20_000, "of each schedule, at least")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "schedules at a time")
	bugs := flag.Int("bugs", 2000, "seeds to find each seeded bug in; 0 leaves them out")
	trace := flag.Bool("trace", false, "print every event of the schedule -seed, and nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *trace {
		r := sim.Run(sim.Config{Seed: *seed, Events: *events, Trace: os.Stdout})
		fmt.Printf("%+v\n", r)
		return
	}
	os.Exit(run(ctx, sim.Batch{Seed: *seed, Schedules: *n, Events: *events, Workers: *workers, Progress: os.Stderr}, *bugs))
}

func run(ctx context.Context, b sim.Batch, budget int) int {
	begin := time.Now()
	t := sim.Play(ctx, b)
	violations := 0
	if f := t.Found; f != nil {
		violations = 1
		fmt.Printf("sim: seed %d (%s): %v\n", f.Seed, f.Layout, f.Violation)
		c := sim.Shrink(sim.Config{Seed: f.Seed, Events: b.Events}, f.Violation)
		c.Trace = os.Stdout
		fmt.Printf("sim: shrunk to %d events with %d of %d faults left out\n", c.Events, len(c.Skip), f.Faults)
		r := sim.Run(c)
		fmt.Printf("sim: seed %d replays it: go run ./log/sim/cmd -trace -seed %d -events %d\n%v\n", f.Seed, f.Seed, b.Events, r.Violation)
	}
	found, all := 0, 0
	if budget > 0 && violations == 0 {
		for _, bug := range sim.Bugs() {
			if ctx.Err() != nil {
				break
			}
			all++
			s := b
			s.Seed, s.Schedules, s.Bug, s.Progress = 1, budget, bug, nil
			r := sim.Play(ctx, s)
			if r.Found == nil {
				fmt.Printf("sim: bug %d not found in %d seeds: %v\n", bug, r.Schedules, bug)
				continue
			}
			found++
			fmt.Printf("sim: bug %2d found at seed %4d, invariant %2d: %v\n", bug, r.Found.Seed, r.Found.Violation.Invariant, bug)
		}
	}
	fmt.Printf("RESULT sim schedules=%d events=%d acked=%d beside=%d faults=%d segments=%d takeovers=%d leaps=%d cuts=%d forced_closes=%d violations=%d bugs_found=%d/%d seconds=%.0f\n",
		t.Schedules, t.Events, t.Acked, t.Beside, t.Faults, t.Segments, t.Takeovers, t.Leaps, t.Cuts, t.Forced, violations, found, all, time.Since(begin).Seconds())
	if violations > 0 || found < all || t.Schedules < b.Schedules {
		return 3
	}
	return 0
}
