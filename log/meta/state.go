// Package meta is the log's metadata: which segments a stream has and on which
// nodes, who owns it, leases, cursors, the cluster's generation. It is small,
// changes rarely, and is never on the path of an append. State is pure: a
// command in, a result out, no clock, no I/O; the same code runs behind Raft and
// in the simulator.
package meta

import (
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// Node is a registered member of the cluster.
type Node struct {
	Name    string `json:"name"`
	UUID    string `json:"uuid"` // of its directory; another one under the same name is refused until the old one is forgotten
	City    string `json:"city"`
	Address string `json:"address"`           // host:port, of the wire protocol
	Witness bool   `json:"witness,omitempty"` // votes, stores no entries
	Drained bool   `json:"drained,omitempty"` // takes part in no new segment
	Version string `json:"version,omitempty"` // of its program
}

// Loss says what a stream's writer does when its rule cannot be met.
type Loss string

// The ways to go on, or not, without a city.
const (
	LossBlock         Loss = "block"          // wait: the binlog holds the backlog
	LossDegradeManual Loss = "degrade-manual" // wait for Degrade
	LossDegradeAfter  Loss = "degrade-after"  // weaken the rule after Policy.After
)

// Policy of a stream.
type Policy struct {
	Rule  quorum.NodeRule `json:"rule"`
	Loss  Loss            `json:"loss"`
	After time.Duration   `json:"after,omitempty"`

	BytesMax int64         `json:"bytes_max,omitempty"` // retention; 0: no limit of that kind
	AgeMax   time.Duration `json:"age_max,omitempty"`
	// BytesCap evicts closed segments even above cursors, with a CursorLost
	// record for each group that loses entries; 0: never.
	BytesCap int64 `json:"bytes_cap,omitempty"`
}

// Segment is a stretch of a stream.
type Segment struct {
	quorum.Descriptor
	Closed   bool       `json:"closed,omitempty"`
	Last     log.Offset `json:"last,omitempty"`     // of a closed one
	LSO      log.Offset `json:"lso,omitempty"`      // newest entry up to Last that ends a transaction
	Bytes    int64      `json:"bytes,omitempty"`    // of its payloads, as the closer knew; else of its records, as a holder counts
	ClosedAt time.Time  `json:"closed_at,omitzero"` // UTC
	// Holders are the members, and nodes it was copied to since, that hold all
	// of a closed segment. It satisfies the stream's rule, or the segment is
	// PARTIAL and inside an unprotected window. It only grows, but for nodes
	// that were forgotten or found damaged.
	Holders []quorum.Member `json:"holders,omitempty"`
	// Compacted: retention took everything but the entries of the topics that
	// are kept for ever (the schema topic).
	Compacted bool `json:"compacted,omitempty"`
	// Lost: nobody has all of it, and it is certain that nobody will. It stands for
	// offsets whose entries may have been confirmed, and that are never used again.
	Lost bool `json:"lost,omitempty"`
	// LostTail is how many of its newest entries are lost, the same way: its holders
	// have the ones before. Last stays, because the next segment starts behind it, and
	// because replicas were closed there. LeftLSO is the newest entry that is left and
	// ends a transaction; FirstLSO when none does.
	LostTail int64      `json:"lost_tail,omitempty"`
	LeftLSO  log.Offset `json:"left_lso,omitempty"`
}

// Left is the newest entry of a closed segment that is not lost; First-1: all are.
func (s *Segment) Left() log.Offset {
	if s.Lost {
		return s.First - 1
	}
	return s.Last - log.Offset(s.LostTail)
}

// Upto is the newest entry of a closed segment that readers are given. Those of
// whole transactions are not given the beginning of one whose end is lost.
func (s *Segment) Upto(committed bool) log.Offset {
	if committed && s.LostTail > 0 && !s.Lost {
		return max(s.LeftLSO, s.First-1)
	}
	return s.Left()
}

// Barren: of a segment some of which is lost, and in what is left no transaction ends,
// so that a producer can't find its place in it.
func (s *Segment) Barren() bool { return s.Lost || s.LostTail > 0 && s.LeftLSO < s.First }

// Gap is a stretch of a stream that is lost: its entries may have been confirmed,
// or never have been. A reader of it gets log.ErrLost; one that starts behind it
// goes on.
type Gap struct {
	From   log.Offset `json:"from"`
	To     log.Offset `json:"to"`
	Reason string     `json:"reason"`
	By     string     `json:"by,omitempty"` // the operator who accepted it
	At     time.Time  `json:"at"`
}

// Window is a stretch of a stream whose entries were confirmed, or closed by a
// recovery, without the stream's full rule. It ends when its segments have been
// copied to where the rule wants them.
type Window struct {
	From       log.Offset `json:"from"`
	To         log.Offset `json:"to"` // log.None while its last segment is open
	Reason     string     `json:"reason"`
	Since      time.Time  `json:"since"`
	RestoredAt time.Time  `json:"restored_at,omitzero"`
	Trimmed    bool       `json:"trimmed,omitempty"` // some of it went before it was copied: retention took it, or it is lost
}

// CursorLost records that retention's hard cap took entries a group still needed.
type CursorLost struct {
	Group string     `json:"group"`
	From  log.Offset `json:"from"`
	To    log.Offset `json:"to"`
	At    time.Time  `json:"at"`
}

// Stream is what is known of a stream. Its segments chain: each starts where the
// one before ends, as far as retention left them; only the last one may be open.
type Stream struct {
	Name     string       `json:"name"`
	Epoch    log.Epoch    `json:"epoch"`           // the newest that was given out
	Owner    string       `json:"owner,omitempty"` // who got it, for people
	Policy   Policy       `json:"policy"`
	Degraded []string     `json:"degraded,omitempty"` // cities the operator, or the writer by policy, does without
	Segments []Segment    `json:"segments"`           // the newest two; Store.Segments pages through all
	Cursors  []log.Cursor `json:"cursors,omitempty"`  // sorted by group
	Windows  []Window     `json:"windows,omitempty"`
	Lost     []CursorLost `json:"lost,omitempty"`
	Gaps     []Gap        `json:"gaps,omitempty"` // the newest ones, ascending
	Version  uint64       `json:"version"`        // grows with every change

	// First is the oldest offset that is kept, but for compacted segments; it is
	// NextFirst when none is.
	First log.Offset `json:"first"`
	// What the next segment must bear when none is open. While one is open,
	// NextFirst and NextLSO are its First and FirstLSO.
	NextSegment uint32     `json:"next_segment"`
	NextFirst   log.Offset `json:"next_first"`
	NextLSO     log.Offset `json:"next_lso"`
	// Generation of the cluster, which a new segment must bear.
	Generation uint64 `json:"generation"`
	// Short counts the closed segments whose holders do not satisfy the
	// policy's rule: what repair has to copy.
	Short int `json:"short,omitempty"`
}

// Lease is a right for a time. It keeps two from doing the same work; it is never
// what safety rests on.
type Lease struct {
	Name    string    `json:"name"`
	Holder  string    `json:"holder"`
	Term    uint64    `json:"term"` // grows with each new holder
	Expires time.Time `json:"expires"`
}

// Takeover is a generation that was begun by force.
type Takeover struct {
	Generation uint64    `json:"generation"`
	Lost       []string  `json:"lost"` // names of the nodes that were given up
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
}

// Command is one change; exactly one pointer is set. Now is the proposer's clock,
// of which the state takes the largest seen; the leader fills it in.
type Command struct {
	Now time.Time `json:"now"`
	// By and Reason say which operator asked, and why; every node's log repeats
	// them with the change. Empty: a program did.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`

	Register   *Register   `json:"register,omitempty"`
	Forget     *Forget     `json:"forget,omitempty"`
	Drain      *Drain      `json:"drain,omitempty"`
	Create     *Create     `json:"create,omitempty"`
	SetPolicy  *SetPolicy  `json:"set_policy,omitempty"`
	Own        *Own        `json:"own,omitempty"`
	Advance    *Advance    `json:"advance,omitempty"`
	Degrade    *Degrade    `json:"degrade,omitempty"`
	Held       *Held       `json:"held,omitempty"`
	Trim       *Trim       `json:"trim,omitempty"`
	Cursor     *PutCursor  `json:"cursor,omitempty"`
	Lease      *TakeLease  `json:"lease,omitempty"`
	Release    *Release    `json:"release,omitempty"`
	Generation *Generation `json:"generation,omitempty"`
}

// Register makes a node known, or renews its address and version; Drained is
// kept as it is. log.ErrIdentity when the name belongs to another directory, the
// directory to another name or to one that was forgotten, or when the city or the
// part of a witness would change: such a node is another node.
type Register struct{ Node Node }

// Forget takes a node's identity away: its disk is gone. Segments that list it as
// a member keep it, as one that never answers; as a holder it is dropped. Where it
// is the last holder of a closed segment log.ErrProtocol, unless Lose names the
// segment: what no other node has of it is lost then, with a Gap that bears the
// command's By and Reason.
type Forget struct {
	Node, UUID string
	// Force orphans segments without a word. It is refused where it is asked for,
	// and stands in logs of before.
	Force bool
	Lose  []Losing `json:",omitempty"`
}

// Losing is a closed segment whose loss an operator accepts, but for what Left says
// that other nodes have.
type Losing struct {
	Stream  string
	Segment uint32
	// Left is what the remaining nodes said they have of it. The longest prefix stays,
	// held by those who have all of it; log.ErrStale when Most is set and more entries
	// than that would be lost, because a node is not registered any more. Neither is
	// there in logs of before: all of the segment was lost.
	Left []Left `json:",omitempty"`
	Most *int64 `json:",omitempty"`
}

// Left is what a node has of a closed segment. It may have more by the time that
// matters, never less.
type Left struct {
	Node, UUID string
	Last       log.Offset // newest entry
	LSO        log.Offset // newest one up to Last that ends a transaction; below the segment's First: none of its own
	Damaged    bool       // some of it can't be read
}

// Drain marks a node, or unmarks it.
type Drain struct {
	Node    string
	Drained bool
}

// Create makes a stream; an existing one is left as it is, whatever its policy.
type Create struct {
	Stream string
	Policy Policy
}

// SetPolicy changes what the next segments are opened with.
type SetPolicy struct {
	Stream string
	Policy Policy
}

// Own gives out the stream's next epoch. The result's Stream tells the newest
// segment, which the new owner has to recover when it is not closed.
type Own struct{ Stream, Owner string }

// Advance closes the open segment, or opens the next one, or both at once; it is
// the roll of a writer and the end of a recovery. It needs the stream's newest
// epoch, else log.ErrFenced. Repeated with the same content it succeeds again:
// that is how an unknown outcome becomes known (Bytes, Holders and Reason may
// differ). log.ErrStale when it was decided on a list of nodes, a policy or a
// generation that has changed since.
type Advance struct {
	Stream string
	Epoch  log.Epoch
	Close  *Close
	// Open must start at the closed one's Last+1, bear the next number, the
	// epoch given and the cluster's generation, and satisfy its rule with its
	// members, which must be registered storing nodes that are not drained. A
	// protected one must ask at least what the policy asks. One that is not needs
	// a policy of LossDegradeAfter, or a city in Stream.Degraded. Where the closed
	// one stays empty it is dropped, and its number is passed over.
	Open   *quorum.Descriptor
	Reason string // of a close without the full rule, or an unprotected open
	// Lost, with Close and without Open, ends the segment although entries behind
	// Close.Last may have been confirmed: an operator gave up the members that had
	// them. The offsets up to Lost.To become a Gap. log.ErrProtocol unless Lost.To
	// lies behind the end and every cursor, by at most GapMax entries.
	Lost *Lost
}

// Lost is what an operator accepts with a forced close.
type Lost struct {
	To         log.Offset // nothing can have been confirmed above it
	By, Reason string
}

// LostEntries is how many offsets a forced close passes over: more than a writer
// can have filled since anybody last heard of its segment, at a million entries a
// second for twelve days.
const LostEntries = 1 << 40

// Close of a segment.
type Close struct {
	Segment uint32
	Last    log.Offset // First-1: it is empty
	LSO     log.Offset
	Bytes   int64
	Holders []quorum.Member // who has all of it; those not registered do not count
}

// Degrade lets a stream's writer do without a city, or ends that. log.ErrProtocol
// while the policy is to block.
type Degrade struct {
	Stream, City string
	Off          bool
	Reason       string
}

// Held says that a node has all of a closed segment now, or (Lost) no longer has.
// A loss that would take the last holder is refused with log.ErrProtocol;
// log.ErrTrimmed when the segment is not listed any more.
type Held struct {
	Stream  string
	Segment uint32
	Member  quorum.Member
	Lost    bool
	// Bytes of the segment's records as the holder counts them; it becomes the
	// segment's where who closed it did not know, as a recovery does not.
	Bytes int64
}

// Trim gives up closed segments that lie wholly below Before: those in Keep are
// compacted, the others go; what was compacted before stays. It cuts only behind
// the end of a transaction, so it may give up less, and never takes the newest
// closed segment, where a producer finds its place. log.ErrCursorBehind while a
// cursor still needs one of them, or while there is no cursor at all, unless Evict
// is set, which records the loss.
type Trim struct {
	Stream string
	Before log.Offset
	// Keep are the numbers of segments that hold entries of topics that are
	// kept for ever; they are compacted instead of dropped.
	Keep  []uint32
	Evict bool
}

// PutCursor stores a cursor; log.ErrCursorBehind when it would go back, unless
// Seek is set. Remove drops it. A zero UpdatedAt becomes Now. The metadata does not
// know what is confirmed of the open segment: the caller checks.
type PutCursor struct {
	Stream string
	Cursor log.Cursor
	Seek   bool
	Remove bool
}

// TakeLease takes a lease or renews it for TTL from the state's clock. That
// another one has it is no error: the result's Lease tells the holder.
type TakeLease struct {
	Name, Holder string
	TTL          time.Duration
}

// Release gives a lease back; one that is not held is no error.
type Release struct{ Name, Holder string }

// Generation starts a new generation of the cluster: a forced takeover. The nodes
// in Lost are forgotten, whatever only they held. The first generation is 1.
type Generation struct {
	Generation uint64 // must be the present one plus 1
	Lost       []string
	Reason     string
}

// Result of a command.
type Result struct {
	// Stream is the command's stream after it, with its newest two segments and
	// without cursors, windows and losses; nil after PutCursor.
	Stream *Stream `json:"stream,omitempty"`
	Lease  *Lease  `json:"lease,omitempty"`
	// Generation of the cluster.
	Generation uint64 `json:"generation"`
}
