package meta

import (
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestTakeoverLeaps: offsets that the lost city may have confirmed entries under by
// itself are passed over; where its rule kept it from that, nothing is.
func TestTakeoverLeaps(t *testing.T) {
	b1 := func(d quorum.Descriptor, last log.Offset) Replica {
		return Replica{Node: "b1", UUID: "id-b1", Descriptor: d, Fence: d.Epoch, Last: last, LAC: d.First - 1, LSO: last - 1}
	}
	policy := func(w *world, p Policy) { w.do(Command{SetPolicy: &SetPolicy{Stream: "s", Policy: p}}) }
	for _, x := range []struct {
		name string
		loss Loss
		// change makes the state differ from segment 1 from 0, open on a1 and b1.
		change func(w *world)
		have   func(d quorum.Descriptor) []Replica
		lost   []Node
		last   log.Offset // of what is kept; log.None: nothing
		open   bool       // the segment goes on: no offset is passed over
	}{
		{name: "both cities always", loss: LossBlock, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} }, open: true},
		{name: "both cities always, and it was never written to", loss: LossBlock, open: true},
		{name: "the lost could degrade by policy", loss: LossDegradeAfter, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} }, last: 7},
		{name: "the lost could degrade by hand", loss: LossDegradeManual, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} }, last: 7},
		{name: "it could, and nobody has anything", loss: LossDegradeAfter, last: log.None},
		{name: "degraded, and blocking again", loss: LossDegradeManual, change: func(w *world) {
			w.do(Command{Degrade: &Degrade{Stream: "s", City: "b"}})
			policy(w, Policy{Rule: bothCities, Loss: LossBlock})
		}, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} }, last: 7},
		{name: "the rule asks for no city", loss: LossBlock, change: func(w *world) {
			policy(w, Policy{Rule: quorum.NodeRule{Total: 2}, Loss: LossBlock})
		}, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} }, last: 7},
		{name: "a cursor stands further on", loss: LossDegradeAfter, change: func(w *world) {
			w.do(Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "g", Offset: 30}}})
		}, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} }, last: 7},
		{name: "the survivor's copy is damaged", loss: LossBlock, have: func(d quorum.Descriptor) []Replica {
			r := b1(d, 7)
			r.Suspect = true
			return []Replica{r}
		}, last: 7},
		{name: "the survivor has another disk now", loss: LossBlock, change: func(w *world) {
			w.do(Command{Forget: &Forget{Node: "b1", UUID: "id-b1"}})
			w.do(Command{Register: &Register{Node: Node{Name: "b1", UUID: "id-b1x", City: "b", Address: "b1:1"}}})
		}, last: log.None},
		{name: "a lost node in every city", loss: LossBlock, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} },
			lost: []Node{{Name: "b3", City: "b"}}, last: 7},
		{name: "a lost witness in every city", loss: LossBlock, have: func(d quorum.Descriptor) []Replica { return []Replica{b1(d, 7)} },
			lost: []Node{{Name: "b3", City: "b", Witness: true}}, open: true},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t)
			w.create("s", x.loss)
			w.open("s", true, "a1", "b1")
			if x.change != nil {
				x.change(w)
			}
			segments, _ := w.s.View().Segments("s", 0, 5)
			var have []Replica
			if x.have != nil {
				have = x.have(segments[0].Descriptor)
			}
			exports := []Export{exportOfWorld(w, "b1"), exportOfWorld(w, "b2")}
			if n, _ := w.s.View().Node("b1"); n.UUID != "id-b1" {
				exports[0].UUID = n.UUID
			}
			seed, err := MakeSeed(Succession{Exports: exports, Replicas: have, Voters: []Peer{{"b1", "b1:1"}, {"b2", "b2:1"}}, Lost: x.lost, Reason: "test", Now: w.now})
			if err != nil {
				t.Fatal(err)
			}
			after := loaded(t, w, seed)
			st := after.stream("s")
			if x.open {
				if len(st.Gaps) != 0 || len(st.Segments) != 1 || st.Segments[0].Closed {
					t.Fatalf("%+v", st)
				}
				return
			}
			gap := Gap{From: x.last + 1, To: x.last + LostEntries}
			for _, c := range st.Cursors {
				gap.To = max(gap.To, c.Offset+LostEntries)
			}
			if len(st.Gaps) != 1 || st.Gaps[0].From != gap.From || st.Gaps[0].To != gap.To || st.Gaps[0].Reason != "takeover: test" || st.NextFirst != gap.To+1 {
				t.Fatalf("%+v, want a gap like %+v", st, gap)
			}
			n := len(st.Segments)
			if s := st.Segments[n-1]; !s.Lost || !s.Closed || s.First != gap.From || s.Last != gap.To || s.Generation != 2 {
				t.Fatalf("the gap's segment: %+v", s)
			}
			if x.last != log.None {
				if s := st.Segments[n-2]; !s.Closed || s.Last != x.last || s.LSO != x.last-1 || len(s.Holders) != 1 || s.Holders[0].Node != "b1" {
					t.Fatalf("what is kept: %+v", s)
				}
			}
			// The next owner goes on behind it.
			policy(after, Policy{Rule: quorum.NodeRule{Total: 1}, Loss: LossBlock})
			st = *after.do(Command{Own: &Own{Stream: "s", Owner: "q"}}).Stream
			next := after.opened("s", true, "b2")
			next.Rule = quorum.NodeRule{Total: 1}
			after.do(Command{Advance: &Advance{Stream: "s", Epoch: st.Epoch, Open: next}})
			if next.First != gap.To+1 {
				t.Fatalf("the next segment starts at %d, behind a gap up to %d", next.First, gap.To)
			}
		})
	}
}

