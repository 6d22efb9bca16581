package ops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
)

// anyStatus is the status of a seed that answers, and its address.
func (c *Client) anyStatus(ctx context.Context) (node.ClusterStatus, string, error) {
	return c.statusOf(ctx, func(node.ClusterStatus) bool { return true })
}

// statusOf asks all seeds at once, for a city that is cut off may swallow what is
// sent to it, and takes the first answer that will do; if none does, any other.
func (c *Client) statusOf(ctx context.Context, will func(node.ClusterStatus) bool) (node.ClusterStatus, string, error) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	type answer struct {
		status  node.ClusterStatus
		address string
		err     error
	}
	answers := make(chan answer, len(c.cfg.Seeds)) // owner: this function; bound: one for each seed; never closed
	for _, seed := range c.cfg.Seeds {
		all.Go(func() {
			a := answer{address: seed}
			a.err = c.Admin(ctx, seed, node.AdminStatus, struct{}{}, &a.status)
			answers <- a
		})
	}
	var errs []error
	var other *answer
	for range c.cfg.Seeds {
		a := <-answers
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case will(a.status):
			return a.status, a.address, nil
		case other == nil:
			other = &a
		}
	}
	if other != nil {
		return other.status, other.address, nil
	}
	return node.ClusterStatus{}, "", errors.Join(errs...)
}

// Policy completes a policy that has no rule: one node in each city that stores
// entries, by the cluster's own list, whoever of it has come already.
func (c *Client) Policy(ctx context.Context, p meta.Policy) (meta.Policy, error) {
	if p.Rule.Total > 0 || len(p.Rule.Cities) > 0 {
		return p, nil
	}
	s, _, err := c.anyStatus(ctx)
	if err != nil {
		return p, fmt.Errorf("nodes of the cluster: %w", err)
	}
	list := make([]node.ClusterNode, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		list = append(list, node.ClusterNode{Name: n.Name, City: n.City, Address: n.Address, Witness: n.Witness})
	}
	p.Rule = node.DefaultPolicy(list).Rule
	return p, nil
}

// Create makes a stream; false: it was there already, with a policy of its own.
func (c *Client) Create(ctx context.Context, stream string, p meta.Policy) (bool, meta.Policy, error) {
	old, err := c.meta.Stream(ctx, stream)
	if err == nil {
		return false, old.Policy, nil
	}
	if !errors.Is(err, log.ErrNoStream) {
		return false, p, err
	}
	if p, err = c.Policy(ctx, p); err != nil {
		return false, p, err
	}
	_, err = c.meta.Do(ctx, meta.Command{Create: &meta.Create{Stream: stream, Policy: p}})
	return err == nil, p, err
}

// Weaker says what doing without a city means for a stream.
type Weaker struct {
	Stream    string          `json:"stream"`
	City      string          `json:"city"`
	Loss      meta.Loss       `json:"loss"`
	Rule      quorum.NodeRule `json:"rule"`    // by policy
	Without   quorum.NodeRule `json:"without"` // while the city is done without
	Degraded  []string        `json:"degraded"`
	Members   []MemberView    `json:"members"`
	Waiting   bool            `json:"waiting"`    // now the rule can't be met by the members that answer
	WouldHold bool            `json:"would_hold"` // the weaker rule can be met by them
	// Alive are nodes of the city that answer.
	Alive  []string `json:"alive"`
	Refuse string   `json:"refuse,omitempty"` // why it can't be done
}

// Without previews Degrade, or its end.
func (c *Client) Without(ctx context.Context, stream, city string, off bool) (*Weaker, error) {
	st, err := c.meta.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	nodes, err := c.meta.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	w := &Weaker{Stream: stream, City: city, Loss: st.Policy.Loss, Rule: st.Policy.Rule, Without: st.Policy.Rule.Without(city),
		Degraded: append([]string{}, st.Degraded...), Members: []MemberView{}, Alive: []string{}}
	// A city whose nodes were given up by a takeover is in the rule still.
	_, known := st.Policy.Rule.Cities[city]
	var up []quorum.Member
	views := make([]NodeView, len(nodes))
	each(len(nodes), func(i int) {
		views[i] = NodeView{Node: nodes[i]}
		if _, err := c.Hello(ctx, nodes[i].Address); err != nil {
			views[i].Error = oneLine(err)
			return
		}
		views[i].Reachable = true
	})
	for _, n := range views {
		if n.Witness {
			continue
		}
		m := MemberView{Node: n.Name, City: n.City, Last: log.None, Answers: n.Reachable, Error: n.Error}
		w.Members = append(w.Members, m)
		known = known || n.City == city
		if !n.Reachable {
			continue
		}
		up = append(up, quorum.Member{Node: n.Name, UUID: n.UUID, City: n.City})
		if n.City == city {
			w.Alive = append(w.Alive, n.Name)
		}
	}
	_, full := w.Rule.Of(up)
	_, less := w.Without.Of(up)
	w.Waiting, w.WouldHold = full != nil, less == nil
	degraded := slices.Contains(st.Degraded, city)
	switch {
	case !known:
		w.Refuse = fmt.Sprintf("no node in city %q stores entries, and the rule does not ask for one", city)
	case !off && st.Policy.Loss == meta.LossBlock:
		w.Refuse = "the stream's policy is to block: twinspan topic policy " + stream + " --loss degrade-manual changes that"
	case !off && degraded:
		w.Refuse = "it is done without already"
	case off && !degraded:
		w.Refuse = "it is not done without"
	}
	return w, nil
}

