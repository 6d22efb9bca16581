package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

// residentMax is what a process may have resident, whatever a transaction's size.
var residentMax = map[harness.Role]int64{harness.Node: 256 << 20, harness.Producer: 256 << 20, harness.Consumer: 256 << 20}

// TestLargeTransaction: memory is bounded by the configuration, not by what
// somebody commits at once. With SOAK the transaction has a million rows.
func TestLargeTransaction(t *testing.T) {
	rows := 150_000
	if os.Getenv("SOAK") != "" {
		rows = 1_000_000
	}
	f := mysqltest.MySQL97
	s := newScene(t, f, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := s.pipeline.StartAll(ctx); err != nil {
		t.Fatal(err)
	}
	w := workload.New(workload.Config{Seed: seed(t), DB: s.primary.DB(), Log: zerolog.Nop()})
	if err := w.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := w.Large(ctx, rows); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d row changes in one transaction, committed in %.1f s", rows*7/3, time.Since(began).Seconds())
	began = time.Now()
	s.settle(ctx, t)
	t.Logf("applied %.1f s after the commit", time.Since(began).Seconds())
	for _, r := range harness.Roles() {
		pid, _ := s.pipeline.Process(r)
		peak, err := peakResident(pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: at most %d MiB resident", r, peak>>20)
		if peak > residentMax[r] {
			t.Errorf("%s had %d MiB resident, more than %d", r, peak>>20, residentMax[r]>>20)
		}
	}
	s.compare(ctx, t)
	s.audit(ctx, t)
}

// peakResident is the most memory a process ever had, in bytes.
func peakResident(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscanf(rest, "%d", &kib); err != nil {
		return 0, fmt.Errorf("VmHWM of process %d: %w", pid, err)
	}
	return kib << 10, nil
}
