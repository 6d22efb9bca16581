package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Store is the metadata as its users see it: linearizable, wherever the leader is.
//
// Errors, besides those of the commands: log.ErrUnavailable when no leader was
// reached within ctx and nothing was changed; log.ErrUnknown when a command may or
// may not have been applied. Every command may then be repeated. A command that
// was refused after an attempt of unknown outcome fails with both errors: what was
// refused the second time may still be on its way for the first.
type Store interface {
	// Do applies a command and waits until it is durable on a majority.
	Do(ctx context.Context, c Command) (Result, error)
	// Stream with its newest two segments. log.ErrNoStream.
	Stream(ctx context.Context, name string) (Stream, error)
	// Streams lists the names, sorted.
	Streams(ctx context.Context) ([]string, error)
	// Nodes that are registered, sorted by name.
	Nodes(ctx context.Context) ([]Node, error)
	// Segments of a stream from number from on, at most n (and at most
	// SegmentsPageMax), in order. Fewer than asked for says nothing; none says
	// that there is none from there on. log.ErrNoStream.
	Segments(ctx context.Context, stream string, from uint32, n int) ([]Segment, error)
	// Leases that are held, sorted by name.
	Leases(ctx context.Context) ([]Lease, error)
}

// SegmentsPageMax bounds what Segments returns at once.
const SegmentsPageMax = 512

// Peer is a voter of the metadata: a line of the cluster's static list.
type Peer struct {
	Name    string `json:"name"`
	Address string `json:"address"` // host:port
}

// Caller carries a request to the node at an address, to whose Server.Handle it
// goes, and brings back the response. An error says nothing about whether the
// request arrived, but one that wraps ErrNotSent says that it did not.
type Caller interface {
	Call(ctx context.Context, address string, request []byte) ([]byte, error)
}

// ErrNotSent marks an error of a Caller that left nothing at the other side.
var ErrNotSent = errors.New("not sent")

// RequestBytesMax and ResponseBytesMax bound what travels through a Caller.
const (
	RequestBytesMax  = 8 << 20
	ResponseBytesMax = 32 << 20
)

// NotLeader is the answer of a node that does not lead; nothing was changed. It
// wraps log.ErrUnavailable.
type NotLeader struct {
	Address string // of the leader; empty: none is known
}

func (e *NotLeader) Error() string {
	if e.Address == "" {
		return "the metadata has no leader"
	}
	return fmt.Sprintf("the metadata is led by %s", e.Address)
}

// Unwrap makes it a log.ErrUnavailable.
func (e *NotLeader) Unwrap() error { return log.ErrUnavailable }

// Status of one node's part in Raft.
type Status struct {
	Node          string        `json:"node"`
	Role          string        `json:"role"`             // leader, follower, candidate; starting before it is part of a cluster
	Leader        string        `json:"leader,omitempty"` // its name
	LeaderAddress string        `json:"leader_address,omitempty"`
	Term          uint64        `json:"term"`
	LastIndex     uint64        `json:"last_index"`
	CommitIndex   uint64        `json:"commit_index"`
	AppliedIndex  uint64        `json:"applied_index"` // what the local view shows
	SnapshotIndex uint64        `json:"snapshot_index"`
	LastContact   time.Duration `json:"last_contact"` // since the leader was heard of; 0 on the leader; -1: never
	Voters        []Peer        `json:"voters"`
	Joining       []Peer        `json:"joining,omitempty"` // take part, but do not vote yet
	Generation    uint64        `json:"generation"`
	Streams       int           `json:"streams"`
	Nodes         int           `json:"nodes"`
}
