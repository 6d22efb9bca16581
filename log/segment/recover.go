package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// recover brings the store to the state of the directory and leaves it with a
// new active file. The newest file of the last life is never written again: its
// proven groups stay where they are, and what can be saved of its unproven last
// group is copied into the new file, which is durable as a whole before it
// appears under its name. So nothing stale can ever lie behind the durable end of
// a file that is still written, and bytes of a sync that failed, which the page
// cache may show as clean, are written anew.
func (s *Store) recover() error {
	dir, err := s.survey()
	if err != nil {
		return err
	}
	m, err := s.loadMeta(dir)
	if err != nil {
		return err
	}
	s.nextID, s.generation, s.generationSafe = m.NextID, m.Generation, m.Generation
	for i := range m.lines {
		l := &m.lines[i]
		r := newReplica(s, ID{l.Descriptor.Stream, l.Descriptor.Segment})
		if s.replicas[r.id] != nil || s.nums[l.ID] != nil {
			return fmt.Errorf("meta: %s, number %d, is there twice: %w", r.id, l.ID, log.ErrSuspect)
		}
		r.describe(l.Descriptor)
		r.num, r.line, r.created, r.asked, r.doubt = l.ID, l.metaReplica, true, l.Fence, l.Doubt
		if l.Closed {
			r.closeAt = &segmentEnd{l.Last, l.LSO}
		}
		s.replicas[r.id], s.nums[r.num] = r, r
	}
	for _, f := range m.Floors {
		s.floors[f.Stream] = floor{f.Segment, f.Epoch}
	}
	if err := s.openShelves(m); err != nil {
		return err
	}
	s.land()
	if err := s.openJournals(dir, m); err != nil {
		return err
	}
	newest, used, tail, err := s.readJournals()
	if err != nil {
		return err
	}
	s.judgeTails(tail)
	if err := s.openSpares(dir); err != nil {
		return err
	}
	if err := s.resume(newest, used, tail); err != nil {
		return err
	}
	for _, num := range sortedKeys(s.nums) {
		if err := s.nums[num].settle(); err != nil {
			return err
		}
	}
	s.landings = nil
	for s.opened > s.cfg.OpenFilesMax && s.shutOneLocked(nil) {
	}
	// What a scan learnt from the group that is left behind now must not be
	// forgotten, so the index goes to disk before anyone can ask.
	if err := s.saveIndexes(); err != nil && !isFull(err) && !errors.Is(err, log.ErrFull) {
		return err
	}
	return s.persist()
}

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

