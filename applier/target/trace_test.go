package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// passing are session variables that change by themselves.
const passing = "'timestamp','rand_seed1','rand_seed2','last_gtid','pseudo_thread_id','insert_id','last_insert_id','identity'," +
	"'error_count','warning_count','statement_id','in_transaction','gtid_executed','gtid_binlog_pos','gtid_binlog_state','gtid_current_pos','log_bin_index','last_seq_no','gtid_seq_no'"

// session is all that the session's variables say.
func (b *bench) session() map[string]string {
	b.t.Helper()
	all := map[string]string{}
	for _, r := range b.rows("SHOW SESSION VARIABLES WHERE Variable_name NOT IN (" + passing + ")") {
		name, value, _ := strings.Cut(r, "|")
		all[name] = value
	}
	return all
}

// TestRowEventsRestoreSession: every variable of the session is after row events
// what it was before, whether they were carried out or refused, and why ever.
func TestRowEventsRestoreSession(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE p (id INT PRIMARY KEY)", "INSERT INTO p VALUES (1)",
			"CREATE TABLE c (id INT PRIMARY KEY, u INT UNIQUE, p INT, FOREIGN KEY (p) REFERENCES p (id))",
			"CREATE TABLE part (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (100))",
			"CREATE TABLE plain (id INT PRIMARY KEY, v VARCHAR(10))", "CREATE TABLE wide (id INT PRIMARY KEY, v LONGTEXT)")
		c, part, plain, wide := b.plan("c", "c"), b.plan("part", "part"), b.plan("plain", "plain"), b.plan("wide", "wide")
		long := strings.Repeat("ü", narrowFrom/2)
		w := b.eventful()
		before := b.session()
		if before["foreign_key_checks"] != "ON" || len(before) < 100 {
			t.Fatalf("%d variables", len(before))
		}
		flagged := func(r change.Row, f change.Flags) change.Row { r.Flags = f; return r }
		for _, k := range []struct {
			name string
			run  Run
			done bool
		}{
			{"carried out", Run{plain, []change.Row{plain.insert(image(1, "a")...), plain.update(image(1, "a"), image(1, "b"))}}, true},
			{"without foreign keys", Run{c, []change.Row{flagged(c.insert(image(1, 1, 99)...), change.NoForeignKeyChecks)}}, true},
			{"relaxed", Run{plain, []change.Row{flagged(plain.insert(image(2, "a")...), change.RelaxedUniqueChecks)}}, true},
			{"row is there", Run{plain, []change.Row{plain.insert(image(1, "z")...)}}, false},
			{"row to update is not", Run{plain, []change.Row{plain.update(image(9, "a"), image(9, "b"))}}, false},
			{"row to delete is not", Run{plain, []change.Row{plain.remove(image(9, "a")...)}}, false},
			{"unique key taken", Run{c, []change.Row{c.insert(image(2, 1, 1)...)}}, false},
			{"unique key taken, unchecked", Run{c, []change.Row{flagged(c.insert(image(2, 1, 98)...), change.NoForeignKeyChecks)}}, false},
			{"no parent", Run{c, []change.Row{c.insert(image(3, 3, 97)...)}}, false},
			{"no partition", Run{part, []change.Row{part.insert(image(100, 1)...)}}, false},
			{"long", Run{wide, []change.Row{wide.insert(image(1, long)...), wide.insert(image(2, long)...)}}, true},
			{"long, and the second is there", Run{wide, []change.Row{wide.insert(image(3, long)...), wide.insert(image(2, long)...)}}, false},
			{"value too long", Run{plain, []change.Row{plain.insert(image(3, strings.Repeat("x", 41))...)}}, false},
		} {
			t.Run(k.name, func(t *testing.T) {
				w.rest, w.wait = 0, 0
				count := "SELECT (SELECT COUNT(*) FROM plain), (SELECT COUNT(*) FROM c), (SELECT COUNT(*) FROM part)"
				rows := b.rows(count)[0]
				b.exec("BEGIN")
				_, done, err := w.Try(ctx, []Run{k.run})
				if err != nil || done != k.done {
					t.Errorf("%v, %v: %v", done, err, w.Doubt())
				}
				if !k.done && b.rows(count)[0] != rows {
					t.Error("rows of a refused statement are there")
				}
				b.exec("COMMIT")
				after := b.session()
				for name, value := range before {
					if after[name] != value {
						t.Errorf("%s was %q and is %q", name, value, after[name])
					}
				}
			})
		}
		// What the variables promise holds, too.
		if _, err := b.conn.ExecContext(ctx, "INSERT INTO c VALUES (50, 50, 96)"); server.ErrorNumber(err) != 1452 {
			t.Errorf("a row without its parent: %v", err)
		}
		b.want("SELECT COUNT(*) FROM c", "1")
		b.want("SELECT COUNT(*) FROM wide WHERE v = REPEAT('ü', "+fmt.Sprint(narrowFrom/2)+")", "2")
		b.want(fmt.Sprintf("SELECT @@SESSION.time_zone, @@SESSION.sql_mode LIKE '%%%s%%'", "ALLOW_INVALID_DATES"), "+00:00|1")
	})
}

