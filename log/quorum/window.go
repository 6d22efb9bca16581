// Package quorum holds the protocol of a writer as pure state: no goroutine, no
// clock, no I/O. Whoever drives it feeds in what happened and acts on what
// changed.
package quorum

import (
	"fmt"

	"github.com/twinspan/twinspan/log"
)

// Rule says whether a set of nodes (bit i: node i) that hold an entry on disk is
// enough to confirm it. It must be monotone: a superset of a set that is enough
// is enough.
type Rule func(nodes uint64) bool

// Any one node of the ensemble is enough: the rule of a single node.
func Any(nodes uint64) bool { return nodes != 0 }

// NodesMax is how many nodes a segment can have.
const NodesMax = 64

// Window numbers the entries of one writer and decides which are confirmed. Each
// node holds a contiguous prefix and acknowledges cumulatively, so one watermark
// per node is all there is to know. It is not safe for concurrent use.
type Window struct {
	rule      Rule
	marks     []log.Offset // newest entry on disk, per node
	next      log.Offset
	confirmed log.Offset
	lso       log.Offset // of the confirmed entries
	pending   []size     // ring of the entries from confirmed+1 to next-1
	head      int
	count     int
	bytes     int64
}

type size struct {
	bytes int32
	ends  bool
}

// NewWindow starts behind entry last, which all nodes have. lso is the newest
// entry up to last that ends a transaction.
func NewWindow(last, lso log.Offset, nodes int, rule Rule) *Window {
	if nodes < 1 || nodes > NodesMax {
		panic(fmt.Sprintf("quorum: %d nodes", nodes)) // a caller's bug, not an input
	}
	w := &Window{rule: rule, next: last + 1, confirmed: last, lso: lso, marks: make([]log.Offset, nodes)}
	for i := range w.marks {
		w.marks[i] = last
	}
	return w
}

// Next is the offset that the next entry will get.
func (w *Window) Next() log.Offset { return w.next }

// Confirmed is the LAC: every entry up to it satisfies the rule.
func (w *Window) Confirmed() log.Offset { return w.confirmed }

// LSO is the newest confirmed entry that ends a transaction.
func (w *Window) LSO() log.Offset { return w.lso }

// InFlight is the bytes of the entries that are not confirmed.
func (w *Window) InFlight() int64 { return w.bytes }

// Append numbers one entry.
func (w *Window) Append(bytes int, ends bool) log.Offset {
	if w.count == len(w.pending) {
		grown := make([]size, max(64, 2*len(w.pending)))
		n := copy(grown, w.pending[w.head:])
		copy(grown[n:], w.pending[:w.head])
		w.pending, w.head = grown, 0
	}
	w.pending[(w.head+w.count)%len(w.pending)] = size{int32(bytes), ends}
	w.count++
	w.bytes += int64(bytes)
	o := w.next
	w.next++
	return o
}

// Acked takes a node's cumulative acknowledgement and reports whether more is
// confirmed. One that goes back is old news; one beyond what was appended is
// log.ErrProtocol.
func (w *Window) Acked(node int, last log.Offset) (bool, error) {
	if node < 0 || node >= len(w.marks) || last >= w.next {
		return false, fmt.Errorf("node %d acknowledges %d, the next entry is %d: %w", node, last, w.next, log.ErrProtocol)
	}
	if last <= w.marks[node] {
		return false, nil
	}
	w.marks[node] = last
	before := w.confirmed
	for w.confirmed < last {
		var holders uint64
		least := last
		for i, m := range w.marks {
			if m > w.confirmed {
				holders |= 1 << i
				least = min(least, m)
			}
		}
		if !w.rule(holders) {
			break
		}
		w.confirm(least) // up to there the same nodes hold every entry
	}
	return w.confirmed > before, nil
}

func (w *Window) confirm(to log.Offset) {
	for w.confirmed < to {
		e := w.pending[w.head]
		w.head = (w.head + 1) % len(w.pending)
		w.count--
		w.confirmed++
		w.bytes -= int64(e.bytes)
		if e.ends {
			w.lso = w.confirmed
		}
	}
}
