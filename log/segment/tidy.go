package segment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Replica is the node's replica of a segment. log.ErrElsewhere: it has none.
// log.ErrSuspect: it should have one, and nothing of it can be read.
func (s *Store) Replica(id ID) (*Replica, error) {
	s.mu.Lock()
	r := s.replicas[id]
	there := r != nil && r.created
	s.mu.Unlock()
	if !there {
		return nil, fmt.Errorf("%s: %w", id, log.ErrElsewhere)
	}
	if err := s.loadHead(r); err != nil {
		return nil, err
	}
	return r, nil
}

// Replicas are all replicas of the node, by stream and segment. It reads the heads
// of the files that were not used since Open. Of a replica whose file is
// unreadable only the stream, the segment, and that it is suspect, are told.
func (s *Store) Replicas() []ReplicaInfo {
	list := s.list()
	out := make([]ReplicaInfo, 0, len(list))
	for _, r := range list {
		if err := s.loadHead(r); errors.Is(err, log.ErrElsewhere) {
			continue // dropped meanwhile
		}
		out = append(out, r.Info())
	}
	return out
}

func (s *Store) list() []*Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Replica, 0, len(s.replicas))
	for _, r := range s.replicas {
		if r.created {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *Replica) int {
		if c := strings.Compare(a.id.Stream, b.id.Stream); c != 0 {
			return c
		}
		return int(a.id.Segment) - int(b.id.Segment)
	})
	return list
}

// Drop gives the replica up, durably. Its node refuses for ever to make the
// segment, or an earlier one of the stream, anew by Attach or Seal
// (log.ErrFenced), because the fence goes, too; Repair may bring it back. A repair
// or an archiving that is under way ends first.
func (r *Replica) Drop(ctx context.Context) error {
	if err := r.drop(ctx); err != nil {
		return fmt.Errorf("drop %s: %w", r.id, err)
	}
	return nil
}

func (r *Replica) drop(ctx context.Context) error {
	s := r.store
	if err := r.lockFile(ctx); err != nil {
		return err
	}
	defer r.unlockFile()
	if err := s.loadHead(r); err != nil && !errors.Is(err, log.ErrSuspect) {
		return err
	}
	s.mu.Lock()
	if err := r.aliveLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	r.dropped = true
	for r.m.Queued() != r.m.Last() || r.saving { // what is queued still goes to the journal
		if err := r.waitLocked(ctx); err != nil {
			r.dropped = false
			s.mu.Unlock()
			return err
		}
	}
	f := s.floors[r.id.Stream]
	f.segment, f.epoch = max(f.segment, r.id.Segment), max(f.epoch, r.m.Fence(), r.asked)
	s.floors[r.id.Stream] = f
	s.counts.trimmed += r.infoLocked().Entries
	own := r.file
	s.forgetLocked(r)
	r.notify()
	s.mu.Unlock()
	if err := s.persist(); err != nil {
		return err
	}
	if own == nil {
		return nil
	}
	if err := s.fs.Remove(own.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.diskError(err)
	}
	return nil
}

func (s *Store) forgetLocked(r *Replica) {
	delete(s.replicas, r.id)
	delete(s.nums, r.num)
	s.forgetRunsLocked(r, 1<<62)
	if r.shelved {
		n := log.Offset(r.id.Segment)
		shelf := s.shelves[r.id.Stream]
		s.shelves[r.id.Stream] = append(shelf.cut(0, n-1), shelf.cut(n+1, 1<<62)...)
	}
	if r.file != nil && r.known {
		s.stored -= r.file.size
		s.raw -= r.file.head.Bytes
	}
	s.retireOwnLocked(r.file)
}

// Verify reads all of the replica and notes what is damaged. It returns the
// entries that are good; damage is no error, Info tells it.
func (r *Replica) Verify(ctx context.Context) (entries int64, err error) {
	s := r.store
	if err := s.loadHead(r); err != nil {
		if errors.Is(err, log.ErrSuspect) {
			return 0, nil
		}
		return 0, err
	}
	s.mu.Lock()
	next, last := r.desc.First, r.held()
	s.mu.Unlock()
	var batch []Stored
	var buf []byte
	for next <= last {
		if err := ctx.Err(); err != nil {
			return entries, err
		}
		from := next
		batch, buf, next, err = r.Read(Query{From: from, To: last + 1, Unconfirmed: true, BytesMax: 1 << 20}, batch, buf)
		entries += int64(len(batch))
		switch {
		case errors.Is(err, log.ErrSuspect):
			next = r.gap(next, last).Last + 1
		case err != nil:
			return entries, err
		case next == from:
			return entries, fmt.Errorf("verify %s: nothing at entry %d: %w", r.id, from, log.ErrSuspect)
		}
	}
	return entries, nil
}

