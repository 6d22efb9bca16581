package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

// sqlLane is a lane's connection. It works without autocommit: a transaction
// begins with its first statement, which is always the one on the lane's place.
type sqlLane struct {
	conn    *sql.Conn
	stream  string
	name    string // the stream's, in SQL
	index   int
	epoch   uint64
	watch   *heedful     // conn, for all that may be refused
	to      change.Place // where the open transaction has moved the lane's place
	c       careful
	events  *target.Writer
	batched []target.Run // reused, as is seen
	seen    map[*target.Plan]struct{}
}

func (b *sqlBackend) lane(ctx context.Context, epoch uint64, index int) (laneSession, error) {
	conn, err := target.OpenSession(ctx, b.db)
	if err != nil {
		return nil, err
	}
	watch := &heedful{Execer: conn}
	if b.guard.under != nil {
		watch.Execer = b.guard.under(conn)
	}
	l := &sqlLane{conn: conn, watch: watch, stream: b.cfg.Stream, name: target.Literal(b.cfg.Stream), index: index, epoch: epoch, c: careful{g: b.guard, conn: watch}, seen: map[*target.Plan]struct{}{}}
	if err := b.guard.load(ctx, conn); err != nil {
		l.close()
		return nil, err
	}
	if l.events, err = target.NewWriter(ctx, watch, b.catalog.Info()); err != nil {
		l.close()
		return nil, err
	}
	if why := l.events.Reason(); why != "" && index == 0 {
		b.log.Warn().Str("why", why).Msg("rows are written as SQL statements: row events would be faster")
	}
	if _, err := conn.ExecContext(ctx, "SET SESSION autocommit = 0"); err != nil {
		l.close()
		return nil, err
	}
	watch.refused = nil // whatever NewWriter tried, no transaction is open
	return l, nil
}

// close throws the connection away: its session is not what the pool's other
// users expect, and an open transaction must end.
func (l *sqlLane) close() { target.Discard(l.conn) }

// standing: the lock on the lane's row makes this wait until a transaction of a
// session before this one, which wrote the row first of all, is over.
func (l *sqlLane) standing(ctx context.Context) (standing, error) {
	var epoch uint64
	err := l.conn.QueryRowContext(ctx, `SELECT epoch FROM twinspan.lane_position WHERE stream = ? AND lane = ? FOR UPDATE`,
		l.stream, l.index).Scan(&epoch)
	if errors.Is(err, sql.ErrNoRows) {
		// An owner with fewer lanes took it away, or the target never had it.
		err = l.conn.QueryRowContext(ctx, `SELECT epoch FROM twinspan.stream WHERE stream = ?`, l.stream).Scan(&epoch)
		if err == nil && epoch == l.epoch {
			err = sql.ErrNoRows
		}
	}
	if err != nil {
		return standing{}, fmt.Errorf("place of lane %d: %w", l.index, lost(err))
	}
	if err := sameEpoch(epoch, l.epoch, "a newer owner"); err != nil {
		return standing{}, err
	}
	all, err := readStanding(ctx, l.conn, l.stream)
	if err != nil {
		return standing{}, err
	}
	_, err = l.conn.ExecContext(ctx, "ROLLBACK")
	return all, err
}

// batch: where its runs go as row events, and nothing asks for a look at the target
// before, all of it is one packet.
func (l *sqlLane) batch(ctx context.Context, from, to change.Place, runs []run) (target.Outcome, error) {
	var sum target.Outcome
	if l.watch.refused == nil && l.plain(runs) == len(runs) && l.events.Opens(l.batched) {
		out, open, done, err := l.events.TryAll(ctx, l.moving(from, to), l.batched)
		switch {
		case errors.Is(err, target.ErrNotLed):
			return out, l.unmoved(ctx, from)
		case err != nil:
			return out, fmt.Errorf("lane %d: %w", l.index, err)
		case done:
			l.to = to
			return out, nil
		}
		sum = out
		if open {
			l.to, l.watch.refused = to, l.events.Doubt()
			out, err := l.apply(ctx, runs)
			sum.Add(out)
			return sum, err
		}
	}
	if err := l.move(ctx, from, to); err != nil {
		return sum, err
	}
	return l.apply(ctx, runs)
}

// moving is the statement that move sends.
func (l *sqlLane) moving(from, to change.Place) string {
	return fmt.Sprintf(`UPDATE twinspan.lane_position SET log_offset = %d, log_index = %d, updated_at = UTC_TIMESTAMP(6)
		WHERE stream = %s AND lane = %d AND epoch = %d AND log_offset = %d AND log_index = %d`,
		to.Offset, to.Index, l.name, l.index, l.epoch, from.Offset, from.Index)
}

