package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

// careful is how a lane applies runs while keeping an eye on double writes and on
// parked changes. It belongs to the lane's session.
type careful struct {
	g    *guard
	conn target.Execer
	// What the open transaction holds, told when it is committed.
	records []conflicts.Record      // at most keepRecords
	counted map[conflicts.Count]int // the others; key: Count with Count 0
	parked  map[exceptions.Cause]int64
	// idle: until then the source wins without a look at each row, so that a
	// target full of differences costs at most a fifth more time.
	idle time.Time
}

// write is the way to the target that is taken first: the fast one.
type write func(ctx context.Context, r run) (target.Outcome, error)

// apply applies a run in the open transaction.
func (c *careful) apply(ctx context.Context, r run, fast write) (target.Outcome, error) {
	var out target.Outcome
	if c.g.hinted.Load() > 0 && !c.g.faults.noFollow {
		var err error
		if r, err = c.follow(ctx, r); err != nil {
			return out, err
		}
	}
	switch {
	case len(r.rows) == 0:
		return out, nil
	case r.route.plan == nil:
		return out, c.parkAll(ctx, r)
	}
	plan := r.route.plan
	table := plan.Table().Name
	if c.g.policies.Compares(table) {
		ok, err := plan.Expected(ctx, c.conn, r.rows)
		if c.vanished(err) {
			return out, c.parkGone(ctx, r)
		}
		if err != nil {
			return out, err
		}
		if !ok {
			return c.oneByOne(ctx, r)
		}
	}
	decides := len(c.g.cfg.On) > 0 || c.g.policies.For(table) != conflicts.SourceWins
	look := decides || time.Now().After(c.idle)
	if look {
		if _, err := c.conn.ExecContext(ctx, "SAVEPOINT twinspan_run"); err != nil {
			return out, err
		}
	}
	out, err := fast(ctx, r)
	switch {
	case err == nil && !out.Doubt():
		return out, nil
	case err != nil && !decides:
		c.tell(r, err)
		return out, err
	case c.vanished(err):
		return target.Outcome{}, c.parkGone(ctx, r)
	case err != nil && !ofRow(err):
		return out, err
	case err == nil && !look:
		c.cheap(table.String(), out)
		return out, nil
	}
	if _, err := c.conn.ExecContext(ctx, "ROLLBACK TO SAVEPOINT twinspan_run"); err != nil {
		return out, fmt.Errorf("undo a run: %w", err)
	}
	began := time.Now()
	out, err = c.oneByOne(ctx, r)
	if !decides {
		c.idle = time.Now().Add(4 * time.Since(began))
	}
	return out, err
}

// vanished: the target has not the table any more, and that is a cause to park.
// Who has read or written a table in a transaction keeps it there, so nothing of
// this one has touched it.
func (c *careful) vanished(err error) bool {
	if err == nil || !c.g.on(exceptions.MissingTable) {
		return false
	}
	n := server.ErrorNumber(err)
	return n == 1146 || n == 1049
}

// parkGone parks a run of a table that was dropped by hand. Its rows are in lanes
// of their own, which may park them in any order: they share the table's key, so
// they are one chain, which is applied in the order of the log.
func (c *careful) parkGone(ctx context.Context, r run) error {
	gone := *r.route
	gone.gone, gone.shape = true, 0
	return c.parkAll(ctx, run{route: &gone, rows: r.rows, marks: r.marks})
}

// ofRow: the target refused a row for what it holds, or for what it met.
func ofRow(err error) bool {
	var conflict *target.Conflict
	var row *target.RowError
	return errors.As(err, &conflict) || errors.As(err, &row)
}

// cheap counts conflicts by what the fast way tells.
func (c *careful) cheap(table string, out target.Outcome) {
	for _, k := range []struct {
		kind target.Kind
		n    int
	}{{target.InsertExists, out.InsertFound}, {target.UpdateMissing, out.UpdateMissing}, {target.DeleteMissing, out.DeleteMissing}} {
		if k.n > 0 {
			c.met(conflicts.Record{At: time.Now().UTC(), Kind: k.kind, Table: table, Action: string(conflicts.SourceWins), Count: k.n})
		}
	}
}

// tell takes note of the conflict that an error is about to halt for.
func (c *careful) tell(r run, err error) {
	var conflict *target.Conflict
	var row *target.RowError
	var i int
	var holder []change.Value
	switch {
	case errors.As(err, &conflict):
		i, holder = conflict.Index, conflict.Holder
	case errors.As(err, &row):
		i = row.Index
	default:
		return
	}
	if i < 0 || i >= len(r.rows) {
		return
	}
	if k := target.KindOf(err, r.rows[i].Op); k != "" {
		c.g.noteHalt(record(r, i, k, holder, string(conflicts.Halt)))
	}
}

