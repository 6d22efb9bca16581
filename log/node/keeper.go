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
)

// The keeper is the one node that repairs and trims for the cluster. A lease keeps
// two from doing the same work; nothing depends on it: a copy that is made twice is
// made for nothing, and metadata refuses a trim that goes too far.
type keeper struct {
	turn sync.Mutex // one round at a time

	mu      sync.Mutex
	state   Keeper
	settled map[string]settled
}

// settled is a stream of which nothing is missing, until something changes.
type settled struct {
	version uint64
	live    string
}

const keeperLease = "keeper"

// keep works as the keeper whenever this node has the lease, until ctx ends.
func (n *Node) keep(ctx context.Context) {
	repair := time.NewTicker(n.cfg.RepairEvery)
	defer repair.Stop()
	trim := time.NewTicker(n.cfg.RetentionEvery)
	defer trim.Stop()
	for {
		var work func(context.Context) error
		select {
		case <-repair.C:
			work = func(ctx context.Context) error {
				_, err := n.repair(ctx)
				return err
			}
		case <-trim.C:
			work = n.trim
		case <-ctx.Done():
			return
		}
		if n.standing.err() != nil {
			continue
		}
		err := n.asKeeper(ctx, work)
		n.keeper.mu.Lock()
		n.keeper.state.Problem = ""
		if err != nil && ctx.Err() == nil {
			n.keeper.state.Problem = err.Error()
		}
		n.keeper.mu.Unlock()
	}
}

