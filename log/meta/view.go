package meta

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// View is an immutable picture of the metadata. It is safe for concurrent use;
// what it returns must not be changed.
type View struct {
	index      uint64
	generation uint64
	now        time.Time
	terms      uint64 // of leases, all of them
	nodes      []Node // sorted by name
	forgotten  []identity
	takeovers  []Takeover
	streams    shards[*stream]
	leases     shards[Lease]
}

// identity of a directory.
type identity struct {
	Node string `json:"node"`
	UUID string `json:"uuid"`
}

// stream is a Stream as it is kept. It is never changed but in a copy, and its
// slices are replaced, not written to.
type stream struct {
	Stream          // without segments, and what out fills in
	kept    chain   // compacted: wholly below live
	live    chain   // they chain without gaps; only the last may be open
	short   []short // sorted
	emptied uint32  // number of the segment that was last closed while empty
	end     log.Offset
	// end is that segment's First-1.
}

// open segment; nil: there is none.
func (st *stream) open() *Segment {
	if s := st.live.last(0); s != nil && !s.Closed {
		return s
	}
	return nil
}

// find a segment by its number.
func (st *stream) find(number uint32) (c *chain, p place, ok bool) {
	if p, ok = st.live.find(number); ok {
		return &st.live, p, true
	}
	p, ok = st.kept.find(number)
	return &st.kept, p, ok
}

// out is the stream for people and programs outside.
func (st *stream) out(v *View) Stream {
	out := st.Stream
	for n := 1; n >= 0; n-- {
		if s := st.live.last(n); s != nil {
			out.Segments = append(out.Segments, *s)
		}
	}
	out.First = out.NextFirst
	if s := st.live.first(); s != nil {
		out.First = s.First
	}
	out.Generation = v.generation
	out.Short = len(st.short)
	return out
}

// Index of the newest Raft entry in it; 0 outside a Server.
func (v *View) Index() uint64 { return v.index }

// Generation of the cluster; 1 in the beginning.
func (v *View) Generation() uint64 { return v.generation }

// Now is the state's clock: the newest time of a command.
func (v *View) Now() time.Time { return v.now }

// Streams lists the names, sorted.
func (v *View) Streams() []string { return v.streams.keys() }

// Stream with its newest two segments.
func (v *View) Stream(name string) (Stream, bool) {
	st, ok := v.streams.get(name)
	if !ok {
		return Stream{}, false
	}
	return st.out(v), true
}

// Segments from number from on, at most n, in order; false: no such stream.
func (v *View) Segments(stream string, from uint32, n int) ([]Segment, bool) {
	st, ok := v.streams.get(stream)
	if !ok {
		return nil, false
	}
	var out []Segment
	for _, c := range []chain{st.kept, st.live} {
		if p, ok := c.seek(func(s *Segment) bool { return s.Segment >= from }); ok {
			c.each(p, func(s *Segment) bool {
				if len(out) < n {
					out = append(out, *s)
				}
				return len(out) < n
			})
		}
	}
	return out, true
}

// Segment by its number; false: not listed (never was, dropped, or trimmed).
func (v *View) Segment(stream string, number uint32) (*Segment, bool) {
	st, ok := v.streams.get(stream)
	if !ok {
		return nil, false
	}
	c, p, ok := st.find(number)
	if !ok {
		return nil, false
	}
	return c.at(p), true
}

// SegmentAt is the segment that holds, or will hold, the entry; the next one
// that is kept when retention took it; false: there is none from there on.
func (v *View) SegmentAt(stream string, o log.Offset) (*Segment, bool) {
	st, ok := v.streams.get(stream)
	if !ok {
		return nil, false
	}
	for _, c := range []chain{st.kept, st.live} {
		if p, ok := c.seek(func(s *Segment) bool { return !s.Closed || s.Last >= o }); ok {
			return c.at(p), true
		}
	}
	return nil, false
}

