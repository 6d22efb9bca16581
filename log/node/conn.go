package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment/single"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// conn is one connection. After the greeting it takes requests; an Attach makes
// it an append connection, a Read a read connection, for the rest of its life.
type conn struct {
	node *Node
	link *link.Link
	log  zerolog.Logger
	once sync.Once
	gone chan struct{} // closed by drop
}

func newConn(n *Node, raw net.Conn) *conn {
	return &conn{
		node: n, gone: make(chan struct{}), log: n.log.With().Stringer("peer", raw.RemoteAddr()).Logger(),
		link: link.New(raw, link.Options{
			Idle: n.cfg.HandshakeTimeout, Ping: n.cfg.IdleTimeout / 4, Write: n.cfg.WriteTimeout, Memory: n.memory,
		}),
	}
}

// drop closes the connection; its goroutines end.
func (c *conn) drop() {
	c.once.Do(func() {
		close(c.gone)
		_ = c.link.Close() // whatever was under way is unknown to the peer
	})
}

// serve runs the connection to its end.
func (c *conn) serve(ctx context.Context) {
	defer c.node.forget(c)
	var alive sync.WaitGroup
	defer alive.Wait()
	defer c.drop()
	err := c.greet(ctx)
	if err == nil {
		alive.Go(func() { c.link.KeepAlive(c.gone) })
		err = c.requests(ctx)
	}
	c.link.Free()
	c.farewell(err)
}

// farewell logs why the connection ends, and tells the peer if it may be
// listening.
func (c *conn) farewell(err error) {
	select {
	case <-c.gone:
		return // the node is closing
	default:
	}
	switch {
	case err == nil, errors.Is(err, io.EOF):
		c.log.Debug().Msg("log connection closed by peer")
	case errors.Is(err, log.ErrProtocol):
		c.node.mu.Lock()
		c.node.broken++
		c.node.mu.Unlock()
		c.log.Warn().Err(err).Msg("log connection dropped: the peer does not speak the protocol")
		_ = c.link.Send(wire.ErrorOf(err)) // best effort, it is being dropped
	default:
		c.log.Info().Err(err).Msg("log connection lost")
		_ = c.link.Send(wire.ErrorOf(err)) // best effort, it is being dropped
	}
}

func (c *conn) greet(ctx context.Context) error {
	k, body, err := c.link.Next(ctx, wire.GreetingMax)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if k != wire.KindHello {
		return fmt.Errorf("%v before Hello: %w", k, log.ErrProtocol)
	}
	var hello wire.Hello
	if err := wire.Decode(&hello, body); err != nil {
		return err
	}
	v, err := hello.Negotiate()
	if err != nil {
		return err
	}
	c.log = c.log.With().Str("client", printable(hello.Client)).Logger()
	c.link.SetIdle(c.node.cfg.IdleTimeout, c.node.cfg.IdleTimeout/4)
	return c.link.Send(&wire.Welcome{
		Version: v, Node: c.node.cfg.Name, UUID: c.node.store.UUID(), IdleMS: uint32(c.node.cfg.IdleTimeout / time.Millisecond),
	})
}

// printable bounds what a peer can put into the log.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return s
}

// requests answers one request after the other.
func (c *conn) requests(ctx context.Context) error {
	for {
		k, body, err := c.link.Next(ctx, wire.ControlMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindSoloAttach:
			var m wire.SoloAttach
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return c.appends(ctx, m)
		case wire.KindRead:
			var m wire.Read
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return c.reads(ctx, m)
		}
		reply, err := c.answer(ctx, k, body)
		if err != nil {
			if errors.Is(err, wire.ErrFrame) {
				return err
			}
			reply = wire.ErrorOf(err)
		}
		if err := c.link.Send(reply); err != nil {
			return err
		}
	}
}

