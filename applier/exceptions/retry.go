package exceptions

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Retrier applies parked changes. It belongs to one goroutine.
type Retrier struct {
	Store *Store
	DB    *sql.DB
	// Policies decide what a conflict means to a change that is tried again:
	// under Exception and Halt the target must be as the change expects it.
	Policies conflicts.Policies
	// Force makes the source win, whatever the policy. Another row that holds a
	// secondary unique key is not touched by that either.
	Force  bool
	DryRun bool // undo it in the end
	By     string

	catalog *target.Catalog
	codecs  map[schema.Fingerprint]*change.Codec
	plans   map[planOf]*target.Plan
}

type planOf struct {
	source *schema.Table
	table  schema.Name
}

// Outcome of a try.
type Outcome struct {
	// Chain are the exceptions that hang together by their keys, in the order of
	// the log. They are applied in one transaction, all or none.
	Chain []Exception `json:"chain"`
	// Applied: it was committed; with DryRun, it could be.
	Applied bool  `json:"applied"`
	Dropped int   `json:"dropped,omitempty"` // of them, changes that the policy target-wins dropped
	Failed  int64 `json:"failed,omitempty"`  // the one that can't be applied
	// Error is why it can't.
	Error string `json:"error,omitempty"`
	err   error
}

// Err is ErrStill with the reason, nil after success.
func (o *Outcome) Err() error { return o.err }

// open makes a session and what is needed to render rows.
func (r *Retrier) open(ctx context.Context) (*sql.Conn, error) {
	conn, err := target.OpenSession(ctx, r.DB)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, "SET SESSION autocommit = 0"); err != nil {
		target.Discard(conn)
		return nil, err
	}
	// Tables may have been mended since the last try.
	info, err := server.Detect(ctx, conn)
	if err == nil {
		var known schema.Collations
		if known, err = schema.LoadCollations(ctx, conn); err == nil {
			r.catalog = target.NewCatalog(info, known)
		}
	}
	if err != nil {
		target.Discard(conn)
		return nil, err
	}
	r.plans = map[planOf]*target.Plan{}
	if r.codecs == nil {
		r.codecs = map[schema.Fingerprint]*change.Codec{}
	}
	return conn, nil
}

// Retry applies the chain that an open exception belongs to. A chain that can't be
// applied is an Outcome that says so, and is recorded; an error is that the target
// did not answer, or ErrNotFound, ErrDamaged. After an error of the commit it may or
// may not have been applied: a look at the list tells.
func (r *Retrier) Retry(ctx context.Context, id int64) (*Outcome, error) {
	conn, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer target.Discard(conn)
	what := fmt.Sprintf("retry %d", id)
	chain, err := r.Store.chain(ctx, conn, r.codecs, id)
	if err != nil {
		return nil, err
	}
	o := &Outcome{}
	for i := range chain {
		o.Chain = append(o.Chain, chain[i].Exception)
	}
	if _, err := conn.ExecContext(ctx, "SAVEPOINT tw_chain"); err != nil {
		return nil, r.Store.wrap(what, err)
	}
	for i := range chain {
		dropped, err := r.apply(ctx, conn, &chain[i])
		if err != nil && (target.Retryable(err) || ctx.Err() != nil) {
			return nil, r.Store.wrap(what, err)
		}
		if err != nil {
			if _, e := conn.ExecContext(ctx, "ROLLBACK"); e != nil {
				return nil, r.Store.wrap(what, e)
			}
			o.Failed, o.Error = chain[i].ID, err.Error()
			o.err = fmt.Errorf("exception %d %w: %w", chain[i].ID, ErrStill, err)
			if r.DryRun {
				return o, nil
			}
			return o, r.Store.failed(ctx, conn, o.Chain, chain[i].ID, o.Error)
		}
		if dropped {
			o.Dropped++
		}
	}
	// A statement that the server refused on the way may have cost the whole
	// transaction, the lock and the changes before it; the savepoint goes with them.
	if _, err := conn.ExecContext(ctx, "RELEASE SAVEPOINT tw_chain"); err != nil {
		return nil, r.Store.wrap(what, fmt.Errorf("the target undid it half way: %w", err))
	}
	for _, p := range r.plans {
		if err := p.Unchanged(ctx, conn); err != nil {
			return nil, r.Store.wrap(what, err)
		}
	}
	if !r.DryRun {
		if err := r.Store.resolve(ctx, conn, Applied, o.Chain, r.By, ""); err != nil {
			return nil, err
		}
	}
	end := "COMMIT"
	if r.DryRun {
		end = "ROLLBACK"
	}
	if _, err := conn.ExecContext(ctx, end); err != nil {
		return nil, r.Store.wrap(what, err)
	}
	o.Applied = true
	return o, nil
}

