package node

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

// TestHubLosesNoNews lets many readers follow a number that grows; each must see
// its last value, however news and waits interleave.
func TestHubLosesNoNews(t *testing.T) {
	h := newHub()
	const readers, last = 300, 2000
	h.count(readers)
	var now atomic.Int64
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			w := &waiter{wake: make(chan struct{}, 1)}
			defer h.leave(w)
			for seen := int64(0); seen < last; {
				version := h.state()
				seen = now.Load()
				if i%7 == 0 && seen > last/2 {
					return // leaves in the middle
				}
				if seen == last || !h.wait(w, version) {
					continue
				}
				select {
				case <-w.wake:
				case <-time.After(10 * time.Second):
					t.Errorf("reader %d sleeps at %d", i, seen)
					return
				}
			}
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	moved := make(chan struct{}, 1) // a token when now grew; owner: this test; never closed
	var feeding sync.WaitGroup
	feeding.Go(func() {
		for {
			select {
			case <-moved:
				h.news(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	for range last {
		now.Add(1)
		select {
		case moved <- struct{}{}:
		default:
		}
	}
	all.Wait()
	cancel()
	feeding.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.working != 0 || len(h.waiting) != 0 {
		t.Fatalf("%d readers count as working, %d as waiting", h.working, len(h.waiting))
	}
}

func TestFramesAreSharedAndBounded(t *testing.T) {
	f := newFrames()
	made := 0
	for o := range 100 {
		for range 3 {
			x, err := f.get(frameKey{from: 1000 + log.Offset(o)}, func() (*frame, error) {
				made++
				return &frame{from: 1000 + log.Offset(o), bytes: make([]byte, 256<<10)}, nil
			})
			if err != nil || x.from != 1000+log.Offset(o) {
				t.Fatalf("frame %+v, %v", x, err)
			}
		}
	}
	if made != 100 || f.bytes > framesBytes || len(f.byKey) != len(f.order) {
		t.Fatalf("%d made, %d bytes in %d frames, %d keys", made, f.bytes, len(f.order), len(f.byKey))
	}
	if x, err := f.get(frameKey{from: 5}, func() (*frame, error) { return nil, context.Canceled }); x != nil || err == nil {
		t.Fatalf("frame %+v, %v", x, err)
	}
	f.clear()
	if f.bytes != 0 || len(f.byKey) != 0 {
		t.Fatal("something is left")
	}
}
