package meta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/log"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network connects the nodes of a cluster in one process, as the node's port
// would: raw connections for Raft and single requests, both with the check of who
// is there, over real sockets with a delay and cuts.
type network struct {
	t testing.TB

	mu      sync.Mutex
	delay   time.Duration // one way
	cut     map[[2]string]bool
	nodes   map[string]*testNode // by address
	conns   map[net.Conn][2]string
	dropped map[string]bool // responses of this address are lost
	frozen  atomic.Value    // string: name of a node that takes everything and answers nothing on Raft's connections
}

func newNetwork(t testing.TB) *network {
	return &network{t: t, cut: map[[2]string]bool{}, nodes: map[string]*testNode{}, conns: map[net.Conn][2]string{}, dropped: map[string]bool{}}
}

// partition cuts what goes between nodes of different groups; none heals it.
func (n *network) partition(groups ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	for i, a := range groups {
		for j, b := range groups {
			for _, x := range a {
				for _, y := range b {
					if i != j {
						n.cut[[2]string{x, y}] = true
					}
				}
			}
		}
	}
	for c, ends := range n.conns {
		if n.cut[ends] {
			_ = c.Close()
			delete(n.conns, c)
		}
	}
}

func (n *network) reach(from, to string) (*testNode, time.Duration, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	node := n.nodes[to]
	if node == nil || from != "" && n.nodes[from] == nil || n.cut[[2]string{from, to}] {
		return nil, 0, fmt.Errorf("%s to %s: %w: %w", from, to, ErrNotSent, log.ErrUnavailable)
	}
	return node, n.delay, nil
}

// caller is a Caller of one node, or of a client.
type caller struct {
	n    *network
	from string
}

func (c caller) Call(ctx context.Context, to string, request []byte) ([]byte, error) {
	node, delay, err := c.n.reach(c.from, to)
	if err != nil {
		return nil, err
	}
	wait := func() error {
		select {
		case <-time.After(delay):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(); err != nil {
		return nil, err
	}
	response := node.server.Handle(ctx, request)
	if err := wait(); err != nil {
		return nil, err
	}
	c.n.mu.Lock()
	lost := c.n.dropped[to]
	c.n.mu.Unlock()
	if _, _, err := c.n.reach(c.from, to); lost || err != nil {
		return nil, fmt.Errorf("the response of %s is lost", to)
	}
	return response, nil
}

// testNode is a node that serves nothing but metadata.
type testNode struct {
	n      *network
	name   string
	uuid   string
	dir    string
	server *Server
	accept chan net.Conn // owner: dial, never closed; unbuffered
	cancel context.CancelFunc
	done   chan error
	gen    uint64
}

// dial is one node's Config.Dial: the Hello of both sides, then raw bytes.
func (t *testNode) dial(ctx context.Context, to string) (net.Conn, error) {
	node, delay, err := t.n.reach(t.name, to)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(node.server.Admit(t.name, t.uuid, t.gen), t.server.Admit(node.name, node.uuid, node.gen)); err != nil {
		return nil, err
	}
	a, b := pipe(t.n.t, delay)
	hole := func() bool { name := t.n.frozen.Load(); return name == t.name || name == node.name }
	a.hole, b.hole = hole, hole
	t.n.mu.Lock()
	ends := [2]string{t.name, to}
	cut := t.n.cut[ends] // a partition may have come since
	if !cut {
		t.n.conns[a], t.n.conns[b] = ends, [2]string{to, t.name}
	}
	t.n.mu.Unlock()
	if cut {
		return nil, fmt.Errorf("%s to %s is cut: %w", t.name, to, errors.Join(a.Close(), b.Close(), log.ErrUnavailable))
	}
	select {
	case node.accept <- b:
		return a, nil
	case <-ctx.Done():
	}
	_ = a.Close()
	_ = b.Close()
	return nil, ctx.Err()
}

// pipe is two ends of a connection with a delay each way.
func pipe(t testing.TB, delay time.Duration) (*slow, *slow) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return &slow{Conn: a, delay: delay}, &slow{Conn: b, delay: delay}
}

// slow delivers what is written after a delay, without holding up the writer.
type slow struct {
	net.Conn
	delay time.Duration
	hole  func() bool // what is written vanishes
	once  sync.Once
	queue chan late
	quit  chan struct{}
}

type late struct {
	at time.Time
	b  []byte
}

func (s *slow) Write(b []byte) (int, error) {
	if s.hole() {
		return len(b), nil
	}
	if s.delay == 0 {
		return s.Conn.Write(b)
	}
	s.once.Do(func() {
		s.queue, s.quit = make(chan late, 1<<14), make(chan struct{})
		go func() {
			for {
				select {
				case l := <-s.queue:
					time.Sleep(time.Until(l.at))
					if _, err := s.Conn.Write(l.b); err != nil {
						return
					}
				case <-s.quit:
					return
				}
			}
		}()
	})
	select {
	case s.queue <- late{time.Now().Add(s.delay), append([]byte(nil), b...)}:
		return len(b), nil
	case <-s.quit:
		return 0, net.ErrClosed
	}
}

func (s *slow) Close() error {
	s.once.Do(func() { s.queue, s.quit = make(chan late), make(chan struct{}) })
	err := s.Conn.Close()
	if err == nil {
		close(s.quit)
	}
	return err
}

// cluster of nodes in one process.
type cluster struct {
	t     testing.TB
	n     *network
	peers []Peer
	nodes map[string]*testNode
	beat  time.Duration
}

const testHeartbeat = 150 * time.Millisecond

func newCluster(t testing.TB, names ...string) *cluster {
	return newClusterOf(t, testHeartbeat, names...)
}

func newClusterOf(t testing.TB, heartbeat time.Duration, names ...string) *cluster {
	c := &cluster{t: t, n: newNetwork(t), nodes: map[string]*testNode{}, beat: heartbeat}
	dir := t.TempDir()
	for _, name := range names {
		c.peers = append(c.peers, Peer{Name: name, Address: name}) // here a name is its address
	}
	for _, name := range names {
		c.nodes[name] = &testNode{n: c.n, name: name, uuid: "id-" + name, dir: filepath.Join(dir, name), gen: 1}
		c.start(name)
	}
	t.Cleanup(func() {
		for _, name := range names {
			c.stop(name)
		}
	})
	return c
}

func testLog() zerolog.Logger {
	if os.Getenv("META_LOG") == "" {
		return zerolog.Nop()
	}
	return zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: "05.000"}).With().Timestamp().Logger()
}

