package quorum

import (
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Plan is a choice of members for a segment to come.
type Plan struct {
	Members   []Member
	Rule      NodeRule
	Protected bool // Rule is the stream's full one
	Reason    string
}

// Choose picks a segment's members out of nodes, in each city what the rule asks
// for and spare more, preferring those in keep, then turning with the stream's
// name so that many streams spread over many nodes. The order of nodes matters;
// give them sorted by name. log.ErrUnavailable: they cannot satisfy the rule.
func Choose(stream string, nodes, keep []Member, rule NodeRule, spare int) ([]Member, error) {
	order := make([]Member, 0, len(nodes))
	for _, n := range nodes {
		if slices.Contains(keep, n) {
			order = append(order, n)
		}
	}
	if len(nodes) > 0 {
		turn := int(crc32.ChecksumIEEE([]byte(stream)) % uint32(len(nodes)))
		for i := range nodes {
			if n := nodes[(i+turn)%len(nodes)]; !slices.Contains(keep, n) {
				order = append(order, n)
			}
		}
	}
	var out []Member
	took := map[string]int{} // only looked up, never ranged over
	for _, n := range order {
		if least := rule.Cities[n.City]; least > 0 && took[n.City] < least+spare {
			took[n.City]++
			out = append(out, n)
		}
	}
	want := max(rule.Total, 1)
	if len(rule.Cities) == 0 {
		want += spare
	}
	for _, n := range order {
		if len(out) >= want {
			break
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if len(out) > NodesMax {
		out = out[:NodesMax]
	}
	if _, err := rule.Of(out); err != nil {
		return nil, fmt.Errorf("stream %q: rule %q with %d nodes: %w", stream, rule, len(nodes), log.ErrUnavailable)
	}
	slices.SortFunc(out, func(a, b Member) int { // a set has one order: plans compare
		return slices.Index(nodes, a) - slices.Index(nodes, b)
	})
	return out, nil
}

// Candidate is a node that may store segments.
type Candidate struct {
	Member
	Reachable bool // and willing, as far as the shell knows
}

// View is what a decision is made from.
type View struct {
	Nodes    []Candidate // sorted by name, without witnesses and drained nodes
	Rule     NodeRule    // the stream's full one
	Degraded []string    // cities that metadata says to do without
	Seen     []string    // cities that the stream's newest segments had members in
	Spare    int         // members beyond what the rule asks for, per city
	// DegradeAfter lets the writer do without a city once the rule could not be
	// met for so long; 0: never by itself.
	DegradeAfter time.Duration
}

// effective is the stream's rule without the degraded cities.
func (v *View) effective() (rule NodeRule, full bool) { return v.without(v.Rule) }

// without is a rule without the degraded cities.
func (v *View) without(rule NodeRule) (less NodeRule, full bool) {
	less, full = rule, true
	for _, c := range v.Degraded {
		if rule.Cities[c] > 0 {
			less, full = less.Without(c), false
		}
	}
	return less, full
}

// dispensable names the first city without which the rule can be met. It is never
// the last one that the rule still names, and never one of which no node has been
// part of the cluster or the stream: that one has yet to come.
func (v *View) dispensable(stream string, not func(string) bool) (string, bool) {
	rule, _ := v.effective()
	if len(rule.Cities) < 2 {
		return "", false
	}
	for _, city := range rule.sorted() {
		if !slices.Contains(v.Seen, city) && !slices.ContainsFunc(v.Nodes, func(c Candidate) bool { return c.City == city }) {
			continue
		}
		if _, err := v.choose(stream, nil, rule.Without(city), not); err == nil {
			return city, true
		}
	}
	return "", false
}

// weaker is what a writer that may do without a city does when the rule has not
// been met for DegradeAfter: it gives one up, or, when another one was given up and
// is back meanwhile, takes that one back first. So never all are given up.
func (v *View) weaker(stream, reason string, not func(string) bool) (Move, bool) {
	if city, ok := v.dispensable(stream, not); ok {
		return Move{Verb: Degrade, City: city, Reason: reason}, true
	}
	for i, back := range v.Degraded {
		less := *v
		less.Degraded = slices.Delete(slices.Clone(v.Degraded), i, i+1)
		if city, ok := less.dispensable(stream, not); ok && city != back && v.Rule.Cities[back] > 0 {
			return Move{Verb: Restore, City: back, Reason: "city " + city + " is gone, and this one is back"}, true
		}
	}
	return Move{}, false
}

// restorable names the first degraded city whose part of the rule could be met.
func (v *View) restorable(stream string) (string, bool) {
	for i, city := range v.Degraded {
		if v.Rule.Cities[city] == 0 {
			continue
		}
		less := *v
		less.Degraded = slices.Delete(slices.Clone(v.Degraded), i, i+1)
		rule, _ := less.effective()
		if _, err := v.choose(stream, nil, rule, nil); err == nil {
			return city, true
		}
	}
	return "", false
}

// Plan chooses the members of a segment that follows the view's effective rule.
func (v *View) Plan(stream string, keep []Member) (Plan, error) {
	rule, full := v.effective()
	members, err := v.choose(stream, keep, rule, nil)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Members: members, Rule: rule, Protected: full}
	if !full {
		p.Reason = "degraded"
	}
	return p, nil
}

func (v *View) choose(stream string, keep []Member, rule NodeRule, not func(string) bool) ([]Member, error) {
	nodes := make([]Member, 0, len(v.Nodes))
	for _, c := range v.Nodes {
		if c.Reachable && (not == nil || !not(c.Node)) {
			nodes = append(nodes, c.Member)
		}
	}
	return Choose(stream, nodes, keep, rule, v.Spare)
}
