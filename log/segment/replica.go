package segment

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// ID names a replica on its node.
type ID struct {
	Stream  string
	Segment uint32
}

func (id ID) String() string { return fmt.Sprintf("stream %q segment %d", id.Stream, id.Segment) }

// Replica is the node's part of one segment: a contiguous prefix of its entries,
// from Descriptor.First. The older ones may lie in a file of its own, the newer
// ones lie in the journal. All fields are guarded by the store's lock.
type Replica struct {
	store *Store
	id    ID
	num   uint32            // its name in the journal, never used twice; 0: it has nothing there
	desc  quorum.Descriptor // never changes once known
	known bool              // desc is; of a replica in its own file it is read when needed

	created  bool // the meta has it
	dropped  bool
	leaving  bool           // closed, and its own file is being written: nothing more is appended
	shelved  bool           // all of it lies in its own file, and the meta counts it among those
	m        quorum.Replica // admission, fence, close
	asked    log.Epoch      // the highest fence asked for: the meta may have it before m does
	closeAt  *segmentEnd    // asked for, or durable
	saving   bool           // a caller of Attach, Seal or Close writes the meta for it
	broken   error          // queued entries were dropped; only Attach mends it
	doubt    bool           // damage may have taken entries behind the last one found
	damage   ranges         // entries that are known to be damaged or lost
	kept     []log.Topic    // a compaction left only these; nil: all
	ends     []log.Offset   // ends of transactions that may not be shown yet, ascending
	lso      log.Offset     // newest end of a transaction that may be shown
	runs     []*run         // ascending, without gaps, behind what file covers
	tail     *run           // the newest of runs, when it can grow
	file     *archive       // nil: all of it lies in the journal
	unread   error          // why nothing can be read of its own file; nil: it was not tried, or can
	line     metaReplica    // what encoded stands for
	encoded  []byte         // its line in the meta
	descJSON []byte

	touchedIn *group // the group that holds its newest queued entry
	touched   int32

	wanted  atomic.Int32  // who waits for the token
	turn    chan struct{} // a token: whoever holds it may replace file; owner: the Replica; bound 1; never closed
	changed chan struct{} // owner: the Replica; made when somebody watches, closed at the next change
}

// segmentEnd is where a segment ends.
type segmentEnd struct{ last, lso log.Offset }

func newReplica(s *Store, id ID) *Replica {
	return &Replica{store: s, id: id, turn: make(chan struct{}, 1)}
}

// describe gives a replica its descriptor.
func (r *Replica) describe(d quorum.Descriptor) {
	d.Members = slices.Clone(d.Members)
	d.Rule.Cities = maps.Clone(d.Rule.Cities)
	r.desc, r.known = d, true
	r.lso = d.FirstLSO
}

// fresh is the state of a segment of which nothing is here yet.
func fresh(d *quorum.Descriptor) quorum.ReplicaState {
	return quorum.ReplicaState{First: d.First, Last: d.First - 1, LSO: d.FirstLSO, LAC: log.None}
}

// ID of the replica.
func (r *Replica) ID() ID { return r.id }

// Descriptor of the segment, as the node made it durable.
func (r *Replica) Descriptor() quorum.Descriptor { return r.desc }

