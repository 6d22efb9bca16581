package mysqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/internal/server"
)

const (
	startTimeout = 90 * time.Second
	stopTimeout  = 60 * time.Second
)

// Server is one real server. Its methods may be called from several goroutines.
type Server struct {
	Address  string // 127.0.0.1:port
	Port     int
	Flavor   Flavor
	ServerID uint32
	Dir      string // everything of the server: data/, error.log, socket

	in      installation
	ownPort bool
	ownDir  bool

	life    sync.Mutex // held from the beginning to the end of a start or stop
	options Options    // guarded by life

	mu      sync.Mutex
	proc    *child.Process // nil when stopped on purpose; changed under life as well
	db      *sql.DB
	replica bool
	closed  bool
}

// Run starts a server and returns when it answers. The server lives until Stop,
// Kill or Close, or until this process ends (unless o.Detach). The context
// bounds the start only.
func Run(ctx context.Context, o Options) (*Server, error) {
	in, err := find(o.Flavor)
	if err != nil {
		return nil, err
	}
	s := &Server{Flavor: o.Flavor, Port: o.Port, Dir: o.Dir, in: in}
	if s.Port == 0 {
		if s.Port, err = FreePort(); err != nil {
			return nil, err
		}
		s.ownPort = true
	}
	s.Address = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
	if o.ServerID == 0 {
		o.ServerID = uint32(s.Port)
	}
	s.ServerID = o.ServerID
	s.options = o
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.Flavor, err), s.Close())
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare makes the server's folder and data directory.
func (s *Server) prepare(ctx context.Context) error {
	var err error
	if s.Dir == "" {
		if s.Dir, err = scratchDir(string(s.Flavor)); err != nil {
			return err
		}
		s.ownDir = true
	} else {
		if s.Dir, err = filepath.Abs(s.Dir); err != nil {
			return err
		}
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return err
		}
	}
	if len(s.socket()) > 107 {
		return fmt.Errorf("folder %s: its name is too long for a socket in it", s.Dir)
	}
	if err := os.MkdirAll(filepath.Join(s.Dir, "tmp"), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(s.dataDir()); err == nil {
		return nil
	}
	t, err := template(ctx, s.in, s.options.initArgs())
	if err != nil {
		return err
	}
	return copyTree(t, s.dataDir())
}

func (s *Server) dataDir() string  { return filepath.Join(s.Dir, "data") }
func (s *Server) socket() string   { return filepath.Join(s.Dir, "sock") }
func (s *Server) errorLog() string { return filepath.Join(s.Dir, "error.log") }

// start runs the server process and waits until it answers. life is held.
func (s *Server) start(ctx context.Context) error {
	args := append(s.in.placeArgs(), "--datadir="+s.dataDir(), "--tmpdir="+filepath.Join(s.Dir, "tmp"),
		"--user="+userName(), "--log-error="+s.errorLog())
	args = append(args, s.options.commandArgs(s.Port, s.socket(), filepath.Join(s.Dir, "pid"))...)
	c := s.in.command(s.in.daemon(), args...)
	out, err := os.OpenFile(filepath.Join(s.Dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	c.Stdout, c.Stderr, c.Dir = out, out, s.Dir
	p, err := child.Start(c, s.options.Detach)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Flavor, err)
	}
	if err := awaitReady(ctx, p, s.Address, s.errorLog()); err != nil {
		return errors.Join(fmt.Errorf("start %s on %s: %w", s.Flavor, s.Address, err), p.Kill())
	}
	s.setProcess(p)
	return nil
}

// awaitReady returns when the server at address answers a query.
func awaitReady(ctx context.Context, p *child.Process, address, errorLog string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	db, err := server.Open(server.Endpoint{Address: address, User: "root"}, server.Options{DialTimeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing was written through it
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("the server ended (%w)\n%s", p.Err(), tail(errorLog, 30))
		case <-ctx.Done():
			return fmt.Errorf("no answer: %w (%w)\n%s", ctx.Err(), err, tail(errorLog, 30))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Endpoint is root without a password.
func (s *Server) Endpoint() server.Endpoint {
	return server.Endpoint{Address: s.Address, User: "root"}
}

// DB is a pool for root that belongs to the server; do not close it. It stays
// usable across Restart.
func (s *Server) DB() *sql.DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		db, err := server.Open(s.Endpoint(), server.Options{})
		if err != nil {
			panic(fmt.Sprintf("mysqltest: %v", err)) // root, no password, no TLS: cannot fail
		}
		s.db = db
	}
	return s.db
}

// PID of the server process, 0 when it is down.
func (s *Server) PID() int {
	p := s.process()
	if p == nil || !p.Running() {
		return 0
	}
	return p.PID
}

// process is the running process, nil when there is none.
func (s *Server) process() *child.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *Server) setProcess(p *child.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
}

// Stop ends the server cleanly. Stopping a stopped server does nothing.
func (s *Server) Stop() error {
	s.life.Lock()
	defer s.life.Unlock()
	return s.stop()
}

// stop is Stop with life held.
func (s *Server) stop() error {
	p := s.process()
	if p == nil {
		return nil
	}
	if p.Running() {
		// A frozen server would never see SIGTERM.
		_ = p.Signal(syscall.SIGCONT)
		s.pauseReplication()
	}
	s.setProcess(nil)
	return p.Terminate(stopTimeout)
}

// Kill ends the server with SIGKILL: a crash. A replica of MariaDB's is between
// two transactions then: its DDL is not atomic with its position, so one killed
// inside a statement runs it once more and stops replicating for good.
func (s *Server) Kill() error {
	s.life.Lock()
	defer s.life.Unlock()
	if p := s.process(); p != nil && p.Running() && s.Flavor.IsMariaDB() {
		s.pauseReplication()
	}
	return s.kill()
}

func (s *Server) kill() error {
	p := s.process()
	if p == nil {
		return nil
	}
	s.setProcess(nil)
	return p.Kill()
}

// Restart stops the server if it is up, and starts it on the same data and
// port, with changed options if any are given.
func (s *Server) Restart(ctx context.Context, opts ...Option) error {
	s.life.Lock()
	defer s.life.Unlock()
	if err := s.stop(); err != nil {
		return err
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return fmt.Errorf("restart %s on %s: it was closed", s.Flavor, s.Address)
	}
	for _, o := range opts {
		o(&s.options)
	}
	return s.start(ctx)
}

// Freeze stops the process from running (SIGSTOP): its connections stay open
// and silent.
func (s *Server) Freeze() error { return s.send(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (s *Server) Thaw() error { return s.send(syscall.SIGCONT) }

func (s *Server) send(sig syscall.Signal) error {
	p := s.process()
	if p == nil {
		return fmt.Errorf("%s on %s is not running", s.Flavor, s.Address)
	}
	return p.Signal(sig)
}

// Close ends the server at once and removes its folder, if it is a scratch one.
func (s *Server) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	s.mu.Lock()
	db, closed := s.db, s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	if db != nil {
		errs = append(errs, db.Close())
	}
	errs = append(errs, s.kill())
	if s.ownDir && s.Dir != "" {
		errs = append(errs, os.RemoveAll(s.Dir))
	}
	if s.ownPort {
		releasePort(s.Port)
	}
	releaseScratch()
	return errors.Join(errs...)
}

// Log is the end of the server's error log.
func (s *Server) Log(lines int) string { return tail(s.errorLog(), lines) }

func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return lastLines(string(b), lines)
}

func lastLines(text string, n int) string {
	l := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(l) > n {
		l = l[len(l)-n:]
	}
	return strings.Join(l, "\n") + "\n"
}
