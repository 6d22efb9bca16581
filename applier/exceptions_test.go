package applier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

var parking = Config{Conflicts: conflicts.Policies{Policy: conflicts.Exception}, Exceptions: parkAll}

func (d *duel) retry(r *exceptions.Retrier, id int64) *exceptions.Outcome {
	d.t.Helper()
	o, err := r.Retry(context.Background(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return o
}

// causes are the open exceptions' causes, with what they follow as a position in
// the list.
func (d *duel) causes() string {
	d.t.Helper()
	var out []string
	at := map[int64]int{}
	for i, e := range d.parked() {
		at[e.ID] = i
		s := strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Operation, e.Cause, e.Key))
		if e.Behind != 0 {
			s += fmt.Sprintf(" behind %d", at[e.Behind])
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// TestChainIsAppliedInOrder: a conflict is parked, and so is whatever shares a key
// with it, over a unique key to another row as well; rows beside them go on. They
// stay parked over a restart. A retry applies all of them or none, a dry run none.
func TestChainIsAppliedInOrder(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		d := newDuel(t, f, parking)
		d.feed(d.change("t", nil, row(1, 10, "a")), d.change("t", nil, row(2, 20, "b")), d.change("t", nil, row(3, 30, "c")))
		d.settled()
		d.exec("UPDATE @t SET v = 'x' WHERE id = 1")
		d.feed(d.change("t", row(1, 10, "a"), row(1, 11, "a")))  // parked: frees u=10
		d.feed(d.change("t", nil, row(4, 10, "d")))              // takes it, and follows
		d.feed(d.change("t", row(4, 10, "d"), row(4, 40, "d")))  // follows that
		d.feed(d.change("t", row(3, 30, "c"), row(3, 30, "cc"))) // has nothing to do with it
		d.feed(d.change("t", row(1, 11, "a"), nil), d.change("t", row(2, 20, "b"), nil))
		d.settled()
		d.has("t", "1 10 x", "3 30 cc")
		want := "update conflict (id=1); insert follows (id=4) behind 0; update follows (id=4) behind 1; delete follows (id=1) behind 0"
		if got := d.causes(); got != want {
			t.Errorf("parked %s\nwant   %s", got, want)
		}
		d.stop()
		d.start()
		d.feed(d.change("t", row(4, 40, "d"), row(4, 40, "dd")))
		d.settled()
		d.has("t", "1 10 x", "3 30 cc")

		r := d.retrier()
		id := d.parked()[3].ID
		if o := d.retry(r, id); o.Applied || o.Failed != d.parked()[0].ID || !errors.Is(o.Err(), exceptions.ErrStill) || len(o.Chain) != 5 {
			t.Errorf("%+v", o)
		}
		if all := d.parked(); all[0].Tries != 1 || !strings.Contains(all[0].LastError, "update-differs") {
			t.Errorf("%+v", all[0])
		}
		shown, err := r.Show(context.Background(), d.parked()[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(*shown.Before[2].Value, *shown.After[1].Value, *shown.Present[2].Value, len(shown.Chain)); got != "a11x5" {
			t.Errorf("shown %s: %+v", got, shown)
		}
		d.exec("UPDATE @t SET v = 'a' WHERE id = 1")
		r.DryRun = true
		if o := d.retry(r, id); !o.Applied {
			t.Errorf("dry run: %+v", o)
		}
		d.has("t", "1 10 a", "3 30 cc")
		r.DryRun = false
		if o := d.retry(r, id); !o.Applied {
			t.Errorf("%+v", o)
		}
		d.has("t", "3 30 cc", "4 40 dd")
		if n := len(d.parked()); n != 0 {
			t.Errorf("%d are still parked", n)
		}
		// What comes now is applied.
		d.feed(d.change("t", row(4, 40, "d"), row(4, 40, "e")))
		d.settled()
		if got := d.causes(); got != "update conflict (id=4)" {
			t.Errorf("parked %s", got) // its before image is not on the target: dd is
		}
		r.Force = true
		if o := d.retry(r, d.parked()[0].ID); !o.Applied {
			t.Errorf("source wins: %+v", o)
		}
		d.has("t", "3 30 cc", "4 40 e")
		history, err := d.store().List(context.Background(), d.srv.DB(), exceptions.Filter{History: true})
		if err != nil || len(history) != 6 || history[0].State != exceptions.Applied || history[0].ResolvedBy != "test" {
			t.Errorf("%v %+v", err, history)
		}
	})
}

// TestSkip: a change that is given up stays as history, and the others of its chain
// stay parked.
func TestSkip(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		d := newDuel(t, f, parking)
		d.exec("INSERT INTO @t VALUES (1, 99, 'x')")
		d.feed(d.change("t", nil, row(1, 10, "a")))
		d.feed(d.change("t", row(1, 10, "a"), row(1, 10, "b")))
		d.settled()
		r := d.retrier()
		first := d.parked()[0].ID
		r.DryRun = true
		if gone, err := r.Skip(context.Background(), first, true, "x"); err != nil || len(gone) != 2 || len(d.parked()) != 2 {
			t.Errorf("%v %v", gone, err)
		}
		r.DryRun = false
		if _, err := r.Skip(context.Background(), first, false, "by hand"); err != nil {
			t.Fatal(err)
		}
		if got := d.causes(); got != "update follows (id=1)" && got != "update follows (id=1) behind 0" {
			t.Errorf("parked %s", got)
		}
		all, err := d.store().List(context.Background(), d.srv.DB(), exceptions.Filter{History: true})
		if err != nil || all[0].State != exceptions.Skipped || all[0].Reason != "by hand" || all[0].ResolvedBy != "test" || all[0].ResolvedAt == nil {
			t.Errorf("%v %+v", err, all)
		}
		if _, err := r.Skip(context.Background(), first, false, "again"); !errors.Is(err, exceptions.ErrNotFound) {
			t.Error(err)
		}
		d.exec("UPDATE @t SET u = 10, v = 'a'")
		if o := d.retry(r, d.parked()[0].ID); !o.Applied {
			t.Errorf("%+v", o)
		}
		d.has("t", "1 10 b")
	})
}

// TestDataAndMissingTable: what the target's column or catalogue can't take is
// parked, and heals by itself once the target is mended.
func TestDataAndMissingTable(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		cfg := Config{Exceptions: Exceptions{On: exceptions.Causes, Retry: exceptions.Retry{First: 100 * time.Millisecond, Max: 200 * time.Millisecond}}}
		d := newDuel(t, f, cfg)
		d.exec("CREATE TABLE @narrow (id INT PRIMARY KEY, u INT NULL, v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL, CHECK (u < 50))")
		d.make("gone", false)
		d.tables["narrow"] = d.tables["t"]
		narrow := *d.tables["t"]
		narrow.Name.Table = "narrow"
		d.tables["narrow"] = &narrow
		d.feed(d.change("gone", nil, row(1, 1, "a")), d.change("gone", nil, row(2, 2, "b")))
		d.feed(d.change("gone", row(1, 1, "a"), row(1, 1, "aa")))
		d.feed(d.change("t", nil, row(1, 10, "a")))
		d.settled()
		d.has("t", "1 10 a")
		if got := d.causes(); got != "insert missing-table; insert follows behind 0; update follows behind 1" {
			t.Errorf("parked %s", got)
		}
		d.exec("CREATE TABLE @gone LIKE @t")
		d.until("the table's changes were applied", func() bool { return len(d.parked()) == 0 })
		d.has("gone", "1 1 aa", "2 2 b")
		d.feed(d.change("gone", nil, row(3, 3, "c")))
		d.settled()
		d.until("nothing is parked", func() bool { return len(d.parked()) == 0 })
		d.has("gone", "1 1 aa", "2 2 b", "3 3 c")

		if f == mysqltest.MariaDB1011 {
			return // its CHECK constraints are off for replicated rows
		}
		d.feed(d.change("narrow", nil, row(1, 70, "a")), d.change("narrow", nil, row(2, 20, "b")))
		d.settled()
		d.feed(d.change("narrow", row(1, 70, "a"), row(1, 30, "a")))
		d.settled()
		d.has("narrow", "2 20 b")
		if got := d.causes(); got != "insert data (id=1); update follows (id=1) behind 0" {
			t.Errorf("parked %s", got)
		}
		d.exec("ALTER TABLE @narrow DROP CHECK narrow_chk_1")
		d.until("the rows were applied", func() bool { return len(d.parked()) == 0 })
		d.has("narrow", "1 30 a", "2 20 b")
	})
}

