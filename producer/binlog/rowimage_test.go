package binlog

import (
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

func textsOf(table *schema.Table, row []change.Value) string {
	if row == nil {
		return "-"
	}
	out := make([]string, len(row))
	for i, v := range row {
		switch v.Kind() {
		case change.Null:
			out[i] = "NULL"
		case change.Integer:
			out[i] = fmt.Sprint(v.Integer())
		case change.Ordinal:
			out[i] = fmt.Sprintf("#%d", v.Integer())
		case change.Single:
			out[i] = fmt.Sprint(v.Single())
		case change.Real:
			out[i] = fmt.Sprint(v.Real())
		case change.Bytes:
			out[i] = "x" + hexOf(v.Bytes())
		default:
			out[i] = string(v.Bytes())
		}
	}
	return strings.Join(out, "|")
}

// TestGeneratedAndInvisible: every column is in the image, at its place.
func TestGeneratedAndInvisible(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		events := capture(t, s, db,
			"CREATE TABLE g (a INT, b INT GENERATED ALWAYS AS (a+1) STORED, v INT GENERATED ALWAYS AS (a*2) VIRTUAL, d VARCHAR(10) INVISIBLE, e INT)",
			"INSERT INTO g (a, d, e) VALUES (1,'x',9)", "UPDATE g SET a=5", "DELETE FROM g")
		table, got := decodeAll(t, collationsOf(t, s), events)
		for op, want := range map[change.Op]string{change.Insert: "- 1|2|2|x|9", change.Update: "1|2|2|x|9 5|6|10|x|9", change.Delete: "5|6|10|x|9 -"} {
			if len(got[op]) != 1 {
				t.Fatalf("%s: %d rows", op, len(got[op]))
			}
			r := got[op][0]
			if line := textsOf(table, r.before) + " " + textsOf(table, r.after); line != want {
				t.Errorf("%s: %s, want %s", op, line, want)
			}
		}
	})
}

// TestGeneratedPrimaryKey: MySQL's own key column is in the image and is the key.
func TestGeneratedPrimaryKey(t *testing.T) {
	s, db := mysqltest.Shared(t, mysqltest.MySQL97)
	table, got := decodeAll(t, collationsOf(t, s), capture(t, s, db,
		"SET sql_generate_invisible_primary_key=1", "CREATE TABLE p (a INT)", "INSERT INTO p VALUES (7),(8)"))
	if key := strings.Join(table.KeyColumns(), ","); key != "my_row_id" || !table.Columns[0].Invisible {
		t.Errorf("key %s of %+v", key, table.Columns[0])
	}
	if r := got[change.Insert]; len(r) != 2 || textsOf(table, r[1].after) != "2|8" {
		t.Errorf("%v", r)
	}
}

// TestPartialImages: events without all columns are refused.
func TestPartialImages(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		s.Exec(t, "CREATE TABLE "+db+".i (id INT PRIMARY KEY, a INT, b TEXT)", "INSERT INTO "+db+".i VALUES (1,1,'b')")
		modes := []string{"MINIMAL", "NOBLOB"}
		if s.Flavor == mysqltest.MariaDB118 {
			modes = append(modes, "FULL_NODUP")
		}
		for _, mode := range modes {
			events := capture(t, s, db, "SET SESSION binlog_row_image="+mode, "UPDATE i SET a=a+1")
			refused(t, mode, s, events, ErrPartialImage)
		}
		refused(t, "MINIMAL delete", s, capture(t, s, db, "SET SESSION binlog_row_image=MINIMAL", "DELETE FROM i"), ErrPartialImage)
	})
}

// TestPartialJSON: updates by difference are refused.
func TestPartialJSON(t *testing.T) {
	s, db := mysqltest.Shared(t, mysqltest.MySQL97)
	s.Exec(t, "CREATE TABLE "+db+".j (id INT PRIMARY KEY, j JSON)", "INSERT INTO "+db+`.j VALUES (1,'{"a": "`+strings.Repeat("x", 100)+`", "b": 1}')`)
	events := capture(t, s, db, "SET SESSION binlog_row_value_options=PARTIAL_JSON", "UPDATE j SET j=JSON_SET(j,'$.b',2)")
	refused(t, "partial", s, events, ErrPartialJSON)
	if _, err := ParseRowsHeader(events[0].typ, events[0].body); !errors.Is(err, ErrPartialJSON) {
		t.Errorf("header: %v", err)
	}
	// An update in place leaves holes in the document; they must not matter.
	table, got := decodeAll(t, collationsOf(t, s), capture(t, s, db, `UPDATE j SET j=JSON_SET(j,'$.a','short')`, `UPDATE j SET j=JSON_SET(j,'$.b',CAST(3 AS UNSIGNED))`))
	if r := got[change.Update]; len(r) != 2 || textsOf(table, r[1].after) != `1|{"a": "short", "b": 3}` || r[1].after[1].Binary() == nil {
		t.Errorf("%v", r)
	}
}

