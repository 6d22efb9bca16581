package binlog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// BenchmarkRows decodes the same row events with our decoder and with
// go-mysql's: updates of a table of fifteen usual columns, many rows in an event
// and one.
func BenchmarkRows(b *testing.B) {
	s, db := mysqltest.Shared(b, mysqltest.MySQL97)
	cols := collationsOf(b, s)
	define := "CREATE TABLE %s (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, a INT, b INT UNSIGNED, c BIGINT, d DECIMAL(12,2), e DATETIME(6), f TIMESTAMP, g DATE, " +
		"h VARCHAR(40), i VARCHAR(200), j CHAR(10), k ENUM('new','paid','sent'), l DOUBLE, m TINYINT, n VARBINARY(20))"
	row := "(NULL,1,2,3,12345.67,'2024-02-29 12:34:56.789123','2024-02-29 12:34:56','2024-02-29','a name of usual length','" + strings.Repeat("text ", 12) + "','code','paid',1.5,1,x'00112233')"
	for _, shape := range []struct {
		name string
		rows int
	}{{"many", 2000}, {"one", 1}} {
		table := "b_" + shape.name
		events := capture(b, s, db, fmt.Sprintf(define, table), "INSERT INTO "+table+" VALUES "+strings.Join(repeat(row, shape.rows), ","), "UPDATE "+table+" SET a=a+1")
		var updates []rowsEvent
		for _, e := range events {
			if e.typ == replication.UPDATE_ROWS_EVENTv2 {
				updates = append(updates, e)
			}
		}
		t, err := TableFromMap(updates[0].table, cols)
		if err != nil {
			b.Fatal(err)
		}
		d, err := NewDecoder(t, updates[0].table)
		if err != nil {
			b.Fatal(err)
		}
		bytes := 0
		for _, e := range updates {
			bytes += len(e.body)
		}
		report := func(b *testing.B) {
			b.ReportMetric(float64(b.N)*float64(shape.rows)/b.Elapsed().Seconds(), "rows/s")
			b.SetBytes(int64(bytes))
			b.ReportAllocs()
		}
		b.Run(shape.name+"/ours", func(b *testing.B) {
			var a Arena
			for b.Loop() {
				n := 0
				for _, e := range updates {
					if err := d.Rows(e.typ, e.body, &a, func(_, _ []change.Value) error { n++; return nil }); err != nil {
						b.Fatal(err)
					}
				}
				if n != shape.rows {
					b.Fatal(n)
				}
			}
			report(b)
		})
		b.Run(shape.name+"/go-mysql", func(b *testing.B) {
			for b.Loop() {
				for _, e := range updates {
					ev := *e.event
					at, err := ev.DecodeHeader(e.body)
					if err == nil {
						err = ev.DecodeData(at, e.body)
					}
					if err != nil || len(ev.Rows) == 0 {
						b.Fatal(err)
					}
				}
			}
			report(b)
		})
	}
}

func repeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}
