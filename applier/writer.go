package applier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// laneWriter writes batches over one session after the other. It belongs to the
// lane's goroutine.
type laneWriter struct {
	a       *Applier
	index   int
	stored  change.Place // the lane's place on the target, as far as we know
	session laneSession  // nil: to be opened
	space   gathering
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
	runs := w.space.items(batch)
	defer w.space.forget()
	var b backoff
	for tries := 0; ; tries++ {
		err := w.try(ctx, tries, to, runs)
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

// within gives f the time that a try may take.
func within(ctx context.Context, tries int, f func(context.Context) error) error {
	hurry, cancel := context.WithTimeoutCause(ctx, patience(tries), errSlow)
	defer cancel()
	err := f(hurry)
	if err != nil && errors.Is(context.Cause(hurry), errSlow) {
		err = fmt.Errorf("%w: %w", errSlow, err)
	}
	return err
}

// try writes the batch once: all of it up to the commit, then that, when it is
// the lane's turn. A batch whose turn does not come while no other is committed
// is undone meanwhile: the one that is stuck may be waiting for its locks, or for
// a person, who should find none.
func (w *laneWriter) try(ctx context.Context, tries int, to change.Place, runs []run) error {
	var out target.Outcome
	var took time.Duration
	for {
		durable := false
		err := within(ctx, tries, func(ctx context.Context) (err error) {
			if durable, err = w.open(ctx, to); err != nil || durable {
				return err
			}
			began := time.Now()
			out, err = w.session.batch(ctx, w.stored, to, runs)
			took = time.Since(began)
			return err
		})
		if err != nil || durable {
			return err
		}
		ours, err := w.a.turn(ctx, w.index, stallPatience)
		if err != nil {
			return err
		}
		if ours {
			break
		}
		if err := within(ctx, tries, w.session.rollback); err != nil {
			return err
		}
		if _, err := w.a.turn(ctx, w.index, 0); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := within(ctx, tries, w.session.commit); err != nil {
		return err
	}
	w.a.wrote(w.index, out, took+time.Since(began))
	return nil
}

// stallPatience is how long a batch may wait for its turn, with its locks, while
// no other is committed.
const stallPatience = 500 * time.Millisecond

// open makes sure of a session. A new one first asks where the lanes stand: the
// transaction of the one before may have been committed without our hearing of
// it (durable), and the server may be one that lost what was confirmed. Nothing
// is written on top of that: what it lost may be what our change waited for.
func (w *laneWriter) open(ctx context.Context, to change.Place) (durable bool, err error) {
	if w.session != nil {
		return false, nil
	}
	w.a.mu.Lock()
	believed := w.a.believed()
	w.a.mu.Unlock()
	s, err := w.a.backend.lane(ctx, w.a.epoch, w.index)
	if err != nil {
		return false, err
	}
	stand, err := s.standing(ctx)
	if err == nil {
		err = notBehind(believed, stand)
	}
	if err != nil {
		s.close()
		return false, err
	}
	w.session = s
	switch own := stand.lanes[w.index]; own {
	case to:
		return true, nil
	case w.stored:
		return false, nil
	default:
		w.close()
		return false, fmt.Errorf("lane %d stands at %d/%d, not at %d/%d: %w", w.index,
			own.Offset, own.Index, w.stored.Offset, w.stored.Index, errPlace)
	}
}

// believed is what the target has confirmed; a.mu is held.
func (a *Applier) believed() standing {
	out := standing{make([]change.Place, len(a.lanes)), a.mode.Version()}
	for i, l := range a.lanes {
		out.lanes[i] = l.stored
	}
	return out
}

// notBehind compares what is stored now with what was confirmed before, by the same
// owner: nobody else changes how many lanes there are, or by which rules they are filled.
func notBehind(believed, stand standing) error {
	if len(stand.lanes) != len(believed.lanes) || stand.routing != believed.routing {
		return fmt.Errorf("%d places by the rules %d are stored, and there had been %d by the rules %d: %w",
			len(stand.lanes), stand.routing, len(believed.lanes), believed.routing, ErrRegressed)
	}
	for i := range believed.lanes {
		if at, was := stand.lanes[i], believed.lanes[i]; at.Compare(was) < 0 {
			return fmt.Errorf("lane %d stands at %d/%d and had confirmed %d/%d: %w", i, at.Offset, at.Index, was.Offset, was.Index, ErrRegressed)
		}
	}
	return nil
}

// gathering is what a lane puts its batches together in, one after the other.
type gathering struct {
	all   []gatheredRow // in log order
	of    []int32       // the run of each
	runs  []run
	rows  []change.Row // of all runs, as are the marks
	marks []mark
}

// gatheredRow is a row of some work.
type gatheredRow struct {
	*work
	at int
}

func (r gatheredRow) row() *change.Row { return &r.rows[r.at] }

// items gathers a batch.
func (g *gathering) items(batch []causality.Item[work]) []run {
	g.all = g.all[:0]
	for i := range batch {
		w := &batch[i].Work
		if g.add(w); w.more != nil {
			for k := range w.more.rest {
				g.add(&w.more.rest[k])
			}
		}
	}
	return g.sort()
}

// part gathers a part of a transaction.
func (g *gathering) part(rows []work) []run {
	g.all = g.all[:0]
	for i := range rows {
		g.add(&rows[i])
	}
	return g.sort()
}

func (g *gathering) add(w *work) {
	for i := range w.rows {
		g.all = append(g.all, gatheredRow{w, i})
	}
}

// sort puts rows in the order in which they are written. The runs are valid
// until forget, or until the next batch.
func (g *gathering) sort() []run {
	var n int
	g.of, n = causality.Runs(g.of[:0], g.all,
		func(r gatheredRow) schema.Name { return r.route.routing.Name() },
		func(r gatheredRow) bool { return r.route.free },
		func(a, b gatheredRow) bool { return a.route == b.route && a.row().Flags == b.row().Flags })
	counts := make([]int, n)
	for _, r := range g.of {
		counts[r]++
	}
	g.rows, g.marks = slices.Grow(g.rows[:0], len(g.all)), slices.Grow(g.marks[:0], len(g.all))
	g.runs = slices.Grow(g.runs[:0], n)
	at := 0
	for _, c := range counts {
		g.runs = append(g.runs, run{rows: g.rows[at : at : at+c], marks: g.marks[at : at : at+c]})
		at += c
	}
	for i, w := range g.all {
		r := &g.runs[g.of[i]]
		r.route, r.rows, r.marks = w.route, append(r.rows, *w.row()), append(r.marks, w.origin(w.at))
	}
	return g.runs
}

// forget lets go of the rows.
func (g *gathering) forget() {
	n := len(g.all)
	clear(g.all)
	clear(g.runs)
	clear(g.rows[:n])
	clear(g.marks[:n])
}
