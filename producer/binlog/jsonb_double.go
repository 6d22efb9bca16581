package binlog

import "strconv"

// appendJSONDouble appends a double as MySQL prints it in JSON: the shortest
// digits that read back the same; with an exponent where there would be more
// than 14 zeros behind the point or more than 15 digits of a whole number; and
// ".0" behind a whole number, so that it stays a double. Source: my_gcvt in
// strings/dtoa.cc, and Json_wrapper's printing of doubles.
func appendJSONDouble(dst []byte, f float64) []byte {
	var buf [32]byte
	e := strconv.AppendFloat(buf[:0], f, 'e', -1, 64) // -d.ddde±xx
	if e[0] == '-' {
		dst = append(dst, '-')
		e = e[1:]
	}
	var digits [24]byte
	n, i := 0, 0
	for ; e[i] != 'e'; i++ {
		if e[i] != '.' {
			digits[n] = e[i]
			n++
		}
	}
	exp := 0
	for _, c := range e[i+2:] {
		exp = exp*10 + int(c-'0')
	}
	if e[i+1] == '-' {
		exp = -exp
	}
	point := exp + 1 // digits before the point
	if digits[0] == '0' {
		point = 1
	}
	switch {
	case point < -14 || point > 15 && n <= point:
		dst = append(dst, digits[0])
		if n > 1 {
			dst = append(append(dst, '.'), digits[1:n]...)
		}
		return strconv.AppendInt(append(dst, 'e'), int64(point-1), 10)
	case point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, digits[:n]...)
	case n <= point:
		dst = append(dst, digits[:n]...)
		for range point - n {
			dst = append(dst, '0')
		}
		return append(dst, ".0"...)
	}
	dst = append(dst, digits[:point]...)
	return append(append(dst, '.'), digits[point:n]...)
}
