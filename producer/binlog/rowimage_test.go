package binlog

import (
	"errors"
	"fmt"
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
			statements = append(statements, "SET sql_mode='"+looseMode+"'")
			if tc.update != "" {
				statements = append(statements, "UPDATE IGNORE "+name+" SET "+tc.update+", id=id+1000 ORDER BY id")
			}
			for _, e := range capture(t, s, db, append(statements, "DELETE FROM "+name)...) {
				table, got := decodeAll(t, cols, []rowsEvent{e})
				var images [][]change.Value
				for _, rows := range got { // of one kind
					for _, r := range rows {
						for _, image := range [][]change.Value{r.before, r.after} {
							if image != nil {
								images = append(images, image)
							}
						}
					}
				}
				if len(images) != len(e.rows) {
					t.Fatalf("%s: %d images, go-mysql has %d", tc.name, len(images), len(e.rows))
				}
				for r, theirs := range e.rows {
					for i, their := range theirs {
						c, ours := &table.Columns[i], images[r][i]
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
