package segment

import (
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/log"
)

// commitLoop writes groups until the store closes or dies. It is self-clocking:
// while one group is synced the next one fills, so a lone append waits for one
// sync and a crowd shares them.
func (s *Store) commitLoop() {
	idle := time.NewTimer(s.cfg.IdleCommit)
	defer idle.Stop()
	for {
		g, closing := s.take()
		if g != nil {
			if !s.commit(g) {
				return
			}
			idle.Reset(s.cfg.IdleCommit)
			continue
		}
		if closing {
			s.prove()
			return
		}
		select {
		case <-s.work:
		case <-idle.C:
			if !s.prove() {
				return
			}
		}
	}
}

// take swaps the group that is filling for the idle one when it has records.
func (s *Store) take() (g *group, closing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		s.dropLocked(s.fault)
		return nil, true
	}
	if s.filling.empty() {
		return nil, s.closing
	}
	g = s.filling
	s.filling, s.idle = s.idle, nil
	s.wakeLocked()
	return g, false
}

// commit writes and syncs the group, then publishes it. It is false when the
// journal is dead.
func (s *Store) commit(g *group) bool {
	start := s.cfg.Now()
	at, headSize, err := s.write(g)
	took := s.cfg.Now().Sub(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.publishLocked(g, at, headSize)
		s.counts.group(len(g.slots), took)
	case errors.Is(err, log.ErrFull):
		// Nothing of the group was written. Entries that queued behind it
		// would leave a gap, so they go as well.
		s.idle = g
		s.failLocked(g, err)
		s.failLocked(s.filling, err)
		s.filling.reset()
		s.wakeLocked()
	default:
		s.dieLocked(err)
		s.failLocked(g, s.fault)
		s.dropLocked(s.fault)
		return false
	}
	g.reset()
	s.idle = g
	return true
}

// write puts the group on disk and says where it lies.
func (s *Store) write(g *group) (at int64, headSize int, err error) {
	if need := g.sealedSize(len(s.prev)); s.at+need > s.active.size {
		if err := s.nextFile(g.sealedSize(0), g.upkeep()); err != nil {
			return 0, 0, err
		}
	}
	f := s.active
	headSize = groupFixed + touchSize*(len(g.touched)+len(s.prev))
	b := g.seal(f.seed, s.at, s.sequence+1, s.prevAt, s.prev)
	if _, err := f.handle.WriteAt(b, s.at); err != nil {
		return 0, 0, fmt.Errorf("write group of %d bytes at %d: %w", len(b), s.at, err)
	}
	synced := s.cfg.Now()
	if err := f.handle.Sync(); err != nil {
		return 0, 0, fmt.Errorf("sync group of %d bytes at %d: %w", len(b), s.at, err)
	}
	s.syncTook(s.cfg.Now().Sub(synced))
	at = s.at
	s.sequence++
	s.prevAt, s.at = at, at+int64(len(b))
	s.prev = append(s.prev[:0], g.touched...)
	s.unproven = !g.empty()
	return at, headSize, nil
}

func (s *Store) syncTook(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.syncs++
	s.counts.syncTime += d
}

// prove writes a commit block: an empty group whose presence shows that the last
// one is durable, so that damage to it is never taken for a torn tail. Without
// room for it the next file's header will do the same.
func (s *Store) prove() bool {
	if !s.unproven || s.Fault() != nil {
		return true
	}
	empty := s.prover
	empty.reset()
	if s.at+empty.sealedSize(len(s.prev)) > s.active.size {
		return true
	}
	if _, _, err := s.write(empty); err != nil {
		s.die(err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dropLocked(s.fault)
		return false
	}
	return true
}

// nextFile seals the active file at the end of its last group and goes on in a
// spare one with room for a group of that many bytes.
func (s *Store) nextFile(group int64, upkeep bool) error {
	f, err := s.takeSpare(dataStart+group, upkeep)
	if err != nil {
		return err
	}
	old := s.active
	if err := s.activate(f, old, s.at, nil); err != nil {
		if isFull(err) {
			err = errors.Join(log.ErrFull, err)
			s.mu.Lock()
			s.spares = append(s.spares, f)
			s.mu.Unlock()
		}
		return fmt.Errorf("next journal file: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old.sealed, old.end = true, s.at
	s.opened++
	s.shutOneLocked(nil)
	s.active = f
	s.at, s.prevAt, s.prev = dataStart, 0, s.prev[:0]
	s.unproven = false
	signal(s.chores)
	return nil
}

// publishLocked makes a durable group's entries part of their streams.
func (s *Store) publishLocked(g *group, at int64, headSize int) {
	f := s.active
	for i := range g.slots {
		sl := &g.slots[i]
		st := g.streams[sl.touch]
		place := g.place(at, headSize, sl.at)
		if sl.kind == kindKept {
			st.keepLocked(&kept{stream: st, offset: sl.off, file: f, entry: indexEntry(place, sl.bits), size: sl.size})
			continue
		}
		r := st.tail
		if r == nil || r.file != f {
			r = newRun(st, f, sl.off)
			st.tail, f.runs[st.id] = r, r
			st.runs = append(st.runs, r)
		}
		r.add(sl.off, place, sl.bits, sl.epoch, sl.time, int(sl.size))
		st.last = sl.off
		if sl.bits&endsBit != 0 {
			st.lso = sl.off
		}
		st.segBytes += int64(sl.size)
		s.counts.bytes += int64(sl.size)
	}
	for i, st := range g.streams {
		st.touchedIn = nil
		st.lac = st.last // the ack rule of a single node is its own disk
		s.counts.appends += int64(g.touched[i].Count)
		if st.segBytes > s.cfg.SegmentBytes {
			signal(s.chores)
		}
		st.notify()
	}
	for _, w := range g.waiters {
		w <- nil
	}
}

// failLocked drops a group that was not written: its streams need a new fence,
// because the entries were promised offsets.
func (s *Store) failLocked(g *group, err error) {
	for _, st := range g.streams {
		if st.broken == nil {
			st.broken = err
		}
		st.next = st.last + 1
		st.touchedIn = nil
		st.notify()
	}
	for _, w := range g.waiters {
		w <- err
	}
}

// dropLocked fails what is filling when the journal dies.
func (s *Store) dropLocked(err error) {
	s.failLocked(s.filling, err)
	s.filling.reset()
	s.wakeLocked()
}

// keepLocked adds or moves a kept entry.
func (st *Stream) keepLocked(k *kept) {
	st.keepNewest(k)
	k.file.keeps = append(k.file.keeps, k)
}
