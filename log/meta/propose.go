package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinspan/twinspan/log"
)

// enqueueFor bounds how long a proposal waits for Raft to take it.
const enqueueFor = time.Second

// propose brings a command to the pump and waits for what comes of it.
func (s *Server) propose(ctx context.Context, c Command) (Result, error) {
	r := s.running()
	if r == nil {
		return Result{}, fmt.Errorf("metadata: not running: %w", log.ErrUnavailable)
	}
	if r.State() != raft.Leader {
		return Result{}, s.notLeader(r)
	}
	p := proposal{command: c, answer: make(chan answer, 1)}
	select {
	case s.proposals <- p:
	case <-s.done:
		return Result{}, fmt.Errorf("metadata: ended: %w", log.ErrUnavailable)
	case <-ctx.Done():
		return Result{}, fmt.Errorf("metadata: %w: %w", log.ErrUnavailable, ctx.Err())
	}
	select {
	case a := <-p.answer:
		return a.result, a.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("metadata: %w: %w", log.ErrUnknown, ctx.Err())
	case <-s.done:
	}
	select {
	case a := <-p.answer:
		return a.result, a.err
	default:
		return Result{}, fmt.Errorf("metadata: ended: %w", log.ErrUnknown)
	}
}

func (s *Server) notLeader(r *raft.Raft) error {
	if a := s.leaderAddress(r); a != s.address {
		return &NotLeader{Address: a}
	}
	return &NotLeader{}
}

type underway struct {
	proposal
	future raft.ApplyFuture
}

// pump gives proposals to Raft, in order and without waiting for the one before;
// a second goroutine hands out what comes of them.
func (s *Server) pump(ctx context.Context, r *raft.Raft) {
	futures := make(chan underway, queueMax) // owner: this function, which closes it
	done := make(chan struct{})
	go func() {
		defer close(done)
		for u := range futures {
			u.answer <- s.outcome(r, u.future)
		}
	}()
	defer func() {
		close(futures)
		<-done
		for {
			select {
			case p := <-s.proposals:
				p.answer <- answer{err: fmt.Errorf("metadata: ended: %w", log.ErrUnavailable)}
			default:
				return
			}
		}
	}()
	var clock clock
	for {
		var p proposal
		select {
		case p = <-s.proposals:
		case <-ctx.Done():
			return
		}
		v, _ := s.Local()
		p.command.Now = clock.now(v.now)
		if f := p.command.Forget; f != nil && f.Force {
			p.answer <- answer{err: fmt.Errorf("forget node %q by force: name the segments that may be lost: %w", f.Node, log.ErrProtocol)}
			continue
		}
		if f := p.command.Forget; f != nil {
			if err := s.dismiss(r, f); err != nil {
				p.answer <- answer{err: err}
				continue
			}
		}
		b, err := encodeCommand(&p.command)
		if err != nil {
			p.answer <- answer{err: err}
			continue
		}
		futures <- underway{p, r.Apply(b, enqueueFor)}
	}
}

// outcome waits for a future and says truthfully what is known of it.
func (s *Server) outcome(r *raft.Raft, f raft.ApplyFuture) answer {
	switch err := f.Error(); {
	case err == nil:
		a, ok := f.Response().(applied)
		if !ok {
			return answer{err: fmt.Errorf("metadata: a response of type %T: %w", f.Response(), log.ErrUnknown)}
		}
		return answer(a)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return answer{err: s.notLeader(r)}
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return answer{err: fmt.Errorf("metadata: too much to do: %w", log.ErrUnavailable)}
	default: // leadership lost after it was written, a shutdown, a disk that failed
		return answer{err: fmt.Errorf("metadata: %w: %w", err, log.ErrUnknown)}
	}
}

// clock goes on from the state's time even when that is ahead of this node's: a
// leader whose clock was wrong must not leave leases behind that never expire.
type clock struct {
	seen time.Time // the state's time
	at   time.Time // when it was seen first; monotonic
}

func (c *clock) now(state time.Time) time.Time {
	now := time.Now()
	if !state.Equal(c.seen) {
		c.seen, c.at = state, now
	}
	if ahead := c.seen.Add(now.Sub(c.at)); ahead.After(now) {
		return ahead.UTC().Round(0)
	}
	return now.UTC().Round(0)
}

// readIndex is a view that shows everything that was answered before the call.
func (s *Server) readIndex(ctx context.Context) (*View, error) {
	r := s.running()
	if r == nil {
		return nil, fmt.Errorf("metadata: not running: %w", log.ErrUnavailable)
	}
	if r.State() != raft.Leader {
		return nil, s.notLeader(r)
	}
	answer := make(chan error, 1)
	select {
	case s.reads <- answer:
	case <-s.done:
		return nil, fmt.Errorf("metadata: ended: %w", log.ErrUnavailable)
	case <-ctx.Done():
		return nil, fmt.Errorf("metadata: %w: %w", log.ErrUnavailable, ctx.Err())
	}
	select {
	case err := <-answer:
		if err != nil {
			return nil, err
		}
		v, _ := s.Local()
		return v, nil
	case <-s.done:
		return nil, fmt.Errorf("metadata: ended: %w", log.ErrUnavailable)
	case <-ctx.Done():
		return nil, fmt.Errorf("metadata: %w: %w", log.ErrUnavailable, ctx.Err())
	}
}

// readLoop commits a barrier for all reads that wait, and then for those that came
// meanwhile. A barrier is stricter than a round of heartbeats: those Raft counts
// may have been sent before the question.
func (s *Server) readLoop(ctx context.Context, r *raft.Raft) {
	for {
		var waiting []chan error
		select {
		case a := <-s.reads:
			waiting = append(waiting, a)
		case <-ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case a := <-s.reads:
				waiting = append(waiting, a)
			default:
				more = false
			}
		}
		err := r.Barrier(enqueueFor).Error()
		if err != nil {
			err = s.notLeader(r)
		}
		if fault := s.machine.stopped(); fault != nil {
			err = fmt.Errorf("%w: %w", fault, log.ErrUnavailable)
		}
		for _, a := range waiting {
			a <- err
		}
	}
}
