package change

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twinspan/twinspan/schema"
)

var (
	// ErrMalformed is wrapped by every error about bytes that are not what
	// they should be: damage, or another program's.
	ErrMalformed = errors.New("malformed change data")
	// ErrValue: a value or an image does not fit its table version.
	ErrValue = errors.New("value does not fit its column")
)

// Codec writes and reads the payloads of one table version's rows: Avro binary
// under schema.AvroSchema, byte for byte what any Avro library makes of it. It
// is immutable and safe for concurrent use.
type Codec struct {
	table       *schema.Table
	fingerprint schema.Fingerprint
	name        string // table_name
	columns     []columnCodec
	head        []byte // table_name and schema_fingerprint as a batch's Row has them
}

type columnCodec struct {
	encoding schema.Encoding
	nullable bool
	// first is the union index, in Avro's zigzag, of the encoding's first
	// branch; meaningless where there is no union.
	first byte
}

// NewCodec fails when the table is not valid.
func NewCodec(t *schema.Table) (*Codec, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	c := &Codec{table: t, fingerprint: schema.FingerprintOf(t), name: t.Name.String(), columns: make([]columnCodec, len(t.Columns))}
	for i := range t.Columns {
		col := &t.Columns[i]
		c.columns[i] = columnCodec{encoding: col.Encoding(), nullable: col.Nullable}
		if col.Nullable {
			c.columns[i].first = 2
		}
	}
	c.head = append(appendString(nil, c.name), c.fingerprint[:]...)
	return c, nil
}

// Table is the table version the codec is for.
func (c *Codec) Table() *schema.Table { return c.table }

// Fingerprint is the table version's.
func (c *Codec) Fingerprint() schema.Fingerprint { return c.fingerprint }

// Origin is what a payload says of its row's transaction.
type Origin struct {
	GTID       string
	CommitTime time.Time // UTC, microseconds; zero where not known
}

// AppendRow appends the payload of r. r.Table is not looked at: the codec's is
// meant. It fails with ErrValue, and dst is then as it was.
func (c *Codec) AppendRow(dst []byte, r *Row, gtid string, commitTime time.Time) ([]byte, error) {
	if r.Op > Delete {
		return dst, fmt.Errorf("%s: operation %d: %w", c.table.Name, r.Op, ErrValue)
	}
	if (r.Before == nil) != (r.Op == Insert) || (r.After == nil) != (r.Op == Delete) {
		return dst, fmt.Errorf("%s: %s with before %v and after %v: %w", c.table.Name, r.Op, r.Before != nil, r.After != nil, ErrValue)
	}
	b := append(dst, byte(r.Op)<<1)
	for _, image := range [2][]Value{r.Before, r.After} {
		if image == nil {
			b = append(b, 0)
			continue
		}
		var err error
		if b, err = c.appendImage(append(b, 2), image); err != nil {
			return dst, err
		}
	}
	b = appendString(b, gtid)
	b = binary.AppendVarint(b, r.Position)
	b = binary.AppendVarint(b, micros(commitTime))
	return binary.AppendVarint(b, int64(r.Flags)), nil
}