func (c *conn) answer(ctx context.Context, k wire.Kind, body []byte) (wire.Message, error) {
	store := c.node.store
	switch k {
	case wire.KindSoloSeal:
		var m wire.SoloSeal
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		_, s, err := store.Fence(ctx, m.Stream, m.Epoch, m.Create)
		if err != nil {
			return nil, err
		}
		return &wire.SoloSealed{Segment: s.Segment, Last: s.Last, Bounds: s.Bounds}, nil
	case wire.KindBounds:
		var m wire.Bounds
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		st, err := store.Stream(m.Stream)
		if err != nil {
			return nil, err
		}
		return &wire.BoundsOK{Bounds: st.Bounds()}, nil
	case wire.KindStreams:
		if err := wire.Decode(&wire.Streams{}, body); err != nil {
			return nil, err
		}
		return &wire.StreamsOK{Names: store.Streams()}, nil
	case wire.KindCursors:
		var m wire.Cursors
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		st, err := store.Stream(m.Stream)
		if err != nil {
			return nil, err
		}
		return &wire.CursorsOK{Cursors: st.Cursors()}, nil
	case wire.KindStoreCursor:
		var m wire.StoreCursor
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		st, err := store.Stream(m.Stream)
		if err != nil {
			return nil, err
		}
		return &wire.Done{}, st.StoreCursor(m.Cursor)
	}
	return nil, fmt.Errorf("%v is not a request: %w: %w", k, wire.ErrFrame, log.ErrProtocol)
}

// appends serves an append connection. What was acknowledged is durable; when the
// connection ends, the rest stays queued and becomes durable or not.
func (c *conn) appends(ctx context.Context, m wire.SoloAttach) error {
	st, err := c.node.store.Stream(m.Stream)
	if err != nil {
		return c.refuse(err)
	}
	p, _, err := st.Progress(m.Epoch)
	if err == nil {
		err = p.Err
	}
	if err != nil {
		return c.refuse(fmt.Errorf("attach: %w", err))
	}
	if err := c.link.Send(&wire.Attached{Last: p.Last}); err != nil {
		return err
	}
	c.node.count(&c.node.writers, 1)
	defer c.node.count(&c.node.writers, -1)

	ctx, cancel := context.WithCancel(ctx)
	acked := make(chan error, 1) // the acker's end, read once below
	go func() {
		err := c.acks(ctx, st, m.Epoch, p.Last)
		if err != nil {
			c.drop() // wake the reading side
		}
		acked <- err
	}()
	err = c.takeAppends(ctx, st, m.Epoch)
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		_ = c.link.Send(wire.ErrorOf(err)) // the peer learns it from the lost connection otherwise
	}
	cancel()
	if ackErr := <-acked; ackErr != nil {
		return ackErr
	}
	return err
}

// refuse answers with an error and keeps the connection for its end.
func (c *conn) refuse(err error) error {
	return errors.Join(c.link.Send(wire.ErrorOf(err)), io.EOF)
}

func (c *conn) takeAppends(ctx context.Context, st *segment.Stream, epoch log.Epoch) error {
	var m wire.Append
	for {
		k, body, err := c.link.Next(ctx, wire.BodyMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindAppend:
			if err := wire.DecodeAppend(&m, body); err != nil {
				return err
			}
			err := st.Append(ctx, &segment.Append{
				Epoch: epoch, Offset: m.Offset, LAC: m.LAC, Topic: m.Topic, Ends: m.Ends, Time: m.Time,
				Checksum: m.Checksum, Payload: m.Payload,
			})
			if err != nil {
				return err
			}
		case wire.KindLAC:
			var m wire.LAC
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			if err := st.Confirm(epoch, m.LAC); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%v on an append connection: %w", k, log.ErrProtocol)
		}
	}
}

// acks tells the writer what became durable, one message per group commit.
func (c *conn) acks(ctx context.Context, st *segment.Stream, epoch log.Epoch, sent log.Offset) error {
	for {
		p, changed, err := st.Progress(epoch)
		if p.Last > sent {
			if err := c.link.Send(&wire.Ack{Last: p.Last}); err != nil {
				return err
			}
			sent = p.Last
		}
		if err == nil {
			err = p.Err
		}
		if err != nil {
			return errors.Join(err, c.link.Send(wire.ErrorOf(err)))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
