package segment

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/vfs"
)

// file is a journal file, or a spare one that will become one. The committer
// writes the active file; everything else is guarded by the store's lock.
type file struct {
	head   fileHeader
	seed   uint32
	name   string // path
	size   int64
	end    int64 // of its durable groups, once sealed
	handle vfs.File

	sealed bool
	saved  bool // its index is on disk
	refs   int  // reads under way
	gone   bool // released; to be recycled when refs is 0
	used   uint64

	runs map[uint32]*run // by the replica's number
}

func journalName(id uint64) string { return fmt.Sprintf("journal-%016x.twj", id) }
func indexName(id uint64) string   { return fmt.Sprintf("index-%016x.twx", id) }
func spareName(n uint64) string    { return fmt.Sprintf("spare-%016x.twj", n) }

// parseName splits the names above; ok is false for anything else.
func parseName(name string) (prefix string, id uint64, ok bool) {
	for _, p := range []struct{ prefix, suffix string }{{"journal-", ".twj"}, {"index-", ".twx"}, {"spare-", ".twj"}, {"reserve-", ".twj"}} {
		rest, found := strings.CutPrefix(name, p.prefix)
		hex, cut := strings.CutSuffix(rest, p.suffix)
		if !found || !cut || len(hex) != 16 {
			continue
		}
		if _, err := fmt.Sscanf(hex, "%016x", &id); err == nil && fmt.Sprintf("%016x", id) == hex {
			return p.prefix, id, true
		}
	}
	return "", 0, false
}

// prewrite makes a spare file whose every block is allocated and written, so
// that later syncs change no metadata of the file system. On an error nothing is
// left behind.
func (s *Store) prewrite(name string, size int64) (*file, error) {
	path := s.path(name)
	h, err := s.fs.Create(path)
	if err != nil {
		return nil, err
	}
	for at := int64(0); at < size && err == nil; {
		n, writeErr := h.WriteAt(zeros[:min(size-at, int64(len(zeros)))], at)
		at, err = at+int64(n), writeErr
		if err == nil && (at == size || at%syncStep == 0) { // in steps: the journal shares the disk
			err = h.Sync()
		}
	}
	if err != nil {
		return nil, errors.Join(err, h.Close(), s.fs.Remove(path))
	}
	return &file{name: path, size: size, handle: h}, nil
}

// activate turns a spare into the journal file of that header, with body (whole
// groups) already in it, and makes it durable under its journal name.
func (s *Store) activate(f *file, prev *file, prevEnd int64, body func(seed uint32) []byte) error {
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return err
	}
	h := fileHeader{
		ID: s.newID + 1, Generation: f.head.Generation + 1, Salt: binary.NativeEndian.Uint64(salt[:]), Node: s.node,
		PrevEnd: prevEnd, Size: f.size, CreatedAt: s.cfg.Now().UnixMicro(),
	}
	if prev != nil {
		h.PrevID = prev.head.ID
	}
	b := make([]byte, dataStart)
	h.encode(b)
	seed := h.seed()
	if body != nil {
		b = append(b, body(seed)...)
	}
	if _, err := f.handle.WriteAt(b, 0); err != nil {
		return err
	}
	if err := f.handle.Sync(); err != nil {
		return err
	}
	path := s.path(journalName(h.ID))
	if err := s.fs.Rename(f.name, path); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.head, f.seed, f.name = h, seed, path
	f.end, f.sealed, f.saved, f.gone = 0, false, false, false
	f.runs = map[uint32]*run{}
	s.files = append(s.files, f)
	s.newID = h.ID
	return nil
}

// readFileHeader reads both copies and returns the first good one.
func readFileHeader(h vfs.File) (fileHeader, error) {
	var b [dataStart]byte
	n, err := h.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fileHeader{}, err
	}
	head, err := decodeFileHeader(b[:min(n, page)])
	if err == nil || errors.Is(err, log.ErrProtocol) {
		return head, err
	}
	second, err2 := decodeFileHeader(b[min(n, page):n])
	if err2 != nil {
		return fileHeader{}, errors.Join(err, err2)
	}
	return second, nil
}

// acquireLocked keeps f from being recycled while it is read, and opens it.
func (s *Store) acquireLocked(f *file) (vfs.File, error) {
	if f.handle == nil {
		h, err := s.fs.Open(f.name)
		if err != nil {
			return nil, err
		}
		f.handle = h
		s.opened++
		s.shutOneLocked(f)
	}
	s.clock++
	f.used = s.clock
	f.refs++
	return f.handle, nil
}

func (s *Store) release(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(f)
}

func (s *Store) releaseLocked(f *file) {
	f.refs--
	if f.gone && f.refs == 0 {
		signal(s.supply)
	}
}

// shutOneLocked closes the sealed file that was not used for longest when too
// many are open.
func (s *Store) shutOneLocked(except *file) bool {
	if s.opened <= s.cfg.OpenFilesMax {
		return false
	}
	var oldest *file
	for _, f := range s.files {
		if f.sealed && f != except && f.handle != nil && f.refs == 0 && (oldest == nil || f.used < oldest.used) {
			oldest = f
		}
	}
	if oldest == nil {
		return false
	}
	if err := oldest.handle.Close(); err != nil {
		s.log.Warn().Err(err).Str("file", oldest.name).Msg("close of a sealed journal file failed; nothing was unwritten in it")
	}
	oldest.handle = nil
	s.opened--
	return true
}

