package causality_test

import (
	"flag"
	"testing"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/oracle"
)

var (
	histories = flag.Int("histories", 2000, "histories of the oracle test, in each mode")
	seedFlag  = flag.Uint64("seed", 0, "replay this one history; 0: by the clock")
)

// TestAgainstSerialOracle: in every order that lanes can take, with crashes
// anywhere, the end is that of applying the log serially, and on the way no
// change meets a state that it was not logged in. Whole transactions that are
// committed in order show only what the source held at the end of one. make prop
// runs many more.
func TestAgainstSerialOracle(t *testing.T) {
	for _, mode := range oracle.Modes() {
		t.Run(mode.String(), func(t *testing.T) {
			first, n := uint64(time.Now().UnixNano()), *histories
			if testing.Short() {
				n = min(n, 400)
			}
			if *seedFlag != 0 {
				first, n = *seedFlag, 1
			}
			var stats oracle.Stats
			for i := range n {
				seed := first + uint64(i)
				if err := oracle.Play(seed, mode, oracle.Bug{}, &stats); err != nil {
					t.Fatalf("seed %d (replay with -seed=%d): %v", seed, seed, err)
				}
			}
			t.Logf("0 failures in %d histories from seed %d: %+v", n, first, stats)
			if n > 100 && (stats.Waits == 0 || stats.Crashes == 0 || stats.Batches == 0 || mode == causality.Rows && stats.Joined == 0) {
				t.Errorf("the histories are too tame: %+v", stats)
			}
		})
	}
}

// TestSeededBugsAreCaught: each rule is there because leaving it out goes wrong.
func TestSeededBugsAreCaught(t *testing.T) {
	for _, b := range oracle.Bugs() {
		t.Run(b.Mode().String()+"/"+b.Name, func(t *testing.T) {
			var stats oracle.Stats
			const budget = 3000
			for seed := uint64(1); seed <= budget; seed++ {
				if err := oracle.Play(seed, b.Mode(), b, &stats); err != nil {
					t.Logf("caught by seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("not caught in %d histories", budget)
		})
	}
}
