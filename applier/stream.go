package applier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
)

// ErrInterrupted: a transaction that was too large to be kept in memory did not
// get to its end on the target. Run ends with an *Interrupted, and a new Applier
// reads the transaction from the log again.
var ErrInterrupted = errors.New("a large transaction was interrupted; it is read from the log again")

// Interrupted is ErrInterrupted with its reason.
type Interrupted struct {
	// Halt is set when the reason needs a person.
	Halt *Halt
	Err  error
}

func (e *Interrupted) Error() string { return ErrInterrupted.Error() + ": " + e.Err.Error() }

// Unwrap gives ErrInterrupted and the reason.
func (e *Interrupted) Unwrap() []error { return []error{ErrInterrupted, e.Err} }

func interrupted(p change.Place, err error) error {
	if final(err) {
		return err
	}
	e := &Interrupted{Err: err}
	if t := assess(err); t.code != "" {
		e.Halt = &Halt{Code: t.code, Reason: err.Error(), Remedy: t.remedy, Place: p}
	}
	return e
}

// parts is a transaction on its way from the feeder to the lane that writes it,
// while nothing else is under way.
type parts struct {
	first change.Place
	queue chan []work // owner: the feeder; bound 1; closed by the feeder behind the last part
	// end is the transaction's end, and rows how many there were; set before
	// the channel is closed.
	end  change.Place
	rows int64
	done chan struct{} // owner: the lane; closed when the transaction is durable
}

// alone: a transaction is being written as it is read. All before it is durable and
// recorded so, nothing behind it is read before it is durable, and its own rows are
// in one lane, in order. So whatever else has to drain the lanes need not, and must
// not: it would wait for rows that it is to feed. A crash finds no lane beyond the
// floor, or all of the transaction durable, whose lane its first row tells. Of the
// feeding goroutine.
func (a *Applier) alone() bool { return a.whole.parts != nil }

// stream writes a transaction as its parts come, in one of the target. What was
// written is not kept: what goes wrong ends Run.
func (w *laneWriter) stream(ctx context.Context, p *parts) error {
	err := w.streamed(ctx, p)
	if err == nil {
		w.stored = p.end
		w.a.note(w.index, nil, p.end, "apply")
		return nil
	}
	if ctx.Err() != nil && !final(err) {
		return context.Cause(ctx)
	}
	return interrupted(p.first, err)
}

func (w *laneWriter) streamed(ctx context.Context, p *parts) error {
	if err := w.begin(ctx, p); err != nil {
		return err
	}
	for {
		part, open, err := w.next(ctx, p)
		if err != nil {
			w.close()
			return err
		}
		if !open {
			break
		}
		w.a.brake.took(len(part))
		var o target.Outcome
		err = within(ctx, streamTries, func(ctx context.Context) (err error) {
			o, err = w.session.apply(ctx, w.space.part(part))
			return err
		})
		w.space.forget()
		if err != nil {
			w.close()
			return err
		}
		w.a.count(o)
	}
	err := within(ctx, streamTries, func(ctx context.Context) error {
		if err := w.session.move(ctx, p.first, p.end); err != nil {
			if errors.Is(err, errPlace) { // it locked the place, and nobody else could have changed it
				err = fmt.Errorf("%w: its lane's place is not %d/%d", errUndone, p.first.Offset, p.first.Index)
			}
			return err
		}
		return w.session.commit(ctx)
	})
	if err == nil {
		return nil
	}
	// Perhaps it was committed: then there is nothing to read again.
	w.close()
	durable := false
	if e := within(ctx, 0, func(ctx context.Context) (err error) {
		durable, err = w.open(ctx, p.end)
		return err
	}); e != nil || !durable {
		return errors.Join(err, e)
	}
	return nil
}

// next waits for the next part and until the throttle lets it through, however
// long either takes: the transaction's session is kept from looking like one of an
// owner that stands still. open is false behind the last part.
func (w *laneWriter) next(ctx context.Context, p *parts) (part []work, open bool, err error) {
	beat := time.NewTicker(time.Duration(w.a.cfg.leaseSeconds()) * time.Second / 4)
	defer beat.Stop()
	for got := false; !got; {
		select {
		case part, open = <-p.queue:
			got = true
		case <-beat.C:
			err = w.alive(ctx)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil || got && !open {
			return nil, false, err
		}
	}
	for err == nil && !w.a.brake.waitTill(ctx, beat.C) {
		err = w.alive(ctx)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return part, true, err
}

// alive tells the target that the open transaction is not given up. While the feeder
// waits for a person it is not told: what he does to the target's tables may have to
// wait for the transaction, which ends with the lease then.
func (w *laneWriter) alive(ctx context.Context) error {
	w.a.mu.Lock()
	n := w.a.state.notes[dispatcherSlot]
	halted := n != nil && n.halt != nil
	w.a.mu.Unlock()
	if halted {
		return nil
	}
	return within(ctx, 0, w.session.alive)
}

// streamTries gives the statements of a large transaction, and its commit, as
// long as a try ever gets.
const streamTries = 5

// begin opens the transaction, as often as it takes: nothing of it is read yet.
func (w *laneWriter) begin(ctx context.Context, p *parts) error {
	var b backoff
	for tries := 0; ; tries++ {
		err := within(ctx, tries, func(ctx context.Context) error {
			if _, err := w.open(ctx, w.stored); err != nil {
				return err
			}
			// To its first row for now: whoever finds the place elsewhere behind
			// the last one is in another transaction.
			return w.session.move(ctx, w.stored, p.first)
		})
		if err == nil || final(err) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		w.a.note(w.index, err, p.first, "apply")
		if w.session != nil && !w.session.reset(ctx, err) {
			w.close()
		}
		if err := b.wait(ctx, nil); err != nil {
			return err
		}
	}
}

// hand gives the lane the next part of a transaction.
func (a *Applier) hand(ctx context.Context, p *parts, rows []work) error {
	select {
	case p.queue <- rows:
		p.rows += int64(len(rows))
		return nil
	case <-a.ended:
		return fmt.Errorf("applier of stream %s: %w", a.cfg.Stream, log.ErrClosed)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// finish tells the lane that there is no more, and waits until it is durable.
func (a *Applier) finish(ctx context.Context, p *parts, end change.Place) error {
	p.end = end
	close(p.queue)
	select {
	case <-p.done:
		return nil
	case <-a.ended:
		return fmt.Errorf("applier of stream %s: %w", a.cfg.Stream, log.ErrClosed)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
