package applier

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
)

// BenchmarkApply is rows per second into a MySQL: inserts, then updates of
// random rows, in transactions of ten.
func BenchmarkApply(b *testing.B) {
	for _, lanes := range []int{1, 4, 8} {
		b.Run(fmt.Sprint("lanes=", lanes), func(b *testing.B) { benchmarkApply(b, lanes) })
	}
}

func benchmarkApply(b *testing.B, lanes int) {
	srv := mysqltest.Start(b, mysqltest.MySQL97)
	srv.Exec(b, "CREATE DATABASE db", "CREATE TABLE db.t (id INT PRIMARY KEY, v VARCHAR(40) COLLATE utf8mb4_bin NOT NULL)")
	cfg := liveConfig(srv, lanes)
	cfg.BatchRows, cfg.WindowBytes, cfg.ProgressInterval = 500, 64<<20, time.Second
	a, err := New(cfg, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	if _, err := a.Resume(ctx); err != nil {
		b.Fatal(err)
	}
	image := func(id int64, v int) []change.Value {
		return []change.Value{change.IntegerOf(id), change.TextOf(fmt.Append(nil, "value ", v))}
	}
	const ids = 50000
	version := make([]int, ids)
	b.ResetTimer()
	n := 0
	for i := 0; n < b.N; i++ {
		t := change.Transaction{GTID: fmt.Sprintf("0-1-%d", i+1), CommitTime: time.Now()}
		for range 10 {
			id := int64(n*7919) % ids
			r := change.Row{Table: shellTable, Op: change.Update}
			if version[id] == 0 {
				r.Op = change.Insert
			} else {
				r.Before = image(id, version[id])
			}
			n++
			version[id] = n
			r.After = image(id, n)
			t.Rows = append(t.Rows, r)
		}
		if err := a.Apply(ctx, change.Place{Offset: log.Offset(i)}, &t, ""); err != nil {
			b.Fatal(err)
		}
	}
	if err := a.drained(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
	s := a.Status()
	b.ReportMetric(float64(s.Rows)/float64(s.Statements), "rows/statement")
	cancel()
	if err := <-ran; err != nil {
		b.Fatal(err)
	}
}
