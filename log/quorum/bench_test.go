package quorum_test

import (
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// BenchmarkEntry is what the protocol costs an entry with 4 members: the append,
// the admission on each node, and each node's acknowledgement, one by one.
func BenchmarkEntry(b *testing.B) {
	d := quorum.Descriptor{
		Stream: "s", Segment: 1, Epoch: 1, FirstLSO: log.None, Members: members("a", "a", "b", "b"),
		Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Protected: true,
	}
	w, err := quorum.NewWriter(d, quorum.Settings{}, 0)
	if err != nil {
		b.Fatal(err)
	}
	for i := range d.Members {
		if _, ok := w.Attached(i, 1, log.None, 0); !ok {
			b.Fatal("not attached")
		}
	}
	b.Run("writer", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o := w.Append(1000, true)
			for i := range d.Members {
				if _, err := w.Acked(i, 1, o); err != nil {
					b.Fatal(err)
				}
			}
		}
		if w.InFlight() != 0 {
			b.Fatal(w.InFlight())
		}
	})
	b.Run("replica", func(b *testing.B) {
		b.ReportAllocs()
		r := quorum.NewReplica(quorum.ReplicaState{Fence: 1, Last: log.None, LSO: log.None, LAC: log.None})
		o := log.Offset(0)
		for b.Loop() {
			if _, err := r.Admit(1, o); err != nil {
				b.Fatal(err)
			}
			r.Durable(o, o)
			if err := r.Confirm(1, o); err != nil {
				b.Fatal(err)
			}
			o++
		}
	})
}
