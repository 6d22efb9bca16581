package wan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Gate is a server behind the network: whoever connects to Listen reaches Target,
// over the way from its own city to the gate's.
type Gate struct {
	Name   string `json:"name"`
	City   string `json:"city"`
	Listen string `json:"listen"` // host:port; port 0: any
	Target string `json:"target"`
}

// Config of a Network.
type Config struct {
	Gates []Gate `json:"gates"`
	// Cities says by source address where a connection comes from; the first
	// prefix that holds it counts. Others come from nowhere, undelayed.
	Cities []Place `json:"cities"`
	// Ways between cities at the start; those not named are open and undelayed.
	Ways []Between `json:"ways"`
	// QueueBytes bounds what waits in one direction of one connection; 32 MiB.
	// Rate times delay must fit, or it becomes the limit.
	QueueBytes int            `json:"queue_bytes,omitempty"`
	Seed       uint64         `json:"seed,omitempty"` // of the jitter
	Logger     zerolog.Logger `json:"-"`
}

// Place is where the addresses of a prefix are.
type Place struct {
	Prefix netip.Prefix `json:"prefix"`
	City   string       `json:"city"`
}

// Between is the way from one city to another. It applies in that direction,
// whoever made the connection.
type Between struct {
	From string `json:"from"`
	To   string `json:"to"`
	Way
}

// Flow is what passed between a source address and a gate.
type Flow struct {
	Source      string `json:"source"`
	City        string `json:"city"` // of the source
	Gate        string `json:"gate"`
	GateCity    string `json:"gate_city"`
	Connections int64  `json:"connections"`
	Sent        int64  `json:"sent"`     // bytes from the source to the gate
	Received    int64  `json:"received"` // bytes from the gate to the source
}

// Network is all gates and ways. Its methods are safe for concurrent use.
type Network struct {
	cfg       Config
	listeners []net.Listener

	mu    sync.Mutex
	lanes map[[2]string]*lane
	conns map[*pair]struct{}
	flows map[[2]string]*flow // by source and gate
}

type flow struct {
	Flow
	connections, sent, received atomic.Int64
}

// pair is one connection through the network.
type pair struct {
	client   *net.TCPConn
	up, down *lane
	once     sync.Once
	gone     chan struct{} // closed by end

	mu     sync.Mutex
	target *net.TCPConn // nil until it was dialled
}

// New binds the gates' addresses; nothing passes before Run.
func New(cfg Config) (*Network, error) {
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 32 << 20
	}
	cfg.Gates = slices.Clone(cfg.Gates)
	n := &Network{cfg: cfg, lanes: map[[2]string]*lane{}, conns: map[*pair]struct{}{}, flows: map[[2]string]*flow{}}
	for _, w := range cfg.Ways {
		if err := n.Set(w.From, w.To, w.Way); err != nil {
			return nil, err
		}
	}
	for i := range n.cfg.Gates {
		g := &n.cfg.Gates[i]
		l, err := net.Listen("tcp", g.Listen)
		if err != nil {
			for _, l := range n.listeners {
				err = errors.Join(err, l.Close())
			}
			return nil, fmt.Errorf("gate %s: %w", g.Name, err)
		}
		g.Listen = l.Addr().String()
		n.listeners = append(n.listeners, l)
	}
	return n, nil
}

// Gates are the gates with the addresses they listen on.
func (n *Network) Gates() []Gate { return slices.Clone(n.cfg.Gates) }

// Run lets connections pass until ctx ends, then ends them all.
func (n *Network) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for i, l := range n.listeners {
		g := n.cfg.Gates[i]
		all.Go(func() { n.accept(ctx, l, g, &all) })
	}
	<-ctx.Done()
	var errs []error
	for _, l := range n.listeners {
		errs = append(errs, l.Close())
	}
	n.endWhere(func(*pair) bool { return true })
	all.Wait()
	return errors.Join(errs...)
}

func (n *Network) accept(ctx context.Context, l net.Listener, g Gate, all *sync.WaitGroup) {
	for {
		raw, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			n.cfg.Logger.Warn().Err(err).Str("gate", g.Name).Msg("gate cannot accept a connection")
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		all.Go(func() { n.carry(ctx, raw.(*net.TCPConn), g) })
	}
}

// city of a source address.
func (n *Network) city(a netip.Addr) string {
	for _, p := range n.cfg.Cities {
		if p.Prefix.Contains(a.Unmap()) {
			return p.City
		}
	}
	return ""
}

