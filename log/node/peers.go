package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// peers is the way to the other nodes: one quiet connection to each, which tells
// whether it is alive, and connections for requests.
type peers struct {
	node *Node

	mu    sync.Mutex
	known map[string]*peer // by address
	idle  map[string][]*session
	shut  bool
}

// peer is another node as its quiet connection tells.
type peer struct {
	ClusterNode
	uuid       string
	generation uint64
	alive      bool
	err        error // why not
}

const (
	peerIdleMax  = 2 // request connections kept, to one address
	peerRetryMin = 50 * time.Millisecond
	peerRetryMax = time.Second
	callTimeout  = 10 * time.Second
)

func newPeers(n *Node) *peers {
	p := &peers{node: n, known: map[string]*peer{}, idle: map[string][]*session{}}
	for _, c := range n.cfg.Cluster {
		if c.Name != n.cfg.Name {
			p.known[c.Address] = &peer{ClusterNode: c, err: errors.New("not tried yet")}
		}
	}
	return p
}

// session is a greeted connection to another node, with its keep-alive.
type session struct {
	*link.Link
	conn    net.Conn
	welcome wire.Welcome
	stop    chan struct{} // closed by close
	once    sync.Once
	ping    sync.WaitGroup
}

func (s *session) close() {
	s.once.Do(func() {
		close(s.stop)
		_ = s.Link.Close() // whatever was under way is unknown anyway
	})
	s.ping.Wait()
}

// quiet ends the keep-alive and leaves the connection open.
func (s *session) quiet() {
	s.once.Do(func() { close(s.stop) })
	s.ping.Wait()
}

// dial greets the node at an address, as this node or as a tool that only looks.
// What the other side says of the cluster's generation is taken to heart.
func (p *peers) dial(ctx context.Context, address string, purpose wire.Purpose) (*session, error) {
	n := p.node
	ctx, cancel := context.WithTimeout(ctx, n.cfg.HandshakeTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	if address == n.self.Address {
		conn, err = n.dialSelf(ctx)
	} else {
		conn, err = n.cfg.Dial(ctx, address)
	}
	if err != nil {
		return nil, fmt.Errorf("node at %s: %w: %w: %w", address, log.ErrUnavailable, meta.ErrNotSent, err)
	}
	s := &session{
		Link: link.New(conn, link.Options{Idle: n.cfg.HandshakeTimeout, Ping: n.cfg.IdleTimeout / 4, Write: n.cfg.WriteTimeout, Memory: n.memory}),
		conn: conn, stop: make(chan struct{}),
	}
	cut := context.AfterFunc(ctx, func() { _ = conn.Close() })
	hello := &wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: purpose, City: n.cfg.City, Client: n.cfg.Name}
	if purpose == wire.PurposeNode {
		hello.Generation, hello.UUID = n.store.Generation(), n.store.UUID()
	}
	err = s.Send(hello)
	if err == nil {
		err = s.Expect(ctx, &s.welcome)
	}
	if !cut() && err == nil {
		err = ctx.Err()
	}
	if err == nil && purpose == wire.PurposeNode {
		err = n.met(&s.welcome, address)
	}
	if err != nil {
		_ = conn.Close() // it never was of use
		if (errors.Is(err, log.ErrGeneration) || errors.Is(err, log.ErrIdentity)) && purpose == wire.PurposeNode {
			n.standing.hint(address)
		}
		return nil, fmt.Errorf("node at %s: greeting: %w: %w: %w", address, log.ErrUnavailable, meta.ErrNotSent, errors.Join(ctx.Err(), err))
	}
	s.SetVersion(s.welcome.Version)
	theirs := time.Duration(s.welcome.IdleMS) * time.Millisecond
	s.SetIdle(max(n.cfg.IdleTimeout, theirs/2), max(min(n.cfg.IdleTimeout, theirs)/4, time.Millisecond))
	s.ping.Go(func() { s.KeepAlive(s.stop) })
	return s, nil
}

// watch keeps the quiet connections until ctx ends.
func (p *peers) watch(ctx context.Context) {
	var all sync.WaitGroup
	p.mu.Lock()
	for _, x := range p.known {
		all.Go(func() { p.watchOne(ctx, x) })
	}
	p.mu.Unlock()
	all.Wait()
}

