package target

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// form is how a source column's values are written for a target column.
type form uint8

const (
	formInvalid   form = iota
	formNumber         // integers, digits of unsigned BIGINT and DECIMAL
	formSingle         // FLOAT
	formReal           // DOUBLE
	formText           // character types, from UTF-8
	formEncoded        // character types, from bytes in the source column's charset
	formBinary         // binary types
	formHex            // types that read a quoted string differently from binary: UUID, INET, GEOMETRY, VECTOR
	formBits           // BIT, as a number
	formMoment         // dates and times
	formEnum           // ENUM, by the ordinal its label has on the target
	formSet            // SET, by the bits its labels have on the target
	formDocument       // JSON into JSON
	formPlainJSON      // JSON into a text column
)

// writer renders the values of one column.
type writer struct {
	form       form
	introducer string // "_gbk " before hex text
	pad        int    // formBinary, formHex: fill with zero bytes to this length
	decimals   int    // formSingle, formReal: digits the target rounds to; -1: none
	signedZero bool   // the target keeps -0.0
	ordinals   map[string]uint64
	column     string // for errors
	nullable   bool
	typ        schema.Type // the target's
}

// pair decides how values of a source column are written to a target column, or
// why they can't be without loss. Nothing is guessed: a pair not named here is
// refused.
func pair(src, dst *schema.Column, more column, info server.Info) (writer, string) {
	w := writer{column: src.Name, nullable: dst.Nullable, typ: dst.Type, decimals: -1,
		signedZero: info.Flavor == server.MySQL || info.AtLeast(11, 8)}
	if src.Nullable && !dst.Nullable {
		return w, "the source allows NULL, the target does not"
	}
	refused := fmt.Sprintf("%s can't hold every value of %s", dst.SQLType(), src.SQLType())
	switch more.dataType {
	case "uuid", "inet6", "inet4":
		// A row event carries them as raw bytes without trailing zeros, in
		// the order people write them (measured on MariaDB 10.11 and 11.8).
		n := 16
		if more.dataType == "inet4" {
			n = 4
		}
		if src.Type != schema.Binary || src.Length != n {
			return w, fmt.Sprintf("%s can't be made of %s", more.dataType, src.SQLType())
		}
		w.form, w.pad = formHex, n
		return w, ""
	case "vector":
		have, want := elements(src), elements(dst)
		if have == 0 || have > want || info.Flavor == server.MariaDB && have != want {
			return w, refused
		}
		w.form = formHex
		return w, ""
	case "xmltype":
		return w, "xmltype is not known"
	}
	switch src.Type {
	case schema.TinyInt, schema.SmallInt, schema.MediumInt, schema.Int, schema.BigInt:
		if !integerFits(src, dst) {
			return w, refused
		}
		w.form = formNumber
	case schema.Decimal:
		if dst.Type != schema.Decimal || src.Scale > dst.Scale || src.Precision-src.Scale > dst.Precision-dst.Scale || dst.Unsigned && !src.Unsigned {
			return w, refused
		}
		w.form = formNumber
	case schema.Float, schema.Double:
		if dst.Type != src.Type && !(src.Type == schema.Float && dst.Type == schema.Double) || dst.Unsigned && !src.Unsigned {
			return w, refused
		}
		w.form, w.decimals = formReal, more.scale
		if src.Type == schema.Float {
			w.form = formSingle
		}
	case schema.Bit:
		if dst.Type != schema.Bit || src.Length > dst.Length {
			return w, refused
		}
		w.form = formBits
	case schema.Year:
		if dst.Type != schema.Year {
			return w, refused
		}
		w.form = formNumber
	case schema.Date, schema.Time, schema.DateTime, schema.Timestamp:
		if dst.Type != src.Type || src.Scale > dst.Scale {
			return w, refused
		}
		w.form = formMoment
	case schema.Char, schema.VarChar, schema.TinyText, schema.Text, schema.MediumText, schema.LongText:
		return pairText(w, src, dst, refused)
	case schema.Binary, schema.VarBinary, schema.TinyBlob, schema.Blob, schema.MediumBlob, schema.LongBlob:
		if !dst.Type.IsBinary() || capacity(src) > capacity(dst) {
			return w, refused
		}
		w.form = formBinary
		if src.Type == schema.Binary {
			w.pad = src.Length
		}
		if dst.Type == schema.Binary && (src.Type != schema.Binary || src.Length != dst.Length) {
			return w, refused // it would be filled up with zero bytes
		}
	case schema.Enum, schema.Set:
		return pairMembers(w, src, dst)
	case schema.JSON:
		switch {
		case dst.Type == schema.JSON:
			w.form = formDocument
		case dst.Type == schema.LongText && schema.IsUTF8(dst.Charset) && dst.Charset == "utf8mb4":
			w.form, w.introducer = formPlainJSON, "_utf8mb4 "
		default:
			return w, refused
		}
	case schema.Geometry:
		if dst.Type != schema.Geometry || !shapeFits(src.Geometry, dst.Geometry) {
			return w, refused
		}
		w.form = formHex
	case schema.Vector:
		return w, refused
	default:
		return w, fmt.Sprintf("type %s is not known", src.Type)
	}
	return w, ""
}

// elements is a vector's length, 0 when the column can't be one.
func elements(c *schema.Column) int {
	switch c.Type {
	case schema.Vector:
		return c.Length
	case schema.VarBinary, schema.Binary: // how MariaDB's row events describe it
		if c.Length%4 == 0 {
			return c.Length / 4
		}
	}
	return 0
}

var integerBits = map[schema.Type]int{schema.TinyInt: 8, schema.SmallInt: 16, schema.MediumInt: 24, schema.Int: 32, schema.BigInt: 64}

