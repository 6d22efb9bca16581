// Package client is the log over the wire: a log.Log whose node is elsewhere.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// Config of a Client. Zero values take the defaults named.
type Config struct {
	Nodes []string    // host:port; the first one that answers is used
	TLS   *tls.Config // nil: plain TCP
	Name  string      // told to the node for its log; program and process by default

	WindowBytes     int64         // of a writer: bytes appended and not confirmed; 8 MiB
	ReadWindowBytes int64         // of a reader: bytes received and not taken; 8 MiB
	DialTimeout     time.Duration // of connecting and greeting; 5s
	RequestTimeout  time.Duration // 10s
	ReconnectFor    time.Duration // how long a reader tries to come back before it fails; 30s
	IdleTimeout     time.Duration // a silent node counts as gone; 20s

	// Dial replaces the way to a node, for tests; TLS is applied on top.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Logger zerolog.Logger
}

func (c Config) withDefaults() Config {
	bytes := func(v *int64) {
		if *v == 0 {
			*v = 8 << 20
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	bytes(&c.WindowBytes)
	bytes(&c.ReadWindowBytes)
	wait(&c.DialTimeout, 5*time.Second)
	wait(&c.RequestTimeout, 10*time.Second)
	wait(&c.ReconnectFor, 30*time.Second)
	wait(&c.IdleTimeout, 20*time.Second)
	if c.Name == "" {
		c.Name = fmt.Sprintf("%s/%d", filepath.Base(os.Args[0]), os.Getpid())
	}
	if c.Dial == nil {
		d := &net.Dialer{}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	return c
}

// Client is a log.Log over the wire. It keeps one connection for requests, and
// one for each writer and reader. The zero value is of no use.
type Client struct {
	cfg    Config
	closed chan struct{} // closed by Close
	once   sync.Once

	turn    chan struct{} // holds a token while a request runs; owner: the Client; bound 1; never closed
	control *session      // guarded by turn

	mu   sync.Mutex
	open map[interface{ Close() error }]struct{} // writers and readers
}

// New checks the configuration. It connects when it has to.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Nodes) == 0 {
		return nil, errors.New("log client: no node is configured")
	}
	for _, address := range cfg.Nodes {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("log client: node address %q: %w", address, err)
		}
	}
	if cfg.WindowBytes < 0 || cfg.ReadWindowBytes < 0 || cfg.ReadWindowBytes > 512<<20 {
		return nil, fmt.Errorf("log client: windows of %d and %d bytes: want up to 512 MiB", cfg.WindowBytes, cfg.ReadWindowBytes)
	}
	return &Client{
		cfg: cfg, closed: make(chan struct{}), turn: make(chan struct{}, 1),
		open: map[interface{ Close() error }]struct{}{},
	}, nil
}

// Close ends the writers and readers of this client, without waiting for what
// they have in flight, and its connections.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.mu.Lock()
	open := c.open
	c.open = map[interface{ Close() error }]struct{}{}
	c.mu.Unlock()
	for o := range open {
		_ = o.Close() // what was in flight is unknown, which its owner was told
	}
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.control != nil {
		c.control.close()
		c.control = nil
	}
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

func (c *Client) adopt(o interface{ Close() error }) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.alive(); err != nil {
		return err
	}
	c.open[o] = struct{}{}
	return nil
}

func (c *Client) disown(o interface{ Close() error }) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, o)
}

// session is a greeted connection with its keep-alive.
type session struct {
	*link.Link
	node string
	stop chan struct{} // closed by close
	once sync.Once
	ping sync.WaitGroup
}

func (s *session) close() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.Link.Close() // whatever was under way is unknown anyway
	})
	s.ping.Wait()
}

// connect greets the first node that answers. Failures to do so are
// log.ErrUnavailable.
func (c *Client) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-c.closed:
			cancel()
		case <-ctx.Done():
		}
	})
	var errs []error
	for _, address := range c.cfg.Nodes {
		s, err := c.connectTo(ctx, address)
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("node %s: %w", address, err))
		if ctx.Err() != nil || c.alive() != nil {
			break
		}
	}
	if err := c.alive(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", log.ErrUnavailable, errors.Join(errs...))
}

