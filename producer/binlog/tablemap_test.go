package binlog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/google/go-cmp/cmp"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// TestTableFromMap reads tables from table maps and says column by column what
// they must be.
func TestTableFromMap(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		cols := collationsOf(t, s)
		maria := s.Flavor.IsMariaDB()
		for n, tc := range []struct {
			name, only, definition, values string
			columns                        []string // SQLType
			key                            []string
		}{
			{
				name: "signs around a year", definition: "a INT UNSIGNED, y YEAR, b INT, c BIGINT UNSIGNED, d DECIMAL(5,2) UNSIGNED, e FLOAT UNSIGNED, f DOUBLE, g YEAR NOT NULL, h TINYINT UNSIGNED",
				values:  "1,2000,1,1,1,1,1,2000,1",
				columns: []string{"int unsigned", "year", "int", "bigint unsigned", "decimal(5,2) unsigned", "float unsigned", "double", "year not null", "tinyint unsigned"},
			},
			{
				name: "key in another order with prefixes", definition: "a VARCHAR(20) CHARACTER SET utf8mb4, b VARBINARY(40), c TEXT CHARACTER SET utf8mb3, d INT, PRIMARY KEY (d, c(10), a(7), b(9))",
				values: "'a','b','c',1", columns: nil, key: []string{"d", "c(10)", "a(7)", "b(9)"},
			},
			{
				name: "whole text key", definition: "a VARCHAR(20) CHARACTER SET utf8mb4, b CHAR(3) CHARACTER SET utf8mb4, PRIMARY KEY (b, a)", values: "'a','b'", key: []string{"b", "a"},
			},
			{name: "no key", definition: "a INT, UNIQUE (a)", values: "1", columns: []string{"int"}},
			{
				name: "collations", values: "'a','b','c','d','e','f'",
				definition: "a CHAR(1) CHARACTER SET latin1, b CHAR(1) CHARACTER SET latin1, c CHAR(2) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, d TEXT CHARACTER SET latin1, e ENUM('e') CHARACTER SET greek, f ENUM('f') CHARACTER SET greek COLLATE greek_bin",
				columns: []string{
					"char(1) character set latin1 collate latin1_swedish_ci", "char(1) character set latin1 collate latin1_swedish_ci",
					"char(2) character set utf8mb4 collate utf8mb4_bin", "text character set latin1 collate latin1_swedish_ci",
					"enum('e') character set greek collate greek_general_ci", "enum('f') character set greek collate greek_bin",
				},
			},
			{
				name: "invisible", only: "mysql", definition: "a INT INVISIBLE, b INT, c INT INVISIBLE, d INT, e INT, f INT, g INT, h INT, i INT INVISIBLE", values: "",
				columns: []string{"int invisible", "int", "int invisible", "int", "int", "int", "int", "int", "int invisible"},
			},
			{
				// MariaDB does not tell; the catalogue must leave it out too.
				name: "invisible", only: "mariadb", definition: "a INT INVISIBLE, b INT", values: "",
				columns: []string{"int", "int"},
			},
			{name: "odd names", definition: "`a``b` INT, `订 单` INT, `select` INT, `a\"b'` INT", values: "1,1,1,1", columns: []string{"int", "int", "int", "int"}},
			{name: "geometry", definition: "a GEOMETRYCOLLECTION, b GEOMETRY NOT NULL, c POINT", values: "NULL,ST_GeomFromText('POINT(1 1)'),NULL", columns: []string{"geometrycollection", "geometry not null", "point"}},
			{name: "vector", only: "mysql", definition: "a VECTOR(3), b VECTOR, c INT UNSIGNED", values: "NULL,NULL,1", columns: []string{"vector(3)", "vector(2048)", "int unsigned"}},
			{
				name: "text among others", only: "mysql", values: "'a',NULL,'b',NULL,'c',NULL,'d',NULL,'e'",
				definition: "a CHAR(1) CHARACTER SET latin1, v VECTOR(3), b TEXT CHARACTER SET utf8mb4, j JSON, c VARCHAR(9) CHARACTER SET cp1251, g GEOMETRY, d VARBINARY(5), w VECTOR(7), e LONGTEXT CHARACTER SET utf8mb3",
				columns: []string{
					"char(1) character set latin1 collate latin1_swedish_ci", "vector(3)", "text character set utf8mb4 collate utf8mb4_0900_ai_ci", "json",
					"varchar(9) character set cp1251 collate cp1251_general_ci", "geometry", "varbinary(5)", "vector(7)", "longtext character set utf8mb3 collate utf8mb3_general_ci",
				},
			},
			{
				name: "text among others", only: "mariadb", values: "'a',NULL,'b',NULL,'c',NULL,'d'",
				definition: "a CHAR(1) CHARACTER SET latin1, j JSON, b TEXT CHARACTER SET utf8mb3 COLLATE utf8mb3_bin, g GEOMETRY, c VARCHAR(9) CHARACTER SET cp1251, u UUID, d VARBINARY(5)",
				columns: []string{
					"char(1) character set latin1 collate latin1_swedish_ci", "longtext character set utf8mb4 collate utf8mb4_bin", "text character set utf8mb3 collate utf8mb3_bin",
					"geometry", "varchar(9) character set cp1251 collate cp1251_general_ci", "binary(16)", "varbinary(5)",
				},
			},
			{name: "vector", only: "mariadb118", definition: "a VECTOR(3), c INT UNSIGNED", values: "NULL,1", columns: []string{"varbinary(12)", "int unsigned"}},
			{name: "own types", only: "mariadb", definition: "a UUID, b INET6, c INET4", values: "NULL,NULL,NULL", columns: []string{"binary(16)", "binary(16)", "binary(4)"}},
		} {
			switch tc.only {
			case "mysql":
				if maria {
					continue
				}
			case "mariadb":
				if !maria {
					continue
				}
			case "":
			default:
				if tc.only != string(s.Flavor) {
					continue
				}
			}
			t.Run(tc.name, func(t *testing.T) {
				name := fmt.Sprintf("m%d", n)
				insert := "INSERT INTO " + name + " VALUES (" + tc.values + ")"
				events := capture(t, s, db, "CREATE TABLE "+name+" ("+tc.definition+")", insert)
				if len(events) != 1 {
					t.Fatalf("%d events", len(events))
				}
				table, err := TableFromMap(events[0].table, cols)
				if err != nil {
					t.Fatal(err)
				}
				if err := table.Validate(); err != nil {
					t.Error(err)
				}
				var got []string
				for i := range table.Columns {
					got = append(got, table.Columns[i].SQLType())
				}
				if d := cmp.Diff(tc.columns, got); d != "" && tc.columns != nil {
					t.Errorf("columns (-want +got):\n%s", d)
				}
				key := table.KeyColumns()
				if len(key) == 0 {
					key = nil
				}
				if d := cmp.Diff(tc.key, key); d != "" {
					t.Errorf("key (-want +got):\n%s", d)
				}
				names := s.Query(t, "SELECT column_name FROM information_schema.columns WHERE table_schema=? AND table_name=? ORDER BY ordinal_position", db, name)
				for i := range table.Columns {
					if table.Columns[i].Name != names[i][0] {
						t.Errorf("column %d is %q, want %q", i, table.Columns[i].Name, names[i][0])
					}
				}
				if want := (schema.Name{Schema: db, Table: name}); table.Name != want {
					t.Errorf("name %v", table.Name)
				}
			})
		}
	})
}

