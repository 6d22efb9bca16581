package segment

import (
	"errors"
	"time"

	"github.com/twinspan/twinspan/log"
)

func microTime(us int64) time.Time { return time.UnixMicro(us).UTC() }

// supplyLoop keeps spare files ready. It is apart from the chores because the
// committer may wait for it, and the chores for the committer.
func (s *Store) supplyLoop(stop <-chan struct{}) {
	retry := time.NewTicker(s.cfg.RetryEvery)
	defer retry.Stop()
	for {
		s.supplyOnce()
		for waiting := true; waiting; {
			select {
			case <-stop:
				return
			case <-s.supply:
				// Out of space: only the clock, or a released file, is worth
				// another try, or every append would fill the disk once more.
				waiting = !s.mayMakeRoom()
			case <-retry.C:
				waiting = false
			}
		}
	}
}

func (s *Store) mayMakeRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full == nil || len(s.released) > 0
}

// choreLoop saves indexes and moves replicas out of the journal.
func (s *Store) choreLoop(stop <-chan struct{}) {
	tick := time.NewTicker(s.cfg.TidyEvery)
	defer tick.Stop()
	for {
		s.chore(s.saveIndexes)
		s.chore(s.tidy)
		select {
		case <-stop:
			return
		case <-s.chores:
		case <-tick.C:
		}
	}
}

// chore runs one of them; what fails for want of space or because the store
// closes is tried again at the next occasion.
func (s *Store) chore(f func() error) {
	err := f()
	switch {
	case err == nil, errors.Is(err, log.ErrClosed), s.Fault() != nil:
	case errors.Is(err, log.ErrSuspect):
		s.log.Error().Err(err).Msg("log upkeep met damage")
	case isFull(err), errors.Is(err, log.ErrFull):
		s.log.Warn().Err(err).Msg("log upkeep waits for disk space")
	default:
		s.die(err)
	}
}
