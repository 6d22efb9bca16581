package segment

import (
	"cmp"
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
	for _, ms := range m.Streams {
		st := newStream(s, ms.ID, ms.Name)
		st.created, st.epoch, st.segments = true, ms.Epoch, ms.Segments
		st.first, st.suspect = ms.First, ms.TailSuspect
		for _, c := range ms.Cursors {
			st.cursors[c.Group] = c
		}
		s.streams[ms.ID], s.names[ms.Name] = st, st
	}
	s.nextID = m.NextID
	if err := s.openJournals(dir, m); err != nil {
		return err
	}
	newest, used, tail, err := s.readJournals(m)
	if err != nil {
		return err
	}
	s.judgeTails(m, tail)
	if err := s.openSpares(dir); err != nil {
		return err
	}
	if err := s.resume(newest, used, tail); err != nil {
		return err
	}
	for _, st := range s.streams {
		st.next, st.lac = st.last+1, st.last
		st.findLSO()
	}
	for s.opened > s.cfg.OpenFilesMax && s.shutOneLocked(nil) {
	}
	// What a scan learnt from the group that is left behind now must not be
	// forgotten, so the index goes to disk before anyone can ask.
	if err := s.saveIndexes(); err != nil && !isFull(err) && !errors.Is(err, log.ErrFull) {
		return err
	}
	return s.persist()
}

// readJournals gives every stream its runs. It returns the newest file, unless
// it is empty, with the end of what is written in it and the records of its
// unproven last group.
func (s *Store) readJournals(m *meta) (newest *file, used int64, tail []found, err error) {
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
		for _, id := range sortedKeys(f.runs) {
			if err := f.runs[id].stream.chain(f.runs[id]); err != nil {
				return nil, 0, nil, err
			}
		}
		for _, k := range f.keeps {
			k.stream.keepNewest(k)
		}
	}
	return newest, used, tail, nil
}

// index makes runs of what a scan found.
func (s *Store) index(f *file, sc scanned) error {
	runOf := func(id uint32, first log.Offset) (*run, error) {
		if r := f.runs[id]; r != nil {
			return r, nil
		}
		st := s.streams[id]
		if st == nil {
			return nil, fmt.Errorf("entry of stream %d, which the meta does not know: %w", id, log.ErrSuspect)
		}
		f.runs[id] = newRun(st, f, first)
		return f.runs[id], nil
	}
	for _, e := range sc.records {
		bits := indexBits(e.Topic, e.Flags&flagEnds != 0)
		if e.Kind == kindKept {
			st := s.streams[e.Stream]
			if st == nil {
				return fmt.Errorf("kept entry of stream %d, which the meta does not know: %w", e.Stream, log.ErrSuspect)
			}
			f.keeps = append(f.keeps, &kept{stream: st, offset: e.Offset, file: f, entry: indexEntry(e.place, bits), size: int32(e.size)})
			continue
		}
		r, err := runOf(e.Stream, e.Offset)
		if err != nil {
			return err
		}
		if e.Offset <= r.last() && r.count > 0 {
			return fmt.Errorf("stream %q: entry %d after entry %d: %w", r.stream.name, e.Offset, r.last(), log.ErrSuspect)
		}
		r.add(e.Offset, e.place, bits, e.Epoch, e.Time, e.size)
	}
	for _, t := range sc.lost {
		if t.Count == 0 {
			continue // kept entries: the stream's table of them tells
		}
		r, err := runOf(t.Stream, t.First)
		if err != nil {
			return err
		}
		r.pad(t.end())
	}
	if sc.doubt > 0 {
		s.doubts = append(s.doubts, doubt{file: f.head.ID, place: sc.doubt})
		s.log.Error().Str("file", f.name).Int64("offset", sc.doubt).Msg("damage in the journal below its durable end")
	} else if len(sc.lost) > 0 {
		s.log.Error().Str("file", f.name).Int("groups", len(sc.lost)).Msg("damaged groups in the journal below its durable end")
	}
	return nil
}

// doubt is damage that may have taken entries of any stream.
type doubt struct {
	file  uint64
	place int64
}

