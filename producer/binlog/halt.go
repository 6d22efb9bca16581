package binlog

import (
	"errors"
	"fmt"
)

// Code names why the producer stopped. Codes are stable: alerts and the runbook
// use them.
type Code string

// The codes of a halt.
const (
	HaltGap          Code = "GAP"           // transactions are missing between the log and what the server still has
	HaltLogAhead     Code = "LOG_AHEAD"     // the log holds transactions that the server has not
	HaltErrant       Code = "ERRANT"        // a transaction that began on the standby itself
	HaltSplitBrain   Code = "SPLIT_BRAIN"   // one GTID twice
	HaltNoBinlog     Code = "NO_BINLOG"     // the server writes no usable binlog
	HaltNoGTID       Code = "NO_GTID"       // a transaction without GTID
	HaltStatement    Code = "STATEMENT"     // a change logged as a statement
	HaltPartialImage Code = "PARTIAL_IMAGE" // a row image without all columns
	HaltPartialJSON  Code = "PARTIAL_JSON"  // a JSON diff instead of a document
	HaltMetadata     Code = "METADATA"      // a row whose table's definition is not known for sure
	HaltColumnType   Code = "COLUMN_TYPE"   // a column type that row events can't carry exactly
	HaltXA           Code = "XA"            // a prepared XA transaction that can't be held
	HaltIncident     Code = "INCIDENT"      // the server says that its binlog lacks something
	HaltUnclassified Code = "UNCLASSIFIED"  // a statement nobody can say the effect of
	HaltTooLarge     Code = "TOO_LARGE"     // a row that does not fit into one log entry
	HaltDecode       Code = "DECODE"        // a damaged or unknown event
	HaltFenced       Code = "FENCED"        // another producer owns the stream
)

// Codes are all of them, for metrics.
var Codes = []Code{
	HaltGap, HaltLogAhead, HaltErrant, HaltSplitBrain, HaltNoBinlog, HaltNoGTID, HaltStatement, HaltPartialImage, HaltPartialJSON,
	HaltMetadata, HaltColumnType, HaltXA, HaltIncident, HaltUnclassified, HaltTooLarge, HaltDecode, HaltFenced,
}

// Halt is why reading stopped although nothing failed: going on would lose,
// reorder or invent a change. It names what to do next.
type Halt struct {
	Code   Code
	GTID   string // the transaction it happened in; empty between transactions
	Detail string // what was found, and where
	Remedy string // what the operator can do
	Cause  error  // nil where the halt is the first to notice
}

func (h *Halt) Error() string {
	s := "halt " + string(h.Code)
	if h.GTID != "" {
		s += " at " + h.GTID
	}
	s += ": " + h.Detail
	if h.Cause != nil {
		s += ": " + h.Cause.Error()
	}
	return s
}

func (h *Halt) Unwrap() error { return h.Cause }

// AsHalt finds the halt in an error; nil when there is none.
func AsHalt(err error) *Halt {
	var h *Halt
	if errors.As(err, &h) {
		return h
	}
	return nil
}

func haltf(code Code, remedy, format string, args ...any) *Halt {
	return &Halt{Code: code, Remedy: remedy, Detail: fmt.Sprintf(format, args...)}
}

func (h *Halt) because(err error) *Halt {
	h.Cause = err
	return h
}

// The remedies that several halts share.
const (
	remedyRow = "SET GLOBAL binlog_format=ROW (and the same in every session and my.cnf) on the server where the " +
		"transaction began; then bring the target in line and skip this GTID"
	remedyDamaged = "check the server's disk and error log; if another server of the set holds this transaction " +
		"undamaged, point the producer at it; else take a new snapshot"
	remedySnapshot = "point the producer at a server of the set that still has the missing transactions; if none has, " +
		"take a new snapshot for the target and start from its GTID set"
)
