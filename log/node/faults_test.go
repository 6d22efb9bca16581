package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/conformance"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// entry of a stream that anybody can check.
func entry(o log.Offset) []byte {
	return fmt.Appendf(nil, "entry %d %s", o, strings.Repeat("x", int(o%200)))
}

// fill appends until the stream has n entries more, and waits for them.
func fill(t *testing.T, w log.Writer, n int) log.Offset {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	var last log.Offset
	next := w.Bounds().LAC + 1
	for i := range n {
		o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: entry(next + log.Offset(i))})
		if err != nil {
			t.Fatal(err)
		}
		last = o
	}
	if _, err := w.Wait(ctx, last); err != nil {
		t.Fatal(err)
	}
	return last
}

func open(t *testing.T, l log.Log) log.Writer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	w, err := l.OpenWriter(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// verify reads all of the stream.
func verify(t *testing.T, l log.Log, last log.Offset) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	r, err := l.OpenReader(ctx, "s", log.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for o := log.Offset(0); o <= last; o++ {
		e, err := r.Next(ctx)
		if err != nil || e.Offset != o || string(e.Payload) != string(entry(o)) {
			t.Fatalf("entry %d %.20q, want %d: %v", e.Offset, e.Payload, o, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// clusterCrash crashes members of a cluster in turn and goes on with a new client.
type clusterCrash struct {
	cluster *nodetest.Cluster
	options nodetest.Options
	city    string
	turn    int
	victims [][]string
}

func (c *clusterCrash) open(t *testing.T) log.Log {
	c.cluster = nodetest.New(t, c.options)
	return c.cluster.Client(c.city, nil)
}

func (c *clusterCrash) crash(t *testing.T, _ log.Log) log.Log {
	v := c.victims[c.turn%len(c.victims)]
	c.turn++
	c.cluster.Kill(v...)
	for _, name := range v {
		c.cluster.Start(name)
	}
	return c.cluster.Client(c.city, nil)
}

func TestClusterCrash(t *testing.T) {
	all := []string{"a1", "a2", "b1", "b2"}
	for name, c := range map[string]*clusterCrash{
		"one at a time": {options: nodetest.Options{Nodes: all}, city: "a", victims: [][]string{{"a1"}, {"b1"}, {"a2"}, {"b2"}}},
		"a city":        {options: nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}}, city: "a", victims: [][]string{{"b1", "b2"}, {"a1", "a2"}}},
		"everything":    {options: nodetest.Options{Nodes: all}, city: "b", victims: [][]string{all}},
		"two of three": {options: nodetest.Options{Nodes: []string{"a1", "a2", "a3"}, Node: func(c *node.Config) {
			c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 2}, Loss: meta.LossBlock}
		}}, city: "a", victims: [][]string{{"a1"}, {"a2", "a3"}}},
	} {
		t.Run(name, func(t *testing.T) { conformance.RunCrash(t, c.open, c.crash) })
	}
}

// TestWriterGone measures how soon another writer goes on where one was lost.
func TestWriterGone(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2"}, Delay: 15 * time.Millisecond})
	old := c.Client("a", nil)
	last := fill(t, open(t, old), 300)
	if err := old.Close(); err != nil { // with its writer, as a process that was killed
		t.Fatal(err)
	}
	l := c.Client("b", nil)
	began := time.Now()
	w := open(t, l)
	fill(t, w, 1)
	took := time.Since(began)
	t.Logf("RESULT writer-lost recovery_ms=%d", took.Milliseconds())
	if took > 10*time.Second {
		t.Errorf("recovery takes %v", took)
	}
	verify(t, l, last+1)
	c.Until("the segment that the recovery closed has its size", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
		defer cancel()
		page, err := l.Metadata().Segments(ctx, "s", 1, 1)
		return err == nil && len(page) == 1 && page[0].Closed && page[0].Bytes > int64(last)
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWipedNode loses a node's disk. Under its old name it is somebody else, takes
// part again once the old one is forgotten, and gets its copies.
func TestWipedNode(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2"}})
	l := c.Client("a", nil)
	w := open(t, l)
	fill(t, w, 500)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	old := c.Node("b2").Status().UUID
	c.Wipe("b2")
	c.Start("b2")
	w = open(t, l)
	last := fill(t, w, 500)
	if s := c.Node("b2").Status(); s.State != node.StateStarting || s.UUID == old {
		t.Fatalf("a wiped node takes part under its old name: %+v", s)
	}
	m := c.Meta("a")
	if _, err := m.Do(context.Background(), meta.Command{Forget: &meta.Forget{Node: "b2", UUID: old}}); err != nil {
		t.Fatal(err)
	}
	c.Until("the new b2 holds all closed segments", func() bool {
		segments, err := m.Segments(context.Background(), "s", 1, 100)
		if err != nil {
			return false
		}
		closed := 0
		for _, g := range segments {
			if !g.Closed {
				continue
			}
			closed++
			holds := false
			for _, h := range g.Holders {
				holds = holds || h.Node == "b2" && h.UUID != old
			}
			if !holds {
				return false
			}
		}
		return closed > 0
	})
	// What it was given is as good as what was there before.
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.Stop("b1")
	verify(t, c.Client("b", func(c *client.Config) { c.Far = client.FarNever }), last)
}

// TestKilledBeforeAttach: a writer dies when the metadata has its segment and no
// node has heard of it. Who looks how far the stream goes must not wait for it.
func TestKilledBeforeAttach(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "b1"}})
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	m := c.Meta("a")
	rule := quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}
	if _, err := m.Do(ctx, meta.Command{Create: &meta.Create{Stream: "s", Policy: meta.Policy{Rule: rule, Loss: meta.LossBlock}}}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Do(ctx, meta.Command{Own: &meta.Own{Stream: "s", Owner: "killed"}})
	if err != nil {
		t.Fatal(err)
	}
	d := &quorum.Descriptor{
		Stream: "s", Segment: r.Stream.NextSegment, First: r.Stream.NextFirst, FirstLSO: r.Stream.NextLSO, Epoch: r.Stream.Epoch,
		Generation: r.Generation, Rule: rule, Protected: true,
	}
	for _, name := range []string{"a1", "b1"} {
		d.Members = append(d.Members, quorum.Member{Node: name, UUID: c.Node(name).Status().UUID, City: name[:1]})
	}
	if _, err := m.Do(ctx, meta.Command{Advance: &meta.Advance{Stream: "s", Epoch: d.Epoch, Open: d}}); err != nil {
		t.Fatal(err)
	}
	l := c.Client("a", nil)
	b, err := l.Bounds(ctx, "s")
	if err != nil || b.LAC != log.None || b.Epoch != d.Epoch {
		t.Fatalf("bounds %+v, %v", b, err)
	}
	w := open(t, l)
	last := fill(t, w, 10)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	verify(t, l, last)
}