// move is the first statement of a transaction, so that everything after it is
// the epoch's; of a transaction whose end was not known then, also its last.
func (l *sqlLane) move(ctx context.Context, from, to change.Place) error {
	if err := l.whole(ctx); err != nil {
		return err
	}
	r, err := l.conn.ExecContext(ctx, l.moving(from, to))
	if err != nil {
		return fmt.Errorf("place of lane %d: %w", l.index, err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return err
	}
	if n != 1 {
		return l.unmoved(ctx, from)
	}
	l.to, l.watch.refused = to, nil
	return nil
}

// unmoved is why the place was not moved: fenced, or someone changed it. The look at
// it tells which.
func (l *sqlLane) unmoved(ctx context.Context, from change.Place) error {
	if _, err := l.standing(ctx); err != nil {
		return err
	}
	return fmt.Errorf("place of lane %d is not %d/%d: %w", l.index, from.Offset, from.Index, errPlace)
}

// apply: the tables are looked at once their rows are written, when the transaction
// keeps anyone from changing them, and nothing of it can be seen yet.
func (l *sqlLane) apply(ctx context.Context, runs []run) (target.Outcome, error) {
	sum, err := l.write(ctx, runs)
	if err != nil && (server.ErrorNumber(err) == 0 && !ofRow(err) || target.Retryable(err)) {
		return sum, err
	}
	if e := l.unchanged(ctx, runs); err == nil || errors.Is(e, target.ErrChanged) {
		err = errors.Join(e, err) // a refusal's reason may be that it changed
	}
	return sum, err
}

// unchanged fails with ErrTableChanged where a table of the runs is no longer what
// their plans think.
func (l *sqlLane) unchanged(ctx context.Context, runs []run) error {
	clear(l.seen)
	for i := range runs {
		plan := runs[i].route.plan
		if _, known := l.seen[plan]; known || plan == nil {
			continue
		}
		l.seen[plan] = struct{}{}
		if err := plan.Unchanged(ctx, l.conn); err != nil {
			return err
		}
	}
	return nil
}

// write: what goes as row events goes in one statement, and by SQL where that was
// refused; the others run by run.
func (l *sqlLane) write(ctx context.Context, runs []run) (sum target.Outcome, err error) {
	for len(runs) > 0 {
		l.plain(runs)
		exactly := 1
		if n := l.events.Together(l.batched); n > 0 {
			out, done, err := l.events.Try(ctx, l.batched[:n])
			sum.Add(out)
			if err != nil {
				return sum, err
			}
			if done {
				runs = runs[n:]
				continue
			}
			exactly = n
		}
		for _, r := range runs[:exactly] {
			out, err := l.c.apply(ctx, r, func(ctx context.Context, r run) (target.Outcome, error) {
				return r.route.plan.Apply(ctx, l.watch, r.rows)
			})
			sum.Add(out)
			if err != nil {
				return sum, err
			}
		}
		runs = runs[exactly:]
	}
	return sum, nil
}

// plain gathers the first runs that nothing asks for a look at the target before,
// and counts them.
func (l *sqlLane) plain(runs []run) int {
	l.batched = l.batched[:0]
	for _, r := range runs {
		if !l.c.plain(r) {
			break
		}
		l.batched = append(l.batched, target.Run{Plan: r.route.plan, Rows: r.rows})
	}
	return len(l.batched)
}

// alive: a connection that says nothing for the lease is ended by the server, and
// its transaction with it.
func (l *sqlLane) alive(ctx context.Context) error {
	_, err := l.conn.ExecContext(ctx, "DO 0")
	return err
}

// plain: nothing asks for a look at the target before the run's rows are written.
func (c *careful) plain(r run) bool {
	return len(r.rows) > 0 && r.route.plan != nil && c.g.hinted.Load() == 0 && !c.g.policies.Compares(r.route.plan.Table().Name)
}

// commit is the one statement whose failure leaves the outcome open.
func (l *sqlLane) commit(ctx context.Context) error {
	if err := l.whole(ctx); err != nil {
		return err
	}
	if _, err := l.conn.ExecContext(ctx, "COMMIT"); err != nil {
		l.c.undone() // perhaps it was, and then nobody is told more than the target knows
		return &commitError{err}
	}
	l.watch.refused = nil
	l.c.committed()
	return nil
}

func (l *sqlLane) rollback(ctx context.Context) error {
	l.c.undone()
	l.watch.refused = nil
	_, err := l.conn.ExecContext(ctx, "ROLLBACK")
	return err
}

// commitError: the transaction may or may not have been committed.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// reset keeps the connection only where the server certainly rolled back, or
// does now.
func (l *sqlLane) reset(ctx context.Context, err error) bool {
	l.c.undone()
	var c *commitError
	if errors.As(err, &c) || server.ErrorNumber(err) == 0 {
		return false
	}
	l.watch.refused = nil
	_, err = l.conn.ExecContext(ctx, "ROLLBACK")
	return err == nil
}
