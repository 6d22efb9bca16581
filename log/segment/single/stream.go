package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/twinspan/twinspan/log"
)

// Stream is the node's part of one stream: a contiguous run of entries up to
// Last. All fields are guarded by the store's lock.
type Stream struct {
	store *Store
	id    uint32
	name  string

	created  bool // its first fence is durable
	epoch    log.Epoch
	segments []metaSegment // ascending; the last one is open
	segBytes int64         // in the open segment, since the last start
	first    log.Offset    // oldest that is kept
	next     log.Offset    // next to be appended
	last     log.Offset    // newest that is durable here
	lac      log.Offset    // newest that is confirmed; at most last
	lso      log.Offset    // newest durable that ends a transaction, whether confirmed or not
	cursors  map[string]metaCursor
	runs     []*run  // ascending and without gaps, from first or before it
	tail     *run    // the newest of runs, when it can grow
	keeps    []*kept // ascending, below first

	holding bool                // a fence or a roll is under way: appends wait
	broken  error               // the open epoch lost a queued entry; only a fence mends it
	suspect bool                // damage may have taken entries after last
	damaged map[uint32]struct{} // segments in which a read met damage

	touchedIn *group // the group that holds its newest queued entry
	touched   int32

	changed chan struct{} // owner: the Stream; closed at each change once somebody watches
	watched bool
}

// kept is an entry below first that its topic keeps.
type kept struct {
	stream *Stream
	offset log.Offset
	file   *file
	entry  uint32 // index element
	size   int32  // record bytes
}

// cursorsMax bounds what one stream's groups can make the meta hold.
const (
	cursorsMax     = 1024
	cursorBytesMax = 4 << 20 // names and GTID sets of one stream's cursors
)

// streamsMax bounds the meta; it is far above the number of MySQL sets of a site.
const streamsMax = 4096

func newStream(s *Store, id uint32, name string) *Stream {
	return &Stream{
		store: s, id: id, name: name, last: log.None, lac: log.None, lso: log.None,
		cursors: map[string]metaCursor{}, changed: make(chan struct{}), damaged: map[uint32]struct{}{},
	}
}

// Name of the stream.
func (st *Stream) Name() string { return st.name }

// notify wakes whoever watches. The store's lock is held.
func (st *Stream) notify() {
	if st.watched {
		close(st.changed)
		st.changed = make(chan struct{})
		st.watched = false
	}
}

// Status is what a writer or a reader of the stream needs to know.
type Status struct {
	log.Bounds
	Last    log.Offset // newest durable entry of this node
	Segment uint32     // the open one
	Broken  error      // queued entries of the present epoch were dropped, they are not in the log
	Suspect bool       // entries after Last may have been lost to damage
}

// Status is the present state and a channel that is closed when it changes. The
// error is the store's: log.ErrUnavailable when the journal died, log.ErrClosed.
func (st *Stream) Status() (Status, <-chan struct{}, error) {
	st.store.mu.Lock()
	defer st.store.mu.Unlock()
	st.watched = true
	return st.statusLocked(), st.changed, st.store.aliveLocked()
}

func (st *Stream) statusLocked() Status {
	return Status{Bounds: st.boundsLocked(), Last: st.last, Segment: st.open().Number, Broken: st.broken, Suspect: st.suspect}
}

// Progress is how far an epoch got.
type Progress struct {
	Last log.Offset // newest durable entry that the epoch found or appended
	Err  error      // the epoch appends no more: log.ErrFenced, log.ErrFull, …
}

// Progress is the present one and a channel that is closed when it changes. Last
// is true even with an error.
func (st *Stream) Progress(epoch log.Epoch) (Progress, <-chan struct{}, error) {
	st.store.mu.Lock()
	defer st.store.mu.Unlock()
	st.watched = true
	p := Progress{Last: st.last}
	switch {
	case epoch > st.epoch:
		p.Last = log.None
		p.Err = fmt.Errorf("stream %q: epoch %d is not sealed here, the stream is at %d: %w", st.name, epoch, st.epoch, log.ErrProtocol)
	case epoch < st.epoch:
		// Its entries end where the first segment of a later epoch starts.
		known := false
		for i, g := range slices.Backward(st.segments) {
			if known = g.Epoch <= epoch; known {
				known = i > 0 || !st.merged()
				break
			}
			p.Last = g.First - 1
			known = g.Number == 1
		}
		if !known {
			p.Last = log.None // the segment that would tell is gone
		}
		p.Err = fmt.Errorf("stream %q: epoch %d, the stream is at %d: %w", st.name, epoch, st.epoch, log.ErrFenced)
	case st.broken != nil:
		p.Err = fmt.Errorf("stream %q: %w", st.name, st.broken)
	}
	return p, st.changed, st.store.aliveLocked()
}

