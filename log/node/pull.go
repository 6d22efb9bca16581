package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
)

// pullOrder tells a node to make its replica of a closed segment whole.
type pullOrder struct {
	Stream  string   `json:"stream"`
	Segment uint32   `json:"segment"`
	Sources []string `json:"sources"` // addresses of holders, the nearest first
}

type pulled struct {
	Bytes int64 `json:"bytes"` // fetched
}

// pace lets bytes pass at a rate.
type pace struct {
	mu   sync.Mutex
	next time.Time
}

func (p *pace) wait(ctx context.Context, bytes, perSecond int64) error {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	due := p.next
	p.next = p.next.Add(time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second)))
	p.mu.Unlock()
	if !due.After(now) {
		return ctx.Err()
	}
	select {
	case <-time.After(due.Sub(now)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pull fetches what this node's replica of a closed segment lacks and tells the
// metadata that it holds all of it. What it fetched stays; it goes on from there
// when it is ordered again.
func (n *Node) pull(ctx context.Context, o pullOrder) (pulled, error) {
	if n.self.Witness {
		return pulled{}, fmt.Errorf("node %q is a witness: %w", n.cfg.Name, log.ErrProtocol)
	}
	g, err := n.segmentOf(ctx, o.Stream, o.Segment)
	if err != nil {
		return pulled{}, err
	}
	if !g.Closed {
		return pulled{}, fmt.Errorf("stream %q segment %d is open: %w", o.Stream, o.Segment, log.ErrProtocol)
	}
	if _, busy := n.pulls.LoadOrStore(segment.ID{Stream: o.Stream, Segment: o.Segment}, true); busy {
		return pulled{}, fmt.Errorf("stream %q segment %d is being fetched already: %w", o.Stream, o.Segment, log.ErrUnavailable)
	}
	defer n.pulls.Delete(segment.ID{Stream: o.Stream, Segment: o.Segment})
	want := segment.Copied{Descriptor: g.Descriptor, Last: g.Last, LSO: g.LSO, Lost: g.LostTail}
	if g.Compacted {
		want.Kept = KeepTopics
	}
	f := &fetcher{node: n, order: o, kept: want.Kept}
	defer f.close()
	rep, err := n.store.Repair(ctx, want, f.fetch)
	if err != nil {
		return pulled{f.bytes}, err
	}
	n.shelf.row(o.Stream, true).put(rep)
	n.shelf.row(o.Stream, true).poke()
	if err := n.reportHeld(ctx, o.Stream, o.Segment, rep.Info().Bytes); err != nil {
		return pulled{f.bytes}, err
	}
	n.keeper.mu.Lock()
	n.keeper.state.Copied += f.bytes
	n.keeper.state.Done++
	n.keeper.mu.Unlock()
	n.log.Info().Str("stream", o.Stream).Uint32("segment", o.Segment).Int64("bytes", f.bytes).Msg("a replica was made whole")
	return pulled{f.bytes}, nil
}

// segmentOf asks the metadata, not what this node happens to know.
func (n *Node) segmentOf(ctx context.Context, stream string, number uint32) (*meta.Segment, error) {
	page, err := n.meta().Segments(ctx, stream, number, 1)
	if err != nil {
		return nil, err
	}
	if len(page) == 0 || page[0].Segment != number {
		return nil, fmt.Errorf("stream %q: segment %d is not listed: %w", stream, number, log.ErrTrimmed)
	}
	return &page[0], nil
}

// fetchWindow is the credit given to a source: what may be on its way.
const fetchWindow = 2 << 20

// fetcher brings entries of one segment from its holders, one connection at a
// time, at the node's rate.
type fetcher struct {
	node  *Node
	order pullOrder
	kept  []log.Topic
	bytes int64

	source int // of order.Sources
	s      *session
	cut    func() bool
	at, to log.Offset // what the connection will bring
}

func (f *fetcher) close() {
	if f.s != nil {
		f.cut()
		f.s.close()
		f.s = nil
	}
}

// fetch is a segment.Fetch. A source that fails is left for the next one.
func (f *fetcher) fetch(ctx context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
	var errs []error
	for range f.order.Sources {
		entries, next, err := f.from(ctx, from, to)
		if err == nil {
			return entries, next, nil
		}
		f.close()
		if ctx.Err() != nil {
			return nil, from, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("from %s: %w", f.order.Sources[f.source], err))
		f.source = (f.source + 1) % len(f.order.Sources)
	}
	return nil, from, fmt.Errorf("stream %q segment %d: fetch from entry %d: %w", f.order.Stream, f.order.Segment, from, errors.Join(errs...))
}

func (f *fetcher) from(ctx context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
	if f.s == nil || f.at != from || f.to < to {
		f.close()
		if err := f.open(ctx, from, to); err != nil {
			return nil, from, err
		}
	}
	for {
		k, body, err := f.s.Next(ctx, wire.BodyMax)
		if err != nil {
			return nil, from, fmt.Errorf("%w: %w", log.ErrUnavailable, errors.Join(ctx.Err(), err))
		}
		switch k {
		case wire.KindData:
			size := int64(wire.HeaderSize + len(body))
			var m wire.Data
			if err := wire.Decode(&m, f.s.Own(body)); err != nil {
				return nil, from, err
			}
			f.bytes += size
			if err := f.node.repairPace.wait(ctx, size, f.node.cfg.RepairBytesPerSecond); err != nil {
				return nil, from, err
			}
			if err := f.s.Send(&wire.Credit{Bytes: uint64(size)}); err != nil {
				return nil, from, err
			}
			entries := make([]segment.Stored, 0, len(m.Entries))
			for _, e := range m.Entries {
				if e.Offset < from || e.Offset >= m.Next {
					return nil, from, fmt.Errorf("entry %d between %d and %d: %w", e.Offset, from, m.Next, log.ErrProtocol)
				}
				if got := segment.Checksum(e.Payload); got != e.Checksum {
					return nil, from, fmt.Errorf("entry %d arrived with checksum %08x, written with %08x: %w", e.Offset, got, e.Checksum, log.ErrSuspect)
				}
				if f.kept == nil || slices.Contains(f.kept, e.Topic) {
					entries = append(entries, segment.Stored(e))
				}
			}
			f.at = m.Next
			return entries, m.Next, nil
		case wire.KindTail:
			var m wire.Tail
			if err := wire.Decode(&m, body); err != nil {
				return nil, from, err
			}
			if m.Next <= from {
				return nil, from, fmt.Errorf("the copy ends at %d: %w", m.Next, log.ErrElsewhere)
			}
			f.at = m.Next
			return nil, m.Next, nil
		case wire.KindError:
			var m wire.Error
			if err := wire.Decode(&m, body); err != nil {
				return nil, from, err
			}
			return nil, from, m.Err()
		default:
			return nil, from, fmt.Errorf("%v to a copy: %w", k, log.ErrProtocol)
		}
	}
}

func (f *fetcher) open(ctx context.Context, from, to log.Offset) error {
	s, err := f.node.peers.dial(ctx, f.order.Sources[f.source], wire.PurposeNode)
	if err != nil {
		return err
	}
	f.s, f.at, f.to = s, from, to
	f.cut = context.AfterFunc(ctx, func() { _ = s.Link.Close() })
	// Raw: the segment's end is decided, and whoever holds an entry of it holds
	// the same one, whether its writer told it so or not.
	if err := s.Send(&wire.Copy{Stream: f.order.Stream, Segment: f.order.Segment, From: from, To: to, Credit: fetchWindow, Raw: true}); err != nil {
		return err
	}
	return s.Expect(ctx, &wire.Reading{})
}
