// Package wan is a network between cities on one machine, in user space: it
// stands in front of servers, delays what passes between two cities, limits its
// rate, cuts it in one or both directions, and counts who sent how much where.
// A connection's city is told by its source address: 127.0.1.7, say, is in a.
//
// Chunks wait in a bounded queue with the time they are due, so a delay costs no
// throughput until the queue is full. What it can't do is what TCP hides anyway:
// lose, double or reorder single packets.
package wan

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Cut is how nothing passes.
type Cut string

// The cuts.
const (
	Open Cut = ""
	// Hold lets nothing through and tells nobody, as a broken line does. When
	// it ends what was sent meanwhile arrives, as TCP would send it again.
	Hold Cut = "hold"
	// Reset ends every connection, and each new one at once.
	Reset Cut = "reset"
)

// Way is one direction between two cities.
type Way struct {
	Delay  time.Duration `json:"delay"`
	Jitter time.Duration `json:"jitter,omitempty"` // up to this much more, at random; order is kept
	Rate   int64         `json:"rate,omitempty"`   // bytes per second of all connections together; 0: no limit
	Cut    Cut           `json:"cut,omitempty"`
}

func (w Way) check() error {
	if w.Delay < 0 || w.Jitter < 0 || w.Rate < 0 {
		return fmt.Errorf("delay %v, jitter %v, rate %d: none may be negative", w.Delay, w.Jitter, w.Rate)
	}
	switch w.Cut {
	case Open, Hold, Reset:
		return nil
	}
	return fmt.Errorf("cut %q: use hold, reset, or nothing", w.Cut)
}

// lane is a Way in use, shared by all connections that take it.
type lane struct {
	mu      sync.Mutex
	way     Way
	busy    time.Time     // until then the line is full with what was sent before
	changed chan struct{} // closed, and made anew, when way changes
	random  *rand.Rand
}

func newLane(seed uint64) *lane {
	return &lane{changed: make(chan struct{}), random: rand.New(rand.NewPCG(seed, 7))}
}

func (l *lane) set(w Way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.way = w
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lane) get() (Way, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.way, l.changed
}

// due is when n bytes that were sent now arrive.
func (l *lane) due(now time.Time, n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := now
	if l.way.Rate > 0 {
		if l.busy.After(at) {
			at = l.busy
		}
		at = at.Add(time.Duration(float64(n) / float64(l.way.Rate) * float64(time.Second)))
		l.busy = at
	}
	if l.way.Jitter > 0 {
		at = at.Add(time.Duration(l.random.Int64N(int64(l.way.Jitter))))
	}
	return at.Add(l.way.Delay)
}

// pass blocks while the way is held; false: stop was closed first.
func (l *lane) pass(stop <-chan struct{}) bool {
	for {
		w, changed := l.get()
		if w.Cut != Hold {
			return true
		}
		select {
		case <-changed:
		case <-stop:
			return false
		}
	}
}
