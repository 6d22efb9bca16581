package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
)

// copyWindow bounds the bytes of one copy that are on their way from the source.
const copyWindow = 4 << 20

// copy brings the entries that a member lacks, from another member, through this
// client, and reports what arrived and which end was lost.
func (r *recovery) copy(ctx context.Context, c quorum.Copy, lso log.Offset) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	source, err := r.dial(ctx, r.desc.Members[c.From])
	if err != nil {
		r.copied(ctx, c, c.From, err)
		return
	}
	defer source.close()
	target, err := r.dial(ctx, r.desc.Members[c.To])
	if err != nil {
		r.copied(ctx, c, c.To, err)
		return
	}
	defer target.close()
	for _, s := range []*session{source, target} {
		release := context.AfterFunc(ctx, s.cut)
		defer release()
	}
	var attached wire.Attached
	err = r.client.within(ctx, target, func(ctx context.Context) error {
		if err := target.Send(&wire.Attach{Descriptor: r.desc, Epoch: r.epoch}); err != nil {
			return err
		}
		return target.Expect(ctx, &attached)
	})
	if err != nil {
		r.copied(ctx, c, c.To, err)
		return
	}
	if attached.Last+1 != c.First {
		// An earlier copy brought more than was acknowledged: seal again to learn
		// what the member has now.
		r.copied(ctx, c, c.To, fmt.Errorf("attached at %d, sealed at %d: %w", attached.Last, c.First-1, log.ErrUnavailable))
		return
	}
	var reading wire.Reading
	err = r.client.within(ctx, source, func(ctx context.Context) error {
		if err := source.Send(&wire.Copy{
			Stream: r.desc.Stream, Segment: r.desc.Segment, From: c.First, To: c.Last + 1, Credit: copyWindow, Raw: true,
		}); err != nil {
			return err
		}
		return source.Expect(ctx, &reading)
	})
	if err != nil {
		r.copied(ctx, c, c.From, err)
		return
	}
	acks := make(chan error, 1) // the end of the acknowledgements; read once below
	ends := &ends{newest: lso}
	go func() { acks <- r.acks(ctx, c, target, ends) }()
	which, err := r.pump(ctx, c, c.First, source, target, ends)
	if err != nil {
		target.cut()
	}
	if ackErr := <-acks; err == nil && ackErr != nil {
		which, err = c.To, ackErr
	}
	r.copied(ctx, c, which, err)
}

// copied ends a copy; which is the member that was lost, if one was.
func (r *recovery) copied(ctx context.Context, c quorum.Copy, which int, err error) {
	r.send(ctx, func() {
		delete(r.copying, c.To)
		if err == nil {
			return
		}
		r.failed[which] = err
		switch {
		case errors.Is(err, log.ErrFenced):
			_ = r.core.Fenced() // the machine keeps its error
		case errors.Is(err, log.ErrSuspect), errors.Is(err, log.ErrElsewhere):
			r.core.Suspect(which)
		default:
			r.core.Broken(which)
		}
	})
}

// pump carries entries from source to target. It tells whose fault an error is.
func (r *recovery) pump(ctx context.Context, c quorum.Copy, next log.Offset, source, target *session, ends *ends) (int, error) {
	var m wire.Data
	owed := uint64(0)
	for next <= c.Last {
		k, body, err := source.Next(ctx, wire.BodyMax)
		if err != nil {
			return c.From, err
		}
		switch k {
		case wire.KindData:
		case wire.KindTail:
			continue
		case wire.KindError:
			var m wire.Error
			if err := wire.Decode(&m, body); err != nil {
				return c.From, err
			}
			return c.From, m.Err()
		default:
			return c.From, fmt.Errorf("%v to a copy: %w", k, log.ErrProtocol)
		}
		if err := wire.Decode(&m, body); err != nil {
			return c.From, err
		}
		for i := range m.Entries {
			e := &m.Entries[i]
			if e.Offset != next {
				return c.From, fmt.Errorf("entry %d where %d should come: %w", e.Offset, next, log.ErrProtocol)
			}
			if e.Epoch != r.desc.Epoch || segment.Checksum(e.Payload) != e.Checksum {
				return c.From, fmt.Errorf("entry %d of epoch %d is not what was written in epoch %d: %w", e.Offset, e.Epoch, r.desc.Epoch, log.ErrSuspect)
			}
			if e.EndsTransaction {
				ends.add(e.Offset)
			}
			if err := target.Send(&wire.Append{
				Offset: e.Offset, LAC: r.desc.First - 1, Time: e.AppendedAt.UnixMicro(), Topic: e.Topic, Ends: e.EndsTransaction,
				Checksum: e.Checksum, Payload: e.Payload,
			}); err != nil {
				return c.To, err
			}
			next++
		}
		if owed += uint64(wire.HeaderSize + len(body)); owed >= copyWindow/2 {
			if err := source.Send(&wire.Credit{Bytes: owed}); err != nil {
				return c.From, err
			}
			owed = 0
		}
	}
	return c.To, nil
}

// ends remembers which entries on their way end a transaction.
type ends struct {
	mu      sync.Mutex
	newest  log.Offset // at or below what was asked for last
	pending []log.Offset
}

func (e *ends) add(o log.Offset) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = append(e.pending, o)
}

// upTo is the newest entry up to o that ends a transaction. o must not go back.
func (e *ends) upTo(o log.Offset) log.Offset {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.pending) > 0 && e.pending[0] <= o {
		e.newest = e.pending[0]
		e.pending = e.pending[1:]
	}
	return e.newest
}

// acks reports what the target has on disk, until it has all of it.
func (r *recovery) acks(ctx context.Context, c quorum.Copy, target *session, ends *ends) error {
	for {
		k, body, err := target.Next(ctx, wire.ControlMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindAck:
			var m wire.Ack
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			lso := ends.upTo(m.Last)
			r.send(ctx, func() {
				r.lsos[c.To] = lso
				r.core.Copied(c.To, m.Last, lso)
			})
			if m.Last >= c.Last {
				return nil
			}
		case wire.KindError:
			var m wire.Error
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return m.Err()
		default:
			return fmt.Errorf("%v to a copy: %w", k, log.ErrProtocol)
		}
	}
}
