package client

import (
	"container/heap"

	"github.com/twinspan/twinspan/log"
)

// waiters are those who wait for an entry to be confirmed, by its offset. Only
// those whose entry is are woken.
type waiters struct {
	heap   waiterHeap
	spares []*waiter
}

type waiter struct {
	offset   log.Offset
	index    int           // in the heap; -1: released
	released chan struct{} // one token when released; owner: the writer; bound 1; never closed
}

const waitersKept = 256

func (w *waiters) add(o log.Offset) *waiter {
	var x *waiter
	if n := len(w.spares); n > 0 {
		x = w.spares[n-1]
		w.spares = w.spares[:n-1]
	} else {
		x = &waiter{released: make(chan struct{}, 1)}
	}
	x.offset = o
	heap.Push(&w.heap, x)
	return x
}

// release wakes those whose entry is at or below o.
func (w *waiters) release(o log.Offset) {
	for len(w.heap) > 0 && w.heap[0].offset <= o {
		w.wake()
	}
}

func (w *waiters) releaseAll() {
	for len(w.heap) > 0 {
		w.wake()
	}
}

func (w *waiters) wake() {
	x := heap.Pop(&w.heap).(*waiter)
	x.index = -1
	x.released <- struct{}{}
}

// done takes back a waiter that has got its token.
func (w *waiters) done(x *waiter) {
	if len(w.spares) < waitersKept {
		w.spares = append(w.spares, x)
	}
}

// remove gives a waiter up.
func (w *waiters) remove(x *waiter) {
	if x.index >= 0 {
		heap.Remove(&w.heap, x.index)
	} else {
		<-x.released
	}
	w.done(x)
}

type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].offset < h[j].offset }
func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *waiterHeap) Push(x any) {
	w := x.(*waiter)
	w.index = len(*h)
	*h = append(*h, w)
}
func (h *waiterHeap) Pop() any {
	old := *h
	n := len(old) - 1
	x := old[n]
	old[n] = nil
	*h = old[:n]
	return x
}
