package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/vfs"
)

// Query says which entries a Read wants.
type Query struct {
	From      log.Offset
	To        log.Offset  // entries below it only; 0: no end
	Topics    []log.Topic // none: all
	Committed bool        // stop at the LSO instead of the LAC
	// Unconfirmed shows all that the node holds, for recovery and repair.
	Unconfirmed bool
	BytesMax  int         // about how much to read at once; one entry may be more
}

// Stored is an entry as it lies in the journal: its payload is a part of the
// buffer that Read returned.
type Stored struct {
	log.Entry
	Checksum uint32 // CRC-32C of the payload, as the writer gave it
}

const (
	readGap    = 16 << 10 // entries farther apart are read one by one
	readGuess  = 4 << 10  // what is read of an entry before its length is known
	scanMax    = 1 << 16  // index elements looked at in one Read
	entriesMax = 1024     // entries of one Read
)

// Read returns entries in order, and the offset to go on from. No entries and an
// unchanged offset: there is nothing to see yet. buf may be nil or a buffer of an
// earlier Read; the one returned holds the payloads. Errors: log.ErrTrimmed,
// log.ErrSuspect (entries before the damage are returned first), and the store's.
func (st *Stream) Read(q Query, entries []Stored, buf []byte) ([]Stored, []byte, log.Offset, error) {
	entries = entries[:0]
	if q.BytesMax <= 0 {
		q.BytesMax = 256 << 10
	}
	p, err := st.plan(q)
	if err != nil || len(p.places) == 0 {
		return entries, buf, max(p.next, q.From), err
	}
	defer st.store.release(p.file)
	entries, buf, next, err := p.read(st, q, entries, buf)
	if err != nil && !errors.Is(err, log.ErrSuspect) {
		st.store.mu.Lock()
		err = errors.Join(st.store.aliveLocked(), err) // the store may have closed its files meanwhile
		st.store.mu.Unlock()
	}
	if err != nil && len(entries) > 0 {
		return entries, buf, next, nil // the next Read meets it again, at its place
	}
	return entries, buf, next, err
}

// Readable tells early what the first Read would fail with.
func (st *Stream) Readable(q Query) error {
	p, err := st.plan(q)
	if p.file != nil && len(p.places) > 0 {
		st.store.release(p.file)
	}
	if errors.Is(err, log.ErrSuspect) {
		return nil // the entries may be asked for in vain, but the stream is there
	}
	return err
}

// plan is what one Read does: some entries of one file, which stays acquired
// when there are places.
type plan struct {
	file    *file
	handle  vfs.File
	places  []int64
	offsets []log.Offset
	next    log.Offset // behind what the plan covers
}

func (st *Stream) plan(q Query) (plan, error) {
	s := st.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		p, load, err := st.planLocked(q)
		if load == nil || err != nil {
			return p, err
		}
		s.mu.Unlock()
		index, err := s.loadElements(load)
		s.mu.Lock()
		s.releaseLocked(load.file)
		if err != nil {
			return p, fmt.Errorf("stream %q: index of %s: %w", st.name, load.file.name, err)
		}
		s.cacheLocked(load, index)
	}
}

