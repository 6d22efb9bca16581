package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// binary is what the smoke test runs; built here, so that it is never an old one.
var binary string

func TestMain(m *testing.M) {
	if task := os.Getenv(taskVariable); task != "" {
		os.Exit(work(task))
	}
	dir, err := os.MkdirTemp("", "twinspan-chaos-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "twinspan")
	if out, err := exec.Command("go", "build", "-o", binary, "../../cmd/twinspan").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build twinspan: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// TestSmoke is a short run of a few scenarios with real processes.
func TestSmoke(t *testing.T) {
	seed := uint64(time.Now().UnixNano() % 1e9)
	if v := os.Getenv("SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("SEED=%q: %v", v, err)
		}
	}
	var out bytes.Buffer
	s := settings{
		binary: binary, engine: twinSpan, dir: t.TempDir(), filter: regexp.MustCompile(smoke), rounds: 1, seed: seed,
		duration: 3 * time.Second, delay: 5 * time.Millisecond, keep: true, out: &out,
	}
	code := all(t.Context(), s)
	t.Log("\n" + out.String())
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "RESULT chaos ") || strings.Contains(last, "acknowledged=0 ") {
		t.Errorf("last line %q", last)
	}
}

// smoke is which scenarios the short run takes.
const smoke = "^(alone|kill-node|partition)$"
