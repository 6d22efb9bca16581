package meta

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestRandomCommands applies commands that mostly make sense and checks after each
// what the doc comments promise, from the outside.
func TestRandomCommands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(&testing.T{})
		w.t = t
		m := &model{
			cursors: map[string]log.Offset{}, holders: map[uint32][]string{}, ends: map[uint32]log.Offset{},
		}
		loss := rapid.SampledFrom([]Loss{LossBlock, LossDegradeManual, LossDegradeAfter}).Draw(t, "loss")
		w.create("s", loss)
		m.epoch = 1
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			c := m.draw(t, w)
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "seconds")) * time.Second)
			c.Now = w.now
			old, before := w.s.View(), w.save()
			r, err := w.s.Apply(c)
			var was bytes.Buffer
			if e := old.Save(&was); e != nil || !bytes.Equal(was.Bytes(), before) {
				t.Fatalf("an old view changed (%v)", e)
			}
			if err != nil && !bytes.Equal(before, w.save()) {
				t.Fatalf("%v left a change", err)
			}
			if err == nil && c.Advance != nil {
				again, err := w.s.Apply(c)
				if err != nil || again.Stream.Version != r.Stream.Version {
					t.Fatalf("repeated: %v", err)
				}
			}
			m.check(t, w, c, err)
		}
		loaded, err := Load(bytes.NewReader(w.save()))
		if err != nil {
			t.Fatal(err)
		}
		x := &world{t: t, s: loaded}
		if !bytes.Equal(x.save(), w.save()) {
			t.Fatal("a snapshot that was loaded is another one")
		}
		if a, b := x.stream("s"), w.stream("s"); a.Short != b.Short {
			t.Fatalf("%d short, loaded %d", b.Short, a.Short)
		}
	})
}

type model struct {
	epoch   log.Epoch
	cursors map[string]log.Offset
	holders map[uint32][]string
	ends    map[uint32]log.Offset
	first   log.Offset
	version uint64
}

var storing = []string{"a1", "a2", "b1", "b2"}

func (m *model) draw(t *rapid.T, w *world) Command {
	st := w.stream("s")
	some := func(label string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(storing), 1, 4, rapid.ID[string]).Draw(t, label)
	}
	number := uint32(rapid.IntRange(0, int(st.NextSegment)).Draw(t, "number"))
	switch rapid.IntRange(0, 13).Draw(t, "verb") {
	case 0:
		return Command{Own: &Own{Stream: "s", Owner: "p"}}
	case 1, 2, 3, 4, 5, 6:
		a := &Advance{Stream: "s", Epoch: st.Epoch - log.Epoch(rapid.IntRange(0, 9).Draw(t, "old")/9)}
		d := w.opened("s", rapid.Bool().Draw(t, "protected"), some("members")...)
		if n := len(st.Segments); n > 0 && !st.Segments[n-1].Closed {
			count := rapid.IntRange(0, 5).Draw(t, "entries")
			a = w.rolled("s", count, some("holders"), d.Protected)
			if count > 0 && rapid.Bool().Draw(t, "inside a transaction") {
				a.Close.LSO = st.Segments[n-1].FirstLSO
			}
			d.First, d.FirstLSO = a.Close.Last+1, a.Close.LSO
		}
		if a.Open = d; a.Close != nil && rapid.IntRange(0, 3).Draw(t, "only close") == 0 {
			a.Open = nil
		}
		return Command{Advance: a}
	case 7:
		return Command{Degrade: &Degrade{Stream: "s", City: "b", Off: rapid.Bool().Draw(t, "off")}}
	case 8, 9:
		h := &Held{Stream: "s", Segment: number, Lost: rapid.IntRange(0, 3).Draw(t, "lost") == 0}
		h.Member = members(rapid.SampledFrom(storing).Draw(t, "holder"))[0]
		return Command{Held: h}
	case 10:
		return Command{Trim: &Trim{
			Stream: "s", Before: log.Offset(rapid.IntRange(0, int(st.NextFirst)+2).Draw(t, "before")), Keep: []uint32{number},
			Evict: rapid.IntRange(0, 4).Draw(t, "evict") == 0,
		}}
	case 11, 12:
		return Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{
			Group: rapid.SampledFrom([]string{"g", "h"}).Draw(t, "group"), Offset: log.Offset(rapid.IntRange(-1, int(st.NextFirst)).Draw(t, "offset")),
		}}}
	default:
		return Command{SetPolicy: &SetPolicy{Stream: "s", Policy: Policy{
			Loss: st.Policy.Loss, Rule: rapid.SampledFrom([]quorum.NodeRule{bothCities, {Total: 1}, {Total: 3}}).Draw(t, "rule"),
		}}}
	}
}