// TestCityGone kills a city for good, as far as the survivors know, and lets it
// come back.
func TestCityGone(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "b1", "b2", "cw"}})
	l := c.Client("b", func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}, Loss: meta.LossDegradeAfter, After: 100 * time.Millisecond}
	})
	w := open(t, l)
	fill(t, w, 200)
	c.Kill("a1", "a2")
	began := time.Now()
	last := fill(t, w, 200) // degraded
	t.Logf("RESULT city-lost unavailable_ms=%d", time.Since(began).Milliseconds())
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	if a, err := w.Wait(ctx, last); err != nil || a.Protected {
		t.Fatalf("ack %+v, %v of a degraded stream", a, err)
	}
	c.Start("a1")
	c.Start("a2")
	c.Until("the stream is protected again", func() bool {
		last = fill(t, w, 1)
		a, err := w.Wait(ctx, last)
		return err == nil && a.Protected
	})
	m := c.Meta("b")
	c.Until("the unprotected window is restored", func() bool {
		st, err := m.Stream(ctx, "s")
		if err != nil || len(st.Windows) == 0 {
			return false
		}
		for _, x := range st.Windows {
			if x.RestoredAt.IsZero() {
				return false
			}
		}
		return st.Short == 0
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	verify(t, c.Client("a", func(c *client.Config) { c.Far = client.FarNever }), last)
}

// TestTakeover loses the majority of the voters with their city. The survivor goes
// on by order; the old city, when it returns, stands aside and exports.
func TestTakeover(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "a2", "a3", "b1", "b2"}, OnDisk: true})
	alone := func(c *client.Config) {
		c.Policy = &meta.Policy{Rule: quorum.NodeRule{Total: 1}, Loss: meta.LossBlock}
	}
	l := c.Client("a", alone)
	w := open(t, l)
	last := fill(t, w, 300)
	c.Until("b has all", func() bool {
		for _, name := range []string{"b1", "b2"} {
			for _, r := range c.Node(name).Status().Replicas {
				if r.Last == last {
					return true
				}
			}
		}
		return false
	})
	// The line breaks: city a goes on for a while, and nobody in b knows.
	c.Break("a", "b")
	lost := fill(t, w, 50)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a1", "a2", "a3"} {
		c.Stop(name)
	}
	c.Heal()
	ctx, cancel := context.WithTimeout(context.Background(), nodetest.Patience)
	defer cancel()
	order := node.Attestation{By: "test", Reason: "city a burnt down", Lost: []string{"a1", "a2", "a3"}}
	order.Preview = true
	if p, err := c.Node("b1").Takeover(ctx, order); err != nil || len(p.Streams) != 1 || !p.Streams[0].Doubt || p.Streams[0].Last < last {
		t.Fatalf("preview %+v, %v", p, err)
	}
	order.Preview = false
	began := time.Now()
	done, err := c.Node("b1").Takeover(ctx, order)
	if err != nil || done.Generation != 2 {
		t.Fatalf("takeover %+v, %v", done, err)
	}
	lb := c.Client("b", alone)
	w = open(t, lb)
	t.Logf("RESULT takeover writer_ms=%d", time.Since(began).Milliseconds())
	taken := done.Streams[0]
	end := taken.Last
	if end < last || end >= lost || !taken.Doubt || len(taken.Gaps) != 1 {
		t.Fatalf("%+v: %d reached b, %d were confirmed", taken, last, lost)
	}
	gap := taken.Gaps[0]
	if gap.From != end+1 || gap.To < lost+1<<32 {
		t.Fatalf("gap %+v behind %d: %d were confirmed", gap, end, lost)
	}
	// What the lost city confirmed by itself is never another entry's offset.
	verify(t, lb, end)
	r, err := lb.OpenReader(ctx, "s", log.ReaderOptions{From: end})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(ctx); err != nil {
		t.Fatal(err)
	}
	var none *log.LostError
	if _, err := r.Next(ctx); !errors.As(err, &none) || none.From != gap.From || none.To != gap.To {
		t.Fatalf("behind what is kept: %v, want the gap %+v", err, gap)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	last = fill(t, w, 100)
	if last != gap.To+100 {
		t.Fatalf("100 entries up to %d behind the gap up to %d", last, gap.To)
	}
	if r, err = lb.OpenReader(ctx, "s", log.ReaderOptions{From: gap.To + 1}); err != nil {
		t.Fatal(err)
	}
	for o := gap.To + 1; o <= last; o++ {
		if e, err := r.Next(ctx); err != nil || e.Offset != o || string(e.Payload) != string(entry(o)) {
			t.Fatalf("entry %d, want %d: %v", e.Offset, o, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a1", "a2", "a3"} {
		c.Start(name)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.Until("the old city stands in quarantine and has exported", func() bool {
		for _, name := range []string{"a1", "a2", "a3"} {
			q := c.Node(name).Status().Quarantine
			if q == nil || !q.Exported {
				return false
			}
		}
		return true
	})
	most := int64(0)
	for _, name := range []string{"a1", "a2", "a3"} {
		q := c.Node(name).Status().Quarantine
		most = max(most, q.Entries)
		for _, f := range q.Files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
				var x node.Exported
				if err := json.Unmarshal([]byte(line), &x); err != nil || x.Offset != end+1+log.Offset(i) || string(x.Payload) != string(entry(x.Offset)) {
					t.Fatalf("%s line %d: entry %d %.20q: %v", f, i, x.Offset, x.Payload, err)
				}
			}
		}
	}
	if most != int64(lost-end) {
		t.Fatalf("%d entries are exported, want %d", most, lost-end)
	}
	old := c.Client("a", func(x *client.Config) {
		x.Nodes, x.OpenFor = []string{c.List()[0].Address}, 500*time.Millisecond
	})
	if _, err := old.OpenWriter(ctx, "s"); err == nil {
		t.Fatal("a writer on a node in quarantine")
	}
	// A node whose export is not complete, whatever it says, does not rejoin: it
	// exports anew.
	holder := ""
	for _, name := range []string{"a1", "a2", "a3"} {
		if q := c.Node(name).Status().Quarantine; len(q.Files) > 0 {
			holder = name
		}
	}
	c.Stop(holder)
	state := filepath.Join(c.Member(holder).Dir, "quarantine", "state.json")
	b, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	var q node.Quarantine
	if err := json.Unmarshal(b, &q); err != nil {
		t.Fatal(err)
	}
	q.Files = nil
	if b, err = json.Marshal(q); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Start(holder)
	var told node.Rejoined
	if err := rejoin(ctx, c.Node(holder).Addr().String(), node.RejoinOrder{Preview: true}, &told); err != nil || len(told.Unexported) != 1 || told.Unexported[0].From != end+1 {
		t.Fatalf("%+v, %v", told, err)
	}
	if err := rejoin(ctx, c.Node(holder).Addr().String(), node.RejoinOrder{}, &told); !errors.Is(err, log.ErrProtocol) || !strings.Contains(err.Error(), "nobody else has") {
		t.Fatalf("it rejoins: %v", err)
	}
	c.Until("it has exported anew", func() bool {
		q := c.Node(holder).Status().Quarantine
		return q.Exported && len(q.Files) > 0
	})
	told = node.Rejoined{}
	if err := rejoin(ctx, c.Node(holder).Addr().String(), node.RejoinOrder{Preview: true}, &told); err != nil || len(told.Unexported) != 0 {
		t.Fatalf("%+v, %v", told, err)
	}
	// One of them rejoins with a fresh identity.
	if _, err := node.Rejoin(c.Member("a1").Dir); err == nil {
		t.Fatal("a running node's directory was moved")
	}
	c.Stop("a1")
	aside, err := node.Rejoin(c.Member("a1").Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Fatal(err)
	}
	c.Start("a1")
	c.Until("a1 is part of the cluster again", func() bool {
		s := c.Node("a1").Status()
		return s.State == node.StateServing && s.Generation == 2
	})
	if _, err := c.Node("b2").Takeover(ctx, node.Attestation{By: "t", Reason: "r", Lost: []string{"b2"}}); !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("a takeover by a lost node: %v", err)
	}
}