// Bounds of the stream as its readers may see them.
func (st *Stream) Bounds() log.Bounds {
	st.store.mu.Lock()
	defer st.store.mu.Unlock()
	return st.boundsLocked()
}

func (st *Stream) boundsLocked() log.Bounds {
	return log.Bounds{First: st.first, LAC: st.lac, LSO: min(st.lso, st.lac), Epoch: st.epoch}
}

func (st *Stream) open() metaSegment {
	if len(st.segments) == 0 {
		return metaSegment{}
	}
	return st.segments[len(st.segments)-1]
}

// Append is one entry to store.
type Append struct {
	Epoch    log.Epoch
	Offset   log.Offset // must be the next one: a node holds a contiguous prefix
	LAC      log.Offset // the writer's
	Topic    log.Topic
	Ends     bool
	Time     int64  // µs since 1970
	Checksum uint32 // of the payload
	Payload  []byte // copied; the caller keeps it
}

// Append queues an entry for the next group commit. It waits while the group
// that is filling has no room. Status tells when it is durable. Errors:
// log.ErrFenced, log.ErrFull, log.ErrTooLarge, log.ErrProtocol (a gap or a wrong
// checksum), ctx.Err(), and the store's own.
func (st *Stream) Append(ctx context.Context, a *Append) error {
	if len(a.Payload) == 0 || len(a.Payload) > log.MaxPayload {
		return fmt.Errorf("stream %q: append of %d bytes: %w", st.name, len(a.Payload), log.ErrTooLarge)
	}
	s := st.store
	need := recordSize(len(a.Payload))
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := st.admitLocked(a); err != nil {
			return err
		}
		var wake <-chan struct{}
		switch {
		case st.holding:
			st.watched = true
			wake = st.changed
		case !s.filling.room(need, s.cfg.GroupBytes):
			wake = s.room
		}
		if wake == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-wake:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			return ctx.Err()
		}
	}
	r := record{
		Kind: kindEntry, Length: uint32(len(a.Payload)), PayloadCRC: a.Checksum, Stream: st.id,
		Segment: st.open().Number, Offset: a.Offset, Epoch: a.Epoch, LAC: max(a.LAC, st.lac), LSO: st.lso,
		Time: a.Time, Topic: a.Topic,
	}
	if a.Ends {
		r.Flags |= flagEnds
	}
	wasEmpty := s.filling.empty()
	s.filling.add(st, &r, a.Payload)
	st.next++
	if wasEmpty {
		signal(s.work)
	}
	return nil
}

func (st *Stream) admitLocked(a *Append) error {
	if err := st.store.aliveLocked(); err != nil {
		return fmt.Errorf("stream %q: append %d: %w", st.name, a.Offset, err)
	}
	switch {
	case a.Epoch != st.epoch:
		return fmt.Errorf("stream %q: append %d at epoch %d, the stream is at %d: %w", st.name, a.Offset, a.Epoch, st.epoch, log.ErrFenced)
	case st.broken != nil:
		return fmt.Errorf("stream %q: append %d: %w", st.name, a.Offset, st.broken)
	case a.Offset != st.next:
		return fmt.Errorf("stream %q: append %d, the next one is %d: %w", st.name, a.Offset, st.next, log.ErrProtocol)
	case a.Checksum != Checksum(a.Payload):
		return fmt.Errorf("stream %q: append %d: payload checksum differs: %w", st.name, a.Offset, log.ErrProtocol)
	}
	return nil
}

// Confirm raises the LAC: the writer found its ack rule satisfied up to lac. A
// stream whose rule is this node alone needs no telling.
func (st *Stream) Confirm(epoch log.Epoch, lac log.Offset) error {
	st.store.mu.Lock()
	defer st.store.mu.Unlock()
	if epoch != st.epoch {
		return fmt.Errorf("stream %q: confirm %d at epoch %d, the stream is at %d: %w", st.name, lac, epoch, st.epoch, log.ErrFenced)
	}
	if lac = min(lac, st.last); lac > st.lac {
		st.lac = lac
		st.notify()
	}
	return nil
}

