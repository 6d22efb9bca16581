package change

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"

	"github.com/twinspan/twinspan/schema"
)

// drawColumn makes any column that Validate takes.
func drawColumn(t *rapid.T, name string) schema.Column {
	c := schema.Column{Name: name, Nullable: rapid.Bool().Draw(t, "nullable")}
	c.Type = schema.Type(rapid.IntRange(int(schema.TinyInt), int(schema.Vector)).Draw(t, "type"))
	charset := func() {
		cs := rapid.SampledFrom([][2]string{{"utf8mb4", "utf8mb4_bin"}, {"latin1", "latin1_swedish_ci"}, {"gbk", "gbk_chinese_ci"}, {"ascii", "ascii_bin"}}).Draw(t, "charset")
		c.Charset, c.Collation = cs[0], cs[1]
	}
	switch c.Type {
	case schema.Char, schema.Binary:
		c.Length = rapid.IntRange(0, 255).Draw(t, "length")
	case schema.VarChar, schema.VarBinary:
		c.Length = rapid.IntRange(0, 65535).Draw(t, "length")
	case schema.Bit:
		c.Length = rapid.IntRange(1, 64).Draw(t, "length")
	case schema.Vector:
		c.Length = rapid.IntRange(1, 8).Draw(t, "length")
	case schema.Decimal:
		c.Precision = rapid.IntRange(1, 65).Draw(t, "precision")
		c.Scale = rapid.IntRange(0, min(30, c.Precision)).Draw(t, "scale")
	case schema.Time, schema.DateTime, schema.Timestamp:
		c.Scale = rapid.IntRange(0, 6).Draw(t, "scale")
	case schema.Geometry:
		c.Geometry = "point"
	case schema.Enum, schema.Set:
		c.Members = []string{"a", "b'c", "订单"}
		charset()
	}
	if c.Type.IsCharacter() {
		charset()
	}
	if c.Type.IsNumeric() {
		c.Unsigned = rapid.Bool().Draw(t, "unsigned")
	}
	return c
}