func (m *model) check(t *rapid.T, w *world, c Command, err error) {
	st := w.stream("s")
	all, _ := w.s.View().Segments("s", 0, 1000)
	if st.Epoch < m.epoch || st.Version < m.version {
		t.Fatalf("epoch %d after %d, version %d after %d", st.Epoch, m.epoch, st.Version, m.version)
	}
	m.epoch, m.version = st.Epoch, st.Version
	lowest := log.Offset(1 << 40)
	for _, cur := range st.Cursors {
		if old, ok := m.cursors[cur.Group]; ok && cur.Offset < old {
			t.Fatalf("cursor %q went from %d to %d", cur.Group, old, cur.Offset)
		}
		m.cursors[cur.Group] = cur.Offset
		lowest = min(lowest, cur.Offset)
	}
	if st.First > m.first && (c.Trim == nil || !c.Trim.Evict && (st.First > lowest+1 || len(st.Cursors) == 0)) {
		t.Fatalf("trimmed from %d to %d, the lowest cursor is %d", m.first, st.First, lowest)
	}
	m.first = st.First
	next, whole := log.Offset(0), true
	for i, s := range all {
		if s.Compacted || i > 0 && all[i-1].Compacted || i == 0 {
			if s.First < next {
				t.Fatalf("segment %d at %d overlaps", s.Segment, s.First)
			}
		} else if s.First != next {
			t.Fatalf("segment %d at %d, want %d", s.Segment, s.First, next)
		}
		if i > 0 && s.Segment <= all[i-1].Segment || s.Segment >= st.NextSegment {
			t.Fatalf("segment number %d", s.Segment)
		}
		if !s.Closed {
			if i != len(all)-1 || len(s.Holders) > 0 {
				t.Fatalf("segment %d is open", s.Segment)
			}
			whole = false
			continue
		}
		next = s.Last + 1
		if end, ok := m.ends[s.Segment]; ok && end != s.Last {
			t.Fatalf("segment %d ended at %d, now at %d", s.Segment, end, s.Last)
		}
		m.ends[s.Segment] = s.Last
		var names []string
		for _, h := range s.Holders {
			names = append(names, h.Node)
		}
		if len(names) == 0 {
			t.Fatalf("segment %d is held by nobody", s.Segment)
		}
		for _, old := range m.holders[s.Segment] {
			if !slices.Contains(names, old) && (c.Held == nil || !c.Held.Lost || c.Held.Member.Node != old) {
				t.Fatalf("segment %d lost holder %q by itself", s.Segment, old)
			}
		}
		m.holders[s.Segment] = names
		_, ruleErr := st.Policy.Rule.Of(s.Holders)
		if listed := slices.ContainsFunc(w.s.View().Short("s", 0, 1000), func(x Segment) bool { return x.Segment == s.Segment }); listed != (ruleErr != nil) {
			t.Fatalf("segment %d: short %t, %v", s.Segment, listed, ruleErr)
		}
	}
	if whole && len(all) > 0 && st.NextFirst != next {
		t.Fatalf("next is %d, want %d", st.NextFirst, next)
	}
	m.checkWindows(t, st, all)
}

func (m *model) checkWindows(t *rapid.T, st Stream, all []Segment) {
	for i, x := range st.Windows {
		if x.To == log.None && (i != len(st.Windows)-1 || len(all) == 0 || all[len(all)-1].Closed || all[len(all)-1].Protected) {
			t.Fatalf("window %d has no end, but its segment has: %+v", i, x)
		}
		if x.To != log.None && x.To < x.From || i > 0 && x.From <= st.Windows[i-1].To {
			t.Fatalf("window %d: %+v", i, x)
		}
		if x.To == log.None || !x.RestoredAt.IsZero() {
			continue
		}
		missing := false
		for _, s := range all {
			missing = missing || s.Closed && s.First <= x.To && s.Last >= x.From && !satisfies(s.Holders, st.Policy.Rule)
		}
		if !missing {
			t.Fatalf("window %d has all its copies, and goes on: %+v", i, x)
		}
	}
	for _, s := range all {
		inside := slices.ContainsFunc(st.Windows, func(x Window) bool {
			return x.From <= s.First && (x.To == log.None || s.Closed && x.To >= s.Last)
		})
		if !s.Protected && !inside {
			t.Fatalf("segment %d is unprotected and in no window", s.Segment)
		}
	}
}

