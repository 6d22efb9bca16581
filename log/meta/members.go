package meta

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinspan/twinspan/log"
)

// Raft's voters are the nodes of the static list. They come to be so in one of two
// ways. In the beginning, when every node of the list was reached and none was
// ever part of a cluster, each writes the same first configuration. Later a node
// with an empty directory (one that is new in the list, or that was wiped,
// forgotten and registered anew) waits for the leader, which lets it catch up
// before it votes. A node that was forgotten is no voter from then on: the same
// name with an empty log and no memory of its votes would let a majority forget.

// probe answers a node that wants to know whether there is a cluster yet.
func (s *Server) probe() *probe {
	p := &probe{Cluster: s.cfg.Cluster}
	if r := s.running(); r != nil {
		p.Fresh = r.LastIndex() == 0 && r.CurrentTerm() == 0
		return p
	}
	has, err := raft.HasExistingState(s.disk, s.disk, s.snaps)
	p.Fresh = err == nil && !has
	return p
}

// keepMembers forms the cluster, and while this node leads, lets others join.
func (s *Server) keepMembers(ctx context.Context, r *raft.Raft) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	told := ""
	for {
		var err error
		switch {
		case r.LastIndex() == 0:
			err = s.form(ctx, r)
		case r.State() == raft.Leader && len(s.cfg.Cluster) > 1:
			err = s.admit(ctx, r)
		}
		if err != nil && err.Error() != told {
			s.cfg.Log.Info().Err(err).Msg("the metadata's cluster is not complete")
			told = err.Error()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// form writes the first configuration once it is sure that there is no other.
func (s *Server) form(ctx context.Context, r *raft.Raft) error {
	conf := raft.Configuration{}
	for _, p := range s.cfg.Cluster {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(p.Name), Address: raft.ServerAddress(p.Address)})
		if p.Name == s.cfg.Node {
			continue
		}
		answer, err := s.client.ask(ctx, p.Address, &request{Op: opProbe}, tryMax)
		switch {
		case err != nil:
			return fmt.Errorf("node %q at %s was never reached: %w", p.Name, p.Address, err)
		case answer.err() != nil || answer.Probe == nil:
			return fmt.Errorf("node %q at %s: %w", p.Name, p.Address, errors.Join(answer.err(), log.ErrProtocol))
		case !sameCluster(answer.Probe.Cluster, s.cfg.Cluster):
			return fmt.Errorf("node %q at %s has another list of the cluster: %v: %w", p.Name, p.Address, answer.Probe.Cluster, log.ErrProtocol)
		case !answer.Probe.Fresh:
			return fmt.Errorf("node %q has a cluster, this one waits to be let in: %w", p.Name, log.ErrUnavailable)
		}
	}
	slices.SortFunc(conf.Servers, func(a, b raft.Server) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	if err := s.disk.unbegin(s.snaps); err != nil {
		return fmt.Errorf("first configuration: %w", err)
	}
	err := r.BootstrapCluster(conf).Error()
	if err == nil || errors.Is(err, raft.ErrCantBootstrap) { // a peer was faster
		return nil
	}
	return fmt.Errorf("first configuration: %w", err)
}

func sameCluster(a, b []Peer) bool {
	set := func(list []Peer) map[Peer]bool {
		out := map[Peer]bool{}
		for _, p := range list {
			out[p] = true
		}
		return out
	}
	return maps.Equal(set(a), set(b))
}

// admit lets one node of the list join, or vote, at a time.
func (s *Server) admit(ctx context.Context, r *raft.Raft) error {
	conf := r.GetConfiguration()
	if err := conf.Error(); err != nil {
		return err
	}
	v, _ := s.Local()
	for _, p := range s.cfg.Cluster {
		i := slices.IndexFunc(conf.Configuration().Servers, func(x raft.Server) bool { return string(x.ID) == p.Name })
		if _, registered := v.Node(p.Name); i < 0 && registered {
			s.cfg.Log.Info().Str("node", p.Name).Msg("the metadata lets a node join")
			return r.AddNonvoter(raft.ServerID(p.Name), raft.ServerAddress(p.Address), conf.Index(), enqueueFor).Error()
		}
		if i < 0 || conf.Configuration().Servers[i].Suffrage == raft.Voter {
			continue
		}
		committed := r.CommitIndex()
		answer, err := s.client.ask(ctx, p.Address, &request{Op: opStatus}, tryMax)
		if err != nil || answer.Status == nil {
			return fmt.Errorf("node %q does not vote yet: it is not reached: %w", p.Name, errors.Join(err, log.ErrUnavailable))
		}
		// It is given the entries of this very log, so its newest index tells.
		if answer.Status.Node != p.Name || answer.Status.LastIndex+joinSlack < committed || answer.Status.Generation != v.generation {
			return fmt.Errorf("node %q does not vote yet: it has not caught up: %w", p.Name, log.ErrUnavailable)
		}
		s.cfg.Log.Info().Str("node", p.Name).Msg("the metadata lets a node vote")
		return r.AddVoter(raft.ServerID(p.Name), raft.ServerAddress(p.Address), conf.Index(), enqueueFor).Error()
	}
	return nil
}

// joinSlack is by how many entries a new voter may be behind: a voter need not
// have all (an election asks for that), it must only not hold up commits for long.
const joinSlack = 64

// dismiss takes a node's vote before its identity is forgotten.
func (s *Server) dismiss(r *raft.Raft, f *Forget) error {
	v, _ := s.Local()
	n, known := v.Node(f.Node)
	if !known || n.UUID != f.UUID {
		return nil // the state will say so
	}
	if f.Node == s.cfg.Node {
		if len(s.cfg.Cluster) == 1 {
			return fmt.Errorf("metadata: node %q is all there is: %w", f.Node, log.ErrProtocol)
		}
		if err := r.LeadershipTransfer().Error(); err != nil { // ends within an election's time
			return fmt.Errorf("metadata: node %q leads and can't forget itself: %w: %w", f.Node, err, log.ErrUnavailable)
		}
		return &NotLeader{}
	}
	conf := r.GetConfiguration()
	if err := conf.Error(); err != nil {
		return fmt.Errorf("metadata: %w: %w", err, log.ErrUnavailable)
	}
	if !slices.ContainsFunc(conf.Configuration().Servers, func(x raft.Server) bool { return string(x.ID) == f.Node }) {
		return nil
	}
	if err := r.RemoveServer(raft.ServerID(f.Node), 0, enqueueFor).Error(); err != nil {
		return fmt.Errorf("metadata: take node %q's vote: %w: %w", f.Node, err, log.ErrUnknown)
	}
	return nil
}
