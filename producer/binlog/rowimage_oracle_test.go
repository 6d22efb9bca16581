package binlog

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// typeCase is a table with a column of each kind and rows at their bounds. The
// first column is id INT PRIMARY KEY; rows are the rest, as SQL.
type typeCase struct {
	name    string
	columns []string
	rows    []string
	only    string // "mysql" or "mariadb"; empty for both
	mode    string // sql_mode to write with
	update  string // SET list for every row; empty: none
}

const looseMode = "ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"

// tall is a SET or ENUM of n members.
func tall(n int) string {
	m := make([]string, n)
	for i := range m {
		m[i] = fmt.Sprintf("'m%d'", i+1)
	}
	return strings.Join(m, ",")
}

var typeCases = []typeCase{
	{
		name: "integers",
		columns: []string{
			"a TINYINT", "b TINYINT UNSIGNED", "c SMALLINT", "d SMALLINT UNSIGNED", "e MEDIUMINT", "f MEDIUMINT UNSIGNED",
			"y YEAR", "g INT", "h INT UNSIGNED", "i BIGINT", "j BIGINT UNSIGNED", "k BOOLEAN", "z INT(7) UNSIGNED ZEROFILL NOT NULL",
		},
		rows: []string{
			"-128,0,-32768,0,-8388608,0,1901,-2147483648,0,-9223372036854775808,0,false,0",
			"127,255,32767,65535,8388607,16777215,2155,2147483647,4294967295,9223372036854775807,18446744073709551615,true,4294967295",
			"-1,1,-1,1,-1,1,0,-1,1,-1,1,NULL,1",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,7",
			"0,128,0,32768,0,8388608,2000,0,2147483648,0,9223372036854775808,0,42",
		},
		update: "a=b, j=j+0, i=NULL, h=z",
	},
	{
		name: "reals",
		columns: []string{
			"a FLOAT", "b DOUBLE", "c FLOAT UNSIGNED", "d DOUBLE UNSIGNED", "e FLOAT(7,3)", "f DOUBLE(15,4)",
		},
		rows: []string{
			"3.402823466e38,1.7976931348623157e308,0,0,1234.567,12345678901.2345",
			"-3.402823466e38,-1.7976931348623157e308,1.5,1.5,-0.001,-0.0001",
			"1.175494351e-38,2.2250738585072014e-308,1,1,0,0",
			"1e-45,5e-324,1,1,0,0",
			"0.1,0.1,0.3,0.3,0.1,0.1",
			"-0e0,-0e0,0,0,0,0",
			"NULL,NULL,NULL,NULL,NULL,NULL",
		},
		update: "a=-a, b=-b",
	},
	{
		name: "decimals",
		columns: []string{
			"a DECIMAL(65,30)", "b DECIMAL(1,0)", "c DECIMAL(10,2) UNSIGNED", "d DECIMAL(30,30)", "e DECIMAL(65,0)", "f DECIMAL(9,9)",
			"g DECIMAL(18,9)", "h DECIMAL(19,10)", "i DECIMAL(5,3)", "j DECIMAL(20,6)", "k NUMERIC(4,4)",
		},
		rows: []string{
			strings.Repeat("9", 35) + "." + strings.Repeat("9", 30) + ",9,99999999.99,0." + strings.Repeat("9", 30) + "," + strings.Repeat("9", 65) +
				",0.999999999,999999999.999999999,999999999.9999999999,99.999,12345678901234.123456,0.9999",
			"-" + strings.Repeat("9", 35) + "." + strings.Repeat("9", 30) + ",-9,0,-0." + strings.Repeat("9", 30) + ",-" + strings.Repeat("9", 65) +
				",-0.999999999,-999999999.999999999,-999999999.9999999999,-99.999,-12345678901234.123456,-0.9999",
			"0,0,0,0,0,0,0,0,0,0,0",
			"-0.0,-0,0.00,-0.000000000000000000000000000001,-1,-0.000000001,-0.000000001,-0.0000000001,-0.001,-0.000001,-0.0001",
			"1000000000,1,0.01,0.1,1000000000,0.1,1.1,1000000.0000000001,10.01,1000000,0.01",
			"-100000000000000000000.5,-1,100.10,-0.1,-100000000000000000000000000000000000000000000000000000000000000,-0.1,-100000000.000000001,-1,-10.01,-1000000000.1,-0.01",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL",
		},
		update: "a=-a, i=-i, e=-e",
	},
	{
		name: "dates", mode: looseMode,
		columns: []string{"a DATE", "b DATETIME", "c DATETIME(1)", "d DATETIME(2)", "e DATETIME(3)", "f DATETIME(4)", "g DATETIME(5)", "h DATETIME(6)"},
		rows: []string{
			"'1000-01-01','1000-01-01 00:00:00','1000-01-01 00:00:00.1','1000-01-01 00:00:00.01','1000-01-01 00:00:00.001','1000-01-01 00:00:00.0001','1000-01-01 00:00:00.00001','1000-01-01 00:00:00.000001'",
			"'9999-12-31','9999-12-31 23:59:59','9999-12-31 23:59:59.9','9999-12-31 23:59:59.99','9999-12-31 23:59:59.999','9999-12-31 23:59:59.9999','9999-12-31 23:59:59.99999','9999-12-31 23:59:59.999999'",
			"'0000-00-00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00'",
			"'2020-00-00','2020-00-00 10:11:12','2020-01-00 00:00:00.5','2020-00-00 00:00:00.05','2020-02-31 00:00:00.5','2020-00-00','2020-00-00','2020-00-00 01:02:03.000004'",
			"'0001-02-03','2024-02-29 12:34:56','2024-02-29 12:34:56.7','2024-02-29 12:34:56.78','2024-02-29 12:34:56.789','2024-02-29 12:34:56.7891','2024-02-29 12:34:56.78912','2024-02-29 12:34:56.789123'",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL",
		},
		update: "a='2021-03-04', h=b",
	},
	{
		name: "timestamps", mode: looseMode,
		columns: []string{"a TIMESTAMP NULL", "b TIMESTAMP(1) NULL", "c TIMESTAMP(2) NULL", "d TIMESTAMP(3) NULL", "e TIMESTAMP(4) NULL", "f TIMESTAMP(5) NULL", "g TIMESTAMP(6) NULL"},
		rows: []string{
			"'1970-01-01 00:00:01','1970-01-01 00:00:01.1','1970-01-01 00:00:01.01','1970-01-01 00:00:01.001','1970-01-01 00:00:01.0001','1970-01-01 00:00:01.00001','1970-01-01 00:00:01.000001'",
			"'2038-01-19 03:14:07','2038-01-19 03:14:07.0','2038-01-19 03:14:06.99','2038-01-19 03:14:06.999','2038-01-19 03:14:06.9999','2038-01-19 03:14:06.99999','2038-01-19 03:14:06.999999'",
			"'0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00','0000-00-00 00:00:00'",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL",
			"'2024-03-31 02:30:00','2024-10-27 02:30:00.5','2024-02-29 12:34:56.78','2024-02-29 12:34:56.789','2024-02-29 12:34:56.7891','2024-02-29 12:34:56.78912','2024-02-29 12:34:56.789123'",
		},
		update: "a='2021-03-04 05:06:07'",
	},
	{
		name:    "times",
		columns: []string{"a TIME", "b TIME(1)", "c TIME(2)", "d TIME(3)", "e TIME(4)", "f TIME(5)", "g TIME(6)"},
		rows: []string{
			"'-838:59:59','-838:59:58.9','-838:59:58.99','-838:59:58.999','-838:59:58.9999','-838:59:58.99999','-838:59:58.999999'",
			"'838:59:59','838:59:58.9','838:59:58.99','838:59:58.999','838:59:58.9999','838:59:58.99999','838:59:58.999999'",
			"'-00:00:01','-00:00:00.1','-00:00:00.01','-00:00:00.001','-00:00:00.0001','-00:00:00.00001','-00:00:00.000001'",
			"'-00:00:01','-00:00:01.1','-00:00:01.01','-00:00:01.001','-00:00:01.0001','-00:00:01.00001','-00:00:01.000001'",
			"'00:00:00','00:00:00.1','00:00:00.01','00:00:00.001','00:00:00.0001','00:00:00.00001','00:00:00.000001'",
			"0,0,0,0,0,0,0",
			"'12:34:56','12:34:56.5','100:00:00.05','12:34:56.789','12:34:56.7891','12:34:56.78912','-12:34:56.789123'",
			"'-01:00:00','-01:00:00','-01:00:00','-01:00:00','-01:00:00','-01:00:00','-01:00:00'",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL",
		},
		update: "a=SUBTIME('00:00:00',a)",
	},
	{
		name:    "bits",
		columns: []string{"a BIT", "b BIT(7)", "c BIT(8)", "d BIT(9)", "e BIT(33)", "f BIT(63)", "g BIT(64)"},
		rows: []string{
			"b'0',0,0,0,0,0,0", "b'1',127,255,511,8589934591,9223372036854775807,18446744073709551615",
			"1,1,128,256,1,1,9223372036854775808", "NULL,NULL,NULL,NULL,NULL,NULL,NULL",
		},
		update: "b=1, g=c",
	},
	{
		name: "enums and sets", mode: looseMode,
		columns: []string{
			"a ENUM('x','y','z')", "b ENUM(" + tall(300) + ")", "c SET('p','q','r')", "d SET(" + tall(64) + ")", "e SET(" + tall(9) + ")",
			"f SET(" + tall(33) + ")", "g ENUM('','a') NOT NULL", "h ENUM('it''s','a\"b','ü','订单') CHARACTER SET utf8mb4",
			"i ENUM('é','ß') CHARACTER SET latin1", "j SET('é','ß','z') CHARACTER SET latin1 COLLATE latin1_bin",
			"k ENUM('Ж','z') CHARACTER SET cp1251", "l ENUM('é','𝄞') CHARACTER SET utf32", "m SET('é','日') CHARACTER SET ucs2",
		},
		rows: []string{
			"'x','m1','p','m1','m1','m1','','it''s','é','é,z','Ж','é','é'",
			"'z','m300','p,q,r','" + strings.ReplaceAll(tall(64), "'", "") + "','m9','m33','a','a\"b','ß','ß','z','𝄞','é,日'",
			"'bad','m256','','','','','a','ü','é','','Ж','é',''",
			"'y','m255','q,r','m64','m1,m9','m32,m33','bad','订单','é','é,ß,z','Ж','é','日'",
			"NULL,NULL,NULL,NULL,NULL,NULL,'a',NULL,NULL,NULL,NULL,NULL,NULL",
		},
		update: "a='y', d='m2,m63'",
	},
	{
		name: "text",
		columns: []string{
			"a CHAR(0) NULL", "b CHAR(255) CHARACTER SET utf8mb4", "c CHAR(255) CHARACTER SET latin1", "d CHAR(100) CHARACTER SET utf8mb3",
			"e VARCHAR(255) CHARACTER SET ascii", "f VARCHAR(256) CHARACTER SET ascii", "g VARCHAR(63) CHARACTER SET utf8mb4", "h VARCHAR(64) CHARACTER SET utf8mb4",
			"i VARCHAR(50) CHARACTER SET gbk", "j VARCHAR(50) CHARACTER SET utf32", "k CHAR(20) CHARACTER SET ucs2", "l VARCHAR(20) CHARACTER SET sjis",
			"m TINYTEXT CHARACTER SET utf8mb4", "n TEXT CHARACTER SET latin1", "o MEDIUMTEXT CHARACTER SET utf8mb4", "p LONGTEXT CHARACTER SET utf16",
			"q CHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "r CHAR(128) CHARACTER SET utf8mb4", "s CHAR(192) CHARACTER SET utf8mb4",
		},
		rows: []string{
			"'','','','','','','','','','','','','','','','','','',''",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL",
			"'',REPEAT('𝄞',255),REPEAT('é',255),REPEAT('日',100),REPEAT('a',255),REPEAT('b',256),REPEAT('𝄞',63),REPEAT('𝄞',64)," +
				"REPEAT('汉',50),REPEAT('𝄞',50),REPEAT('日',20),REPEAT('ア',20),REPEAT('é',127),REPEAT('é',65535),REPEAT('日本',40000),REPEAT('𝄞',500),REPEAT('q',64),REPEAT('𝄞',128),REPEAT('s',192)",
			"'','trailing  ','trailing  ',' both ','trailing  ','trailing  ','trailing  ','x ','汉 ','a ',' k ',' l ','m ','n\\0n','o\\'o','p ',' q ',' r ',' s '",
		},
		update: "b='ü', n='ü', o=REPEAT('x',70000)",
	},
	{
		name: "binary",
		columns: []string{
			"a BINARY(0) NULL", "b BINARY(255)", "c BINARY(16) NOT NULL", "d VARBINARY(255)", "e VARBINARY(256)", "f TINYBLOB", "g BLOB", "h MEDIUMBLOB", "i LONGBLOB",
			"j CHAR(10) CHARACTER SET binary",
		},
		rows: []string{
			"'','','','','','','','','',''",
			"'',REPEAT(x'ff',255),x'0102030405060708090a0b0c0d0e0f00',REPEAT(x'00',255),REPEAT(x'00ff',128),REPEAT(x'00',255),REPEAT(x'80',65535),REPEAT(x'00',70000),REPEAT('i',300000),x'00'",
			"NULL,NULL,x'00',NULL,NULL,NULL,NULL,NULL,NULL,NULL",
			"'',x'0000ff',x'ff',x'00',x'ff00',x'00',x'c328',x'0000',x'20','a '",
		},
		update: "b=x'00', c=x'00', i=x'00'",
	},
	{
		name: "json", only: "mysql",
		columns: []string{"a JSON", "b JSON NOT NULL"},
		rows:    jsonRows,
		update:  "a=JSON_ARRAY(a,b)",
	},
	{
		name: "json text", only: "mariadb",
		columns: []string{"a JSON", "b JSON NOT NULL"},
		rows:    []string{`'{"a": [1, 2.50, "x"]}','1'`, `NULL,'[ 1,  2]'`},
	},
	{
		name: "geometry",
		columns: []string{
			"a GEOMETRY", "b POINT", "c LINESTRING", "d POLYGON", "e MULTIPOINT", "f MULTILINESTRING", "g MULTIPOLYGON", "h GEOMETRYCOLLECTION NOT NULL",
			"x VARCHAR(10) CHARACTER SET latin1",
		},
		rows: []string{
			"ST_GeomFromText('POINT(1 2)'),ST_GeomFromText('POINT(1.5 -2)',4326),ST_GeomFromText('LINESTRING(0 0,1 1)'),ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')," +
				"ST_GeomFromText('MULTIPOINT(0 0,1 1)'),ST_GeomFromText('MULTILINESTRING((0 0,1 1))'),ST_GeomFromText('MULTIPOLYGON(((0 0,1 0,1 1,0 0)))'),ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))'),'é'",
			"NULL,NULL,NULL,NULL,NULL,NULL,NULL,ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'),NULL",
		},
		update: "a=h",
	},
	{
		name: "vector", only: "mysql",
		columns: []string{"a VECTOR(3)", "b VECTOR", "c VECTOR(16383) NULL"},
		rows:    []string{"TO_VECTOR('[1,2.5,-3]'),TO_VECTOR('[1]'),NULL", "NULL,NULL,NULL"},
	},
	{
		name:    "generated and invisible",
		columns: []string{"a INT", "b INT GENERATED ALWAYS AS (a+1) STORED", "c INT GENERATED ALWAYS AS (a*2) VIRTUAL", "d VARCHAR(10) INVISIBLE"},
		rows:    nil, // written by the update
	},
}

