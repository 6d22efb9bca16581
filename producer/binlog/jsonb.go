package binlog

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/go-mysql-org/go-mysql/mysql"
)

// MySQL's binary JSON. Source: sql-common/json_binary.h of MySQL, which has
// the grammar. A document is a type byte and a value. Containers hold a count,
// their size in bytes, a table of entries and then the values, at offsets from
// the container's start. In-place updates leave holes, and values in any order,
// so nothing may be assumed of what lies between them.
const (
	jsonSmallObject = 0x00
	jsonLargeObject = 0x01
	jsonSmallArray  = 0x02
	jsonLargeArray  = 0x03
	jsonLiteral     = 0x04
	jsonInt16       = 0x05
	jsonUint16      = 0x06
	jsonInt32       = 0x07
	jsonUint32      = 0x08
	jsonInt64       = 0x09
	jsonUint64      = 0x0a
	jsonDouble      = 0x0b
	jsonString      = 0x0c
	jsonOpaque      = 0x0f
)

// jsonDepthMax is more than the 100 levels that MySQL accepts.
const jsonDepthMax = 128

// AppendJSON appends the text of a stored JSON document as MySQL prints it. It
// also tells whether the text says it all: whether a MySQL server that reads
// the text back stores the same types and numbers, bit for bit. It does not
// for
//   - opaque values: decimals, dates and times, binary strings, bits;
//   - unsigned integers below 2^32, and signed ones from 2^32 on: the parser
//     makes the former signed and the latter unsigned.
//
// Doubles are safe: their text always has a point or an exponent, so it reads
// back as a double, and MySQL 9.7's parser rounds correctly.
//
// An empty document, which the server stores for a NULL forced into a column
// that is NOT NULL, reads as the JSON null, as on the server. doc is not kept.
// It returns ErrDamaged for bytes that are not a document.
func AppendJSON(dst, doc []byte) (text []byte, exact bool, err error) {
	if len(doc) == 0 {
		return append(dst, "null"...), true, nil
	}
	// The widest growth is a control character that turns into six; shared
	// offsets in a damaged document would grow without end.
	w := jsonWriter{dst: dst, exact: true, limit: len(dst) + 8*len(doc) + 64}
	if err := w.value(doc[0], doc[1:], 0); err != nil {
		return dst, false, err
	}
	return w.dst, w.exact, nil
}

type jsonWriter struct {
	dst   []byte
	exact bool
	limit int // of len(dst)
}

