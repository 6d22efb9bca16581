package applier

import (
	"context"
	"database/sql"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// A table that the target has not: where exceptions take it, all its changes go
// to one lane, which parks them under one key. Once the table is there, its rows
// find their lanes as any other's do, and follow what is parked until that is
// dealt with.

const whyMissing = "the target has no such table"

// missingRoute is the way of a missing table's rows, the same each time, so that
// nothing needs to drain.
func (b *sqlBackend) missingRoute(source *schema.Table) *route {
	b.catalog.Forget(source.Name)
	rt := b.missing[source]
	if rt == nil {
		rt = &route{source: source, free: true, passing: true, routing: causality.Whole(source.Name, whyMissing)}
		b.missing[source] = rt
	}
	return rt
}

// wasMissing: rows of the table went to one lane when the table was missing, and
// lanes stand apart since then. So they go on there, until that is behind.
func (r *route) wasMissing(stored uint64) bool {
	whole := causality.Whole(r.source.Name, whyMissing) // the target may spell it otherwise
	if whole.Digest() != stored {
		return false
	}
	r.routing, r.shape, r.passing = whole, 0, true
	return true
}

// missingPause is how long a missing table is believed to be missing.
const missingPause = 2 * time.Second

// lookAgain has passing routes looked up again, now and then.
func (a *Applier) lookAgain() {
	if time.Since(a.looked) < missingPause {
		return
	}
	a.looked = time.Now()
	for t, r := range a.routes {
		if r.passing {
			delete(a.routes, t)
			a.last = nil
		}
	}
}

// harmless: the statement touches no table's rows, keys or existence.
func harmless(d *change.DDL) bool {
	switch c := ddl.Class(d.Class); c {
	case ddl.View, ddl.Trigger, ddl.Routine, ddl.Event, ddl.Account, ddl.CreateDatabase, ddl.AlterDatabase, ddl.LoadableFunction, ddl.Server,
		ddl.Tablespace, ddl.Instance:
		return true
	case ddl.TruncateTable, ddl.DML:
		return false
	default:
		return c != "" && !c.ChangesDefinitions()
	}
}

// tend tries parked changes again whose time has come, until ctx ends. What it
// applies it applies as an operator would: in a transaction of its own, under the
// store's lock, which orders it among the lanes.
func (g *guard) tend(ctx context.Context, db *sql.DB, by string) {
	tick := time.NewTicker(g.cfg.Retry.Pause())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !g.active.Load() {
			continue
		}
		n, err := g.store.CountOpen(ctx, db)
		if err == nil {
			g.open.Store(n)
			if n > 0 && g.cfg.Retry.First > 0 {
				err = g.retryDue(ctx, db, by)
			}
		}
		if err != nil && ctx.Err() == nil {
			g.log.Debug().Err(err).Msg("exceptions not looked at") // again in a moment
		}
	}
}

func (g *guard) retryDue(ctx context.Context, db *sql.DB, by string) error {
	due, err := g.store.Due(ctx, db)
	if err != nil {
		return err
	}
	r := &exceptions.Retrier{Store: g.store, DB: db, Policies: g.policies, By: "automatic, " + by}
	done := map[int64]bool{}
	for _, id := range due {
		if done[id] || ctx.Err() != nil {
			continue
		}
		o, err := r.Retry(ctx, id)
		result := "applied"
		switch {
		case err != nil:
			g.retried("error")
			g.log.Info().Int64("exception", id).Err(err).Msg("exception not tried")
			continue
		case !o.Applied:
			result = "still"
			g.log.Debug().Int64("exception", id).Str("why", o.Error).Msg("exception still can't be applied")
		default:
			g.log.Info().Int64("exception", id).Int("changes", len(o.Chain)).Msg("exception applied")
		}
		g.retried(result)
		for i := range o.Chain {
			done[o.Chain[i].ID] = true
		}
	}
	return nil
}

func (g *guard) retried(result string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tried[result]++
}
