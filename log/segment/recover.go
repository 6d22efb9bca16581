package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/twinspan/twinspan/log"
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
