package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// crowd appends to several streams of one client until it is stopped.
type crowd struct {
	all  sync.WaitGroup
	stop chan struct{} // closed by end
	mu   sync.Mutex
	ws   map[string]log.Writer
	last map[string]log.Offset // acknowledged
	err  error
}

func startCrowd(t *testing.T, l log.Log, streams int) *crowd {
	t.Helper()
	c := &crowd{stop: make(chan struct{}), ws: map[string]log.Writer{}, last: map[string]log.Offset{}}
	for i := range streams {
		name := fmt.Sprintf("s%d", i)
		w, err := l.OpenWriter(ctxOf(t), name)
		if err != nil {
			t.Fatal(err)
		}
		c.ws[name] = w
	}
	for name, w := range c.ws {
		c.all.Go(func() { c.append(t, name, w) })
	}
	return c
}

// append keeps a few entries in flight.
func (c *crowd) append(t *testing.T, name string, w log.Writer) {
	const window = 8
	for n := log.Offset(0); ; n++ {
		select {
		case <-c.stop:
			return
		default:
		}
		o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(n)})
		if err == nil && o != n {
			err = fmt.Errorf("offset %d, want %d", o, n)
		}
		if err == nil && o >= window {
			_, err = w.Wait(ctxOf(t), o-window)
		}
		c.mu.Lock()
		if err != nil {
			c.err = errors.Join(c.err, fmt.Errorf("stream %s: %w", name, err))
		} else {
			c.last[name] = o - window
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// least is the newest entry that is acknowledged in all streams.
func (c *crowd) least() log.Offset {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) < len(c.ws) {
		return log.None
	}
	least := log.Offset(1 << 60)
	for _, o := range c.last {
		least = min(least, o)
	}
	return least
}

func (c *crowd) end(t *testing.T) {
	t.Helper()
	close(c.stop)
	c.all.Wait()
	if c.err != nil {
		t.Fatal(c.err)
	}
}

// TestTally: the streams of one client share a connection for their acknowledgements
// to each node. Nothing is lost or doubled when it breaks, when its node dies, and
// when a member is left out and taken in again.
func TestTally(t *testing.T) {
	k := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "a3"}})
	l := k.Client("a", func(cfg *client.Config) {
		cfg.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
	})
	client.TallyAlways(l)
	const streams = 6
	c := startCrowd(t, l, streams)
	more := func(what string) {
		t.Helper()
		from := c.least()
		eventually(t, "appends go on: "+what, func() bool { return c.least() > from+20 })
	}
	// How many are is left open: where a node does not answer in time, acknowledgements
	// come without a tally.
	tallied := func(when string) {
		t.Helper()
		eventually(t, "members are tallied "+when, func() bool { return client.Tallied(l) > 0 })
	}
	tallied("at first")
	more("at first")
	for range 5 {
		client.CutTallies(l)
		more("after the tallies broke")
	}
	tallied("after the tallies broke")
	k.Kill("a2")
	more("without a node")
	k.Start("a2")
	k.Freeze("a3")
	more("with a node that froze")
	k.Rejoin("a3")
	more("at last")
	c.end(t)
	for name, w := range c.ws {
		last := w.Bounds().LAC
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if last = max(last, c.last[name]); last < 0 {
			t.Fatalf("nothing is in stream %s", name)
		}
		readStream(t, l, name, last)
	}
	if n := client.Tallied(l); n != 0 {
		t.Fatalf("%d connections are tallied without a writer", n)
	}
}

func readStream(t *testing.T, l log.Log, name string, last log.Offset) {
	t.Helper()
	r, err := l.OpenReader(ctxOf(t), name, log.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for o := log.Offset(0); o <= last; o++ {
		e, err := r.Next(ctxOf(t))
		if err != nil || e.Offset != o || !bytes.Equal(e.Payload, payload(o)) {
			t.Fatalf("stream %s: entry %d %.20q, want %d: %v", name, e.Offset, e.Payload, o, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTallyOnlyForMany: one writer has its acknowledgements on its own connections,
// and so have those of a client whose nodes know no tallies.
func TestTallyOnlyForMany(t *testing.T) {
	k := newCluster(t, place{"a1", "a"}, place{"a2", "a"})
	k.nodes[0].set(func(n *memoryNode) { n.speaks = wire.VersionTally - 1 })
	l := k.client(nil)
	c := startCrowd(t, l, 3)
	eventually(t, "appends go on", func() bool { return c.least() > 20 })
	if n := client.Tallied(l); n != 0 {
		t.Fatalf("%d connections are tallied", n)
	}
	c.end(t)
	real := nodetest.New(t, nodetest.Options{Nodes: []string{"a1"}})
	l = real.Client("a", nil)
	alone := startCrowd(t, l, 1)
	eventually(t, "appends go on", func() bool { return alone.least() > 20 })
	if n := client.Tallied(l); n != 0 {
		t.Fatalf("%d connections of a single writer are tallied", n)
	}
	alone.end(t)
}
