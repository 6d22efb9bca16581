// Package ops is what an operator's tools do with a cluster of log nodes: ask the
// metadata and single nodes, compare what nodes hold, and say beforehand what a
// change would do.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// Config of a Client.
type Config struct {
	Seeds []string // host:port of some nodes
	City  string
	Name  string // told to the nodes for their logs
	// Dial makes a connection, security included.
	Dial    func(ctx context.Context, address string) (net.Conn, error)
	Timeout time.Duration // of a request, or of silence while entries are read; 10s
}

// Client asks nodes. Every request has a connection of its own: tools ask little
// and must not be misled by an old one.
type Client struct {
	cfg  Config
	raw  *meta.Client
	meta meta.Store // raw, every call bounded
}

// New makes a client; it connects when it asks.
func New(cfg Config) *Client {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	c := &Client{cfg: cfg}
	c.raw = meta.NewClient(c, cfg.Seeds)
	c.meta = bounded{c.raw, cfg.Timeout}
	return c
}

// Metadata of the cluster, linearizable. Every call ends within Config.Timeout.
func (c *Client) Metadata() meta.Store { return c.meta }

// Change has the metadata changed for an operator; who asked and why is in every
// node's log.
func (c *Client) Change(ctx context.Context, cmd meta.Command, by, reason string) error {
	cmd.By, cmd.Reason = by, reason
	_, err := c.meta.Do(ctx, cmd)
	return err
}

// Seeds are the addresses that were configured.
func (c *Client) Seeds() []string { return c.cfg.Seeds }

// session is a greeted connection.
type session struct {
	*link.Link
	welcome wire.Welcome
	end     func()
}

func (c *Client) open(ctx context.Context, address string) (*session, error) {
	fail := func(err error) error {
		return fmt.Errorf("node %s: %w: %w", address, log.ErrUnavailable, errors.Join(ctx.Err(), err))
	}
	conn, err := c.cfg.Dial(ctx, address)
	if err != nil {
		return nil, fail(err)
	}
	l := link.New(conn, link.Options{Idle: c.cfg.Timeout, Write: c.cfg.Timeout, Ping: 2 * time.Second})
	release := context.AfterFunc(ctx, func() { _ = l.Close() }) // whatever was under way fails
	stop := make(chan struct{})                                 // closed by end
	var ping sync.WaitGroup
	s := &session{Link: l, end: sync.OnceFunc(func() {
		release()
		close(stop)
		_ = l.Close() // nothing is asked any more
		ping.Wait()
	})}
	err = l.Send(&wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeTool, City: c.cfg.City, Client: c.cfg.Name})
	if err == nil {
		err = l.Expect(ctx, &s.welcome)
	}
	if err != nil {
		s.end()
		return nil, fail(err)
	}
	l.SetVersion(s.welcome.Version)
	ping.Go(func() { l.KeepAlive(stop) })
	return s, nil
}

// unsent is the error of a request that left nothing at the other side.
type unsent struct{ error }

func (e *unsent) Unwrap() error     { return e.error }
func (e *unsent) Is(err error) bool { return err == meta.ErrNotSent }

// request sends one message and reads its reply. What the node answered comes
// back as it is; a way that broke is log.ErrUnavailable.
func (c *Client) request(ctx context.Context, address string, timeout time.Duration, m, reply wire.Message) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s, err := c.open(ctx, address)
	if err != nil {
		return &unsent{err}
	}
	defer s.end()
	if err := s.Send(m); err != nil {
		return fmt.Errorf("node %s: %w: %w", address, log.ErrUnavailable, err)
	}
	if err := s.Expect(ctx, reply); err != nil {
		var said interface{ Remote() bool }
		if errors.As(err, &said) && said.Remote() {
			return fmt.Errorf("node %s: %w", address, err)
		}
		return fmt.Errorf("node %s: %w: %w", address, log.ErrUnavailable, errors.Join(ctx.Err(), err))
	}
	return nil
}

