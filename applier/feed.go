package applier

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unsafe"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Apply dispatches a transaction, or a part of one, in log order. The DDL takes
// the place `first`, then each row the next one, and the end of a transaction
// (a part with Continued has none) the one after its rows: a transaction may be
// cut into parts at will without changing any place. held is the GTID set of
// the log as of this transaction's end, empty where it is not known.
//
// It returns when the rows are with their lanes, not when they are durable, and
// blocks while the window is full; a DDL is carried out before it returns. The
// rows belong to the applier from here on. One goroutine feeds. Errors: ctx's;
// ErrFenced, ErrRegressed or log.ErrClosed when Run has ended or is about to.
//
// The caller must have seen the transaction's end in the log before it feeds
// the first part.
func (a *Applier) Apply(ctx context.Context, first change.Place, t *change.Transaction, held string) error {
	if err := a.await(ctx); err != nil {
		return err
	}
	select {
	case a.feeding <- struct{}{}:
		defer func() { <-a.feeding }()
	case <-ctx.Done():
		return ctx.Err()
	}
	stop := context.AfterFunc(ctx, a.wakeAll)
	defer stop()
	return a.apply(ctx, first, t, held)
}

func (a *Applier) apply(ctx context.Context, first change.Place, t *change.Transaction, held string) error {
	p := first
	last := p
	last.Index += int32(len(t.Rows))
	if t.DDL != nil {
		last.Index++
	}
	if last.Compare(a.floor) <= 0 {
		return nil // durable before Run began
	}
	if !a.inside {
		a.lookAgain()
		if a.relaneDue.Load() && first.Compare(a.replay) > 0 {
			if err := a.relane(ctx); err != nil {
				return err
			}
		}
		a.mu.Lock()
		a.open = t.CommitTime
		a.mu.Unlock()
	}
	if a.from == nil || a.from.gtid != t.GTID {
		a.from = &origin{t.GTID, t.CommitTime}
	}
	a.inside = t.Continued
	if t.DDL != nil {
		if err := a.ddl(ctx, p, t); err != nil {
			return err
		}
		p.Index++
	}
	if !a.mode.ByRow() {
		if err := a.gather(ctx, p, t.Rows); err != nil {
			return err
		}
		if p.Index += int32(len(t.Rows)); !t.Continued {
			if err := a.endWhole(ctx, p); err != nil {
				return err
			}
		}
		return a.passed(p, t, held)
	}
	for rows := t.Rows; len(rows) > 0; {
		n, err := a.dispatch(ctx, p, rows[:min(len(rows), feedRows)])
		if err != nil {
			return err
		}
		rows = rows[n:]
		p.Index += int32(n)
	}
	return a.passed(p, t, held)
}

