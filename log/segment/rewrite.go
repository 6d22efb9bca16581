package segment

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// rewrite is the making of a replica's next own file, from what it has in the
// journal and in its present file. Archiving, repair and compaction are this one
// thing: the new file is durable under its name before anything else changes, so
// each of them may be cut short anywhere.
type rewrite struct {
	upto   log.Offset  // the file covers the entries up to here
	end    *segmentEnd // of a closed segment; nil: a part of an open one
	keep   []log.Topic // only these topics stay; nil: all
	fetch  Fetch       // brings what is missing; nil: it stays missing
	alone  bool        // nothing that is here may be used
	yields bool        // it rests while something is appended; of the keeper alone
}

// lockFile takes the right to replace the replica's own file.
func (r *Replica) lockFile(ctx context.Context) error {
	r.wanted.Add(1)
	defer r.wanted.Add(-1)
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Replica) tryLockFile() bool {
	select {
	case r.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *Replica) unlockFile() { <-r.turn }

// rewrite makes the file and puts it in the place of what it covers. The caller
// holds the file's lock. What is missing afterwards is noted in the replica.
func (s *Store) rewrite(ctx context.Context, r *Replica, w rewrite) error {
	a, missing, err := s.writeOwn(ctx, r, w)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.installLocked(r, w, a, missing)
	s.mu.Unlock()
	return s.persist()
}

func (s *Store) writeOwn(ctx context.Context, r *Replica, w rewrite) (*archive, ranges, error) {
	path := s.ownPath(r.id)
	temp := path + ".tmp"
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, nil, err
	}
	if err := s.fs.MkdirAll(s.shelfPath(r.id.Stream)); err != nil {
		return nil, nil, s.diskError(err)
	}
	if err := s.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, s.diskError(err)
	}
	aw, err := newArchiveWriter(s.fs, temp, s.node, binary.NativeEndian.Uint64(salt[:]), s.cfg.BlockBytes, s.packer)
	if err != nil {
		return nil, nil, s.diskError(err)
	}
	if w.yields {
		aw.pace = func() {
			s.rest(r, time.Since(s.rested))
			s.rested = time.Now()
		}
	}
	missing, err := s.fill(ctx, r, w, aw)
	var a *archive
	if err == nil {
		s.mu.Lock()
		aw.title(r, w, missing)
		s.mu.Unlock()
		a, err = aw.finish()
		err = s.diskError(err)
	}
	if err == nil {
		a.path = path
		if err = s.fs.Rename(temp, path); err == nil {
			err = s.fs.SyncDir(s.shelfPath(r.id.Stream))
		}
		if err != nil { // even for want of space: which file has the name now is not known
			s.die(fmt.Errorf("segment file: %w", err))
			err = fmt.Errorf("%w: %w", log.ErrUnavailable, err)
		}
	}
	if err != nil {
		err = errors.Join(err, aw.f.Close())
		if removeErr := s.fs.Remove(temp); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, s.diskError(removeErr))
		}
		return nil, nil, err
	}
	return a, missing, nil
}

// diskError ends the store when a write failed for another reason than space:
// nothing is known about the file then.
func (s *Store) diskError(err error) error {
	switch {
	case err == nil || errors.Is(err, log.ErrTooLarge):
		return err
	case isFull(err):
		return fmt.Errorf("%w: %w", log.ErrFull, err)
	}
	err = fmt.Errorf("segment file: %w", err)
	s.die(err)
	return fmt.Errorf("%w: %w", log.ErrUnavailable, err)
}

// title completes the head. The store's lock is held.
func (w *archiveWriter) title(r *Replica, to rewrite, missing ranges) {
	h := &w.head
	h.Descriptor, h.Upto, h.Missing = r.desc, to.upto, missing
	h.Fence = max(r.m.Fence(), r.asked, r.desc.Epoch)
	h.LAC = max(min(r.m.LAC(), to.upto), r.desc.First-1)
	h.LSO = max(h.LSO, r.desc.FirstLSO)
	if to.keep != nil {
		h.Compacted, h.Kept = true, to.keep
	}
	if to.end != nil {
		h.Closed, h.Last, h.EndLSO, h.LAC = true, to.end.last, to.end.lso, to.upto
		if to.upto == to.end.last {
			h.LSO = to.end.lso
		}
	}
}