// Call makes the client the meta.Caller of its own metadata.
func (c *Client) Call(ctx context.Context, address string, request []byte) ([]byte, error) {
	var reply wire.MetaOK
	err := c.request(ctx, address, c.cfg.Timeout, &wire.Meta{Request: request}, &reply)
	return append([]byte(nil), reply.Response...), err
}

// Hello is what a node says of itself when it is greeted.
func (c *Client) Hello(ctx context.Context, address string) (wire.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	s, err := c.open(ctx, address)
	if err != nil {
		return wire.Welcome{}, err
	}
	defer s.end()
	return s.welcome, nil
}

// longWork is how long a repair or a takeover may take.
const longWork = 10 * time.Minute

// Admin asks a node for a verb of its administration; request and reply are JSON.
func (c *Client) Admin(ctx context.Context, address, verb string, request, reply any) error {
	timeout := c.cfg.Timeout
	if verb == node.AdminRepair || verb == node.AdminTakeover {
		timeout = longWork
	}
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var ok wire.AdminOK
	if err := c.request(ctx, address, timeout, &wire.Admin{Verb: verb, Request: b}, &ok); err != nil {
		return err
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(ok.Response, reply); err != nil {
		return fmt.Errorf("node %s: %s: %w", address, verb, err)
	}
	return nil
}

// creditBytes is how much a node may send before it waits.
const creditBytes = 4 << 20

// Copy reads entries of one replica, from (inclusive) to (exclusive), and returns
// what the node says its bounds are. With raw they are those of what it holds,
// confirmed or not. each may keep nothing of its argument.
func (c *Client) Copy(ctx context.Context, address, stream string, segment uint32, from, to log.Offset, raw bool, each func(*wire.Stored) error) (log.Bounds, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := c.open(ctx, address)
	if err != nil {
		return log.Bounds{}, err
	}
	defer s.end()
	fail := func(err error) error {
		var said interface{ Remote() bool }
		if !errors.As(err, &said) || !said.Remote() {
			err = fmt.Errorf("%w: %w", log.ErrUnavailable, errors.Join(ctx.Err(), err))
		}
		return fmt.Errorf("node %s: stream %q segment %d: %w", address, stream, segment, err)
	}
	if err := s.Send(&wire.Copy{Stream: stream, Segment: segment, From: from, To: to, Credit: creditBytes, Raw: raw}); err != nil {
		return log.Bounds{}, fail(err)
	}
	var reading wire.Reading
	if err := s.Expect(ctx, &reading); err != nil {
		return log.Bounds{}, fail(err)
	}
	if from == to {
		return reading.Bounds, nil
	}
	next, owed := from, uint64(0)
	var m wire.Data
	for {
		kind, body, err := s.Next(ctx, wire.BodyMax)
		if err != nil {
			return reading.Bounds, fail(err)
		}
		switch kind {
		case wire.KindData:
			if err := wire.Decode(&m, body); err != nil {
				return reading.Bounds, fail(err)
			}
			for i := range m.Entries {
				e := &m.Entries[i]
				if e.Offset < next || e.Offset >= to {
					return reading.Bounds, fail(fmt.Errorf("entry %d between %d and %d: %w", e.Offset, next, to, log.ErrProtocol))
				}
				next = e.Offset + 1
				if err := each(e); err != nil {
					return reading.Bounds, err
				}
			}
			next = max(next, m.Next)
			if owed += uint64(wire.HeaderSize + len(body)); owed >= creditBytes/2 {
				if err := s.Send(&wire.Credit{Bytes: owed}); err != nil {
					return reading.Bounds, fail(err)
				}
				owed = 0
			}
		case wire.KindTail:
			var t wire.Tail
			if err := wire.Decode(&t, body); err != nil {
				return reading.Bounds, fail(err)
			}
			if t.Next >= to {
				return reading.Bounds, nil
			}
		case wire.KindError:
			var e wire.Error
			if err := wire.Decode(&e, body); err != nil {
				return reading.Bounds, fail(err)
			}
			return reading.Bounds, fail(e.Err())
		default:
			return reading.Bounds, fail(fmt.Errorf("%v in a copy: %w", kind, log.ErrProtocol))
		}
	}
}
