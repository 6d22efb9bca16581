package target

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// BenchmarkRender is the cost of one row's literals, about 190 bytes of data.
func BenchmarkRender(b *testing.B) {
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
	for i := range 1000 {
		rows = append(rows, p.insert(image(i, i, strings.Repeat("x", 150), "2020-01-01 00:00:00.000000", "12345.67")...))
	}
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
