package ops

import (
	"context"
	"fmt"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
)

// Leaving says what giving a node's identity up would mean.
type Leaving struct {
	Node      meta.Node `json:"node"`
	Reachable bool      `json:"reachable"`
	Holds     int       `json:"holds"`   // closed segments it holds
	LastOf    []string  `json:"last_of"` // those that nobody else holds: stream/segment, at most 100
	// Losing are all of these, and LosingEntries how many of their entries nobody else
	// has.
	Losing        []LosingSegment `json:"losing"`
	LosingEntries int64           `json:"losing_entries"`
	// Unasked are other nodes that could not be asked what they have of these.
	Unasked []Unasked `json:"unasked"`
	// Silent are those whose other holders do not answer now: stream/segment, at most 100.
	Silent []string `json:"silent"`
	// Uncovered are streams whose open segment the other members do not cover
	// without it: no writer opens it any more until it is closed by force.
	Uncovered []string `json:"uncovered"`
	OpenIn    []string `json:"open_in"` // streams whose open segment it is a member of
}

// LosingSegment is a closed segment of which entries would be lost.
type LosingSegment struct {
	Stream  string     `json:"stream"`
	Segment uint32     `json:"segment"`
	First   log.Offset `json:"first"`
	Last    log.Offset `json:"last"`
	// Kept is the newest entry that other nodes have, KeptBy; First-1 and nobody:
	// they have none.
	Kept   log.Offset `json:"kept"`
	KeptBy []string   `json:"kept_by"`
	// Damaged: they have it up to there, but for what is damaged on all of them.
	Damaged bool `json:"damaged,omitempty"`
	// Groups are those whose cursors have not passed it.
	Groups []string `json:"groups,omitempty"`

	left []meta.Left
}

// Entries is how many of them would be lost.
func (s *LosingSegment) Entries() int64 { return int64(s.Last - s.Kept) }

// Unasked is a node that stores entries and did not say what it has.
type Unasked struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// Forget gives the node up, with the entries that the preview says would be lost, and
// no others.
func (c *Client) Forget(ctx context.Context, l *Leaving, by, reason string) error {
	f := &meta.Forget{Node: l.Node.Name, UUID: l.Node.UUID}
	for i := range l.Losing {
		s := &l.Losing[i]
		lose := meta.Losing{Stream: s.Stream, Segment: s.Segment, Left: s.left}
		if most := s.Entries(); len(s.left) > 0 { // else it is what older versions understand, too
			lose.Most = &most
		}
		f.Lose = append(f.Lose, lose)
	}
	return c.Change(ctx, meta.Command{Forget: f}, by, reason)
}

// leftPage is how many segments a node is asked about at a time.
const leftPage = 256

// left asks every other node that stores entries what it has of the segments that
// nobody else is listed to hold.
func (c *Client) left(ctx context.Context, l *Leaving, nodes []meta.Node) {
	if len(l.Losing) == 0 {
		return
	}
	others := slices.DeleteFunc(slices.Clone(nodes), func(n meta.Node) bool { return n.Name == l.Node.Name || n.Witness })
	answers := make([][]leftSegment, len(others))
	errs := make([]error, len(others))
	each(len(others), func(i int) { answers[i], errs[i] = c.leftOn(ctx, others[i], l.Losing) })
	at := map[leftSegment]int{}
	for i := range l.Losing {
		at[leftSegment{stream: l.Losing[i].Stream, segment: l.Losing[i].Segment}] = i
	}
	for i, n := range others {
		if errs[i] != nil {
			l.Unasked = append(l.Unasked, Unasked{n.Name, oneLine(errs[i])})
			continue
		}
		for _, a := range answers[i] {
			x := a.Left
			a.Left = meta.Left{}
			if k, asked := at[a]; asked {
				l.Losing[k].left = append(l.Losing[k].left, x)
			}
		}
	}
	for i := range l.Losing {
		l.Losing[i].keep()
		l.LosingEntries += l.Losing[i].Entries()
	}
}

// keep finds what stays, as the metadata will.
func (s *LosingSegment) keep() {
	for _, x := range s.left {
		s.Kept = max(s.Kept, min(x.Last, s.Last))
	}
	for _, damaged := range []bool{false, true} {
		if len(s.KeptBy) > 0 {
			return
		}
		for _, x := range s.left {
			if x.Damaged == damaged && x.Last >= s.Kept {
				s.KeptBy, s.Damaged = append(s.KeptBy, x.Node), damaged
			}
		}
	}
}

// leftSegment is what a node has of a segment.
type leftSegment struct {
	stream  string
	segment uint32
	meta.Left
}

