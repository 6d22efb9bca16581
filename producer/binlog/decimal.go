package binlog

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// digitBytes is how many bytes hold that many decimal digits.
var digitBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

// decimalSize is the stored size of a DECIMAL(precision, scale) in bytes.
func decimalSize(precision, scale int) int {
	whole := precision - scale
	return whole/9*4 + digitBytes[whole%9] + scale/9*4 + digitBytes[scale%9]
}

// appendDecimal appends the text of a stored DECIMAL: all fractional digits, no
// leading zeros but one before the point, no "-" before a zero. b must have
// decimalSize bytes.
//
// Groups of nine digits are big-endian numbers of four bytes, the odd digits
// at either end take as many bytes as they need. The first bit is inverted; a
// negative number has all bits inverted. Source: strings/decimal.cc of MySQL,
// decimal2bin.
func appendDecimal(dst, b []byte, precision, scale int) ([]byte, error) {
	if len(b) != decimalSize(precision, scale) || len(b) == 0 {
		return dst, fmt.Errorf("%w: decimal(%d,%d) of %d bytes", ErrDamaged, precision, scale, len(b))
	}
	negative := b[0]&0x80 == 0
	var flip uint32 // undoes the inverted bits of a negative number
	if negative {
		flip = 0xffffffff
	}
	first := uint32(0x80) // undoes the inverted first bit, once
	start := len(dst)
	if negative {
		dst = append(dst, '-')
	}
	digits := len(dst)
	var any uint32 // bits of all groups
	whole := precision - scale
	odd := whole % 9
	for left := whole; left > 0; {
		n := 9
		if odd > 0 {
			n, odd = odd, 0
		}
		left -= n
		var ok bool
		var v uint32
		if v, b, ok = decimalGroup(b, n, flip, first); !ok {
			return dst[:start], fmt.Errorf("%w: %d in a group of %d decimal digits", ErrDamaged, v, n)
		}
		first = 0
		if any |= v; any == 0 {
			continue // leading zeros
		}
		if len(dst) > digits {
			dst = appendPadded(dst, v, n)
		} else {
			dst = strconv.AppendUint(dst, uint64(v), 10)
		}
	}
	if len(dst) == digits {
		dst = append(dst, '0')
	}
	if scale > 0 {
		dst = append(dst, '.')
		for left := scale; left > 0; {
			n := min(left, 9)
			left -= n
			var ok bool
			var v uint32
			if v, b, ok = decimalGroup(b, n, flip, first); !ok {
				return dst[:start], fmt.Errorf("%w: %d in a group of %d decimal digits", ErrDamaged, v, n)
			}
			first = 0
			any |= v
			dst = appendPadded(dst, v, n)
		}
	}
	if negative && any == 0 {
		dst = append(dst[:start], dst[digits:]...)
	}
	return dst, nil
}

// decimalGroup reads a group of n digits and tells whether it is one. flip and
// first undo the inverted bits, of all bytes and of the first.
func decimalGroup(b []byte, n int, flip, first uint32) (v uint32, rest []byte, ok bool) {
	switch digitBytes[n] {
	case 1:
		v, rest = (uint32(b[0])^flip^first)&0xff, b[1:]
	case 2:
		v, rest = (uint32(b[0])<<8|uint32(b[1]))^flip&0xffff^first<<8, b[2:]
	case 3:
		v, rest = (uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2]))^flip&0xffffff^first<<16, b[3:]
	default:
		v, rest = binary.BigEndian.Uint32(b)^flip^first<<24, b[4:]
	}
	return v, rest, v < pow10[n]
}

var pow10 = [...]uint32{1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000}
