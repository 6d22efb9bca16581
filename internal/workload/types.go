package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// column is one column of a type table: its definition, its edge values, and a
// source of random ones, all as SQL.
type column struct {
	name   string
	def    string // type and attributes
	edges  []string
	random func(r *rand.Rand) string // nil: one of the edges
	hidden bool                      // generated: never written
}

func (c column) value(r *rand.Rand) string {
	n := r.IntN(10)
	switch {
	case n == 0 && !strings.Contains(c.def, "NOT NULL"):
		return "NULL"
	case c.random == nil || n < 5 && len(c.edges) > 0:
		return c.edges[r.IntN(len(c.edges))]
	}
	return c.random(r)
}

// typeTables are the tables that together have every column type of the server.
func typeTables(info server.Info) []rowTable {
	t := []rowTable{
		{name: "types_integer", columns: integerColumns()},
		{name: "types_number", columns: numberColumns()},
		{name: "types_temporal", columns: temporalColumns()},
		{name: "types_text", columns: textColumns(info)},
		{name: "types_binary", columns: binaryColumns()},
		{name: "types_choice", columns: choiceColumns()},
		{name: "types_json", columns: jsonColumns(info)},
		{name: "types_geometry", columns: geometryColumns(info)},
		{name: "types_generated", columns: generatedColumns(info)},
	}
	if special := specialColumns(info); len(special) > 0 {
		t = append(t, rowTable{name: "types_special", columns: special})
	}
	for i := range t {
		t[i].rows = 40
	}
	return t
}

func integerColumns() []column {
	var all []column
	for _, k := range []struct {
		name string
		bits uint
	}{{"tinyint", 8}, {"smallint", 16}, {"mediumint", 24}, {"int", 32}, {"bigint", 64}} {
		low, high := strconv.FormatInt(-1<<(k.bits-1), 10), strconv.FormatInt(1<<(k.bits-1)-1, 10)
		top := strconv.FormatUint(math.MaxUint64>>(64-k.bits), 10)
		shift := 64 - k.bits
		all = append(all,
			column{name: "c_" + k.name, def: k.name, edges: []string{low, "-1", "0", "1", high},
				random: func(r *rand.Rand) string { return strconv.FormatInt(int64(r.Uint64())>>shift, 10) }},
			column{name: "c_" + k.name + "_u", def: k.name + " UNSIGNED NOT NULL DEFAULT 7", edges: []string{"0", "1", high, top, "DEFAULT"},
				random: func(r *rand.Rand) string { return strconv.FormatUint(r.Uint64()>>shift, 10) }})
	}
	return append(all,
		column{name: "c_bool", def: "BOOLEAN", edges: []string{"TRUE", "FALSE", "-128"}},
		column{name: "c_zerofill", def: "INT(8) ZEROFILL", edges: []string{"0", "12", "4294967295"}},
		column{name: "c_year", def: "YEAR", edges: []string{"1901", "2155", "0", "1970"}})
}