func integerFits(src, dst *schema.Column) bool {
	have, want := integerBits[src.Type], integerBits[dst.Type]
	switch {
	case want == 0:
		return false
	case src.Unsigned == dst.Unsigned:
		return have <= want
	case src.Unsigned:
		return have < want
	}
	return false
}

// capacity in bytes of a text or binary column.
func capacity(c *schema.Column) int {
	switch c.Type {
	case schema.TinyText, schema.TinyBlob:
		return 1<<8 - 1
	case schema.Text, schema.Blob:
		return 1<<16 - 1
	case schema.MediumText, schema.MediumBlob:
		return 1<<24 - 1
	case schema.LongText, schema.LongBlob:
		return 1<<32 - 1
	}
	return c.Length
}

func pairText(w writer, src, dst *schema.Column, refused string) (writer, string) {
	if !dst.Type.IsCharacter() {
		return w, refused
	}
	from, to := charsetName(src.Charset), charsetName(dst.Charset)
	switch {
	case from == to, to == "utf8mb4", to == "utf8mb3" && from == "ascii", from == "ascii" && to == "latin1":
	default:
		return w, fmt.Sprintf("character set %s does not hold every character of %s", dst.Charset, src.Charset)
	}
	if dst.Type == schema.Char && src.Type != schema.Char {
		return w, "CHAR loses trailing spaces"
	}
	// Lengths of CHAR and VARCHAR count characters, those of TEXT bytes.
	fixed := func(c *schema.Column) bool { return c.Type == schema.Char || c.Type == schema.VarChar }
	switch {
	case fixed(src) && fixed(dst):
		if src.Length/schema.CharsetMaxLen(from) > dst.Length/schema.CharsetMaxLen(to) {
			return w, refused
		}
	case fixed(src):
		if src.Length/schema.CharsetMaxLen(from)*schema.CharsetMaxLen(to) > capacity(dst) {
			return w, refused
		}
	default:
		need := capacity(src)
		if from != to && from != "utf8mb3" && from != "ascii" && need < capacity(&schema.Column{Type: schema.LongText}) {
			need *= schema.CharsetMaxLen(to) // every byte may become a longer character
		}
		if fixed(dst) || need > capacity(dst) {
			return w, refused
		}
	}
	if schema.IsUTF8(src.Charset) {
		w.form, w.introducer = formText, "_utf8mb4 "
		if to == "utf8mb3" {
			w.introducer = "_utf8mb3 "
		}
		return w, ""
	}
	for _, b := range []byte(from) { // it becomes part of a statement
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') {
			return w, fmt.Sprintf("character set name %q", src.Charset)
		}
	}
	w.form, w.introducer = formEncoded, "_"+from+" "
	if from == "binary" || from == "" {
		return w, "text without a character set"
	}
	return w, ""
}

func charsetName(s string) string {
	if s == "utf8" {
		return "utf8mb3"
	}
	return strings.ToLower(s)
}

// pairMembers maps labels to what they are on the target, so that the order of
// the labels may differ.
func pairMembers(w writer, src, dst *schema.Column) (writer, string) {
	if dst.Type != src.Type {
		return w, fmt.Sprintf("%s can't be written to %s", src.Type, dst.Type)
	}
	w.ordinals = make(map[string]uint64, len(src.Members))
	at := make(map[string]int, len(dst.Members))
	for i, m := range dst.Members {
		if _, twice := at[m]; !twice {
			at[m] = i
		}
	}
	for n, m := range src.Members {
		if src.Type == schema.Set && m == "" {
			return w, "a SET with an empty label can't be told from an empty set"
		}
		i, ok := at[m]
		if !ok && n < len(dst.Members) && dst.Members[n] == asCatalogue(m) {
			i, ok = n, true // the same label in the same place
		}
		if !ok {
			return w, "the target has no label " + strconv.Quote(m)
		}
		if src.Type == schema.Enum {
			w.ordinals[m] = uint64(i) + 1
		} else {
			w.ordinals[m] = 1 << i
		}
	}
	w.form = formEnum
	if src.Type == schema.Set {
		w.form = formSet
	}
	return w, ""
}

// asCatalogue is a label as information_schema shows it: characters beyond the
// Basic Multilingual Plane become question marks there.
func asCatalogue(label string) string {
	return strings.Map(func(r rune) rune {
		if r > 0xffff {
			return '?'
		}
		return r
	}, label)
}

// shapeFits: a column of a general geometry takes every shape.
func shapeFits(src, dst string) bool {
	norm := func(s string) string {
		switch s = strings.ToLower(s); s {
		case "geomcollection":
			return "geometrycollection"
		case "":
			return "geometry"
		}
		return s
	}
	src, dst = norm(src), norm(dst)
	return dst == "geometry" || src == dst
}

// keyFits says why a collation makes rows equal on the target that are not equal
// on the source; such a key would lose rows.
func keyFits(src, dst *schema.Column) string {
	if !dst.Type.IsCharacter() {
		return ""
	}
	from, to := collationName(src.Collation), collationName(dst.Collation)
	finest := to == "utf8mb4_0900_bin" || strings.HasSuffix(to, "_nopad_bin")
	noPad := strings.Contains(from, "_0900_") || strings.Contains(from, "nopad_")
	switch {
	case from == to, finest, strings.HasSuffix(to, "_bin") && !noPad:
		return ""
	}
	return fmt.Sprintf("it is part of a unique key and compares by %s, the source's by %s: rows that differ there could be one here", dst.Collation, src.Collation)
}

func collationName(s string) string {
	s = strings.ToLower(s)
	if strings.HasPrefix(s, "utf8_") {
		return "utf8mb3_" + s[len("utf8_"):]
	}
	return s
}
