package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

func nodesOf(names string) []meta.Node {
	var out []meta.Node
	for _, n := range strings.Fields(names) {
		name, uuid, _ := strings.Cut(n, "/")
		if uuid == "" {
			uuid = name
		}
		out = append(out, meta.Node{Name: name, UUID: uuid, City: name[:1], Address: name + ":1", Witness: strings.HasSuffix(name, "w")})
	}
	return out
}

func membersOf(names string) []quorum.Member {
	var out []quorum.Member
	for _, n := range nodesOf(names) {
		out = append(out, memberOf(n))
	}
	return out
}

func TestMissingCopies(t *testing.T) {
	both := quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}}
	for _, c := range []struct {
		name, nodes, dead, members, holders string
		rule                                quorum.NodeRule
		want                                string // target(sources), ! when unprotected
	}{
		{"whole", "a1 a2 b1 b2", "", "a1 a2 b1 b2", "a1 a2 b1 b2", both, ""},
		{"a member lags", "a1 a2 b1 b2", "", "a1 a2 b1 b2", "a1 b1 b2", both, "a2(a1 b1 b2)"},
		{"a member is dead", "a1 a2 b1 b2", "a2", "a1 a2 b1 b2", "a1 b1 b2", both, ""},
		{"a city was gone", "a1 a2 b1 b2", "", "a1 a2", "a1 a2", both, "b1(a1 a2)!"},
		{"a city is gone", "a1 a2 b1 b2", "b1 b2", "a1 a2", "a1 a2", both, ""},
		{"partial", "a1 a2 b1 b2", "", "a1 a2 b1 b2", "b1 b2", both, "a1(b1 b2)! a2(b1 b2)!"},
		{"a wiped node is another one", "a1 a2/new b1 b2", "", "a1 a2/old b1 b2", "a1 b1 b2", both, "a2(a1 b1 b2)"},
		{"a forgotten node has a replacement", "a1 a3 b1 b2", "", "a1 a2 b1 b2", "a1 b1 b2", both, "a3(a1 b1 b2)"},
		{"a witness takes nothing", "a1 aw b1 b2", "", "a1 a2 b1 b2", "a1 b1 b2", both, ""},
		{"a total", "a1 a2 a3", "", "a1 a2", "a1", quorum.NodeRule{Total: 2}, "a2(a1)!"},
		{"a total, anywhere", "a1 b1 b2", "", "a1", "a1", quorum.NodeRule{Total: 3}, "b1(a1)! b2(a1)!"},
		{"no holder is left", "a1 b1", "", "a1 b1", "", both, "a1()! b1()!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := &meta.Stream{Name: "s", Policy: meta.Policy{Rule: c.rule}, Segments: []meta.Segment{
				{Descriptor: quorum.Descriptor{Segment: 1, Members: membersOf(c.members)}, Closed: true, Last: 9, Holders: membersOf(c.holders)},
				{Descriptor: quorum.Descriptor{Segment: 2, First: 10, Members: membersOf(c.members)}},
			}}
			live := func(n meta.Node) bool { return !strings.Contains(" "+c.dead+" ", " "+n.Name+" ") }
			var got []string
			for _, x := range missingCopies(st, nodesOf(c.nodes), live) {
				var from []string
				for _, s := range x.Sources {
					from = append(from, s.Name)
				}
				text := fmt.Sprintf("%s(%s)", x.Target.Name, strings.Join(from, " "))
				if x.Unprotected {
					text += "!"
				}
				got = append(got, text)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Fatalf("got %q, want %q", s, c.want)
			}
		})
	}
}