// fill copies the entries. It returns what is missing from the file.
func (s *Store) fill(ctx context.Context, r *Replica, w rewrite, aw *archiveWriter) (ranges, error) {
	var missing ranges
	var entries []Stored
	var buf []byte
	var err error
	next := r.desc.First
	for next <= w.upto {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		err = r.aliveLocked()
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		from := next
		if !w.alone {
			q := Query{From: next, To: w.upto + 1, Topics: w.keep, Unconfirmed: true, BytesMax: 1 << 20}
			entries, buf, next, err = r.Read(q, entries, buf)
			if err != nil && !errors.Is(err, log.ErrSuspect) && !errors.Is(err, log.ErrElsewhere) {
				return nil, err
			}
		}
		if next == from {
			gap := Range{from, w.upto}
			if !w.alone {
				gap = r.gap(from, w.upto)
			}
			if w.fetch == nil {
				missing = missing.add(gap)
				if err := s.diskError(aw.flush()); err != nil { // a block has no holes
					return nil, err
				}
				next = gap.Last + 1
				continue
			}
			entries, next, err = w.fetch(ctx, from, gap.Last+1)
			if err == nil {
				err = r.check(entries, Range{from, next - 1}, gap.Last, w.keep)
			}
			if err != nil {
				return nil, fmt.Errorf("entries %d to %d from a peer: %w", from, gap.Last, err)
			}
		}
		for i := range entries {
			if err := s.diskError(aw.add(&entries[i])); err != nil {
				return nil, err
			}
		}
		entries = entries[:0]
	}
	return missing, nil
}

// gap is what can't be read from offset o on, as far as that is known.
func (r *Replica) gap(o, upto log.Offset) Range {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if !r.known || o > r.held() {
		return Range{o, upto}
	}
	if x, hit := r.damage.at(o); hit {
		return Range{o, min(x.Last, upto)}
	}
	return Range{o, o}
}

// check looks at what a peer brought.
func (r *Replica) check(entries []Stored, covered Range, last log.Offset, keep []log.Topic) error {
	o := covered.First
	if covered.Last < o || covered.Last > last {
		return fmt.Errorf("it covers up to %d: %w", covered.Last, log.ErrSuspect)
	}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Offset < o || e.Offset > covered.Last || keep == nil && e.Offset != o:
			return fmt.Errorf("entry %d where %d should come: %w", e.Offset, o, log.ErrSuspect)
		case e.Epoch != r.desc.Epoch:
			return fmt.Errorf("entry %d has epoch %d, the segment %d: %w", e.Offset, e.Epoch, r.desc.Epoch, log.ErrSuspect)
		case len(e.Payload) == 0 || len(e.Payload) > log.MaxPayload || Checksum(e.Payload) != e.Checksum:
			return fmt.Errorf("entry %d, %d bytes: %w", e.Offset, len(e.Payload), log.ErrSuspect)
		case keep != nil && !within([]log.Topic{e.Topic}, keep):
			return fmt.Errorf("entry %d of topic %v: %w", e.Offset, e.Topic, log.ErrSuspect)
		}
		o = e.Offset + 1
	}
	if keep == nil && o != covered.Last+1 {
		return fmt.Errorf("it ends before entry %d: %w", o, log.ErrSuspect)
	}
	return nil
}