// planLocked chooses the entries. A run whose index has to be loaded first comes
// back with its file acquired.
func (st *Stream) planLocked(q Query) (p plan, load *run, err error) {
	s := st.store
	if s.fault != nil || s.closing {
		return plan{next: q.From}, nil, fmt.Errorf("stream %q: read %d: %w", st.name, q.From, s.aliveLocked())
	}
	if q.From < 0 {
		return plan{next: q.From}, nil, fmt.Errorf("stream %q: read %d: %w", st.name, q.From, log.ErrProtocol)
	}
	mask := classMask(q.Topics)
	if q.From < st.first {
		if !s.keepsAll(q.Topics) {
			return plan{next: q.From}, nil, fmt.Errorf("stream %q: read %d, the first one kept is %d: %w", st.name, q.From, st.first, log.ErrTrimmed)
		}
		p, done, err := st.planKept(q, mask)
		if done || err != nil {
			return p, nil, err
		}
		q.From = st.first
		if q.To > 0 && q.To < q.From {
			return plan{next: q.To}, nil, nil
		}
	}
	limit := st.lac
	if q.Committed {
		limit = min(limit, st.lso)
	}
	if q.To > 0 {
		limit = min(limit, q.To-1)
	}
	p.next = q.From
	if q.From > limit {
		if st.suspect && q.From > st.last {
			return p, nil, st.lostError(q.From, nil)
		}
		return p, nil, nil
	}
	i, _ := slices.BinarySearchFunc(st.runs, q.From+1, func(r *run, o log.Offset) int { return cmp.Compare(r.first, o) })
	if i == 0 {
		return p, nil, st.lostError(q.From, errors.New("no file holds it"))
	}
	r := st.runs[i-1]
	if r.file == nil {
		st.hurtLocked(q.From)
		return p, nil, st.lostError(q.From, errors.New("it is missing from the journal"))
	}
	if r.index == nil {
		_, err := s.acquireLocked(r.file)
		return p, r, err
	}
	last := min(limit, r.last())
	for o := q.From; o <= last && len(p.places) < entriesMax; o++ {
		if o-q.From >= scanMax {
			break
		}
		e := r.index[o-r.first]
		place := indexPlace(e)
		if place == 0 {
			if len(p.places) > 0 {
				break // deliver what is before it
			}
			st.hurtLocked(o)
			return plan{next: o}, nil, st.lostError(o, errors.New("its record is damaged"))
		}
		p.next = o + 1
		if mask>>indexClass(e)&1 == 0 {
			continue
		}
		if n := len(p.places); n > 0 && place-p.places[0] > int64(q.BytesMax) {
			p.next = o
			break
		}
		p.places = append(p.places, place)
		p.offsets = append(p.offsets, o)
	}
	if len(p.places) == 0 {
		return p, nil, nil
	}
	p.file = r.file
	p.handle, err = s.acquireLocked(r.file)
	if err != nil {
		p.places = nil
	}
	return p, nil, err
}

// planKept covers entries below first, one at a time: they are few and lie
// scattered. done is false when there is none from From on.
func (st *Stream) planKept(q Query, mask uint32) (p plan, done bool, err error) {
	i, _ := slices.BinarySearchFunc(st.keeps, q.From, func(k *kept, o log.Offset) int { return cmp.Compare(k.offset, o) })
	for ; i < len(st.keeps) && st.keeps[i].offset < st.first && (q.To == 0 || st.keeps[i].offset < q.To); i++ {
		k := st.keeps[i]
		if mask>>indexClass(k.entry)&1 == 0 {
			continue
		}
		if q.Committed && k.offset > st.lso {
			break
		}
		handle, err := st.store.acquireLocked(k.file)
		if err != nil {
			return plan{next: q.From}, true, err
		}
		return plan{
			file: k.file, handle: handle, places: []int64{indexPlace(k.entry)},
			offsets: []log.Offset{k.offset}, next: k.offset + 1,
		}, true, nil
	}
	return plan{}, false, nil
}

// hurtLocked remembers that the segment of the entry is damaged.
func (st *Stream) hurtLocked(o log.Offset) {
	if g := st.segmentOf(o); len(st.damaged) < 1024 {
		if _, known := st.damaged[g]; !known {
			st.damaged[g] = struct{}{}
			st.store.log.Error().Str("stream", st.name).Uint32("segment", g).Int64("offset", int64(o)).Msg("the segment is suspect: stored bytes are damaged")
		}
	}
}

func classMask(topics []log.Topic) uint32 {
	if len(topics) == 0 {
		return 1<<16 - 1
	}
	var m uint32
	for _, t := range topics {
		m |= 1 << topicClass(t)
	}
	return m
}

