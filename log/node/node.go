// Package node is a storage node of the log: it owns a directory, serves the
// wire protocol, and is a log.Log for the process it runs in.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment/single"
	"github.com/twinspan/twinspan/log/vfs"
)

// Config of a Node. Zero values take the defaults named.
type Config struct {
	Name   string      // of the node; its directory remembers it
	Dir    string      // of the journal; nothing else may live in it
	Listen string      // host:port; empty: in process only
	TLS    *tls.Config // of the listener; nil: plain TCP
	// Accepted puts security on a connection that was accepted, in place of TLS;
	// nil: nothing is done.
	Accepted func(net.Conn) net.Conn
	// Dial makes the connections to other nodes, security included; nil: plain TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	FileBytes      int64 // of a journal file; 64 MiB
	SegmentBytes   int64 // 1 GiB
	Retention      segment.Retention
	RetentionEvery time.Duration // 10s

	WindowBytes      int64         // of an in-process writer: bytes appended and not confirmed; 8 MiB
	ConnectionsMax   int           // 1024
	HandshakeTimeout time.Duration // 5s
	IdleTimeout      time.Duration // a silent connection is dropped; 20s
	WriteTimeout     time.Duration // a peer that takes nothing is dropped; 30s
	FrameMemoryBytes int64         // of all large frames being received; 256 MiB

	FS     vfs.FS // the operating system's by default
	Logger zerolog.Logger
}

func (c Config) withDefaults() Config {
	if c.WindowBytes == 0 {
		c.WindowBytes = 8 << 20
	}
	if c.ConnectionsMax == 0 {
		c.ConnectionsMax = 1024
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = 20 * time.Second
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 30 * time.Second
	}
	if c.FrameMemoryBytes == 0 {
		c.FrameMemoryBytes = 256 << 20
	}
	return c
}

// Node is one storage node. New opens it, Run serves until its end.
type Node struct {
	cfg      Config
	log      zerolog.Logger
	store    *segment.Store
	listener net.Listener
	memory   *semaphore.Weighted

	mu      sync.Mutex
	conns   map[*conn]struct{}
	refused int64 // connections turned away
	broken  int64 // connections dropped for what they sent
	readers int   // in process and remote
	writers int
	running bool
	closed  bool
	handles map[*embedded]struct{}
}

// New recovers the directory and binds the listener; nothing is served before
// Run. Errors are those of segment.Open and of the listener.
func New(cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	store, err := segment.Open(segment.Config{
		Dir: cfg.Dir, Name: cfg.Name, FileBytes: cfg.FileBytes, SegmentBytes: cfg.SegmentBytes,
		Retention: cfg.Retention, RetentionEvery: cfg.RetentionEvery, FS: cfg.FS, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("log node %q: %w", cfg.Name, err)
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger, store: store, memory: semaphore.NewWeighted(max(cfg.FrameMemoryBytes, log.MaxPayload*2)),
		conns: map[*conn]struct{}{}, handles: map[*embedded]struct{}{},
	}
	if cfg.Listen != "" {
		n.listener, err = net.Listen("tcp", cfg.Listen)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("log node %q: %w", cfg.Name, err), store.Close())
		}
	}
	return n, nil
}

// Addr is where the node listens; nil without a listener.
func (n *Node) Addr() net.Addr {
	if n.listener == nil {
		return nil
	}
	return n.listener.Addr()
}

// Run serves until ctx ends or the journal dies, whose error it returns: the
// process must then end, and its successor recovers what is durable. On its way
// out everything accepted is made durable.
func (n *Node) Run(ctx context.Context) error {
	n.mu.Lock()
	if n.running || n.closed {
		n.mu.Unlock()
		return fmt.Errorf("run log node %q: %w", n.cfg.Name, log.ErrClosed)
	}
	n.running = true
	n.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	if n.listener != nil {
		all.Go(func() {
			<-ctx.Done()
			_ = n.listener.Close() // accept fails, which ends the loop
		})
		all.Go(func() { n.accept(ctx, &all) })
		n.log.Info().Str("node", n.cfg.Name).Stringer("address", n.listener.Addr()).Msg("log node listens")
	}
	err := n.store.Run(ctx)
	cancel()
	n.shut()
	all.Wait()
	if err != nil {
		return fmt.Errorf("log node %q: %w", n.cfg.Name, err)
	}
	return nil
}

// shut closes all connections and in-process handles.
func (n *Node) shut() {
	n.mu.Lock()
	n.closed = true
	conns, handles := n.conns, n.handles
	n.conns, n.handles = map[*conn]struct{}{}, map[*embedded]struct{}{}
	n.mu.Unlock()
	for c := range conns {
		c.drop()
	}
	for h := range handles {
		h.shut()
	}
}

// Close releases a node that never ran. A running one ends with Run's context.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.running || n.closed {
		n.mu.Unlock()
		return nil
	}
	n.mu.Unlock()
	n.shut()
	var err error
	if n.listener != nil {
		err = n.listener.Close()
	}
	return errors.Join(err, n.store.Close())
}

// accept takes connections until the listener closes.
func (n *Node) accept(ctx context.Context, all *sync.WaitGroup) {
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
		c := n.admit(raw)
		if c == nil && ctx.Err() == nil {
			n.log.Warn().Stringer("peer", raw.RemoteAddr()).Int("connections_max", n.cfg.ConnectionsMax).Msg("log node refuses a connection: too many are open")
		}
		if c == nil {
			_ = raw.Close() // nothing was sent on it
			continue
		}
		all.Go(func() { c.serve(ctx) })
	}
}

// admit registers a connection; nil when there are too many.
func (n *Node) admit(raw net.Conn) *conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.conns) >= n.cfg.ConnectionsMax || n.closed {
		n.refused++
		return nil
	}
	switch {
	case n.cfg.Accepted != nil:
		raw = n.cfg.Accepted(raw)
	case n.cfg.TLS != nil:
		raw = tls.Server(raw, n.cfg.TLS)
	}
	c := newConn(n, raw)
	n.conns[c] = struct{}{}
	return c
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

// startFrom checks where a reader wants to start. Nothing that was confirmed is
// ever lost, so a reader ahead of the log has read another one.
func startFrom(st *segment.Stream, from log.Offset) (log.Bounds, error) {
	b := st.Bounds()
	if from < 0 {
		return b, fmt.Errorf("stream %q: read from %d: %w", st.Name(), from, log.ErrProtocol)
	}
	if from > b.LAC+1 {
		return b, fmt.Errorf("stream %q: read from %d, but the last entry is %d: this is not the log that was read before, or it lost entries: %w",
			st.Name(), from, b.LAC, log.ErrSuspect)
	}
	return b, nil
}
