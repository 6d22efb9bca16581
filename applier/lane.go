package applier

import (
	"context"
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
	rows      int64   // durable
	rate      float64 // rows a second, of late
	counted   int64   // rows when rate was last brought up to date
	size      batchSize
	idle      time.Time    // when it last became free
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
		var err error
		if p := batch[0].Work.parts(); p != nil {
			err = w.stream(ctx, p)
		} else {
			err = w.write(ctx, batch)
		}
		if err != nil {
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
		if !a.brake.open() {
			a.mu.Unlock()
			a.brake.wait(ctx)
			a.mu.Lock()
			continue
		}
		if l.blockedBy < 0 && a.mayLinger(index) {
			a.linger(ctx, index)
		}
		var batch []causality.Item[work]
		limits := causality.Limits{Rows: a.brake.rows(a.uneven(l.size.rows(a.cfg.BatchRows))), Cost: a.cfg.BatchBytes}
		batch, l.blockedBy = a.sched.Take(index, limits)
		if batch != nil {
			a.wakeNext()
			a.brake.took(rowsOf(batch))
			return batch
		}
		if l.blockedBy >= 0 {
			a.lanes[l.blockedBy].wake.Signal() // it may be lingering
		}
		l.wake.Wait()
	}
	return nil
}

// mayLinger: the lane has a little work, nobody is waiting for it, and it is
// busy enough that gathering more saves something. A lane that had nothing to do
// writes at once, and groups that are committed in order grow meanwhile anyway.
func (a *Applier) mayLinger(index int) bool {
	n, me := a.sched.Pending(index), a.lanes[index]
	if a.cfg.BatchDelay <= 0 || a.mode == causality.Ordered || a.drain || n == 0 || n >= me.size.rows(a.cfg.BatchRows) ||
		a.sched.Load() > a.cfg.WindowBytes/2 || time.Since(me.idle) > me.size.took {
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
	t := time.AfterFunc(min(a.cfg.BatchDelay, l.size.took/2+time.Microsecond), func() {
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

// wakeNext wakes a lane that could take something and does not know; mu is held.
func (a *Applier) wakeNext() {
	if next := a.sched.Next(); next >= 0 {
		a.lanes[next].wake.Signal()
	}
}

// turn waits until the lane may commit what it holds: true. With a limit it
// gives up, false, when no lane has committed anything for so long.
func (a *Applier) turn(ctx context.Context, index int, limit time.Duration) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, low, over := a.lanes[index], a.sched.Low(), false
	var t *time.Timer // nil without a limit
	for !a.sched.Turn(index) {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		switch now := a.sched.Low(); {
		case limit == 0:
		case t == nil:
			t = time.AfterFunc(limit, func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				over = true
				l.wake.Broadcast()
			})
			defer t.Stop()
		case now != low:
			low, over = now, false
			t.Reset(limit)
		case over:
			return false, nil
		}
		l.wake.Wait()
	}
	return true, nil
}

func rowsOf(batch []causality.Item[work]) (n int) {
	for i := range batch {
		n += batch[i].Rows()
	}
	return n
}

// done records that the lane's batch is durable and wakes who waits for that.
func (a *Applier) done(index int, batch []causality.Item[work]) {
	rows := rowsOf(batch)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sched.Done(index)
	l, end := a.lanes[index], batch[len(batch)-1]
	l.batches++
	l.idle = time.Now()
	l.stored = end.Place
	n := int64(rows)
	if p := end.Work.parts(); p != nil { // it was alone
		a.sched.Raise(p.end)
		l.stored = p.end
		n = p.rows
		close(p.done)
	}
	l.rows += n
	a.state.rows += n
	for _, other := range a.lanes {
		if other.blockedBy == index || a.mode == causality.Ordered {
			other.wake.Broadcast()
		}
	}
	a.room.Broadcast()
}
