package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
)

// surveyOrder asks a survivor what it knows and holds.
type surveyOrder struct {
	// Stop its part of the metadata and its service first, so that nothing
	// changes any more; Resume ends that.
	Stop   bool `json:"stop,omitempty"`
	Resume bool `json:"resume,omitempty"`
	// Hold names the takeover: a node stands still for the one that asked last, and
	// for no other.
	Hold string `json:"hold,omitempty"`
}

// installOrder gives a survivor its new metadata.
type installOrder struct {
	Hold string `json:"hold,omitempty"` // as in the survey that the seed was made from
	meta.Seed
}

type survey struct {
	Generation uint64         `json:"generation"`
	Export     *meta.Export   `json:"export,omitempty"`
	Replicas   []meta.Replica `json:"replicas"`
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
		for turn == nil {
			select {
			case err := <-ended:
				stop()
				if err == nil && ctx.Err() == nil {
					err = errors.New("the metadata ended by itself")
				}
				return err
			case turn = <-n.metaTurns:
			}
			if turn.start { // it runs: whoever takes a takeover back tells all, also those that it had not asked yet
				turn.done <- nil
				turn = nil
			}
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
	hold := rand.Text()
	resume := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		for _, c := range survivors {
			_, err := n.surveyOf(ctx, c, surveyOrder{Resume: true, Hold: hold})
			switch {
			case errors.Is(err, log.ErrStale):
				n.log.Info().Err(err).Str("node", c.Name).Msg("a survivor stands still after a takeover that failed: for a later one")
			case err != nil:
				n.log.Error().Err(err).Str("node", c.Name).Msg("a survivor could not go on after a takeover that failed: restart it")
			}
		}
	}
	for _, c := range survivors {
		s, err := n.surveyOf(ctx, c, surveyOrder{Stop: !a.Preview, Hold: hold})
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
	}
	var voters []meta.Peer
	for _, c := range survivors {
		voters = append(voters, meta.Peer{Name: c.Name, Address: c.Address})
	}
	var lost []meta.Node
	for _, c := range n.cfg.Cluster {
		if slices.Contains(a.Lost, c.Name) {
			lost = append(lost, meta.Node{Name: c.Name, City: c.City, Witness: c.Witness})
		}
	}
	seed, err := meta.MakeSeed(meta.Succession{Exports: exports, Replicas: replicas, Voters: voters, Lost: lost, Reason: a.By + ": " + a.Reason, Now: time.Now().UTC()})
	if err == nil {
		out.Streams, err = takenStreams(&seed, replicas)
	}
	if err != nil {
		if !a.Preview {
			resume()
		}
		return fail(err)
	}
	if a.Preview {
		return out, nil
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
				err = n.install(ctx, installOrder{hold, seed})
			} else {
				err = n.peers.look(ctx, c.Address, verbInstall, installOrder{hold, seed}, &installed{})
			}
			if err == nil || errors.Is(err, log.ErrStale) {
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
	if o.Stop || o.Resume {
		n.standing.step.Lock()
		defer n.standing.step.Unlock()
	}
	if o.Resume {
		if err := n.standing.release(o.Hold); err != nil {
			return survey{}, err
		}
		err := n.metaTurn(ctx, true)
		n.standing.renew()
		return survey{}, err
	}
	out := survey{Generation: n.generation()}
	if o.Stop {
		if err := n.standing.take(o.Hold); err != nil {
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
	} else {
		x, err := n.view().Export(n.cfg.Name)
		if err != nil {
			return out, err
		}
		out.Export = &x
	}
	out.Export.UUID = n.store.UUID()
	for _, info := range n.store.Replicas() {
		if o.Stop && !info.Closed && !info.Suspect {
			// The same fence again: it waits for what is queued, and tells the end.
			if sealed, err := n.store.Seal(ctx, info.Descriptor, info.Fence); err == nil {
				info.Held, info.LSO = sealed.Last, sealed.LSO
			}
		}
		r := meta.Replica{
			Node: n.cfg.Name, UUID: n.store.UUID(), Descriptor: info.Descriptor, Fence: info.Fence, Last: info.Held, LAC: info.LAC, LSO: info.LSO,
			Closed: info.Closed, Suspect: info.Suspect || info.Closed && !info.Complete, Partial: !info.Suspect && info.Closed && !info.Complete,
		}
		if info.Closed {
			r.ClosedLast, r.ClosedLSO = info.Last, info.LSO
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out, nil
}

// install gives this node the metadata of a new generation. It does so only while the
// node stands still for the very takeover that made it: what it had done since would
// not be in there.
func (n *Node) install(ctx context.Context, o installOrder) error {
	seed := o.Seed
	n.standing.step.Lock()
	defer n.standing.step.Unlock()
	if n.generation() > seed.Generation {
		return fmt.Errorf("node %q is of generation %d already: %w", n.cfg.Name, n.generation(), log.ErrGeneration)
	}
	if !n.standing.held(o.Hold) {
		if n.generation() == seed.Generation {
			return nil // it was installed, and the answer got lost
		}
		return fmt.Errorf("node %q was started again since it was asked what it has, went on, or was asked by another takeover: repeat the takeover: %w", n.cfg.Name, log.ErrStale)
	}
	n.dropFlows()
	if err := n.metaTurn(ctx, false); err != nil {
		return err
	}
	if err := n.fence(ctx, seed); err != nil {
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

// fenceAtOnce is how many segments are fenced at a time: they share the store's syncs.
const fenceAtOnce = 64

// fence keeps writers of before from what the new generation has ended: they have
// their epochs still, nobody may have told them, and what they had confirmed there
// would stand behind an end that is decided.
func (n *Node) fence(ctx context.Context, seed meta.Seed) error {
	state, err := meta.Load(bytes.NewReader(seed.State))
	if err != nil {
		return err
	}
	next, old := state.View(), n.view()
	open := map[segment.ID]quorum.Descriptor{}
	for _, info := range n.store.Replicas() {
		if !info.Closed {
			open[segment.ID{Stream: info.Stream, Segment: info.Segment}] = info.Descriptor
		}
	}
	for _, v := range []*meta.View{old, next} { // those that have not come here yet as well
		for _, name := range v.Streams() {
			st, _ := v.Stream(name)
			for i := range st.Segments {
				id := segment.ID{Stream: name, Segment: st.Segments[i].Segment}
				if _, err := n.store.Replica(id); errors.Is(err, log.ErrElsewhere) && !st.Segments[i].Lost {
					open[id] = st.Segments[i].Descriptor
				}
			}
		}
	}
	turns := make(chan struct{}, fenceAtOnce) // owner: this function; bound: its capacity; never closed
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for id, d := range open {
		st, known := next.Stream(id.Stream)
		if g, listed := next.Segment(id.Stream, id.Segment); !known || listed && !g.Closed || d.Index(n.cfg.Name, n.store.UUID()) < 0 {
			continue
		}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			_, err := n.store.Seal(ctx, d, st.Epoch)
			if err == nil || errors.Is(err, log.ErrSuspect) || errors.Is(err, log.ErrTrimmed) || errors.Is(err, log.ErrFenced) {
				return // fenced all the same; given up before; fenced by a newer one
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, fmt.Errorf("fence stream %q segment %d: %w", id.Stream, id.Segment, err))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// takenStreams says how the streams stand in the new generation.
func takenStreams(seed *meta.Seed, replicas []meta.Replica) ([]TakenStream, error) {
	state, err := meta.Load(bytes.NewReader(seed.State))
	if err != nil {
		return nil, err
	}
	view := state.View()
	begun := view.Takeovers()
	at := begun[len(begun)-1].At
	var out []TakenStream
	for _, name := range view.Streams() {
		st, _ := view.Stream(name)
		t := TakenStream{Stream: name, Last: st.NextFirst - 1}
		for _, g := range st.Gaps {
			if g.At.Equal(at) {
				t.Gaps = append(t.Gaps, g)
			}
		}
		if n := len(st.Segments); n > 0 {
			s := &st.Segments[n-1]
			t.Segments = int(s.Segment)
			if t.Doubt = s.Lost && s.ClosedAt.Equal(at); t.Doubt {
				t.Last = s.First - 1
				for i := n - 2; i >= 0 && t.Last == st.Segments[i].Last && (st.Segments[i].Lost || st.Segments[i].Last < st.Segments[i].First); i-- {
					before := &st.Segments[i]
					t.Again = t.Again || before.Lost && !before.ClosedAt.Equal(at)
					t.Last = before.First - 1
				}
			}
			for i := n - 1; i >= 0; i-- {
				if x := &st.Segments[i]; x.Closed && x.Last == t.Last {
					t.Last = x.Left()
				}
			}
			for _, r := range replicas {
				if !s.Closed && !r.Suspect && r.Descriptor.Stream == name && r.Descriptor.Segment == s.Segment {
					t.Last = max(t.Last, r.Last)
				}
			}
		}
		out = append(out, t)
	}
	return out, nil
}
