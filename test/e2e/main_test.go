// Package e2e runs the built binary between real servers: random histories over
// every type with crashes at random points, definitions in mid-stream, and bad
// input. SEED replays a run, SOAK=n makes n histories of the random test.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/test/harness"
)

// binary is what the tests run.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "twinspan-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Built here, so that the tests never run an old one.
	binary = filepath.Join(dir, "twinspan")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/twinspan")
	if os.Getenv("RACE") != "" {
		build.Args = []string{"go", "build", "-race", "-o", binary, "../../cmd/twinspan"}
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build twinspan: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// seed of a test, printed, or $SEED.
func seed(t *testing.T) uint64 {
	s := uint64(time.Now().UnixNano() % 1e9)
	if v := os.Getenv("SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("SEED=%q: %v", v, err)
		}
		s = n
	}
	t.Logf("seed %d: replay with make e2e SEED=%d RUN='%s$'", s, s, t.Name())
	return s
}

// scene is two cities and the processes between them.
type scene struct {
	primary, standby, target *mysqltest.Server
	pipeline                 *harness.Pipeline
}

// newScene starts the servers and writes the configuration; nothing of twinspan
// runs yet. What the processes said is shown when the test fails.
func newScene(t *testing.T, f mysqltest.Flavor, set map[harness.Role][]string) *scene {
	t.Helper()
	s := &scene{primary: mysqltest.Start(t, f), standby: mysqltest.Start(t, f), target: mysqltest.Start(t, f)}
	if err := s.standby.ReplicateFrom(t.Context(), s.primary); err != nil {
		t.Fatal(err)
	}
	s.between(t, s.standby, s.target, set, nil)
	return s
}

// between makes the pipeline from source to target.
func (s *scene) between(t *testing.T, source, target *mysqltest.Server, set map[harness.Role][]string, cities *harness.Cities) {
	t.Helper()
	var err error
	s.pipeline, err = harness.New(harness.Config{Binary: binary, Dir: t.TempDir(), Stream: "e2e", Source: source, Target: target, Set: set, Cities: cities})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.pipeline.Stop(); err != nil && !t.Failed() {
			t.Error(err)
		}
		if t.Failed() {
			for _, r := range s.pipeline.Roles() {
				t.Logf("%s said last:\n%s", r, s.pipeline.Log(r, 12))
			}
		}
	})
}

// settle waits until the target has all that the primary committed.
func (s *scene) settle(ctx context.Context, t *testing.T) {
	t.Helper()
	set, err := s.primary.GTIDs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if s.standby != nil {
		if err := s.standby.WaitForGTIDs(ctx, set); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.pipeline.WaitApplied(ctx, set, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// compare fails the test for every difference between primary and target.
func (s *scene) compare(ctx context.Context, t *testing.T) {
	t.Helper()
	found, err := workload.Differences(ctx, s.primary.DB(), s.target.DB(), workload.Schemas())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found {
		t.Errorf("differs: %s", d)
	}
}

// audit fails the test unless the log has every transaction once and in order, and
// lost nothing on the way.
func (s *scene) audit(ctx context.Context, t *testing.T) {
	t.Helper()
	if gaps := s.auditGaps(ctx, t); len(gaps) > 0 {
		t.Errorf("log: gaps that nobody asked for: %v", gaps)
	}
}

// auditGaps fails the test unless the log has every transaction once and in order;
// it answers with the losses that are on record.
func (s *scene) auditGaps(ctx context.Context, t *testing.T) []log.LostError {
	t.Helper()
	set, err := s.primary.GTIDs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.pipeline.Audit(ctx, set)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Equal() {
		t.Errorf("log: lost %v, doubled %v, out of order %v, unknown %v", a.Lost, a.Doubled, a.Disorder, a.Unknown)
	}
	t.Logf("log: %d transactions, %d rows", a.Transactions, a.Rows)
	return a.Gaps
}

// verify runs twinspan verify, which must find nothing.
func (s *scene) verify(ctx context.Context, t *testing.T) {
	t.Helper()
	if out, err := s.pipeline.Command(ctx, "verify", "-o", "json").CombinedOutput(); err != nil {
		t.Errorf("twinspan verify: %v\n%s", err, out)
	}
}
