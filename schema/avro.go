package schema

import (
	_ "embed" // the envelope schemas
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The Avro schemas of the envelopes, as JSON: what an entry of the data topic and
// one of the schema topic is.
var (
	//go:embed avro/batch.avsc
	BatchSchema string
	//go:embed avro/table_version.avsc
	TableVersionSchema string
)

// AvroSchema is the Avro schema of the payload of the table's rows, as JSON: the
// same text for equal tables. Names are escaped with EscapeName; the originals
// are the properties "schema", "table" and "column", and "sql_type" says how to
// read the value.
func AvroSchema(t *Table) string {
	var b strings.Builder
	quote := func(s string) string {
		q, err := json.Marshal(s)
		if err != nil {
			panic(err) // a string always marshals
		}
		return string(q)
	}
	namespace := Namespace(t.Name)
	fmt.Fprintf(&b, `{"type":"record","name":"RowChange","namespace":%s,"schema":%s,"table":%s,"fingerprint":%s,"fields":[`,
		quote(namespace), quote(t.Name.Schema), quote(t.Name.Table), quote(FingerprintOf(t).String()))
	b.WriteString(`{"name":"op","type":{"type":"enum","name":"Op","symbols":["insert","update","delete"]}},`)
	b.WriteString(`{"name":"before","type":["null",{"type":"record","name":"Row","fields":[`)
	document := false
	for i := range t.Columns {
		c := &t.Columns[i]
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"name":%s,"column":%s,"sql_type":%s,"type":`, quote(EscapeName(c.Name)), quote(c.Name), quote(c.SQLType()))
		var branches []string
		if c.Nullable {
			branches = append(branches, `"null"`)
		}
		switch c.Encoding() {
		case EncodingInt:
			branches = append(branches, `"int"`)
		case EncodingLong:
			branches = append(branches, `"long"`)
		case EncodingFloat:
			branches = append(branches, `"float"`)
		case EncodingDouble:
			branches = append(branches, `"double"`)
		case EncodingString:
			branches = append(branches, `"string"`)
		case EncodingBytes:
			branches = append(branches, `"bytes"`)
		case EncodingEnum:
			branches = append(branches, `"string"`, `"int"`)
		case EncodingDocument:
			d := `"Document"`
			if !document {
				d = `{"type":"record","name":"Document","fields":[{"name":"text","type":"string"},{"name":"binary","type":"bytes"}]}`
				document = true
			}
			branches = append(branches, `"string"`, d)
		default:
			branches = append(branches, `"invalid"`) // refused by Validate; no Avro reader takes it
		}
		if len(branches) == 1 {
			b.WriteString(branches[0])
		} else {
			b.WriteString("[" + strings.Join(branches, ",") + "]")
		}
		b.WriteByte('}')
	}
	b.WriteString(`]}]},{"name":"after","type":["null","Row"]},{"name":"gtid","type":"string"},`)
	b.WriteString(`{"name":"position","type":"long"},{"name":"commit_time","type":{"type":"long","logicalType":"timestamp-micros"}},`)
	b.WriteString(`{"name":"flags","type":"int"}]}`)
	return b.String()
}

// Namespace is the Avro namespace of a table's payload schema.
func Namespace(n Name) string {
	return "twinspan." + EscapeName(n.Schema) + "." + EscapeName(n.Table)
}

// EscapeName turns any name into an Avro name, [A-Za-z_][A-Za-z0-9_]*, so that
// two names never meet and UnescapeName gives the original back. ASCII letters
// and digits stay; so does an underscore between them. Everything else becomes
// its code point in hex between double underscores: "a-b" is "a__2d__b". A digit
// in front and underscores that would read as part of an escape are escaped, too.
func EscapeName(s string) string {
	b := make([]byte, 0, len(s)+16)
	for i, r := range s {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' && i > 0
		if r == '_' {
			after := s[i+1:]
			lonely := len(b) == 0 || b[len(b)-1] != '_'
			plain = lonely && (after == "" || isLetterOrDigit(after[0]))
		}
		if plain {
			b = append(b, byte(r))
			continue
		}
		b = append(b, "__"...)
		b = strconv.AppendInt(b, int64(r), 16)
		b = append(b, "__"...)
	}
	return string(b)
}

func isLetterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// UnescapeName is the inverse of EscapeName; it refuses what EscapeName never
// writes.
func UnescapeName(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if !strings.HasPrefix(s[i:], "__") {
			b = append(b, s[i])
			i++
			continue
		}
		hex, _, found := strings.Cut(s[i+2:], "__")
		r, err := strconv.ParseUint(hex, 16, 32)
		if !found || err != nil || !utf8.ValidRune(rune(r)) {
			return "", fmt.Errorf("escaped name %q: no escape at byte %d", s, i)
		}
		b = utf8.AppendRune(b, rune(r))
		i += len(hex) + 4
	}
	if EscapeName(string(b)) != s {
		return "", fmt.Errorf("escaped name %q: not in the form this program writes", s)
	}
	return string(b), nil
}
