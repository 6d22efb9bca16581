package ops

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// Verdict on one replica.
type Verdict string

// The verdicts.
const (
	Equal       Verdict = "equal"
	Different   Verdict = "different"   // it holds other bytes than the first holder
	Missing     Verdict = "missing"     // it lacks entries that metadata says it has
	Damaged     Verdict = "damaged"     // it says so, or an entry does not match its checksum
	Unreachable Verdict = "unreachable" // nobody knows
)

// ReplicaCheck is what was found on one node.
type ReplicaCheck struct {
	Node    string     `json:"node"`
	City    string     `json:"city"`
	Verdict Verdict    `json:"verdict"`
	Entries int64      `json:"entries"`
	Bytes   int64      `json:"bytes"`
	At      log.Offset `json:"at"` // where it differs; -1: nowhere
	Detail  string     `json:"detail,omitempty"`
}

// SegmentCheck is one segment on all nodes that hold it.
type SegmentCheck struct {
	Stream   string         `json:"stream"`
	Segment  uint32         `json:"segment"`
	First    log.Offset     `json:"first"`
	Last     log.Offset     `json:"last"` // up to which was compared; First-1: it is empty
	Open     bool           `json:"open,omitempty"`
	Replicas []ReplicaCheck `json:"replicas"`
}

// Report of Verify.
type Report struct {
	Streams     int            `json:"streams"`
	Segments    int            `json:"segments"`
	Entries     int64          `json:"entries"` // of one replica of each segment
	Bytes       int64          `json:"bytes"`   // of one replica of each segment
	Differences int            `json:"differences"`
	Unreachable int            `json:"unreachable"` // replicas that could not be looked at
	Single      int            `json:"single"`      // segments of which only one replica could be read: nothing to compare with
	Found       []SegmentCheck `json:"found"`       // segments with anything but equal replicas, at most FoundMax
}

// FoundMax bounds Report.Found.
const FoundMax = 1000

// VerifyOptions of Verify.
type VerifyOptions struct {
	Stream  string // empty: all
	Segment uint32 // 0: all
	From    uint32 // first segment
	// Progress is told after each segment; nil: nobody is.
	Progress func(SegmentCheck)
}

// Verify reads every replica of the segments that the metadata lists, whole, and
// compares entry by entry: offset, epoch, time, topic, the end of a transaction,
// and payload. An open segment is compared up to what every member that answers
// knows to be confirmed. Of a compacted one only what is kept for ever counts: its
// nodes compact when they get to it.
func (c *Client) Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	names := []string{o.Stream}
	if o.Stream == "" {
		var err error
		if names, err = c.meta.Streams(ctx); err != nil {
			return nil, err
		}
	}
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	r := &Report{Streams: len(names), Found: []SegmentCheck{}}
	seed := maphash.MakeSeed()
	for _, name := range names {
		from := max(o.From, 1)
		if o.Segment > 0 {
			from = o.Segment
		}
		for {
			page, err := c.meta.Segments(ctx, name, from, meta.SegmentsPageMax)
			if err != nil {
				return r, err
			}
			if len(page) == 0 {
				break
			}
			for i := range page {
				if o.Segment > 0 && page[i].Segment != o.Segment || page[i].Lost {
					continue
				}
				check, listed, err := c.verifySettled(ctx, page[i], nodes, seed)
				if err != nil {
					return r, err
				}
				if !listed {
					continue
				}
				r.add(check)
				if o.Progress != nil {
					o.Progress(check)
				}
			}
			if o.Segment > 0 {
				break
			}
			from = page[len(page)-1].Segment + 1
		}
	}
	return r, nil
}

func (r *Report) add(s SegmentCheck) {
	r.Segments++
	bad, read := false, 0
	var entries, bytes int64
	for _, x := range s.Replicas {
		switch x.Verdict {
		case Equal:
			read++
		case Unreachable:
			r.Unreachable++
			bad = true
		default:
			r.Differences++
			bad = true
		}
		entries, bytes = max(entries, x.Entries), max(bytes, x.Bytes)
	}
	if read == 1 {
		r.Single++
	}
	r.Entries += entries
	r.Bytes += bytes
	if bad && len(r.Found) < FoundMax {
		r.Found = append(r.Found, s)
	}
}

// verifySettled compares a segment, once more when retention or repair changed it
// meanwhile; false: retention took it.
func (c *Client) verifySettled(ctx context.Context, s meta.Segment, nodes []meta.Node, seed maphash.Seed) (SegmentCheck, bool, error) {
	for try := 0; ; try++ {
		check, err := c.verifySegment(ctx, &s, nodes, seed)
		if err != nil || !slices.ContainsFunc(check.Replicas, func(x ReplicaCheck) bool { return x.Verdict != Equal }) {
			return check, true, err
		}
		now, err := c.meta.Segments(ctx, s.Stream, s.Segment, 1)
		if err != nil {
			return check, true, err
		}
		if len(now) == 0 || now[0].Segment != s.Segment {
			return check, false, nil
		}
		same := now[0].Closed == s.Closed && now[0].Compacted == s.Compacted && slices.Equal(now[0].Holders, s.Holders)
		if same || try == 2 {
			return check, true, nil
		}
		s = now[0]
	}
}

