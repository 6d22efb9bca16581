package change

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/schema"
)

// TestBatchSplitAndDrop: what is split off, or left behind, reads as if the two
// had been written apart.
func TestBatchSplitAndDrop(t *testing.T) {
	table := &schema.Table{Name: schema.Name{Schema: "s", Table: "t"}, Columns: []schema.Column{{Name: "a", Type: schema.Int}}}
	codec, err := NewCodec(table)
	if err != nil {
		t.Fatal(err)
	}
	reg := schema.NewRegistry(0)
	v, err := schema.NewTableVersion(table, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Add(v); err != nil {
		t.Fatal(err)
	}
	now := time.UnixMicro(1_700_000_000_123_456).UTC()
	write := func(w *BatchWriter, id string, from, to int64, continues bool) {
		if !w.Open() {
			w.Begin(id, now, 7, continues)
		}
		for n := from; n < to; n++ {
			r := Row{Op: Insert, Position: n, After: []Value{IntegerOf(n)}}
			if err := w.Row(codec, &r, id, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(name string, got, want []byte) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if _, err := DecodeBatch(got, NewCodecs(reg)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, ddl := range []bool{false, true} {
		w, alone, both := NewBatchWriter(0), NewBatchWriter(0), NewBatchWriter(0)
		for _, x := range []*BatchWriter{w, alone} {
			write(x, "a:1", 0, 3, false)
			x.End(false)
		}
		for _, x := range []*BatchWriter{w, both} {
			x.Begin("a:2", now, 7, true)
			if ddl {
				x.DDL(&DDL{Text: "CREATE TABLE t"})
			}
			write(x, "a:2", 0, 4, true)
		}
		open := w.Split()
		if w.Transactions() != 1 || w.Rows() != 3 || w.Open() || open.Transactions() != 1 || open.Rows() != 4 || !open.Open() {
			t.Fatalf("left %d/%d, split off %d/%d", w.Transactions(), w.Rows(), open.Transactions(), open.Rows())
		}
		check("left", w.Finish("", Source{}), alone.Finish("", Source{}))
		for _, x := range []*BatchWriter{open, both} {
			write(x, "a:2", 4, 6, true)
			x.End(true)
		}
		// And one that is taken back leaves no trace.
		write(open, "a:3", 0, 5, false)
		open.Drop()
		check("split off", open.Finish("a:1-2", Source{}), both.Finish("a:1-2", Source{}))
	}
}
