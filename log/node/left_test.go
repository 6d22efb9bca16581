package node_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
)

// lag is a cluster whose first segment ends at last, of which b1 has only what is up
// to upto, in the middle of a transaction: it was cut off before the segment was
// closed, and those who have all of it are a1 and a2.
type lag struct {
	*nodetest.Cluster
	t          *testing.T
	upto, last log.Offset
}

func newLag(t *testing.T) *lag {
	t.Helper()
	c := &lag{t: t, Cluster: nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "cw", "dw"}})}
	first := c.client("a")
	w := open(t, first)
	c.append(w, log.TopicSchema, 2)
	c.upto = c.append(w, log.TopicData, 20)
	c.Until("b1 has what is to be left", func() bool {
		r := c.Node("b1").Status().Replicas
		return len(r) == 1 && r[0].Last == c.upto
	})
	c.Isolate("b1")
	c.last = c.append(w, log.TopicData, 10)
	if err := first.Close(); err != nil { // its writer dies with it
		t.Fatal(err)
	}
	second := c.client("a")
	c.append(open(t, second), log.TopicData, 10) // in the second segment, which b1 has never heard of
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	page, err := c.Meta("a").Segments(c.ctx(), "s", 1, 9)
	if err != nil || len(page) != 2 || page[0].Last != c.last || len(page[0].Holders) != 2 || slices.ContainsFunc(page[1].Members, func(m quorum.Member) bool { return m.Node == "b1" }) {
		t.Fatalf("%+v, %v", page, err)
	}
	c.Stop("a1")
	c.Stop("a2")
	c.Rejoin("b1")
	return c
}

func (c *lag) ctx() context.Context {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	c.t.Cleanup(cancel)
	return ctx
}

// client whose writers wait for any two nodes.
func (c *lag) client(city string) *client.Client {
	return c.Client(city, func(x *client.Config) {
		x.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
		x.RollAfter, x.RollEvery = time.Minute, time.Minute
	})
}

// append n entries, of which every fourth ends a transaction.
func (c *lag) append(w log.Writer, topic log.Topic, n int) (last log.Offset) {
	c.t.Helper()
	for o := w.Bounds().LAC + 1; n > 0; n, o = n-1, o+1 {
		var err error
		if last, err = w.Append(c.ctx(), log.Draft{Topic: topic, EndsTransaction: o%4 == 3, Payload: entry(o)}); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := w.Wait(c.ctx(), last); err != nil {
		c.t.Fatal(err)
	}
	return last
}

// identity of a node, as the cluster lists it.
func (c *lag) identity(m meta.Store, name string) string {
	c.t.Helper()
	nodes, err := m.Nodes(c.ctx())
	i := slices.IndexFunc(nodes, func(n meta.Node) bool { return n.Name == name })
	if err != nil || i < 0 {
		c.t.Fatalf("node %s is not listed: %v", name, err)
	}
	return nodes[i].UUID
}

// reads expects entries from an offset up to another, and then the loss from to up to.
func (c *lag) reads(l log.Log, o log.ReaderOptions, upto, from, to log.Offset) {
	c.t.Helper()
	r, err := l.OpenReader(c.ctx(), "s", o)
	next := o.From
	for err == nil {
		var e log.Entry
		if e, err = r.Next(c.ctx()); err != nil {
			break
		}
		if e.Offset != next || string(e.Payload) != string(entry(next)) || next > upto {
			c.t.Fatalf("%+v: entry %d %.20q, want %d", o, e.Offset, e.Payload, next)
		}
		next++
	}
	var lost *log.LostError
	if !errors.As(err, &lost) || lost.From != from || lost.To != to || next != upto+1 && o.From <= upto {
		c.t.Fatalf("%+v: ends before %d: %v, want the loss of %d to %d", o, next, err, from, to)
	}
	if r != nil {
		_ = r.Close() // it has failed already
	}
}

// forget gives a1 and a2 up, as if b1 had said that it has so many entries less than it
// has, and ends the second segment by force.
func (c *lag) forget(l *client.Client, less log.Offset) *client.Forced {
	t := c.t
	t.Helper()
	m := l.Metadata()
	c.Until("who is left has a leader", func() bool { _, err := m.Nodes(c.ctx()); return err == nil })
	a1, a2 := c.identity(m, "a1"), c.identity(m, "a2")
	if _, err := m.Do(c.ctx(), meta.Command{Forget: &meta.Forget{Node: "a1", UUID: a1}}); err != nil {
		t.Fatal(err)
	}
	var left node.LeftAnswer
	c.Until("b1 says what it has", func() bool {
		var err error
		left, err = c.Node("b1").Left(c.ctx(), node.LeftQuestion{Stream: "s", Segments: []uint32{1}})
		return err == nil
	})
	if len(left.Segments) != 1 || left.Segments[0].Last != c.upto || left.Segments[0].LSO != c.upto-2 || left.Segments[0].Damaged || left.Segments[0].UUID != left.UUID {
		t.Fatalf("%+v, it has up to %d", left, c.upto)
	}
	if _, err := c.Node("b1").Left(c.ctx(), node.LeftQuestion{Stream: "s", Segments: []uint32{2}}); !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("of an open segment: %v", err)
	}
	said := left.Segments[0].Left
	for said.Last -= less; said.LSO > said.Last; {
		said.LSO -= 4
	}
	most := int64(c.last - said.Last)
	f := &meta.Forget{Node: "a2", UUID: a2, Lose: []meta.Losing{{Stream: "s", Segment: 1, Left: []meta.Left{said}, Most: &most}}}
	if _, err := m.Do(c.ctx(), meta.Command{Forget: f, By: "test", Reason: "burnt"}); err != nil {
		t.Fatal(err)
	}
	closed, err := l.ForceClose(c.ctx(), "s", client.Force{By: "test", Reason: "burnt"})
	if err != nil || closed.LostTo <= c.last {
		t.Fatalf("%+v, %v", closed, err)
	}
	c.heard(l)
	return closed
}

