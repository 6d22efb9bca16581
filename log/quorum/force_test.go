package quorum_test

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestForcedClose goes through every set of members that may be given up, and every
// set of what the others hold: a forced close waits for each of them, ends at what
// the newest of them has, opens nothing, and says that entries may be lost exactly
// when those given up could have confirmed some by themselves.
func TestForcedClose(t *testing.T) {
	members := []quorum.Member{{Node: "a1", UUID: "1", City: "a"}, {Node: "a2", UUID: "2", City: "a"}, {Node: "b1", UUID: "3", City: "b"}, {Node: "b2", UUID: "4", City: "b"}}
	for _, rule := range []quorum.NodeRule{{Cities: map[string]int{"a": 1, "b": 1}}, {Total: 3}, {Total: 1}} {
		d := quorum.Descriptor{Stream: "s", Segment: 1, First: 10, FirstLSO: 9, Epoch: 3, Generation: 1, Members: members, Rule: rule, Protected: true}
		q, err := d.Quorum()
		if err != nil {
			t.Fatal(err)
		}
		for given := uint64(1); given <= q.All(); given++ {
			for has := range uint64(16) { // bit i: member i has up to 20, else up to 15
				r, err := quorum.NewRecovery(d, 5)
				if err != nil {
					t.Fatal(err)
				}
				r.GiveUp(given)
				if w := r.Wanted(); w != q.All()&^given {
					t.Fatalf("given up %04b, wanted %04b", given, w)
				}
				last := log.Offset(9)
				sealed := uint64(0)
				for i := range members {
					if given>>i&1 == 1 {
						if err := r.Sealed(i, quorum.Sealed{Last: 99, LAC: 99}); err == nil { // too late to count
							if _, _, ok := r.End(); ok && sealed|given != q.All() && !q.Covers(sealed) {
								t.Fatal("a member that was given up counts")
							}
						}
						continue
					}
					if _, ok := r.Ready(); ok && !q.Covers(sealed) {
						t.Fatalf("given up %04b: ready with %04b", given, sealed)
					}
					s := quorum.Sealed{Last: 15, LAC: 12, LSO: 15}
					if has>>i&1 == 1 {
						s = quorum.Sealed{Last: 20, LAC: 18, LSO: 20}
					}
					last = max(last, s.Last)
					if err := r.Sealed(i, s); err != nil {
						t.Fatal(err)
					}
					sealed |= 1 << i
				}
				end, _, ok := r.End()
				if !ok || end != last {
					t.Fatalf("given up %04b, %04b have more: ends at %d, %t, want %d", given, has, end, ok, last)
				}
				if r.Lost() != !q.Covers(sealed) {
					t.Fatalf("given up %04b: lost %t", given, r.Lost())
				}
				for _, c := range r.Copies() {
					r.Copied(c.To, c.Last, c.Last)
				}
				if m := r.Decide(0, &quorum.View{Rule: rule}, time.Second); m.Verb != quorum.Roll {
					t.Fatalf("given up %04b: %+v", given, m)
				}
				a, err := r.Propose(&quorum.Plan{Members: members, Rule: rule}, 1)
				if err != nil || a.Open != nil || a.Close.Last != last || a.Lost != r.Lost() || last >= d.First && len(a.Close.Holders) == 0 {
					t.Fatalf("given up %04b: %+v, %v", given, a, err)
				}
			}
		}
	}
}
