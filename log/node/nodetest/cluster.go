// Package nodetest runs whole clusters of storage nodes in one process, with a
// network between them that can be slow, cut or silent, and disks that can crash.
package nodetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/vfs"
)

// Options of a Cluster.
type Options struct {
	// Nodes by name; the first letter is the city: "a1", "a2", "b1". Names that
	// end with "w" are witnesses: "cw".
	Nodes []string
	// OnDisk keeps journals in temporary directories; else they are on disks in
	// memory, which Kill treats as a power cut.
	OnDisk bool
	// Node changes the configuration of each node before it starts.
	Node func(*node.Config)
	// Delay of each direction between two cities.
	Delay  time.Duration
	Logger *zerolog.Logger // nil: silent, but for TWINSPAN_TEST_LOG=1
}

// Cluster is nodes in this process. Its methods are for one goroutine.
type Cluster struct {
	t       testing.TB
	o       Options
	net     *wan.Network
	list    []node.ClusterNode
	members map[string]*Member
	log     zerolog.Logger
	clients int
}

// Member is one node of a Cluster.
type Member struct {
	Name, City string
	Dir        string
	Node       *node.Node // nil while it is stopped
	disk       *vfs.Disk
	meta       string // directory of its metadata, when the journal is in memory
	target     string // where it really listens
	source     string // where its connections come from
	cancel     context.CancelFunc
	done       chan error
}

// New makes a cluster, starts it, and waits until all nodes are registered. The test's cleanup stops it.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, o: o, members: map[string]*Member{}, log: zerolog.Nop()}
	if o.Logger != nil {
		c.log = *o.Logger
	} else if os.Getenv("TWINSPAN_TEST_LOG") != "" {
		c.log = zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: "15:04:05.000"}).With().Timestamp().Logger()
	}
	cfg := wan.Config{Logger: zerolog.Nop()}
	for i, name := range o.Nodes {
		m := &Member{Name: name, City: name[:1], source: fmt.Sprintf("127.0.10.%d", i+1), Dir: "/log"}
		if o.OnDisk {
			m.Dir = filepath.Join(t.TempDir(), "log")
		} else {
			m.disk = vfs.NewDisk()
		}
		m.target = freePort(t, fmt.Sprintf("127.0.12.%d", i+1))
		c.members[name] = m
		cfg.Gates = append(cfg.Gates, wan.Gate{Name: name, City: name, Listen: "127.0.0.1:0", Target: m.target})
		cfg.Cities = append(cfg.Cities, wan.Place{Prefix: netip.MustParsePrefix(m.source + "/32"), City: name})
	}
	for city := byte('a'); city <= 'z'; city++ { // clients
		cfg.Cities = append(cfg.Cities, wan.Place{Prefix: netip.MustParsePrefix(fmt.Sprintf("127.0.11.%d/32", city)), City: "client-" + string(city)})
	}
	var err error
	if c.net, err = wan.New(cfg); err != nil {
		t.Fatal(err)
	}
	for _, g := range c.net.Gates() {
		m := c.members[g.Name]
		c.list = append(c.list, node.ClusterNode{Name: g.Name, City: m.City, Address: g.Listen, Witness: g.Name[len(g.Name)-1] == 'w'})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.net.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		var all sync.WaitGroup
		for _, m := range c.members {
			all.Go(func() { c.stop(m) })
		}
		all.Wait()
		cancel()
		running.Wait()
	})
	if o.Delay > 0 {
		for _, a := range c.places() {
			for _, b := range c.places() {
				if cityOf(a) != cityOf(b) {
					c.check(c.net.Set(a, b, wan.Way{Delay: o.Delay}))
				}
			}
		}
	}
	for _, name := range o.Nodes {
		c.Start(name)
	}
	c.Registered()
	return c
}

// freePort is an address that nobody listens on, and nobody connects from.
func freePort(t testing.TB, host string) string {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it was never used
	return l.Addr().String()
}

