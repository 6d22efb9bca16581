package node

import (
	"context"
	"sync"
	"time"
)

// A hub wakes the readers of one stream when there is news. It does so a few at a
// time: thousands of readers that become runnable at once would take the
// processor from the one goroutine that matters, the writer's. While they are
// many, news gather for a moment, so that each reader gets them in fewer and
// larger frames.
type hub struct {
	mu      sync.Mutex
	version uint64
	waiting []*waiter // bounded by the node's connections
	working int       // woken, and not back yet
	readers int
	back    chan struct{} // a token when working falls to 0; owner: the hub; bound 1; never closed
}

// waiter is one reader's place in the hub.
type waiter struct {
	wake chan struct{} // a token when there is news; owner: the hub; bound 1; never closed
	out  bool          // woken, and counted as working
	gone bool
}

const (
	wakeSlice    = 8                      // readers woken at once
	wakePatience = 500 * time.Microsecond // how long a slice may take before the next is woken anyway
	readersFew   = 64                     // up to so many readers news are told at once
	readerPause  = 5 * time.Microsecond   // per reader, between two rounds, when they are more
)

func newHub() *hub { return &hub{back: make(chan struct{}, 1)} }

// state is the version to wait for news after. It is taken before looking.
func (h *hub) state() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version
}

// count tells how many readers there are.
func (h *hub) count(readers int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readers = readers
}

// rest says that a woken reader has done its turn.
func (h *hub) rest(w *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restLocked(w)
}

func (h *hub) restLocked(w *waiter) {
	if !w.out {
		return
	}
	w.out = false
	if h.working--; h.working == 0 {
		select {
		case h.back <- struct{}{}:
		default:
		}
	}
}

// wait parks the reader until there is news after version; false: it is there.
// The token comes on w.wake.
func (h *hub) wait(w *waiter, version uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restLocked(w)
	if h.version != version {
		return false
	}
	h.waiting = append(h.waiting, w)
	return true
}

// leave takes a reader out that waits no longer.
func (h *hub) leave(w *waiter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.gone = true
	for i, x := range h.waiting {
		if x == w {
			last := len(h.waiting) - 1
			h.waiting[i] = h.waiting[last]
			h.waiting[last] = nil
			h.waiting = h.waiting[:last]
			break
		}
	}
	select {
	case <-w.wake:
	default:
	}
	h.restLocked(w)
}

// news makes a new version and wakes whoever waits, slice after slice. One
// goroutine calls it.
func (h *hub) news(ctx context.Context) {
	h.mu.Lock()
	h.version++
	round := h.waiting
	h.waiting = nil
	readers := h.readers
	h.mu.Unlock()
	timer := time.NewTimer(wakePatience)
	defer timer.Stop()
	for len(round) > 0 {
		n := min(wakeSlice, len(round))
		h.mu.Lock()
		select {
		case <-h.back: // of an earlier slice that came back late
		default:
		}
		for _, w := range round[:n] {
			if w.gone {
				continue
			}
			w.out = true
			h.working++
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
		h.mu.Unlock()
		if round = round[n:]; len(round) == 0 {
			break
		}
		timer.Reset(wakePatience)
		select {
		case <-h.back:
		case <-timer.C:
		case <-ctx.Done():
			timer.Reset(0) // they all leave: no more care is needed
		}
	}
	if readers > readersFew {
		timer.Reset(time.Duration(readers) * readerPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}
