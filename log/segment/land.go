package segment

import (
	"fmt"
	"math"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// landing is what recovery finds of a replica that has a line in the meta.
type landing struct {
	covered log.Offset // its own file has what comes up to here
	limit   log.Offset // entries above it are gone: the segment is closed there
	last    log.Offset // newest entry found
	next    log.Offset // that the tail may bring
}

// land prepares the landings. A replica whose own file already has all of it, as a
// crash between the file and the meta leaves it, needs nothing of the journal.
func (s *Store) land() {
	s.landings = map[*Replica]*landing{}
	for num, r := range s.nums {
		l := &landing{covered: r.desc.First - 1, limit: math.MaxInt64}
		if r.closeAt != nil {
			l.limit = r.closeAt.last
		}
		switch {
		case r.file != nil:
			l.covered = min(r.file.head.Upto, l.limit)
			if r.file.head.Closed {
				r.restState()
				r.shelved = true
				delete(s.nums, num)
				n := log.Offset(r.id.Segment)
				s.shelves[r.id.Stream] = s.shelves[r.id.Stream].add(Range{n, n})
				continue
			}
		case len(r.damage) > 0: // its file is lost
			l.covered = min(r.line.Filed, l.limit)
		}
		s.landings[r] = l
	}
}

// doubt is damage that may have taken entries of any replica.
type doubt struct {
	file  uint64
	place int64
}

// chain appends the run to the replica, closing a gap before it with a lost run.
func (l *landing) chain(r *Replica, x *run) error {
	expected := l.covered + 1
	if n := len(r.runs); n > 0 {
		expected = r.runs[n-1].last() + 1
	} else if x.first < expected {
		expected = x.first
	}
	if x.first < expected {
		return fmt.Errorf("%s: entries from %d occur twice: %w", r.id, x.first, log.ErrSuspect)
	}
	if x.first > expected {
		r.store.log.Error().Stringer("replica", r.id).Int64("first", int64(expected)).Int64("last", int64(x.first)-1).
			Msg("entries are missing from the journal")
		r.runs = append(r.runs, lostRun(r, expected, x.first-1))
	}
	r.runs = append(r.runs, x)
	return nil
}

// judgeTails finds each replica's last entry, and whether later ones may have been
// lost: then nobody may append, because the offsets could be taken. Of a closed
// one it is known where it ends.
func (s *Store) judgeTails(tail []found) {
	carried := map[uint32]log.Offset{}
	for _, e := range tail {
		carried[e.Replica] = e.Offset
	}
	for num, r := range s.nums {
		l := s.landings[r]
		l.last = l.covered
		if n := len(r.runs); n > 0 {
			l.last = max(l.last, min(r.runs[n-1].last(), l.limit))
		}
		if r.closeAt != nil {
			r.doubt = false
			continue
		}
		end := l.last
		if o, ok := carried[num]; ok {
			end = max(end, o)
		}
		suspect := end < r.line.Held
		if _, ok := carried[num]; !ok {
			for _, d := range s.doubts {
				suspect = suspect || !r.provenAfter(d)
			}
			if len(s.missing) > 0 {
				suspect = suspect || !r.provenAfter(doubt{file: slices.Max(s.missing)})
			}
		}
		if suspect && !r.doubt {
			s.log.Error().Stringer("replica", r.id).Int64("last", int64(end)).Int64("known", int64(r.line.Held)).
				Msg("entries after the last one found may be lost: the replica is suspect and takes no appends")
			r.doubt = true
		}
	}
}

// provenAfter says whether an entry of the replica lies behind the damage, so that
// offsets tell what was lost in it.
func (r *Replica) provenAfter(d doubt) bool {
	if len(r.runs) == 0 {
		return false
	}
	x := r.runs[len(r.runs)-1]
	switch {
	case x.file == nil || x.file.head.ID < d.file:
		return false
	case x.file.head.ID > d.file:
		return true
	}
	return x.index != nil && indexPlace(x.index[len(x.index)-1]) > d.place
}

// settle makes the machine of a replica that has a line in the meta, from what was
// found.
func (r *Replica) settle() error {
	first := r.desc.First
	l := r.store.landings[r]
	last := l.covered
	if n := len(r.runs); n > 0 {
		last = max(last, min(r.runs[n-1].last(), l.limit))
	}
	state := fresh(&r.desc)
	state.Last, state.Fence, state.LAC = last, r.asked, r.line.LAC
	if r.file != nil {
		state.LAC = max(state.LAC, r.file.head.LAC)
	}
	for _, x := range r.runs {
		state.LAC = max(state.LAC, x.lac)
		if x.lost == 0 {
			continue
		}
		if x.file == nil {
			r.damage = r.damage.add(Range{x.first, x.last()})
			continue
		}
		if err := r.store.needElements(x); err != nil {
			return err
		}
		for i, e := range x.index {
			if indexPlace(e) == 0 {
				o := x.first + log.Offset(i)
				r.damage = r.damage.add(Range{o, o})
			}
		}
	}
	r.damage = r.damage.cut(first, last)
	if e := r.closeAt; e != nil {
		state.Closed, state.End, state.EndLSO = true, e.last, e.lso
	}
	state.Suspect = r.doubt || len(r.damage) > 0 && len(r.desc.Members) > 1
	if len(r.damage) > 0 {
		r.store.log.Error().Stringer("replica", r.id).Int64("first", int64(r.damage[0].First)).Int("stretches", len(r.damage)).
			Msg("entries of the replica are damaged")
	}
	shown := max(min(state.LAC, last), first-1)
	if state.Closed {
		shown = last
	}
	var err error
	if r.lso, r.ends, err = r.transactions(shown, last); err != nil {
		return err
	}
	state.LSO = r.lso
	if n := len(r.ends); n > 0 {
		state.LSO = r.ends[n-1]
	}
	if state.Closed && last == state.End {
		state.LSO, r.lso, r.ends = state.EndLSO, state.EndLSO, nil
	}
	r.m = quorum.NewReplica(state)
	return nil
}

// transactions finds the newest end of a transaction up to shown, and all behind
// it up to last.
func (r *Replica) transactions(shown, last log.Offset) (lso log.Offset, ends []log.Offset, err error) {
	for _, x := range slices.Backward(r.runs) {
		if x.ends == log.None || x.file == nil {
			continue
		}
		if x.last() <= shown {
			slices.Reverse(ends)
			return x.ends, ends, nil
		}
		if err := r.store.needElements(x); err != nil {
			return 0, nil, err
		}
		for i, e := range slices.Backward(x.index) {
			o := x.first + log.Offset(i)
			if e&endsBit == 0 || o > last {
				continue
			}
			if o <= shown {
				slices.Reverse(ends)
				return o, ends, nil
			}
			ends = append(ends, o)
		}
	}
	lso = r.desc.FirstLSO
	if r.file != nil {
		if o := r.file.head.LSO; o <= shown {
			lso = max(lso, o)
		} else if o <= last {
			ends = append(ends, o)
		}
	}
	slices.Reverse(ends)
	return lso, ends, nil
}

// expect prepares the replica for a carried entry: what is missing before it was
// lost to damage.
func (l *landing) expect(r *Replica, o log.Offset) error {
	want := max(l.next, l.last+1)
	if o < want {
		return fmt.Errorf("%s: entry %d where %d should come: %w", r.id, o, want, log.ErrSuspect)
	}
	if o > want {
		r.runs = append(r.runs, lostRun(r, want, o-1))
	}
	l.next = o + 1
	return nil
}
