package quorum

import "github.com/twinspan/twinspan/log"

// Close is the end of a segment as whoever closes it knows it.
type Close struct {
	Segment uint32
	Last    log.Offset // First-1: it stays empty
	LSO     log.Offset // newest entry up to Last that ends a transaction
	Bytes   int64      // of its payloads; 0 when the closer did not count them
	Holders []Member   // who has all of it
}

// Advance is what a roll or a recovery asks of the metadata, in one step: close
// the open segment, open the next one. The fields of Advance and Close are those
// of the metadata's commands, so that a shell converts them as they are.
type Advance struct {
	Stream string
	Epoch  log.Epoch
	Close  *Close
	Open   *Descriptor
	Reason string // of a close without the full rule, or an unprotected open
	// Lost: entries behind Close.Last may have been acknowledged and are gone. The
	// metadata must pass over their offsets.
	Lost bool
}

// Outcome of an Advance.
type Outcome uint8

// What the metadata says, or does not say.
const (
	Done    Outcome = iota // recorded
	Fenced                 // log.ErrFenced: a newer epoch owns the stream
	Unknown                // no answer: the same Advance is proposed again until there is one
	Refused                // any other error: it is not recorded
)

// Next describes the segment that follows d when d is closed with c.
func (d *Descriptor) Next(c Close, epoch log.Epoch, generation uint64, p Plan) *Descriptor {
	return &Descriptor{
		Stream: d.Stream, Segment: d.Segment + 1, First: c.Last + 1, FirstLSO: c.LSO, Epoch: epoch, Generation: generation,
		Members: p.Members, Rule: p.Rule, Protected: p.Protected,
	}
}