// places are the ends of the network's ways: nodes, and each city's clients.
func (c *Cluster) places() []string {
	out := slices.Clone(c.o.Nodes)
	seen := map[string]bool{}
	for _, n := range c.o.Nodes {
		if !seen[n[:1]] {
			seen[n[:1]] = true
			out = append(out, "client-"+n[:1])
		}
	}
	return out
}

func cityOf(place string) string {
	if len(place) > 7 && place[:7] == "client-" {
		return place[7:]
	}
	return place[:1]
}

func (c *Cluster) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *Cluster) dialFrom(source string) func(context.Context, string) (net.Conn, error) {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	return func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}

// List is the cluster's static list, with the addresses of the network's gates.
func (c *Cluster) List() []node.ClusterNode { return slices.Clone(c.list) }

// Member by name.
func (c *Cluster) Member(name string) *Member {
	m := c.members[name]
	if m == nil {
		c.t.Fatalf("no node %q", name)
	}
	return m
}

// Node by name; it must run.
func (c *Cluster) Node(name string) *node.Node {
	c.t.Helper()
	m := c.Member(name)
	if m.Node == nil {
		c.t.Fatalf("node %q does not run", name)
	}
	return m.Node
}

// Start starts a node that does not run.
func (c *Cluster) Start(name string) *node.Node {
	c.t.Helper()
	m := c.Member(name)
	if m.Node != nil {
		return m.Node
	}
	cfg := node.Config{
		Name: name, Dir: m.Dir, Listen: m.target, Cluster: c.list, Dial: c.dialFrom(m.source), FileBytes: 1 << 20,
		Heartbeat: 200 * time.Millisecond, IdleTimeout: 2 * time.Second, RepairEvery: 100 * time.Millisecond,
		RetentionEvery: 100 * time.Millisecond, Logger: c.log.With().Str("at", name).Logger(),
	}
	if m.disk != nil {
		cfg.FS = m.disk
		if m.meta == "" {
			m.meta = filepath.Join(c.t.TempDir(), name)
		}
		cfg.MetaDir = m.meta
	}
	if c.o.Node != nil {
		c.o.Node(&cfg)
	}
	n, err := node.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.Node, m.cancel, m.done = n, cancel, make(chan error, 1)
	done := m.done
	go func() { done <- n.Run(ctx) }()
	return n
}

func (c *Cluster) stop(m *Member) {
	if m.Node == nil {
		return
	}
	m.cancel()
	if err := <-m.done; err != nil {
		c.t.Errorf("node %q: %v", m.Name, err)
	}
	m.Node = nil
}

// Stop ends a node in order.
func (c *Cluster) Stop(name string) { c.stop(c.Member(name)) }

// Ended waits for the end of a node that ends by itself, and returns its error.
func (c *Cluster) Ended(name string) error {
	m := c.Member(name)
	err := <-m.done
	m.Node = nil
	return err
}

// Kill ends nodes without any warning: what their disks in memory hold at this
// moment is what they start with again; on real disks they are only stopped.
func (c *Cluster) Kill(names ...string) {
	var all sync.WaitGroup
	for _, name := range names {
		m := c.Member(name)
		c.Isolate(name) // first: what it says from here on nobody hears
		if m.disk != nil {
			m.disk = m.disk.Restart()
		}
	}
	for _, name := range names {
		all.Go(func() { c.stop(c.Member(name)) })
	}
	all.Wait()
	for _, name := range names {
		c.Rejoin(name)
	}
}

// Wipe gives a stopped node an empty disk.
func (c *Cluster) Wipe(name string) {
	m := c.Member(name)
	c.stop(m)
	if m.disk != nil {
		m.disk = vfs.NewDisk()
		m.meta = ""
		return
	}
	c.check(os.RemoveAll(m.Dir))
}

// Disk of a node, when it is in memory.
func (c *Cluster) Disk(name string) *vfs.Disk { return c.Member(name).disk }

func (c *Cluster) cut(kind wan.Cut, which func(from, to string) bool) {
	for _, a := range c.places() {
		for _, b := range c.places() {
			if a != b && which(a, b) {
				c.check(c.net.SetCut(a, b, kind))
			}
		}
	}
}

