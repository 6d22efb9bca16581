package node

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/twinspan/twinspan/log/client"

	"github.com/twinspan/twinspan/log"
)

// handle is a log for this process: a client that reaches this node through memory
// and the others through the network.
type handle struct {
	*client.Client
	node *Node
	once sync.Once
	err  error
}

// Log is the node's log for this process. What needs the node waits until Run is
// under way. Closing it ends its writers and readers, not the node.
func (n *Node) Log() log.Log {
	nodes := []string{n.self.Address}
	for _, c := range n.cfg.Cluster {
		if c.Name != n.cfg.Name {
			nodes = append(nodes, c.Address)
		}
	}
	policy := DefaultPolicy(n.cfg.Cluster)
	if n.cfg.Policy != nil {
		policy = *n.cfg.Policy
	}
	c, err := client.New(client.Config{
		Nodes: nodes, City: n.cfg.City, Name: n.cfg.Name, Policy: &policy, WindowBytes: n.cfg.WindowBytes,
		SegmentBytes: n.cfg.SegmentBytes, IdleTimeout: n.cfg.IdleTimeout, Logger: n.log,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			if address == n.self.Address {
				return n.dialSelf(ctx)
			}
			return n.cfg.Dial(ctx, address)
		},
	})
	if err != nil {
		return broken{fmt.Errorf("log node %q: %w", n.cfg.Name, err)}
	}
	h := &handle{Client: c, node: n}
	n.mu.Lock()
	closed := n.closed
	if !closed {
		n.handles[h] = struct{}{}
	}
	n.mu.Unlock()
	if closed {
		h.shut()
	}
	return h
}

// Close ends the handle.
func (h *handle) Close() error {
	h.shut()
	h.node.mu.Lock()
	defer h.node.mu.Unlock()
	delete(h.node.handles, h)
	return h.err
}

func (h *handle) shut() { h.once.Do(func() { h.err = h.Client.Close() }) }

// dialSelf connects to this node within the process, once it runs.
func (n *Node) dialSelf(ctx context.Context) (net.Conn, error) {
	select {
	case <-n.up:
	case <-n.gone:
		return nil, fmt.Errorf("log node %q: %w", n.cfg.Name, log.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("log node %q does not run: %w", n.cfg.Name, ctx.Err())
	}
	mine, theirs := pipe()
	n.mu.Lock()
	run := n.ctx
	n.mu.Unlock()
	if run == nil || !n.admit(run, theirs) {
		_ = mine.Close() // nobody has it
		return nil, fmt.Errorf("log node %q takes no connection: %w", n.cfg.Name, log.ErrUnavailable)
	}
	return mine, nil
}

// broken is a log that could not be made.
type broken struct{ err error }

func (b broken) OpenWriter(context.Context, string) (log.Writer, error) { return nil, b.err }
func (b broken) OpenReader(context.Context, string, log.ReaderOptions) (log.Reader, error) {
	return nil, b.err
}
func (b broken) Bounds(context.Context, string) (log.Bounds, error)    { return log.Bounds{}, b.err }
func (b broken) Streams(context.Context) ([]string, error)             { return nil, b.err }
func (b broken) Cursors(context.Context, string) ([]log.Cursor, error) { return nil, b.err }
func (b broken) StoreCursor(context.Context, string, log.Cursor) error { return b.err }
func (b broken) Close() error                                          { return nil }
