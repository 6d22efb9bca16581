package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// prepare makes the seats of a segment and has them connect. They attach when
// they are seated.
func (w *writer) prepare(d *quorum.Descriptor) []*seat {
	var out []*seat
	for i, m := range d.Members {
		s := &seat{
			w: w, index: i, member: m, segment: *d, begin: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1),
			next: d.First, lac: log.None,
		}
		out = append(out, s)
		w.loops.Go(s.run)
	}
	return out
}

// sitLocked makes seats the present ones.
func (w *writer) sitLocked(seats []*seat) {
	for _, s := range w.seats {
		s.leaveLocked()
	}
	w.seats = seats
	for _, s := range seats {
		close(s.begin)
	}
}

// manage moves the writer from segment to segment, and ends it.
func (w *writer) manage() {
	defer close(w.managed)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.loops.Go(func() {
		select {
		case <-w.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	tick := time.NewTicker(max(w.client.cfg.RollAfter/8, time.Millisecond))
	defer tick.Stop()
	for ctx.Err() == nil {
		if w.step(ctx) {
			return
		}
		select {
		case <-w.look:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// step does one thing, if there is one to do. done: the writer is finished.
func (w *writer) step(ctx context.Context) (done bool) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return true
	}
	doubt := w.doubt
	w.mu.Unlock()
	if doubt {
		w.checkOwner(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return true
	}
	if w.closing && w.core.Confirmed() == w.core.Next()-1 {
		a, err := w.core.Finish()
		if err == nil {
			w.advanceLocked(ctx, a)
		}
		return w.core.Err() != nil || ctx.Err() != nil
	}
	w.viewLocked()
	move := w.core.Decide(w.now(), &w.outlook.view)
	w.blocked = ""
	switch move.Verb {
	case quorum.Roll:
		a, err := w.core.Roll(move.Plan, w.outlook.stream.Generation)
		if err != nil {
			w.client.cfg.Logger.Warn().Err(err).Str("stream", w.stream).Msg("log writer cannot roll")
			return false
		}
		w.advanceLocked(ctx, a)
	case quorum.Degrade, quorum.Restore:
		w.degradeLocked(ctx, move)
	case quorum.Blocked:
		w.blocked = move.Reason
		for _, s := range w.seats {
			if s.err != nil {
				w.blocked += "; node " + s.member.Node + ": " + s.err.Error()
			}
		}
	}
	return false
}

// A node that did not take a segment is left alone for a while: its disk may get
// room soon, damage stays.
const (
	refusedFor = 30 * time.Second
	fullFor    = 5 * time.Second
)

func (w *writer) refuseLocked(s *seat) {
	w.core.Refuse(s.index, s.segment.Segment, w.now())
	d := refusedFor
	if errors.Is(s.err, log.ErrFull) {
		d = fullFor
	}
	w.refused[s.member] = w.now() + d
}

// viewLocked brings what the seats know into the view.
func (w *writer) viewLocked() {
	w.outlook.view.Nodes = slices.Clone(w.outlook.view.Nodes)
	for i := range w.outlook.view.Nodes {
		n := &w.outlook.view.Nodes[i]
		if until, ok := w.refused[n.Member]; ok && w.now() < until {
			n.Reachable = false
			continue
		}
		delete(w.refused, n.Member)
		at := slices.IndexFunc(w.seats, func(s *seat) bool { return s.member == n.Member })
		if at < 0 {
			continue
		}
		switch s := w.seats[at]; {
		case w.core.State(at) == quorum.Attached:
			n.Reachable = true
		case s.err != nil && w.core.State(at) != quorum.Out: // it still tries; of the others the probe tells
			n.Reachable = false
		}
	}
}

// checkOwner asks the metadata whether there is a newer epoch, since a node says so.
func (w *writer) checkOwner(ctx context.Context) {
	st, err := within(ctx, w.client.cfg.RequestTimeout, func(ctx context.Context) (meta.Stream, error) { return w.client.meta.Stream(ctx, w.stream) })
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil: // asked again at the next step
	case st.Epoch > w.epoch:
		_ = w.core.Fence() // kept by the machine
		w.coreFailedLocked()
	default:
		w.doubt = false
		w.outlook.learn(&st)
	}
}

// advanceLocked has the metadata take a, however long it takes to know whether it
// did. The lock is released meanwhile.
func (w *writer) advanceLocked(ctx context.Context, a quorum.Advance) {
	members := w.core.Descriptor().Members
	if a.Open != nil {
		w.prepared = w.prepare(a.Open)
	}
	began := time.Now()
	for pause := newPause(); ; {
		w.mu.Unlock()
		outcome, err := w.client.advance(ctx, a, nil)
		w.mu.Lock()
		if w.err != nil {
			return
		}
		more, coreErr := w.core.Outcome(outcome, w.now())
		if more {
			w.confirmedLocked()
			w.trimLocked()
		}
		if coreErr != nil && !(a.Open == nil && outcome == quorum.Done) {
			w.failLocked(errors.Join(coreErr, err))
			return
		}
		switch outcome {
		case quorum.Done:
			if a.Open != nil {
				w.rolls++
				w.sitLocked(w.prepared)
				w.prepared = nil
				w.client.cfg.Logger.Info().Str("stream", w.stream).Uint32("segment", a.Open.Segment).Int64("first", int64(a.Open.First)).
					Strs("members", names(a.Open.Members)).Bool("protected", a.Open.Protected).Str("reason", a.Reason).
					Dur("took", time.Since(began)).Msg("log writer rolled")
			}
			w.tell(a, members)
			return
		case quorum.Refused:
			w.client.cfg.Logger.Warn().Err(err).Str("stream", w.stream).Msg("the metadata does not take a roll of the log writer")
			for _, s := range w.prepared {
				s.leaveLocked()
			}
			w.prepared = nil
			return
		}
		w.mu.Unlock()
		err = pause.wait(ctx)
		w.mu.Lock()
		if err != nil {
			return
		}
	}
}

// tell the members of a segment where it ended. The metadata tells them as well.
func (w *writer) tell(a quorum.Advance, members []quorum.Member) {
	for _, m := range members {
		w.loops.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), w.client.cfg.RollAfter)
			defer cancel()
			if a.Open == nil { // the writer's end waits for this, but not for nodes that are gone
				var less context.CancelFunc
				ctx, less = context.WithTimeout(ctx, finishFor)
				defer less()
			} else {
				w.loops.Go(func() {
					select {
					case <-w.stop:
						cancel()
					case <-ctx.Done():
					}
				})
			}
			w.client.tellClose(ctx, m, a)
		})
	}
}

