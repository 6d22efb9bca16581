// Package natstest runs a real NATS JetStream cluster on the loopback: one process
// per server, each with its own folder and ports, for tests and benches.
package natstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/child"
)

// MaxPayload is the max_payload the servers get unless Options say otherwise, in
// bytes: room for the log's largest entry and its headers.
const MaxPayload = 33 << 20

// Options of a cluster. The zero value is three servers that sync every write.
type Options struct {
	Servers      int    // 3
	Dir          string // kept at Close; empty: a temporary one that is removed
	MaxPayload   int    // bytes; MaxPayload
	SyncInterval string // sync_interval; "always"
	// Wrap is put in front of each server's command line, such as strace and
	// its flags.
	Wrap func(server int) []string
}

// Cluster is a running cluster. Its methods are for one goroutine.
type Cluster struct {
	Servers []*Server
	remove  string
}

// Server is one nats-server process.
type Server struct {
	Name    string
	Dir     string
	Client  string // host:port
	Monitor string // http://host:port
	config  string
	wrap    []string
	process *child.Process
}

// Binary is where scripts/nats.sh puts the server.
func Binary() (string, error) {
	dir := os.Getenv("TWINSPAN_BIN")
	if dir == "" {
		cache := os.Getenv("XDG_CACHE_HOME")
		if cache == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", err
			}
			cache = filepath.Join(home, ".cache")
		}
		dir = filepath.Join(cache, "twinspan", "bin")
	}
	path := filepath.Join(dir, "nats-server")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("nats-server is not installed: run make servers: %w", err)
	}
	return path, nil
}

