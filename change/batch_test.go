package change

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/schema"
)

func drawBatch(t *rapid.T, tables []*schema.Table) *Batch {
	text := rapid.StringN(0, 12, 40)
	b := &Batch{GTIDSet: text.Draw(t, "gtid set"), Source: Source{Flavor: "mysql", ServerUUID: text.Draw(t, "uuid"),
		File: "binlog.000001", Position: rapid.Uint64().Draw(t, "position")}}
	if rapid.IntRange(0, 9).Draw(t, "large set") == 0 {
		b.GTIDSet = strings.Repeat("x", headroom+5)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "transactions") {
		tx := Transaction{GTID: fmt.Sprint("0-1-", i, text.Draw(t, "gtid")), ServerID: rapid.Uint32().Draw(t, "server"),
			Continues: rapid.Bool().Draw(t, "continues"), Continued: rapid.Bool().Draw(t, "continued")}
		if rapid.Bool().Draw(t, "timed") {
			tx.CommitTime = drawTime(t)
		}
		if rapid.IntRange(0, 2).Draw(t, "ddl") == 0 {
			d := &DDL{Text: string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")), DefaultSchema: text.Draw(t, "schema"),
				SQLMode: rapid.Uint64().Draw(t, "mode"), Flags2: rapid.Uint32().Draw(t, "flags2"),
				CharsetClient: rapid.Uint16().Draw(t, "cs"), CollationConnection: rapid.Uint16().Draw(t, "cc"),
				CollationServer: rapid.Uint16().Draw(t, "cserver"), TimeZone: text.Draw(t, "zone"), Timestamp: drawTime(t), Class: "create table"}
			if m := rapid.MapOfN(text, text, 0, 3).Draw(t, "variables"); len(m) > 0 {
				d.Variables = m
			}
			for range rapid.IntRange(0, 2).Draw(t, "tables") {
				d.Tables = append(d.Tables, schema.Name{Schema: text.Draw(t, "schema"), Table: text.Draw(t, "table")})
			}
			tx.DDL = d
		}
		for range rapid.IntRange(0, 4).Draw(t, "rows") {
			r, _ := drawRow(t, rapid.SampledFrom(tables).Draw(t, "table"), tx.GTID, tx.CommitTime)
			tx.Rows = append(tx.Rows, r)
		}
		b.Transactions = append(b.Transactions, tx)
	}
	return b
}

func registryOf(t fataler, tables ...*schema.Table) *schema.Registry {
	reg := schema.NewRegistry(0)
	for _, tab := range tables {
		v, err := schema.NewTableVersion(tab, "")
		if err == nil {
			_, err = reg.Add(v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return reg
}

type fataler interface{ Fatal(...any) }

func envelope(t fataler) *goavro.Codec {
	c, err := goavro.NewCodec(schema.BatchSchema)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBatchesComeBack(t *testing.T) {
	oracle := envelope(t)
	rapid.Check(t, func(t *rapid.T) {
		tables := []*schema.Table{drawTable(t), drawTable(t)}
		codecs := NewCodecs(registryOf(t, tables...))
		b := drawBatch(t, tables)
		payload, err := AppendBatch([]byte("x"), b)
		if err != nil || payload[0] != 'x' {
			t.Fatal(err)
		}
		payload = payload[1:]
		got, err := DecodeBatch(payload, codecs)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, got, sameRows); d != "" {
			t.Fatalf("-want +got:\n%s", d)
		}

		// goavro reads it all, and we read what goavro writes: it counts its
		// arrays, we don't.
		native, rest, err := oracle.NativeFromBinary(payload)
		if err != nil || len(rest) > 0 {
			t.Fatalf("goavro leaves %d bytes: %v", len(rest), err)
		}
		theirs, err := oracle.BinaryFromNative(nil, native)
		if err != nil {
			t.Fatal(err)
		}
		got, err = DecodeBatch(theirs, codecs)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, got, sameRows); d != "" {
			t.Fatalf("by way of goavro, -want +got:\n%s", d)
		}

		// A reader that skips rows sees the same transactions.
		r, err := NewBatchReader(payload, nil)
		if err != nil || r.GTIDSet() != b.GTIDSet || r.Source() != b.Source {
			t.Fatalf("head: %v", err)
		}
		for i := range b.Transactions {
			var tx Transaction
			if more, err := r.Next(&tx); !more || err != nil || tx.GTID != b.Transactions[i].GTID {
				t.Fatalf("transaction %d: %v %v", i, more, err)
			}
		}
		if more, err := r.Next(new(Transaction)); more || err != nil {
			t.Fatalf("after the last one: %v, %v", more, err)
		}
	})
}

func TestBatchCutOrChangedAnywhere(t *testing.T) {
	tab := benchTable()
	codecs := NewCodecs(registryOf(t, tab))
	b := benchBatch(tab, 5)
	b.Transactions[0].DDL = &DDL{Text: "create table t (a int)", Variables: map[string]string{"a": "b"}, Tables: []schema.Name{tab.Name}}
	payload, err := AppendBatch(nil, b)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range payload {
		if _, err := DecodeBatch(payload[:cut], codecs); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d of %d: %v", cut, len(payload), err)
		}
	}
	if _, err := DecodeBatch(append(payload[:len(payload):len(payload)], 0), codecs); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a byte too many: %v", err)
	}
	for i := range payload {
		for _, bit := range []byte{1, 0x80, 0xff} {
			x := bytes.Clone(payload)
			x[i] ^= bit
			if _, err := DecodeBatch(x, codecs); err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, schema.ErrUnknownVersion) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
	}
	// Huge counts and lengths in few bytes cost nothing.
	huge := binary.AppendVarint([]byte{0, 0, 0, 0, 0}, 1<<60)
	if _, err := DecodeBatch(huge, codecs); !errors.Is(err, ErrMalformed) {
		t.Fatalf("2^60 transactions: %v", err)
	}
	if _, err := NewBatchReader(binary.AppendVarint([]byte{2}, 1<<60), codecs); !errors.Is(err, ErrMalformed) {
		t.Fatalf("2^60 bytes of GTIDs: %v", err)
	}
	if _, err := DecodeBatch(payload, NewCodecs(schema.NewRegistry(0))); !errors.Is(err, schema.ErrUnknownVersion) {
		t.Fatalf("unpublished table: %v", err)
	}
}

