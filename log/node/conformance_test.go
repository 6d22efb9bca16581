package node_test

import (
	"testing"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/conformance"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

func two(t *testing.T) *nodetest.Cluster {
	return nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2"}})
}

func TestConformance(t *testing.T) {
	for name, open := range map[string]conformance.Open{
		"in process": func(t *testing.T) log.Log {
			c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1"}, Node: func(c *node.Config) { c.Logger = zerolog.Nop() }})
			l := c.Node("a1").Log()
			t.Cleanup(func() { _ = l.Close() })
			return l
		},
		"one node": func(t *testing.T) log.Log {
			return nodetest.New(t, nodetest.Options{Nodes: []string{"a1"}}).Client("a", nil)
		},
		"two of three": func(t *testing.T) log.Log {
			c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "a3"}})
			return c.Client("a", func(c *client.Config) {
				c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
			})
		},
		"two cities": func(t *testing.T) log.Log { return two(t).Client("a", nil) },
	} {
		t.Run(name, func(t *testing.T) { conformance.Run(t, open) })
	}
}
