package client

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// counters of a client since its start.
type counters struct {
	dialFailures atomic.Int64
	recoveries   atomic.Int64
	cursors      atomic.Int64
	shunned      atomic.Int64

	mu     sync.Mutex
	cities map[string]*atomic.Int64 // bytes of entries received, by the node's city
}

func (c *counters) received(city string, bytes int64) {
	c.mu.Lock()
	n := c.cities[city]
	if n == nil {
		n = &atomic.Int64{}
		c.cities[city] = n
	}
	c.mu.Unlock()
	n.Add(bytes)
}

// Stats of a Client: a picture.
type Stats struct {
	Writers []WriterStats
	Readers []ReaderStats
	// Received is the bytes of entries that readers got since the start, frames
	// included, by the city of the node. What is not of the own city has crossed.
	Received       map[string]int64
	DialFailures   int64 // since the start
	Recoveries     int64 // segments of earlier owners that were ended
	CursorCommands int64 // cursors that were sent to the metadata
	NodesLeft      int64 // times that a reader left a node which was behind or damaged
}

// WriterStats is the state of a writer.
type WriterStats struct {
	Stream    string
	Epoch     log.Epoch
	Segment   uint32
	First     log.Offset // of the segment
	Next      log.Offset
	Confirmed log.Offset
	// InFlightBytes are appended and not confirmed; RingBytes is what the writer
	// keeps of entries, for members that lag.
	InFlightBytes int64
	RingBytes     int64
	Rule          quorum.NodeRule
	Protected     bool     // the segment has the stream's full rule
	Degraded      []string // cities that the stream does without
	Blocked       string   // why nothing can be confirmed; empty: it can
	Rolls         int64    // since it was opened
	Resumes       int64    // members that came back within a segment
	Degrades      int64    // changes of protection
	Members       []MemberStats
	Error         string // why it is dead
}

// MemberStats is how a writer stands with a member.
type MemberStats struct {
	quorum.Member
	State      string
	Last       log.Offset // newest entry that it acknowledged
	LagEntries int64      // appended, and not acknowledged by it
	SentBytes  int64      // in this segment
	Error      string     // of the last attempt to attach; empty: attached
}

// ReaderStats is the state of a reader.
type ReaderStats struct {
	Stream     string
	Node, City string // attached to; empty: to none
	Next       log.Offset
	HeldBytes  int64 // received and not taken
	Quiet      time.Duration
}

// Stats of the client now.
func (c *Client) Stats() Stats {
	s := Stats{
		Received: map[string]int64{}, DialFailures: c.stats.dialFailures.Load(), Recoveries: c.stats.recoveries.Load(),
		CursorCommands: c.stats.cursors.Load(), NodesLeft: c.stats.shunned.Load(),
	}
	c.stats.mu.Lock()
	for city, n := range c.stats.cities {
		s.Received[city] = n.Load()
	}
	c.stats.mu.Unlock()
	c.mu.Lock()
	var writers []*writer
	var readers []*reader
	for o := range c.open {
		switch o := o.(type) {
		case *writer:
			writers = append(writers, o)
		case *reader:
			readers = append(readers, o)
		}
	}
	c.mu.Unlock()
	for _, w := range writers {
		s.Writers = append(s.Writers, w.stats())
	}
	for _, r := range readers {
		s.Readers = append(s.Readers, r.stats())
	}
	return s
}

func (w *writer) stats() WriterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.core.Descriptor()
	out := WriterStats{
		Stream: w.stream, Epoch: w.epoch, Segment: d.Segment, First: d.First, Next: w.core.Next(), Confirmed: w.core.Confirmed(),
		InFlightBytes: w.core.InFlight(), RingBytes: w.ring.bytes, Rule: d.Rule, Protected: d.Protected,
		Degraded: w.outlook.stream.Degraded, Blocked: w.blocked, Rolls: w.rolls, Resumes: w.resumes, Degrades: w.degraded,
	}
	if w.err != nil {
		out.Error = w.err.Error()
	}
	for i, s := range w.seats {
		m := MemberStats{
			Member: s.member, State: w.core.State(i).String(), Last: w.core.Mark(i),
			LagEntries: int64(w.core.Next() - 1 - w.core.Mark(i)), SentBytes: s.sent,
		}
		if s.err != nil {
			m.Error = s.err.Error()
		}
		out.Members = append(out.Members, m)
	}
	return out
}

func (r *reader) stats() ReaderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := ReaderStats{Stream: r.stream, Next: r.next, HeldBytes: r.held, Quiet: time.Since(r.heard)}
	if r.session != nil {
		out.Node, out.City = r.session.hello.Node, r.session.hello.City
	}
	return out
}
