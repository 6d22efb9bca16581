package applier

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// duel is an applier over a schema of its own, and what is fed to it.
type duel struct {
	t      *testing.T
	srv    *mysqltest.Server
	db     string
	cfg    Config
	a      *Applier
	next   change.Place
	n      int
	stop   func()
	ran    chan error // what Run returns
	tables map[string]*schema.Table
	faults guardFaults // of the next start
}

func newDuel(t *testing.T, f mysqltest.Flavor, cfg Config) *duel {
	srv, db := mysqltest.Shared(t, f)
	cfg.Stream, cfg.Target, cfg.ProgressInterval, cfg.Lease = db, srv.Endpoint(), 5*time.Millisecond, 4*time.Second
	if cfg.Lanes == 0 {
		cfg.Lanes = 3
	}
	d := &duel{t: t, srv: srv, db: db, cfg: cfg, tables: map[string]*schema.Table{}}
	d.make("t", true)
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

// make describes a table of id, u and v at the source, and makes it on the target.
func (d *duel) make(name string, there bool) {
	d.tables[name] = &schema.Table{
		Name: schema.Name{Schema: d.db, Table: name},
		Columns: []schema.Column{{Name: "id", Type: schema.Int}, {Name: "u", Type: schema.Int, Nullable: true},
			{Name: "v", Type: schema.VarChar, Length: 80, Charset: "utf8mb4", Collation: "utf8mb4_bin", Nullable: true}},
		PrimaryKey: []schema.KeyPart{{Column: 0}},
	}
	if there {
		d.exec("CREATE TABLE " + d.db + "." + name + " (id INT PRIMARY KEY, u INT NULL, v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL, UNIQUE KEY u (u))")
	}
}

func (d *duel) exec(statements ...string) {
	d.t.Helper()
	for _, s := range statements {
		d.srv.Exec(d.t, strings.ReplaceAll(s, "@", d.db+"."))
	}
}

func (d *duel) start() {
	d.t.Helper()
	a, err := New(d.cfg, zerolog.Nop())
	if err != nil {
		d.t.Fatal(err)
	}
	a.guard.faults = d.faults
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	d.a, d.ran = a, ran
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ran; err != nil {
			d.t.Errorf("Run: %v", err)
		}
	}
}

// row is an image: nil for NULL, ints, strings.
func row(values ...any) []change.Value {
	var out []change.Value
	for _, v := range values {
		switch v := v.(type) {
		case nil:
			out = append(out, change.Value{})
		case int:
			out = append(out, change.IntegerOf(int64(v)))
		case string:
			out = append(out, change.TextOf([]byte(v)))
		}
	}
	return out
}

func (d *duel) change(table string, before, after []change.Value) change.Row {
	r := change.Row{Table: d.tables[table], Before: before, After: after, Op: change.Update}
	switch {
	case before == nil:
		r.Op = change.Insert
	case after == nil:
		r.Op = change.Delete
	}
	return r
}

// feed gives the applier one transaction.
func (d *duel) feed(rows ...change.Row) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d.n++
	p := d.next
	d.next = change.Place{Offset: p.Offset + 1}
	if err := d.a.Apply(ctx, p, &change.Transaction{GTID: fmt.Sprintf("0-1-%d", d.n), CommitTime: time.Now(), Rows: rows}, ""); err != nil {
		d.t.Fatal(err)
	}
}

// settled waits until all that was fed is durable.
func (d *duel) settled() {
	d.t.Helper()
	d.until("all is durable", func() bool {
		p, _ := d.a.Durable()
		return p.Offset == d.next.Offset-1
	})
}

// halted waits for a halt and returns it.
func (d *duel) halted() Halt {
	d.t.Helper()
	d.until("a halt", func() bool { return len(d.a.Status().Halts) > 0 })
	return d.a.Status().Halts[0]
}

func (d *duel) until(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("no sign that %s: %+v", what, d.a.Status())
		}
	}
}

// has compares a table's rows.
func (d *duel) has(table string, want ...string) {
	d.t.Helper()
	got := d.srv.Value(d.t, "SELECT COALESCE(GROUP_CONCAT(CONCAT_WS(' ', id, COALESCE(u, '-'), COALESCE(v, '-')) ORDER BY id SEPARATOR ', '), '') FROM "+d.db+"."+table)
	if w := strings.Join(want, ", "); got != w {
		d.t.Errorf("%s has %q, want %q", table, got, w)
	}
}

func (d *duel) store() *exceptions.Store { return &exceptions.Store{Stream: d.db} }

// parked lists the open exceptions as "table op cause kind".
func (d *duel) parked() []exceptions.Exception {
	d.t.Helper()
	all, err := d.store().List(context.Background(), d.srv.DB(), exceptions.Filter{})
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

func (d *duel) retrier() *exceptions.Retrier {
	db, err := target.Open(d.srv.Endpoint())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { db.Close() })
	return &exceptions.Retrier{Store: d.store(), DB: db, Policies: d.cfg.Conflicts, By: "test"}
}

var parkAll = Exceptions{On: exceptions.Causes}