// Fence makes epoch the owner of the stream (0: the next one), creates the
// stream when create is set, and opens a new segment after the last entry. What
// older epochs had queued is durable or dropped before it returns, so the status
// is final for them. Errors: log.ErrFenced when the stream is at that epoch or
// above, log.ErrNoStream, log.ErrSuspect when the stream's tail is damaged,
// log.ErrFull, and the store's own.
func (s *Store) Fence(ctx context.Context, name string, epoch log.Epoch, create bool) (*Stream, Status, error) {
	fail := func(err error) (*Stream, Status, error) {
		return nil, Status{}, fmt.Errorf("fence stream %q: %w", name, err)
	}
	if name == "" || len(name) > NameMax || !utf8.ValidString(name) {
		return fail(fmt.Errorf("a name has 1 to %d bytes of UTF-8: %w", NameMax, log.ErrProtocol))
	}
	s.mu.Lock()
	st := s.names[name]
	if err := s.aliveLocked(); err != nil {
		s.mu.Unlock()
		return fail(err)
	}
	if st == nil {
		if !create || len(s.streams) >= streamsMax {
			s.mu.Unlock()
			if create {
				return fail(fmt.Errorf("the node has %d streams already: %w", streamsMax, log.ErrFull))
			}
			return fail(log.ErrNoStream)
		}
		s.nextID++
		st = newStream(s, s.nextID, name)
		s.names[name], s.streams[st.id] = st, st
	}
	if err := st.holdLocked(ctx); err != nil {
		s.mu.Unlock()
		return fail(err)
	}
	defer func() {
		s.mu.Lock()
		st.holding = false
		st.watched = true
		st.notify()
		s.mu.Unlock()
	}()
	if st.suspect {
		s.mu.Unlock()
		return fail(fmt.Errorf("entries after %d may have been lost to damage: %w", st.last, log.ErrSuspect))
	}
	if epoch == 0 {
		epoch = st.epoch + 1
	}
	if epoch <= st.epoch {
		owner := st.epoch
		s.mu.Unlock()
		return fail(fmt.Errorf("epoch %d, the stream is at %d: %w", epoch, owner, log.ErrFenced))
	}
	// From here on the old epoch is refused, whether or not the meta gets there.
	st.epoch = epoch
	st.next = st.last + 1
	st.broken = nil
	st.openSegment()
	s.mu.Unlock()
	if err := s.persist(); err != nil {
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.created = true
	return st, st.statusLocked(), nil
}

// NameMax bounds the name of a stream and of a cursor's group, in bytes.
const NameMax = 255

// holdLocked stops the stream's appends and waits until what is queued is
// durable or dropped. The lock is released while it waits. On success the caller
// ends the hold.
func (st *Stream) holdLocked(ctx context.Context) error {
	s := st.store
	for mine := false; ; {
		if err := s.aliveLocked(); err != nil {
			st.holding = st.holding && !mine
			return err
		}
		if !st.holding {
			st.holding, mine = true, true
		}
		if mine && st.next == st.last+1 {
			return nil
		}
		st.watched = true
		wake := st.changed
		s.mu.Unlock()
		select {
		case <-wake:
			s.mu.Lock()
		case <-ctx.Done():
			s.mu.Lock()
			if mine {
				st.holding = false
				st.watched = true
				st.notify()
			}
			return ctx.Err()
		}
	}
}

// openSegment closes the open segment at last and opens the next one. One that
// is still empty is opened anew.
func (st *Stream) openSegment() {
	open := st.open()
	if n := len(st.segments); n > 0 && open.First == st.last+1 {
		st.segments[n-1].Epoch = st.epoch
		return
	}
	st.segments = append(st.segments, metaSegment{Number: open.Number + 1, First: st.last + 1, Epoch: st.epoch})
	st.segBytes = 0
	if len(st.segments) > segmentsMax {
		st.segments = slices.Delete(st.segments, 1, 2)
	}
}

// segmentsMax bounds the meta of a stream whose writer restarts for ever while
// nothing is trimmed: the oldest segments then count as one.
const segmentsMax = 1024

// merged says that the oldest segment stands for several.
func (st *Stream) merged() bool {
	return len(st.segments) > 1 && st.segments[1].Number != st.segments[0].Number+1
}

// roll closes the open segment because it grew large.
func (s *Store) roll(st *Stream) error {
	s.mu.Lock()
	if err := st.holdLocked(context.Background()); err != nil {
		s.mu.Unlock()
		return err
	}
	st.openSegment()
	s.mu.Unlock()
	err := s.persist()
	s.mu.Lock()
	defer s.mu.Unlock()
	st.holding = false
	st.watched = true
	st.notify()
	return err
}

// segmentOf is the number of the segment that holds the offset; 0 when unknown.
func (st *Stream) segmentOf(o log.Offset) uint32 {
	i, _ := slices.BinarySearchFunc(st.segments, o+1, func(g metaSegment, o log.Offset) int { return cmp.Compare(g.First, o) })
	if i == 0 {
		return 0
	}
	return st.segments[i-1].Number
}

func (st *Stream) metaLocked() metaStream {
	m := metaStream{
		ID: st.id, Name: st.name, Epoch: st.epoch, First: st.first, Last: st.last,
		Segments: slices.Clone(st.segments), TailSuspect: st.suspect,
	}
	for _, g := range sortedKeys(st.cursors) {
		m.Cursors = append(m.Cursors, st.cursors[g])
	}
	return m
}

// Cursors of the stream, sorted by group.
func (st *Stream) Cursors() []log.Cursor {
	st.store.mu.Lock()
	defer st.store.mu.Unlock()
	out := make([]log.Cursor, 0, len(st.cursors))
	for _, g := range sortedKeys(st.cursors) {
		c := st.cursors[g]
		out = append(out, log.Cursor(c))
	}
	return out
}

// StoreCursor makes the cursor durable. Errors: log.ErrCursorBehind,
// log.ErrProtocol for an offset that is not confirmed yet or a bad group name,
// log.ErrFull, log.ErrUnknown, and the store's own.
func (st *Stream) StoreCursor(c log.Cursor) error {
	fail := func(err error) error {
		return fmt.Errorf("stream %q: cursor %q at %d: %w", st.name, c.Group, c.Offset, err)
	}
	if c.Group == "" || len(c.Group) > NameMax || !utf8.ValidString(c.Group) || !utf8.ValidString(c.GTIDSet) {
		return fail(fmt.Errorf("a group's name has 1 to %d bytes of UTF-8: %w", NameMax, log.ErrProtocol))
	}
	if c.UpdatedAt.IsZero() {
		c.UpdatedAt = st.store.cfg.Now()
	}
	c.UpdatedAt = c.UpdatedAt.UTC().Truncate(time.Microsecond)
	s := st.store
	s.mu.Lock()
	old, known := st.cursors[c.Group]
	bytes := len(c.GTIDSet) - len(old.GTIDSet)
	for _, other := range st.cursors {
		bytes += len(other.Group) + len(other.GTIDSet)
	}
	err := s.aliveLocked()
	switch {
	case err != nil:
	case c.Offset < log.None || c.Offset > st.lac:
		err = fmt.Errorf("the last confirmed entry is %d: %w", st.lac, log.ErrProtocol)
	case known && c.Offset < old.Offset:
		err = fmt.Errorf("it is at %d: %w", old.Offset, log.ErrCursorBehind)
	case bytes > cursorBytesMax:
		err = fmt.Errorf("the stream's cursors would take %d bytes: %w", bytes, log.ErrTooLarge)
	case !known && len(st.cursors) >= cursorsMax:
		err = fmt.Errorf("the stream has %d cursors already: %w", cursorsMax, log.ErrFull)
	}
	if err != nil {
		s.mu.Unlock()
		return fail(err)
	}
	st.cursors[c.Group] = metaCursor(c)
	s.mu.Unlock()
	if err := s.persist(); err != nil {
		return fail(err)
	}
	return nil
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// lostError says that an entry that should be there is damaged or missing.
func (st *Stream) lostError(o log.Offset, why error) error {
	return fmt.Errorf("stream %q: entry %d of segment %d: %w", st.name, o, st.segmentOf(o), errors.Join(log.ErrSuspect, why))
}
