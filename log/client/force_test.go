package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// loseDisks gives nodes empty directories, and the cluster is told.
func (c *cluster) loseDisks(names ...string) {
	c.t.Helper()
	for _, name := range names {
		n := c.node(name)
		old := n.uuid
		n.set(func(n *memoryNode) { n.uuid, n.parts = "new-"+old, nil })
		n.cut()
		for _, cmd := range []meta.Command{
			{Forget: &meta.Forget{Node: name, UUID: old}},
			{Register: &meta.Register{Node: meta.Node{Name: name, UUID: "new-" + old, City: n.city, Address: n.address}}},
		} {
			cmd.Now = time.Now().UTC()
			if _, err := c.meta.Do(context.Background(), cmd); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

var acceptLoss = client.Force{By: "test", Reason: "two disks are gone"}

// TestDoubleLoss: a disk is lost in each city before the writer could roll. The
// rule promises nothing for that: what only these two had is gone, and nobody is
// left who knows whether there was anything. So no writer is let in, until an
// operator accepts the loss; then what is left is kept, and no offset behind it
// is ever used again.
func TestDoubleLoss(t *testing.T) {
	for _, c := range []struct {
		name string
		only log.Offset // entries that only the two lost disks had
	}{{"the others have everything", 0}, {"ten entries were on the lost disks only", 10}} {
		t.Run(c.name, func(t *testing.T) {
			k := twoCities(t)
			patient := func(c *client.Config) { c.RollAfter, c.RollEvery = time.Minute, time.Minute }
			first := k.client(patient)
			w := openWriter(t, first)
			put(t, w, 0, 100)
			last := log.Offset(100)
			eventually(t, "everybody has everything", func() bool { return k.holds("a2") == last && k.holds("b1") == last })
			for _, n := range []string{"a2", "b1"} {
				k.node(n).set(func(n *memoryNode) { n.away = true })
				k.node(n).cut()
			}
			if c.only > 0 {
				put(t, w, last+1, last+c.only) // acknowledged by a1 and b2, one in each city
			}
			// A consumer has taken over what was confirmed.
			if err := first.StoreCursor(ctxOf(t), "s", log.Cursor{Group: "g", Offset: last + c.only}); err != nil {
				t.Fatal(err)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			k.loseDisks("a1", "b2")
			for _, n := range []string{"a2", "b1"} {
				k.node(n).set(func(n *memoryNode) { n.away = false })
			}
			kept := max(k.holds("a2"), k.holds("b1"))
			if kept != last {
				t.Fatalf("the others hold up to %d", kept)
			}

			short := k.client(func(c *client.Config) { c.OpenFor = time.Second })
			if _, err := short.OpenWriter(ctxOf(t), "s"); !errors.Is(err, log.ErrUnavailable) {
				t.Fatalf("opened without knowing what was confirmed: %v", err)
			}
			l := k.client(nil)
			if _, err := l.ForceClose(ctxOf(t), "s", client.Force{By: "test"}); !errors.Is(err, log.ErrProtocol) {
				t.Fatalf("without a reason: %v", err)
			}
			f, err := l.ForceClose(ctxOf(t), "s", acceptLoss)
			if err != nil {
				t.Fatal(err)
			}
			if f.Last != kept || !f.Lost || len(f.Holders) != 2 || f.LostTo < last+c.only+1<<32 {
				t.Fatalf("%+v, they held up to %d", f, kept)
			}
			readAll(t, l, 0, kept)
			st, err := k.meta.Stream(ctxOf(t), "s")
			if err != nil || len(st.Gaps) != 1 || st.Gaps[0].From != kept+1 || st.Gaps[0].To != f.LostTo || st.Gaps[0].By != "test" || st.Short != 0 {
				t.Fatalf("%+v, %v", st, err)
			}

			// Nobody walks over it in silence.
			for _, from := range []log.Offset{0, kept + 1, last + c.only + 1, f.LostTo} {
				r, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{From: from})
				for err == nil {
					var e log.Entry
					if e, err = r.Next(ctxOf(t)); err == nil && e.Offset > kept {
						t.Fatalf("from %d: entry %d", from, e.Offset)
					}
				}
				var lost *log.LostError
				if !errors.As(err, &lost) || lost.From != kept+1 || lost.To != f.LostTo || !errors.Is(err, log.ErrLost) {
					t.Fatalf("from %d: %v", from, err)
				}
				if r != nil {
					_ = r.Close() // it has failed already
				}
			}
			// The stream goes on behind it, for writers and for who starts there.
			next := openWriter(t, l)
			if b := next.Bounds(); b.LAC != f.LostTo || b.LSO > kept {
				t.Fatalf("%+v", b)
			}
			put(t, next, f.LostTo+1, f.LostTo+50)
			behind, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{From: f.LostTo + 1, To: f.LostTo + 51})
			if err != nil {
				t.Fatal(err)
			}
			for o := f.LostTo + 1; o <= f.LostTo+50; o++ {
				if e, err := behind.Next(ctxOf(t)); err != nil || e.Offset != o {
					t.Fatalf("entry %d: %+v, %v", o, e, err)
				}
			}
			if err := behind.Close(); err != nil {
				t.Fatal(err)
			}
			// Table versions outlive everything: who reads only these is not held up.
			versions, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{To: f.LostTo + 20, Topics: []log.Topic{log.TopicSchema}})
			if err != nil {
				t.Fatal(err)
			}
			if e, err := versions.Next(ctxOf(t)); err == nil {
				t.Fatalf("%+v", e)
			} else if errors.Is(err, log.ErrLost) {
				t.Fatal(err)
			}
			if err := versions.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.ForceClose(ctxOf(t), "s", acceptLoss); !errors.Is(err, log.ErrProtocol) {
				t.Fatalf("forced where nothing has to be: %v", err)
			}
			if err := next.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestForcedCloseWaits: nobody is given up but whose disk is gone. A member that
// only does not answer may have entries, and holds the forced close up.
func TestForcedCloseWaits(t *testing.T) {
	k := twoCities(t)
	policy := &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: meta.LossBlock}
	first := k.client(func(c *client.Config) { c.RollAfter, c.RollEvery, c.Policy = time.Minute, time.Minute, policy })
	w := openWriter(t, first)
	put(t, w, 0, 10)
	k.node("a2").set(func(n *memoryNode) { n.frozen = true })
	put(t, w, 11, 20) // on a1, b1 and b2
	eventually(t, "b1 has everything", func() bool { return k.holds("b1") == 20 })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	k.node("a2").cut()
	k.node("a2").set(func(n *memoryNode) { n.frozen = false })
	k.loseDisks("a1", "b2")
	k.node("b1").set(func(n *memoryNode) { n.frozen = true })
	l := k.client(func(c *client.Config) { c.OpenFor, c.DialTimeout = time.Second, 300*time.Millisecond })
	if f, err := l.ForceClose(ctxOf(t), "s", acceptLoss); err == nil {
		t.Fatalf("closed at %d while b1 does not answer", f.Last)
	}
	k.node("b1").set(func(n *memoryNode) { n.frozen = false })
	f, err := k.client(nil).ForceClose(ctxOf(t), "s", acceptLoss)
	if err != nil {
		t.Fatal(err)
	}
	if f.Last != 20 || len(f.Holders) != 2 {
		t.Fatalf("%+v", f)
	}
	readAll(t, k.client(nil), 0, 20)
}

// TestGivenUpIsFenced: nodes that are given up because their copies are damaged may
// live, and so may the writer. A forced close fences them too: what they alone would
// go on confirming stands behind an end that is decided.
func TestGivenUpIsFenced(t *testing.T) {
	k := twoCities(t)
	policy := &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
	first := k.client(func(c *client.Config) { c.RollAfter, c.RollEvery, c.Policy = time.Minute, time.Minute, policy })
	w := openWriter(t, first)
	put(t, w, 0, 10)
	st, err := first.Metadata().Stream(ctxOf(t), "s")
	if err != nil {
		t.Fatal(err)
	}
	members := st.Segments[0].Members
	accept := acceptLoss
	for _, m := range members[1:] {
		accept.GiveUp = append(accept.GiveUp, m.Node)
	}
	f, err := k.client(nil).ForceClose(ctxOf(t), "s", accept)
	if err != nil || !f.Lost {
		t.Fatalf("%+v, %v", f, err)
	}
	for _, m := range members {
		k.node(m.Node).set(func(n *memoryNode) {
			if got := n.parts[0].core.Fence(); got != f.Epoch {
				t.Errorf("%s is fenced at %d, the segment was closed at epoch %d", n.name, got, f.Epoch)
			}
		})
	}
	if o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload(11)}); err == nil {
		if _, err = w.Wait(ctxOf(t), o); !errors.Is(err, log.ErrFenced) {
			t.Errorf("the old writer's entry %d: %v", o, err)
		}
	}
}

// holds is the newest entry of the first segment on a node.
func (c *cluster) holds(name string) log.Offset {
	last := log.None
	c.node(name).set(func(n *memoryNode) {
		if len(n.parts) > 0 {
			last = n.parts[0].core.Last()
		}
	})
	return last
}
