package meta

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
)

// snapshotFormat is the version of the snapshot's lines.
const snapshotFormat = 1

// decodeStrictly refuses what it does not know: a part of a command that a node
// passes over would make its state another one than its peers'.
func decodeStrictly(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", err, log.ErrProtocol)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something behind the end: %w", log.ErrProtocol)
	}
	return nil
}

// A snapshot is lines of JSON: the head, then for each stream its own head, then
// its segments, one a line.
type snapshotHead struct {
	Format     int        `json:"format"`
	Index      uint64     `json:"index"`
	Generation uint64     `json:"generation"`
	Now        time.Time  `json:"now"`
	Terms      uint64     `json:"terms"`
	Nodes      []Node     `json:"nodes"`
	Forgotten  []identity `json:"forgotten"`
	Takeovers  []Takeover `json:"takeovers"`
	Leases     []Lease    `json:"leases"`
	Streams    int        `json:"streams"`
}

type snapshotStream struct {
	Stream
	Emptied uint32     `json:"emptied"`
	End     log.Offset `json:"end"`
	Kept    int        `json:"kept"` // lines of segments, then
	Live    int        `json:"live"` // these
}

// Save writes the view so that Load makes the same state of it.
func (v *View) Save(w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	e := json.NewEncoder(b)
	head := snapshotHead{
		Format: snapshotFormat, Index: v.index, Generation: v.generation, Now: v.now, Terms: v.terms,
		Nodes: v.nodes, Forgotten: v.forgotten, Takeovers: v.takeovers, Streams: v.streams.count,
	}
	for _, name := range v.leases.keys() {
		l, _ := v.leases.get(name)
		head.Leases = append(head.Leases, l)
	}
	if err := e.Encode(head); err != nil {
		return fmt.Errorf("metadata snapshot: %w", err)
	}
	for _, name := range v.streams.keys() {
		st, _ := v.streams.get(name)
		if err := e.Encode(snapshotStream{Stream: st.Stream, Emptied: st.emptied, End: st.end, Kept: st.kept.count, Live: st.live.count}); err != nil {
			return fmt.Errorf("metadata snapshot: stream %q: %w", name, err)
		}
		for _, c := range []chain{st.kept, st.live} {
			var err error
			c.each(place{}, func(s *Segment) bool {
				err = e.Encode(s)
				return err == nil
			})
			if err != nil {
				return fmt.Errorf("metadata snapshot: stream %q: %w", name, err)
			}
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("metadata snapshot: %w", err)
	}
	return nil
}

// Load reads what Save wrote. log.ErrProtocol when it is nothing of that kind, or
// of a newer version.
func Load(r io.Reader) (*State, error) {
	d := json.NewDecoder(bufio.NewReaderSize(r, 64<<10))
	next := func(what string, into any) error {
		if err := d.Decode(into); err != nil {
			return fmt.Errorf("metadata snapshot: %s: %w: %w", what, err, log.ErrProtocol)
		}
		return nil
	}
	var head snapshotHead
	if err := next("head", &head); err != nil {
		return nil, err
	}
	switch {
	case head.Format != snapshotFormat:
		return nil, fmt.Errorf("metadata snapshot of format %d, this program knows %d: %w", head.Format, snapshotFormat, log.ErrProtocol)
	case head.Streams < 0 || head.Streams > StreamsMax || len(head.Nodes) > NodesMax || head.Generation == 0:
		return nil, fmt.Errorf("metadata snapshot: %d streams, %d nodes, generation %d: %w", head.Streams, len(head.Nodes), head.Generation, log.ErrProtocol)
	}
	v := &View{
		index: head.Index, generation: head.Generation, now: head.Now, terms: head.Terms,
		nodes: head.Nodes, forgotten: head.Forgotten, takeovers: head.Takeovers,
	}
	for _, l := range head.Leases {
		v.leases.put(l.Name, l)
	}
	for range head.Streams {
		var s snapshotStream
		if err := next("stream", &s); err != nil {
			return nil, err
		}
		st := &stream{Stream: s.Stream, emptied: s.Emptied, end: s.End}
		var (
			before *Segment
			all    []*Segment
		)
		if s.Kept < 0 || s.Live < 0 || s.Kept+s.Live > SegmentsMax {
			return nil, fmt.Errorf("metadata snapshot: stream %q of %d and %d segments: %w", s.Name, s.Kept, s.Live, log.ErrProtocol)
		}
		for i := range s.Kept + s.Live {
			seg := &Segment{}
			if err := next(fmt.Sprintf("stream %q", s.Name), seg); err != nil {
				return nil, err
			}
			if !follows(before, seg, i < s.Kept, i == s.Kept, i == s.Kept+s.Live-1, st) {
				return nil, fmt.Errorf("metadata snapshot: stream %q: segment %d does not follow: %w", s.Name, seg.Segment, log.ErrProtocol)
			}
			seg.share(before)
			before = seg
			all = append(all, seg)
		}
		st.kept, st.live = chainOf(all[:s.Kept]), chainOf(all[s.Kept:])
		st.short = st.allShort()
		v.streams.put(st.Name, st)
	}
	return &State{v: v}, nil
}

// follows checks the order of segments that the rest relies on.
func follows(before, s *Segment, kept, firstLive, last bool, st *stream) bool {
	switch {
	case s.Stream != st.Name || s.Segment >= st.NextSegment || s.First < 0 || s.Closed && s.Last < s.First:
		return false
	case !s.Closed && (kept || !last || s.First != st.NextFirst):
		return false
	case s.Closed && s.Last >= st.NextFirst:
		return false
	case before == nil:
		return true
	case kept || firstLive:
		return s.Segment > before.Segment && s.First > before.Last
	}
	return s.Segment > before.Segment && s.First == before.Last+1
}

// share lets s have the slices and maps of the segment before where they are
// equal, as they mostly are.
func (s *Segment) share(before *Segment) {
	if before == nil {
		return
	}
	if slices.Equal(before.Members, s.Members) {
		s.Members = before.Members
	}
	if slices.Equal(before.Holders, s.Holders) {
		s.Holders = before.Holders
	}
	if maps.Equal(before.Rule.Cities, s.Rule.Cities) {
		s.Rule.Cities = before.Rule.Cities
	}
}
