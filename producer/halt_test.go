package producer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/producer/binlog"
)

// newest is the GTID of the server's newest transaction.
func newest(t *testing.T, s *mysqltest.Server) string {
	t.Helper()
	if s.Flavor.IsMariaDB() {
		return s.Value(t, "SELECT @@GLOBAL.gtid_binlog_pos")
	}
	set := s.Value(t, "SELECT @@GLOBAL.gtid_executed")
	if i := strings.LastIndexAny(set, "-:"); i >= 0 {
		return set[:strings.LastIndexByte(set, ':')+1] + set[i+1:]
	}
	return set
}

// TestHaltsOnEvents provokes each halt that an event causes, checks that what
// came before it is in the log and nothing of it is, and that skipping its GTID
// goes on behind it.
func TestHaltsOnEvents(t *testing.T) {
	const maria, my = 1, 2
	cases := []struct {
		name  string
		on    int
		code  binlog.Code
		setup []string
		bad   []string // run in one session; the last one is the transaction
	}{
		{"statement", maria | my, binlog.HaltStatement, nil, []string{"SET SESSION binlog_format=STATEMENT", "INSERT INTO d.t VALUES (50,'x')"}},
		{"statement in a transaction", maria | my, binlog.HaltStatement, nil,
			[]string{"SET SESSION binlog_format=STATEMENT", "BEGIN", "DELETE FROM d.t WHERE id=1", "COMMIT"}},
		{"statement with a user variable", maria | my, binlog.HaltStatement, nil,
			[]string{"SET SESSION binlog_format=STATEMENT", "SET @a=51", "INSERT INTO d.t VALUES (@a,'x')"}},
		{"minimal image", maria | my, binlog.HaltPartialImage, nil, []string{"SET SESSION binlog_row_image=MINIMAL", "UPDATE d.t SET v='y' WHERE id=1"}},
		{"no blobs in the image", maria | my, binlog.HaltPartialImage, []string{"CREATE TABLE d.b (id INT PRIMARY KEY, n INT, b BLOB)", "INSERT INTO d.b VALUES (1,1,'x')"},
			[]string{"SET SESSION binlog_row_image=NOBLOB", "UPDATE d.b SET n=2"}},
		{"partial JSON", my, binlog.HaltPartialJSON, []string{"CREATE TABLE d.j (id INT PRIMARY KEY, j JSON)", `INSERT INTO d.j VALUES (1,'{"a":1,"b":"xxxxxxxxxxxxxxxxxxxxxxxxxxxx"}')`},
			[]string{"SET SESSION binlog_row_value_options=PARTIAL_JSON", "UPDATE d.j SET j=JSON_SET(j,'$.a',2)"}},
		{"XA", maria, binlog.HaltXA, nil, []string{"XA START 'x'", "INSERT INTO d.t VALUES (60,'x')", "XA END 'x'", "XA PREPARE 'x'"}},
		{"load data", maria | my, binlog.HaltStatement, nil, []string{"SET SESSION binlog_format=STATEMENT", "LOAD DATA INFILE '/etc/hostname' INTO TABLE d.h"}},
	}
	for _, f := range mysqltest.Flavors() {
		srv := mysqltest.Start(t, f)
		for _, c := range cases {
			if f.IsMariaDB() && c.on&maria == 0 || !f.IsMariaDB() && c.on&my == 0 {
				continue
			}
			t.Run(c.name+"/"+string(f), func(t *testing.T) {
				srv.Exec(t, "DROP DATABASE IF EXISTS d", "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v VARCHAR(20))", "CREATE TABLE d.h (v TEXT)",
					"INSERT INTO d.t VALUES (1,'a')")
				srv.Exec(t, c.setup...)
				p := startNow(t, srv, nil)
				l := p.log
				srv.Exec(t, "INSERT INTO d.t VALUES (2,'before')")
				p.holds(t, srv)
				before := p.Status().GTIDSet
				srv.Exec(t, c.bad...)
				bad := newest(t, srv)
				srv.Exec(t, "INSERT INTO d.t VALUES (99,'after')")
				h := p.halts(t, c.code)
				if h.GTID != bad {
					t.Errorf("halted at %s, want %s", h.GTID, bad)
				}
				if got := p.Status().GTIDSet; got != before {
					t.Errorf("the log holds %s, want %s", got, before)
				}
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
				p = start(t, srv, l, func(c *Config) { c.Binlog.Skip = []string{bad} })
				p.holds(t, srv)
				txs := readLog(t, string(f.Server()), l.all())
				once(t, txs)
				last := txs[len(txs)-1]
				if skipped := txs[len(txs)-2]; skipped.gtid != bad || len(skipped.rows)+len(skipped.ddl) > 0 {
					t.Errorf("before the last: %+v", skipped)
				}
				if len(last.rows) != 1 || texts(last.rows[0].After) != "99,after" {
					t.Errorf("last: %+v", last)
				}
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
				// An XA transaction that stays prepared would block DROP DATABASE.
				for _, x := range srv.Query(t, "XA RECOVER") {
					srv.Exec(t, "XA ROLLBACK '"+x[3]+"'")
				}
			})
		}
	}
}

