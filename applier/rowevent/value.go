package rowevent

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// shape is how a column's values are stored.
type shape uint8

const (
	shapeInteger shape = iota
	shapeDecimal
	shapeFloat
	shapeDouble
	shapeBit
	shapeYear
	shapeDate
	shapeTime
	shapeDateTime
	shapeTimestamp
	shapeShort // a length of one or two bytes, by the column's own
	shapeLong  // a length of as many bytes as the type has
	shapeEnum
	shapeSet
	shapeJSON
)

type column struct {
	shape     shape
	source    int
	size      int // bytes of the value, or of its length
	most      int // shapeShort, shapeLong: longest content in bytes
	text      bool
	nullable  bool
	precision int
	scale     int // of decimals and of fractions of a second
	ordinals  map[string]uint64
	srid      *uint32
	until     int64 // shapeTimestamp: the first second that is too late
}

// The servers' type codes, as a table map has them.
const (
	codeFloat      = 4
	codeDouble     = 5
	codeDate       = 10
	codeYear       = 13
	codeVarChar    = 15
	codeBit        = 16
	codeTimestamp2 = 17
	codeDateTime2  = 18
	codeTime2      = 19
	codeVector     = 242
	codeJSON       = 245
	codeDecimal    = 246
	codeEnum       = 247
	codeSet        = 248
	codeBlob       = 252
	codeString     = 254
	codeGeometry   = 255
)

var integers = map[schema.Type]struct {
	code byte
	size int
}{schema.TinyInt: {1, 1}, schema.SmallInt: {2, 2}, schema.MediumInt: {9, 3}, schema.Int: {3, 4}, schema.BigInt: {8, 8}}

var lengthBytes = map[schema.Type]int{
	schema.TinyText: 1, schema.Text: 2, schema.MediumText: 3, schema.LongText: 4,
	schema.TinyBlob: 1, schema.Blob: 2, schema.MediumBlob: 3, schema.LongBlob: 4,
}

// newColumn answers with the column, its type code, and the metadata of its type.
func newColumn(flavor server.Flavor, c Column) (w column, code byte, meta []byte, err error) {
	d := c.Target
	w = column{source: c.Source, nullable: d.Nullable, precision: d.Precision, scale: d.Scale, ordinals: c.Ordinals, srid: c.SRID, until: 1 << 31}
	if c.Far {
		w.until = 1 << 32
	}
	switch d.Type {
	case schema.TinyInt, schema.SmallInt, schema.MediumInt, schema.Int, schema.BigInt:
		w.shape, w.size, code = shapeInteger, integers[d.Type].size, integers[d.Type].code
	case schema.Decimal:
		if d.Precision < 1 || d.Precision > 65 || d.Scale < 0 || d.Scale > min(d.Precision, 38) {
			return w, 0, nil, ErrUnsupported
		}
		w.shape, code, meta = shapeDecimal, codeDecimal, []byte{byte(d.Precision), byte(d.Scale)}
	case schema.Float:
		w.shape, code, meta = shapeFloat, codeFloat, []byte{4}
	case schema.Double:
		w.shape, code, meta = shapeDouble, codeDouble, []byte{8}
	case schema.Bit:
		w.shape, w.size, code, meta = shapeBit, (d.Length+7)/8, codeBit, []byte{byte(d.Length % 8), byte(d.Length / 8)}
	case schema.Year:
		w.shape, code = shapeYear, codeYear
	case schema.Date:
		w.shape, code = shapeDate, codeDate
	case schema.Time:
		w.shape, code, meta = shapeTime, codeTime2, []byte{byte(d.Scale)}
	case schema.DateTime:
		w.shape, code, meta = shapeDateTime, codeDateTime2, []byte{byte(d.Scale)}
	case schema.Timestamp:
		w.shape, code, meta = shapeTimestamp, codeTimestamp2, []byte{byte(d.Scale)}
	case schema.Char, schema.Binary:
		if d.Length > 1023 {
			return w, 0, nil, ErrUnsupported
		}
		w.short(d)
		code, meta = codeString, []byte{codeString ^ byte(d.Length&0x300>>4), byte(d.Length)}
	case schema.VarChar, schema.VarBinary:
		w.short(d)
		code, meta = codeVarChar, binary.LittleEndian.AppendUint16(nil, uint16(d.Length))
	case schema.TinyText, schema.Text, schema.MediumText, schema.LongText, schema.TinyBlob, schema.Blob, schema.MediumBlob, schema.LongBlob:
		w.shape, w.size, w.text, code = shapeLong, lengthBytes[d.Type], d.Type.IsCharacter(), codeBlob
		meta = []byte{byte(w.size)}
	case schema.Geometry:
		w.shape, w.size, code, meta = shapeLong, 4, codeGeometry, []byte{4}
	case schema.Vector:
		if flavor == server.MariaDB {
			return w, 0, nil, ErrUnsupported
		}
		w.shape, w.size, code, meta = shapeLong, 4, codeVector, []byte{4}
	case schema.JSON:
		w.shape, w.size, code, meta = shapeJSON, 4, codeJSON, []byte{4}
	case schema.Enum:
		w.shape, w.size, code = shapeEnum, 1, codeString
		if len(d.Members) > 255 {
			w.size = 2
		}
		meta = []byte{codeEnum, byte(w.size)}
	case schema.Set:
		w.shape, w.size, code = shapeSet, (len(d.Members)+7)/8, codeString
		if w.size > 4 {
			w.size = 8
		}
		meta = []byte{codeSet, byte(w.size)}
	default:
		return w, 0, nil, ErrUnsupported
	}
	if w.shape == shapeLong {
		w.most = 1<<(8*w.size) - 1
	}
	return w, code, meta, nil
}

