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
			bytes := int64(g.bytes())
			if !s.commit(g) {
				return
			}
			s.hold(bytes)
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
		s.written.Store(time.Now().UnixNano())
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
		if err := s.nextFile(g.sealedSize(0)); err != nil {
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
func (s *Store) nextFile(group int64) error {
	f, err := s.takeSpare(dataStart + group)
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

// placeLocked notes where the group's entries lie.
func (s *Store) placeLocked(g *group, at int64, headSize int) {
	f := s.active
	for i := range g.slots {
		sl := &g.slots[i]
		r := g.replicas[sl.touch]
		x := r.tail
		if x == nil || x.file != f {
			x = newRun(r, f, sl.off)
			r.tail, f.runs[r.num] = x, x
			r.runs = append(r.runs, x)
		}
		x.add(sl.off, g.place(at, headSize, sl.at), sl.bits, sl.lac, sl.time, int(sl.size))
		if sl.bits&endsBit != 0 {
			r.ends = append(r.ends, sl.off)
		}
		s.counts.bytes += int64(sl.size)
	}
}

// publishLocked makes a durable group's entries part of their replicas.
func (s *Store) publishLocked(g *group, at int64, headSize int) {
	s.placeLocked(g, at, headSize)
	for i, r := range g.replicas {
		r.touchedIn = nil
		t := &g.touched[i]
		lso := r.m.LSO()
		if n := len(r.ends); n > 0 {
			lso = max(lso, r.ends[n-1])
		}
		r.m.Durable(t.end()-1, lso)
		s.counts.appends += int64(t.Count)
		r.showLocked()
	}
}

// failLocked drops a group that was not written: its replicas need a new
// attachment, because the entries were promised offsets.
func (s *Store) failLocked(g *group, err error) {
	for _, r := range g.replicas {
		if r.broken == nil {
			r.broken = err
		}
		r.m.Dropped()
		r.touchedIn = nil
		r.notify()
	}
}

// dropLocked fails what is filling when the journal dies.
func (s *Store) dropLocked(err error) {
	s.failLocked(s.filling, err)
	s.filling.reset()
	s.wakeLocked()
}