// Short lists closed segments from number from on whose holders do not satisfy
// the policy's rule, at most n: what repair has to copy.
func (v *View) Short(stream string, from uint32, n int) []Segment {
	st, ok := v.streams.get(stream)
	if !ok {
		return nil
	}
	var out []Segment
	for _, x := range st.short {
		if x.number < from || len(out) >= n {
			continue
		}
		if c, p, ok := st.find(x.number); ok {
			out = append(out, *c.at(p))
		}
	}
	return out
}

// Nodes sorted by name.
func (v *View) Nodes() []Node { return slices.Clone(v.nodes) }

// Node by name.
func (v *View) Node(name string) (Node, bool) {
	i, ok := v.findNode(name)
	if !ok {
		return Node{}, false
	}
	return v.nodes[i], true
}

func (v *View) findNode(name string) (int, bool) {
	return slices.BinarySearchFunc(v.nodes, name, func(n Node, name string) int { return strings.Compare(n.Name, name) })
}

// Leases that have not expired, sorted by name.
func (v *View) Leases() []Lease {
	var out []Lease
	for _, name := range v.leases.keys() {
		if l, ok := v.Lease(name); ok {
			out = append(out, l)
		}
	}
	return out
}

// Lease by name, unless it expired by the state's clock.
func (v *View) Lease(name string) (Lease, bool) {
	l, ok := v.leases.get(name)
	return l, ok && l.Expires.After(v.now)
}

// Takeovers since the cluster began.
func (v *View) Takeovers() []Takeover { return slices.Clone(v.takeovers) }

// Admit says whether a node that introduces itself so may take part: its
// generation is not older than the view's, the directory is the one registered
// under its name and none that was forgotten. log.ErrGeneration, log.ErrIdentity.
// A node that is not known at all is admitted: it may be about to register; it
// says generation 0 as long as it knows none. Both sides of every connection
// between nodes ask Server.Admit, Raft's above all: a voter that lost its directory
// has forgotten its votes.
func (v *View) Admit(node, uuid string, generation uint64) error {
	if v.wasForgotten(uuid) {
		if generation < v.generation {
			return fmt.Errorf("node %q of generation %d, the cluster is at %d: %w", node, generation, v.generation, log.ErrGeneration)
		}
		return fmt.Errorf("node %q: directory %s was forgotten, it needs a new identity: %w", node, uuid, log.ErrIdentity)
	}
	n, known := v.Node(node)
	switch {
	case known && n.UUID != uuid:
		return fmt.Errorf("node %q has directory %s, not %s: forget the old one first: %w", node, n.UUID, uuid, log.ErrIdentity)
	case generation < v.generation && generation > 0:
		return fmt.Errorf("node %q of generation %d, the cluster is at %d: %w", node, generation, v.generation, log.ErrGeneration)
	}
	return nil
}

func (v *View) wasForgotten(uuid string) bool {
	return slices.ContainsFunc(v.forgotten, func(f identity) bool { return f.UUID == uuid })
}

// Changed lists the streams that differ from an older view, or are new or gone,
// sorted.
func (v *View) Changed(since *View) []string {
	var out []string
	for i, part := range v.streams.parts {
		old := since.streams.parts[i]
		for name, st := range part {
			if old[name] != st {
				out = append(out, name)
			}
		}
		for name := range old {
			if part[name] == nil {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// satisfies says whether the members, each a node of its own, satisfy the rule.
func satisfies(members []quorum.Member, r quorum.NodeRule) bool {
	if len(members) < max(r.Total, 1) {
		return false
	}
	for city, least := range r.Cities {
		for _, m := range members {
			if m.City == city {
				least--
			}
		}
		if least > 0 {
			return false
		}
	}
	return true
}

// atLeast says that a asks for everything that b asks for.
func atLeast(a, b quorum.NodeRule) bool {
	total := func(r quorum.NodeRule) int {
		sum := 0
		for _, n := range r.Cities {
			sum += max(n, 0)
		}
		return max(r.Total, sum, 1)
	}
	if total(a) < total(b) {
		return false
	}
	for city, least := range b.Cities {
		if a.Cities[city] < least {
			return false
		}
	}
	return true
}
