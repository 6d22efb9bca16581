package applier

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// BenchmarkApply is rows per second into a MySQL, and what each costs this
// process: bulk inserts of 200 B, then updates of all of them.
func BenchmarkApply(b *testing.B) {
	for _, lanes := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprint("lanes=", lanes, "/op=insert"), func(b *testing.B) { benchmarkApply(b, lanes, change.Insert) })
		b.Run(fmt.Sprint("lanes=", lanes, "/op=update"), func(b *testing.B) { benchmarkApply(b, lanes, change.Update) })
	}
}

// bulkTable is a row of which is about 200 bytes.
var bulkTable = &schema.Table{
	Name: schema.Name{Schema: "db", Table: "bulk"}, PrimaryKey: []schema.KeyPart{{Column: 0}},
	Columns: []schema.Column{
		{Name: "id", Type: schema.BigInt},
		{Name: "k", Type: schema.Int},
		{Name: "c", Type: schema.Char, Length: 120, Charset: "utf8mb4", Collation: "utf8mb4_0900_ai_ci"},
		{Name: "pad", Type: schema.Char, Length: 60, Charset: "utf8mb4", Collation: "utf8mb4_0900_ai_ci"},
	},
}

// entryRows is how many rows the benchmark puts into an entry.
const entryRows = 4000

// bulkEntries is the payloads of a log: transactions of 1,000 rows.
func bulkEntries(b *testing.B, op change.Op, rows int) [][]byte {
	codec, err := change.NewCodec(bulkTable)
	if err != nil {
		b.Fatal(err)
	}
	pad := bytes.Repeat([]byte("p"), 179)
	image := func(id, k int) []change.Value {
		return []change.Value{change.IntegerOf(int64(id)), change.IntegerOf(int64(k)), change.TextOf(pad[:119]), change.TextOf(pad[120:])}
	}
	var out [][]byte
	for id := 0; id < rows; {
		w := change.NewBatchWriter(1 << 20)
		for id < rows && w.Rows() < entryRows {
			gtid, at := fmt.Sprintf("0-1-%d", id/1000+1), time.Unix(1, 0)
			w.Begin(gtid, at, 1, false)
			for range 1000 {
				r := change.Row{Table: bulkTable, Op: op, Position: int64(id % 1000), After: image(id, id%997)}
				if op == change.Update {
					r.Before, r.After = r.After, image(id, id%997+1)
				}
				if err := w.Row(codec, &r, gtid, at); err != nil {
					b.Fatal(err)
				}
				id++
			}
			w.End(false)
		}
		out = append(out, w.Finish("", change.Source{Flavor: "mariadb"}))
	}
	return out
}

func benchmarkApply(b *testing.B, lanes int, op change.Op) {
	srv := mysqltest.Start(b, mysqltest.MySQL97)
	srv.Exec(b, "CREATE DATABASE db", "CREATE TABLE db.bulk (id BIGINT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL)")
	if op == change.Update {
		srv.Exec(b, "SET SESSION cte_max_recursion_depth = 1000000000",
			fmt.Sprintf("INSERT INTO db.bulk WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id+1 FROM n WHERE id < %d)"+
				" SELECT id, id %% 997, REPEAT('p',119), REPEAT('p',59) FROM n", b.N+1000))
	}
	cfg := liveConfig(srv, lanes)
	cfg.BatchRows, cfg.WindowBytes, cfg.ProgressInterval = 0, 0, time.Second
	a, err := New(cfg, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1) // owner: the goroutine; one value
	go func() { ran <- a.Run(ctx) }()
	if _, err := a.Resume(ctx); err != nil {
		b.Fatal(err)
	}
	registry := schema.NewRegistry(0)
	codecs := change.NewCodecs(registry)
	version, err := schema.NewTableVersion(bulkTable, "")
	if err == nil {
		_, err = registry.Add(version)
	}
	if err != nil {
		b.Fatal(err)
	}
	entries := bulkEntries(b, op, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	began, server := cpuTime(b), serverTime(b, srv.PID())
	rows := 0
	for i, payload := range entries {
		r, err := change.NewBatchReader(bytes.Clone(payload), codecs)
		if err != nil {
			b.Fatal(err)
		}
		p := change.Place{Offset: log.Offset(i)}
		var t change.Transaction
		for {
			more, err := r.Next(&t)
			if err != nil {
				b.Fatal(err)
			}
			if !more {
				break
			}
			t.Rows = nil
			var row change.Row
			for {
				if more, err = r.NextRow(&row); err != nil {
					b.Fatal(err)
				}
				if !more {
					break
				}
				t.Rows = append(t.Rows, row)
			}
			if err := a.Apply(ctx, p, &t, ""); err != nil {
				b.Fatal(err)
			}
			rows += len(t.Rows)
			p.Index += int32(len(t.Rows)) + 1
		}
	}
	if err := a.drained(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(rows), "cpu-ns/row")
	b.ReportMetric(float64((serverTime(b, srv.PID())-server).Nanoseconds())/float64(rows), "mysqld-ns/row")
	s := a.Status()
	b.ReportMetric(float64(s.Rows)/float64(s.Statements), "rows/statement")
	if s.InsertFound+s.UpdateMissing+s.DeleteMissing > 0 {
		b.Errorf("the target was not as the log expects it: %+v", s)
	}
	cancel()
	if err := <-ran; err != nil {
		b.Fatal(err)
	}
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverTime is what the server's process has used.
func serverTime(b *testing.B, pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	ticks := 0
	for _, x := range f[11:13] { // in user mode, and in the kernel
		n, err := strconv.Atoi(x)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
