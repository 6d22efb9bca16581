package binlog

import (
	"fmt"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/twinspan/twinspan/schema"
)

// shape is a way a column is stored in a row image.
type shape uint8

const (
	shapeTiny shape = iota + 1
	shapeShort
	shapeInt24
	shapeLong
	shapeLongLong
	shapeFloat
	shapeDouble
	shapeDecimal
	shapeYear
	shapeBit
	shapeDate
	shapeTime
	shapeDateTime
	shapeTimestamp
	shapeOldTime
	shapeOldDateTime
	shapeOldTimestamp
	shapeChar    // CHAR, BINARY
	shapeVarChar // VARCHAR, VARBINARY
	shapeBlob    // TEXT and BLOB of all sizes
	shapeEnum
	shapeSet
	shapeJSON
	shapeGeometry
	shapeVector
)

// wire is how one column is stored in a row image: what the table map's type
// and type metadata say.
type wire struct {
	shape            shape
	precision, scale int // decimal; scale also: fractional digits
	length           int // char, varchar: bytes at most; bit: bits
	pack             int // enum, set: bytes; blob and kin: bytes of the length
}

// Type codes that go-mysql has no name for.
const (
	typeMariaDBBlobCompressed    = 140
	typeMariaDBVarcharCompressed = 141
)

// wireOf reads one column's type and metadata, the latter as go-mysql packs it.
func wireOf(code byte, meta uint16) (wire, error) {
	lo, hi := int(meta&0xff), int(meta>>8)
	var w wire
	switch code {
	case mysql.MYSQL_TYPE_TINY:
		w.shape = shapeTiny
	case mysql.MYSQL_TYPE_SHORT:
		w.shape = shapeShort
	case mysql.MYSQL_TYPE_INT24:
		w.shape = shapeInt24
	case mysql.MYSQL_TYPE_LONG:
		w.shape = shapeLong
	case mysql.MYSQL_TYPE_LONGLONG:
		w.shape = shapeLongLong
	case mysql.MYSQL_TYPE_FLOAT:
		w.shape = shapeFloat
	case mysql.MYSQL_TYPE_DOUBLE:
		w.shape = shapeDouble
	case mysql.MYSQL_TYPE_NEWDECIMAL:
		w = wire{shape: shapeDecimal, precision: hi, scale: lo}
		if hi < 1 || hi > 65 || lo > 38 || lo > hi {
			return w, fmt.Errorf("%w: decimal(%d,%d)", ErrDamaged, hi, lo)
		}
	case mysql.MYSQL_TYPE_YEAR:
		w.shape = shapeYear
	case mysql.MYSQL_TYPE_BIT:
		w = wire{shape: shapeBit, length: hi*8 + lo}
		if lo > 7 || w.length < 1 || w.length > 64 {
			return w, fmt.Errorf("%w: bit of %d bytes and %d bits", ErrDamaged, hi, lo)
		}
	case mysql.MYSQL_TYPE_DATE, mysql.MYSQL_TYPE_NEWDATE:
		w.shape = shapeDate
	case mysql.MYSQL_TYPE_TIME:
		w.shape = shapeOldTime
	case mysql.MYSQL_TYPE_DATETIME:
		w.shape = shapeOldDateTime
	case mysql.MYSQL_TYPE_TIMESTAMP:
		w.shape = shapeOldTimestamp
	case mysql.MYSQL_TYPE_TIME2:
		w = wire{shape: shapeTime, scale: lo}
	case mysql.MYSQL_TYPE_DATETIME2:
		w = wire{shape: shapeDateTime, scale: lo}
	case mysql.MYSQL_TYPE_TIMESTAMP2:
		w = wire{shape: shapeTimestamp, scale: lo}
	case mysql.MYSQL_TYPE_VARCHAR, mysql.MYSQL_TYPE_VAR_STRING:
		w = wire{shape: shapeVarChar, length: int(meta)}
	case mysql.MYSQL_TYPE_STRING:
		return wireOfString(hi, lo)
	case mysql.MYSQL_TYPE_BLOB:
		w = wire{shape: shapeBlob, pack: lo}
	case mysql.MYSQL_TYPE_JSON:
		w = wire{shape: shapeJSON, pack: lo}
	case mysql.MYSQL_TYPE_GEOMETRY:
		w = wire{shape: shapeGeometry, pack: lo}
	case mysql.MYSQL_TYPE_VECTOR:
		w = wire{shape: shapeVector, pack: lo}
	case typeMariaDBBlobCompressed, typeMariaDBVarcharCompressed:
		return w, fmt.Errorf("%w: COMPRESSED column (type %d)", ErrColumnType, code)
	default:
		return w, fmt.Errorf("%w: type %d", ErrColumnType, code)
	}
	switch w.shape {
	case shapeTime, shapeDateTime, shapeTimestamp:
		if w.scale > 6 {
			return w, fmt.Errorf("%w: %d fractional digits", ErrDamaged, w.scale)
		}
	case shapeBlob, shapeJSON, shapeGeometry, shapeVector:
		if w.pack < 1 || w.pack > 4 {
			return w, fmt.Errorf("%w: length of %d bytes", ErrDamaged, w.pack)
		}
	}
	return w, nil
}

