package quorum_test

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/log/quorum"
)

// TestWhichCityIsGivenUp: a writer that may do without a city does not give up one
// that has yet to come, nor the last one.
func TestWhichCityIsGivenUp(t *testing.T) {
	a1, b1 := quorum.Member{Node: "a1", UUID: "1", City: "a"}, quorum.Member{Node: "b1", UUID: "2", City: "b"}
	here := func(m quorum.Member) quorum.Candidate { return quorum.Candidate{Member: m, Reachable: true} }
	away := func(m quorum.Member) quorum.Candidate { return quorum.Candidate{Member: m} }
	both := quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}
	for _, c := range []struct {
		name     string
		nodes    []quorum.Candidate
		seen     []string
		degraded []string
		city     string // that is given up; empty: none
		back     string // that is taken back
	}{
		{"b does not answer", []quorum.Candidate{here(a1), away(b1)}, nil, nil, "b", ""},
		{"nobody of b has ever come", []quorum.Candidate{here(a1)}, nil, nil, "", ""},
		{"b was given up by a takeover", []quorum.Candidate{here(a1)}, []string{"a", "b"}, nil, "b", ""},
		{"nobody answers", []quorum.Candidate{away(a1), away(b1)}, nil, nil, "", ""},
		{"b is done without, and a goes", []quorum.Candidate{away(a1), here(b1)}, nil, []string{"b"}, "", "b"},
		{"no node at all", nil, nil, nil, "", ""},
	} {
		v := &quorum.View{Nodes: c.nodes, Rule: both, Degraded: c.degraded, Seen: c.seen, Spare: 1, DegradeAfter: time.Second}
		r := quorum.NewOpening("s", 1, 0, -1, 1)
		move := r.Decide(0, v, time.Second)
		for now := time.Duration(0); now < 20*time.Second && move.Verb != quorum.Degrade && move.Verb != quorum.Restore; now += 250 * time.Millisecond {
			move = r.Decide(now, v, time.Second)
		}
		want := quorum.Move{Verb: quorum.Blocked}
		if c.city != "" {
			want = quorum.Move{Verb: quorum.Degrade, City: c.city}
		} else if c.back != "" {
			want = quorum.Move{Verb: quorum.Restore, City: c.back}
		}
		if move.Verb != want.Verb || move.City != want.City {
			t.Errorf("%s: %+v, want %+v", c.name, move, want)
		}
	}
}
