package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// governor keeps the readers from taking the processor away from the writers: what
// many readers are sent while entries are being appended takes a share of one
// core, in turns. They fall behind for as long as that lasts, which the journal
// bears; who waits for a confirmation does not.
type governor struct {
	written atomic.Int64 // when entries became durable last, ns since 1970

	mu   sync.Mutex
	next time.Time // when the next turn begins
}

const (
	governedReaders = 8                      // up to so many readers are never held
	governedFor     = 100 * time.Millisecond // after the last append
	governedShare   = 4                      // 1/4 of a core
	turnCost        = 10 * time.Microsecond  // of one send, whatever its size
	turnCostPerMB   = time.Millisecond       // and by its size
	ownCostPerMB    = 3 * time.Millisecond   // more when it was read for one reader alone
)

// appended notes that a writer is at work.
func (g *governor) appended() { g.written.Store(time.Now().UnixNano()) }

// turn waits until a send of so many bytes may take place.
func (g *governor) turn(ctx context.Context, bytes int, own bool) error {
	now := time.Now()
	if now.UnixNano()-g.written.Load() > int64(governedFor) {
		return nil
	}
	cost := turnCost + turnCostPerMB*time.Duration(bytes)>>20
	if own {
		cost += ownCostPerMB * time.Duration(bytes) >> 20
	}
	g.mu.Lock()
	if g.next.Before(now) {
		g.next = now
	}
	due := g.next
	g.next = g.next.Add(governedShare * cost)
	g.mu.Unlock()
	if !due.After(now) {
		return nil
	}
	t := time.NewTimer(due.Sub(now))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
