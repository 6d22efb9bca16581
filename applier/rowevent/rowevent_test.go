package rowevent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

func text(s string) change.Value { return change.TextOf([]byte(s)) }

// TestValues: stored forms as MySQL 9.7 logs them. That all types agree with
// every server is tested on servers, in package target.
func TestValues(t *testing.T) {
	for _, c := range []struct {
		name   string
		column schema.Column
		value  change.Value
		want   string // hex; "" when it is refused
	}{
		{"int", schema.Column{Type: schema.Int}, change.IntegerOf(-2), "feffffff"},
		{"mediumint", schema.Column{Type: schema.MediumInt}, change.IntegerOf(-2), "feffff"},
		{"unsigned", schema.Column{Type: schema.BigInt, Unsigned: true}, text("18446744073709551615"), "ffffffffffffffff"},
		{"no digits", schema.Column{Type: schema.BigInt, Unsigned: true}, text("1x"), ""},
		{"decimal", schema.Column{Type: schema.Decimal, Precision: 14, Scale: 4}, text("1234567890.1234"), "810dfb38d204d2"},
		{"negative decimal", schema.Column{Type: schema.Decimal, Precision: 14, Scale: 4}, text("-1234567890.1234"), "7ef204c72dfb2d"},
		{"decimal zero", schema.Column{Type: schema.Decimal, Precision: 4, Scale: 2}, text("-0.00"), "8000"},
		{"short fraction", schema.Column{Type: schema.Decimal, Precision: 4, Scale: 2}, text("1.5"), "8132"},
		{"decimal too long", schema.Column{Type: schema.Decimal, Precision: 4, Scale: 2}, text("123.00"), ""},
		{"decimal fraction too long", schema.Column{Type: schema.Decimal, Precision: 4, Scale: 2}, text("1.005"), ""},
		{"no decimal", schema.Column{Type: schema.Decimal, Precision: 4, Scale: 2}, text("1e1"), ""},
		{"float", schema.Column{Type: schema.Float}, change.SingleOf(0.1), "cdcccc3d"},
		{"negative zero", schema.Column{Type: schema.Double}, change.RealOf(math.Copysign(0, -1)), "0000000000000080"},
		{"bit", schema.Column{Type: schema.Bit, Length: 12}, change.BytesOf([]byte{0x27}), "0027"},
		{"bit too long", schema.Column{Type: schema.Bit, Length: 8}, change.BytesOf([]byte{1, 0}), ""},
		{"year", schema.Column{Type: schema.Year}, change.IntegerOf(2155), "ff"},
		{"year zero", schema.Column{Type: schema.Year}, change.IntegerOf(0), "00"},
		{"no year", schema.Column{Type: schema.Year}, change.IntegerOf(1900), ""},
		{"date", schema.Column{Type: schema.Date}, text("2020-02-31"), "5fc80f"},
		{"datetime", schema.Column{Type: schema.DateTime, Scale: 6}, text("9999-12-31 23:59:59.999999"), "fef3ff7efb0f423f"},
		{"datetime zero", schema.Column{Type: schema.DateTime}, text("0000-00-00 00:00:00"), "8000000000"},
		{"datetime with too many digits", schema.Column{Type: schema.DateTime}, text("2020-01-01 00:00:00.1"), ""},
		{"time", schema.Column{Type: schema.Time, Scale: 3}, text("-01:00:00.100"), "7feffffc18"},
		{"time before zero", schema.Column{Type: schema.Time, Scale: 6}, text("-00:00:00.000001"), "7fffffffffff"},
		{"timestamp", schema.Column{Type: schema.Timestamp, Scale: 2}, text("2038-01-19 03:14:07.99"), "7fffffff63"},
		{"timestamp zero", schema.Column{Type: schema.Timestamp}, text("0000-00-00 00:00:00"), "00000000"},
		{"no such day", schema.Column{Type: schema.Timestamp}, text("2021-02-30 00:00:00"), ""},
		{"char", schema.Column{Type: schema.Char, Length: 80, Charset: "utf8mb4"}, text("é"), "02c3a9"},
		{"varchar", schema.Column{Type: schema.VarChar, Length: 400, Charset: "utf8mb4"}, text("é"), "0200c3a9"},
		{"char too long", schema.Column{Type: schema.Char, Length: 1, Charset: "utf8mb4"}, text("é"), ""},
		{"text where bytes belong", schema.Column{Type: schema.VarBinary, Length: 9}, text("a"), ""},
		{"blob", schema.Column{Type: schema.MediumBlob}, change.BytesOf([]byte("a")), "01000061"},
		{"enum", schema.Column{Type: schema.Enum, Members: []string{"a", "b"}}, text("b"), "02"},
		{"enum's error value", schema.Column{Type: schema.Enum, Members: []string{"a"}}, change.OrdinalOf(0), "00"},
		{"no label", schema.Column{Type: schema.Enum, Members: []string{"a"}}, text("c"), ""},
		{"set", schema.Column{Type: schema.Set, Members: []string{"a", "b", "c"}}, text("a,c"), "05"},
		{"null", schema.Column{Type: schema.Int}, change.Value{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ordinals := map[string]uint64{}
			for i, m := range c.column.Members {
				ordinals[m] = uint64(i) + 1
				if c.column.Type == schema.Set {
					ordinals[m] = 1 << i
				}
			}
			tab, err := New(server.MySQL, schema.Name{Schema: "d", Table: "t"}, []Column{{Target: &c.column, Ordinals: ordinals}})
			if err != nil {
				t.Fatal(err)
			}
			b, r := tab.Begin(nil, 1, 1, change.Insert, false)
			start := len(b)
			b, err = r.Append(b, nil, []change.Value{c.value})
			if c.want == "" {
				if !errors.Is(err, ErrValue) || len(b) != start {
					t.Errorf("%x, error %v", b[start:], err)
				}
				return
			}
			want, _ := hex.DecodeString("00" + c.want)
			if err != nil || !bytes.Equal(b[start:], want) {
				t.Errorf("%x, not %x: %v", b[start:], want, err)
			}
		})
	}
}

