package node

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twinspan/twinspan/log"
)

// Verbs between nodes.
const (
	verbPull     = "pull"
	verbHolds    = "holds"
	verbStanding = "standing"
	verbSurvey   = "survey"
	verbInstall  = "install"
)

type holdsQuestion struct {
	Stream  string `json:"stream"`
	Segment uint32 `json:"segment"`
}

type holdsAnswer struct {
	Known bool `json:"known"`
	May   bool `json:"may"`
}

// admin answers one request.
func (n *Node) admin(ctx context.Context, verb string, request []byte) ([]byte, error) {
	open := verb == AdminStatus || verb == verbStanding || verb == verbSurvey || verb == verbInstall || verb == AdminTakeover || verb == AdminRejoin
	if err := n.standing.err(); err != nil && !open {
		return nil, err
	}
	var answer any
	var err error
	switch verb {
	case AdminStatus:
		answer = n.Status()
	case AdminRepair:
		answer, err = n.Repair(ctx)
		if r, ok := answer.(Repaired); ok && len(r.Missing) > 0 {
			err = nil // it says what is missing, and why
		}
	case AdminTakeover:
		answer, err = with(request, func(a Attestation) (Takeover, error) { return n.Takeover(ctx, a) })
	case AdminRejoin:
		answer, err = with(request, func(o RejoinOrder) (Rejoined, error) { return n.rejoin(ctx, o) })
	case AdminLeft:
		answer, err = with(request, func(q LeftQuestion) (LeftAnswer, error) { return n.Left(ctx, q) })
	case verbPull:
		answer, err = with(request, func(o pullOrder) (pulled, error) { return n.pull(ctx, o) })
	case verbHolds:
		answer, err = with(request, func(q holdsQuestion) (holdsAnswer, error) {
			may, known := n.mayHold(q.Stream, q.Segment)
			return holdsAnswer{known, may}, nil
		})
	case verbStanding:
		answer, err = with(request, func(q standingQuestion) (standingAnswer, error) {
			view := n.view()
			return standingAnswer{
				Generation: n.generation(), Formed: view.Index() > 0 && view.Generation() == n.generation(),
				Admitted: view.Admit(q.Node, q.UUID, view.Generation()) == nil, Begun: begun(view),
			}, nil
		})
	case verbSurvey:
		answer, err = with(request, func(o surveyOrder) (survey, error) { return n.survey(ctx, o) })
	case verbInstall:
		answer, err = with(request, func(o installOrder) (installed, error) { return installed{}, n.install(ctx, o) })
	default:
		err = fmt.Errorf("admin request %q: %w", printable(verb), log.ErrProtocol)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

func with[Q, A any](request []byte, f func(Q) (A, error)) (any, error) {
	var q Q
	if err := json.Unmarshal(request, &q); err != nil {
		return nil, fmt.Errorf("admin request: %w: %w", log.ErrProtocol, err)
	}
	return f(q)
}

// Status is the cluster as this node sees it. It asks nobody.
func (n *Node) Status() ClusterStatus {
	view := n.view()
	m := n.meta().Status()
	out := ClusterStatus{Node: n.cfg.Name, UUID: n.store.UUID(), City: n.cfg.City, Generation: n.generation(), Leader: m.Leader, Metadata: m}
	out.State, out.Quarantine = n.standing.state()
	known := map[string]int{}
	for _, c := range n.cfg.Cluster {
		known[c.Name] = len(out.Nodes)
		out.Nodes = append(out.Nodes, Peer{Name: c.Name, City: c.City, Address: c.Address, Witness: c.Witness})
	}
	for _, p := range n.peers.list() {
		x := &out.Nodes[known[p.Name]]
		x.Reachable, x.Generation = p.alive, p.generation
		if p.err != nil {
			x.Error = p.err.Error()
		}
	}
	for _, r := range view.Nodes() {
		i, listed := known[r.Name]
		if !listed {
			i = len(out.Nodes)
			out.Nodes = append(out.Nodes, Peer{Name: r.Name, City: r.City, Address: r.Address, Witness: r.Witness, Error: "not in this node's list"})
		}
		x := &out.Nodes[i]
		x.UUID, x.Drained, x.Version = r.UUID, r.Drained, r.Version
	}
	self := &out.Nodes[known[n.cfg.Name]]
	self.Reachable, self.Generation = true, out.Generation
	n.keeper.mu.Lock()
	out.Keeper = n.keeper.state
	n.keeper.mu.Unlock()
	if l, ok := view.Lease(keeperLease); ok {
		out.Keeper.Holder = l.Holder
	}
	for _, info := range n.store.Replicas() {
		out.Replicas = append(out.Replicas, Replica{
			Stream: info.Stream, Segment: info.Segment, First: info.First, Last: info.Held, LAC: info.LAC, Epoch: info.Epoch,
			Closed: info.Closed, Incomplete: info.Closed && !info.Complete, Suspect: info.Suspect, Compacted: info.Compacted,
			Bytes: info.Bytes, DiskBytes: info.DiskBytes,
		})
	}
	return out
}