func (c *Codec) appendImage(b []byte, image []Value) ([]byte, error) {
	if len(image) != len(c.columns) {
		return nil, fmt.Errorf("%s: image of %d columns, the table has %d: %w", c.table.Name, len(image), len(c.columns), ErrValue)
	}
	for i := range image {
		v, col := &image[i], &c.columns[i]
		if v.kind == Null {
			if !col.nullable {
				return nil, c.misfit(i, v)
			}
			b = append(b, 0)
			continue
		}
		var want Kind
		switch col.encoding {
		case schema.EncodingInt, schema.EncodingLong:
			want = Integer
		case schema.EncodingFloat:
			want = Single
		case schema.EncodingDouble:
			want = Real
		case schema.EncodingString:
			want = Text
		case schema.EncodingBytes:
			want = Bytes
		case schema.EncodingEnum:
			switch v.kind {
			case Text:
				b = appendBytes(append(b, col.first), v.raw())
			case Ordinal:
				n := int64(v.num)
				if n != int64(int32(n)) {
					return nil, c.misfit(i, v)
				}
				b = binary.AppendVarint(append(b, col.first+2), n)
			default:
				return nil, c.misfit(i, v)
			}
			continue
		case schema.EncodingDocument:
			if v.kind != Document {
				return nil, c.misfit(i, v)
			}
			if bin := v.Binary(); bin == nil {
				b = appendBytes(append(b, col.first), v.raw())
			} else {
				b = appendBytes(append(b, col.first+2), v.Bytes())
				b = appendBytes(b, bin)
			}
			continue
		}
		if v.kind != want {
			return nil, c.misfit(i, v)
		}
		if col.nullable {
			b = append(b, 2)
		}
		switch want {
		case Integer:
			n := int64(v.num)
			if col.encoding == schema.EncodingInt && n != int64(int32(n)) {
				return nil, c.misfit(i, v)
			}
			b = binary.AppendVarint(b, n)
		case Single:
			b = binary.LittleEndian.AppendUint32(b, uint32(v.num))
		case Real:
			b = binary.LittleEndian.AppendUint64(b, v.num)
		default:
			b = appendBytes(b, v.raw())
		}
	}
	return b, nil
}

func (c *Codec) misfit(i int, v *Value) error {
	col := &c.table.Columns[i]
	if v.kind == Integer || v.kind == Ordinal {
		return fmt.Errorf("%s: column %s %s: %s %d: %w", c.table.Name, col.Name, col.SQLType(), v.kind, v.Integer(), ErrValue)
	}
	return fmt.Errorf("%s: column %s %s: %s: %w", c.table.Name, col.Name, col.SQLType(), v.kind, ErrValue)
}

// DecodeRow reads a payload. The values share its memory. It fails with
// ErrMalformed, whatever the bytes are.
func (c *Codec) DecodeRow(payload []byte) (Row, Origin, error) {
	s := slab{alone: true}
	r, gtid, at, err := c.decodeRow(payload, &s)
	if err != nil {
		return Row{}, Origin{}, err
	}
	return r, Origin{GTID: string(gtid), CommitTime: fromMicros(at)}, nil
}

func (c *Codec) decodeRow(payload []byte, s *slab) (r Row, gtid []byte, commitMicros int64, err error) {
	in := input{b: payload}
	op := in.long()
	r.Table = c.table
	if op < 0 || op > int64(Delete) {
		return r, nil, 0, fmt.Errorf("%w: row of %s: operation %d", ErrMalformed, c.table.Name, op)
	}
	r.Op = Op(op)
	for k, image := range [2]*[]Value{&r.Before, &r.After} {
		has := in.long()
		// Before: not with insert. After: not with delete.
		want := int64(1)
		if k == 0 && r.Op == Insert || k == 1 && r.Op == Delete {
			want = 0
		}
		if in.bad || has != want {
			return r, nil, 0, fmt.Errorf("%w: row of %s: images do not go with %s", ErrMalformed, c.table.Name, r.Op)
		}
		if has == 0 {
			continue
		}
		*image = s.take(len(c.columns), len(in.b))
		if *image == nil {
			return r, nil, 0, fmt.Errorf("%w: row of %s: cut short", ErrMalformed, c.table.Name)
		}
		if i := c.decodeImage(&in, *image); i >= 0 {
			return r, nil, 0, fmt.Errorf("%w: row of %s: column %s", ErrMalformed, c.table.Name, c.table.Columns[i].Name)
		}
	}
	gtid = in.bytes()
	r.Position = in.long()
	commitMicros = in.long()
	flags := in.long()
	if in.bad || len(in.b) > 0 || flags < 0 || flags > math.MaxUint16 {
		return r, nil, 0, fmt.Errorf("%w: row of %s: what follows the images", ErrMalformed, c.table.Name)
	}
	r.Flags = Flags(flags)
	return r, gtid, commitMicros, nil
}

