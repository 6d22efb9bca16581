package child

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("CHILD_TEST_PARENT") != "" {
		parent()
	}
	goleak.VerifyTestMain(m)
}

// parent starts a child, says its pid, and waits to be killed.
func parent() {
	p, err := Start(exec.Command("sleep", "600"), false)
	if err != nil {
		panic(err)
	}
	fmt.Println(p.PID)
	select {}
}

func TestChildDiesWithItsParent(t *testing.T) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "CHILD_TEST_PARENT=1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it was killed
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		// A zombie waits for init and does not run.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	t.Fatalf("child %d outlived its parent", pid)
}

func TestTerminate(t *testing.T) {
	p, err := Start(exec.Command("sleep", "600"), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Terminate(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if p.Running() || p.Err() == nil {
		t.Errorf("running %v, ended with %v", p.Running(), p.Err())
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a dead process: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill of a dead process: %v", err)
	}
}

func TestTerminateKillsTheStubborn(t *testing.T) {
	p, err := Start(exec.Command("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"), false)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // until the trap is set
	if err := p.Terminate(300 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("error: %v", err)
	}
	if p.Running() {
		t.Error("still running")
	}
}
