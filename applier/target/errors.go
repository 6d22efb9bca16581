package target

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// What can go wrong, told apart with errors.Is.
var (
	// ErrNoTable: the target has no such table (or it is a view).
	ErrNoTable = errors.New("no such table on the target")
	// ErrIncompatible: the target's table can't hold the source's rows exactly.
	ErrIncompatible = errors.New("source and target table do not fit")
	// ErrConflict: a row's other unique key belongs to another row. It is a
	// *Conflict.
	ErrConflict = errors.New("unique key conflict")
	// ErrMissing: a row of a table without a key is not on the target.
	ErrMissing = errors.New("row to change is not on the target")
	// ErrData: the target refuses the row, and would again. It is a *RowError.
	ErrData = errors.New("the target refuses the row")
	// ErrTooLarge: one row alone does not fit max_allowed_packet.
	ErrTooLarge = errors.New("row does not fit max_allowed_packet")
	// ErrDDL: a statement could not be replayed. It is a *DDLError.
	ErrDDL = errors.New("DDL can't be replayed")
)

// RowError names the row of the rows passed to Apply that failed. It wraps the
// server's error and matches ErrData, ErrMissing or ErrTooLarge by Kind.
type RowError struct {
	Table schema.Name
	Index int // into the rows passed to Apply
	Row   change.Row
	Key   string // the identity's values, for people
	Kind  error  // ErrData, ErrMissing, ErrTooLarge
	Err   error  // the server's, may be nil
}

func (e *RowError) Error() string {
	s := fmt.Sprintf("%s of %s%s: %v", e.Row.Op, e.Table, e.Key, e.Kind)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the kind and the server's error.
func (e *RowError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Conflict is a change whose after image takes a unique key that another row
// of the target holds. Nothing of this change was applied; rows before it were.
type Conflict struct {
	Table schema.Name
	Index int    // into the rows passed to Apply
	Key   string // the unique key's name
	Row   change.Row
	// Holder is the row that holds the key, in the source table's columns as
	// Row.After is; nil when it could not be read (gone meanwhile).
	Holder []change.Value
	// HolderIdentity is the holder's identity, for people; empty when the
	// table has none.
	HolderIdentity string
	Err            error // the server's duplicate key error
}

func (e *Conflict) Error() string {
	s := fmt.Sprintf("%s of %s: %v", e.Row.Op, e.Table, ErrConflict)
	if e.Key != "" {
		s += " on " + server.QuoteName(e.Key)
	}
	if e.Holder != nil {
		s += ", held by another row" + e.HolderIdentity
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

// Unwrap gives ErrConflict and the server's error.
func (e *Conflict) Unwrap() []error { return []error{ErrConflict, e.Err} }

// Incompatible says why source and target table do not fit.
type Incompatible struct {
	Table  schema.Name
	Column string // empty: the table as a whole
	Reason string
	Remedy string
}

func (e *Incompatible) Error() string {
	s := fmt.Sprintf("table %s", e.Table)
	if e.Column != "" {
		s += " column " + server.QuoteName(e.Column)
	}
	s += ": " + e.Reason
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap is ErrIncompatible.
func (e *Incompatible) Unwrap() error { return ErrIncompatible }

// DDLError is a statement that was not replayed, or whose outcome is unknown.
type DDLError struct {
	Place  change.Place
	Text   string
	Reason string
	Remedy string
	Err    error // the server's; nil when it was not asked
}

func (e *DDLError) Error() string {
	s := fmt.Sprintf("DDL at %d/%d (%s): %s", e.Place.Offset, e.Place.Index, excerpt(e.Text), e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// Unwrap gives ErrDDL and the server's error.
func (e *DDLError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrDDL}
	}
	return []error{ErrDDL, e.Err}
}

// excerpt is a statement's beginning on one line.
func excerpt(text string) string {
	s := strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?")
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

// Retryable says that the same work may succeed in a new transaction: a
// deadlock, a lock wait that timed out, a connection or server that went away,
// a server that is read-only, or out of space or memory for now. Some of these
// undo the whole transaction at once, so nothing more may be written in it after
// any of them. The outcome of the
// transaction is unknown when its COMMIT failed this way; the lane's stored
// position tells.
func Retryable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	switch server.ErrorNumber(err) {
	case 0:
		var n net.Error
		return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) ||
			errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &n)
	case 1205, 1206, 1213, // lock wait timeout, lock table full, deadlock: the last two undo all, and so may the first
		1020, 1099, 1100, // record changed since last read (MariaDB snapshot isolation)
		1028, 1021, 1114, 1030, // disk or table full, handler error
		1026, 1878, // write to a file, a temporary one: the binary log's cache, say
		1037, 1038, 1041, // out of memory
		1040, 1203, 1226, 1637, // too many connections, transactions
		1047, 3101, // a node that is not ready; a group that would not have the transaction
		1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, // shutdown, network
		1290, 1792, 1836, // read-only server or transaction
		1317, 1927, 3024, 1969, 2006, 2013, // interrupted, killed, timed out, gone
		3572, // NOWAIT lock
		4031: // disconnected for inactivity
		return true
	}
	return false
}
