package applier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/change"
)

// laneState is what others know of a lane; Applier.mu guards it.
type laneState struct {
	wake      *sync.Cond // the lane sleeps here: no work, or waiting for another lane
	blockedBy int        // the lane it waits for; -1: none
	batches   int64
	stored    change.Place // the lane's place on the target, confirmed
}

// laneGroup is the running lanes.
type laneGroup struct {
	parent context.Context // of Run, for the next group
	fail   context.CancelCauseFunc
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startLanes starts a goroutine for each lane; a.mu is held. stored are the
// places that the target holds for them.
func (a *Applier) startLanes(ctx context.Context, fail context.CancelCauseFunc, stored []change.Place) {
	g := &laneGroup{parent: ctx, fail: fail}
	ctx, g.cancel = context.WithCancel(ctx)
	context.AfterFunc(ctx, a.wakeAll)
	for i := range a.lanes {
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			if err := a.runLane(ctx, i, stored[i]); err != nil {
				fail(err)
			}
		}()
	}
	a.group = g
}

// stop cancels what the lanes are doing and waits for them.
func (g *laneGroup) stop() {
	g.cancel()
	g.wg.Wait()
}

// runLane takes batches and writes them until ctx ends.
func (a *Applier) runLane(ctx context.Context, index int, stored change.Place) error {
	w := laneWriter{a: a, index: index, stored: stored}
	defer w.close()
	for {
		batch := a.take(ctx, index)
		if batch == nil {
			return nil
		}
		if err := w.write(ctx, batch); err != nil {
			if ctx.Err() != nil && !final(err) {
				return nil
			}
			return err
		}
		a.done(index, batch)
	}
}

// take waits for the lane's next batch; nil when ctx ends.
func (a *Applier) take(ctx context.Context, index int) []causality.Item[work] {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lanes[index]
	for ctx.Err() == nil {
		if l.blockedBy < 0 && a.mayLinger(index) {
			a.linger(ctx, index)
		}
		var batch []causality.Item[work]
		batch, l.blockedBy = a.sched.Take(index, causality.Limits{Rows: a.cfg.BatchRows, Cost: a.cfg.BatchBytes})
		if batch != nil {
			return batch
		}
		if l.blockedBy >= 0 {
			a.lanes[l.blockedBy].wake.Signal() // it may be lingering
		}
		l.wake.Wait()
	}
	return nil
}

// mayLinger: the lane has a little work, and nobody is waiting for it.
func (a *Applier) mayLinger(index int) bool {
	n := a.sched.Pending(index)
	if a.cfg.BatchDelay <= 0 || a.drain || n == 0 || n >= a.cfg.BatchRows || a.sched.Load() > a.cfg.WindowBytes/2 {
		return false
	}
	for _, l := range a.lanes {
		if l.blockedBy == index {
			return false
		}
	}
	return true
}

// linger sleeps for the batch delay, or until there is reason not to.
func (a *Applier) linger(ctx context.Context, index int) {
	l, over := a.lanes[index], false
	t := time.AfterFunc(a.cfg.BatchDelay, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		over = true
		l.wake.Signal()
	})
	defer t.Stop()
	for !over && ctx.Err() == nil && a.mayLinger(index) {
		l.wake.Wait()
	}
}

// done records that the lane's batch is durable and wakes who waits for that.
func (a *Applier) done(index int, batch []causality.Item[work]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sched.Done(index)
	a.lanes[index].batches++
	a.lanes[index].stored = batch[len(batch)-1].Place
	a.state.rows += int64(len(batch))
	for _, l := range a.lanes {
		if l.blockedBy == index {
			l.wake.Signal()
		}
	}
	a.room.Broadcast()
}

// laneWriter writes batches over one session after the other. It belongs to the
// lane's goroutine.
type laneWriter struct {
	a       *Applier
	index   int
	stored  change.Place // the lane's place on the target, as far as we know
	session laneSession  // nil: to be opened
}

func (w *laneWriter) close() {
	if w.session != nil {
		w.session.close()
		w.session = nil
	}
}

// write returns when the batch is durable, however long that takes.
func (w *laneWriter) write(ctx context.Context, batch []causality.Item[work]) error {
	to := batch[len(batch)-1].Place
	runs := makeRuns(batch)
	var b backoff
	for tries := 0; ; tries++ {
		hurry, cancel := context.WithTimeoutCause(ctx, patience(tries), errSlow)
		err := w.try(hurry, to, runs)
		if err != nil && errors.Is(context.Cause(hurry), errSlow) {
			err = fmt.Errorf("%w: %w", errSlow, err)
		}
		cancel()
		if err == nil {
			w.stored = to
			w.a.note(w.index, nil, to, "apply")
			return nil
		}
		if final(err) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.a.note(w.index, err, batch[0].Place, "apply")
		if w.session != nil && !w.session.reset(ctx, err) {
			w.close()
		}
		if err := b.wait(ctx, nil); err != nil {
			return err
		}
	}
}

// try writes the batch once. A new session first asks where the lanes stand: the
// transaction of the one before may have been committed without our hearing of
// it, and the server may be one that lost what was confirmed. Nothing is written
// on top of that: what it lost may be what our change waited for.
func (w *laneWriter) try(ctx context.Context, to change.Place, runs []run) error {
	if w.session == nil {
		believed := w.a.believed()
		s, err := w.a.backend.lane(ctx, w.a.epoch, w.index)
		if err != nil {
			return err
		}
		stand, err := s.places(ctx)
		if err == nil {
			err = notBehind(believed, stand)
		}
		if err != nil {
			s.close()
			return err
		}
		w.session = s
		switch own := stand[w.index]; own {
		case to:
			return nil
		case w.stored:
		default:
			w.close()
			return fmt.Errorf("lane %d stands at %d/%d, not at %d/%d: %w", w.index,
				own.Offset, own.Index, w.stored.Offset, w.stored.Index, errPlace)
		}
	}
	out, err := w.session.write(ctx, w.stored, to, runs)
	if err == nil {
		w.a.count(out)
	}
	return err
}

// believed are the places that the target has confirmed.
func (a *Applier) believed() []change.Place {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]change.Place, len(a.lanes))
	for i, l := range a.lanes {
		out[i] = l.stored
	}
	return out
}

// notBehind compares what is stored now with what was confirmed before.
func notBehind(believed, stand []change.Place) error {
	if len(stand) != len(believed) {
		return fmt.Errorf("%d places are stored for %d lanes: %w", len(stand), len(believed), errPlace)
	}
	for i := range believed {
		if stand[i].Compare(believed[i]) < 0 {
			return fmt.Errorf("lane %d stands at %d/%d and had confirmed %d/%d: %w", i,
				stand[i].Offset, stand[i].Index, believed[i].Offset, believed[i].Index, ErrRegressed)
		}
	}
	return nil
}

// makeRuns puts the batch in the order in which it is written.
func makeRuns(batch []causality.Item[work]) []run {
	split := causality.Runs(batch,
		func(w work) any { return w.route.routing.Name() },
		func(w work) bool { return w.route.free },
		func(a, b work) bool { return a.route == b.route && a.row.Flags == b.row.Flags })
	runs := make([]run, len(split))
	for i, items := range split {
		runs[i].route = batch[items[0]].Work.route
		runs[i].rows = make([]change.Row, len(items))
		for j, at := range items {
			runs[i].rows[j] = batch[at].Work.row
		}
	}
	return runs
}