// Partition cuts two cities from each other, silently as a broken line does.
func (c *Cluster) Partition(a, b string) {
	c.cut(wan.Hold, func(from, to string) bool {
		return cityOf(from) == a && cityOf(to) == b || cityOf(from) == b && cityOf(to) == a
	})
}

// Break ends all connections between two cities and lets none be made: what was on
// its way is lost.
func (c *Cluster) Break(a, b string) {
	c.cut(wan.Reset, func(from, to string) bool {
		return cityOf(from) == a && cityOf(to) == b || cityOf(from) == b && cityOf(to) == a
	})
}

// OneWay lets nothing pass from one city to another, and everything back.
func (c *Cluster) OneWay(from, to string) {
	c.cut(wan.Hold, func(x, y string) bool { return cityOf(x) == from && cityOf(y) == to })
}

// Freeze lets a node say and hear nothing, as a process that was stopped.
func (c *Cluster) Freeze(name string) {
	c.cut(wan.Hold, func(from, to string) bool { return from == name || to == name })
}

// Isolate breaks a node's connections and lets it make no other.
func (c *Cluster) Isolate(name string) {
	c.cut(wan.Reset, func(from, to string) bool { return from == name || to == name })
}

// Rejoin undoes Freeze and Isolate of one node.
func (c *Cluster) Rejoin(name string) {
	c.cut(wan.Open, func(from, to string) bool { return from == name || to == name })
}

// Heal opens all ways.
func (c *Cluster) Heal() { c.cut(wan.Open, func(string, string) bool { return true }) }

// Client of the log in a city.
func (c *Cluster) Client(city string, change func(*client.Config)) *client.Client {
	c.t.Helper()
	c.clients++
	cfg := client.Config{
		City: city, Name: fmt.Sprintf("client-%s-%d", city, c.clients), Dial: c.dialFrom(fmt.Sprintf("127.0.11.%d", city[0])),
		RollAfter: 500 * time.Millisecond, RollEvery: 500 * time.Millisecond, StuckAfter: 300 * time.Millisecond, FarAfter: time.Second,
		DialTimeout: time.Second, RequestTimeout: 3 * time.Second, IdleTimeout: 2 * time.Second, OpenFor: 20 * time.Second,
		Logger: c.log.With().Str("at", "client-"+city).Logger(),
	}
	for _, n := range c.list {
		cfg.Nodes = append(cfg.Nodes, n.Address)
	}
	if change != nil {
		change(&cfg)
	}
	l, err := client.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return l
}

// Meta is the metadata as any node that runs tells it.
func (c *Cluster) Meta(city string) meta.Store { return c.Client(city, nil).Metadata() }

// Until waits until what holds, or fails the test.
func (c *Cluster) Until(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("still not so: %s", what)
		}
	}
}

// Patience bounds every wait of a fixture.
const Patience = 30 * time.Second

// Registered waits until all nodes that run are registered.
func (c *Cluster) Registered() {
	c.t.Helper()
	c.Until("all nodes are registered", func() bool {
		for _, m := range c.members {
			if m.Node != nil && m.Node.Status().State != node.StateServing {
				return false
			}
		}
		return true
	})
}

var _ log.Log = (*client.Client)(nil)

// LoseDisks gives nodes empty disks, one after the other, and gives up what they were.
func (c *Cluster) LoseDisks(names ...string) {
	c.t.Helper()
	l := c.Client("a", nil)
	for _, name := range names {
		was := c.Node(name).Status().UUID
		c.Wipe(name)
		c.Until("the cluster has given up "+name, func() bool {
			_, err := l.Metadata().Do(c.t.Context(), meta.Command{Forget: &meta.Forget{Node: name, UUID: was}, Now: time.Now().UTC()})
			return err == nil
		})
		c.Start(name)
		c.Until(name+" is back with an empty disk", func() bool { return c.Node(name).Status().State == node.StateServing })
	}
}
