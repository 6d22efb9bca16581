package node_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
)

// TestReaderBesideALaggingNode has a reader ask a node first that was just
// restarted, and has not heard of any leader since: it knows of no stream, and must
// not be believed, neither at the start nor further on.
func TestReaderBesideALaggingNode(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "b1", "b2"}})
	l := c.Client("b", nil)
	var last log.Offset
	for range 4 { // the entries that are asked for lie in none of the newest two segments
		w := open(t, l)
		last = fill(t, w, 20)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.Stop("a1")
	c.Break("a", "b")
	c.Start("a1")
	// From a place of its own, which both cities can be reached from. Of nodes that
	// are all far the first in the list is asked first.
	reading, first := c.Client("c", nil), c.List()[0]
	if first.Name != "a1" {
		t.Fatalf("the first node is %+v", first)
	}
	lags := meta.NewClient(reading, nil).Stale(first.Address)
	c.Until("the restarted node answers that it knows of no stream", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := lags.Stream(ctx, "s")
		return errors.Is(err, log.ErrNoStream)
	})
	if s := c.Node("a1").Status(); s.State == node.StateServing {
		t.Fatalf("the node that was to lag is %+v", s)
	}
	verify(t, reading, last)
}
