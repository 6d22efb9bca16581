package target

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// documents are SQL expressions whose JSON loses something in its text.
var documents = []string{
	`'{"a": [1, 2.5, "x", null, true, {"b": -1}]}'`,
	`JSON_ARRAY(1.50, -0.5, 0.10, CAST('0.500' AS DECIMAL(10,3)), 99999999999999999999999999999999999.999999999999999999999999999999, 0.0, 12345678901234567890)`,
	`JSON_OBJECT('d', CAST('2020-02-29' AS DATE), 't', CAST('-838:59:58.000001' AS TIME(6)), 'dt', CAST('2020-02-29 12:34:56.789' AS DATETIME(6)), 'z', CAST('00:00:00' AS TIME))`,
	`JSON_ARRAY(CAST('0000-00-00' AS DATE), CAST('9999-12-31 23:59:59.999999' AS DATETIME(6)))`,
	`JSON_ARRAY(x'00ff275c', x'', REPEAT(x'ff', 1000), b'101')`,
	`JSON_ARRAY(1, 4294967295, 4294967296, 9223372036854775807, -9223372036854775808, 18446744073709551615, CAST(1 AS UNSIGNED), CAST(4294967296 AS UNSIGNED), -32769, 70000)`,
	`JSON_ARRAY(1e0, 0e0, -0e0, 1.7976931348623157e308, 5e-324, 0.1e0, 123456789012345678e0)`,
	`JSON_OBJECT('', 1.0, 'it''s', JSON_OBJECT('\\', JSON_ARRAY('"', '\n', '日本🚲', CONCAT('a', x'00'))), 'k', NULL, 'b', true)`,
	`CAST(1.25 AS JSON)`, `CAST(CAST('2020-01-01' AS DATE) AS JSON)`, `CAST(x'00ff' AS JSON)`, `CAST(CAST(5 AS UNSIGNED) AS JSON)`, `CAST(1e0 AS JSON)`, `'"text"'`, `'null'`, `'true'`, `'{}'`, `'[]'`, `'-1'`,
	`(SELECT JSON_ARRAY(bi, bl, me, lo, fi, ts) FROM opaque)`,
	`(SELECT JSON_ARRAY(a, b, c, d, e, f, g, a + 0.0, b * 1.5) FROM decimals)`,
	`JSON_ARRAY(JSON_ARRAY(JSON_ARRAY(JSON_ARRAY(1.1))), REPEAT('x', 70000), 2.5)`,
	`(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT JSON_ARRAYAGG(JSON_OBJECT('i', i, 'd', i / 8)) FROM n)`,
	// What the text keeps, on both sides of where the stored form changes.
	`JSON_ARRAY(32767, 32768, -32768, -32769, 65535, 65536, 2147483647, 2147483648, -2147483648, -2147483649, 4294967295, 4294967296, 18446744073709551615, -9223372036854775808)`,
	`JSON_OBJECT('bb', 1, 'a', 2, 'é', JSON_ARRAY(true, false, NULL), '', JSON_OBJECT(), 'ab', JSON_ARRAY(), 'k', 1e300, 'm', -0e0)`,
	`JSON_ARRAY(REPEAT('x', 127), REPEAT('x', 128), REPEAT('x', 16383), REPEAT('x', 16384), REPEAT('"', 200), '\t\b\f\r\n\\/')`,
	`JSON_ARRAY(REPEAT('x', 65518))`, `JSON_ARRAY(REPEAT('x', 65524))`, `JSON_ARRAY(REPEAT('x', 65525))`, `JSON_ARRAY(REPEAT('x', 65526))`, `JSON_ARRAY(70000, REPEAT('x', 65530))`,
	`JSON_OBJECT('a', JSON_OBJECT('b', REPEAT('x', 65500)), 'c', 70000)`, `JSON_OBJECT('a', JSON_OBJECT('b', REPEAT('x', 65520)), 'c', 70000)`,
	`JSON_OBJECT('a', JSON_OBJECT('b', REPEAT('x', 65535), 'c', JSON_ARRAY(1, 70000, 5000000000)), 'd', JSON_ARRAY(70000))`,
	`JSON_OBJECT(REPEAT('k', 65535), REPEAT('k', 10))`,
	`(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) SELECT JSON_OBJECTAGG(CONCAT('key', i), i * 40000) FROM n)`,
	`CONCAT(REPEAT('[', 100), REPEAT(']', 100))`,
	`JSON_REMOVE(JSON_OBJECT('a', REPEAT('x', 70000), 'b', 1), '$.a')`,
}