// wireOfString tells CHAR, ENUM and SET apart. A CHAR of up to 1023 bytes keeps
// bits 8 and 9 of its length, inverted, in bits 4 and 5 of the type's byte.
func wireOfString(hi, lo int) (wire, error) {
	if hi&0x30 != 0x30 {
		lo |= hi&0x30<<4 ^ 0x300
		hi |= 0x30
	}
	switch byte(hi) {
	case mysql.MYSQL_TYPE_ENUM:
		if lo < 1 || lo > 2 {
			return wire{}, fmt.Errorf("%w: enum of %d bytes", ErrDamaged, lo)
		}
		return wire{shape: shapeEnum, pack: lo}, nil
	case mysql.MYSQL_TYPE_SET:
		if lo < 1 || lo > 8 {
			return wire{}, fmt.Errorf("%w: set of %d bytes", ErrDamaged, lo)
		}
		return wire{shape: shapeSet, pack: lo}, nil
	case mysql.MYSQL_TYPE_STRING, mysql.MYSQL_TYPE_VAR_STRING:
		return wire{shape: shapeChar, length: lo}, nil
	}
	return wire{}, fmt.Errorf("%w: string of type %d", ErrColumnType, hi)
}

// numeric tells whether the signedness metadata has a bit for the column.
func (w wire) numeric() bool {
	switch w.shape {
	case shapeTiny, shapeShort, shapeInt24, shapeLong, shapeLongLong, shapeFloat, shapeDouble, shapeDecimal, shapeYear:
		return true
	}
	return false
}

// describe fills in what the wire and the collation say of a column; collation
// is "binary" for what is not text.
func (w wire) describe(c *schema.Column, collation schema.Collation) {
	text := collation.Charset != "binary"
	pick := func(t, b schema.Type) {
		c.Type = b
		if text {
			c.Type = t
		}
	}
	switch w.shape {
	case shapeTiny:
		c.Type = schema.TinyInt
	case shapeShort:
		c.Type = schema.SmallInt
	case shapeInt24:
		c.Type = schema.MediumInt
	case shapeLong:
		c.Type = schema.Int
	case shapeLongLong:
		c.Type = schema.BigInt
	case shapeFloat:
		c.Type = schema.Float
	case shapeDouble:
		c.Type = schema.Double
	case shapeDecimal:
		c.Type, c.Precision, c.Scale = schema.Decimal, w.precision, w.scale
	case shapeYear:
		c.Type = schema.Year
	case shapeBit:
		c.Type, c.Length = schema.Bit, w.length
	case shapeDate:
		c.Type = schema.Date
	case shapeTime, shapeOldTime:
		c.Type, c.Scale = schema.Time, w.scale
	case shapeDateTime, shapeOldDateTime:
		c.Type, c.Scale = schema.DateTime, w.scale
	case shapeTimestamp, shapeOldTimestamp:
		c.Type, c.Scale = schema.Timestamp, w.scale
	case shapeChar:
		pick(schema.Char, schema.Binary)
		c.Length = w.length
	case shapeVarChar:
		pick(schema.VarChar, schema.VarBinary)
		c.Length = w.length
	case shapeBlob:
		switch w.pack {
		case 1:
			pick(schema.TinyText, schema.TinyBlob)
		case 2:
			pick(schema.Text, schema.Blob)
		case 3:
			pick(schema.MediumText, schema.MediumBlob)
		case 4:
			pick(schema.LongText, schema.LongBlob)
		}
	case shapeEnum:
		c.Type = schema.Enum
	case shapeSet:
		c.Type = schema.Set
	case shapeJSON:
		c.Type = schema.JSON
	case shapeGeometry:
		c.Type = schema.Geometry
	case shapeVector:
		c.Type = schema.Vector
	}
	switch w.shape {
	case shapeChar, shapeVarChar, shapeBlob:
		if text {
			c.Charset, c.Collation = collation.Charset, collation.Name
		}
	case shapeEnum, shapeSet:
		c.Charset, c.Collation = collation.Charset, collation.Name
	}
}

