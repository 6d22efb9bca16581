package meta

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestForcedTakeover loses city a with three of five voters, goes on in city b with
// what is left, and meets the old ones again.
func TestForcedTakeover(t *testing.T) {
	t.Parallel()
	all := []string{"a1", "a2", "a3", "b1", "b2"}
	c := newCluster(t, all...)
	client := c.client()
	c.register(client, all...)
	must(t)(client.Do(within(t, 10*time.Second), Command{Create: &Create{Stream: "s", Policy: Policy{Rule: bothCities, Loss: LossBlock}}}))
	openOn(t, client, "s", quorum.Member{Node: "a1", UUID: "id-a1", City: "a"}, quorum.Member{Node: "b1", UUID: "id-b1", City: "b"})
	must(t)(client.Do(within(t, 10*time.Second), cursorAt("s", "g", 3)))
	old := views(t, c)
	survivors := []string{"b1", "b2"}
	for _, name := range all {
		c.vanish(name)
	}

	// The majority did more than the survivors heard of: a segment was closed at 9
	// and another one opened, which b1 attached.
	first, _ := viewOf(t, c, "b1").Segment("s", 1)
	second := first.Descriptor
	second.Segment, second.First, second.FirstLSO, second.Epoch = 2, 10, 9, 5
	replicas := []Replica{
		{Node: "b1", UUID: "id-b1", Descriptor: first.Descriptor, Fence: 5, Last: 11, LAC: 8},
		{Node: "b1", UUID: "id-b1", Descriptor: second, Fence: 5, Last: 20, LAC: 18},
		{Node: "a1", UUID: "id-a1", Descriptor: second, Fence: 9, Last: 99, LAC: 99}, // not a survivor: not heard
	}
	var voters []Peer
	var exports []Export
	for _, name := range survivors {
		voters = append(voters, Peer{name, name})
		e, err := ReadExport(c.nodes[name].dir, name)
		if err != nil {
			t.Fatal(err)
		}
		exports = append(exports, e)
	}
	seed, err := MakeSeed(Succession{Exports: exports, Replicas: replicas, Voters: voters, Reason: "city a is gone", Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(survivors, "b1") { // once more: it may be repeated
		if err := Install(c.nodes[name].dir, name, seed); err != nil {
			t.Fatal(err)
		}
		c.nodes[name].gen = seed.Generation
	}
	if err := Install(c.nodes["a1"].dir, "a1", seed); !errors.Is(err, log.ErrIdentity) {
		t.Fatalf("installed on a node that was given up: %v", err)
	}
	for _, name := range survivors {
		c.start(name)
	}
	must(t)(client.Do(within(t, 20*time.Second), Command{Own: &Own{Stream: "s", Owner: "q"}}))
	st, err := client.Stream(within(t, 20*time.Second), "s")
	if err != nil {
		t.Fatal(err)
	}
	if st.Generation != 2 || st.Epoch <= 9 || len(st.Segments) != 2 || len(st.Cursors) != 1 || st.Version <= old {
		t.Fatalf("%+v", st)
	}
	if s := st.Segments[0]; !s.Closed || s.Last != 9 || len(s.Holders) != 1 || s.Holders[0].Node != "b1" {
		t.Fatalf("first: %+v", s)
	}
	if s := st.Segments[1]; s.Closed || s.Segment != 2 || s.First != 10 || st.NextSegment != 3 {
		t.Fatalf("second: %+v", s)
	}
	if len(st.Windows) != 1 || st.Windows[0].From != 0 || st.Windows[0].To != 9 {
		t.Fatalf("windows: %+v", st.Windows)
	}
	if nodes, err := client.Nodes(within(t, 20*time.Second)); err != nil || len(nodes) != 2 {
		t.Fatalf("nodes: %+v, %v", nodes, err)
	}

	// The others return as if nothing had happened: a majority of the old cluster.
	// They may elect one of their own, but the survivors let none of them in, and
	// they none of the survivors.
	for _, name := range []string{"a1", "a2", "a3"} {
		c.start(name)
	}
	c.leader("a1", "a2", "a3")
	time.Sleep(4 * testHeartbeat)
	for _, name := range survivors {
		if s := c.nodes[name].server.Status(); s.Generation != 2 || s.Leader == "" || s.Leader[0] != 'b' || len(s.Voters) != 2 {
			t.Fatalf("%s: %+v", name, s)
		}
	}
	if err := viewOf(t, c, "b1").Admit("a1", "id-a1", 1); !errors.Is(err, log.ErrGeneration) {
		t.Fatalf("%v", err)
	}
	for _, name := range []string{"a1", "a2", "a3"} { // they learned of it, and stand aside
		c.stop(name)
	}
	// One is let in again, with a fresh directory.
	if err := os.RemoveAll(c.nodes["a1"].dir); err != nil {
		t.Fatal(err)
	}
	c.nodes["a1"].uuid, c.nodes["a1"].gen = "fresh", 2
	c.start("a1")
	c.register(client, "a1")
	eventually(t, "its vote", func() error {
		if s := c.nodes["a1"].server.Status(); len(s.Voters) != 3 || s.Generation != 2 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err := Install(t.TempDir(), "b1", Seed{Generation: 1, Voters: voters, State: seed.State}); !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("a seed that lies: %v", err)
	}
}

func viewOf(t *testing.T, c *cluster, name string) *View {
	t.Helper()
	v, _ := c.nodes[name].server.Local()
	return v
}

// exportOfWorld is an export as a survivor of that state would give it.
func exportOfWorld(w *world, node string) Export {
	return Export{Node: node, UUID: "id-" + node, Generation: w.s.v.generation, Index: 100, Term: 3, TermSeen: 4, State: w.save()}
}

func seeded(t testing.TB, w *world, replicas []Replica) *world {
	t.Helper()
	seed, err := MakeSeed(Succession{Exports: []Export{exportOfWorld(w, "b1"), exportOfWorld(w, "b2")}, Replicas: replicas, Voters: []Peer{{"b1", "b1:1"}, {"b2", "b2:1"}}, Reason: "test", Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	return loaded(t, w, seed)
}

// loaded is the world that a seed makes.
func loaded(t testing.TB, w *world, seed Seed) *world {
	t.Helper()
	s, err := Load(bytes.NewReader(seed.State))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, s: s, now: w.now}
}

func TestMergeOfReplicas(t *testing.T) {
	// What the survivors' metadata knows: segment 1 closed at 9, segment 2 open.
	base := func(t *testing.T) (*world, []quorum.Descriptor) {
		w := newWorld(t)
		w.create("s", LossBlock)
		w.open("s", true, "a1", "b1")
		w.roll("s", 10, []string{"a1", "b1"}, true, "a1", "b1")
		segments, _ := w.s.View().Segments("s", 0, 5)
		d := []quorum.Descriptor{{}, segments[0].Descriptor, segments[1].Descriptor}
		for n := uint32(3); n <= 5; n++ { // what may have come later
			x := d[2]
			x.Segment, x.First, x.FirstLSO, x.Epoch = n, log.Offset(10*(n-1)), log.Offset(10*(n-1)-1), log.Epoch(n)
			d = append(d, x)
		}
		return w, d
	}
	at := func(d quorum.Descriptor, last, lac log.Offset) Replica {
		return Replica{Node: "b1", UUID: "id-b1", Descriptor: d, Fence: d.Epoch, Last: last, LAC: lac}
	}
	shape := func(w *world) (out string) {
		segments, _ := w.s.View().Segments("s", 0, 50)
		for _, s := range segments {
			out += fmt.Sprintf("%d[%d", s.Segment, s.First)
			if s.Closed {
				out += fmt.Sprintf("-%d/%d:%d", s.Last, s.LSO, len(s.Holders))
			}
			if s.LostTail > 0 {
				out += fmt.Sprintf(" without %d", s.LostTail)
			}
			out += "] "
		}
		return out
	}
	for _, x := range []struct {
		name string
		give func([]quorum.Descriptor) []Replica
		want string
	}{
		{"nothing new", func(d []quorum.Descriptor) []Replica { return []Replica{at(d[1], 9, 9), at(d[2], 14, 12)} }, "1[0-9/9:1] 2[10] "},
		{"no replicas", func([]quorum.Descriptor) []Replica { return nil }, "1[0-9/9:1] 2[10] "},
		{"a newer one", func(d []quorum.Descriptor) []Replica { return []Replica{at(d[2], 25, 19), at(d[3], 24, 22)} }, "1[0-9/9:1] 2[10-19/19:1] 3[20] "},
		{"a newer one, the old one lags", func(d []quorum.Descriptor) []Replica { return []Replica{at(d[2], 18, 17), at(d[3], 24, 22)} },
			"1[0-9/9:1] 2[10-19/19:1 without 1] 3[20] "},
		{"the newest was closed", func(d []quorum.Descriptor) []Replica {
			r := at(d[2], 19, 15)
			r.Closed, r.ClosedLast, r.ClosedLSO = true, 17, 16
			return []Replica{r}
		}, "1[0-9/9:1] 2[10-17/16:1] "},
		{"one is missing between", func(d []quorum.Descriptor) []Replica { return []Replica{at(d[2], 19, 15), at(d[4], 35, 32)} },
			"1[0-9/9:1] 2[10-15/9:1] 3[16-29/29:0] 4[30] "},
		{"one is missing, the end is known", func(d []quorum.Descriptor) []Replica {
			r := at(d[2], 19, 15)
			r.Closed, r.ClosedLast, r.ClosedLSO = true, 19, 19
			return []Replica{r, at(d[4], 35, 32)}
		}, "1[0-9/9:1] 2[10-19/19:1] 3[20-29/29:0] 4[30] "},
		{"two newer ones", func(d []quorum.Descriptor) []Replica { return []Replica{at(d[4], 35, 32), at(d[3], 29, 29)} },
			"1[0-9/9:1] 2[10-19/19:0] 3[20-29/29:1] 4[30] "},
		{"the open one was never committed", func(d []quorum.Descriptor) []Replica {
			other := d[2]
			other.Epoch, other.First, other.FirstLSO = 7, 8, 7
			return []Replica{at(d[1], 9, 7), at(other, 12, 11)}
		}, "1[0-7/7:1] 2[8] "},
		{"a close that was never committed", func(d []quorum.Descriptor) []Replica { return []Replica{at(d[1], 12, 12)} }, "1[0] "},
		{"a close elsewhere", func(d []quorum.Descriptor) []Replica {
			r := at(d[1], 12, 10)
			r.Closed, r.ClosedLast, r.ClosedLSO = true, 12, 12
			return []Replica{r}
		}, "1[0-12/12:1] "},
		{"a suspect replica is named only where there is no other", func(d []quorum.Descriptor) []Replica {
			r := at(d[2], 25, 19)
			r.Suspect = true
			return []Replica{r, at(d[3], 24, 22)}
		}, "1[0-9/9:1] 2[10-19/19:1] 3[20] "},
	} {
		t.Run(x.name, func(t *testing.T) {
			w, d := base(t)
			after := seeded(t, w, x.give(d))
			if got := shape(after); got != x.want {
				t.Fatalf("got %s, want %s", got, x.want)
			}
			// The stream goes on: own, close what is open, open the next.
			st := after.do(Command{Own: &Own{Stream: "s", Owner: "q"}}).Stream
			if st.Epoch < takeoverStep || st.Generation != 2 {
				t.Fatalf("epoch %d, generation %d", st.Epoch, st.Generation)
			}
			if n := len(st.Segments); !st.Segments[n-1].Closed {
				s := st.Segments[n-1]
				after.do(Command{Advance: &Advance{Stream: "s", Epoch: st.Epoch, Close: &Close{Segment: s.Segment, Last: s.First + 4, LSO: s.First + 4, Holders: members("b1")}}})
			}
			after.do(Command{SetPolicy: &SetPolicy{Stream: "s", Policy: Policy{Rule: quorum.NodeRule{Total: 1}, Loss: LossBlock}}})
			next := after.opened("s", true, "b1", "b2")
			next.Rule = quorum.NodeRule{Total: 1}
			after.do(Command{Advance: &Advance{Stream: "s", Epoch: st.Epoch, Open: next}})
		})
	}
	// A stream the metadata never heard of.
	w, d := base(t)
	x := d[1]
	x.Stream = "t"
	after := seeded(t, w, []Replica{at(x, 5, 5)})
	if st := after.stream("t"); len(st.Segments) != 2 || st.Segments[0].Last != 5 || !st.Segments[1].Lost || st.Policy.Rule.Cities["b"] != 1 {
		t.Fatalf("unknown stream, and so unknown policy: %+v", st)
	}
	w, d = base(t)
	bad := d[3]
	bad.First, bad.FirstLSO = 12, 11
	if _, err := MakeSeed(Succession{Exports: []Export{exportOfWorld(w, "b1")}, Replicas: []Replica{at(d[3], 25, 22), {Node: "b1", UUID: "id-b1", Descriptor: bad}}, Voters: []Peer{{"b1", "b1:1"}}, Now: w.now}); !errors.Is(err, log.ErrSuspect) {
		t.Fatalf("two descriptors of one segment: %v", err)
	}
	if _, err := MakeSeed(Succession{Exports: []Export{exportOfWorld(w, "b1")}, Voters: []Peer{{"b1", "b1:1"}, {"b2", "b2:1"}}, Now: w.now}); !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("without the export of a survivor: %v", err)
	}
}

// TestMergeKeepsPromises cuts a random history at two places, one for what the
// survivors' metadata knows and one for what their replicas hold, and checks that
// nothing that city b's replicas hold of the confirmed history is given up.
func TestMergeKeepsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(&testing.T{})
		w.t = t
		w.create("s", LossBlock)
		w.open("s", true, "a1", "b1")
		var exports [][]byte
		owners := rapid.Bool().Draw(t, "owners") // with several, a missing number is ambiguous
		for range rapid.IntRange(1, 8).Draw(t, "rolls") {
			exports = append(exports, w.save())
			w.roll("s", rapid.IntRange(map[bool]int{true: 1}[owners], 9).Draw(t, "entries"), []string{"a1", "b1"}, true, "a1", "b1")
			if owners {
				w.do(Command{Own: &Own{Stream: "s"}})
			}
		}
		segments, _ := w.s.View().Segments("s", 0, 100)
		var replicas []Replica
		for _, s := range segments {
			r := Replica{Node: "b1", UUID: "id-b1", Descriptor: s.Descriptor, Fence: s.Epoch, Last: s.First + 20, LAC: s.First - 1}
			if s.Closed { // b1 holds all of it, and more that was never confirmed
				r.Last, r.LAC = s.Last+log.Offset(rapid.IntRange(0, 2).Draw(t, "more")), s.Last-log.Offset(rapid.IntRange(0, int(s.Last-s.First)).Draw(t, "behind"))
				if rapid.Bool().Draw(t, "told") {
					r.Closed, r.ClosedLast, r.ClosedLSO, r.Last = true, s.Last, s.LSO, s.Last
				}
			}
			replicas = append(replicas, r)
		}
		e := Export{Node: "b1", UUID: "id-b1", Generation: 1, Index: 1, Term: 1, State: rapid.SampledFrom(exports).Draw(t, "export")}
		other := e
		other.Node, other.UUID = "b2", "id-b2"
		seed, err := MakeSeed(Succession{Exports: []Export{e, other}, Replicas: replicas, Voters: []Peer{{"b1", "b1:1"}, {"b2", "b2:1"}}, Reason: "test", Now: w.now})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Load(bytes.NewReader(seed.State))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := s.View().Segments("s", 0, 100)
		if len(got) != len(segments) {
			t.Fatalf("%d segments, want %d", len(got), len(segments))
		}
		for i := range got {
			a, b := got[i], segments[i]
			if !sameDescriptor(&a.Descriptor, &b.Descriptor) || a.Closed != b.Closed || a.Last != b.Last || a.LSO != b.LSO {
				t.Fatalf("got %+v, want %+v", a, b)
			}
			if a.Closed && (len(a.Holders) != 1 || a.Holders[0].Node != "b1") {
				t.Fatalf("held by %+v", a.Holders)
			}
		}
		if st, _ := s.View().Stream("s"); st.Epoch <= w.stream("s").Epoch {
			t.Fatalf("epoch %d after %d", st.Epoch, w.stream("s").Epoch)
		}
	})
}