func init() { typeCases = append(typeCases, widest()) }

// widest is a table with as many columns as InnoDB takes.
func widest() typeCase {
	c := typeCase{name: "1017 columns", update: "c0=7, c500=NULL, c1015=1"}
	var full, odd, none []string
	for i := range 1016 {
		c.columns = append(c.columns, fmt.Sprintf("c%d %s", i, [...]string{"TINYINT", "CHAR(1) CHARACTER SET latin1", "SMALLINT UNSIGNED", "BIT(3)"}[i%4]))
		full = append(full, strconv.Itoa(i%8))
		odd = append(odd, [...]string{"NULL", "1"}[i%2])
		none = append(none, "NULL")
	}
	for _, r := range [][]string{full, odd, none} {
		c.rows = append(c.rows, strings.Join(r, ","))
	}
	return c
}

// jsonRows are documents that show every type of JSON value.
var jsonRows = []string{
	`'{}','[]'`,
	`NULL,'null'`,
	`'{"a": 1, "bb": -1, "": true, "aa": false, "ü": null, "\\"q\\"": "\\u0000\\u001f\\b\\f\\n\\r\\t\\\\/"}','"s"'`,
	`'[0,1,-1,32767,-32768,32768,-32769,65535,65536,2147483647,-2147483648,2147483648,4294967295,4294967296,9223372036854775807,-9223372036854775808,9223372036854775808,18446744073709551615]','1'`,
	`'[0.1,1.0,-0.0,1e22,1e15,1e14,1e-14,1e-15,1e-16,1.5e300,5e-324,1.7976931348623157e308,2.2250738585072014e-308,123456789012345678,1234567890123456.7,0.30000000000000004,-1.5]','1.5'`,
	`JSON_ARRAY(CAST(5 AS UNSIGNED),CAST(70000 AS UNSIGNED),CAST(5000000000 AS UNSIGNED),5000000000,-5000000000)`, // second column added below
	`JSON_ARRAY(CAST(1.50 AS DECIMAL(10,2)),CAST(-12345678901234567890.123456789 AS DECIMAL(65,30)),CAST(0 AS DECIMAL(1,0)))`,
	`JSON_ARRAY(CAST('10:00:00' AS TIME),CAST('-838:59:59' AS TIME),CAST('00:00:00' AS TIME),CAST('-00:00:00.000001' AS TIME(6)),CAST('2020-01-02' AS DATE),CAST('2020-01-02 03:04:05.678901' AS DATETIME(6)),TIMESTAMP('2020-01-01'))`,
	`JSON_ARRAY(b'101',x'00ff',CAST('x' AS BINARY),CAST(REPEAT('x',57) AS BINARY),CAST(REPEAT('x',58) AS BINARY),CAST(REPEAT('y',200) AS BINARY),CAST(2020 AS YEAR),ST_GeomFromText('POINT(1 2)'))`,
	`JSON_OBJECT('k',REPEAT('x',127),'l',REPEAT('x',128),'m',REPEAT('é',20000),'n',JSON_ARRAY(1,2,JSON_OBJECT('a',JSON_ARRAY())))`,
	`JSON_ARRAY(REPEAT('x',70000),JSON_OBJECT('big',70000,'u',CAST(70000 AS UNSIGNED),'neg',-70000,'o',JSON_OBJECT('i',1)))`,
	`(SELECT CAST(CONCAT(REPEAT('[',99),REPEAT(']',99)) AS JSON))`,
	`CAST(CAST('2020-01-02' AS DATE) AS JSON)`,
	`CAST(CAST(1.5 AS DECIMAL(3,1)) AS JSON)`,
	`CAST(18446744073709551615 AS JSON)`,
	`JSON_ARRAY(1e0,0.1e0+0.2e0,PI(),1e308*1.5,4.35e0,1e23,9007199254740993e0,0.000001e0,123456.789e3)`,
}

