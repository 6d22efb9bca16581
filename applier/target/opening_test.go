package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
)

// TestOpening: a transaction that a writer opens itself has its first statement and
// its rows, or is told apart by what is in the way.
func TestOpening(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE a (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)", "CREATE TABLE b (id INT PRIMARY KEY, u INT UNIQUE)",
			"CREATE TABLE place (n INT)", "INSERT INTO place VALUES (0)")
		pa, pb := b.plan("a", "a"), b.plan("b", "b")
		w := b.eventful()
		move := func(from int) string { return fmt.Sprintf("UPDATE place SET n = %d WHERE n = %d", from+1, from) }
		all := func(from int, runs ...Run) (Outcome, bool, bool, error) {
			t.Helper()
			w.rest = 0
			if !w.Opens(runs) {
				t.Fatal("the writer does not open the transaction")
			}
			b.exec("BEGIN")
			return w.TryAll(ctx, move(from), runs)
		}
		long := strings.Repeat("x", 3*eventBytes)
		for n, runs := range [][]Run{
			{{pa, []change.Row{pa.insert(image(1, "a")...)}}},
			{{pa, []change.Row{pa.update(image(1, "a"), image(1, "b")), pa.insert(image(2, "b")...)}}, {pb, []change.Row{pb.insert(image(1, 1)...)}}},
			{{pa, []change.Row{pa.insert(image(3, "c")...), pa.remove(image(3, "c")...)}}},                                                              // nothing is left
			{{pa, []change.Row{pa.insert(image(4, long)...), pa.insert(image(5, long)...)}}, {pb, []change.Row{pb.insert(image(2, 2)...)}}},             // more than a packet
			{{pa, []change.Row{pa.update(image(4, long), image(4, "d")), pa.remove(image(5, long)...)}}, {pb, []change.Row{pb.remove(image(2, 2)...)}}}, // and back
		} {
			out, open, done, err := all(n, runs...)
			if err != nil || !open || !done {
				t.Fatalf("%d: open %v, done %v, %v, %v", n, open, done, err, w.Doubt())
			}
			if n == 0 && out.Statements != 3 {
				t.Errorf("%d statements", out.Statements)
			}
			b.exec("COMMIT")
		}
		b.want("SELECT * FROM a ORDER BY id", "1|b", "2|b", "4|d")
		b.want("SELECT * FROM b", "1|1")
		b.want("SELECT * FROM place", "5")

		// A refused row is undone to the savepoint; the transaction goes on.
		refusedRows := []Run{{pa, []change.Row{pa.insert(image(6, "e")...)}}, {pb, []change.Row{pb.insert(image(2, 1)...)}}}
		if out, open, done, err := all(5, refusedRows...); !open || done || err != nil || w.Doubt() == nil {
			t.Fatalf("%+v, open %v, done %v, %v", out, open, done, err)
		}
		if w.Opens(refusedRows) {
			t.Error("it goes on by row events at once")
		}
		b.exec("COMMIT")
		b.want("SELECT id FROM a ORDER BY id", "1", "2", "4")
		b.want("SELECT * FROM place", "6")

		// A table that is gone is SQL's to tell.
		b.exec("RENAME TABLE b TO away")
		if _, open, done, err := all(6, refusedRows...); !open || done || err != nil {
			t.Fatalf("open %v, done %v, %v", open, done, err)
		}
		b.exec("ROLLBACK", "RENAME TABLE away TO b")

		// So are the first statement's troubles; the session stays in step.
		if _, open, done, err := all(99, refusedRows[0]); open || done || !errors.Is(err, ErrNotLed) {
			t.Fatalf("open %v, done %v, %v", open, done, err)
		}
		b.exec("ROLLBACK")
		b.want("SELECT id FROM a ORDER BY id", "1", "2", "4")
		w.rest = 0
		b.exec("BEGIN")
		if _, open, done, err := w.TryAll(ctx, "UPDATE nowhere SET n = 1", refusedRows[:1]); open || done || server.ErrorNumber(err) != 1146 {
			t.Fatalf("open %v, done %v, %v", open, done, err)
		}
		b.exec("ROLLBACK")
		b.want("SELECT id FROM a ORDER BY id", "1", "2", "4")

		// A definition that is another one, also while the rows would fit.
		b.exec("ALTER TABLE a COMMENT = 'another'")
		if _, open, done, err := all(6, refusedRows[0]); !open || done || !errors.Is(err, ErrChanged) {
			t.Fatalf("open %v, done %v, %v", open, done, err)
		}
		b.exec("ROLLBACK")
		b.want("SELECT id FROM a ORDER BY id", "1", "2", "4")
	})
}

// TestOpeningKeepsTables: from the look at a table until the end nobody changes it.
func TestOpeningKeepsTables(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
		p := b.plan("a", "a")
		w := b.eventful()
		b.exec("SET autocommit = 0")
		defer b.exec("SET autocommit = 1")
		// No rows are left, so what keeps the table is the statement before them.
		b.opener()
		_, open, done, err := w.TryAll(ctx, lead, []Run{{p, []change.Row{p.insert(image(1, 1)...), p.remove(image(1, 1)...)}}})
		if !open || !done || err != nil {
			t.Fatalf("open %v, done %v, %v", open, done, err)
		}
		other, err := b.db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := other.ExecContext(ctx, "SET lock_wait_timeout = 1"); err != nil {
			t.Fatal(err)
		}
		if _, err := other.ExecContext(ctx, "ALTER TABLE "+p.name+" ADD more INT"); server.ErrorNumber(err) != 1205 {
			t.Errorf("changed meanwhile: %v", err)
		}
		b.exec("COMMIT")
		if _, err := other.ExecContext(ctx, "ALTER TABLE "+p.name+" ADD more INT"); err != nil {
			t.Error(err)
		}
	})
}

// TestOneStatementAPacket: a session that takes no more works without opening.
func TestOneStatementAPacket(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		db, err := server.Open(b.server.Endpoint(), server.Options{FoundRows: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		conn, err := OpenSession(ctx, db)
		if err != nil {
			t.Fatal(err)
		}
		defer Discard(conn)
		b.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
		p := b.plan("a", "a")
		w, err := NewWriter(ctx, conn, b.info)
		if err != nil || w.Reason() != "" {
			t.Fatal(err, w.Reason())
		}
		runs := []Run{{p, []change.Row{p.insert(image(1, 1)...)}}}
		if w.Opens(runs) {
			t.Error("it opens transactions")
		}
		if _, done, err := w.Try(ctx, runs); !done || err != nil {
			t.Error(done, err, w.Doubt())
		}
	})
}
