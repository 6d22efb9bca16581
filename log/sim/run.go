package sim

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log/internal/fault"
)

// Batch is many schedules.
type Batch struct {
	Seed      uint64 // of the first; the others follow
	Schedules int
	Events    int64 // of each, at least
	Workers   int
	Bug       Bug
	// Progress, when set, gets a line now and then.
	Progress io.Writer
}

// Total of a batch. Runs after a violation are not started.
type Total struct {
	Schedules   int
	Events      int64
	Acked       int64
	Beside      int64 // more, by writers of a city that was given up
	Unprotected int64
	Takeovers   int
	Leaps       int // takeovers behind a gap
	Cuts        int // segments of which a takeover left the beginning only
	Forced      int
	Segments    int64
	Faults      int64
	Found       *Result // the violation of the lowest seed among those seen
	Elapsed     time.Duration
}

// Play runs a batch until its end, its first violation, or ctx ends. The bug is
// armed for the whole process meanwhile: batches with bugs must not overlap.
func Play(ctx context.Context, b Batch) Total {
	if b.Bug < Bug(fault.MachinesEnd) {
		fault.Set(fault.Bug(b.Bug))
		defer fault.Set(fault.None)
	}
	var (
		t     Total
		mu    sync.Mutex
		next  int
		group sync.WaitGroup
		begin = time.Now()
		said  = begin
	)
	for range max(b.Workers, 1) {
		group.Go(func() {
			for {
				mu.Lock()
				if next == b.Schedules || t.Found != nil || ctx.Err() != nil {
					mu.Unlock()
					return
				}
				seed := b.Seed + uint64(next)
				next++
				mu.Unlock()
				r := Run(Config{Seed: seed, Events: b.Events, Bug: b.Bug})
				mu.Lock()
				t.Schedules++
				t.Events += r.Events
				t.Acked += r.Acked
				t.Beside += r.Beside
				t.Unprotected += r.Unprotected
				t.Takeovers += r.Takeovers
				t.Leaps += r.Leaps
				t.Cuts += r.Cuts
				t.Forced += r.Forced
				t.Segments += int64(r.Segments)
				t.Faults += int64(r.Faults)
				if r.Violation != nil && (t.Found == nil || r.Seed < t.Found.Seed) {
					t.Found = &r
				}
				if b.Progress != nil && time.Since(said) > 10*time.Second {
					said = time.Now()
					fmt.Fprintf(b.Progress, "sim: %d of %d schedules, %d events, %d acknowledged, %.0f events/s\n",
						t.Schedules, b.Schedules, t.Events, t.Acked, float64(t.Events)/time.Since(begin).Seconds())
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	t.Elapsed = time.Since(begin)
	return t
}

// Shrink looks for a shorter schedule with a violation of the same invariant, by
// ending it at the violation and leaving out faults, halves first.
func Shrink(c Config, v *Violation) Config {
	fails := func(c Config) bool {
		r := Run(c)
		return r.Violation != nil && r.Violation.Invariant == v.Invariant
	}
	n := Run(c).Faults
	if c.Skip == nil {
		c.Skip = map[int]bool{}
	}
	for size := max(n/2, 1); size >= 1; size /= 2 {
		for at := 0; at < n; at += size {
			try := c
			try.Skip = map[int]bool{}
			for k := range c.Skip {
				try.Skip[k] = true
			}
			for k := at; k < min(at+size, n); k++ {
				try.Skip[k] = true
			}
			if len(try.Skip) > len(c.Skip) && fails(try) {
				c = try
			}
		}
	}
	if v.Invariant != 15 {
		for e := c.Events / 2; e >= 100; e /= 2 {
			try := c
			try.Events = e
			if !fails(try) {
				break
			}
			c = try
		}
	}
	return c
}
