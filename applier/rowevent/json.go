package rowevent

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twinspan/twinspan/change"
)

// MySQL's binary JSON, written exactly as the server does when it parses the text.
// Source: sql-common/json_binary.h and .cc of MySQL (serialize_json_value), and
// the handler of its parser in json_dom.cc for which numbers become what.
const (
	jsonSmallObject = 0x00
	jsonLargeObject = 0x01
	jsonSmallArray  = 0x02
	jsonLargeArray  = 0x03
	jsonLiteral     = 0x04
	jsonInt16       = 0x05
	jsonInt32       = 0x07
	jsonInt64       = 0x09
	jsonUint64      = 0x0a
	jsonDouble      = 0x0b
	jsonString      = 0x0c
	jsonOpaque      = 0x0f

	jsonKey = 0xff // of nodes alone

	// jsonDepthMax is the server's own limit on nesting.
	jsonDepthMax = 100
	// jsonKept bounds the memory that is kept from one document for the next.
	jsonKept = 4096
)

// appendJSON appends a document behind its length: the source's stored form where
// the log has it, else the form that the server would store for the text.
func appendJSON(dst []byte, v change.Value) ([]byte, error) {
	if v.Kind() != change.Document && v.Kind() != change.Text {
		return dst, ErrValue
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if doc := v.Binary(); doc != nil {
		if !wholeJSON(doc) {
			return dst[:start], ErrValue
		}
		dst = append(dst, doc...)
	} else {
		e := jsonEncoders.Get().(*jsonEncoder)
		var good bool
		dst, good = e.encode(dst, v.Bytes())
		e.release()
		if !good {
			return dst[:start], ErrValue
		}
	}
	size := len(dst) - start - 4
	if uint64(size) > math.MaxUint32 {
		return dst[:start], ErrValue
	}
	binary.LittleEndian.PutUint32(dst[start:], uint32(size))
	return dst, nil
}

// wholeJSON: a container says how long it is. Whoever put the document into the
// log has read all of it.
func wholeJSON(doc []byte) bool {
	if len(doc) < 2 || doc[0] > jsonOpaque {
		return false
	}
	switch doc[0] {
	case jsonSmallObject, jsonSmallArray:
		return len(doc) >= 5 && int(binary.LittleEndian.Uint16(doc[3:])) == len(doc)-1
	case jsonLargeObject, jsonLargeArray:
		return len(doc) >= 9 && uint64(binary.LittleEndian.Uint32(doc[5:])) == uint64(len(doc)-1)
	}
	return true
}

// jsonNode is a value, or the key before one.
type jsonNode struct {
	typ  byte   // as stored; containers by their small form
	num  uint64 // of literals, integers, doubles (bits); of containers the number of members
	data []byte // of strings and keys
	next int    // of containers: the node behind the last member
}

// jsonEncoder is the memory for one document at a time.
type jsonEncoder struct {
	text    []byte
	at      int
	nodes   []jsonNode
	strings []byte // those with escapes
}

var jsonEncoders = sync.Pool{New: func() any { return new(jsonEncoder) }}

func (e *jsonEncoder) release() {
	clear(e.nodes) // they hold on to the text
	e.text, e.nodes, e.strings = nil, e.nodes[:0], e.strings[:0]
	if cap(e.nodes) > jsonKept || cap(e.strings) > 16*jsonKept {
		return
	}
	jsonEncoders.Put(e)
}

// encode appends the stored form of a text. It refuses what is not the text of a
// normalised document, as MySQL prints them: whatever else it may mean, the server
// shall say.
func (e *jsonEncoder) encode(dst, text []byte) ([]byte, bool) {
	e.text, e.at = text, 0
	if !e.value(0) {
		return dst, false
	}
	e.space()
	if e.at != len(text) {
		return dst, false
	}
	at := len(dst)
	return e.write(append(dst, 0), 0, at, false)
}

func (e *jsonEncoder) space() {
	for e.at < len(e.text) {
		switch e.text[e.at] {
		case ' ', '\t', '\n', '\r':
			e.at++
		default:
			return
		}
	}
}

// take steps over a character, white space before it aside.
func (e *jsonEncoder) take(c byte) bool {
	e.space()
	if e.at < len(e.text) && e.text[e.at] == c {
		e.at++
		return true
	}
	return false
}

// value reads a value into nodes.
func (e *jsonEncoder) value(depth int) bool {
	e.space()
	if e.at == len(e.text) {
		return false
	}
	switch c := e.text[e.at]; c {
	case '{', '[':
		return e.container(c, depth+1)
	case '"':
		data, ok := e.quoted()
		e.nodes = append(e.nodes, jsonNode{typ: jsonString, data: data})
		return ok
	case 'n':
		return e.literal("null", 0)
	case 't':
		return e.literal("true", 1)
	case 'f':
		return e.literal("false", 2)
	}
	return e.number()
}

func (e *jsonEncoder) literal(word string, n uint64) bool {
	if !bytes.HasPrefix(e.text[e.at:], []byte(word)) {
		return false
	}
	e.at += len(word)
	e.nodes = append(e.nodes, jsonNode{typ: jsonLiteral, num: n})
	return true
}

func (e *jsonEncoder) container(open byte, depth int) bool {
	if depth > jsonDepthMax {
		return false
	}
	e.at++
	this, n := len(e.nodes), uint64(0)
	typ, end := byte(jsonSmallArray), byte(']')
	if open == '{' {
		typ, end = jsonSmallObject, '}'
	}
	e.nodes = append(e.nodes, jsonNode{typ: typ})
	var last []byte
	for !e.take(end) {
		if n > 0 && !e.take(',') {
			return false
		}
		if open == '{' {
			e.space()
			key, ok := e.quoted()
			// Stored keys are in order, shorter ones first, and differ.
			if !ok || !e.take(':') || len(key) > math.MaxUint16 || n > 0 && !keyBefore(last, key) {
				return false
			}
			last = key
			e.nodes = append(e.nodes, jsonNode{typ: jsonKey, data: key})
		}
		if !e.value(depth) {
			return false
		}
		n++
	}
	e.nodes[this].num, e.nodes[this].next = n, len(e.nodes)
	return true
}

func keyBefore(a, b []byte) bool {
	if len(a) != len(b) {
		return len(a) < len(b)
	}
	return bytes.Compare(a, b) < 0
}

// quoted reads a string; it is part of the text, or of strings where it has escapes.
func (e *jsonEncoder) quoted() ([]byte, bool) {
	if e.at == len(e.text) || e.text[e.at] != '"' {
		return nil, false
	}
	rest := e.text[e.at+1:]
	for i, c := range rest {
		switch {
		case c == '"':
			e.at += i + 2
			return rest[:i:i], utf8.Valid(rest[:i])
		case c == '\\':
			return e.escaped()
		case c < ' ':
			return nil, false
		}
	}
	return nil, false
}

var jsonEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (e *jsonEncoder) escaped() ([]byte, bool) {
	start := len(e.strings)
	for e.at++; e.at < len(e.text); e.at++ {
		c := e.text[e.at]
		switch {
		case c == '"':
			e.at++
			s := e.strings[start:len(e.strings):len(e.strings)]
			return s, utf8.Valid(s)
		case c < ' ':
			return nil, false
		case c != '\\':
			e.strings = append(e.strings, c)
			continue
		}
		if e.at++; e.at == len(e.text) {
			return nil, false
		}
		if c = e.text[e.at]; c != 'u' {
			if jsonEscapes[c] == 0 {
				return nil, false
			}
			e.strings = append(e.strings, jsonEscapes[c])
			continue
		}
		r, ok := e.unit(e.at + 1)
		if !ok {
			return nil, false
		}
		e.at += 4
		if utf16.IsSurrogate(r) {
			low, ok := e.unit(e.at + 3)
			if !ok || e.text[e.at+1] != '\\' || e.text[e.at+2] != 'u' {
				return nil, false
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return nil, false
			}
			e.at += 6
		}
		e.strings = utf8.AppendRune(e.strings, r)
	}
	return nil, false
}

// unit reads four hex digits.
func (e *jsonEncoder) unit(at int) (rune, bool) {
	if at+4 > len(e.text) {
		return 0, false
	}
	var r rune
	for _, c := range e.text[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// number reads one: whole numbers below 2^32 are signed for the server, larger
// ones unsigned; those with a point or an exponent are doubles.
func (e *jsonEncoder) number() bool {
	from := e.at
	digits := func() int {
		n := e.at
		for e.at < len(e.text) && e.text[e.at] >= '0' && e.text[e.at] <= '9' {
			e.at++
		}
		return e.at - n
	}
	has := func(set string) bool {
		if e.at < len(e.text) && bytes.IndexByte([]byte(set), e.text[e.at]) >= 0 {
			e.at++
			return true
		}
		return false
	}
	negative := has("-")
	first := e.at
	if n := digits(); n == 0 || n > 1 && e.text[first] == '0' {
		return false
	}
	whole := true
	if has(".") {
		whole = false
		if digits() == 0 {
			return false
		}
	}
	if has("eE") {
		whole = false
		has("+-")
		if digits() == 0 {
			return false
		}
	}
	s := e.text[from:e.at]
	node := jsonNode{typ: jsonInt64}
	switch {
	case !whole:
		f, err := strconv.ParseFloat(string(s), 64)
		if err != nil {
			return false
		}
		node.typ, node.num = jsonDouble, math.Float64bits(f)
	case negative:
		i, err := strconv.ParseInt(string(s), 10, 64)
		if err != nil || i == 0 {
			return false // "-0" has two readings, and no server prints it
		}
		node.num = uint64(i)
	default:
		u, err := strconv.ParseUint(string(s), 10, 64)
		if err != nil {
			return false
		}
		if node.num = u; u > math.MaxUint32 {
			node.typ = jsonUint64
		}
	}
	e.nodes = append(e.nodes, node)
	return true
}

// write appends the node at an index, whose type goes to dst[typeAt]. Within a
// small container, what is too big for one is refused.
func (e *jsonEncoder) write(dst []byte, i, typeAt int, inSmall bool) ([]byte, bool) {
	n := &e.nodes[i]
	dst[typeAt] = n.typ
	switch n.typ {
	case jsonLiteral:
		return append(dst, byte(n.num)), true
	case jsonInt64:
		typ, size := integerType(int64(n.num))
		dst[typeAt] = typ
		return appendLittle(dst, n.num, size), true
	case jsonUint64, jsonDouble:
		return appendLittle(dst, n.num, 8), true
	case jsonString:
		return append(binary.AppendUvarint(dst, uint64(len(n.data))), n.data...), true
	}
	start := len(dst)
	dst, fits := e.members(dst, i, false)
	if fits || inSmall {
		return dst, fits
	}
	dst, fits = e.members(dst[:start], i, true)
	dst[typeAt] = n.typ + 1 // the large form
	return dst, fits
}

func integerType(v int64) (typ byte, size int) {
	switch {
	case v == int64(int16(v)):
		return jsonInt16, 2
	case v == int64(int32(v)):
		return jsonInt32, 4
	}
	return jsonInt64, 8
}

// members appends a container in one of its forms: how many and how long, where
// the keys are, what and where the values are, keys, values. Offsets count from
// its start.
func (e *jsonEncoder) members(dst []byte, i int, large bool) ([]byte, bool) {
	n := &e.nodes[i]
	start, count := len(dst), int(n.num)
	word, most := 2, math.MaxUint16
	if large {
		word, most = 4, math.MaxUint32
	}
	if count > most {
		return dst, false
	}
	put := func(at, v int) { // there is room
		for k := range word {
			dst[at+k] = byte(v >> (8 * k))
		}
	}
	dst = appendLittle(appendLittle(dst, uint64(count), word), 0, word)
	object := n.typ == jsonSmallObject
	if object {
		offset := 2*word + count*(word+2+1+word)
		for k := i + 1; k < n.next; k = e.after(k + 1) {
			size := len(e.nodes[k].data)
			if offset > most {
				return dst, false
			}
			dst = appendLittle(appendLittle(dst, uint64(offset), word), uint64(size), 2)
			offset += size
		}
	}
	entry := len(dst)
	for range count * (1 + word) {
		dst = append(dst, 0)
	}
	if object {
		for k := i + 1; k < n.next; k = e.after(k + 1) {
			dst = append(dst, e.nodes[k].data...)
		}
	}
	for k := i + 1; k < n.next; k = e.after(k) {
		if object {
			k++ // the value behind the key
		}
		v := &e.nodes[k]
		typ, size := v.typ, 0
		switch v.typ {
		case jsonLiteral:
			size = 1
		case jsonInt64:
			typ, size = integerType(int64(v.num))
		}
		if size > 0 && size <= word { // in the entry itself
			dst[entry] = typ
			for b := range size {
				dst[entry+1+b] = byte(v.num >> (8 * b))
			}
		} else {
			offset := len(dst) - start
			if offset > most {
				return dst, false
			}
			put(entry+1, offset)
			var fits bool
			if dst, fits = e.write(dst, k, entry, !large); !fits {
				return dst, false
			}
		}
		entry += 1 + word
	}
	size := len(dst) - start
	if size > most {
		return dst, false
	}
	put(start+word, size)
	return dst, true
}

// after is the index behind a value.
func (e *jsonEncoder) after(i int) int {
	if t := e.nodes[i].typ; t == jsonSmallObject || t == jsonSmallArray {
		return e.nodes[i].next
	}
	return i + 1
}
