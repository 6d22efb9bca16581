package applier

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// track follows the floor: the newest transaction end at or below the
// watermark, and the GTIDs up to there. Applier.save guards it.
type track struct {
	set    gtid.Set // applied
	place  change.Place
	newest time.Time
	stored progress // as the target has it
	saved  time.Time
}

// heartbeat is how often the floor is stored when it has not moved, so that
// others see the applier live.
const heartbeat = 5 * time.Second

func (t *track) load(p progress) error {
	t.stored, t.place, t.newest = p, p.place, p.newest
	if p.gtidSet == "" {
		return nil
	}
	var err error
	t.set, err = gtid.Parse(flavorOf(p.gtidSet), p.gtidSet)
	return err
}

// flavorOf tells the two forms of GTIDs apart: only MySQL's have a colon.
func flavorOf(text string) string {
	if strings.Contains(text, ":") {
		return string(server.MySQL)
	}
	return string(server.MariaDB)
}

// pass moves the floor to the end of a transaction. The log's own set is taken
// where it has one: it also covers what was before the log's first entry.
func (t *track) pass(e end) error {
	t.place, t.newest = e.place, e.commit
	switch {
	case e.held != "":
		s, err := gtid.Parse(flavorOf(e.held), e.held)
		if err != nil {
			return fmt.Errorf("GTID set of the log at %d: %w", e.place.Offset, err)
		}
		t.set = s
	case e.gtid != "":
		if t.set.Flavor() == "" {
			t.set = gtid.New(flavorOf(e.gtid))
		}
		if err := t.set.Add(e.gtid); err != nil {
			return fmt.Errorf("transaction that ends at %d/%d: %w", e.place.Offset, e.place.Index, err)
		}
	}
	return nil
}

// idleSaves is how many times more often the floor is stored when all that was fed
// is durable: who waits for the end of a backlog need not wait for the interval.
const idleSaves = 10

// caughtUp: all that was fed is durable, and the floor does not say so yet.
func (a *Applier) caughtUp() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.ends) > 0 && a.open.IsZero() && a.sched.Idle()
}

// saveRegularly stores the floor until ctx ends, and a last time then.
func (a *Applier) saveRegularly(ctx context.Context) error {
	tick := time.NewTicker(max(a.cfg.ProgressInterval/idleSaves, time.Millisecond))
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			// What a restart then does not have to read again; it would be
			// skipped in any case.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := a.saveProgress(last, false); err != nil {
				a.log.Info().Err(err).Msg("last floor not stored")
			}
			return nil
		case <-tick.C:
		}
		if time.Since(last) < a.cfg.ProgressInterval && !a.caughtUp() {
			continue
		}
		last = time.Now()
		hurry, cancel := context.WithTimeoutCause(ctx, patience(0), errSlow)
		err := a.saveProgress(hurry, false)
		cancel()
		switch {
		case final(err):
			return err
		case ctx.Err() != nil:
		default:
			a.note(progressSlot, err, change.Place{}, "store the floor")
		}
	}
}

// confirm stores the floor and has the target confirm that it holds all of it.
func (a *Applier) confirm(ctx context.Context) error { return a.saveProgress(ctx, true) }

// saveProgress brings the floor up to the watermark and stores it; where it has
// not moved, only when it is time for a heartbeat, or always.
func (a *Applier) saveProgress(ctx context.Context, always bool) error {
	a.save.Lock()
	defer a.save.Unlock()
	if a.replacing {
		return nil
	}
	a.mu.Lock()
	low := a.sched.Low()
	believed := a.believed()
	n := 0
	for n < len(a.ends) && a.ends[n].seq <= low {
		n++
	}
	passed := a.ends[:n:n]
	a.ends = a.ends[n:]
	if len(a.ends) == 0 {
		a.ends = nil
	}
	pending := a.open
	if len(a.ends) > 0 {
		pending = a.ends[0].commit
	}
	a.mu.Unlock()

	t := &a.trk
	for i, e := range passed {
		if err := t.pass(e); err != nil {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.ends = append(passed[i:], a.ends...)
			return err
		}
	}
	p := progress{place: t.place, newest: t.newest, pending: pending, gtidSet: t.stored.gtidSet}
	if p.place != t.stored.place {
		p.gtidSet = t.set.String()
	} else if !always && time.Since(t.saved) < heartbeat && pending.Equal(t.stored.pending) {
		return nil
	}
	if err := a.backend.saveProgress(ctx, a.epoch, p, believed); err != nil {
		return err
	}
	t.stored, t.saved = p, time.Now()
	a.mu.Lock()
	a.stored = p
	a.mu.Unlock()
	return nil
}