// TestDroppedByHand: a table that someone drops while its rows have lanes of their
// own is parked as one that never was there; and what comes once it is there again
// is one chain with it, whichever of its changes is tried.
func TestDroppedByHand(t *testing.T) {
	for name, cfg := range map[string]Config{
		"source-wins": {Exceptions: Exceptions{On: exceptions.Causes}},
		"exception":   parking,
	} {
		t.Run(name, func(t *testing.T) {
			bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
				d := newDuel(t, f, cfg)
				d.make("gone", false)
				d.make("late", false) // is made only after its first rows
				d.feed(d.change("late", nil, row(1, 1, "a")))
				d.exec("CREATE TABLE @gone LIKE @t")
				d.feed(d.change("gone", nil, row(1, 1, "a")), d.change("gone", nil, row(2, 2, "b")))
				d.settled()
				d.exec("DROP TABLE @gone")
				d.feed(d.change("gone", row(1, 1, "a"), row(1, 1, "aa")), d.change("gone", nil, row(3, 3, "c")), d.change("t", nil, row(1, 10, "a")))
				d.settled()
				d.has("t", "1 10 a")
				d.exec("CREATE TABLE @gone LIKE @t", "INSERT INTO @gone VALUES (1, 1, 'a'), (2, 2, 'b')")
				d.feed(d.change("gone", row(1, 1, "aa"), row(1, 1, "aaa")), d.change("gone", row(2, 2, "b"), nil))
				d.settled()
				d.has("gone", "1 1 a", "2 2 b")
				d.stop() // another applier finds the tables, and lanes for their rows
				d.exec("CREATE TABLE @late LIKE @t")
				d.start()
				d.feed(d.change("gone", row(3, 3, "c"), row(3, 3, "cc")), d.change("late", row(1, 1, "a"), row(1, 1, "aa")))
				d.settled()
				all := d.parked()
				if len(all) != 7 {
					t.Fatalf("parked %s", d.causes())
				}
				for i, n := range []int{2, 5} {
					if o := d.retry(d.retrier(), all[6-i].ID); !o.Applied || len(o.Chain) != n {
						t.Errorf("%+v", o)
					}
				}
				d.has("late", "1 1 aa")
				d.has("gone", "1 1 aaa", "3 3 cc")
				d.feed(d.change("gone", row(3, 3, "cc"), nil))
				d.settled()
				d.has("gone", "1 1 aaa")
			})
		})
	}
}