// readJournals gives every replica its runs. It returns the newest file, unless
// it is empty, with the end of what is written in it and the records of its
// unproven last group.
func (s *Store) readJournals() (newest *file, used int64, tail []found, err error) {
	for i, f := range s.files {
		last := i == len(s.files)-1
		if f.end == 0 && !last {
			return nil, 0, nil, fmt.Errorf("%s: nothing tells where it ends: %w", f.name, log.ErrSuspect)
		}
		if f.end > 0 && s.loadIndex(f) {
			continue
		}
		sc, err := scanFile(f.handle, f.head, f.end)
		if err != nil {
			return nil, 0, nil, fmt.Errorf("%s: %w", f.name, err)
		}
		s.sequence = max(s.sequence, sc.sequence)
		if err := s.index(f, sc); err != nil {
			return nil, 0, nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if f.end == 0 {
			f.end, newest, used, tail = sc.end, f, sc.used, sc.tail
		}
	}
	for _, f := range s.files {
		for _, num := range sortedKeys(f.runs) {
			r := f.runs[num].replica
			if err := s.landings[r].chain(r, f.runs[num]); err != nil {
				return nil, 0, nil, err
			}
		}
	}
	return newest, used, tail, nil
}

// index makes runs of what a scan found. Records of replicas that have no line in
// the meta are left: each was in the meta before its first one was written, so it
// was dropped, or is wholly in its own file.
func (s *Store) index(f *file, sc scanned) error {
	runOf := func(r *Replica, first log.Offset) *run {
		if f.runs[r.num] == nil {
			f.runs[r.num] = newRun(r, f, first)
		}
		return f.runs[r.num]
	}
	for _, e := range sc.records {
		r := s.nums[e.Replica]
		if r == nil {
			continue
		}
		if l := s.landings[r]; e.Offset <= l.covered || e.Offset > l.limit {
			continue
		}
		x := runOf(r, e.Offset)
		if e.Offset <= x.last() && x.count > 0 {
			return fmt.Errorf("%s: entry %d after entry %d: %w", r.id, e.Offset, x.last(), log.ErrSuspect)
		}
		x.add(e.Offset, e.place, indexBits(e.Topic, e.Flags&flagEnds != 0), e.LAC, e.Time, e.size)
	}
	for _, t := range sc.lost {
		r := s.nums[t.Replica]
		if r == nil {
			continue
		}
		l := s.landings[r]
		first, last := max(t.First, l.covered+1), min(t.end()-1, l.limit)
		if first > last {
			continue
		}
		runOf(r, first).pad(last + 1)
	}
	if sc.doubt > 0 {
		s.doubts = append(s.doubts, doubt{file: f.head.ID, place: sc.doubt})
		s.log.Error().Str("file", f.name).Int64("offset", sc.doubt).Msg("damage in the journal below its durable end")
	} else if len(sc.lost) > 0 {
		s.log.Error().Str("file", f.name).Int("groups", len(sc.lost)).Msg("damaged groups in the journal below its durable end")
	}
	return nil
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

// openSpares takes over pre-written files of the right size and removes others.
func (s *Store) openSpares(dir listing) error {
	for _, n := range dir.reserves {
		if err := s.openReserve(s.path(reserveName(n))); err != nil {
			return err
		}
	}
	for _, n := range dir.spares {
		path := s.path(spareName(n))
		h, err := s.fs.Open(path)
		if err != nil {
			return err
		}
		size, err := h.Size()
		if err != nil {
			return errors.Join(err, h.Close())
		}
		if size != s.cfg.FileBytes || len(s.spares) > s.cfg.SpareFiles {
			if err := errors.Join(h.Close(), s.fs.Remove(path)); err != nil {
				return err
			}
			continue
		}
		head, err := readFileHeader(h)
		if err != nil && !errors.Is(err, errFormat) && !errors.Is(err, log.ErrProtocol) {
			return errors.Join(err, h.Close())
		}
		s.spares = append(s.spares, &file{head: head, name: path, size: size, handle: h})
	}
	s.recycle()
	for _, id := range dir.indexes {
		if slices.ContainsFunc(s.files, func(f *file) bool { return f.head.ID == id }) {
			continue
		}
		if err := s.fs.Remove(s.path(indexName(id))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.Fault()
}

func (s *Store) openReserve(path string) error {
	h, err := s.fs.Open(path)
	if err != nil {
		return err
	}
	size, err := h.Size()
	if err != nil {
		return errors.Join(err, h.Close())
	}
	if s.reserve != nil || size != s.cfg.reserveBytes() { // cut short, or the configuration changed
		return errors.Join(h.Close(), s.fs.Remove(path))
	}
	s.reserve = &file{name: path, size: size, handle: h}
	return nil
}

// resume starts a new active file behind newest, with the records of tail.
func (s *Store) resume(newest *file, used int64, tail []found) error {
	var carry *group
	var size int64
	if len(tail) > 0 {
		carry = newGroup(page)
		for _, e := range tail {
			payload := make([]byte, e.Length)
			if _, err := newest.handle.ReadAt(payload, e.place+recordHeader); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			r := s.nums[e.Replica]
			if r == nil {
				continue
			}
			l := s.landings[r]
			if e.Offset <= l.covered || e.Offset > l.limit {
				continue
			}
			if err := l.expect(r, e.Offset); err != nil {
				return err
			}
			carry.add(r, &e.record, payload)
		}
		if carry.empty() {
			carry = nil
		}
	}
	if carry != nil {
		size = carry.sealedSize(0)
	}
	spare, err := s.spareForOpen(dataStart+max(size, page), newest, used)
	if err != nil {
		return err
	}
	err = s.activate(spare, newest, endOf(newest), func(seed uint32) []byte {
		if carry == nil {
			return nil
		}
		return carry.seal(seed, dataStart, s.sequence+1, 0, nil)
	})
	if err != nil {
		return errors.Join(err, spare.handle.Close())
	}
	s.active = spare
	s.at = dataStart
	if carry != nil {
		s.sequence++
		s.prevAt, s.at = dataStart, dataStart+size
		s.prev = slices.Clone(carry.touched)
		s.mu.Lock()
		s.placeLocked(carry, dataStart, groupFixed+touchSize*len(carry.touched))
		for _, r := range carry.replicas {
			r.touchedIn = nil
		}
		s.mu.Unlock()
		s.unproven = true
	}
	if newest == nil {
		return nil
	}
	return s.retire(newest)
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

func endOf(f *file) int64 {
	if f == nil {
		return 0
	}
	return f.end
}

// retire gives the room behind the last file's durable end back; a file that
// never got a group becomes a spare.
func (s *Store) retire(f *file) error {
	if f.end > dataStart {
		if err := f.handle.Truncate(f.end); err != nil {
			return err
		}
		f.size = f.end
		return nil
	}
	s.files = slices.DeleteFunc(s.files, func(g *file) bool { return g == f })
	s.opened--
	s.released = append(s.released, f)
	return nil
}

// spareForOpen is takeSpare before Run. On a full disk it gives back what the
// newest file never used, and makes do with the reserve or a smaller file: a node that
// runs can be read, and finds space again when segments are given up.
func (s *Store) spareForOpen(size int64, newest *file, used int64) (*file, error) {
	for i, f := range s.spares {
		if f.size >= size {
			s.spares = slices.Delete(s.spares, i, i+1)
			return f, nil
		}
	}
	size = (size + page - 1) / page * page
	for bytes := max(s.cfg.FileBytes, size); ; bytes = max(bytes/2/page*page, size) {
		s.spareSeq++
		f, err := s.prewrite(spareName(s.spareSeq), bytes)
		if !isFull(err) {
			return f, err
		}
		if newest != nil && used < newest.size {
			if err := newest.handle.Truncate(used); err != nil {
				return nil, err
			}
			newest.size = used
			continue
		}
		if f := s.reserve; f != nil && f.size >= size {
			s.reserve = nil
			return f, nil
		}
		if bytes == size {
			return nil, err
		}
	}
}