func damagedJSON(format string, args ...any) error {
	return fmt.Errorf("%w: json: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

func (w *jsonWriter) value(typ byte, b []byte, depth int) error {
	if depth > jsonDepthMax {
		return damagedJSON("deeper than %d", jsonDepthMax)
	}
	if len(w.dst) > w.limit {
		return damagedJSON("values overlap")
	}
	need := func(n int) bool { return len(b) >= n }
	switch typ {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return w.container(typ, b, depth)
	case jsonLiteral:
		if !need(1) || b[0] > 2 {
			return damagedJSON("literal")
		}
		w.dst = append(w.dst, [...]string{"null", "true", "false"}[b[0]]...)
		return nil
	case jsonInt16:
		if need(2) {
			w.signed(int64(int16(binary.LittleEndian.Uint16(b))))
			return nil
		}
	case jsonInt32:
		if need(4) {
			w.signed(int64(int32(binary.LittleEndian.Uint32(b))))
			return nil
		}
	case jsonInt64:
		if need(8) {
			w.signed(int64(binary.LittleEndian.Uint64(b)))
			return nil
		}
	case jsonUint16:
		if need(2) {
			w.unsigned(uint64(binary.LittleEndian.Uint16(b)))
			return nil
		}
	case jsonUint32:
		if need(4) {
			w.unsigned(uint64(binary.LittleEndian.Uint32(b)))
			return nil
		}
	case jsonUint64:
		if need(8) {
			w.unsigned(binary.LittleEndian.Uint64(b))
			return nil
		}
	case jsonDouble:
		if need(8) {
			return w.double(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
	case jsonString:
		s, err := jsonBytes(b)
		if err != nil {
			return err
		}
		w.quoted(s)
		return nil
	case jsonOpaque:
		return w.opaque(b)
	default:
		return damagedJSON("type %#x", typ)
	}
	return damagedJSON("number cut short")
}

func (w *jsonWriter) signed(v int64) {
	w.exact = w.exact && v <= math.MaxUint32
	w.dst = strconv.AppendInt(w.dst, v, 10)
}

func (w *jsonWriter) unsigned(v uint64) {
	w.exact = w.exact && v > math.MaxUint32
	w.dst = strconv.AppendUint(w.dst, v, 10)
}

func (w *jsonWriter) double(f float64) error {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return damagedJSON("double %g", f)
	}
	w.dst = appendJSONDouble(w.dst, f)
	return nil
}

// container writes an object or an array. Its entries' offsets count from b's
// start.
func (w *jsonWriter) container(typ byte, b []byte, depth int) error {
	large := typ == jsonLargeObject || typ == jsonLargeArray
	object := typ == jsonSmallObject || typ == jsonLargeObject
	word := 2
	if large {
		word = 4
	}
	number := func(at int) int {
		if large {
			return int(binary.LittleEndian.Uint32(b[at:]))
		}
		return int(binary.LittleEndian.Uint16(b[at:]))
	}
	if len(b) < 2*word {
		return damagedJSON("container cut short")
	}
	n, size := number(0), number(word)
	if size > len(b) {
		return damagedJSON("container of %d bytes in %d", size, len(b))
	}
	b = b[:size]
	keyEntry, valueEntry := 0, 1+word
	if object {
		keyEntry = word + 2
	}
	// n is at most 2^32-1 and entries are small: no overflow in 64 bits.
	values := 2*word + n*keyEntry
	body := values + n*valueEntry
	if body > size {
		return damagedJSON("%d entries in %d bytes", n, size)
	}
	open, end := byte('['), byte(']')
	if object {
		open, end = '{', '}'
	}
	w.dst = append(w.dst, open)
	for i := range n {
		if i > 0 {
			w.dst = append(w.dst, ", "...)
		}
		if object {
			at := 2*word + i*keyEntry
			from, length := number(at), int(binary.LittleEndian.Uint16(b[at+word:]))
			if from < body || from > size || length > size-from {
				return damagedJSON("key at %d", from)
			}
			w.quoted(b[from : from+length])
			w.dst = append(w.dst, ": "...)
		}
		at := values + i*valueEntry
		t := b[at]
		if jsonInlined(t, large) {
			if err := w.value(t, b[at+1:at+valueEntry], depth+1); err != nil {
				return err
			}
			continue
		}
		from := number(at + 1)
		if from < body || from > size {
			return damagedJSON("value at %d", from)
		}
		if err := w.value(t, b[from:], depth+1); err != nil {
			return err
		}
	}
	w.dst = append(w.dst, end)
	return nil
}

// jsonInlined tells which values stand in their entry instead of an offset.
func jsonInlined(typ byte, large bool) bool {
	switch typ {
	case jsonLiteral, jsonInt16, jsonUint16:
		return true
	case jsonInt32, jsonUint32:
		return large
	}
	return false
}

// jsonBytes reads a length in base 128, low digits first, and that many bytes.
func jsonBytes(b []byte) ([]byte, error) {
	n, size := binary.Uvarint(b[:min(len(b), 5)])
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, damagedJSON("string cut short")
	}
	return b[size : size+int(n)], nil
}

const hexDigits = "0123456789abcdef"

// quoted writes a string as MySQL does: only quotes, backslashes and control
// characters are escaped.
func (w *jsonWriter) quoted(s []byte) {
	d := append(w.dst, '"')
	from := 0
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		d = append(d, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			d = append(d, '\\', c)
		case '\b':
			d = append(d, `\b`...)
		case '\f':
			d = append(d, `\f`...)
		case '\n':
			d = append(d, `\n`...)
		case '\r':
			d = append(d, `\r`...)
		case '\t':
			d = append(d, `\t`...)
		default:
			d = append(d, `\u00`...)
			d = append(d, hexDigits[c>>4], hexDigits[c&15])
		}
	}
	d = append(d, s[from:]...)
	w.dst = append(d, '"')
}

// opaque writes a value of a MySQL type that JSON does not have.
func (w *jsonWriter) opaque(b []byte) error {
	w.exact = false
	if len(b) == 0 {
		return damagedJSON("opaque value cut short")
	}
	typ := b[0]
	b, err := jsonBytes(b[1:])
	if err != nil {
		return err
	}
	switch typ {
	case mysql.MYSQL_TYPE_NEWDECIMAL:
		if len(b) < 2 || b[0] < 1 || b[0] > 65 || b[1] > b[0] {
			return damagedJSON("decimal")
		}
		w.dst, err = appendDecimal(w.dst, b[2:], int(b[0]), int(b[1]))
		return err
	case mysql.MYSQL_TYPE_TIME, mysql.MYSQL_TYPE_DATE, mysql.MYSQL_TYPE_DATETIME, mysql.MYSQL_TYPE_TIMESTAMP:
		if len(b) != 8 {
			return damagedJSON("temporal value of %d bytes", len(b))
		}
		w.dst = append(w.dst, '"')
		w.dst, err = appendJSONTemporal(w.dst, typ, int64(binary.LittleEndian.Uint64(b)))
		w.dst = append(w.dst, '"')
		return err
	}
	d := append(w.dst, `"base64:type`...)
	d = strconv.AppendUint(d, uint64(typ), 10)
	d = append(d, ':')
	// MySQL breaks base64 into lines of 76 characters, which are 57 bytes.
	for len(b) > 57 {
		d = base64.StdEncoding.AppendEncode(d, b[:57])
		d = append(d, `\n`...)
		b = b[57:]
	}
	d = base64.StdEncoding.AppendEncode(d, b)
	w.dst = append(d, '"')
	return nil
}

// appendJSONTemporal appends a date or time packed as in memory: the parts of
// a DATETIME or TIME above 24 bits of microseconds.
func appendJSONTemporal(dst []byte, typ byte, v int64) ([]byte, error) {
	negative := v < 0
	if negative {
		v = -v
	}
	micros, whole := v&(1<<24-1), v>>24
	if typ == mysql.MYSQL_TYPE_TIME {
		if negative {
			dst = append(dst, '-')
		}
		hour, minute, second := whole>>12, whole>>6&63, whole&63
		if hour < 0 || hour > 838 || minute > 59 || second > 59 || micros > 999999 {
			return dst, damagedJSON("time %#x", v)
		}
		return appendFraction(appendClock(dst, hour, minute, second), micros, 6), nil
	}
	if negative {
		return dst, damagedJSON("date %#x", v)
	}
	start := len(dst)
	dst, err := appendPackedDateTime(dst, whole, micros, 6)
	if err == nil && typ == mysql.MYSQL_TYPE_DATE {
		dst = dst[:start+dateTextMax]
	}
	return dst, err
}