// tidy moves replicas out of the journal while its files are too large, from the
// oldest file on, and closed ones while they are too many. Of an open segment the
// older part moves: a quiet one would hold a file for each of its few entries.
// When nothing is appended, closed ones move until there is room for a burst.
func (s *Store) tidy() error {
	tried := map[*Replica]bool{}
	for {
		r, w, ok := s.untidy(tried)
		if !ok {
			return nil
		}
		tried[r] = true
		if !r.tryLockFile() {
			continue // a repair, or a compaction, does it
		}
		s.rested = time.Now()
		err := s.leave(r, w)
		r.unlockFile()
		s.rest(nil, time.Since(s.rested))
		if err != nil && !errors.Is(err, log.ErrElsewhere) {
			return fmt.Errorf("move %s out of the journal: %w", r.id, err)
		}
	}
}

// leave writes the replica's own file. A full disk gives its spare journal file
// for it: what leaves the journal frees more.
func (s *Store) leave(r *Replica, w rewrite) error {
	s.mu.Lock()
	err := r.departLocked(context.Background())
	if err != nil || r.shelved {
		s.mu.Unlock()
		return err
	}
	if w.end != nil {
		w.upto = r.held()
	}
	w.yields, s.moving = true, true
	s.mu.Unlock()
	defer r.stay()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.moving = false
	}()
	err = s.rewrite(context.Background(), r, w)
	if !errors.Is(err, log.ErrFull) {
		return err
	}
	s.mu.Lock()
	spares := s.spares
	s.spares = nil
	s.lent = true // or the supplier would make another one at once
	s.mu.Unlock()
	for _, f := range spares {
		if err := errors.Join(f.handle.Close(), s.fs.Remove(f.name)); err != nil {
			return s.diskError(err)
		}
	}
	if len(spares) > 0 {
		err = s.rewrite(context.Background(), r, w)
	}
	s.mu.Lock()
	s.lent = false
	s.mu.Unlock()
	signal(s.supply)
	return err
}

// departLocked waits until nothing of a closed replica is on its way to the
// journal, and lets nothing more in: its own file must not miss an entry that was
// acknowledged. stay ends that. The lock is released meanwhile.
func (r *Replica) departLocked(ctx context.Context) error {
	if r.closeAt == nil {
		return nil
	}
	r.leaving = true
	for r.m.Queued() != r.m.Last() {
		err := r.aliveLocked()
		if err == nil {
			err = r.waitLocked(ctx)
		}
		if err != nil {
			r.leaving = false
			return err
		}
	}
	r.notify()
	return r.aliveLocked()
}

func (r *Replica) stay() {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	r.leaving = false
	r.notify()
}

// untidy chooses what leaves next, and up to where.
func (s *Store) untidy(tried map[*Replica]bool) (*Replica, rewrite, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aliveLocked() != nil {
		return nil, rewrite{}, false
	}
	bytes, limit := s.journalLocked(), s.cfg.JournalBytes
	early := bytes <= limit // what leaves now need not
	if early && s.quiet() {
		limit = s.cfg.idleBytes()
	}
	var oldest *Replica // closed
	closed := 0
	for _, num := range sortedKeys(s.nums) {
		r := s.nums[num]
		if _, _, ok := r.m.Closed(); !ok || r.dropped {
			continue
		}
		closed++
		if oldest == nil && !tried[r] {
			oldest = r
		}
	}
	s.closedCount = closed
	if bytes <= limit && closed <= s.cfg.ClosedMax {
		return nil, rewrite{}, false
	}
	if bytes > limit {
		for _, f := range s.files {
			if !f.sealed {
				continue
			}
			var part *Replica
			for _, num := range sortedKeys(f.runs) {
				r := f.runs[num].replica
				if _, _, ok := r.m.Closed(); ok && !tried[r] && !r.dropped && (!early || r.completeLocked()) {
					return r, r.wholly(), true
				}
				if part == nil && !tried[r] && !r.dropped {
					part = r
				}
			}
			if part != nil && !early {
				return part, rewrite{upto: part.sealedUpto()}, true
			}
		}
	}
	if oldest != nil && (!early || closed > s.cfg.ClosedMax) {
		return oldest, oldest.wholly(), true
	}
	return nil, rewrite{}, false
}

// wholly is the rewrite that takes a closed replica out of the journal.
func (r *Replica) wholly() rewrite {
	return rewrite{upto: r.held(), end: r.closeAt, keep: r.kept}
}

// sealedUpto is the newest entry that lies in a file that is not written any more.
func (r *Replica) sealedUpto() log.Offset {
	upto := r.desc.First - 1
	for _, x := range r.runs {
		if x.file != nil && !x.file.sealed {
			break
		}
		upto = min(x.last(), r.held())
	}
	return upto
}