func record(r run, i int, k target.Kind, present []change.Value, action string) conflicts.Record {
	row := &r.rows[i]
	x := conflicts.Record{
		At: time.Now().UTC(), Kind: k, Table: r.route.routing.Name().String(), Operation: row.Op.String(), Key: strings.TrimSpace(describe(r.route, row)),
		Action: action, Before: conflicts.Show(row.Table, row.Before), After: conflicts.Show(row.Table, row.After),
		Present: conflicts.Show(row.Table, present), Count: 1,
	}
	if m := r.marks[i]; m.from != nil {
		x.Place, x.GTID = m.place, m.from.gtid
	}
	return x
}

// keepRecords is of how many conflicts a transaction keeps the images until it is
// committed: as many as are kept after it. It may have any number of rows.
const keepRecords = 256

// record is that of a run of one row; without what is not kept.
func (c *careful) record(r run, k target.Kind, present []change.Value, action string) conflicts.Record {
	if len(c.records) < keepRecords {
		return record(r, 0, k, present, action)
	}
	return conflicts.Record{Kind: k, Table: r.route.routing.Name().String(), Action: action, Count: 1}
}

// met takes note of conflicts that are facts once the transaction is.
func (c *careful) met(x conflicts.Record) {
	if len(c.records) < keepRecords {
		c.records = append(c.records, x)
		return
	}
	if c.counted == nil {
		c.counted = map[conflicts.Count]int{}
	}
	c.counted[conflicts.Count{Kind: x.Kind, Table: x.Table, Action: x.Action}] += x.Count
}

// oneByOne applies each row with a look at the target first.
func (c *careful) oneByOne(ctx context.Context, r run) (sum target.Outcome, err error) {
	for i := range r.rows {
		one := run{route: r.route, rows: r.rows[i : i+1], marks: r.marks[i : i+1]}
		if c.g.hinted.Load() > 0 && !c.g.faults.noFollow {
			if one, err = c.follow(ctx, one); err != nil {
				return sum, err
			}
			if len(one.rows) == 0 {
				continue
			}
		}
		out, err := c.one(ctx, one)
		if err != nil {
			return sum, err
		}
		sum.Add(out)
	}
	return sum, nil
}

// one applies a single row.
func (c *careful) one(ctx context.Context, r run) (out target.Outcome, err error) {
	plan, row := r.route.plan, &r.rows[0]
	table := plan.Table().Name
	seen, err := plan.Look(ctx, c.conn, row)
	if err != nil {
		return out, err
	}
	if seen.Kind != "" {
		action := c.g.policies.Decide(table, seen.Kind, true)
		if seen.Done { // source and target agree after it, whoever did it
			c.met(c.record(r, seen.Kind, seen.Present, conflicts.Already))
			if action != conflicts.SourceWins {
				return out, nil
			}
		} else if stop, err := c.settle(ctx, r, seen.Kind, seen.Present, action, "the target's row is not as the change expects it"); stop || err != nil {
			return out, err
		}
	}
	if _, err := c.conn.ExecContext(ctx, "SAVEPOINT twinspan_row"); err != nil {
		return out, err
	}
	out, failed := plan.Apply(ctx, c.conn, r.rows)
	if failed == nil {
		return out, nil
	}
	if !ofRow(failed) {
		return out, failed
	}
	kind := target.KindOf(failed, row.Op)
	refused := errors.Is(failed, target.ErrData) && !foreignKey(failed) && c.g.on(exceptions.Data)
	if kind == "" && !refused {
		return out, failed
	}
	if _, err := c.conn.ExecContext(ctx, "ROLLBACK TO SAVEPOINT twinspan_row"); err != nil {
		return out, fmt.Errorf("undo a row: %w", err)
	}
	if kind == "" {
		return target.Outcome{}, c.park(ctx, r, 0, exceptions.Data, "", failed.Error(), 0)
	}
	var holder []change.Value
	var conflict *target.Conflict
	if errors.As(failed, &conflict) {
		holder = conflict.Holder
	}
	action := c.g.policies.Decide(table, kind, plan.Identity() != nil)
	if action == conflicts.Halt {
		c.tell(r, failed)
		return out, failed
	}
	_, err = c.settle(ctx, r, kind, holder, action, failed.Error())
	return target.Outcome{}, err
}

// settle does what the policy says about a conflict; stop: not to apply the row.
func (c *careful) settle(ctx context.Context, r run, k target.Kind, present []change.Value, action conflicts.Policy, why string) (stop bool, err error) {
	if action == conflicts.Halt {
		c.g.noteHalt(record(r, 0, k, present, string(action)))
		return true, &conflictHalt{kind: k, op: r.rows[0].Op, table: r.route.plan.Table().Name, key: describe(r.route, &r.rows[0])}
	}
	x := c.record(r, k, present, string(action))
	if action == conflicts.Exception {
		if x.Exception, err = c.store(ctx, r, 0, exceptions.Conflict, k, why, 0); err != nil {
			return true, err
		}
		c.parkedOne(exceptions.Conflict)
	}
	c.met(x)
	return action != conflicts.SourceWins, nil
}

