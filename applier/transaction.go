package applier

import (
	"context"
	"slices"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/change"
)

// gathered is a transaction that is put together from its parts, to be applied
// as a whole. It belongs to the feeding goroutine.
type gathered struct {
	rows    []work
	home    uint64   // where its first row belongs
	touches []uint64 // of all rows
	cost    int64
	first   change.Place
	some    bool // it has a row
	// parts: it became too large, and goes to its lane as it comes.
	parts *parts
	// durable: it is too large, and was applied before.
	durable bool
	// mixed: a table has rows in it by two versions.
	mixed bool
}

// gather takes rows of a transaction in, whose first place is p.
func (a *Applier) gather(ctx context.Context, p change.Place, rows []change.Row) error {
	g := &a.whole
	if !g.durable {
		g.rows = slices.Grow(g.rows, len(rows))
	}
	var skipped int64
	defer func() {
		if skipped > 0 {
			a.mu.Lock()
			a.state.skipped += skipped
			a.mu.Unlock()
		}
	}()
	for i := range rows {
		r := &rows[i]
		place := change.Place{Offset: p.Offset, Index: p.Index + int32(i)}
		rt := a.last
		if rt == nil || rt.source != r.Table {
			rt = a.routes[r.Table]
		}
		if rt == nil || rt != a.last {
			var err error
			if rt, err = a.enter(ctx, place, r.Table); err != nil {
				return err
			}
		}
		f, err := rt.routing.Footprint(a.mode, g.touches, r)
		if err != nil {
			return a.untilDone(ctx, place, "dispatch", func(context.Context) error { return at(place, err) })
		}
		if f.Touches != nil {
			g.touches = f.Touches
		} else {
			g.touches = append(g.touches, f.Home) // a serial table is one key
		}
		if !g.some {
			g.some, g.home, g.first = true, f.Home, place
		}
		if g.durable {
			g.touches = g.touches[:0] // nobody waits for it
			skipped++
			continue
		}
		g.rows = append(g.rows, work{route: rt, rows: rows[i : i+1], mark: mark{place, a.from}})
		g.cost += costOf(r)
		if g.parts == nil && g.cost < a.cfg.LargeBytes || g.parts != nil && g.cost < a.cfg.BatchBytes {
			continue
		}
		if g.parts == nil {
			if err := a.beginLarge(ctx); err != nil {
				return err
			}
		}
		if err := a.handOver(ctx); err != nil {
			return err
		}
	}
	return nil
}

// beginLarge gives a lane a transaction that has more rows than are kept. It is
// alone: everything before it is durable, and nothing after it is read before it
// is. Who fails in the middle of it has to read it from the log again.
func (a *Applier) beginLarge(ctx context.Context) error {
	g := &a.whole
	if err := a.drained(ctx); err != nil {
		return err
	}
	p := &parts{first: g.first, queue: make(chan []work, 1), done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	lane, added := a.sched.Add(g.first, causality.Footprint{Home: g.home}, 1, endCost, work{more: &more{parts: p}})
	if !added {
		g.durable = true
		return nil
	}
	a.lanes[lane].wake.Signal()
	g.parts = p
	return nil
}

// handOver passes on what was gathered of a large transaction.
func (a *Applier) handOver(ctx context.Context) error {
	g := &a.whole
	rows := g.rows
	g.rows, g.touches, g.cost = nil, g.touches[:0], 0
	if g.durable {
		a.mu.Lock()
		a.state.skipped += int64(len(rows))
		a.mu.Unlock()
		return nil
	}
	return a.hand(ctx, g.parts, rows)
}

// endWhole dispatches the transaction, which ends at p.
func (a *Applier) endWhole(ctx context.Context, p change.Place) error {
	g := a.whole
	defer func() { a.whole = gathered{touches: g.touches[:0]} }()
	switch {
	case !g.some || g.durable:
		return nil
	case g.parts != nil:
		if len(g.rows) > 0 {
			if err := a.hand(ctx, g.parts, g.rows); err != nil {
				return err
			}
		}
		return a.finish(ctx, g.parts, p)
	}
	if err := a.addWhole(ctx, &g, p); err != nil || !g.mixed {
		return err
	}
	// What follows shows only the newer version's keys.
	return a.drainLanes(ctx)
}

// addWhole gives a gathered transaction to its lane.
func (a *Applier) addWhole(ctx context.Context, g *gathered, p change.Place) error {
	first := g.rows[0]
	if len(g.rows) > 1 {
		first.more = &more{rest: g.rows[1:]}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.sched.Load() > a.cfg.WindowBytes {
		if err := a.waitForRoom(ctx); err != nil {
			return err
		}
	}
	lane, added := a.sched.Add(p, causality.Footprint{Home: g.home, Touches: g.touches}, len(g.rows), g.cost, first)
	if added {
		a.lanes[lane].wake.Signal()
	} else {
		a.state.skipped += int64(len(g.rows))
	}
	return nil
}
