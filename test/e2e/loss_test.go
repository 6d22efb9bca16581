package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

// TestRecordedLoss loses the disks that alone have the newest entries, one in each
// city. An operator gives the entries up, the consumer stops before the gap and
// says what to do, and once that was done the target gets all of it nevertheless: the
// producer ships again from the binlog what the log lost.
func TestRecordedLoss(t *testing.T) {
	seed := seed(t)
	s := newCities(t, mysqltest.MySQL97, "{bytes_max: 0}")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	w := workload.New(workload.Config{Seed: seed, DB: s.primary.DB(), Clients: 4, Rate: 300, Types: true, DDLEvery: 100 * time.Millisecond, Log: zerolog.Nop()})
	if err := w.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	load := func() {
		t.Helper()
		run, stop := context.WithTimeout(ctx, 3*time.Second)
		defer stop()
		if err := w.Run(run); err != nil {
			t.Fatal(err)
		}
	}
	load()
	s.settle(ctx, t)
	// The first segment may have begun before all nodes were up.
	s.awaitMembers(ctx, t, "a1", "a2", "b1", "b2")
	s.whole(ctx, t)

	// What is written now is on a1 and b2 only, in a segment of which a2 and b1 have the
	// beginning and in the next, and nobody has applied it.
	s.kill(t, harness.Consumer, "a2", "b1")
	load()
	s.awaitMembers(ctx, t, "a1", "b2")
	s.awaitLogged(t)
	s.kill(t, "a1", "b2", harness.Producer)
	for _, r := range []harness.Role{"a1", "b2"} {
		if err := os.RemoveAll(s.pipeline.NodeDir(r)); err != nil {
			t.Fatal(err)
		}
	}

	// The operator has the other two, and what is lost in writing.
	s.begin(ctx, t, "a2", "b1")
	for _, node := range []string{"a1", "b2"} {
		s.forget(ctx, t, node)
	}
	lostTo := s.closeByForce(ctx, t)

	// Everything comes back, the two with empty disks.
	s.start(t)
	h := s.awaitHalt(t, harness.Consumer, "LOG_LOST")
	m := regexp.MustCompile(`twinspan (cursor seek \S+ --to ` + fmt.Sprint(lostTo) + `)\b`).FindStringSubmatch(h.Remedy)
	if m == nil {
		t.Fatalf("the remedy names no command with %d: %s", lostTo, h.Remedy)
	}
	told := strings.Fields(m[1])
	if out := s.twinspan(ctx, t, told...); !strings.Contains(out, "Nothing was changed") {
		t.Errorf("the preview of %s:\n%s", m[1], out)
	}
	s.awaitHalt(t, harness.Consumer, "LOG_LOST") // the preview did nothing
	if out := s.twinspan(ctx, t, append(told, "--yes", "--reason", "the loss is known")...); !strings.Contains(out, "Done") {
		t.Errorf("%s:\n%s", m[1], out)
	}
	s.awaitGoing(t, harness.Consumer)
	s.settle(ctx, t)
	s.compare(ctx, t)
	if err := workload.CheckSum(ctx, s.target.DB()); err != nil {
		t.Error(err)
	}
	s.verify(ctx, t)
	if gaps := s.auditGaps(ctx, t); len(gaps) != 1 || int64(gaps[0].To) != lostTo {
		t.Errorf("gaps %v, not one up to %d", gaps, lostTo)
	}
	s.whole(ctx, t)

	// Nobody stumbles over the gap a second time.
	s.kill(t, harness.Consumer, harness.Producer)
	s.start(t)
	load()
	s.settle(ctx, t)
	s.compare(ctx, t)
}

// kill ends the roles' processes.
func (s *scene) kill(t *testing.T, roles ...harness.Role) {
	t.Helper()
	for _, r := range roles {
		if err := s.pipeline.Kill(r); err != nil {
			t.Fatal(err)
		}
	}
}

// begin starts the roles' processes.
func (s *scene) begin(ctx context.Context, t *testing.T, roles ...harness.Role) {
	t.Helper()
	for _, r := range roles {
		if err := s.pipeline.Start(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
}

// twinspan runs an operator's command, which must succeed. A cluster that has just
// lost its leader is asked again.
func (s *scene) twinspan(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		c := s.pipeline.Command(ctx, args...)
		var said strings.Builder
		c.Stderr = &said
		out, err := c.Output()
		if err == nil {
			return string(out)
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 5 || time.Now().After(end) {
			t.Fatalf("twinspan %s: %v\n%s%s", strings.Join(args, " "), err, out, said.String())
		}
	}
}

// awaitMembers returns when the open segment has these members, and no others.
func (s *scene) awaitMembers(ctx context.Context, t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		var page struct {
			Segments []struct {
				Closed  bool `json:"closed"`
				Members []struct {
					Node string `json:"node"`
				} `json:"members"`
			} `json:"segments"`
		}
		out := s.twinspan(ctx, t, "log", "segments", "e2e", "-o", "json")
		if err := json.Unmarshal([]byte(out), &page); err != nil || len(page.Segments) == 0 {
			t.Fatalf("%v: %s", err, out)
		}
		var have []string
		for _, m := range page.Segments[len(page.Segments)-1].Members {
			have = append(have, m.Node)
		}
		if slices.Equal(have, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the open segment's members are %v, not %v\n%s", have, want, out)
		}
	}
}

// forget gives a node's identity up, with as many entries as the preview says.
func (s *scene) forget(ctx context.Context, t *testing.T, node string) {
	t.Helper()
	var preview struct {
		Preview struct {
			Entries int64 `json:"losing_entries"`
		} `json:"preview"`
		Changed bool `json:"changed"`
	}
	if err := json.Unmarshal([]byte(s.twinspan(ctx, t, "log", "nodes", "forget", node, "-o", "json")), &preview); err != nil || preview.Changed {
		t.Fatalf("%v: %+v", err, preview)
	}
	t.Logf("%s alone holds %d closed entries", node, preview.Preview.Entries)
	s.twinspan(ctx, t, "log", "nodes", "forget", node, "--force", "--accept-loss", fmt.Sprint(preview.Preview.Entries), "--yes", "--reason", "its disk is gone")
}

// closeByForce ends the open segment, and answers with the end of the gap.
func (s *scene) closeByForce(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	args := []string{"log", "segments", "close", "e2e", "--force"}
	preview := s.twinspan(ctx, t, args...)
	t.Log(preview)
	if !strings.Contains(preview, "Nothing was changed") {
		t.Errorf("it is no preview:\n%s", preview)
	}
	var done struct {
		Closed struct {
			Lost   bool  `json:"lost"`
			LostTo int64 `json:"lost_to"`
		} `json:"closed"`
	}
	out := s.twinspan(ctx, t, append(args, "--yes", "--reason", "the disks of a1 and b2 are gone", "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &done); err != nil || !done.Closed.Lost || done.Closed.LostTo == 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return done.Closed.LostTo
}

// awaitGoing returns when the role has no halt any more.
func (s *scene) awaitGoing(t *testing.T, r harness.Role) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		h, err := s.pipeline.Halted(r)
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not go on: %v", r, h)
		}
	}
}