// stuck never lets a session's character set be set back.
type stuck struct{ Execer }

var errStuck = &mysql.MySQLError{Number: 1317, Message: "Query execution was interrupted"}

func (s stuck) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if strings.HasSuffix(query, "character_set_client = utf8mb4") {
		return nil, errStuck
	}
	return s.Execer.ExecContext(ctx, query, args...)
}

// TestRowEventsLeaveCharset: a session that would misread the text of SQL is no
// session any more, whether its row events were carried out or refused.
func TestRowEventsLeaveCharset(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)")
		p := b.plan("t", "t")
		w := b.eventful()
		w.conn = stuck{w.conn}
		rows := []change.Row{p.insert(image(1, strings.Repeat("x", narrowFrom))...)}
		for range 2 { // the second time it is there already
			b.exec("BEGIN")
			_, done, err := w.Try(ctx, []Run{{p, rows}})
			if done || !Retryable(err) || server.ErrorNumber(err) != 0 || !strings.Contains(err.Error(), errStuck.Message) {
				t.Errorf("%v: %v", done, err)
			}
			b.exec("COMMIT")
		}
	})
}

// TestRowEventsRefused: a server that stops taking row events, for whatever
// reason, gets SQL, and rows that SQL can write are written.
func TestRowEventsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10))")
		p := b.plan("t", "t")
		w := b.eventful()
		// Events that are not what they say: the server must refuse them, stay
		// up, and keep the session usable.
		for n, damage := range []func(event []byte) []byte{
			func(e []byte) []byte { return e[:len(e)-1] },          // cut short
			func(e []byte) []byte { return append(e, e[:25]...) },  // half an event behind it
			func(e []byte) []byte { e[9], e[10] = 1, 0; return e }, // a length below the header's
			func(e []byte) []byte { e[9+2] = 0x7f; return e },      // a length above all there is
			func(e []byte) []byte { return e[:0] },                 // nothing
		} {
			b.exec("BEGIN")
			w.reset()
			w.tables([]Run{{p, []change.Row{p.insert(image(n, "x")...)}}})
			var sum Outcome
			if err := w.add(ctx, p, change.Insert, nil, image(n, "x"), &sum); err != nil {
				t.Fatal(err)
			}
			w.events = damage(w.events)
			w.open = false
			if err := w.send(ctx, &sum); err == nil {
				t.Errorf("damage %d: no error", n)
			} else if server.ErrorNumber(err) == 0 {
				t.Fatalf("damage %d: the connection is gone: %v", n, err)
			}
			b.exec("ROLLBACK")
		}
		b.want("SELECT COUNT(*) FROM t", "0")
	})
}