// TestEvents: headers, ids, flags and bitmaps of both flavours.
func TestEvents(t *testing.T) {
	var columns []Column
	for i := range 9 {
		columns = append(columns, Column{Target: &schema.Column{Name: "c", Type: schema.TinyInt, Nullable: i == 8}, Source: 8 - i})
	}
	image := make([]change.Value, 9)
	for i := range image {
		image[i] = change.IntegerOf(int64(i))
	}
	image[0] = change.Value{} // of the target's last column
	for _, c := range []struct {
		flavor     server.Flavor
		rows, map_ string
	}{
		{server.MySQL, "000000001f0700000036000000" + "000000000000" + "050000000000" + "0300" + "0200" + "09" + "ff01" + "ff01" +
			"0001" + "0807060504030201" + "0001" + "0807060504030201",
			"0000000013070000002e0000000000000000000500000000000100" + "016400" + "017400" + "09" + "010101010101010101" + "00" + "0001"},
		{server.MariaDB, "00000000180700000034000000" + "000000000000" + "050000000000" + "0300" + "09" + "ff01" + "ff01" +
			"0001" + "0807060504030201" + "0001" + "0807060504030201",
			"0000000013070000002e0000000000000000000500000000000100" + "016400" + "017400" + "09" + "010101010101010101" + "00" + "0001"},
	} {
		tab, err := New(c.flavor, schema.Name{Schema: "d", Table: "t"}, columns)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(tab.AppendMap(nil, 7, 5)); got != c.map_ {
			t.Errorf("%s: table map\n%s, not\n%s", c.flavor, got, c.map_)
		}
		b, r := tab.Begin([]byte("before"), 7, 5, change.Update, true)
		if b, err = r.Append(b, image, image); err != nil {
			t.Fatal(err)
		}
		r.End(b, true)
		if got := hex.EncodeToString(b[len("before"):]); got != c.rows {
			t.Errorf("%s: rows\n%s, not\n%s", c.flavor, got, c.rows)
		}
	}
	for _, flavor := range []server.Flavor{server.MySQL, server.MariaDB} {
		f := Format(flavor, "9.7.4-a-version-longer-than-the-fifty-bytes-there-are-for-it")
		sum := binary.LittleEndian.Uint32(f[len(f)-4:])
		if int(binary.LittleEndian.Uint32(f[9:])) != len(f) || sum != crc32.ChecksumIEEE(f[:len(f)-4]) || f[70] != 0 || f[75] != headerSize || f[76+tableMapType-1] != 8 {
			t.Errorf("%s: format %x", flavor, f)
		}
	}
	vector := &schema.Column{Name: "v", Type: schema.Vector, Length: 2}
	if _, err := New(server.MariaDB, schema.Name{}, []Column{{Target: vector}}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a vector of MariaDB: %v", err)
	}
}

// FuzzValues: whatever a value holds, it is refused or stored in the size that
// the column's type gives it.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"", "-", ".", "1.5", "2020-01-01", "2020-01-01 00:00:00.5", "-838:59:59", "a,b"} {
		f.Add([]byte(s), uint8(6), uint8(4))
	}
	f.Fuzz(func(t *testing.T, b []byte, precision, scale uint8) {
		frac := int(scale % 7)
		p := 1 + int(precision)%65
		sc := min(int(scale)%39, p)
		digits := [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}
		for _, c := range []struct {
			column schema.Column
			size   int
		}{
			{schema.Column{Type: schema.Decimal, Precision: p, Scale: sc}, (p-sc)/9*4 + digits[(p-sc)%9] + sc/9*4 + digits[sc%9]},
			{schema.Column{Type: schema.BigInt, Unsigned: true}, 8},
			{schema.Column{Type: schema.Date}, 3},
			{schema.Column{Type: schema.Time, Scale: frac}, 3 + (frac+1)/2},
			{schema.Column{Type: schema.DateTime, Scale: frac}, 5 + (frac+1)/2},
			{schema.Column{Type: schema.Timestamp, Scale: frac}, 4 + (frac+1)/2},
			{schema.Column{Type: schema.Bit, Length: 12}, 2},
			{schema.Column{Type: schema.Set, Members: []string{"a", "b"}}, 1},
		} {
			tab, err := New(server.MySQL, schema.Name{Schema: "d", Table: "t"}, []Column{{Target: &c.column, Ordinals: map[string]uint64{"a": 1, "b": 2}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []change.Value{change.TextOf(b), change.BytesOf(b)} {
				out, r := tab.Begin(nil, 1, 1, change.Delete, false)
				start := len(out)
				out, err := r.Append(out, []change.Value{v}, nil)
				if n := len(out) - start; err == nil && n != 1+c.size || err != nil && n != 0 {
					t.Fatalf("%s of %q: %d bytes: %v", c.column.SQLType(), b, n, err)
				}
			}
		}
	})
}
