package ops

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
)

// Overview is the cluster as its nodes tell it now.
type Overview struct {
	Generation uint64 `json:"generation"`
	Leader     string `json:"leader"` // of the metadata; empty: there is none
	// Stale: there is no leader, and this is what StaleFrom knew last.
	Stale     bool         `json:"stale"`
	StaleFrom string       `json:"stale_from,omitempty"`
	Nodes     []NodeView   `json:"nodes"`   // sorted by name
	Streams   []StreamView `json:"streams"` // sorted by name
	Leases    []meta.Lease `json:"leases"`
	Problems  []string     `json:"problems"` // for people, the worst first
}

// NodeView is one node.
type NodeView struct {
	meta.Node
	Reachable  bool   `json:"reachable"`
	Error      string `json:"error,omitempty"`
	State      string `json:"state,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	Role       string `json:"role,omitempty"` // in the metadata: leader, follower …
	Replicas   int    `json:"replicas"`
	Open       int    `json:"open"`    // of them, not closed
	Suspect    int    `json:"suspect"` // of them, damaged
	Bytes      int64  `json:"bytes"`   // of all replicas
	// Missing are copies that repair has still to bring here, as the keeper
	// sees it.
	Missing    int              `json:"missing"`
	Quarantine *node.Quarantine `json:"quarantine,omitempty"`
}

// StreamView is one stream.
type StreamView struct {
	Name    string     `json:"name"`
	Epoch   log.Epoch  `json:"epoch"`
	Owner   string     `json:"owner,omitempty"`
	First   log.Offset `json:"first"`
	LAC     log.Offset `json:"lac"` // the newest that any member knows; -1: none
	Segment uint32     `json:"segment"`
	Open    bool       `json:"open"` // somebody can append to it
	Rule    string     `json:"rule"` // of the newest segment
	// NodeRule is Rule as the metadata has it.
	NodeRule quorum.NodeRule `json:"node_rule"`
	Policy   meta.Policy     `json:"policy"`
	Degraded []string        `json:"degraded,omitempty"`
	// Protected: what is confirmed now has the policy's rule.
	Protected bool              `json:"protected"`
	Members   []MemberView      `json:"members"` // of the newest segment
	Windows   []meta.Window     `json:"windows,omitempty"`
	Cursors   []log.Cursor      `json:"cursors,omitempty"`
	Lost      []meta.CursorLost `json:"lost,omitempty"`
	Gaps      []meta.Gap        `json:"gaps,omitempty"` // offsets that were given up
	Short     int               `json:"short"`          // closed segments that repair has to copy
}

// MemberView is one member of a stream's newest segment.
type MemberView struct {
	Node    string     `json:"node"`
	City    string     `json:"city"`
	Last    log.Offset `json:"last"` // newest entry on its disk; -1: none, or not known
	Behind  int64      `json:"behind"`
	Answers bool       `json:"answers"`
	Gone    bool       `json:"gone,omitempty"` // its directory is not registered any more
	Error   string     `json:"error,omitempty"`
}

// probes bounds how many nodes are asked at a time.
const probes = 8

// Overview asks the metadata, and every node.
func (c *Client) Overview(ctx context.Context) (*Overview, error) {
	o := &Overview{Nodes: []NodeView{}, Streams: []StreamView{}, Leases: []meta.Lease{}, Problems: []string{}}
	store, err := c.store(ctx, o)
	if err != nil {
		return nil, err
	}
	nodes, err := store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if o.Leases, err = store.Leases(ctx); err != nil {
		return nil, err
	}
	names, err := store.Streams(ctx)
	if err != nil {
		return nil, err
	}
	o.Nodes = make([]NodeView, len(nodes))
	each(len(nodes), func(i int) { o.Nodes[i] = c.node(ctx, nodes[i]) })
	for i := range o.Nodes {
		o.Generation = max(o.Generation, o.Nodes[i].Generation)
		if o.Nodes[i].Role == "leader" {
			o.Leader = o.Nodes[i].Name
		}
	}
	o.Streams = make([]StreamView, len(names))
	errs := make([]error, len(names))
	each(len(names), func(i int) { o.Streams[i], errs[i] = c.stream(ctx, store, names[i], o.Nodes) })
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	o.judge()
	return o, nil
}

func each(n int, f func(int)) {
	var all sync.WaitGroup
	turns := make(chan struct{}, probes) // owner: this function; bound probes; never closed
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			f(i)
			<-turns
		})
	}
	all.Wait()
}

// leaderPatience is how long the leader is waited for before a node's own view
// has to do.
const leaderPatience = 4 * time.Second

// store is the metadata by its leader, or else what one node knows of it.
func (c *Client) store(ctx context.Context, o *Overview) (meta.Store, error) {
	short, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	_, err := c.meta.Nodes(short)
	if err == nil {
		return c.meta, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// Who has applied most of it.
	all := make([]meta.Status, len(c.cfg.Seeds))
	errs := make([]error, len(all))
	each(len(all), func(i int) { all[i], errs[i] = c.raw.Status(ctx, c.cfg.Seeds[i]) })
	best := -1
	for i := range all {
		if errs[i] == nil && (best < 0 || all[i].AppliedIndex > all[best].AppliedIndex) {
			best = i
		}
	}
	if best < 0 {
		return nil, errors.Join(append(errs, err)...)
	}
	o.Stale, o.StaleFrom = true, c.cfg.Seeds[best]
	return bounded{c.raw.Stale(o.StaleFrom), c.cfg.Timeout}, nil
}

// node asks one node how it is.
func (c *Client) node(ctx context.Context, n meta.Node) NodeView {
	v := NodeView{Node: n}
	var s node.ClusterStatus
	hello, err := c.Hello(ctx, n.Address)
	if err == nil {
		v.Reachable, v.Generation = true, hello.Generation
		if hello.UUID != n.UUID {
			v.Error = "its directory is another one than the one registered: twinspan log nodes forget gives the old one up"
		}
		err = c.Admin(ctx, n.Address, node.AdminStatus, struct{}{}, &s)
	}
	if err != nil {
		v.Error = oneLine(err)
		return v
	}
	v.State, v.Generation, v.Quarantine = string(s.State), s.Generation, s.Quarantine
	for _, r := range s.Replicas {
		v.Replicas++
		v.Bytes += r.Bytes
		if !r.Closed {
			v.Open++
		}
		if r.Suspect {
			v.Suspect++
		}
	}
	for _, m := range s.Keeper.Missing {
		if m.Node == n.Name {
			v.Missing++
		}
	}
	if st, err := c.raw.Status(ctx, n.Address); err == nil {
		v.Role = st.Role
	}
	return v
}

// stream asks the metadata for a stream, and its newest segment's members where
// they stand.
func (c *Client) stream(ctx context.Context, store meta.Store, name string, nodes []NodeView) (StreamView, error) {
	st, err := store.Stream(ctx, name)
	if err != nil {
		return StreamView{}, err
	}
	v := StreamView{
		Name: name, Epoch: st.Epoch, Owner: st.Owner, First: st.First, LAC: st.NextFirst - 1, Policy: st.Policy, Degraded: st.Degraded,
		Rule: st.Policy.Rule.String(), Protected: len(st.Degraded) == 0, Windows: st.Windows, Cursors: st.Cursors, Lost: st.Lost, Gaps: st.Gaps, Short: st.Short,
		Members: []MemberView{},
	}
	if len(st.Segments) == 0 {
		return v, nil
	}
	s := st.Segments[len(st.Segments)-1]
	v.Segment, v.Open, v.NodeRule = s.Segment, !s.Closed, s.Rule
	if !s.Lost { // nothing was ever confirmed by a gap's rule
		v.Rule, v.Protected = s.Rule.String(), s.Protected
	}
	if s.Closed {
		v.LAC = s.Last
	}
	v.Members = make([]MemberView, len(s.Members))
	lacs := make([]log.Offset, len(s.Members))
	each(len(s.Members), func(i int) { v.Members[i], lacs[i] = c.member(ctx, &s, s.Members[i], nodes) })
	newest := v.LAC
	for i, m := range v.Members {
		v.LAC = max(v.LAC, lacs[i])
		newest = max(newest, m.Last)
	}
	for i := range v.Members {
		if m := &v.Members[i]; m.Answers {
			m.Behind = int64(newest - max(m.Last, s.First-1))
		}
	}
	return v, nil
}

func (c *Client) member(ctx context.Context, s *meta.Segment, m quorum.Member, nodes []NodeView) (MemberView, log.Offset) {
	v := MemberView{Node: m.Node, City: m.City, Last: log.None}
	i := slices.IndexFunc(nodes, func(n NodeView) bool { return n.Name == m.Node && n.UUID == m.UUID })
	switch {
	case i < 0:
		v.Error, v.Gone = "not registered any more", true
		return v, log.None
	case !nodes[i].Reachable:
		v.Error = nodes[i].Error
		return v, log.None
	}
	held, err := c.Copy(ctx, nodes[i].Address, s.Stream, s.Segment, s.First, s.First, true, nil)
	if err != nil {
		v.Error = oneLine(err)
		return v, log.None
	}
	v.Answers, v.Last = true, held.LAC
	known, err := c.Copy(ctx, nodes[i].Address, s.Stream, s.Segment, s.First, s.First, false, nil)
	if err != nil {
		return v, log.None
	}
	return v, known.LAC
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// RepairStatus is what the keeper knows to be missing.
type RepairStatus struct {
	Keeper  string             `json:"keeper"`
	Missing []node.MissingCopy `json:"missing"`
	Copied  int64              `json:"copied_bytes"`    // by all nodes since their start
	Done    int64              `json:"copied_replicas"` // by all nodes since their start
	Problem string             `json:"problem,omitempty"`
	// Short are closed segments without the copies that their stream's rule asks
	// for, by the metadata.
	Short int `json:"short"`
}

// RepairStatus asks the metadata, and every node what it copied; the keeper what is
// missing.
func (c *Client) RepairStatus(ctx context.Context) (*RepairStatus, error) {
	r := &RepairStatus{Missing: []node.MissingCopy{}}
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	streams, err := c.meta.Streams(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range streams {
		st, err := c.meta.Stream(ctx, name)
		if err != nil {
			return nil, err
		}
		r.Short += st.Short
	}
	all := make([]node.ClusterStatus, len(nodes))
	each(len(nodes), func(i int) {
		// One that does not answer is in log nodes; it copied nothing of late.
		_ = c.Admin(ctx, nodes[i].Address, node.AdminStatus, struct{}{}, &all[i])
	})
	for _, s := range all {
		r.Copied += s.Keeper.Copied
		r.Done += s.Keeper.Done
		if s.Keeper.Holder != "" {
			r.Keeper = s.Keeper.Holder
		}
	}
	for i, s := range all {
		if nodes[i].Name == r.Keeper {
			r.Missing, r.Problem = append(r.Missing, s.Keeper.Missing...), s.Keeper.Problem
		}
	}
	return r, nil
}

// Find asks a node by its name, at an address or wherever anybody knows it.
func (c *Client) Find(ctx context.Context, name, address string) (node.ClusterStatus, string, error) {
	var s node.ClusterStatus
	if address != "" {
		err := c.Admin(ctx, address, node.AdminStatus, struct{}{}, &s)
		return s, address, err
	}
	any, _, err := c.anyStatus(ctx)
	if err != nil {
		return s, "", err
	}
	for _, n := range any.Nodes {
		if n.Name == name {
			err := c.Admin(ctx, n.Address, node.AdminStatus, struct{}{}, &s)
			return s, n.Address, err
		}
	}
	var known []string
	for _, n := range any.Nodes {
		known = append(known, n.Name)
	}
	return s, "", &UnknownNode{Name: name, Known: known}
}
