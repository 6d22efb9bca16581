package node_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

type step struct {
	Stop   bool   `json:"stop,omitempty"`
	Resume bool   `json:"resume,omitempty"`
	Hold   string `json:"hold,omitempty"`
}

type told struct {
	Export   *meta.Export   `json:"export"`
	Replicas []meta.Replica `json:"replicas"`
}

// TestStaleSeed: a takeover asks the survivors and hangs. Another one takes them over
// from it and gives up, so that the cluster goes on, and a third one asks them again.
// The seed of the first knows nothing of what was confirmed meanwhile, and no survivor
// takes it, though each stands still.
func TestStaleSeed(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1"}, OnDisk: true})
	policy := func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
	}
	w := open(t, c.Client("a", policy))
	fill(t, w, 20)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.Stop("b1")
	names := []string{"a1", "a2"}
	all := func(s step) (out []told) {
		t.Helper()
		for _, name := range names {
			var x told
			if err := ask(t.Context(), c.Node(name).Addr().String(), "survey", s, &x); err != nil {
				t.Fatalf("%s: %+v: %v", name, s, err)
			}
			out = append(out, x)
		}
		return out
	}
	x := meta.Succession{Lost: []meta.Node{{Name: "b1", City: "b"}}, Reason: "A", Now: time.Now().UTC()}
	for i, s := range all(step{Stop: true, Hold: "A"}) {
		x.Exports, x.Replicas = append(x.Exports, *s.Export), append(x.Replicas, s.Replicas...)
		x.Voters = append(x.Voters, meta.Peer{Name: names[i], Address: c.List()[i].Address})
	}
	seed, err := meta.MakeSeed(x)
	if err != nil {
		t.Fatal(err)
	}
	old := struct {
		Hold string `json:"hold"`
		meta.Seed
	}{"A", seed}
	all(step{Stop: true, Hold: "B"})
	for _, name := range names { // the first one gives up only now: that is not its to say
		if err := ask(t.Context(), c.Node(name).Addr().String(), "survey", step{Resume: true, Hold: "A"}, &told{}); !errors.Is(err, log.ErrStale) {
			t.Fatalf("%s: taken back by another takeover: %v", name, err)
		}
		if err := ask(t.Context(), c.Node(name).Addr().String(), "install", old, &struct{}{}); !errors.Is(err, log.ErrStale) {
			t.Fatalf("%s: installed while it stands still for another takeover: %v", name, err)
		}
	}
	all(step{Resume: true, Hold: "B"})
	w = open(t, c.Client("a", policy))
	last := fill(t, w, 20)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all(step{Stop: true, Hold: "C"})
	for _, name := range names {
		if err := ask(t.Context(), c.Node(name).Addr().String(), "install", old, &struct{}{}); !errors.Is(err, log.ErrStale) {
			t.Errorf("%s: the old seed is installed: %v", name, err)
		}
		// What the one that was taken back had on its way comes too late.
		if err := ask(t.Context(), c.Node(name).Addr().String(), "survey", step{Stop: true, Hold: "B"}, &told{}); !errors.Is(err, log.ErrStale) {
			t.Errorf("%s: stands still for a takeover that was taken back: %v", name, err)
		}
	}
	done, err := c.Node("a1").Takeover(t.Context(), node.Attestation{By: "t", Reason: "b1 is gone", Lost: []string{"b1"}})
	if err != nil || done.Generation != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, name := range names { // of that generation already: nothing is done, and nothing stops
		if err := ask(t.Context(), c.Node(name).Addr().String(), "install", old, &struct{}{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	verify(t, c.Client("a", policy), last)
}