func foreignKey(err error) bool {
	switch server.ErrorNumber(err) {
	case 1216, 1217, 1451, 1452:
		return true
	}
	return false
}

// follow takes the rows out of a run that share a key with a parked change, or
// with another of them, and parks them behind it.
func (c *careful) follow(ctx context.Context, r run) (run, error) {
	table := causality.TableKey(r.route.routing.Name())
	keys := make([][]uint64, len(r.rows))
	suspects := map[uint64]int64{}
	for i := range r.rows {
		k, err := keysOf(r.route, &r.rows[i])
		if err != nil {
			return r, err
		}
		keys[i] = k
		c.g.suspects(suspects, k)
	}
	c.g.suspects(suspects, []uint64{table})
	if len(suspects) == 0 {
		return r, nil
	}
	if _, err := c.g.store.Lock(ctx, c.conn); err != nil {
		return r, err
	}
	var ask []uint64
	for k := range suspects {
		ask = append(ask, k)
	}
	holders, err := c.g.store.Holders(ctx, c.conn, ask)
	if err != nil {
		return r, err
	}
	c.g.free(suspects, holders)
	if len(holders) == 0 {
		return r, nil
	}
	left := run{route: r.route}
	for i := range r.rows {
		behind := holders[table]
		for _, k := range keys[i] {
			behind = max(behind, holders[k])
		}
		if behind == 0 {
			left.rows, left.marks = append(left.rows, r.rows[i]), append(left.marks, r.marks[i])
			continue
		}
		if c.g.cfg.Wait {
			return r, fmt.Errorf("%s of %s%s: exception %d: %w", r.rows[i].Op, r.route.routing.Name(), describe(r.route, &r.rows[i]), behind, errFollows)
		}
		id, err := c.store(ctx, r, i, exceptions.Follows, "", "", behind)
		if err != nil {
			return r, err
		}
		c.parkedOne(exceptions.Follows)
		for _, k := range keys[i] {
			holders[k] = id
		}
	}
	return left, nil
}

func describe(rt *route, row *change.Row) string {
	if rt.plan == nil {
		return ""
	}
	return rt.plan.Describe(row)
}

// parkAll parks a run of a table that the target has not.
func (c *careful) parkAll(ctx context.Context, r run) error {
	behind := int64(0)
	for i := range r.rows {
		cause := exceptions.MissingTable
		if behind != 0 {
			cause = exceptions.Follows
		}
		id, err := c.store(ctx, r, i, cause, "", target.ErrNoTable.Error(), behind)
		if err != nil {
			return err
		}
		c.parkedOne(cause)
		behind = id
	}
	return nil
}

// park parks a row and counts it.
func (c *careful) park(ctx context.Context, r run, i int, cause exceptions.Cause, k target.Kind, why string, behind int64) error {
	_, err := c.store(ctx, r, i, cause, k, why, behind)
	if err == nil {
		c.parkedOne(cause)
	}
	return err
}

func (c *careful) parkedOne(cause exceptions.Cause) {
	if c.parked == nil {
		c.parked = map[exceptions.Cause]int64{}
	}
	c.parked[cause]++
}

// store writes a change into the exceptions. Its keys are hints from now on,
// whatever becomes of the transaction.
func (c *careful) store(ctx context.Context, r run, i int, cause exceptions.Cause, k target.Kind, why string, behind int64) (int64, error) {
	row := &r.rows[i]
	keys, err := keysOf(r.route, row)
	if err != nil {
		return 0, err
	}
	x := &exceptions.Change{
		Table: r.route.routing.Name(), Row: *row, Key: describe(r.route, row), Place: r.marks[i].place, Cause: cause, Kind: k, Detail: why,
		Behind: behind, Keys: keys, Shape: r.route.shape,
	}
	if table := causality.TableKey(x.Table); r.route.gone && !slices.Contains(keys, table) {
		x.Keys = append(keys[:len(keys):len(keys)], table)
	}
	if from := r.marks[i].from; from != nil {
		x.GTID, x.Commit = from.gtid, from.commit
	}
	if c.g.faults.onlyHeads && behind != 0 {
		x.Keys = keys[:1]
	}
	// The lock comes first: who has it would find nothing parked yet, and forget
	// the hint.
	open, err := c.g.store.Lock(ctx, c.conn)
	if err != nil {
		return 0, err
	}
	c.g.hint(x.Keys)
	return c.g.store.Park(ctx, c.conn, open, x)
}

// committed tells what the transaction did.
func (c *careful) committed() {
	for k, n := range c.counted {
		c.records = append(c.records, conflicts.Record{At: time.Now().UTC(), Kind: k.Kind, Table: k.Table, Action: k.Action, Count: n})
	}
	c.g.note(c.records)
	for cause, n := range c.parked {
		c.g.count(cause, n)
	}
	c.undone()
}

// undone forgets it.
func (c *careful) undone() {
	c.records, c.counted, c.parked = nil, nil, nil
}
