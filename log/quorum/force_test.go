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
				if w := r.Wanted(); w != q.All() {
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
				if w := r.Wanted(); w != 0 {
					t.Fatalf("given up %04b, all have answered, wanted %04b", given, w)
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

// TestGivenUpIsFenced: a member that was given up and lives could go on taking entries
// of the old writer. It is asked until it answers, and given some time for it; one
// that can't be reached is not waited for, and is wanted all the same.
func TestGivenUpIsFenced(t *testing.T) {
	members := []quorum.Member{{Node: "a1", UUID: "1", City: "a"}, {Node: "a2", UUID: "2", City: "a"}, {Node: "b1", UUID: "3", City: "b"}}
	d := quorum.Descriptor{Stream: "s", Segment: 1, First: 10, FirstLSO: 9, Epoch: 3, Generation: 1, Members: members, Rule: quorum.NodeRule{Total: 1}, Protected: true}
	const given = 0b011
	for name, c := range map[string]struct {
		answer func(r *quorum.Recovery, i int)
		at     time.Duration
		moves  quorum.Verb
		wanted uint64
	}{
		"no word yet":         {func(*quorum.Recovery, int) {}, 0, quorum.Stay, given},
		"nor after a while":   {func(*quorum.Recovery, int) {}, time.Second, quorum.Roll, given},
		"sealed":              {func(r *quorum.Recovery, i int) { _ = r.Sealed(i, quorum.Sealed{Last: 99, LAC: 99, LSO: 99}) }, 0, quorum.Roll, 0},
		"damaged":             {func(r *quorum.Recovery, i int) { r.Suspect(i) }, 0, quorum.Roll, 0},
		"another directory":   {func(r *quorum.Recovery, i int) { r.Foreign(i) }, 0, quorum.Roll, 0},
		"it can't be reached": {func(r *quorum.Recovery, i int) { r.Broken(i) }, 0, quorum.Roll, given},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := quorum.NewRecovery(d, 5)
			if err != nil {
				t.Fatal(err)
			}
			r.GiveUp(given)
			if err := r.Sealed(2, quorum.Sealed{Last: 20, LAC: 18, LSO: 20}); err != nil {
				t.Fatal(err)
			}
			view := &quorum.View{Rule: d.Rule}
			if m := r.Decide(0, view, time.Second); m.Verb != quorum.Stay {
				t.Fatalf("nobody who was given up was asked: %+v", m)
			}
			for i := range 2 {
				c.answer(r, i)
			}
			if m := r.Decide(c.at, view, time.Second); m.Verb != c.moves {
				t.Fatalf("%+v", m)
			}
			if w := r.Wanted(); w != c.wanted {
				t.Fatalf("wanted %03b", w)
			}
			if end, _, ok := r.End(); !ok || end != 20 || !r.Lost() {
				t.Fatalf("ends at %d, %t, lost %t", end, ok, r.Lost())
			}
		})
	}
}