func numberColumns() []column {
	dec := func(p, s int, signed bool) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return randomDecimal(r, p, s, signed) }
	}
	nines := func(n int) string { return strings.Repeat("9", n) }
	return []column{
		{name: "c_dec_65_30", def: "DECIMAL(65,30)", edges: []string{nines(35) + "." + nines(30), "-" + nines(35) + "." + nines(30), "0", "-0.000000000000000000000000000001"}, random: dec(65, 30, true)},
		{name: "c_dec_65", def: "DECIMAL(65,0)", edges: []string{nines(65), "-" + nines(65), "0"}, random: dec(65, 0, true)},
		{name: "c_dec_30_30", def: "DECIMAL(30,30)", edges: []string{"0." + nines(30), "-0." + nines(30), "0"}},
		{name: "c_dec_10_2", def: "DECIMAL(10,2) NOT NULL DEFAULT 0", edges: []string{"99999999.99", "-99999999.99", "-0.01"}, random: dec(10, 2, true)},
		{name: "c_dec_9_9", def: "DECIMAL(9,9)", edges: []string{"0.999999999", "-0.000000001"}},
		{name: "c_dec_u", def: "DECIMAL(20,5) UNSIGNED", edges: []string{"0", "999999999999999.99999"}, random: dec(20, 5, false)},
		{name: "c_dec_1", def: "DECIMAL(1)", edges: []string{"9", "-9", "0"}},
		{name: "c_float", def: "FLOAT", edges: []string{"0", "-0.0", "3.402823466e38", "-3.402823466e38", "1.175494351e-38", "1e-45", "0.1", "16777217"},
			random: func(r *rand.Rand) string {
				return strconv.FormatFloat(float64(float32(r.NormFloat64()*math.Pow(10, float64(r.IntN(60)-30)))), 'e', 9, 64)
			}},
		{name: "c_float_m", def: "FLOAT(7,3)", edges: []string{"9999.999", "-9999.999", "0.001"}},
		{name: "c_float_u", def: "FLOAT UNSIGNED", edges: []string{"0", "3.4e38", "0.3"}},
		{name: "c_double", def: "DOUBLE", edges: []string{"0", "-0.0e0", "1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "0.1", "9007199254740993"},
			random: func(r *rand.Rand) string {
				return strconv.FormatFloat(r.NormFloat64()*math.Pow(10, float64(r.IntN(500)-250)), 'e', 17, 64)
			}},
		{name: "c_double_m", def: "DOUBLE(20,5)", edges: []string{"999999999999999.99999", "-0.00001"}},
		{name: "c_bit1", def: "BIT(1)", edges: []string{"b'0'", "b'1'"}},
		{name: "c_bit17", def: "BIT(17)", edges: []string{"b'0'", "0x1ffff", "0x10000", "b'1'"}, random: func(r *rand.Rand) string { return strconv.Itoa(r.IntN(1 << 17)) }},
		{name: "c_bit64", def: "BIT(64) NOT NULL DEFAULT b'101'", edges: []string{"0", "0xffffffffffffffff", "0x8000000000000000"}, random: func(r *rand.Rand) string { return strconv.FormatUint(r.Uint64(), 10) }},
	}
}

func temporalColumns() []column {
	all := []column{
		{name: "c_date", def: "DATE", edges: []string{"'0000-00-00'", "'1000-01-01'", "'9999-12-31'", "'2024-02-29'", "'2024-00-00'", "'2024-05-00'", "'1969-12-31'", "'0001-01-01'"},
			random: func(r *rand.Rand) string { return "'" + randomDate(r) + "'" }},
	}
	for _, f := range []int{0, 1, 3, 6} {
		nines := ""
		if f > 0 {
			nines = "." + strings.Repeat("9", f)
		}
		n := strconv.Itoa(f)
		all = append(all,
			column{name: "c_time" + n, def: "TIME(" + n + ")", edges: []string{"'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:00" + nines + "'", "'23:59:59" + nines + "'", "'-100:00:01" + nines + "'"},
				random: func(r *rand.Rand) string {
					sign := []string{"", "-"}[r.IntN(2)]
					return fmt.Sprintf("'%s%02d:%02d:%02d%s'", sign, r.IntN(838), r.IntN(60), r.IntN(60), fraction(r, f))
				}},
			column{name: "c_datetime" + n, def: "DATETIME(" + n + ")", edges: []string{"'0000-00-00 00:00:00'", "'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'2024-00-00 00:00:00'", "'2024-03-31 02:30:00" + nines + "'", "'1969-12-31 23:59:59" + nines + "'"},
				random: func(r *rand.Rand) string { return "'" + randomDate(r) + " " + randomClock(r, f) + "'" }},
			column{name: "c_timestamp" + n, def: "TIMESTAMP(" + n + ") NULL DEFAULT NULL", edges: []string{"'0000-00-00 00:00:00'", "'1970-01-02 00:00:01'", "'2038-01-18 03:14:07" + nines + "'", "'2024-10-27 02:30:00'", "CURRENT_TIMESTAMP(" + n + ")"},
				random: func(r *rand.Rand) string {
					return fmt.Sprintf("'%04d-%02d-%02d %s'", 1971+r.IntN(66), 1+r.IntN(12), 1+r.IntN(28), randomClock(r, f))
				}})
	}
	return append(all,
		column{name: "c_touched", def: "TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)", edges: []string{"DEFAULT", "'2001-09-09 01:46:40.123456'"}},
		column{name: "c_made", def: "DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3)", edges: []string{"DEFAULT"}})
}

