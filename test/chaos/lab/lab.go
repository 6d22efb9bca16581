// Package lab is a cluster of real processes on this machine, in cities with a
// network between them, and everything that can happen to it: kills, freezes,
// partitions, full disks, damage. It does what it is told; what is to be done
// when is a scenario's matter.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/internal/wan"
)

// Node of the cluster.
type Node struct {
	Name, City string
	Witness    bool
	// DiskBytes, when set, gives the node a disk of its own of that size.
	DiskBytes int64

	Source  netip.Addr // where its connections come from
	Listen  string     // where it listens
	Address string     // where the others and the clients reach it, through the network
	Admin   string     // host:port
	Peers   string     // host:port of its own, for engines whose nodes have a port for each other
	Home    string     // of its configuration and its log
	Dir     string     // of its entries
	disk    string     // Dir is in it
	mounted bool
	proc    *child.Process
	lives   int
}

// Config of a Lab.
type Config struct {
	Dir    string // of everything; it must exist
	Engine Engine
	Nodes  []Node
	Delay  time.Duration // between two cities, one way
	Logger zerolog.Logger
}

// Engine is the program of the nodes.
type Engine interface {
	// Configure writes what the node needs to know into its home folder.
	Configure(l *Lab, n *Node) error
	// Command starts it.
	Command(n *Node) []string
	// Ready fails until the node serves.
	Ready(ctx context.Context, n *Node) error
}

// Lab is the cluster. Its methods are for one goroutine, which tells it what to do.
type Lab struct {
	cfg     Config
	nodes   []*Node
	network *wan.Network
	cities  []string
	workers map[string]*child.Process
	stop    context.CancelFunc
	running sync.WaitGroup
	failed  error // of the network; readable after running
}

// workersAt is the last byte of the source addresses of a city's workers.
const workersAt = 200