// TestHaltGap: transactions are purged before the producer has read them; and a
// fresh producer can't start from the earliest.
func TestHaltGap(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			l := newMemLog()
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
			p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
			p.holds(t, srv)
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			before := len(l.all())
			purge(t, srv)
			p = start(t, srv, l, nil)
			p.halts(t, binlog.HaltGap)
			if n := len(l.all()); n != before {
				t.Errorf("%d entries were appended", n-before)
			}
			fresh := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
			fresh.halts(t, binlog.HaltGap)
		})
	}
}

// purge commits and purges what it committed.
func purge(t *testing.T, s *mysqltest.Server) {
	t.Helper()
	s.Exec(t, "INSERT INTO d.t VALUES (100)", "FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (101)", "FLUSH BINARY LOGS")
	status := "SHOW BINARY LOG STATUS"
	if s.Flavor.IsMariaDB() {
		status = "SHOW MASTER STATUS"
	}
	file := s.Query(t, status)[0][0]
	eventually(t, "purge", func() bool {
		s.Exec(t, "PURGE BINARY LOGS TO '"+file+"'")
		return len(s.Query(t, "SHOW BINARY LOGS")) == 1
	})
}

// TestHaltLogAhead: the server has lost what the log holds; when it has it
// again, the producer goes on by itself.
func TestHaltLogAhead(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			l := newMemLog()
			reset := "RESET BINARY LOGS AND GTIDS"
			if f.IsMariaDB() {
				reset = "RESET MASTER"
			}
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
			p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
			p.holds(t, srv)
			held := p.Status().GTIDSet
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			srv.Exec(t, reset, "INSERT INTO d.t VALUES (2)")
			p = start(t, srv, l, nil)
			p.halts(t, binlog.HaltLogAhead)
			srv.Exec(t, reset)
			if f.IsMariaDB() {
				srv.Exec(t, "SET GLOBAL gtid_binlog_state='"+held+"'")
			} else {
				srv.Exec(t, "SET GLOBAL gtid_purged='"+held+"'")
			}
			eventually(t, "the halt heals", func() bool { return p.Status().State == StateRunning })
			srv.Exec(t, "INSERT INTO d.t VALUES (3)")
			p.holds(t, srv)
			once(t, readLog(t, string(f.Server()), l.all()))
		})
	}
}

// TestHaltOnTheServersState: servers that can't be read from at all.
func TestHaltOnTheServersState(t *testing.T) {
	for _, c := range []struct {
		name    string
		flavor  mysqltest.Flavor
		options []mysqltest.Option
		code    binlog.Code
	}{
		{"no GTIDs", mysqltest.MySQL97, []mysqltest.Option{mysqltest.With("gtid-mode", "OFF"), mysqltest.With("enforce-gtid-consistency", "OFF")}, binlog.HaltNoGTID},
		{"no binlog", mysqltest.MySQL97, []mysqltest.Option{mysqltest.Without("log-bin"), mysqltest.WithArgs("--skip-log-bin")}, binlog.HaltNoBinlog},
		{"no binlog", mysqltest.MariaDB118, []mysqltest.Option{mysqltest.Without("log-bin")}, binlog.HaltNoBinlog},
	} {
		t.Run(c.name+"/"+string(c.flavor), func(t *testing.T) {
			srv := mysqltest.Start(t, c.flavor, c.options...)
			p := start(t, srv, newMemLog(), nil)
			p.halts(t, c.code)
		})
	}
}

// TestHaltOnAnonymous: GTIDs were turned on later, and the binlog still has
// transactions without.
func TestHaltOnAnonymous(t *testing.T) {
	srv := mysqltest.Start(t, mysqltest.MySQL97)
	srv.Exec(t, "CREATE DATABASE d", "SET GLOBAL gtid_mode=ON_PERMISSIVE", "SET GLOBAL gtid_mode=OFF_PERMISSIVE",
		"CREATE TABLE d.t (id INT PRIMARY KEY)", "SET GLOBAL gtid_mode=ON_PERMISSIVE", "SET GLOBAL gtid_mode=ON")
	p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
	p.halts(t, binlog.HaltNoGTID)
}

// TestFenced: a second producer takes the stream; the first one returns.
func TestFenced(t *testing.T) {
	srv, d := mysqltest.Shared(t, mysqltest.MySQL97)
	srv.Exec(t, "CREATE TABLE "+d+".t (id INT PRIMARY KEY)")
	l := newMemLog()
	a := start(t, srv, l, nil)
	srv.Exec(t, fmt.Sprintf("INSERT INTO %s.t VALUES (1)", d))
	a.holds(t, srv)
	b := start(t, srv, l, nil)
	eventually(t, "the second producer owns the stream", func() bool { return b.Status().Epoch > a.Status().Epoch })
	srv.Exec(t, fmt.Sprintf("INSERT INTO %s.t VALUES (2)", d))
	b.holds(t, srv)
	eventually(t, "the first is halted", func() bool { return a.Status().Halt != nil })
	if h := a.Status().Halt; h.Code != string(binlog.HaltFenced) {
		t.Fatalf("%+v", h)
	}
	if h := binlog.AsHalt(a.stop()); h == nil || h.Code != binlog.HaltFenced {
		t.Fatalf("Run returned %v", h)
	}
	once(t, readLog(t, "mysql", l.all()))
}
