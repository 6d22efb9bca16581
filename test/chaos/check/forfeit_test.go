package check

import (
	"slices"
	"testing"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// TestForfeit: what a lost city confirmed by itself, unprotected, is given up; what
// it had confirmed before, or called protected, is not.
func TestForfeit(t *testing.T) {
	lost := func(p string) bool { return p == "w1" || p == "ra" }
	s := story()
	before := s.append("w1", 3, true, true)
	cut := s.now
	after := s.append("w1", 3, true, true)
	s.records[len(s.records)-1].Protected = false
	s.read("ra", 0)
	s.bounds("ra")
	s.log = s.log[:len(s.log)-1] // the takeover does not have it
	s.epoch = 1 << 20
	s.open("w2")
	s.append("w2", 1<<20+1, true, true)
	records := s.end()

	if r := judge(t, slices.Clone(records), Options{}); r.Lost == 0 {
		t.Error("without forfeiting, nothing is missing")
	}
	kept, given := Forfeit(records, lost, cut)
	if r := judge(t, kept, Options{}); r.Failed() {
		t.Errorf("with it: %+v", r)
	}
	if !slices.Equal(given, []string{after}) {
		t.Errorf("given up: %v, want %s", given, after)
	}
	// The same with what was confirmed before the cut gone, too.
	if r := judge(t, without(kept, before), Options{}); r.Lost == 0 {
		t.Error("an entry that was confirmed before the cut is missed by nobody")
	}
}

// without makes nobody have seen an entry.
func without(records []history.Record, id string) []history.Record {
	var out []history.Record
	for _, r := range records {
		seen := r.Seen
		r.Seen = nil
		for _, e := range seen {
			if e.ID == id {
				e.ID = ""
			}
			r.Seen = append(r.Seen, e)
		}
		out = append(out, r)
	}
	return out
}
