package segment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// ID names a replica on its node.
type ID struct {
	Stream  string
	Segment uint32
}

func (id ID) String() string { return fmt.Sprintf("stream %q segment %d", id.Stream, id.Segment) }

// Sealed is what a replica answers to a seal: the fence is durable, and this is
// what the node held at that moment.
type Sealed struct {
	Last   log.Offset // newest entry on disk; Descriptor.First-1: none
	LAC    log.Offset // newest that the node knows to be confirmed
	LSO    log.Offset // newest up to Last that ends a transaction
	Closed bool       // the node was told the segment's end; when it lags, the end lies above Last
}

// ReplicaInfo is a picture of a replica.
type ReplicaInfo struct {
	quorum.Descriptor
	Fence log.Epoch  // appends of lower epochs are refused
	Held  log.Offset // newest of the contiguous entries on disk; First-1: none
	LAC   log.Offset // newest that may be shown; of a closed one min(Last, Held)
	LSO   log.Offset // newest up to LAC that ends a transaction

	Closed bool
	Last   log.Offset // of a closed one: where the segment ends
	// Complete: closed, and every entry up to Last (of a compacted one: of the
	// topics kept) is here and not known to be damaged.
	Complete  bool
	Compacted bool
	Kept      []log.Topic // of a compacted one: the topics that stayed
	Suspect   bool        // damage is known or may have taken entries
	Missing   []Range     // of a closed one: what a repair would bring; ascending
	Archived  bool        // all of it lies in its own file

	Bytes     int64 // of the records, as they were appended
	DiskBytes int64 // of its own file; 0 while it lies in the journal
	Entries   int64
	Oldest    time.Time // least and greatest AppendedAt; zero: no entry
	Newest    time.Time
	classes   uint32
}

// MayHold is false when the replica surely holds no entry of the topic. It takes
// topics of 15 and above for one.
func (i *ReplicaInfo) MayHold(t log.Topic) bool { return i.classes>>topicClass(t)&1 == 1 }

// Range of entries, both ends included.
type Range struct{ First, Last log.Offset }

// Copied says what a repair has to arrive at: a closed segment.
type Copied struct {
	quorum.Descriptor
	Last log.Offset
	LSO  log.Offset
	Kept []log.Topic // of a compacted segment: the topics that stayed; nil: every entry
}

// Fetch returns entries of a segment from a peer, in order: what the peer has of
// [from, to), as many as it likes. next, which is above from, is the end of what
// it covers: every entry below it that the segment has is among them.
type Fetch func(ctx context.Context, from, to log.Offset) (entries []Stored, next log.Offset, err error)

var errNotYet = errors.New("not built yet")

// Attach makes the node ready to take appends of the segment at that epoch (the
// descriptor's own for its writer, the fence's for who copies after a seal), and
// returns the newest entry it holds: appends go on behind it. A segment that is
// new here is made durable first, with its descriptor and the epoch as its fence.
// What an earlier attachment had queued is durable or dropped before it returns.
// Errors: log.ErrFenced when the fence is above the epoch or the segment was given
// up here, log.ErrSuspect when damage may have taken entries, log.ErrProtocol when
// the descriptor is another one than the node knows, log.ErrFull, log.ErrUnknown,
// and the store's own.
func (s *Store) Attach(ctx context.Context, d quorum.Descriptor, epoch log.Epoch) (*Replica, log.Offset, error) {
	return nil, log.None, errNotYet
}

// Seal raises the segment's fence to epoch, durably, and answers what the node
// holds, as one step: nothing of a lower epoch is stored any more when it returns.
// A segment that is new here is made, empty and fenced. Repeating it is harmless.
// Errors: log.ErrFenced when the fence is above the epoch; log.ErrSuspect, with
// the fence durable all the same, when damage may have taken entries; and those of
// Attach.
func (s *Store) Seal(ctx context.Context, d quorum.Descriptor, epoch log.Epoch) (Sealed, error) {
	return Sealed{}, errNotYet
}

// Replica is the node's replica of a segment. log.ErrElsewhere: it has none.
// log.ErrSuspect: it should have one, and nothing of it can be read.
func (s *Store) Replica(id ID) (*Replica, error) { return nil, errNotYet }

// Replicas are all replicas of the node, by stream and segment. It reads the
// heads of the files that were not used since Open.
func (s *Store) Replicas() []ReplicaInfo { return nil }

// Repair makes the node's replica of a closed segment whole, making one when
// there is none: what is good here stays, what is missing or damaged comes from
// fetch, and the result lies in its own file. Of a replica that is whole it makes
// nothing new. Errors: those of fetch, log.ErrSuspect when what fetch brings is
// not what was asked for, log.ErrFull, and the store's own; what was here before
// is then as it was.
func (s *Store) Repair(ctx context.Context, c Copied, fetch Fetch) (*Replica, error) {
	return nil, errNotYet
}