// TestTakeoverOfOrphans: closed segments that only lost nodes were listed to hold.
// A survivor that has all of one says so; what nobody has is lost, and recorded.
func TestTakeoverOfOrphans(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossDegradeAfter)
	w.open("s", true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, false, "a1")      // closed on a1 alone, twice
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1") // without 2, which b1 has nothing of
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
	segments, _ := w.s.View().Segments("s", 0, 5)
	// b1 lacked the end of the last one when it was closed, in the middle of a
	// transaction.
	part := Replica{Node: "b1", UUID: "id-b1", Descriptor: segments[2].Descriptor, Fence: 1, Last: 26, LAC: 26, LSO: 24, Closed: true, ClosedLast: 29, ClosedLSO: 29, Suspect: true, Partial: true}
	whole := Replica{Node: "b1", UUID: "id-b1", Descriptor: segments[0].Descriptor, Fence: 1, Last: 9, LAC: 9, LSO: 9}
	other := part
	other.Node, other.UUID, other.Last, other.Descriptor.Epoch = "b2", "id-b2", 29, 0
	lostNode := part
	lostNode.Node, lostNode.UUID, lostNode.Last = "a1", "id-a1", 29
	seed, err := MakeSeed(Succession{
		Exports: []Export{exportOfWorld(w, "b1"), exportOfWorld(w, "b2")}, Replicas: []Replica{whole, part, lostNode}, Voters: []Peer{{"b1", "b1:1"}, {"b2", "b2:1"}}, Reason: "test", Now: w.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	after := loaded(t, w, seed)
	list, _ := after.s.View().Segments("s", 0, 10)
	got := ""
	for _, s := range list {
		got += fmt.Sprintf("%d[%d-%d] lost %t, the last %d, held by %d; ", s.Segment, s.First, s.Last, s.Lost, s.LostTail, len(s.Holders))
	}
	if want := fmt.Sprintf("1[0-9] lost false, the last 0, held by 1; 2[10-19] lost true, the last 0, held by 0; "+
		"3[20-29] lost false, the last 3, held by 1; 5[30-%d] lost true, the last 0, held by 0; ", 29+LostEntries); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	if s := list[2]; s.Left() != 26 || s.Upto(false) != 26 || s.Upto(true) != 24 || s.LSO != 29 || s.Bytes != 0 {
		t.Fatalf("what is left of the third: %+v", s)
	}
	st := after.stream("s")
	if len(st.Gaps) != 3 || st.Gaps[0].From != 10 || st.Gaps[0].To != 19 || st.Gaps[1].From != 27 || st.Gaps[1].To != 29 || st.Gaps[2].From != 30 {
		t.Fatalf("gaps %+v", st.Gaps)
	}
	if len(st.Windows) == 0 || !st.Windows[0].Trimmed {
		t.Fatalf("the window whose segments were lost: %+v", st.Windows)
	}
	after.fails(log.ErrTrimmed, Command{Held: &Held{Stream: "s", Segment: 2, Member: quorum.Member{Node: "b1", UUID: "id-b1", City: "b"}}})
	if _, ok := salvaged(after, "s", 3, other); ok {
		t.Fatal("another segment of the same number counts")
	}
}

// salvaged says whether a replica counts for a segment.
func salvaged(w *world, stream string, number uint32, r Replica) ([]Left, bool) {
	st, _ := w.s.View().streams.get(stream)
	out := st.left(number, []Replica{r})
	return out, len(out) > 0
}
