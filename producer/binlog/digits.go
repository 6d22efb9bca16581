package binlog

// pairs are the two digits of each number below 100.
const pairs = "00010203040506070809" + "10111213141516171819" + "20212223242526272829" + "30313233343536373839" + "40414243444546474849" +
	"50515253545556575859" + "60616263646566676869" + "70717273747576777879" + "80818283848586878889" + "90919293949596979899"

// append2 appends the last two digits of a number.
func append2(dst []byte, v int64) []byte {
	i := uint64(v) % 100 * 2
	return append(dst, pairs[i], pairs[i+1])
}

// appendPadded appends v in exactly width digits, at most nine; what does not
// fit is cut off in front.
func appendPadded(dst []byte, v uint32, width int) []byte {
	var d [9]byte
	i := 9
	for at := 9 - width; i > at+1; v /= 100 {
		p := v % 100 * 2
		i -= 2
		d[i], d[i+1] = pairs[p], pairs[p+1]
	}
	if i > 9-width {
		i--
		d[i] = byte('0' + v%10)
	}
	return append(dst, d[i:]...)
}