// finishFor is how long a writer's end waits for members to hear of it.
const finishFor = 300 * time.Millisecond

// finish waits for the manager to end the segment, within reason.
func (w *writer) finish() {
	signal(w.look)
	t := time.NewTimer(min(w.client.cfg.RequestTimeout, 2*w.client.cfg.RollAfter))
	defer t.Stop()
	select {
	case <-w.managed:
	case <-t.C:
	case <-w.client.closed:
	}
}

// degradeLocked has the metadata do without a city, or not any more. The lock is
// released meanwhile.
func (w *writer) degradeLocked(ctx context.Context, move quorum.Move) {
	w.mu.Unlock()
	res, err := within(ctx, w.client.cfg.RequestTimeout, func(ctx context.Context) (meta.Result, error) {
		return w.client.do(ctx, meta.Command{Degrade: &meta.Degrade{
			Stream: w.stream, City: move.City, Off: move.Verb == quorum.Restore, Reason: move.Reason,
		}})
	})
	w.mu.Lock()
	event := w.client.cfg.Logger.Warn()
	if err != nil {
		event.Err(err).Str("stream", w.stream).Str("city", move.City).Msg("the metadata does not take a change of the log's protection")
		return
	}
	if res.Stream != nil {
		w.outlook.learn(res.Stream)
	}
	w.degraded++
	signal(w.look)
	event.Str("stream", w.stream).Str("city", move.City).Bool("restored", move.Verb == quorum.Restore).Str("reason", move.Reason).
		Msg("the log's protection changes")
}

// probeEvery is how often a writer looks which nodes there are.
const probeEvery = time.Second

// probe keeps the outlook fresh.
func (w *writer) probe() {
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-w.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	tick := time.NewTicker(min(probeEvery, w.client.cfg.RollAfter/2))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		known := map[string]bool{}
		w.mu.Lock()
		o := w.outlook
		for i, s := range w.seats {
			if w.core.State(i) == quorum.Attached {
				known[s.member.Node] = true
			}
		}
		w.mu.Unlock()
		o.refresh(ctx, known)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		o.learn(&w.outlook.stream) // a command's result may be newer
		w.outlook = o
		w.mu.Unlock()
		signal(w.look)
	}
}
