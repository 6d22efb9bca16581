package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// Streams of the cluster.
func (c *Client) Streams(ctx context.Context) ([]string, error) {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	names, err := within(ctx, c.cfg.RequestTimeout, c.meta.Streams)
	return names, c.said(err)
}

// Bounds of the stream: the metadata says where it begins and who owns it, its
// newest segment's members how far it is confirmed. The LAC may be a millisecond
// or two behind the writer's, unless the writer is this client's own.
func (c *Client) Bounds(ctx context.Context, stream string) (log.Bounds, error) {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return log.Bounds{}, err
	}
	defer done()
	b, err := c.bounds(ctx, stream)
	if errors.Is(err, log.ErrNoStream) {
		return log.Bounds{}, c.said(fmt.Errorf("bounds: %w", err)) // which stream is said
	}
	if err != nil {
		return log.Bounds{}, c.said(fmt.Errorf("bounds of stream %q: %w", stream, err))
	}
	return b, nil
}

func (c *Client) bounds(ctx context.Context, stream string) (log.Bounds, error) {
	st, err := c.book.stream(ctx, stream)
	if err != nil {
		return log.Bounds{}, err
	}
	b := log.Bounds{First: st.First, LAC: log.None, LSO: log.None, Epoch: st.Epoch}
	n := len(st.Segments)
	if n == 0 {
		return b, nil
	}
	newest := &st.Segments[n-1]
	if newest.Closed {
		b.LAC, b.LSO = newest.Last, newest.LSO
		return b, nil
	}
	b.LAC, b.LSO = newest.First-1, newest.FirstLSO
	if w := c.writerOf(stream); w != nil && w.epoch == newest.Epoch {
		own := w.Bounds()
		if own.LAC > b.LAC {
			b.LAC, b.LSO = own.LAC, own.LSO
		}
		return b, nil
	}
	lac, lso, err := c.confirmed(ctx, newest)
	if err != nil {
		return log.Bounds{}, err
	}
	if lac > b.LAC {
		b.LAC, b.LSO = lac, lso
	}
	return b, nil
}

// Gaps of a stream, as a near node knows them.
func (c *Client) Gaps(ctx context.Context, stream string) ([]log.LostError, error) {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	st, err := c.book.nearStream(ctx, stream)
	if err != nil {
		return nil, c.said(fmt.Errorf("gaps: %w", err))
	}
	out := make([]log.LostError, 0, len(st.Gaps))
	for _, g := range st.Gaps {
		out = append(out, log.LostError{Stream: stream, From: g.From, To: g.To})
	}
	return out, nil
}

func (c *Client) writerOf(stream string) *writer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writers[stream]
}

// confirmed asks the members of an open segment, those of the own city first, for
// the newest LAC that one of them knows. One answer is enough. log.None: so many of
// them have never heard of the segment that nothing of it can be confirmed.
func (c *Client) confirmed(ctx context.Context, seg *meta.Segment) (lac, lso log.Offset, err error) {
	nodes, err := c.book.of(ctx, seg.Members)
	if err != nil {
		return 0, 0, err
	}
	c.book.sort(nodes)
	var errs []error
	absent := false
	for _, round := range [][]meta.Node{c.inCity(nodes, true), c.inCity(nodes, false)} {
		answers := make([]wire.BoundsOK, len(round))
		failures := make([]error, len(round))
		var all sync.WaitGroup
		for i := range round {
			all.Go(func() {
				failures[i] = c.request(ctx, round[i].Address, &wire.Bounds{Stream: seg.Stream}, &answers[i])
			})
		}
		all.Wait()
		ok := false
		lac, lso = log.None, log.None
		for i := range round {
			if failures[i] != nil {
				errs = append(errs, failures[i])
				absent = absent || errors.Is(failures[i], log.ErrElsewhere)
				continue
			}
			ok = true
			if x := answers[i].Bounds; x.LAC > lac {
				lac, lso = x.LAC, x.LSO
			}
		}
		if ok {
			return lac, lso, nil
		}
	}
	if absent { // its writer may have died before it came to them
		if last, err := c.end(ctx, seg); err == nil && last < seg.First {
			return log.None, log.None, nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return 0, 0, fmt.Errorf("segment %d: %w: %w", seg.Segment, log.ErrUnavailable, err)
	}
	return 0, 0, fmt.Errorf("segment %d: none of its nodes is registered: %w", seg.Segment, log.ErrUnavailable)
}

func (c *Client) inCity(nodes []meta.Node, own bool) []meta.Node {
	var out []meta.Node
	for _, n := range nodes {
		if (far(c.cfg.City, n.City) == 0) == own {
			out = append(out, n)
		}
	}
	return out
}

// end says what was the newest entry that can have been confirmed in a segment,
// from what its members hold: enough of them that no other set could have
// confirmed more. log.ErrUnavailable when they do not answer.
func (c *Client) end(ctx context.Context, seg *meta.Segment) (log.Offset, error) {
	if seg.Closed {
		return seg.Last, nil
	}
	q, err := seg.Quorum()
	if err != nil {
		return 0, err
	}
	nodes, err := c.book.list(ctx, nodesFor)
	if err != nil {
		return 0, err
	}
	last := seg.First - 1
	var held uint64
	var errs []error
	for i, m := range seg.Members {
		n, ok := find(nodes, m)
		if !ok {
			continue
		}
		holds, err := c.holds(ctx, n, m, seg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		held |= 1 << i
		last = max(last, holds)
		if q.Covers(held) {
			return last, nil
		}
	}
	return 0, fmt.Errorf("stream %q segment %d: too few nodes say where it ends: %w: %w", seg.Stream, seg.Segment, log.ErrUnavailable, errors.Join(errs...))
}

// holds is the newest entry of the segment on a node, confirmed or not.
func (c *Client) holds(ctx context.Context, n meta.Node, m quorum.Member, seg *meta.Segment) (log.Offset, error) {
	s, err := c.dialMember(ctx, n.Address, m)
	if err != nil {
		return 0, err
	}
	defer s.close()
	var reading wire.Reading
	err = c.within(ctx, s, func(ctx context.Context) error {
		if err := s.Send(&wire.Copy{Stream: seg.Stream, Segment: seg.Segment, From: seg.First, To: seg.First, Raw: true}); err != nil {
			return err
		}
		return s.Expect(ctx, &reading)
	})
	if errors.Is(err, log.ErrElsewhere) {
		// A member that has not heard of the segment holds nothing of it.
		return seg.First - 1, nil
	}
	return reading.Bounds.LAC, err
}

// dialMember greets a node and makes sure that it is the member.
func (c *Client) dialMember(ctx context.Context, address string, m quorum.Member) (*session, error) {
	s, err := c.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if s.hello.Node != m.Node || s.hello.UUID != m.UUID {
		s.close()
		return nil, fmt.Errorf("node %s at %s is %s %s, the segment's member is %s: %w", m.Node, address, s.hello.Node, s.hello.UUID, m.UUID, log.ErrIdentity)
	}
	return s, nil
}

// said makes an error of a client that was closed meanwhile say so.
func (c *Client) said(err error) error {
	if err != nil && c.alive() != nil && !errors.Is(err, log.ErrClosed) {
		return fmt.Errorf("%w: %w", c.alive(), err)
	}
	return err
}

// names of nodes, for messages.
func names(members []quorum.Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.Node)
	}
	slices.Sort(out)
	return out
}
