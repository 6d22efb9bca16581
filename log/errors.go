package log

import (
	"errors"
	"fmt"
)

// LostError is ErrLost with the stretch: an operator ended a segment of which too
// many members had lost their disks. No entry will ever bear one of its offsets.
type LostError struct {
	Stream   string
	From, To Offset // both included
}

func (e *LostError) Error() string {
	return fmt.Sprintf("stream %q: entries %d to %d: %v", e.Stream, e.From, e.To, ErrLost)
}

// Unwrap is ErrLost.
func (e *LostError) Unwrap() error { return ErrLost }

// The errors of every engine. They travel over the wire by name, are wrapped
// with the operation and the identity (stream, segment, offset) they hit, and
// are told apart with errors.Is.
var (
	// Stop: the caller is no longer, or never was, who may do this.
	ErrFenced = errors.New("fenced: a newer epoch owns the stream")
	ErrClosed = errors.New("closed")
	// The cluster went on without this node: a takeover started a newer generation.
	ErrGeneration = errors.New("the cluster has a newer generation")

	// Retry: nothing is known to be wrong but the way there.
	ErrUnavailable = errors.New("log unavailable")
	ErrFull        = errors.New("log node is out of disk space")
	ErrElsewhere   = errors.New("the segment is not on this node") // another member has it
	// Decided on metadata that has changed meanwhile: read it again and decide anew.
	ErrStale = errors.New("the metadata has changed meanwhile")

	// Retry, but only once somebody has done something: one side would not have the
	// other's certificate. The error says whose, and why.
	ErrRefused = errors.New("certificate refused")

	// Outcome unknown: the entry may or may not be in the log.
	ErrUnknown = errors.New("outcome unknown")

	// Quarantine: bytes that should be there are not what was written.
	ErrSuspect = errors.New("suspect: stored bytes are damaged")

	// The request can't be met.
	ErrNoStream     = errors.New("no such stream")
	ErrTrimmed      = errors.New("trimmed: the wanted entries are no longer kept")
	ErrLost         = errors.New("lost: the wanted entries may have been confirmed, and are on no disk any more")
	ErrTooLarge     = errors.New("payload too large")
	ErrCursorBehind = errors.New("cursor would move backwards")
	ErrProtocol     = errors.New("protocol violation")
	ErrIdentity     = errors.New("wrong node identity")
)
