package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/internal/natstest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// natsSide is three NATS servers that sync every write.
type natsSide struct{ *natstest.Cluster }

func startNATS(ctx context.Context, dir string) (*natsSide, error) {
	c, err := natstest.Run(ctx, natstest.Options{Dir: filepath.Join(dir, "nats")})
	if err != nil {
		return nil, err
	}
	return &natsSide{c}, nil
}

func (s *natsSide) pids() []int {
	var out []int
	for _, x := range s.Servers {
		out = append(out, x.PID())
	}
	return out
}

// open makes a stream of three replicas on file and a connection that publishes
// to its leader's cluster.
func (s *natsSide) open(ctx context.Context, stream string, window int) (appender, error) {
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}) // each publish tells its own
	nc, err := nats.Connect(strings.Join(s.URLs(), ","), nats.ReconnectBufSize(-1), quiet)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window+1))
	if err != nil {
		nc.Close()
		return nil, err
	}
	made, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: stream, Subjects: []string{"bench." + stream}, Storage: jetstream.FileStorage, Replicas: 3, Discard: jetstream.DiscardNew, MaxMsgs: -1, MaxBytes: -1,
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	// To the server that leads the stream, which spares each message a hop.
	if info := made.CachedInfo(); info.Cluster != nil {
		for _, x := range s.Servers {
			if x.Name != info.Cluster.Leader {
				continue
			}
			near, err := nats.Connect("nats://"+x.Client, nats.ReconnectBufSize(-1), quiet)
			if err != nil {
				return nil, err
			}
			nc.Close()
			nc = near
			if js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window+1)); err != nil {
				nc.Close()
				return nil, err
			}
		}
	}
	return theirs{nc, js, "bench." + stream}, nil
}

// place is one of our nodes.
type place struct {
	name, city string
	listen     string // where the node listens
	address    string // where the others find it; empty: listen
	bind       string // the address its own connections come from
	witness    bool
	extra      string // more lines of its configuration
}

// ownSide is nodes of the built binary.
type ownSide struct {
	dir       string
	binary    string
	places    []place
	admin     []string
	processes []*child.Process
	logs      []*client.Client
}

