package applier

import (
	"context"
	"fmt"
	"slices"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
)

// SetLanes asks for so many lanes, 1 to MaxLanes, for as long as the Applier
// lives. It comes to pass at the end of a transaction, when all that was read is
// durable; Status tells. May be called at any time from any goroutine.
func (a *Applier) SetLanes(n int) error {
	if n < 1 || n > MaxLanes {
		return fmt.Errorf("%d lanes: 1 to %d", n, MaxLanes)
	}
	a.mu.Lock()
	a.want = n
	if a.sched != nil {
		a.relaneDue.Store(a.mode != a.cfg.mode() || len(a.lanes) != n)
	}
	a.mu.Unlock()
	select {
	case a.adjusted <- struct{}{}:
	default: // it has been told and has not looked yet
	}
	return nil
}

func (a *Applier) wanted() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.want
}

// adjust changes the lanes when that is due and nothing is being fed; while there
// is, the feeder does it at the end of a transaction.
func (a *Applier) adjust(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.adjusted:
		}
		select {
		case <-ctx.Done():
			return nil
		case a.feeding <- struct{}{}:
		}
		a.mu.Lock()
		between := !a.inside && a.fed.Compare(a.replay) >= 0
		a.mu.Unlock()
		var err error
		if between && a.relaneDue.Load() {
			err = a.relane(ctx)
		}
		<-a.feeding
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// relane goes over to the wanted lanes once no stored place is ahead any more.
// A crash at any point leaves the lanes as they were, or as wanted, all of them
// at one place. The caller holds feeding.
func (a *Applier) relane(ctx context.Context) error {
	if err := a.drained(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	group := a.group
	a.mu.Unlock()
	group.stop()
	floor, _ := a.Durable() // just stored
	want, mode := a.wanted(), a.cfg.mode()
	// Until it is known which lanes the target has, nobody may compare them with ours.
	a.save.Lock()
	a.replacing = true
	a.save.Unlock()
	err := a.untilDone(ctx, floor, "change the lanes", func(ctx context.Context) error {
		return a.backend.relane(ctx, a.epoch, want, mode, floor)
	})
	if err != nil {
		return err
	}
	a.save.Lock()
	defer a.save.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closing {
		return fmt.Errorf("applier of stream %s: %w", a.cfg.Stream, log.ErrClosed)
	}
	places := slices.Repeat([]change.Place{floor}, want)
	a.setLanes(mode, places, floor)
	a.replacing = false
	a.startLanes(group.parent, group.fail, places)
	a.log.Info().Int("lanes", want).Stringer("atomicity", mode).Msg("lanes changed")
	return nil
}
