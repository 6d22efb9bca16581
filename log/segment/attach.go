package segment

import (
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// Sealed is what a replica answers to a seal: the fence is durable, and this is
// what the node held at that moment.
type Sealed = quorum.Sealed

// NameMax bounds the name of a stream, in bytes.
const NameMax = 255

// openMax bounds the replicas that the meta describes one by one: those that take
// appends, and the closed ones that did not leave the journal yet.
const openMax = 1 << 14

// floor is what stays of the replicas of a stream that were given up: nobody may
// make a segment anew that was fenced, or closed, when it went.
type floor struct {
	segment uint32    // the highest that was given up
	epoch   log.Epoch // the highest fence of those
}

// Attach makes the node ready to take appends of the segment at that epoch (the
// descriptor's own for its writer, the fence's for who copies after a seal), and
// returns the newest entry it holds: appends go on behind it. A segment that is
// new here is made durable first, with its descriptor and the epoch as its fence.
// Errors: log.ErrFenced when the fence is above the epoch or the segment was given
// up here, log.ErrClosed when it has its end, log.ErrSuspect when it is damaged,
// log.ErrProtocol when the descriptor is another one than the node knows,
// log.ErrFull, log.ErrUnknown, and the store's own.
func (s *Store) Attach(ctx context.Context, d quorum.Descriptor, epoch log.Epoch) (*Replica, log.Offset, error) {
	r, err := s.enter(ctx, d, epoch)
	if err != nil {
		return nil, log.None, fmt.Errorf("attach %s: %w", ID{d.Stream, d.Segment}, err)
	}
	defer s.mu.Unlock()
	err = r.fenceLocked(ctx, epoch)
	end, _, closed := r.m.Closed()
	switch {
	case err != nil:
	case closed || r.closeAt != nil:
		err = fmt.Errorf("the segment ends at %d: %w", end, log.ErrClosed)
	case r.sealsNotLocked():
		err = r.lostError(r.held()+1, nil)
	}
	if err != nil {
		return nil, log.None, fmt.Errorf("attach %s: %w", r.id, err)
	}
	r.broken = nil
	return r, r.held(), nil
}

// Seal raises the segment's fence to epoch, durably, and answers what the node
// holds, as one step: nothing of a lower epoch is stored any more when it returns.
// A segment that is new here is made, empty and fenced. Repeating it is harmless.
// Errors: log.ErrFenced when the fence is above the epoch; log.ErrSuspect, with
// the fence durable all the same, when the replica is damaged; and those of Attach.
func (s *Store) Seal(ctx context.Context, d quorum.Descriptor, epoch log.Epoch) (Sealed, error) {
	r, err := s.enter(ctx, d, epoch)
	if err != nil {
		return Sealed{}, fmt.Errorf("seal %s: %w", ID{d.Stream, d.Segment}, err)
	}
	defer s.mu.Unlock()
	if r.shelved { // its end is durable, which is more than a fence
		if !r.suspectLocked() {
			end, lso, _ := r.m.Closed()
			return Sealed{Last: r.held(), LAC: r.m.LAC(), LSO: r.m.LSO(), Closed: true, End: end, EndLSO: lso}, nil
		}
		return Sealed{}, fmt.Errorf("seal %s: %w", r.id, r.lostError(r.held(), nil))
	}
	if err := r.fenceLocked(ctx, epoch); err != nil {
		return Sealed{}, fmt.Errorf("seal %s: %w", r.id, err)
	}
	if r.sealsNotLocked() {
		return Sealed{}, fmt.Errorf("seal %s: %w", r.id, r.lostError(r.held()+1, nil))
	}
	sealed, ok, err := r.m.Sealed(epoch)
	if err == nil && !ok {
		err = fmt.Errorf("the fence %d is not durable: %w", epoch, log.ErrUnknown)
	}
	if err != nil {
		return Sealed{}, fmt.Errorf("seal %s: %w", r.id, err)
	}
	return sealed, nil
}

// sealsNotLocked says that the replica must not speak for its end. One that has no
// peers may, as long as only entries before its end are damaged: nobody could
// repair it, and where it ends is certain.
func (r *Replica) sealsNotLocked() bool {
	return r.doubt || r.m.Suspect() || len(r.damage) > 0 && len(r.desc.Members) > 1
}

// enter finds the replica, or makes one that is not durable yet. On success the
// store's lock is held.
func (s *Store) enter(ctx context.Context, d quorum.Descriptor, epoch log.Epoch) (*Replica, error) {
	id := ID{d.Stream, d.Segment}
	switch {
	case d.Stream == "" || len(d.Stream) > NameMax || !utf8.ValidString(d.Stream):
		return nil, fmt.Errorf("a stream's name has 1 to %d bytes of UTF-8: %w", NameMax, log.ErrProtocol)
	case d.Segment == 0 || d.First < 0 || d.FirstLSO >= d.First || d.Epoch == 0 || epoch < d.Epoch:
		return nil, fmt.Errorf("segment %d from entry %d at epoch %d, asked at %d: %w", d.Segment, d.First, d.Epoch, epoch, log.ErrProtocol)
	}
	if _, err := d.Quorum(); err != nil {
		return nil, err
	}
	for {
		s.mu.Lock()
		if err := s.aliveLocked(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		r := s.replicas[id]
		if r == nil {
			r, err := s.makeLocked(d, epoch)
			if err != nil {
				s.mu.Unlock()
			}
			return r, err
		}
		if !r.created && r.num == 0 { // a repair makes it, which may fail
			s.mu.Unlock()
			return nil, fmt.Errorf("it is being repaired: %w", log.ErrUnavailable)
		}
		if !r.known {
			s.mu.Unlock()
			if err := s.loadHead(r); err != nil {
				return nil, err
			}
			continue
		}
		if !sameDescriptor(&r.desc, &d) {
			s.mu.Unlock()
			return nil, fmt.Errorf("the node knows another descriptor of it (epoch %d, first %d): %w", r.desc.Epoch, r.desc.First, log.ErrProtocol)
		}
		return r, nil
	}
}

func (s *Store) makeLocked(d quorum.Descriptor, epoch log.Epoch) (*Replica, error) {
	if f, ok := s.floors[d.Stream]; ok && (d.Segment <= f.segment || epoch < f.epoch) {
		return nil, fmt.Errorf("segments up to %d at epochs up to %d were given up here: %w", f.segment, f.epoch, log.ErrFenced)
	}
	if len(s.nums) >= openMax {
		return nil, fmt.Errorf("the node has %d segments that are not archived: %w", len(s.nums), log.ErrFull)
	}
	r := newReplica(s, ID{d.Stream, d.Segment})
	s.nextID++
	r.num = s.nextID
	r.describe(d)
	r.m = quorum.NewReplica(fresh(&r.desc))
	s.replicas[r.id], s.nums[r.num] = r, r
	return r, nil
}

// fenceLocked makes epoch the fence, durably, once nothing of a lower one is on
// its way to the disk. The lock is released while it waits.
func (r *Replica) fenceLocked(ctx context.Context, epoch log.Epoch) error {
	if err := r.m.BeginSeal(epoch); err != nil {
		return err
	}
	r.asked = max(r.asked, epoch)
	for {
		if err := r.aliveLocked(); err != nil {
			return err
		}
		if f := r.m.Fence(); f > epoch {
			return fmt.Errorf("epoch %d, the fence is %d: %w", epoch, f, log.ErrFenced)
		} else if f == epoch {
			return nil
		}
		if e, ready := r.m.SealReady(); ready && !r.saving {
			if err := r.saveLocked(); err != nil {
				return err
			}
			r.m.FenceDurable(e)
			r.created = true // its line was in the meta
			r.notify()
			continue
		}
		if err := r.waitLocked(ctx); err != nil {
			return err
		}
	}
}

// saveLocked writes the meta, with the lock released meanwhile.
func (r *Replica) saveLocked() error {
	s := r.store
	r.saving = true
	s.mu.Unlock()
	err := s.persist()
	s.mu.Lock()
	r.saving = false
	r.notify()
	return err
}

// waitLocked waits for a change, with the lock released meanwhile.
func (r *Replica) waitLocked(ctx context.Context) error {
	s := r.store
	wake := r.watch()
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close tells the replica where its segment ends, durably: last and lso (newest
// entry up to last that ends a transaction) as metadata has them. Entries above
// last are gone. When the replica holds less it is incomplete: Info tells, Repair
// mends it. The same end again is no error; another one is log.ErrProtocol.
func (r *Replica) Close(ctx context.Context, last, lso log.Offset) error {
	s := r.store
	if err := s.loadHead(r); err != nil {
		return fmt.Errorf("close %s at %d: %w", r.id, last, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.closeLocked(ctx, segmentEnd{last, lso}); err != nil {
		return fmt.Errorf("close %s at %d: %w", r.id, last, err)
	}
	return nil
}

func (r *Replica) closeLocked(ctx context.Context, e segmentEnd) error {
	if e.lso > e.last || e.lso < r.desc.FirstLSO {
		return fmt.Errorf("LSO %d: %w", e.lso, log.ErrProtocol)
	}
	if err := r.m.BeginClose(e.last, e.lso); err != nil {
		return err
	}
	if r.closeAt == nil {
		r.closeAt = &e
	}
	for {
		if err := r.aliveLocked(); err != nil {
			return err
		}
		if _, _, closed := r.m.Closed(); closed {
			return nil
		}
		if _, ready := r.m.CloseReady(); ready && !r.saving {
			if err := r.saveLocked(); err != nil {
				return err
			}
			r.m.CloseDurable()
			r.created = true
			r.endLocked()
			signal(r.store.chores)
			continue
		}
		if err := r.waitLocked(ctx); err != nil {
			return err
		}
	}
}

// endLocked brings what is known of the entries in line with the end of the
// segment: now it is certain whether any are missing behind the last one found.
func (r *Replica) endLocked() {
	end, lso, _ := r.m.Closed()
	r.doubt = false
	r.damage = r.damage.cut(r.desc.First, end)
	r.m.Judged(len(r.damage) > 0) // an entry below the end may have been queued while the end was stored
	for i, o := range r.ends {
		if o > end {
			r.ends = r.ends[:i]
			break
		}
	}
	if r.held() == end {
		r.ends, r.lso = nil, lso
	}
	r.showLocked()
}

// Generation of the cluster that the node knows, durably.
func (s *Store) Generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generationSafe
}

// SetGeneration makes a generation durable. log.ErrGeneration when the node knows
// a newer one; the same one again is no error.
func (s *Store) SetGeneration(_ context.Context, g uint64) error {
	s.mu.Lock()
	if s.generation > g {
		defer s.mu.Unlock()
		return fmt.Errorf("generation %d, the node knows %d: %w", g, s.generation, log.ErrGeneration)
	}
	done := s.generationSafe == g
	s.generation = g
	s.mu.Unlock()
	if done {
		return nil
	}
	if err := s.persist(); err != nil {
		return fmt.Errorf("generation %d: %w", g, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generationSafe = max(s.generationSafe, g)
	return nil
}
