package quorum_test

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

func members(cities ...string) []quorum.Member {
	var out []quorum.Member
	for i, c := range cities {
		out = append(out, quorum.Member{Node: fmt.Sprintf("n%d", i), UUID: fmt.Sprintf("u%d", i), City: c})
	}
	return out
}

// byDefinition is the rule as its documentation says it.
func byDefinition(r quorum.NodeRule, m []quorum.Member, set uint64) bool {
	total, count := 0, map[string]int{}
	for i := range m {
		if set>>i&1 == 1 {
			total++
			count[m[i].City]++
		}
	}
	for city, least := range r.Cities {
		if count[city] < least {
			return false
		}
	}
	return total >= max(r.Total, 1)
}

// TestDual: for many rules and every subset of up to 8 nodes. A covering set meets
// each set that can confirm, a set that does not cover leaves one out, and
// supersets of either are as good.
func TestDual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "nodes")
		cities := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), n, n).Draw(t, "cities")
		m := members(cities...)
		r := quorum.NodeRule{Total: rapid.IntRange(0, n).Draw(t, "total"), Cities: map[string]int{}}
		for _, c := range []string{"a", "b", "c"} {
			if k := rapid.IntRange(0, 3).Draw(t, c); k > 0 {
				r.Cities[c] = k
			}
		}
		q, err := r.Of(m)
		all := uint64(1)<<n - 1
		if ok := byDefinition(r, m, all); ok != (err == nil) {
			t.Fatalf("rule %q over %v: %v", r, cities, err)
		}
		if err != nil {
			if !errors.Is(err, log.ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		var acks []uint64
		for s := uint64(0); s <= all; s++ {
			if q.Ack(s) != byDefinition(r, m, s) {
				t.Fatalf("rule %q over %v: Ack(%b) is %t", r, cities, s, q.Ack(s))
			}
			if q.Ack(s) {
				acks = append(acks, s)
			}
		}
		for s := uint64(0); s <= all; s++ {
			meets := !slices.ContainsFunc(acks, func(a uint64) bool { return a&s == 0 })
			if q.Covers(s) != meets {
				t.Fatalf("rule %q over %v: Covers(%b) is %t, it meets every acknowledging set: %t", r, cities, s, q.Covers(s), meets)
			}
			for i := range n {
				if up := s | 1<<i; q.Ack(s) && !q.Ack(up) || q.Covers(s) && !q.Covers(up) {
					t.Fatalf("rule %q over %v: %b is enough, %b is not", r, cities, s, up)
				}
			}
		}
	})
}

// TestCityLost: what the design's table promises.
func TestCityLost(t *testing.T) {
	for _, c := range []struct {
		rule   quorum.NodeRule
		cities []string
		goOn   uint64 // acknowledgements go on without these
		left   uint64 // these recover
	}{
		{quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, []string{"a", "a", "b", "b"}, 0b0101, 0b0011},
		{quorum.NodeRule{Cities: map[string]int{"a": 2, "b": 2}}, []string{"a", "a", "a", "b", "b", "b"}, 0b001001, 0b000011},
		{quorum.NodeRule{Total: 1}, []string{"a"}, 0, 0b1},
	} {
		q, err := c.rule.Of(members(c.cities...))
		if err != nil {
			t.Fatal(err)
		}
		if !q.Ack(q.All()&^c.goOn) || !q.Covers(c.left) {
			t.Errorf("rule %q: goes on %t, recovers %t", c.rule, q.Ack(q.All()&^c.goOn), q.Covers(c.left))
		}
		if bits.OnesCount64(c.left) > 1 && q.Covers(c.left&(c.left-1)) {
			t.Errorf("rule %q: one node less covers, too", c.rule)
		}
	}
}

// TestChoose: a choice satisfies the rule with as many more as were asked for, and
// keeps who is in it.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 10).Draw(t, "nodes")
		m := members(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), n, n).Draw(t, "cities")...)
		r := quorum.NodeRule{Total: rapid.IntRange(0, 4).Draw(t, "total"), Cities: map[string]int{}}
		for _, c := range []string{"a", "b"} {
			if k := rapid.IntRange(0, 2).Draw(t, c); k > 0 {
				r.Cities[c] = k
			}
		}
		var keep []quorum.Member
		for _, x := range m {
			if rapid.Bool().Draw(t, "keep") {
				keep = append(keep, x)
			}
		}
		out, err := quorum.Choose(rapid.StringN(0, 5, 5).Draw(t, "stream"), m, keep, r, 1)
		if possible := byDefinition(r, m, 1<<n-1); possible != (err == nil) || err != nil && !errors.Is(err, log.ErrUnavailable) {
			t.Fatalf("rule %q over %v, possible %t: %v", r, m, possible, err)
		}
		if err != nil {
			return
		}
		if !byDefinition(r, out, 1<<len(out)-1) {
			t.Fatalf("rule %q: chose %v", r, out)
		}
		again, err := quorum.Choose("", m, out, r, 1)
		if err != nil || !slices.Equal(again, out) {
			t.Fatalf("rule %q: %v does not last, it becomes %v: %v", r, out, again, err)
		}
	})
}
