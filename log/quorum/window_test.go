package quorum_test

import (
	"errors"
	"math/bits"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// cities is the rule "a of the low three and b of the high three".
func cities(a, b int) quorum.Rule {
	return func(n uint64) bool {
		return bits.OnesCount64(n&0b111) >= a && bits.OnesCount64(n&0b111000) >= b
	}
}

// TestWindowAgainstDefinition compares with the rule's definition: n is confirmed
// once the set of nodes whose watermark reaches n satisfies the rule.
func TestWindowAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := cities(rapid.IntRange(0, 3).Draw(t, "a"), rapid.IntRange(1, 3).Draw(t, "b"))
		start := log.Offset(rapid.IntRange(-1, 10).Draw(t, "start"))
		w := quorum.NewWindow(start, start, 6, rule)
		marks := [6]log.Offset{start, start, start, start, start, start}
		ends := map[log.Offset]bool{}
		sizes := map[log.Offset]int{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "append") {
				n, e := rapid.IntRange(1, 100).Draw(t, "bytes"), rapid.Bool().Draw(t, "ends")
				o := w.Append(n, e)
				ends[o], sizes[o] = e, n
				continue
			}
			node := rapid.IntRange(0, 5).Draw(t, "node")
			last := log.Offset(rapid.IntRange(int(start), int(w.Next())).Draw(t, "last"))
			_, err := w.Acked(node, last)
			if (last >= w.Next()) != errors.Is(err, log.ErrProtocol) {
				t.Fatalf("ack of %d with next %d: %v", last, w.Next(), err)
			}
			if err == nil {
				marks[node] = max(marks[node], last)
			}
			confirmed, lso, bytes := start, start, int64(0)
			for o := start + 1; o < w.Next(); o++ {
				var set uint64
				for i, m := range marks {
					if m >= o {
						set |= 1 << i
					}
				}
				if rule(set) {
					confirmed = o
					if ends[o] {
						lso = o
					}
				} else {
					bytes += int64(sizes[o])
				}
			}
			if w.Confirmed() != confirmed || w.LSO() != lso || w.InFlight() != bytes {
				t.Fatalf("confirmed %d lso %d bytes %d, want %d %d %d", w.Confirmed(), w.LSO(), w.InFlight(), confirmed, lso, bytes)
			}
		}
	})
}
