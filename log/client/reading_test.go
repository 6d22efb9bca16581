package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

func inB(c *client.Config) { c.City, c.Name = "b", "b" }

func attachedTo(l *client.Client) string {
	if s := l.Stats(); len(s.Readers) > 0 {
		return s.Readers[0].Node
	}
	return ""
}

func next(t *testing.T, r log.Reader, want log.Offset) {
	t.Helper()
	e, err := r.Next(ctxOf(t))
	if err != nil {
		t.Fatalf("entry %d: %v", want, err)
	}
	if e.Offset != want || string(e.Payload) != string(payload(want)) {
		t.Fatalf("entry %d, want %d", e.Offset, want)
	}
}

// TestNearReads: a reader of city b gets everything from city b, whatever happens
// to single nodes there.
func TestNearReads(t *testing.T) {
	breaks := map[string]func(k *cluster, n *memoryNode){
		"connection": func(_ *cluster, n *memoryNode) { n.cut() },
		"node":       func(_ *cluster, n *memoryNode) { n.close() },
		"frozen":     func(_ *cluster, n *memoryNode) { n.set(func(n *memoryNode) { n.frozen = true }) },
		// It misses the end of its segment and what comes then.
		"left behind": func(_ *cluster, n *memoryNode) {
			n.set(func(n *memoryNode) { n.deaf, n.delay = true, 400*time.Millisecond })
		},
	}
	for name, break_ := range breaks {
		t.Run(name, func(t *testing.T) {
			k := twoCities(t)
			l := k.client(nil)
			w := openWriter(t, l)
			put(t, w, 0, 99)
			far := k.client(inB)
			r, err := far.OpenReader(ctxOf(t), "s", log.ReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for o := range log.Offset(100) {
				next(t, r, o)
			}
			node := attachedTo(far)
			break_(k, k.node(node))
			for o := log.Offset(100); o < 1000; o += 100 {
				put(t, w, o, o+99)
				time.Sleep(50 * time.Millisecond)
			}
			for o := log.Offset(100); o < 1000; o++ {
				next(t, r, o)
			}
			if name != "connection" && attachedTo(far) == node {
				t.Errorf("the reader is still at %s", node)
			}
			s := far.Stats()
			if s.Received["a"] != 0 || s.Received["b"] == 0 {
				t.Errorf("received %v", s.Received)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			k.node(node).set(func(n *memoryNode) { n.frozen, n.delay = false, 0 })
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestFarReads: a reader leaves its city when nobody there serves it, if it may,
// and comes home.
func TestFarReads(t *testing.T) {
	k := twoCities(t)
	w := openWriter(t, k.client(func(c *client.Config) { c.RollAfter = 20 * time.Second }))
	put(t, w, 0, 9)
	far := k.client(inB)
	never := k.client(func(c *client.Config) {
		inB(c)
		c.Far, c.ReconnectFor = client.FarNever, time.Second
	})
	readers := map[*client.Client]log.Reader{}
	for _, l := range []*client.Client{far, never} {
		r, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		readers[l] = r
		for o := range log.Offset(10) {
			next(t, r, o)
		}
	}
	for _, n := range []string{"b1", "b2"} {
		k.node(n).set(func(n *memoryNode) { n.frozen = true })
		k.node(n).cut()
	}
	eventually(t, "far", func() bool { n := attachedTo(far); return n == "a1" || n == "a2" })
	if _, err := readers[never].Next(ctxOf(t)); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("a reader that must not leave its city: %v", err)
	}
	for _, n := range []string{"b1", "b2"} {
		k.node(n).set(func(n *memoryNode) { n.frozen = false })
	}
	put(t, w, 10, 19)
	for o := log.Offset(10); o < 20; o++ {
		next(t, readers[far], o)
	}
	eventually(t, "home", func() bool { n := attachedTo(far); return n == "b1" || n == "b2" })
	put(t, w, 20, 29)
	before := far.Stats().Received["a"]
	for o := log.Offset(20); o < 30; o++ {
		next(t, readers[far], o)
	}
	if got := far.Stats().Received["a"]; got != before {
		t.Errorf("%d bytes from the other city", got-before)
	}
	for _, r := range readers {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCursorsShareCommands: many calls are few commands, and each is told the truth.
func TestCursorsShareCommands(t *testing.T) {
	k := newCluster(t, place{"a1", "a"})
	l := k.client(func(c *client.Config) { c.CursorEvery = 200 * time.Millisecond })
	w := openWriter(t, l)
	put(t, w, 0, 999)
	began := time.Now()
	errs := make(chan error, 1000) // one per call; read below; never closed
	for o := range log.Offset(1000) {
		go func() { errs <- l.StoreCursor(ctxOf(t), "s", log.Cursor{Group: "g", Offset: o}) }()
	}
	behind := 0
	for range 1000 {
		if err := <-errs; errors.Is(err, log.ErrCursorBehind) {
			behind++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	c, err := l.Cursors(ctxOf(t), "s")
	if err != nil || len(c) != 1 || c[0].Offset != 999 {
		t.Fatalf("cursors %+v, %v", c, err)
	}
	commands := l.Stats().CursorCommands
	if most := 5 + int64(time.Since(began)/(200*time.Millisecond)); commands > most {
		t.Errorf("%d commands, at most %d were wanted", commands, most)
	}
	t.Logf("%d commands, %d of 1000 were behind", commands, behind)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