func init() {
	for i, r := range jsonRows {
		if i >= 5 {
			jsonRows[i] = r + ",'2'"
		}
	}
}

// selectExpression is how to read a column so that it can be compared.
func selectExpression(c *schema.Column) string {
	q := "`" + c.Name + "`"
	switch c.Type {
	case schema.Float, schema.Double:
		return "CAST(" + q + " AS DOUBLE)"
	case schema.Bit, schema.Year, schema.TinyInt, schema.SmallInt, schema.MediumInt, schema.Int, schema.BigInt:
		return q + "+0"
	case schema.Enum:
		return "IF(" + q + "+0=0,'#0'," + q + ")"
	case schema.JSON:
		return "CAST(" + q + " AS CHAR)"
	}
	if c.Encoding() == schema.EncodingBytes {
		return "HEX(" + q + ")"
	}
	return q
}

// shown is a decoded value as selectExpression's text.
func shown(t testing.TB, c *schema.Column, v change.Value) string {
	t.Helper()
	switch v.Kind() {
	case change.Null:
		return mysqltest.Null
	case change.Integer:
		return strconv.FormatInt(v.Integer(), 10)
	case change.Single:
		return strconv.FormatFloat(float64(v.Single()), 'g', -1, 64)
	case change.Real:
		return strconv.FormatFloat(v.Real(), 'g', -1, 64)
	case change.Ordinal:
		return "#" + strconv.FormatInt(v.Integer(), 10)
	case change.Bytes:
		if c.Type == schema.Bit {
			var u uint64
			for _, b := range v.Bytes() {
				u = u<<8 | uint64(b)
			}
			return strconv.FormatUint(u, 10)
		}
		return hexOf(v.Bytes())
	}
	return string(v.Bytes())
}

