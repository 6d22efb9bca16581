package check

import (
	"testing"

	"github.com/twinspan/twinspan/test/chaos/history"
)

func TestBridge(t *testing.T) {
	const from, to = 10, 10 + 1<<40 - 1 // entries 0 to 9, and those behind it
	got := Bridge([]history.Record{
		{Kind: history.Gap, Stream: "s", From: from, To: to},
		{Kind: history.Append, Stream: "s", Offset: 9},
		{Kind: history.Append, Stream: "s", Offset: to + 1},
		{Kind: history.Bounds, Stream: "s", Offset: to},
		{Kind: history.Open, Stream: "s", Offset: 4},
		{Kind: history.Attach, Stream: "s", Offset: to + 1, To: to + 3},
		{Kind: history.Read, Stream: "s", From: to + 1, To: to + 3, Seen: []history.Seen{{Offset: to + 2}}},
		{Kind: history.Final, Stream: "s", Offset: to + 3},
		{Kind: history.Final, Stream: "s", Offset: to + 1},
		{Kind: history.Append, Stream: "other", Offset: to + 1},
		{Kind: history.Gap, Stream: "s", From: from, To: to},
	})
	want := []history.Record{
		{Kind: history.Append, Offset: 9}, {Kind: history.Append, Offset: 10}, {Kind: history.Bounds, Offset: 9}, {Kind: history.Open, Offset: 4},
		{Kind: history.Attach, Offset: 10, To: 12}, {Kind: history.Read, From: 10, To: 12}, {Kind: history.Final, Offset: 12},
		{Kind: history.Final, Offset: 10}, {Kind: history.Append, Offset: to + 1},
	}
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, w := range want {
		if g := got[i]; g.Kind != w.Kind || g.Offset != w.Offset || g.From != w.From || g.To != w.To {
			t.Errorf("record %d: %+v, want %+v", i, g, w)
		}
	}
	if o := got[5].Seen[0].Offset; o != 11 {
		t.Errorf("the entry that was read is %d, want 11", o)
	}
}