func textColumns(info server.Info) []column {
	charsets := []string{"utf8mb4", "utf8mb3", "latin1", "latin2", "gbk", "big5", "sjis", "euckr", "cp1251", "ucs2", "utf16", "utf32", "ascii"}
	var all []column
	for _, cs := range charsets {
		edges := []string{"''", "' '", "'a '", "'NULL'", textLiteral(string(alphabets[cs][len(alphabets[cs])-6:]))}
		gen := func(most int) func(*rand.Rand) string {
			return func(r *rand.Rand) string { return textLiteral(randomText(r, cs, r.IntN(most+1))) }
		}
		all = append(all,
			column{name: "c_char_" + cs, def: "CHAR(10) CHARACTER SET " + cs, edges: edges, random: gen(10)},
			column{name: "c_varchar_" + cs, def: "VARCHAR(80) CHARACTER SET " + cs + " NOT NULL DEFAULT 'x'", edges: append(edges, "DEFAULT"), random: gen(80)},
			column{name: "c_text_" + cs, def: "TEXT CHARACTER SET " + cs, edges: edges, random: gen(600)})
	}
	long := func(n int) string { return "REPEAT('0123456789abcdef', " + strconv.Itoa(n/16) + ")" }
	all = append(all,
		column{name: "c_varchar_255", def: "VARCHAR(255) CHARACTER SET latin1", edges: []string{"REPEAT('x',255)", "''"}},
		column{name: "c_varchar_256", def: "VARCHAR(256) CHARACTER SET latin1", edges: []string{"REPEAT('x',256)", "''"}},
		column{name: "c_tinytext", def: "TINYTEXT", edges: []string{"''", "REPEAT('y',255)"}},
		column{name: "c_mediumtext", def: "MEDIUMTEXT", edges: []string{"''", long(70_000)}},
		column{name: "c_longtext", def: "LONGTEXT", edges: []string{"''", long(100_000)}},
		column{name: "c_ci", def: "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", edges: []string{"'a'", "'A'", "'á'", "'a  '", "'ß'", "'ss'"}},
		column{name: "c_bin", def: "VARCHAR(30) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", edges: []string{"'a'", "'A'", "'a '"}},
	)
	if info.Flavor == server.MySQL {
		all = append(all, column{name: "c_gb18030", def: "VARCHAR(60) CHARACTER SET gb18030", edges: []string{"''", textLiteral("订单😀")},
			random: func(r *rand.Rand) string { return textLiteral(randomText(r, "gbk", r.IntN(60))) }})
	}
	return all
}

func binaryColumns() []column {
	gen := func(most int) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return hexBytes(randomBytes(r, r.IntN(most+1))) }
	}
	return []column{
		{name: "c_binary8", def: "BINARY(8)", edges: []string{"''", "0x00", "0x6100", "0x6100000000000000", "0x2000200020002000", "0xffffffffffffffff"}, random: gen(8)},
		{name: "c_binary255", def: "BINARY(255)", edges: []string{"''", "REPEAT(0x00,255)", "REPEAT(0xff,255)"}, random: gen(255)},
		{name: "c_varbinary", def: "VARBINARY(300) NOT NULL DEFAULT 0x0001", edges: []string{"''", "0x00", "0x6100", "REPEAT(0x20,300)", "DEFAULT"}, random: gen(300)},
		{name: "c_tinyblob", def: "TINYBLOB", edges: []string{"''", "REPEAT(0x00,255)"}, random: gen(255)},
		{name: "c_blob", def: "BLOB", edges: []string{"''", "0x00", "0x27225c00"}, random: gen(2000)},
		{name: "c_mediumblob", def: "MEDIUMBLOB", edges: []string{"''", "REPEAT(0xfffe,40000)"}, random: gen(500)},
		{name: "c_longblob", def: "LONGBLOB", edges: []string{"''", "REPEAT(0x00ff27,40000)"}, random: gen(500)},
	}
}

