package rowevent

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// TestJSON: stored forms as MySQL 9.7 has them; package target compares many more
// with what the server stores.
func TestJSON(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string // hex; "" when it is refused
	}{
		{"null", "null", "0400"},
		{"whole number", " 70000 ", "0770110100"},
		{"large whole number", "5000000000", "0a00f2052a01000000"},
		{"negative", "-2", "05feff"},
		{"double", "1.5", "0b000000000000f83f"},
		{"negative zero", "-0.0", "0b0000000000000080"},
		{"string", `"a\u00e9\ud83d\udeb2\n"`, "0c0861c3a9f09f9ab20a"},
		{"array", `[1, true]`, "02" + "0200" + "0a00" + "050100" + "040100"},
		{"object", `{"a": 70000, "bb": {}}`, "00" + "0200" + "1d00" + "1200" + "0100" + "1300" + "0200" + "071500" + "001900" + "616262" + "70110100" + "00000400"},
		{"empty", "", ""},
		{"two values", "1 2", ""},
		{"leading zero", "01", ""},
		{"negative whole zero", "-0", ""},
		{"no digits after the point", "1.", ""},
		{"above every double", "1e400", ""},
		{"above every integer", "18446744073709551616", ""},
		{"open string", `"a`, ""},
		{"unknown escape", `"\x"`, ""},
		{"half a pair", `"\ud83d"`, ""},
		{"pair of another", `"\ud83d\u0041"`, ""},
		{"control character", "\"\n\"", ""},
		{"not UTF-8", "\"\xff\"", ""},
		{"keys out of order", `{"b": 1, "a": 2}`, ""},
		{"longer key first", `{"bb": 1, "a": 2}`, ""},
		{"key twice", `{"a": 1, "a": 2}`, ""},
		{"key without value", `{"a"}`, ""},
		{"trailing comma", `[1,]`, ""},
		{"open array", `[1`, ""},
		{"too deep", strings.Repeat("[", 101) + strings.Repeat("]", 101), ""},
		{"word", "nul", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := appendJSON([]byte("x"), change.DocumentOf([]byte(c.text), nil))
			if c.want == "" {
				if !errors.Is(err, ErrValue) || string(got) != "x" {
					t.Errorf("%x, error %v", got, err)
				}
				return
			}
			want := binary.LittleEndian.AppendUint32([]byte("x"), uint32(len(c.want)/2))
			if err != nil || hex.EncodeToString(got) != hex.EncodeToString(want)+c.want {
				t.Errorf("%x, not %x%s: %v", got, want, c.want, err)
			}
		})
	}
	for stored, good := range map[string]bool{"0400": true, "00000004": false, "0000000500": false, "0200000400": true, "0200000500": false, "01000000000800": false, "010000000008000000": true, "10ff": false, "04": false} {
		doc, err := hex.DecodeString(stored)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := appendJSON(nil, change.DocumentOf([]byte("null"), doc)); (err == nil) != good {
			t.Errorf("stored %s: %v", stored, err)
		}
	}
}

// FuzzJSON: whatever the text, what is written has the length it says.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{"null", `{"a": [1, -2, 3.5e10, "\u00e9"], "bb": {"": true}}`, "[[[]]]", `"` + strings.Repeat("x", 300) + `"`, "-", `{"a":`, "4294967296"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := appendJSON(nil, change.TextOf(b))
		if err != nil {
			if len(got) != 0 {
				t.Fatalf("%q: %d bytes with %v", b, len(got), err)
			}
			return
		}
		if n := binary.LittleEndian.Uint32(got); int(n) != len(got)-4 || !wholeJSON(got[4:]) {
			t.Fatalf("%q: %x", b, got)
		}
	})
}

// benchTable is a row of about 200 bytes.
func benchTable(b *testing.B, extra ...Column) (*Table, []change.Value) {
	b.Helper()
	columns := []Column{
		{Target: &schema.Column{Name: "id", Type: schema.BigInt}},
		{Target: &schema.Column{Name: "k", Type: schema.Int}},
		{Target: &schema.Column{Name: "c", Type: schema.VarChar, Length: 600, Charset: "utf8mb4"}},
		{Target: &schema.Column{Name: "t", Type: schema.DateTime, Scale: 6}},
		{Target: &schema.Column{Name: "d", Type: schema.Decimal, Precision: 10, Scale: 2}},
		{Target: &schema.Column{Name: "e", Type: schema.Enum, Members: []string{"new", "old"}}, Ordinals: map[string]uint64{"new": 1, "old": 2}},
		{Target: &schema.Column{Name: "s", Type: schema.Set, Members: []string{"a", "b"}}, Ordinals: map[string]uint64{"a": 1, "b": 2}},
		{Target: &schema.Column{Name: "u", Type: schema.BigInt, Unsigned: true}},
	}
	image := []change.Value{change.IntegerOf(1), change.IntegerOf(2), text(strings.Repeat("x", 150)), text("2020-01-01 00:00:00.123456"), text("12345.67"),
		text("old"), text("a,b"), text("18446744073709551615")}
	columns = append(columns, extra...)
	for i := range columns {
		columns[i].Source = i
	}
	tab, err := New(server.MySQL, schema.Name{Schema: "d", Table: "t"}, columns)
	if err != nil {
		b.Fatal(err)
	}
	return tab, image
}

// BenchmarkAppend is the cost of one row's update: both images.
func BenchmarkAppend(b *testing.B) {
	run := func(name string, tab *Table, image []change.Value) {
		b.Run(name, func(b *testing.B) {
			buf, r := tab.Begin(nil, 1, 1, change.Update, false)
			start := len(buf)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = r.Append(buf[:start], image, image); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(len(buf) - start))
		})
	}
	tab, image := benchTable(b)
	run("plain", tab, image)
	tab, image = benchTable(b, Column{Target: &schema.Column{Name: "j", Type: schema.JSON}})
	doc := []byte(`{"id": 12345, "name": "a name that is \"quoted\"", "tags": ["one", "two", 3.25], "nested": {"a": true, "b": null}}`)
	run("JSON", tab, append(image, change.DocumentOf(doc, nil)))
}
