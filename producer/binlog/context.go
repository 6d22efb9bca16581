package binlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/twinspan/twinspan/change"
)

// errContext: the status variables of a query event can't be read to the end,
// so the session a statement ran under is not known.
var errContext = errors.New("unreadable session context")

// Codes of the status variables of a query event, in the numbering of MySQL's
// statement_events.h and MariaDB's log_event.h (from 128 on MariaDB's own).
const (
	varFlags2                = 0
	varSQLMode               = 1
	varCatalog               = 2
	varAutoIncrement         = 3
	varCharset               = 4
	varTimeZone              = 5
	varCatalogNZ             = 6
	varLCTimeNames           = 7
	varCollationDatabase     = 8
	varTableMapForUpdate     = 9
	varMasterDataWritten     = 10
	varInvoker               = 11
	varUpdatedSchemas        = 12
	varMicroseconds          = 13
	varExplicitDefaults      = 16
	varDDLXid                = 17
	varDefaultCollation      = 18
	varRequirePrimaryKey     = 19
	varTableEncryption       = 20
	varNativeForeignKeys     = 21 // measured on 9.7: one byte, with statements that change rows
	varMariaMicroseconds     = 128
	varMariaXid              = 129
	varMariaAlterPhase       = 130
	varMariaCharsetCollation = 131
	varMariaPadding          = 255
)

// schemasUnknown is the count that stands for "more schemas than are listed".
const schemasUnknown = 254

// MariaDB's flags of an ALTER logged in two phases.
const (
	alterStart    = 1 << 1
	alterCommit   = 1 << 2
	alterRollback = 1 << 3
)

// queryContext is the session of a query event.
type queryContext struct {
	Flags2              uint32
	SQLMode             uint64
	CharsetClient       uint16
	CollationConnection uint16
	CollationServer     uint16
	TimeZone            string
	Microseconds        uint32 // of the event's timestamp, below 1e6
	Schemas             []string
	InvokerUser         string
	InvokerHost         string
	AlterPhase          byte // alterStart, alterCommit, alterRollback; 0: a plain statement
	Variables           map[string]string
}

func (c *queryContext) set(name string, v uint64) {
	if c.Variables == nil {
		c.Variables = make(map[string]string, 4)
	}
	c.Variables[name] = strconv.FormatUint(v, 10)
}

// fill copies the session into a statement.
func (c *queryContext) fill(d *change.DDL) {
	d.Flags2, d.SQLMode = c.Flags2, c.SQLMode
	d.CharsetClient, d.CollationConnection, d.CollationServer = c.CharsetClient, c.CollationConnection, c.CollationServer
	d.TimeZone, d.Variables = c.TimeZone, c.Variables
}

// parseContext reads the status variables of a query event. Both servers may
// write codes out of order (MariaDB 11.5 writes 131 before 4), and a code that
// is not known has no length, so it is an error and never skipped: what
// follows it would be lost silently.
func parseContext(b []byte) (queryContext, error) {
	var c queryContext
	r := fieldReader{b: b}
	for !r.done() {
		at := r.at
		code := r.u8()
		switch code {
		case varFlags2:
			c.Flags2 = r.u32()
		case varSQLMode:
			c.SQLMode = r.u64()
		case varCatalog:
			r.text()
			r.take(1) // its final zero
		case varCatalogNZ:
			r.text()
		case varAutoIncrement:
			c.set("auto_increment_increment", uint64(r.u16()))
			c.set("auto_increment_offset", uint64(r.u16()))
		case varCharset:
			c.CharsetClient, c.CollationConnection, c.CollationServer = r.u16(), r.u16(), r.u16()
		case varTimeZone:
			c.TimeZone = r.text()
		case varLCTimeNames:
			c.set("lc_time_names", uint64(r.u16()))
		case varCollationDatabase:
			c.set("collation_database", uint64(r.u16()))
		case varTableMapForUpdate, varDDLXid, varMariaXid:
			r.take(8)
		case varMasterDataWritten:
			r.take(4)
		case varInvoker:
			c.InvokerUser, c.InvokerHost = r.text(), r.text()
		case varUpdatedSchemas:
			n := r.u8()
			if n == schemasUnknown {
				break
			}
			for range n {
				c.Schemas = append(c.Schemas, r.zeroTerminated())
				if r.short {
					break
				}
			}
		case varMicroseconds, varMariaMicroseconds:
			c.Microseconds = r.u24()
		case varExplicitDefaults:
			c.set("explicit_defaults_for_timestamp", uint64(r.u8()))
		case varDefaultCollation:
			c.set("default_collation_for_utf8mb4", uint64(r.u16()))
		case varRequirePrimaryKey:
			c.set("sql_require_primary_key", uint64(r.u8()))
		case varTableEncryption:
			c.set("default_table_encryption", uint64(r.u8()))
		case varNativeForeignKeys:
			c.set("innodb_native_foreign_keys", uint64(r.u8()))
		case varMariaAlterPhase:
			c.AlterPhase = r.u8() & (alterStart | alterCommit | alterRollback)
			if c.AlterPhase&(alterCommit|alterRollback) != 0 {
				r.take(8) // sequence number of its start
			}
		case varMariaCharsetCollation:
			text := []byte(nil)
			for range r.u8() {
				text = strconv.AppendUint(text, uint64(r.u16()), 10)
				text = append(text, '=')
				text = strconv.AppendUint(text, uint64(r.u16()), 10)
				text = append(text, ',')
				if r.short {
					break
				}
			}
			if len(text) > 0 {
				if c.Variables == nil {
					c.Variables = make(map[string]string, 4)
				}
				c.Variables["character_set_collations"] = string(text[:len(text)-1])
			}
		case varMariaPadding:
		default:
			return c, fmt.Errorf("%w: status variable %d at byte %d is not known", errContext, code, at)
		}
		if r.short {
			return c, fmt.Errorf("%w: status variable %d at byte %d of %d is cut short", errContext, code, at, len(b))
		}
	}
	if c.Microseconds >= 1_000_000 {
		return c, fmt.Errorf("%w: %d microseconds", errContext, c.Microseconds)
	}
	return c, nil
}

// fieldReader reads little-endian fields. Past the end it sets short and
// returns zeros, so that a parser checks once per field group.
type fieldReader struct {
	b     []byte
	at    int
	short bool
}

func (r *fieldReader) done() bool { return r.short || r.at >= len(r.b) }

func (r *fieldReader) take(n int) []byte {
	if n < 0 || r.short || len(r.b)-r.at < n {
		r.short = true
		return nil
	}
	v := r.b[r.at : r.at+n]
	r.at += n
	return v
}

func (r *fieldReader) u8() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *fieldReader) u16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *fieldReader) u24() uint32 {
	if v := r.take(3); v != nil {
		return uint32(v[0]) | uint32(v[1])<<8 | uint32(v[2])<<16
	}
	return 0
}

func (r *fieldReader) u32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *fieldReader) u56() uint64 { return uint64(r.u32()) | uint64(r.u24())<<32 }

func (r *fieldReader) u64() uint64 {
	if v := r.take(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

// text is one length byte and that many bytes.
func (r *fieldReader) text() string { return string(r.take(int(r.u8()))) }

func (r *fieldReader) zeroTerminated() string {
	for i := r.at; i < len(r.b); i++ {
		if r.b[i] == 0 {
			s := string(r.b[r.at:i])
			r.at = i + 1
			return s
		}
	}
	r.short = true
	return ""
}