// Degrade does without a city, or ends that.
func (c *Client) Degrade(ctx context.Context, stream, city string, off bool, by, reason string) error {
	return c.Change(ctx, meta.Command{Degrade: &meta.Degrade{Stream: stream, City: city, Off: off, Reason: reason}}, by, reason)
}

// lostPatience is how long a node of a city that is said to be lost is waited for
// before it is taken for lost.
const lostPatience = 3 * time.Second

// Takeover previews or carries out a forced takeover: the nodes of the lost cities
// are given up. It refuses while the metadata has a leader, and while one of those
// nodes still answers. previewed is what an operator saw; carried out it must be
// the same nodes that are given up.
func (c *Client) Takeover(ctx context.Context, cities []string, by, reason string, preview bool) (*node.Takeover, error) {
	// Nodes that are cut off may swallow what is sent to them: everything is asked
	// at once, and not for long.
	short, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	var led error
	var leader sync.WaitGroup
	leader.Go(func() { _, led = c.meta.Nodes(short) })
	s, at, err := c.statusOf(short, func(s node.ClusterStatus) bool { return !slices.Contains(cities, s.City) })
	alive := make([]bool, len(s.Nodes))
	probe, end := context.WithTimeout(ctx, lostPatience)
	defer end()
	each(len(s.Nodes), func(i int) {
		if slices.Contains(cities, s.Nodes[i].City) {
			_, err := c.Hello(probe, s.Nodes[i].Address)
			alive[i] = err == nil
		}
	})
	leader.Wait()
	follows := slices.ContainsFunc(s.Nodes, func(n node.Peer) bool { return n.Name == s.Leader && !slices.Contains(cities, n.City) })
	if led == nil || follows {
		return nil, fmt.Errorf("the metadata has a leader, so a majority lives: a takeover would give nodes up for nothing (log degrade lets a stream go on without a city): %w", log.ErrProtocol)
	}
	if err != nil {
		return nil, err
	}
	var lost, left []string
	found := map[string]bool{}
	for i, n := range s.Nodes {
		if !slices.Contains(cities, n.City) {
			left = append(left, n.Name)
			continue
		}
		found[n.City] = true
		lost = append(lost, n.Name)
		if alive[i] {
			return nil, fmt.Errorf("node %s of city %s answers at %s: it is not cut off; stop it, or cut it off, first: %w", n.Name, n.City, n.Address, log.ErrProtocol)
		}
		if n.Name == s.Node {
			return nil, fmt.Errorf("the node that was asked, %s, is in city %s itself: %w", n.Name, n.City, log.ErrProtocol)
		}
	}
	for _, city := range cities {
		if !found[city] {
			return nil, fmt.Errorf("the cluster has no node in city %q: %w", city, log.ErrProtocol)
		}
	}
	if len(left) == 0 {
		return nil, fmt.Errorf("nobody would be left: %w", log.ErrProtocol)
	}
	var out node.Takeover
	err = c.Admin(ctx, at, node.AdminTakeover, node.Attestation{By: by, Reason: reason, Lost: lost, Preview: preview}, &out)
	return &out, err
}

// UnknownNode is a name that no registered node has.
type UnknownNode struct {
	Name  string
	Known []string
}

func (e *UnknownNode) Error() string {
	return fmt.Sprintf("there is no node %q: the cluster has %s", e.Name, strings.Join(e.Known, ", "))
}

// Repair has the keeper look after closed segments now.
func (c *Client) Repair(ctx context.Context) (*node.Repaired, string, error) {
	s, at, err := c.anyStatus(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, n := range s.Nodes {
		if n.Name == s.Keeper.Holder {
			at = n.Address
		}
	}
	var out node.Repaired
	err = c.Admin(ctx, at, node.AdminRepair, struct{}{}, &out)
	return &out, at, err
}
