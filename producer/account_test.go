package producer

import (
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/producer/binlog"
)

// TestAccount: the producer needs no more than the privileges that the
// documentation names, logs in with a password over plain and encrypted
// connections, and says what is wrong when it can't.
func TestAccount(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			privileges := "REPLICATION SLAVE, REPLICATION CLIENT"
			if f.IsMariaDB() {
				privileges = "REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR"
			}
			srv.Exec(t, "CREATE USER p@'%' IDENTIFIED BY 'S3cret!x'", "GRANT "+privileges+" ON *.* TO p@'%'", "CREATE USER q@'%' IDENTIFIED BY 'S3cret!x'",
				"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
			login := func(user, password, tls string) func(*Config) {
				return func(c *Config) {
					c.Start = StartEarliest
					c.Binlog.Server = server.Endpoint{Address: srv.Address, User: user, Password: password, TLS: server.TLS{Mode: tls}}
				}
			}
			modes := []string{"", "preferred", "required"}
			if f == mysqltest.MariaDB1011 { // it has no certificate of its own
				modes = modes[:2]
			}
			for _, mode := range modes {
				p := start(t, srv, newMemLog(), login("p", "S3cret!x", mode))
				p.holds(t, srv)
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
			}
			for name, c := range map[string]struct{ user, password, want string }{
				"wrong password":    {"p", "wrong", "Access denied"},
				"no such user":      {"nobody", "", "Access denied"},
				"missing privilege": {"q", "S3cret!x", "REPLICATION SLAVE"},
			} {
				p := start(t, srv, newMemLog(), login(c.user, c.password, ""))
				eventually(t, name, func() bool { return p.Status().State == StateTrouble })
				if s := p.Status(); !strings.Contains(s.LastError, c.want) || strings.Contains(s.LastError, c.password) && c.password != "" {
					t.Errorf("%s: %q", name, s.LastError)
				}
				if err := p.stop(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestConfig: what New refuses.
func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no stream":       {},
		"start":           {Stream: "s", Start: "yesterday"},
		"small batches":   {Stream: "s", BatchBytesMax: 1},
		"large parts":     {Stream: "s", TransactionChunkBytes: 1 << 30},
		"negative delay":  {Stream: "s", BatchDelay: -1},
		"skip":            {Stream: "s", Binlog: binlog.Config{Skip: []string{"that one"}}},
		"deaf":            {Stream: "s", Binlog: binlog.Config{Heartbeat: 5, ReadTimeout: 5}},
		"no such TLS":     {Stream: "s", Binlog: binlog.Config{Server: server.Endpoint{TLS: server.TLS{Mode: "maybe"}}}},
		"no such primary": {Stream: "s", Binlog: binlog.Config{Primary: &server.Endpoint{TLS: server.TLS{Mode: "maybe"}}}},
	} {
		if _, err := New(c, newMemLog(), zerolog.Nop()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