// apply gives one change its effect, or tells that the policy drops it.
func (r *Retrier) apply(ctx context.Context, conn *sql.Conn, e *stored) (dropped bool, err error) {
	plan, err := r.plan(ctx, conn, e)
	if err != nil {
		return false, err
	}
	row := e.change
	policy := r.Policies.For(e.table)
	if r.Force {
		policy = conflicts.SourceWins
	}
	seen, err := plan.Look(ctx, conn, &row)
	if err != nil {
		return false, err
	}
	if seen.Kind != "" {
		switch policy {
		case conflicts.TargetWins:
			return true, nil
		case conflicts.Exception, conflicts.Halt:
			return false, fmt.Errorf("%s: the target's row is not as the change expects it", seen.Kind)
		}
	}
	if _, err := conn.ExecContext(ctx, "SAVEPOINT tw_retry"); err != nil {
		return false, err
	}
	_, err = plan.Apply(ctx, conn, []change.Row{row})
	if err == nil {
		return false, nil
	}
	if policy == conflicts.TargetWins && target.KindOf(err, row.Op) != "" {
		_, err = conn.ExecContext(ctx, "ROLLBACK TO SAVEPOINT tw_retry")
		return true, err
	}
	return false, err
}

func (r *Retrier) plan(ctx context.Context, conn *sql.Conn, e *stored) (*target.Plan, error) {
	key := planOf{e.change.Table, e.table}
	if p := r.plans[key]; p != nil {
		return p, nil
	}
	t, err := r.catalog.Table(ctx, conn, e.table)
	if err != nil {
		return nil, err
	}
	p, err := target.NewPlan(e.change.Table, t)
	if err != nil {
		return nil, err
	}
	r.plans[key] = p
	return p, nil
}

// Show reads an exception with its images, and the target's row that stands where
// its change would go.
func (r *Retrier) Show(ctx context.Context, id int64) (*Detail, error) {
	conn, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer target.Discard(conn)
	all, err := r.Store.read(ctx, conn, r.codecs, "id = ?", id)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, r.Store.wrap(fmt.Sprintf("show %d", id), ErrNotFound)
	}
	e := &all[0]
	t := e.change.Table
	d := &Detail{Exception: e.Exception, Before: conflicts.Show(t, e.change.Before), After: conflicts.Show(t, e.change.After)}
	if e.State == Open {
		members, err := r.Store.members(ctx, conn, id)
		if err != nil {
			return nil, err
		}
		d.Chain = members
	}
	plan, err := r.plan(ctx, conn, e)
	if err != nil {
		d.Trouble = err.Error()
		return d, nil
	}
	present, err := plan.Present(ctx, conn, &e.change)
	if err == nil && e.State == Open && e.Behind == 0 {
		present, err = inTheWay(ctx, conn, plan, e, d, present)
	}
	if err != nil {
		return nil, r.Store.wrap(fmt.Sprintf("show %d", id), err)
	}
	d.Present = conflicts.Show(t, present)
	if _, err := conn.ExecContext(ctx, "ROLLBACK"); err != nil {
		return nil, r.Store.wrap(fmt.Sprintf("show %d", id), err)
	}
	return d, nil
}

// inTheWay finds out what keeps a change from being applied now, by a look and a try
// in the open transaction, which is to be undone.
func inTheWay(ctx context.Context, conn *sql.Conn, plan *target.Plan, e *stored, d *Detail, present []change.Value) ([]change.Value, error) {
	row := e.change
	seen, err := plan.Look(ctx, conn, &row)
	switch {
	case err != nil:
		return nil, err
	case seen.Kind != "":
		d.Now = seen.Kind
		return seen.Present, nil
	}
	_, err = plan.Apply(ctx, conn, []change.Row{row})
	if err == nil {
		return present, nil
	}
	if target.Retryable(err) || ctx.Err() != nil {
		return nil, err
	}
	var conflict *target.Conflict
	if errors.As(err, &conflict) {
		present = conflict.Holder
	}
	if d.Now = target.KindOf(err, row.Op); d.Now == "" {
		d.Trouble = err.Error()
	}
	return present, nil
}

