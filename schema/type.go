package schema

import (
	"fmt"
	"strconv"
	"strings"
)

// typeWords are the names of types in SQL and in a table's JSON. They are part of
// the stored format: never rename one.
var typeWords = [...]string{
	TinyInt: "tinyint", SmallInt: "smallint", MediumInt: "mediumint", Int: "int", BigInt: "bigint",
	Decimal: "decimal", Float: "float", Double: "double", Bit: "bit", Year: "year",
	Date: "date", Time: "time", DateTime: "datetime", Timestamp: "timestamp",
	Char: "char", VarChar: "varchar", Binary: "binary", VarBinary: "varbinary",
	TinyText: "tinytext", Text: "text", MediumText: "mediumtext", LongText: "longtext",
	TinyBlob: "tinyblob", Blob: "blob", MediumBlob: "mediumblob", LongBlob: "longblob",
	Enum: "enum", Set: "set", JSON: "json", Geometry: "geometry", Vector: "vector",
}

var typesByWord = func() map[string]Type {
	m := make(map[string]Type, len(typeWords))
	for t, w := range typeWords {
		if w != "" {
			m[w] = Type(t)
		}
	}
	return m
}()

// String is the type's SQL word in lower case.
func (t Type) String() string {
	if int(t) < len(typeWords) && typeWords[t] != "" {
		return typeWords[t]
	}
	return fmt.Sprintf("type-%d", uint8(t))
}

// MarshalText is the SQL word.
func (t Type) MarshalText() ([]byte, error) {
	if int(t) < len(typeWords) && typeWords[t] != "" {
		return []byte(typeWords[t]), nil
	}
	return nil, fmt.Errorf("column type %d has no name", uint8(t))
}

// UnmarshalText reads the SQL word.
func (t *Type) UnmarshalText(b []byte) error {
	x, ok := typesByWord[string(b)]
	if !ok {
		return fmt.Errorf("unknown column type %q", b)
	}
	*t = x
	return nil
}

// IsCharacter tells whether values are text of a charset (Enum and Set are not).
func (t Type) IsCharacter() bool {
	switch t {
	case Char, VarChar, TinyText, Text, MediumText, LongText:
		return true
	}
	return false
}

// IsBinary tells whether values are byte strings without a charset.
func (t Type) IsBinary() bool {
	switch t {
	case Binary, VarBinary, TinyBlob, Blob, MediumBlob, LongBlob:
		return true
	}
	return false
}

// IsNumeric tells whether the type can be unsigned.
func (t Type) IsNumeric() bool {
	switch t {
	case TinyInt, SmallInt, MediumInt, Int, BigInt, Decimal, Float, Double:
		return true
	}
	return false
}

// wideCharsets are the charsets whose characters take more than one byte, with
// the most they take.
var wideCharsets = map[string]int{
	"utf8mb4": 4, "utf8mb3": 3, "utf8": 3, "ucs2": 2, "utf16": 4, "utf16le": 4, "utf32": 4,
	"gbk": 2, "gb2312": 2, "gb18030": 4, "big5": 2, "sjis": 2, "cp932": 2, "ujis": 3, "eucjpms": 3, "euckr": 2,
}

// CharsetMaxLen is how many bytes the charset's longest character takes.
func CharsetMaxLen(charset string) int {
	if n, ok := wideCharsets[charset]; ok {
		return n
	}
	return 1
}

// SQLType writes the column's type for people, as far as a row event knows it:
// "varchar(20) character set latin1 collate latin1_bin not null". Lengths of text
// are in characters.
func (c *Column) SQLType() string {
	var b strings.Builder
	word := c.Type.String()
	if c.Type == Geometry && c.Geometry != "" {
		word = c.Geometry
	}
	b.WriteString(word)
	switch c.Type {
	case Char, VarChar:
		fmt.Fprintf(&b, "(%d)", c.Length/CharsetMaxLen(c.Charset))
	case Binary, VarBinary, Bit, Vector:
		fmt.Fprintf(&b, "(%d)", c.Length)
	case Decimal:
		fmt.Fprintf(&b, "(%d,%d)", c.Precision, c.Scale)
	case Time, DateTime, Timestamp:
		if c.Scale > 0 {
			fmt.Fprintf(&b, "(%d)", c.Scale)
		}
	case Enum, Set:
		b.WriteByte('(')
		for i, m := range c.Members {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString("'" + strings.ReplaceAll(m, "'", "''") + "'")
		}
		b.WriteByte(')')
	}
	if c.Unsigned {
		b.WriteString(" unsigned")
	}
	if c.Charset != "" {
		b.WriteString(" character set " + c.Charset)
	}
	if c.Collation != "" {
		b.WriteString(" collate " + c.Collation)
	}
	if !c.Nullable {
		b.WriteString(" not null")
	}
	if c.Invisible {
		b.WriteString(" invisible")
	}
	return b.String()
}

// KeyColumns names the primary key's columns with their prefixes: "id", "name(3)".
func (t *Table) KeyColumns() []string {
	out := make([]string, 0, len(t.PrimaryKey))
	for _, p := range t.PrimaryKey {
		s := fmt.Sprintf("column-%d", p.Column)
		if p.Column >= 0 && p.Column < len(t.Columns) {
			s = t.Columns[p.Column].Name
		}
		if p.Prefix > 0 {
			s += "(" + strconv.Itoa(p.Prefix) + ")"
		}
		out = append(out, s)
	}
	return out
}
