package binlog

import (
	"time"

	"github.com/twinspan/twinspan/change"
)

// Header is what is known of a transaction when it begins.
type Header struct {
	GTID string
	// CommitTime is when it was committed at its origin, UTC: to the
	// microsecond for MySQL, to the second for MariaDB.
	CommitTime time.Time
	ServerID   uint32 // of its origin
}

// Sink takes what a stream reads: in binlog order, on the stream's goroutine.
// Its methods may block; that is the back-pressure, and the stream holds no more
// than one event meanwhile. An error stops the stream and is returned by Run.
//
// The calls for one transaction are Begin, then any number of DDL and Row, then
// End. A Begin without an End before it takes back what was begun: the
// connection broke in mid-transaction, and the transaction comes again from its
// start.
type Sink interface {
	Begin(Header) error
	DDL(*change.DDL) error
	// Row hands over one row. The Row and its images are the stream's, valid
	// during the call, and not to be changed; the Table may be kept.
	Row(*change.Row) error
	// End says that the transaction is whole, and where it was read.
	End(change.Source) error
}

// sinkError marks an error as the sink's, so that it is not taken for one of
// the connection.
type sinkError struct{ error }

func (e sinkError) Unwrap() error { return e.error }

func fromSink(err error) error {
	if err == nil {
		return nil
	}
	return sinkError{err}
}