// TestParkedStopsDDL: a statement on a table with parked changes halts, and runs
// once they are dealt with; keys changed by hand meanwhile are noticed.
func TestParkedStopsDDL(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		d := newDuel(t, f, parking)
		d.exec("INSERT INTO @t VALUES (1, 99, 'x')")
		d.feed(d.change("t", nil, row(1, 10, "a")))
		d.settled()
		fed := make(chan error, 1)
		p := d.next
		d.next = change.Place{Offset: p.Offset + 1}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		go func() {
			text := "TRUNCATE TABLE " + d.db + ".t"
			fed <- d.a.Apply(ctx, p, &change.Transaction{GTID: "0-1-100", DDL: &change.DDL{Text: text, Class: "truncate_table",
				Tables: []schema.Name{{Schema: d.db, Table: "t"}}, CharsetClient: 45, CollationConnection: 45, CollationServer: 45}}, "")
		}()
		if h := d.halted(); h.Code != CodeParked || !strings.Contains(h.Remedy, "twinspan exceptions") {
			t.Errorf("%+v", h)
		}
		d.exec("DELETE FROM @t")
		if o := d.retry(d.retrier(), d.parked()[0].ID); !o.Applied {
			t.Errorf("%+v", o)
		}
		if err := <-fed; err != nil {
			t.Fatal(err)
		}
		d.has("t")
		d.exec("INSERT INTO @t VALUES (1, 99, 'x')")
		d.feed(d.change("t", nil, row(1, 10, "a")))
		d.settled()
		d.stop()
		d.exec("ALTER TABLE @t DROP KEY u")
		d.start()
		next := d.next
		d.next = change.Place{Offset: next.Offset + 1}
		go func() {
			fed <- d.a.Apply(ctx, next, &change.Transaction{GTID: "0-1-101", Rows: []change.Row{d.change("t", nil, row(5, 10, "e"))}}, "")
		}()
		if h := d.halted(); h.Code != CodeParked {
			t.Errorf("%+v", h)
		}
		d.exec("ALTER TABLE @t ADD UNIQUE KEY u (u)")
		if err := <-fed; err != nil {
			t.Fatal(err)
		}
		d.settled()
		if got := d.causes(); got != "insert conflict (id=1); insert follows (id=5) behind 0" {
			t.Errorf("parked %s", got)
		}
	})
}

