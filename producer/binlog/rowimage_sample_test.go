package binlog

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// sample is a table with a column of every shape and one event of each kind,
// made by hand, so that fuzzing and truncation need no server.
func sample(t testing.TB) (*Decoder, map[replication.EventType][]byte) {
	t.Helper()
	e := &replication.TableMapEvent{Schema: []byte("s"), Table: []byte("t")}
	table := &schema.Table{Name: schema.Name{Schema: "s", Table: "t"}}
	var image []byte
	add := func(c schema.Column, code byte, meta uint16, stored ...byte) {
		c.Name, c.Nullable = fmt.Sprintf("c%d", len(table.Columns)), true
		table.Columns = append(table.Columns, c)
		e.ColumnType = append(e.ColumnType, code)
		e.ColumnMeta = append(e.ColumnMeta, meta)
		image = append(image, stored...)
	}
	utf8 := func(typ schema.Type, length int) schema.Column {
		return schema.Column{Type: typ, Length: length, Charset: "utf8mb4", Collation: "utf8mb4_bin"}
	}
	add(schema.Column{Type: schema.TinyInt}, 1, 0, 0xff)
	add(schema.Column{Type: schema.SmallInt, Unsigned: true}, 2, 0, 1, 2)
	add(schema.Column{Type: schema.MediumInt}, 9, 0, 1, 2, 0x80)
	add(schema.Column{Type: schema.Int}, 3, 0, 1, 2, 3, 4)
	add(schema.Column{Type: schema.BigInt, Unsigned: true}, 8, 0, 1, 2, 3, 4, 5, 6, 7, 0xff)
	add(schema.Column{Type: schema.Float}, 4, 4, 0, 0, 0x80, 0x3f)
	add(schema.Column{Type: schema.Double}, 5, 8, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f)
	add(schema.Column{Type: schema.Decimal, Precision: 14, Scale: 4}, 246, 14<<8|4, 0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2)
	add(schema.Column{Type: schema.Year}, 13, 0, 124)
	add(schema.Column{Type: schema.Bit, Length: 9}, 16, 1<<8|1, 1, 0xff)
	add(schema.Column{Type: schema.Date}, 10, 0, 0x5d, 0xd0, 0x0f)
	add(schema.Column{Type: schema.Time, Scale: 3}, 19, 3, 0x7f, 0xff, 0xfe, 0xec, 0x78)
	add(schema.Column{Type: schema.DateTime, Scale: 6}, 18, 6, 0x99, 0xb2, 0xba, 0xc8, 0xb8, 0x01, 0xe2, 0x40)
	add(schema.Column{Type: schema.Timestamp}, 17, 0, 0x65, 0xe0, 0x7b, 0x80)
	add(schema.Column{Type: schema.Time}, 11, 0, 0xff, 0xff, 0xff)
	add(schema.Column{Type: schema.DateTime}, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	add(schema.Column{Type: schema.Timestamp}, 7, 0, 1, 0, 0, 0)
	add(utf8(schema.Char, 40), 254, 0xfe28, 2, 'a', 'b')
	add(utf8(schema.Char, 1020), 254, 0xcefc, 2, 0, 'a', 'b')
	add(schema.Column{Type: schema.Binary, Length: 4}, 254, 0xfe04, 1, 7)
	add(utf8(schema.VarChar, 80), 15, 80, 1, 'x')
	add(schema.Column{Type: schema.VarBinary, Length: 300}, 15, 300, 1, 0, 'x')
	add(schema.Column{Type: schema.TinyBlob}, 252, 1, 2, 'b', 'b')
	add(utf8(schema.LongText, 0), 252, 4, 2, 0, 0, 0, 't', 't')
	add(schema.Column{Type: schema.Enum, Charset: "utf8mb4", Collation: "utf8mb4_bin", Members: []string{"p", "q"}}, 254, 0xf701, 2)
	add(schema.Column{Type: schema.Set, Charset: "utf8mb4", Collation: "utf8mb4_bin", Members: strings.Split("a,b,c,d,e,f,g,h,i", ",")}, 254, 0xf802, 0x81, 1)
	add(schema.Column{Type: schema.JSON}, 245, 4, 8, 0, 0, 0, 2, 1, 0, 7, 0, 5, 9, 0)
	add(schema.Column{Type: schema.JSON}, 245, 4, 7, 0, 0, 0, 0x0f, 246, 4, 3, 2, 0x81, 0x32)
	add(schema.Column{Type: schema.Geometry, Geometry: "point"}, 255, 4, 3, 0, 0, 0, 'g', 'e', 'o')
	add(schema.Column{Type: schema.Vector, Length: 1}, 242, 4, 4, 0, 0, 0, 0, 0, 0x80, 0x3f)
	add(utf8(schema.VarChar, 80), 15, 80) // NULL
	n := len(table.Columns)
	e.ColumnCount = uint64(n)
	e.NullBitmap = slices.Repeat([]byte{0xff}, (n+7)/8)
	nulls := make([]byte, (n+7)/8)
	nulls[(n-1)/8] |= 1 << ((n - 1) % 8)
	nulls[len(nulls)-1] |= 0xff << (n % 8) // as the server leaves unused bits
	image = append(nulls, image...)

	d, err := NewDecoder(table, e)
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{9, 0, 0, 0, 0, 0, 1, 0}
	body := func(v2 bool, bitmaps, images int) []byte {
		b := slices.Clone(head)
		if v2 {
			b = append(b, 5, 0, 1, 2, 3) // extra row information: a partition
		}
		b = append(b, byte(n))
		for range bitmaps {
			b = append(b, slices.Repeat([]byte{0xff}, (n+7)/8)...)
		}
		for range images {
			b = append(b, image...)
		}
		return b
	}
	return d, map[replication.EventType][]byte{
		replication.WRITE_ROWS_EVENTv1: body(false, 1, 2), replication.UPDATE_ROWS_EVENTv1: body(false, 2, 4), replication.DELETE_ROWS_EVENTv1: body(false, 1, 1),
		replication.WRITE_ROWS_EVENTv2: body(true, 1, 3), replication.UPDATE_ROWS_EVENTv2: body(true, 2, 2), replication.DELETE_ROWS_EVENTv2: body(true, 1, 1),
	}
}

func TestSample(t *testing.T) {
	const want = "-1|513|-8388095|67305985|18376663423120507393|1|1|1234567890.1234|2024|x01FF|2024-02-29|-00:00:01.500|" +
		"2024-02-29 12:34:56.123456|2024-02-29 12:41:36|-00:00:01|0000-00-00 00:00:00|1970-01-01 00:00:01|ab|ab|x07000000|x|x78|x6262|tt|" +
		"q|a,h,i|[9]|1.50|x67656F|x0000803F|NULL"
	d, events := sample(t)
	var a Arena
	rows := 0
	for typ, body := range events {
		if err := d.Rows(typ, body, &a, func(before, after []change.Value) error {
			rows++
			for _, r := range [][]change.Value{before, after} {
				if r != nil && r[len(r)-1].Kind() != change.Null {
					t.Errorf("last column %v", r[len(r)-1])
				}
			}
			if got := textsOf(d.Table(), after); after != nil && got != want {
				t.Errorf("%s, want %s", got, want)
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
	}
	if rows != 2+2+1+3+1+1 {
		t.Errorf("%d rows", rows)
	}
}

// rowsText is all rows of an event.
func rowsText(t *testing.T, d *Decoder, typ replication.EventType, body []byte) string {
	t.Helper()
	var a Arena
	var b strings.Builder
	if err := d.Rows(typ, body, &a, func(before, after []change.Value) error {
		fmt.Fprintf(&b, "%s > %s\n", textsOf(d.Table(), before), textsOf(d.Table(), after))
		return nil
	}); err != nil {
		t.Errorf("%s: %v", typ, err)
	}
	return b.String()
}

// TestSampleCompressed: MariaDB's compressed events of either version hold the
// rows of the plain ones. Servers write the first version only, so far.
func TestSampleCompressed(t *testing.T) {
	d, events := sample(t)
	for _, c := range []struct {
		plain, packed replication.EventType
		bitmaps, info int
	}{
		{replication.WRITE_ROWS_EVENTv1, replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, 1, 0},
		{replication.UPDATE_ROWS_EVENTv1, replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1, 2, 0},
		{replication.DELETE_ROWS_EVENTv1, replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1, 1, 0},
		{replication.WRITE_ROWS_EVENTv2, mariaWriteRowsCompressedV2, 1, 5},
		{replication.UPDATE_ROWS_EVENTv2, mariaUpdateRowsCompressedV2, 2, 5},
		{replication.DELETE_ROWS_EVENTv2, mariaDeleteRowsCompressedV2, 1, 5},
	} {
		plain := events[c.plain]
		head := rowsHeaderSize + c.info + 1 + c.bitmaps*((len(d.columns)+7)/8)
		images := plain[head:]
		for size := 2; size <= 4; size++ { // of the length; these images take two bytes at least
			b := append(slices.Clone(plain[:head]), 0x80|byte(size))
			for i := size - 1; i >= 0; i-- {
				b = append(b, byte(len(images)>>(8*i)))
			}
			var packed bytes.Buffer
			z := zlib.NewWriter(&packed)
			if _, err := z.Write(images); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			b = append(b, packed.Bytes()...)
			if got, want := rowsText(t, d, c.packed, b), rowsText(t, d, c.plain, plain); got != want {
				t.Errorf("%d: %s, want %s", c.packed, got, want)
			}
			for cut := head; cut < len(b); cut++ {
				var a Arena
				if err := d.Rows(c.packed, b[:cut:cut], &a, func(_, _ []change.Value) error { return nil }); !errors.Is(err, ErrDamaged) && cut > head {
					t.Errorf("%d cut at %d of %d: %v", c.packed, cut, len(b), err)
				}
			}
		}
	}
}

// TestExtraRowInformation: what NDB and partitioned tables add to an event is
// passed over, whatever it is.
func TestExtraRowInformation(t *testing.T) {
	d, events := sample(t)
	plain := events[replication.UPDATE_ROWS_EVENTv2]
	want := rowsText(t, d, replication.UPDATE_ROWS_EVENTv2, plain)
	for name, info := range map[string][]byte{
		"none": {}, "partition": {1, 7, 0}, "partition and source": {1, 7, 0, 6, 0},
		"NDB":     {0, 8, 0, 1, 2, 3, 4, 5, 6, 7},
		"unknown": slices.Repeat([]byte{0xee}, 300),
	} {
		b := binary.LittleEndian.AppendUint16(slices.Clone(plain[:rowsHeaderSize]), uint16(2+len(info)))
		b = append(append(b, info...), plain[rowsHeaderSize+5:]...)
		if got := rowsText(t, d, replication.UPDATE_ROWS_EVENTv2, b); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	s, db := mysqltest.Shared(t, mysqltest.MySQL97)
	table, got := decodeAll(t, collationsOf(t, s), capture(t, s, db, "CREATE TABLE pt (id INT PRIMARY KEY, a INT) PARTITION BY HASH(id) PARTITIONS 5",
		"INSERT INTO pt VALUES (1,1),(2,2),(7,7)", "UPDATE pt SET id=id+1, a=-a ORDER BY id DESC", "DELETE FROM pt WHERE id=3"))
	if r := got[change.Update]; len(r) != 3 || textsOf(table, r[0].before) != "7|7" || textsOf(table, r[0].after) != "8|-7" || textsOf(table, r[2].after) != "2|-1" {
		t.Errorf("%v", r)
	}
	if r := got[change.Delete]; len(r) != 1 || textsOf(table, r[0].before) != "3|-2" {
		t.Errorf("%v", r)
	}
}

// everyPrefixFails: an event cut anywhere is an error, unless the cut is between
// rows, where nobody could tell.
func everyPrefixFails(t *testing.T, d *Decoder, e rowsEvent) {
	t.Helper()
	var a Arena
	whole := 0
	if err := d.Rows(e.typ, e.body, &a, func(_, _ []change.Value) error { whole++; return nil }); err != nil {
		t.Fatal(err)
	}
	good := 0
	for cut := range len(e.body) {
		rows := 0
		err := d.Rows(e.typ, e.body[:cut:cut], &a, func(_, _ []change.Value) error { rows++; return nil })
		switch {
		case err == nil && rows < whole:
			good++
		case err == nil:
			t.Errorf("cut at %d of %d: all %d rows came", cut, len(e.body), rows)
		case !errors.Is(err, ErrDamaged):
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if good > whole {
		t.Errorf("%d cuts passed, of %d rows", good, whole)
	}
}

func TestRowsTruncated(t *testing.T) {
	d, events := sample(t)
	for typ, body := range events {
		everyPrefixFails(t, d, rowsEvent{typ: typ, body: body})
	}
}

func TestRowsDamaged(t *testing.T) {
	d, events := sample(t)
	var a Arena
	v2 := events[replication.WRITE_ROWS_EVENTv2]
	spoil := func(at int, to byte) []byte {
		b := slices.Clone(v2)
		b[at] = to
		return b
	}
	for name, tc := range map[string]struct {
		typ  replication.EventType
		body []byte
		want error
	}{
		"no row event":        {replication.XID_EVENT, v2, ErrDamaged},
		"version 0":           {replication.WRITE_ROWS_EVENTv0, v2, ErrDamaged},
		"partial update":      {replication.PARTIAL_UPDATE_ROWS_EVENT, v2, ErrPartialJSON},
		"extra info too long": {replication.WRITE_ROWS_EVENTv2, spoil(9, 0xff), ErrDamaged},
		"extra info of one":   {replication.WRITE_ROWS_EVENTv2, spoil(8, 1), ErrDamaged},
		"other width":         {replication.WRITE_ROWS_EVENTv2, spoil(13, 3), ErrMismatch},
		"column missing":      {replication.WRITE_ROWS_EVENTv2, spoil(15, 0xfe), ErrPartialImage},
		"not compressed":      {replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1, events[replication.WRITE_ROWS_EVENTv1], ErrDamaged},
	} {
		err := d.Rows(tc.typ, tc.body, &a, func(_, _ []change.Value) error { return nil })
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	mine := errors.New("mine")
	rows := 0
	if err := d.Rows(replication.WRITE_ROWS_EVENTv2, v2, &a, func(_, _ []change.Value) error { rows++; return mine }); !errors.Is(err, mine) || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// TestRowsReuseTheArena: rows of all kinds in turn come out of the same memory
// whole, NULLs where other values were, and cost no allocation.
func TestRowsReuseTheArena(t *testing.T) {
	d, events := sample(t)
	n := len(d.columns)
	nothing := append([]byte{9, 0, 0, 0, 0, 0, 1, 0, byte(n)}, slices.Repeat([]byte{0xff}, 2*((n+7)/8))...)
	var a Arena
	var first []change.Value
	rows := 0
	same := func(before, after []change.Value) error {
		rows++
		for _, image := range [][]change.Value{before, after} {
			if image == nil {
				continue
			}
			if first == nil {
				first = kept(image)
			}
			for c := range image {
				if !image[c].Equal(first[c]) {
					t.Errorf("row %d, column %d: %v, want %v", rows, c, image[c], first[c])
				}
			}
		}
		return nil
	}
	empty := func(_, after []change.Value) error {
		rows++
		for c := range after {
			if !after[c].IsNull() {
				t.Errorf("row %d, column %d: %v, want NULL", rows, c, after[c])
			}
		}
		return nil
	}
	types := slices.Sorted(maps.Keys(events))
	all := func() {
		for _, typ := range types {
			if err := d.Rows(typ, events[typ], &a, same); err != nil {
				t.Fatal(err)
			}
			if err := d.Rows(replication.WRITE_ROWS_EVENTv1, nothing, &a, empty); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 100 {
		all()
	}
	if want := 100 * (2 + 2 + 1 + 3 + 1 + 1 + 6); rows != want {
		t.Errorf("%d rows, want %d", rows, want)
	}
	if allocs := testing.AllocsPerRun(10, all); allocs != 0 {
		t.Errorf("%.1f allocations for 16 rows", allocs)
	}
}

func TestParseRowsHeader(t *testing.T) {
	body := make([]byte, 8)
	binary.LittleEndian.PutUint32(body, 0x04030201)
	body[4], body[5], body[6], body[7] = 5, 6, 7, 1
	h, err := ParseRowsHeader(replication.UPDATE_ROWS_EVENTv2, body)
	if want := (RowsHeader{TableID: 0x060504030201, Flags: 0x0107, Op: change.Update}); err != nil || h != want {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := ParseRowsHeader(replication.UPDATE_ROWS_EVENTv2, body[:7]); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func FuzzRows(f *testing.F) {
	d, events := sample(f)
	for typ, body := range events {
		f.Add(byte(typ), body)
	}
	f.Add(byte(replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1), []byte{9, 0, 0, 0, 0, 0, 1, 0, 31, 255, 255, 255, 255, 0x81, 5, 0x78, 0x9c})
	f.Fuzz(func(t *testing.T, typ byte, body []byte) {
		var a Arena
		_ = d.Rows(replication.EventType(typ), body, &a, func(before, after []change.Value) error {
			for _, r := range [][]change.Value{before, after} {
				for _, v := range r {
					_ = v.Bytes()
					_ = v.Binary()
				}
			}
			return nil
		})
	})
}
