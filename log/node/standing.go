package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/wire"
)

// standing is where the node stands in its cluster: part of it, of a generation
// that was taken over, or not sure.
type standing struct {
	node *Node
	wake chan struct{} // a token when there is something to find out; owner: the standing; bound 1; never closed
	step sync.Mutex    // held for a step of a takeover: one at a time; taken before mu

	mu         sync.Mutex
	newer      uint64   // a generation above this node's that somebody spoke of; 0: none
	sources    []string // addresses of nodes that may know more
	quarantine *Quarantine
	taking     bool          // a takeover is under way here
	hold       string        // its name
	ended      string        // of the newest that was taken back
	known      bool          // registered in the metadata
	again      chan struct{} // closed and replaced after a takeover
}

// quarantineDir is below the node's directory.
const quarantineDir = "quarantine"

func (s *standing) path(name string) string {
	return filepath.Join(s.node.cfg.Dir, quarantineDir, name)
}

// load finds out whether the node was quarantined in an earlier life.
func (s *standing) load(n *Node) error {
	s.node, s.wake, s.again = n, make(chan struct{}, 1), make(chan struct{})
	f, err := n.cfg.FS.Open(s.path("state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	size, err := f.Size()
	b := make([]byte, size)
	if err == nil && size > 0 {
		_, err = f.ReadAt(b, 0)
	}
	q := &Quarantine{}
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(b, q)
	}
	if err != nil {
		return fmt.Errorf("quarantine: %w: %w", log.ErrSuspect, err)
	}
	s.quarantine = q
	return nil
}

// store makes the quarantine durable.
func (s *standing) store(q Quarantine) error {
	b, err := json.MarshalIndent(q, "", "  ")
	if err != nil {
		return err
	}
	vf := s.node.cfg.FS
	dir := filepath.Join(s.node.cfg.Dir, quarantineDir)
	if err := vf.MkdirAll(dir); err != nil {
		return err
	}
	if err := writeFile(vf, s.path("state.tmp"), b); err != nil {
		return err
	}
	if err := vf.Rename(s.path("state.tmp"), s.path("state.json")); err != nil {
		return err
	}
	return errors.Join(vf.SyncDir(dir), vf.SyncDir(s.node.cfg.Dir))
}

// err is nil while the node may serve.
func (s *standing) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.quarantine != nil:
		return fmt.Errorf("node %q stands in quarantine: the cluster went on as generation %d without it: %w", s.node.cfg.Name, s.quarantine.Generation, log.ErrGeneration)
	case s.newer > s.node.generation():
		return fmt.Errorf("node %q is of generation %d and has heard of generation %d: %w", s.node.cfg.Name, s.node.generation(), s.newer, log.ErrGeneration)
	case s.taking:
		return fmt.Errorf("node %q: a takeover is under way: %w", s.node.cfg.Name, log.ErrUnavailable)
	}
	return nil
}

// serving says whether the node answers requests about entries and metadata.
func (n *Node) serving() error { return n.standing.err() }

// generation that the node is of.
func (n *Node) generation() uint64 { return max(n.store.Generation(), 1) }

// state in words.
func (s *standing) state() (State, *Quarantine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quarantine != nil {
		q := *s.quarantine
		return StateQuarantined, &q
	}
	if !s.known {
		return StateStarting, nil
	}
	return StateServing, nil
}

// registered notes that the metadata knows the node; true: for the first time.
func (s *standing) registered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.known
	s.known = true
	return first
}

// renewed is closed when a takeover gave the node new metadata.
func (s *standing) renewed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.again
}

// learn notes that somebody spoke of a newer generation. Until it is clear what
// this node is in it, it serves nothing.
func (s *standing) learn(generation uint64, source string) {
	s.mu.Lock()
	fresh := generation > s.newer && generation > s.node.generation()
	if fresh {
		s.newer = generation
	}
	s.mu.Unlock()
	if fresh {
		s.node.log.Warn().Uint64("generation", s.node.generation()).Uint64("newer", generation).Str("from", source).Msg("there is a newer generation of the cluster: this node serves nothing until it knows its part")
		s.hint(source)
	}
}