func (w *column) short(d *schema.Column) {
	w.shape, w.size, w.most, w.text = shapeShort, 1, d.Length, d.Type.IsCharacter()
	if d.Length > 255 {
		w.size = 2
	}
}

// image appends one row image: a bit for each column that is NULL, then the values
// of the others.
func (t *Table) image(dst []byte, image []change.Value) ([]byte, error) {
	nulls := len(dst)
	for range (len(t.columns) + 7) / 8 {
		dst = append(dst, 0)
	}
	var err error
	for i := range t.columns {
		w := &t.columns[i]
		if w.source >= len(image) {
			return dst, fmt.Errorf("table %s: image of %d values: %w", t.name, len(image), ErrValue)
		}
		v := image[w.source]
		if v.IsNull() {
			if !w.nullable {
				return dst, fmt.Errorf("table %s: column %d is NULL: %w", t.name, i, ErrValue)
			}
			dst[nulls+i/8] |= 1 << (i % 8)
			continue
		}
		if dst, err = w.append(dst, v); err != nil {
			return dst, fmt.Errorf("table %s: column %d, kind %s, %d bytes: %w", t.name, i, v.Kind(), len(v.Bytes()), err)
		}
	}
	return dst, nil
}

func (w *column) append(dst []byte, v change.Value) ([]byte, error) {
	switch w.shape {
	case shapeInteger:
		return w.appendInteger(dst, v)
	case shapeShort, shapeLong:
		b := v.Bytes()
		switch v.Kind() {
		case change.Bytes:
		case change.Text, change.Document: // a document as its text
			if !w.text {
				return dst, ErrValue
			}
		default:
			return dst, ErrValue
		}
		if len(b) > w.most || w.srid != nil && (len(b) < 4 || binary.LittleEndian.Uint32(b) != *w.srid) {
			return dst, ErrValue
		}
		return append(appendLittle(dst, uint64(len(b)), w.size), b...), nil
	case shapeFloat:
		if v.Kind() == change.Single && finite(float64(v.Single())) {
			return binary.LittleEndian.AppendUint32(dst, math.Float32bits(v.Single())), nil
		}
	case shapeDouble:
		f := v.Real()
		if v.Kind() == change.Single {
			f = float64(v.Single())
		}
		if (v.Kind() == change.Real || v.Kind() == change.Single) && finite(f) {
			return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), nil
		}
	case shapeBit:
		b := v.Bytes()
		if v.Kind() != change.Bytes {
			return dst, ErrValue
		}
		for len(b) > w.size {
			if b[0] != 0 {
				return dst, ErrValue
			}
			b = b[1:]
		}
		for range w.size - len(b) {
			dst = append(dst, 0)
		}
		return append(dst, b...), nil
	case shapeYear:
		if n := v.Integer(); v.Kind() == change.Integer && (n == 0 || n > 1900 && n < 2156) {
			return append(dst, byte(max(0, n-1900))), nil
		}
	case shapeEnum, shapeSet:
		return w.appendMembers(dst, v)
	case shapeJSON:
		return appendJSON(dst, v)
	default:
		if v.Kind() == change.Text {
			return w.appendFormatted(dst, v.Bytes())
		}
	}
	return dst, ErrValue
}

// finite: no server stores anything else.
func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// appendFormatted appends what travels as text: decimals, dates and times.
func (w *column) appendFormatted(dst, text []byte) ([]byte, error) {
	switch w.shape {
	case shapeDecimal:
		return appendDecimal(dst, text, w.precision, w.scale)
	case shapeDate:
		return appendDate(dst, text)
	case shapeTime:
		return appendTime(dst, text, w.scale)
	case shapeDateTime:
		return appendDateTime(dst, text, w.scale)
	case shapeTimestamp:
		return appendTimestamp(dst, text, w.scale, w.until)
	}
	return dst, ErrValue
}

// appendLittle appends the low bytes of a number, little-endian.
func appendLittle(dst []byte, u uint64, size int) []byte {
	for range size {
		dst = append(dst, byte(u))
		u >>= 8
	}
	return dst
}

// appendInteger takes a number, or the digits of an unsigned one. That it is
// within the column's range follows from the types, which were compared.
func (w *column) appendInteger(dst []byte, v change.Value) ([]byte, error) {
	switch v.Kind() {
	case change.Integer:
		return appendLittle(dst, uint64(v.Integer()), w.size), nil
	case change.Text:
		u, err := strconv.ParseUint(string(v.Bytes()), 10, 64)
		if err != nil || w.size < 8 && u>>(8*w.size) != 0 {
			return dst, ErrValue
		}
		return appendLittle(dst, u, w.size), nil
	}
	return dst, ErrValue
}

func (w *column) appendMembers(dst []byte, v change.Value) ([]byte, error) {
	if v.Kind() == change.Ordinal && v.Integer() == 0 && w.shape == shapeEnum {
		return appendLittle(dst, 0, w.size), nil
	}
	if v.Kind() != change.Text {
		return dst, ErrValue
	}
	if w.shape == shapeEnum {
		n, ok := w.ordinals[string(v.Bytes())]
		if !ok {
			return dst, ErrValue
		}
		return appendLittle(dst, n, w.size), nil
	}
	var all uint64
	for rest := string(v.Bytes()); rest != ""; {
		label, more, _ := strings.Cut(rest, ",")
		n, ok := w.ordinals[label]
		if !ok {
			return dst, ErrValue
		}
		all |= n
		rest = more
	}
	return appendLittle(dst, all, w.size), nil
}
