package producer

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestNothingBeforeItsCommit: with semi-synchronous replication a transaction is
// in the binlog, and sent to us, long before it is committed.
func TestNothingBeforeItsCommit(t *testing.T) {
	srv := mysqltest.Start(t, mysqltest.MySQL97)
	p := start(t, srv, newMemLog(), nil)
	srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)")
	p.holds(t, srv)
	srv.Exec(t, "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'",
		"SET GLOBAL rpl_semi_sync_source_timeout=2500, GLOBAL rpl_semi_sync_source_wait_point=AFTER_SYNC, GLOBAL rpl_semi_sync_source_enabled=ON")
	read := func() int64 {
		n := int64(0)
		p.stream.Counters().Events(func(name string, c int64) {
			if name == "gtid" {
				n = c
			}
		})
		return n
	}
	before, shipped := read(), len(p.log.all())
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := srv.DB().ExecContext(context.Background(), "INSERT INTO d.t VALUES (2)")
		done <- err
	}()
	eventually(t, "the server sends the transaction", func() bool { return read() > before })
	time.Sleep(time.Second)
	select {
	case err := <-done:
		t.Fatalf("it is committed after %s (%v): nothing was tested", time.Since(began), err)
	default:
	}
	if n := len(p.log.all()); n != shipped {
		t.Errorf("%d entries were appended before the commit", n-shipped)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.holds(t, srv)
	if got := story(t, "mysql", p.log); !strings.HasSuffix(got, ">1\nd.t insert >2\n") {
		t.Errorf("got:\n%s", got)
	}
}
