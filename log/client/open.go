package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// OpenWriter makes this client the stream's owner, ends the segment of the owner
// before, and opens the next one. It tries for Config.OpenFor while too few nodes
// answer, then fails with log.ErrUnavailable.
func (c *Client) OpenWriter(ctx context.Context, stream string) (log.Writer, error) {
	if !utf8.ValidString(stream) { // the metadata speaks JSON, which would mend it
		return nil, fmt.Errorf("open writer: stream %q is not UTF-8: %w", stream, log.ErrProtocol)
	}
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	bounded, cancel := context.WithTimeout(ctx, c.cfg.OpenFor)
	defer cancel()
	w, err := c.openWriter(bounded, stream)
	if err != nil {
		err = c.ranOut(ctx, bounded, err)
		return nil, c.said(fmt.Errorf("open writer of stream %q: %w", stream, err))
	}
	return w, nil
}

// ranOut is err, or that nothing could be opened within Config.OpenFor.
func (c *Client) ranOut(ctx, bounded context.Context, err error) error {
	if ctx.Err() == nil && bounded.Err() != nil {
		return fmt.Errorf("within %v: %w: %w", c.cfg.OpenFor, log.ErrUnavailable, err)
	}
	return err
}

func (c *Client) openWriter(ctx context.Context, stream string) (*writer, error) {
	st, err := c.own(ctx, stream)
	if err != nil {
		return nil, err
	}
	o := &opening{client: c, stream: stream, epoch: st.Epoch, outlook: outlook{client: c}}
	o.outlook.learn(st)
	core := quorum.NewOpening(stream, st.NextSegment, st.NextFirst, st.NextLSO, st.Epoch)
	if n := len(st.Segments); n > 0 && !st.Segments[n-1].Closed {
		if core, err = quorum.NewRecovery(st.Segments[n-1].Descriptor, st.Epoch); err != nil {
			return nil, err
		}
	}
	before := *core.Descriptor()
	a, err := o.recover(ctx, core)
	if err != nil {
		return nil, err
	}
	return c.startWriter(a, before.Members, o.outlook)
}

// own takes the stream's next epoch, and makes the stream when there is none.
func (c *Client) own(ctx context.Context, stream string) (*meta.Stream, error) {
	for {
		res, err := c.do(ctx, meta.Command{Own: &meta.Own{Stream: stream, Owner: c.cfg.Owner}})
		switch {
		case err == nil && res.Stream == nil:
			return nil, fmt.Errorf("own: no stream in the result: %w", log.ErrProtocol)
		case err == nil:
			return res.Stream, nil
		case errors.Is(err, log.ErrUnknown) && ctx.Err() == nil:
			continue // one epoch more does no harm
		case !errors.Is(err, log.ErrNoStream):
			return nil, fmt.Errorf("own: %w", err)
		}
		policy, err := c.policy(ctx)
		if errors.Is(err, errForming) {
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return nil, err
		}
		if _, err := c.do(ctx, meta.Command{Create: &meta.Create{Stream: stream, Policy: policy}}); err != nil && !errors.Is(err, log.ErrUnknown) {
			return nil, fmt.Errorf("create: %w", err)
		}
	}
}

func (c *Client) do(ctx context.Context, cmd meta.Command) (meta.Result, error) {
	cmd.Now = time.Now().UTC()
	return c.meta.Do(ctx, cmd)
}

// errForming: not all nodes of the cluster have come yet.
var errForming = fmt.Errorf("the cluster is not complete yet, so it can't be said which nodes a stream needs: %w", log.ErrUnavailable)

// policy of a stream that is made now.
func (c *Client) policy(ctx context.Context) (meta.Policy, error) {
	if c.cfg.Policy != nil {
		return *c.cfg.Policy, nil
	}
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return meta.Policy{}, fmt.Errorf("nodes of the cluster: %w", err)
	}
	// A rule made of the first nodes to come would ask too little for ever.
	for _, address := range c.cfg.Nodes {
		status, err := c.meta.Status(ctx, address)
		if err != nil {
			continue
		}
		for _, v := range status.Voters {
			if len(status.Voters) > 1 && !slices.ContainsFunc(nodes, func(n meta.Node) bool { return n.Name == v.Name }) {
				return meta.Policy{}, fmt.Errorf("node %q: %w", v.Name, errForming)
			}
		}
		break
	}
	p := meta.Policy{Loss: meta.LossBlock}
	cities := map[string]int{}
	for _, n := range nodes {
		if !n.Witness {
			cities[n.City] = 1
		}
	}
	switch len(cities) {
	case 0:
		return p, fmt.Errorf("no node that stores entries: %w", errForming)
	case 1:
		p.Rule.Total = 1
	default:
		p.Rule.Cities = cities
	}
	return p, nil
}

