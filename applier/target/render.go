package target

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Values become SQL only through the functions here. Each gives digits it has
// made or checked itself, a quoted string of bytes that mean themselves in
// every sql_mode and client character set, or hex: whatever a value holds, it
// can't end its literal.

// append renders a value as an SQL expression.
func (w *writer) append(dst []byte, v change.Value) ([]byte, error) {
	if v.IsNull() {
		if !w.nullable {
			return dst, w.fault(v, "is NULL and the target column is not nullable")
		}
		return append(dst, "NULL"...), nil
	}
	switch w.form {
	case formNumber:
		return w.appendNumber(dst, v)
	case formSingle:
		if v.Kind() == change.Single {
			return w.appendFloat(dst, v, float64(v.Single()), 32)
		}
	case formReal:
		if v.Kind() == change.Real {
			return w.appendFloat(dst, v, v.Real(), 64)
		}
	case formText:
		if v.Kind() == change.Text {
			return appendText(dst, w.introducer, v.Bytes()), nil
		}
	case formEncoded:
		if v.Kind() == change.Bytes {
			return appendHex(append(dst, w.introducer...), v.Bytes(), 0), nil
		}
	case formBinary:
		if v.Kind() == change.Bytes {
			if b := v.Bytes(); len(b) >= w.pad && plain(b) {
				return appendQuoted(dst, b), nil
			}
			return appendHex(dst, v.Bytes(), w.pad), nil
		}
	case formHex:
		if v.Kind() == change.Bytes {
			return appendHex(dst, v.Bytes(), w.pad), nil
		}
	case formBits:
		if v.Kind() == change.Bytes && len(v.Bytes()) <= 8 {
			var n uint64
			for _, b := range v.Bytes() {
				n = n<<8 | uint64(b)
			}
			return strconv.AppendUint(dst, n, 10), nil
		}
	case formMoment:
		if v.Kind() == change.Text && momentLike(v.Bytes()) {
			return appendQuoted(dst, v.Bytes()), nil
		}
	case formEnum, formSet:
		return w.appendMembers(dst, v)
	case formDocument:
		if v.Kind() == change.Document || v.Kind() == change.Text {
			return w.appendDocument(dst, v)
		}
	case formPlainJSON:
		if v.Kind() == change.Document || v.Kind() == change.Text {
			return appendText(dst, w.introducer, v.Bytes()), nil
		}
	}
	return dst, w.fault(v, "does not fit the column's type")
}

func (w *writer) fault(v change.Value, what string) error {
	return fmt.Errorf("value of column %q (kind %d, %d bytes) %s", w.column, v.Kind(), len(v.Bytes()), what)
}

// plain: every byte is printable ASCII and neither quote nor backslash, so that
// 'bytes' means the same everywhere.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' {
			return false
		}
	}
	return true
}

func appendQuoted(dst, b []byte) []byte {
	return append(append(append(dst, '\''), b...), '\'')
}

// appendHex writes x'..', filled up with zero bytes to at least pad bytes.
func appendHex(dst, b []byte, pad int) []byte {
	dst = append(dst, 'x', '\'')
	dst = hex.AppendEncode(dst, b)
	for n := len(b); n < pad; n++ {
		dst = append(dst, '0', '0')
	}
	return append(dst, '\'')
}

func appendText(dst []byte, introducer string, b []byte) []byte {
	if plain(b) {
		return appendQuoted(dst, b)
	}
	return appendHex(append(dst, introducer...), b, 0)
}

// Literal writes text as a value in a statement.
func Literal(s string) string { return string(appendText(nil, "_utf8mb4 ", []byte(s))) }

// appendIdentifier quotes a name.
func appendIdentifier(dst []byte, name string) []byte {
	dst = append(dst, '`')
	dst = append(dst, strings.ReplaceAll(name, "`", "``")...)
	return append(dst, '`')
}

func (w *writer) appendNumber(dst []byte, v change.Value) ([]byte, error) {
	switch v.Kind() {
	case change.Integer:
		return strconv.AppendInt(dst, v.Integer(), 10), nil
	case change.Text:
		if !digits(v.Bytes()) {
			return dst, w.fault(v, "is not a number")
		}
		return append(dst, v.Bytes()...), nil
	}
	return dst, w.fault(v, "does not fit the column's type")
}

// digits: -?[0-9]+(\.[0-9]+)?
func digits(b []byte) bool {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	whole, point, fraction := 0, false, 0
	for _, c := range b {
		switch {
		case c == '.' && !point && whole > 0:
			point = true
		case c < '0' || c > '9':
			return false
		case point:
			fraction++
		default:
			whole++
		}
	}
	return whole > 0 && (!point || fraction > 0)
}

// momentLike: only what dates and times are made of.
func momentLike(b []byte) bool {
	if len(b) == 0 || len(b) > 32 {
		return false
	}
	for _, c := range b {
		if (c < '0' || c > '9') && c != '-' && c != ':' && c != '.' && c != ' ' {
			return false
		}
	}
	return true
}

