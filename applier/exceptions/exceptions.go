// Package exceptions keeps the changes that could not be applied, on the target
// itself: parked in the very transaction that moves the lane past them, with the
// changes of the same keys that came after them, until someone or something
// applies them in order, or skips them.
package exceptions

import (
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Cause is why a change was parked.
type Cause string

// The causes.
const (
	Conflict     Cause = "conflict"      // the target was not as the change expects it
	Data         Cause = "data"          // the target refuses what the row holds
	MissingTable Cause = "missing-table" // the target has no such table
	Follows      Cause = "follows"       // a change of the same keys was parked before it
)

// Causes are those that a configuration may name.
var Causes = []Cause{Conflict, Data, MissingTable}

// State of an exception.
type State string

// The states. Those that are not open are history.
const (
	Open    State = "open"
	Applied State = "applied"
	Skipped State = "skipped"
)

var (
	// ErrFull: as many changes are parked as may be.
	ErrFull = errors.New("too many changes are parked as exceptions")
	// ErrParked: changes of a table are parked, and must be dealt with first.
	ErrParked = errors.New("changes of the table are parked as exceptions")
	// ErrNotFound: no open exception has this number.
	ErrNotFound = errors.New("no such open exception")
	// ErrStill: what parked a change is still so.
	ErrStill = errors.New("still can't be applied")
	// ErrDamaged: a stored change can't be read.
	ErrDamaged = errors.New("stored exception can't be read")
)

// Change is what is parked.
type Change struct {
	Table  schema.Name // on the target; Row.Table is the source's
	Row    change.Row
	Key    string // names the row, for people
	Place  change.Place
	GTID   string
	Commit time.Time
	Cause  Cause
	Kind   target.Kind // of a conflict
	Detail string
	// Behind is the exception it follows; 0: none.
	Behind int64
	// Keys are the hashes of all keys the change touches, and Shape stands for
	// how they are computed; 0: they don't depend on the table's keys.
	Keys  []uint64
	Shape uint64
}

// Exception is a parked change as people see it.
type Exception struct {
	ID         int64        `json:"id"`
	State      State        `json:"state"`
	Table      string       `json:"table"`
	Operation  string       `json:"operation"`
	Key        string       `json:"key,omitempty"`
	Cause      Cause        `json:"cause"`
	Kind       target.Kind  `json:"kind,omitempty"`
	Detail     string       `json:"detail,omitempty"`
	Behind     int64        `json:"behind,omitempty"`
	GTID       string       `json:"gtid"`
	CommitTime *time.Time   `json:"commit_time,omitempty"`
	Place      change.Place `json:"place"`
	ParkedAt   time.Time    `json:"parked_at"`
	Tries      int          `json:"tries"`
	NextTry    *time.Time   `json:"next_try,omitempty"`
	LastError  string       `json:"last_error,omitempty"`
	ResolvedAt *time.Time   `json:"resolved_at,omitempty"`
	ResolvedBy string       `json:"resolved_by,omitempty"`
	Reason     string       `json:"reason,omitempty"`
}

// Retry is how often what may heal is tried again; First 0: never by itself.
type Retry struct {
	First, Max time.Duration
}

// pause before the try after so many.
func (r Retry) pause(tries int) time.Duration {
	return min(r.First<<min(max(tries, 0), 20), max(r.Max, r.First))
}

// Store is one stream's exceptions on a target. It is safe for concurrent use: all
// its state is on the server.
//
// Who parks a change, applies it or skips it locks the stream's row of
// twinspan.exception_lock first and keeps it until its transaction ends. So a
// change that finds its key free after that lock comes after whatever was parked
// under this key, and nothing is parked behind a chain that is being applied.
type Store struct {
	Stream string
	Max    int // open exceptions
	Retry  Retry
}

func (s *Store) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("exceptions of stream %s: %s: %w", s.Stream, what, err)
}
