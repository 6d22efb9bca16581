package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// nodesMax is how many nodes can store a segment's entries.
const nodesMax = 64

// cluster checks the list of nodes.
func (v *validator) cluster() {
	n := v.c.Node
	if len(n.Cluster) == 0 || v.clusterUnread {
		return
	}
	at := func(i int, key string) string {
		path := fmt.Sprintf("node.cluster[%d]", i)
		if v.origins[path+key] != "" {
			return path + key
		}
		if v.origins[path] != "" {
			v.origins[path+key] = v.origins[path]
			return path + key
		}
		return "node.cluster"
	}
	names, addresses := map[string]int{}, map[string]int{}
	storing, votes := 0, map[string]int{}
	own := -1
	for i, c := range n.Cluster {
		v.name(at(i, ".name"), c.Name)
		v.name(at(i, ".city"), c.City)
		v.address(at(i, ".address"), c.Address)
		if first, twice := names[c.Name]; twice {
			v.problem(at(i, ".name"), "%q is node %d of the list already: every node has a name of its own", c.Name, first+1)
		} else {
			names[c.Name] = i
		}
		if first, twice := addresses[c.Address]; twice {
			v.problem(at(i, ".address"), "%s is the address of node %d of the list already", c.Address, first+1)
		} else {
			addresses[c.Address] = i
		}
		if c.Name == n.Name {
			own = i
		}
		votes[c.City]++
		if !c.Witness {
			storing++
		}
	}
	switch {
	case own < 0:
		v.problem("node.name", "%q is not in node.cluster: it lists %s", n.Name, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
	case v.c.City != n.Cluster[own].City:
		v.problem("city", "%q, but node.cluster has %s in city %q", v.c.City, n.Name, n.Cluster[own].City)
	}
	if storing == 0 {
		v.problem("node.cluster", "every node is a witness: nobody would store entries")
	}
	if storing > nodesMax {
		v.problem("node.cluster", "%d nodes store entries: at most %d can", storing, nodesMax)
	}
	if len(votes) > 1 {
		for _, city := range slices.Sorted(maps.Keys(votes)) {
			if left := len(n.Cluster) - votes[city]; 2*left <= len(n.Cluster) {
				v.warn("node.cluster", "without city %s only %d of %d nodes are left, no majority: the log then waits for a forced takeover; a witness in a third place prevents that", city, left, len(n.Cluster))
			}
		}
	}
}

// losses are what a writer can do while its rule can't be met.
var losses = []string{"block", "degrade-manual", "degrade-after"}

// policy checks what a stream is created with, against the cluster where this
// process knows it.
func (v *validator) policy() {
	p := v.c.Log.Policy
	if !slices.Contains(losses, p.Loss) {
		hint := "use " + strings.Join(losses, ", ")
		if n := nearest(p.Loss, losses); n != "" {
			hint = "did you mean " + n + "?"
		}
		v.problem("log.policy.loss", "unknown policy %q; %s", p.Loss, hint)
	}
	if p.Loss == "degrade-after" && p.After < Duration(time.Second) {
		v.problem("log.policy.after", "%s is less than 1s: a node that restarts would take the protection away", p.After)
	}
	if p.AgeMax != 0 && p.AgeMax.Std() < time.Minute {
		v.problem("log.policy.age_max", "%s is less than 1m", p.AgeMax)
	}
	if p.BytesMax != 0 && p.BytesMax < 2<<20 {
		v.problem("log.policy.bytes_max", "%s is less than 2MiB", p.BytesMax)
	}
	if p.BytesCap != 0 && p.BytesCap < max(p.BytesMax, 2<<20) {
		v.problem("log.policy.bytes_cap", "%s is less than bytes_max or 2MiB: it would take entries before retention does", p.BytesCap)
	}
	between(v, "log.policy.rule.total", p.Rule.Total, 0, nodesMax)
	storing, all := map[string]int{}, 0
	witness := map[string]bool{}
	for _, c := range v.c.Node.Cluster {
		if c.Witness {
			witness[c.City] = true
			continue
		}
		storing[c.City]++
		all++
	}
	known := v.c.Has(RoleNode) && len(v.c.Node.Cluster) > 0 && !v.clusterUnread
	sum := 0
	for _, city := range slices.Sorted(maps.Keys(p.Rule.Cities)) {
		path, n := "log.policy.rule.cities."+city, p.Rule.Cities[city]
		if v.origins[path] == "" {
			v.origins[path] = v.origins["log.policy.rule.cities"]
		}
		v.name(path, city)
		sum += n
		switch {
		case n < 1 || n > nodesMax:
			v.problem(path, "%d is out of range: 1 to %d", n, nodesMax)
		case !known || storing[city] >= n:
		case storing[city] == 0 && witness[city]:
			v.problem(path, "city %s has only a witness, which stores no entries", city)
		case storing[city] == 0:
			v.problem(path, "node.cluster has no node in city %q", city)
		default:
			v.problem(path, "%d nodes of city %s are wanted, node.cluster has %d there that store entries", n, city, storing[city])
		}
	}
	if known && p.Rule.Total > all {
		v.problem("log.policy.rule.total", "%d nodes are wanted, node.cluster has %d that store entries", p.Rule.Total, all)
	}
	if p.Rule.Total != 0 && p.Rule.Total < sum {
		v.problem("log.policy.rule.total", "%d is less than the %d that the cities ask for together: leave it out, or raise it", p.Rule.Total, sum)
	}
}
