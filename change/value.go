package change

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// Kind is the shape of a value. It follows the Avro type that the column's type
// maps to (see Encoding), not the SQL type.
type Kind uint8

// The kinds of values.
const (
	Null    Kind = iota
	Integer      // Avro int or long: TinyInt to Int, signed BigInt, Year
	Single       // Avro float
	Real         // Avro double
	// Text is UTF-8 in Avro's string: utf8mb4, utf8mb3 and ascii columns,
	// Decimal and unsigned BigInt (digits), dates and times (the server's own
	// text with the column's fractional digits; Timestamp in UTC), Enum by
	// label, Set as labels joined with commas.
	Text
	// Bytes are raw: binary types, Bit (big-endian, (n+7)/8 bytes), Geometry
	// (SRID and WKB as stored), Vector (little-endian float32), and text in
	// any other charset (in that charset).
	Bytes
	// Document is MySQL's JSON: text, plus the stored binary form where the
	// text alone would lose types (decimals, dates, opaque values).
	Document
	// Ordinal is an Enum's number where it has no label: 0, the error value.
	Ordinal
)

// Value is one column's value: a small tagged union that does not allocate. The
// zero Value is Null. Thousands of rows of them wait in memory, so it is kept to three
// words, one of them a pointer: a slice would make it five.
type Value struct {
	data *byte  // the first of size bytes; nil: none
	num  uint64 // the number, or the length of a Document's text
	size uint32
	kind Kind
}

// raw are all bytes of a value.
func (v Value) raw() []byte { return unsafe.Slice(v.data, v.size) }

// over is a value of bytes, which are kept. No server has longer ones than 4 GiB.
func over(kind Kind, num uint64, b []byte) Value {
	return Value{data: unsafe.SliceData(b), num: num, size: uint32(len(b)), kind: kind}
}

// Constructors. Byte slices are kept, not copied.

// IntegerOf makes an Integer.
func IntegerOf(v int64) Value { return Value{kind: Integer, num: uint64(v)} }

// SingleOf makes a Single.
func SingleOf(v float32) Value { return Value{kind: Single, num: uint64(math.Float32bits(v))} }

// RealOf makes a Real.
func RealOf(v float64) Value { return Value{kind: Real, num: math.Float64bits(v)} }

// TextOf makes a Text.
func TextOf(b []byte) Value { return over(Text, 0, b) }

// BytesOf makes a Bytes.
func BytesOf(b []byte) Value { return over(Bytes, 0, b) }

// OrdinalOf makes an Ordinal.
func OrdinalOf(v int64) Value { return Value{kind: Ordinal, num: uint64(v)} }

// DocumentOf makes a Document; binary is nil where text says it all.
func DocumentOf(text, bin []byte) Value {
	if bin == nil {
		return over(Document, uint64(len(text)), text)
	}
	d := make([]byte, 0, len(text)+len(bin))
	d = append(append(d, text...), bin...)
	return over(Document, uint64(len(text)), d)
}

// DocumentJoined makes a Document of text and binary that already lie behind
// each other: the first textLen bytes of data are the text. It keeps data.
func DocumentJoined(data []byte, textLen int) Value {
	return over(Document, uint64(textLen), data)
}

// Kind tells the shape.
func (v Value) Kind() Kind { return v.kind }

// IsNull is Kind() == Null.
func (v Value) IsNull() bool { return v.kind == Null }

// Integer is the number of an Integer or Ordinal.
func (v Value) Integer() int64 { return int64(v.num) }

// Single is the number of a Single.
func (v Value) Single() float32 { return math.Float32frombits(uint32(v.num)) }

// Real is the number of a Real.
func (v Value) Real() float64 { return math.Float64frombits(v.num) }

// Bytes are the contents of Text and Bytes, and the text of a Document.
func (v Value) Bytes() []byte {
	if v.kind == Document {
		return v.raw()[:v.num:v.num]
	}
	return v.raw()
}

// Binary is a Document's stored form; nil where it was not needed.
func (v Value) Binary() []byte {
	if v.kind != Document || v.num == uint64(v.size) {
		return nil
	}
	return v.raw()[v.num:]
}

// Equal is bit equality: the same kind and the same bits. It is not the
// database's equality.
func (v Value) Equal(w Value) bool {
	return v.kind == w.kind && v.num == w.num && string(v.raw()) == string(w.raw())
}

// AppendCanonical appends an unambiguous byte form: kind, length, content. Two
// values have the same form exactly when Equal.
func (v Value) AppendCanonical(dst []byte) []byte {
	dst = append(dst, byte(v.kind))
	dst = binary.AppendUvarint(dst, v.num)
	dst = binary.AppendUvarint(dst, uint64(v.size))
	return append(dst, v.raw()...)
}
