package causality

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/applier/collate"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// formOf chooses the canonical form of a key column. It answers with a reason
// where the target's equality can't be told from the source's value; such a
// table is serial.
func formOf(flavor server.Flavor, source, t *schema.Column, prefix int) (form, string) {
	differ := fmt.Sprintf("%s at the source, %s at the target", source.SQLType(), t.SQLType())
	switch {
	case isInteger(source.Type) && isInteger(t.Type):
		return integerForm, ""
	case source.Type == schema.Decimal && t.Type == schema.Decimal:
		if source.Scale != t.Scale {
			return nil, differ // the target rounds
		}
		return decimalForm, ""
	case isTime(source.Type) && source.Type == t.Type:
		if source.Scale != t.Scale {
			return nil, differ
		}
		return timeForm, ""
	case source.Type == schema.Year && t.Type == schema.Year:
		return integerForm, ""
	case source.Type == schema.Bit && t.Type == schema.Bit:
		return bitForm, ""
	case source.Type == schema.Enum && t.Type == schema.Enum, source.Type == schema.Set && t.Type == schema.Set:
		if !slices.Equal(source.Members, t.Members) {
			return nil, "members differ"
		}
		return labelForm, ""
	case isBytes(source.Type) && isBytes(t.Type):
		// BINARY(n) is compared with its padding of zeros, which an image
		// may or may not carry.
		return bytesForm(prefix, source.Type == schema.Binary || t.Type == schema.Binary), ""
	case source.Type.IsCharacter() && t.Type.IsCharacter():
		return characterForm(flavor, source, t, prefix, differ)
	case source.Type != t.Type:
		return nil, differ
	}
	return nil, strings.ToLower(t.SQLType()) + " values have no exact equality"
}

func isInteger(t schema.Type) bool { return t >= schema.TinyInt && t <= schema.BigInt }

func isTime(t schema.Type) bool {
	return t == schema.Date || t == schema.Time || t == schema.DateTime || t == schema.Timestamp
}

func isBytes(t schema.Type) bool {
	switch t {
	case schema.Binary, schema.VarBinary, schema.TinyBlob, schema.Blob, schema.MediumBlob, schema.LongBlob:
		return true
	}
	return false
}

func characterForm(flavor server.Flavor, source, t *schema.Column, prefix int, differ string) (form, string) {
	if (source.Type == schema.Char) != (t.Type == schema.Char) {
		return nil, differ // one keeps trailing spaces, the other does not
	}
	sc, tc := charsetName(source.Charset), charsetName(t.Charset)
	if sc != tc && !(schema.IsUTF8(sc) && schema.IsUTF8(tc)) {
		return nil, fmt.Sprintf("charset %s at the source, %s at the target", sc, tc)
	}
	w, ok := collate.Lookup(flavor, t.Collation)
	if !ok {
		return nil, fmt.Sprintf("the equality of collation %q is not known", t.Collation)
	}
	kind := change.Bytes
	if schema.IsUTF8(sc) {
		kind = change.Text
	}
	return func(dst []byte, v change.Value) ([]byte, error) {
		if v.Kind() != kind {
			return nil, unexpected(v)
		}
		return w.Append(dst, v.Bytes(), prefix), nil
	}, ""
}

// charsetName: MariaDB and MySQL name one charset differently over time.
func charsetName(s string) string {
	if s = strings.ToLower(s); s == "utf8" {
		return "utf8mb3"
	}
	return s
}

func unexpected(v change.Value) error { return fmt.Errorf("kind %d: %w", v.Kind(), ErrValue) }

// integerForm: sign and magnitude, so that 1 of a BIGINT UNSIGNED (digits) and
// 1 of an INT (a number) agree.
func integerForm(dst []byte, v change.Value) ([]byte, error) {
	sign, u, err := integer(v)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(append(dst, sign), u), nil
}

// integerSize is the bytes of an integerForm.
const integerSize = 1 + 8

func integer(v change.Value) (sign byte, u uint64, err error) {
	switch v.Kind() {
	case change.Integer:
		n := v.Integer()
		if u = uint64(n); n < 0 {
			sign = 1
		}
	case change.Text:
		if u, err = strconv.ParseUint(string(v.Bytes()), 10, 64); err != nil {
			return 0, 0, fmt.Errorf("%q is not an unsigned number: %w", v.Bytes(), ErrValue)
		}
	default:
		return 0, 0, unexpected(v)
	}
	return sign, u, nil
}

// decimalForm: no leading zeros, no sign of zero. The fraction always has the
// column's digits.
func decimalForm(dst []byte, v change.Value) ([]byte, error) {
	if v.Kind() != change.Text {
		return nil, unexpected(v)
	}
	s := v.Bytes()
	negative := len(s) > 0 && s[0] == '-'
	s = bytes.TrimLeft(s, "+-")
	s = bytes.TrimLeft(s, "0")
	if negative && bytes.ContainsAny(s, "123456789") {
		dst = append(dst, '-')
	}
	return append(dst, s...), nil
}

// timeForm is the server's text, without the sign of zero.
func timeForm(dst []byte, v change.Value) ([]byte, error) {
	if v.Kind() != change.Text {
		return nil, unexpected(v)
	}
	s := v.Bytes()
	if len(s) > 0 && s[0] == '-' && !bytes.ContainsAny(s, "123456789") {
		s = s[1:]
	}
	return append(dst, s...), nil
}

func bitForm(dst []byte, v change.Value) ([]byte, error) {
	if v.Kind() != change.Bytes {
		return nil, unexpected(v)
	}
	return append(dst, bytes.TrimLeft(v.Bytes(), "\x00")...), nil
}

// labelForm: labels of one list are equal when their bytes are.
func labelForm(dst []byte, v change.Value) ([]byte, error) {
	switch v.Kind() {
	case change.Text:
		return append(append(dst, 'l'), v.Bytes()...), nil
	case change.Ordinal:
		return binary.AppendVarint(append(dst, 'o'), v.Integer()), nil
	}
	return nil, unexpected(v)
}

func bytesForm(prefix int, padded bool) form {
	return func(dst []byte, v change.Value) ([]byte, error) {
		if v.Kind() != change.Bytes {
			return nil, unexpected(v)
		}
		s := v.Bytes()
		if prefix > 0 && len(s) > prefix {
			s = s[:prefix]
		}
		if padded {
			s = bytes.TrimRight(s, "\x00")
		}
		return append(dst, s...), nil
	}
}
