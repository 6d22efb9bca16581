package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// session is a greeted connection with its keep-alive.
type session struct {
	*link.Link
	address string
	hello   wire.Welcome
	stop    chan struct{} // closed by close
	once    sync.Once
	ping    sync.WaitGroup
}

// cut ends the connection without waiting for its goroutine.
func (s *session) cut() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.Link.Close() // whatever was under way is unknown anyway
	})
}

func (s *session) close() {
	s.cut()
	s.ping.Wait()
}

// dial greets the node at an address. A node of an older generation of the
// cluster than the client has met is refused: log.ErrGeneration.
func (c *Client) dial(ctx context.Context, address string) (*session, error) {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.DialTimeout)
	defer cancel()
	s, err := c.greet(ctx, address)
	if err != nil {
		c.stats.dialFailures.Add(1)
		c.tellRefused(address, err)
		c.book.note(address, false)
		return nil, errors.Join(c.alive(), fmt.Errorf("node %s: %w: %w: %w", address, errNotConnected, log.ErrUnavailable, err))
	}
	c.book.note(address, true)
	return s, nil
}

// tellRefused logs that a node and this client would not have each other's
// certificate: that is no passing trouble, whoever waits for the outcome.
func (c *Client) tellRefused(address string, err error) {
	if !errors.Is(err, log.ErrRefused) {
		return
	}
	now := time.Now()
	if at, told := c.refused.Load(address); told && now.Sub(at.(time.Time)) < refusedEvery {
		return
	}
	c.refused.Store(address, now)
	c.cfg.Logger.Error().Err(err).Str("node", address).Msg("log node can't be reached: a certificate is refused")
}

// refusedEvery is how often a refused certificate is logged for one node.
const refusedEvery = 10 * time.Second

func (c *Client) greet(ctx context.Context, address string) (*session, error) {
	conn, err := c.cfg.Dial(ctx, address)
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	if c.cfg.TLS != nil {
		t := c.cfg.TLS.Clone()
		if t.ServerName == "" {
			t.ServerName, _, _ = net.SplitHostPort(address) // New, or the node's registration, checked it
		}
		conn = tls.Client(conn, t)
	}
	s := &session{
		Link:    link.New(conn, link.Options{Idle: c.cfg.DialTimeout, Ping: c.cfg.IdleTimeout / 4, Write: c.cfg.IdleTimeout}),
		address: address, stop: make(chan struct{}),
	}
	// The context, and the client's end, cut the greeting short.
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = s.Send(&wire.Hello{
		VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: c.cfg.Purpose,
		Generation: c.generation.Load(), City: c.cfg.City, Client: c.cfg.Name,
	})
	if err == nil {
		err = s.Expect(ctx, &s.hello)
	}
	if err == nil && (s.hello.Version < wire.VersionMin || s.hello.Version > wire.VersionMax) {
		err = fmt.Errorf("version %d was chosen: %w", s.hello.Version, log.ErrProtocol)
	}
	if err == nil {
		err = c.learn(s.hello.Generation)
	}
	if !release() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close() // it never was of use
		return nil, errors.Join(ctx.Err(), fmt.Errorf("greeting: %w", err))
	}
	s.SetVersion(s.hello.Version)
	// The node drops us after its idle time, and pings every quarter of it.
	theirs := time.Duration(s.hello.IdleMS) * time.Millisecond
	s.SetIdle(max(c.cfg.IdleTimeout, theirs/2), max(min(c.cfg.IdleTimeout, theirs)/4, time.Millisecond))
	s.ping.Go(func() { s.KeepAlive(s.stop) })
	return s, nil
}

// learn takes in the generation that a node bears.
func (c *Client) learn(generation uint64) error {
	for {
		known := c.generation.Load()
		if generation == 0 && known > 0 {
			return fmt.Errorf("the node knows no generation yet, the cluster is at %d: %w", known, log.ErrUnavailable)
		}
		if generation < known {
			return fmt.Errorf("the node is of generation %d, the cluster of %d: %w", generation, known, log.ErrGeneration)
		}
		if generation == known || c.generation.CompareAndSwap(known, generation) {
			return nil
		}
	}
}

// within runs f so that the session is cut when ctx, the request timeout, or the
// client ends first.
func (c *Client) within(ctx context.Context, s *session, f func(context.Context) error) error {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	release := context.AfterFunc(ctx, s.cut)
	err = f(ctx)
	release()
	if err != nil && !isReply(err) {
		err = errors.Join(c.alive(), ctx.Err(), fmt.Errorf("node %s: %w: %w", s.address, log.ErrUnavailable, err))
	}
	return err
}

// isReply tells an error that the node answered from one of the way to it.
func isReply(err error) bool {
	var r interface{ Remote() bool }
	return errors.As(err, &r) && r.Remote()
}