func refused(t *testing.T, what string, s *mysqltest.Server, events []rowsEvent, want error) {
	t.Helper()
	if len(events) != 1 {
		t.Fatalf("%s: %d events", what, len(events))
	}
	table, err := TableFromMap(events[0].table, collationsOf(t, s))
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(table, events[0].table)
	if err != nil {
		t.Fatal(err)
	}
	var a Arena
	err = d.Rows(events[0].typ, events[0].body, &a, func(_, _ []change.Value) error {
		t.Errorf("%s: a row came through", what)
		return nil
	})
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestCompressedEvents: MariaDB's compressed row events decode to the same rows.
func TestCompressedEvents(t *testing.T) {
	for _, flavor := range []mysqltest.Flavor{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s := mysqltest.Start(t, flavor, mysqltest.With("log_bin_compress", "ON"), mysqltest.With("log_bin_compress_min_len", "10"))
			s.Exec(t, "CREATE DATABASE z")
			events := capture(t, s, "z", "CREATE TABLE c (id INT PRIMARY KEY, t LONGTEXT)", "INSERT INTO c SELECT seq, REPEAT('compressible ',seq) FROM seq_1_to_100",
				"UPDATE c SET t=CONCAT(t,'x')", "DELETE FROM c")
			for _, e := range events {
				if e.typ < replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1 {
					t.Fatalf("a %s: not compressed", e.typ)
				}
			}
			table, got := decodeAll(t, collationsOf(t, s), events)
			for i := range 100 {
				before := fmt.Sprintf("%d|%s", i+1, strings.Repeat("compressible ", i+1))
				if g := textsOf(table, got[change.Insert][i].after); g != before {
					t.Fatalf("insert %d: %s", i, g)
				}
				if g := textsOf(table, got[change.Update][i].before); g != before {
					t.Fatalf("update %d: %s", i, g)
				}
				if g := textsOf(table, got[change.Delete][i].before); g != before+"x" {
					t.Fatalf("delete %d: %s", i, g)
				}
			}
			d, err := NewDecoder(table, events[0].table)
			if err != nil {
				t.Fatal(err)
			}
			everyPrefixFails(t, d, events[0])
		})
	}
}

// TestCompressedTransaction: MySQL's compressed transactions hold the same
// events, table maps with vector lengths among them.
func TestCompressedTransaction(t *testing.T) {
	s, db := mysqltest.Shared(t, mysqltest.MySQL97)
	events := capture(t, s, db, "CREATE TABLE z (id INT PRIMARY KEY, v VECTOR(3), t LONGTEXT)", "SET SESSION binlog_transaction_compression=ON",
		"INSERT INTO z VALUES (1,TO_VECTOR('[1,2,3]'),REPEAT('x',10000)),(2,NULL,'y')")
	table, got := decodeAll(t, collationsOf(t, s), events)
	if table.Columns[1].Type != schema.Vector || table.Columns[1].Length != 3 {
		t.Errorf("%+v", table.Columns[1])
	}
	if r := got[change.Insert]; len(r) != 2 || textsOf(table, r[0].after) != "1|x0000803F0000004000004040|"+strings.Repeat("x", 10000) {
		t.Errorf("%d rows", len(r))
	}
}

