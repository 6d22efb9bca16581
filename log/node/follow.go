package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
)

const (
	registerEvery = 30 * time.Second
	registerRetry = 200 * time.Millisecond
	reviewEvery   = 30 * time.Second // every replica is compared with the metadata so often
)

// register makes the node known to the metadata, and keeps what is known of it
// up to date, until ctx ends.
func (n *Node) register(ctx context.Context) {
	wait := registerRetry
	for said := ""; ; {
		err := n.registerOnce(ctx)
		wait = min(2*wait, 5*time.Second)
		if err == nil {
			wait = registerEvery
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			n.log.Warn().Err(err).Str("node", n.cfg.Name).Msg("the node is not registered in the metadata yet")
		}
		select {
		case <-time.After(wait):
		case <-n.standing.renewed():
			wait = registerRetry
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) registerOnce(ctx context.Context) error {
	if err := n.standing.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := n.meta().Do(ctx, meta.Command{Register: &meta.Register{Node: meta.Node{
		Name: n.cfg.Name, UUID: n.store.UUID(), City: n.cfg.City, Address: n.self.Address, Witness: n.self.Witness, Version: n.cfg.Version,
	}}})
	if errors.Is(err, log.ErrIdentity) {
		return fmt.Errorf("the name %q belongs to another directory, or this one was given up; when that is gone for good, forget it: %w", n.cfg.Name, err)
	}
	if err == nil && n.standing.registered() {
		n.log.Info().Str("node", n.cfg.Name).Str("uuid", n.store.UUID()).Msg("the node is registered in the metadata")
	}
	return err
}

// identity of this node as a member of segments.
func (n *Node) identity() quorum.Member {
	return quorum.Member{Node: n.cfg.Name, UUID: n.store.UUID(), City: n.cfg.City}
}

// followView applies what metadata says to the node's replicas, until ctx ends:
// closed segments are closed here, trimmed ones dropped or compacted, losses
// reported.
func (n *Node) followView(ctx context.Context) {
	seen := meta.NewState().View()
	review := time.NewTicker(reviewEvery)
	defer review.Stop()
	for {
		view, changed := n.meta().Local()
		if view.Index() > 0 && n.standing.err() == nil {
			if err := n.adopt(ctx, view.Generation()); err != nil && ctx.Err() == nil {
				n.log.Error().Err(err).Msg("the cluster's generation cannot be stored")
			}
			for _, name := range view.Changed(seen) {
				n.settle(ctx, view, name, false)
			}
			seen = view
		}
		select {
		case <-changed:
		case name := <-n.doubts:
			if n.standing.err() == nil {
				n.settle(ctx, view, name, true)
			}
		case <-n.standing.renewed():
			seen = meta.NewState().View()
		case <-review.C:
			if n.standing.err() == nil {
				for _, name := range view.Streams() {
					n.settle(ctx, view, name, true)
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// adopt makes the cluster's generation this node's.
func (n *Node) adopt(ctx context.Context, generation uint64) error {
	if generation <= n.store.Generation() {
		return nil
	}
	return n.store.SetGeneration(ctx, generation)
}

// settle compares the replicas of one stream with the metadata. What it cannot
// settle now comes up again at the next change or review.
func (n *Node) settle(ctx context.Context, view *meta.View, stream string, all bool) {
	st, known := view.Stream(stream)
	r := n.shelf.row(stream, false)
	if r == nil {
		if !known || n.self.Witness {
			return
		}
		r = n.shelf.row(stream, true)
	}
	defer r.poke()
	if !known {
		return // it was never created, as far as this node knows: nothing is given up for that
	}
	r.refresh(st.First)
	held := map[uint32]bool{}
	for _, s := range r.all() {
		held[s.number] = true
		if s.settled && !all {
			if g, ok := view.Segment(stream, s.number); ok && g.Compacted == s.compacted {
				continue
			}
		}
		if err := n.settleOne(ctx, view, &st, r, s); err != nil && ctx.Err() == nil {
			n.log.Warn().Err(err).Str("stream", stream).Uint32("segment", s.number).Msg("a replica does not follow the metadata yet")
		}
	}
	if !all || n.self.Witness {
		return
	}
	me := n.identity()
	for from := uint32(1); ctx.Err() == nil; {
		page, ok := view.Segments(stream, from, meta.SegmentsPageMax)
		if !ok || len(page) == 0 {
			return
		}
		for i := range page {
			if g := &page[i]; g.Closed && g.Last >= g.First && !held[g.Segment] && holds(g, me) {
				n.reportLost(ctx, g)
			}
		}
		from = page[len(page)-1].Segment + 1
	}
}

// doubt has the replicas of a stream compared with the metadata soon, because a
// read met damage: it is reported, and repaired, at once. Where too many wait the
// next review finds it.
func (n *Node) doubt(stream string, err error) {
	if !errors.Is(err, log.ErrSuspect) {
		return
	}
	select {
	case n.doubts <- stream:
	default:
	}
}

func holds(g *meta.Segment, m quorum.Member) bool {
	for _, h := range g.Holders {
		if h == m {
			return true
		}
	}
	return false
}

// settleOne brings one replica to what metadata says of its segment.
func (n *Node) settleOne(ctx context.Context, view *meta.View, st *meta.Stream, r *row, s slot) error {
	g, listed := view.Segment(st.Name, s.number)
	if !listed {
		if s.number >= st.NextSegment {
			return nil // newer than what this node has heard of
		}
		if err := s.rep.Drop(ctx); err != nil {
			return fmt.Errorf("drop: %w", err)
		}
		r.remove(s.number)
		return nil
	}
	if !g.Closed {
		return nil
	}
	if err := s.rep.Close(ctx, g.Last, g.LSO); err != nil {
		return fmt.Errorf("close at %d: %w", g.Last, err)
	}
	info := s.rep.Info()
	whole := !info.Suspect && info.Held >= g.Left() // what is lost nobody can have
	switch {
	case !whole && holds(g, n.identity()):
		n.reportLost(ctx, g)
	case whole && g.Compacted && !info.Compacted:
		if err := s.rep.Compact(ctx, KeepTopics, g.LostTail); err != nil {
			return fmt.Errorf("compact: %w", err)
		}
		info.Compacted = true
	}
	if whole && g.Bytes == 0 && info.Bytes > 0 && len(g.Holders) > 0 && g.Holders[0] == n.identity() {
		if err := n.reportHeld(ctx, st.Name, s.number, info.Bytes); err != nil {
			return fmt.Errorf("report its size: %w", err)
		}
	}
	r.mark(s.number, whole && info.Compacted == g.Compacted, info.Compacted)
	return nil
}

// reportHeld tells the metadata that this node holds all of a segment, and how much
// that is.
func (n *Node) reportHeld(ctx context.Context, stream string, number uint32, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := n.meta().Do(ctx, meta.Command{Held: &meta.Held{Stream: stream, Segment: number, Member: n.identity(), Bytes: bytes}})
	if errors.Is(err, log.ErrTrimmed) {
		return nil // retention took it
	}
	return err
}

// reportLost tells the metadata that this node no longer holds all of a segment
// it is listed for, so that it is repaired.
func (n *Node) reportLost(ctx context.Context, g *meta.Segment) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := n.meta().Do(ctx, meta.Command{Held: &meta.Held{Stream: g.Stream, Segment: g.Segment, Member: n.identity(), Lost: true}})
	e := n.log.Error().Str("stream", g.Stream).Uint32("segment", g.Segment)
	if err != nil && !errors.Is(err, log.ErrTrimmed) {
		e = e.AnErr("metadata", err) // the next review tries again
	}
	e.Msg("this node no longer holds all of a segment: it has to be repaired")
}

// closeReplica takes a segment's end from a writer that has it from metadata.
func (n *Node) closeReplica(ctx context.Context, id segment.ID, last, lso log.Offset) error {
	rep, err := n.store.Replica(id)
	if errors.Is(err, log.ErrElsewhere) {
		return nil // nothing to close
	}
	if err != nil {
		return err
	}
	if err := rep.Close(ctx, last, lso); err != nil {
		return err
	}
	n.shelf.row(id.Stream, true).poke()
	return nil
}

// takes says whether the node may store entries of the segment.
func (n *Node) takes(d *quorum.Descriptor) error {
	switch {
	case n.self.Witness:
		return fmt.Errorf("node %q is a witness: %w", n.cfg.Name, log.ErrElsewhere)
	case d.Index(n.cfg.Name, n.store.UUID()) < 0:
		return fmt.Errorf("node %q of directory %s is no member of stream %q segment %d: %w", n.cfg.Name, n.store.UUID(), d.Stream, d.Segment, log.ErrIdentity)
	}
	return nil
}

// bounds of a stream whose newest segment is here.
func (n *Node) bounds(ctx context.Context, stream string) (log.Bounds, error) {
	r, err := n.rowOf(ctx, stream)
	if err != nil {
		return log.Bounds{}, err
	}
	s, have, _ := r.newest()
	st, known := n.view().Stream(stream)
	if known && len(st.Segments) > 0 {
		g := st.Segments[len(st.Segments)-1]
		if !have || g.Segment > s.number {
			return log.Bounds{}, fmt.Errorf("stream %q: segment %d: %w", stream, g.Segment, log.ErrElsewhere)
		}
	}
	return r.bounds()
}

// rowOf is what the node holds of a stream, perhaps nothing. log.ErrNoStream when
// metadata does not know it.
func (n *Node) rowOf(ctx context.Context, stream string) (*row, error) {
	if r := n.shelf.row(stream, false); r != nil {
		return r, nil
	}
	st, known := n.view().Stream(stream)
	if !known { // this node may have heard too little
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var err error
		if st, err = n.meta().Stream(ctx, stream); err != nil {
			return nil, err
		}
	}
	if n.self.Witness {
		return nil, fmt.Errorf("node %q is a witness: %w", n.cfg.Name, log.ErrElsewhere)
	}
	r := n.shelf.row(stream, true)
	r.refresh(st.First)
	return r, nil
}