// carry runs one connection to its end.
func (n *Network) carry(ctx context.Context, client *net.TCPConn, g Gate) {
	source := client.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	city := n.city(source)
	p := &pair{client: client, up: n.lane(city, g.City), down: n.lane(g.City, city), gone: make(chan struct{})}
	f := n.flow(source.String(), city, g)
	f.connections.Add(1)
	n.mu.Lock()
	n.conns[p] = struct{}{}
	n.mu.Unlock()
	reset := true
	defer func() {
		p.end(reset)
		n.mu.Lock()
		delete(n.conns, p)
		n.mu.Unlock()
	}()
	if ctx.Err() != nil || !n.greet(ctx, p, g) {
		return
	}
	up := newPipe(client, p.target, p.up, &f.sent, p.gone, n.cfg.QueueBytes)
	down := newPipe(p.target, client, p.down, &f.received, p.gone, n.cfg.QueueBytes)
	var all sync.WaitGroup
	for _, x := range []*pipe{up, down} {
		all.Go(x.read)
		all.Go(func() {
			if err := x.write(); err != nil {
				p.end(true) // broken on one side is broken on the other
			}
		})
	}
	all.Wait()
	reset = false // both sides were told by both
}

// greet reaches the gate's target, a round trip later as a handshake takes.
func (n *Network) greet(ctx context.Context, p *pair, g Gate) bool {
	up, _ := p.up.get()
	down, _ := p.down.get()
	if up.Cut == Reset || down.Cut == Reset {
		return false
	}
	if rtt := up.Delay + down.Delay; rtt > 0 && !sleepUntil(time.Now().Add(rtt), p.gone) {
		return false
	}
	if !p.up.pass(p.gone) || !p.down.pass(p.gone) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.Target)
	if err != nil {
		return false // the client sees a reset, as it would of a closed port
	}
	p.mu.Lock()
	p.target = c.(*net.TCPConn)
	p.mu.Unlock()
	select {
	case <-p.gone: // it was ended meanwhile, without this half
		_ = c.Close()
		return false
	default:
		return true
	}
}

// end closes both halves, or breaks them, which drops what is on its way.
func (p *pair) end(reset bool) {
	p.once.Do(func() {
		close(p.gone)
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range []*net.TCPConn{p.client, p.target} {
			if c == nil {
				continue
			}
			if reset {
				_ = c.SetLinger(0) // best effort: the peer learns of it one way or the other
			}
			_ = c.Close() // all that was written was acknowledged by the kernel, or is not wanted
		}
	})
}

func (n *Network) endWhere(which func(*pair) bool) {
	n.mu.Lock()
	var gone []*pair
	for p := range n.conns {
		if which(p) {
			gone = append(gone, p)
		}
	}
	n.mu.Unlock()
	for _, p := range gone {
		p.end(true)
	}
}

func (n *Network) lane(from, to string) *lane {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := [2]string{from, to}
	l := n.lanes[key]
	if l == nil {
		l = newLane(n.cfg.Seed + uint64(len(n.lanes)))
		n.lanes[key] = l
	}
	return l
}

func (n *Network) flow(source, city string, g Gate) *flow {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := [2]string{source, g.Name}
	f := n.flows[key]
	if f == nil {
		f = &flow{Flow: Flow{Source: source, City: city, Gate: g.Name, GateCity: g.City}}
		n.flows[key] = f
	}
	return f
}

// Set changes the way from one city to another; connections that are open take
// it from their next bytes on. Within one city from and to are the same.
func (n *Network) Set(from, to string, w Way) error {
	if err := w.check(); err != nil {
		return err
	}
	l := n.lane(from, to)
	l.set(w)
	if w.Cut == Reset {
		n.endWhere(func(p *pair) bool { return p.up == l || p.down == l })
	}
	return nil
}

// SetCut changes only how a way is cut, in one direction.
func (n *Network) SetCut(from, to string, c Cut) error {
	w, _ := n.lane(from, to).get()
	w.Cut = c
	return n.Set(from, to, w)
}

// Partition cuts two cities from each other; Open heals it.
func (n *Network) Partition(a, b string, c Cut) error {
	return errors.Join(n.SetCut(a, b, c), n.SetCut(b, a, c))
}

// Ways are those in use, sorted.
func (n *Network) Ways() []Between {
	n.mu.Lock()
	out := make([]Between, 0, len(n.lanes))
	lanes := make([]*lane, 0, len(n.lanes))
	for key, l := range n.lanes {
		out = append(out, Between{From: key[0], To: key[1]})
		lanes = append(lanes, l)
	}
	n.mu.Unlock()
	for i, l := range lanes {
		out[i].Way, _ = l.get()
	}
	slices.SortFunc(out, func(x, y Between) int { return strings.Compare(x.From+"\x00"+x.To, y.From+"\x00"+y.To) })
	return out
}

// Flows is what passed so far, by source and gate, sorted.
func (n *Network) Flows() []Flow {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]Flow, 0, len(n.flows))
	for _, f := range n.flows {
		x := f.Flow
		x.Connections, x.Sent, x.Received = f.connections.Load(), f.sent.Load(), f.received.Load()
		out = append(out, x)
	}
	slices.SortFunc(out, func(x, y Flow) int { return strings.Compare(x.Source+"\x00"+x.Gate, y.Source+"\x00"+y.Gate) })
	return out
}
