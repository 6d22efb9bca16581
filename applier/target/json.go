package target

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twinspan/twinspan/change"
)

// appendDocument writes a JSON value that the server stores with the same types
// as the source did. Text alone would lose some: a DECIMAL, a date, bytes, an
// integer's sign. What text keeps is written as text; the rest is built from
// the inside with typed expressions.
func (w *writer) appendDocument(dst []byte, v change.Value) ([]byte, error) {
	if v.Kind() == change.Text || v.Binary() == nil {
		return append(appendText(append(dst, "CAST("...), "_utf8mb4 ", v.Bytes()), " AS JSON)"...), nil
	}
	doc, err := parseJSON(v.Binary())
	if err != nil {
		return dst, w.fault(v, err.Error())
	}
	if doc.textual() || doc.kind <= kindTrue {
		return doc.appendCast(dst)
	}
	if doc.kind == kindArray || doc.kind == kindObject {
		dst, err = doc.appendTyped(dst)
	} else {
		dst, err = doc.appendTyped(append(dst, "CAST("...))
		dst = append(dst, " AS JSON)"...)
	}
	if err != nil {
		return dst, w.fault(v, err.Error())
	}
	return dst, nil
}

// textual: parsing the value's text gives the same types back. Measured on MySQL
// 9.7: an integer above 32 bits reads as unsigned, one below as signed.
func (v *jsonValue) textual() bool {
	switch v.kind {
	case kindInt:
		return int64(v.number) <= math.MaxUint32
	case kindUint:
		return v.number > math.MaxUint32
	case kindOpaque:
		return false
	case kindArray, kindObject:
		for i := range v.items {
			if !v.items[i].textual() {
				return false
			}
		}
	}
	return true
}

func (v *jsonValue) appendCast(dst []byte) ([]byte, error) {
	text, err := v.appendJSON(nil)
	if err != nil {
		return dst, err
	}
	return append(appendText(append(dst, "CAST("...), "_utf8mb4 ", text), " AS JSON)"...), nil
}

// appendTyped writes an SQL expression: a scalar of the right type, or a JSON
// value for containers.
func (v *jsonValue) appendTyped(dst []byte) ([]byte, error) {
	var err error
	switch v.kind {
	case kindNull:
		return append(dst, "NULL"...), nil
	case kindFalse:
		return append(dst, "false"...), nil
	case kindTrue:
		return append(dst, "true"...), nil
	case kindInt:
		if int64(v.number) == math.MinInt64 {
			return append(dst, "CAST(-9223372036854775808 AS SIGNED)"...), nil
		}
		return strconv.AppendInt(dst, int64(v.number), 10), nil
	case kindUint:
		return append(strconv.AppendUint(append(dst, "CAST("...), v.number, 10), " AS UNSIGNED)"...), nil
	case kindDouble:
		f := math.Float64frombits(v.number)
		if f == 0 && math.Signbit(f) {
			return append(dst, "-0e0"...), nil
		}
		return strconv.AppendFloat(dst, f, 'e', -1, 64), nil
	case kindString:
		if !utf8.Valid(v.data) {
			return dst, fmt.Errorf("%w: string is not UTF-8", errJSON)
		}
		return appendText(dst, "_utf8mb4 ", v.data), nil
	case kindOpaque:
		return v.appendOpaque(dst)
	}
	if v.textual() {
		return v.appendCast(dst)
	}
	if v.kind == kindArray {
		dst = append(dst, "JSON_ARRAY("...)
	} else {
		dst = append(dst, "JSON_OBJECT("...)
	}
	for i := range v.items {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v.kind == kindObject {
			if !utf8.Valid(v.keys[i]) {
				return dst, fmt.Errorf("%w: key is not UTF-8", errJSON)
			}
			dst = append(appendText(dst, "_utf8mb4 ", v.keys[i]), ',')
		}
		if dst, err = v.items[i].appendTyped(dst); err != nil {
			return dst, err
		}
	}
	return append(dst, ')'), nil
}

// Field types of opaque values (enum_field_types of the MySQL source).
const (
	fieldTimestamp  = 7
	fieldDate       = 10
	fieldTime       = 11
	fieldDateTime   = 12
	fieldVarChar    = 15
	fieldBit        = 16
	fieldNewDecimal = 246
	fieldMediumBlob = 250
	fieldLongBlob   = 251
	fieldBlob       = 252
	fieldString     = 254
)

