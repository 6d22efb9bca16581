package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// TestChangedByHand: a plan's table that someone changes is noticed in the
// transaction that wrote to it, whatever way the rows went; what does not matter to
// rows is not a change. The table is read over a connection with other settings than
// a lane's.
func TestChangedByHand(t *testing.T) {
	for _, way := range []string{"SQL", "events"} {
		onEach(t, func(t *testing.T, b *bench) {
			b.events, b.wary = way == "events", true
			db, err := server.Open(b.server.Endpoint(), server.Options{Session: map[string]string{"sql_mode": "'ANSI_QUOTES'", "character_set_results": "latin1"}})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			ctx := context.Background()
			for n, c := range []struct {
				change string
				same   bool
			}{
				{change: "ALTER TABLE e MODIFY e ENUM('y','x','ü')"},
				{change: "ALTER TABLE e MODIFY s SET('b','a')"},
				{change: "ALTER TABLE e MODIFY l VARCHAR(10) CHARACTER SET latin2"},
				{change: "ALTER TABLE e MODIFY l VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_german1_ci"},
				{change: "ALTER TABLE e MODIFY k INT UNSIGNED"},
				{change: "ALTER TABLE e MODIFY k BIGINT"},
				{change: "ALTER TABLE e ADD UNIQUE KEY (k)"},
				{change: "ALTER TABLE e DROP PRIMARY KEY, ADD PRIMARY KEY (id, k)"},
				{change: "ALTER TABLE e ADD more INT"},
				{change: "RENAME TABLE e TO old; CREATE TABLE e (id INT PRIMARY KEY, e ENUM('y','x','ü'), s SET('a','b'), l VARCHAR(10) CHARACTER SET latin1, k INT)"},
				{change: "INSERT INTO e (id) VALUES (70)", same: true},
				{change: "ANALYZE TABLE e", same: true},
				{change: "OPTIMIZE TABLE e", same: true},
				{change: "TRUNCATE TABLE e", same: true},
			} {
				b.exec("DROP TABLE IF EXISTS e, old", "CREATE TABLE e (id INT PRIMARY KEY AUTO_INCREMENT, e ENUM('x','y','ü') COMMENT 'ü', s SET('a','b'),"+
					" l VARCHAR(10) CHARACTER SET latin1, k INT) DEFAULT CHARSET utf8mb4")
				b.exec("INSERT INTO e VALUES (1, 'x', 'a', 'é', 1)")
				b.catalog.ForgetAll()
				table, err := b.catalog.Table(ctx, db, schema.Name{Schema: b.schema, Table: "e"})
				if err != nil {
					t.Fatal(err)
				}
				p, err := NewPlan(&table.Table, table)
				if err != nil {
					t.Fatal(err)
				}
				row := b.images(p, "FROM e")[0]
				b.exec("DELETE FROM e")
				for _, changed := range []bool{false, true} {
					if changed {
						for s := range strings.SplitSeq(c.change, ";") {
							b.rows(s)
						}
					}
					err := b.begun(p, p.insert(row...))
					if err != nil && !changed {
						t.Fatal(err)
					}
					switch err := p.Unchanged(ctx, b.conn); {
					case !changed || c.same:
						if err != nil {
							t.Errorf("%d, %s, changed %t: %v", n, c.change, changed, err)
						}
					case !errors.Is(err, ErrChanged):
						t.Errorf("%s is not noticed: %v", c.change, err)
					}
					b.exec("ROLLBACK")
				}
			}
			b.exec("DROP TABLE e")
			gone := fmt.Sprintf("`%s`.`e`", b.schema)
			if n, err := shown(ctx, b.conn, gone); n != 0 || err != nil {
				t.Errorf("a table that is gone: %d, %v", n, err)
			}
		})
	}
}

// begun applies rows in a transaction that stays open.
func (b *bench) begun(p *Plan, rows ...change.Row) error {
	b.t.Helper()
	if b.events && b.writer == nil {
		var err error
		if b.writer, err = NewWriter(context.Background(), b.conn, b.info); err != nil || b.writer.Reason() != "" {
			b.t.Fatalf("no row events: %s: %v", b.writer.Reason(), err)
		}
		b.writer.few = 1
		b.opener()
	}
	b.exec("BEGIN")
	if b.events {
		_, err := b.native(p, rows)
		return err
	}
	_, err := p.Apply(context.Background(), b.conn, rows)
	return err
}

// TestTriggered: a trigger on one of the tables is found, and no other.
func TestTriggered(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE a (id INT PRIMARY KEY)", "CREATE TABLE b (id INT PRIMARY KEY)", "CREATE TRIGGER tr BEFORE INSERT ON b FOR EACH ROW SET NEW.id = 7")
		all := []schema.Name{{Schema: b.schema, Table: "a"}, {Schema: "nowhere", Table: "b"}}
		if err := Triggered(ctx, b.db, all); err != nil {
			t.Error(err)
		}
		if err := Triggered(ctx, b.db, append(all, schema.Name{Schema: b.schema, Table: "b"})); !errors.Is(err, ErrChanged) {
			t.Error(err)
		}
	})
}