// Run starts a cluster and waits until JetStream works in it.
func Run(ctx context.Context, o Options) (c *Cluster, err error) {
	if o.Servers == 0 {
		o.Servers = 3
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = MaxPayload
	}
	if o.SyncInterval == "" {
		o.SyncInterval = "always"
	}
	c = &Cluster{}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "twinspan-nats-"); err != nil {
			return nil, err
		}
		c.remove = o.Dir
	}
	ports, err := freePorts(3 * o.Servers)
	if err != nil {
		return nil, err
	}
	var routes []string
	for i := range o.Servers {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[3*i+1]))
	}
	for i := range o.Servers {
		s := &Server{
			Name: fmt.Sprintf("n%d", i+1), Dir: filepath.Join(o.Dir, fmt.Sprintf("n%d", i+1)),
			Client: fmt.Sprintf("127.0.0.1:%d", ports[3*i]), Monitor: fmt.Sprintf("http://127.0.0.1:%d", ports[3*i+2]),
		}
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return nil, err
		}
		s.config = filepath.Join(s.Dir, "server.conf")
		text := fmt.Sprintf("server_name: %s\nlisten: %s\nhttp: %s\nmax_payload: %d\nlogfile: %q\n"+
			"jetstream { store_dir: %q, sync_interval: %s, max_file_store: 16G, max_memory_store: 256M }\n",
			s.Name, s.Client, strings.TrimPrefix(s.Monitor, "http://"), o.MaxPayload, filepath.Join(s.Dir, "server.log"), s.Dir, o.SyncInterval)
		if o.Servers > 1 {
			text += fmt.Sprintf("cluster { name: test, listen: 127.0.0.1:%d, routes: [%s] }\n", ports[3*i+1], strings.Join(routes, ", "))
		}
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		if o.Wrap != nil {
			s.wrap = o.Wrap(i)
		}
		c.Servers = append(c.Servers, s)
	}
	for _, s := range c.Servers {
		if err := s.Start(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.Ready(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// URLs of the servers, for a client.
func (c *Cluster) URLs() []string {
	var out []string
	for _, s := range c.Servers {
		out = append(out, "nats://"+s.Client)
	}
	return out
}

// Monitors are the URLs of the servers' monitoring ports.
func (c *Cluster) Monitors() []string {
	var out []string
	for _, s := range c.Servers {
		out = append(out, s.Monitor)
	}
	return out
}

// Ready waits until every server that runs is healthy and the cluster has a
// leader for its metadata.
func (c *Cluster) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := c.healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nats cluster is not ready: %w\n%s", err, c.Log(5))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *Cluster) healthy(ctx context.Context) error {
	leaders := map[string]bool{}
	running, offline := 0, 0
	for _, s := range c.Servers {
		if s.process == nil || !s.process.Running() {
			continue
		}
		if _, err := get(ctx, s.Monitor+"/healthz?js-enabled-only=true"); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if len(c.Servers) == 1 {
			return nil
		}
		b, err := get(ctx, s.Monitor+"/jsz")
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		var jsz struct {
			Meta struct {
				Leader string `json:"leader"`
				Size   int    `json:"cluster_size"`
				Peers  []struct {
					Offline bool `json:"offline"`
				} `json:"replicas"` // told by the leader
			} `json:"meta_cluster"`
		}
		if err := json.Unmarshal(b, &jsz); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if jsz.Meta.Leader == "" || jsz.Meta.Size != len(c.Servers) {
			return fmt.Errorf("%s: metadata leader %q of %d servers", s.Name, jsz.Meta.Leader, jsz.Meta.Size)
		}
		leaders[jsz.Meta.Leader] = true
		for _, p := range jsz.Meta.Peers {
			if p.Offline {
				offline++
			}
		}
		running++
	}
	if offline > len(c.Servers)-running {
		return fmt.Errorf("the leader of the metadata misses %d servers", offline)
	}
	if len(leaders) != 1 {
		return fmt.Errorf("the servers name %d metadata leaders", len(leaders))
	}
	return nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s says %s: %s", url, resp.Status, b)
	}
	return b, err
}

// Start starts the server on what its folder holds.
func (s *Server) Start() error {
	binary, err := Binary()
	if err != nil {
		return err
	}
	line := append(append([]string{}, s.wrap...), binary, "-c", s.config)
	s.process, err = child.Start(exec.Command(line[0], line[1:]...), false)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

// PID of the server's process, or of what wraps it.
func (s *Server) PID() int { return s.process.PID }

// Kill ends the server with SIGKILL and waits until it is gone.
func (s *Server) Kill() error {
	if s.process == nil {
		return nil
	}
	return s.process.Kill()
}

// Freeze stops the server with SIGSTOP, Thaw lets it go on.
func (s *Server) Freeze() error { return s.process.Signal(syscall.SIGSTOP) }

// Thaw ends what Freeze began.
func (s *Server) Thaw() error { return s.process.Signal(syscall.SIGCONT) }

// Crash kills all servers, starts them on what is on their disks, and waits until
// they work again.
func (c *Cluster) Crash(ctx context.Context) error {
	for _, s := range c.Servers {
		if err := s.Kill(); err != nil {
			return err
		}
	}
	for _, s := range c.Servers {
		if err := s.Start(); err != nil {
			return err
		}
	}
	return c.Ready(ctx)
}

// Log is the last lines of each server's log.
func (c *Cluster) Log(lines int) string {
	var out strings.Builder
	for _, s := range c.Servers {
		b, err := os.ReadFile(filepath.Join(s.Dir, "server.log"))
		if err != nil {
			b = []byte(err.Error())
		}
		all := strings.Split(strings.TrimSpace(string(b)), "\n")
		fmt.Fprintf(&out, "%s:\n%s\n", s.Name, strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
	return out.String()
}

// Close kills the servers and removes a temporary folder.
func (c *Cluster) Close() error {
	var errs []error
	for _, s := range c.Servers {
		errs = append(errs, s.Kill())
	}
	if c.remove != "" {
		errs = append(errs, os.RemoveAll(c.remove))
	}
	return errors.Join(errs...)
}

// freePorts asks the kernel for unused ports of the loopback.
func freePorts(n int) (ports []int, err error) {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			err = errors.Join(err, l.Close())
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