func TestBatchWriterAfterARefusedRow(t *testing.T) {
	tab := benchTable()
	codec, err := NewCodec(tab)
	if err != nil {
		t.Fatal(err)
	}
	good := benchBatch(tab, 1).Transactions[0].Rows[0]
	bad := good
	bad.After = bad.After[1:]
	w := NewBatchWriter(0)
	w.Begin("g", time.Time{}, 1, true)
	size := w.Size()
	if err := w.Row(codec, &bad, "g", time.Time{}); !errors.Is(err, ErrValue) || w.Size() != size || w.Rows() != 0 {
		t.Fatalf("a bad row leaves %d bytes, had %d: %v", w.Size(), size, err)
	}
	if err := w.Row(codec, &good, "g", time.Time{}); err != nil || !w.Open() {
		t.Fatal(err)
	}
	w.End(true)
	first := w.Finish("", Source{})
	kept := bytes.Clone(first)
	if w.Size() != 0 || w.Rows() != 0 || w.Transactions() != 0 || w.Open() {
		t.Error("the writer is not empty after Finish")
	}
	w.Begin("h", time.Time{}, 1, false)
	w.End(false)
	w.Finish("", Source{})
	if !bytes.Equal(first, kept) {
		t.Error("the next batch changed the first one's payload")
	}
	b, err := DecodeBatch(first, NewCodecs(registryOf(t, tab)))
	if err != nil {
		t.Fatal(err)
	}
	want := &Batch{Transactions: []Transaction{{GTID: "g", ServerID: 1, Continues: true, Continued: true, Rows: []Row{good}}}}
	if d := cmp.Diff(want, b, sameRows); d != "" {
		t.Error(d)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("End outside a transaction did not panic")
			}
		}()
		w.End(false)
	}()
}

func FuzzDecodeBatch(f *testing.F) {
	tab := benchTable()
	codecs := NewCodecs(registryOf(f, tab))
	b := benchBatch(tab, 3)
	for range 2 {
		payload, err := AppendBatch(nil, b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
		b.GTIDSet = ""
		b.Transactions[0].DDL = &DDL{Text: "x", Variables: map[string]string{"a": "b"}, Tables: []schema.Name{tab.Name}}
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := DecodeBatch(p, codecs)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, schema.ErrUnknownVersion) {
				t.Fatal(err)
			}
			return
		}
		again, err := AppendBatch(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		b2, err := DecodeBatch(again, codecs)
		if err != nil || !cmp.Equal(b, b2, sameRows) {
			t.Fatalf("%x became %x: %v", p, again, err)
		}
	})
}