// takeSpare waits for a pre-written file of at least that size. log.ErrFull when
// the disk has no room for one.
func (s *Store) takeSpare(size int64) (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.need = 0 }()
	for {
		for i, f := range s.spares {
			if f.size >= size {
				s.spares = append(s.spares[:i:i], s.spares[i+1:]...)
				signal(s.supply)
				return f, nil
			}
		}
		if s.fault != nil {
			return nil, s.fault
		}
		if s.full != nil {
			return nil, fmt.Errorf("no room for a journal file of %d bytes: %w: %w", max(size, s.cfg.FileBytes), log.ErrFull, s.full)
		}
		s.need = size
		signal(s.supply)
		s.mu.Unlock()
		<-s.spared
		s.mu.Lock()
	}
}

func reserveName(n uint64) string { return fmt.Sprintf("reserve-%016x.twj", n) }

// The reserve is a small pre-written file that appends never start: on a full disk
// an Open goes on in it, so that the log can be read, and space can be found.
func (c Config) reserveBytes() int64 {
	return min(c.FileBytes, dataStart+2*int64(c.GroupBytes)) / page * page
}

// stockReserve makes the reserve when there is none; false without space for it.
func (s *Store) stockReserve() bool {
	s.mu.Lock()
	there := s.reserve != nil || s.fault != nil
	s.spareSeq++
	name := reserveName(s.spareSeq)
	s.mu.Unlock()
	if there {
		return true
	}
	f, err := s.prewrite(name, s.cfg.reserveBytes())
	if isFull(err) {
		if cut, cutErr := s.cutReserve(name); cut != nil || cutErr != nil {
			f, err = cut, cutErr
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case isFull(err):
		s.outOfSpaceLocked(err)
		return false
	case err != nil:
		s.dieLocked(fmt.Errorf("prepare %s: %w", name, err))
	default:
		s.reserve = f
	}
	return true
}

// cutReserve makes the reserve of a spare, which takes no space: a node that can
// free some is worth more than a few more appends. nil without a spare.
func (s *Store) cutReserve(name string) (*file, error) {
	s.mu.Lock()
	var f *file
	if n := len(s.spares); n > 0 {
		f = s.spares[n-1]
		s.spares = s.spares[:n-1]
	}
	s.mu.Unlock()
	if f == nil {
		return nil, nil
	}
	if err := f.handle.Truncate(s.cfg.reserveBytes()); err != nil {
		return nil, errors.Join(err, f.handle.Close())
	}
	if err := s.fs.Rename(f.name, s.path(name)); err != nil {
		return nil, errors.Join(err, f.handle.Close())
	}
	f.name, f.size = s.path(name), s.cfg.reserveBytes()
	return f, nil
}

func (s *Store) outOfSpaceLocked(err error) {
	if s.full == nil {
		s.log.Error().Err(err).Str("dir", s.cfg.Dir).Msg("no space for the next journal file: appends fail until there is")
	}
	s.full = err
	signal(s.spared)
}

// supplyOnce makes spares until there are enough, recycling what was released.
// It runs in the supplier's goroutine only.
func (s *Store) supplyOnce() {
	s.recycle()
	if !s.stockReserve() {
		return
	}
	for {
		s.mu.Lock()
		size := max(s.cfg.FileBytes, (s.need+page-1)/page*page)
		wanted := len(s.spares) < s.cfg.SpareFiles && !s.lent
		if s.need > 0 {
			wanted = true
			for _, f := range s.spares {
				wanted = wanted && f.size < s.need
			}
		}
		dead := s.fault != nil
		s.spareSeq++
		name := spareName(s.spareSeq)
		s.mu.Unlock()
		if !wanted || dead {
			signal(s.spared)
			return
		}
		f, err := s.prewrite(name, size)
		s.mu.Lock()
		switch {
		case isFull(err):
			s.outOfSpaceLocked(err)
			s.mu.Unlock()
			return
		case err != nil:
			s.dieLocked(fmt.Errorf("prepare %s: %w", name, err))
			s.mu.Unlock()
			return
		}
		if s.full != nil {
			s.log.Info().Str("dir", s.cfg.Dir).Msg("there is space for journal files again")
			s.full = nil
		}
		s.spares = append(s.spares, f)
		signal(s.spared)
		s.mu.Unlock()
	}
}

// recycle turns released files that nobody reads any more into spares, or
// removes them.
func (s *Store) recycle() {
	for {
		s.mu.Lock()
		var f *file
		for i, g := range s.released {
			if g.refs == 0 {
				f = g
				s.released = append(s.released[:i:i], s.released[i+1:]...)
				break
			}
		}
		if f == nil || s.fault != nil {
			s.mu.Unlock()
			return
		}
		// To make a file costs as much as to fill it, and a segment that leaves
		// the journal frees many at once.
		few := int64(len(s.spares)) <= max(int64(s.cfg.SpareFiles), (s.cfg.JournalBytes-s.cfg.idleBytes())/s.cfg.FileBytes)
		keep := f.size == s.cfg.FileBytes && (few || s.reserve == nil)
		s.spareSeq++
		name := s.path(spareName(s.spareSeq))
		s.mu.Unlock()
		if err := s.discard(f, keep, name); err != nil {
			s.die(err)
			return
		}
	}
}

func (s *Store) discard(f *file, keep bool, spare string) error {
	err := s.fs.Remove(s.path(indexName(f.head.ID)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !keep {
		if f.handle != nil {
			err = f.handle.Close()
		} else {
			err = nil
		}
		return errors.Join(err, s.fs.Remove(f.name))
	}
	if f.handle == nil {
		if f.handle, err = s.fs.Open(f.name); err != nil {
			return err
		}
	}
	if err := s.fs.Rename(f.name, spare); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.name, f.sealed, f.gone = spare, false, false
	f.runs = nil
	s.spares = append(s.spares, f)
	s.full = nil
	signal(s.spared)
	return nil
}
