package node

import (
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
)

// State of a node in its cluster.
type State string

// The states.
const (
	StateStarting    State = "starting"    // not known to the metadata yet
	StateServing     State = "serving"     // registered
	StateQuarantined State = "quarantined" // of a generation that was taken over: serves nothing
)

// ClusterStatus is the cluster as one node sees it.
type ClusterStatus struct {
	Node       string      `json:"node"`
	UUID       string      `json:"uuid"`
	City       string      `json:"city,omitempty"`
	State      State       `json:"state"`
	Generation uint64      `json:"generation"`
	Leader     string      `json:"leader,omitempty"` // of the metadata; empty: none is known
	Metadata   meta.Status `json:"metadata"`         // this node's part in it
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	Nodes      []Peer      `json:"nodes"` // sorted by name
	Keeper     Keeper      `json:"keeper"`
	Replicas   []Replica   `json:"replicas,omitempty"` // of this node, by stream and segment
}

// Quarantine says why a node stands aside, and where what only it has went.
type Quarantine struct {
	Since      time.Time `json:"since"`
	Generation uint64    `json:"generation"` // the newer one
	LearntFrom string    `json:"learnt_from"`
	Exported   bool      `json:"exported"`          // the export is complete
	Entries    int64     `json:"entries"`           // exported
	Files      []string  `json:"files,omitempty"`   // of the export
	Problem    string    `json:"problem,omitempty"` // why the export is not complete yet
}

// Peer is a node of the cluster.
type Peer struct {
	Name       string `json:"name"`
	City       string `json:"city"`
	Address    string `json:"address"`
	Witness    bool   `json:"witness,omitempty"`
	UUID       string `json:"uuid,omitempty"` // as registered; empty: it never came
	Drained    bool   `json:"drained,omitempty"`
	Version    string `json:"version,omitempty"`
	Reachable  bool   `json:"reachable"`
	Generation uint64 `json:"generation,omitempty"` // as it last said
	Error      string `json:"error,omitempty"`      // why it is not reachable
}

// Keeper is the work of repair and retention.
type Keeper struct {
	Holder  string        `json:"holder,omitempty"` // of the lease
	Missing []MissingCopy `json:"missing,omitempty"`
	Copied  int64         `json:"copied_bytes"`    // by this node since its start
	Done    int64         `json:"copied_replicas"` // by this node since its start
	Problem string        `json:"problem,omitempty"`
	LastRun time.Time     `json:"last_run,omitzero"` // of this node as the keeper
}

// MissingCopy is a closed segment that a node should hold and does not.
type MissingCopy struct {
	Stream  string `json:"stream"`
	Segment uint32 `json:"segment"`
	Node    string `json:"node"`
	// Unprotected: without the copy the stream's rule does not hold.
	Unprotected bool   `json:"unprotected,omitempty"`
	Problem     string `json:"problem,omitempty"`
}

// Replica is this node's part of one segment.
type Replica struct {
	Stream     string     `json:"stream"`
	Segment    uint32     `json:"segment"`
	First      log.Offset `json:"first"`
	Last       log.Offset `json:"last"`
	LAC        log.Offset `json:"lac"`
	Epoch      log.Epoch  `json:"epoch"`
	Closed     bool       `json:"closed,omitempty"`
	Incomplete bool       `json:"incomplete,omitempty"`
	Suspect    bool       `json:"suspect,omitempty"`
	Compacted  bool       `json:"compacted,omitempty"`
	Bytes      int64      `json:"bytes"`      // of the records, as they were appended
	DiskBytes  int64      `json:"disk_bytes"` // of its own file; 0 while it lies in the journal
}

// Attestation is what an operator vouches for before a forced takeover: the lost
// nodes are gone or cut off, for every writer and reader, until they rejoin.
type Attestation struct {
	By     string   `json:"by"`
	Reason string   `json:"reason"`
	Lost   []string `json:"lost"` // names of nodes
	// Preview collects and merges, and changes nothing.
	Preview bool `json:"preview,omitempty"`
}

// Takeover is the outcome of a forced takeover.
type Takeover struct {
	Generation uint64        `json:"generation"`
	Survivors  []string      `json:"survivors"`
	Lost       []string      `json:"lost"`
	Streams    []TakenStream `json:"streams"`
	Preview    bool          `json:"preview,omitempty"`
}

// TakenStream says where a stream stands after a takeover.
type TakenStream struct {
	Stream   string     `json:"stream"`
	Segments int        `json:"segments"` // the newest one's number
	Last     log.Offset `json:"last"`     // newest entry that a survivor holds
	// Doubt: the lost nodes may have confirmed entries behind Last by themselves.
	// Their offsets are passed over: the newest of Gaps.
	Doubt bool `json:"doubt,omitempty"`
	// Again: so had an earlier takeover, and no survivor has anything from between the
	// two gaps. Such takeovers need no repetition: each takes as many offsets more.
	Again bool `json:"again,omitempty"`
	// Gaps are what the takeover makes readers meet log.ErrLost at: offsets that are
	// passed over, and closed segments that no survivor has.
	Gaps []meta.Gap `json:"gaps,omitempty"`
}

// RejoinOrder has a quarantined node start afresh.
type RejoinOrder struct {
	Reason string `json:"reason,omitempty"`
	// Preview only looks.
	Preview bool `json:"preview,omitempty"`
	// LeaveBehind does it although entries that nobody else has are in no export.
	// They stay in the old directory, which is kept aside.
	LeaveBehind bool `json:"leave_behind,omitempty"`
}

// Rejoined says what a node that starts afresh has and has not handed over.
type Rejoined struct {
	Unexported []Unexported `json:"unexported"`
}

// Unexported are entries that nobody else has, by what the cluster lists now, and
// that are in no file of the export.
type Unexported struct {
	Stream  string     `json:"stream"`
	Segment uint32     `json:"segment"`
	From    log.Offset `json:"from"`
	To      log.Offset `json:"to"`
}

// Repaired is the outcome of one round of repair.
type Repaired struct {
	Copied  int           `json:"copied"` // replicas
	Bytes   int64         `json:"bytes"`
	Missing []MissingCopy `json:"missing,omitempty"`
}
