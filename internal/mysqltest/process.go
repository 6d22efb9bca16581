package mysqltest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is a running server. One goroutine waits for it and ends with it.
type process struct {
	pid  int
	done chan struct{} // closed by the waiting goroutine when the process is gone
	err  error         // readable after done
}

// spawn starts a command in its own process group, so that a Ctrl-C at the
// terminal does not reach it before its owner has decided what to do.
//
// The kernel sends the parent-death signal when the *thread* that started the
// child ends (prctl(2)), so the goroutine keeps its thread until the child is gone.
func spawn(c *exec.Cmd, detach bool) (*process, error) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if detach {
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	p := &process{done: make(chan struct{})}
	started := make(chan error) // one answer, from the goroutine below
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := c.Start(); err != nil {
			started <- err
			return
		}
		p.pid = c.Process.Pid
		started <- nil
		p.err = c.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) error {
	if !p.running() {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.pid, s)
}

// kill ends the process the hard way and waits until it is gone.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill -9 %d: %w", p.pid, err)
	}
	<-p.done
	return nil
}

// terminate asks the process to end, and kills it when it has not after grace.
func (p *process) terminate(grace time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("kill %s: %w", strconv.Itoa(p.pid), err)
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
		if err := p.kill(); err != nil {
			return err
		}
		return fmt.Errorf("server process %d had not stopped after %s and was killed", p.pid, grace)
	}
}
