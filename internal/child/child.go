// Package child starts processes that do not outlive this one.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a started process. One goroutine waits for it and ends with it.
type Process struct {
	PID  int
	done chan struct{} // closed by the waiting goroutine when the process is gone
	err  error         // readable after done
}

// Start runs a command. Unless detached, the kernel kills the child when this
// process ends, however that happens. The child has its own process group, so
// that a Ctrl-C at the terminal does not reach it before its owner has decided
// what to do.
//
// The kernel sends the parent-death signal when the *thread* that started the
// child ends (prctl(2)), so the goroutine keeps its thread until the child is gone.
func Start(c *exec.Cmd, detach bool) (*Process, error) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if detach {
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	p := &Process{done: make(chan struct{})}
	started := make(chan error) // one answer, from the goroutine below
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := c.Start(); err != nil {
			started <- err
			return
		}
		p.PID = c.Process.Pid
		started <- nil
		p.err = c.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the process ended: nil, or an *exec.ExitError. It blocks until then.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Running tells whether the process is still there.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal; os.ErrProcessDone when the process is gone.
func (p *Process) Signal(s syscall.Signal) error {
	if !p.Running() {
		return os.ErrProcessDone
	}
	return syscall.Kill(p.PID, s)
}

// Kill ends the process the hard way and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill -9 %d: %w", p.PID, err)
	}
	<-p.done
	return nil
}

// Terminate asks the process to end, and kills it when it has not after grace.
func (p *Process) Terminate(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
			return nil
		}
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
		if err := p.Kill(); err != nil {
			return err
		}
		return fmt.Errorf("process %d had not stopped after %s and was killed", p.PID, grace)
	}
}
