package binlog

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Row events that are whole but that we must not take.
var (
	// ErrPartialImage: the event lacks columns (binlog_row_image is not FULL).
	ErrPartialImage = errors.New("row image without all columns")
	// ErrPartialJSON: an update of JSON by difference
	// (binlog_row_value_options has PARTIAL_JSON).
	ErrPartialJSON = errors.New("partial JSON update")
)

// Codes of MariaDB's compressed row events of version 2, unknown to go-mysql.
const (
	mariaWriteRowsCompressedV2  replication.EventType = 169
	mariaUpdateRowsCompressedV2 replication.EventType = 170
	mariaDeleteRowsCompressedV2 replication.EventType = 171
)

// rowsKind is what an event type says about a row event's body.
type rowsKind struct {
	op         change.Op
	v2         bool
	compressed bool
}

var errNoRows = fmt.Errorf("%w: no row event", ErrDamaged)

func rowsKindOf(typ replication.EventType) (rowsKind, error) {
	switch typ {
	case replication.WRITE_ROWS_EVENTv1:
		return rowsKind{op: change.Insert}, nil
	case replication.UPDATE_ROWS_EVENTv1:
		return rowsKind{op: change.Update}, nil
	case replication.DELETE_ROWS_EVENTv1:
		return rowsKind{op: change.Delete}, nil
	case replication.WRITE_ROWS_EVENTv2:
		return rowsKind{op: change.Insert, v2: true}, nil
	case replication.UPDATE_ROWS_EVENTv2:
		return rowsKind{op: change.Update, v2: true}, nil
	case replication.DELETE_ROWS_EVENTv2:
		return rowsKind{op: change.Delete, v2: true}, nil
	case replication.MARIADB_WRITE_ROWS_COMPRESSED_EVENT_V1:
		return rowsKind{op: change.Insert, compressed: true}, nil
	case replication.MARIADB_UPDATE_ROWS_COMPRESSED_EVENT_V1:
		return rowsKind{op: change.Update, compressed: true}, nil
	case replication.MARIADB_DELETE_ROWS_COMPRESSED_EVENT_V1:
		return rowsKind{op: change.Delete, compressed: true}, nil
	case mariaWriteRowsCompressedV2:
		return rowsKind{op: change.Insert, v2: true, compressed: true}, nil
	case mariaUpdateRowsCompressedV2:
		return rowsKind{op: change.Update, v2: true, compressed: true}, nil
	case mariaDeleteRowsCompressedV2:
		return rowsKind{op: change.Delete, v2: true, compressed: true}, nil
	case replication.PARTIAL_UPDATE_ROWS_EVENT:
		return rowsKind{}, ErrPartialJSON
	}
	return rowsKind{}, errNoRows
}

// RowsHeader is the fixed part of a row event.
type RowsHeader struct {
	TableID uint64
	Flags   uint16 // 1 end of statement, 2 no foreign key checks, 4 relaxed unique checks …
	Op      change.Op
}

const rowsHeaderSize = 8 // table id (6), flags (2)

// ParseRowsHeader reads the fixed part of a row event of that type. body is what
// follows the common header. It returns ErrPartialJSON for an event that must
// be refused, ErrDamaged for one that is too short or no row event.
func ParseRowsHeader(typ replication.EventType, body []byte) (RowsHeader, error) {
	k, err := rowsKindOf(typ)
	if err != nil {
		return RowsHeader{}, err
	}
	if len(body) < rowsHeaderSize {
		return RowsHeader{}, fmt.Errorf("%w: row event of %d bytes", ErrDamaged, len(body))
	}
	return RowsHeader{
		TableID: uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32,
		Flags:   binary.LittleEndian.Uint16(body[6:]),
		Op:      k.op,
	}, nil
}

// Decoder decodes the row events of one table version as one table map stores
// them. It keeps no state between events and may be shared.
type Decoder struct {
	table   *schema.Table
	columns []column
}

// column is what the decoder must know of one column, in one cache line or so.
type column struct {
	wire
	nullable bool
	unsigned bool
	utf8     bool     // travels as Text
	pad      int      // BINARY: length to fill up with zeros; 0 otherwise
	size     int      // bytes, where fixed; otherwise 0
	members  [][]byte // enum and set
}

// NewDecoder makes a decoder for rows of t as e stores them. It returns
// ErrMismatch where the two do not fit together (see Matches).
func NewDecoder(t *schema.Table, e *replication.TableMapEvent) (*Decoder, error) {
	if err := Matches(e, t); err != nil {
		return nil, err
	}
	wires, err := wiresOf(e)
	if err != nil {
		return nil, fmt.Errorf("decoder of %s: %w", t.Name, err)
	}
	d := &Decoder{table: t, columns: make([]column, len(wires))}
	for i, w := range wires {
		c := &t.Columns[i]
		p := &d.columns[i]
		*p = column{wire: w, nullable: c.Nullable, unsigned: c.Unsigned, utf8: schema.IsUTF8(c.Charset)}
		switch w.shape {
		case shapeTiny, shapeYear:
			p.size = 1
		case shapeShort:
			p.size = 2
		case shapeInt24:
			p.size = 3
		case shapeLong, shapeFloat:
			p.size = 4
		case shapeLongLong:
			p.size = 8
		case shapeDouble:
			p.size = 8
		case shapeDecimal:
			p.size = decimalSize(w.precision, w.scale)
		case shapeBit:
			p.size = (w.length + 7) / 8
		case shapeDate:
			p.size = 3
		case shapeTime:
			p.size = 3 + fractionBytes(w.scale)
		case shapeDateTime:
			p.size = 5 + fractionBytes(w.scale)
		case shapeTimestamp:
			p.size = 4 + fractionBytes(w.scale)
		case shapeOldTime:
			p.size = 3
		case shapeOldDateTime:
			p.size = 8
		case shapeOldTimestamp:
			p.size = 4
		case shapeChar:
			if c.Type == schema.Binary {
				p.pad = c.Length
			}
		case shapeEnum, shapeSet:
			p.size = w.pack
			p.members = make([][]byte, len(c.Members))
			for k, m := range c.Members {
				p.members[k] = []byte(m)
			}
		}
	}
	return d, nil
}

