// Package node is a storage node of the log: it owns a directory, takes part in
// the metadata, serves the wire protocol, keeps what it holds whole, and is a
// log.Log for the process it runs in.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
	"github.com/twinspan/twinspan/log/wire"
)

// Config of a Node. Zero values take the defaults named.
type Config struct {
	Name   string // of the node; its directory remembers it
	City   string // failure domain; that of the cluster's list when there is one, else "local"
	Dir    string // of the journal; nothing but the node's own may live in it
	Listen string // host:port; empty: in process only
	// Cluster lists all nodes, this one among them; empty: it is alone.
	Cluster []ClusterNode
	TLS     *tls.Config // of the listener; nil: plain TCP
	// Accepted puts security on a connection that was accepted, in place of TLS;
	// nil: nothing is done.
	Accepted func(net.Conn) net.Conn
	// Dial makes the connections to other nodes, security included; nil: plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	FileBytes    int64 // of a journal file; 64 MiB
	JournalBytes int64 // segments leave the journal while its files are larger; 1 GiB; at twice that appends are slowed
	// Compression of the segments that have left the journal.
	Compression  segment.Compression
	SegmentBytes int64 // a writer of this process closes a segment beyond it; 1 GiB
	// Policy of the streams that a writer of this process creates; nil: DefaultPolicy.
	Policy         *meta.Policy
	RetentionEvery time.Duration // how often the keeper looks for what may go; 10s
	// RepairBytesPerSecond bounds what this node fetches for repairs; 32 MiB.
	RepairBytesPerSecond int64
	RepairEvery          time.Duration // how often the keeper looks; 5s

	WindowBytes      int64         // of an in-process writer: bytes appended and not confirmed; 8 MiB
	ConnectionsMax   int           // 4096
	HandshakeTimeout time.Duration // 5s
	IdleTimeout      time.Duration // a silent connection is dropped; 20s
	WriteTimeout     time.Duration // a peer that takes nothing is dropped; 30s
	FrameMemoryBytes int64         // of all large frames being received; 256 MiB
	Heartbeat        time.Duration // of the metadata's consensus; its own default

	MetaDir string // of the metadata; Dir/raft
	Version string // of the program, for people
	FS      vfs.FS // the operating system's by default; MetaDir is always there
	Logger  zerolog.Logger
}

func (c Config) withDefaults() Config {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.WindowBytes, 8<<20)
	def(&c.FrameMemoryBytes, 256<<20)
	def(&c.RepairBytesPerSecond, 32<<20)
	wait(&c.HandshakeTimeout, 5*time.Second)
	wait(&c.IdleTimeout, 20*time.Second)
	wait(&c.WriteTimeout, 30*time.Second)
	wait(&c.RetentionEvery, 10*time.Second)
	wait(&c.RepairEvery, 5*time.Second)
	if c.ConnectionsMax == 0 {
		c.ConnectionsMax = 4096
	}
	if c.MetaDir == "" {
		c.MetaDir = filepath.Join(c.Dir, "raft")
	}
	if c.FS == nil {
		c.FS = vfs.OS{}
	}
	if c.Dial == nil {
		d := &net.Dialer{}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	if len(c.Cluster) == 0 {
		if c.City == "" {
			c.City = "local"
		}
		c.Cluster = []ClusterNode{{Name: c.Name, City: c.City, Address: c.alone()}}
	}
	for _, m := range c.Cluster {
		if m.Name == c.Name {
			c.City = m.City
		}
	}
	return c
}

// aloneAddress stands for a node without a listener, in its own process.
const aloneAddress = "this-process:1"

func (c *Config) alone() string {
	if c.Listen == "" {
		return aloneAddress
	}
	return c.Listen
}

// Node is one storage node. New opens it, Run serves until its end.
type Node struct {
	cfg       Config
	self      ClusterNode
	log       zerolog.Logger
	store     *segment.Store
	listener  net.Listener
	memory    *semaphore.Weighted
	shelf     *shelf
	peers     *peers
	governor  governor
	tallies   tallies
	server    atomic.Pointer[meta.Server] // replaced by a takeover
	raftIn    chan net.Conn               // owner: the Node; unbuffered; raft connections on their way to the server; never closed
	metaTurns chan *metaTurn              // owner: the Node; unbuffered; to the goroutine that runs the server; never closed
	doubts    chan string                 // owner: the Node; bound doubtsMax; streams in which damage was met; never closed
	leave     chan error                  // owner: the Node; bound 1; why it must end; never closed
	standing  standing
	keeper    keeper
	// Bytes of frames sent to readers of this node's city, and of others.
	pushedNear, pushedFar atomic.Int64
	pulls                 sync.Map // segment.ID → true: replicas that are being fetched
	// repairPace spreads what is fetched for repairs over time.
	repairPace pace

	mu      sync.Mutex
	conns   map[*conn]struct{}
	all     sync.WaitGroup // of the connections; added to under mu while closed is not set
	refused int64          // connections turned away
	broken  int64          // connections dropped for what they sent
	readers int
	writers int
	ctx     context.Context // of Run, for connections from this process; nil before
	up      chan struct{}   // closed once Run is under way
	closed  bool
	gone    chan struct{} // closed with closed
	handles map[*handle]struct{}
}

