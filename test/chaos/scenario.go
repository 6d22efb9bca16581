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
	protect      []string
	strongBounds bool
	faults       func(context.Context, *run) error
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
func (s *scenario) stall() time.Duration { return 800 * time.Millisecond }

// alone is a cluster of one node.
func alone() []lab.Node { return []lab.Node{{Name: "a1", City: "a"}} }

// scenarios of an engine, in the order in which they run.
func scenarios(engine string) []*scenario {
	return []*scenario{
		{name: "calm", about: "nothing happens", nodes: alone(), strongBounds: true, faults: calm},
		{name: "kill-node", about: "nodes are killed and started again, one at a time", nodes: alone(), strongBounds: true, faults: killNode},
		{name: "kill-writers", about: "writer processes are killed", nodes: alone(), strongBounds: true, faults: killWriters},
		{name: "kill-readers", about: "reader processes are killed", nodes: alone(), strongBounds: true, faults: killReaders},
		{name: "freeze-node", about: "nodes stop for seconds and go on", nodes: alone(), strongBounds: true, faults: freezeNode},
		{name: "zombie-writer", about: "writers stop for longer than others wait, and go on", nodes: alone(), strongBounds: true, faults: zombieWriter},
	}
}
