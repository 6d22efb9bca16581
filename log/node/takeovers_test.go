package node_test

import (
	"context"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestTakeoversOfBothCities lets city a take over while it is cut off, go on alone and
// burn down; b, which never heard of that, takes over in its turn. When a is back it
// stands in quarantine and hands out what only it has.
func TestTakeoversOfBothCities(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}, OnDisk: true})
	policy := func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: meta.LossDegradeAfter, After: time.Second}
	}
	w := open(t, c.Client("a", policy))
	fill(t, w, 20)
	_ = w.Close()
	c.Stop("cw")
	c.Break("a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	first, err := c.Node("a1").Takeover(ctx, node.Attestation{By: "t", Reason: "b is cut off", Lost: []string{"b1", "b2", "cw"}})
	if err != nil {
		t.Fatal(err)
	}
	w = open(t, c.Client("a", policy))
	fill(t, w, 20)
	_ = w.Close()
	c.Stop("a1")
	c.Stop("a2")
	second, err := c.Node("b1").Takeover(ctx, node.Attestation{By: "t", Reason: "a burnt down", Lost: []string{"a1", "a2", "cw"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("generations %d and %d", first.Generation, second.Generation)
	w = open(t, c.Client("b", policy))
	fill(t, w, 20)
	c.Start("a1")
	c.Start("a2")
	c.Heal()
	c.Until("the old city stands aside", func() bool { return c.Node("a1").Status().Quarantine != nil && c.Node("a2").Status().Quarantine != nil })
	old := c.Client("a", func(x *client.Config) {
		policy(x)
		x.OpenFor, x.Nodes = 3*time.Second, []string{c.List()[0].Address, c.List()[1].Address}
	})
	if x, err := old.OpenWriter(ctx, "s"); err == nil {
		last := fill(t, x, 5)
		t.Logf("the old city's writer confirmed up to %d; the new history's is at %v", last, w.Bounds().LAC)
		_ = x.Close()
		t.Error("a writer of the old city opened: two clusters serve at once")
	}
	fill(t, w, 30)
	_ = w.Close()
	w = open(t, c.Client("b", policy)) // ends the segment before
	c.Until("the old city has exported", func() bool {
		q1, q2 := c.Node("a1").Status().Quarantine, c.Node("a2").Status().Quarantine
		return q1 != nil && q2 != nil && q1.Exported && q2.Exported
	})
	for _, name := range []string{"a1", "a2"} {
		q := c.Node(name).Status().Quarantine
		t.Logf("%s: %d entries in %v", name, q.Entries, q.Files)
		if q.Entries < 20 {
			t.Errorf("%s exported %d entries of the 20 that only the old city has", name, q.Entries)
		}
	}
	_ = w.Close()
}