// appendOpaque writes an expression of the field type that the server stored.
func (v *jsonValue) appendOpaque(dst []byte) ([]byte, error) {
	switch v.field {
	case fieldNewDecimal:
		d, err := decodeDecimal(v.data)
		if err != nil {
			return dst, err
		}
		return d.appendTyped(dst), nil
	case fieldDate, fieldTime, fieldDateTime, fieldTimestamp:
		text, err := momentText(v.field, v.data)
		if err != nil {
			return dst, err
		}
		switch v.field {
		case fieldDate:
			return append(append(append(dst, "CAST('"...), text...), "' AS DATE)"...), nil
		case fieldTime:
			return append(append(append(dst, "CAST('"...), text...), "' AS TIME(6))"...), nil
		case fieldDateTime:
			return append(append(append(dst, "CAST('"...), text...), "' AS DATETIME(6))"...), nil
		}
		return append(append(append(dst, `(SELECT v FROM JSON_TABLE('"`...), text...),
			`"','$' COLUMNS(v TIMESTAMP(6) PATH '$' ERROR ON EMPTY ERROR ON ERROR)) AS j)`...), nil
	case fieldVarChar:
		return appendHex(dst, v.data, 0), nil
	case fieldMediumBlob:
		return append(appendHex(append(dst, "IF(0,CAST('' AS BINARY(65536)),"...), v.data, 0), ')'), nil
	case fieldLongBlob:
		return append(appendHex(append(dst, "IF(0,ST_AsBinary(POINT(0,0)),"...), v.data, 0), ')'), nil
	case fieldBlob, fieldString:
		typ := "LONGBLOB"
		if v.field == fieldString {
			if len(v.data) == 0 || len(v.data) > 255 {
				return dst, fmt.Errorf("JSON holds BINARY of %d bytes", len(v.data))
			}
			typ = "BINARY(" + strconv.Itoa(len(v.data)) + ")"
		}
		dst = appendHex(append(dst, "(SELECT v FROM JSON_TABLE(JSON_ARRAY("...), v.data, 0)
		return append(append(append(dst, "),'$[0]' COLUMNS(v "...), typ...), " PATH '$' ERROR ON EMPTY ERROR ON ERROR)) AS j)"...), nil
	case fieldBit:
		if len(v.data) == 0 || len(v.data) > 8 {
			return dst, fmt.Errorf("JSON holds BIT of %d bytes", len(v.data))
		}
		var n uint64
		for _, b := range v.data {
			n = n<<8 | uint64(b)
		}
		dst = strconv.AppendUint(append(dst, "(SELECT v FROM JSON_TABLE('"...), n, 10)
		dst = strconv.AppendInt(append(dst, "','$' COLUMNS(v BIT("...), int64(8*len(v.data)), 10)
		return append(dst, ") PATH '$' ERROR ON EMPTY ERROR ON ERROR)) AS j)"...), nil
	}
	return dst, fmt.Errorf("JSON holds a value of field type %d, which no expression makes", v.field)
}

// momentText reads the server's packed 8-byte time. Source: my_time.h and
// TIME_from_longlong_packed in the MySQL source.
func momentText(field byte, b []byte) (string, error) {
	if len(b) != 8 {
		return "", fmt.Errorf("%w: time of %d bytes", errJSON, len(b))
	}
	n := int64(binary.LittleEndian.Uint64(b))
	sign := ""
	if n < 0 {
		if n = -n; n < 0 || field != fieldTime {
			return "", fmt.Errorf("%w: negative date", errJSON)
		}
		sign = "-"
	}
	micros, n := n&(1<<24-1), n>>24
	second, minute := n&63, n>>6&63
	if field == fieldTime {
		hour := n >> 12 & 1023
		return fmt.Sprintf("%s%02d:%02d:%02d.%06d", sign, hour, minute, second, micros), nil
	}
	hour, days := n>>12&31, n>>17
	day, months := days&31, days>>5
	year, month := months/13, months%13
	if year > 9999 {
		return "", fmt.Errorf("%w: year %d", errJSON, year)
	}
	date := fmt.Sprintf("%04d-%02d-%02d", year, month, day)
	if field == fieldDate {
		return date, nil
	}
	return fmt.Sprintf("%s %02d:%02d:%02d.%06d", date, hour, minute, second, micros), nil
}

// decimalBytes is how many bytes so many digits take in the packed form.
var decimalBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

// decimal is a JSON decimal: its digits, and the precision and scale that the
// server stored with it.
type decimal struct {
	digits           string // -?[0-9]+(\.[0-9]+)?
	significant      int    // digits before the point without leading zeros
	precision, scale int
}

