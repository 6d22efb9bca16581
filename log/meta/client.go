package meta

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
)

const (
	// One request to one node: a frozen one must not eat the caller's time, and a
	// slow cluster must get to answer. Twice as long after each that ran out.
	tryMin   = time.Second
	tryMax   = 4 * time.Second
	pauseMin = 20 * time.Millisecond
	pauseMax = 200 * time.Millisecond
)

// Client is a Store over the wire. It is safe for concurrent use.
type Client struct {
	caller Caller
	seeds  []string
	stale  string // address of the node whose view answers
	// here handles a request in this process; nil: there is no Server.
	here func(context.Context, *request, *response)
	self string // address of that Server

	mu     sync.Mutex
	leader string // address that answered last, or that was hinted at
}

// NewClient asks the nodes at these addresses, follows their hints to the leader,
// and tries again until ctx ends.
func NewClient(c Caller, seeds []string) *Client {
	return &Client{caller: c, seeds: slices.Clone(seeds)}
}

// Stale is a Client whose reads are answered by the node at address from its local
// view, without the leader: what is left when a majority is gone. Its Do is refused.
func (c *Client) Stale(address string) *Client {
	return &Client{caller: c.caller, seeds: []string{address}, stale: address, here: c.here, self: c.self}
}

// Do is Store.Do.
func (c *Client) Do(ctx context.Context, cmd Command) (Result, error) {
	if c.stale != "" {
		return Result{}, fmt.Errorf("metadata: a stale client only reads: %w", log.ErrProtocol)
	}
	r, err := c.call(ctx, &request{Op: opDo, Command: &cmd})
	if err != nil {
		return Result{}, err
	}
	if r.Result == nil {
		return Result{}, fmt.Errorf("metadata: a response without a result: %w", log.ErrProtocol)
	}
	return *r.Result, nil
}

// Stream is Store.Stream.
func (c *Client) Stream(ctx context.Context, name string) (Stream, error) {
	r, err := c.call(ctx, &request{Op: opStream, Stream: name})
	if err != nil {
		return Stream{}, err
	}
	if r.Stream == nil {
		return Stream{}, fmt.Errorf("metadata: a response without a stream: %w", log.ErrProtocol)
	}
	return *r.Stream, nil
}

// Streams is Store.Streams.
func (c *Client) Streams(ctx context.Context) ([]string, error) {
	r, err := c.call(ctx, &request{Op: opStreams})
	if err != nil {
		return nil, err
	}
	return r.Names, nil
}

// Nodes is Store.Nodes.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	r, err := c.call(ctx, &request{Op: opNodes})
	if err != nil {
		return nil, err
	}
	return r.Nodes, nil
}

// Segments is Store.Segments.
func (c *Client) Segments(ctx context.Context, stream string, from uint32, n int) ([]Segment, error) {
	r, err := c.call(ctx, &request{Op: opSegments, Stream: stream, From: from, N: n})
	if err != nil {
		return nil, err
	}
	return r.Segments, nil
}

// Leases is Store.Leases.
func (c *Client) Leases(ctx context.Context) ([]Lease, error) {
	r, err := c.call(ctx, &request{Op: opLeases})
	if err != nil {
		return nil, err
	}
	return r.Leases, nil
}

// Status asks one node, which answers from what it knows, leader or not.
func (c *Client) Status(ctx context.Context, address string) (Status, error) {
	r, err := c.ask(ctx, address, &request{Op: opStatus}, tryMax)
	if err == nil {
		err = r.err()
	}
	if err != nil {
		return Status{}, fmt.Errorf("metadata status of %s: %w", address, err)
	}
	if r.Status == nil {
		return Status{}, fmt.Errorf("metadata status of %s: none in the response: %w", address, log.ErrProtocol)
	}
	return *r.Status, nil
}

// ask sends one request to one node, once, and waits for so long.
func (c *Client) ask(ctx context.Context, address string, q *request, wait time.Duration) (*response, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if c.here != nil && address == c.self {
		r := &response{}
		c.here(ctx, q, r)
		return r, nil
	}
	if c.caller == nil {
		return nil, fmt.Errorf("no way to %s: %w: %w", address, ErrNotSent, log.ErrUnavailable)
	}
	b := encode(q)
	if len(b) > RequestBytesMax {
		return nil, fmt.Errorf("metadata request of %d bytes: %w: %w", len(b), ErrNotSent, log.ErrTooLarge)
	}
	b, err := c.caller.Call(ctx, address, b)
	if err != nil {
		return nil, err
	}
	return decodeResponse(b)
}

// call asks one node after the other until one has answered for the cluster.
// Every command may arrive twice: see Store.
func (c *Client) call(ctx context.Context, q *request) (*response, error) {
	q.Stale = c.stale != ""
	var (
		unknown bool // a command may have been applied
		last    error
		pause   = pauseMin
		wait    = tryMin
		turn    = rand.IntN(max(len(c.seeds), 1))
		address = c.first(&turn)
		hops    int // hints followed in a row
		tried   int
		heard   bool  // a node answered, whatever it said
		refused error // a certificate was
	)
	for {
		began := time.Now()
		r, err := c.ask(ctx, address, q, wait)
		tried++
		if err == nil {
			heard = true
			if err = r.err(); err == nil {
				c.remember(address)
				return r, nil
			}
			var nl *NotLeader
			switch {
			case errors.As(err, &nl) && nl.Address != "" && nl.Address != address && hops < 2:
				address, hops = nl.Address, hops+1
				c.remember(address)
				continue
			case errors.As(err, &nl):
			case errors.Is(err, log.ErrUnknown):
				unknown = true
			case errors.Is(err, log.ErrUnavailable):
			case unknown:
				return nil, fmt.Errorf("metadata: %w, and then: %w", log.ErrUnknown, err)
			default:
				return nil, err // the cluster's answer
			}
		} else {
			if errors.Is(err, log.ErrTooLarge) && errors.Is(err, ErrNotSent) {
				return nil, err
			}
			unknown = unknown || q.Op == opDo && !errors.Is(err, ErrNotSent)
			c.forget(address)
			if errors.Is(err, log.ErrRefused) {
				refused = err
			}
			if time.Since(began) >= wait {
				wait = min(2*wait, tryMax)
			}
		}
		hops = 0
		if refused != nil && !heard && !unknown && tried >= len(c.seeds) { // that is nothing to wait for
			return nil, fmt.Errorf("metadata: %w: %w", log.ErrUnavailable, refused)
		}
		if last == nil || ctx.Err() == nil {
			last = err // of an attempt that was cut off for the time the one before says more
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			sentinel := log.ErrUnavailable
			if unknown {
				sentinel = log.ErrUnknown
			}
			return nil, fmt.Errorf("metadata: %w: %w (%s)", sentinel, ctx.Err(), last.Error())
		}
		pause = min(2*pause, pauseMax)
		address = c.next(&turn)
	}
}

// first address to try.
func (c *Client) first(turn *int) string {
	c.mu.Lock()
	leader := c.leader
	c.mu.Unlock()
	switch {
	case c.stale != "":
		return c.stale
	case leader != "":
		return leader
	case c.here != nil:
		return c.self
	}
	return c.next(turn)
}

func (c *Client) next(turn *int) string {
	if len(c.seeds) == 0 {
		return c.self
	}
	*turn++
	return c.seeds[*turn%len(c.seeds)]
}

func (c *Client) remember(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = address
}

func (c *Client) forget(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader == address {
		c.leader = ""
	}
}
