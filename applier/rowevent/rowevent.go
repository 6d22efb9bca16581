// Package rowevent writes row changes in the binlog's own form: table maps and
// row events as a server would have logged them for the target's table. A server
// carries them out with BINLOG '…', through the code that native replication
// runs, without parsing values or planning statements.
//
// The package has no I/O. Formats: MySQL's libbinlogevents (rows_event.h) and
// MariaDB's sql/log_event.h; the tests compare with what servers log themselves.
package rowevent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

var (
	// ErrUnsupported: a column's values have no row image that is certain to
	// be the server's own.
	ErrUnsupported = errors.New("no row image for this column")
	// ErrValue: a value is not one of its column's.
	ErrValue = errors.New("value does not fit its column")
)

// Column is a target column and where its values come from.
type Column struct {
	Target *schema.Column
	Source int // index into the images
	// Ordinals are what the labels of an ENUM or the bits of a SET have on the
	// target.
	Ordinals map[string]uint64
	// SRID is the one spatial reference system that a geometry may have; nil: any.
	SRID *uint32
	// Far: a TIMESTAMP may be after 2038, up to 2106.
	Far bool
}

// Table writes the events of one table. It is immutable and safe for concurrent use.
type Table struct {
	name    string // for errors
	body    []byte // of the table map, after the table's id
	columns []column
	types   eventTypes
}

// eventTypes are a flavour's: MariaDB logs row events of version 1.
type eventTypes struct {
	write, update, remove byte
	extra                 bool // version 2: a length of extra data follows the flags
}

var (
	mysqlTypes   = eventTypes{write: 30, update: 31, remove: 32, extra: true}
	mariadbTypes = eventTypes{write: 23, update: 24, remove: 25}
)

const (
	headerSize     = 19
	formatType     = 15
	tableMapType   = 19
	flagStatement  = 1 // the last event of its statement
	flagNoForeign  = 2 // without foreign key checks and cascades
	tableMapFlags  = 1
	bitmapEveryOne = 0xff
	fieldVectors   = 13
)

// New prepares a table of at least one column, all of the target's in order.
// Error: ErrUnsupported.
func New(flavor server.Flavor, name schema.Name, columns []Column) (*Table, error) {
	t := &Table{name: name.String(), types: mysqlTypes}
	if flavor == server.MariaDB {
		t.types = mariadbTypes
	}
	if len(name.Schema) > 255 || len(name.Table) > 255 {
		return nil, fmt.Errorf("table %s: its name is too long: %w", name, ErrUnsupported)
	}
	b := binary.LittleEndian.AppendUint16(nil, tableMapFlags)
	for _, s := range []string{name.Schema, name.Table} {
		b = append(append(append(b, byte(len(s))), s...), 0)
	}
	b = appendLength(b, len(columns))
	var meta []byte
	nulls := make([]byte, (len(columns)+7)/8)
	for i, c := range columns {
		w, code, m, err := newColumn(flavor, c)
		if err != nil {
			return nil, fmt.Errorf("table %s: column %s (%s): %w", name, c.Target.Name, c.Target.SQLType(), err)
		}
		t.columns = append(t.columns, w)
		b = append(b, code)
		meta = append(meta, m...)
		if c.Target.Nullable {
			nulls[i/8] |= 1 << (i % 8)
		}
	}
	b = append(appendLength(b, len(meta)), meta...)
	b = append(b, nulls...)
	// Of the optional fields servers ask for one: how long vectors are.
	var vectors []byte
	for _, c := range columns {
		if c.Target.Type == schema.Vector {
			vectors = appendLength(vectors, c.Target.Length)
		}
	}
	if vectors != nil {
		b = append(appendLength(append(b, fieldVectors), len(vectors)), vectors...)
	}
	t.body = b
	return t, nil
}

// appendLength writes a length-encoded integer below 2^24.
func appendLength(dst []byte, n int) []byte {
	switch {
	case n < 251:
		return append(dst, byte(n))
	case n < 1<<16:
		return append(dst, 0xfc, byte(n), byte(n>>8))
	}
	return append(dst, 0xfd, byte(n), byte(n>>8), byte(n>>16))
}

// appendHeader starts an event; finish gives it its length.
func appendHeader(dst []byte, typ byte, serverID uint32) []byte {
	dst = append(dst, 0, 0, 0, 0, typ)
	dst = binary.LittleEndian.AppendUint32(dst, serverID)
	return append(dst, make([]byte, headerSize-9)...)
}

// finish writes the length of the event that starts at the given index.
func finish(b []byte, start int) { binary.LittleEndian.PutUint32(b[start+9:], uint32(len(b)-start)) }

