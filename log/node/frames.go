package node

import (
	"sync"

	"github.com/twinspan/twinspan/log"
)

// framesBytes bounds the frames of one stream that are kept for readers at the
// same place.
const framesBytes = 8 << 20

// frame is an encoded Data message, to be sent as it is to any reader that is at
// from, wants all topics, and sees what the maker saw. It never changes.
type frame struct {
	from, next log.Offset
	bounds     log.Bounds
	bytes      []byte
}

type frameKey struct {
	from      log.Offset
	committed bool
}

// frames shares the newest frames of one stream between its readers: an entry is
// read, checked and encoded once, however many they are. Readers at the tail go
// from frame to frame, so they keep meeting in the same places.
type frames struct {
	mu    sync.Mutex
	byKey map[frameKey]*made
	order []*made // oldest first
	bytes int64
}

// made is a frame, or one that somebody is making.
type made struct {
	key   frameKey
	ready chan struct{} // closed by its maker
	frame *frame        // nil: there was nothing, or the maker failed
}

func newFrames() *frames { return &frames{byKey: map[frameKey]*made{}} }

// get returns the frame at k. Whoever comes first makes it, the others wait for
// it; nil: there is nothing to share, read for yourself.
func (f *frames) get(k frameKey, build func() (*frame, error)) (*frame, error) {
	f.mu.Lock()
	if m := f.byKey[k]; m != nil {
		f.mu.Unlock()
		<-m.ready
		return m.frame, nil
	}
	m := f.add(k)
	f.mu.Unlock()
	x, err := build()
	f.mu.Lock()
	defer f.mu.Unlock()
	m.frame = x
	close(m.ready)
	if f.byKey[k] != m { // the cache was cleared meanwhile
		return x, err
	}
	if x == nil {
		delete(f.byKey, k)
		return nil, err
	}
	f.order = append(f.order, m)
	f.bytes += int64(len(x.bytes))
	for len(f.order) > 1 && f.bytes > framesBytes {
		f.dropLocked()
	}
	return x, err
}

func (f *frames) add(k frameKey) *made {
	m := &made{key: k, ready: make(chan struct{})}
	f.byKey[k] = m
	return m
}

// dropLocked gives up the oldest frame.
func (f *frames) dropLocked() {
	m := f.order[0]
	f.order[0] = nil
	f.order = f.order[1:]
	f.bytes -= int64(len(m.frame.bytes))
	delete(f.byKey, m.key)
}

func (f *frames) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.byKey)
	f.order, f.bytes = nil, 0
}
