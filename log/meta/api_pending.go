package meta

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

var errPending = errors.New("meta: not yet written")

// State is the metadata. It is pure: the same commands give the same state on
// every node. It is not safe for concurrent use; its Views are.
type State struct{ v *View }

// NewState is an empty one, of generation 1.
func NewState() *State { return &State{v: &View{}} }

// View of the present. It costs nothing and never changes.
func (s *State) View() *View { return s.v }

// Apply makes one change, or none: on error the state is as it was.
func (s *State) Apply(c Command) (Result, error) { return Result{}, errPending }

// View is an immutable picture of the metadata. It is safe for concurrent use;
// what it returns must not be changed.
type View struct{}

// Index of the newest Raft entry in it; 0 outside a Server.
func (v *View) Index() uint64 { return 0 }

// Generation of the cluster; 1 in the beginning.
func (v *View) Generation() uint64 { return 0 }

// Now is the state's clock: the newest time of a command.
func (v *View) Now() time.Time { return time.Time{} }

// Streams lists the names, sorted.
func (v *View) Streams() []string { return nil }

// Stream with its newest two segments.
func (v *View) Stream(name string) (Stream, bool) { return Stream{}, false }

// Segments from number from on, at most n, in order; false: no such stream.
func (v *View) Segments(stream string, from uint32, n int) ([]Segment, bool) { return nil, false }

// Segment by its number; false: not listed (never was, dropped, or trimmed).
func (v *View) Segment(stream string, number uint32) (*Segment, bool) { return nil, false }

// SegmentAt is the segment that holds, or will hold, the entry; the next one
// that is kept when retention took it; false: there is none from there on.
func (v *View) SegmentAt(stream string, o log.Offset) (*Segment, bool) { return nil, false }

// Short lists closed segments from number from on whose holders do not satisfy
// the policy's rule, at most n: what repair has to copy.
func (v *View) Short(stream string, from uint32, n int) []Segment { return nil }

// Nodes sorted by name.
func (v *View) Nodes() []Node { return nil }

// Node by name.
func (v *View) Node(name string) (Node, bool) { return Node{}, false }

// Leases that have not expired, sorted by name.
func (v *View) Leases() []Lease { return nil }

// Lease by name, unless it expired.
func (v *View) Lease(name string) (Lease, bool) { return Lease{}, false }

// Takeovers since the cluster began.
func (v *View) Takeovers() []Takeover { return nil }

// Admit says whether a node that introduces itself so may take part: its
// generation is not older than the view's, the directory is the one registered
// under its name and none that was forgotten. log.ErrGeneration, log.ErrIdentity.
// A node that is not known at all is admitted: it may be about to register. Both
// sides of every connection between nodes ask this, raft's above all.
func (v *View) Admit(node, uuid string, generation uint64) error { return errPending }

// Changed lists the streams that differ from an older view, or are new or gone.
func (v *View) Changed(since *View) []string { return nil }

// Config of a Server.
type Config struct {
	Dir  string // its own; made when it is not there
	Node string // this node's name
	// Cluster is the static list of voters, identical on every node and with this
	// node in it. A cluster of one needs neither Caller, Dial nor Accept.
	Cluster []Peer
	Caller  Caller // to the other nodes' Handle
	// Dial opens a raw connection to the raft of the node at an address, whose
	// side comes out of its Accept. Both have checked with View.Admit.
	Dial   func(ctx context.Context, address string) (net.Conn, error)
	Accept <-chan net.Conn // owner: the caller; unbuffered or small; not closed while Run runs
	Log    zerolog.Logger
	// Heartbeat is how long a follower waits for its leader before it thinks of an
	// election: 1 s; 50 ms in a cluster of one.
	Heartbeat time.Duration
}

// Server is a node's part of the metadata: a voter, and a view that follows.
type Server struct{}

// New opens, or makes, the directory. log.ErrProtocol for a bad configuration.
func New(c Config) (*Server, error) { return nil, errPending }

// Run takes part until ctx ends or the disk fails. A cluster is formed when every
// voter of the list was reached and none has been part of one; until then, and
// until a leader is elected, Do and the reads wait.
func (s *Server) Run(ctx context.Context) error { return errPending }

// Local is the newest view this node has, and a channel that is closed when there
// is a newer one. It may lag behind what Do returned; without a majority it stays.
func (s *Server) Local() (*View, <-chan struct{}) { return nil, nil }

// Status of this node's part; never blocks for long.
func (s *Server) Status() Status { return Status{} }

