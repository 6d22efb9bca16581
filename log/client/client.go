// Package client is the log over several nodes: a log.Log that learns nodes,
// cities and segments from the metadata, writes to all members of a segment, and
// reads from a node of its own city.
package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// Client is a log.Log over the wire. The zero value is of no use.
type Client struct {
	cfg        Config
	closed     chan struct{} // closed by Close
	once       sync.Once
	generation atomic.Uint64 // newest one of the cluster that was met
	pool       pool
	tallies    tallies
	tallyFrom  int // writers
	meta       *meta.Client
	book       book
	cursors    cursors
	stats      counters
	refused    sync.Map // address → time.Time: when a refused certificate was last logged

	mu      sync.Mutex
	cancels map[uint64]context.CancelFunc // of the operations under way
	serial  uint64
	open    map[interface{ Close() error }]struct{} // writers and readers
	writers map[string]*writer                      // the newest one of each stream
	readers map[*reader]struct{}
}

// New checks the configuration. It connects when it has to.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, closed: make(chan struct{}), tallyFrom: tallyFrom, cancels: map[uint64]context.CancelFunc{},
		open: map[interface{ Close() error }]struct{}{}, writers: map[string]*writer{}, readers: map[*reader]struct{}{},
	}
	c.pool = pool{client: c, doors: map[string]*door{}}
	c.tallies = tallies{client: c, by: map[quorum.Member]*tally{}}
	c.book = book{client: c, failed: map[string]failure{}}
	c.cursors = cursors{client: c, groups: map[cursorKey]*group{}}
	c.stats.cities = map[string]*atomic.Int64{}
	c.meta = meta.NewClient(c, cfg.Nodes)
	return c, nil
}

// Metadata is the cluster's metadata as this client reaches it.
func (c *Client) Metadata() meta.Store { return c.meta }

// Call carries a request of the metadata to a node; the client is the
// meta.Caller of its own metadata.
func (c *Client) Call(ctx context.Context, address string, request []byte) ([]byte, error) {
	var reply wire.MetaOK
	err := c.request(ctx, address, &wire.Meta{Request: request}, &reply)
	if err != nil && errors.Is(err, errNotConnected) {
		err = fmt.Errorf("%w: %w", meta.ErrNotSent, err)
	}
	return reply.Response, err
}

// errNotConnected marks failures before anything was asked of the node.
var errNotConnected = errors.New("not connected")

// Close ends the writers and readers of this client, without waiting for what
// they have in flight, and its connections.
func (c *Client) Close() error {
	c.mu.Lock()
	c.once.Do(func() { close(c.closed) })
	open, cancels := c.open, c.cancels
	c.open, c.cancels = map[interface{ Close() error }]struct{}{}, map[uint64]context.CancelFunc{}
	c.mu.Unlock()
	for _, cancel := range cancels {
		cancel()
	}
	for o := range open {
		_ = o.Close() // what was in flight is unknown, which its owner was told
	}
	c.pool.close()
	return nil
}

func (c *Client) alive() error {
	select {
	case <-c.closed:
		return fmt.Errorf("log client: %w", log.ErrClosed)
	default:
		return nil
	}
}

// bind makes a context that also ends with the client. done must be called.
func (c *Client) bind(ctx context.Context) (bound context.Context, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.alive(); err != nil {
		return nil, nil, err
	}
	bound, cancel := context.WithCancel(ctx)
	c.serial++
	n := c.serial
	c.cancels[n] = cancel
	return bound, func() {
		c.mu.Lock()
		delete(c.cancels, n)
		c.mu.Unlock()
		cancel()
	}, nil
}

func (c *Client) adopt(o interface{ Close() error }) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.alive(); err != nil {
		return err
	}
	c.open[o] = struct{}{}
	switch o := o.(type) {
	case *writer:
		c.writers[o.stream] = o
	case *reader:
		c.readers[o] = struct{}{}
	}
	return nil
}

func (c *Client) disown(o interface{ Close() error }) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, o)
	switch o := o.(type) {
	case *writer:
		if c.writers[o.stream] == o {
			delete(c.writers, o.stream)
		}
	case *reader:
		delete(c.readers, o)
	}
}
