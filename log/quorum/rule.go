package quorum

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
)

// Member is a node of a segment. A directory that was wiped and made anew under
// the same name is another member: it holds nothing of what the old one held.
type Member struct {
	Node string `json:"node"` // its name
	UUID string `json:"uuid"` // of its directory, hex
	City string `json:"city"`
}

// NodeRule says which nodes must have an entry on disk before it is confirmed:
// at least Total of them, and in each city named at least so many. It is stored
// with the segment and stays the segment's for ever. In the terms of BookKeeper's
// users, who write E (ensemble), W (write quorum), A (ack quorum): E and W are
// the segment's members, all of them, and A is this rule.
type NodeRule struct {
	Total  int            `json:"total,omitempty"`
	Cities map[string]int `json:"cities,omitempty"`
}

// String writes the rule as "2 nodes, 1 in a, 1 in b".
func (r NodeRule) String() string {
	var parts []string
	if r.Total > 0 || len(r.Cities) == 0 {
		parts = append(parts, fmt.Sprintf("%d nodes", max(r.Total, 1)))
	}
	for _, c := range r.sorted() {
		parts = append(parts, fmt.Sprintf("%d in %s", r.Cities[c], c))
	}
	return strings.Join(parts, ", ")
}

// sorted are the cities the rule names.
func (r NodeRule) sorted() []string { return slices.Sorted(maps.Keys(r.Cities)) }

// Without is the rule that asks nothing of a city.
func (r NodeRule) Without(city string) NodeRule {
	out := NodeRule{Total: max(r.Total-r.Cities[city], 1), Cities: maps.Clone(r.Cities)}
	delete(out.Cities, city)
	return out
}

// Quorum is a rule applied to a segment's members; a set of nodes is a bit set,
// bit i standing for member i.
type Quorum struct {
	all    uint64
	total  int
	cities []share
}

type share struct {
	nodes uint64
	least int
}

// Of applies the rule to members. It fails with log.ErrProtocol when not even all
// of them together satisfy it, or when there are more than NodesMax.
func (r NodeRule) Of(members []Member) (Quorum, error) {
	if len(members) == 0 || len(members) > NodesMax {
		return Quorum{}, fmt.Errorf("segment of %d nodes, at most %d: %w", len(members), NodesMax, log.ErrProtocol)
	}
	q := Quorum{all: 1<<len(members) - 1, total: max(r.Total, 1)}
	if len(members) == 64 {
		q.all = ^uint64(0)
	}
	for _, c := range r.sorted() {
		s := share{least: r.Cities[c]}
		for i, m := range members {
			if m.City == c {
				s.nodes |= 1 << i
			}
		}
		q.cities = append(q.cities, s)
	}
	if !q.Ack(q.all) {
		return Quorum{}, fmt.Errorf("rule %q cannot be met by %d nodes: %w", r, len(members), log.ErrProtocol)
	}
	return q, nil
}

// Ack says that an entry is confirmed when these nodes have it on disk. It is
// monotone.
func (q Quorum) Ack(nodes uint64) bool {
	nodes &= q.all
	if bits.OnesCount64(nodes) < q.total {
		return false
	}
	for _, c := range q.cities {
		if bits.OnesCount64(nodes&c.nodes) < c.least {
			return false
		}
	}
	return true
}

// Covers is the rule's dual: these nodes meet every set that could confirm, so
// what they do not have was never confirmed. Counting nodes instead would demand
// answers from a city that is gone, or do without one that is needed.
func (q Quorum) Covers(nodes uint64) bool {
	switch n := bits.OnesCount64(q.all); {
	case fault.Is(fault.CountedCover):
		return 2*bits.OnesCount64(nodes&q.all) >= n
	case fault.Is(fault.CountedDual):
		return bits.OnesCount64(nodes&q.all) >= n-q.least()+1
	}
	return !q.Ack(q.all &^ nodes)
}

// least is how many nodes an entry is on, at least, when it is confirmed.
func (q Quorum) least() int {
	sum := 0
	for _, c := range q.cities {
		sum += c.least
	}
	return max(q.total, sum)
}

// All is the set of all members.
func (q Quorum) All() uint64 { return q.all }

// Descriptor is what a segment is. Metadata records it before any node hears of
// it, and a node makes it durable before it stores the first entry, so that the
// survivors of a city can rebuild the metadata from what they hold. It never
// changes: whoever wants other members or another rule opens the next segment.
type Descriptor struct {
	Stream     string     `json:"stream"`
	Segment    uint32     `json:"segment"`   // from 1, in the order of offsets
	First      log.Offset `json:"first"`     // of its entries; those of a stream's segments chain
	FirstLSO   log.Offset `json:"first_lso"` // newest entry before First that ends a transaction
	Epoch      log.Epoch  `json:"epoch"`     // of the only writer that ever appends to it
	Generation uint64     `json:"generation"`
	Members    []Member   `json:"members"`
	Rule       NodeRule   `json:"rule"`
	// Protected: the rule is the stream's full one. Acks in a segment that was
	// opened with a weaker one say so.
	Protected bool `json:"protected"`
}

// Quorum applies the segment's rule to its members.
func (d *Descriptor) Quorum() (Quorum, error) { return d.Rule.Of(d.Members) }

// Index of the member with that name and identity; -1: it is none.
func (d *Descriptor) Index(node, uuid string) int {
	return slices.IndexFunc(d.Members, func(m Member) bool { return m.Node == node && m.UUID == uuid })
}
