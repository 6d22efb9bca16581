package producer

import (
	"context"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/producer/binlog"
)

func lean(f mysqltest.Flavor) []mysqltest.Option {
	mode := "MINIMAL"
	if f.IsMariaDB() {
		mode = "NO_LOG"
	}
	return []mysqltest.Option{mysqltest.With("binlog-row-metadata", mode)}
}

// TestLeanMetadata: a table map that names no columns is completed from the
// catalogue, before and after DDL that the producer has seen in time.
func TestLeanMetadata(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f, lean(f)...)
			l := newMemLog()
			srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.u (id INT PRIMARY KEY)", "CREATE TABLE d.t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(20) CHARACTER SET latin1, e ENUM('x','y'))",
				"INSERT INTO d.t VALUES (4000000000,'é','y')", "ALTER TABLE d.u ADD v INT")
			p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
			p.holds(t, srv)
			srv.Exec(t, "ALTER TABLE d.t ADD w INT UNSIGNED")
			p.holds(t, srv)
			srv.Exec(t, "INSERT INTO d.t VALUES (1,'a','x',3000000000)", "CREATE TABLE d.c SELECT * FROM d.t")
			p.holds(t, srv)
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			srv.Exec(t, "INSERT INTO d.t VALUES (2,'b','x',1)")
			p = start(t, srv, l, nil)
			p.holds(t, srv)
			got := story(t, string(f.Server()), l)
			for _, want := range []string{"d.t insert >4000000000,\xe9,y\n", "d.t insert >1,a,x,3000000000\n", "d.c insert >4000000000,\xe9,y,NULL\n", "d.t insert >2,b,x,1\n"} {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in the log:\n%s", want, got)
				}
			}
		})
	}
}

// TestHaltMetadata: the catalogue is ahead of the event, by a change that the
// event does not show.
func TestHaltMetadata(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		srv := mysqltest.Start(t, f, lean(f)...)
		for name, ddl := range map[string]string{
			"renamed column": "ALTER TABLE d.t CHANGE v w INT", "dropped": "DROP TABLE d.t", "swapped": "RENAME TABLE d.t TO d.o, d.o2 TO d.t",
			"dropped schema": "DROP DATABASE d", "index": "CREATE INDEX i ON d.t (v)",
		} {
			t.Run(string(f)+"/"+name, func(t *testing.T) {
				srv.Exec(t, "DROP DATABASE IF EXISTS d", "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, v INT)", "CREATE TABLE d.o2 (id INT PRIMARY KEY, z INT)")
				from, err := srv.GTIDs(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				srv.Exec(t, "INSERT INTO d.t VALUES (1,2)", "CREATE TABLE d.other (id INT PRIMARY KEY)", ddl)
				p := start(t, srv, newMemLog(), func(c *Config) { c.Start = from })
				p.halts(t, binlog.HaltMetadata)
			})
		}
	}
}
