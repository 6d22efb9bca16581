package meta

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// TestForgetTheLastHolder: what only the node held is lost by name or not at all, and
// the record says who accepted it.
func TestForgetTheLastHolder(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossDegradeAfter)
	w.open("s", true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
	w.roll("s", 10, []string{"a1", "b1"}, true, "b1", "a2")
	forget := func(lose ...Losing) Command {
		return Command{Forget: &Forget{Node: "a1", UUID: "id-a1", Lose: lose}, By: "ann", Reason: "both disks are gone"}
	}
	w.fails(log.ErrProtocol, forget())
	w.fails(log.ErrProtocol, forget(Losing{Stream: "s", Segment: 1}))                                               // and 2
	w.fails(log.ErrProtocol, forget(Losing{Stream: "s", Segment: 1}, Losing{Stream: "t", Segment: 2}))              // of another stream
	w.do(forget(Losing{Stream: "s", Segment: 1}, Losing{Stream: "s", Segment: 2}, Losing{Stream: "s", Segment: 3})) // the third is held by b1 as well
	st := w.stream("s")
	if len(st.Gaps) != 2 || st.Gaps[0].From != 0 || st.Gaps[0].To != 9 || st.Gaps[1].From != 10 || st.Gaps[1].To != 19 ||
		st.Gaps[0].By != "ann" || st.Gaps[0].Reason != "node a1 was forgotten: both disks are gone" {
		t.Fatalf("gaps %+v", st.Gaps)
	}
	for n, lost := range map[uint32]bool{1: true, 2: true, 3: false} {
		if s, ok := w.s.View().Segment("s", n); !ok || s.Lost != lost || len(s.Holders) != map[bool]int{true: 0, false: 1}[lost] {
			t.Fatalf("segment %d: %+v", n, s)
		}
	}
	for _, x := range st.Windows {
		if x.From <= 19 && !x.Trimmed {
			t.Fatalf("a window of what is lost ends as if it had been copied: %+v", x)
		}
	}
	w.do(forget()) // it is repeated
	w.fails(log.ErrTrimmed, Command{Held: &Held{Stream: "s", Segment: 1, Member: quorum.Member{Node: "b1", UUID: "id-b1", City: "b"}}})
}

// TestForgetKeepsAPrefix: what another node has of a segment that the node alone had
// all of stays, and only what lies behind it is lost.
func TestForgetKeepsAPrefix(t *testing.T) {
	begin := func() *world {
		w := newWorld(t)
		w.create("s", LossDegradeAfter)
		w.open("s", true, "a1", "b1")
		w.roll("s", 10, []string{"a1"}, true, "a1", "b1", "a2")
		w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
		w.roll("s", 10, []string{"a1", "b1"}, true, "b1", "a2")
		return w
	}
	upTo := func(node string, last, lso log.Offset) Left {
		return Left{Node: node, UUID: "id-" + node, Last: last, LSO: lso}
	}
	damaged := upTo("b1", 17, 15)
	damaged.Damaged = true
	foreign := upTo("b1", 18, 18)
	foreign.UUID = "id-before"
	limit := func(n int64) *int64 { return &n }
	for _, x := range []struct {
		name    string
		left    []Left
		most    *int64
		fails   error
		upto    log.Offset // of segment 2, from 10 to 19
		lso     log.Offset // of what is left of it, when not all is
		holders string
	}{
		{name: "nobody has anything", upto: 9},
		{name: "nobody, and it was known", most: limit(10), upto: 9},
		{name: "one has some", left: []Left{upTo("b1", 14, 13)}, upto: 14, lso: 13, holders: "b1"},
		{name: "the longest counts", left: []Left{upTo("b1", 14, 13), upTo("a2", 17, 13), upTo("b2", 10, 10)}, upto: 17, lso: 13, holders: "a2"},
		{name: "two have as much", left: []Left{upTo("b1", 14, 13), upTo("a2", 14, 13)}, upto: 14, lso: 13, holders: "a2 b1"},
		{name: "no transaction ends in it", left: []Left{upTo("b1", 14, 9)}, upto: 14, lso: 9, holders: "b1"},
		{name: "one has all of it, and had not said so", left: []Left{upTo("b1", 14, 13), upTo("a2", 19, 19)}, most: limit(0), upto: 19, holders: "a2"},
		{name: "and more than all", left: []Left{upTo("a2", 21, 21)}, upto: 19, holders: "a2"},
		{name: "a damaged copy is more than nothing", left: []Left{damaged, upTo("a2", 14, 13)}, upto: 17, lso: 15, holders: "b1"},
		{name: "nobody is sent to it without need", left: []Left{damaged, upTo("a2", 17, 15)}, upto: 17, lso: 15, holders: "a2"},
		{name: "the node itself does not count", left: []Left{upTo("a1", 19, 19), upTo("b1", 14, 13)}, upto: 14, lso: 13, holders: "b1"},
		{name: "nor does a directory of before", left: []Left{foreign}, upto: 9},
		{name: "nor a witness", left: []Left{upTo("w", 18, 18)}, upto: 9},
		{name: "more would be lost than was accepted", left: []Left{foreign}, most: limit(1), fails: log.ErrStale},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := begin()
			c := Command{By: "ann", Reason: "gone", Forget: &Forget{Node: "a1", UUID: "id-a1", Lose: []Losing{
				{Stream: "s", Segment: 1, Left: []Left{upTo("b1", 9, 9)}}, {Stream: "s", Segment: 2, Left: x.left, Most: x.most},
			}}}
			if x.fails != nil {
				w.fails(x.fails, c)
				return
			}
			w.do(c)
			loaded, err := Load(bytes.NewReader(w.save()))
			if err != nil {
				t.Fatal(err)
			}
			for _, view := range []*View{w.s.View(), loaded.View()} {
				st, _ := view.Stream("s")
				s, _ := view.Segment("s", 2)
				if s.Last != 19 || s.LSO != 19 || s.Left() != x.upto || s.Lost != (x.upto == 9) || strings.Join(names(s.Holders), " ") != x.holders {
					t.Fatalf("segment 2: %+v", s)
				}
				if x.upto < 19 && x.upto > 9 && (s.Upto(true) != max(x.lso, 9) || s.Bytes != 0 || s.Barren() != (x.lso < 10)) {
					t.Fatalf("what is left of segment 2: %+v", s)
				}
				if x.upto == 19 && (len(st.Gaps) != 0 || s.Bytes == 0 || s.LostTail != 0) {
					t.Fatalf("nothing was lost: %+v, %+v", st.Gaps, s)
				}
				if x.upto < 19 && (len(st.Gaps) != 1 || st.Gaps[0].From != x.upto+1 || st.Gaps[0].To != 19 || st.Gaps[0].By != "ann") {
					t.Fatalf("gaps %+v", st.Gaps)
				}
				short := 2 // 1 and 3 lack the other city's copy
				if x.upto > 9 && x.holders != "a2 b1" {
					short++
				}
				if st.Short != short || len(view.Short("s", 0, 10)) != short {
					t.Fatalf("%d short, want %d: %+v", st.Short, short, view.Short("s", 0, 10))
				}
			}
		})
	}
}

