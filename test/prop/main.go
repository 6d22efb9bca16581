// Command prop runs random histories over random schemas through the applier's
// schedules, in every order of the lanes and with crashes anywhere, and compares
// with applying them serially; then it shows that each seeded bug is found. Its last
// line is a RESULT; it exits with 3 on a violation.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/oracle"
)

func main() {
	n := flag.Int("n", 100_000, "histories")
	seed := flag.Uint64("seed", 0, "of the first history; 0: by the clock. With -n 1 it replays one")
	mode := flag.String("mode", "", fmt.Sprintf("only this mode of the applier: %q", oracle.Modes()))
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "histories at a time")
	budget := flag.Int("bugs", 5000, "histories to find each seeded bug in; 0 leaves them out")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	os.Exit(run(ctx, *n, *seed, *mode, *workers, *budget))
}

func run(ctx context.Context, n int, seed uint64, only string, workers, budget int) int {
	began := time.Now()
	fmt.Printf("prop: %d histories from seed %d, %d at a time\n", n, seed, workers)
	var modes []causality.Mode
	for _, m := range oracle.Modes() {
		if only == "" || m.String() == only {
			modes = append(modes, m)
		}
	}
	if len(modes) == 0 {
		fmt.Fprintf(os.Stderr, "prop: no mode %q; there are %q\n", only, oracle.Modes())
		return 2
	}
	var next, done atomic.Int64
	var mu sync.Mutex // guards the rest
	var stats oracle.Stats
	violations := 0
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var own oracle.Stats
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				stats.Add(own)
			}()
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(n) {
					return
				}
				s, m := seed+uint64(i), modes[i%int64(len(modes))]
				if err := oracle.Play(s, m, oracle.Bug{}, &own); err != nil {
					mu.Lock()
					violations++
					fmt.Printf("prop: VIOLATION, seed %d, mode %s: %v\nprop: replay it: make prop N=1 SEED=%d MODE='%s'\n", s, m, err, s, m)
					mu.Unlock()
					cancel()
				}
				done.Add(1)
			}
		})
	}
	shown := make(chan struct{}) // owner: the goroutine below; closed when it ends
	go func() {
		defer close(shown)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			d := done.Load()
			fmt.Fprintf(os.Stderr, "prop: %d of %d histories, %.0f a second\n", d, n, float64(d)/time.Since(began).Seconds())
		}
	}()
	wg.Wait()
	cancel()
	<-shown
	played := int(done.Load())
	found, all := 0, 0
	if budget > 0 && violations == 0 && played == n {
		for _, b := range oracle.Bugs() {
			if only != "" && b.Mode().String() != only {
				continue
			}
			all++
			at := find(b, uint64(budget))
			if at == 0 {
				fmt.Printf("prop: bug NOT found in %d histories: %s (%s)\n", budget, b.Name, b.Mode())
				continue
			}
			found++
			fmt.Printf("prop: bug found at seed %4d: %s (%s)\n", at, b.Name, b.Mode())
		}
	}
	fmt.Printf("RESULT prop histories=%d seed=%d modes=%d batches=%d joined=%d waits=%d skips=%d crashes=%d violations=%d bugs_found=%d/%d seconds=%.0f\n",
		played, seed, len(modes), stats.Batches, stats.Joined, stats.Waits, stats.Skips, stats.Crashes, violations, found, all, time.Since(began).Seconds())
	if violations > 0 || found < all || played < n {
		return 3
	}
	return 0
}

// find is the first seed that shows a bug; 0: none does.
func find(b oracle.Bug, budget uint64) uint64 {
	var stats oracle.Stats
	for seed := uint64(1); seed <= budget; seed++ {
		if oracle.Play(seed, b.Mode(), b, &stats) != nil {
			return seed
		}
	}
	return 0
}