// Generation of the cluster that the node knows, durably.
func (s *Store) Generation() uint64 { return 0 }

// SetGeneration makes a generation durable. log.ErrGeneration when the node knows
// a newer one; the same one again is no error.
func (s *Store) SetGeneration(ctx context.Context, g uint64) error { return errNotYet }

// Replica is the node's part of one segment: a contiguous prefix of its entries,
// from Descriptor.First.
type Replica struct{}

// ID of the replica.
func (r *Replica) ID() ID { return ID{} }

// Descriptor of the segment, as the node made it durable.
func (r *Replica) Descriptor() quorum.Descriptor { return quorum.Descriptor{} }

// Info is the present picture.
func (r *Replica) Info() ReplicaInfo { return ReplicaInfo{} }

// State is what readers and acknowledgers of a replica follow.
type State struct {
	Fence   log.Epoch
	Held    log.Offset // newest durable entry; First-1: none
	LAC     log.Offset // newest that may be shown; at most Held
	LSO     log.Offset // newest up to LAC that ends a transaction; the descriptor's FirstLSO when there is none
	Closed  bool
	Last    log.Offset // of a closed one: where the segment ends
	Suspect bool
	Broken  error // queued entries were dropped: who appends has to attach again
}

// State is the present one and a channel that is closed when it changes. The error
// is the store's (log.ErrUnavailable when the journal died, log.ErrClosed), or
// log.ErrElsewhere once the replica was dropped; the state is true even so.
func (r *Replica) State() (State, <-chan struct{}, error) { return State{}, nil, errNotYet }

// Close tells the replica where its segment ends, durably: last and lso (newest
// entry up to last that ends a transaction) as metadata has them. Entries above
// last are gone. When the replica holds less it is incomplete: Info tells, Repair
// mends it, and appends up to last are still taken. The same end again is no
// error; another one is log.ErrProtocol.
func (r *Replica) Close(ctx context.Context, last, lso log.Offset) error { return errNotYet }

// Compact keeps only the entries of those topics, of a closed replica that is
// complete (else log.ErrSuspect or log.ErrElsewhere). It returns once that is
// durable. Reads of other topics get log.ErrTrimmed then.
func (r *Replica) Compact(ctx context.Context, keep []log.Topic) error { return errNotYet }

// Drop gives the replica up, durably. Its node refuses for ever to make the
// segment anew by Attach or Seal (log.ErrFenced), because the fence goes, too;
// Repair may bring it back.
func (r *Replica) Drop(ctx context.Context) error { return errNotYet }

// Verify reads all of the replica and notes what is damaged. It returns the
// entries read; damage is no error, Info tells it.
func (r *Replica) Verify(ctx context.Context) (entries int64, err error) { return 0, errNotYet }

// Append queues an entry for the next group commit; Append.Epoch is the epoch of
// the attachment, the entry keeps the segment's. It waits while the group that is
// filling has no room. Progress tells when it is durable. Errors: log.ErrFenced,
// log.ErrFull, log.ErrTooLarge, log.ErrProtocol (a gap or a wrong checksum),
// log.ErrElsewhere (dropped), ctx.Err(), and the store's own.
func (r *Replica) Append(ctx context.Context, a *Append) error { return errNotYet }

// Progress is how far appends at that epoch got, and a channel that is closed when
// that changes. Last is true even with an error.
func (r *Replica) Progress(epoch log.Epoch) (Progress, <-chan struct{}, error) {
	return Progress{}, nil, errNotYet
}

// Confirm raises the LAC: the rule is satisfied up to lac. log.ErrFenced when the
// fence is above the epoch.
func (r *Replica) Confirm(epoch log.Epoch, lac log.Offset) error { return errNotYet }

// Read returns entries of the segment in order, and the offset to go on from,
// which never passes the segment's end. No entries and an unchanged offset: there
// is nothing to see yet; at a closed segment's Last+1: there will be nothing more.
// It shows entries up to the LAC, with Query.Committed up to the LSO, with
// Query.Unconfirmed all that the node holds. buf may be nil or a buffer of an
// earlier Read; the one returned holds the payloads. Errors: log.ErrSuspect for a
// damaged entry (those before it are returned first), log.ErrElsewhere for one
// below a closed segment's end that this node does not have, log.ErrTrimmed when a
// compaction took what is asked for, and the store's own.
func (r *Replica) Read(q Query, entries []Stored, buf []byte) ([]Stored, []byte, log.Offset, error) {
	return nil, nil, 0, errNotYet
}
