package segment

import (
	"errors"
	"fmt"
	"io"

	"github.com/twinspan/twinspan/log"
)

// saveIndexes writes the index of each sealed file beside it, and the list of
// sealed files into the meta.
func (s *Store) saveIndexes() error {
	saved := 0
	for {
		s.mu.Lock()
		var f *file
		for _, g := range s.files {
			if g.sealed && !g.saved {
				f = g
				break
			}
		}
		if f == nil || s.fault != nil {
			s.mu.Unlock()
			break
		}
		var runs []*run
		for _, id := range sortedKeys(f.runs) {
			runs = append(runs, f.runs[id])
		}
		f.refs++ // it must not begin another life meanwhile
		s.mu.Unlock()
		b := encodeIndex(f.head, f.end, runs)
		err := s.replace(indexName(f.head.ID), b)
		if err != nil {
			s.release(f)
			return fmt.Errorf("save index of %s: %w", f.name, err)
		}
		x, err := decodeIndex(b, int64(len(b)))
		if err != nil {
			s.release(f)
			return err
		}
		s.mu.Lock()
		f.saved = true
		s.releaseLocked(f)
		for i, r := range runs {
			r.indexAt, r.indexed = x.runs[i].at, x.runs[i].crc
			if f.runs[r.replica.num] == r { // it may have left the journal
				s.cached += 4 * int64(len(r.index))
			}
		}
		s.evictLocked(nil)
		s.mu.Unlock()
		saved++
	}
	if saved == 0 {
		return nil
	}
	return s.persist()
}

// replace writes a file beside its place and renames it there.
func (s *Store) replace(name string, b []byte) error {
	path := s.path(name)
	temp := path + ".tmp"
	f, err := s.fs.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.fs.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, s.fs.Remove(temp))
	}
	return nil
}

// loadIndex gives f its runs from the saved index; false when it has to be
// scanned.
func (s *Store) loadIndex(f *file) bool {
	h, err := s.fs.Open(s.path(indexName(f.head.ID)))
	if err != nil {
		return false
	}
	x, err := func() (savedIndex, error) {
		size, err := h.Size()
		if err != nil {
			return savedIndex{}, err
		}
		var b [savedFixed]byte
		if _, err := h.ReadAt(b[:], 0); err != nil {
			return savedIndex{}, err
		}
		n, err := savedHeadSize(b[:])
		if err != nil || n > size {
			return savedIndex{}, errors.Join(err, errFormat)
		}
		head := make([]byte, n)
		if _, err := h.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
			return savedIndex{}, err
		}
		return decodeIndex(head, size)
	}()
	if err = errors.Join(err, h.Close()); err != nil {
		s.log.Warn().Err(err).Str("file", indexName(f.head.ID)).Msg("a saved index is unreadable: the journal file is read instead")
		return false
	}
	known := x.id == f.head.ID && x.salt == f.head.Salt && x.end == f.end && f.size >= f.end
	if !known {
		return false
	}
	for _, row := range x.runs {
		r := s.nums[row.replica]
		if r == nil {
			continue // dropped, or in its own file
		}
		if l := s.landings[r]; row.first+log.Offset(row.count)-1 <= l.covered || row.first > l.limit {
			continue
		}
		f.runs[r.num] = &run{
			replica: r, file: f, first: row.first, count: row.count, lost: row.lost, bytes: row.bytes, oldest: row.oldest,
			newest: row.newest, ends: row.ends, lac: row.lac, classes: row.classes, indexAt: row.at, indexed: row.crc,
		}
	}
	f.saved = true
	return true
}

// loadElements reads a run's index from the saved one. When that turns out to be
// damaged the journal file is scanned again.
func (s *Store) loadElements(r *run) ([]uint32, error) {
	f := r.file
	h, err := s.fs.Open(s.path(indexName(f.head.ID)))
	if err == nil {
		b := make([]byte, 4*int(r.count))
		_, err = h.ReadAt(b, r.indexAt)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		err = errors.Join(err, h.Close())
		if err == nil {
			out, err := decodeElements(b, r.indexed)
			if err == nil {
				return out, nil
			}
		}
	}
	s.log.Warn().Str("file", indexName(f.head.ID)).Msg("a saved index is unreadable: the journal file is read instead")
	s.mu.Lock()
	handle := f.handle
	s.mu.Unlock()
	sc, err := scanFile(handle, f.head, f.end)
	if err != nil {
		return nil, err
	}
	out := make([]uint32, r.count)
	for _, e := range sc.records {
		if e.Replica == r.replica.num && e.Offset >= r.first && e.Offset <= r.last() {
			out[e.Offset-r.first] = indexEntry(e.place, indexBits(e.Topic, e.Flags&flagEnds != 0))
		}
	}
	return out, nil
}

// needElements loads a run's index, while nobody else is there.
func (s *Store) needElements(r *run) error {
	if r.index != nil {
		return nil
	}
	index, err := s.loadElements(r)
	if err != nil {
		return fmt.Errorf("%s: index of %s: %w", r.replica.id, r.file.name, err)
	}
	s.cacheLocked(r, index)
	return nil
}

// cacheLocked keeps a loaded index and lets the one go that was not used for
// longest.
func (s *Store) cacheLocked(r *run, index []uint32) {
	if r.index == nil {
		r.index = index
		if r.file.runs[r.replica.num] == r { // it may have left the journal
			s.cached += 4 * int64(len(index))
		}
	}
	s.evictLocked(r.file)
}

func (s *Store) evictLocked(except *file) {
	for s.cached > s.cfg.IndexCacheBytes {
		var oldest *file
		for _, f := range s.files {
			if f.saved && f != except && (oldest == nil || f.used < oldest.used) && f.loaded() {
				oldest = f
			}
		}
		if oldest == nil {
			return
		}
		s.unloadLocked(oldest)
	}
}

func (f *file) loaded() bool {
	for _, r := range f.runs {
		if r.index != nil {
			return true
		}
	}
	return false
}

func (s *Store) unloadLocked(f *file) {
	if !f.saved {
		return
	}
	for _, r := range f.runs {
		s.cached -= 4 * int64(len(r.index))
		r.index = nil
	}
}
