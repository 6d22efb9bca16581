package rowevent

import (
	"math/bits"
	"time"
)

// number reads n digits at the start of s.
func number(s []byte, n int) (int64, bool) {
	if len(s) < n {
		return 0, false
	}
	var v int64
	for _, c := range s[:n] {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	return v, true
}

// appendFraction appends microseconds as scale digits are stored: hundredths in
// one byte, ten thousandths in two, microseconds in three, big-endian.
func appendFraction(dst []byte, micros int64, scale int) []byte {
	switch (scale + 1) / 2 {
	case 1:
		return append(dst, byte(micros/10000))
	case 2:
		v := micros / 100
		return append(dst, byte(v>>8), byte(v))
	case 3:
		return append(dst, byte(micros>>16), byte(micros>>8), byte(micros))
	}
	return dst
}

// fraction reads ".123" as microseconds; no more digits than scale.
func fraction(s []byte, scale int) (int64, bool) {
	if len(s) == 0 {
		return 0, true
	}
	if s[0] != '.' || len(s)-1 > scale || len(s)-1 > 6 {
		return 0, false
	}
	v, ok := number(s[1:], len(s)-1)
	for n := len(s) - 1; n < 6; n++ {
		v *= 10
	}
	return v, ok
}

// date reads "2006-01-02"; months and days may be 0.
func date(s []byte) (year, month, day int64, ok bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return 0, 0, 0, false
	}
	year, a := number(s, 4)
	month, b := number(s[5:], 2)
	day, c := number(s[8:], 2)
	return year, month, day, a && b && c && month <= 12 && day <= 31
}

// clock reads "15:04:05" and answers with the rest; hours may have three digits.
func clock(s []byte) (hour, minute, second int64, rest []byte, ok bool) {
	n := 2
	if len(s) > 2 && s[2] != ':' {
		n = 3
	}
	if len(s) < n+6 || s[n] != ':' || s[n+3] != ':' {
		return 0, 0, 0, nil, false
	}
	hour, a := number(s, n)
	minute, b := number(s[n+1:], 2)
	second, c := number(s[n+4:], 2)
	return hour, minute, second, s[n+6:], a && b && c && minute < 60 && second < 60
}

func appendDate(dst, s []byte) ([]byte, error) {
	year, month, day, ok := date(s)
	if !ok || len(s) != 10 {
		return dst, ErrValue
	}
	return appendLittle(dst, uint64(year<<9|month<<5|day), 3), nil
}

// moment reads a date, a clock and a fraction.
func moment(s []byte, scale int) (year, month, day, hour, minute, second, micros int64, ok bool) {
	year, month, day, ok = date(s)
	if !ok || len(s) < 19 || s[10] != ' ' {
		return 0, 0, 0, 0, 0, 0, 0, false
	}
	hour, minute, second, rest, ok := clock(s[11:])
	if !ok || hour > 23 {
		return 0, 0, 0, 0, 0, 0, 0, false
	}
	micros, ok = fraction(rest, scale)
	return year, month, day, hour, minute, second, micros, ok
}

func appendDateTime(dst, s []byte, scale int) ([]byte, error) {
	year, month, day, hour, minute, second, micros, ok := moment(s, scale)
	if !ok {
		return dst, ErrValue
	}
	v := 1<<39 + ((year*13+month)<<5|day)<<17 + hour<<12 + minute<<6 + second
	dst = append(dst, byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	return appendFraction(dst, micros, scale), nil
}

// appendTimestamp: the text is in UTC and before a second. All zeros is the zero
// timestamp.
func appendTimestamp(dst, s []byte, scale int, until int64) ([]byte, error) {
	year, month, day, hour, minute, second, micros, ok := moment(s, scale)
	if !ok {
		return dst, ErrValue
	}
	var unix int64
	if year != 0 || month != 0 || day != 0 {
		if month == 0 || day == 0 {
			return dst, ErrValue
		}
		t := time.Date(int(year), time.Month(month), int(day), int(hour), int(minute), int(second), 0, time.UTC)
		unix = t.Unix()
		if t.Day() != int(day) || unix < 1 || unix >= until {
			return dst, ErrValue
		}
	} else if hour|minute|second|micros != 0 {
		return dst, ErrValue
	}
	dst = append(dst, byte(unix>>24), byte(unix>>16), byte(unix>>8), byte(unix))
	return appendFraction(dst, micros, scale), nil
}

// appendTime: hour, minute and second in 10, 6 and 6 bits and the fraction behind
// them are one number; a negative time is its two's complement.
func appendTime(dst, s []byte, scale int) ([]byte, error) {
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	hour, minute, second, rest, ok := clock(s)
	if !ok || hour > 838 {
		return dst, ErrValue
	}
	micros, ok := fraction(rest, scale)
	if !ok {
		return dst, ErrValue
	}
	size := (scale + 1) / 2
	v := (hour<<12 | minute<<6 | second) << (8 * size)
	switch size {
	case 1:
		v |= micros / 10000
	case 2:
		v |= micros / 100
	case 3:
		v |= micros
	}
	if negative {
		v = -v
	}
	v += 1 << (23 + 8*size)
	for n := 2 + size; n >= 0; n-- {
		dst = append(dst, byte(v>>(8*n)))
	}
	return dst, nil
}

// digitBytes is how many bytes hold that many decimal digits.
var digitBytes = [10]int{0, 1, 1, 2, 2, 3, 3, 4, 4, 4}

// appendDecimal stores a decimal's text: groups of nine digits from the point
// outwards in four bytes big-endian, the odd ones at either end in as many as
// they need, the first bit inverted, all bits inverted of a negative number.
func appendDecimal(dst, s []byte, precision, scale int) ([]byte, error) {
	start := len(dst)
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	point := len(s)
	for i, c := range s {
		if c == '.' {
			point = i
			break
		}
	}
	whole, frac := s[:point], s[min(point+1, len(s)):]
	for len(whole) > 0 && whole[0] == '0' {
		whole = whole[1:]
	}
	if len(whole) > precision-scale || len(frac) > scale || point == 0 {
		return dst, ErrValue
	}
	nonzero := byte(0)
	// digit at a distance from the point: 0 is the first behind it, -1 the one before.
	digit := func(at int) (byte, bool) {
		var c byte
		switch {
		case at >= 0 && at < len(frac):
			c = frac[at]
		case at < 0 && -at <= len(whole):
			c = whole[len(whole)+at]
		default:
			return 0, true
		}
		nonzero |= c - '0'
		return c - '0', c >= '0' && c <= '9'
	}
	group := func(from, n int) bool {
		var v uint32
		for i := range n {
			d, ok := digit(from + i)
			if !ok {
				return false
			}
			v = v*10 + uint32(d)
		}
		for i := digitBytes[n] - 1; i >= 0; i-- {
			dst = append(dst, byte(v>>(8*i)))
		}
		return true
	}
	at := scale - precision
	for at < 0 {
		n := 9
		if odd := -at % 9; odd > 0 {
			n = odd
		}
		if !group(at, n) {
			return dst[:start], ErrValue
		}
		at += n
	}
	for at < scale {
		n := min(9, scale-at)
		if !group(at, n) {
			return dst[:start], ErrValue
		}
		at += n
	}
	if negative && bits.OnesCount8(nonzero) > 0 {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	dst[start] ^= 0x80
	return dst, nil
}
