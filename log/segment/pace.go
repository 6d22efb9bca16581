package segment

import "time"

// The archiver and the appends share a disk and processors, and only the appends
// have somebody who waits. So segments leave the journal when nothing is appended;
// while something is, from JournalBytes on, slowly first, and the faster the more
// the journal grows; from twice JournalBytes on the appends give way instead.
const (
	idleAfter = 100 * time.Millisecond // without a group: nothing is appended
	restMost  = 15                     // times the work just done, at JournalBytes
	restSlice = 20 * time.Millisecond  // of a rest, before it is looked at again
	// heldRate is what appends still get, in bytes a second, when the journal is
	// half of JournalBytes beyond its limit: less than any archiving makes room for.
	heldRate = 16 << 20
)

// journalLocked is the bytes of the journal's files, spares apart.
func (s *Store) journalLocked() (bytes int64) {
	for _, f := range s.files {
		bytes += f.size
	}
	return bytes
}

// headroom is how far the journal may grow beyond JournalBytes before appends are
// held: as much again, and a few files at least.
func (c Config) headroom() int64 { return max(c.JournalBytes, 4*c.FileBytes) }

// idleBytes is how much closed segments may take in the journal when nothing is
// appended: what leaves then makes room for the next burst.
func (c Config) idleBytes() int64 { return c.JournalBytes / 4 }

// quiet says that nothing was appended for a moment.
func (s *Store) quiet() bool { return time.Now().UnixNano()-s.written.Load() > int64(idleAfter) }

// pressureLocked is 0 while the journal keeps its limits and 1 when archiving must
// not rest any more.
func (s *Store) pressureLocked() float64 {
	bytes := float64(s.journalLocked()-s.cfg.JournalBytes) / float64(s.cfg.headroom())
	closed := float64(s.closedCount-s.cfg.ClosedMax) / float64(s.cfg.ClosedMax+1)
	return min(max(bytes, closed, 0), 1)
}

// rest is the archiver's pause after that much work for r (nil: for none). It ends
// early when the appends stop, when the journal needs it, or somebody waits for r.
func (s *Store) rest(r *Replica, worked time.Duration) {
	for began := time.Now(); ; {
		s.mu.Lock()
		due := time.Duration(float64(worked) * restMost * (1 - s.pressureLocked()))
		over := s.aliveLocked() != nil
		s.mu.Unlock()
		left := due - time.Since(began)
		if over || left <= 0 || s.quiet() || r != nil && r.wanted.Load() > 0 {
			return
		}
		time.Sleep(min(left, restSlice))
	}
}

// hold makes the committer wait after a group of that many bytes, while segments
// are on their way out of a journal beyond its limit. Appends queue up behind it,
// so their writers slow down; without it the disk would fill up, and refuse them.
func (s *Store) hold(bytes int64) {
	s.mu.Lock()
	over := s.journalLocked() - s.cfg.JournalBytes - s.cfg.headroom()
	moving := s.moving
	s.mu.Unlock()
	if over <= 0 || !moving {
		return
	}
	share := min(1, float64(over)/float64(s.cfg.headroom()/2))
	began := time.Now()
	until := began.Add(time.Duration(share * float64(bytes) / heldRate * float64(time.Second)))
	for left := time.Until(until); left > 0; left = time.Until(until) {
		s.mu.Lock()
		done := s.aliveLocked() != nil
		s.mu.Unlock()
		if done {
			break
		}
		time.Sleep(min(left, restSlice))
	}
	s.mu.Lock()
	s.counts.held += time.Since(began)
	s.mu.Unlock()
}
