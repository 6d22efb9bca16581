package sim

import (
	"fmt"

	"github.com/twinspan/twinspan/log/quorum"
)

const (
	nodesMax   = 6
	writersMax = 3
	readersMax = 3
	citiesMax  = 3
)

// Actors on the network.
const (
	actorWriter = nodesMax
	actorReader = actorWriter + writersMax
	actorKeeper = actorReader + readersMax
	actorMeta   = actorKeeper + 1
	actors      = actorMeta + 1
)

var cityNames = [citiesMax]string{"a", "b", "c"}

// rule is the simulator's own idea of an ack rule, to judge the machines by.
type rule struct {
	total  int
	cities [citiesMax]int
}

func (r rule) node() quorum.NodeRule {
	out := quorum.NodeRule{Total: r.total}
	for c, n := range r.cities {
		if n > 0 {
			if out.Cities == nil {
				out.Cities = map[string]int{}
			}
			out.Cities[cityNames[c]] = n
		}
	}
	return out
}

func ruleOf(r quorum.NodeRule) rule {
	out := rule{total: r.Total}
	for c, n := range cityNames {
		out.cities[c] = r.Cities[n]
	}
	return out
}

// holds: nodes, given by how many of them are in each city, satisfy the rule.
func (r rule) holds(count [citiesMax]int) bool {
	sum := 0
	for c, n := range count {
		if n < r.cities[c] {
			return false
		}
		sum += n
	}
	return sum >= max(r.total, 1)
}

type loss uint8

const (
	lossBlock loss = iota
	lossManual
	lossAfter
)

// layout is a cluster and its stream's policy.
type layout struct {
	cities []int // nodes in each
	rule   rule
	loss   loss
	spare  int
}

func (l layout) String() string {
	return fmt.Sprintf("nodes %v, rule %q, loss %d, spare %d", l.cities, l.rule.node(), l.loss, l.spare)
}

func pickLayout(r *rng) layout {
	var l layout
	switch r.n(10) {
	case 0, 1, 2, 3:
		l = layout{cities: []int{2, 2}, rule: rule{cities: [3]int{1, 1}}}
	case 4, 5:
		l = layout{cities: []int{3, 3}, rule: rule{cities: [3]int{2, 2}}}
	case 6:
		l = layout{cities: []int{1}, rule: rule{total: 1}}
	case 7:
		l = layout{cities: []int{3}, rule: rule{total: 2}}
	default:
		left := nodesMax
		for range 1 + r.n(citiesMax) {
			n := 1 + r.n(min(3, left))
			l.cities = append(l.cities, n)
			l.rule.cities[len(l.cities)-1] = r.n(n + 1)
			if left -= n; left == 0 {
				break
			}
		}
		if r.oneIn(2) {
			l.rule.total = r.n(nodesMax - left + 1)
		}
	}
	l.loss = loss(r.n(3))
	l.spare = 1
	return l
}