// benchTable has 15 columns of the kinds that tables mostly have.
func benchTable() *schema.Table {
	text := func(name string, length int, nullable bool) schema.Column {
		return schema.Column{Name: name, Type: schema.VarChar, Length: length, Charset: "utf8mb4", Collation: "utf8mb4_0900_ai_ci", Nullable: nullable}
	}
	return &schema.Table{Name: schema.Name{Schema: "shop", Table: "orders"}, PrimaryKey: []schema.KeyPart{{Column: 0}}, Columns: []schema.Column{
		{Name: "id", Type: schema.BigInt}, {Name: "customer_id", Type: schema.BigInt}, {Name: "state", Type: schema.TinyInt},
		{Name: "amount", Type: schema.Decimal, Precision: 12, Scale: 2}, text("currency", 12, false), text("reference", 256, true),
		{Name: "created_at", Type: schema.DateTime, Scale: 6}, {Name: "updated_at", Type: schema.Timestamp, Nullable: true},
		text("note", 1024, true), {Name: "weight", Type: schema.Double, Nullable: true}, {Name: "quantity", Type: schema.Int},
		{Name: "token", Type: schema.VarBinary, Length: 32}, {Name: "due", Type: schema.Date, Nullable: true},
		{Name: "kind", Type: schema.Enum, Members: []string{"retail", "wholesale"}, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
		text("address", 1024, true),
	}}
}

func benchBatch(tab *schema.Table, rows int) *Batch {
	at := time.UnixMicro(1760000000123456).UTC()
	t := Transaction{GTID: "3e11fa47-71ca-11e1-9e33-c80aa9429562:4711", CommitTime: at, ServerID: 7}
	for i := range rows {
		t.Rows = append(t.Rows, Row{Table: tab, Op: Insert, Position: int64(i), After: []Value{
			IntegerOf(int64(1000000 + i)), IntegerOf(77), IntegerOf(3), TextOf([]byte("1234.50")), TextOf([]byte("EUR")), TextOf([]byte("REF-000123")),
			TextOf([]byte("2026-01-02 03:04:05.123456")), {}, TextOf([]byte("please ring the bell twice")), RealOf(1.25), IntegerOf(12),
			BytesOf([]byte("0123456789abcdef")), TextOf([]byte("2026-02-01")), TextOf([]byte("retail")), {},
		}})
	}
	return &Batch{GTIDSet: "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-4711", Source: Source{Flavor: "mysql", File: "binlog.000001"}, Transactions: []Transaction{t}}
}

const benchRows = 1000

// reportRows tells rows and payload bytes in the units people ask for.
func reportRows(b *testing.B, payload int) {
	b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(b.N)*float64(payload)/b.Elapsed().Seconds()/1e6, "MB/s")
	b.ReportAllocs()
}

func BenchmarkWriteBatch(b *testing.B) {
	tab := benchTable()
	codec, err := NewCodec(tab)
	if err != nil {
		b.Fatal(err)
	}
	t := benchBatch(tab, benchRows).Transactions[0]
	w := NewBatchWriter(0)
	size := 0
	for b.Loop() {
		w.Begin(t.GTID, t.CommitTime, t.ServerID, false)
		for i := range t.Rows {
			if err := w.Row(codec, &t.Rows[i], t.GTID, t.CommitTime); err != nil {
				b.Fatal(err)
			}
		}
		w.End(false)
		size = len(w.Finish("", Source{}))
	}
	reportRows(b, size)
}

func BenchmarkReadBatch(b *testing.B) {
	tab := benchTable()
	codecs := NewCodecs(registryOf(b, tab))
	payload, err := AppendBatch(nil, benchBatch(tab, benchRows))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := DecodeBatch(payload, codecs); err != nil {
				b.Fatal(err)
			}
		}
		reportRows(b, len(payload))
	})
	b.Run("iterate", func(b *testing.B) {
		for b.Loop() {
			r, err := NewBatchReader(payload, codecs)
			if err != nil {
				b.Fatal(err)
			}
			var t Transaction
			var row Row
			for more := true; more; {
				if more, err = r.Next(&t); err != nil {
					b.Fatal(err)
				}
				for rows := more; rows; {
					if rows, err = r.NextRow(&row); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		reportRows(b, len(payload))
	})
	b.Run("goavro", func(b *testing.B) {
		outer := envelope(b)
		inner, err := goavro.NewCodec(schema.AvroSchema(tab))
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			n, _, err := outer.NativeFromBinary(payload)
			if err != nil {
				b.Fatal(err)
			}
			for _, t := range n.(map[string]any)["transactions"].([]any) {
				for _, r := range t.(map[string]any)["rows"].([]any) {
					if _, _, err := inner.NativeFromBinary(r.(map[string]any)["payload"].([]byte)); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		reportRows(b, len(payload))
	})
}

func BenchmarkPayload(b *testing.B) {
	tab := benchTable()
	codec, err := NewCodec(tab)
	if err != nil {
		b.Fatal(err)
	}
	oracle, err := goavro.NewCodec(schema.AvroSchema(tab))
	if err != nil {
		b.Fatal(err)
	}
	tx := benchBatch(tab, 1).Transactions[0]
	payload, err := codec.AppendRow(nil, &tx.Rows[0], tx.GTID, tx.CommitTime)
	if err != nil {
		b.Fatal(err)
	}
	native, _, err := oracle.NativeFromBinary(payload)
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = codec.AppendRow(buf, &tx.Rows[0], tx.GTID, tx.CommitTime)
		}
	})
	b.Run("encode-goavro", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := oracle.BinaryFromNative(buf, native); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = codec.DecodeRow(payload)
		}
	})
	b.Run("decode-goavro", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = oracle.NativeFromBinary(payload)
		}
	})
}