// asKeeper runs work if this node gets the lease, and renews it meanwhile.
func (n *Node) asKeeper(ctx context.Context, work func(context.Context) error) error {
	if len(n.cfg.Cluster) == 1 {
		n.noteKeeper(n.cfg.Name)
		return work(ctx)
	}
	ttl := 3 * max(n.cfg.RepairEvery, n.cfg.RetentionEvery)
	mine, err := n.lease(ctx, ttl)
	if err != nil || !mine {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var renewal sync.WaitGroup
	defer renewal.Wait()
	defer cancel()
	renewal.Go(func() {
		tick := time.NewTicker(ttl / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if mine, err := n.lease(ctx, ttl); err == nil && !mine {
					cancel()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return work(ctx)
}

func (n *Node) lease(ctx context.Context, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := n.meta().Do(ctx, meta.Command{Lease: &meta.TakeLease{Name: keeperLease, Holder: n.cfg.Name, TTL: ttl}})
	if err != nil || r.Lease == nil {
		return false, err
	}
	n.noteKeeper(r.Lease.Holder)
	return r.Lease.Holder == n.cfg.Name, nil
}

func (n *Node) noteKeeper(holder string) {
	n.keeper.mu.Lock()
	defer n.keeper.mu.Unlock()
	n.keeper.state.Holder = holder
	if holder == n.cfg.Name {
		n.keeper.state.LastRun = time.Now().UTC()
	}
}

// whole is a stream with all its segments, as this node knows it.
func whole(view *meta.View, name string) (*meta.Stream, bool) {
	st, ok := view.Stream(name)
	if !ok {
		return nil, false
	}
	st.Segments = nil
	for from := uint32(1); ; {
		page, ok := view.Segments(name, from, meta.SegmentsPageMax)
		if !ok || len(page) == 0 {
			return &st, true
		}
		st.Segments = append(st.Segments, page...)
		from = page[len(page)-1].Segment + 1
	}
}

// repair makes one round: every copy that is missing and can be made is made.
func (n *Node) repair(ctx context.Context) (Repaired, error) {
	n.keeper.turn.Lock()
	defer n.keeper.turn.Unlock()
	var out Repaired
	var errs []error
	view := n.view()
	nodes := view.Nodes()
	live := ""
	for _, m := range nodes {
		if n.peers.alive(m) {
			live += m.UUID + " "
		}
	}
	for _, name := range view.Streams() {
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		head, _ := view.Stream(name)
		now := settled{head.Version, live}
		n.keeper.mu.Lock()
		done := n.keeper.settled[name] == now
		n.keeper.mu.Unlock()
		if done {
			continue
		}
		st, ok := whole(view, name)
		if !ok {
			continue
		}
		tasks := missingCopies(st, nodes, n.peers.alive)
		for _, t := range tasks {
			err := n.makeCopy(ctx, t, &out)
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			miss := MissingCopy{Stream: t.Stream, Segment: t.Segment.Segment, Node: t.Target.Name, Unprotected: t.Unprotected}
			if err != nil && !errors.Is(err, log.ErrTrimmed) {
				miss.Problem = err.Error()
				out.Missing = append(out.Missing, miss)
				errs = append(errs, fmt.Errorf("stream %q: copy segment %d to node %q: %w", t.Stream, t.Segment.Segment, t.Target.Name, err))
				n.log.Warn().Err(err).Str("stream", t.Stream).Uint32("segment", t.Segment.Segment).Str("node", t.Target.Name).Msg("a copy could not be made")
			}
		}
		n.keeper.mu.Lock()
		if n.keeper.settled == nil {
			n.keeper.settled = map[string]settled{}
		}
		delete(n.keeper.settled, name)
		if len(tasks) == 0 && head.Short == 0 {
			n.keeper.settled[name] = now
		}
		n.keeper.mu.Unlock()
	}
	n.keeper.mu.Lock()
	n.keeper.state.Missing = out.Missing
	n.keeper.mu.Unlock()
	return out, errors.Join(errs...)
}

// makeCopy lets the target fetch the segment. It is the target that tells the
// metadata, once what it fetched is durable.
func (n *Node) makeCopy(ctx context.Context, t copyTask, out *Repaired) error {
	if len(t.Sources) == 0 {
		return fmt.Errorf("no holder is left that is registered: %w", log.ErrSuspect)
	}
	// Long enough for all of it at a quarter of the rate.
	limit := time.Minute + 4*time.Second*time.Duration(t.Segment.Bytes/max(n.cfg.RepairBytesPerSecond, 1))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	order := pullOrder{Stream: t.Stream, Segment: t.Segment.Segment}
	for _, s := range t.Sources {
		order.Sources = append(order.Sources, s.Address)
	}
	var done pulled
	var err error
	if t.Target.Name == n.cfg.Name {
		done, err = n.pull(ctx, order)
	} else {
		err = n.peers.ask(ctx, t.Target.Address, verbPull, order, &done)
	}
	if err == nil {
		out.Copied++
		out.Bytes += done.Bytes
	}
	return err
}

// trim makes one round of retention.
func (n *Node) trim(ctx context.Context) error {
	var errs []error
	view := n.view()
	for _, name := range view.Streams() {
		st, ok := whole(view, name)
		if !ok {
			continue
		}
		t, any := trimOf(st, time.Now())
		if !any {
			continue
		}
		keep, err := n.keptSegments(ctx, view, t.Segments)
		if err == nil {
			_, err = n.meta().Do(ctx, meta.Command{Trim: &meta.Trim{Stream: name, Before: t.Before, Keep: keep, Evict: t.Evict}})
		}
		if errors.Is(err, log.ErrCursorBehind) {
			err = nil // a cursor came meanwhile
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("stream %q: trim below %d: %w", name, t.Before, err))
			continue
		}
		n.log.Info().Str("stream", name).Int64("before", int64(t.Before)).Int("segments", len(t.Segments)).Bool("evict", t.Evict).Msg("retention gives up segments")
	}
	return errors.Join(errs...)
}

// keptSegments are those that may hold entries that outlive retention. A segment
// that nobody can be asked about may.
func (n *Node) keptSegments(ctx context.Context, view *meta.View, all []meta.Segment) ([]uint32, error) {
	var keep []uint32
	for i := range all {
		g := &all[i]
		if g.Lost {
			continue
		}
		may, known := n.mayHold(g.Stream, g.Segment)
		for _, h := range g.Holders {
			if known {
				break
			}
			m, ok := view.Node(h.Node)
			if !ok || m.UUID != h.UUID || !n.peers.alive(m) || m.Name == n.cfg.Name {
				continue
			}
			var a holdsAnswer
			if err := n.peers.ask(ctx, m.Address, verbHolds, holdsQuestion{g.Stream, g.Segment}, &a); err == nil && a.Known {
				may, known = a.May, true
			}
		}
		if may || !known {
			keep = append(keep, g.Segment)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return keep, nil
}

// mayHold says whether a replica here, which must be whole, may hold an entry of a
// topic that outlives retention.
func (n *Node) mayHold(stream string, number uint32) (may, known bool) {
	rep, err := n.store.Replica(segment.ID{Stream: stream, Segment: number})
	if err != nil {
		return false, false
	}
	info := rep.Info()
	whole := info.Complete
	if g, listed := n.view().Segment(stream, number); listed && info.Closed && info.Held >= g.Left() {
		whole = true // what is lost of it nobody has
	}
	if !whole || info.Suspect {
		return false, false
	}
	return slices.ContainsFunc(KeepTopics, info.MayHold), true
}

// Repair makes a round of repair now, whoever is the keeper, and says what is
// still missing.
func (n *Node) Repair(ctx context.Context) (Repaired, error) {
	if err := n.standing.err(); err != nil {
		return Repaired{}, err
	}
	return n.repair(ctx)
}
