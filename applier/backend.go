package applier

import (
	"context"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// backend is the target as the applier's own logic sees it. There is one, for
// servers; the tests have another that fails in every way on demand.
type backend interface {
	// claim takes the stream over: it raises the epoch, so that no earlier
	// owner's transaction can commit any more, and answers with what is stored.
	// It waits for transactions of an earlier owner that are still open.
	claim(ctx context.Context) (claimed, error)
	// relane replaces the lanes, all standing at p, the stored floor, by as many of a
	// mode. Fails with ErrFenced, ErrRegressed.
	relane(ctx context.Context, epoch uint64, lanes int, m causality.Mode, p change.Place) error
	// lane opens the connection of a lane.
	lane(ctx context.Context, epoch uint64, index int) (laneSession, error)
	// saveProgress stores the floor, provided that the lanes' stored places are
	// at least where they are believed to be. Fails with ErrFenced, ErrRegressed.
	saveProgress(ctx context.Context, epoch uint64, p progress, believed standing) error
	// saveDigest stores the way a table's rows find their lane. Fails with ErrFenced.
	saveDigest(ctx context.Context, epoch uint64, n schema.Name, digest uint64) error
	// route looks a table up on the target.
	route(ctx context.Context, source *schema.Table) (*route, error)
	// forget drops what is known of the target's tables.
	forget()
	// changed drops what a statement may have changed, and says which tables'
	// routes are void; all: every one.
	changed(d *change.DDL) (names []schema.Name, all bool)
	// ddl replays a statement of a source of that flavour, once, however often
	// it is called. Fails with ErrFenced.
	ddl(ctx context.Context, epoch uint64, p change.Place, d *change.DDL, source server.Flavor) error
	// load looks at what t limits: the target's threads, its replicas' lag.
	load(ctx context.Context, t Throttle) (load, error)
	// hold keeps the ownership alive until ctx ends or it is lost (ErrFenced).
	hold(ctx context.Context, epoch uint64) error
	close() error
}

// laneSession is one lane's connection. One goroutine uses it.
type laneSession interface {
	// standing reads how the lanes stand. It waits for a transaction
	// of an earlier session of this lane that is not over. Fails with ErrFenced.
	standing(ctx context.Context) (standing, error)
	// batch is move and apply, by fewer round trips where that is possible.
	batch(ctx context.Context, from, to change.Place, runs []run) (target.Outcome, error)
	// move opens a transaction and moves the lane's place from one to the other
	// in it. Fails with ErrFenced, errPlace.
	move(ctx context.Context, from, to change.Place) error
	// apply applies runs in order in the open transaction. After an error the
	// transaction holds an unknown part of them.
	apply(ctx context.Context, runs []run) (target.Outcome, error)
	// alive shows the server that the open transaction is not given up. Fails where
	// it is no longer open.
	alive(ctx context.Context) error
	// commit ends the transaction. After an error nothing of it is applied, or
	// all of it is: standing tells.
	commit(ctx context.Context) error
	// rollback undoes it.
	rollback(ctx context.Context) error
	// reset makes the session usable after an error, or says that it is not.
	reset(ctx context.Context, err error) bool
	close()
}

// run is consecutive work on one table.
type run struct {
	route *route
	rows  []change.Row
	marks []mark // where each row comes from
}

// standing is what the target holds of the lanes.
type standing struct {
	lanes   []change.Place // as stored; its length is the stored number of lanes
	routing int            // the rules they were filled by
}

// claimed is what a new owner finds.
type claimed struct {
	epoch uint64
	standing
	progress progress
	digests  map[schema.Name]uint64
}

// progress is the floor: every change at or before place is durable.
type progress struct {
	place   change.Place
	gtidSet string
	// newest is the source's commit time of the newest transaction below the
	// floor; zero: none yet.
	newest time.Time
	// pending is the commit time of the oldest transaction that was read and
	// is not below the floor; zero: there is none.
	pending time.Time
}

// route is how rows of one source table version get to the target.
type route struct {
	source  *schema.Table
	routing *causality.Routing
	plan    *target.Plan
	// free: the order of the table's rows among other tables' does not matter.
	free bool
	// shape stands for the keys that changes are parked under; 0: only for the
	// table itself, which is the case where the target has none (plan is nil).
	shape uint64
	// passing: it is looked up again now and then, for something is to change.
	passing bool
	// gone: what it parks is parked under the table's key as well, since the table
	// was dropped by hand while its rows had lanes of their own.
	gone bool
}

// work is what a lane gets at a time: a row, some that follow each other, or a
// transaction. There are a great many, so it is small.
type work struct {
	route *route
	rows  []change.Row // of one table, without a gap between their places
	mark  mark         // of the first
	more  *more        // of a transaction; nil when that is all
}

// origin of the row: its place is as far behind the first one's as the row is.
func (w *work) origin(row int) mark {
	m := w.mark
	m.place.Index += int32(row)
	return m
}

// more is what a transaction has besides its first rows.
type more struct {
	rest []work
	// parts, when set, is a transaction that is too large for memory: all there
	// is of it.
	parts *parts
}

// parts of a transaction that is too large; nil: it is not.
func (w *work) parts() *parts {
	if w.more == nil {
		return nil
	}
	return w.more.parts
}