// TestRandomForget gives up nodes one after the other, each with what the others say
// they have, and checks from outside that nothing which one of them has is given up.
func TestRandomForget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(&testing.T{})
		w.t = t
		w.create("s", LossDegradeAfter)
		w.open("s", true, "a1", "b1")
		some := func(label string) []string {
			return rapid.SliceOfNDistinct(rapid.SampledFrom(storing), 1, 3, rapid.ID[string]).Draw(t, label)
		}
		rolls := rapid.IntRange(1, 4).Draw(t, "rolls")
		for range rolls {
			w.roll("s", rapid.IntRange(1, 6).Draw(t, "entries"), some("holders"), rapid.Bool().Draw(t, "protected"), "a1", "b1")
		}
		gone := map[string]bool{}
		for _, node := range rapid.SliceOfNDistinct(rapid.SampledFrom(storing), 1, 3, rapid.ID[string]).Draw(t, "forgotten") {
			gone[node] = true
			before, _ := w.s.View().Segments("s", 1, 100)
			f := &Forget{Node: node, UUID: "id-" + node}
			said := map[uint32]map[string]log.Offset{}
			for _, s := range before {
				if !s.Closed {
					continue
				}
				lose := Losing{Stream: "s", Segment: s.Segment}
				said[s.Segment] = map[string]log.Offset{}
				for _, other := range storing {
					last := log.Offset(rapid.IntRange(int(s.First)-1, int(s.Last)).Draw(t, "has"))
					if gone[other] || last < s.First {
						continue
					}
					l := Left{Node: other, UUID: "id-" + other, Last: last, LSO: log.Offset(rapid.IntRange(int(s.First)-1, int(last)).Draw(t, "lso")), Damaged: rapid.Bool().Draw(t, "damaged")}
					lose.Left = append(lose.Left, l)
					said[s.Segment][other] = last
				}
				f.Lose = append(f.Lose, lose)
			}
			w.do(Command{Forget: f, By: "ann", Reason: "test"})
			st := w.stream("s")
			after, _ := w.s.View().Segments("s", 1, 100)
			if len(after) != len(before) {
				t.Fatalf("%d segments, there were %d", len(after), len(before))
			}
			for i, s := range after {
				old := before[i]
				if s.Last != old.Last || s.LSO != old.LSO || !sameDescriptor(&s.Descriptor, &old.Descriptor) || s.Left() > old.Left() {
					t.Fatalf("segment %d: %+v was %+v", s.Segment, s, old)
				}
				orphan := s.Closed && !old.Lost && len(old.Holders) == 1 && old.Holders[0].Node == node
				if !orphan && s.Left() != old.Left() {
					t.Fatalf("segment %d has other holders, and lost entries: %+v", s.Segment, s)
				}
				most := s.First - 1
				for _, last := range said[s.Segment] {
					most = max(most, min(last, old.Left()))
				}
				if orphan && (s.Left() != most || s.Lost != (most < s.First) || s.Lost != (len(s.Holders) == 0)) {
					t.Fatalf("segment %d is left up to %d, of %d: %+v", s.Segment, s.Left(), most, s)
				}
				for _, h := range s.Holders {
					if gone[h.Node] || orphan && said[s.Segment][h.Node] < s.Left() {
						t.Fatalf("segment %d up to %d is held by %q: %v", s.Segment, s.Left(), h.Node, said[s.Segment])
					}
				}
				for o := s.First; s.Closed && o <= s.Last; o++ {
					recorded := slices.ContainsFunc(st.Gaps, func(g Gap) bool { return g.From <= o && o <= g.To })
					if recorded != (o > s.Left()) {
						t.Fatalf("entry %d of segment %d, left up to %d: recorded as lost %t, %+v", o, s.Segment, s.Left(), recorded, st.Gaps)
					}
				}
				_, ruleErr := st.Policy.Rule.Of(s.Holders)
				if listed := slices.ContainsFunc(w.s.View().Short("s", 0, 1000), func(x Segment) bool { return x.Segment == s.Segment }); listed != (s.Closed && !s.Lost && ruleErr != nil) {
					t.Fatalf("segment %d: short %t, %v", s.Segment, listed, ruleErr)
				}
				for _, x := range st.Windows { // one of entries that are lost never ends with copies
					if s.Closed && s.Left() < s.Last && x.From <= s.Last && (x.To == log.None || x.To > s.Left()) && x.RestoredAt.IsZero() && !x.Trimmed {
						t.Fatalf("window %+v of segment %d, left up to %d", x, s.Segment, s.Left())
					}
				}
			}
			loaded, err := Load(bytes.NewReader(w.save()))
			if err != nil {
				t.Fatal(err)
			}
			x := &world{t: t, s: loaded}
			if !bytes.Equal(x.save(), w.save()) || x.stream("s").Short != st.Short {
				t.Fatal("a snapshot that was loaded is another one")
			}
		}
	})
}