func TestTrimOf(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	// Segments of ten entries and 100 bytes, the last one open; an hour between them.
	stream := func(segments int, p meta.Policy, cursors ...log.Offset) *meta.Stream {
		st := &meta.Stream{Name: "s", Policy: p}
		for i := range segments {
			first := log.Offset(10 * i)
			g := meta.Segment{Descriptor: quorum.Descriptor{Segment: uint32(i + 1), First: first}}
			if i < segments-1 {
				g.Closed, g.Last, g.LSO, g.Bytes, g.ClosedAt = true, first+9, first+9, 100, now.Add(time.Duration(i-segments)*time.Hour)
			}
			st.Segments = append(st.Segments, g)
		}
		for i, o := range cursors {
			st.Cursors = append(st.Cursors, log.Cursor{Group: fmt.Sprint(i), Offset: o})
		}
		return st
	}
	open := stream(6, meta.Policy{BytesMax: 1}, 1000)
	open.Segments[2].LSO = 25 // a transaction goes on into the next one
	open.Segments[3].LSO = 25
	partial := stream(6, meta.Policy{BytesMax: 1}, 1000)
	partial.Windows = []meta.Window{{From: 15, To: 22}}
	kept := stream(6, meta.Policy{BytesMax: 1}, 1000)
	kept.Segments[0].Compacted = true
	for _, c := range []struct {
		name   string
		st     *meta.Stream
		before log.Offset // 0: nothing goes
		count  int
		evict  bool
	}{
		{"no policy", stream(6, meta.Policy{}, 1000), 0, 0, false},
		{"no cursor", stream(6, meta.Policy{BytesMax: 1}), 0, 0, false},
		{"all but the newest closed one", stream(6, meta.Policy{BytesMax: 1}, 1000), 40, 4, false},
		{"size", stream(6, meta.Policy{BytesMax: 300}, 1000), 20, 2, false},
		{"age", stream(6, meta.Policy{AgeMax: 4*time.Hour + time.Minute}, 1000), 20, 2, false},
		{"the lowest cursor", stream(6, meta.Policy{BytesMax: 1}, 1000, 29), 30, 3, false},
		{"a cursor inside", stream(6, meta.Policy{BytesMax: 1}, 1000, 28), 20, 2, false},
		{"a cursor that has nothing", stream(6, meta.Policy{BytesMax: 1}, 1000, log.None), 0, 0, false},
		{"the cap", stream(6, meta.Policy{BytesCap: 300}, 5), 20, 2, true},
		{"the cap below the cursor", stream(6, meta.Policy{BytesCap: 300}, 1000), 20, 2, false},
		{"the cap without a cursor", stream(6, meta.Policy{BytesCap: 300}), 20, 2, true},
		{"not inside a transaction", open, 20, 2, false},
		{"not while it is unprotected", partial, 10, 1, false},
		{"what was compacted stays", kept, 40, 3, false},
		{"one segment", stream(1, meta.Policy{BytesMax: 1}, 1000), 0, 0, false},
		{"one closed segment", stream(2, meta.Policy{BytesMax: 1}, 1000), 0, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, any := trimOf(c.st, now)
			if any != (c.count > 0) || got.Before != c.before || len(got.Segments) != c.count || got.Evict != c.evict {
				t.Fatalf("before %d, %d segments, evict %t", got.Before, len(got.Segments), got.Evict)
			}
		})
	}
}

func TestDefaultPolicy(t *testing.T) {
	for list, want := range map[string]string{
		"a1": "1 nodes", "a1 a2 aw": "1 nodes", "a1 b1 cw": "1 in a, 1 in b", "a1 a2 b1 b2 c1": "1 in a, 1 in b, 1 in c",
	} {
		var nodes []ClusterNode
		for _, n := range nodesOf(list) {
			nodes = append(nodes, ClusterNode{Name: n.Name, City: n.City, Address: n.Address, Witness: n.Witness})
		}
		if got := DefaultPolicy(nodes).Rule.String(); got != want {
			t.Errorf("%s: %q, want %q", list, got, want)
		}
		if err := checkCluster("a1", nodes); err != nil {
			t.Errorf("%s: %v", list, err)
		}
	}
}
