package binlog

import (
	"encoding/binary"
	"fmt"
)

// dateTextMax is the length of a date's text.
const dateTextMax = len("9999-12-31")

// fractionBytes is how many bytes hold that many fractional digits.
func fractionBytes(scale int) int { return (scale + 1) / 2 }

// fraction reads a stored fraction as microseconds: hundredths in one byte, ten
// thousandths in two, microseconds in three, all big-endian.
func fraction(b []byte) int64 {
	switch len(b) {
	case 1:
		return int64(b[0]) * 10000
	case 2:
		return int64(binary.BigEndian.Uint16(b)) * 100
	case 3:
		return int64(b[0])<<16 | int64(b[1])<<8 | int64(b[2])
	}
	return 0
}

func appendFraction(dst []byte, micros int64, scale int) []byte {
	if scale == 0 {
		return dst
	}
	dst = append(dst, '.')
	dst = appendPadded(dst, uint32(micros), 6)
	return dst[:len(dst)-6+scale]
}

func appendDateParts(dst []byte, year, month, day int64) []byte {
	dst = appendPadded(dst, uint32(year), 4)
	dst = append2(append(dst, '-'), month)
	return append2(append(dst, '-'), day)
}

func appendClock(dst []byte, hour, minute, second int64) []byte {
	if hour > 99 {
		dst = append(dst, byte('0'+hour/100))
	}
	dst = append2(dst, hour)
	dst = append2(append(dst, ':'), minute)
	return append2(append(dst, ':'), second)
}

// appendDate appends a DATE, stored little-endian as day, month, year in 5, 4
// and 15 bits.
func appendDate(dst, b []byte) ([]byte, error) {
	v := int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16
	day, month, year := v&31, v>>5&15, v>>9
	if month > 12 || year > 9999 {
		return dst, fmt.Errorf("%w: date %06x", ErrDamaged, v)
	}
	return appendDateParts(dst, year, month, day), nil
}

// appendDateTime appends a DATETIME, stored in five bytes big-endian as
// year*13+month, day, hour, minute, second in 17, 5, 5, 6 and 6 bits plus an
// offset, then the fraction.
func appendDateTime(dst, b []byte, scale int) ([]byte, error) {
	v := int64(b[0])<<32 | int64(binary.BigEndian.Uint32(b[1:]))
	micros := fraction(b[5:])
	if v -= 1 << 39; v < 0 || micros > 999999 {
		return dst, fmt.Errorf("%w: datetime %x", ErrDamaged, b)
	}
	return appendPackedDateTime(dst, v, micros, scale)
}

func appendPackedDateTime(dst []byte, v, micros int64, scale int) ([]byte, error) {
	second, minute, hour, day, ym := v&63, v>>6&63, v>>12&31, v>>17&31, v>>22
	if ym/13 > 9999 || hour > 23 || minute > 59 || second > 59 || micros > 999999 {
		return dst, fmt.Errorf("%w: datetime %010x", ErrDamaged, v)
	}
	dst = appendDateParts(dst, ym/13, ym%13, day)
	dst = appendClock(append(dst, ' '), hour, minute, second)
	return appendFraction(dst, micros, scale), nil
}

// appendTimestamp appends a TIMESTAMP in UTC, stored as seconds since 1970
// big-endian in four bytes, then the fraction. Zero seconds are the zero
// timestamp, whatever the fraction: so the servers read it.
func appendTimestamp(dst, b []byte, scale int) ([]byte, error) {
	micros := fraction(b[4:])
	if micros > 999999 {
		return dst, fmt.Errorf("%w: timestamp %x", ErrDamaged, b)
	}
	return appendUnix(dst, binary.BigEndian.Uint32(b), micros, scale), nil
}

func appendUnix(dst []byte, seconds uint32, micros int64, scale int) []byte {
	if seconds == 0 {
		return appendFraction(append(dst, "0000-00-00 00:00:00"...), 0, scale)
	}
	days, second := int64(seconds/86400), int64(seconds%86400)
	year, month, day := civil(days)
	dst = appendDateParts(dst, year, month, day)
	dst = appendClock(append(dst, ' '), second/3600, second/60%60, second%60)
	return appendFraction(dst, micros, scale)
}

// civil is the date of a day counted from 1970-01-01, by eras of 400 years that
// begin on the first of March. Source: Howard Hinnant, "chrono-Compatible
// Low-Level Date Algorithms", civil_from_days.
func civil(days int64) (year, month, day int64) {
	days += 719468 // since 0000-03-01
	era := days / 146097
	days -= era * 146097
	year = (days - days/1460 + days/36524 - days/146096) / 365
	days -= 365*year + year/4 - year/100
	month = (5*days + 2) / 153 // from March
	day = days - (153*month+2)/5 + 1
	year += 400 * era
	if month += 3; month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// appendTime appends a TIME, stored big-endian in three bytes as hour, minute
// and second in 10, 6 and 6 bits plus an offset, then the fraction. A negative
// time is the two's complement of the whole, integer and fraction together.
func appendTime(dst, b []byte, scale int) ([]byte, error) {
	bits := 8 * uint(len(b)-3)
	var v int64
	for _, c := range b {
		v = v<<8 | int64(c)
	}
	v -= 1 << (23 + bits)
	if v < 0 {
		v = -v
		dst = append(dst, '-')
	}
	var micros int64
	switch f := v & (1<<bits - 1); bits {
	case 8:
		micros = f * 10000
	case 16:
		micros = f * 100
	case 24:
		micros = f
	}
	v >>= bits
	hour, minute, second := v>>12&0x3ff, v>>6&63, v&63
	if hour > 838 || minute > 59 || second > 59 || micros > 999999 {
		return dst, fmt.Errorf("%w: time %x", ErrDamaged, b)
	}
	return appendFraction(appendClock(dst, hour, minute, second), micros, scale), nil
}

// The formats before MySQL 5.6.4, still written by MariaDB for tables made
// with mysql56_temporal_format=OFF: plain little-endian numbers.

// appendOldTime appends hhmmss as a signed number of three bytes.
func appendOldTime(dst, b []byte) ([]byte, error) {
	v := int64(int32(uint32(b[0])<<8|uint32(b[1])<<16|uint32(b[2])<<24) >> 8)
	if v < 0 {
		v = -v
		dst = append(dst, '-')
	}
	hour, minute, second := v/10000, v/100%100, v%100
	if hour > 838 || minute > 59 || second > 59 {
		return dst, fmt.Errorf("%w: time %d", ErrDamaged, v)
	}
	return appendClock(dst, hour, minute, second), nil
}

// appendOldDateTime appends YYYYMMDDhhmmss as a number of eight bytes.
func appendOldDateTime(dst, b []byte) ([]byte, error) {
	v := binary.LittleEndian.Uint64(b)
	if v > 9999_99_99_99_99_99 {
		return dst, fmt.Errorf("%w: datetime %d", ErrDamaged, v)
	}
	d, c := int64(v/1000000), int64(v%1000000)
	year, month, day := d/10000, d/100%100, d%100
	hour, minute, second := c/10000, c/100%100, c%100
	if month > 12 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return dst, fmt.Errorf("%w: datetime %d", ErrDamaged, v)
	}
	dst = appendDateParts(dst, year, month, day)
	return appendClock(append(dst, ' '), hour, minute, second), nil
}
