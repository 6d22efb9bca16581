package segment

import (
	"context"
	"fmt"

	"github.com/twinspan/twinspan/log"
)

// Append is one entry to store.
type Append struct {
	// Epoch of the attachment. The entry's own is the segment's, also when
	// somebody else copies it here.
	Epoch    log.Epoch
	Offset   log.Offset // at most one above the newest: a node holds a contiguous prefix
	LAC      log.Offset // the writer's
	Topic    log.Topic
	Ends     bool
	Time     int64  // µs since 1970
	Checksum uint32 // of the payload
	Payload  []byte // copied; the caller keeps it
}

// Append queues an entry for the next group commit. It waits while the group that
// is filling has no room. Progress tells when it is durable. An entry that is here
// already is not stored again. A closed segment still takes what it lacks below its
// end, until it leaves the journal. Errors: log.ErrFenced, log.ErrClosed (the segment
// has its end), log.ErrSuspect, log.ErrFull, log.ErrTooLarge, log.ErrProtocol (a
// gap or a wrong checksum), log.ErrElsewhere (dropped), ctx.Err(), and the store's
// own.
func (r *Replica) Append(ctx context.Context, a *Append) error {
	if len(a.Payload) == 0 || len(a.Payload) > log.MaxPayload {
		return fmt.Errorf("%s: append of %d bytes: %w", r.id, len(a.Payload), log.ErrTooLarge)
	}
	if a.Checksum != Checksum(a.Payload) {
		return fmt.Errorf("%s: append %d: payload checksum differs: %w", r.id, a.Offset, log.ErrProtocol)
	}
	s := r.store
	need := recordSize(len(a.Payload))
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := r.aliveLocked(); err != nil {
			return fmt.Errorf("%s: append %d: %w", r.id, a.Offset, err)
		}
		if s.filling.room(need, s.cfg.GroupBytes) {
			break
		}
		wake := s.room
		s.mu.Unlock()
		select {
		case <-wake:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return ctx.Err()
		}
	}
	if r.broken != nil {
		return fmt.Errorf("%s: append %d: %w", r.id, a.Offset, r.broken)
	}
	if r.leaving || r.shelved {
		return fmt.Errorf("%s: append %d, the segment ends at %d: %w", r.id, a.Offset, r.closeAt.last, log.ErrClosed)
	}
	stored, err := r.m.Admit(a.Epoch, a.Offset)
	if err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	if err := r.m.Confirm(a.Epoch, a.LAC); err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	if !stored {
		return nil
	}
	rec := record{
		Kind: kindEntry, Length: uint32(len(a.Payload)), PayloadCRC: a.Checksum, Replica: r.num,
		Segment: r.id.Segment, Offset: a.Offset, Epoch: r.desc.Epoch, LAC: r.m.LAC(), LSO: r.m.LSO(),
		Time: a.Time, Topic: a.Topic,
	}
	if a.Ends {
		rec.Flags |= flagEnds
	}
	wasEmpty := s.filling.empty()
	s.filling.add(r, &rec, a.Payload)
	if wasEmpty {
		signal(s.work)
	}
	return nil
}

// Confirm raises the LAC: the rule is satisfied up to lac. Errors: log.ErrFenced
// unless epoch is the fence, and the store's own.
func (r *Replica) Confirm(epoch log.Epoch, lac log.Offset) error {
	s := r.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.aliveLocked(); err != nil {
		return fmt.Errorf("%s: confirm %d: %w", r.id, lac, err)
	}
	before := r.visibleLocked()
	if err := r.m.Confirm(epoch, lac); err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	if r.visibleLocked() > before {
		r.showLocked()
	}
	return nil
}
