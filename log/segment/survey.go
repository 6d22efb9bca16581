package segment

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/log"
)

// listing is what lies in the directory.
type listing struct {
	journals, indexes, spares []uint64
	reserves                  []uint64
	foreign                   []string
}

func (s *Store) survey() (listing, error) {
	var out listing
	entries, err := s.fs.List(s.cfg.Dir)
	if err != nil {
		return out, err
	}
	for _, e := range entries {
		prefix, id, ok := parseName(e.Name)
		switch {
		case e.Dir && (e.Name == "lost+found" || e.Name == shelvesDir), e.Name == "lock":
		case e.Dir:
			out.foreign = append(out.foreign, e.Name)
		case e.Name == metaNames[0] || e.Name == metaNames[1]:
		case ok && prefix == "journal-":
			out.journals = append(out.journals, id)
		case ok && prefix == "index-":
			out.indexes = append(out.indexes, id)
		case ok && prefix == "spare-":
			out.spares = append(out.spares, id)
			s.spareSeq = max(s.spareSeq, id)
		case ok && prefix == "reserve-":
			out.reserves = append(out.reserves, id)
			s.spareSeq = max(s.spareSeq, id)
		case strings.HasSuffix(e.Name, temporary):
			if err := s.fs.Remove(s.path(e.Name)); err != nil {
				return out, err
			}
		default:
			out.foreign = append(out.foreign, e.Name)
		}
	}
	return out, nil
}

const temporary = ".twx.tmp"

// loadMeta reads the meta, or makes that of a new directory.
func (s *Store) loadMeta(dir listing) (*meta, error) {
	ms, m, err := openMeta(s.fs, s.cfg.Dir)
	switch {
	case err == nil:
		s.meta = ms
		s.metaSeq, s.metaEnd = m.Version, m.Version
		if m.Node != s.cfg.Name {
			return nil, fmt.Errorf("the directory belongs to node %q, this is node %q: %w", m.Node, s.cfg.Name, log.ErrIdentity)
		}
		id, err := hex.DecodeString(m.UUID)
		if err != nil {
			return nil, err
		}
		copy(s.node[:], id)
		return m, nil
	case len(dir.journals) > 0:
		if errors.Is(err, errNoMeta) {
			err = fmt.Errorf("there are %d journal files but no meta file: %w", len(dir.journals), log.ErrIdentity)
		}
		return nil, err
	case len(dir.foreign) > 0:
		return nil, fmt.Errorf("not a log directory: it holds %q: %w", dir.foreign[0], log.ErrIdentity)
	case !errors.Is(err, errNoMeta) && !errors.Is(err, log.ErrSuspect):
		return nil, err
	}
	// No journal file: no earlier Open came to its end, so nothing was ever
	// acknowledged from here.
	for _, name := range metaNames {
		if err := s.fs.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if s.node, err = newIdentity(); err != nil {
		return nil, err
	}
	s.meta = &metaStore{}
	m = &meta{Version: 1, Node: s.cfg.Name, UUID: s.UUID()}
	s.metaSeq, s.metaEnd = 1, 1
	b, err := encodeMeta(m, nil)
	if err != nil {
		return nil, err
	}
	return m, s.meta.write(s.fs, s.cfg.Dir, b)
}

// openJournals opens the journal files that are still wanted and hands the
// others to the supplier.
func (s *Store) openJournals(dir listing, m *meta) error {
	slices.Sort(dir.journals)
	ends := map[uint64]int64{}
	for _, f := range m.Files {
		ends[f.ID] = f.End
	}
	s.newID = m.Newest
	for _, id := range dir.journals {
		s.newID = max(s.newID, id)
		end, listed := ends[id]
		delete(ends, id)
		f := &file{name: s.path(journalName(id)), end: end, sealed: true, runs: map[uint32]*run{}}
		h, err := s.fs.Open(f.name)
		if err != nil {
			return err
		}
		f.handle = h
		if f.size, err = h.Size(); err != nil {
			return errors.Join(err, h.Close())
		}
		f.head, err = readFileHeader(h)
		if err == nil && f.head.Node == s.node && f.head.ID != id {
			err = fmt.Errorf("it says it is file %d: %w", f.head.ID, errFormat)
		}
		switch {
		case err == nil && f.head.Node != s.node:
			return errors.Join(fmt.Errorf("%s comes from another node: %w", f.name, log.ErrIdentity), h.Close())
		case err != nil && !listed && id < m.Newest:
			f.head.ID = id // given up, the removal was cut short
		case err != nil:
			return errors.Join(fmt.Errorf("%s: both headers are unreadable: %w", f.name, errors.Join(log.ErrSuspect, err)), h.Close())
		}
		f.seed = f.head.seed()
		if !listed && id < m.Newest {
			s.released = append(s.released, f)
			s.spareSeq++
			continue
		}
		s.files = append(s.files, f)
		s.opened++
	}
	// The file that was active when the meta was written need not be the newest
	// one on disk: each header gives the end of the file before it.
	for i, f := range s.files[:max(0, len(s.files)-1)] {
		if next := s.files[i+1]; f.end == 0 && next.head.PrevID == f.head.ID {
			f.end = next.head.PrevEnd
		}
	}
	lost := sortedKeys(ends)
	if m.Newest > 0 && !slices.Contains(dir.journals, m.Newest) {
		lost = append(lost, m.Newest)
	}
	s.missing = lost
	for _, id := range lost {
		s.log.Error().Str("file", journalName(id)).Msg("a journal file is missing: the entries it held are suspect")
	}
	return nil
}
