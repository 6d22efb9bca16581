package producer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// story is what a log holds, one line for each statement and row.
func story(t testing.TB, flavor string, l *memLog) string {
	t.Helper()
	txs := readLog(t, flavor, l.all())
	once(t, txs)
	var b strings.Builder
	for _, x := range txs {
		for _, d := range x.ddl {
			fmt.Fprintf(&b, "%s\n", strings.Join(strings.Fields(d), " "))
		}
		for _, r := range x.rows {
			fmt.Fprintf(&b, "%s %s %s>%s\n", r.Table.Name, r.Op, texts(r.Before), texts(r.After))
		}
	}
	return b.String()
}

// TestCompressedTransactions: MySQL's transaction payloads and MariaDB's
// compressed events read like plain ones.
func TestCompressedTransactions(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			setting := "binlog_transaction_compression"
			if f.IsMariaDB() {
				setting = "log_bin_compress"
			}
			srv := mysqltest.Start(t, f)
			if f.IsMariaDB() {
				srv.Exec(t, "SET GLOBAL log_bin_compress_min_len=10")
			}
			var stories [2]string
			for i, on := range []string{"OFF", "ON"} {
				srv.Exec(t, "DROP DATABASE IF EXISTS d", "SET GLOBAL "+setting+"="+on)
				p := startNow(t, srv, nil)
				srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(2000), e ENUM('a','b'))",
					"INSERT INTO d.t VALUES (1,REPEAT('x',900),'a'),(2,REPEAT('y',900),'b')", "UPDATE d.t SET v=CONCAT(v,'') , e='b'",
					"BEGIN", "DELETE FROM d.t WHERE id=2", "SAVEPOINT s", "DELETE FROM d.t WHERE id=1", "ROLLBACK TO s", "COMMIT",
					"ALTER TABLE d.t ADD w DATETIME(3) NOT NULL DEFAULT '2020-01-02 03:04:05.678'")
				p.holds(t, srv)
				stories[i] = story(t, string(f.Server()), p.log)
				seen := map[string]int64{}
				p.stream.Counters().Events(func(name string, n int64) { seen[name] = n })
				compressed := seen["query_compressed"] + seen["write_rows_compressed_v1"] + seen["update_rows_compressed_v1"]
				// A payload is taken apart before its events are counted: MySQL's
				// shows in the bytes.
				if f.IsMariaDB() && (compressed > 0) != (on == "ON") {
					t.Errorf("%s: events %v", on, seen)
				}
				if n := p.stream.Counters().Bytes.Load(); !f.IsMariaDB() && (n > 3500) == (on == "ON") {
					t.Errorf("%s: %d bytes received", on, n)
				}
			}
			if stories[0] != stories[1] || strings.Count(stories[0], "\n") != 7 {
				t.Errorf("plain:\n%.4000s\ncompressed:\n%.4000s", stories[0], stories[1])
			}
		})
	}
}

// TestTaggedGTIDs: tags are sources of their own, in the log and on resuming.
func TestTaggedGTIDs(t *testing.T) {
	srv := mysqltest.Start(t, mysqltest.MySQL97)
	l := newMemLog()
	srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	n := 0
	more := func() {
		for _, next := range []string{"AUTOMATIC:blue", "AUTOMATIC", "AUTOMATIC:green", "AUTOMATIC:blue"} {
			srv.Exec(t, "SET SESSION gtid_next='"+next+"'", fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n), "SET SESSION gtid_next='AUTOMATIC'")
			n++
		}
	}
	for range 3 {
		p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
		more()
		p.holds(t, srv)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		more()
	}
	p := start(t, srv, l, nil)
	p.holds(t, srv)
	if got, want := p.Status().GTIDSet, strings.ReplaceAll(srv.Value(t, "SELECT @@GLOBAL.gtid_executed"), "\n", ""); got != want || !strings.Contains(got, ":blue:1-12") {
		t.Errorf("the log holds %s, the server has %s", got, want)
	}
	var want strings.Builder
	want.WriteString("CREATE DATABASE d\nCREATE TABLE d.t (id INT PRIMARY KEY)\n")
	for i := range n {
		fmt.Fprintf(&want, "d.t insert >%d\n", i)
	}
	if got := story(t, "mysql", l); got != want.String() {
		t.Errorf("got:\n%s", got)
	}
}

// TestMariaDBDomains: transactions of several domains, resumed in between.
func TestMariaDBDomains(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			l := newMemLog()
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
			n := 0
			for range 3 {
				p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
				for range 2 {
					for _, domain := range []int{7, 0, 3, 7} {
						srv.Exec(t, fmt.Sprintf("SET SESSION gtid_domain_id=%d", domain), fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n))
						n++
					}
				}
				p.holds(t, srv)
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
				srv.Exec(t, "FLUSH BINARY LOGS")
			}
			if got := strings.Count(story(t, "mariadb", l), "d.t insert"); got != n {
				t.Errorf("%d rows in the log, want %d", got, n)
			}
		})
	}
}

