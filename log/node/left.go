package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/segment"
)

// LeftQuestion asks what a node has of closed segments of a stream.
type LeftQuestion struct {
	Stream   string   `json:"stream"`
	Segments []uint32 `json:"segments"`
}

// LeftAnswer has what the node has something of.
type LeftAnswer struct {
	Node     string        `json:"node"`
	UUID     string        `json:"uuid"`
	Segments []LeftSegment `json:"segments"`
}

// LeftSegment is one of them.
type LeftSegment struct {
	Segment uint32 `json:"segment"`
	meta.Left
}

// Left tells how much of closed segments is here. It stays: each replica has its end
// from the metadata first, so that nothing is cut off it any more, and one that is
// being repaired can't be spoken for. It may only be made whole from then on.
func (n *Node) Left(ctx context.Context, q LeftQuestion) (LeftAnswer, error) {
	a := LeftAnswer{Node: n.cfg.Name, UUID: n.store.UUID(), Segments: []LeftSegment{}}
	for _, number := range q.Segments {
		l, err := n.leftOf(ctx, segment.ID{Stream: q.Stream, Segment: number})
		if err != nil {
			return a, fmt.Errorf("node %q: stream %q segment %d: %w", n.cfg.Name, q.Stream, number, err)
		}
		if l != nil {
			a.Segments = append(a.Segments, LeftSegment{number, *l})
		}
	}
	return a, nil
}

// leftOf is nil where nothing is here that can be read.
func (n *Node) leftOf(ctx context.Context, id segment.ID) (*meta.Left, error) {
	g, known := n.view().Segment(id.Stream, id.Segment) // where it ends never changes
	if !known || !g.Closed {
		var err error
		if g, err = n.segmentOf(ctx, id.Stream, id.Segment); err != nil {
			return nil, err
		}
	}
	if !g.Closed {
		return nil, fmt.Errorf("it is open: %w", log.ErrProtocol)
	}
	if _, busy := n.pulls.Load(id); busy {
		return nil, fmt.Errorf("it is being fetched: %w", log.ErrUnavailable)
	}
	rep, err := n.store.Replica(id)
	if errors.Is(err, log.ErrElsewhere) || errors.Is(err, log.ErrSuspect) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d := rep.Descriptor(); !g.Is(&d) {
		return nil, nil
	}
	if err := rep.Close(ctx, g.Last, g.LSO); err != nil {
		return nil, err
	}
	info := rep.Info()
	if info.Held < info.First {
		return nil, nil
	}
	return &meta.Left{Node: n.cfg.Name, UUID: n.store.UUID(), Last: info.Held, LSO: info.LSO, Damaged: info.Suspect}, nil
}