func choiceColumns() []column {
	members := make([]string, 64)
	for i := range members {
		members[i] = fmt.Sprintf("'m%d'", i)
	}
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("'e%d'", i))
	}
	return []column{
		// A value that is no member becomes ordinal 0 outside strict mode.
		{name: "c_enum", def: "ENUM('a','B','','it''s','two,three') CHARACTER SET latin1", edges: []string{"'a'", "'B'", "''", "'it''s'", "'two,three'", "1", "'no member'"}},
		{name: "c_enum_cn", def: "ENUM('订单','城市','é😀') CHARACTER SET utf8mb4 NOT NULL", edges: []string{"'订单'", "'城市'", "'é😀'", "'no member'"}},
		{name: "c_enum_gbk", def: "ENUM('订单','城市') CHARACTER SET gbk", edges: []string{"'订单'", "'城市'"}},
		{name: "c_enum_many", def: "ENUM(" + strings.Join(many, ",") + ")", edges: []string{"'e0'", "'e255'", "'e256'", "'e299'"}},
		{name: "c_set", def: "SET('x','y','z w') NOT NULL DEFAULT 'x,y'", edges: []string{"''", "'x'", "'x,z w'", "'x,y,z w'", "DEFAULT"}},
		{name: "c_set64", def: "SET(" + strings.Join(members, ",") + ")", edges: []string{"''", "'m0'", "'m63'", "'m0,m31,m32,m63'", "18446744073709551615"},
			random: func(r *rand.Rand) string { return strconv.FormatUint(r.Uint64(), 10) }},
		{name: "c_set_cn", def: "SET('红','绿','蓝') CHARACTER SET gbk", edges: []string{"'红'", "'红,蓝'", "''"}},
	}
}

func jsonColumns(info server.Info) []column {
	texts := []string{
		`{}`, `[]`, `null`, `true`, `0`, `-1`, `18446744073709551615`, `-9223372036854775808`, `1.5`, `1e300`, `1.0`, `""`, `"a\"b\\c"`,
		`[1,[2,[3,[4,{"a":[]}]]]]`, `{"b":1,"a":2,"aa":3,"":4}`, `{"订单":"城市😀"}`, `"` + strings.Repeat("long", 300) + `"`,
		`[32767,32768,-32768,-32769,65535,65536,2147483647,2147483648,-2147483649,4294967296]`,
	}
	edges := make([]string, 0, len(texts)+8)
	for _, t := range texts {
		edges = append(edges, quote(t))
	}
	if info.Flavor == server.MySQL {
		// What JSON text cannot say: dates, decimals and opaque bytes inside.
		edges = append(edges,
			"CAST(CAST('2024-02-29 23:59:59.123456' AS DATETIME(6)) AS JSON)", "CAST(CAST('2024-02-29' AS DATE) AS JSON)",
			"CAST(CAST('-12:34:56.7' AS TIME(1)) AS JSON)", "CAST(CAST(12345678901234567890.123456789 AS DECIMAL(40,9)) AS JSON)",
			"JSON_ARRAY(1.10, CAST(0.30 AS DECIMAL(5,2)), CAST(x'00ff27' AS BINARY), TIMESTAMP'2024-01-01 00:00:00')",
			"JSON_OBJECT('d', DATE'0001-01-01', 'f', 1e0, 'y', CAST(3 AS UNSIGNED))", "CAST(x'00ff' AS JSON)",
			"JSON_ARRAY(REPEAT('x', 70000), 1)", "JSON_OBJECT('g', ST_GeomFromText('POINT(1 2)'))", "CAST(b'101' AS JSON)",
		)
	}
	random := func(r *rand.Rand) string { return hexText("utf8mb4", []byte(randomJSON(r, 4))) }
	return []column{
		{name: "c_json", def: "JSON", edges: edges, random: random},
		{name: "c_json_nn", def: "JSON NOT NULL", edges: edges[:4], random: random},
	}
}

