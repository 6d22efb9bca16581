package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// recover ends the open segment of the owner before, if there is one, and opens
// the next one.
func (o *opening) recover(ctx context.Context, core *quorum.Recovery) (quorum.Advance, error) {
	d := *core.Descriptor()
	ctx, cancel := context.WithCancel(ctx)
	r := &recovery{
		opening: o, core: core, desc: d, events: make(chan func(), 2*len(d.Members)+2),
		sealing: map[int]bool{}, copying: map[int]bool{}, failed: map[int]error{}, lsos: map[int]log.Offset{}, began: time.Now(),
	}
	defer r.workers.Wait()
	defer cancel()
	a, err := r.run(ctx)
	if err != nil || a.Close == nil {
		return a, err
	}
	o.client.stats.recoveries.Add(1)
	o.client.cfg.Logger.Info().Str("stream", d.Stream).Uint32("segment", d.Segment).Uint64("epoch", uint64(o.epoch)).
		Int64("last", int64(a.Close.Last)).Dur("took", time.Since(r.began)).Msg("log stream is recovered")
	return a, nil
}

// recovery drives the step machine: run's goroutine owns all of it, workers send
// it what happened.
type recovery struct {
	*opening
	core    *quorum.Recovery
	desc    quorum.Descriptor
	began   time.Time
	workers sync.WaitGroup
	// events are applied by run. Owner: the recovery; bound: two per member, the
	// workers there can be; never closed.
	events   chan func()
	sealing  map[int]bool       // members that are asked now
	copying  map[int]bool       // members that are copied to now
	failed   map[int]error      // why a member did not answer, for the error
	lsos     map[int]log.Offset // newest end of a transaction on each sealed member
	looking  bool               // the outlook is being refreshed
	looked   bool               // it is good enough to decide
	lookedAt time.Time
	proposed bool   // an Advance whose outcome is not known
	blocked  string // why there is no end yet
}

// graceAfter is how long a recovery waits for members that could spare the
// stream a segment below its rule.
const graceAfter = 3 * time.Second

// run until the next segment is open; it returns what the metadata took.
func (r *recovery) run(ctx context.Context) (quorum.Advance, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		r.start(ctx)
		if err := r.core.Err(); err != nil {
			return quorum.Advance{}, err
		}
		if a, done, err := r.decide(ctx); err != nil || done {
			return a, err
		}
		select {
		case event := <-r.events:
			event()
		case <-tick.C:
		case <-ctx.Done():
			return quorum.Advance{}, r.why(ctx)
		}
	}
}

// decide does what the machine says. done: the next segment is open.
func (r *recovery) decide(ctx context.Context) (a quorum.Advance, done bool, err error) {
	var plan *quorum.Plan
	if !r.proposed {
		if !r.looked {
			return a, false, nil
		}
		move := r.core.Decide(time.Since(r.began), &r.outlook.view, graceAfter)
		switch move.Verb {
		case quorum.Roll:
			plan = &move.Plan
		case quorum.Degrade, quorum.Restore:
			res, err := r.client.do(ctx, meta.Command{Degrade: &meta.Degrade{
				Stream: r.stream, City: move.City, Off: move.Verb == quorum.Restore, Reason: move.Reason,
			}})
			if err == nil && res.Stream != nil {
				r.outlook.learn(res.Stream)
			}
			return a, false, nil // it is decided again
		default:
			if move.Verb == quorum.Blocked {
				r.blocked = move.Reason
			}
			if time.Since(r.lookedAt) > lookEvery {
				r.looked = false
			}
			return a, false, nil
		}
	}
	if a, err = r.core.Propose(plan, r.outlook.stream.Generation); err != nil {
		return a, false, err
	}
	outcome, err := r.client.advance(ctx, a, r.forced(a))
	if outcome == quorum.Refused && !again(err) {
		return a, false, err
	}
	r.proposed = outcome == quorum.Unknown
	if outcome != quorum.Done {
		r.blocked, r.looked = "the metadata does not take the end of the segment: "+err.Error(), false
	}
	if coreErr := r.core.Outcome(outcome); coreErr != nil {
		return a, false, errors.Join(coreErr, err)
	}
	return a, r.core.Finished(), nil
}

