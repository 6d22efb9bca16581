package schema

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// FingerprintOf is the SHA-256 over the table's canonical descriptor:
//
//	descriptor = "twinspan table 1\n" string(schema) string(table)
//	             uint(number of columns) column*
//	             uint(number of key parts) part*
//	column     = string(name) string(type's word) uint(flags)
//	             uint(length) uint(precision) uint(scale)
//	             string(charset) string(collation)
//	             uint(number of members) string(member)* string(geometry)
//	part       = uint(column index) uint(prefix)
//	string     = uint(number of bytes) bytes
//	uint       = unsigned LEB128, the shortest form
//	flags      = 1 nullable, 2 unsigned, 4 invisible
//
// Everything a reader needs to decode and apply a row is in it, so equal
// fingerprints mean interchangeable definitions, and a later version of this
// program must never change the layout under the same first line.
func FingerprintOf(t *Table) Fingerprint {
	return sha256.Sum256(appendDescriptor(make([]byte, 0, 64+64*len(t.Columns)), t))
}

func appendDescriptor(b []byte, t *Table) []byte {
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	num := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }

	b = append(b, "twinspan table 1\n"...)
	str(t.Name.Schema)
	str(t.Name.Table)
	num(len(t.Columns))
	for i := range t.Columns {
		c := &t.Columns[i]
		flags := 0
		if c.Nullable {
			flags |= 1
		}
		if c.Unsigned {
			flags |= 2
		}
		if c.Invisible {
			flags |= 4
		}
		str(c.Name)
		str(c.Type.String())
		num(flags)
		num(c.Length)
		num(c.Precision)
		num(c.Scale)
		str(c.Charset)
		str(c.Collation)
		num(len(c.Members))
		for _, m := range c.Members {
			str(m)
		}
		str(c.Geometry)
	}
	num(len(t.PrimaryKey))
	for _, p := range t.PrimaryKey {
		num(p.Column)
		num(p.Prefix)
	}
	return b
}

// ParseFingerprint reads the 64 hex digits that String writes.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	if len(s) != 2*len(f) {
		return f, fmt.Errorf("fingerprint %q: want %d hex digits, have %d characters", s, 2*len(f), len(s))
	}
	if _, err := hex.Decode(f[:], []byte(s)); err != nil {
		return f, fmt.Errorf("fingerprint %q: %w", s, err)
	}
	return f, nil
}
