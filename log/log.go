// Package log is the vocabulary of the geo-replicated log: what a stream, an
// entry and an offset are, and the few verbs that every engine offers.
//
// A stream holds the changes of one MySQL set. Its entries are numbered densely
// from 0 in the order they were appended; topics are filtered views of that one
// order, so "this schema was published before that row" is a comparison of two
// offsets. One writer at a time owns a stream: opening a writer raises the
// stream's epoch, and an older epoch can never append again.
package log

import (
	"context"
	"fmt"
	"time"
)

// Offset is the dense index of an entry in its stream, from 0.
type Offset int64

// None is the offset before the first entry: an empty stream's LAC and LSO.
const None Offset = -1

// Epoch numbers the owners of a stream. It only grows.
type Epoch uint64

// Topic is a view of a stream. The number is what travels and is stored.
type Topic uint16

// The topics of a stream.
const (
	TopicData       Topic = 1 // batches of transactions (change.Batch)
	TopicSchema     Topic = 2 // table versions (schema topic), before their first row
	TopicExceptions Topic = 3 // changes that could not be applied
)

var topicNames = map[Topic]string{TopicData: "data", TopicSchema: "schema", TopicExceptions: "exceptions"}

func (t Topic) String() string {
	if s, ok := topicNames[t]; ok {
		return s
	}
	return fmt.Sprintf("topic-%d", uint16(t))
}

// ParseTopic is the inverse of String for the named topics.
func ParseTopic(name string) (Topic, error) {
	for t, s := range topicNames {
		if s == name {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown topic %q: use data, schema or exceptions", name)
}

// Draft is what a writer appends: an entry without the fields the log assigns.
type Draft struct {
	Topic Topic
	// EndsTransaction says that after this entry no transaction is open; it
	// moves the LSO here. Entries of the schema topic carry the value of the
	// data entry before them.
	EndsTransaction bool
	// Payload is opaque to the log, 1 byte to MaxPayload. The writer owns it
	// from the call to Append on; the caller must not change it again.
	Payload []byte
}

// MaxPayload bounds one entry, in bytes: with what goes with it on its way and on
// disk it stays within 32 MiB, the most that every engine can store in one piece.
const MaxPayload = 32<<20 - 64<<10

// Entry is one confirmed entry of a stream.
type Entry struct {
	Offset          Offset
	Topic           Topic
	Epoch           Epoch
	AppendedAt      time.Time // the writer's clock, UTC, microseconds
	EndsTransaction bool
	Payload         []byte // owned by the receiver
}

// Bounds says what a stream holds.
type Bounds struct {
	First Offset // the oldest entry that is still kept; LAC+1 when there is none
	LAC   Offset // last add confirmed: the newest entry a reader may see; None when empty
	LSO   Offset // the newest entry that ends a transaction; None when there is none
	Epoch Epoch  // the epoch that owns the stream; 0 before the first writer
}

// Ack is the log's answer for one entry.
type Ack struct {
	Offset Offset
	// Protected says that the stream's full ack rule held when the entry was
	// confirmed. A degraded stream confirms with Protected=false.
	Protected bool
}

// Writer is the only appender of a stream at its epoch. Its methods may be
// called from several goroutines; the order of Append calls is the order of the
// offsets. After any error the writer is dead: entries that were not confirmed
// have an unknown outcome, and only a new writer's tail tells which exist.
type Writer interface {
	// Epoch is the epoch this writer fenced the stream with.
	Epoch() Epoch
	// Bounds is the stream's state when the writer took it over, then as
	// entries are confirmed. Everything up to LAC is durable.
	Bounds() Bounds
	// Append queues one entry and returns its offset. It blocks while the
	// bytes in flight are above the writer's window. It fails with ErrFenced
	// when a newer epoch owns the stream, ErrTooLarge for a payload above
	// MaxPayload, ErrClosed after Close, or the first error of the writer.
	Append(ctx context.Context, d Draft) (Offset, error)
	// Wait blocks until the entry and all before it are confirmed.
	Wait(ctx context.Context, o Offset) (Ack, error)
	// Close flushes what is queued, waits for it, and releases the stream.
	Close() error
}

// ReaderOptions choose where a reader starts and what it sees.
type ReaderOptions struct {
	// From is the first offset wanted. Below Bounds.First the reader fails
	// with ErrTrimmed: what was wanted is gone, and it never skips silently.
	// The schema topic outlives retention: a reader of that topic alone may
	// start at 0 for ever. Beyond LAC+1 the reader fails with ErrSuspect:
	// confirmed entries do not vanish, so another log was read before.
	From Offset
	// To ends the reader before this offset: Next returns io.EOF once every
	// wanted entry below it was delivered, even where the topics have none
	// near it. It waits for the entries that are not confirmed yet. 0: no end.
	To Offset
	// Topics are the views to deliver; none means all.
	Topics []Topic
	// Committed stops delivery at the LSO instead of the LAC: no entry of a
	// transaction whose end is not confirmed.
	Committed bool
}

// Reader delivers entries in offset order and follows the tail. One goroutine
// uses it at a time; Close may be called from another one.
type Reader interface {
	// Next blocks until an entry is there. Errors: io.EOF at ReaderOptions.To,
	// ErrTrimmed, ErrSuspect, ErrClosed, ErrUnavailable (the reader may be
	// reopened at the same offset), ctx.Err().
	Next(ctx context.Context) (Entry, error)
	// Bounds is what the reader last learned about its stream.
	Bounds() Bounds
	Close() error
}

// Cursor is a group's confirmed place: everything up to Offset was taken over.
type Cursor struct {
	Group     string
	Offset    Offset // None: nothing yet
	GTIDSet   string // what the group had applied at Offset; free text for the log
	UpdatedAt time.Time
}

// Log is one engine: the twinspan log, embedded or over the wire, or JetStream.
// A Log is safe for concurrent use.
type Log interface {
	// OpenWriter fences every earlier writer of the stream, recovers its tail,
	// and returns the only writer. It creates the stream when there is none.
	OpenWriter(ctx context.Context, stream string) (Writer, error)
	// OpenReader fails with ErrNoStream, ErrTrimmed, ErrSuspect (From lies
	// beyond the end), ErrUnavailable.
	OpenReader(ctx context.Context, stream string, o ReaderOptions) (Reader, error)
	// Bounds fails with ErrNoStream or ErrUnavailable.
	Bounds(ctx context.Context, stream string) (Bounds, error)
	// Streams lists the streams by name, sorted.
	Streams(ctx context.Context) ([]string, error)
	// Cursors lists the stream's cursors, sorted by group. Retention keeps
	// every entry above the lowest of them.
	Cursors(ctx context.Context, stream string) ([]Cursor, error)
	// StoreCursor is cumulative: an offset below the stored one is refused
	// with ErrCursorBehind, one that is not confirmed with ErrProtocol. A zero
	// UpdatedAt becomes the present time.
	StoreCursor(ctx context.Context, stream string, c Cursor) error
	Close() error
}
