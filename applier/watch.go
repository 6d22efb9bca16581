package applier

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twinspan/twinspan/applier/target"
)

// watchPause is how often the target's tables are looked at for triggers, which a
// table's definition does not tell. A look takes a fiftieth of the time at most.
const watchPause = 2 * time.Second

// watch fails with ErrTableChanged once a table has a trigger that it had not when
// its plan was made; it ends with ctx.
func (b *sqlBackend) watch(ctx context.Context) error {
	t := time.NewTimer(watchPause)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		began := time.Now()
		b.mu.Lock()
		tables := slices.Clone(b.planned)
		b.mu.Unlock()
		err := within(ctx, 0, func(ctx context.Context) error { return target.Triggered(ctx, b.db, tables) })
		if errors.Is(err, target.ErrChanged) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			b.log.Debug().Err(err).Msg("triggers not looked at") // again in a moment
		}
		t.Reset(max(watchPause, 50*time.Since(began)))
	}
}