func (c *Client) connectTo(ctx context.Context, address string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	conn, err := c.cfg.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if c.cfg.TLS != nil {
		t := c.cfg.TLS.Clone()
		if t.ServerName == "" {
			t.ServerName, _, _ = net.SplitHostPort(address) // New checked it
		}
		conn = tls.Client(conn, t)
	}
	s := &session{
		Link: link.New(conn, link.Options{Idle: c.cfg.DialTimeout, Ping: c.cfg.IdleTimeout / 4, Write: c.cfg.IdleTimeout}),
		node: address, stop: make(chan struct{}),
	}
	// The context, and the client's end, cut the greeting short.
	cut := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer cut()
	var w wire.Welcome
	err = s.Send(&wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeClient, Client: c.cfg.Name})
	if err == nil {
		err = s.Expect(ctx, &w)
	}
	if err != nil {
		_ = conn.Close() // it never was of use
		return nil, errors.Join(ctx.Err(), fmt.Errorf("greeting: %w", err))
	}
	// The node drops us after its idle time, and pings every quarter of it.
	theirs := time.Duration(w.IdleMS) * time.Millisecond
	s.SetIdle(max(c.cfg.IdleTimeout, theirs/2), max(min(c.cfg.IdleTimeout, theirs)/4, time.Millisecond))
	s.ping.Go(func() { s.KeepAlive(s.stop) })
	return s, nil
}

// within runs f so that the session is closed when ctx, the request timeout, or
// the client ends first.
func (c *Client) within(ctx context.Context, s *session, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	done := make(chan struct{}) // closed below, when f has returned
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-done:
		case <-ctx.Done():
			_ = s.Link.Close()
		case <-c.closed:
			_ = s.Link.Close()
		}
	})
	err := f(ctx)
	close(done)
	watch.Wait()
	if err != nil && !isReply(err) {
		err = errors.Join(ctx.Err(), c.alive(), fmt.Errorf("node %s: %w: %w", s.node, log.ErrUnavailable, err))
	}
	return err
}

// isReply tells an error that the node answered from one of the way to it.
func isReply(err error) bool {
	var r interface{ Remote() bool }
	return errors.As(err, &r) && r.Remote()
}

// request sends m over the control connection and reads the reply. Every request
// may be repeated, so one that finds the connection dead is sent again on a new
// one.
func (c *Client) request(ctx context.Context, m, reply wire.Message) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return c.alive()
	}
	for {
		if err := c.alive(); err != nil {
			return err
		}
		fresh := c.control == nil
		if fresh {
			s, err := c.connect(ctx)
			if err != nil {
				return err
			}
			c.control = s
		}
		err := c.within(ctx, c.control, func(ctx context.Context) error {
			if err := c.control.Send(m); err != nil {
				return err
			}
			return c.control.Expect(ctx, reply)
		})
		if err == nil || isReply(err) {
			return err
		}
		c.control.close()
		c.control = nil
		if fresh || ctx.Err() != nil {
			return err
		}
	}
}

// Bounds of the stream.
func (c *Client) Bounds(ctx context.Context, stream string) (log.Bounds, error) {
	var reply wire.BoundsOK
	err := c.request(ctx, &wire.Bounds{Stream: stream}, &reply)
	return reply.Bounds, err
}

// Streams on the node.
func (c *Client) Streams(ctx context.Context) ([]string, error) {
	var reply wire.StreamsOK
	err := c.request(ctx, &wire.Streams{}, &reply)
	return reply.Names, err
}

// Cursors of the stream.
func (c *Client) Cursors(ctx context.Context, stream string) ([]log.Cursor, error) {
	var reply wire.CursorsOK
	err := c.request(ctx, &wire.Cursors{Stream: stream}, &reply)
	return reply.Cursors, err
}

// StoreCursor stores the cursor. Without an answer the outcome is unknown; it may
// be stored again.
func (c *Client) StoreCursor(ctx context.Context, stream string, cursor log.Cursor) error {
	if cursor.UpdatedAt.IsZero() {
		cursor.UpdatedAt = time.Now().UTC()
	}
	return c.request(ctx, &wire.StoreCursor{Stream: stream, Cursor: cursor}, &wire.Done{})
}