// read fetches the planned entries in as few reads as their places allow.
func (p plan) read(st *Stream, q Query, entries []Stored, buf []byte) ([]Stored, []byte, log.Offset, error) {
	buf = buf[:0]
	next := p.offsets[0]
	for i := 0; i < len(p.places); {
		n := 1
		for i+n < len(p.places) && p.places[i+n]-p.places[i+n-1] <= readGap && p.places[i+n]-p.places[i] < int64(q.BytesMax) {
			n++
		}
		span := int(p.places[i+n-1]-p.places[i]) + readGuess
		used := len(buf)
		if used > 0 && (cap(buf)-used < span || used+span > q.BytesMax+readGuess) {
			return entries, buf, next, nil // enough for once; growing would move what entries point to
		}
		if cap(buf) < span {
			buf = make([]byte, 0, span)
		}
		b, err := readSpan(p.handle, buf[used:used+span], p.places[i])
		if err != nil {
			return entries, buf, next, fmt.Errorf("stream %q: read entry %d: %w", st.name, next, err)
		}
		buf = buf[:used+len(b)]
		for j := range n {
			rel := int(p.places[i+j] - p.places[i])
			e, size, err := p.entry(st, b, rel, i+j)
			if err == nil && rel+size > len(b) {
				if len(entries) > 0 {
					return entries, buf, next, nil
				}
				// Longer than the guess: read just this one.
				buf = make([]byte, size)
				if b, err = readSpan(p.handle, buf, p.places[i+j]); err == nil {
					e, _, err = p.entry(st, b, 0, i+j)
				}
				if err != nil {
					return entries, buf, next, err
				}
				return append(entries, e), buf, p.offsets[i+j] + 1, nil
			}
			if err != nil {
				return entries, buf, next, err
			}
			if q.wants(e.Topic) {
				entries = append(entries, e)
			}
			next = p.offsets[i+j] + 1
		}
		i += n
	}
	return entries, buf, p.next, nil
}

func (q Query) wants(t log.Topic) bool { return len(q.Topics) == 0 || slices.Contains(q.Topics, t) }

// entry decodes the record at rel of b and checks that it is the wanted one. When
// b does not reach to its end only the size is right.
func (p plan) entry(st *Stream, b []byte, rel, i int) (Stored, int, error) {
	var e Stored
	lost := func(why error) (Stored, int, error) {
		st.store.mu.Lock()
		defer st.store.mu.Unlock()
		st.hurtLocked(p.offsets[i])
		return e, 0, st.lostError(p.offsets[i], fmt.Errorf("%s at %d: %w", p.file.name, p.places[i], why))
	}
	if rel+recordHeader > len(b) {
		return lost(fmt.Errorf("the file ends: %w", errFormat))
	}
	r, err := decodeRecord(b[rel:], p.file.seed, p.places[i])
	if err != nil {
		return lost(err)
	}
	if r.Stream != st.id || r.Offset != p.offsets[i] {
		return lost(fmt.Errorf("the record is entry %d of stream %d: %w", r.Offset, r.Stream, errFormat))
	}
	size := recordHeader + int(r.Length)
	if rel+size > len(b) {
		return e, size, nil
	}
	payload := b[rel+recordHeader : rel+size : rel+size]
	if got := Checksum(payload); got != r.PayloadCRC {
		return lost(fmt.Errorf("payload crc %08x, stored %08x: %w", got, r.PayloadCRC, errFormat))
	}
	e = Stored{Checksum: r.PayloadCRC, Entry: log.Entry{
		Offset: r.Offset, Topic: r.Topic, Epoch: r.Epoch, AppendedAt: microTime(r.Time),
		EndsTransaction: r.Flags&flagEnds != 0, Payload: payload,
	}}
	return e, size, nil
}

// readSpan fills b from the file; it is shorter at the file's end.
func readSpan(h vfs.File, b []byte, at int64) ([]byte, error) {
	n, err := h.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}
