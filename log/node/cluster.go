package node

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// ClusterNode is a line of the cluster's static list, which is the same on every
// node. All else is learned from the metadata.
type ClusterNode struct {
	Name    string `json:"name"`
	City    string `json:"city"`
	Address string `json:"address"`           // host:port, as the other nodes and the clients reach it
	Witness bool   `json:"witness,omitempty"` // votes on metadata, stores no entries
}

// checkCluster says what is wrong with the list for the node of that name.
func checkCluster(name string, list []ClusterNode) error {
	if len(list) == 0 {
		return nil
	}
	names, addresses := map[string]bool{}, map[string]bool{}
	storing := 0
	for _, c := range list {
		if c.Name == "" || c.City == "" {
			return fmt.Errorf("cluster: node %q in city %q: both need a name", c.Name, c.City)
		}
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			return fmt.Errorf("cluster: node %q: address %q: %w", c.Name, c.Address, err)
		}
		if names[c.Name] || addresses[c.Address] {
			return fmt.Errorf("cluster: node %q at %s is listed twice", c.Name, c.Address)
		}
		names[c.Name], addresses[c.Address] = true, true
		if !c.Witness {
			storing++
		}
	}
	switch {
	case !names[name]:
		return fmt.Errorf("cluster: this node, %q, is not in its own list", name)
	case storing == 0:
		return errors.New("cluster: every node is a witness, nobody stores entries")
	case storing > quorum.NodesMax:
		return fmt.Errorf("cluster: %d nodes store entries, at most %d can", storing, quorum.NodesMax)
	}
	return nil
}

// DefaultPolicy of a stream that is created without one: at least one node in
// each city that stores entries has an entry before it is confirmed, and a stream
// waits while a city is gone.
func DefaultPolicy(list []ClusterNode) meta.Policy {
	p := meta.Policy{Loss: meta.LossBlock}
	var cities []string
	for _, c := range list {
		if !c.Witness && !slices.Contains(cities, c.City) {
			cities = append(cities, c.City)
		}
	}
	if len(cities) < 2 {
		p.Rule.Total = 1
		return p
	}
	p.Rule.Cities = map[string]int{}
	for _, city := range cities {
		p.Rule.Cities[city] = 1
	}
	return p
}