// installLocked puts the new file in the place of what it covers.
func (s *Store) installLocked(r *Replica, w rewrite, a *archive, missing ranges) {
	old := r.file
	if old != nil {
		s.stored -= old.size
		s.raw -= old.head.Bytes
	}
	s.stored += a.size
	s.raw += a.head.Bytes
	s.counts.archived++
	s.clock++
	a.used = s.clock
	r.file, r.unread, r.known, r.encoded = a, nil, true, nil
	s.opens[a] = struct{}{}
	s.retireOwnLocked(old)
	s.shutOwnLocked(a)
	if w.end == nil {
		s.forgetRunsLocked(r, w.upto)
		r.damage = r.damage.cut(w.upto+1, 1<<62)
		for _, m := range missing {
			r.damage = r.damage.add(m)
		}
		r.damage = r.damage.cut(r.desc.First, r.held()) // a close may have come meanwhile
		return
	}
	s.forgetRunsLocked(r, 1<<62)
	r.closeAt, r.created, r.doubt = w.end, true, false
	r.damage = nil
	r.kept = nil
	r.adoptFile(a)
	r.restState()
	delete(s.nums, r.num)
	r.shelved = true
	n := log.Offset(r.id.Segment)
	s.shelves[r.id.Stream] = s.shelves[r.id.Stream].add(Range{n, n})
	r.showLocked()
}

// forgetRunsLocked takes the runs that end up to upto out of the journal's files.
func (s *Store) forgetRunsLocked(r *Replica, upto log.Offset) {
	kept := r.runs[:0:0]
	for _, x := range r.runs {
		if x.last() > upto {
			kept = append(kept, x)
			continue
		}
		if r.tail == x {
			r.tail = nil
		}
		if f := x.file; f != nil {
			if f.saved {
				s.cached -= 4 * int64(len(x.index))
			}
			delete(f.runs, r.num)
		}
	}
	r.runs = kept
}

// Copied says what a repair has to arrive at: a closed segment.
type Copied struct {
	quorum.Descriptor
	Last log.Offset
	LSO  log.Offset  // newest entry up to Last that ends a transaction
	Kept []log.Topic // of a compacted segment: the topics that stayed; nil: every entry
	// Lost is how many of the newest entries nobody has: the others are all there is.
	Lost int64
}

// upto is the newest entry that there is.
func (c *Copied) upto() log.Offset { return c.Last - log.Offset(c.Lost) }

// Fetch returns entries of a segment from a peer, in order: what the peer has of
// [from, to), as many as it likes. next, which is above from, is the end of what
// it covers: every wanted entry below it that the segment has is among them. The
// entries are its caller's until the next call.
type Fetch func(ctx context.Context, from, to log.Offset) (entries []Stored, next log.Offset, err error)

// Repair makes the node's replica of a closed segment whole, or as whole as can be,
// making one when there is none: what is good here stays, what is missing or damaged comes from
// fetch, and the result lies in its own file. A replica that is whole is left as
// it is. Errors: those of fetch; log.ErrSuspect when what fetch brings is not what
// was asked for; log.ErrProtocol when the segment is known with another descriptor
// or end; log.ErrFull, and the store's own. What was here before is then as it was.
func (s *Store) Repair(ctx context.Context, c Copied, fetch Fetch) (*Replica, error) {
	id := ID{c.Stream, c.Segment}
	fail := func(err error) (*Replica, error) { return nil, fmt.Errorf("repair %s: %w", id, err) }
	if c.Segment == 0 || c.First < 0 || c.Last < c.First-1 || c.LSO > c.Last || c.LSO < c.FirstLSO || c.Lost < 0 || c.upto() < c.First-1 {
		return fail(fmt.Errorf("entries %d to %d, LSO %d, %d lost: %w", c.First, c.Last, c.LSO, c.Lost, log.ErrProtocol))
	}
	if len(c.Kept) == 0 {
		c.Kept = nil
	}
	r, err := s.patient(ctx, c)
	if err != nil {
		return fail(err)
	}
	defer r.unlockFile()
	defer r.stay()
	w := rewrite{upto: c.upto(), end: &segmentEnd{c.Last, c.LSO}, keep: c.Kept, fetch: fetch}
	s.mu.Lock()
	whole := r.known && !r.suspectLocked() && r.held() >= w.upto && (r.kept == nil || c.Kept != nil && within(c.Kept, r.kept))
	w.alone = r.unread != nil || r.kept != nil && (c.Kept == nil || !within(c.Kept, r.kept))
	made := !r.created && r.num == 0
	s.mu.Unlock()
	if whole {
		return r, nil
	}
	if err := s.rewrite(ctx, r, w); err != nil {
		s.mu.Lock()
		if made && !r.created {
			r.dropped = true
			delete(s.replicas, r.id)
			r.notify()
		}
		s.mu.Unlock()
		return fail(err)
	}
	return r, nil
}

