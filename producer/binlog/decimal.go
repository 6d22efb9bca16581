package binlog

import (
	"encoding/binary"
	"fmt"
)

// digitBytes is how many bytes hold that many decimal digits.
var digitBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

// decimalSize is the stored size of a DECIMAL(precision, scale) in bytes.
func decimalSize(precision, scale int) int {
	whole := precision - scale
	return whole/9*4 + digitBytes[whole%9] + scale/9*4 + digitBytes[scale%9]
}

// decimalTextMax is the longest text of such a number: its digits, a leading
// zero, the point and the sign.
func decimalTextMax(precision int) int { return precision + 3 }

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
	var flip uint32 // xor mask for all bytes
	negative := b[0]&0x80 == 0
	if negative {
		flip = 0xffffffff
	}
	first := byte(0x80) // undoes the inverted first bit, once
	group := func(digits int) uint32 {
		n := digitBytes[digits]
		var v uint32
		for _, c := range b[:n] {
			v = v<<8 | uint32(c^first^byte(flip))
			first = 0
		}
		b = b[n:]
		return v
	}
	start := len(dst)
	dst = append(dst, '-')
	zero := true
	var err error
	put := func(v uint32, digits int) {
		if v >= pow10[digits] {
			err = fmt.Errorf("%w: %d in a group of %d decimal digits", ErrDamaged, v, digits)
			return
		}
		zero = zero && v == 0
		dst = appendPadded(dst, v, digits)
	}
	whole := precision - scale
	if odd := whole % 9; odd > 0 {
		put(group(odd), odd)
	}
	for range whole / 9 {
		if first == 0 {
			put(binary.BigEndian.Uint32(b)^flip, 9)
			b = b[4:]
			continue
		}
		put(group(9), 9)
	}
	dst = trimZeros(dst, start+1)
	if scale > 0 {
		dst = append(dst, '.')
		for range scale / 9 {
			put(group(9), 9)
		}
		if odd := scale % 9; odd > 0 {
			put(group(odd), odd)
		}
	}
	if err != nil {
		return dst[:start], err
	}
	if !negative || zero {
		dst = append(dst[:start], dst[start+1:]...)
	}
	return dst, nil
}

// trimZeros drops leading zeros of dst[from:], leaving at least one digit.
func trimZeros(dst []byte, from int) []byte {
	to := from
	for to < len(dst) && dst[to] == '0' {
		to++
	}
	if to == len(dst) {
		return append(dst[:from], '0')
	}
	return append(dst[:from], dst[to:]...)
}

var pow10 = [...]uint32{1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000}

// appendPadded appends v in exactly width digits.
func appendPadded(dst []byte, v uint32, width int) []byte {
	n := len(dst)
	dst = append(dst, "0000000000"[:width]...)
	for i := n + width - 1; i >= n; i-- {
		dst[i] = byte('0' + v%10)
		v /= 10
	}
	return dst
}