// TestOldTemporalFormats: the formats before 5.6, with the definition from
// elsewhere since the table map can't tell fractions.
func TestOldTemporalFormats(t *testing.T) {
	for _, flavor := range []mysqltest.Flavor{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		t.Run(string(flavor), func(t *testing.T) {
			s := mysqltest.Start(t, flavor, mysqltest.With("mysql56_temporal_format", "OFF"))
			cols := collationsOf(t, s)
			s.Exec(t, "CREATE DATABASE o")
			events := capture(t, s, "o", "SET sql_mode='"+looseMode+"'", "CREATE TABLE o (id INT PRIMARY KEY, a TIME, b DATETIME, c TIMESTAMP NULL, d DATE)",
				"INSERT INTO o VALUES (1,'-838:59:59','9999-12-31 23:59:59','2038-01-19 03:14:07','9999-12-31'), (2,'838:59:59','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00'),"+
					"(3,'-00:00:01','2020-00-00 01:02:03','1970-01-01 00:00:01','2020-02-31'), (4,'00:00:00','1000-01-01 00:00:00','2024-02-29 12:34:56','1000-01-01'), (5,NULL,NULL,NULL,NULL)")
			if _, err := TableFromMap(events[0].table, cols); !errors.Is(err, ErrNoMetadata) {
				t.Fatalf("%v, want ErrNoMetadata", err)
			}
			table := &schema.Table{Name: schema.Name{Schema: "o", Table: "o"}, Columns: []schema.Column{
				{Name: "id", Type: schema.Int}, {Name: "a", Type: schema.Time, Nullable: true}, {Name: "b", Type: schema.DateTime, Nullable: true},
				{Name: "c", Type: schema.Timestamp, Nullable: true}, {Name: "d", Type: schema.Date, Nullable: true},
			}}
			d, err := NewDecoder(table, events[0].table)
			if err != nil {
				t.Fatal(err)
			}
			want := snapshot(t, s, "o", table)
			var a Arena
			i := 0
			if err := d.Rows(events[0].typ, events[0].body, &a, func(_, after []change.Value) error {
				compareImage(t, fmt.Sprintf("row %d", i+1), table, after, want[i])
				i++
				return nil
			}); err != nil || i != 5 {
				t.Errorf("%d rows, %v", i, err)
			}
			// A fraction's width is nowhere in the event: such a definition must not fit.
			table.Columns[1].Scale = 3
			if _, err := NewDecoder(table, events[0].table); !errors.Is(err, ErrMismatch) {
				t.Errorf("%v, want ErrMismatch", err)
			}
		})
	}
}

// TestAgainstGoMySQL compares with go-mysql's own decoding of the same bytes,
// where both say the same thing the same way.
func TestAgainstGoMySQL(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		cols := collationsOf(t, s)
		compared := 0
		for n, tc := range typeCases {
			if tc.only != "" && (tc.only == "mariadb") != s.Flavor.IsMariaDB() || tc.rows == nil {
				continue
			}
			name := fmt.Sprintf("y%d", n)
			statements := []string{"SET sql_mode='" + tc.mode + "'", "CREATE TABLE " + name + " (id INT PRIMARY KEY, " + strings.Join(tc.columns, ", ") + ")"}
			for i, r := range tc.rows {
				statements = append(statements, fmt.Sprintf("INSERT INTO %s VALUES (%d,%s)", name, i+1, r))
			}
			for _, e := range capture(t, s, db, statements...) {
				table, got := decodeAll(t, cols, []rowsEvent{e})
				for r, theirs := range e.rows {
					for i, their := range theirs {
						c, ours := &table.Columns[i], got[change.Insert][r].after[i]
						if want, ok := goMySQLText(c, their); ok {
							compared++
							if g := shown(t, c, ours); !sameText(c, g, want) {
								t.Errorf("%s %s: %q, go-mysql says %q", c.Name, c.SQLType(), g, want)
							}
						}
					}
				}
			}
		}
		t.Logf("%d values compared", compared)
	})
}

func goMySQLText(c *schema.Column, v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return mysqltest.Null, true
	case int8, int16, int32, int, uint8, uint16, uint32, uint64:
		return fmt.Sprint(v), true
	case int64:
		switch c.Type {
		case schema.Enum:
			if v == 0 {
				return "#0", true
			}
			return c.Members[v-1], true
		case schema.Set:
			var on []string
			for i, m := range c.Members {
				if v&(1<<i) != 0 {
					on = append(on, m)
				}
			}
			return strings.Join(on, ","), true
		case schema.Bit:
			return fmt.Sprint(uint64(v)), true
		}
		return fmt.Sprint(v), true
	case float32:
		return fmt.Sprint(float64(v)), true
	case float64:
		return fmt.Sprint(v), true
	case string:
		switch c.Type {
		case schema.Time: // go-mysql leaves out a fraction of zero
			return v, c.Scale == 0 || strings.Contains(v, ".")
		case schema.JSON, schema.Binary:
			return v, false
		}
		if c.Encoding() == schema.EncodingBytes {
			return hexOf([]byte(v)), true
		}
		return v, true
	case []byte:
		if c.Encoding() == schema.EncodingBytes {
			return hexOf(v), true
		}
		return string(v), c.Type != schema.JSON
	}
	return "", false
}

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