func (p *peers) watchOne(ctx context.Context, x *peer) {
	for wait := peerRetryMin; ctx.Err() == nil; wait = min(2*wait, peerRetryMax) {
		s, err := p.dial(ctx, x.Address, wire.PurposeNode)
		if err == nil {
			wait = peerRetryMin
			p.note(x, &s.welcome, nil)
			release := context.AfterFunc(ctx, func() { _ = s.Link.Close() })
			_, _, err = s.Next(ctx, wire.GreetingMax) // only Pings come
			release()
			s.close()
			if err == nil {
				err = fmt.Errorf("a message that was not asked for: %w", log.ErrProtocol)
			}
		}
		p.note(x, nil, err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (p *peers) note(x *peer, w *wire.Welcome, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, before := x.alive, x.err
	x.alive, x.err = err == nil, err
	if errors.Is(err, log.ErrRefused) && !errors.Is(before, log.ErrRefused) {
		p.node.log.Error().Err(err).Str("node", x.Name).Msg("another log node can't be reached: a certificate is refused")
	}
	if w != nil {
		x.uuid, x.generation = w.UUID, w.Generation
	}
	if was != x.alive {
		p.node.log.Info().Str("node", x.Name).Bool("reachable", x.alive).AnErr("why", err).Msg("another log node")
	}
}

// alive says whether a registered node can be reached now, under that identity.
func (p *peers) alive(m meta.Node) bool {
	if m.Name == p.node.cfg.Name {
		return m.UUID == p.node.store.UUID()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.known {
		if x.Name == m.Name {
			return x.alive && x.uuid == m.UUID
		}
	}
	return false
}

// list is what is known of the other nodes, by name.
func (p *peers) list() []peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []peer
	for _, a := range sortedKeys(p.known) {
		out = append(out, *p.known[a])
	}
	slices.SortFunc(out, func(a, b peer) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

// Call is meta.Caller: it carries a request to another node's metadata.
func (p *peers) Call(ctx context.Context, address string, request []byte) ([]byte, error) {
	var reply wire.MetaOK
	if err := p.request(ctx, address, &wire.Meta{Request: request}, &reply); err != nil {
		return nil, err
	}
	return reply.Response, nil
}

// ask sends an admin request and decodes the answer.
func (p *peers) ask(ctx context.Context, address, verb string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var reply wire.AdminOK
	if err := p.request(ctx, address, &wire.Admin{Verb: verb, Request: body}, &reply); err != nil {
		return err
	}
	return json.Unmarshal(reply.Response, answer)
}

// request sends m over a kept or a new connection and reads the reply, which owns
// its bytes. A request that finds an old connection dead is sent again; all that
// travel here may be repeated.
func (p *peers) request(ctx context.Context, address string, m, reply wire.Message) error {
	for {
		s := p.take(address)
		fresh := s == nil
		if fresh {
			var err error
			if s, err = p.dial(ctx, address, wire.PurposeNode); err != nil {
				return err
			}
		}
		err := p.exchange(ctx, s, m, reply)
		var remote interface{ Remote() bool }
		if err == nil || errors.As(err, &remote) {
			p.put(address, s)
			return err
		}
		s.close()
		if fresh || ctx.Err() != nil {
			return fmt.Errorf("node at %s: %w: %w", address, log.ErrUnavailable, err)
		}
	}
}

func (p *peers) exchange(ctx context.Context, s *session, m, reply wire.Message) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	release := context.AfterFunc(ctx, func() { _ = s.Link.Close() })
	defer release()
	if err := s.Send(m); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	if err := s.Expect(ctx, reply); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	switch r := reply.(type) { // the link's buffer is used again
	case *wire.MetaOK:
		r.Response = slices.Clone(r.Response)
	case *wire.AdminOK:
		r.Response = slices.Clone(r.Response)
	}
	if !release() {
		return ctx.Err()
	}
	return nil
}

func (p *peers) take(address string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[address]
	if len(list) == 0 {
		return nil
	}
	p.idle[address] = list[:len(list)-1]
	return list[len(list)-1]
}

func (p *peers) put(address string, s *session) {
	p.mu.Lock()
	keep := len(p.idle[address]) < peerIdleMax && !p.shut
	if keep {
		p.idle[address] = append(p.idle[address], s)
	}
	p.mu.Unlock()
	if !keep {
		s.close()
	}
}

// close ends the kept connections.
func (p *peers) close() {
	p.mu.Lock()
	p.shut = true
	p.mu.Unlock()
	p.reset()
}

// reset ends the kept connections, so that the next requests greet anew.
func (p *peers) reset() {
	p.mu.Lock()
	idle := p.idle
	p.idle = map[string][]*session{}
	p.mu.Unlock()
	for _, list := range idle {
		for _, s := range list {
			s.close()
		}
	}
}

// dialRaft opens a byte stream to the consensus of the node at an address.
func (p *peers) dialRaft(ctx context.Context, address string) (net.Conn, error) {
	s, err := p.dial(ctx, address, wire.PurposeNode)
	if err != nil {
		return nil, err
	}
	s.quiet() // no Ping may get into the byte stream
	release := context.AfterFunc(ctx, func() { _ = s.Link.Close() })
	err = s.Send(&wire.Raft{})
	if err == nil {
		err = s.Expect(ctx, &wire.Done{})
	}
	var conn net.Conn
	if err == nil {
		conn, err = s.Detach()
	}
	if !release() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = s.Link.Close() // it never was of use
		return nil, fmt.Errorf("raft of node at %s: %w", address, err)
	}
	return conn, nil
}