// doubtsMax bounds the streams that wait to be looked at because damage was met.
const doubtsMax = 64

// New recovers the directory and binds the listener; nothing is served before
// Run. Errors are those of segment.Open, of meta.New and of the listener.
func New(cfg Config) (*Node, error) {
	if err := checkCluster(cfg.Name, cfg.Cluster); err != nil {
		return nil, fmt.Errorf("log node %q: %w", cfg.Name, err)
	}
	alone := len(cfg.Cluster) == 0
	cfg = cfg.withDefaults()
	n := &Node{
		cfg: cfg, log: cfg.Logger, memory: semaphore.NewWeighted(max(cfg.FrameMemoryBytes, log.MaxPayload*2)),
		shelf: newShelf(), raftIn: make(chan net.Conn), metaTurns: make(chan *metaTurn), doubts: make(chan string, doubtsMax), leave: make(chan error, 1), conns: map[*conn]struct{}{},
		up: make(chan struct{}), gone: make(chan struct{}), handles: map[*handle]struct{}{},
	}
	for _, m := range cfg.Cluster {
		if m.Name == cfg.Name {
			n.self = m
		}
	}
	files := cfg.FileBytes
	if n.self.Witness {
		files = 1 << 20 // it has an identity, and never an entry
	}
	fail := func(err error) (*Node, error) {
		err = fmt.Errorf("log node %q: %w", cfg.Name, err)
		if n.listener != nil {
			err = errors.Join(err, n.listener.Close())
		}
		if n.store != nil {
			err = errors.Join(err, n.store.Close())
		}
		return nil, err
	}
	if err := rejoinIfTold(&cfg); err != nil {
		return fail(err)
	}
	var err error
	n.store, err = segment.Open(segment.Config{Dir: cfg.Dir, Name: cfg.Name, FileBytes: files, JournalBytes: cfg.JournalBytes, Compression: cfg.Compression, FS: cfg.FS, Logger: cfg.Logger})
	if err != nil {
		return fail(err)
	}
	if cfg.Listen != "" {
		if n.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return fail(err)
		}
		if alone { // the port may have been chosen just now
			n.self.Address = n.listener.Addr().String()
			n.cfg.Cluster[0].Address = n.self.Address
		}
	}
	n.peers = newPeers(n)
	if err := n.standing.load(n); err != nil {
		return fail(err)
	}
	server, err := n.newServer()
	if err != nil {
		return fail(err)
	}
	n.server.Store(server)
	n.fill()
	return n, nil
}

// newServer makes this node's part of the metadata.
func (n *Node) newServer() (*meta.Server, error) {
	var voters []meta.Peer
	for _, m := range n.cfg.Cluster {
		voters = append(voters, meta.Peer{Name: m.Name, Address: m.Address})
	}
	return meta.New(meta.Config{
		Dir: n.cfg.MetaDir, Node: n.cfg.Name, Cluster: voters, Caller: n.peers, Dial: n.peers.dialRaft, Accept: n.raftIn,
		Log: n.log, Heartbeat: n.cfg.Heartbeat,
	})
}

// meta is the node's part of the metadata.
func (n *Node) meta() *meta.Server { return n.server.Load() }

// view is the metadata as this node knows it now.
func (n *Node) view() *meta.View {
	v, _ := n.meta().Local()
	return v
}

// fill puts what the directory holds on the shelf.
func (n *Node) fill() {
	for _, info := range n.store.Replicas() {
		rep, err := n.store.Replica(segment.ID{Stream: info.Stream, Segment: info.Segment})
		if err != nil {
			n.log.Error().Err(err).Str("stream", info.Stream).Uint32("segment", info.Segment).Msg("a replica cannot be read")
			continue
		}
		n.shelf.row(info.Stream, true).put(rep)
	}
}

// Addr is where the node listens; nil without a listener.
func (n *Node) Addr() net.Addr {
	if n.listener == nil {
		return nil
	}
	return n.listener.Addr()
}