// rejoin orders a node to, as an operator's tool does.
func rejoin(ctx context.Context, address string, o node.RejoinOrder, answer *node.Rejoined) error {
	return ask(ctx, address, node.AdminRejoin, o, answer)
}

// ask sends an administration's request, as a tool or the coordinator of a takeover does.
func ask(ctx context.Context, address, verb string, request, answer any) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	l := link.New(conn, link.Options{})
	defer l.Close() // nothing is lost with it
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var ok wire.AdminOK
	for _, step := range []struct{ ask, reply wire.Message }{
		{&wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeTool, Client: "test"}, &wire.Welcome{}},
		{&wire.Admin{Verb: verb, Request: b}, &ok},
	} {
		if err := l.Send(step.ask); err != nil {
			return err
		}
		if err := l.Expect(ctx, step.reply); err != nil {
			return err
		}
	}
	return json.Unmarshal(ok.Response, answer)
}

// TestDamageIsReported: a reader meets damage on a node. The node says at once that
// it no longer has all of the segment, and is given it again.
func TestDamageIsReported(t *testing.T) {
	c := nodetest.New(t, nodetest.Options{Nodes: []string{"a1", "b1"}})
	w := open(t, c.Client("a", nil))
	last := fill(t, w, 60)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c.Until("b1 holds the closed segment", func() bool {
		r := c.Node("b1").Status().Replicas
		return len(r) == 1 && r[0].Closed && !r[0].Incomplete
	})
	disk, hurt := c.Disk("b1"), false
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
			hurt = true
		}
	}
	if !hurt {
		t.Fatal("entry 30 is on no disk")
	}
	verify(t, c.Client("b", func(c *client.Config) { c.Far = client.FarAnytime }), last) // from b1, then from a1
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)             // the next review of all replicas would come later
	defer cancel()
	for {
		s := c.Node("b1").Status()
		if s.Keeper.Done > 0 && !s.Replicas[0].Suspect && !s.Replicas[0].Incomplete {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("it is not repaired: %+v %+v", s.Keeper, s.Replicas)
		}
	}
	verify(t, c.Client("b", func(c *client.Config) { c.Far = client.FarNever }), last)
}