// New writes the configurations and starts the network; no process runs yet.
func New(cfg Config) (*Lab, error) {
	l := &Lab{cfg: cfg, workers: map[string]*child.Process{}}
	var gates []wan.Gate
	var places []wan.Place
	for i := range cfg.Nodes {
		n := cfg.Nodes[i]
		if !contains(l.cities, n.City) {
			l.cities = append(l.cities, n.City)
		}
		n.Source = l.sourceOf(n.City, byte(i+1))
		n.Home = filepath.Join(cfg.Dir, n.Name)
		n.disk = filepath.Join(n.Home, "disk")
		n.Dir = filepath.Join(n.disk, "log")
		var err error
		if n.Listen, err = freeAddress(n.Source.String()); err != nil {
			return nil, err
		}
		if n.Admin, err = freeAddress("127.0.0.1"); err != nil {
			return nil, err
		}
		if n.Peers, err = freeAddress("127.0.0.1"); err != nil {
			return nil, err
		}
		gates = append(gates, wan.Gate{Name: n.Name, City: n.Name, Listen: "127.0.0.1:0", Target: n.Listen})
		places = append(places, wan.Place{Prefix: netip.PrefixFrom(n.Source, 32), City: n.Name})
		l.nodes = append(l.nodes, &n)
	}
	for _, city := range l.cities {
		places = append(places, wan.Place{Prefix: netip.PrefixFrom(l.Source(city), 32), City: crowd(city)})
	}
	network, err := wan.New(wan.Config{Gates: gates, Cities: places, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	l.network = network
	for i, g := range network.Gates() {
		l.nodes[i].Address = g.Listen
	}
	for _, a := range l.cities {
		for _, b := range l.cities {
			if err := l.Way(a, b, l.normal(a, b)); err != nil {
				return nil, err
			}
		}
	}
	for _, n := range l.nodes {
		if err := os.MkdirAll(n.disk, 0o700); err != nil {
			return nil, err
		}
		if n.DiskBytes > 0 {
			if err := unix.Mount("chaos", n.disk, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", n.DiskBytes)); err != nil {
				return nil, errors.Join(fmt.Errorf("a small disk for node %s: %w", n.Name, err), l.unmount())
			}
			n.mounted = true
		}
		if err := cfg.Engine.Configure(l, n); err != nil {
			return nil, errors.Join(err, l.unmount())
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.running.Go(func() { l.failed = network.Run(ctx) })
	return l, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// sourceOf is 127.0.1.x in the first city, 127.0.2.x in the second.
func (l *Lab) sourceOf(city string, last byte) netip.Addr {
	for i, c := range l.cities {
		if c == city {
			return netip.AddrFrom4([4]byte{127, 0, byte(i + 1), last})
		}
	}
	panic("no city " + city)
}

// crowd is the network's name for where a city's workers are.
func crowd(city string) string { return city + "/workers" }

// Source is where connections of a city's workers have to come from.
func (l *Lab) Source(city string) netip.Addr { return l.sourceOf(city, workersAt) }

func freeAddress(ip string) (string, error) {
	s, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return "", err
	}
	return s.Addr().String(), s.Close()
}

// Node by name; an unknown one is a mistake of the scenario.
func (l *Lab) Node(name string) *Node {
	for _, n := range l.nodes {
		if n.Name == name {
			return n
		}
	}
	panic("no node " + name)
}

// Cities in the order of their first node.
func (l *Lab) Cities() []string { return l.cities }

// In are the names of a city's nodes; of all cities when none is named.
func (l *Lab) In(cities ...string) []string {
	var out []string
	for _, n := range l.nodes {
		if len(cities) == 0 || contains(cities, n.City) {
			out = append(out, n.Name)
		}
	}
	return out
}

// Storing are those of the nodes that store entries.
func (l *Lab) Storing(cities ...string) []string {
	var out []string
	for _, name := range l.In(cities...) {
		if !l.Node(name).Witness {
			out = append(out, name)
		}
	}
	return out
}

// Addresses of nodes, as clients reach them.
func (l *Lab) Addresses(names ...string) []string {
	var out []string
	for _, name := range names {
		out = append(out, l.Node(name).Address)
	}
	return out
}

// Start starts nodes that are not running, and returns when they listen.
func (l *Lab) Start(ctx context.Context, names ...string) error {
	for _, name := range names {
		n := l.Node(name)
		if n.proc != nil && n.proc.Running() {
			continue
		}
		n.lives++
		p, err := l.spawn(filepath.Join(n.Home, "node.log"), l.cfg.Engine.Command(n))
		if err != nil {
			return fmt.Errorf("start node %s: %w", name, err)
		}
		n.proc = p
	}
	for _, name := range names {
		if err := l.ready(ctx, l.Node(name)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) spawn(output string, line []string) (*child.Process, error) {
	c, out, err := command(output, line[0], line[1:]...)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own descriptor
	return child.Start(c, false)
}

func (l *Lab) ready(ctx context.Context, n *Node) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := l.cfg.Engine.Ready(ctx, n)
		if err == nil {
			return nil
		}
		select {
		case <-n.proc.Done():
			return fmt.Errorf("node %s ended at its start: %w\n%s", n.Name, n.proc.Err(), l.Log(n.Name, 12))
		case <-ctx.Done():
			return fmt.Errorf("node %s does not serve: %w\n%s", n.Name, err, l.Log(n.Name, 12))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log is the end of what a node said.
func (l *Lab) Log(name string, lines int) string {
	b, err := os.ReadFile(filepath.Join(l.Node(name).Home, "node.log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// PeakBytes is the most memory that any node's present process has used.
func (l *Lab) PeakBytes() int64 {
	most := int64(0)
	for _, n := range l.nodes {
		if n.proc == nil || !n.proc.Running() {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.proc.PID))
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(b)) {
			var kib int64
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
				most = max(most, kib<<10)
			}
		}
	}
	return most
}

// Running tells whether the node's process is there.
func (l *Lab) Running(name string) bool {
	p := l.Node(name).proc
	return p != nil && p.Running()
}

// Kill ends nodes with SIGKILL, all at once.
func (l *Lab) Kill(names ...string) error {
	var errs []error
	for _, name := range names {
		if p := l.Node(name).proc; p != nil && p.Running() {
			errs = append(errs, p.Signal(syscall.SIGKILL))
		}
	}
	for _, name := range names {
		if p := l.Node(name).proc; p != nil {
			<-p.Done()
		}
	}
	return errors.Join(errs...)
}

// Terminate asks nodes to end, one after the other, and waits.
func (l *Lab) Terminate(names ...string) error {
	var errs []error
	for _, name := range names {
		if p := l.Node(name).proc; p != nil && p.Running() {
			errs = append(errs, p.Terminate(15*time.Second))
		}
	}
	return errors.Join(errs...)
}

// Freeze stops nodes where they are; Thaw lets them go on.
func (l *Lab) Freeze(names ...string) error { return l.signal(syscall.SIGSTOP, names) }

// Thaw lets frozen nodes go on.
func (l *Lab) Thaw(names ...string) error { return l.signal(syscall.SIGCONT, names) }

func (l *Lab) signal(s syscall.Signal, names []string) error {
	var errs []error
	for _, name := range names {
		if p := l.Node(name).proc; p != nil && p.Running() {
			errs = append(errs, p.Signal(s))
		}
	}
	return errors.Join(errs...)
}

// Close ends every process and the network, and gives small disks back.
func (l *Lab) Close() error {
	var errs []error
	for name := range l.workers {
		errs = append(errs, l.EndWorker(name, syscall.SIGKILL))
	}
	errs = append(errs, l.Thaw(l.In()...), l.Kill(l.In()...))
	l.stop()
	l.running.Wait()
	return errors.Join(append(errs, l.failed, l.unmount())...)
}

func (l *Lab) unmount() error {
	var errs []error
	for _, n := range l.nodes {
		if n.mounted {
			errs = append(errs, unix.Unmount(n.disk, 0))
			n.mounted = false
		}
	}
	return errors.Join(errs...)
}
