package target

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// benchRows are INSERTs of about 190 bytes of data, and their plan.
func benchRows(b *testing.B, n int) (*Plan, []change.Row) {
	b.Helper()
	t := &Table{Table: schema.Table{Name: schema.Name{Schema: "d", Table: "t"}, PrimaryKey: []schema.KeyPart{{}}}, Identity: 0, Engine: "InnoDB",
		Keys: []Key{{Name: "PRIMARY", Primary: true, Parts: []schema.KeyPart{{}}}}}
	add := func(c schema.Column) {
		c.Name = fmt.Sprintf("c%d", len(t.Columns))
		t.Columns = append(t.Columns, c)
		t.Generated = append(t.Generated, false)
		t.columns = append(t.columns, column{scale: -1})
	}
	add(schema.Column{Type: schema.BigInt})
	add(schema.Column{Type: schema.Int})
	add(schema.Column{Type: schema.VarChar, Length: 400, Charset: "utf8mb4", Collation: "utf8mb4_bin"})
	add(schema.Column{Type: schema.DateTime, Scale: 6})
	add(schema.Column{Type: schema.Decimal, Precision: 10, Scale: 2})
	p, err := NewPlan(&t.Table, t)
	if err != nil {
		b.Fatal(err)
	}
	var rows []change.Row
	for i := range n {
		rows = append(rows, p.insert(image(i, i, strings.Repeat("x", 150), "2020-01-01 00:00:00.000000", "12345.67")...))
	}
	return p, rows
}

// BenchmarkRender is the cost of one row's literals.
func BenchmarkRender(b *testing.B) {
	p, rows := benchRows(b, 1000)
	r := &run{p: p, ctx: context.Background(), rows: rows}
	b.ReportAllocs()
	for b.Loop() {
		r.sql = r.sql[:0]
		for i := range rows {
			if err := r.values(rows[i].After); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
}

// discard is a server that takes everything at once.
type discard struct{ statements, bytes int }

func (d *discard) ExecContext(_ context.Context, query string, _ ...any) (sql.Result, error) {
	d.statements++
	d.bytes += len(query)
	return nil, nil
}

func (d *discard) QueryContext(context.Context, string, ...any) (*sql.Rows, error) { return nil, nil }

// BenchmarkRowEvents is the cost of one row on its way into BINLOG statements:
// checked, merged, encoded, in base64. Batches as a busy lane has them.
func BenchmarkRowEvents(b *testing.B) {
	p, rows := benchRows(b, 5000)
	var updates, hot []change.Row
	for i, r := range rows {
		updates = append(updates, p.update(r.After, r.After))
		hot = append(hot, p.update(rows[i%100].After, rows[i%100].After))
	}
	for _, c := range []struct {
		name string
		rows []change.Row
	}{{"insert", rows}, {"update", updates}, {"hot", hot}} {
		b.Run(c.name, func(b *testing.B) {
			d := &discard{}
			w := &Writer{conn: d, packet: 64 << 20, ids: map[*Plan]uint32{}, slots: map[uint64]int32{}}
			ctx := context.Background()
			runs := []Run{{p, c.rows}}
			b.ReportAllocs()
			for b.Loop() {
				var sum Outcome
				w.reset()
				w.tables(runs)
				if err := w.run(ctx, runs[0], &sum); err != nil {
					b.Fatal(err)
				}
				if err := w.flush(ctx, &sum); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(c.rows)), "ns/row")
			b.ReportMetric(float64(d.bytes)/float64(d.statements), "bytes/statement")
			b.ReportMetric(float64(d.statements)/float64(b.N), "statements/batch")
		})
	}
}
