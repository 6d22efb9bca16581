package binlog

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/twinspan/twinspan/change"
)

// image decodes one row image at the start of b and returns what follows it.
func (d *Decoder) image(b []byte, a *Arena) ([]change.Value, []byte, error) {
	size := (len(d.columns) + 7) / 8
	if len(b) < size {
		return nil, nil, fmt.Errorf("%w: null bitmap cut short", ErrDamaged)
	}
	nulls := b[:size]
	b = b[size:]
	row := a.row(len(d.columns))
	for i := range d.columns {
		c := &d.columns[i]
		if nulls[i>>3]&(1<<(i&7)) != 0 {
			if !c.nullable {
				return nil, nil, fmt.Errorf("column %s: %w: NULL where it can't be", d.table.Columns[i].Name, ErrDamaged)
			}
			row[i] = change.Value{}
			continue
		}
		n, err := c.value(&row[i], b, a)
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", d.table.Columns[i].Name, err)
		}
		b = b[n:]
	}
	return row, b, nil
}

var errShort = fmt.Errorf("%w: row image cut short", ErrDamaged)

// value decodes one value at the start of b into v and returns its stored size.
func (c *column) value(v *change.Value, b []byte, a *Arena) (int, error) {
	if len(b) < c.size {
		return 0, errShort
	}
	switch c.shape {
	case shapeTiny:
		if c.unsigned {
			*v = change.IntegerOf(int64(b[0]))
		} else {
			*v = change.IntegerOf(int64(int8(b[0])))
		}
	case shapeShort:
		u := binary.LittleEndian.Uint16(b)
		if c.unsigned {
			*v = change.IntegerOf(int64(u))
		} else {
			*v = change.IntegerOf(int64(int16(u)))
		}
	case shapeInt24:
		u := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
		if c.unsigned {
			*v = change.IntegerOf(int64(u))
		} else {
			*v = change.IntegerOf(int64(int32(u<<8) >> 8))
		}
	case shapeLong:
		u := binary.LittleEndian.Uint32(b)
		if c.unsigned {
			*v = change.IntegerOf(int64(u))
		} else {
			*v = change.IntegerOf(int64(int32(u)))
		}
	case shapeLongLong:
		u := binary.LittleEndian.Uint64(b)
		if c.unsigned {
			*v = change.TextOf(a.keep(strconv.AppendUint(a.text, u, 10)))
		} else {
			*v = change.IntegerOf(int64(u))
		}
	case shapeFloat:
		*v = change.SingleOf(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case shapeDouble:
		*v = change.RealOf(math.Float64frombits(binary.LittleEndian.Uint64(b)))
	case shapeYear:
		y := int64(b[0])
		if y != 0 {
			y += 1900
		}
		*v = change.IntegerOf(y)
	case shapeBit:
		*v = change.BytesOf(b[:c.size:c.size])
	case shapeEnum:
		return c.size, c.enum(v, b)
	case shapeSet:
		return c.size, c.set(v, b, a)
	case shapeChar, shapeVarChar:
		return c.short(v, b, a)
	case shapeBlob, shapeGeometry, shapeVector, shapeJSON:
		return c.long(v, b, a)
	default:
		t, err := c.temporal(a.text, b[:c.size])
		if err != nil {
			return 0, err
		}
		*v = change.TextOf(a.keep(t))
	}
	return c.size, nil
}

// temporal appends what travels as formatted text: decimals, dates and times.
func (c *column) temporal(dst, b []byte) ([]byte, error) {
	switch c.shape {
	case shapeDecimal:
		return appendDecimal(dst, b, c.precision, c.scale)
	case shapeDate:
		return appendDate(dst, b)
	case shapeTime:
		return appendTime(dst, b, c.scale)
	case shapeDateTime:
		return appendDateTime(dst, b, c.scale)
	case shapeTimestamp:
		return appendTimestamp(dst, b, c.scale)
	case shapeOldTime:
		return appendOldTime(dst, b)
	case shapeOldDateTime:
		return appendOldDateTime(dst, b)
	case shapeOldTimestamp:
		return appendUnix(dst, binary.LittleEndian.Uint32(b), 0, 0), nil
	}
	return dst, ErrColumnType
}

func (c *column) enum(v *change.Value, b []byte) error {
	n := int(b[0])
	if c.size == 2 {
		n |= int(b[1]) << 8
	}
	switch {
	case n == 0:
		*v = change.OrdinalOf(0)
	case n > len(c.members):
		return fmt.Errorf("%w: enum value %d of %d", ErrDamaged, n, len(c.members))
	default:
		*v = change.TextOf(c.members[n-1])
	}
	return nil
}

func (c *column) set(v *change.Value, b []byte, a *Arena) error {
	var u uint64
	for i := c.size - 1; i >= 0; i-- {
		u = u<<8 | uint64(b[i])
	}
	if bits.Len64(u) > len(c.members) {
		return fmt.Errorf("%w: set value %x of %d members", ErrDamaged, u, len(c.members))
	}
	t := a.text
	for first := true; u != 0; u &= u - 1 {
		if !first {
			t = append(t, ',')
		}
		first = false
		t = append(t, c.members[bits.TrailingZeros64(u)]...)
	}
	*v = change.TextOf(a.keep(t))
	return nil
}

// short reads CHAR, VARCHAR and their binary kin: a length of one byte, of two
// where the column can be longer than 255 bytes, and the content.
func (c *column) short(v *change.Value, b []byte, a *Arena) (int, error) {
	if len(b) < 2 && (c.length > 255 || len(b) < 1) {
		return 0, errShort
	}
	n, head := int(b[0]), 1
	if c.length > 255 {
		n, head = n|int(b[1])<<8, 2
	}
	end := head + n
	if len(b) < end {
		return 0, errShort
	}
	if n > c.length {
		return 0, fmt.Errorf("%w: %d bytes in a column of %d", ErrDamaged, n, c.length)
	}
	content := b[head:end:end]
	switch {
	case c.utf8:
		*v = change.TextOf(content)
	case n < c.pad:
		// The binlog leaves out the trailing zeros of a BINARY.
		t := append(a.text, content...)
		for range c.pad - n {
			t = append(t, 0)
		}
		*v = change.BytesOf(a.keep(t))
	default:
		*v = change.BytesOf(content)
	}
	return end, nil
}

// long reads what has a little-endian length of one to four bytes.
func (c *column) long(v *change.Value, b []byte, a *Arena) (int, error) {
	if len(b) < c.pack {
		return 0, errShort
	}
	n := 0
	for i := c.pack - 1; i >= 0; i-- {
		n = n<<8 | int(b[i])
	}
	end := c.pack + n
	if n > len(b)-c.pack {
		return 0, errShort
	}
	content := b[c.pack:end:end]
	switch {
	case c.shape == shapeJSON:
		return end, document(v, content, a)
	case c.utf8:
		*v = change.TextOf(content)
	default:
		*v = change.BytesOf(content)
	}
	return end, nil
}

// document turns stored JSON into a Document: its text and, where that loses
// something, the stored form behind it.
func document(v *change.Value, doc []byte, a *Arena) error {
	from := len(a.text)
	t, exact, err := AppendJSON(slices.Grow(a.text, len(doc)+len(doc)/2), doc)
	if err != nil {
		return err
	}
	n := len(t) - from
	if !exact {
		t = append(t, doc...)
	}
	*v = change.DocumentJoined(a.keep(t), n)
	return nil
}