func bothFlavors(t *testing.T, f func(t *testing.T, f mysqltest.Flavor)) {
	for _, flavor := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(flavor), func(t *testing.T) { f(t, flavor) })
	}
}

// TestConflictKinds: what each policy does about each kind, to the row, in the
// report and in the exceptions.
func TestConflictKinds(t *testing.T) {
	type outcome struct {
		rows   string // of the target
		action string
	}
	const halts = "halt"
	for _, c := range []struct {
		name          string
		damage        string // on rows (1 10 a), (2 20 b)
		before, after []change.Value
		kind          target.Kind
		source        outcome
		other         string // the rows under the other policies
		keep          string // the action of all policies, where nothing is left to do
	}{
		{"insert", "INSERT INTO @t VALUES (3, 33, 'x')", nil, row(3, 30, "c"), target.InsertExists,
			outcome{"1 10 a, 2 20 b, 3 30 c", "source-wins"}, "1 10 a, 2 20 b, 3 33 x", ""},
		{"update of a changed row", "UPDATE @t SET v = 'x' WHERE id = 1", row(1, 10, "a"), row(1, 11, "a"), target.UpdateDiffers,
			outcome{"1 11 a, 2 20 b", "source-wins"}, "1 10 x, 2 20 b", ""},
		{"update of a row that is gone", "DELETE FROM @t WHERE id = 1", row(1, 10, "a"), row(1, 10, "aa"), target.UpdateMissing,
			outcome{"1 10 aa, 2 20 b", "source-wins"}, "2 20 b", ""},
		{"move onto a row", "INSERT INTO @t VALUES (3, 33, 'x')", row(1, 10, "a"), row(3, 10, "a"), target.InsertExists,
			outcome{"2 20 b, 3 10 a", "source-wins"}, "1 10 a, 2 20 b, 3 33 x", ""},
		{"delete of a changed row", "UPDATE @t SET v = NULL WHERE id = 1", row(1, 10, "a"), nil, target.DeleteDiffers,
			outcome{"2 20 b", "source-wins"}, "1 10 -, 2 20 b", ""},
		{"delete of a row that is gone", "DELETE FROM @t WHERE id = 1", row(1, 10, "a"), nil, target.DeleteMissing,
			outcome{"2 20 b", "already"}, "2 20 b", "already"},
		{"insert of what is there", "INSERT INTO @t VALUES (3, 30, 'c')", nil, row(3, 30, "c"), target.InsertExists,
			outcome{"1 10 a, 2 20 b, 3 30 c", "already"}, "1 10 a, 2 20 b, 3 30 c", "already"},
		{"update to what is there", "UPDATE @t SET v = 'aa' WHERE id = 1", row(1, 10, "a"), row(1, 10, "aa"), target.UpdateDiffers,
			outcome{"1 10 aa, 2 20 b", "already"}, "1 10 aa, 2 20 b", "already"},
		{"insert at a holder", "INSERT INTO @t VALUES (9, 30, 'x')", nil, row(3, 30, "c"), target.UniqueHolder,
			outcome{"1 10 a, 2 20 b, 9 30 x", halts}, "1 10 a, 2 20 b, 9 30 x", ""},
		{"update at a holder", "INSERT INTO @t VALUES (9, 30, 'x')", row(1, 10, "a"), row(1, 30, "a"), target.UniqueHolder,
			outcome{"1 10 a, 2 20 b, 9 30 x", halts}, "1 10 a, 2 20 b, 9 30 x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
				for _, p := range conflicts.All {
					t.Run(string(p), func(t *testing.T) {
						t.Parallel() // each has a schema and a stream of its own, and mostly waits
						d := newDuel(t, f, Config{Conflicts: conflicts.Policies{Policy: p, Images: true}, Exceptions: parkAll})
						d.feed(d.change("t", nil, row(1, 10, "a")), d.change("t", nil, row(2, 20, "b")))
						d.settled()
						d.exec(c.damage)
						d.feed(d.change("t", c.before, c.after))
						want := outcome{c.other, string(p)}
						switch {
						case p == conflicts.SourceWins:
							want = c.source
						case c.keep != "":
							want.action = c.keep
						}
						if want.action == halts {
							if h := d.halted(); h.Code != CodeConflict || !strings.Contains(h.Reason, "id=") {
								t.Errorf("halt %+v", h)
							}
						} else {
							d.settled()
						}
						d.has("t", want.rows)
						r := d.a.ConflictReport()
						if r.Total != 1 || len(r.Newest) != 1 || r.Newest[0].Kind != c.kind || r.Newest[0].Action != want.action || r.Newest[0].GTID != "0-1-2" {
							t.Errorf("report %+v", r)
						}
						all := d.parked()
						if parks := want.action == "exception"; parks != (len(all) == 1) {
							t.Errorf("exceptions %+v", all)
						} else if parks && (all[0].Cause != exceptions.Conflict || all[0].Kind != c.kind || all[0].GTID != "0-1-2" || r.Newest[0].Exception != all[0].ID) {
							t.Errorf("exception %+v", all[0])
						}
					})
				}
			})
		})
	}
}
