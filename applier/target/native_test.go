package target

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// TestRowEventsLeaveNoTrace: a session is after row events what it was before, and
// what the target logs of them is its own: its server id, the next GTID of its
// own, all columns in both images.
func TestRowEventsLeaveNoTrace(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.events = true
		b.exec("CREATE TABLE p (id INT PRIMARY KEY)", "CREATE TABLE n (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), p INT, FOREIGN KEY (p) REFERENCES p (id))")
		if _, err := b.apply(b.plan("n", "n"), change.Row{}); err == nil {
			t.Error("a row without images was applied")
		}
		const session = "SELECT @@foreign_key_checks, @@unique_checks, @@sql_mode, @@time_zone, @@autocommit, @@server_id, @@character_set_client, @@sql_log_bin"
		before := b.rows(session)
		p := b.plan("n", "n")
		rows := []change.Row{p.insert(image(0, "zero", nil)...), p.insert(image(40, "x", 7)...), p.update(image(40, "x", 7), image(41, "x", 7)), p.remove(image(0, "zero", nil)...)}
		for i := range rows {
			rows[i].Flags = change.NoForeignKeyChecks
		}
		b.exec("FLUSH BINARY LOGS")
		if out := b.mustApply(p, rows...); out.Inserted != 2 || out.Updated != 1 || out.Deleted != 1 || out.Statements > 5 {
			t.Errorf("%+v", out)
		}
		b.want("SELECT * FROM n", "41|x|7")
		if after := b.rows(session); after[0] != before[0] {
			t.Errorf("the session was %s and is %s", before, after)
		}
		// The next row gets a number of its own, and foreign keys are checked.
		b.exec("INSERT INTO n (v) VALUES ('next')")
		b.want("SELECT id > 41 FROM n WHERE v = 'next'", "1")
		if _, err := b.conn.ExecContext(ctx, "INSERT INTO n VALUES (100, 'orphan', 8)"); server.ErrorNumber(err) != 1452 {
			t.Errorf("a row without its parent: %v", err)
		}
		if _, err := b.apply(p, p.insert(image(101, "orphan", 9)...)); err == nil || !strings.Contains(err.Error(), "foreign key") {
			t.Errorf("a row event without its parent: %v", err)
		}
		own := b.rows("SELECT @@server_id")[0]
		for _, e := range b.loggedEvents() {
			if fmt.Sprint(e.server) != own {
				t.Errorf("event %d by server %d, this is %s", e.typ, e.server, own)
			}
			if e.typ == 160 { // annotation
				t.Error("the statement's text was logged beside its events")
			}
		}
	})
}

type loggedEvent struct {
	typ    byte
	server uint32
}

// loggedEvents are the row events, table maps and annotations of the newest binlog.
func (b *bench) loggedEvents() (out []loggedEvent) {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.server.Dir, "data", "binlog.[0-9]*[0-9]"))
	if err != nil || len(files) == 0 {
		b.t.Fatalf("no binlog in %s: %v", b.server.Dir, err)
	}
	sort.Strings(files)
	data, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		b.t.Fatal(err)
	}
	rows := 0
	for at := 4; at+19 <= len(data); {
		size := int(binary.LittleEndian.Uint32(data[at+9:]))
		if size < 19 || at+size > len(data) {
			break
		}
		switch typ := data[at+4]; typ {
		case 19, 23, 24, 25, 30, 31, 32:
			out = append(out, loggedEvent{typ, binary.LittleEndian.Uint32(data[at+5:])})
			if typ != 19 {
				rows++
			}
		}
		if rows > 4 { // what this test applied; the statements after it are annotated
			break
		}
		at += size
	}
	if rows == 0 {
		b.t.Fatal("no row events were logged")
	}
	return out
}

