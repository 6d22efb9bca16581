package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// cluster is nodes that keep everything in memory, around real metadata. What
// they do with a segment is quorum.Replica's; they can be stopped, cut off, and
// slowed in ways that a real node can't be told to.
type cluster struct {
	t     testing.TB
	meta  *meta.Server
	nodes []*memoryNode
}

type place struct{ name, city string }

// witness is a place of a node that stores nothing.
var witness = place{"w", "w"}

func newCluster(t testing.TB, places ...place) *cluster {
	t.Helper()
	server, err := meta.New(meta.Config{Dir: t.TempDir(), Node: "m", Cluster: []meta.Peer{{Name: "m", Address: "127.0.0.1:1"}}, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1) // the server's end; read once
	go func() { done <- server.Run(ctx) }()
	c := &cluster{t: t, meta: server}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.close()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, p := range places {
		n := newMemoryNode(t, p.name, p.city, server)
		c.nodes = append(c.nodes, n)
		if _, err := server.Do(ctx, meta.Command{Now: time.Now().UTC(), Register: &meta.Register{Node: meta.Node{
			Name: p.name, UUID: n.uuid, City: p.city, Address: n.address, Witness: p == witness,
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func twoCities(t *testing.T) *cluster {
	return newCluster(t, place{"a1", "a"}, place{"a2", "a"}, place{"b1", "b"}, place{"b2", "b"})
}

func (c *cluster) node(name string) *memoryNode {
	return c.nodes[slices.IndexFunc(c.nodes, func(n *memoryNode) bool { return n.name == name })]
}

func (c *cluster) client(change func(*client.Config)) *client.Client {
	c.t.Helper()
	cfg := client.Config{
		City: "a", Name: "test", RollAfter: 300 * time.Millisecond, RollEvery: 300 * time.Millisecond, PenaltyAfter: time.Second, StuckAfter: 200 * time.Millisecond,
		DialTimeout: time.Second, OpenFor: 30 * time.Second, FarAfter: 500 * time.Millisecond,
	}
	for _, n := range c.nodes {
		cfg.Nodes = append(cfg.Nodes, n.address)
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

// memoryNode speaks the node's part of the protocol.
type memoryNode struct {
	name, city, uuid, address string
	meta                      *meta.Server
	listener                  net.Listener
	all                       sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	frozen  bool          // takes and answers nothing
	away    bool          // takes no connection; cut ends those there are
	deaf    bool          // hears of no close
	speaks  uint16        // the newest version it knows; 0: as the client
	delay   time.Duration // of a group commit
	conns   map[net.Conn]struct{}
	parts   []*part
	changed chan struct{} // closed and replaced
}

// part is a replica.
type part struct {
	quorum.Descriptor
	core    quorum.Replica
	entries []wire.Stored
}

func newMemoryNode(t testing.TB, name, city string, m *meta.Server) *memoryNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &memoryNode{
		name: name, city: city, uuid: "uuid-" + name, address: l.Addr().String(), meta: m, listener: l,
		conns: map[net.Conn]struct{}{}, changed: make(chan struct{}),
	}
	n.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			if n.closed || n.away {
				_ = conn.Close()
			}
			n.conns[conn] = struct{}{}
			n.mu.Unlock()
			n.all.Go(func() {
				n.serve(conn)
				_ = conn.Close()
				n.mu.Lock()
				delete(n.conns, conn)
				n.mu.Unlock()
			})
		}
	})
	return n
}

func (n *memoryNode) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	_ = n.listener.Close()
	n.cut()
	n.all.Wait()
}

// cut breaks all connections; new ones are taken.
func (n *memoryNode) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
	}
	n.wakeLocked()
}

// set changes the node's ways.
func (n *memoryNode) set(f func(n *memoryNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
	n.wakeLocked()
}

func (n *memoryNode) wakeLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *memoryNode) thaw(ctx context.Context) error {
	for {
		n.mu.Lock()
		frozen, closed := n.frozen, n.closed
		c := n.changed
		n.mu.Unlock()
		if closed {
			return log.ErrClosed
		}
		if !frozen {
			return nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *memoryNode) serve(conn net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l := link.New(conn, link.Options{})
	var hello wire.Hello
	if _, body, err := l.Next(ctx, wire.GreetingMax); err != nil || wire.Decode(&hello, body) != nil || n.thaw(ctx) != nil {
		return
	}
	version, err := hello.Negotiate()
	n.mu.Lock()
	if n.speaks > 0 {
		version = min(version, n.speaks)
	}
	n.mu.Unlock()
	if err != nil || l.Send(&wire.Welcome{Version: version, Node: n.name, UUID: n.uuid, City: n.city, Generation: 1, IdleMS: 20000}) != nil {
		return
	}
	l.SetVersion(version)
	for {
		k, body, err := l.Next(ctx, wire.ControlMax)
		if err != nil || n.thaw(ctx) != nil {
			return
		}
		reply, last := n.answer(ctx, l, k, body)
		if reply == nil || l.Send(reply) != nil || last {
			return
		}
	}
}

func (n *memoryNode) answer(ctx context.Context, l *link.Link, k wire.Kind, body []byte) (reply wire.Message, last bool) {
	switch k {
	case wire.KindMeta:
		var m wire.Meta
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		return &wire.MetaOK{Response: n.meta.Handle(ctx, m.Request)}, false
	case wire.KindBounds:
		var m wire.Bounds
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		b, err := n.bounds(m.Stream)
		if err != nil {
			return wire.ErrorOf(err), false
		}
		return &wire.BoundsOK{Bounds: b}, false
	case wire.KindSeal:
		var m wire.Seal
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		s, err := n.seal(&m.Descriptor, m.Epoch)
		if err != nil {
			return wire.ErrorOf(err), false
		}
		return &wire.Sealed{Last: s.Last, LAC: s.LAC, LSO: s.LSO, Closed: s.Closed, End: s.End, EndLSO: s.EndLSO}, false
	case wire.KindClose:
		var m wire.Close
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		if err := n.end(&m); err != nil {
			return wire.ErrorOf(err), false
		}
		return &wire.Done{}, false
	case wire.KindAttach:
		var m wire.Attach
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		return n.appends(ctx, l, &m), true
	case wire.KindCopy:
		var m wire.Copy
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		return n.copies(ctx, l, &m), true
	case wire.KindRead:
		var m wire.Read
		if err := wire.Decode(&m, body); err != nil {
			return wire.ErrorOf(err), true
		}
		return n.reads(ctx, l, &m), true
	}
	return wire.ErrorOf(fmt.Errorf("%v: %w", k, log.ErrProtocol)), true
}

func (n *memoryNode) findLocked(stream string, segment uint32) *part {
	for _, p := range n.parts {
		if p.Stream == stream && p.Segment == segment {
			return p
		}
	}
	return nil
}

// fenceLocked makes the replica where there is none, and raises its fence.
func (n *memoryNode) fenceLocked(d *quorum.Descriptor, e log.Epoch) (*part, error) {
	p := n.findLocked(d.Stream, d.Segment)
	if p == nil {
		p = &part{Descriptor: *d, core: quorum.NewReplica(quorum.ReplicaState{First: d.First, Fence: 0, Last: d.First - 1, LSO: d.FirstLSO, LAC: d.First - 1})}
		n.parts = append(n.parts, p)
		slices.SortFunc(n.parts, func(a, b *part) int { return int(a.Segment) - int(b.Segment) })
	}
	if err := p.core.BeginSeal(e); err != nil {
		return nil, err
	}
	n.commitLocked(p)
	if e, ok := p.core.SealReady(); ok {
		p.core.FenceDurable(e)
	}
	n.wakeLocked()
	return p, nil
}

// commitLocked makes what is queued durable.
func (n *memoryNode) commitLocked(p *part) {
	last := p.core.Queued()
	lso := p.core.LSO()
	for o := p.core.Last() + 1; o <= last; o++ {
		if p.entries[o-p.First].EndsTransaction {
			lso = o
		}
	}
	p.core.Durable(last, lso)
}

func (n *memoryNode) seal(d *quorum.Descriptor, e log.Epoch) (quorum.Sealed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.fenceLocked(d, e)
	if err != nil {
		return quorum.Sealed{}, err
	}
	s, _, err := p.core.Sealed(e)
	return s, err
}

func (n *memoryNode) end(m *wire.Close) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.deaf {
		return errors.New("deaf")
	}
	p := n.findLocked(m.Stream, m.Segment)
	if p == nil {
		return log.ErrElsewhere
	}
	n.commitLocked(p)
	if err := p.core.BeginClose(m.Last, m.LSO); err != nil {
		return err
	}
	if _, ok := p.core.CloseReady(); ok {
		p.core.CloseDurable()
	}
	if held := p.core.Last(); int(held-p.First+1) < len(p.entries) {
		p.entries = p.entries[:held-p.First+1]
	}
	n.wakeLocked()
	return nil
}

func (n *memoryNode) boundsLocked(stream string) (b log.Bounds, found bool) {
	b = log.Bounds{LAC: log.None, LSO: log.None}
	for _, p := range n.parts {
		if p.Stream != stream {
			continue
		}
		if !found {
			b.First = p.First
		}
		found = true
		b.LAC = max(b.LAC, p.core.Visible())
		b.Epoch = max(b.Epoch, p.Epoch)
		b.LSO = p.FirstLSO
		for o := p.First; o <= p.core.Visible(); o++ {
			if p.entries[o-p.First].EndsTransaction {
				b.LSO = o
			}
		}
	}
	return b, found
}

func (n *memoryNode) bounds(stream string) (log.Bounds, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, ok := n.boundsLocked(stream)
	if !ok {
		return b, log.ErrElsewhere
	}
	return b, nil
}
