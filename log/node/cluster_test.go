package node_test

import (
	"testing"
	"time"

	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
)

func TestRegistration(t *testing.T) {
	began := time.Now()
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}})
	c.Registered()
	t.Logf("registered after %v", time.Since(began))
	c.Until("everybody sees everybody", func() bool {
		for _, name := range []string{"a1", "b2", "cw"} {
			s := c.Node(name).Status()
			if len(s.Nodes) != 5 || s.Leader == "" {
				return false
			}
			for _, p := range s.Nodes {
				if !p.Reachable || p.UUID == "" {
					return false
				}
			}
		}
		return true
	})
	for _, p := range c.Node("a1").Status().Nodes {
		if p.Witness != (p.Name == "cw") || p.City != p.Name[:1] {
			t.Errorf("%+v", p)
		}
	}
}

func TestAloneStartsAtOnce(t *testing.T) {
	began := time.Now()
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1"}, Node: func(c *node.Config) { c.Heartbeat = 0 }})
	c.Registered()
	took := time.Since(began)
	t.Logf("registered after %v", took)
	if took > 10*time.Second {
		t.Errorf("a node that is alone takes %v to start", took)
	}
}
