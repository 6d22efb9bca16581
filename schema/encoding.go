package schema

// Encoding is how a column's values travel in Avro. A nullable column is the
// union of null and this, null first.
type Encoding uint8

// The encodings.
const (
	EncodingInvalid Encoding = iota
	EncodingInt              // Avro int
	EncodingLong             // Avro long
	EncodingFloat            // Avro float
	EncodingDouble           // Avro double
	EncodingString           // Avro string, UTF-8
	EncodingBytes            // Avro bytes
	// EncodingEnum is a union: the label as string, or an int where there is
	// no label (ordinal 0, the error value).
	EncodingEnum
	// EncodingDocument is a union: the JSON text as string, or a record of
	// text and the server's binary form where the text loses types.
	EncodingDocument
)

// Encoding tells how the column's values travel.
func (c *Column) Encoding() Encoding {
	switch c.Type {
	case TinyInt, SmallInt, MediumInt, Year:
		return EncodingInt
	case Int:
		if c.Unsigned {
			return EncodingLong
		}
		return EncodingInt
	case BigInt:
		if c.Unsigned {
			return EncodingString // digits: it does not fit a long
		}
		return EncodingLong
	case Decimal, Date, Time, DateTime, Timestamp, Set:
		return EncodingString
	case Float:
		return EncodingFloat
	case Double:
		return EncodingDouble
	case Char, VarChar, TinyText, Text, MediumText, LongText:
		if IsUTF8(c.Charset) {
			return EncodingString
		}
		return EncodingBytes
	case Bit, Binary, VarBinary, TinyBlob, Blob, MediumBlob, LongBlob, Geometry, Vector:
		return EncodingBytes
	case Enum:
		return EncodingEnum
	case JSON:
		return EncodingDocument
	}
	return EncodingInvalid
}

// IsUTF8 tells whether text of a charset is UTF-8 as it is stored.
func IsUTF8(charset string) bool {
	switch charset {
	case "utf8mb4", "utf8mb3", "utf8", "ascii":
		return true
	}
	return false
}
