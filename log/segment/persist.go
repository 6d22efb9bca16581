package segment

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/twinspan/twinspan/log"
)

// persist makes the state in memory durable in meta. Several callers share one
// write: whoever comes while a write runs finds its change in the next one.
func (s *Store) persist() error {
	s.mu.Lock()
	s.metaSeq++
	want := s.metaSeq
	s.mu.Unlock()
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	if s.metaEnd >= want {
		return nil
	}
	if s.meta == nil {
		return fmt.Errorf("log store: %w", log.ErrClosed)
	}
	s.mu.Lock()
	if s.fault != nil {
		defer s.mu.Unlock()
		return fmt.Errorf("%w: %w", log.ErrUnavailable, s.fault)
	}
	m, lines := s.snapshotLocked()
	gone := s.deferred
	s.mu.Unlock()
	start := s.cfg.Now()
	b, err := encodeMeta(m, lines)
	if err == nil {
		err = s.meta.write(s.fs, s.cfg.Dir, b)
	}
	if isFull(err) {
		return fmt.Errorf("store meta: %w: %w", log.ErrFull, err)
	}
	if err != nil {
		err = fmt.Errorf("store meta: %w", err)
		s.die(err)
		return fmt.Errorf("%w: %w", log.ErrUnknown, err)
	}
	s.metaEnd = m.Version
	s.mu.Lock()
	s.counts.metaWrites++
	s.counts.metaTime += s.cfg.Now().Sub(start)
	s.deferred = s.deferred[len(gone):] // collecting only ever appends
	for _, f := range gone {
		if f.handle != nil {
			s.opened--
		}
	}
	s.released = append(s.released, gone...)
	s.mu.Unlock()
	if len(gone) > 0 {
		signal(s.supply)
	}
	return nil
}

// snapshotLocked is the meta of this moment. Files that nothing is needed of any
// more are not listed, and wait in deferred until that is durable.
func (s *Store) snapshotLocked() (*meta, [][]byte) {
	s.collectLocked()
	m := &meta{
		Version: s.metaSeq, Node: s.cfg.Name, UUID: s.UUID(), Generation: s.generation, Newest: s.newID, NextID: s.nextID,
		Raw: s.raw,
	}
	for _, f := range s.files {
		if f.sealed {
			m.Files = append(m.Files, metaFile{f.head.ID, f.end})
		}
	}
	for _, name := range sortedKeys(s.shelves) {
		shelf := metaShelf{Stream: name}
		for _, r := range s.shelves[name] {
			shelf.Segments = append(shelf.Segments, [2]uint32{uint32(r.First), uint32(r.Last)})
		}
		if len(shelf.Segments) > 0 {
			m.Shelves = append(m.Shelves, shelf)
		}
	}
	for _, name := range sortedKeys(s.floors) {
		m.Floors = append(m.Floors, metaFloor{name, s.floors[name].segment, s.floors[name].epoch})
	}
	lines := make([][]byte, 0, len(s.nums))
	for _, num := range sortedKeys(s.nums) {
		if l := s.nums[num].lineLocked(); l != nil {
			lines = append(lines, l)
		}
	}
	return m, lines
}

// collectLocked gives up the files that no replica needs any more.
func (s *Store) collectLocked() {
	for _, f := range s.files {
		if f.sealed && len(f.runs) == 0 {
			f.gone = true
			s.deferred = append(s.deferred, f)
		}
	}
	s.files = slices.DeleteFunc(s.files, func(f *file) bool { return f.gone })
}

// lineLocked is the replica's line in the meta. It is encoded only when it
// changed: thousands of replicas share each write.
func (r *Replica) lineLocked() []byte {
	l := metaReplica{
		ID: r.num, Fence: max(r.m.Fence(), r.asked), Held: r.held(), LAC: r.m.LAC(), Filed: r.desc.First - 1, Doubt: r.doubt,
	}
	if r.closeAt != nil {
		l.Closed, l.Last, l.LSO = true, r.closeAt.last, r.closeAt.lso
		l.Held = min(l.Held, max(l.Last, r.desc.First-1))
	}
	if r.file != nil {
		l.Filed = r.file.head.Upto
	}
	if r.encoded != nil && r.line == l {
		return r.encoded
	}
	if r.descJSON == nil {
		b, err := json.Marshal(&r.desc)
		if err != nil {
			panic(fmt.Sprintf("segment: descriptor of %s: %v", r.id, err)) // it has only plain fields
		}
		r.descJSON = b
	}
	r.line, r.encoded = l, l.encodeLine(r.descJSON)
	return r.encoded
}