// leftOn asks one node.
func (c *Client) leftOn(ctx context.Context, n meta.Node, losing []LosingSegment) ([]leftSegment, error) {
	var out []leftSegment
	for from := 0; from < len(losing); {
		q := node.LeftQuestion{Stream: losing[from].Stream}
		for ; from < len(losing) && losing[from].Stream == q.Stream && len(q.Segments) < leftPage; from++ {
			q.Segments = append(q.Segments, losing[from].Segment)
		}
		var a node.LeftAnswer
		if err := c.Admin(ctx, n.Address, node.AdminLeft, q, &a); err != nil {
			return nil, err
		}
		if a.Node != n.Name || a.UUID != n.UUID {
			return nil, fmt.Errorf("at %s is node %s with directory %.8s, registered is %.8s: %w", n.Address, a.Node, a.UUID, n.UUID, log.ErrIdentity)
		}
		for _, s := range a.Segments {
			out = append(out, leftSegment{q.Stream, s.Segment, s.Left})
		}
	}
	return out, nil
}

// uncovered says that the registered members of an open segment do not cover it without
// one of them.
func uncovered(s *meta.Segment, nodes []meta.Node, without quorum.Member) bool {
	q, err := s.Quorum()
	if err != nil {
		return true
	}
	var have uint64
	for i, m := range s.Members {
		if m != without && slices.ContainsFunc(nodes, func(n meta.Node) bool { return n.Name == m.Node && n.UUID == m.UUID }) {
			have |= 1 << i
		}
	}
	return !q.Covers(have)
}

// Leaving looks through all segments.
func (c *Client) Leaving(ctx context.Context, name string) (*Leaving, error) {
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(nodes, func(n meta.Node) bool { return n.Name == name })
	if i < 0 {
		var names []string
		for _, n := range nodes {
			names = append(names, n.Name)
		}
		return nil, &UnknownNode{Name: name, Known: names}
	}
	l := &Leaving{Node: nodes[i], LastOf: []string{}, OpenIn: []string{}, Losing: []LosingSegment{}, Unasked: []Unasked{}, Silent: []string{}, Uncovered: []string{}}
	answers := make([]bool, len(nodes))
	each(len(nodes), func(i int) {
		_, err := c.Hello(ctx, nodes[i].Address)
		answers[i] = err == nil
	})
	me := quorum.Member{Node: name, UUID: nodes[i].UUID, City: nodes[i].City}
	helps := func(m quorum.Member) bool { // another node that has it, and answers
		k := slices.IndexFunc(nodes, func(n meta.Node) bool { return n.Name == m.Node && n.UUID == m.UUID })
		return m.Node != name && k >= 0 && answers[k]
	}
	l.Reachable = answers[i]
	streams, err := c.meta.Streams(ctx)
	if err != nil {
		return nil, err
	}
	is := func(m quorum.Member) bool { return m.Node == name && m.UUID == nodes[i].UUID }
	for _, stream := range streams {
		st, err := c.meta.Stream(ctx, stream)
		if err != nil {
			return nil, err
		}
		for from := uint32(1); ; {
			page, err := c.meta.Segments(ctx, stream, from, meta.SegmentsPageMax)
			if err != nil {
				return nil, err
			}
			if len(page) == 0 {
				break
			}
			for _, s := range page {
				switch {
				case !s.Closed && slices.ContainsFunc(s.Members, is):
					l.OpenIn = append(l.OpenIn, stream)
					if uncovered(&s, nodes, me) {
						l.Uncovered = append(l.Uncovered, stream)
					}
				case s.Closed && slices.ContainsFunc(s.Holders, is):
					l.Holds++
					switch id := fmt.Sprintf("%s/%d", stream, s.Segment); {
					case len(s.Holders) == 1:
						if len(l.LastOf) < 100 {
							l.LastOf = append(l.LastOf, id)
						}
						lose := LosingSegment{Stream: stream, Segment: s.Segment, First: s.First, Last: s.Left(), Kept: s.First - 1, KeptBy: []string{}}
						for _, x := range st.Cursors {
							if x.Offset < lose.Last {
								lose.Groups = append(lose.Groups, x.Group)
							}
						}
						l.Losing = append(l.Losing, lose)
					case !slices.ContainsFunc(s.Holders, helps) && len(l.Silent) < 100:
						l.Silent = append(l.Silent, id)
					}
				}
			}
			from = page[len(page)-1].Segment + 1
		}
	}
	c.left(ctx, l, nodes)
	return l, nil
}
