package applier

import (
	"context"
	"errors"
	"fmt"

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
		var part []work
		var open bool
		select {
		case part, open = <-p.queue:
		case <-ctx.Done():
			w.close()
			return context.Cause(ctx)
		}
		if !open {
			break
		}
		w.a.brake.wait(ctx)
		w.a.brake.took(len(part))
		var o target.Outcome
		err := within(ctx, streamTries, func(ctx context.Context) (err error) {
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
		if err := w.session.move(ctx, w.stored, p.end); err != nil {
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
			return w.session.move(ctx, w.stored, w.stored)
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
