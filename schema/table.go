// Package schema describes tables: their columns as a row event carries them,
// the fingerprint that names one version, the schema topic, and what a DDL
// statement does.
package schema

import "fmt"

// Name is a table's full name. It is compared byte by byte, as the binlog
// spells it.
type Name struct {
	Schema string `json:"schema"`
	Table  string `json:"table"`
}

func (n Name) String() string { return n.Schema + "." + n.Table }

// Type is a column type in SQL's words, without length or sign.
type Type uint8

// Column types of MySQL 9.7 and MariaDB 10.11 as they appear in row events.
const (
	Invalid Type = iota
	TinyInt
	SmallInt
	MediumInt
	Int
	BigInt
	Decimal
	Float
	Double
	Bit
	Year
	Date
	Time
	DateTime
	Timestamp
	Char
	VarChar
	Binary
	VarBinary
	TinyText
	Text
	MediumText
	LongText
	TinyBlob
	Blob
	MediumBlob
	LongBlob
	Enum
	Set
	JSON     // MySQL's binary JSON; MariaDB's JSON is LongText
	Geometry // subtype in Column.Geometry
	Vector   // length in Column.Length, in elements
)

// Column is one column as the binlog's table map with full metadata tells it.
// What the table map does not tell (defaults, comments, generated expressions,
// secondary keys) is deliberately absent: a fingerprint must come out the same
// from a row event and from the server's catalogue.
type Column struct {
	Name     string `json:"name"`
	Type     Type   `json:"type"`
	Nullable bool   `json:"nullable,omitempty"`
	Unsigned bool   `json:"unsigned,omitempty"`
	// Length: Char/VarChar/Binary/VarBinary in bytes as stored at most, Bit in
	// bits, Vector in elements. 0 otherwise.
	Length int `json:"length,omitempty"`
	// Precision and Scale of Decimal; Scale also holds the fractional digits
	// (0 to 6) of Time, DateTime, Timestamp.
	Precision int `json:"precision,omitempty"`
	Scale     int `json:"scale,omitempty"`
	// Charset and Collation by name for character types, Enum and Set; empty
	// for others.
	Charset   string   `json:"charset,omitempty"`
	Collation string   `json:"collation,omitempty"`
	Members   []string `json:"members,omitempty"` // Enum and Set, UTF-8, in order
	Geometry  string   `json:"geometry,omitempty"`
	// Invisible columns are in every row image and are written like others.
	Invisible bool `json:"invisible,omitempty"`
}

// KeyPart is one column of a key. Prefix is in characters (bytes for binary
// types); 0 means the whole column.
type KeyPart struct {
	Column int `json:"column"` // index into Table.Columns
	Prefix int `json:"prefix,omitempty"`
}

// Table is one version of a table: all a reader needs to decode its rows. It is
// immutable once published; share it by pointer.
type Table struct {
	Name    Name     `json:"name"`
	Columns []Column `json:"columns"`
	// PrimaryKey as the table map has it: where a table has none, that is the
	// first of its UNIQUE keys over whole columns that are NOT NULL. Empty: none
	// of these either.
	PrimaryKey []KeyPart `json:"primary_key,omitempty"`
}

// Fingerprint is the SHA-256 over a table's descriptor; see FingerprintOf.
type Fingerprint [32]byte

func (f Fingerprint) String() string { return fmt.Sprintf("%x", f[:]) }

// Short is the first 12 hex digits, for people.
func (f Fingerprint) Short() string { return fmt.Sprintf("%x", f[:6]) }