// Table is the table version whose rows it decodes.
func (d *Decoder) Table() *schema.Table { return d.table }

// Rows decodes one row event and calls yield for each row, in order: before is
// nil for an insert, after for a delete. body is what follows the event's
// common header, without the checksum.
//
// The images' values have one entry per column of the table. They share memory
// with body (for a compressed event with its inflated copy) and with the arena,
// and are valid until yield returns.
//
// Errors: ErrPartialJSON and ErrPartialImage for events that must be refused,
// ErrDamaged for bytes that do not follow the format, and whatever yield
// returns. Rows before the error have been yielded.
func (d *Decoder) Rows(typ replication.EventType, body []byte, a *Arena, yield func(before, after []change.Value) error) error {
	if err := d.rows(typ, body, a, yield); err != nil {
		return fmt.Errorf("%s of %s: %w", typ, d.table.Name, err)
	}
	return nil
}

func (d *Decoder) rows(typ replication.EventType, body []byte, a *Arena, yield func(before, after []change.Value) error) error {
	k, err := rowsKindOf(typ)
	if err != nil {
		return err
	}
	images, err := d.images(k, body)
	if err != nil {
		return err
	}
	if k.compressed {
		if images, err = inflate(images); err != nil {
			return err
		}
	}
	for row := 0; len(images) > 0; row++ {
		a.reset()
		var first, second []change.Value
		first, images, err = d.image(images, a)
		if err == nil && k.op == change.Update {
			second, images, err = d.image(images, a)
		}
		if err != nil {
			return fmt.Errorf("row %d: %w", row, err)
		}
		if k.op == change.Insert {
			first, second = nil, first
		}
		if err := yield(first, second); err != nil {
			return err
		}
	}
	return nil
}

// images checks an event's head and returns the row images behind it.
func (d *Decoder) images(k rowsKind, body []byte) ([]byte, error) {
	if len(body) < rowsHeaderSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrDamaged, len(body))
	}
	b := body[rowsHeaderSize:]
	if k.v2 {
		// The extra row information is of no use to us: NDB's, partition
		// numbers. Its length counts itself.
		if len(b) < 2 {
			return nil, fmt.Errorf("%w: no extra row information", ErrDamaged)
		}
		n := int(binary.LittleEndian.Uint16(b))
		if n < 2 || n > len(b) {
			return nil, fmt.Errorf("%w: extra row information of %d bytes", ErrDamaged, n)
		}
		b = b[n:]
	}
	width, n, ok := lengthEncoded(b)
	if !ok {
		return nil, fmt.Errorf("%w: no column count", ErrDamaged)
	}
	if width != uint64(len(d.columns)) {
		return nil, fmt.Errorf("%w: %d columns in the event, %d in the table", ErrMismatch, width, len(d.columns))
	}
	b = b[n:]
	bitmaps := 1
	if k.op == change.Update {
		bitmaps = 2
	}
	for range bitmaps {
		size := (len(d.columns) + 7) / 8
		if len(b) < size {
			return nil, fmt.Errorf("%w: column bitmap cut short", ErrDamaged)
		}
		for i := range d.columns {
			if b[i/8]&(1<<(i%8)) == 0 {
				return nil, fmt.Errorf("%w: column %s is missing", ErrPartialImage, d.table.Columns[i].Name)
			}
		}
		b = b[size:]
	}
	return b, nil
}

// inflate unpacks the row images of a MariaDB compressed event: a byte with the
// algorithm (0, zlib, in bits 4 to 6) and the size of the length (bits 0 to 2),
// the length big-endian, a zlib stream. Source: sql/log_event.cc of MariaDB,
// binlog_buf_compress.
func inflate(b []byte) ([]byte, error) {
	if len(b) == 0 || b[0]&0x80 == 0 || b[0]&0x70 != 0 {
		return nil, fmt.Errorf("%w: compression header", ErrDamaged)
	}
	n := int(b[0] & 7)
	if n < 1 || n > 4 || len(b) < 1+n {
		return nil, fmt.Errorf("%w: length of %d bytes in the compression header", ErrDamaged, n)
	}
	want := 0
	for _, c := range b[1 : 1+n] {
		want = want<<8 | int(c)
	}
	r, err := zlib.NewReader(bytes.NewReader(b[1+n:]))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	// The claimed length is not believed further than the stream goes: zlib
	// grows data by a factor of about a thousand at most.
	out := bytes.NewBuffer(make([]byte, 0, min(want, 1100*len(b))))
	got, err := io.Copy(out, io.LimitReader(r, int64(want)+1))
	if err == nil {
		err = r.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if got != int64(want) {
		return nil, fmt.Errorf("%w: %d bytes inflated to %d, not %d", ErrDamaged, len(b), got, want)
	}
	return out.Bytes(), nil
}
