package node_test

import (
	"context"
	"testing"

	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
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