func (c *cluster) start(name string) { c.startWith(name, c.peers) }

func (c *cluster) startWith(name string, peers []Peer) {
	c.t.Helper()
	node := c.nodes[name]
	node.accept = make(chan net.Conn)
	heartbeat := c.beat
	if len(peers) == 1 {
		heartbeat = 0
	}
	s, err := New(Config{
		Dir: node.dir, Node: name, Cluster: peers, Caller: caller{c.n, name}, Dial: node.dial, Accept: node.accept,
		Log: testLog().With().Str("node", name).Logger(), Heartbeat: heartbeat,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	node.server, node.cancel, node.done = s, cancel, make(chan error, 1)
	go func() { node.done <- s.Run(ctx) }()
	c.n.mu.Lock()
	c.n.nodes[name] = node
	c.n.mu.Unlock()
}

// vanish takes a node away from the others, as a kill would: they get no farewell.
func (c *cluster) vanish(name string) {
	c.n.mu.Lock()
	delete(c.n.nodes, name)
	for conn, ends := range c.n.conns {
		if ends[0] == name || ends[1] == name {
			_ = conn.Close()
			delete(c.n.conns, conn)
		}
	}
	c.n.mu.Unlock()
	c.stop(name)
}

func (c *cluster) stop(name string) {
	node := c.nodes[name]
	if node.cancel == nil {
		return
	}
	node.cancel()
	if err := <-node.done; err != nil {
		c.t.Errorf("node %s: %v", name, err)
	}
	node.cancel = nil
	c.n.mu.Lock()
	delete(c.n.nodes, name)
	c.n.mu.Unlock()
}

func (c *cluster) client() *Client {
	var seeds []string
	for _, p := range c.peers {
		seeds = append(seeds, p.Address)
	}
	return NewClient(caller{c.n, ""}, seeds)
}

// leader waits for one among the names, with a majority behind it.
func (c *cluster) leader(names ...string) string {
	c.t.Helper()
	if len(names) == 0 {
		for _, p := range c.peers {
			names = append(names, p.Name)
		}
	}
	var found string
	eventually(c.t, "a leader", func() error {
		for _, name := range names {
			if s := c.nodes[name].server.Status(); c.nodes[name].cancel != nil && s.Role == "leader" {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, err := c.nodes[name].server.readIndex(ctx)
				cancel()
				if found = name; err == nil {
					return nil
				}
			}
		}
		return errors.New("none")
	})
	return found
}

func (c *cluster) register(s Store, names ...string) {
	c.t.Helper()
	for _, name := range names {
		n := Node{Name: name, UUID: c.nodes[name].uuid, City: name[:1], Address: name, Witness: name[0] == 'w'}
		must(c.t)(s.Do(within(c.t, 20*time.Second), Command{Register: &Register{n}}))
	}
}

func must(t testing.TB) func(Result, error) Result {
	return func(r Result, err error) Result {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
