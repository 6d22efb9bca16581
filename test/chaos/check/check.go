// Package check judges the history of a chaos run: what the writers were told
// against what every reader got. Linear takes time linear in the history and looks
// at all of it; Linearizable searches, with porcupine, for one order that
// explains a short one.
package check

import (
	"fmt"
	"time"

	"github.com/twinspan/twinspan/test/chaos/history"
)

// Options of a check.
type Options struct {
	// Cities are those in each of which a protected entry must be on a disk.
	Cities []string
	// StrongBounds: whoever asks for a stream's bounds is told of everything that
	// was confirmed before he asked. A node that answers from what it knows
	// promises less: only that what it tells of is confirmed.
	StrongBounds bool
	// From and To are the time in which a writer of each stream was trying; zero:
	// no availability is computed.
	From, To int64
}

// Report of a check. The counters from Lost on are breaches.
type Report struct {
	Streams      int
	Acknowledged int // entries confirmed to their writer
	Unprotected  int // of them: without the stream's full rule
	Unknown      int // entries whose writer was never told
	Survived     int // of them: they are in the log
	Entries      int // in the logs, at the end
	Reads        int // entries delivered to readers
	Fenced       int // writers opened

	Lost       int // confirmed, told to a writer or shown to a reader, and not there
	Duplicated int // in more than one place
	Reordered  int // not where they were promised, or behind a fence
	Changed    int // two readers, or two readings, got different bytes
	Foreign    int // nobody had written it, or not yet
	Lies       int // said to be protected when that could not be
	Unreadable int // final readings that did not reach the end

	UnavailableMax time.Duration // the longest time without a confirmed entry, of any stream
	Unavailable    time.Duration // all such times above GapMin, of the worst stream

	// Breaches says what they were, the first MessagesMax of them.
	Breaches []string
}

// MessagesMax bounds Report.Breaches.
const MessagesMax = 40

// GapMin is the shortest time without a confirmed entry that counts in Unavailable.
const GapMin = 250 * time.Millisecond

// Failed tells whether any promise was broken.
func (r *Report) Failed() bool {
	return r.Lost+r.Duplicated+r.Reordered+r.Changed+r.Foreign+r.Lies+r.Unreadable > 0
}

func (r *Report) breach(counter *int, format string, args ...any) {
	*counter++
	if len(r.Breaches) < MessagesMax {
		r.Breaches = append(r.Breaches, fmt.Sprintf(format, args...))
	}
}

// Linear checks a whole history, which must be in the order of time
// (history.Sort) and end with a final reading of each stream (history.Final). An
// error says that the history itself makes no sense.
func Linear(records []history.Record, o Options) (*Report, error) {
	h, err := gather(records)
	if err != nil {
		return nil, err
	}
	r := &Report{Streams: len(h.streams)}
	for _, s := range h.sorted() {
		s.check(r, h, o)
	}
	if o.To > o.From {
		h.availability(r, o)
	}
	return r, nil
}
