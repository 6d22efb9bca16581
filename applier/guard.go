package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Exceptions say which changes are parked when they can't be applied.
type Exceptions struct {
	On []exceptions.Cause // none: such changes halt
	// Wait: changes of a parked one's keys halt their lane until it is dealt
	// with, instead of being parked behind it.
	Wait  bool
	Max   int // open ones [10000]
	Retry exceptions.Retry
}

// errParkedTable: a statement, or other keys, meet a table with parked changes.
var errParkedTable = exceptions.ErrParked

// errFollows: a change has to wait for a parked one.
var errFollows = errors.New("a change of the same keys is parked")

// errConflict: a conflict whose policy is to halt.
var errConflict = errors.New("the target's row was changed by someone else")

// origin is the transaction that a row belongs to.
type origin struct {
	gtid   string
	commit time.Time
}

// mark says where a row comes from.
type mark struct {
	place change.Place
	from  *origin
}

// guard is what the lanes share about double writes and parked changes.
//
// It remembers the keys of parked changes only as a hint: the target has the
// truth. A key is added under the store's lock, before the transaction that parks it
// is committed, and taken out only when the target was seen, under that lock, to have
// none parked under it. So a key that is parked is always among the hints, as long as
// this process owns the stream; whoever opens a session loads them anew, for a
// server that lost its last commits may have parked changes again.
type guard struct {
	policies conflicts.Policies
	cfg      Exceptions
	store    *exceptions.Store
	log      zerolog.Logger
	ring     conflicts.Ring
	active   atomic.Bool  // the target has the tables for exceptions
	hinted   atomic.Int64 // len(keys)
	open     atomic.Int64 // exceptions, as of the last look

	mu     sync.Mutex
	keys   map[uint64]int64 // hints, with the number of the time they were added; bounded by Max times keys of a row
	adds   int64
	parked map[exceptions.Cause]int64 // by this process
	tried  map[string]int64           // retries by result
	halted change.Place               // of the last conflict that was told of a halt
	second time.Time                  // logging: the current one
	said   int                        // and what was logged in it

	// faults are seeded bugs for tests that must catch them.
	faults guardFaults
	// under, where a test sets it, goes between a lane and its connection, for the
	// faults of a server.
	under func(*sql.Conn) target.Execer
}

// guardFaults turn rules off. Only tests set them.
type guardFaults struct {
	noFollow  bool // a change of a parked key is applied
	noLoad    bool // a restart forgets what is parked
	onlyHeads bool // followers are parked, and their other keys forgotten
}

func newGuard(cfg Config, logger zerolog.Logger) *guard {
	return &guard{
		policies: cfg.Conflicts, cfg: cfg.Exceptions, log: logger,
		store:  &exceptions.Store{Stream: cfg.Stream, Max: cfg.Exceptions.Max, Retry: cfg.Exceptions.Retry},
		keys:   map[uint64]int64{},
		parked: map[exceptions.Cause]int64{}, tried: map[string]int64{}, halted: causality.Start,
	}
}

// check fails for settings that contradict each other.
func (c Config) checkExceptions() error {
	if err := c.Conflicts.Check(); err != nil {
		return fmt.Errorf("applier: %w", err)
	}
	all := append([]conflicts.Policy{c.Conflicts.Policy}, values(c.Conflicts.Tables)...)
	if slices.Contains(all, conflicts.Exception) && !slices.Contains(c.Exceptions.On, exceptions.Conflict) {
		return errors.New("applier: a conflict policy is exception, and conflicts are not among the exceptions' causes")
	}
	for _, cause := range c.Exceptions.On {
		if !slices.Contains(exceptions.Causes, cause) {
			return fmt.Errorf("applier: unknown cause of exceptions %q", cause)
		}
	}
	return nil
}

