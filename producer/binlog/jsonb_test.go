package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestJSONExact checks AppendJSON's promise on a server: where it calls the
// text exact, the text stores the same bytes again; where it does not, the
// text must at least not store the same bytes (or else it is overcautious).
func TestJSONExact(t *testing.T) {
	s, db := mysqltest.Shared(t, mysqltest.MySQL97)
	cols := collationsOf(t, s)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	values := []string{
		"5", "-5", "4294967295", "4294967296", "-4294967296", "9223372036854775807", "CAST(5 AS UNSIGNED)", "CAST(4294967295 AS UNSIGNED)",
		"CAST(4294967296 AS UNSIGNED)", "18446744073709551615", "CAST(1.5 AS DECIMAL(3,1))", "CAST('2020-01-01' AS DATE)", "x'00'", "true", "NULL", "'text'",
		"0e0", "-0e0", "1e0", "1e308", "5e-324", "1.7976931348623157e308", "2.2250738585072014e-308", "2.225073858507201e-308",
	}
	for range 6000 {
		var f float64
		switch r.IntN(5) {
		case 0: // any bits
			f = math.Float64frombits(r.Uint64())
		case 1: // a usual magnitude
			f = r.NormFloat64() * math.Pow(10, float64(r.IntN(20)-8))
		case 2: // few digits
			f, _ = strconv.ParseFloat(strconv.FormatFloat(r.Float64()*1000, 'f', r.IntN(9), 64), 64)
		case 3: // a coordinate
			f = r.Float64()*360 - 180
		case 4:
			f = math.Floor(r.Float64() * math.Pow(10, float64(r.IntN(25))))
		}
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			values = append(values, strconv.FormatFloat(f, 'e', -1, 64))
		}
	}
	statements := []string{"CREATE TABLE a (id INT AUTO_INCREMENT PRIMARY KEY, j JSON)"}
	for len(values) > 0 {
		n := min(500, len(values))
		list := make([]string, n)
		for i, v := range values[:n] {
			list[i] = "(JSON_ARRAY(" + v + "))"
		}
		values = values[n:]
		statements = append(statements, "INSERT INTO a (j) VALUES "+strings.Join(list, ","))
	}
	first := jsonDocuments(t, capture(t, s, db, statements...))
	_, got := decodeAll(t, cols, capture(t, s, db, "CREATE TABLE b LIKE a", "INSERT INTO b SELECT id, CAST(j AS CHAR) FROM a"))
	texts := s.Query(t, "SELECT CAST(j AS CHAR) FROM "+db+".a ORDER BY id")
	events := capture(t, s, db, "TRUNCATE b", "INSERT INTO b SELECT id, CAST(j AS CHAR) FROM a")
	second := jsonDocuments(t, events)
	if len(first) != len(second) || len(first) != len(texts) || len(first) != len(got[change.Insert]) {
		t.Fatalf("%d documents, %d read back, %d texts", len(first), len(second), len(texts))
	}
	inexact := 0
	for i, doc := range first {
		text, exact, err := AppendJSON(nil, doc)
		if err != nil {
			t.Fatal(err)
		}
		if string(text) != texts[i][0] {
			t.Errorf("%x: text %s, the server prints %s", doc, text, texts[i][0])
		}
		if same := string(doc) == string(second[i]); same != exact {
			t.Errorf("%s: exact is %t, but reading it back gives the same bytes: %t (%x, %x)", text, exact, same, doc, second[i])
		}
		if !exact {
			inexact++
		}
	}
	t.Logf("%d documents, %d of which need their stored form", len(first), inexact)
}

