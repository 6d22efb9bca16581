package main

import (
	"context"
	"slices"
	"time"

	"github.com/twinspan/twinspan/test/chaos/lab"
)

// scenario is what is done to a cluster while the workers work.
type scenario struct {
	name, about string
	nodes       []lab.Node
	// protect are the cities in each of which a protected entry must be.
	protect []string
	// strongBounds: see check.Options.
	strongBounds bool
	// degrade lets writers do without a city after so long; 0: they wait.
	degrade time.Duration
	faults  func(context.Context, *run) error
}

// storing are the cities that store entries.
func (s *scenario) storing() []string {
	var out []string
	for _, n := range s.nodes {
		if !n.Witness && !slices.Contains(out, n.City) {
			out = append(out, n.City)
		}
	}
	return out
}

// stall is how long a writer that sees no progress leaves a stream to others.
func (s *scenario) stall() time.Duration { return 2 * time.Second }

// cities is two cities with two nodes each, and a witness in a third place.
func cities() []lab.Node {
	return []lab.Node{
		{Name: "a1", City: "a"}, {Name: "a2", City: "a"}, {Name: "b1", City: "b"}, {Name: "b2", City: "b"},
		{Name: "w", City: "c", Witness: true},
	}
}

// lopsided is two cities, the first of which has the majority of the votes.
func lopsided() []lab.Node {
	n := cities()
	n[4].City = "a"
	return n
}

// alone is a cluster of one node.
func alone() []lab.Node { return []lab.Node{{Name: "a1", City: "a"}} }

// smallDisks gives every node that stores entries a small one.
func smallDisks(n []lab.Node) []lab.Node {
	for i := range n {
		if !n[i].Witness {
			n[i].DiskBytes = 48 << 20
		}
	}
	return n
}

// scenarios of an engine, in the order in which they run.
func scenarios(engine string) []*scenario {
	if engine == jetStream {
		return jetStreamScenarios()
	}
	both := []string{"a", "b"}
	return []*scenario{
		{name: "calm", about: "nothing happens", nodes: cities(), protect: both, faults: calm},
		{name: "kill-node", about: "nodes are killed and started again, one at a time", nodes: cities(), protect: both, faults: killNode},
		{name: "kill-city", about: "all nodes of a city are killed at once, and started again", nodes: cities(), protect: both, faults: killCity},
		{name: "kill-all", about: "every node is killed at once, and started again", nodes: cities(), protect: both, faults: killAll},
		{name: "kill-writers", about: "writer processes are killed", nodes: cities(), protect: both, faults: killWriters},
		{name: "kill-readers", about: "reader processes are killed", nodes: cities(), protect: both, faults: killReaders},
		{name: "freeze-node", about: "nodes stop for seconds and go on", nodes: cities(), protect: both, faults: freezeNode},
		{name: "zombie-writer", about: "writers stop for longer than others wait, and go on", nodes: cities(), protect: both, faults: zombieWriter},
		{name: "partition", about: "the cities are cut off from each other, both ways", nodes: cities(), protect: both, faults: partition},
		{name: "one-way", about: "nothing gets from one city to the other, in one direction", nodes: cities(), protect: both, faults: oneWay},
		{name: "isolate-node", about: "one node is cut off from everybody", nodes: cities(), protect: both, faults: isolateNode},
		{name: "slow-link", about: "the line between the cities is slow and thin", nodes: cities(), protect: both, faults: slowLink},
		{name: "full-disk", about: "a node's disk is full, then it has room again", nodes: smallDisks(cities()), protect: both, faults: fullDisk},
		{name: "wiped-node", about: "a node comes back on an empty disk", nodes: cities(), protect: both, faults: wipedNode},
		{name: "damaged-node", about: "a node comes back with bytes changed in its files", nodes: cities(), protect: both, faults: damagedNode},
		{name: "wiped-city", about: "a city comes back on empty disks", nodes: cities(), protect: both, faults: wipedCity},
		{name: "degrade", about: "a city is gone, writers do without it and say so; it comes back", nodes: cities(), protect: both, degrade: time.Second, faults: degrade},
		{name: "takeover", about: "the city with the majority is lost, the other takes over; it comes back", nodes: lopsided(), protect: both, degrade: time.Second, faults: takeover},
		{name: "takeover-split", about: "the same, but the lost city was only cut off, and went on by itself", nodes: lopsided(), protect: both, degrade: time.Second, faults: takeoverSplit},
		{name: "rolling-restart", about: "every node is restarted in order, one after the other", nodes: cities(), protect: both, faults: rollingRestart},
		{name: "alone", about: "the one node of a cluster without others is killed and started again", nodes: alone(), faults: killNode},
		{name: "mixed", about: "any of these, one after the other", nodes: cities(), protect: both, faults: mixed},
	}
}

// jetStreamScenarios are those of which JetStream, with a replica on each of three
// servers, can take part: its servers' own lines are not in our hands.
func jetStreamScenarios() []*scenario {
	three := func() []lab.Node {
		return []lab.Node{{Name: "n1", City: "a"}, {Name: "n2", City: "a"}, {Name: "n3", City: "a"}}
	}
	return []*scenario{
		{name: "calm", about: "nothing happens", nodes: three(), faults: calm},
		{name: "kill-node", about: "servers are killed and started again, one at a time", nodes: three(), faults: killNode},
		{name: "kill-all", about: "every server is killed at once, and started again", nodes: three(), faults: killAll},
		{name: "kill-writers", about: "writer processes are killed", nodes: three(), faults: killWriters},
		{name: "kill-readers", about: "reader processes are killed", nodes: three(), faults: killReaders},
		{name: "freeze-node", about: "servers stop for seconds and go on", nodes: three(), faults: freezeNode},
		{name: "zombie-writer", about: "writers stop for longer than others wait, and go on", nodes: three(), faults: zombieWriter},
		{name: "rolling-restart", about: "every server is restarted in order, one after the other", nodes: three(), faults: rollingRestart},
	}
}
