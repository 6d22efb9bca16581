package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// book is what the client knows of the cluster: nodes, and which of them did not
// answer lately.
type book struct {
	client *Client

	mu      sync.Mutex
	nodes   []meta.Node // sorted by name
	at      time.Time   // when they were learned
	failed  map[string]failure
	streams map[string]seenStream
	signs   map[string]*sign // of life, by address
}

// sign says whether a node answered, and when it was asked. Its lock is held while
// somebody asks.
type sign struct {
	mu   sync.Mutex
	uuid string
	at   time.Time
	here bool
}

// signFor is how long a sign of life is good for.
const signFor = 700 * time.Millisecond

func (b *book) sign(address string) *sign {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.signs == nil {
		b.signs = map[string]*sign{}
	}
	s := b.signs[address]
	if s == nil {
		s = &sign{}
		b.signs[address] = s
	}
	return s
}

// failure of an address.
type failure struct {
	at    time.Time
	count int
}

// nodesFor is how long a list of nodes is good for.
const nodesFor = 2 * time.Second

// known are the nodes without asking anyone.
func (b *book) known() []meta.Node {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nodes
}

// list are the cluster's nodes, as new as needed. When nobody tells, those that
// were known.
func (b *book) list(ctx context.Context, age time.Duration) ([]meta.Node, error) {
	b.mu.Lock()
	nodes, fresh := b.nodes, time.Since(b.at) < age
	b.mu.Unlock()
	if fresh {
		return nodes, nil
	}
	news, err := b.ask(ctx)
	if err != nil {
		if len(nodes) > 0 && ctx.Err() == nil {
			return nodes, nil
		}
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes, b.at = news, time.Now()
	return news, nil
}

// ask takes any node's word: addresses need not be the newest.
func (b *book) ask(ctx context.Context) ([]meta.Node, error) {
	nodes, err := near(ctx, b, func(ctx context.Context, s meta.Store) ([]meta.Node, error) {
		nodes, err := s.Nodes(ctx)
		if err == nil && len(nodes) == 0 {
			err = fmt.Errorf("a node knows of no nodes yet: %w", log.ErrUnavailable)
		}
		return nodes, err
	})
	if err != nil {
		return nil, fmt.Errorf("nodes of the cluster: %w", err)
	}
	return nodes, nil
}

func within[T any](ctx context.Context, d time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// addresses of nodes to ask for something that any knows, best first: those that
// answer, of the own city, then others, then the seeds.
func (b *book) addresses() []string {
	b.mu.Lock()
	nodes := slices.Clone(b.nodes)
	b.mu.Unlock()
	b.sort(nodes)
	var out []string
	for _, n := range nodes {
		out = append(out, n.Address)
	}
	for _, a := range b.client.cfg.Nodes {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(x, y string) int { return cmp.Compare(b.failures(x), b.failures(y)) })
	return out
}

// sort puts nodes that answer before those that did not, and of either those of
// the own city first.
func (b *book) sort(nodes []meta.Node) {
	city := b.client.cfg.City
	slices.SortStableFunc(nodes, func(x, y meta.Node) int {
		return cmp.Or(cmp.Compare(b.failures(x.Address), b.failures(y.Address)), cmp.Compare(far(city, x.City), far(city, y.City)))
	})
}

func far(own, other string) int {
	if own == "" || own == other {
		return 0
	}
	return 1
}

// failures is above 0 for an address that failed within the last seconds.
func (b *book) failures(address string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.failed[address]
	if f.count == 0 || time.Since(f.at) > 10*time.Second {
		return 0
	}
	return f.count
}

// note records whether an address answered.
func (b *book) note(address string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ok {
		delete(b.failed, address)
		return
	}
	f := b.failed[address]
	b.failed[address] = failure{time.Now(), min(f.count+1, 100)}
}

// of finds members' addresses. A member whose name belongs to another directory
// now, or to none, is left out.
func (b *book) of(ctx context.Context, members []quorum.Member) ([]meta.Node, error) {
	nodes, err := b.list(ctx, nodesFor)
	if err != nil {
		return nil, err
	}
	var out []meta.Node
	for _, m := range members {
		if n, ok := find(nodes, m); ok {
			out = append(out, n)
		}
	}
	return out, nil
}

// address of a member. log.ErrIdentity when its name belongs to another directory.
func (b *book) address(ctx context.Context, m quorum.Member) (string, error) {
	for _, age := range []time.Duration{time.Minute, 100 * time.Millisecond} {
		nodes, err := b.list(ctx, age)
		if err != nil {
			return "", err
		}
		if n, ok := find(nodes, m); ok {
			return n.Address, nil
		}
	}
	for _, n := range b.known() {
		if n.Name == m.Node {
			return "", fmt.Errorf("node %s is another directory now: %w", m.Node, log.ErrIdentity)
		}
	}
	return "", fmt.Errorf("node %s is not registered: %w", m.Node, log.ErrUnavailable)
}

func find(nodes []meta.Node, m quorum.Member) (meta.Node, bool) {
	for _, n := range nodes {
		if n.Name == m.Node && n.UUID == m.UUID {
			return n, true
		}
	}
	return meta.Node{}, false
}

// leaderFor is how long the metadata's leader is waited for before nodes are asked
// for what they know by themselves.
const leaderFor = 3 * time.Second

// stream asks the metadata; when its leader is not to be had, near nodes for what
// they know.
func (b *book) stream(ctx context.Context, name string) (meta.Stream, error) {
	st, err := within(ctx, min(leaderFor, b.client.cfg.RequestTimeout), func(ctx context.Context) (meta.Stream, error) { return b.client.meta.Stream(ctx, name) })
	if err == nil || ctx.Err() != nil || b.client.alive() != nil || !errors.Is(err, log.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		return st, err
	}
	if near, staleErr := b.nearStream(ctx, name); staleErr == nil {
		return near, nil
	}
	return st, err
}

// nearStream is what the nearest node knows of a stream. log.ErrNoStream may only
// say that it lags.
func (b *book) nearStream(ctx context.Context, name string) (meta.Stream, error) {
	return near(ctx, b, func(ctx context.Context, s meta.Store) (meta.Stream, error) { return s.Stream(ctx, name) })
}

// recent is the stream as the metadata had it within age.
func (b *book) recent(ctx context.Context, name string, age time.Duration) (meta.Stream, error) {
	b.mu.Lock()
	x, ok := b.streams[name]
	b.mu.Unlock()
	if ok && time.Since(x.at) < age {
		return x.Stream, nil
	}
	st, err := b.stream(ctx, name)
	if err != nil {
		return st, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.streams == nil || len(b.streams) > remembered {
		b.streams = map[string]seenStream{}
	}
	b.streams[name] = seenStream{st, time.Now()}
	return st, nil
}

type seenStream struct {
	meta.Stream
	at time.Time
}

// nearFor bounds how long one node is asked for what any other may know as well.
const nearFor = 2 * time.Second

// near asks one node after another, nearest first.
func near[T any](ctx context.Context, b *book, f func(context.Context, meta.Store) (T, error)) (T, error) {
	var none T
	var errs []error
	for _, address := range b.addresses() {
		out, err := within(ctx, min(nearFor, b.client.cfg.RequestTimeout), func(ctx context.Context) (T, error) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return f(ctx, meta.NewClient(&impatient{b.client, cancel}, []string{address}).Stale(address))
		})
		if err == nil || !errors.Is(err, log.ErrUnavailable) && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			return out, err
		}
		errs = append(errs, fmt.Errorf("node %s: %w", address, err))
		if ctx.Err() != nil || b.client.alive() != nil {
			break
		}
	}
	return none, fmt.Errorf("metadata of any node: %w: %w", log.ErrUnavailable, errors.Join(errs...))
}

// impatient gives up at the first failure: there are other nodes to ask.
type impatient struct {
	client *Client
	cancel context.CancelFunc
}

func (i *impatient) Call(ctx context.Context, address string, request []byte) ([]byte, error) {
	response, err := i.client.Call(ctx, address, request)
	if err != nil {
		i.cancel()
	}
	return response, err
}

// segmentAt is the segment that has, or will have, the entry; the first one that
// is kept when the entry's is gone. ok is false when there is none yet from there
// on. st is the stream as s has it, or had it: log.ErrUnavailable when s shows that
// it knows less.
func segmentAt(ctx context.Context, s meta.Store, st *meta.Stream, o log.Offset) (seg meta.Segment, ok bool, err error) {
	for i := len(st.Segments) - 1; i >= 0; i-- {
		x := &st.Segments[i]
		if o >= x.First {
			if !x.Closed || o <= x.Last {
				return *x, true, nil
			}
			if i == len(st.Segments)-1 {
				return meta.Segment{}, false, nil // behind the newest one, which is closed
			}
			return st.Segments[i+1], true, nil
		}
	}
	if len(st.Segments) == 0 {
		return meta.Segment{}, false, nil
	}
	// An older one: the first whose last is not below o. Numbers may be missing.
	low, high := uint32(1), st.Segments[0].Segment
	best := st.Segments[0]
	for low < high {
		middle := low + (high-low)/2
		page, err := s.Segments(ctx, st.Name, middle, 16)
		if err != nil {
			return meta.Segment{}, false, err
		}
		if i := len(page) - 1; i < 0 || !page[i].Closed && page[i].Segment < st.Segments[0].Segment { // a newer one is known to be there
			return meta.Segment{}, false, fmt.Errorf("stream %q: who was asked knows too little from segment %d on, and there is %d: %w", st.Name, middle, st.Segments[0].Segment, log.ErrUnavailable)
		}
		i := slices.IndexFunc(page, func(x meta.Segment) bool { return !x.Closed || x.Last >= o })
		switch {
		case i < 0:
			low = page[len(page)-1].Segment + 1
		case i == 0:
			best, high = page[0], middle
		default:
			return page[i], true, nil
		}
	}
	return best, true, nil
}