// appendFloat writes the shortest digits that read back as the same double. A
// FLOAT is written as the double it is equal to, since servers read a literal
// as double first: its own shortest digits could be rounded twice.
func (w *writer) appendFloat(dst []byte, v change.Value, f float64, bits int) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, w.fault(v, "is not a finite number")
	}
	if f == 0 && math.Signbit(f) {
		if !w.signedZero {
			return dst, w.fault(v, "is -0.0, which this MariaDB stores as 0.0")
		}
		return append(dst, "-0e0"...), nil
	}
	if w.decimals >= 0 {
		// The target's FLOAT(M,D) rounds silently, in binary and by this very
		// formula (Field_real::truncate): what it leaves alone is not always
		// what decimal rounding leaves alone.
		scale := math.Pow10(w.decimals)
		r := math.Floor(f) + math.RoundToEven((f-math.Floor(f))*scale)/scale
		if bits == 32 {
			r = float64(float32(r))
		}
		if r != f {
			return dst, w.fault(v, fmt.Sprintf("has more than the target's %d digits after the point", w.decimals))
		}
	}
	return strconv.AppendFloat(dst, f, 'e', -1, 64), nil
}

func (w *writer) appendMembers(dst []byte, v change.Value) ([]byte, error) {
	switch {
	case v.Kind() == change.Ordinal && v.Integer() == 0 && w.form == formEnum:
		return append(dst, '0'), nil
	case v.Kind() != change.Text:
		return dst, w.fault(v, "does not fit the column's type")
	case w.form == formEnum:
		n, ok := w.ordinals[string(v.Bytes())]
		if !ok {
			return dst, w.fault(v, "is not one of the column's labels")
		}
		return strconv.AppendUint(dst, n, 10), nil
	}
	var bits uint64
	for rest := string(v.Bytes()); rest != ""; {
		label, more, _ := strings.Cut(rest, ",")
		n, ok := w.ordinals[label]
		if !ok {
			return dst, w.fault(v, "is not one of the column's labels")
		}
		bits |= n
		rest = more
	}
	return strconv.AppendUint(dst, bits, 10), nil
}

// appendKey renders a value to compare a column with. A SET compares as a signed
// number, whose first bit its 64th label takes.
func (w *writer) appendKey(dst []byte, v change.Value) ([]byte, error) {
	start := len(dst)
	dst, err := w.append(dst, v)
	if w.form != formSet || err != nil || v.IsNull() {
		return dst, err
	}
	bits, err := strconv.ParseUint(string(dst[start:]), 10, 64)
	return strconv.AppendInt(dst[:start], int64(bits), 10), err
}

// isErrorValue: an ENUM's ordinal 0, which strict mode refuses.
func isErrorValue(v change.Value) bool { return v.Kind() == change.Ordinal && v.Integer() == 0 }

// appendExact appends a condition that is true when the target column holds the
// value bit for bit, whatever its collation or type calls equal.
func (w *writer) appendExact(dst []byte, column []byte, v change.Value, c *schema.Column) ([]byte, error) {
	wrap := func(before, after string) ([]byte, error) {
		dst = append(dst, before...)
		dst = append(dst, column...)
		dst = append(dst, after...)
		dst = append(dst, " <=> "...)
		dst = append(dst, before...)
		var err error
		if dst, err = w.append(dst, v); err != nil {
			return dst, err
		}
		return append(dst, after...), nil
	}
	if v.IsNull() {
		return append(append(dst, column...), " IS NULL"...), nil
	}
	switch w.form {
	case formText, formEncoded, formPlainJSON:
		// The literal must be in the column's charset before bytes compare.
		dst = append(append(append(dst, "CAST("...), column...), " AS BINARY) <=> CAST(CONVERT("...)
		var err error
		if dst, err = w.append(dst, v); err != nil {
			return dst, err
		}
		return append(append(append(dst, " USING "...), charsetName(c.Charset)...), ") AS BINARY)"...), nil
	case formDocument:
		return wrap("CAST(CAST(", " AS CHAR CHARACTER SET utf8mb4) AS BINARY)")
	case formHex:
		if w.typ == schema.Geometry || w.typ == schema.Vector {
			return wrap("HEX(", ")")
		}
	case formEnum, formSet:
		// As a number: a comparison with text would go by label.
		dst = append(append(append(dst, "CAST("...), column...), " AS UNSIGNED) <=> "...)
		return w.append(dst, v)
	case formSingle, formReal:
		var err error
		if dst, err = wrap("", ""); err != nil {
			return dst, err
		}
		zero := v.Kind() == change.Single && v.Single() == 0 || v.Kind() == change.Real && v.Real() == 0
		if zero && w.signedZero {
			dst = append(append(append(dst, " AND CAST("...), column...), " AS CHAR) LIKE '"...)
			if v.Kind() == change.Single && math.Signbit(float64(v.Single())) || v.Kind() == change.Real && math.Signbit(v.Real()) {
				dst = append(dst, '-')
			}
			dst = append(dst, "0%'"...)
		}
		return dst, nil
	}
	return wrap("", "")
}
