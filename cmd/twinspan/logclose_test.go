package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

// A disk is lost in each city, before the writer could leave the segment: nobody
// can tell what was confirmed, so nobody may write, until an operator says so.
func TestForcedClose(t *testing.T) {
	l := newLab(t, false)
	w, err := l.log.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	last := l.add(w, 20)[19].Offset
	if err := l.log.StoreCursor(t.Context(), "s", log.Cursor{Group: "city-b", Offset: 9}); err != nil {
		t.Fatal(err)
	}
	contains(t, l.run(2, "log segments close s"), "--force is missing")
	contains(t, l.run(4, "log segments close s --force"), "the next writer ends the segment without a loss", "nothing was changed")

	if err := l.log.Close(); err != nil { // the writer dies in the middle of its segment
		t.Fatal(err)
	}
	for _, name := range []string{"a1", "b2"} {
		l.nodes[name].stop()
	}
	l.until("there is a leader", func(o *ops.Overview) bool { return !o.Stale && o.Leader != "" })
	// Whose directory is registered may come back with entries.
	for _, name := range []string{"a1", "b2"} {
		contains(t, l.run(4, "log segments close s --force"), "the next writer ends the segment without a loss")
		l.run(0, fmt.Sprintf(`log nodes forget %s --yes --reason "disk broken"`, name))
		if err := os.Rename(filepath.Join(l.dir, "log-"+name), filepath.Join(l.dir, "broken-"+name)); err != nil {
			t.Fatal(err)
		}
		l.nodes[name].start(t)
	}
	contains(t, l.run(3, "log status --strict"), "segment 1 can't be ended any more", "twinspan log segments close s --force")
	contains(t, l.run(4, "log segments close s --force --give-up a2"), "node a2 answers and is not damaged")
	contains(t, l.run(2, "log segments close s --force --yes"), "--yes needs a --reason")
	out := l.run(0, "log segments close s --force")
	contains(t, out, "a1 (a) given up: its directory was forgotten", fmt.Sprintf("a2 (a) has up to %d", last),
		fmt.Sprintf("kept    0 to %d", last), "doubt", fmt.Sprintf("gap     %d to ", last+1), "city-b at 9", "Nothing was changed")

	var done struct{ Closed client.Forced }
	if err := json.Unmarshal([]byte(l.run(0, `log segments close s --force --yes --reason "disks of a1 and b2" -o json`)), &done); err != nil {
		t.Fatal(err)
	}
	c := done.Closed
	if c.Last != last || !c.Lost || c.LostTo <= last || len(c.Holders) != 2 {
		t.Fatalf("%+v", c)
	}
	contains(t, l.run(0, "log status"), fmt.Sprintf("%d to %d LOST", last+1, c.LostTo), "disks of a1 and b2", "twinspan cursor seek GROUP --to",
		fmt.Sprintf("needs entries from 10 on, %d of them are here", last-9))
	contains(t, l.run(0, "log segments s"), "LOST", "nobody")

	// All that was confirmed is there, then readers are stopped.
	after, err := client.New(client.Config{Nodes: []string{l.at["a2"], l.at["b1"]}, City: "a", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close() // its writer is closed below
	readsAll(t, after, log.ReaderOptions{}, last)
	w, err = after.OpenWriter(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if first := l.add(w, 5)[0]; first.Offset != c.LostTo+1 || !first.Protected {
		t.Fatalf("%+v", first)
	}
	l.run(0, fmt.Sprintf(`cursor seek city-b --to %d --yes --reason "the loss is known"`, c.LostTo))
	l.until("all is whole again", func(o *ops.Overview) bool { return len(o.Problems) == 0 })
	contains(t, l.run(0, "log verify"), "0 replicas differ", "0 not reachable")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// readsAll reads a stream from its first entry and wants every entry up to last, and
// the loss behind it.
func readsAll(t *testing.T, c *client.Client, o log.ReaderOptions, last log.Offset) {
	t.Helper()
	r, err := c.OpenReader(t.Context(), "s", o)
	if err != nil {
		t.Fatal(err)
	}
	for at := log.Offset(0); ; at++ {
		e, err := r.Next(t.Context())
		if errors.Is(err, log.ErrLost) && at == last+1 {
			break
		}
		if err != nil || e.Offset != at {
			t.Fatalf("entry %d, want %d: %v", e.Offset, at, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}