// verifySegment compares the replicas of one segment.
func (c *Client) verifySegment(ctx context.Context, s *meta.Segment, nodes []meta.Node, seed maphash.Seed) (SegmentCheck, error) {
	out := SegmentCheck{Stream: s.Stream, Segment: s.Segment, First: s.First, Last: s.Left(), Open: !s.Closed, Replicas: []ReplicaCheck{}}
	holders := s.Holders
	if !s.Closed {
		holders = s.Members
		out.Last = c.confirmedByAll(ctx, s, nodes)
	}
	var first *fingerprints
	for _, m := range slices.Clone(holders) {
		x := ReplicaCheck{Node: m.Node, City: m.City, At: log.None, Verdict: Equal}
		address, err := addressOf(nodes, m)
		if err != nil {
			x.Verdict, x.Detail = Unreachable, err.Error()
			out.Replicas = append(out.Replicas, x)
			continue
		}
		f := &fingerprints{seed: seed, first: s.First, schemaOnly: s.Compacted, against: first}
		if out.Last >= s.First {
			_, err = c.Copy(ctx, address, s.Stream, s.Segment, s.First, out.Last+1, false, f.add)
		}
		if err == nil {
			err = f.end(out.Last)
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		x.Entries, x.Bytes = f.entries, f.bytes
		var differs *difference
		switch {
		case err == nil:
			if first == nil {
				first = f
			}
		case errors.As(err, &differs):
			x.Verdict, x.At, x.Detail = differs.verdict, differs.at, differs.what
		case errors.Is(err, log.ErrSuspect):
			x.Verdict, x.At, x.Detail = Damaged, f.next, err.Error()
		case errors.Is(err, log.ErrElsewhere), errors.Is(err, log.ErrTrimmed), errors.Is(err, log.ErrNoStream):
			x.Verdict, x.At, x.Detail = Missing, f.next, err.Error()
		default:
			x.Verdict, x.Detail = Unreachable, err.Error()
		}
		out.Replicas = append(out.Replicas, x)
	}
	return out, nil
}

// confirmedByAll is the lowest LAC of the members of an open segment that answer.
func (c *Client) confirmedByAll(ctx context.Context, s *meta.Segment, nodes []meta.Node) log.Offset {
	lowest, any := s.First-1, false
	for _, m := range s.Members {
		address, err := addressOf(nodes, m)
		if err != nil {
			continue
		}
		b, err := c.Copy(ctx, address, s.Stream, s.Segment, s.First, s.First, false, nil)
		if err != nil {
			continue // the comparison will say that it is unreachable
		}
		if !any || b.LAC < lowest {
			lowest, any = b.LAC, true
		}
	}
	return max(lowest, s.First-1)
}

func addressOf(nodes []meta.Node, m quorum.Member) (string, error) {
	for _, n := range nodes {
		if n.Name == m.Node && n.UUID == m.UUID {
			return n.Address, nil
		}
	}
	return "", fmt.Errorf("node %s with the identity %.8s is not registered any more", m.Node, m.UUID)
}

// difference is where a replica is not like the first.
type difference struct {
	verdict Verdict
	at      log.Offset
	what    string
}

func (d *difference) Error() string { return d.what }

// fingerprints are the hashes of a replica's entries. The first replica's are kept
// (16 bytes an entry); the others are held against them as they come.
type fingerprints struct {
	seed       maphash.Seed
	first      log.Offset
	schemaOnly bool
	against    *fingerprints

	offsets        []log.Offset
	hashes         []uint64
	next           log.Offset // behind the newest entry
	at             int        // of against
	entries, bytes int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (f *fingerprints) add(e *wire.Stored) error {
	if crc32.Checksum(e.Payload, castagnoli) != e.Checksum {
		return &difference{Damaged, e.Offset, fmt.Sprintf("entry %d does not match its own checksum", e.Offset)}
	}
	if f.schemaOnly {
		if e.Topic != log.TopicSchema {
			return nil
		}
	} else if want := max(f.next, f.first); e.Offset != want {
		return &difference{Missing, want, fmt.Sprintf("entry %d is missing, the next one is %d", want, e.Offset)}
	}
	f.next = e.Offset + 1
	f.entries++
	f.bytes += int64(len(e.Payload))
	h := f.hash(e)
	if f.against == nil {
		f.offsets, f.hashes = append(f.offsets, e.Offset), append(f.hashes, h)
		return nil
	}
	a := f.against
	switch {
	case f.at >= len(a.offsets) || a.offsets[f.at] > e.Offset:
		return &difference{Different, e.Offset, fmt.Sprintf("entry %d is here, but not on the node it is compared with", e.Offset)}
	case a.offsets[f.at] < e.Offset:
		return &difference{Missing, a.offsets[f.at], fmt.Sprintf("entry %d is missing", a.offsets[f.at])}
	case a.hashes[f.at] != h:
		return &difference{Different, e.Offset, fmt.Sprintf("entry %d has other bytes than on the node it is compared with", e.Offset)}
	}
	f.at++
	return nil
}

// end is called after the last entry.
func (f *fingerprints) end(last log.Offset) error {
	if !f.schemaOnly && max(f.next, f.first) != last+1 {
		return &difference{Missing, max(f.next, f.first), fmt.Sprintf("entries from %d on are missing", max(f.next, f.first))}
	}
	if a := f.against; a != nil && f.at < len(a.offsets) {
		return &difference{Missing, a.offsets[f.at], fmt.Sprintf("entry %d is missing", a.offsets[f.at])}
	}
	return nil
}

func (f *fingerprints) hash(e *wire.Stored) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	var b [35]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(e.Offset))
	binary.LittleEndian.PutUint64(b[8:], uint64(e.Epoch))
	binary.LittleEndian.PutUint64(b[16:], uint64(e.AppendedAt.UnixMicro()))
	binary.LittleEndian.PutUint16(b[24:], uint16(e.Topic))
	if e.EndsTransaction {
		b[26] = 1
	}
	binary.LittleEndian.PutUint64(b[27:], uint64(len(e.Payload)))
	_, _ = h.Write(b[:]) // never fails
	_, _ = h.Write(e.Payload)
	return h.Sum64()
}
