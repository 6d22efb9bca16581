package applier

import (
	"context"
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// apart feeds changes of a table, one a transaction, while somebody holds a lock on
// the row of the first, and stops the applier when all other lanes are done. What it
// returns feeds them once more, as changes of any table.
func (d *duel) apart(table string) (feed func(table string), want []string) {
	d.t.Helper()
	d.exec("INSERT INTO @" + table + " VALUES (1024, NULL, 'seen by the source')")
	want = []string{"1024 - changed"}
	for i := 2; i < 30; i++ {
		want = append(want, fmt.Sprintf("%d - n", 1024*i))
	}
	feed = func(table string) {
		d.t.Helper()
		d.next, d.n = change.Place{}, 0
		d.feed(d.change(table, row(1024, nil, "seen by the source"), row(1024, nil, "changed")))
		for i := 2; i < 30; i++ {
			d.feed(d.change(table, nil, row(1024*i, nil, "n")))
		}
	}
	tx, err := d.srv.DB().BeginTx(context.Background(), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	defer tx.Rollback() // it only holds a lock
	if _, err := tx.ExecContext(context.Background(), "UPDATE "+d.db+"."+table+" SET v = 'mine' WHERE id = 1024"); err != nil {
		d.t.Fatal(err)
	}
	feed(table)
	d.until("only the locked lane has work", func() bool {
		busy := 0
		for _, l := range d.a.Status().Lanes {
			if l.Pending > 0 {
				busy++
			}
		}
		return busy == 1
	})
	d.stop()
	return feed, want
}

// TestRouteChangedWhileLanesApart: a stop leaves lanes apart, and the names of tables
// decide which lane a row is of. So a table that comes by another name then halts the
// applier, whatever it was told of its rules, and goes on by the name it had.
func TestRouteChangedWhileLanesApart(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		d := newDuel(t, f, Config{Lanes: 3, Rules: 5})
		d.make("m", false)
		feed, want := d.apart("t")
		for _, rules := range []uint64{5, 6} {
			d.cfg.Rules = rules
			d.exec("RENAME TABLE @t TO @m")
			d.start()
			fed := make(chan struct{}) // closed by the feeder, which the applier's end lets go
			if rules == 6 {
				close(fed) // it halts before it is fed
			} else {
				go func() {
					defer close(fed)
					_ = d.a.Apply(context.Background(), change.Place{}, &change.Transaction{GTID: "0-1-1",
						Rows: []change.Row{d.change("m", row(1024, nil, "seen by the source"), row(1024, nil, "changed"))}}, "")
				}()
			}
			if h := d.halted(); h.Code != CodeRules || h.Remedy == "" {
				t.Errorf("rules %d: %+v", rules, h)
			}
			d.stop()
			<-fed
			d.exec("RENAME TABLE @m TO @t")
		}
		d.cfg.Rules = 5
		d.start()
		feed("t")
		d.settled()
		d.has("t", want...)
		d.stop()
		d.cfg.Rules = 6
		d.exec("RENAME TABLE @t TO @m")
		d.start()
		d.feed(d.change("m", nil, row(1, nil, "later")))
		d.settled()
		d.has("m", append([]string{"1 - later"}, want...)...)
	})
}

// TestRulesChangedWhileLanesApart: what decides whether lanes may go on by other rules.
func TestRulesChangedWhileLanesApart(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		halt bool
	}{
		"rows":                        {Config{Lanes: 3}, true},
		"transactions in any order":   {Config{Lanes: 3, Atomicity: AtomicTransaction, AnyOrder: true}, true},
		"by another mode from now on": {Config{Lanes: 3, Atomicity: AtomicTransaction, AnyOrder: true}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDuel(t, mysqltest.MariaDB1011, c.cfg)
			feed, want := d.apart("t")
			rules := d.cfg
			d.cfg.Rules = 1
			if name == "by another mode from now on" {
				d.cfg.Atomicity, d.cfg.Lanes = AtomicRow, 1
			}
			d.start()
			if h := d.halted(); h.Code != CodeRules {
				t.Fatalf("%+v", h)
			}
			d.stop()
			d.cfg = rules
			d.start()
			feed("t")
			d.settled()
			d.has("t", want...)
			d.stop()
			d.cfg.Rules = 1 // they are together
			d.start()
			d.feed(d.change("t", row(1024, nil, "changed"), nil))
			d.settled()
			d.has("t", want[1:]...)
		})
	}
}

// TestRulesChangedWithinPrefix: where the highest place says it all, what is at or
// below it is done, and any rules may follow.
func TestRulesChangedWithinPrefix(t *testing.T) {
	for name, cfg := range map[string]Config{
		"one lane":              {Lanes: 1},
		"one lane, whole":       {Lanes: 1, Atomicity: AtomicTransaction, AnyOrder: true},
		"in the order of a log": {Lanes: 3, Atomicity: AtomicTransaction},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDuel(t, mysqltest.MariaDB1011, cfg)
			d.make("m", false)
			feed := func(table string) {
				d.next, d.n = change.Place{}, 0
				for i := range 20 {
					d.feed(d.change(table, nil, row(i, nil, "n")))
				}
			}
			feed("t")
			d.settled()
			d.stop()
			// As after a crash before the floor was stored.
			d.exec("UPDATE twinspan.progress SET log_offset = 4, log_index = 1 WHERE stream = '" + d.db + "'")
			d.cfg.Rules, d.cfg.Lanes = 1, 4
			d.exec("RENAME TABLE @t TO @m", "DELETE FROM @m WHERE id < 7")
			d.start()
			feed("m")
			d.feed(d.change("m", nil, row(20, nil, "n")))
			d.settled()
			var want []string
			for i := 7; i < 21; i++ {
				want = append(want, fmt.Sprintf("%d - n", i))
			}
			d.has("m", want...)
		})
	}
}
