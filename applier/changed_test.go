package applier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// noticed waits until the applier ended because a table was changed, and starts
// another.
func (d *duel) noticed() {
	d.t.Helper()
	select {
	case <-d.a.ended:
	case <-time.After(time.Minute):
		d.t.Fatalf("a changed table is not noticed: %+v", d.a.Status())
	}
	if err := <-d.ran; !errors.Is(err, ErrTableChanged) {
		d.t.Fatalf("Run: %v", err)
	}
	d.ran <- nil // for stop
	d.stop()
	d.start()
}

// feeding is feed where something is in the way.
func (d *duel) feeding(rows ...change.Row) <-chan error {
	fed := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	d.n++
	p, n, a := d.next, d.n, d.a
	d.next = change.Place{Offset: p.Offset + 1}
	go func() {
		defer cancel()
		fed <- a.Apply(ctx, p, &change.Transaction{GTID: fmt.Sprintf("0-1-%d", n), CommitTime: time.Now(), Rows: rows}, "")
	}()
	return fed
}

// enums describes a table with an ENUM and text in a charset of its own.
func (d *duel) enums(name string) {
	d.tables[name] = &schema.Table{
		Name: schema.Name{Schema: d.db, Table: name},
		Columns: []schema.Column{{Name: "id", Type: schema.Int},
			{Name: "e", Type: schema.Enum, Members: []string{"x", "y"}, Charset: "utf8mb4", Collation: "utf8mb4_bin", Nullable: true},
			{Name: "l", Type: schema.VarChar, Length: 10, Charset: "latin1", Collation: "latin1_bin", Nullable: true}},
		PrimaryKey: []schema.KeyPart{{Column: 0}},
	}
	d.exec("CREATE TABLE @" + name + " (id INT PRIMARY KEY, e ENUM('x','y') NULL, l VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_bin NULL)")
}

// TestTableChangedByHand: whatever is changed on the target while rows are applied,
// as row events and as SQL, what is written is what the source has.
func TestTableChangedByHand(t *testing.T) {
	for _, flavor := range mysqltest.Flavors() {
		for _, rows := range []int{1, 20} { // SQL, row events
			for _, mode := range []Atomicity{AtomicRow, AtomicTransaction} {
				if testing.Short() && (rows > 1) != (mode == AtomicTransaction) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d rows/%s", flavor, rows, mode), func(t *testing.T) {
					t.Parallel()
					d := newDuel(t, flavor, Config{Atomicity: mode})
					d.enums("e")
					id, want := 0, []string{}
					next := func() (all []change.Row) {
						for range rows {
							id++
							v := []string{"x", "y"}[id%2]
							want = append(want, fmt.Sprintf("%d%sŠ", id, v))
							all = append(all, change.Row{Table: d.tables["e"], Op: change.Insert, After: []change.Value{change.IntegerOf(int64(id)),
								change.TextOf([]byte(v)), change.BytesOf([]byte{0x8a})}})
						}
						return all
					}
					d.feed(next()...)
					d.settled()
					for _, change := range []string{
						"ALTER TABLE @e MODIFY e ENUM('w','y','x') NULL",
						"ALTER TABLE @e ADD more INT NULL FIRST",
						"ALTER TABLE @e MODIFY l VARCHAR(10) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NULL",
						"ALTER TABLE @e MODIFY l VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_bin NULL",
						"ALTER TABLE @e MODIFY l VARCHAR(10) CHARACTER SET latin2 COLLATE latin2_bin NULL",
					} {
						d.exec(change)
						all := next()
						p := d.next
						d.feed(all...)
						d.noticed()
						d.next = p
						fed := d.feeding(all...)
						if strings.Contains(change, "latin2") { // Š is another byte there, and other characters are missing
							if h := d.halted(); h.Code != CodeTable {
								t.Errorf("%+v", h)
							}
							d.exec("ALTER TABLE @e MODIFY l VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_bin NULL")
						}
						if err := <-fed; err != nil {
							t.Fatal(err)
						}
						d.settled()
					}
					if got := d.srv.Value(t, "SELECT GROUP_CONCAT(CONCAT(id, e, CONVERT(l USING utf8mb4)) ORDER BY id SEPARATOR ' ') FROM "+d.db+".e"); got != strings.Join(want, " ") {
						t.Errorf("the target has %s\nwant           %s", got, strings.Join(want, " "))
					}
				})
			}
		}
	}
}

// TestTriggerMadeByHand: a trigger that appears while rows are applied is noticed,
// and halts.
func TestTriggerMadeByHand(t *testing.T) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) {
			t.Parallel()
			d := newDuel(t, flavor, Config{})
			d.feed(d.change("t", nil, row(1, 10, "a")))
			d.settled()
			d.exec("CREATE TRIGGER @tr BEFORE INSERT ON @t FOR EACH ROW SET NEW.v = 'x'")
			d.noticed()
			fed := d.feeding(d.change("t", nil, row(2, 20, "b")))
			if h := d.halted(); h.Code != CodeTriggers {
				t.Errorf("%+v", h)
			}
			d.exec("DROP TRIGGER @tr")
			if err := <-fed; err != nil {
				t.Fatal(err)
			}
			d.settled()
			d.has("t", "1 10 a", "2 20 b")
		})
	}
}
