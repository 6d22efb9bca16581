package client

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// Force is an operator's word that a segment may be closed although entries of it
// that were confirmed may be lost.
type Force struct {
	By, Reason string
	// GiveUp names nodes that answer, and whose copy of the segment is damaged, so
	// that it can't be said where it ends. Nodes whose directory was forgotten are
	// given up anyhow; all others have to answer.
	GiveUp []string
}

// Forced is how a segment was closed by force.
type Forced struct {
	Stream  string          `json:"stream"`
	Segment uint32          `json:"segment"`
	Epoch   log.Epoch       `json:"epoch"` // everybody below it is fenced
	Last    log.Offset      `json:"last"`  // the segment ends there; below its first: it stays empty
	Holders []quorum.Member `json:"holders"`
	Lost    bool            `json:"lost"`    // entries behind Last may have been confirmed
	LostTo  log.Offset      `json:"lost_to"` // if so, the newest offset that is passed over
}

// Given are the members of a segment that a forced close gives up: those whose
// directory is not registered any more, and those named.
func Given(members []quorum.Member, nodes []meta.Node, named []string) (set uint64) {
	for i, m := range members {
		if _, ok := find(nodes, m); !ok || slices.Contains(named, m.Node) {
			set |= 1 << i
		}
	}
	return set
}

// ForceClose ends the open segment of a stream whose members that are left do not
// cover it. Its owner is fenced. What any member that was not given up holds is
// kept; the offsets behind are passed over, and recorded as a gap, so that nobody
// ever takes another entry for one that is lost. It opens no segment: the next
// writer does. log.ErrProtocol when nothing has to be forced; log.ErrUnavailable
// while a member that was not given up does not answer.
func (c *Client) ForceClose(ctx context.Context, stream string, f Force) (*Forced, error) {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	bounded, cancel := context.WithTimeout(ctx, c.cfg.OpenFor)
	defer cancel()
	out, err := c.forceClose(bounded, stream, f)
	if err != nil {
		return nil, c.said(fmt.Errorf("forced close of stream %q: %w", stream, err))
	}
	return out, nil
}

func (c *Client) forceClose(ctx context.Context, stream string, f Force) (*Forced, error) {
	if strings.TrimSpace(f.Reason) == "" || f.By == "" {
		return nil, fmt.Errorf("who accepts the loss, and why? %w", log.ErrProtocol)
	}
	seen, err := c.meta.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if _, _, err := forcible(&seen, nodes, f.GiveUp); err != nil {
		return nil, err // before anybody is fenced
	}
	st, err := c.own(ctx, stream)
	if err != nil {
		return nil, err
	}
	open, given, err := forcible(st, nodes, f.GiveUp)
	if err != nil {
		return nil, err
	}
	if open.Segment != seen.Segments[len(seen.Segments)-1].Segment {
		return nil, fmt.Errorf("segment %d was closed meanwhile: %w", seen.Segments[len(seen.Segments)-1].Segment, log.ErrStale)
	}
	core, err := quorum.NewRecovery(open.Descriptor, st.Epoch)
	if err != nil {
		return nil, err
	}
	core.GiveUp(given)
	lost := &meta.Lost{To: open.First - 1, By: f.By, Reason: f.Reason}
	for _, x := range seen.Cursors {
		lost.To = max(lost.To, x.Offset)
	}
	o := &opening{client: c, stream: stream, epoch: st.Epoch, outlook: outlook{client: c}, lost: lost}
	o.outlook.learn(st)
	a, err := o.recover(ctx, core)
	if err != nil {
		return nil, err
	}
	for i, m := range open.Members {
		if given>>i&1 == 0 {
			c.tellClose(ctx, m, a)
		}
	}
	out := &Forced{Stream: stream, Segment: open.Segment, Epoch: st.Epoch, Last: a.Close.Last, Holders: a.Close.Holders, Lost: a.Lost}
	if a.Lost {
		out.LostTo = lost.To
	}
	c.cfg.Logger.Warn().Str("stream", stream).Uint32("segment", open.Segment).Int64("last", int64(out.Last)).Bool("lost", out.Lost).
		Str("by", f.By).Str("reason", f.Reason).Msg("a log segment was closed by force")
	return out, nil
}

// forcible is the stream's open segment, and whom to give up for its close.
func forcible(st *meta.Stream, nodes []meta.Node, named []string) (*meta.Segment, uint64, error) {
	if n := len(st.Segments); n == 0 || st.Segments[n-1].Closed {
		return nil, 0, fmt.Errorf("no segment is open: %w", log.ErrProtocol)
	}
	open := &st.Segments[len(st.Segments)-1]
	q, err := open.Quorum()
	if err != nil {
		return nil, 0, err
	}
	given := Given(open.Members, nodes, named)
	if q.Covers(q.All() &^ given) {
		return nil, 0, fmt.Errorf("segment %d: the members that are left know of everything that was confirmed, so opening a writer closes it without a loss: %w",
			open.Segment, log.ErrProtocol)
	}
	return open, given, nil
}

// forced completes what the metadata is asked for with the loss that is accepted.
func (o *opening) forced(a quorum.Advance) *meta.Lost {
	if !a.Lost {
		return nil
	}
	if o.lost == nil {
		panic("client: a loss that nobody accepted") // the machine gives none up by itself
	}
	if o.lost.To < a.Close.Last+meta.LostEntries {
		o.lost.To = max(o.lost.To, a.Close.Last) + meta.LostEntries
	}
	return o.lost
}