// TestJSONBitForBit takes the binary form of each document from the server's own
// row image, writes it in SQL and as a row event, and compares the images. The log
// keeps the text alone where it says it all.
func TestJSONBitForBit(t *testing.T) {
	b := newBench(t, mysqltest.MySQL97)
	b.exec("FLUSH BINARY LOGS", "CREATE TABLE decimals (a DECIMAL(10,3), b DECIMAL(20,3), c DECIMAL(3,2), d DECIMAL(65,30), e DECIMAL(9,0), f DECIMAL(65,0), g DECIMAL(30,30))",
		"INSERT INTO decimals VALUES (0.5, 12345.5, -1.5, 1.5, 7, -99999999999999999999999999999999999999999999999999999999999999999, 0.000000000000000000000000000001)",
		"CREATE TABLE opaque (bi BIT(9), bl BLOB, me MEDIUMBLOB, lo LONGBLOB, fi BINARY(4), ts TIMESTAMP(6) NULL)",
		"INSERT INTO opaque VALUES (257, x'00ff', x'00ff', x'00ff', x'00ff', '2020-01-01 00:00:00.5')")
	for n, d := range documents {
		if testing.Short() && n > 17 && n%3 > 0 {
			continue
		}
		b.exec("CREATE TABLE js (id INT PRIMARY KEY, v JSON)", "CREATE TABLE jd LIKE js", "CREATE TABLE je LIKE js", "CREATE TABLE jn (id INT, v JSON)",
			"FLUSH BINARY LOGS", "INSERT INTO js VALUES (1, "+d+")")
		logged := b.loggedRows("js")
		if len(logged) < 9 {
			t.Fatalf("%s: row image %x", d, logged)
		}
		size := binary.LittleEndian.Uint32(logged[5:])
		stored := logged[9 : 9+size]
		text := []byte(b.rows("SELECT v FROM js")[0])
		p, m := b.plan("js", "jd"), b.plan("js", "jn")
		row := image(1, change.DocumentOf(text, stored))
		b.mustApply(p, p.insert(row...))
		if got := b.loggedRows("jd"); !bytes.Equal(got, logged) {
			t.Errorf("document %d %s\nsource %.300s\ntarget %.300s", n, d, hex.EncodeToString(logged), hex.EncodeToString(got))
		}
		e, forms := b.plan("js", "je"), [][]byte{stored}
		if doc, err := parseJSON(stored); err != nil {
			t.Fatal(err)
		} else if doc.textual() {
			forms = append(forms, nil)
		}
		b.events = true
		for k, f := range forms {
			v := change.DocumentOf(text, f)
			b.mustApply(e, e.insert(image(1+k, v)...))
			b.mustApply(e, e.update(image(1+k, v), image(101+k, v)))
			b.want(fmt.Sprintf("SELECT e.v = s.v AND JSON_STORAGE_SIZE(e.v) = JSON_STORAGE_SIZE(s.v) AND SHA2(e.v, 256) = SHA2(s.v, 256) FROM js s, je e WHERE e.id = %d", 101+k), "1")
			b.mustApply(e, e.remove(image(101+k, v)...))
		}
		b.events = false
		b.want("SELECT COUNT(*) FROM je", "0")
		for _, got := range splitImages(b.loggedRows("je"), len(forms)) {
			if !bytes.Equal(got[5:], logged[5:]) {
				t.Errorf("document %d %s\nsource  %.300s\nevent's %.300s", n, d, hex.EncodeToString(logged), hex.EncodeToString(got))
			}
		}
		b.mustApply(m, m.insert(row...))
		b.mustApply(m, m.update(row, image(2, change.DocumentOf(text, stored))))
		b.mustApply(m, m.remove(image(2, change.DocumentOf(text, stored))...))
		b.want("SELECT COUNT(*) FROM jn", "0")
		b.exec("DROP TABLE js, jd, jn, je")
	}
}

// splitImages cuts n images of the same length.
func splitImages(b []byte, n int) (out [][]byte) {
	for i := range n {
		out = append(out, b[i*len(b)/n:(i+1)*len(b)/n])
	}
	return out
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{"00010008000b0001000501006a", "0c0474657874", "0405", "020000000400", "0ff605010180", "0502ff"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseJSON(b)
		if err != nil {
			return
		}
		w := writer{form: formDocument, column: "c"}
		out, err := w.append(nil, change.DocumentOf(nil, b))
		if err == nil && len(b) > 0 {
			checkLiteral(t, out)
		}
		_ = v.textual()
	})
}

// checkLiteral: quotes pair up and hold nothing but what is safe in them.
func checkLiteral(t *testing.T, sql []byte) {
	t.Helper()
	quoted := false
	for _, c := range sql {
		if c == '\'' {
			quoted = !quoted
		} else if c < ' ' || c > '~' || c == '\\' {
			t.Fatalf("byte %#x in %q", c, sql)
		}
	}
	if quoted {
		t.Fatalf("open quote in %q", sql)
	}
}

// FuzzRender: whatever a value holds, its literal stays one literal.
func FuzzRender(f *testing.F) {
	f.Add([]byte("it's"), uint8(4), uint8(0))
	f.Add([]byte("1; DROP TABLE x"), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, form, kind uint8) {
		w := writer{form: 1 + mode2form(form), introducer: "_utf8mb4 ", column: "c", decimals: -1, nullable: true, pad: int(kind % 20),
			ordinals: map[string]uint64{"a": 1, string(b): 2}}
		var v change.Value
		switch kind % 5 {
		case 0:
			v = change.TextOf(b)
		case 1:
			v = change.BytesOf(b)
		case 2:
			v = change.DocumentOf(b, nil)
		case 3:
			v = change.DocumentOf(nil, b)
		case 4:
			v = change.OrdinalOf(int64(len(b)))
		}
		out, err := w.append(nil, v)
		if err != nil {
			return
		}
		checkLiteral(t, out)
	})
}

func mode2form(n uint8) form { return form(n % uint8(formPlainJSON)) }