// patient finds or makes the replica that is to be repaired, closed at its end, and
// returns it with its file locked.
func (s *Store) patient(ctx context.Context, c Copied) (*Replica, error) {
	id := ID{c.Stream, c.Segment}
	end := segmentEnd{c.Last, c.LSO}
	for {
		s.mu.Lock()
		if err := s.aliveLocked(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		r := s.replicas[id]
		if r == nil {
			r = newReplica(s, id)
			r.describe(c.Descriptor)
			state := fresh(&r.desc)
			state.Closed, state.End, state.EndLSO = true, end.last, end.lso
			r.m, r.closeAt = quorum.NewReplica(state), &end
			s.replicas[id] = r
		}
		s.mu.Unlock()
		if err := r.lockFile(ctx); err != nil {
			return nil, err
		}
		loadErr := s.loadHead(r)
		s.mu.Lock()
		err := s.aliveLocked()
		switch {
		case err != nil:
		case r.dropped:
			s.mu.Unlock()
			r.unlockFile()
			continue
		case r.unread != nil: // nothing can be said about it but what the caller says
			r.desc = c.Descriptor
		case loadErr != nil:
			err = loadErr
		case !sameDescriptor(&r.desc, &c.Descriptor):
			err = fmt.Errorf("the node knows another descriptor of it: %w", log.ErrProtocol)
		default:
			if err = r.closeLocked(ctx, end); err == nil && *r.closeAt != end {
				err = fmt.Errorf("it is closed at %d with LSO %d: %w", r.closeAt.last, r.closeAt.lso, log.ErrProtocol)
			}
			if err == nil {
				err = r.departLocked(ctx)
			}
		}
		s.mu.Unlock()
		if err != nil {
			r.unlockFile()
			return nil, err
		}
		return r, nil
	}
}

// Compact keeps only the entries of those topics, of a closed replica that is
// complete (else log.ErrSuspect or log.ErrElsewhere), but perhaps for the newest lost
// entries of the segment, which nobody has. It returns once that is durable. Reads of
// other topics get log.ErrTrimmed then.
func (r *Replica) Compact(ctx context.Context, keep []log.Topic, lost int64) error {
	s := r.store
	fail := func(err error) error { return fmt.Errorf("compact %s: %w", r.id, err) }
	if len(keep) == 0 {
		return fail(fmt.Errorf("no topic is kept: %w", log.ErrProtocol))
	}
	if err := r.lockFile(ctx); err != nil {
		return fail(err)
	}
	defer r.unlockFile()
	if err := s.loadHead(r); err != nil {
		return fail(err)
	}
	s.mu.Lock()
	end, lso, closed := r.m.Closed()
	err := r.aliveLocked()
	switch {
	case err != nil:
	case !closed:
		err = fmt.Errorf("the segment is open: %w", log.ErrProtocol)
	case r.suspectLocked():
		err = log.ErrSuspect
	case r.held() < end-log.Offset(lost):
		err = fmt.Errorf("it ends at %d of %d: %w", r.held(), end, log.ErrElsewhere)
	}
	upto := min(r.held(), end)
	done := r.kept != nil && within(r.kept, keep)
	s.mu.Unlock()
	if err != nil {
		return fail(err)
	}
	if done {
		return nil
	}
	before := r.Info().Entries
	err = s.rewrite(ctx, r, rewrite{
		upto: upto, end: &segmentEnd{end, lso}, keep: slices.Clone(keep),
		fetch: func(_ context.Context, from, _ log.Offset) ([]Stored, log.Offset, error) {
			return nil, 0, r.lostError(from, nil) // damage that nobody had met yet
		},
	})
	if err != nil {
		return fail(err)
	}
	after := r.Info().Entries
	s.mu.Lock()
	s.counts.trimmed += before - after
	s.mu.Unlock()
	return nil
}