// lookEvery is how often a recovery that is held up looks who is there.
const lookEvery = 300 * time.Millisecond

// why no end was found.
func (r *recovery) why(ctx context.Context) error {
	errs := []error{ctx.Err()}
	for i, err := range r.failed {
		errs = append(errs, fmt.Errorf("node %s: %w", r.desc.Members[i].Node, err))
	}
	what := r.blocked
	if what == "" {
		what = "too few nodes answer"
	}
	return fmt.Errorf("segment %d: %s: %w: %w", r.desc.Segment, what, log.ErrUnavailable, errors.Join(errs...))
}

// start sets workers to what the machine wants.
func (r *recovery) start(ctx context.Context) {
	wanted := r.core.Wanted()
	for i := range r.desc.Members {
		if wanted>>i&1 == 1 && !r.sealing[i] {
			r.sealing[i] = true
			r.workers.Go(func() { r.seal(ctx, i) })
		}
	}
	for _, c := range r.core.Copies() {
		if !r.copying[c.To] {
			r.copying[c.To] = true
			lso := r.lsos[c.To]
			r.workers.Go(func() { r.copy(ctx, c, lso) })
		}
	}
	if !r.looked && !r.looking {
		r.looking = true
		r.workers.Go(func() {
			o := r.outlook
			o.refresh(ctx, nil)
			r.send(ctx, func() {
				o.learn(&r.outlook.stream) // a command's result may be newer
				r.outlook, r.looking, r.looked, r.lookedAt = o, false, true, time.Now()
			})
		})
	}
}

func (r *recovery) send(ctx context.Context, event func()) {
	select {
	case r.events <- event:
	case <-ctx.Done():
	}
}

// seal asks one member, once; a short while later it may be asked again.
func (r *recovery) seal(ctx context.Context, i int) {
	sealed, err := r.sealOne(ctx, r.desc.Members[i])
	if err != nil && ctx.Err() == nil {
		t := time.NewTimer(100 * time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	r.send(ctx, func() {
		delete(r.sealing, i)
		delete(r.failed, i)
		switch {
		case err == nil:
			r.lsos[i] = sealed.LSO
			_ = r.core.Sealed(i, sealed) // the machine keeps its error
			return
		case errors.Is(err, log.ErrFenced):
			_ = r.core.Fenced()
		case errors.Is(err, log.ErrSuspect):
			r.core.Suspect(i)
		case errors.Is(err, log.ErrIdentity):
			r.core.Foreign(i)
		default:
			r.core.Broken(i)
		}
		r.failed[i] = err
	})
}

func (r *recovery) sealOne(ctx context.Context, m quorum.Member) (quorum.Sealed, error) {
	s, err := r.dial(ctx, m)
	if err != nil {
		return quorum.Sealed{}, err
	}
	defer s.close()
	var reply wire.Sealed
	err = r.client.within(ctx, s, func(ctx context.Context) error {
		if err := s.Send(&wire.Seal{Descriptor: r.desc, Epoch: r.epoch}); err != nil {
			return err
		}
		return s.Expect(ctx, &reply)
	})
	return quorum.Sealed{
		Last: reply.Last, LAC: reply.LAC, LSO: reply.LSO, Closed: reply.Closed, End: reply.End, EndLSO: reply.EndLSO,
	}, err
}

// dial finds a member by its registration.
func (r *recovery) dial(ctx context.Context, m quorum.Member) (*session, error) {
	address, err := r.client.book.address(ctx, m)
	if err != nil {
		return nil, err
	}
	return r.client.dialMember(ctx, address, m)
}

// tellClose tells one member about the end of its segment.
func (c *Client) tellClose(ctx context.Context, m quorum.Member, a quorum.Advance) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RollAfter)
	defer cancel()
	address, err := c.book.address(ctx, m)
	if err == nil {
		err = c.request(ctx, address, &wire.Close{Stream: a.Stream, Segment: a.Close.Segment, Last: a.Close.Last, LSO: a.Close.LSO}, &wire.Done{})
	}
	if err != nil {
		c.cfg.Logger.Debug().Err(err).Str("stream", a.Stream).Uint32("segment", a.Close.Segment).Str("node", m.Node).
			Msg("log node was not told where a segment ended; the metadata will")
	}
}
