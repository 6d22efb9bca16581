package applier

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Throttle keeps the applier from taking more of the target than it should. A
// zero field sets no limit. What is held back waits in the log.
type Throttle struct {
	// RowsPerSecond bounds the row changes written, over all lanes.
	RowsPerSecond int `json:"rows_per_second"`
	// ReplicaLag: nothing is written while a replica of the target is behind by more.
	ReplicaLag time.Duration `json:"replica_lag"`
	// Replicas are asked for their lag, as host:port; empty: those that the
	// target knows. One that does not answer, or does not replicate, is left out.
	Replicas []string `json:"replicas,omitempty"`
	// ThreadsRunning: nothing is written while the target has more threads at
	// work (Threads_running, ours among them).
	ThreadsRunning int `json:"threads_running"`
}

// load is what the target has to bear.
type load struct {
	threads int
	lag     time.Duration // of the replica that is the furthest behind
	behind  string        // that one
	asked   int           // replicas that answered
	silent  string        // one that did not, and why
}

// brake holds lanes back before they take work.
type brake struct {
	mu      sync.Mutex
	limits  Throttle
	next    time.Time     // from when on more rows may be written
	pause   string        // why nothing is written; "": it is
	since   time.Time     // of pause
	paused  time.Duration // in all, without the present one
	changed chan struct{} // owner: brake; closed and replaced at every change
	seen    load
	trouble string // why the target's load is not known
}

func (b *brake) set(t Throttle) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits, b.next = t, time.Time{}
	b.resume()
	b.trouble = ""
	b.tell()
}

// tell makes every waiter look again; mu is held.
func (b *brake) tell() {
	if b.changed != nil {
		close(b.changed)
	}
	b.changed = make(chan struct{})
}

func (b *brake) resume() {
	if b.pause != "" {
		b.paused += time.Since(b.since)
		b.pause = ""
	}
}

func (b *brake) throttle() Throttle {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limits
}

// open: something may be written now.
func (b *brake) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pause == "" && (b.next.IsZero() || !time.Now().Before(b.next))
}

// wait returns when something may be written, or ctx ends.
func (b *brake) wait(ctx context.Context) { b.waitTill(ctx, nil) }

// waitTill is wait, but answers false where the beat comes first.
func (b *brake) waitTill(ctx context.Context, beat <-chan time.Time) bool {
	for ctx.Err() == nil {
		b.mu.Lock()
		pause, changed, rest := b.pause, b.changed, time.Until(b.next)
		b.mu.Unlock()
		if pause == "" && rest <= 0 {
			return true
		}
		if pause != "" {
			rest = time.Hour
		}
		t := time.NewTimer(rest)
		beaten := false
		select {
		case <-t.C:
		case <-changed:
		case <-beat:
			beaten = true
		case <-ctx.Done():
		}
		if t.Stop(); beaten {
			return false
		}
	}
	return true
}

// took books rows that are about to be written.
func (b *brake) took(rows int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limits.RowsPerSecond <= 0 {
		return
	}
	if now := time.Now(); b.next.Before(now) {
		b.next = now
	}
	b.next = b.next.Add(time.Duration(float64(rows) / float64(b.limits.RowsPerSecond) * float64(time.Second)))
}

// rows bounds a batch to what may be written in a tenth of a second, so that
// what is let through comes evenly.
func (b *brake) rows(limit int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.limits.RowsPerSecond; r > 0 {
		return max(1, min(limit, r/10))
	}
	return limit
}

// saw takes in the target's load.
func (b *brake) saw(l load, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	why, t := "", b.limits
	b.seen, b.trouble = l, ""
	switch {
	case err != nil:
		b.trouble = err.Error() // who can't be asked is no reason to stop
	case t.ThreadsRunning > 0 && l.threads > t.ThreadsRunning:
		why = fmt.Sprintf("%d threads run on the target, more than %d", l.threads, t.ThreadsRunning)
	case t.ReplicaLag > 0 && l.lag > t.ReplicaLag:
		why = fmt.Sprintf("replica %s is %s behind, more than %s", l.behind, l.lag, t.ReplicaLag)
	case t.ReplicaLag > 0 && l.asked == 0 && l.silent == "":
		b.trouble = "the target knows no replica: name them in apply.throttle.replicas, or set report_host on them"
	}
	if err == nil && l.silent != "" {
		b.trouble = "replica " + l.silent
	}
	switch {
	case why == "" && b.pause == "":
		return
	case why == "":
		b.resume()
	case b.pause == "":
		b.since = time.Now()
	}
	b.pause = why
	b.tell()
}

// Throttling is the state of the throttle.
type Throttling struct {
	Throttle
	// Paused says why nothing is written just now.
	Paused string `json:"paused,omitempty"`
	// PausedSeconds is how long nothing was written for its sake, in all.
	PausedSeconds float64 `json:"paused_seconds"`
	// Threads and Lag are as last seen, where they are limited.
	Threads int           `json:"threads_running_now,omitempty"`
	Lag     time.Duration `json:"replica_lag_now,omitempty"`
	// Trouble says why a limit can't be kept.
	Trouble string `json:"trouble,omitempty"`
}

func (b *brake) status() Throttling {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := Throttling{Throttle: b.limits, Paused: b.pause, Threads: b.seen.threads, Lag: b.seen.lag, Trouble: b.trouble}
	all := b.paused
	if b.pause != "" {
		all += time.Since(b.since)
	}
	t.PausedSeconds = all.Seconds()
	return t
}

// SetThrottle replaces the limits, for as long as the Applier lives. May be
// called at any time from any goroutine.
func (a *Applier) SetThrottle(t Throttle) { a.brake.set(t) }

// loadInterval is how often the target's load is looked at.
const loadInterval = time.Second

// watchTarget looks at the target's load while it is limited, and counts rows,
// until ctx ends.
func (a *Applier) watchTarget(ctx context.Context) error {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		a.mu.Lock()
		for _, l := range a.lanes {
			l.rate += (float64(l.rows-l.counted)/loadInterval.Seconds() - l.rate) / 4
			l.counted = l.rows
		}
		a.mu.Unlock()
		t := a.brake.throttle()
		if t.ReplicaLag <= 0 && t.ThreadsRunning <= 0 {
			continue
		}
		hurry, cancel := context.WithTimeout(ctx, 5*loadInterval)
		l, err := a.backend.load(hurry, t)
		cancel()
		if ctx.Err() == nil {
			a.brake.saw(l, err)
		}
	}
}