func drawTable(t *rapid.T) *schema.Table {
	odd := rapid.SampledFrom([]string{"t", "a-b", "订单", "1x", "_", "__", "a__b", "select", "`", "x.y"})
	tab := &schema.Table{Name: schema.Name{Schema: odd.Draw(t, "schema"), Table: odd.Draw(t, "table")}}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z_\-é]{1,6}`), 1, 8, rapid.ID).Draw(t, "names") {
		tab.Columns = append(tab.Columns, drawColumn(t, name))
	}
	return tab
}

// drawValue makes a value of a column, and what goavro takes for it.
func drawValue(t *rapid.T, tab *schema.Table, c *schema.Column) (Value, any) {
	if c.Nullable && rapid.IntRange(0, 3).Draw(t, "null") == 0 {
		return Value{}, nil
	}
	data := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 40),
		rapid.Map(rapid.IntRange(60, 9000), func(n int) []byte { return bytes.Repeat([]byte{'x'}, n) })).Draw(t, "data")
	var v Value
	var native any
	var branch string
	switch e := c.Encoding(); e {
	case schema.EncodingInt:
		n := rapid.Int32().Draw(t, "int")
		v, native, branch = IntegerOf(int64(n)), n, "int"
	case schema.EncodingLong:
		n := rapid.Int64().Draw(t, "long")
		v, native, branch = IntegerOf(n), n, "long"
	case schema.EncodingFloat:
		f := math.Float32frombits(rapid.Uint32().Draw(t, "float"))
		if f != f {
			f = 0
		}
		v, native, branch = SingleOf(f), f, "float"
	case schema.EncodingDouble:
		f := math.Float64frombits(rapid.Uint64().Draw(t, "double"))
		v, native, branch = RealOf(f), f, "double"
	case schema.EncodingString:
		v, native, branch = TextOf(data), string(data), "string"
	case schema.EncodingBytes:
		v, native, branch = BytesOf(data), data, "bytes"
	case schema.EncodingEnum:
		if rapid.Bool().Draw(t, "ordinal") {
			n := rapid.Int32().Draw(t, "int")
			return OrdinalOf(int64(n)), goavro.Union("int", n)
		}
		return TextOf(data), goavro.Union("string", string(data))
	case schema.EncodingDocument:
		if bin := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "binary"); len(bin) > 0 {
			return DocumentOf(data, bin), goavro.Union(schema.Namespace(tab.Name)+".Document",
				map[string]any{"text": string(data), "binary": bin})
		}
		return DocumentOf(data, nil), goavro.Union("string", string(data))
	default:
		t.Fatalf("column of encoding %d", e)
	}
	if c.Nullable {
		native = goavro.Union(branch, native)
	}
	return v, native
}

func drawRow(t *rapid.T, tab *schema.Table, gtid string, at time.Time) (Row, map[string]any) {
	r := Row{
		Table: tab, Op: Op(rapid.IntRange(0, 2).Draw(t, "op")), Flags: Flags(rapid.Uint16().Draw(t, "flags")),
		Position: rapid.Int64Range(0, 1<<40).Draw(t, "position"),
	}
	native := map[string]any{"op": r.Op.String(), "before": nil, "after": nil, "gtid": gtid,
		"position": r.Position, "commit_time": at, "flags": int32(r.Flags)}
	image := func() ([]Value, any) {
		values, record := make([]Value, len(tab.Columns)), map[string]any{}
		for i := range tab.Columns {
			var x any
			values[i], x = drawValue(t, tab, &tab.Columns[i])
			record[schema.EscapeName(tab.Columns[i].Name)] = x
		}
		return values, goavro.Union(schema.Namespace(tab.Name)+".Row", record)
	}
	if r.Op != Insert {
		r.Before, native["before"] = image()
	}
	if r.Op != Delete {
		r.After, native["after"] = image()
	}
	return r, native
}

// sameRows compares bit for bit.
var sameRows = cmp.Options{
	cmp.Comparer(func(a, b Value) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b *schema.Table) bool { return schema.FingerprintOf(a) == schema.FingerprintOf(b) }),
}

func drawTime(t *rapid.T) time.Time {
	return time.UnixMicro(rapid.Int64Range(1, 1<<52).Draw(t, "commit time")).UTC()
}

func TestPayloadsAreGoavrosByteForByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := drawTable(t)
		codec, err := NewCodec(tab)
		if err != nil {
			t.Fatal(err)
		}
		oracle, err := goavro.NewCodec(schema.AvroSchema(tab))
		if err != nil {
			t.Fatalf("goavro refuses the schema: %v\n%s", err, schema.AvroSchema(tab))
		}
		gtid, at := "0-1-"+rapid.StringN(1, 8, 20).Draw(t, "gtid"), drawTime(t)
		for range 3 {
			row, native := drawRow(t, tab, gtid, at)
			ours, err := codec.AppendRow(nil, &row, gtid, at)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := oracle.BinaryFromNative(nil, native)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(ours, theirs) {
				t.Fatalf("ours   %x\ngoavro %x", ours, theirs)
			}
			got, origin, err := codec.DecodeRow(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(row, got, sameRows); d != "" || origin.GTID != gtid || !origin.CommitTime.Equal(at) {
				t.Fatalf("decoded row differs (-want +got):\n%s\n%+v", d, origin)
			}
			// What goavro reads and writes again is the same, too: readers
			// who only have goavro see everything.
			n, rest, err := oracle.NativeFromBinary(ours)
			if err != nil || len(rest) > 0 {
				t.Fatalf("goavro leaves %d bytes, %v", len(rest), err)
			}
			if again, err := oracle.BinaryFromNative(nil, n); err != nil || !bytes.Equal(again, ours) {
				t.Fatalf("goavro's second encoding differs: %v", err)
			}
			for cut := range ours {
				if _, _, err := codec.DecodeRow(ours[:cut]); !errors.Is(err, ErrMalformed) {
					t.Fatalf("cut at %d of %d: %v", cut, len(ours), err)
				}
				if len(ours) > 2000 && cut > 500 {
					break
				}
			}
			if _, _, err := codec.DecodeRow(append(ours, 0)); !errors.Is(err, ErrMalformed) {
				t.Fatalf("a byte too many: %v", err)
			}
		}
	})
}

func TestAppendRowRefuses(t *testing.T) {
	tab := &schema.Table{Name: schema.Name{Schema: "s", Table: "t"}, Columns: []schema.Column{
		{Name: "id", Type: schema.Int}, {Name: "n", Type: schema.VarChar, Length: 9, Charset: "utf8mb4", Collation: "utf8mb4_bin", Nullable: true},
		{Name: "e", Type: schema.Enum, Members: []string{"a"}, Charset: "latin1", Collation: "latin1_bin"},
		{Name: "j", Type: schema.JSON},
	}}
	c, err := NewCodec(tab)
	if err != nil {
		t.Fatal(err)
	}
	ok := []Value{IntegerOf(1), TextOf(nil), OrdinalOf(0), DocumentOf([]byte("1"), nil)}
	with := func(i int, v Value) []Value {
		image := append([]Value(nil), ok...)
		image[i] = v
		return image
	}
	for _, x := range []struct {
		name string
		row  Row
	}{
		{"insert with before", Row{Op: Insert, Before: ok, After: ok}},
		{"insert without after", Row{Op: Insert}},
		{"update without before", Row{Op: Update, After: ok}},
		{"delete with after", Row{Op: Delete, Before: ok, After: ok}},
		{"no such operation", Row{Op: 3, Before: ok}},
		{"too few columns", Row{Op: Delete, Before: ok[:3]}},
		{"null where there is none", Row{Op: Insert, After: with(0, Value{})}},
		{"text in a number", Row{Op: Insert, After: with(0, TextOf([]byte("1")))}},
		{"number out of range", Row{Op: Insert, After: with(0, IntegerOf(1<<31))}},
		{"bytes in text", Row{Op: Insert, After: with(1, BytesOf([]byte("1")))}},
		{"number in an enum", Row{Op: Insert, After: with(2, IntegerOf(1))}},
		{"ordinal out of range", Row{Op: Insert, After: with(2, OrdinalOf(1<<40))}},
		{"text in JSON", Row{Op: Insert, After: with(3, TextOf([]byte("1")))}},
		{"null in JSON that has none", Row{Op: Insert, After: with(3, Value{})}},
	} {
		t.Run(x.name, func(t *testing.T) {
			dst := []byte("kept")
			got, err := c.AppendRow(dst, &x.row, "g", time.Time{})
			if !errors.Is(err, ErrValue) || string(got) != "kept" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	if _, err := NewCodec(&schema.Table{Name: tab.Name}); !errors.Is(err, schema.ErrInvalidTable) {
		t.Errorf("a table without columns: %v", err)
	}
}

func FuzzDecodeRow(f *testing.F) {
	tab := &schema.Table{Name: schema.Name{Schema: "s", Table: "t"}}
	for ty := schema.TinyInt; ty <= schema.Vector; ty++ {
		c := schema.Column{Name: fmt.Sprint("c", ty), Type: ty, Nullable: ty%2 == 0}
		switch {
		case ty.IsCharacter():
			c.Charset, c.Collation = "utf8mb4", "utf8mb4_bin"
		case ty == schema.Enum || ty == schema.Set:
			c.Charset, c.Collation, c.Members = "utf8mb4", "utf8mb4_bin", []string{"a"}
		case ty == schema.Decimal:
			c.Precision = 5
		case ty == schema.Bit || ty == schema.Vector:
			c.Length = 8
		case ty == schema.Geometry:
			c.Geometry = "point"
		}
		tab.Columns = append(tab.Columns, c)
	}
	codec, err := NewCodec(tab)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{2}, 100))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, o, err := codec.DecodeRow(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		// What decodes encodes to something that decodes to the same.
		again, err := codec.AppendRow(nil, &r, o.GTID, o.CommitTime)
		if err != nil {
			t.Fatalf("decoded, but does not encode: %v", err)
		}
		r2, o2, err := codec.DecodeRow(again)
		if err != nil || o2.GTID != o.GTID || !cmp.Equal(r, r2, sameRows) {
			t.Fatalf("%x became %x: %v", b, again, err)
		}
	})
}
