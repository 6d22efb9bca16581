package client_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
)

func put(t *testing.T, w log.Writer, from, to log.Offset) {
	t.Helper()
	for o := from; o <= to; o++ {
		got, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: o%3 == 0, Payload: payload(o)})
		if err != nil || got != o {
			t.Fatalf("append %d: %d, %v", o, got, err)
		}
	}
	if _, err := w.Wait(ctxOf(t), to); err != nil {
		t.Fatal(err)
	}
}

// TestRecoveryCopies: after the writer and a member are gone the rest hold what
// was acknowledged, but not all of them all of it. The next writer finds it, and
// has it where the rule wants it.
func TestRecoveryCopies(t *testing.T) {
	k := newCluster(t, place{"a1", "a"}, place{"a2", "a"}, place{"a3", "a"})
	two := &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
	slow := func(c *client.Config) { c.Policy, c.RollAfter, c.RollEvery = two, 20*time.Second, 20*time.Second }
	first := k.client(slow)
	w := openWriter(t, first)
	put(t, w, 0, 10)
	k.node("a3").set(func(n *memoryNode) { n.frozen = true })
	const last = 5000
	put(t, w, 11, last)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	k.node("a1").close()
	k.node("a3").cut()
	k.node("a3").set(func(n *memoryNode) { n.frozen = false })

	second := k.client(func(c *client.Config) { c.Policy = two })
	w = openWriter(t, second)
	if b := w.Bounds(); b.LAC != last || b.LSO != last-last%3 {
		t.Fatalf("bounds %+v, want LAC %d", b, last)
	}
	for _, n := range []string{"a2", "a3"} {
		k.node(n).set(func(m *memoryNode) {
			core := &m.parts[0].core
			if core.Last() != last || core.LSO() != last-last%3 {
				t.Errorf("node %s holds up to %d, LSO %d", n, core.Last(), core.LSO())
			}
		})
	}
	put(t, w, last+1, last+10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	k.node("a2").close()
	readAll(t, k.client(nil), 0, last+10) // from a3, which was copied to
}

// TestOlderNodes: a cluster whose nodes are restarted one after the other has some of
// the version before. A writer sends each what it takes, and a recovery copies there.
func TestOlderNodes(t *testing.T) {
	k := newCluster(t, place{"a1", "a"}, place{"a2", "a"}, place{"a3", "a"})
	for _, name := range []string{"a2", "a3"} {
		k.node(name).set(func(n *memoryNode) { n.speaks = 2 })
	}
	cfg := func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
		c.RollAfter, c.RollEvery = 20*time.Second, 20*time.Second
	}
	first := k.client(cfg)
	w := openWriter(t, first)
	put(t, w, 0, 10)
	k.node("a3").set(func(n *memoryNode) { n.frozen = true })
	const last = 100
	for o := log.Offset(11); o <= last; o++ { // small ones share a buffer, a large one is sent from where it lies
		p := payload(o)
		if o%10 == 0 {
			p = bytes.Repeat(p, 100<<10/len(p))
		}
		if got, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p}); err != nil || got != o {
			t.Fatalf("append %d: %d, %v", o, got, err)
		}
	}
	if _, err := w.Wait(ctxOf(t), last); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	k.node("a1").close()
	k.node("a3").cut()
	k.node("a3").set(func(n *memoryNode) { n.frozen = false })
	w = openWriter(t, k.client(cfg))
	put(t, w, last+1, last+10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a2", "a3"} {
		k.node(name).set(func(m *memoryNode) {
			entries := m.parts[0].entries
			if len(entries) != last+1 {
				t.Fatalf("node %s holds %d entries", name, len(entries))
			}
			for i := range entries {
				if e := &entries[i]; segment.Checksum(e.Payload) != e.Checksum || !bytes.HasPrefix(e.Payload, payload(e.Offset)) {
					t.Errorf("node %s: entry %d is another one", name, e.Offset)
				}
			}
		})
	}
}

