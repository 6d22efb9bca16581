package applier

import (
	"fmt"
	"testing"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestConflictsOfOneTransaction: a transaction may have any number of conflicts. A few
// keep their images until it is committed, all are counted then, and none before.
func TestConflictsOfOneTransaction(t *testing.T) {
	const n = 5000
	r, err := (&client{hostile: newHostile(1, 0)}).route(t.Context(), shellTable)
	if err != nil {
		t.Fatal(err)
	}
	c := careful{g: newGuard(Config{Stream: "s"}, zerolog.Nop())}
	meet := func() {
		for i := range n {
			v := row(i, "x")
			one := run{route: r, rows: []change.Row{{Table: shellTable, Op: change.Insert, After: v}}, marks: []mark{{from: &origin{gtid: "0-1-1"}}}}
			kind := target.InsertExists
			if i%5 == 0 {
				kind = target.UniqueHolder
			}
			if stop, err := c.settle(t.Context(), one, kind, v, conflicts.TargetWins, ""); err != nil || !stop {
				t.Fatal(stop, err)
			}
		}
		c.cheap("db.t", target.Outcome{DeleteMissing: n})
	}
	meet()
	if k := len(c.records); k == 0 || k > keepRecords || c.records[0].After == nil || c.records[0].GTID != "0-1-1" {
		t.Errorf("%d conflicts keep their images", k)
	}
	if len(c.counted) > 3 {
		t.Errorf("%d counts", len(c.counted))
	}
	c.undone()
	if c.committed(); c.g.ring.Total() != 0 {
		t.Errorf("%d conflicts of what was undone", c.g.ring.Total())
	}
	meet()
	c.committed()
	want := "[{delete-missing db.t source-wins 5000} {insert-exists db.t target-wins 4000} {unique-holder db.t target-wins 1000}]"
	if got := fmt.Sprint(c.g.ring.Report().Counts); got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	if c.records != nil || c.counted != nil {
		t.Error("something is left for the next transaction")
	}
}

// TestParkedConflictsOfOneTransaction: those that are parked are counted as such
// beyond the ones that keep their images.
func TestParkedConflictsOfOneTransaction(t *testing.T) {
	const n = keepRecords + 20
	d := newDuel(t, mysqltest.MariaDB1011, Config{Lanes: 1, Atomicity: AtomicTransaction,
		Conflicts: conflicts.Policies{Policy: conflicts.Exception}, Exceptions: parkAll})
	var rows []change.Row
	for i := range n {
		rows = append(rows, d.change("t", row(i, i, "a"), row(i, i, "b"))) // which are not there
	}
	d.feed(rows...)
	d.settled()
	g := d.a.guard
	g.mu.Lock()
	parked := g.parked[exceptions.Conflict]
	g.mu.Unlock()
	if all := d.parked(); len(all) != n || parked != n || g.ring.Total() != n {
		t.Errorf("%d are parked, %d were counted, %d are in the report", len(all), parked, g.ring.Total())
	}
}