func values[K comparable, V any](m map[K]V) []V {
	var out []V
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func (g *guard) on(c exceptions.Cause) bool { return slices.Contains(g.cfg.On, c) }

// prepare makes the tables where they will be needed, and finds out whether an
// earlier applier has left some.
func (g *guard) prepare(ctx context.Context, q server.Querier) error {
	there := len(g.cfg.On) > 0
	if there {
		if err := g.store.Ensure(ctx, q); err != nil {
			return err
		}
	} else {
		var err error
		if there, err = exceptions.Exists(ctx, q); err != nil {
			return err
		}
		if there {
			if err := g.store.Ensure(ctx, q); err != nil {
				return err
			}
		}
	}
	g.active.Store(there)
	if there {
		n, err := g.store.CountOpen(ctx, q)
		if err != nil {
			return err
		}
		g.open.Store(n)
	}
	return nil
}

// load adds what is parked to the hints.
func (g *guard) load(ctx context.Context, q server.Querier) error {
	if !g.active.Load() || g.faults.noLoad {
		return nil
	}
	all, err := g.store.Load(ctx, q)
	if err != nil {
		return err
	}
	g.open.Store(int64(len(all)))
	for i := range all {
		g.hint(all[i].Keys)
	}
	return nil
}

func (g *guard) hint(keys []uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.adds++
	for _, k := range keys {
		g.keys[k] = g.adds
	}
	g.hinted.Store(int64(len(g.keys)))
}

// suspects are those of the keys that may be parked, with the number of their hint.
func (g *guard) suspects(into map[uint64]int64, keys []uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	any := false
	for _, k := range keys {
		if n, ok := g.keys[k]; ok {
			into[k], any = n, true
		}
	}
	return any
}

// free drops hints that the target does not confirm, unless they are newer.
func (g *guard) free(suspects map[uint64]int64, holders map[uint64]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, n := range suspects {
		if _, held := holders[k]; !held && g.keys[k] == n {
			delete(g.keys, k)
		}
	}
	g.hinted.Store(int64(len(g.keys)))
}

// keysOf are the keys that a change is parked under.
func keysOf(rt *route, row *change.Row) ([]uint64, error) {
	f, err := rt.routing.Footprint(causality.Rows, nil, row)
	if err != nil {
		return nil, err
	}
	if f.Touches == nil {
		return []uint64{f.Home}, nil
	}
	return f.Touches, nil
}

// admit refuses a route whose keys are not those that changes of its table were
// parked under: nobody could tell what follows them.
func (g *guard) admit(ctx context.Context, q server.Querier, rt *route) error {
	if !g.active.Load() || rt.shape == 0 {
		return nil
	}
	n, err := g.store.OtherShapes(ctx, q, rt.routing.Name(), rt.shape)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("table %s: its keys are not those that %d changes of it were parked under: %w", rt.routing.Name(), n, errParkedTable)
	}
	return nil
}

// mayDDL refuses a statement that concerns a table with parked changes.
func (g *guard) mayDDL(ctx context.Context, q server.Querier, d *change.DDL) error {
	if !g.active.Load() || harmless(d) {
		return nil
	}
	n, example, err := g.store.OpenOn(ctx, q, d.Tables, len(d.Tables) == 0)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("the statement %.100q concerns %s: %d changes: %w", d.Text, example, n, errParkedTable)
	}
	return nil
}

// note counts and logs conflicts once they are facts.
func (g *guard) note(records []conflicts.Record) {
	if len(records) == 0 {
		return
	}
	g.ring.Add(records...)
	for i := range records {
		r := &records[i]
		g.mu.Lock()
		if now := time.Now(); now.Sub(g.second) > time.Second {
			g.second, g.said = now, 0
		}
		g.said++
		quiet := g.said > 20
		g.mu.Unlock()
		if quiet {
			continue // the ring and the counts have them
		}
		g.log.Warn().Str("kind", string(r.Kind)).Str("table", r.Table).Str("operation", r.Operation).Str("key", r.Key).Str("gtid", r.GTID).
			Str("action", r.Action).Int("count", max(r.Count, 1)).Interface("before", r.Before).Interface("after", r.After).
			Interface("present", r.Present).Msg("conflict")
	}
}

// noteHalt tells of a conflict that stops a lane, once however often it is tried.
func (g *guard) noteHalt(r conflicts.Record) {
	g.mu.Lock()
	again := g.halted == r.Place
	g.halted = r.Place
	g.mu.Unlock()
	if !again {
		g.note([]conflicts.Record{r})
	}
}

// count takes note of parked changes and of retries.
func (g *guard) count(cause exceptions.Cause, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parked[cause] += n
}

// conflictHalt is a conflict that its policy stops at.
type conflictHalt struct {
	kind  target.Kind
	op    change.Op
	table schema.Name
	key   string
}

func (e *conflictHalt) Error() string {
	return fmt.Sprintf("%s of %s%s: %s: %v", e.op, e.table, e.key, e.kind, errConflict)
}

func (e *conflictHalt) Unwrap() error { return errConflict }

// ConflictReport is what is known of double writes since the applier was made.
func (a *Applier) ConflictReport() conflicts.Report { return a.guard.ring.Report() }
