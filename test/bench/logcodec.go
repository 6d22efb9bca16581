package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// codecs compares ways to pack closed segments: what each saves, and what it costs
// in CPU for a KiB that goes in and, later, out. The blocks are those that a
// node makes.
func codecs(_ context.Context, s logSettings, r *results) error {
	rows, err := rowEntries(s.seed)
	if err != nil {
		return err
	}
	fast, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	out, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer out.Close()
	noise := make([][]byte, 256)
	chacha := rand.NewChaCha8([32]byte{1})
	for i := range noise {
		noise[i] = make([]byte, entryBytes)
		_, _ = chacha.Read(noise[i]) // never fails
	}
	for _, in := range []struct {
		name, key string
		entries   [][]byte
	}{{"entries of this bench", "bench", payloads}, {"batches of rows in Avro", "rows", rows}, {"random bytes", "noise", noise}} {
		blocks := blocksOf(in.entries)
		for _, c := range []struct {
			name         string
			pack, unpack func(dst, src []byte) ([]byte, error)
		}{
			{"zstd", func(dst, src []byte) ([]byte, error) { return fast.EncodeAll(src, dst[:0]), nil }, func(dst, src []byte) ([]byte, error) { return out.DecodeAll(src, dst[:0]) }},
			{"s2", func(dst, src []byte) ([]byte, error) { return s2.Encode(dst[:cap(dst)], src), nil }, func(dst, src []byte) ([]byte, error) { return s2.Decode(dst[:cap(dst)], src) }},
		} {
			raw, packed, in2, out2, err := codecCost(blocks, c.pack, c.unpack)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			ratio := float64(raw) / float64(packed)
			perKiB := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(raw>>10) }
			fmt.Printf("log: %-24s %-5s 1/%.2f of the bytes, %.2f µs CPU for a KiB in, %.2f out\n", in.name, c.name, ratio, perKiB(in2), perKiB(out2))
			key := in.key + "_" + c.name
			r.add(key+"_ratio", "%.2f", ratio)
			r.add(key+"_us_per_kib", "%.2f", perKiB(in2))
		}
	}
	return nil
}

// blockBytes is what a node packs together.
const blockBytes = 256 << 10

func blocksOf(entries [][]byte) (blocks [][]byte) {
	var b []byte
	for i := 0; len(blocks) < 16; i++ {
		b = append(b, make([]byte, 32)...) // a record's head
		b = append(b, entries[i%len(entries)]...)
		if len(b) >= blockBytes {
			blocks = append(blocks, b)
			b = nil
		}
	}
	return blocks
}

func codecCost(blocks [][]byte, pack, unpack func(dst, src []byte) ([]byte, error)) (raw, packed int, in, out time.Duration, err error) {
	into, back := make([]byte, 0, 2*blockBytes), make([]byte, 0, 2*blockBytes)
	for range 2 { // the first time fills tables
		raw, packed, in, out = 0, 0, 0, 0
		for range 8 {
			for _, b := range blocks {
				before := cpuOf(nil)
				if into, err = pack(into, b); err != nil {
					return
				}
				between := cpuOf(nil)
				if back, err = unpack(back, into); err != nil {
					return
				}
				if len(back) != len(b) {
					return 0, 0, 0, 0, fmt.Errorf("%d bytes come back as %d", len(b), len(back))
				}
				raw, packed = raw+len(b), packed+len(into)
				in += time.Duration((between - before) * 1e9)
				out += time.Duration((cpuOf(nil) - between) * 1e9)
			}
		}
	}
	return
}

// rowEntries are batches of about a kilobyte as a producer makes them: updates of
// orders, with the row before and after.
func rowEntries(seed int64) ([][]byte, error) {
	order := &schema.Table{
		Name: schema.Name{Schema: "shop", Table: "orders"},
		Columns: []schema.Column{
			{Name: "id", Type: schema.BigInt}, {Name: "customer", Type: schema.BigInt},
			{Name: "status", Type: schema.VarChar, Length: 16, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
			{Name: "amount", Type: schema.Decimal, Precision: 12, Scale: 2},
			{Name: "email", Type: schema.VarChar, Length: 80, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
			{Name: "token", Type: schema.VarBinary, Length: 16},
			{Name: "changed", Type: schema.DateTime, Scale: 6}, {Name: "note", Type: schema.VarChar, Length: 200, Nullable: true, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
		},
	}
	codec, err := change.NewCodec(order)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(uint64(seed), 9))
	words := []string{"left", "at", "the", "door", "call", "before", "delivery", "gift", "fragile", "second", "floor", "ring", "twice"}
	states := []string{"new", "paid", "packed", "shipped", "returned"}
	at := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	text := func(s string) change.Value { return change.TextOf([]byte(s)) }
	var out [][]byte
	for seq := 0; len(out) < 4096; {
		w := change.NewBatchWriter(2048)
		for w.Size() < entryBytes-200 {
			seq++
			at = at.Add(time.Duration(rng.IntN(2_000_000)) * time.Microsecond)
			gtid := fmt.Sprintf("3e11fa47-71ca-11e1-9e33-c80aa9429562:%d", 1_000_000+seq)
			token := make([]byte, 16)
			for i := range token {
				token[i] = byte(rng.Uint32())
			}
			note := change.Value{}
			if rng.IntN(3) > 0 {
				s := ""
				for range 3 + rng.IntN(8) {
					s += words[rng.IntN(len(words))] + " "
				}
				note = text(s)
			}
			state := rng.IntN(len(states) - 1)
			before := []change.Value{
				change.IntegerOf(1e9 + rng.Int64N(5e7)), change.IntegerOf(rng.Int64N(2e6)), text(states[state]),
				text(fmt.Sprintf("%d.%02d", rng.IntN(5000), rng.IntN(100))), text(fmt.Sprintf("user%d@mail%d.example.com", rng.IntN(2e6), rng.IntN(40))),
				change.BytesOf(token), text(at.Add(-time.Duration(rng.Int64N(1e15))).Format("2006-01-02 15:04:05.000000")), note,
			}
			after := append([]change.Value(nil), before...)
			after[2], after[6] = text(states[state+1]), text(at.Format("2006-01-02 15:04:05.000000"))
			w.Begin(gtid, at, 1, false)
			if err := w.Row(codec, &change.Row{Table: order, Op: change.Update, Before: before, After: after}, gtid, at); err != nil {
				return nil, err
			}
			w.End(false)
		}
		out = append(out, w.Finish("", change.Source{Flavor: "mysql", ServerUUID: "3e11fa47-71ca-11e1-9e33-c80aa9429562", File: "binlog.000042", Position: uint64(seq) * 700}))
	}
	return out, nil
}
