package meta

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
)

// Config of a Server.
type Config struct {
	Dir  string // its own; made when it is not there
	Node string // this node's name
	// Cluster is the static list of voters, identical on every node and with this
	// node in it. A cluster of one needs neither Caller, Dial nor Accept.
	Cluster []Peer
	Caller  Caller // to the other nodes' Handle
	// Dial opens a raw connection to the Raft of the node at an address, whose
	// side comes out of its Accept. Both have checked with Server.Admit.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Accept <-chan net.Conn // owner: the caller; unbuffered or small; not closed while Run runs
	Log    zerolog.Logger
	// Heartbeat is how long a follower waits for its leader before it thinks of an
	// election, and how long that may take: 500 ms; 50 ms in a cluster of one.
	Heartbeat time.Duration
}

func (c *Config) check() error {
	names, addresses := map[string]bool{}, map[string]bool{}
	for _, p := range c.Cluster {
		if err := checkName("node", p.Name); err != nil {
			return err
		}
		if p.Address == "" || names[p.Name] || addresses[p.Address] {
			return fmt.Errorf("node %q at %q is listed twice, or without an address: %w", p.Name, p.Address, log.ErrProtocol)
		}
		names[p.Name], addresses[p.Address] = true, true
	}
	switch {
	case c.Dir == "":
		return fmt.Errorf("no directory: %w", log.ErrProtocol)
	case !names[c.Node]:
		return fmt.Errorf("node %q is not in the list of the cluster: %w", c.Node, log.ErrProtocol)
	case len(c.Cluster) > NodesMax:
		return fmt.Errorf("a cluster of %d nodes: %w", len(c.Cluster), log.ErrProtocol)
	case len(c.Cluster) > 1 && (c.Caller == nil || c.Dial == nil || c.Accept == nil):
		return fmt.Errorf("a cluster of several nodes needs ways between them: %w", log.ErrProtocol)
	case c.Heartbeat < 0 || c.Heartbeat > time.Minute:
		return fmt.Errorf("heartbeat of %v: %w", c.Heartbeat, log.ErrProtocol)
	}
	return nil
}

const (
	queueMax      = 256  // proposals, and reads, that wait
	snapshotEvery = 4096 // entries
	snapshotsKept = 2
)

// Server is a node's part of the metadata: a voter, and a view that follows. It
// is a Store. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	address string
	disk    *disk
	snaps   raft.SnapshotStore
	machine *machine
	boot    *View   // what the directory held at the start, committed or not
	client  *Client // to the leader, wherever it is

	proposals chan proposal   // owner: the callers; bound queueMax; never closed
	reads     chan chan error // owner: the callers; bound queueMax; never closed; each answer has room for one

	mu   sync.Mutex
	raft *raft.Raft    // while Run runs
	done chan struct{} // closed when Run has ended; owner: Run
	ran  bool
}

type proposal struct {
	command Command
	answer  chan answer // room for one
}

type answer struct {
	result Result
	err    error
}

// New opens, or makes, the directory, which is then the Server's until Run has
// returned, or until Close. log.ErrProtocol for a bad configuration.
func New(c Config) (*Server, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if c.Heartbeat == 0 {
		if c.Heartbeat = 500 * time.Millisecond; len(c.Cluster) == 1 {
			c.Heartbeat = 50 * time.Millisecond
		}
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	d, err := openDisk(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	snaps, err := openSnapshots(c.Dir, c.Log)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	if err := d.unbegin(snaps); err != nil {
		return nil, errors.Join(fmt.Errorf("metadata: %w", err), d.close())
	}
	boot, _, _, err := replay(d, snaps)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("metadata: %w", err), d.close())
	}
	s := &Server{
		cfg: c, disk: d, boot: boot, snaps: snaps, machine: newMachine(c.Log),
		proposals: make(chan proposal, queueMax), reads: make(chan chan error, queueMax), done: make(chan struct{}),
	}
	s.cfg.Cluster = slices.Clone(c.Cluster)
	var seeds []string
	for _, p := range c.Cluster {
		if seeds = append(seeds, p.Address); p.Name == c.Node {
			s.address = p.Address
		}
	}
	s.client = NewClient(c.Caller, seeds)
	s.client.here, s.client.self = s.handle, s.address
	return s, nil
}

