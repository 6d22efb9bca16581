package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

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
	BytesMax    int // about how much to read at once; an entry or a block may be more
}

// Stored is an entry as it lies on disk: its payload is a part of the buffer that
// Read returned.
type Stored struct {
	log.Entry
	Checksum uint32 // CRC-32C of the payload, as the writer gave it
}

const (
	readGap    = 16 << 10 // entries farther apart are read one by one
	readGuess  = 4 << 10  // what is read of an entry before its length is known
	scanMax    = 1 << 16  // index elements looked at in one Read
	entriesMax = 1024     // entries of one Read of the journal
)

// Read returns entries of the segment in order, and the offset to go on from,
// which never passes what may be shown. No entries and an unchanged offset: there
// is nothing to see yet; behind a closed segment's Last there never will be. It
// shows entries up to the LAC, with Query.Committed up to the LSO, with
// Query.Unconfirmed all that the node holds. A From below the segment is taken for
// its first offset. buf may be nil or a buffer of an earlier Read; the one
// returned holds the payloads. Errors: log.ErrSuspect for a damaged entry (those
// before it are returned first), log.ErrElsewhere for one below a closed segment's
// end that this node does not have, log.ErrTrimmed when a compaction took what is
// asked for, and the store's own.
func (r *Replica) Read(q Query, entries []Stored, buf []byte) ([]Stored, []byte, log.Offset, error) {
	entries = entries[:0]
	if q.BytesMax <= 0 {
		q.BytesMax = 256 << 10
	}
	p, err := r.plan(q)
	if err != nil || p.file == nil && p.own == nil {
		return entries, buf, max(p.next, q.From), err
	}
	var next log.Offset
	if p.own != nil {
		defer r.store.releaseOwn(p.own)
		entries, buf, next, err = p.readOwn(r, q, entries, buf)
	} else {
		defer r.store.release(p.file)
		entries, buf, next, err = p.read(r, q, entries, buf)
	}
	if err != nil && !errors.Is(err, log.ErrSuspect) {
		r.store.mu.Lock()
		err = errors.Join(r.store.aliveLocked(), err) // the store may have closed its files meanwhile
		r.store.mu.Unlock()
	}
	if err != nil && len(entries) > 0 {
		return entries, buf, next, nil // the next Read meets it again, at its place
	}
	return entries, buf, next, err
}

// Readable tells early what the first Read would fail with.
func (r *Replica) Readable(q Query) error {
	p, err := r.plan(q)
	if p.file != nil {
		r.store.release(p.file)
	}
	if p.own != nil {
		r.store.releaseOwn(p.own)
	}
	if errors.Is(err, log.ErrSuspect) {
		return nil // the entries may be asked for in vain, but the replica is there
	}
	return err
}

// plan is what one Read does: some entries of one journal file, or of one block of
// the replica's own file. Whichever it is stays acquired.
type plan struct {
	file    *file
	handle  vfs.File
	places  []int64
	offsets []log.Offset
	own     *archive
	block   *block
	limit   log.Offset // newest that may be shown
	next    log.Offset // behind what the plan covers
}

func (r *Replica) plan(q Query) (plan, error) {
	s := r.store
	if err := s.loadHead(r); err != nil {
		return plan{next: q.From}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		p, load, err := r.planLocked(q)
		if errors.Is(err, errNotOpen) {
			own := r.file
			s.mu.Unlock()
			err = s.openOwn(r, own)
			s.mu.Lock()
			if err == nil {
				continue
			}
			return plan{next: q.From}, err
		}
		if load == nil || err != nil {
			return p, err
		}
		s.mu.Unlock()
		index, err := s.loadElements(load)
		s.mu.Lock()
		s.releaseLocked(load.file)
		if err != nil {
			return p, fmt.Errorf("%s: index of %s: %w", r.id, load.file.name, err)
		}
		s.cacheLocked(load, index)
	}
}

// errNotOpen asks for the replica's own file.
var errNotOpen = errors.New("not open")

// planLocked chooses the entries. A run whose index has to be loaded first comes
// back with its file acquired.
func (r *Replica) planLocked(q Query) (p plan, load *run, err error) {
	if err := r.aliveLocked(); err != nil {
		return plan{next: q.From}, nil, fmt.Errorf("%s: read %d: %w", r.id, q.From, err)
	}
	if r.kept != nil && !q.Unconfirmed && !within(q.Topics, r.kept) {
		return plan{next: q.From}, nil, fmt.Errorf("%s: read %d, a compaction left only topics %v: %w", r.id, q.From, r.kept, log.ErrTrimmed)
	}
	q.From = max(q.From, r.desc.First)
	limit := r.visibleLocked()
	switch {
	case q.Unconfirmed:
		limit = r.held()
	case q.Committed:
		limit = min(limit, r.lso)
	}
	if q.To > 0 {
		limit = min(limit, q.To-1)
	}
	p = plan{next: q.From, limit: limit}
	if x, hit := r.damage.at(q.From); hit && (q.From <= limit || r.doubt) {
		return p, nil, r.lostError(x.First, nil)
	}
	if q.From > limit {
		end, _, closed := r.m.Closed()
		switch {
		case q.From <= r.held():
		case r.doubt:
			return p, nil, r.lostError(q.From, nil)
		case closed && q.From <= end && (q.To == 0 || q.From < q.To):
			return p, nil, fmt.Errorf("%s: entry %d, the node has it up to %d: %w", r.id, q.From, r.held(), log.ErrElsewhere)
		}
		return p, nil, nil
	}
	for _, x := range r.damage {
		if x.First > q.From {
			limit = min(limit, x.First-1) // deliver what is before it
			break
		}
	}
	p.limit = limit
	if r.file != nil && q.From <= r.file.head.Upto {
		p, err = r.planOwnLocked(q, p)
		return p, nil, err
	}
	return r.planRunLocked(q, p)
}

