// Package history is what the processes of a chaos run say they did: one line of
// JSON per event, written before an operation is started and after it ended, so
// that a process that is killed at any instant leaves behind what it had asked
// for.
package history

import (
	"time"

	"golang.org/x/sys/unix"
)

// Kind of a record.
type Kind string

// The kinds. An operation has a record with each of its phases.
const (
	Open   Kind = "open"   // a writer was opened: Epoch, and Offset is the newest entry it found
	Append Kind = "append" // one entry, named by ID
	Close  Kind = "close"  // a writer was closed in order
	Attach Kind = "attach" // a reader was opened at Offset
	Read   Kind = "read"   // entries From ≤ offset < To were delivered without a gap
	Gap    Kind = "gap"    // a reader met one: offsets From to To are passed over
	Bounds Kind = "bounds" // Offset is the newest entry that was told, Epoch the stream's
	Final  Kind = "final"  // a reader that has to reach Offset has ended; Err when it could not
	Fault  Kind = "fault"  // what the run did to the cluster, for people
	Cut    Kind = "cut"    // from here on no byte can be stored in City
	Mend   Kind = "mend"   // from here on it may be
)

// Phase of an operation.
type Phase string

// The phases.
const (
	Invoke Phase = "invoke"
	Queued Phase = "queued" // an append was given Offset; it is not confirmed
	OK     Phase = "ok"
	Failed Phase = "failed" // of an append: the outcome is unknown
)

// Record is one line.
type Record struct {
	At      int64  `json:"t"` // ns of the machine's monotonic clock, one for all processes
	Process string `json:"p"` // a worker's name and its life; unique in the run
	Op      int64  `json:"n,omitempty"`
	Kind    Kind   `json:"k"`
	Phase   Phase  `json:"f,omitempty"`
	Stream  string `json:"s,omitempty"`
	// Session is the open writer or reader that the operation belongs to,
	// numbered in the process.
	Session   int64  `json:"w,omitempty"`
	Epoch     uint64 `json:"e,omitempty"`
	Offset    int64  `json:"o"`
	ID        string `json:"id,omitempty"`
	Sum       uint64 `json:"sum,omitempty"` // of the payload
	Protected bool   `json:"prot,omitempty"`
	From      int64  `json:"from,omitempty"`
	To        int64  `json:"to,omitempty"`
	// Seen are the entries of a Read that this process had not seen before or
	// that differ from what it had seen; the others are the same, byte by byte.
	Seen []Seen `json:"seen,omitempty"`
	Via  string `json:"via,omitempty"` // the city or node a reader was bound to
	City string `json:"city,omitempty"`
	Err  string `json:"err,omitempty"`
	Text string `json:"text,omitempty"`
}

// Seen is an entry as a reader got it.
type Seen struct {
	At     int64  `json:"t"`
	Offset int64  `json:"o"`
	Epoch  uint64 `json:"e"`
	ID     string `json:"id"`  // from the payload; empty: the payload is none of ours
	Sum    uint64 `json:"sum"` // of the payload
	Rest   uint64 `json:"x"`   // of everything else that was delivered with it
}

// Now is the machine's monotonic clock. All processes of a run share it.
func Now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // the clock exists on every Linux
	}
	return t.Nano()
}

// Since is the time between two readings of Now.
func Since(from int64) time.Duration { return time.Duration(Now() - from) }
