// Package quorum holds the protocol of a writer as pure state: no goroutine, no
// clock, no I/O. Whoever drives it feeds in what happened and acts on what
// changed.
package quorum

import (
	"fmt"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
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
	done      int64 // bytes of what this ensemble confirmed
	frozen    bool
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
	w := &Window{next: last + 1, confirmed: last, lso: lso}
	w.Reset(nodes, rule)
	return w
}

// Reset gives the window another ensemble: its nodes have everything that is
// confirmed and nothing behind it. Entries that are not confirmed stay, to be
// sent to the new nodes.
func (w *Window) Reset(nodes int, rule Rule) {
	w.rule, w.frozen, w.done, w.marks = rule, false, 0, make([]log.Offset, nodes)
	for i := range w.marks {
		w.marks[i] = w.confirmed
	}
}

// Freeze keeps what is confirmed as it is: acknowledgements are noted and confirm
// nothing until Thaw or Reset.
func (w *Window) Freeze() { w.frozen = !fault.Is(fault.AckBeyondFreeze) }

// Thaw ends a freeze and reports whether more is confirmed.
func (w *Window) Thaw() bool {
	w.frozen = false
	return w.settle(w.next - 1)
}

// Mark is the newest entry that a node acknowledged.
func (w *Window) Mark(node int) log.Offset { return w.marks[node] }

// Forget takes a node's acknowledgements back as far as last: it turned out to
// have lost entries. What is confirmed stays confirmed.
func (w *Window) Forget(node int, last log.Offset) { w.marks[node] = min(w.marks[node], last) }

// Bytes is the payload bytes that this ensemble confirmed.
func (w *Window) Bytes() int64 { return w.done }

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
	tail := w.head + w.count
	if tail >= len(w.pending) {
		tail -= len(w.pending)
	}
	w.pending[tail] = size{int32(bytes), ends}
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
	return w.settle(last), nil
}

// settle confirms what the rule allows, up to limit.
func (w *Window) settle(limit log.Offset) bool {
	before := w.confirmed
	for w.confirmed < limit && !w.frozen {
		var holders uint64
		least := limit
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
	return w.confirmed > before
}

func (w *Window) confirm(to log.Offset) {
	for w.confirmed < to {
		e := w.pending[w.head]
		if w.head++; w.head == len(w.pending) {
			w.head = 0
		}
		w.count--
		w.confirmed++
		w.bytes -= int64(e.bytes)
		w.done += int64(e.bytes)
		if e.ends {
			w.lso = w.confirmed
		}
	}
}
