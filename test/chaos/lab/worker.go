package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/child"
)

// command writes its output to the end of a file, which the caller closes.
func command(output, name string, args ...string) (*exec.Cmd, *os.File, error) {
	out, err := os.OpenFile(output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr, c.Dir = out, out, filepath.Dir(output)
	return c, out, nil
}

// StartWorker starts this program again, with what it has to do in the variable
// named.
func (l *Lab) StartWorker(name, variable string, task any) error {
	text, err := json.Marshal(task)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	c, out, err := command(filepath.Join(l.cfg.Dir, "workers.log"), exe)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own descriptor
	c.Env = append(os.Environ(), variable+"="+string(text))
	p, err := child.Start(c, false)
	if err != nil {
		return fmt.Errorf("start worker %s: %w", name, err)
	}
	l.workers[name] = p
	return nil
}

// SignalWorker sends a signal to a worker.
func (l *Lab) SignalWorker(name string, s syscall.Signal) error { return l.workers[name].Signal(s) }

// EndWorker ends a worker with SIGKILL, or lets it end in order with SIGTERM, and
// waits until it is gone. One that had ended by itself, or ends badly when it was
// asked to, is an error.
func (l *Lab) EndWorker(name string, s syscall.Signal) error {
	p := l.workers[name]
	delete(l.workers, name)
	if !p.Running() {
		return fmt.Errorf("worker %s ended by itself: %w", name, errors.Join(p.Err(), errors.New("see workers.log")))
	}
	if err := p.Signal(s); err != nil {
		return err
	}
	if s == syscall.SIGKILL {
		<-p.Done()
		return nil
	}
	select {
	case <-p.Done():
	case <-time.After(30 * time.Second):
		return errors.Join(fmt.Errorf("worker %s did not end in order", name), p.Signal(syscall.SIGQUIT), p.Err())
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("worker %s: %w", name, err)
	}
	return nil
}

// Workers that were started and not ended.
func (l *Lab) Workers() []string {
	var out []string
	for name := range l.workers {
		out = append(out, name)
	}
	return out
}
