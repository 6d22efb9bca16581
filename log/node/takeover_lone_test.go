package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestLostCityGoesOn takes over in city b while a, which was only cut off, goes on with
// its metadata, its writer and its lone node. What is confirmed to it is never called
// protected, no offset of it is used again, and all of it is exported when the node
// meets the new generation; and the writer ends then.
func TestLostCityGoesOn(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "b1", "cw"}, OnDisk: true})
	policy := func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: meta.LossDegradeAfter, After: 100 * time.Millisecond}
	}
	w := open(t, c.Client("a", policy))
	both := fill(t, w, 20)
	c.Break("a", "b")
	c.Break("b", "c")
	ctx, cancel := context.WithTimeout(t.Context(), 2*nodetest.Patience)
	defer cancel()
	confirmed := both
	goOn := func() error {
		o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: entry(confirmed + 1)})
		if err != nil {
			return err
		}
		ack, err := w.Wait(ctx, o)
		if err != nil {
			return err
		}
		if ack.Protected {
			t.Errorf("%d is protected, and b is cut off", o)
		}
		confirmed = o
		return nil
	}
	more := func(n int) {
		t.Helper()
		for range n {
			if err := goOn(); err != nil {
				t.Fatal(err)
			}
		}
	}
	more(20) // it degrades
	done, err := c.Node("b1").Takeover(ctx, node.Attestation{By: "t", Reason: "a is cut off", Lost: []string{"a1", "cw"}})
	if err != nil {
		t.Fatal(err)
	}
	more(20) // nobody told it
	taken := done.Streams[0]
	if taken.Last < both || len(taken.Gaps) != 1 || taken.Gaps[0].From > confirmed || taken.Gaps[0].To <= confirmed {
		t.Fatalf("%+v: %d were confirmed by both cities, %d by a", taken, both, confirmed)
	}
	next := open(t, c.Client("b", policy))
	if first := fill(t, next, 1); first <= taken.Gaps[0].To {
		t.Fatalf("%d is used again, the gap is %+v", first, taken.Gaps[0])
	}
	c.Heal()
	for err = nil; err == nil; err = goOn() {
	}
	t.Logf("the writer in a ends at %d: %v", confirmed, err)
	if ctx.Err() != nil {
		t.Fatal("it goes on for ever")
	}
	c.Until("its node has exported", func() bool { q := c.Node("a1").Status().Quarantine; return q != nil && q.Exported })
	missing := map[log.Offset]bool{}
	for o := taken.Last + 1; o <= confirmed; o++ {
		missing[o] = true
	}
	for _, f := range c.Node("a1").Status().Quarantine.Files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var x node.Exported
			if err := json.Unmarshal(line, &x); err != nil {
				t.Fatal(err)
			}
			if string(x.Payload) != string(entry(x.Offset)) {
				t.Errorf("%d is exported as %.20q", x.Offset, x.Payload)
			}
			delete(missing, x.Offset)
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d entries that a confirmed by itself are not exported: %v", len(missing), missing)
	}
	fill(t, next, 20)
	verify(t, c.Client("b", policy), taken.Last)
	if err := w.Close(); err == nil {
		t.Error("a writer of the old generation closes in order")
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}
