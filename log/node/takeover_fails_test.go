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

// TestTakeoverThatFailsStopsNobody lets a takeover fail because one survivor does
// not answer: the others go on, also those that it had not asked yet.
func TestTakeoverThatFailsStopsNobody(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}, OnDisk: true})
	w := open(t, c.Client("a", nil))
	fill(t, w, 10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.Stop("a2")
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	if _, err := c.Node("a1").Takeover(ctx, node.Attestation{By: "t", Reason: "r", Lost: []string{"b2"}}); err == nil {
		t.Fatal("a2 can't have answered")
	} else {
		t.Log(err)
	}
	// Four of five voters are there and no generation was begun.
	w = open(t, c.Client("a", nil))
	fill(t, w, 10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTakeoverAgain repeats a takeover after which nothing was written. It passes over
// offsets once more, because nobody can know what the lost did, and says so; what is
// kept is the same.
func TestTakeoverAgain(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}, OnDisk: true})
	w := open(t, c.Client("a", func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: meta.LossDegradeAfter, After: time.Second}
	}))
	last := fill(t, w, 10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	lost := []string{"b1", "b2", "cw"}
	for _, name := range lost {
		c.Stop(name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	for i, order := range []node.Attestation{
		{By: "t", Reason: "once", Lost: lost},
		{By: "t", Reason: "to see", Lost: lost, Preview: true},
		{By: "t", Reason: "twice", Lost: lost},
	} {
		if order.Preview {
			c.Until("a1 knows the new generation", func() bool { return c.Node("a1").Status().Metadata.Streams == 1 })
		}
		done, err := c.Node("a1").Takeover(ctx, order)
		if err != nil {
			t.Fatal(err)
		}
		if s := done.Streams[0]; !s.Doubt || s.Again != (i > 0) || s.Last != last || len(s.Gaps) != 1 {
			t.Errorf("%s: %+v", order.Reason, s)
		}
	}
}
