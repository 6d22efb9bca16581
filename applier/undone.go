package applier

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
)

// errUndone: the server undid a whole transaction where one statement was refused,
// and what came after would have been committed without the lane's place.
var errUndone = errors.New("the target undid an open transaction by itself")

// heedful is a lane's connection that remembers whether a statement of the open
// transaction was refused. Servers answer some errors by undoing everything since
// the transaction's beginning, the move of the lane's place first of all, and let
// the next statement begin another transaction without a word. The errors that are
// known to do so are target.Retryable and end a try at once. Nobody knows all of
// them, on all servers with all plugins: so where any statement was refused, and
// only there, commit looks whether the place is still moved. Where all is well, that
// costs nothing.
type heedful struct {
	target.Execer
	refused error // the first of the open transaction since the place was moved
}

func (w *heedful) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	r, err := w.Execer.ExecContext(ctx, query, args...)
	w.note(err)
	return r, err
}

func (w *heedful) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := w.Execer.QueryContext(ctx, query, args...)
	w.note(err)
	return rows, err
}

func (w *heedful) note(err error) {
	if err != nil && w.refused == nil {
		w.refused = err
	}
}

// whole fails with errUndone where a statement was refused and the open transaction
// has not moved the lane's place, as it had before.
func (l *sqlLane) whole(ctx context.Context) error {
	if l.watch.refused == nil {
		return nil
	}
	var at change.Place
	if err := l.conn.QueryRowContext(ctx, `SELECT log_offset, log_index FROM twinspan.lane_position WHERE stream = ? AND lane = ?`,
		l.stream, l.index).Scan(&at.Offset, &at.Index); err != nil {
		return fmt.Errorf("place of lane %d: %w", l.index, lost(err))
	}
	if at != l.to {
		return fmt.Errorf("%w, after: %v", errUndone, l.watch.refused) //nolint:errorlint // the first refused one need not be the one that did it
	}
	return nil
}