// sameText compares a decoded value with the server's text.
func sameText(c *schema.Column, got, want string) bool {
	if c.Type == schema.Float || c.Type == schema.Double {
		if got == mysqltest.Null || want == mysqltest.Null {
			return got == want
		}
		g, err1 := strconv.ParseFloat(got, 64)
		w, err2 := strconv.ParseFloat(want, 64)
		return err1 == nil && err2 == nil && math.Float64bits(g) == math.Float64bits(w)
	}
	return got == want
}

func snapshot(t testing.TB, s *mysqltest.Server, db string, table *schema.Table) [][]string {
	t.Helper()
	var list []string
	for i := range table.Columns {
		list = append(list, selectExpression(&table.Columns[i]))
	}
	return s.Query(t, "SELECT "+strings.Join(list, ",")+" FROM `"+db+"`.`"+table.Name.Table+"` ORDER BY id")
}

// decoded is every row of the events of one kind.
type decoded struct{ before, after []change.Value }

// kept is a copy of a row image with memory of its own.
func kept(image []change.Value) []change.Value {
	image = slices.Clone(image)
	for i, v := range image {
		switch v.Kind() {
		case change.Text:
			image[i] = change.TextOf(bytes.Clone(v.Bytes()))
		case change.Bytes:
			image[i] = change.BytesOf(bytes.Clone(v.Bytes()))
		case change.Document:
			image[i] = change.DocumentOf(bytes.Clone(v.Bytes()), bytes.Clone(v.Binary()))
		}
	}
	return image
}