// heard waits until b1 has heard what is lost: a node may show what it has until then.
func (c *lag) heard(l *client.Client) {
	c.t.Helper()
	list := c.List()
	b1 := list[slices.IndexFunc(list, func(n node.ClusterNode) bool { return n.Name == "b1" })]
	c.Until("b1 has heard what is lost", func() bool {
		page, err := meta.NewClient(l, nil).Stale(b1.Address).Segments(c.ctx(), "s", 1, 1)
		return err == nil && len(page) == 1 && page[0].LostTail > 0
	})
}

// TestLastHolderIsForgotten: what a node has that was lagging when a segment was
// closed stays, though those who had all of it lost their disks. It is read, copied
// and compacted as any segment is, and the offsets behind it are a gap.
func TestLastHolderIsForgotten(t *testing.T) {
	c := newLag(t)
	l := c.client("b")
	m := l.Metadata()
	closed := c.forget(l, 0)
	st, err := m.Stream(c.ctx(), "s")
	if err != nil || len(st.Gaps) != 2 || st.Gaps[0].From != c.upto+1 || st.Gaps[0].To != c.last || st.Gaps[1].From != c.last+1 || st.Gaps[1].To != closed.LostTo {
		t.Fatalf("%+v, %v", st.Gaps, err)
	}
	// Two gaps that touch are one for a reader, so one step leads over both.
	for _, from := range []log.Offset{0, c.upto - 2, c.upto, c.upto + 1, c.last} {
		c.reads(l, log.ReaderOptions{From: from}, c.upto, c.upto+1, closed.LostTo)
		c.reads(l, log.ReaderOptions{From: from, Committed: true}, c.upto-2, c.upto+1, closed.LostTo)
	}
	c.reads(l, log.ReaderOptions{From: c.last + 1}, c.upto, c.last+1, closed.LostTo)

	// The disks are back, empty; the stream goes on, and what is left is copied.
	for _, name := range []string{"a1", "a2"} {
		c.Wipe(name)
		c.Start(name)
	}
	w := open(t, l)
	if next := c.append(w, log.TopicData, 4); next != closed.LostTo+4 {
		t.Fatalf("goes on at %d, behind a gap up to %d", next, closed.LostTo)
	}
	c.Until("what is left is copied", func() bool {
		page, err := m.Segments(c.ctx(), "s", 1, 1)
		return err == nil && len(page[0].Holders) == 3 && page[0].Bytes > 0
	})
	near := c.Client("a", func(x *client.Config) { x.Far = client.FarNever })
	c.reads(near, log.ReaderOptions{}, c.upto, c.upto+1, closed.LostTo)
	c.reads(near, log.ReaderOptions{Committed: true}, c.upto-2, c.upto+1, closed.LostTo)

	// Retention leaves of it what is kept for ever, on all three.
	if err := l.StoreCursor(c.ctx(), "s", log.Cursor{Group: "g", Offset: closed.LostTo}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, l) // ends the segment, so that the one before need not stay
	if _, err := m.Do(c.ctx(), meta.Command{Trim: &meta.Trim{Stream: "s", Before: c.last + 1, Keep: []uint32{1}}}); err != nil {
		t.Fatal(err)
	}
	c.Until("it is compacted everywhere", func() bool {
		for _, name := range []string{"a1", "a2", "b1"} {
			r := c.Node(name).Status().Replicas
			if i := slices.IndexFunc(r, func(x node.Replica) bool { return x.Segment == 1 }); i < 0 || !r[i].Compacted {
				return false
			}
		}
		return true
	})
	schema := log.ReaderOptions{Topics: []log.Topic{log.TopicSchema}, To: closed.LostTo + 2}
	r, err := l.OpenReader(c.ctx(), "s", schema)
	if err != nil {
		t.Fatal(err)
	}
	for o := log.Offset(0); o < 2; o++ {
		if e, err := r.Next(c.ctx()); err != nil || e.Offset != o {
			t.Fatalf("schema entry %d: %+v, %v", o, e, err)
		}
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestMoreThanIsLeft: a node that has more of a segment than was known when its rest was
// given up shows none of it, and nobody is given it: what is lost stays lost.
func TestMoreThanIsLeft(t *testing.T) {
	c := newLag(t)
	l := c.client("b")
	closed := c.forget(l, 5)
	upto := c.upto - 5
	reads := func(l log.Log) {
		t.Helper()
		for _, from := range []log.Offset{0, upto, upto + 1, c.upto, c.upto + 1} {
			c.reads(l, log.ReaderOptions{From: from}, upto, upto+1, closed.LostTo)
			c.reads(l, log.ReaderOptions{From: from, Committed: true}, upto-1, upto+1, closed.LostTo)
		}
		r, err := l.OpenReader(c.ctx(), "s", log.ReaderOptions{From: upto, To: upto + 1})
		if err != nil {
			t.Fatal(err)
		}
		if e, err := r.Next(c.ctx()); err != nil || e.Offset != upto {
			t.Fatalf("%+v, %v", e, err)
		}
		if _, err := r.Next(c.ctx()); !errors.Is(err, io.EOF) {
			t.Fatalf("a reader that wants no more: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	reads(l)
	c.Wipe("a1")
	c.Start("a1")
	c.Until("what is left is copied", func() bool {
		page, err := l.Metadata().Segments(c.ctx(), "s", 1, 1)
		return err == nil && len(page[0].Holders) == 2
	})
	if r := c.Node("a1").Status().Replicas; len(r) != 1 || r[0].Last != upto {
		t.Fatalf("a1 was given more than is left: %+v", r)
	}
	reads(c.Client("a", func(x *client.Config) { x.Far = client.FarNever })) // a1 has no more to show
	// And it is no holder the less for it.
	c.Stop("b1")
	c.Start("b1")
	c.Until("b1 is back", func() bool { return c.Node("b1").Status().State == node.StateServing })
	c.heard(l)
	reads(c.Client("b", func(x *client.Config) { x.Far = client.FarNever }))
	if page, err := l.Metadata().Segments(c.ctx(), "s", 1, 1); err != nil || len(page[0].Holders) != 2 {
		t.Fatalf("%+v, %v", page, err)
	}
}

// TestTakeoverKeepsAPrefix: the same when the city of those who had all of it is given
// up by a takeover, which the preview has said before.
func TestTakeoverKeepsAPrefix(t *testing.T) {
	c := newLag(t)
	c.Until("who is left has heard of the second segment", func() bool {
		page, err := c.Client("b", nil).Metadata().Segments(c.ctx(), "s", 2, 1)
		return err == nil && len(page) == 1
	})
	c.Stop("dw") // no majority is left
	a := node.Attestation{By: "t", Reason: "burnt", Lost: []string{"a1", "a2", "dw"}, Preview: true}
	var gap log.Offset
	for _, preview := range []bool{true, false} {
		a.Preview = preview
		taken, err := c.Node("b1").Takeover(c.ctx(), a)
		if err != nil {
			t.Fatal(err)
		}
		s := taken.Streams[0]
		if len(s.Gaps) != 2 || s.Gaps[0].From != c.upto+1 || s.Gaps[0].To != c.last || s.Gaps[1].From != c.last+1 || s.Last != c.upto || !s.Doubt {
			t.Fatalf("preview %t: %+v, left is what is up to %d", preview, s, c.upto)
		}
		gap = s.Gaps[1].To
	}
	l := c.Client("b", nil)
	c.reads(l, log.ReaderOptions{}, c.upto, c.upto+1, gap)
	c.reads(l, log.ReaderOptions{Committed: true}, c.upto-2, c.upto+1, gap)
}