// TestOpenNeedsNodes: too few members to say where the stream ends.
func TestOpenNeedsNodes(t *testing.T) {
	k := newCluster(t, place{"a1", "a"}, place{"a2", "a"}, place{"a3", "a"})
	two := &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
	l := k.client(func(c *client.Config) { c.Policy = two })
	w := openWriter(t, l)
	put(t, w, 0, 10)
	k.node("a1").set(func(n *memoryNode) { n.frozen = true })
	k.node("a2").set(func(n *memoryNode) { n.frozen = true })
	short := k.client(func(c *client.Config) {
		c.OpenFor, c.DialTimeout, c.Nodes = time.Second, 300*time.Millisecond, []string{k.node("a3").address}
	})
	if _, err := short.OpenWriter(ctxOf(t), "s"); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("opened with one node of three: %v", err)
	}
	k.node("a1").set(func(n *memoryNode) { n.frozen = false })
	k.node("a2").set(func(n *memoryNode) { n.frozen = false })
	next := openWriter(t, k.client(nil))
	put(t, next, 11, 20)
	eventually(t, "the old writer is fenced", func() bool {
		_, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, Payload: []byte("zombie")})
		return errors.Is(err, log.ErrFenced)
	})
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	readAll(t, l, 0, 20)
}

// TestWipedMember: a directory made anew under an old name holds nothing, and
// what it says proves nothing.
func TestWipedMember(t *testing.T) {
	k := newCluster(t, place{"a1", "a"}, place{"a2", "a"}, place{"a3", "a"})
	two := &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
	l := k.client(func(c *client.Config) { c.Policy = two })
	w := openWriter(t, l)
	put(t, w, 0, 100)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	k.node("a1").set(func(n *memoryNode) { n.uuid, n.parts = "another", nil })
	k.node("a1").cut()
	k.node("a2").set(func(n *memoryNode) { n.frozen = true })
	short := k.client(func(c *client.Config) { c.OpenFor, c.DialTimeout = time.Second, 300*time.Millisecond })
	if _, err := short.OpenWriter(ctxOf(t), "s"); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("opened with one node of three: %v", err)
	}
	k.node("a2").set(func(n *memoryNode) { n.frozen = false })
	next := openWriter(t, k.client(nil))
	if b := next.Bounds(); b.LAC != 100 {
		t.Fatalf("bounds %+v", b)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWritersRace opens writers from many clients at once: the last one works,
// and whatever one of them was told to be stored is there once, in order.
func TestWritersRace(t *testing.T) {
	k := twoCities(t)
	type told struct {
		o log.Offset
		p string
	}
	results := make(chan []told, 6) // one of each writer; read below; never closed
	for i := range 6 {
		l := k.client(func(c *client.Config) { c.Name = string(rune('a' + i)) })
		go func() {
			var out []told
			defer func() { results <- out }()
			w, err := l.OpenWriter(ctxOf(t), "s")
			if err != nil {
				if !errors.Is(err, log.ErrFenced) {
					t.Error(err)
				}
				return
			}
			for n := range 200 {
				p := string(rune('a'+i)) + string(rune('0'+n%10))
				o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte(p)})
				if err == nil {
					_, err = w.Wait(ctxOf(t), o)
				}
				if err != nil {
					if !errors.Is(err, log.ErrFenced) {
						t.Error(err)
					}
					return
				}
				out = append(out, told{o, p})
			}
			if err := w.Close(); err != nil && !errors.Is(err, log.ErrFenced) {
				t.Error(err)
			}
		}()
	}
	var all []told
	for range 6 {
		all = append(all, <-results...)
	}
	slices.SortFunc(all, func(a, b told) int { return int(a.o - b.o) })
	if len(all) == 0 {
		t.Fatal("nobody wrote anything")
	}
	l := k.client(nil)
	last := openWriter(t, l)
	end := last.Bounds().LAC
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{To: end + 1})
	if err != nil {
		t.Fatal(err)
	}
	for o := log.Offset(0); o <= end; o++ {
		e, err := r.Next(ctxOf(t))
		if err != nil || e.Offset != o {
			t.Fatalf("entry %d, want %d: %v", e.Offset, o, err)
		}
		for len(all) > 0 && all[0].o == o {
			if all[0].p != string(e.Payload) {
				t.Fatalf("entry %d is %q, %q was acknowledged", o, e.Payload, all[0].p)
			}
			all = all[1:]
		}
	}
	if len(all) > 0 {
		t.Fatalf("acknowledged and not there: %v", all)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