// TestLabelsOfEveryCharset makes ENUMs in every character set of the server,
// and compares their labels with what it selects. Where we can't convert, the
// answer must be ErrNoMetadata, never another label.
func TestLabelsOfEveryCharset(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		cols := collationsOf(t, s)
		var converted, left []string
		for _, row := range s.Query(t, "SELECT character_set_name, maxlen FROM information_schema.character_sets ORDER BY 1") {
			charset := row[0]
			if charset == "filename" || charset == "binary" {
				continue
			}
			var labels []string
			// What the character set can hold of these, one label each.
			for _, c := range "a~\\^é×ßžłğΑωЖяא؟ไ日汉アﾖ가€„™𝄞Ä¥£¤" {
				back := s.Query(t, fmt.Sprintf("SELECT CONVERT(CONVERT(_utf8mb4'%s' USING %s) USING utf8mb4)", strings.ReplaceAll(string(c), `\`, `\\`), charset))
				if back[0][0] == string(c) {
					labels = append(labels, strings.ReplaceAll(string(c), `\`, `\\`))
				}
			}
			name := "l_" + charset
			events := capture(t, s, db, "SET NAMES utf8mb4", "CREATE TABLE "+name+" (e ENUM('"+strings.Join(labels, "','")+"') CHARACTER SET "+charset+" COLLATE "+binaryCollation(t, s, charset)+")", "INSERT INTO "+name+" VALUES (1)")
			table, err := TableFromMap(events[0].table, cols)
			if errors.Is(err, ErrNoMetadata) {
				left = append(left, charset)
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", charset, err)
				continue
			}
			converted = append(converted, charset)
			for i, got := range table.Columns[0].Members {
				s.Exec(t, fmt.Sprintf("UPDATE %s.%s SET e=%d", db, name, i+1))
				if want := s.Value(t, "SELECT e FROM "+db+"."+name); got != want {
					t.Errorf("%s: label %d is %q, the server says %q", charset, i+1, got, want)
				}
			}
		}
		t.Logf("converted: %v; left to the catalogue: %v", converted, left)
	})
}

func binaryCollation(t *testing.T, s *mysqltest.Server, charset string) string {
	t.Helper()
	for _, c := range s.Query(t, "SELECT collation_name FROM information_schema.collations WHERE character_set_name=? ORDER BY collation_name LIKE '%\\_bin' DESC, collation_name", charset) {
		return c[0]
	}
	return charset + "_bin"
}

// TestMinimalMetadata: without names there is no table, but a definition from
// elsewhere can be checked and used.
func TestMinimalMetadata(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		cols := collationsOf(t, s)
		modes := []string{"MINIMAL"}
		if s.Flavor.IsMariaDB() {
			modes = append(modes, "NO_LOG")
		}
		s.Exec(t, "USE "+db, "CREATE TABLE m (id INT UNSIGNED PRIMARY KEY, e ENUM('a','b') NOT NULL, t VARCHAR(20) CHARACTER SET utf8mb4, d DECIMAL(10,2))")
		full := capture(t, s, db, "INSERT INTO m VALUES (1,'b','x',1.5)")
		table, err := TableFromMap(full[0].table, cols)
		if err != nil {
			t.Fatal(err)
		}
		for i, mode := range modes {
			s.Exec(t, "SET GLOBAL binlog_row_metadata="+mode)
			events := capture(t, s, db, fmt.Sprintf("INSERT INTO m VALUES (%d,'a','y',-1.5)", 2+i))
			s.Exec(t, "SET GLOBAL binlog_row_metadata=FULL")
			if _, err := TableFromMap(events[0].table, cols); !errors.Is(err, ErrNoMetadata) {
				t.Errorf("%s: %v, want ErrNoMetadata", mode, err)
			}
			if err := Matches(events[0].table, table); err != nil {
				t.Errorf("%s: %v", mode, err)
			}
			d, err := NewDecoder(table, events[0].table)
			if err != nil {
				t.Fatal(err)
			}
			var a Arena
			if err := d.Rows(events[0].typ, events[0].body, &a, func(_, after []change.Value) error {
				if got := string(after[3].Bytes()); got != "-1.50" {
					t.Errorf("%s: %s", mode, got)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		for what, change := range map[string]func(*schema.Table){
			"another type":     func(t *schema.Table) { t.Columns[0].Type = schema.BigInt },
			"another length":   func(t *schema.Table) { t.Columns[2].Length++ },
			"another scale":    func(t *schema.Table) { t.Columns[3].Scale++ },
			"another sign":     func(t *schema.Table) { t.Columns[0].Unsigned = false },
			"nullable":         func(t *schema.Table) { t.Columns[1].Nullable = true },
			"another table":    func(t *schema.Table) { t.Name.Table = "n" },
			"a column more":    func(t *schema.Table) { t.Columns = append(t.Columns, schema.Column{}) },
			"another name":     func(t *schema.Table) { t.Columns[3].Name = "dd" },
			"too many members": func(t *schema.Table) { t.Columns[1].Members = make([]string, 256) },
		} {
			other := *table
			other.Columns = append([]schema.Column(nil), table.Columns...)
			change(&other)
			if err := Matches(full[0].table, &other); !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: %v, want ErrMismatch", what, err)
			}
			if _, err := NewDecoder(&other, full[0].table); !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: decoder: %v, want ErrMismatch", what, err)
			}
		}
	})
}

// TestCompressedColumns: MariaDB's COMPRESSED columns are refused by name.
func TestCompressedColumns(t *testing.T) {
	for _, flavor := range []mysqltest.Flavor{mysqltest.MariaDB1011, mysqltest.MariaDB118} {
		s, db := mysqltest.Shared(t, flavor)
		for i, column := range []string{"VARCHAR(100) COMPRESSED", "BLOB COMPRESSED", "TEXT COMPRESSED"} {
			events := capture(t, s, db, fmt.Sprintf("CREATE TABLE c%d (a INT, b %s, c VARCHAR(20))", i, column), fmt.Sprintf("INSERT INTO c%d VALUES (1,'b','c')", i))
			if _, err := TableFromMap(events[0].table, collationsOf(t, s)); !errors.Is(err, ErrColumnType) {
				t.Errorf("%s: %s: %v, want ErrColumnType", flavor, column, err)
			}
		}
	}
}

// TestTableFromMapDamaged: a table map whose parts contradict each other is an
// error, never a panic.
func TestTableFromMapDamaged(t *testing.T) {
	good := func() *replication.TableMapEvent {
		return &replication.TableMapEvent{
			Schema: []byte("s"), Table: []byte("t"), ColumnCount: 3, ColumnType: []byte{3, 15, 254}, ColumnMeta: []uint16{0, 80, 0xf701},
			NullBitmap: []byte{0}, SignednessBitmap: []byte{0x80}, ColumnName: [][]byte{[]byte("a"), []byte("b"), []byte("c")},
			DefaultCharset: []uint64{45}, EnumSetDefaultCharset: []uint64{45}, EnumStrValue: [][][]byte{{[]byte("x")}},
			PrimaryKey: []uint64{0}, PrimaryKeyPrefix: []uint64{0},
		}
	}
	cols := schema.Collations{45: {ID: 45, Name: "utf8mb4_general_ci", Charset: "utf8mb4", MaxLen: 4}}
	if _, err := TableFromMap(good(), cols); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		spoil func(*replication.TableMapEvent)
		want  error
	}{
		"no names":           {func(e *replication.TableMapEvent) { e.ColumnName = nil }, ErrNoMetadata},
		"too few names":      {func(e *replication.TableMapEvent) { e.ColumnName = e.ColumnName[:2] }, ErrNoMetadata},
		"no signs":           {func(e *replication.TableMapEvent) { e.SignednessBitmap = nil }, ErrNoMetadata},
		"no collations":      {func(e *replication.TableMapEvent) { e.DefaultCharset = nil }, ErrNoMetadata},
		"unknown collation":  {func(e *replication.TableMapEvent) { e.DefaultCharset = []uint64{46} }, ErrNoMetadata},
		"huge collation":     {func(e *replication.TableMapEvent) { e.DefaultCharset = []uint64{1 << 63} }, ErrNoMetadata},
		"stray exception":    {func(e *replication.TableMapEvent) { e.DefaultCharset = []uint64{45, 9, 45} }, ErrDamaged},
		"too many each":      {func(e *replication.TableMapEvent) { e.DefaultCharset, e.ColumnCharset = nil, []uint64{45, 45} }, ErrDamaged},
		"no labels":          {func(e *replication.TableMapEvent) { e.EnumStrValue = nil }, ErrNoMetadata},
		"label not in UTF-8": {func(e *replication.TableMapEvent) { e.EnumStrValue = [][][]byte{{{0xff}}} }, ErrNoMetadata},
		"key out of range":   {func(e *replication.TableMapEvent) { e.PrimaryKey = []uint64{3} }, ErrDamaged},
		"key without prefix": {func(e *replication.TableMapEvent) { e.PrimaryKeyPrefix = nil }, ErrDamaged},
		"no null bitmap":     {func(e *replication.TableMapEvent) { e.NullBitmap = nil }, ErrDamaged},
		"types missing":      {func(e *replication.TableMapEvent) { e.ColumnType = e.ColumnType[:1] }, ErrDamaged},
		"column count":       {func(e *replication.TableMapEvent) { e.ColumnCount = 1 << 62 }, ErrDamaged},
		"unknown type":       {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 99, 254} }, ErrColumnType},
		"compressed":         {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 141, 254} }, ErrColumnType},
		"old time":           {func(e *replication.TableMapEvent) { e.ColumnType = []byte{11, 15, 254}; e.SignednessBitmap = nil }, ErrNoMetadata},
		"vector":             {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 242, 254}; e.ColumnMeta[1] = 4 }, ErrNoMetadata},
		"geometry":           {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 255, 254}; e.ColumnMeta[1] = 4 }, ErrNoMetadata},
		"bad decimal":        {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 246, 254}; e.ColumnMeta[1] = 0x0203 }, ErrDamaged},
		"bad bit":            {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 16, 254}; e.ColumnMeta[1] = 0x0900 }, ErrDamaged},
		"bad fraction":       {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 18, 254}; e.ColumnMeta[1] = 7 }, ErrDamaged},
		"bad blob":           {func(e *replication.TableMapEvent) { e.ColumnType = []byte{3, 252, 254}; e.ColumnMeta[1] = 5 }, ErrDamaged},
		"bad enum":           {func(e *replication.TableMapEvent) { e.ColumnMeta[2] = 0xf703 }, ErrDamaged},
		"bad set":            {func(e *replication.TableMapEvent) { e.ColumnMeta[2] = 0xf809 }, ErrDamaged},
		"wide enum":          {func(e *replication.TableMapEvent) { e.ColumnMeta[2] = 0xf702 }, ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			e := good()
			tc.spoil(e)
			if _, err := TableFromMap(e, cols); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}