// hint names a node that may know of a newer generation.
func (s *standing) hint(source string) {
	s.mu.Lock()
	if source != "" && !slices.Contains(s.sources, source) && len(s.sources) < 64 {
		s.sources = append(s.sources, source)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// welcome decides about a greeting.
func (n *Node) welcome(h *wire.Hello) error {
	if h.Purpose == wire.PurposeTool {
		return nil // it is told what may be known, and refused the rest
	}
	if h.Generation > n.generation() && n.store.Generation() > 0 {
		n.standing.learn(h.Generation, "")
	}
	if err := n.standing.err(); err != nil && errors.Is(err, log.ErrGeneration) {
		return err
	}
	if h.Purpose == wire.PurposeNode {
		return n.meta().Admit(h.Client, h.UUID, h.Generation)
	}
	return nil
}

// met decides about the node at the other end of a connection that this one made.
func (n *Node) met(w *wire.Welcome, address string) error {
	if n.store.Generation() > 0 && w.Generation > n.generation() {
		n.standing.learn(w.Generation, address)
		return fmt.Errorf("node %q is of generation %d, this one of %d: %w", w.Node, w.Generation, n.generation(), log.ErrGeneration)
	}
	return n.meta().Admit(w.Node, w.UUID, w.Generation)
}

// standingQuestion asks a node of a newer generation what the asker is in it.
type standingQuestion struct {
	Node string `json:"node"`
	UUID string `json:"uuid"`
}

type standingAnswer struct {
	Generation uint64 `json:"generation"`
	Formed     bool   `json:"formed"` // it has metadata of that generation
	Admitted   bool   `json:"admitted"`
	// Begun is when the takeover was that made the generation; zero: it is no takeover's.
	Begun time.Time `json:"begun,omitzero"`
}

// begun is when the takeover was that made the view's generation.
func begun(v *meta.View) (at time.Time) {
	for _, t := range v.Takeovers() {
		if t.Generation == v.Generation() {
			at = t.At
		}
	}
	return at
}

// outlived says that a node which knows this one as given up is of another
// generation of the same number: both cities were taken over, one after the other,
// and neither heard of it. The later word of an operator counts.
func (s *standing) outlived(a *standingAnswer) bool {
	v := s.node.view()
	if a.Generation != s.node.generation() || a.Admitted || !a.Formed || v.Index() == 0 || v.Generation() != a.Generation {
		return false
	}
	own := begun(v)
	return !own.IsZero() && a.Begun.After(own)
}

// run finds out, whenever there is a doubt, what the node is in the newer
// generation, and does what follows from it, until ctx ends.
func (s *standing) run(ctx context.Context, n *Node) {
	for {
		s.mu.Lock()
		doubt := s.quarantine == nil && (s.newer > n.generation() || len(s.sources) > 0)
		open := s.quarantine != nil && !s.quarantine.Exported
		s.mu.Unlock()
		pause := time.Hour
		switch {
		case doubt:
			s.judge(ctx)
			pause = time.Second
		case open:
			n.dropFlows() // who looks may stay, for its answer
			if err := n.export(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn().Err(err).Msg("what only this node has is not exported yet")
				s.problem(err)
			}
			pause = 2 * time.Second
		}
		select {
		case <-s.wake:
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// judge asks whoever may know.
func (s *standing) judge(ctx context.Context) {
	n := s.node
	s.mu.Lock()
	ask := slices.Clone(s.sources)
	newer := s.newer
	s.mu.Unlock()
	for _, c := range n.cfg.Cluster {
		if c.Name != n.cfg.Name && !slices.Contains(ask, c.Address) {
			ask = append(ask, c.Address)
		}
	}
	heard, silent := false, false
	for _, address := range ask {
		var a standingAnswer
		err := n.peers.look(ctx, address, verbStanding, standingQuestion{n.cfg.Name, n.store.UUID()}, &a)
		silent = silent || err != nil || a.Generation > n.generation() && !a.Formed
		if err == nil && s.outlived(&a) {
			s.stand(ctx, a.Generation, address)
			return
		}
		if err != nil || a.Generation <= n.generation() || !a.Formed {
			continue
		}
		heard = true
		if a.Admitted {
			continue // a survivor: the takeover reaches this node, too
		}
		s.stand(ctx, a.Generation, address)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources = nil // whoever knows more says so again
	switch {
	case heard:
		s.newer = max(s.newer, newer)
	case !silent && s.newer == newer:
		s.newer = 0 // every node of the list answered, and none is of it: who said so was mistaken
	}
}

// stand puts the node into quarantine.
func (s *standing) stand(ctx context.Context, generation uint64, source string) {
	q := Quarantine{Since: time.Now().UTC(), Generation: generation, LearntFrom: source}
	if err := s.store(q); err != nil {
		s.node.log.Error().Err(err).Msg("the quarantine cannot be stored")
	}
	s.mu.Lock()
	s.quarantine, s.sources = &q, nil
	s.mu.Unlock()
	s.node.log.Error().Str("node", s.node.cfg.Name).Uint64("generation", generation).Str("from", source).
		Msg("quarantine: the cluster went on without this node; it serves nothing, and keeps everything until it rejoins")
	s.node.dropAll()
	s.node.stopMeta(ctx)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *standing) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quarantine != nil {
		s.quarantine.Problem = err.Error()
	}
}

// finish notes the result of the export.
func (s *standing) finish(files []string, entries int64) error {
	s.mu.Lock()
	q := *s.quarantine
	s.mu.Unlock()
	q.Exported, q.Entries, q.Files, q.Problem = true, entries, files, ""
	if err := s.store(q); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quarantine = &q
	return nil
}

// reopen has the export made anew: it lacks something.
func (s *standing) reopen() error {
	s.mu.Lock()
	q := *s.quarantine
	s.mu.Unlock()
	q.Exported = false
	if err := s.store(q); err != nil {
		return err
	}
	s.mu.Lock()
	s.quarantine = &q
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// take begins a takeover's hold on the node, and ends that of any other: what that
// one was told is no longer so, and one that hangs must not be in the way.
func (s *standing) take(hold string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.quarantine != nil:
		return fmt.Errorf("node %q stands in quarantine: %w", s.node.cfg.Name, log.ErrGeneration)
	case hold != "" && hold == s.ended: // its question was overtaken
		return fmt.Errorf("node %q: the takeover was taken back: %w", s.node.cfg.Name, log.ErrStale)
	}
	s.taking, s.hold = true, hold
	return nil
}

// release ends a takeover's hold, so that the node goes on, unless it stands still for
// another one.
func (s *standing) release(hold string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = hold
	switch {
	case s.quarantine != nil: // its part of the metadata has ended for good
		return fmt.Errorf("node %q stands in quarantine: %w", s.node.cfg.Name, log.ErrGeneration)
	case s.taking && s.hold != hold:
		return fmt.Errorf("node %q stands still for another takeover: %w", s.node.cfg.Name, log.ErrStale)
	}
	s.taking = false
	return nil
}

// held says that this takeover was the last that asked the node, and it has stood
// still since.
func (s *standing) held(hold string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taking && s.hold == hold
}

// renew says that the node has new metadata.
func (s *standing) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taking, s.known = false, false
	close(s.again)
	s.again = make(chan struct{})
}

// look is ask as somebody who only looks: it works whatever the generations.
func (p *peers) look(ctx context.Context, address, verb string, request, answer any) error {
	s, err := p.dial(ctx, address, wire.PurposeTool)
	if err != nil {
		return err
	}
	defer s.close()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var reply wire.AdminOK
	if err := p.exchange(ctx, s, &wire.Admin{Verb: verb, Request: body}, &reply); err != nil {
		return err
	}
	return json.Unmarshal(reply.Response, answer)
}

// lookCaller is the meta.Caller of a node that is not part of the cluster any more.
type lookCaller struct{ peers *peers }

func (c lookCaller) Call(ctx context.Context, address string, request []byte) ([]byte, error) {
	s, err := c.peers.dial(ctx, address, wire.PurposeTool)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var reply wire.MetaOK
	if err := c.peers.exchange(ctx, s, &wire.Meta{Request: request}, &reply); err != nil {
		return nil, err
	}
	return reply.Response, nil
}

var _ meta.Caller = lookCaller{}
