package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sort"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
)

// shelf knows which replicas the node holds, by stream and in the order of their
// numbers, which is that of their offsets. The store has the truth; whoever makes
// or drops a replica there puts it here.
type shelf struct {
	mu      sync.Mutex
	streams map[string]*row
}

// row is the replicas of one stream.
type row struct {
	stream string
	hub    *hub
	frames *frames

	mu      sync.Mutex
	slots   []slot        // ascending numbers
	changed chan struct{} // closed and replaced when slots change or somebody pokes
	kept    log.Offset    // first entry of the stream that retention left
	known   bool          // metadata told it
	readers int
	stop    context.CancelFunc // ends the goroutine that feeds the hub; nil without readers
	ended   chan struct{}      // closed when that goroutine has ended
}

// slot is one replica.
type slot struct {
	number uint32
	first  log.Offset
	lso    log.Offset // newest end of a transaction before first
	epoch  log.Epoch
	rep    *segment.Replica

	settled   bool // it is as metadata wants it
	compacted bool
}

func newShelf() *shelf { return &shelf{streams: map[string]*row{}} }

// row of a stream; nil when the node holds nothing of it and make is not set.
func (s *shelf) row(stream string, make bool) *row {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.streams[stream]
	if r == nil && make {
		r = newRow(stream)
		s.streams[stream] = r
	}
	return r
}

func newRow(stream string) *row {
	return &row{stream: stream, hub: newHub(), frames: newFrames(), changed: make(chan struct{})}
}

// names of the streams of which something is held, sorted.
func (s *shelf) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, name := range sortedKeys(s.streams) {
		if r := s.streams[name]; r.count() > 0 {
			out = append(out, name)
		}
	}
	return out
}

func (r *row) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.slots)
}

// all replicas, oldest first.
func (r *row) all() []slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.slots)
}

// put adds a replica or renews it.
func (r *row) put(rep *segment.Replica) {
	d := rep.Descriptor()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := slot{number: d.Segment, first: d.First, lso: d.FirstLSO, epoch: d.Epoch, rep: rep}
	i, found := r.find(d.Segment)
	if found && r.slots[i].rep == rep {
		return
	}
	if found {
		r.slots[i] = s
	} else {
		r.slots = slices.Insert(r.slots, i, s)
	}
	r.pokeLocked()
}

// remove forgets a replica that was dropped.
func (r *row) remove(number uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, found := r.find(number); found {
		r.slots = slices.Delete(r.slots, i, i+1)
		r.pokeLocked()
	}
}

func (r *row) find(number uint32) (int, bool) {
	return slices.BinarySearchFunc(r.slots, number, func(s slot, n uint32) int { return cmp.Compare(s.number, n) })
}

// poke wakes the stream's readers: a replica was closed, or metadata moved.
func (r *row) poke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pokeLocked()
}

func (r *row) pokeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// at is the newest replica that starts at or before the offset.
func (r *row) at(o log.Offset) (slot, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Of several that start at the same place all but the newest are empty.
	i := sort.Search(len(r.slots), func(i int) bool { return r.slots[i].first > o })
	if i == 0 {
		return slot{}, false
	}
	return r.slots[i-1], true
}

// newest replica, and a channel that is closed when that changes.
func (r *row) newest() (slot, bool, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.slots) == 0 {
		return slot{}, false, r.changed
	}
	return r.slots[len(r.slots)-1], true, r.changed
}

// bounds of the stream as far as the node holds it.
func (r *row) bounds() (log.Bounds, error) {
	s, ok, _ := r.newest()
	r.mu.Lock()
	first, known := r.kept, r.known
	if !known && len(r.slots) > 0 {
		first = r.slots[0].first
	}
	r.mu.Unlock()
	if !ok {
		return log.Bounds{First: first, LAC: first - 1, LSO: log.None}, nil
	}
	st, _, err := s.rep.State()
	if err != nil && !errors.Is(err, log.ErrElsewhere) {
		return log.Bounds{}, err
	}
	return log.Bounds{
		First: first, LAC: max(st.LAC, s.first-1), LSO: max(st.LSO, s.lso), Epoch: s.epoch,
	}, nil
}

// refresh takes from metadata where the stream begins: with its oldest segment
// that is whole.
func (r *row) refresh(first log.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept, r.known = max(r.kept, first), true
}

// mark notes that a replica is as metadata wants it, so that it need not be looked
// at with every change of its stream.
func (r *row) mark(number uint32, settled, compacted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i, found := r.find(number); found {
		r.slots[i].settled, r.slots[i].compacted = settled, compacted
	}
}

// shared says that there are several readers, for whom a frame is worth keeping.
func (r *row) shared() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readers > 1
}

// crowded says that the stream's readers are many.
func (r *row) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readers > governedReaders
}

// join counts a reader in; the first one starts the goroutine that tells the hub
// of news. The last one's leave ends it, and waits for that.
func (r *row) join(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readers++
	r.hub.count(r.readers)
	if r.readers > 1 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	r.stop, r.ended = cancel, ended
	go func() {
		defer close(ended)
		r.follow(ctx)
	}()
}

func (r *row) leave() {
	r.mu.Lock()
	r.readers--
	r.hub.count(r.readers)
	if r.readers > 0 {
		r.mu.Unlock()
		return
	}
	stop, ended := r.stop, r.ended
	r.stop, r.ended = nil, nil
	r.frames.clear()
	r.mu.Unlock()
	stop()
	<-ended
}

// follow tells the hub of every change of the stream here.
func (r *row) follow(ctx context.Context) {
	for {
		s, ok, poked := r.newest()
		var moved <-chan struct{}
		if ok {
			var err error
			if _, moved, err = s.rep.State(); err != nil {
				moved = nil // readers meet the error; a poke or the end follows
			}
		}
		r.hub.news(ctx)
		select {
		case <-moved:
		case <-poked:
		case <-ctx.Done():
			return
		}
	}
}