func geometryColumns(info server.Info) []column {
	text := []string{
		"POINT(1 2)", "POINT(-180 90)", "LINESTRING(0 0,1 1,2 0.5)", "POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))",
		"MULTIPOINT((0 0),(1 1))", "MULTILINESTRING((0 0,1 1),(2 2,3 3))", "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
		"GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))",
	}
	var any []string
	for _, t := range text {
		any = append(any, "ST_GeomFromText('"+t+"')")
	}
	srid := "ST_GeomFromText('POINT(10 20)', 4326)"
	all := []column{
		{name: "c_geometry", def: "GEOMETRY", edges: append(append([]string{}, any...), srid)},
		{name: "c_point", def: "POINT NOT NULL", edges: any[:2], random: func(r *rand.Rand) string {
			return fmt.Sprintf("ST_GeomFromText('POINT(%g %g)')", r.NormFloat64()*50, r.NormFloat64()*50)
		}},
		{name: "c_linestring", def: "LINESTRING", edges: any[2:3]},
		{name: "c_polygon", def: "POLYGON", edges: any[3:4]},
		{name: "c_multipoint", def: "MULTIPOINT", edges: any[4:5]},
		{name: "c_multilinestring", def: "MULTILINESTRING", edges: any[5:6]},
		{name: "c_multipolygon", def: "MULTIPOLYGON", edges: any[6:7]},
		{name: "c_collection", def: "GEOMETRYCOLLECTION", edges: any[7:8]},
	}
	if info.Flavor == server.MySQL {
		all = append(all, column{name: "c_srid", def: "GEOMETRY SRID 4326", edges: []string{srid}})
	}
	return all
}

// generatedColumns: in the row image, but not to be written; and invisible ones,
// which are to be written although SELECT * does not show them.
func generatedColumns(info server.Info) []column {
	all := []column{
		{name: "a", def: "INT", edges: []string{"1", "-5"}, random: func(r *rand.Rand) string { return strconv.Itoa(r.IntN(1000)) }},
		{name: "g_virtual", def: "INT GENERATED ALWAYS AS (a + 1) VIRTUAL", hidden: true},
		{name: "b", def: "VARCHAR(40)", edges: []string{"'x'", "'订单'"}, random: func(r *rand.Rand) string { return textLiteral(randomText(r, "gbk", r.IntN(30))) }},
		{name: "g_stored", def: "VARCHAR(60) GENERATED ALWAYS AS (CONCAT(b, '/', a)) STORED", hidden: true},
		{name: "g_first", def: "BIGINT GENERATED ALWAYS AS (a * 100000) STORED", hidden: true},
		{name: "c_invisible", def: "INT DEFAULT 5 INVISIBLE", edges: []string{"1", "DEFAULT"}, random: func(r *rand.Rand) string { return strconv.Itoa(r.IntN(1000)) }},
		{name: "c_last", def: "DOUBLE", edges: []string{"0.5"}},
	}
	if info.Flavor == server.MySQL {
		all = append(all,
			column{name: "c_expression", def: "VARCHAR(36) DEFAULT (UUID())", edges: []string{"DEFAULT", "'set'"}},
			column{name: "g_json", def: "INT GENERATED ALWAYS AS (JSON_LENGTH(doc)) VIRTUAL", hidden: true},
			column{name: "doc", def: "JSON", edges: []string{"'[1,2,3]'", "'{}'"}})
	}
	return all
}

// specialColumns exist in one family or from some version on.
func specialColumns(info server.Info) []column {
	vector := func(text string) []string {
		return []string{text + "('[0,0,0]')", text + "('[1.5,-2.25,1234567.875]')", text + "('[0.00001,0.1,-1]')"}
	}
	if info.Flavor == server.MySQL {
		if info.AtLeast(9, 0) {
			return []column{
				{name: "c_vector", def: "VECTOR(3)", edges: vector("STRING_TO_VECTOR")},
				{name: "c_vector_big", def: "VECTOR(2048)", edges: []string{"STRING_TO_VECTOR('[1]')", "STRING_TO_VECTOR('[1,2,3,4.5]')"}},
			}
		}
		return nil
	}
	all := []column{
		{name: "c_uuid", def: "UUID", edges: []string{"'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'123e4567-e89b-12d3-a456-426655440000'", "UUID()"}},
		{name: "c_inet4", def: "INET4", edges: []string{"'0.0.0.0'", "'255.255.255.255'", "'10.0.0.1'"}},
		{name: "c_inet6", def: "INET6", edges: []string{"'::'", "'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.1'"}},
	}
	if info.AtLeast(11, 7) {
		all = append(all, column{name: "c_vector", def: "VECTOR(3)", edges: vector("VEC_FromText")})
	}
	return all
}