func decodeAll(t testing.TB, cols schema.Collations, events []rowsEvent) (table *schema.Table, out map[change.Op][]decoded) {
	t.Helper()
	out = map[change.Op][]decoded{}
	var a Arena
	for _, e := range events {
		var err error
		if table, err = TableFromMap(e.table, cols); err != nil {
			t.Fatal(err)
		}
		if err := table.Validate(); err != nil {
			t.Fatal(err)
		}
		d, err := NewDecoder(table, e.table)
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseRowsHeader(e.typ, e.body)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Rows(e.typ, e.body, &a, func(before, after []change.Value) error {
			out[h.Op] = append(out[h.Op], decoded{kept(before), kept(after)})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return table, out
}

func compareImage(t testing.TB, what string, table *schema.Table, got []change.Value, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		c := &table.Columns[i]
		if g := shown(t, c, got[i]); !sameText(c, g, want[i]) {
			n := 0
			for n < min(len(g), len(want[i])) && g[n] == want[i][n] {
				n++
			}
			n = max(0, n-20)
			t.Errorf("%s, column %s %s: from byte %d on decoded %.100q, the server says %.100q", what, c.Name, c.SQLType(), n, g[n:], want[i][n:])
		}
	}
}

// TestRowsAgainstServer writes rows of every type, and compares what we decode
// from the binlog with what the server selects.
func TestRowsAgainstServer(t *testing.T) {
	eachFlavor(t, func(t *testing.T, s *mysqltest.Server, db string) {
		cols := collationsOf(t, s)
		for n, tc := range typeCases {
			if tc.only != "" && (tc.only == "mariadb") != s.Flavor.IsMariaDB() || tc.rows == nil {
				continue
			}
			t.Run(tc.name, func(t *testing.T) {
				name := fmt.Sprintf("t%d", n)
				statements := []string{
					"SET sql_mode='" + tc.mode + "'",
					"CREATE TABLE " + name + " (id INT PRIMARY KEY, " + strings.Join(tc.columns, ", ") + ")",
				}
				for i, r := range tc.rows {
					statements = append(statements, fmt.Sprintf("INSERT INTO %s VALUES (%d,%s)", name, i+1, r))
				}
				table, ins := decodeAll(t, cols, capture(t, s, db, statements...))
				before := snapshot(t, s, db, table)
				if len(ins[change.Insert]) != len(before) {
					t.Fatalf("%d rows decoded, %d selected", len(ins[change.Insert]), len(before))
				}
				for i, r := range ins[change.Insert] {
					compareImage(t, fmt.Sprintf("insert %d", i+1), table, r.after, before[i])
				}
				if tc.update == "" {
					return
				}
				_, upd := decodeAll(t, cols, capture(t, s, db, "SET sql_mode='"+looseMode+"'", "UPDATE IGNORE "+name+" SET "+tc.update+", id=id+1000 ORDER BY id"))
				after := snapshot(t, s, db, table)
				if len(upd[change.Update]) != len(after) {
					t.Fatalf("%d updates decoded, %d rows selected", len(upd[change.Update]), len(after))
				}
				for i, r := range upd[change.Update] {
					compareImage(t, fmt.Sprintf("update %d before", i+1), table, r.before, before[i])
					compareImage(t, fmt.Sprintf("update %d after", i+1), table, r.after, after[i])
				}
				_, del := decodeAll(t, cols, capture(t, s, db, "DELETE FROM "+name+" ORDER BY id"))
				if len(del[change.Delete]) != len(after) {
					t.Fatalf("%d deletes decoded, %d rows", len(del[change.Delete]), len(after))
				}
				for i, r := range del[change.Delete] {
					compareImage(t, fmt.Sprintf("delete %d", i+1), table, r.before, after[i])
				}
			})
		}
	})
}