// appendID writes a table's id, which only has meaning within one statement.
func appendID(dst []byte, id uint32) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, id), 0, 0)
}

// AppendMap appends the table map that gives the table an id, not 0 (which is
// the servers' dummy).
func (t *Table) AppendMap(dst []byte, serverID, id uint32) []byte {
	start := len(dst)
	dst = append(appendID(appendHeader(dst, tableMapType, serverID), id), t.body...)
	finish(dst, start)
	return dst
}

// Rows builds one row event at the end of a buffer.
type Rows struct {
	t     *Table
	op    change.Op
	start int
}

// Begin starts a row event for rows of one operation. unchecked: the target
// neither checks nor follows foreign keys. The buffer must not shrink before End.
func (t *Table) Begin(dst []byte, serverID, id uint32, op change.Op, unchecked bool) ([]byte, Rows) {
	r := Rows{t: t, op: op, start: len(dst)}
	typ := t.types.write
	switch op {
	case change.Update:
		typ = t.types.update
	case change.Delete:
		typ = t.types.remove
	}
	flags := uint16(0)
	if unchecked {
		flags |= flagNoForeign
	}
	dst = binary.LittleEndian.AppendUint16(appendID(appendHeader(dst, typ, serverID), id), flags)
	if t.types.extra {
		dst = append(dst, 2, 0)
	}
	dst = appendLength(dst, len(t.columns))
	dst = appendPresent(dst, len(t.columns))
	if op == change.Update {
		dst = appendPresent(dst, len(t.columns))
	}
	return dst, r
}

// appendPresent: images have all columns, so that what the target logs has.
func appendPresent(dst []byte, n int) []byte {
	for ; n >= 8; n -= 8 {
		dst = append(dst, bitmapEveryOne)
	}
	if n > 0 {
		dst = append(dst, 1<<n-1)
	}
	return dst
}

// Append appends the images of one row; the one that the operation does not have
// is ignored. After an error dst is as it was. Error: ErrValue.
func (r Rows) Append(dst []byte, before, after []change.Value) ([]byte, error) {
	mark := len(dst)
	var err error
	if r.op != change.Insert {
		if dst, err = r.t.image(dst, before); err != nil {
			return dst[:mark], err
		}
	}
	if r.op != change.Delete {
		if dst, err = r.t.image(dst, after); err != nil {
			return dst[:mark], err
		}
	}
	return dst, nil
}

// End finishes the event. last: it ends the statement, which every BINLOG must.
func (r Rows) End(b []byte, last bool) {
	finish(b, r.start)
	if last {
		b[r.start+headerSize+6] |= flagStatement
	}
}

// Format is the format description event that a session needs before any other:
// what events of this flavour look like. The version is the server's own, as
// SELECT VERSION() shows it.
func Format(flavor server.Flavor, version string) []byte {
	lengths := mysqlHeaders[1:]
	if flavor == server.MariaDB {
		lengths = mariadbHeaders[1:]
	}
	b := appendHeader(nil, formatType, 0)
	b = binary.LittleEndian.AppendUint16(b, 4) // version of the binlog's format
	var text [50]byte
	copy(text[:len(text)-1], version)
	b = append(b, text[:]...)
	b = append(b, 0, 0, 0, 0, headerSize)
	b = append(b, lengths...)
	b = append(b, 0) // events carry no checksums; this one does
	binary.LittleEndian.PutUint32(b[9:], uint32(len(b)+4))
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// What stands between the common header and the body, in bytes by event type
// from 1 on, as MySQL 9.7 and MariaDB 10.11 say it. A server that knows fewer
// types takes it for a newer source's, one that knows more for an older one's.
var (
	mysqlHeaders = [...]byte{
		2: 13, 4: 8, 9: 4, 11: 4, 15: 99, 17: 4, 18: 26, 19: 8, 26: 2, 30: 10, 31: 10, 32: 10, 33: 42, 34: 42, 36: 18,
		37: 52, 39: 10, 40: 40,
		42: 0,
	}
	mariadbHeaders = [...]byte{
		1: 56, 2: 13, 4: 8, 6: 18, 8: 4, 9: 4, 10: 4, 11: 4, 12: 18, 15: 228, 17: 4, 18: 26, 19: 8, 23: 8, 24: 8, 25: 8,
		26: 2, 30: 10, 31: 10, 32: 10, 39: 10, 40: 10, 41: 10, 161: 4, 162: 19, 163: 4, 165: 13, 166: 8, 167: 8, 168: 8,
		169: 10, 170: 10, 171: 10,
	}
)