// TestMySQLXA: rows of a prepared XA transaction come with its COMMIT and under
// its GTID, also when the producer starts again in between; a ROLLBACK drops them.
func TestMySQLXA(t *testing.T) {
	srv := mysqltest.Start(t, mysqltest.MySQL97)
	l := newMemLog()
	earliest := func(c *Config) { c.Start = StartEarliest }
	srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	prepare := func(xid string, id int) {
		srv.Exec(t, "XA START "+xid, fmt.Sprintf("INSERT INTO d.t VALUES (%d),(%d)", id, id+1), "XA END "+xid, "XA PREPARE "+xid)
	}
	p := start(t, srv, l, earliest)
	prepare("'a'", 10)
	srv.Exec(t, "INSERT INTO d.t VALUES (1)")
	prepare("'b','q',77", 20)
	srv.Exec(t, "XA COMMIT 'a'", "INSERT INTO d.t VALUES (2)")
	srv.Exec(t, "XA START 'one'", "INSERT INTO d.t VALUES (30)", "XA END 'one'", "XA COMMIT 'one' ONE PHASE")
	eventually(t, "the one-phase commit", func() bool { return strings.Contains(story(t, "mysql", l), ">30") })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, "INSERT INTO d.t VALUES (3)")
	p = start(t, srv, l, nil)
	prepare("'c'", 40)
	srv.Exec(t, "XA COMMIT 'b','q',77", "XA ROLLBACK 'c'", "INSERT INTO d.t VALUES (4)")
	p.holds(t, srv)
	want := "CREATE DATABASE d\nCREATE TABLE d.t (id INT PRIMARY KEY)\n"
	for _, id := range []int{1, 10, 11, 2, 30, 3, 20, 21, 4} {
		want += fmt.Sprintf("d.t insert >%d\n", id)
	}
	if got := story(t, "mysql", l); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestInternalSchemas: nothing of the server's own schemas is shipped, and its
// transactions count.
func TestInternalSchemas(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
			srv.Exec(t, "CREATE DATABASE twinspan", "CREATE TABLE twinspan.x (id INT PRIMARY KEY)", "INSERT INTO twinspan.x VALUES (1)",
				"INSERT INTO mysql.help_keyword VALUES (4000000,'zzz')", "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
			p.holds(t, srv)
			got := story(t, string(f.Server()), p.log)
			if strings.Contains(got, "zzz") || strings.Contains(got, "twinspan.x insert") || !strings.Contains(got, "d.t insert >1") {
				t.Errorf("got:\n%s", got)
			}
		})
	}
}

// TestRowFlags: what an applier must know of foreign keys and unique checks.
func TestRowFlags(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.p (id INT PRIMARY KEY)", "CREATE TABLE d.c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.p (id) ON DELETE CASCADE)",
				"INSERT INTO d.p VALUES (1)", "INSERT INTO d.c VALUES (1,1)")
			p := startNow(t, srv, nil)
			srv.Exec(t, "SET foreign_key_checks=0, unique_checks=0", "INSERT INTO d.c VALUES (2,7)", "SET foreign_key_checks=1, unique_checks=1", "DELETE FROM d.p")
			p.holds(t, srv)
			got := map[string]change.Flags{}
			for _, x := range readLog(t, string(f.Server()), p.log.all()) {
				for _, r := range x.rows {
					got[r.Table.Name.Table+" "+r.Op.String()] = r.Flags
				}
			}
			want := map[string]change.Flags{"c insert": change.NoForeignKeyChecks | change.RelaxedUniqueChecks, "p delete": 0}
			if !f.IsMariaDB() { // from 9.6 on, cascades are in the binlog
				want = map[string]change.Flags{
					"c insert": change.NoForeignKeyChecks | change.RelaxedUniqueChecks | change.CascadesLogged,
					"c delete": change.NoForeignKeyChecks | change.CascadesLogged, "p delete": change.CascadesLogged,
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestChecksums: events with and without checksums, changed under a running
// producer and while it was away.
func TestChecksums(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(100))")
			l := newMemLog()
			n, want := 0, "CREATE DATABASE d\nCREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(100))\n"
			write := func() {
				n++
				srv.Exec(t, fmt.Sprintf("INSERT INTO d.t VALUES (%d,REPEAT('v',%d))", n, n))
				want += fmt.Sprintf("d.t insert >%d,%s\n", n, strings.Repeat("v", n))
			}
			set := func(alg string) { srv.Exec(t, "SET GLOBAL binlog_checksum="+alg) }
			for _, first := range []string{"CRC32", "NONE"} {
				set(first)
				p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
				for _, alg := range []string{first, "NONE", "CRC32", "NONE"} {
					set(alg)
					write()
					p.holds(t, srv)
				}
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
			}
			// Behind: a binlog of both kinds, read by a producer that is told of one.
			set("CRC32")
			write()
			set("NONE")
			write()
			set("CRC32")
			p := start(t, srv, l, nil)
			write()
			p.holds(t, srv)
			if got := story(t, string(f.Server()), l); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if n := p.stream.Counters().Reconnects.Load(); n != 0 {
				t.Errorf("%d reconnects", n)
			}
		})
	}
}