func openSnapshots(dir string, l zerolog.Logger) (raft.SnapshotStore, error) {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(filepath.Clean(dir), snapshotsKept, raftLogger(l))
	if err != nil {
		return nil, fmt.Errorf("metadata: snapshots: %w", err)
	}
	return snaps, nil
}

// Close gives up a Server whose Run was never called.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ran {
		return nil
	}
	s.ran = true
	close(s.done)
	return s.disk.close()
}

func (s *Server) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(s.cfg.Node)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = s.cfg.Heartbeat, s.cfg.Heartbeat, s.cfg.Heartbeat
	// The lease may be as long as that: no read relies on it. Pre-votes are refused
	// by all that have not missed the leader themselves, so a new one takes two to
	// three heartbeats.
	c.CommitTimeout = min(50*time.Millisecond, s.cfg.Heartbeat/10)
	c.MaxAppendEntries = 256
	c.BatchApplyCh = true
	c.SnapshotThreshold, c.SnapshotInterval, c.TrailingLogs = snapshotEvery, 15*time.Second, snapshotEvery/2
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = raftLogger(s.cfg.Log)
	return c
}

// Run takes part until ctx ends or the disk fails, and closes the directory. It
// may be called once. A cluster is formed when every voter of the list was reached
// and none has been part of one; until then, and until a leader is elected, Do and
// the reads wait.
func (s *Server) Run(ctx context.Context) (err error) {
	s.mu.Lock()
	if s.ran {
		s.mu.Unlock()
		return fmt.Errorf("metadata: ran before: %w", log.ErrClosed)
	}
	s.ran = true
	s.mu.Unlock()
	defer close(s.done)
	defer func() { err = errors.Join(err, s.disk.close()) }()

	logs, err := raft.NewLogCache(512, s.disk)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	// One request in flight: raft's pipelines wait for each other for ever when the
	// one who reads them stops first, and then neither leader nor Shutdown comes back.
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		MaxRPCsInFlight: 1, MaxPool: 3, Timeout: 10 * time.Second,
		Stream: newLayer(&s.cfg, s.address), Logger: raftLogger(s.cfg.Log), ServerAddressProvider: s,
	})
	r, err := raft.NewRaft(s.raftConfig(), s.machine, logs, s.disk, s.snaps, transport)
	if err != nil {
		return errors.Join(fmt.Errorf("metadata: %w", err), transport.Close())
	}
	s.mu.Lock()
	s.raft = r
	s.mu.Unlock()

	over := make(chan struct{}) // closed when Raft is
	var silence sync.WaitGroup
	silence.Go(func() { // see disk.Set; it may come while the rest waits for Raft
		select {
		case <-s.disk.failed:
			_ = transport.Close() // there is a better error already
		case <-over:
		}
		close(s.disk.mute)
	})
	defer silence.Wait()
	defer close(over)
	inner, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range []func(context.Context, *raft.Raft){s.pump, s.readLoop, s.keepMembers} {
		wg.Go(func() { f(inner, r) })
	}
	select {
	case <-ctx.Done():
		if r.State() == raft.Leader && len(s.cfg.Cluster) > 1 { // nobody should have to miss the leader first
			if err := r.LeadershipTransfer().Error(); err != nil { // ends within an election's time
				s.cfg.Log.Info().Err(err).Msg("the metadata's leadership was not handed over")
			}
		}
	case <-s.disk.failed:
		err = s.disk.fault()
	case <-s.machine.broke:
		err = s.machine.stopped()
	}
	// In this order: Raft resolves every future while it runs, a leader that lost
	// its majority after a heartbeat; one that is shut down forgets some.
	cancel()
	wg.Wait()
	s.mu.Lock()
	s.raft = nil
	s.mu.Unlock()
	// Shutdown waits for requests under way, and a frozen peer's would take 10 s.
	return errors.Join(err, transport.Close(), r.Shutdown().Error())
}