// opening is the way to a writer.
type opening struct {
	client  *Client
	stream  string
	epoch   log.Epoch
	outlook outlook
	lost    *meta.Lost // of a forced close; nil: none is accepted
}

// advance proposes to the metadata.
func (c *Client) advance(ctx context.Context, a quorum.Advance, lost *meta.Lost) (quorum.Outcome, error) {
	cmd := meta.Advance{Stream: a.Stream, Epoch: a.Epoch, Open: a.Open, Reason: a.Reason, Lost: lost}
	if a.Close != nil {
		cmd.Close = &meta.Close{Segment: a.Close.Segment, Last: a.Close.Last, LSO: a.Close.LSO, Bytes: a.Close.Bytes, Holders: a.Close.Holders}
	}
	_, err := within(ctx, c.cfg.RequestTimeout, func(ctx context.Context) (meta.Result, error) {
		return c.do(ctx, meta.Command{Advance: &cmd})
	})
	switch {
	case err == nil:
		return quorum.Done, nil
	case errors.Is(err, log.ErrFenced):
		return quorum.Fenced, err
	case errors.Is(err, log.ErrUnknown):
		return quorum.Unknown, err
	case errors.Is(err, log.ErrUnavailable): // nothing was changed
		return quorum.Refused, err
	case errors.Is(err, log.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return quorum.Unknown, err
	}
	return quorum.Refused, err
}

// again says that a refused Advance may be decided anew.
func again(err error) bool { return errors.Is(err, log.ErrStale) || errors.Is(err, log.ErrUnavailable) }

// outlook is what a writer's decisions are made from: the stream as the metadata
// has it, and which nodes answer.
type outlook struct {
	client *Client
	stream meta.Stream
	view   quorum.View
}

// learn takes in the stream unless it is older than what is known.
func (o *outlook) learn(st *meta.Stream) {
	if o.stream.Name == "" || st.Version >= o.stream.Version {
		o.stream = *st
	}
	v := &o.view
	v.Rule, v.Degraded, v.Spare, v.DegradeAfter = o.stream.Policy.Rule, o.stream.Degraded, o.client.cfg.Spare, 0
	v.Seen = nil
	for i := range o.stream.Segments {
		for _, m := range o.stream.Segments[i].Members {
			if !slices.Contains(v.Seen, m.City) {
				v.Seen = append(v.Seen, m.City)
			}
		}
	}
	if o.stream.Policy.Loss == meta.LossDegradeAfter {
		v.DegradeAfter = o.stream.Policy.After
	}
}

// refresh asks the metadata for the stream and for the nodes, and the nodes
// whether they are there, but for those that known speaks about. What can't be
// learned stays as it was, but for nodes that do not answer.
func (o *outlook) refresh(ctx context.Context, known map[string]bool) {
	c := o.client
	// What a near node knows will do: the metadata itself refuses decisions made
	// on old news.
	if st, err := c.book.nearStream(ctx, o.stream.Name); err == nil {
		o.learn(&st)
	}
	all, err := c.book.list(ctx, nodesFor)
	if err != nil {
		return
	}
	nodes := slices.DeleteFunc(slices.Clone(all), func(n meta.Node) bool { return n.Witness || n.Drained })
	slices.SortFunc(nodes, func(a, b meta.Node) int { return cmp.Compare(a.Name, b.Name) })
	list := make([]quorum.Candidate, len(nodes))
	var probes sync.WaitGroup
	for i, n := range nodes {
		list[i].Member = quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City}
		if here, ok := known[n.Name]; ok {
			list[i].Reachable = here
			continue
		}
		probes.Go(func() { list[i].Reachable = c.answers(ctx, n) })
	}
	probes.Wait()
	o.view.Nodes = list
}

// answers says whether a node is there, and still the one that is registered, or
// was a moment ago: many writers ask.
func (c *Client) answers(ctx context.Context, n meta.Node) bool {
	sign := c.book.sign(n.Address)
	sign.mu.Lock()
	defer sign.mu.Unlock()
	if sign.uuid == n.UUID && time.Since(sign.at) < signFor {
		return sign.here
	}
	ctx, cancel := context.WithTimeout(ctx, min(c.cfg.DialTimeout, c.cfg.RollAfter))
	defer cancel()
	s, err := c.dialMember(ctx, n.Address, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
	if err == nil {
		s.close()
	}
	sign.uuid, sign.at, sign.here = n.UUID, time.Now(), err == nil
	return sign.here
}

// pause is a wait that grows up to a second.
type pause struct{ next time.Duration }

func newPause() *pause { return &pause{20 * time.Millisecond} }

func (p *pause) wait(ctx context.Context) error {
	t := time.NewTimer(p.next)
	defer t.Stop()
	p.next = min(2*p.next, time.Second)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