// TestForgetTwice: who has the prefix is lost in turn, and one more keeps less. Repair
// and retention take what is left for all there is.
func TestForgetTwice(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossDegradeAfter)
	w.open("s", true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, true, "a2", "b2")
	w.roll("s", 10, []string{"a2", "b2"}, true, "a2", "b2")
	w.roll("s", 10, []string{"a2", "b2"}, true, "a2", "b2")
	forget := func(node string, left Left) {
		w.do(Command{Forget: &Forget{Node: node, UUID: "id-" + node, Lose: []Losing{{Stream: "s", Segment: 1, Left: []Left{left}}}}})
	}
	forget("a1", Left{Node: "b1", UUID: "id-b1", Last: 7, LSO: 7})
	w.fails(log.ErrProtocol, Command{Held: &Held{Stream: "s", Segment: 1, Member: members("b1")[0], Lost: true}})
	w.do(Command{Held: &Held{Stream: "s", Segment: 1, Member: members("b1")[0], Bytes: 800}})
	if s, _ := w.s.View().Segment("s", 1); s.Bytes != 800 {
		t.Fatalf("a holder's word on its size: %+v", s)
	}
	forget("b1", Left{Node: "a2", UUID: "id-a2", Last: 4, LSO: 2})
	s, _ := w.s.View().Segment("s", 1)
	if s.Left() != 4 || s.Upto(true) != 2 || s.LostTail != 5 {
		t.Fatalf("%+v", s)
	}
	if g := w.stream("s").Gaps; len(g) != 2 || g[0].From != 5 || g[0].To != 7 || g[1].From != 8 || g[1].To != 9 {
		t.Fatalf("gaps %+v", g)
	}
	w.do(Command{Held: &Held{Stream: "s", Segment: 1, Member: members("b2")[0]}})
	if st := w.stream("s"); st.Short != 0 {
		t.Fatalf("%d short with a copy in each city", st.Short)
	}
	// A group inside what is left holds retention up; behind the gap it does not. The
	// schema entries of what is left stay.
	cursor := func(o log.Offset) Command {
		return Command{Cursor: &PutCursor{Stream: "s", Cursor: log.Cursor{Group: "g", Offset: o}}}
	}
	trim := Command{Trim: &Trim{Stream: "s", Before: 10, Keep: []uint32{1}}}
	w.do(cursor(8))
	w.fails(log.ErrCursorBehind, trim)
	w.do(cursor(9))
	w.do(trim)
	if s, _ := w.s.View().Segment("s", 1); !s.Compacted || s.Left() != 4 || w.stream("s").First != 10 {
		t.Fatalf("%+v, the stream begins at %d", s, w.stream("s").First)
	}
}

// TestForgetOfBefore: a command that an older version wrote means what it meant.
func TestForgetOfBefore(t *testing.T) {
	w := newWorld(t)
	w.create("s", LossDegradeAfter)
	w.open("s", true, "a1", "b1")
	w.roll("s", 10, []string{"a1"}, true, "a1", "b1")
	var c Command
	if err := decodeStrictly([]byte(`{"now":"2026-01-02T00:00:00Z","by":"ann","forget":{"Node":"a1","UUID":"id-a1","Force":false,"Lose":[{"Stream":"s","Segment":1}]}}`), &c); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Apply(c); err != nil {
		t.Fatal(err)
	}
	if s, _ := w.s.View().Segment("s", 1); !s.Lost || s.LostTail != 0 {
		t.Fatalf("%+v", s)
	}
	// What an older version can read has nothing new in it.
	if saved := string(w.save()); strings.Contains(saved, "lost_tail") || strings.Contains(saved, "left_lso") {
		t.Fatal(saved)
	}
}

func names(members []quorum.Member) (out []string) {
	for _, m := range members {
		out = append(out, m.Node)
	}
	return out
}

// TestForgetByForceIsRefused: nobody can orphan segments without naming them.
func TestForgetByForceIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "a1")
	client := c.client()
	c.register(client, "a1")
	_, err := client.Do(within(t, 20*time.Second), Command{Forget: &Forget{Node: "a1", UUID: "id-a1", Force: true}})
	if !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("forgotten by force: %v", err)
	}
}