// Handle answers a request of a Client or of another Server. It never fails:
// errors travel in the response.
func (s *Server) Handle(ctx context.Context, request []byte) []byte { return nil }

// Do is Store.Do: here when this node leads, else at the leader.
func (s *Server) Do(ctx context.Context, c Command) (Result, error) { return Result{}, errPending }

// Stream is Store.Stream.
func (s *Server) Stream(ctx context.Context, name string) (Stream, error) {
	return Stream{}, errPending
}

// Streams is Store.Streams.
func (s *Server) Streams(ctx context.Context) ([]string, error) { return nil, errPending }

// Nodes is Store.Nodes.
func (s *Server) Nodes(ctx context.Context) ([]Node, error) { return nil, errPending }

// Segments is Store.Segments.
func (s *Server) Segments(ctx context.Context, stream string, from uint32, n int) ([]Segment, error) {
	return nil, errPending
}

// Leases is Store.Leases.
func (s *Server) Leases(ctx context.Context) ([]Lease, error) { return nil, errPending }

// Client is a Store over the wire. It is safe for concurrent use.
type Client struct{}

// NewClient asks the nodes at these addresses, follows their hints to the leader,
// and tries again until ctx ends.
func NewClient(c Caller, seeds []string) *Client { return nil }

// Do is Store.Do.
func (c *Client) Do(ctx context.Context, cmd Command) (Result, error) { return Result{}, errPending }

// Stream is Store.Stream.
func (c *Client) Stream(ctx context.Context, name string) (Stream, error) {
	return Stream{}, errPending
}

// Streams is Store.Streams.
func (c *Client) Streams(ctx context.Context) ([]string, error) { return nil, errPending }

// Nodes is Store.Nodes.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) { return nil, errPending }

// Segments is Store.Segments.
func (c *Client) Segments(ctx context.Context, stream string, from uint32, n int) ([]Segment, error) {
	return nil, errPending
}

// Leases is Store.Leases.
func (c *Client) Leases(ctx context.Context) ([]Lease, error) { return nil, errPending }

// Status asks one node, which answers from what it knows, leader or not.
func (c *Client) Status(ctx context.Context, address string) (Status, error) {
	return Status{}, errPending
}

// Stale is a Client whose reads are answered by the node at address from its local
// view, without the leader: what is left when a majority is gone. Its Do is refused.
func (c *Client) Stale(address string) *Client { return nil }

var (
	_ Store = (*Server)(nil)
	_ Store = (*Client)(nil)
)

// Export is what one survivor's directory knows, for a forced takeover.
type Export struct {
	Node       string `json:"node"`
	Generation uint64 `json:"generation"`
	Term       uint64 `json:"term"`  // of its newest entry
	Index      uint64 `json:"index"` // of its newest entry
	Vote       uint64 `json:"vote"`  // newest term it took part in
	State      []byte `json:"state"` // with every entry applied, committed or not
}

// ReadExport reads the directory of a Server that is not running. Every survivor
// stops its Server first, so that nothing changes between the export and the install.
func ReadExport(dir, node string) (Export, error) { return Export{}, errPending }

// Replica is what a surviving node holds of a segment.
type Replica struct {
	Node       string            `json:"node"`
	Descriptor quorum.Descriptor `json:"descriptor"`
	Last       log.Offset        `json:"last"`
	LSO        log.Offset        `json:"lso"`
	LAC        log.Offset        `json:"lac"`
	Closed     bool              `json:"closed"` // it was told so; then the next two are the segment's
	ClosedLast log.Offset        `json:"closed_last"`
	ClosedLSO  log.Offset        `json:"closed_lso"`
}

// Seed is the metadata that a new generation starts with, the same for all survivors.
type Seed struct {
	Generation uint64 `json:"generation"`
	Term       uint64 `json:"term"`
	Index      uint64 `json:"index"`
	Voters     []Peer `json:"voters"`
	State      []byte `json:"state"`
}

// MakeSeed makes the metadata of the next generation when the majority is gone for
// good: from the best of the survivors' exports, and the descriptors that their
// replicas keep. The operator has attested that none of the lost nodes runs.
func MakeSeed(exports []Export, replicas []Replica, voters []Peer, reason string, now time.Time) (Seed, error) {
	return Seed{}, errPending
}

// Install replaces what the directory of a Server that is not running holds. It
// may be repeated; a seed that is not of a newer generation is refused with
// log.ErrGeneration.
func Install(dir, node string, s Seed) error { return errPending }
