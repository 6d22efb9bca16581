package segment

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// Replicas' own files lie in segments/<stream>/<segment>.tws below the store's
// directory. They are listed when the store opens; what is in them is read when it
// is needed, so that ten thousand of them cost a start nothing.
const (
	shelvesDir  = "segments"
	ownSuffix   = ".tws"
	ownUnsealed = ".tws.tmp" // being written
)

// shelfName is the directory of a stream: its name with everything but letters,
// digits, - and _ as %XX. A long one is cut and gets a hash. Nothing needs to get
// the name back.
func shelfName(stream string) string {
	var b strings.Builder
	for _, c := range []byte(stream) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() <= 120 {
		return b.String()
	}
	sum := sha256.Sum256([]byte(stream))
	return fmt.Sprintf("%s~%x", b.String()[:100], sum[:8])
}

func (s *Store) shelfPath(stream string) string {
	return filepath.Join(s.cfg.Dir, shelvesDir, shelfName(stream))
}

func (s *Store) ownPath(id ID) string {
	return filepath.Join(s.shelfPath(id.Stream), strconv.FormatUint(uint64(id.Segment), 10)+ownSuffix)
}

// parseOwn is the inverse for the last part of a path.
func parseOwn(name string) (segment uint32, ok bool) {
	digits, found := strings.CutSuffix(name, ownSuffix)
	n, err := strconv.ParseUint(digits, 10, 32)
	if !found || err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return 0, false
	}
	return uint32(n), true
}