// chain appends the run to the stream, closing a gap before it with a lost run.
func (st *Stream) chain(r *run) error {
	if r.last() < st.first {
		return nil // trimmed; the file is only kept for others
	}
	expected := st.first
	if n := len(st.runs); n > 0 {
		expected = st.runs[n-1].last() + 1
	} else if r.first < expected {
		expected = r.first
	}
	if r.first < expected {
		return fmt.Errorf("stream %q: entries from %d occur twice: %w", st.name, r.first, log.ErrSuspect)
	}
	if r.first > expected {
		st.store.log.Error().Str("stream", st.name).Int64("first", int64(expected)).Int64("last", int64(r.first)-1).
			Msg("entries are missing from the journal")
		st.runs = append(st.runs, &run{stream: st, first: expected, count: uint32(r.first - expected), ends: log.None})
	}
	st.runs = append(st.runs, r)
	return nil
}

func (st *Stream) keepNewest(k *kept) {
	i, found := slices.BinarySearchFunc(st.keeps, k, func(a, b *kept) int { return cmp.Compare(a.offset, b.offset) })
	if found {
		st.keeps[i] = k
		return
	}
	st.keeps = slices.Insert(st.keeps, i, k)
}

// judgeTails finds each stream's last entry, and whether later ones may have
// been lost: then nobody may append, because the offsets could be taken.
func (s *Store) judgeTails(m *meta, tail []found) {
	carried := map[uint32]log.Offset{}
	for _, e := range tail {
		if e.Kind == kindEntry {
			carried[e.Stream] = e.Offset
		}
	}
	for _, ms := range m.Streams {
		st := s.streams[ms.ID]
		st.last = st.first - 1
		if n := len(st.runs); n > 0 {
			st.last = st.runs[n-1].last()
			st.epoch = max(st.epoch, st.runs[n-1].epoch)
		}
		end := st.last
		if o, ok := carried[ms.ID]; ok {
			end = o
		}
		known := max(ms.Last, st.open().First-1)
		suspect := end < known
		if _, ok := carried[ms.ID]; !ok {
			for _, d := range s.doubts {
				suspect = suspect || !st.provenAfter(d)
			}
			if len(s.missing) > 0 {
				suspect = suspect || !st.provenAfter(doubt{file: slices.Max(s.missing)})
			}
		}
		if suspect && !st.suspect {
			s.log.Error().Str("stream", st.name).Int64("last", int64(end)).Int64("known", int64(known)).
				Msg("entries after the last one found may be lost: the stream is suspect and takes no writer")
			st.suspect = true
		}
	}
}

// provenAfter says whether an entry of the stream lies behind the damage, so
// that offsets tell what was lost in it.
func (st *Stream) provenAfter(d doubt) bool {
	if len(st.runs) == 0 {
		return false
	}
	r := st.runs[len(st.runs)-1]
	switch {
	case r.file == nil || r.file.head.ID < d.file:
		return false
	case r.file.head.ID > d.file:
		return true
	}
	return r.index != nil && indexPlace(r.index[len(r.index)-1]) > d.place
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
			st := s.streams[e.Stream]
			if st == nil {
				return fmt.Errorf("%s: entry of stream %d, which the meta does not know: %w", newest.name, e.Stream, log.ErrSuspect)
			}
			if e.Kind == kindEntry {
				if err := st.expect(e.Offset); err != nil {
					return err
				}
			}
			carry.add(st, &e.record, payload)
		}
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
		s.publishLocked(carry, dataStart, groupFixed+touchSize*len(carry.touched))
		s.mu.Unlock()
		s.unproven = true
	}
	if newest == nil {
		return nil
	}
	return s.retire(newest)
}

// expect prepares the stream for a carried entry: what is missing before it was
// lost to damage.
func (st *Stream) expect(o log.Offset) error {
	want := max(st.next, st.last+1)
	if o < want {
		return fmt.Errorf("stream %q: entry %d where %d should come: %w", st.name, o, want, log.ErrSuspect)
	}
	if o > want {
		st.runs = append(st.runs, &run{stream: st, first: want, count: uint32(o - want), ends: log.None})
	}
	st.next = o + 1
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
// newest file never used, and makes do with the reserve or a smaller file: a node that can be
// read, and whose cursors move, can find space again by retention.
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

// findLSO looks for the newest entry that ends a transaction.
func (st *Stream) findLSO() {
	st.lso = log.None
	for i := len(st.runs) - 1; i >= 0; i-- {
		if r := st.runs[i]; r.ends != log.None {
			st.lso = r.ends
			return
		}
	}
	if st.first > 0 {
		// Retention only ever cuts behind the end of a transaction.
		st.lso = st.first - 1
	}
}