// TestFollowersWait: under followers: wait a lane halts at a change of a parked
// key, and goes on when that is dealt with; so it does at the limit.
func TestFollowersWait(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		cfg := parking
		cfg.Exceptions.Wait, cfg.Exceptions.Max = true, 1
		d := newDuel(t, f, cfg)
		d.exec("INSERT INTO @t VALUES (1, 99, 'x'), (500, 500, 'x')")
		d.feed(d.change("t", nil, row(1, 10, "a")))
		d.settled()
		d.feed(d.change("t", row(1, 10, "a"), row(1, 10, "b")))
		if h := d.halted(); h.Code != CodeParked || !strings.Contains(h.Reason, "id=1") {
			t.Errorf("%+v", h)
		}
		if len(d.parked()) != 1 {
			t.Errorf("%+v", d.parked())
		}
		d.exec("DELETE FROM @t WHERE id = 1")
		if o := d.retry(d.retrier(), d.parked()[0].ID); !o.Applied {
			t.Errorf("%+v", o)
		}
		d.settled()
		d.has("t", "1 10 b", "500 500 x")
		d.exec("INSERT INTO @t VALUES (2, 99, 'x')")
		d.feed(d.change("t", nil, row(2, 20, "a")))
		d.settled()
		d.feed(d.change("t", nil, row(500, 50, "a")))
		if h := d.halted(); h.Code != CodeFull {
			t.Errorf("%+v", h)
		}
		if _, err := d.retrier().Skip(context.Background(), d.parked()[0].ID, false, "test"); err != nil {
			t.Fatal(err)
		}
		d.settled()
		if got := d.causes(); got != "insert conflict (id=500)" {
			t.Errorf("parked %s", got)
		}
	})
}

// TestCheapCounts: where nothing but the source can win, a target full of
// differences is counted without a look at each row once that takes too long.
func TestCheapCounts(t *testing.T) {
	d := newDuel(t, mysqltest.MySQL97, Config{})
	var rows []change.Row
	for i := range 300 {
		d.exec(fmt.Sprintf("INSERT INTO @t VALUES (%d, NULL, 'x')", i))
		rows = append(rows, d.change("t", nil, row(i, nil, "a")))
	}
	for i := range 10 {
		d.feed(rows[i*30 : i*30+30]...)
	}
	d.settled()
	if got := d.srv.Value(t, "SELECT COUNT(*) FROM "+d.db+".t WHERE v = 'a'"); got != "300" {
		t.Errorf("%s rows are the source's", got)
	}
	r := d.a.ConflictReport()
	if r.Total != 300 || len(r.Counts) != 1 || r.Counts[0].Kind != "insert-exists" || r.Counts[0].Action != "source-wins" {
		t.Errorf("%d: %+v", r.Total, r.Counts)
	}
}

// TestSeededParkingBugs: each rule about followers is needed. The scenario leaves
// the target as the source with it, and other than that, or with changes that can
// never be applied, without it.
func TestSeededParkingBugs(t *testing.T) {
	scenario := func(t *testing.T, f mysqltest.Flavor, faults guardFaults) error {
		d := newDuel(t, f, parking)
		d.stop()
		d.faults = faults
		d.start()
		d.exec("INSERT INTO @t VALUES (1, 99, 'squatter'), (7, 98, 'squatter')")
		d.feed(d.change("t", nil, row(1, 10, "a")), d.change("t", nil, row(7, 70, "x")))
		for v := range 2 { // each in a batch of its own, which remembers all keys
			d.settled()
			d.feed(d.change("t", row(1, 10+v, "a"), row(1, 11+v, "a")))
		}
		d.settled()
		d.feed(d.change("t", nil, row(2, 11, "b"))) // a key that only the followers had
		d.settled()
		d.stop()
		d.exec("DELETE FROM @t WHERE v = 'squatter'")
		d.start()
		d.feed(d.change("t", row(7, 70, "x"), nil)) // finds nothing, which is not for good
		d.settled()
		r := d.retrier()
		chains, err := d.store().Chains(context.Background(), d.srv.DB())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range chains {
			if o := d.retry(r, c[0]); !o.Applied {
				return o.Err()
			}
		}
		got := d.srv.Value(t, "SELECT COALESCE(GROUP_CONCAT(CONCAT_WS(' ', id, u, v) ORDER BY id), '') FROM "+d.db+".t")
		if want := "1 12 a,2 11 b"; got != want {
			return fmt.Errorf("the target has %q, the source %q", got, want)
		}
		return nil
	}
	for name, faults := range map[string]guardFaults{
		"none":                                {},
		"a change of a parked key is applied": {noFollow: true},
		"a restart forgets what is parked":    {noLoad: true},
		"the keys of followers are forgotten": {onlyHeads: true},
	} {
		t.Run(name, func(t *testing.T) {
			bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
				err := scenario(t, f, faults)
				if wanted := faults != (guardFaults{}); wanted != (err != nil) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}
