package verify

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// ErrBehind: the target did not catch up in time.
var ErrBehind = errors.New("the target has not caught up")

// ExecutedSet is the GTID set a server has committed.
func ExecutedSet(ctx context.Context, s Side) (gtid.Set, error) {
	q := "SELECT @@GLOBAL.gtid_executed"
	if s.Info.Flavor == server.MariaDB {
		// The binlog's own position: what a dump of this server delivers.
		q = "SELECT @@GLOBAL.gtid_binlog_pos"
	}
	var text string
	if err := s.DB.QueryRowContext(ctx, q).Scan(&text); err != nil {
		return gtid.New(string(s.Info.Flavor)), err
	}
	return gtid.Parse(string(s.Info.Flavor), text)
}

// WaitForProgress makes a Settle: it reads the source's GTID set and polls
// twinspan.progress on the target until the stream's set contains it. Without
// any progress for patience it fails with ErrBehind.
func WaitForProgress(source, target Side, stream string, patience time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		want, err := ExecutedSet(ctx, source)
		if err != nil {
			return fmt.Errorf("GTID set of the source: %w", err)
		}
		last, moved := "", time.Now()
		for {
			var text string
			err := target.DB.QueryRowContext(ctx, "SELECT gtid_set FROM twinspan.progress WHERE stream = ?", stream).Scan(&text)
			switch {
			case errors.Is(err, sql.ErrNoRows), server.ErrorNumber(err) == 1146, server.ErrorNumber(err) == 1049:
				text = "" // the applier has not started yet: its schema comes with it
			case err != nil:
				return fmt.Errorf("progress of the target: %w", err)
			}
			have, err := gtid.Parse(string(source.Info.Flavor), text)
			if err != nil {
				return fmt.Errorf("progress of the target: %w", err)
			}
			if have.Contains(want) {
				return nil
			}
			if text != last {
				last, moved = text, time.Now()
			}
			if time.Since(moved) > patience {
				return fmt.Errorf("%w: no progress for %s at %q, wanted %q: look at `twinspan status`", ErrBehind, patience, have, want)
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}