// startOwn starts a node for each place and waits until they are one cluster.
func startOwn(ctx context.Context, binary, dir string, places []place) (s *ownSide, err error) {
	s = &ownSide{dir: dir, binary: binary, places: places}
	if s.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	for i := range places {
		if places[i].address == "" {
			places[i].address = places[i].listen
		}
		s.admin = append(s.admin, freeAddress())
	}
	for i := range places {
		if err := s.configure(i); err != nil {
			return nil, err
		}
		s.processes = append(s.processes, nil)
	}
	for i := range places {
		if err := s.start(i); err != nil {
			return nil, errors.Join(err, s.stop())
		}
	}
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *ownSide) configure(i int) error {
	p := s.places[i]
	var b strings.Builder
	fmt.Fprintf(&b, "stream: bench\ncity: %s\nroles: [node]\ndata_dir: %s\nadmin: {listen: %s, pprof: true}\nlog: {bind: %q}\nlogging: {level: warn}\n",
		p.city, filepath.Join(s.dir, p.name), s.admin[i], p.bind)
	fmt.Fprintf(&b, "node:\n  name: %s\n  listen: %s\n%s", p.name, p.listen, p.extra)
	if len(s.places) > 1 {
		fmt.Fprintf(&b, "  cluster:\n")
		for _, o := range s.places {
			fmt.Fprintf(&b, "  - {name: %s, city: %s, address: %q, witness: %v}\n", o.name, o.city, o.address, o.witness)
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(s.config(i), []byte(b.String()), 0o600)
}

func (s *ownSide) config(i int) string { return filepath.Join(s.dir, s.places[i].name+".yaml") }

func (s *ownSide) start(i int) error {
	out, err := os.OpenFile(filepath.Join(s.dir, s.places[i].name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }() // the child has its own descriptor
	c := exec.Command(s.binary, "run", "-c", s.config(i))
	c.Stdout, c.Stderr = out, out
	s.processes[i], err = child.Start(c, false)
	return err
}

// ready waits until every node serves and the metadata has a leader.
func (s *ownSide) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return until(ctx, "nodes", func() (bool, error) {
		for i, p := range s.processes {
			if !p.Running() {
				return false, fmt.Errorf("node %s ended: %w\n%s", s.places[i].name, p.Err(), s.says(i))
			}
			if v, err := s.metric(ctx, i, "twinspan_log_metadata_leader"); err != nil || v != 1 {
				return false, nil //nolint:nilerr // not up yet
			}
			if code, err := status(ctx, "http://"+s.admin[i]+"/readyz"); err != nil || code != http.StatusOK {
				return false, nil //nolint:nilerr // not up yet
			}
		}
		return true, nil
	})
}

func status(ctx context.Context, url string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func (s *ownSide) says(i int) string {
	b, err := os.ReadFile(filepath.Join(s.dir, s.places[i].name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

func (s *ownSide) pids() []int {
	var out []int
	for _, p := range s.processes {
		out = append(out, p.PID)
	}
	return out
}

// metric is the sum of a node's samples of that name.
func (s *ownSide) metric(ctx context.Context, i int, name string) (total float64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin[i]+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 4<<20))
	found := false
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), " ")
		if base, _, _ := strings.Cut(key, "{"); ok && base == name {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			total, found = total+v, true
		}
	}
	if !found {
		return 0, errors.Join(lines.Err(), fmt.Errorf("node %s has no metric %s", s.places[i].name, name))
	}
	return total, lines.Err()
}

// flushes are how many, and the seconds they took together.
type flushes struct{ count, seconds float64 }

func (f flushes) since(before flushes) flushes {
	return flushes{f.count - before.count, f.seconds - before.seconds}
}

// flushes of all nodes so far.
func (s *ownSide) flushes(ctx context.Context) (total flushes, err error) {
	for i := range s.places {
		for name, sum := range map[string]*float64{"twinspan_log_fsyncs_total": &total.count, "twinspan_log_fsync_seconds_total": &total.seconds} {
			v, err := s.metric(ctx, i, name)
			if err != nil {
				return flushes{}, err
			}
			*sum += v
		}
	}
	return total, nil
}

// log makes a client whose new streams have the rule. Its segments are large
// enough to stay open: closing them, and what follows, is measured by itself.
func (s *ownSide) log(city, bind string, rule quorum.NodeRule) (*client.Client, error) {
	return s.client(client.Config{
		City: city, Policy: &meta.Policy{Rule: rule, Loss: meta.LossBlock}, WindowBytes: 64 << 20, RetainBytes: 64 << 20, SegmentBytes: 64 << 30,
		Dial: dialFrom(bind),
	})
}

// dialFrom connects from an address; empty: any.
func dialFrom(bind string) func(ctx context.Context, address string) (net.Conn, error) {
	d := &net.Dialer{}
	if bind != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(bind)}
	}
	return func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}

// client makes one that stop closes.
func (s *ownSide) client(cfg client.Config) (*client.Client, error) {
	for _, p := range s.places {
		if !p.witness {
			cfg.Nodes = append(cfg.Nodes, p.address)
		}
	}
	cfg.Logger = zerolog.Nop()
	c, err := client.New(cfg)
	if err == nil {
		s.logs = append(s.logs, c)
	}
	return c, err
}

func open(ctx context.Context, l log.Log, stream string) (appender, error) {
	w, err := l.OpenWriter(ctx, stream)
	if err != nil {
		return nil, err
	}
	return ours{w}, nil
}

func (s *ownSide) stop() error {
	var errs []error
	for _, l := range s.logs {
		errs = append(errs, l.Close())
	}
	for _, p := range s.processes {
		if p != nil {
			errs = append(errs, p.Terminate(10*time.Second))
		}
	}
	return errors.Join(errs...)
}
