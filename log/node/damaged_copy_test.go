package node_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
)

// TestTakeoverKeepsADamagedCopy takes over when the only survivor's copy of the open
// segment has one damaged entry: what can be read is not deleted for that.
func TestTakeoverKeepsADamagedCopy(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1"}})
	w := open(t, c.Client("a", func(c *client.Config) { c.RollAfter, c.RollEvery = time.Hour, time.Hour }))
	last := fill(t, w, 60)
	disk := c.Disk("b1")
	files, err := disk.List(c.Member("b1").Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := filepath.Join(c.Member("b1").Dir, f.Name)
		if i := bytes.Index(disk.Bytes(name), entry(30)); i >= 0 {
			if err := disk.Flip(name, int64(i+3), 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), nodetest.Patience)
	defer cancel()
	c.Until("b1 knows what is confirmed", func() bool {
		r := c.Node("b1").Status().Replicas
		return len(r) == 1 && r[0].LAC == last
	})
	read := func(when string) (n int) {
		l := c.Client("b", func(x *client.Config) { x.Far = client.FarNever })
		r, err := l.OpenReader(ctx, "s", log.ReaderOptions{})
		if err != nil {
			t.Logf("%s: %v", when, err)
			return 0
		}
		bounded, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		for {
			e, err := r.Next(bounded)
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Logf("%s: %v", when, err)
				}
				break
			}
			if string(e.Payload) != string(entry(e.Offset)) {
				t.Fatal(e.Offset)
			}
			n++
		}
		_ = r.Close()
		return n
	}
	before := read("before")
	c.Break("a", "b")
	c.Stop("a1")
	c.Stop("a2")
	t.Logf("b1 serves %d of %d before; %+v", before, last+1, c.Node("b1").Status().Replicas)
	done, err := c.Node("b1").Takeover(ctx, node.Attestation{By: "t", Reason: "a burnt down", Lost: []string{"a1", "a2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", done.Streams)
	time.Sleep(2 * time.Second) // time enough to delete it
	after := read("after")
	s := c.Node("b1").Status().Replicas
	t.Logf("after: %d; %+v", after, s)
	if len(s) == 0 {
		t.Errorf("the node has deleted its copy, of which %d entries could be read", before)
	}
	if before == 0 || after < before {
		t.Errorf("%d entries could be read before, %d after", before, after)
	}
	_ = w // its nodes are gone
}