// TestRowEventsMeetReadOnly: a privilege that is taken away while rows are written
// makes them SQL, at the latest with the next session; a server that becomes
// read-only for all refuses both ways with an error that says to wait.
func TestRowEventsMeetReadOnly(t *testing.T) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) {
			ctx := context.Background()
			s := mysqltest.Start(t, flavor)
			grant := "REPLICATION_APPLIER, SESSION_VARIABLES_ADMIN ON *.* "
			if flavor.IsMariaDB() {
				grant = "BINLOG REPLAY ON *.* "
			}
			s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "CREATE USER lane@'%' IDENTIFIED BY ''",
				"GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO lane@'%'", "GRANT "+grant+"TO lane@'%'")
			e := s.Endpoint()
			e.User = "lane"
			db, err := Open(e)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			session := func() (*sql.Conn, *Writer) {
				conn, err := OpenSession(ctx, db)
				if err != nil {
					t.Fatal(err)
				}
				info, err := server.Detect(ctx, conn)
				if err != nil {
					t.Fatal(err)
				}
				w, err := NewWriter(ctx, conn, info)
				if err != nil {
					t.Fatal(err)
				}
				w.few = 1
				return conn, w
			}
			conn, w := session()
			defer func() { Discard(conn) }()
			info, err := server.Detect(ctx, conn)
			if err != nil {
				t.Fatal(err)
			}
			collations, err := schema.LoadCollations(ctx, conn)
			if err != nil {
				t.Fatal(err)
			}
			table, err := NewCatalog(info, collations).Table(ctx, conn, schema.Name{Schema: "d", Table: "t"})
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPlan(&table.Table, table)
			if err != nil {
				t.Fatal(err)
			}
			// write answers with the error of both ways together, as a lane does it.
			write := func(id int) (events bool, err error) {
				t.Helper()
				w.rest, w.wait = 0, 0
				rows := []change.Row{p.insert(image(id)...)}
				if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
					t.Fatal(err)
				}
				if w.Together([]Run{{p, rows}}) == 1 {
					_, events, err = w.Try(ctx, []Run{{p, rows}})
				}
				if err == nil && !events {
					_, err = p.Apply(ctx, conn, rows)
				}
				end := "COMMIT"
				if err != nil {
					end = "ROLLBACK"
				}
				if _, err := conn.ExecContext(ctx, end); err != nil {
					t.Fatal(err)
				}
				return events, err
			}
			if events, err := write(1); !events || err != nil {
				t.Fatal(events, err, w.Doubt())
			}
			s.Exec(t, "REVOKE "+grant+"FROM lane@'%'")
			if _, err := write(2); err != nil {
				t.Errorf("after the privilege was taken away: %v", err)
			}
			Discard(conn)
			conn, w = session()
			if w.Reason() == "" {
				t.Error("a session without the privilege uses row events")
			}
			if _, err := write(3); err != nil {
				t.Errorf("without the privilege: %v", err)
			}
			s.Exec(t, "GRANT "+grant+"TO lane@'%'")
			Discard(conn)
			conn, w = session()
			if events, err := write(4); !events || err != nil {
				t.Fatal(events, err, w.Doubt())
			}
			readOnly := "SET GLOBAL super_read_only = "
			if flavor.IsMariaDB() {
				readOnly = "SET GLOBAL read_only = "
			}
			s.Exec(t, readOnly+"ON")
			if events, err := write(5); err == nil || !Retryable(err) {
				t.Errorf("a server that takes no writes: %v, %v", events, err)
			}
			s.Exec(t, "SET GLOBAL read_only = OFF")
			if events, err := write(6); !events || err != nil {
				t.Error(events, err, w.Doubt())
			}
			if got := s.Value(t, "SELECT GROUP_CONCAT(id ORDER BY id) FROM d.t"); got != "1,2,3,4,6" {
				t.Errorf("rows %s", got)
			}
		})
	}
}

// TestRowEventsOfLargeRows: statements stay below max_allowed_packet; a row that
// only fits as SQL goes so, and one that never fits says which it is.
func TestRowEventsOfLargeRows(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)")
		p := b.plan("t", "t")
		w := b.eventful()
		w.packet = 1 << 20 // as if the server took no more
		p.packet.Store(1 << 20)
		write := func(statements int, rows ...change.Row) (done bool, err error) {
			t.Helper()
			w.rest, w.wait = 0, 0
			b.exec("BEGIN")
			defer b.exec("COMMIT")
			out, done, err := w.Try(ctx, []Run{{p, rows}})
			if err == nil && !done {
				_, err = p.Apply(ctx, b.conn, rows)
			} else if out.Statements-4 != statements { // savepoint, columns, charset and back
				t.Errorf("%d statements, not %d", out.Statements-4, statements)
			}
			return done, err
		}
		var rows []change.Row
		for i := range 10 {
			rows = append(rows, p.insert(image(i, strings.Repeat("x", 300_000))...))
		}
		if done, err := write(10, rows...); !done || err != nil {
			t.Error(done, err, w.Doubt())
		}
		rows = rows[:0]
		for i := range 100 {
			rows = append(rows, p.insert(image(10+i, strings.Repeat("x", 10_000))...))
		}
		if done, err := write(6, rows...); !done || err != nil {
			t.Error(done, err, w.Doubt())
		}
		if done, err := write(0, p.insert(image(200, strings.Repeat("x", 900_000))...)); done || err != nil {
			t.Error(done, err)
		}
		var row *RowError
		if _, err := write(0, p.insert(image(201, "x")...), p.insert(image(202, strings.Repeat("x", 1_100_000))...)); !errors.Is(err, ErrTooLarge) || !errors.As(err, &row) || row.Index != 1 {
			t.Errorf("a row that does not fit: %v", err)
		}
		b.want("SELECT COUNT(*), SUM(LENGTH(v)) FROM t WHERE id <= 200", fmt.Sprint("111|", 10*300_000+100*10_000+900_000))
	})
}
