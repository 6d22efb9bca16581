package schema

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// ErrInvalidTable is wrapped by every error of Validate.
var ErrInvalidTable = errors.New("invalid table definition")

// Bounds of a definition: the servers' own.
const (
	MaxColumns  = 4096
	maxName     = 64 * 4 // bytes
	maxMembers  = 65535
	maxSet      = 64
	maxChar     = 255 * 4
	maxVarChar  = 65535
	maxVector   = 16383
	maxKeyParts = 64
)

// Validate checks what the rest of the program relies on: names that are UTF-8
// and not twice there, types with the attributes they need and no others, key
// parts that exist. It is the gate for definitions that came over the wire.
func (t *Table) Validate() error {
	if err := t.validate(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalidTable, t.Name, err)
	}
	return nil
}

func (t *Table) validate() error {
	if !validName(t.Name.Schema) || !validName(t.Name.Table) {
		return errors.New("the name is empty, too long, or not UTF-8")
	}
	if n := len(t.Columns); n == 0 || n > MaxColumns {
		return fmt.Errorf("%d columns: want 1 to %d", n, MaxColumns)
	}
	seen := make(map[string]bool, len(t.Columns))
	for i := range t.Columns {
		c := &t.Columns[i]
		if !validName(c.Name) {
			return fmt.Errorf("column %d: the name is empty, too long, or not UTF-8", i)
		}
		if seen[c.Name] {
			return fmt.Errorf("column %s is there twice", c.Name)
		}
		seen[c.Name] = true
		if err := c.validate(); err != nil {
			return fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	if len(t.PrimaryKey) > maxKeyParts {
		return fmt.Errorf("%d key parts", len(t.PrimaryKey))
	}
	inKey := make(map[int]bool, len(t.PrimaryKey))
	for _, p := range t.PrimaryKey {
		if p.Column < 0 || p.Column >= len(t.Columns) || p.Prefix < 0 || p.Prefix > maxVarChar {
			return fmt.Errorf("primary key: no column %d, or prefix %d", p.Column, p.Prefix)
		}
		if inKey[p.Column] {
			return fmt.Errorf("primary key: column %s is there twice", t.Columns[p.Column].Name)
		}
		inKey[p.Column] = true
	}
	return nil
}

func validName(s string) bool { return s != "" && len(s) <= maxName && utf8.ValidString(s) }

func (c *Column) validate() error {
	if c.Encoding() == EncodingInvalid {
		return fmt.Errorf("unknown type %s", c.Type)
	}
	length := func(lo, hi int) error {
		if c.Length < lo || c.Length > hi {
			return fmt.Errorf("%s of length %d: want %d to %d", c.Type, c.Length, lo, hi)
		}
		return nil
	}
	var err error
	switch c.Type {
	case Char, Binary:
		err = length(0, maxChar)
	case VarChar, VarBinary:
		err = length(0, maxVarChar)
	case Bit:
		err = length(1, 64)
	case Vector:
		err = length(1, maxVector)
	default:
		err = length(0, 0)
	}
	if err != nil {
		return err
	}
	switch c.Type {
	case Decimal:
		if c.Precision < 1 || c.Precision > 65 || c.Scale < 0 || c.Scale > c.Precision {
			return fmt.Errorf("decimal(%d,%d)", c.Precision, c.Scale)
		}
	case Time, DateTime, Timestamp:
		if c.Precision != 0 || c.Scale < 0 || c.Scale > 6 {
			return fmt.Errorf("%s with %d fractional digits", c.Type, c.Scale)
		}
	default:
		if c.Precision != 0 || c.Scale != 0 {
			return fmt.Errorf("%s with precision or scale", c.Type)
		}
	}
	if c.Unsigned && !c.Type.IsNumeric() {
		return fmt.Errorf("unsigned %s", c.Type)
	}
	labelled := c.Type == Enum || c.Type == Set
	if charset := c.Type.IsCharacter() || labelled; charset != (c.Charset != "") || charset != (c.Collation != "") {
		return fmt.Errorf("%s with charset %q and collation %q", c.Type, c.Charset, c.Collation)
	}
	if !validText(c.Charset) || !validText(c.Collation) {
		return errors.New("charset or collation is not UTF-8")
	}
	if (c.Type == Geometry) != (c.Geometry != "") || !validText(c.Geometry) {
		return fmt.Errorf("%s with geometry subtype %q", c.Type, c.Geometry)
	}
	switch {
	case !labelled && len(c.Members) > 0:
		return fmt.Errorf("%s with members", c.Type)
	case labelled && len(c.Members) == 0, c.Type == Set && len(c.Members) > maxSet, len(c.Members) > maxMembers:
		return fmt.Errorf("%s of %d members", c.Type, len(c.Members))
	}
	for _, m := range c.Members {
		if !utf8.ValidString(m) {
			return fmt.Errorf("member %q is not UTF-8", m)
		}
	}
	return nil
}

func validText(s string) bool { return len(s) <= maxName && utf8.ValidString(s) }