// ServerAddr is part of raft.ServerAddressProvider: the list's addresses may
// change, the names may not.
func (s *Server) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	for _, p := range s.cfg.Cluster {
		if p.Name == string(id) {
			return raft.ServerAddress(p.Address), nil
		}
	}
	return "", fmt.Errorf("metadata: node %q is not in this node's list: %w", id, log.ErrIdentity)
}

func (s *Server) running() *raft.Raft {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raft
}

// Local is the newest view this node has, and a channel that is closed when there
// is a newer one. It may lag behind what Do returned; without a majority it stays.
func (s *Server) Local() (*View, <-chan struct{}) {
	p := s.machine.latest.Load()
	return p.view, p.next
}

// Admit is View.Admit with what this node knew before it was started: until it hears
// of a leader its view may show nothing, and just then, in a start of all nodes, a
// voter that lost its directory must not be let in.
func (s *Server) Admit(node, uuid string, generation uint64) error {
	v, _ := s.Local()
	if err := v.Admit(node, uuid, generation); err != nil || v.index >= s.boot.index {
		return err
	}
	return s.boot.Admit(node, uuid, generation)
}

// leaderAddress of the leader, as the list has it; empty: none is known.
func (s *Server) leaderAddress(r *raft.Raft) string {
	address, id := r.LeaderWithID()
	if id == "" {
		return ""
	}
	if listed, err := s.ServerAddr(id); err == nil {
		return string(listed)
	}
	return string(address)
}

// Status of this node's part. It does not block.
func (s *Server) Status() Status {
	v, _ := s.Local()
	out := Status{
		Node: s.cfg.Node, Role: "starting", AppliedIndex: v.index, LastContact: -1,
		Generation: v.generation, Streams: v.streams.count, Nodes: len(v.nodes),
	}
	r := s.running()
	if r == nil {
		return out
	}
	conf := r.GetConfiguration()
	if conf.Error() == nil {
		for _, server := range conf.Configuration().Servers {
			p := Peer{Name: string(server.ID), Address: string(server.Address)}
			if listed, err := s.ServerAddr(server.ID); err == nil {
				p.Address = string(listed)
			}
			if server.Suffrage == raft.Voter {
				out.Voters = append(out.Voters, p)
			} else {
				out.Joining = append(out.Joining, p)
			}
		}
	}
	if len(out.Voters) > 0 {
		switch r.State() {
		case raft.Leader:
			out.Role, out.LastContact = "leader", 0
		case raft.Candidate:
			out.Role = "candidate"
		default:
			out.Role = "follower"
		}
	}
	if at := r.LastContact(); out.Role != "leader" && !at.IsZero() {
		out.LastContact = time.Since(at)
	}
	_, id := r.LeaderWithID()
	out.Leader, out.LeaderAddress = string(id), s.leaderAddress(r)
	out.Term, out.LastIndex, out.CommitIndex = r.CurrentTerm(), r.LastIndex(), r.CommitIndex()
	if n, err := strconv.ParseUint(r.Stats()["last_snapshot_index"], 10, 64); err == nil {
		out.SnapshotIndex = n
	}
	return out
}

// Do is Store.Do: here when this node leads, else at the leader.
func (s *Server) Do(ctx context.Context, c Command) (Result, error) { return s.client.Do(ctx, c) }

// Stream is Store.Stream.
func (s *Server) Stream(ctx context.Context, name string) (Stream, error) {
	return s.client.Stream(ctx, name)
}

// Streams is Store.Streams.
func (s *Server) Streams(ctx context.Context) ([]string, error) { return s.client.Streams(ctx) }

// Nodes is Store.Nodes.
func (s *Server) Nodes(ctx context.Context) ([]Node, error) { return s.client.Nodes(ctx) }

// Segments is Store.Segments.
func (s *Server) Segments(ctx context.Context, stream string, from uint32, n int) ([]Segment, error) {
	return s.client.Segments(ctx, stream, from, n)
}

// Leases is Store.Leases.
func (s *Server) Leases(ctx context.Context) ([]Lease, error) { return s.client.Leases(ctx) }

var (
	_ Store = (*Server)(nil)
	_ Store = (*Client)(nil)
)