// decodeImage fills image and returns the index of a column that can't be read,
// or -1.
func (c *Codec) decodeImage(in *input, image []Value) int {
	for i := range image {
		v, col := &image[i], &c.columns[i]
		var branch byte
		if col.nullable || col.encoding >= schema.EncodingEnum {
			u := in.long()
			if u < 0 || u > 2 {
				return i
			}
			branch = byte(u) << 1
			if col.nullable && branch == 0 {
				*v = Value{}
				if in.bad {
					return i
				}
				continue
			}
		}
		switch col.encoding {
		case schema.EncodingInt, schema.EncodingLong:
			n := in.long()
			if col.encoding == schema.EncodingInt && n != int64(int32(n)) {
				return i
			}
			*v = Value{kind: Integer, num: uint64(n)}
		case schema.EncodingFloat:
			*v = Value{kind: Single, num: in.fixed32()}
		case schema.EncodingDouble:
			*v = Value{kind: Real, num: in.fixed64()}
		case schema.EncodingString:
			*v = over(Text, 0, in.bytes())
		case schema.EncodingBytes:
			*v = over(Bytes, 0, in.bytes())
		case schema.EncodingEnum:
			switch branch {
			case col.first:
				*v = over(Text, 0, in.bytes())
			case col.first + 2:
				n := in.long()
				if n != int64(int32(n)) {
					return i
				}
				*v = Value{kind: Ordinal, num: uint64(n)}
			default:
				return i
			}
			branch = 2
		case schema.EncodingDocument:
			switch branch {
			case col.first:
				text := in.bytes()
				*v = over(Document, uint64(len(text)), text)
			case col.first + 2:
				text := in.bytes()
				*v = DocumentOf(text, in.bytes())
			default:
				return i
			}
			branch = 2
		}
		if in.bad || branch > 2 {
			return i
		}
	}
	return -1
}

// slab hands out slices of values from larger allocations.
type slab struct {
	free  []Value
	alone bool // no more rows follow: allocate what is wanted and no more
}

// slabValues is how many values one allocation holds where there is use for them.
const slabValues = 512

// take returns n values, or nil when the input that is left can't hold so many:
// each takes a byte at least.
func (s *slab) take(n, left int) []Value {
	if n > left {
		return nil
	}
	if s.alone {
		return make([]Value, n)
	}
	if len(s.free) < n {
		s.free = make([]Value, max(n, min(slabValues, left/4)))
	}
	v := s.free[:n:n]
	s.free = s.free[n:]
	return v
}

// micros is a time on the wire: microseconds since 1970, 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

func appendBytes(b, s []byte) []byte {
	return append(binary.AppendVarint(b, int64(len(s))), s...)
}

// input reads Avro's primitives. After the first thing that can't be read, bad is
// set and everything reads as zero.
type input struct {
	b   []byte
	bad bool
}

func (in *input) fail() {
	in.b, in.bad = nil, true
}

func (in *input) long() int64 {
	if len(in.b) > 0 && in.b[0] < 0x80 { // most are one byte
		n := in.b[0]
		in.b = in.b[1:]
		return int64(n>>1) ^ -int64(n&1)
	}
	n, size := binary.Varint(in.b)
	if size <= 0 {
		in.fail()
		return 0
	}
	in.b = in.b[size:]
	return n
}

// bytes shares the input's memory.
func (in *input) bytes() []byte {
	n := in.long()
	if n < 0 || n > int64(len(in.b)) {
		in.fail()
		return nil
	}
	s := in.b[:n:n]
	in.b = in.b[n:]
	return s
}

func (in *input) string() string { return string(in.bytes()) }

func (in *input) fixed32() uint64 {
	if len(in.b) < 4 {
		in.fail()
		return 0
	}
	n := binary.LittleEndian.Uint32(in.b)
	in.b = in.b[4:]
	return uint64(n)
}

func (in *input) fixed64() uint64 {
	if len(in.b) < 8 {
		in.fail()
		return 0
	}
	n := binary.LittleEndian.Uint64(in.b)
	in.b = in.b[8:]
	return n
}

func (in *input) bool() bool {
	if len(in.b) == 0 || in.b[0] > 1 {
		in.fail()
		return false
	}
	v := in.b[0] == 1
	in.b = in.b[1:]
	return v
}
