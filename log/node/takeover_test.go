package node_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestTakeoverBesideAWriter takes over while a writer of the surviving city goes on.
// Its segment is ended, because the lost nodes may have confirmed more of it; nobody
// tells the writer. Whatever is confirmed to it, before or after, is kept.
func TestTakeoverBesideAWriter(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "a3", "b1", "b2"}, OnDisk: true})
	alone := func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 1}, Loss: meta.LossBlock}
		c.RollAfter = time.Hour // it stays in its segment
	}
	l := c.Client("b", alone)
	w := open(t, l)
	fill(t, w, 50)
	c.Break("a", "b")
	for _, name := range []string{"a1", "a2", "a3"} {
		c.Stop(name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	var confirmed atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() {
		for ctx.Err() == nil {
			o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: entry(w.Bounds().LAC + 1)})
			if err == nil {
				_, err = w.Wait(ctx, o)
			}
			if err != nil {
				return
			}
			confirmed.Store(int64(o))
		}
	})
	c.Until("it goes on with b's nodes", func() bool { return confirmed.Load() > 100 })
	done, err := c.Node("b1").Takeover(ctx, node.Attestation{By: "test", Reason: "city a burnt down", Lost: []string{"a1", "a2", "a3"}})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // for it to go on, if it could: what it is told must hold
	cancel()
	writing.Wait()
	if kept := done.Streams[0].Last; log.Offset(confirmed.Load()) > kept {
		t.Fatalf("%d was confirmed to the writer, the stream is kept to %d", confirmed.Load(), kept)
	}
	verify(t, c.Client("b", alone), log.Offset(confirmed.Load()))
	if err := w.Close(); err != nil {
		t.Logf("the writer: %v", err)
	}
}
