package producer

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestBinlogOutOfNumber: a parallel replica may write a transaction ahead of
// others with lower numbers. Nothing is missing, and the binlog's order is kept.
func TestBinlogOutOfNumber(t *testing.T) {
	srv := mysqltest.Start(t, mysqltest.MySQL97)
	srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	const source = "11111111-2222-3333-4444-555555555555"
	order := []int{1, 2, 6, 4, 3, 5, 7, 9, 8, 10}
	for _, n := range order {
		srv.Exec(t, fmt.Sprintf("SET gtid_next = '%s:%d'", source, n), fmt.Sprintf("INSERT INTO d.t VALUES (%d)", n), "SET gtid_next = 'AUTOMATIC'")
	}
	l := newMemLog()
	p := start(t, srv, l, func(c *Config) { c.Start = StartEarliest })
	p.holds(t, srv)
	var got []string
	for _, x := range readLog(t, "mysql", l.all()) {
		if len(x.rows) > 0 {
			got = append(got, x.gtid)
		}
	}
	var want []string
	for _, n := range order {
		want = append(want, fmt.Sprintf("%s:%d", source, n))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