// Detail is an exception with its images and the target's row.
type Detail struct {
	Exception
	Chain   []int64         `json:"chain"` // the open exceptions it hangs together with, itself too
	Before  conflicts.Image `json:"before"`
	After   conflicts.Image `json:"after"`
	Present conflicts.Image `json:"present"`           // the row in the way, or the target's row of the same key
	Now     target.Kind     `json:"now,omitempty"`     // of the conflict as it is now; empty for those that follow
	Trouble string          `json:"trouble,omitempty"` // what else keeps it from being applied, or its row from being shown
}

// Skip drops an exception for good, or its whole chain: it stays as history, with
// who, when and why. The others of its chain stay parked.
func (r *Retrier) Skip(ctx context.Context, id int64, whole bool, reason string) ([]Exception, error) {
	conn, err := r.open(ctx)
	if err != nil {
		return nil, err
	}
	defer target.Discard(conn)
	chain, err := r.Store.chain(ctx, conn, r.codecs, id)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	var gone []Exception
	var left []int64
	for i := range chain {
		if whole || chain[i].ID == id {
			gone = append(gone, chain[i].Exception)
		} else {
			left = append(left, chain[i].ID)
		}
	}
	if err != nil { // it can't be read, but it can be given up
		if gone, err = r.Store.heads(ctx, conn, id); err != nil {
			return nil, err
		}
	}
	if !r.DryRun {
		if err := r.Store.resolve(ctx, conn, Skipped, gone, r.By, reason); err != nil {
			return nil, err
		}
		if err := r.Store.rouse(ctx, conn, left); err != nil {
			return nil, err
		}
		for i := range gone {
			gone[i].State, gone[i].ResolvedBy, gone[i].Reason, gone[i].NextTry = Skipped, r.By, reason, nil
		}
	}
	end := "COMMIT"
	if r.DryRun {
		end = "ROLLBACK"
	}
	if _, err := conn.ExecContext(ctx, end); err != nil {
		return nil, r.Store.wrap(fmt.Sprintf("skip %d", id), err)
	}
	return gone, nil
}