// TestRandomOrphans loses city a, which alone held some closed segments, and checks
// that whatever b's nodes have of them stays, and no more is said to be there.
func TestRandomOrphans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(&testing.T{})
		w.t = t
		w.create("s", LossDegradeAfter)
		w.open("s", true, "a1", "b1", "b2")
		for range rapid.IntRange(1, 5).Draw(t, "rolls") {
			holders := rapid.SampledFrom([][]string{{"a1"}, {"a1", "b1"}, {"b2"}}).Draw(t, "holders")
			w.roll("s", rapid.IntRange(1, 6).Draw(t, "entries"), holders, rapid.Bool().Draw(t, "protected"), "a1", "b1", "b2")
		}
		before, _ := w.s.View().Segments("s", 1, 100)
		var replicas []Replica
		has := map[uint32]log.Offset{}
		for _, s := range before[:len(before)-1] {
			has[s.Segment] = s.First - 1
			for _, node := range []string{"b1", "b2"} {
				r := Replica{Node: node, UUID: "id-" + node, Descriptor: s.Descriptor, Fence: s.Epoch, LAC: s.First - 1, Closed: true, ClosedLast: s.Last, ClosedLSO: s.LSO}
				r.Last = log.Offset(rapid.IntRange(int(s.First)-1, int(s.Last)).Draw(t, "has"))
				if slices.Contains(names(s.Holders), node) {
					r.Last = s.Last
				}
				r.LSO = log.Offset(rapid.IntRange(int(s.First)-1, int(r.Last)).Draw(t, "lso"))
				r.Partial = r.Last < s.Last && rapid.Bool().Draw(t, "good")
				r.Suspect = r.Last < s.Last
				if has[s.Segment] = max(has[s.Segment], r.Last); r.Last >= s.First || rapid.Bool().Draw(t, "empty") {
					replicas = append(replicas, r)
				}
			}
		}
		seed, err := MakeSeed(Succession{
			Exports:  []Export{{Node: "b1", UUID: "id-b1", Generation: 1, Index: 1, Term: 1, State: w.save()}, {Node: "b2", UUID: "id-b2", Generation: 1, Index: 1, Term: 1, State: w.save()}},
			Replicas: replicas, Voters: []Peer{{"b1", "b1:1"}, {"b2", "b2:1"}}, Reason: "test", Now: w.now,
		})
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(bytes.NewReader(seed.State))
		if err != nil {
			t.Fatal(err)
		}
		st, _ := loaded.View().Stream("s")
		for _, old := range before[:len(before)-1] {
			s, listed := loaded.View().Segment("s", old.Segment)
			if !listed || s.Last != old.Last || s.LSO != old.LSO {
				t.Fatalf("segment %d: %+v was %+v", old.Segment, s, old)
			}
			if s.Left() != has[s.Segment] || s.Lost != (s.Left() < s.First) || s.Upto(true) > s.Left() {
				t.Fatalf("segment %d is left up to %d, b has up to %d: %+v", s.Segment, s.Left(), has[s.Segment], s)
			}
			good := false
			for _, h := range s.Holders {
				i := slices.IndexFunc(replicas, func(r Replica) bool { return r.Node == h.Node && r.Descriptor.Segment == s.Segment })
				if i < 0 || replicas[i].Last < s.Left() {
					t.Fatalf("segment %d up to %d is held by %q: %+v", s.Segment, s.Left(), h.Node, replicas)
				}
				good = good || replicas[i].Partial || !replicas[i].Suspect
			}
			for _, r := range replicas {
				if r.Descriptor.Segment == s.Segment && r.Last >= s.Left() && !s.Lost && (r.Partial || !r.Suspect) && !good {
					t.Fatalf("segment %d is held by damaged copies, and %q has a good one: %+v", s.Segment, r.Node, s)
				}
			}
			for o := s.First; o <= s.Last; o++ {
				if recorded := slices.ContainsFunc(st.Gaps, func(g Gap) bool { return g.From <= o && o <= g.To }); recorded != (o > s.Left()) {
					t.Fatalf("entry %d of segment %d, left up to %d: recorded as lost %t, %+v", o, s.Segment, s.Left(), recorded, st.Gaps)
				}
			}
		}
	})
}