// fits checks that values stored as w are values of column c.
func (w wire) fits(c *schema.Column) error {
	ok := false
	switch w.shape {
	case shapeTiny:
		ok = c.Type == schema.TinyInt
	case shapeShort:
		ok = c.Type == schema.SmallInt
	case shapeInt24:
		ok = c.Type == schema.MediumInt
	case shapeLong:
		ok = c.Type == schema.Int
	case shapeLongLong:
		ok = c.Type == schema.BigInt
	case shapeFloat:
		ok = c.Type == schema.Float
	case shapeDouble:
		ok = c.Type == schema.Double
	case shapeDecimal:
		ok = c.Type == schema.Decimal && c.Precision == w.precision && c.Scale == w.scale
	case shapeYear:
		ok = c.Type == schema.Year
	case shapeBit:
		ok = c.Type == schema.Bit && c.Length == w.length
	case shapeDate:
		ok = c.Type == schema.Date
	case shapeTime:
		ok = c.Type == schema.Time && c.Scale == w.scale
	case shapeDateTime:
		ok = c.Type == schema.DateTime && c.Scale == w.scale
	case shapeTimestamp:
		ok = c.Type == schema.Timestamp && c.Scale == w.scale
	case shapeOldTime:
		ok = c.Type == schema.Time && c.Scale == 0
	case shapeOldDateTime:
		ok = c.Type == schema.DateTime && c.Scale == 0
	case shapeOldTimestamp:
		ok = c.Type == schema.Timestamp && c.Scale == 0
	case shapeChar:
		ok = (c.Type == schema.Char || c.Type == schema.Binary) && c.Length == w.length
	case shapeVarChar:
		ok = (c.Type == schema.VarChar || c.Type == schema.VarBinary) && c.Length == w.length
	case shapeBlob:
		switch c.Type {
		case schema.TinyText, schema.TinyBlob:
			ok = w.pack == 1
		case schema.Text, schema.Blob:
			ok = w.pack == 2
		case schema.MediumText, schema.MediumBlob:
			ok = w.pack == 3
		case schema.LongText, schema.LongBlob:
			ok = w.pack == 4
		}
	case shapeEnum:
		ok = c.Type == schema.Enum && (w.pack == 1) == (len(c.Members) < 256)
	case shapeSet:
		ok = c.Type == schema.Set && w.pack == setBytes(len(c.Members))
	case shapeJSON:
		ok = c.Type == schema.JSON
	case shapeGeometry:
		ok = c.Type == schema.Geometry
	case shapeVector:
		ok = c.Type == schema.Vector
	}
	if !ok {
		return fmt.Errorf("%w: stored as %+v, the definition says %+v", ErrMismatch, w, *c)
	}
	return nil
}

// setBytes is how many bytes a SET of n members takes.
func setBytes(n int) int {
	if b := (n + 7) / 8; b <= 4 {
		return b
	}
	return 8
}
