package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// surveyOrder asks a survivor what it knows and holds.
type surveyOrder struct {
	// Stop its part of the metadata and its service first, so that nothing
	// changes any more; Resume ends that.
	Stop   bool `json:"stop,omitempty"`
	Resume bool `json:"resume,omitempty"`
}

type survey struct {
	Generation uint64         `json:"generation"`
	Export     *meta.Export   `json:"export,omitempty"`
	Replicas   []meta.Replica `json:"replicas"`
	LSO        []replicaLSO   `json:"lso,omitempty"` // of those that are open
}

// replicaLSO is the newest entry of a replica that ends a transaction.
type replicaLSO struct {
	Stream  string     `json:"stream"`
	Segment uint32     `json:"segment"`
	LSO     log.Offset `json:"lso"`
}

type installed struct{}

// metaTurn tells the goroutine that runs the metadata's server to stop it, or to
// start a new one.
type metaTurn struct {
	start bool
	done  chan error // owner: the asker; bound 1; never closed
}

// runMeta runs this node's part of the metadata until ctx ends or it fails.
func (n *Node) runMeta(ctx context.Context) error {
	if state, _ := n.standing.state(); state == StateQuarantined {
		return errors.Join(n.idleMeta(ctx), n.meta().Close())
	}
	for {
		run, stop := context.WithCancel(ctx)
		ended := make(chan error, 1) // the server's end; one value
		server := n.meta()
		go func() { ended <- server.Run(run) }()
		var turn *metaTurn
		select {
		case err := <-ended:
			stop()
			if err == nil && ctx.Err() == nil {
				err = errors.New("the metadata ended by itself")
			}
			return err
		case turn = <-n.metaTurns:
		}
		stop()
		turn.done <- <-ended
		if err := n.idleMeta(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// idleMeta waits, with the server stopped, until a new one is to be started.
func (n *Node) idleMeta(ctx context.Context) error {
	for {
		select {
		case turn := <-n.metaTurns:
			if !turn.start {
				turn.done <- nil
				continue
			}
			server, err := n.newServer()
			if err == nil {
				n.server.Store(server)
			}
			turn.done <- err
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Node) metaTurn(ctx context.Context, start bool) error {
	t := &metaTurn{start: start, done: make(chan error, 1)}
	select {
	case n.metaTurns <- t:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stopMeta ends this node's part of the metadata; its last view stays.
func (n *Node) stopMeta(ctx context.Context) {
	if err := n.metaTurn(ctx, false); err != nil && ctx.Err() == nil {
		n.log.Error().Err(err).Msg("the metadata did not end well")
	}
}

// Takeover makes the survivors go on without the lost nodes, as a new generation
// of the cluster: what a majority of the metadata's voters would have to agree to
// if there still were one. The operator attests that the lost nodes are gone or cut
// off for all who write and read: nothing else keeps an old half from going on by
// itself. Every node that is not in the list must answer. It may be repeated.
func (n *Node) Takeover(ctx context.Context, a Attestation) (Takeover, error) {
	var survivors []ClusterNode
	for _, c := range n.cfg.Cluster {
		if !slices.Contains(a.Lost, c.Name) {
			survivors = append(survivors, c)
		}
	}
	fail := func(err error) (Takeover, error) { return Takeover{}, fmt.Errorf("takeover: %w", err) }
	switch {
	case slices.Contains(a.Lost, n.cfg.Name):
		return fail(fmt.Errorf("node %q, which is to do it, is in the list of the lost: %w", n.cfg.Name, log.ErrProtocol))
	case len(a.Lost) == 0, len(survivors)+len(a.Lost) != len(n.cfg.Cluster):
		return fail(fmt.Errorf("lost nodes %q: name those of the cluster's list that are gone, each once: %w", a.Lost, log.ErrProtocol))
	case !a.Preview && (a.By == "" || a.Reason == ""):
		return fail(fmt.Errorf("who attests the loss, and why? %w", log.ErrProtocol))
	}
	out := Takeover{Lost: a.Lost, Preview: a.Preview}
	var exports []meta.Export
	var replicas []meta.Replica
	lso := map[string]log.Offset{} // by node, stream and segment
	resume := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		for _, c := range survivors {
			if _, err := n.surveyOf(ctx, c, surveyOrder{Resume: true}); err != nil {
				n.log.Error().Err(err).Str("node", c.Name).Msg("a survivor could not go on after a takeover that failed: restart it")
			}
		}
	}
	for _, c := range survivors {
		s, err := n.surveyOf(ctx, c, surveyOrder{Stop: !a.Preview})
		if err != nil {
			if !a.Preview {
				resume()
			}
			return fail(fmt.Errorf("node %q must answer, or be listed as lost: %w", c.Name, err))
		}
		out.Survivors = append(out.Survivors, c.Name)
		out.Generation = max(out.Generation, s.Generation+1)
		if s.Export != nil {
			exports = append(exports, *s.Export)
		}
		replicas = append(replicas, s.Replicas...)
		for _, x := range s.LSO {
			lso[fmt.Sprint(c.Name, x.Segment, x.Stream)] = x.LSO
		}
	}
	out.Streams = takenStreams(n.view(), replicas, a.Lost)
	if a.Preview {
		return out, nil
	}
	var voters []meta.Peer
	for _, c := range survivors {
		voters = append(voters, meta.Peer{Name: c.Name, Address: c.Address})
	}
	replicas = endDoubtful(n.view(), replicas, survivors, func(r *meta.Replica) log.Offset {
		if o, ok := lso[fmt.Sprint(r.Node, r.Descriptor.Segment, r.Descriptor.Stream)]; ok {
			return o
		}
		return r.Descriptor.FirstLSO
	})
	seed, err := meta.MakeSeed(exports, replicas, voters, a.By+": "+a.Reason, time.Now().UTC())
	if err != nil {
		resume()
		return fail(err)
	}
	out.Generation = seed.Generation
	n.log.Warn().Uint64("generation", seed.Generation).Strs("survivors", out.Survivors).Strs("lost", a.Lost).Str("by", a.By).Str("reason", a.Reason).
		Msg("forced takeover: the cluster goes on without the lost nodes")
	var errs []error
	for _, c := range survivors {
		var err error
		for try := range 3 {
			if try > 0 {
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
			if c.Name == n.cfg.Name {
				err = n.install(ctx, seed)
			} else {
				err = n.peers.look(ctx, c.Address, verbInstall, seed, &installed{})
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %q: %w", c.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return out, fmt.Errorf("takeover: not every survivor got generation %d: repeat it: %w", seed.Generation, err)
	}
	return out, nil
}

func (n *Node) surveyOf(ctx context.Context, c ClusterNode, o surveyOrder) (survey, error) {
	if c.Name == n.cfg.Name {
		return n.survey(ctx, o)
	}
	var s survey
	err := n.peers.look(ctx, c.Address, verbSurvey, o, &s)
	return s, err
}

// survey tells what this node knows and holds.
func (n *Node) survey(ctx context.Context, o surveyOrder) (survey, error) {
	if o.Resume {
		if err := n.standing.take(false); err != nil {
			return survey{}, err
		}
		err := n.metaTurn(ctx, true)
		n.standing.renew()
		return survey{}, err
	}
	out := survey{Generation: n.generation()}
	if o.Stop {
		if err := n.standing.take(true); err != nil {
			return out, err
		}
		n.dropFlows()
		if err := n.metaTurn(ctx, false); err != nil {
			return out, err
		}
		x, err := meta.ReadExport(n.cfg.MetaDir, n.cfg.Name)
		if err != nil {
			return out, err
		}
		out.Export = &x
	}
	for _, info := range n.store.Replicas() {
		if o.Stop && !info.Closed && !info.Suspect {
			// The same fence again: it waits for what is queued, and tells the end.
			if sealed, err := n.store.Seal(ctx, info.Descriptor, info.Fence); err == nil {
				info.Held = sealed.Last
				out.LSO = append(out.LSO, replicaLSO{info.Stream, info.Segment, sealed.LSO})
			}
		}
		r := meta.Replica{
			Node: n.cfg.Name, UUID: n.store.UUID(), Descriptor: info.Descriptor, Fence: info.Fence, Last: info.Held, LAC: info.LAC,
			Closed: info.Closed, Suspect: info.Suspect,
		}
		if info.Closed {
			r.ClosedLast, r.ClosedLSO = info.Last, info.LSO
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out, nil
}

// install gives this node the metadata of a new generation.
func (n *Node) install(ctx context.Context, seed meta.Seed) error {
	if n.generation() > seed.Generation {
		return fmt.Errorf("node %q is of generation %d already: %w", n.cfg.Name, n.generation(), log.ErrGeneration)
	}
	if err := n.standing.take(true); err != nil {
		return err
	}
	n.dropFlows()
	if err := n.metaTurn(ctx, false); err != nil {
		return err
	}
	// Should the node die in between, it finds the generation in its metadata.
	if err := meta.Install(n.cfg.MetaDir, n.cfg.Name, seed); err != nil {
		return err
	}
	if err := n.store.SetGeneration(ctx, seed.Generation); err != nil {
		return err
	}
	n.peers.reset()
	if err := n.metaTurn(ctx, true); err != nil {
		return err
	}
	n.standing.renew()
	return nil
}

// endDoubtful ends the open segments whose rule the survivors alone do not cover:
// no recovery could, because the others never answer. What any survivor has is
// kept; what only the lost had is given up, as the operator attested.
func endDoubtful(view *meta.View, replicas []meta.Replica, survivors []ClusterNode, lso func(*meta.Replica) log.Offset) []meta.Replica {
	newest := map[string]quorum.Descriptor{}
	for _, name := range view.Streams() {
		if st, _ := view.Stream(name); len(st.Segments) > 0 {
			if g := st.Segments[len(st.Segments)-1]; !g.Closed {
				newest[name] = g.Descriptor
			}
		}
	}
	for i := range replicas {
		d := &replicas[i].Descriptor
		if old, known := newest[d.Stream]; !known || old.Segment < d.Segment {
			newest[d.Stream] = *d
		}
	}
	for _, name := range sortedKeys(newest) {
		d := newest[name]
		var have uint64
		var best *meta.Replica
		closed := false
		for i := range replicas {
			r := &replicas[i]
			if r.Descriptor.Stream != name || r.Descriptor.Segment != d.Segment {
				continue
			}
			closed = closed || r.Closed
			if at := d.Index(r.Node, r.UUID); at >= 0 && !r.Suspect {
				have |= 1 << at
			}
			if !r.Suspect && (best == nil || r.Last > best.Last) {
				best = r
			}
		}
		if q, err := d.Quorum(); closed || err == nil && q.Covers(have) {
			continue
		}
		if best == nil {
			replicas = append(replicas, meta.Replica{Node: survivors[0].Name, Descriptor: d, Last: d.First - 1, LAC: d.First - 1})
			best = &replicas[len(replicas)-1]
			best.Closed, best.ClosedLast, best.ClosedLSO = true, d.First-1, d.FirstLSO
			continue
		}
		best.ClosedLSO = lso(best)
		best.Closed, best.ClosedLast = true, best.Last
	}
	return replicas
}

// takenStreams says how the streams stand that the survivors know of.
func takenStreams(view *meta.View, replicas []meta.Replica, lost []string) []TakenStream {
	byName := map[string]*TakenStream{}
	newest := map[string]*meta.Replica{}
	answer := map[string][]string{} // survivors that hold the newest segment
	for i := range replicas {
		r := &replicas[i]
		name := r.Descriptor.Stream
		t := byName[name]
		if t == nil {
			t = &TakenStream{Stream: name, Last: log.None}
			byName[name] = t
		}
		t.Last = max(t.Last, r.Last)
		switch old := newest[name]; {
		case old == nil || old.Descriptor.Segment < r.Descriptor.Segment:
			newest[name], answer[name] = r, []string{r.Node}
		case old.Descriptor.Segment == r.Descriptor.Segment:
			answer[name] = append(answer[name], r.Node)
		}
	}
	for _, name := range view.Streams() {
		if byName[name] == nil {
			byName[name] = &TakenStream{Stream: name, Last: log.None, Doubt: true}
		}
		st, _ := view.Stream(name)
		byName[name].Segments = len(st.Segments)
	}
	var out []TakenStream
	for _, name := range sortedKeys(byName) {
		t := byName[name]
		if r := newest[name]; r != nil {
			t.Segments = max(t.Segments, int(r.Descriptor.Segment))
			q, err := r.Descriptor.Quorum()
			var have uint64
			for i, m := range r.Descriptor.Members {
				if slices.Contains(answer[name], m.Node) && !slices.Contains(lost, m.Node) {
					have |= 1 << i
				}
			}
			t.Doubt = err != nil || !q.Covers(have)
		}
		out = append(out, *t)
	}
	return out
}
