package ops

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
)

// Closing says what a forced close of a stream's open segment would mean.
type Closing struct {
	Stream  string          `json:"stream"`
	Segment uint32          `json:"segment"`
	First   log.Offset      `json:"first"`
	Epoch   log.Epoch       `json:"epoch"` // of the owner that it would fence
	Owner   string          `json:"owner,omitempty"`
	Rule    string          `json:"rule"`
	Members []ClosingMember `json:"members"`
	Cursors []log.Cursor    `json:"cursors"`
	// Last is where it would end: the newest entry that a member has who is not
	// given up. One below First: nobody has any.
	Last log.Offset `json:"last"`
	// Confirmed is the newest entry that somebody knows to have been confirmed.
	// Above Last: what lies between is lost for sure.
	Confirmed log.Offset `json:"confirmed"`
	// LostFrom is the first offset of which nobody would know whether an entry was
	// confirmed under it; LostTo the last one that is passed over, at least.
	LostFrom log.Offset `json:"lost_from"`
	LostTo   log.Offset `json:"lost_to"`
	Refuse   string     `json:"refuse,omitempty"` // why it can't be done, or need not be
}

// ClosingMember is what is known of a member.
type ClosingMember struct {
	Node    string     `json:"node"`
	City    string     `json:"city"`
	Gone    bool       `json:"gone"` // its directory was forgotten: it is given up
	Answers bool       `json:"answers"`
	Damaged bool       `json:"damaged"`
	GivenUp bool       `json:"given_up"`
	Last    log.Offset `json:"last"` // on its disk, as far as it can be read
	LAC     log.Offset `json:"lac"`  // the newest it knows to be confirmed
	Error   string     `json:"error,omitempty"`
}

// Closing previews a forced close that gives up the nodes named, besides those
// whose directory was forgotten. It changes nothing.
func (c *Client) Closing(ctx context.Context, stream string, giveUp []string) (*Closing, error) {
	st, err := c.meta.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(st.Segments); n == 0 || st.Segments[n-1].Closed {
		return nil, fmt.Errorf("stream %q: no segment is open, there is nothing to close: %w", stream, log.ErrProtocol)
	}
	s := &st.Segments[len(st.Segments)-1]
	q, err := s.Quorum()
	if err != nil {
		return nil, err
	}
	out := &Closing{
		Stream: stream, Segment: s.Segment, First: s.First, Epoch: st.Epoch, Owner: st.Owner, Rule: s.Rule.String(),
		Members: make([]ClosingMember, len(s.Members)), Cursors: append([]log.Cursor{}, st.Cursors...), Last: s.First - 1, Confirmed: s.First - 1,
	}
	given := client.Given(s.Members, nodes, giveUp)
	each(len(s.Members), func(i int) { out.Members[i] = c.closingMember(ctx, s, i, nodes) })
	var named, silent, damaged []string
	for i := range out.Members {
		m := &out.Members[i]
		m.GivenUp = given>>i&1 == 1
		named = append(named, m.Node)
		if m.Answers {
			out.Confirmed = max(out.Confirmed, m.LAC)
		}
		switch {
		case m.GivenUp && m.Answers && !m.Damaged:
			out.Refuse = fmt.Sprintf("node %s answers and is not damaged: it need not be given up", m.Node)
		case m.GivenUp && !m.Gone && !m.Answers:
			out.Refuse = fmt.Sprintf("node %s does not answer, and may come back with entries: when its disk is gone, twinspan log nodes forget %s says so for good", m.Node, m.Node)
		case m.GivenUp:
		case !m.Answers:
			silent = append(silent, m.Node)
		case m.Damaged:
			damaged = append(damaged, m.Node)
		default:
			out.Last = max(out.Last, m.Last)
		}
	}
	highest := out.Last
	for _, x := range st.Cursors {
		highest = max(highest, x.Offset)
	}
	out.LostFrom, out.LostTo = out.Last+1, highest+meta.LostEntries
	for _, n := range giveUp {
		if !slices.Contains(named, n) {
			out.Refuse = fmt.Sprintf("node %s is no member of the segment: those are %s", n, strings.Join(named, ", "))
		}
	}
	switch {
	case out.Refuse != "":
	case q.Covers(q.All() &^ given):
		out.Refuse = "the members that are left know of everything that was confirmed: as soon as they answer, the next writer ends the segment without a loss"
	case len(silent) > 0:
		out.Refuse = fmt.Sprintf("%s %s not answer, and may have entries that nobody else has: start it; or, when its disk is gone, twinspan log nodes forget",
			strings.Join(silent, ", "), verb(len(silent), "does", "do"))
	case len(damaged) > 0:
		out.Refuse = fmt.Sprintf("%s %s damaged in this segment, and can't say where it ends: --give-up leaves out what only it has", strings.Join(damaged, ", "), verb(len(damaged), "is", "are"))
	}
	return out, nil
}

func verb(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

func (c *Client) closingMember(ctx context.Context, s *meta.Segment, i int, nodes []meta.Node) ClosingMember {
	m := s.Members[i]
	v := ClosingMember{Node: m.Node, City: m.City, Last: s.First - 1, LAC: s.First - 1}
	at := slices.IndexFunc(nodes, func(n meta.Node) bool { return n.Name == m.Node && n.UUID == m.UUID })
	if at < 0 {
		v.Gone, v.Error = true, "its directory was forgotten"
		return v
	}
	var status node.ClusterStatus
	if err := c.Admin(ctx, nodes[at].Address, node.AdminStatus, struct{}{}, &status); err != nil {
		v.Error = oneLine(err)
		return v
	}
	if status.UUID != m.UUID {
		v.Error = "another directory answers under its name"
		return v
	}
	v.Answers = true
	for _, r := range status.Replicas {
		if r.Stream == s.Stream && r.Segment == s.Segment {
			v.Last, v.LAC, v.Damaged = r.Last, max(r.LAC, s.First-1), r.Suspect
		}
	}
	return v
}