// passed takes note of a transaction's end at p; a part without one has none.
func (a *Applier) passed(p change.Place, t *change.Transaction, held string) error {
	if t.Continued {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fed = p
	a.ends = append(a.ends, end{
		seq: a.sched.Pass(endCost), place: p, gtid: t.GTID, held: held, commit: t.CommitTime,
	})
	a.open = time.Time{}
	a.state.transactions++
	return nil
}

// feedRows is how many rows are dispatched under one lock.
const feedRows = 256

// endCost is about what a transaction's end takes in memory until it is below
// the watermark.
const endCost = 256

// Rows that follow each other on their way to one lane go there together, as far as
// batches can still be cut finely.
const (
	groupRows = 32
	groupCost = 32 << 10
)

// dispatch hands the first rows to their lanes, at least one of them, and says
// how many.
func (a *Applier) dispatch(ctx context.Context, p change.Place, rows []change.Row) (int, error) {
	groups := &a.groups
	groups.Begin(len(a.lanes), causality.Limits{Rows: min(groupRows, a.cfg.BatchRows), Cost: min(groupCost, a.cfg.BatchBytes)}, a.replay)
	for i := range rows {
		r := &rows[i]
		place := change.Place{Offset: p.Offset, Index: p.Index + int32(i)}
		rt := a.last
		if rt == nil || rt.source != r.Table {
			rt = a.routes[r.Table]
		}
		if rt == nil || rt != a.last {
			// What may drain the lanes must find the rows so far in them.
			if rt == nil && i > 0 || rt != nil && i > 0 && a.current[rt.routing.Name()] != rt {
				rows = rows[:i]
				break
			}
			var err error
			if rt, err = a.enter(ctx, place, r.Table); err != nil {
				return 0, err
			}
		}
		f, err := rt.routing.Footprint(a.mode, groups.Scratch(), r)
		if err != nil {
			// The log holds what no table can: trying again is for the
			// operator's sake, who sees it in the status.
			return 0, a.untilDone(ctx, place, "dispatch", func(context.Context) error { return at(place, err) })
		}
		groups.Row(place, f, rt, costOf(r))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.sched.Load() > a.cfg.WindowBytes {
		if err := a.waitForRoom(ctx); err != nil {
			return 0, err
		}
	}
	all, n := groups.All(), 0
	for i := range all {
		g := &all[i]
		w := work{route: g.Table, rows: rows[n : n+g.Rows], mark: mark{g.First, a.from}}
		n += g.Rows
		lane, added := a.sched.Add(g.Last(), groups.Footprint(g), g.Rows, g.Cost, w)
		if added {
			a.lanes[lane].wake.Signal()
		} else {
			a.state.skipped += int64(g.Rows)
		}
	}
	return len(rows), nil
}

// enter makes a table's route the one that its rows go by. Another version of
// the source's table, without a DDL in between, may show its keys in another
// form, so nothing that came by the one before may be in flight. What is gathered
// of a transaction is not yet: endWhole sees to that.
func (a *Applier) enter(ctx context.Context, p change.Place, t *schema.Table) (*route, error) {
	rt, err := a.routeOf(ctx, p, t)
	if err != nil {
		return nil, err
	}
	name := rt.routing.Name()
	if cur := a.current[name]; cur != nil && cur != rt && !a.alone() {
		if err := a.drained(ctx); err != nil {
			return nil, err
		}
		a.whole.mixed = a.whole.some
	}
	a.current[name], a.last = rt, rt
	return rt, nil
}

// waitForRoom sleeps until something became durable; mu is held.
func (a *Applier) waitForRoom(ctx context.Context) error {
	if ctx.Err() == nil && !a.closing {
		a.room.Wait()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if a.closing {
		return fmt.Errorf("applier of stream %s: %w", a.cfg.Stream, log.ErrClosed)
	}
	return nil
}

// costOf estimates a row's memory: a Value for each column, and its bytes.
func costOf(r *change.Row) int64 {
	n := 128 + int(unsafe.Sizeof(change.Value{}))*(len(r.Before)+len(r.After))
	for _, image := range [2][]change.Value{r.Before, r.After} {
		for i := range image {
			n += len(image[i].Bytes()) + len(image[i].Binary())
		}
	}
	return int64(n)
}

// routeOf finds the way of a table's rows, asking the target at first use.
func (a *Applier) routeOf(ctx context.Context, p change.Place, t *schema.Table) (*route, error) {
	if r := a.routes[t]; r != nil {
		return r, nil
	}
	var r *route
	err := a.untilDone(ctx, p, "look up "+t.Name.String(), func(ctx context.Context) (err error) {
		if r, err = a.backend.route(ctx, t); err != nil {
			a.backend.forget() // the operator mends the target, not our memory of it
			return at(p, err)
		}
		name, digest := r.routing.Name(), r.routing.Digest()
		stored, known := a.digests[name]
		if !known { // as it was while the target had no such table
			stored, known = a.digests[t.Name]
		}
		if known && stored == digest {
			return nil
		}
		known = known && a.mode != causality.Ordered // where no lane was chosen by them
		if p.Compare(a.replay) <= 0 && !prefix(a.mode, len(a.lanes)) {
			if known && r.wasMissing(stored) {
				return nil
			}
			a.backend.forget()
			switch {
			case !known:
				// A row that was dispatched left a digest, and all up to here were.
				return at(p, fmt.Errorf("table %s: its rows came by another name, or not at all: %w", name, errRules))
			case r.plan == nil:
				return at(p, fmt.Errorf("table %s: the target has it no more: %w", name, errKeys))
			}
			return at(p, fmt.Errorf("table %s: %w", name, errKeys))
		}
		if known && !a.alone() {
			// So that no restart reads a row that went by the old keys.
			if err := a.drainLanes(ctx); err != nil {
				return err
			}
			if err := a.confirm(ctx); err != nil {
				return err
			}
		}
		if err := a.backend.saveDigest(ctx, a.epoch, name, digest); err != nil {
			return err
		}
		a.digests[name] = digest
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s := r.routing.Serial(); s != "" {
		a.log.Info().Stringer("table", r.routing.Name()).Str("why", s).Msg("table is applied by one lane")
	}
	a.routes[t] = r
	return r, nil
}

// ddl is a barrier: everything before it is durable and recorded so before it
// runs, and nothing after it is dispatched before it is done. So no stored
// place ever makes a restart read a row under definitions of another time.
func (a *Applier) ddl(ctx context.Context, p change.Place, t *change.Transaction) error {
	if err := a.drained(ctx); err != nil {
		return err
	}
	err := a.untilDoneWithin(ctx, forever, p, "replay DDL", func(ctx context.Context) error {
		return at(p, a.backend.ddl(ctx, a.epoch, p, t.DDL, server.Flavor(flavorOf(t.GTID))))
	})
	if err != nil {
		return err
	}
	a.changed(t.DDL)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.ddls++
	return nil
}

// changed drops the routes that a statement made void. Everything was drained
// before it.
func (a *Applier) changed(d *change.DDL) {
	names, all := a.backend.changed(d)
	a.last = nil
	if all {
		clear(a.routes)
		clear(a.current)
		return
	}
	for _, n := range names {
		same := func(m schema.Name) bool {
			return strings.EqualFold(m.Schema, n.Schema) && strings.EqualFold(m.Table, n.Table)
		}
		maps.DeleteFunc(a.routes, func(t *schema.Table, r *route) bool { return same(t.Name) || same(r.routing.Name()) })
		maps.DeleteFunc(a.current, func(m schema.Name, _ *route) bool { return same(m) })
	}
}

// drained returns when all that was dispatched is durable, and the floor says so.
func (a *Applier) drained(ctx context.Context) error {
	if err := a.drainLanes(ctx); err != nil {
		return err
	}
	return a.untilDone(ctx, change.Place{}, "store the floor", a.confirm)
}

func (a *Applier) drainLanes(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.drain = true
	defer func() { a.drain = false }()
	for _, l := range a.lanes {
		l.wake.Signal()
	}
	for !a.sched.Idle() {
		if err := a.waitForRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

// untilDone tries until it works. What is in the way shows in the status. A try
// may take forever only where that is said.
func (a *Applier) untilDone(ctx context.Context, p change.Place, what string, f func(context.Context) error) error {
	return a.untilDoneWithin(ctx, patience, p, what, f)
}

// forever is for statements that take as long as they take.
func forever(int) time.Duration { return 1 << 62 }

func (a *Applier) untilDoneWithin(ctx context.Context, within func(int) time.Duration, p change.Place, what string, f func(context.Context) error) error {
	var b backoff
	for tries := 0; ; tries++ {
		hurry, cancel := context.WithTimeoutCause(ctx, within(tries), errSlow)
		err := f(hurry)
		if err != nil && errors.Is(context.Cause(hurry), errSlow) {
			err = fmt.Errorf("%w: %w", errSlow, err)
		}
		cancel()
		if err == nil {
			a.note(dispatcherSlot, nil, p, what)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if final(err) {
			a.mu.Lock()
			if a.group != nil { // not while Run itself is taking over
				a.group.fail(err)
			}
			a.mu.Unlock()
			return err
		}
		a.note(dispatcherSlot, err, p, what)
		if err := b.wait(ctx, a.ended); err != nil {
			return err
		}
	}
}