// Run serves until ctx ends or the journal or the metadata dies, whose error it
// returns: the process must then end, and its successor recovers what is durable.
// On its way out everything accepted is made durable.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	if n.ctx != nil || n.closed {
		n.mu.Unlock()
		return fmt.Errorf("run log node %q: %w", n.cfg.Name, log.ErrClosed)
	}
	n.ctx = ctx
	close(n.up)
	n.mu.Unlock()

	var work sync.WaitGroup
	failed := make(chan error, 3) // of the store, of the metadata, of this; bound: one each
	end := func(err error) {
		failed <- err
		cancel()
	}
	storeDone := make(chan struct{}) // closed when the store has ended, which it does last
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	go func() {
		defer close(storeDone)
		end(n.store.Run(storeCtx))
	}()
	work.Go(func() { end(n.runMeta(ctx)) })
	if n.listener != nil {
		work.Go(func() {
			<-ctx.Done()
			_ = n.listener.Close() // accept fails, which ends the loop
		})
		work.Go(func() { n.accept(ctx) })
		n.log.Info().Str("node", n.cfg.Name).Stringer("address", n.listener.Addr()).Msg("log node listens")
	}
	work.Go(func() { n.peers.watch(ctx) })
	work.Go(func() { n.register(ctx) })
	work.Go(func() { n.followView(ctx) })
	work.Go(func() { n.standing.run(ctx, n) })
	work.Go(func() { n.keep(ctx) })
	select {
	case err := <-n.leave:
		time.Sleep(leavePause)
		end(err)
	case <-ctx.Done():
	}
	n.shut()
	work.Wait()
	n.all.Wait()
	stopStore()
	<-storeDone
	n.peers.close()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("log node %q: %w", n.cfg.Name, err)
	}
	return nil
}

// leavePause lets the answer to whoever told the node to end get away.
const leavePause = 100 * time.Millisecond

// shut closes all connections and in-process handles.
func (n *Node) shut() {
	n.mu.Lock()
	if !n.closed {
		close(n.gone)
	}
	n.closed = true
	handles := n.handles
	n.handles = map[*handle]struct{}{}
	n.mu.Unlock()
	n.dropAll()
	for h := range handles {
		h.shut()
	}
}

// dropAll ends every connection; new ones may come.
func (n *Node) dropAll() {
	n.mu.Lock()
	conns := n.conns
	n.conns = map[*conn]struct{}{}
	n.mu.Unlock()
	for c := range conns {
		c.drop()
	}
}

// Close releases a node that never ran. A running one ends with Run's context.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.ctx != nil || n.closed {
		n.mu.Unlock()
		return nil
	}
	n.mu.Unlock()
	n.shut()
	var err error
	if n.listener != nil {
		err = n.listener.Close()
	}
	return errors.Join(err, n.meta().Close(), n.store.Close())
}

// accept takes connections until the listener closes.
func (n *Node) accept(ctx context.Context) {
	for {
		raw, err := n.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close() // it came too late
			}
			return
		}
		if err != nil {
			// Out of descriptors, most likely: it passes.
			n.log.Warn().Err(err).Msg("log node cannot accept a connection")
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		switch {
		case n.cfg.Accepted != nil:
			raw = n.cfg.Accepted(raw)
		case n.cfg.TLS != nil:
			raw = tls.Server(raw, n.cfg.TLS)
		}
		if !n.admit(ctx, raw) && ctx.Err() == nil {
			n.log.Warn().Stringer("peer", raw.RemoteAddr()).Int("connections_max", n.cfg.ConnectionsMax).Msg("log node refuses a connection: too many are open")
		}
	}
}

// admit serves a connection; false, and it is closed, when there are too many.
func (n *Node) admit(ctx context.Context, raw net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.conns) >= n.cfg.ConnectionsMax || n.closed {
		n.refused++
		_ = raw.Close() // nothing was sent on it
		return false
	}
	c := newConn(n, raw)
	n.conns[c] = struct{}{}
	n.all.Go(func() { c.serve(ctx) })
	return true
}

// dropFlows ends the connections that carry entries or the metadata's consensus,
// so that their owners come again and are refused.
func (n *Node) dropFlows() {
	n.mu.Lock()
	var flows []*conn
	for c := range n.conns {
		if c.flowing.Load() {
			flows = append(flows, c)
		}
	}
	n.mu.Unlock()
	for _, c := range flows {
		c.drop()
	}
}

func (n *Node) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// count adds to one of the node's gauges.
func (n *Node) count(gauge *int, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*gauge += by
}

// raft hands the connection over to the metadata's consensus and waits for its
// end there.
func (c *conn) raft(ctx context.Context) error {
	if err := c.link.Send(&wire.Done{}); err != nil {
		return err
	}
	conn, err := c.link.Detach()
	if err != nil {
		return err
	}
	h := &handed{Conn: conn, done: make(chan struct{})}
	select {
	case c.node.raftIn <- h:
	case <-c.gone:
		return io.EOF
	case <-ctx.Done():
		return io.EOF
	}
	select {
	case <-h.done:
	case <-c.gone:
	case <-ctx.Done():
	}
	return io.EOF
}

// handed is a connection whose new owner tells when it closes it.
type handed struct {
	net.Conn
	once sync.Once
	done chan struct{} // closed by Close
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return h.Conn.Close()
}