// TestRowEventsOfManyTables: the runs of a batch share a statement, whatever was
// in the way of one of them is undone for all, and after a doubt SQL goes on for a
// while.
func TestRowEventsOfManyTables(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		ctx := context.Background()
		b.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "CREATE TABLE b (id INT PRIMARY KEY, u INT UNIQUE)", "CREATE TABLE c (id INT, v INT)")
		pa, pb, pc := b.plan("a", "a"), b.plan("b", "b"), b.plan("c", "c")
		w, err := NewWriter(ctx, b.conn, b.info)
		if err != nil || w.Reason() != "" {
			t.Fatal(w.Reason(), err)
		}
		try := func(runs ...Run) (Outcome, bool) {
			t.Helper()
			b.exec("BEGIN")
			out, done, err := w.Try(ctx, runs)
			if err != nil {
				t.Fatal(err)
			}
			b.exec("COMMIT")
			return out, done
		}
		first := []Run{
			{pa, []change.Row{pa.insert(image(1, 1)...), pa.update(image(1, 1), image(1, 2)), pa.insert(image(2, 2)...)}},
			{pb, []change.Row{pb.insert(image(1, 1)...), pb.update(image(1, 1), image(1, 2)), pb.insert(image(2, 1)...)}},
			{pa, []change.Row{pa.remove(image(2, 2)...), pa.insert(image(3, 3)...)}},
			{pc, []change.Row{pc.insert(image(1, 1)...)}},
		}
		if n := w.Together(first[1:]); n != 0 {
			t.Errorf("%d runs of a few rows together", n)
		}
		if n := w.Together(first); n != 3 {
			t.Fatalf("%d runs together", n)
		}
		if out, done := try(first[:3]...); !done || out.Inserted != 5 || out.Updated != 2 || out.Deleted != 1 || out.Statements != 3 {
			t.Fatalf("%v %+v: %v", done, out, w.Doubt())
		}
		b.want("SELECT * FROM a ORDER BY id", "1|2", "3|3")
		b.want("SELECT * FROM b ORDER BY id", "1|2", "2|1")
		doubtful := []Run{
			{pa, []change.Row{pa.insert(image(9, 9)...)}},
			{pb, []change.Row{pb.insert(image(3, 3)...), pb.insert(image(4, 2)...)}},
		}
		if _, done := try(doubtful...); done || w.Doubt() == nil {
			t.Fatal("a unique key was taken, and nobody said so")
		}
		b.want("SELECT COUNT(*) FROM a", "2")
		b.want("SELECT COUNT(*) FROM b", "2")
		// Someone swaps two columns by hand: their numbers would lie.
		b.exec("ALTER TABLE b CHANGE u x INT")
		w.rest, w.wait = 0, 0
		if _, done := try(Run{pb, []change.Row{pb.insert(image(8, 8)...)}}); done {
			t.Error("row events for a table whose columns changed")
		}
		b.want("SELECT COUNT(*) FROM b", "2")
		good := Run{pa, []change.Row{pa.insert(image(5, 5)...)}}
		if _, done := try(good); done {
			t.Error("row events right after a doubt")
		}
		if _, done := try(good); !done {
			t.Error("no row events any more")
		}
	})
}

// TestRowEventsByPrivilege: an account that may not use them leaves its session as
// it was, and one that may needs nothing else, also where others may only read.
func TestRowEventsByPrivilege(t *testing.T) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) {
			ctx := context.Background()
			// Of its own: read_only concerns everyone. Filters are for replication alone.
			s := mysqltest.Start(t, flavor, mysqltest.With("replicate-ignore-db", "d"))
			s.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "CREATE USER some@'%' IDENTIFIED BY ''",
				"GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO some@'%'", "CREATE USER may@'%' IDENTIFIED BY ''", "GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO may@'%'")
			if flavor.IsMariaDB() {
				s.Exec(t, "GRANT BINLOG REPLAY, READ_ONLY ADMIN ON *.* TO may@'%'")
			} else {
				s.Exec(t, "GRANT REPLICATION_APPLIER, SESSION_VARIABLES_ADMIN, CONNECTION_ADMIN ON *.* TO may@'%'", "GRANT CONNECTION_ADMIN ON *.* TO some@'%'")
			}
			for _, user := range []string{"some", "may"} {
				e := s.Endpoint()
				e.User = user
				db, err := Open(e)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				conn, err := OpenSession(ctx, db)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				info, err := server.Detect(ctx, conn)
				if err != nil {
					t.Fatal(err)
				}
				w, err := NewWriter(ctx, conn, info)
				if err != nil {
					t.Fatal(err)
				}
				w.few = 1
				if may := w.Reason() == ""; may != (user == "may") {
					t.Fatalf("account %s: %q", user, w.Reason())
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
				if user == "may" {
					s.Exec(t, "SET GLOBAL read_only = ON")
				}
				if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
					t.Fatal(err)
				}
				row := p.insert(image(len(user), 1)...)
				if runs := []Run{{p, []change.Row{row}}}; w.Together(runs) == 1 {
					if _, done, err := w.Try(ctx, runs); !done || err != nil {
						t.Fatalf("account %s: %v %v", user, err, w.Doubt())
					}
				} else if _, err := p.Apply(ctx, conn, []change.Row{row}); err != nil {
					t.Fatal(err)
				}
				if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.Value(t, "SELECT COUNT(*) FROM d.t"); got != "2" {
				t.Errorf("%s rows", got)
			}
		})
	}
}

// TestRowEventsAreExactOrNotUsed: a server that may leave rows out or bend them
// when it carries events out gets SQL.
func TestRowEventsAreExactOrNotUsed(t *testing.T) {
	ctx := context.Background()
	for _, flavor := range mysqltest.Flavors() {
		variables := []mysqltest.Option{mysqltest.With("slave_skip_errors", "1062"), mysqltest.With("slave_type_conversions", "ALL_LOSSY"), mysqltest.With("slave_exec_mode", "IDEMPOTENT")}
		if !flavor.IsMariaDB() {
			variables = []mysqltest.Option{mysqltest.With("replica_skip_errors", "1062"), mysqltest.With("replica_type_conversions", "ALL_LOSSY,ALL_NON_LOSSY")}
		}
		for i, v := range variables {
			if testing.Short() && i > 0 {
				break
			}
			t.Run(fmt.Sprint(flavor, i), func(t *testing.T) {
				db, err := Open(mysqltest.Start(t, flavor, v).Endpoint())
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				conn, err := OpenSession(ctx, db)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				info, err := server.Detect(ctx, conn)
				if err != nil {
					t.Fatal(err)
				}
				w, err := NewWriter(ctx, conn, info)
				if err != nil || w.Reason() == "" {
					t.Errorf("row events are used: %v", err)
				}
			})
		}
	}
}