// openShelves compares the own files with what the meta says of them. A file that
// the meta does not know comes from a change that was cut short, or of a replica
// that was dropped, and goes. One that is missing makes its replica suspect.
func (s *Store) openShelves(m *meta) error {
	s.raw = m.Raw
	for _, shelf := range m.Shelves {
		for _, r := range shelf.Segments {
			if r[0] == 0 || r[1] < r[0] || int64(r[1])-int64(r[0]) > 1<<24 {
				return fmt.Errorf("stream %q: segments %d to %d in their own files: %w", shelf.Stream, r[0], r[1], log.ErrSuspect)
			}
			s.shelves[shelf.Stream] = s.shelves[shelf.Stream].add(Range{log.Offset(r[0]), log.Offset(r[1])})
			for n := r[0]; ; n++ {
				r2 := newReplica(s, ID{shelf.Stream, n})
				r2.created, r2.shelved = true, true
				s.replicas[r2.id] = r2
				if n == r[1] {
					break
				}
			}
		}
	}
	expected := map[string]*Replica{} // by path
	for _, r := range s.replicas {
		expected[s.ownPath(r.id)] = r
	}
	shelves, err := s.fs.List(filepath.Join(s.cfg.Dir, shelvesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, shelf := range shelves {
		if !shelf.Dir {
			continue
		}
		dir := filepath.Join(s.cfg.Dir, shelvesDir, shelf.Name)
		files, err := s.fs.List(dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			path := filepath.Join(dir, f.Name)
			r := expected[path]
			if r != nil {
				r.file = &archive{path: path, size: f.Size}
				s.stored += f.Size
				continue
			}
			_, own := parseOwn(f.Name)
			if own || strings.HasSuffix(f.Name, ownUnsealed) {
				if err := s.fs.Remove(path); err != nil {
					return err
				}
			}
		}
	}
	for _, r := range s.replicas {
		if r.shelved && r.file == nil {
			r.unread = fmt.Errorf("%s: its file %s is missing: %w", r.id, s.ownPath(r.id), log.ErrSuspect)
			s.log.Error().Stringer("replica", r.id).Msg("the file of a segment is missing: the replica is suspect")
		}
	}
	// Replicas with a line in the meta are few, and their files are looked at now.
	for _, num := range sortedKeys(s.nums) {
		if err := s.openPart(s.nums[num]); err != nil {
			return err
		}
	}
	return nil
}

// openPart takes over the own file of a replica that has a line in the meta. The
// file may be newer than the line, never older.
func (s *Store) openPart(r *Replica) error {
	a := r.file
	r.file = nil
	if a != nil {
		f, err := s.fs.Open(a.path)
		if err != nil {
			return err
		}
		a.ptr, a.head, err = readHead(f)
		if err == nil && (a.ptr.Node != s.node || !sameDescriptor(&a.head.Descriptor, &r.desc)) {
			err = fmt.Errorf("%s belongs to something else: %w", a.path, errFormat)
		}
		if closeErr := f.Close(); closeErr != nil {
			return closeErr
		}
		if err != nil && !errors.Is(err, errFormat) {
			return fmt.Errorf("%s: %w", a.path, err)
		}
		if err == nil {
			r.adoptFile(a)
			return nil
		}
		s.log.Error().Err(err).Stringer("replica", r.id).Msg("the file of a segment is unreadable")
	}
	if r.line.Filed >= r.desc.First {
		r.damage = r.damage.add(Range{r.desc.First, r.line.Filed})
	}
	return nil
}

// adoptFile takes what the head of the replica's own file says. The machine is
// made by the caller, except for a replica that is wholly in the file.
func (r *Replica) adoptFile(a *archive) {
	h := &a.head
	r.file = a
	r.asked = max(r.asked, h.Fence)
	if h.Closed && r.closeAt == nil {
		r.closeAt = &segmentEnd{h.Last, h.EndLSO}
	}
	if h.Compacted {
		r.kept = append([]log.Topic{}, h.Kept...)
	}
	for _, m := range h.Missing {
		r.damage = r.damage.add(m)
	}
}

// restState makes the machine of a replica that is wholly in its own file.
func (r *Replica) restState() {
	h := &r.file.head
	r.m = quorum.NewReplica(quorum.ReplicaState{
		First: r.desc.First, Fence: r.asked, Last: h.Upto, LSO: h.LSO, LAC: max(h.LAC, h.Upto), Closed: true,
		End: h.Last, EndLSO: h.EndLSO, Suspect: len(r.damage) > 0,
	})
	r.lso, r.ends = h.LSO, nil
	if h.Upto == h.Last {
		r.lso = h.EndLSO
	}
}

// loadHead reads the head of a replica's own file, when that was not done yet. An
// unreadable one is log.ErrSuspect, from then on.
func (s *Store) loadHead(r *Replica) error {
	s.mu.Lock()
	known, unread, a := r.known, r.unread, r.file
	err := s.aliveLocked()
	s.mu.Unlock()
	if known {
		return nil
	}
	if unread != nil || err != nil {
		return errors.Join(unread, err)
	}
	f, err := s.fs.Open(a.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	p, h := pointer{}, archiveHead{}
	if err == nil {
		p, h, err = readHead(f)
		if err == nil && (p.Node != s.node || ID{h.Descriptor.Stream, h.Descriptor.Segment} != r.id || !h.Closed) {
			err = fmt.Errorf("%s belongs to something else: %w", a.path, errFormat)
		}
		err = errors.Join(err, f.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.known || r.unread != nil {
		return r.unread
	}
	if r.dropped {
		return fmt.Errorf("%s: it was given up: %w", r.id, log.ErrElsewhere)
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", r.id, a.path, errors.Join(log.ErrSuspect, err))
		s.log.Error().Err(err).Msg("the file of a segment is unreadable: the replica is suspect")
		r.unread = err
		return err
	}
	a.ptr, a.head = p, h
	r.describe(h.Descriptor)
	r.adoptFile(a)
	r.restState()
	return nil
}

// openOwn opens a replica's own file for reading and loads its index. One that is
// damaged there is lost as a whole.
func (s *Store) openOwn(r *Replica, a *archive) error {
	f, err := s.fs.Open(a.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	var blocks []block
	other := false // a rewrite has put its file there, and is about to say so
	if err == nil {
		var raw []byte
		var b [pointerSize]byte
		if _, headErr := f.ReadAt(b[:], 0); headErr == nil {
			p, headErr := decodePointer(b[:])
			other = headErr == nil && p.Node == s.node && p.Salt != a.ptr.Salt
		}
		if raw, err = readTwice(f, a.ptr.IndexAt, a.ptr.IndexSize, a.ptr.IndexCRC, a.ptr.seed()); err == nil {
			blocks, err = decodeBlocks(raw, a.ptr.IndexAt)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && (a.gone || a.handle != nil || s.closing) {
		return f.Close() // somebody else was faster; the caller looks again
	}
	if err == nil {
		a.handle, a.blocks = f, blocks
		s.clock++
		a.used = s.clock
		s.opens[a] = struct{}{}
		s.shutOwnLocked(a)
		return nil
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if a.gone || r.dropped || other && len(r.turn) > 0 {
		return nil // replaced or given up meanwhile; the caller looks again
	}
	if r.file == a && (errors.Is(err, errFormat) || errors.Is(err, fs.ErrNotExist)) {
		r.hurtLocked(r.desc.First, a.head.Upto)
		return r.lostError(r.desc.First, fmt.Errorf("%s: %w", a.path, err))
	}
	return fmt.Errorf("%s: %s: %w", r.id, a.path, err)
}

// releaseOwn ends a read of an own file.
func (s *Store) releaseOwn(a *archive) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.refs--
	s.shutOwnLocked(nil)
	if a.gone {
		s.closeOwnLocked(a)
	}
}

// shutOwnLocked closes those that were not used for longest when too many are open.
func (s *Store) shutOwnLocked(except *archive) {
	for len(s.opens) > s.cfg.OpenFilesMax {
		var oldest *archive
		for a := range s.opens {
			if a != except && a.refs == 0 && (oldest == nil || a.used < oldest.used) {
				oldest = a
			}
		}
		if oldest == nil {
			return
		}
		s.closeOwnLocked(oldest)
	}
}

// retireOwnLocked closes a file that is replaced or dropped with its last reader.
func (s *Store) retireOwnLocked(a *archive) {
	if a == nil {
		return
	}
	a.gone = true
	s.closeOwnLocked(a)
}

func (s *Store) closeOwnLocked(a *archive) {
	if a.refs > 0 || a.handle == nil {
		return
	}
	if err := a.handle.Close(); err != nil {
		s.log.Warn().Err(err).Str("file", a.path).Msg("close of a segment's file failed; nothing was unwritten in it")
	}
	a.handle, a.blocks = nil, nil
	delete(s.opens, a)
}

// scratch lends buffers for packed blocks.
type scratch struct{ pool sync.Pool }

func (p *scratch) get(n int) []byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:n]
	}
	return make([]byte, n, max(n, 256<<10))
}

func (p *scratch) put(b []byte) {
	if cap(b) <= 1<<20 {
		p.pool.Put(&b)
	}
}