func within(topics, kept []log.Topic) bool {
	for _, t := range topics {
		if !slices.Contains(kept, t) {
			return false
		}
	}
	return len(topics) > 0
}

// planRunLocked is for entries in the journal.
func (r *Replica) planRunLocked(q Query, p plan) (plan, *run, error) {
	s := r.store
	mask := classMask(q.Topics)
	i, _ := slices.BinarySearchFunc(r.runs, q.From+1, func(x *run, o log.Offset) int { return cmp.Compare(x.first, o) })
	if i == 0 || r.runs[i-1].last() < q.From {
		r.hurtLocked(q.From, q.From)
		return p, nil, r.lostError(q.From, errors.New("no file holds it"))
	}
	x := r.runs[i-1]
	if x.file == nil {
		r.hurtLocked(x.first, x.last())
		return p, nil, r.lostError(q.From, errors.New("it is missing from the journal"))
	}
	if x.index == nil {
		_, err := s.acquireLocked(x.file)
		return p, x, err
	}
	last := min(p.limit, x.last())
	for o := q.From; o <= last && len(p.places) < entriesMax; o++ {
		if o-q.From >= scanMax {
			break
		}
		e := x.index[o-x.first]
		place := indexPlace(e)
		if place == 0 {
			if len(p.places) > 0 {
				break // deliver what is before it
			}
			r.hurtLocked(o, o)
			return plan{next: o}, nil, r.lostError(o, errors.New("its record is damaged"))
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
	handle, err := s.acquireLocked(x.file)
	if err != nil {
		return p, nil, err
	}
	p.file, p.handle = x.file, handle
	return p, nil, nil
}

// planOwnLocked is for entries in the replica's own file: one block at a time.
func (r *Replica) planOwnLocked(q Query, p plan) (plan, error) {
	a, s := r.file, r.store
	if a.handle == nil {
		return p, errNotOpen
	}
	mask := classMask(q.Topics)
	p.limit = min(p.limit, a.head.Upto)
	i, _ := slices.BinarySearchFunc(a.blocks, q.From, func(b block, o log.Offset) int { return cmp.Compare(b.Last, o) })
	for ; i < len(a.blocks) && a.blocks[i].First <= p.limit; i++ {
		b := &a.blocks[i]
		if b.First > p.next && r.kept == nil {
			r.hurtLocked(p.next, b.First-1)
			return p, r.lostError(p.next, errors.New("no block holds it"))
		}
		if b.Classes&mask == 0 {
			p.next = min(b.Last, p.limit) + 1
			continue
		}
		s.clock++
		a.used = s.clock
		a.refs++
		p.own, p.block, p.handle = a, b, a.handle
		p.next = min(b.Last, p.limit) + 1
		return p, nil
	}
	if p.next <= p.limit && r.kept == nil {
		r.hurtLocked(p.next, p.limit)
		return p, r.lostError(p.next, errors.New("no block holds it"))
	}
	p.next = p.limit + 1
	return p, nil
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

// readOwn reads one block of the replica's own file.
func (p plan) readOwn(r *Replica, q Query, entries []Stored, buf []byte) ([]Stored, []byte, log.Offset, error) {
	b := p.block
	lost := func(why error) ([]Stored, []byte, log.Offset, error) {
		r.store.mu.Lock()
		defer r.store.mu.Unlock()
		if r.file == p.own {
			r.hurtLocked(b.First, b.Last)
		}
		return entries[:0], buf, q.From, r.lostError(max(q.From, b.First), fmt.Errorf("%s at %d: %w", p.own.path, b.At, why))
	}
	if cap(buf) < int(b.Raw) {
		buf = make([]byte, 0, b.Raw)
	}
	if b.Codec == codecPlain {
		buf = buf[:b.Raw]
		got, err := readSpan(p.handle, buf, b.At)
		if unreadable(err) {
			return lost(err)
		}
		if err != nil {
			return entries, buf, q.From, err
		}
		if len(got) < len(buf) || placed(p.own.ptr.seed(), b.At, buf) != b.CRC {
			return lost(fmt.Errorf("the block's checksum differs: %w", errFormat))
		}
	} else {
		packed := r.store.scratch.get(int(b.Stored))
		defer r.store.scratch.put(packed)
		got, err := readSpan(p.handle, packed, b.At)
		if unreadable(err) {
			return lost(err)
		}
		if err != nil {
			return entries, buf, q.From, err
		}
		if len(got) < len(packed) || placed(p.own.ptr.seed(), b.At, packed) != b.CRC {
			return lost(fmt.Errorf("the block's checksum differs: %w", errFormat))
		}
		if buf, err = r.store.packer.unpack(b.Codec, packed, buf, int(b.Raw)); err != nil {
			return lost(err)
		}
	}
	all, err := decodeBlock(buf, b, r.desc.Epoch, entries)
	if err != nil {
		return lost(err)
	}
	entries = all[:0]
	for _, e := range all {
		if e.Offset >= q.From && e.Offset <= p.limit && q.wants(e.Topic) {
			entries = append(entries, e)
		}
	}
	return entries, buf, p.next, nil
}

// read fetches the planned entries in as few reads as their places allow.
func (p plan) read(r *Replica, q Query, entries []Stored, buf []byte) ([]Stored, []byte, log.Offset, error) {
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
		if unreadable(err) {
			return p.exact(r, q, entries, buf[:used], i)
		}
		if err != nil {
			return entries, buf, next, fmt.Errorf("%s: read entry %d: %w", r.id, next, err)
		}
		buf = buf[:used+len(b)]
		for j := range n {
			rel := int(p.places[i+j] - p.places[i])
			e, size, err := p.entry(r, b, rel, i+j)
			if err == nil && rel+size > len(b) {
				if len(entries) > 0 {
					return entries, buf, next, nil
				}
				// Longer than the guess: read just this one.
				buf = make([]byte, size)
				if b, err = readSpan(p.handle, buf, p.places[i+j]); err == nil {
					e, _, err = p.entry(r, b, 0, i+j)
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
func (p plan) entry(r *Replica, b []byte, rel, i int) (Stored, int, error) {
	var e Stored
	lost := func(why error) (Stored, int, error) { return p.lost(r, i, why) }
	if rel+recordHeader > len(b) {
		return lost(fmt.Errorf("the file ends: %w", errFormat))
	}
	rec, err := decodeRecord(b[rel:], p.file.seed, p.places[i])
	if err != nil {
		return lost(err)
	}
	if rec.Replica != r.num || rec.Offset != p.offsets[i] {
		return lost(fmt.Errorf("the record is entry %d of replica %d: %w", rec.Offset, rec.Replica, errFormat))
	}
	size := recordHeader + int(rec.Length)
	if rel+size > len(b) {
		return e, size, nil
	}
	payload := b[rel+recordHeader : rel+size : rel+size]
	if got := Checksum(payload); got != rec.PayloadCRC {
		return lost(fmt.Errorf("payload crc %08x, stored %08x: %w", got, rec.PayloadCRC, errFormat))
	}
	e = Stored{Checksum: rec.PayloadCRC, Entry: log.Entry{
		Offset: rec.Offset, Topic: rec.Topic, Epoch: rec.Epoch, AppendedAt: microTime(rec.Time),
		EndsTransaction: rec.Flags&flagEnds != 0, Payload: payload,
	}}
	return e, size, nil
}

// lost notes that a planned entry is damaged.
func (p plan) lost(r *Replica, i int, why error) (Stored, int, error) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if p.file.runs[r.num] != nil { // or it has left the journal meanwhile
		r.hurtLocked(p.offsets[i], p.offsets[i])
	}
	return Stored{}, 0, r.lostError(p.offsets[i], fmt.Errorf("%s at %d: %w", p.file.name, p.places[i], why))
}

// exact reads planned entry i and not a byte more, where a read of more fails: the
// sector that can't be read may be its neighbour's.
func (p plan) exact(r *Replica, q Query, entries []Stored, buf []byte, i int) ([]Stored, []byte, log.Offset, error) {
	if len(entries) > 0 {
		return entries, buf, p.offsets[i], nil // the next Read comes back to it
	}
	b, err := readSpan(p.handle, make([]byte, recordHeader), p.places[i])
	var e Stored
	if err == nil {
		var size int
		if e, size, err = p.entry(r, b, 0, i); err == nil {
			if b, err = readSpan(p.handle, make([]byte, size), p.places[i]); err == nil {
				e, _, err = p.entry(r, b, 0, i)
			}
		}
	}
	if unreadable(err) {
		_, _, err = p.lost(r, i, err)
	}
	if err != nil {
		return entries, buf, p.offsets[i], err
	}
	if q.wants(e.Topic) {
		entries = append(entries, e)
	}
	return entries, b, p.offsets[i] + 1, nil
}

// unreadable says that the disk has the place and can't read it: that is damage,
// too.
func unreadable(err error) bool { return errors.Is(err, syscall.EIO) }

// readSpan fills b from the file; it is shorter at the file's end.
func readSpan(h vfs.File, b []byte, at int64) ([]byte, error) {
	n, err := h.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}