// chain locks and reads the open exceptions that hang together with one by their
// keys, in the order of the log.
func (s *Store) chain(ctx context.Context, conn *sql.Conn, codecs map[schema.Fingerprint]*change.Codec, id int64) ([]stored, error) {
	if _, err := s.Lock(ctx, conn); err != nil {
		return nil, err
	}
	ids, err := s.members(ctx, conn, id)
	if err != nil {
		return nil, err
	}
	var out []stored
	for len(ids) > 0 {
		n := min(len(ids), 500)
		list, args := inList(nil, ids[:n])
		ids = ids[n:]
		some, err := s.read(ctx, conn, codecs, "state = 'open' AND id IN ("+list+")", args...)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	slices.SortFunc(out, func(a, b stored) int {
		return a.Place.Compare(b.Place)
	})
	return out, nil
}

// members are the numbers of a chain, by the keys of what is open: two changes hang
// together when they share a key, or both hang together with a third. One that has
// a table's own key, since the table was missing, hangs together with all of the
// table: rows find keys of their own again once it is there.
func (s *Store) members(ctx context.Context, q server.Querier, id int64) ([]int64, error) {
	all, err := s.Load(ctx, q)
	if err != nil {
		return nil, err
	}
	chains := chainsOf(all)
	for _, c := range chains {
		if slices.Contains(c, id) {
			return c, nil
		}
	}
	return nil, s.wrap(fmt.Sprintf("look for %d", id), ErrNotFound)
}

// chainsOf groups exceptions that hang together; ids in each are in ascending
// order, and the chains in that of their first.
func chainsOf(all []Parked) [][]int64 {
	parent := make([]int, len(all))
	for i := range parent {
		parent[i] = i
	}
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	byKey := map[uint64]int{}
	for i := range all {
		for _, k := range all[i].Keys {
			j, ok := byKey[k]
			if !ok {
				byKey[k] = i
				continue
			}
			a, b := root(i), root(j)
			parent[max(a, b)] = min(a, b)
		}
	}
	first := map[schema.Name]int{}
	for i := range all {
		if slices.Contains(all[i].Keys, causality.TableKey(all[i].Table)) {
			first[all[i].Table] = i
		}
	}
	for i := range all {
		if j, ok := first[all[i].Table]; ok {
			a, b := root(i), root(j)
			parent[max(a, b)] = min(a, b)
		}
	}
	at := map[int]int{}
	var out [][]int64
	for i := range all {
		r := root(i)
		n, ok := at[r]
		if !ok {
			n = len(out)
			at[r] = n
			out = append(out, nil)
		}
		out[n] = append(out[n], all[i].ID)
	}
	return out
}

// Chains are all chains of open exceptions.
func (s *Store) Chains(ctx context.Context, q server.Querier) ([][]int64, error) {
	all, err := s.Load(ctx, q)
	if err != nil {
		return nil, err
	}
	return chainsOf(all), nil
}

// heads reads one open exception without its change.
func (s *Store) heads(ctx context.Context, conn *sql.Conn, id int64) ([]Exception, error) {
	some, _, err := s.readRaw(ctx, conn, "state = 'open' AND id = ?", []any{id})
	if err != nil {
		return nil, err
	}
	var out []Exception
	for i := range some {
		out = append(out, some[i].Exception)
	}
	return out, nil
}

// resolve makes exceptions history, in the caller's transaction, which has the lock.
func (s *Store) resolve(ctx context.Context, x target.Execer, state State, all []Exception, by, reason string) error {
	for i := range all {
		id := all[i].ID
		r, err := x.ExecContext(ctx, `UPDATE twinspan.exception SET state = ?, resolved_at = UTC_TIMESTAMP(6), resolved_by = ?, reason = ?, next_try = NULL
			WHERE id = ? AND stream = ? AND state = 'open'`, state, clip(by, 250), reason, id, s.Stream)
		if err != nil {
			return s.wrap(fmt.Sprintf("resolve %d", id), err)
		}
		if n, err := r.RowsAffected(); err != nil || n != 1 {
			return s.wrap(fmt.Sprintf("resolve %d", id), errors.Join(err, ErrNotFound))
		}
		if _, err := x.ExecContext(ctx, `DELETE FROM twinspan.exception_key WHERE exception_id = ?`, id); err != nil {
			return s.wrap(fmt.Sprintf("resolve %d", id), err)
		}
	}
	_, err := x.ExecContext(ctx, `UPDATE twinspan.exception_lock SET open = open - ? WHERE stream = ?`, len(all), s.Stream)
	return s.wrap("resolve", err)
}

// rouse has what stayed of a chain tried soon.
func (s *Store) rouse(ctx context.Context, x target.Execer, ids []int64) error {
	if s.Retry.First <= 0 {
		return nil
	}
	for _, id := range ids {
		if _, err := x.ExecContext(ctx, `UPDATE twinspan.exception SET next_try = UTC_TIMESTAMP(6) WHERE id = ?`, id); err != nil {
			return s.wrap("skip", err)
		}
	}
	return nil
}

// failed records a try in a transaction of its own; the next one is later each time.
func (s *Store) failed(ctx context.Context, conn *sql.Conn, chain []Exception, id int64, why string) error {
	what := fmt.Sprintf("record the try of %d", id)
	var next any
	if s.Retry.First > 0 {
		next = s.Retry.pause(chain[0].Tries + 1).Microseconds()
	}
	if _, err := conn.ExecContext(ctx, `UPDATE twinspan.exception SET tries = tries + 1, next_try = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND
		WHERE id = ? AND state = 'open'`, next, chain[0].ID); err != nil {
		return s.wrap(what, err)
	}
	for _, e := range chain[1:] { // the first one's time is the chain's
		if e.NextTry == nil {
			continue
		}
		if _, err := conn.ExecContext(ctx, `UPDATE twinspan.exception SET next_try = NULL WHERE id = ?`, e.ID); err != nil {
			return s.wrap(what, err)
		}
	}
	if _, err := conn.ExecContext(ctx, `UPDATE twinspan.exception SET last_error = ? WHERE id = ? AND state = 'open'`, clip(why, detailBytes/4), id); err != nil {
		return s.wrap(what, err)
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	return s.wrap(what, err)
}

// Pause is how long to sleep between two looks at what is due.
func (r Retry) Pause() time.Duration { return min(max(r.First/4, 200*time.Millisecond), 5*time.Second) }
