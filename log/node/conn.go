package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// conn is one connection. After the greeting it takes requests; an Attach makes
// it an append connection, a Tally one for acknowledgements, a Read or a Copy a
// read connection, a Raft a byte stream, for the rest of its life.
type conn struct {
	node  *Node
	raw   net.Conn
	link  *link.Link
	log   zerolog.Logger
	hello wire.Hello
	once  sync.Once
	gone  chan struct{} // closed by drop
	// flowing: it carries entries or a byte stream, not requests.
	flowing atomic.Bool
}

func newConn(n *Node, raw net.Conn) *conn {
	return &conn{
		node: n, raw: raw, gone: make(chan struct{}), log: n.log.With().Stringer("peer", raw.RemoteAddr()).Logger(),
		link: link.New(raw, link.Options{
			Idle: n.cfg.HandshakeTimeout, Ping: n.cfg.IdleTimeout / 4, Write: n.cfg.WriteTimeout, Memory: n.memory, Small: true,
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
	stop := make(chan struct{}) // closed when the connection is no longer one of frames
	err := c.greet(ctx)
	if err == nil {
		alive.Go(func() { c.link.KeepAlive(stop) })
		err = c.requests(ctx)
	}
	close(stop)
	if errors.Is(err, errRaft) {
		alive.Wait() // no Ping may get into the byte stream
		err = c.raft(ctx)
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
	case errors.Is(err, log.ErrRefused):
		c.log.Warn().Err(err).Msg("log connection refused: a certificate")
		_ = c.link.Send(wire.ErrorOf(err)) // best effort: where there was no handshake it fails at once
	case errors.Is(err, log.ErrGeneration), errors.Is(err, log.ErrIdentity):
		c.log.Warn().Err(err).Msg("log connection refused")
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
	if err := wire.Decode(&c.hello, body); err != nil {
		return err
	}
	v, err := c.hello.Negotiate()
	if err != nil {
		return err
	}
	c.link.SetVersion(v)
	c.log = c.log.With().Str("client", printable(c.hello.Client)).Logger()
	if err := c.isNode(); err != nil {
		return err
	}
	if err := c.node.welcome(&c.hello); err != nil {
		return err
	}
	c.link.SetIdle(c.node.cfg.IdleTimeout, c.node.cfg.IdleTimeout/4)
	return c.link.Send(&wire.Welcome{
		Version: v, Node: c.node.cfg.Name, UUID: c.node.store.UUID(), City: c.node.cfg.City,
		Generation: c.node.store.Generation(), IdleMS: uint32(c.node.cfg.IdleTimeout / time.Millisecond),
	})
}

// isNode refuses a peer that says it is a node and shows a certificate that is not
// one: only nodes may take part in the metadata's consensus and in repair.
func (c *conn) isNode() error {
	t, secure := c.raw.(interface{ ConnectionState() tls.ConnectionState })
	if c.hello.Purpose != wire.PurposeNode || !secure {
		return nil
	}
	chain := t.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return nil // without certificates of clients the listener's own rules hold
	}
	uses := chain[0].ExtKeyUsage
	if slices.Contains(uses, x509.ExtKeyUsageServerAuth) || slices.Contains(uses, x509.ExtKeyUsageAny) || len(uses)+len(chain[0].UnknownExtKeyUsage) == 0 {
		return nil // one that names no use is for all
	}
	return fmt.Errorf("%q says it is a node, and its certificate (%s) is a client's: %w: %w",
		printable(c.hello.Client), printable(chain[0].Subject.CommonName), log.ErrRefused, log.ErrIdentity)
}

// printable bounds what a peer can put into the log.
func printable(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return s
}

// errRaft says that the connection becomes a byte stream.
var errRaft = errors.New("raft")

// requests answers one request after the other.
func (c *conn) requests(ctx context.Context) error {
	var via *wire.Via // of the Attach that follows
	for {
		k, body, err := c.link.Next(ctx, wire.ControlMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindTally, wire.KindVia:
			if v := c.link.Version(); v < wire.VersionTally {
				return fmt.Errorf("%v in version %d: %w", k, v, log.ErrProtocol)
			}
		}
		switch k {
		case wire.KindAttach, wire.KindRead, wire.KindCopy, wire.KindRaft, wire.KindTally:
			c.flowing.Store(true)
			if err := c.node.serving(); err != nil {
				return c.refuse(err)
			}
		}
		switch k {
		case wire.KindAttach:
			var m wire.Attach
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return c.appends(ctx, m, via)
		case wire.KindVia:
			via = &wire.Via{}
			if err := wire.Decode(via, body); err != nil {
				return err
			}
			continue
		case wire.KindTally:
			if err := wire.Decode(&wire.Tally{}, body); err != nil {
				return err
			}
			return c.tally(ctx)
		case wire.KindRead:
			var m wire.Read
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return c.reads(ctx, m)
		case wire.KindCopy:
			var m wire.Copy
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return c.copies(ctx, m)
		case wire.KindRaft:
			if err := wire.Decode(&wire.Raft{}, body); err != nil {
				return err
			}
			if c.hello.Purpose != wire.PurposeNode {
				return fmt.Errorf("raft from %q, which is no node: %w", printable(c.hello.Client), log.ErrProtocol)
			}
			return errRaft
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
	n := c.node
	if k == wire.KindAdmin {
		var m wire.Admin
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		response, err := n.admin(ctx, m.Verb, slices.Clone(m.Request))
		return &wire.AdminOK{Response: response}, err
	}
	if err := n.serving(); err != nil {
		return nil, err
	}
	switch k {
	case wire.KindSeal:
		var m wire.Seal
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		return c.seal(ctx, m)
	case wire.KindClose:
		var m wire.Close
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		return &wire.Done{}, n.closeReplica(ctx, segment.ID{Stream: m.Stream, Segment: m.Segment}, m.Last, m.LSO)
	case wire.KindBounds:
		var m wire.Bounds
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		b, err := n.bounds(ctx, m.Stream)
		return &wire.BoundsOK{Bounds: b}, err
	case wire.KindStreams:
		if err := wire.Decode(&wire.Streams{}, body); err != nil {
			return nil, err
		}
		names, err := n.meta().Streams(ctx)
		return &wire.StreamsOK{Names: names}, err
	case wire.KindMeta:
		var m wire.Meta
		if err := wire.Decode(&m, body); err != nil {
			return nil, err
		}
		return &wire.MetaOK{Response: n.meta().Handle(ctx, slices.Clone(m.Request))}, nil
	}
	return nil, fmt.Errorf("%v is not a request: %w: %w", k, wire.ErrFrame, log.ErrProtocol)
}

func (c *conn) seal(ctx context.Context, m wire.Seal) (wire.Message, error) {
	n := c.node
	if err := n.takes(&m.Descriptor); err != nil {
		return nil, err
	}
	s, err := n.store.Seal(ctx, m.Descriptor, m.Epoch)
	if rep, repErr := n.store.Replica(segment.ID{Stream: m.Descriptor.Stream, Segment: m.Descriptor.Segment}); repErr == nil {
		n.shelf.row(m.Descriptor.Stream, true).put(rep)
		if err == nil && s.Closed {
			info := rep.Info()
			return &wire.Sealed{Last: s.Last, LAC: s.LAC, LSO: s.LSO, Closed: true, End: info.Last, EndLSO: info.LSO}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	return &wire.Sealed{Last: s.Last, LAC: s.LAC, LSO: s.LSO, Closed: s.Closed}, nil
}

// appends serves an append connection. What was acknowledged is durable; when the
// connection ends, the rest stays queued and becomes durable or not. via: where the
// acknowledgements go; nil: here.
func (c *conn) appends(ctx context.Context, m wire.Attach, via *wire.Via) error {
	n := c.node
	if err := n.takes(&m.Descriptor); err != nil {
		return c.refuse(err)
	}
	rep, last, err := n.store.Attach(ctx, m.Descriptor, m.Epoch)
	if err != nil {
		return c.refuse(fmt.Errorf("attach: %w", err))
	}
	n.shelf.row(m.Descriptor.Stream, true).put(rep)
	if err := c.link.Send(&wire.Attached{Last: last}); err != nil {
		return err
	}
	c.link.Grow()
	ack := func(last log.Offset) error { return c.link.Send(&wire.Ack{Last: last}) }
	if via != nil {
		if counted := n.tallies.join(*via, c); counted != nil {
			defer counted.leave()
			ack = counted.ack
		}
	}
	n.count(&n.writers, 1)
	defer n.count(&n.writers, -1)

	ctx, cancel := context.WithCancel(ctx)
	acked := make(chan error, 1) // the acker's end, read once below
	go func() {
		err := c.acks(ctx, rep, m.Epoch, last, ack)
		if err != nil {
			c.drop() // wake the reading side
		}
		acked <- err
	}()
	err = c.takeAppends(ctx, rep, m.Epoch)
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

func (c *conn) takeAppends(ctx context.Context, rep *segment.Replica, epoch log.Epoch) error {
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
			err := rep.Append(ctx, &segment.Append{
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
			if err := rep.Confirm(epoch, m.LAC); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%v on an append connection: %w", k, log.ErrProtocol)
		}
	}
}

// acks tells the writer what became durable, one message per group commit.
func (c *conn) acks(ctx context.Context, rep *segment.Replica, epoch log.Epoch, sent log.Offset, ack func(log.Offset) error) error {
	for {
		p, changed, err := rep.Progress(epoch)
		if p.Last > sent {
			if err := ack(p.Last); err != nil {
				return err
			}
			sent = p.Last
			c.node.governor.appended()
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

// copies serves one replica's entries for recovery and repair, up to a place that
// is named.
func (c *conn) copies(ctx context.Context, m wire.Copy) error {
	rep, err := c.node.store.Replica(segment.ID{Stream: m.Stream, Segment: m.Segment})
	if err != nil {
		return c.refuse(err)
	}
	d, info := rep.Descriptor(), rep.Info()
	bounds := log.Bounds{First: d.First, LAC: info.LAC, LSO: info.LSO, Epoch: d.Epoch}
	if m.Raw {
		bounds.LAC = info.Held
	}
	if err := c.link.Send(&wire.Reading{Bounds: bounds}); err != nil {
		return err
	}
	return c.flow(ctx, m.Credit, func(ctx context.Context, window *credit) error {
		return c.pushCopy(ctx, rep, m, bounds, window)
	})
}

func (c *conn) pushCopy(ctx context.Context, rep *segment.Replica, m wire.Copy, bounds log.Bounds, window *credit) error {
	var entries []segment.Stored
	var buf, out []byte
	var msg wire.Data
	q := segment.Query{From: m.From, To: m.To, Unconfirmed: m.Raw, BytesMax: pushBytes}
	if info := rep.Info(); info.Compacted {
		q.Topics = info.Kept // the rest is not there for anyone
	}
	for q.From < m.To {
		for window.left() <= 0 {
			select {
			case <-window.more:
			case <-ctx.Done():
				return nil
			}
		}
		var next log.Offset
		var err error
		entries, buf, next, err = rep.Read(q, entries, buf)
		if err == nil && len(entries) == 0 && next == q.From {
			err = fmt.Errorf("stream %q segment %d: entry %d: %w", m.Stream, m.Segment, q.From, log.ErrElsewhere)
		}
		if err != nil {
			c.node.doubt(m.Stream, err)
			return errors.Join(err, c.link.Send(wire.ErrorOf(err)))
		}
		q.From = next
		if len(entries) == 0 {
			continue
		}
		msg.Next, msg.Bounds, msg.Entries = next, bounds, msg.Entries[:0]
		for i := range entries {
			msg.Entries = append(msg.Entries, wire.Stored(entries[i]))
		}
		out = wire.Encode(out[:0], &msg)
		window.use(len(out))
		if err := c.link.SendBuffers(net.Buffers{out}); err != nil {
			return err
		}
	}
	if err := c.link.Send(&wire.Tail{Next: m.To, Bounds: bounds}); err != nil {
		return err
	}
	<-ctx.Done() // the reader goes when it has taken it
	return nil
}
