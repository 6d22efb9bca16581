package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
)

// Two nodes are away when a segment is closed, and those who had all of it lose their
// disks. What the two have of it stays, the preview says so, and what is behind is lost
// by the operator's word only.
func TestForgetTheLastHolder(t *testing.T) {
	l := newLab(t, false)
	cfg := l.clientConfig("a1", "b2")
	cfg.RollAfter = 5 * time.Second
	own, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w, err := own.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	kept := l.add(w, 20)[19].Offset
	l.until("all four have them", func(o *ops.Overview) bool {
		for _, m := range o.Streams[0].Members {
			if m.Last != kept {
				return false
			}
		}
		return len(o.Streams[0].Members) == 4
	})
	l.nodes["a2"].stop()
	l.nodes["b1"].stop()
	last := l.add(w, 5)[4].Offset
	var first meta.Segment
	l.until("the writer has gone on without them", func(o *ops.Overview) bool {
		if o.Streams[0].Segment < 2 {
			return false
		}
		var page struct{ Segments []meta.Segment }
		if err := json.Unmarshal([]byte(l.run(0, "log segments s -o json")), &page); err != nil {
			t.Fatal(err)
		}
		first = page.Segments[0]
		return true
	})
	if first.Last != last || len(first.Holders) != 2 {
		t.Fatalf("it ends at %d of %d and is held by %v", first.Last, last, first.Holders)
	}
	if err := own.Close(); err != nil { // its writer dies in the second segment
		t.Fatal(err)
	}
	for _, name := range []string{"a1", "b2"} {
		l.nodes[name].stop()
		if err := os.Rename(filepath.Join(l.dir, "log-"+name), filepath.Join(l.dir, "broken-"+name)); err != nil {
			t.Fatal(err)
		}
	}
	l.nodes["a2"].start(t)
	l.nodes["b1"].start(t)
	l.until("there is a leader", func(o *ops.Overview) bool { return !o.Stale && o.Leader != "" })
	// The other one that has all of it may come back.
	contains(t, l.run(4, `log nodes forget a1 --yes --reason "disk broken"`), "nobody who answers now has s/1, but perhaps a1", "--force")
	contains(t, l.run(0, `log nodes forget a1 --yes --force --reason "disk broken"`), "Done")
	l.nodes["a1"].start(t)
	l.until("the new a1 votes, so that one may be away", func(*ops.Overview) bool {
		s, err := meta.NewClient(l.log, nil).Status(t.Context(), l.at["w1"])
		return err == nil && len(s.Voters) == 5
	})

	// One that may have some of it can't be asked.
	l.nodes["b1"].stop()
	l.until("there is a leader", func(o *ops.Overview) bool { return !o.Stale && o.Leader != "" })
	contains(t, l.run(0, "log nodes forget b2"), "b1 may have more of what only b2 holds, and could not be asked", "Nothing was changed")
	contains(t, l.run(4, `log nodes forget b2 --yes --force --accept-loss 5 --reason "disk broken"`), "b1, which may have some of it, could not be asked", "--give-up b1")
	contains(t, l.run(4, `log nodes forget b2 --yes --give-up b1 --reason "disk broken"`), "5 entries would be lost", "--force --accept-loss 5")
	l.nodes["b1"].start(t)
	l.awaitNode("b1")

	stay := fmt.Sprintf("s/1, entries 0 to %d, stay: also on a2 b1", kept)
	lost := fmt.Sprintf("s/1, entries %d to %d, would be LOST: nobody else has them", kept+1, last)
	out := l.run(0, "log nodes forget b2")
	contains(t, out, "holds 1 closed segment, 1 of them alone: s/1", stay, lost, "Nothing was changed")
	var told struct{ Preview ops.Leaving }
	if err := json.Unmarshal([]byte(l.run(0, "log nodes forget b2 -o json")), &told); err != nil {
		t.Fatal(err)
	}
	if p := told.Preview; len(p.Losing) != 1 || p.LosingEntries != 5 || p.Losing[0].Kept != kept || fmt.Sprint(p.Losing[0].KeptBy) != "[a2 b1]" || len(p.Unasked) != 0 {
		t.Fatalf("%+v", told.Preview)
	}
	contains(t, l.run(4, `log nodes forget b2 --yes --force --accept-loss 25 --reason "disk broken"`), "5 entries would be lost")
	contains(t, l.run(0, `log nodes forget b2 --yes --force --accept-loss 5 --reason "disk broken"`), stay, "Done")
	contains(t, l.run(0, "log segments s"), fmt.Sprintf("LOST from %d", kept+1))
	contains(t, l.run(0, "log status"), fmt.Sprintf("%d to %d LOST", kept+1, last), "node b2 was forgotten: disk broken")
	contains(t, l.run(0, "log verify s --segment 1"), "1 segment", "20 entries", "0 replicas differ")
	contains(t, l.run(1, "log read s"), fmt.Sprintf("entries %d to %d: lost", kept+1, last), fmt.Sprintf("--from %d is behind it", last+1))

	after, err := client.New(client.Config{Nodes: []string{l.at["a2"], l.at["b1"]}, City: "a", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close() // it only reads
	readsAll(t, after, log.ReaderOptions{Committed: true}, kept)
}