// notify wakes whoever watches. The store's lock is held.
func (r *Replica) notify() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// watch is a channel that the next change closes. The store's lock is held.
func (r *Replica) watch() <-chan struct{} {
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// aliveLocked is nil while the replica takes requests.
func (r *Replica) aliveLocked() error {
	if err := r.store.aliveLocked(); err != nil {
		return err
	}
	if r.dropped {
		return fmt.Errorf("it was given up: %w", log.ErrElsewhere)
	}
	return nil
}

// held is the newest entry on disk here.
func (r *Replica) held() log.Offset { return r.m.Last() }

// visibleLocked is the newest entry that readers may see.
func (r *Replica) visibleLocked() log.Offset { return max(r.m.Visible(), r.desc.First-1) }

// showLocked moves the LSO after the visible part grew, and tells.
func (r *Replica) showLocked() {
	v := r.visibleLocked()
	n := 0
	for n < len(r.ends) && r.ends[n] <= v {
		n++
	}
	if n > 0 {
		r.lso = r.ends[n-1]
		if r.ends = r.ends[n:]; len(r.ends) == 0 {
			r.ends = nil // what it pointed into may be large
		}
	}
	r.notify()
}

// suspectLocked says that damage is known, or may have taken entries.
func (r *Replica) suspectLocked() bool { return r.doubt || len(r.damage) > 0 || r.unread != nil }

// completeLocked says that the segment is closed and all of it is here.
func (r *Replica) completeLocked() bool {
	end, _, closed := r.m.Closed()
	return closed && r.held() == end && !r.suspectLocked()
}

// State is what readers and acknowledgers of a replica follow.
type State struct {
	Fence   log.Epoch
	Held    log.Offset // newest durable entry; First-1: none
	LAC     log.Offset // newest that may be shown; at most Held
	LSO     log.Offset // newest up to LAC that ends a transaction; the descriptor's FirstLSO when there is none
	Closed  bool
	Last    log.Offset // of a closed one: where the segment ends
	Suspect bool
	Broken  error // queued entries were dropped: who appends has to attach again
}

// State is the present one and a channel that is closed when it changes. The error
// is the store's (log.ErrUnavailable when the journal died, log.ErrClosed), or
// log.ErrElsewhere once the replica was dropped; the state is true even so.
func (r *Replica) State() (State, <-chan struct{}, error) {
	s := r.store
	s.mu.Lock()
	defer s.mu.Unlock()
	end, _, closed := r.m.Closed()
	st := State{
		Fence: r.m.Fence(), Held: r.held(), LAC: r.visibleLocked(), LSO: r.lso, Closed: closed, Last: end,
		Suspect: r.suspectLocked(), Broken: r.broken,
	}
	return st, r.watch(), r.aliveLocked()
}

// Progress is how far an epoch got.
type Progress struct {
	Last log.Offset // newest durable entry; log.None when the epoch has no part in it
	Err  error      // the epoch appends no more: log.ErrFenced, log.ErrClosed, log.ErrFull, …
}

// Progress is how far appends at that epoch got, and a channel that is closed when
// that changes. Last is true even with an error.
func (r *Replica) Progress(epoch log.Epoch) (Progress, <-chan struct{}, error) {
	s := r.store
	s.mu.Lock()
	defer s.mu.Unlock()
	p := Progress{Last: r.held()}
	fence := r.m.Fence()
	end, _, closed := r.m.Closed()
	switch {
	case epoch > fence:
		p.Last = log.None
		p.Err = fmt.Errorf("%s: epoch %d is not attached, the fence is %d: %w", r.id, epoch, fence, log.ErrProtocol)
	case epoch < fence:
		p.Last = log.None
		p.Err = fmt.Errorf("%s: epoch %d, the fence is %d: %w", r.id, epoch, fence, log.ErrFenced)
	case closed && (r.leaving || r.shelved || r.held() >= end):
		p.Err = fmt.Errorf("%s: it ends at %d: %w", r.id, end, log.ErrClosed)
	case r.broken != nil:
		p.Err = fmt.Errorf("%s: %w", r.id, r.broken)
	case r.m.Suspect():
		p.Err = fmt.Errorf("%s: %w", r.id, log.ErrSuspect)
	}
	return p, r.watch(), r.aliveLocked()
}

// ReplicaInfo is a picture of a replica.
type ReplicaInfo struct {
	quorum.Descriptor
	Fence log.Epoch  // appends of lower epochs are refused
	Held  log.Offset // newest entry on disk; First-1: none
	LAC   log.Offset // newest that may be shown; at most Held
	LSO   log.Offset // newest up to LAC that ends a transaction; FirstLSO when there is none

	Closed bool
	Last   log.Offset // of a closed one: where the segment ends
	EndLSO log.Offset // of a closed one: newest entry up to Last that ends a transaction
	// Complete: closed, and every entry up to Last (of a compacted one: of the
	// topics kept) is here and not known to be damaged.
	Complete  bool
	Compacted bool
	Kept      []log.Topic // of a compacted one: the topics that stayed
	Suspect   bool        // damage is known or may have taken entries
	Missing   []Range     // of a closed one: what a repair would bring; ascending
	Archived  bool        // all of it lies in its own file

	Bytes     int64 // of the records, as they were appended
	DiskBytes int64 // of its own file; 0 while all of it lies in the journal
	Entries   int64
	Oldest    time.Time // least and greatest AppendedAt; zero: no entry
	Newest    time.Time
	classes   uint32
}

// ID of the replica.
func (i *ReplicaInfo) ID() ID { return ID{i.Stream, i.Segment} }

// MayHold is false when the replica surely holds no entry of the topic. It takes
// topics of 15 and above for one.
func (i *ReplicaInfo) MayHold(t log.Topic) bool { return i.classes>>topicClass(t)&1 == 1 }

// Info is the present picture.
func (r *Replica) Info() ReplicaInfo {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return r.infoLocked()
}

func (r *Replica) infoLocked() ReplicaInfo {
	end, lso, closed := r.m.Closed()
	i := ReplicaInfo{
		Descriptor: r.desc, Fence: r.m.Fence(), Held: r.held(), LAC: r.visibleLocked(), LSO: r.lso, Closed: closed,
		Complete: r.completeLocked(), Compacted: r.kept != nil, Kept: r.kept, Suspect: r.suspectLocked(), Archived: r.shelved,
	}
	if !r.known {
		return ReplicaInfo{Descriptor: quorum.Descriptor{Stream: r.id.Stream, Segment: r.id.Segment}, Suspect: true, Archived: true}
	}
	if closed {
		i.Last, i.EndLSO = end, lso
		i.Missing = append(i.Missing, r.damage...)
		if r.held() < end {
			i.Missing = append(i.Missing, Range{r.held() + 1, end})
		}
	}
	oldest, newest := int64(0), int64(0)
	span := func(from, to int64) {
		if oldest == 0 && newest == 0 {
			oldest, newest = from, to
		}
		oldest, newest = min(oldest, from), max(newest, to)
	}
	if a := r.file; a != nil {
		i.Bytes, i.DiskBytes, i.Entries, i.classes = a.head.Bytes, a.size, a.head.Entries, a.head.Classes
		if a.head.Entries > 0 {
			span(a.head.Oldest, a.head.Newest)
		}
	}
	for _, x := range r.runs {
		i.Bytes += x.bytes
		i.Entries += int64(x.count) - int64(x.lost)
		i.classes |= x.classes
		if x.bytes > 0 {
			span(x.oldest, x.newest)
		}
	}
	if i.Entries > 0 {
		i.Oldest, i.Newest = microTime(oldest), microTime(newest)
	}
	return i
}

// Range of entries, both ends included.
type Range struct{ First, Last log.Offset }

// ranges are ascending and apart from each other.
type ranges []Range

// add makes one of the range and those it touches.
func (rs ranges) add(n Range) ranges {
	i, _ := slices.BinarySearchFunc(rs, n.First, func(r Range, o log.Offset) int {
		if r.Last+1 < o {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(rs) && rs[j].First <= n.Last+1; j++ {
		n.First, n.Last = min(n.First, rs[j].First), max(n.Last, rs[j].Last)
	}
	return slices.Replace(rs, i, j, n)
}

// cut takes everything outside of [first, last] away.
func (rs ranges) cut(first, last log.Offset) ranges {
	var out ranges
	for _, r := range rs {
		if r.First, r.Last = max(r.First, first), min(r.Last, last); r.First <= r.Last {
			out = append(out, r)
		}
	}
	return out
}

// at is the range that holds the offset.
func (rs ranges) at(o log.Offset) (Range, bool) {
	for _, r := range rs {
		if r.First <= o && o <= r.Last {
			return r, true
		}
	}
	return Range{}, false
}

// lostError says that an entry that should be there is damaged or missing.
func (r *Replica) lostError(o log.Offset, why error) error {
	return fmt.Errorf("%s: entry %d: %w", r.id, o, errors.Join(log.ErrSuspect, why))
}

// hurtLocked notes damage. Readers still get what is good; a replica of several
// stores nothing more, so that its writer goes on without it and it is repaired.
func (r *Replica) hurtLocked(first, last log.Offset) {
	if x, known := r.damage.at(first); known && x.Last >= last {
		return
	}
	if len(r.damage) == 0 {
		r.store.log.Error().Stringer("replica", r.id).Int64("offset", int64(first)).Msg("the replica is suspect: stored bytes are damaged")
	}
	r.damage = r.damage.add(Range{first, last})
	if len(r.desc.Members) > 1 {
		r.m.Damaged()
	}
	r.notify()
}

func sameDescriptor(a, b *quorum.Descriptor) bool {
	return a.Stream == b.Stream && a.Segment == b.Segment && a.First == b.First && a.FirstLSO == b.FirstLSO &&
		a.Epoch == b.Epoch && a.Generation == b.Generation && a.Protected == b.Protected &&
		slices.Equal(a.Members, b.Members) && a.Rule.Total == b.Rule.Total && maps.Equal(a.Rule.Cities, b.Rule.Cities)
}