// appendTyped writes an expression that is stored with the same precision. The
// value is the same in any case; the precision only shows in the stored bytes.
// Measured on MySQL 9.7: a literal has the digits it shows, CAST rounds the
// digits before the point up to a multiple of nine, and a column has its own
// number less leading groups of zeros.
func (d decimal) appendTyped(dst []byte) []byte {
	want := d.precision - d.scale
	nines := 9 * max(1, (d.significant+8)/9)
	leading := want % 9
	if leading == 0 {
		leading = min(want, 9)
	}
	switch {
	case want == max(d.significant, 1):
		return append(dst, d.digits...)
	case want == nines:
		return fmt.Appendf(dst, "CAST(%s AS DECIMAL(65,%d))", d.digits, d.scale)
	case d.precision <= 65 && d.significant <= want && (d.significant > want-leading || want == 0):
		return fmt.Appendf(dst, "(SELECT v FROM JSON_TABLE('\"%s\"','$' COLUMNS(v DECIMAL(%d,%d) PATH '$' ERROR ON EMPTY ERROR ON ERROR)) AS j)",
			d.digits, d.precision, d.scale)
	}
	return append(dst, d.digits...)
}

// precisionMax: nine groups of nine digits.
const precisionMax = 81

// decodeDecimal reads precision, scale, and the server's packed decimal. Source:
// decimal2bin in strings/decimal.cc of the MySQL source.
func decodeDecimal(b []byte) (decimal, error) {
	if len(b) < 2 {
		return decimal{}, fmt.Errorf("%w: decimal cut short", errJSON)
	}
	precision, scale := int(b[0]), int(b[1])
	if precision == 0 || precision > precisionMax || scale > 30 || scale > precision {
		return decimal{}, fmt.Errorf("%w: decimal(%d,%d)", errJSON, precision, scale)
	}
	whole := precision - scale
	need := whole/9*4 + decimalBytes[whole%9] + scale/9*4 + decimalBytes[scale%9]
	if len(b) != 2+need {
		return decimal{}, fmt.Errorf("%w: decimal(%d,%d) of %d bytes", errJSON, precision, scale, len(b)-2)
	}
	raw := append([]byte(nil), b[2:]...)
	negative := raw[0]&0x80 == 0
	raw[0] ^= 0x80
	if negative {
		for i := range raw {
			raw[i] ^= 0xff
		}
	}
	var s strings.Builder
	group := func(n int) bool {
		size := decimalBytes[n]
		var x uint32
		for _, c := range raw[:size] {
			x = x<<8 | uint32(c)
		}
		raw = raw[size:]
		t := strconv.FormatUint(uint64(x), 10)
		if len(t) > n {
			return false
		}
		s.WriteString(strings.Repeat("0", n-len(t)) + t)
		return true
	}
	good := true
	if whole%9 > 0 {
		good = group(whole % 9)
	}
	for i := 0; i < whole/9 && good; i++ {
		good = group(9)
	}
	integer := strings.TrimLeft(s.String(), "0")
	d := decimal{significant: len(integer), precision: precision, scale: scale}
	s.Reset()
	for i := 0; i < scale/9 && good; i++ {
		good = group(9)
	}
	if scale%9 > 0 && good {
		good = group(scale % 9)
	}
	if !good {
		return decimal{}, fmt.Errorf("%w: decimal digits", errJSON)
	}
	if integer == "" {
		integer = "0"
	}
	if negative {
		d.digits = "-"
	}
	d.digits += integer
	if scale > 0 {
		d.digits += "." + s.String()
	}
	return d, nil
}

// appendJSON writes the value as JSON text; only for textual values.
func (v *jsonValue) appendJSON(dst []byte) ([]byte, error) {
	var err error
	switch v.kind {
	case kindNull:
		return append(dst, "null"...), nil
	case kindFalse:
		return append(dst, "false"...), nil
	case kindTrue:
		return append(dst, "true"...), nil
	case kindInt:
		return strconv.AppendInt(dst, int64(v.number), 10), nil
	case kindUint:
		return strconv.AppendUint(dst, v.number, 10), nil
	case kindDouble: // the exponent keeps it a double
		f := math.Float64frombits(v.number)
		if f == 0 && math.Signbit(f) {
			return append(dst, "-0.0"...), nil
		}
		return strconv.AppendFloat(dst, f, 'e', -1, 64), nil
	case kindString:
		return appendJSONString(dst, v.data)
	case kindArray:
		dst = append(dst, '[')
		for i := range v.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = v.items[i].appendJSON(dst); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case kindObject:
		dst = append(dst, '{')
		for i := range v.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendJSONString(dst, v.keys[i]); err != nil {
				return dst, err
			}
			if dst, err = v.items[i].appendJSON(append(dst, ':')); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	}
	return dst, fmt.Errorf("%w: kind %d has no text", errJSON, v.kind)
}

func appendJSONString(dst, s []byte) ([]byte, error) {
	if !utf8.Valid(s) {
		return dst, fmt.Errorf("%w: string is not UTF-8", errJSON)
	}
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"'), nil
}