// jsonDocuments are the stored forms of the JSON columns of inserts into tables
// of an INT and a JSON.
func jsonDocuments(t *testing.T, events []rowsEvent) [][]byte {
	t.Helper()
	var out [][]byte
	for _, e := range events {
		if len(e.table.ColumnType) != 2 {
			t.Fatal("not the expected table")
		}
		b := e.body[rowsHeaderSize+2+1+1:] // no extra row information, one byte each of width and bitmap
		for len(b) > 0 {
			n := int(binary.LittleEndian.Uint32(b[5:]))
			out = append(out, b[9:9+n])
			b = b[9+n:]
		}
	}
	return out
}

func TestAppendJSONDamaged(t *testing.T) {
	array := func(entries ...byte) []byte { // a small array of raw entries
		n := len(entries) / 3
		size := 4 + len(entries)
		return append([]byte{jsonSmallArray, byte(n), byte(n >> 8), byte(size), byte(size >> 8)}, entries...)
	}
	deep := []byte{jsonInt16, 0, 0}
	for range 300 {
		size := 4 + 3 + len(deep) - 1
		deep = append([]byte{jsonSmallArray, 1, 0, byte(size), byte(size >> 8), deep[0], 7, 0}, deep[1:]...)
	}
	// Each level's two elements are the same next level: 2^60 leaves.
	bomb := []byte{jsonString, 1, 'x'}
	for range 60 {
		size := 4 + 6 + len(bomb) - 1
		bomb = append([]byte{jsonSmallArray, 2, 0, byte(size), byte(size >> 8), bomb[0], 10, 0, bomb[0], 10, 0}, bomb[1:]...)
	}
	for name, doc := range map[string][]byte{
		"unknown type":           {0x0d, 0, 0},
		"no literal":             {jsonLiteral},
		"bad literal":            {jsonLiteral, 3},
		"short double":           {jsonDouble, 1, 2, 3},
		"infinity":               {jsonDouble, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f},
		"long string":            {jsonString, 200, 'a'},
		"endless length":         {jsonString, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"size beyond the end":    {jsonSmallArray, 0, 0, 200, 0},
		"more entries than size": {jsonSmallArray, 100, 0, 4, 0},
		"offset into the header": array(jsonString, 1, 0),
		"offset beyond the end":  array(jsonString, 200, 0),
		"huge object":            {jsonLargeObject, 0xff, 0xff, 0xff, 0xff, 13, 0, 0, 0, 1, 2, 3, 4, 5},
		"empty opaque":           {jsonOpaque},
		"bad decimal":            {jsonOpaque, 246, 3, 200, 1, 2},
		"short time":             {jsonOpaque, 11, 3, 1, 2, 3},
		"too deep":               deep,
		"overlapping":            bomb,
	} {
		if text, _, err := AppendJSON(nil, doc); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %s, %v, want ErrDamaged", name, text, err)
		}
	}
}

func TestAppendJSONKeepsWhatWasThere(t *testing.T) {
	for _, doc := range [][]byte{nil, {jsonLiteral, 1}, {0xee}} {
		text, _, _ := AppendJSON([]byte("before "), doc)
		if !strings.HasPrefix(string(text), "before ") {
			t.Errorf("%x: %s", doc, text)
		}
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add([]byte{jsonSmallArray, 1, 0, 7, 0, jsonInt16, 1, 0})
	f.Add([]byte{jsonSmallObject, 1, 0, 14, 0, 11, 0, 1, 0, jsonString, 12, 0, 'a', 1, 'b'})
	f.Add([]byte{jsonOpaque, 246, 4, 3, 2, 0x81, 0x32})
	f.Add([]byte{jsonDouble, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, doc []byte) {
		text, _, err := AppendJSON(nil, doc)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		if len(text) > 16*len(doc)+1000 {
			t.Fatalf("%d bytes of text from %d", len(text), len(doc))
		}
	})
}

func ExampleAppendJSON() {
	text, exact, err := AppendJSON(nil, []byte{jsonSmallArray, 2, 0, 10, 0, jsonInt16, 1, 0, jsonLiteral, 1, 0})
	fmt.Println(string(text), exact, err)
	// Output: [1, true] true <nil>
}
