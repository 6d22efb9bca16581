package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// MySQL's binary JSON, as rows carry it. Source: the comment at the top of
// sql-common/json_binary.h in the MySQL source, "Grammar of the binary format".
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

// jsonDepthMax is the server's own limit on nesting.
const jsonDepthMax = 100

var errJSON = errors.New("malformed binary JSON")

// jsonKind is what a JSON value is.
type jsonKind uint8

const (
	kindNull jsonKind = iota
	kindFalse
	kindTrue
	kindInt
	kindUint
	kindDouble
	kindString
	kindOpaque
	kindArray
	kindObject
)

// jsonValue is a decoded JSON value. Strings share memory with the input.
type jsonValue struct {
	kind   jsonKind
	number uint64 // Int and Uint, Double's bits
	field  byte   // Opaque: the field type's number
	data   []byte // String (UTF-8), Opaque
	keys   [][]byte
	items  []jsonValue // of Array and Object
}

// parseJSON decodes a whole document.
func parseJSON(b []byte) (jsonValue, error) {
	if len(b) == 0 {
		return jsonValue{kind: kindNull}, nil // how the server stores a lost value
	}
	// A hostile document may point at the same bytes over and over: bound
	// the values by what honest ones need.
	p := jsonParser{budget: len(b)}
	return p.value(b[0], b[1:], 1)
}

type jsonParser struct{ budget int }

func (p *jsonParser) value(typ byte, b []byte, depth int) (jsonValue, error) {
	if p.budget--; p.budget < 0 {
		return jsonValue{}, fmt.Errorf("%w: more values than bytes", errJSON)
	}
	need := func(n int) error {
		if len(b) < n {
			return fmt.Errorf("%w: type %d cut short", errJSON, typ)
		}
		return nil
	}
	switch typ {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return p.container(typ, b, depth)
	case jsonLiteral:
		if err := need(1); err != nil {
			return jsonValue{}, err
		}
		switch b[0] {
		case 0:
			return jsonValue{kind: kindNull}, nil
		case 1:
			return jsonValue{kind: kindTrue}, nil
		case 2:
			return jsonValue{kind: kindFalse}, nil
		}
		return jsonValue{}, fmt.Errorf("%w: literal %d", errJSON, b[0])
	case jsonInt16, jsonUint16:
		if err := need(2); err != nil {
			return jsonValue{}, err
		}
		n := binary.LittleEndian.Uint16(b)
		if typ == jsonInt16 {
			return jsonValue{kind: kindInt, number: uint64(int64(int16(n)))}, nil
		}
		return jsonValue{kind: kindUint, number: uint64(n)}, nil
	case jsonInt32, jsonUint32:
		if err := need(4); err != nil {
			return jsonValue{}, err
		}
		n := binary.LittleEndian.Uint32(b)
		if typ == jsonInt32 {
			return jsonValue{kind: kindInt, number: uint64(int64(int32(n)))}, nil
		}
		return jsonValue{kind: kindUint, number: uint64(n)}, nil
	case jsonInt64, jsonUint64, jsonDouble:
		if err := need(8); err != nil {
			return jsonValue{}, err
		}
		k := map[byte]jsonKind{jsonInt64: kindInt, jsonUint64: kindUint, jsonDouble: kindDouble}[typ]
		n := binary.LittleEndian.Uint64(b)
		if f := math.Float64frombits(n); k == kindDouble && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return jsonValue{}, fmt.Errorf("%w: not a finite number", errJSON)
		}
		return jsonValue{kind: k, number: n}, nil
	case jsonString:
		data, err := jsonBytes(b)
		return jsonValue{kind: kindString, data: data}, err
	case jsonOpaque:
		if err := need(1); err != nil {
			return jsonValue{}, err
		}
		data, err := jsonBytes(b[1:])
		return jsonValue{kind: kindOpaque, field: b[0], data: data}, err
	}
	return jsonValue{}, fmt.Errorf("%w: type %d", errJSON, typ)
}

// jsonBytes reads a length in groups of 7 bits, then so many bytes.
func jsonBytes(b []byte) ([]byte, error) {
	n, shift := uint64(0), 0
	for i := 0; i < 5 && i < len(b); i++ {
		n |= uint64(b[i]&0x7f) << shift
		if b[i] < 0x80 {
			b = b[i+1:]
			if uint64(len(b)) < n {
				return nil, fmt.Errorf("%w: string cut short", errJSON)
			}
			return b[:n:n], nil
		}
		shift += 7
	}
	return nil, fmt.Errorf("%w: length", errJSON)
}

func (p *jsonParser) container(typ byte, b []byte, depth int) (jsonValue, error) {
	if depth > jsonDepthMax {
		return jsonValue{}, fmt.Errorf("%w: nested deeper than %d", errJSON, jsonDepthMax)
	}
	size := 2 // of counts and offsets
	if typ == jsonLargeObject || typ == jsonLargeArray {
		size = 4
	}
	read := func(at int) (int, error) {
		if at < 0 || at+size > len(b) {
			return 0, fmt.Errorf("%w: container cut short", errJSON)
		}
		if size == 2 {
			return int(binary.LittleEndian.Uint16(b[at:])), nil
		}
		return int(binary.LittleEndian.Uint32(b[at:])), nil
	}
	count, err := read(0)
	if err != nil {
		return jsonValue{}, err
	}
	total, err := read(size)
	if err != nil {
		return jsonValue{}, err
	}
	if total > len(b) {
		return jsonValue{}, fmt.Errorf("%w: container cut short", errJSON)
	}
	b = b[:total]
	object := typ == jsonSmallObject || typ == jsonLargeObject
	v := jsonValue{kind: kindArray}
	at := 2 * size
	entry := 1 + size
	if object {
		v.kind = kindObject
		entry += size + 2
	}
	if count > (len(b)-at)/entry {
		return jsonValue{}, fmt.Errorf("%w: %d entries in %d bytes", errJSON, count, len(b))
	}
	if object {
		v.keys = make([][]byte, count)
		for i := range v.keys {
			offset, err := read(at)
			if err != nil {
				return jsonValue{}, err
			}
			length := int(binary.LittleEndian.Uint16(b[at+size:]))
			at += size + 2
			if offset > len(b) || length > len(b)-offset {
				return jsonValue{}, fmt.Errorf("%w: key outside", errJSON)
			}
			v.keys[i] = b[offset : offset+length : offset+length]
		}
	}
	v.items = make([]jsonValue, count)
	for i := range v.items {
		t := b[at]
		value := b[at+1 : at+1+size] // small ones are in the entry itself
		inline := t == jsonLiteral || t == jsonInt16 || t == jsonUint16 || size == 4 && (t == jsonInt32 || t == jsonUint32)
		if !inline {
			offset, err := read(at + 1)
			if err != nil {
				return jsonValue{}, err
			}
			if offset > len(b) {
				return jsonValue{}, fmt.Errorf("%w: value outside", errJSON)
			}
			value = b[offset:]
		}
		if v.items[i], err = p.value(t, value, depth+1); err != nil {
			return jsonValue{}, err
		}
		at += entry - map[bool]int{true: size + 2, false: 0}[object]
	}
	return v, nil
}
