// Package fault breaks the protocol on purpose, so that the simulator can show
// that it would notice. Nothing outside of log's tests and simulator can import
// and set it; to the machines that ask it is one read of a variable that never
// changes, off the path of an append wherever that is possible.
package fault

// Bug is one way of being wrong.
type Bug uint8

// The bugs inside the machines of log/quorum.
const (
	None             Bug = iota
	UnfencedSeal         // a seal is answered without a fence
	SealNotAtomic        // a seal is answered while older entries are on their way to the disk
	AckBeforeSync        // an entry is acknowledged when it is queued
	GapAccepted          // a node stores n+2 behind n
	DuplicateStored      // a node stores an entry twice
	LowEpochAccepted     // a node takes appends below its fence
	BeyondLAC            // readers are shown all that a node has
	StaleSuffix          // a close leaves what lies above the end, and shows it
	SuspectAnswers       // a suspect node answers a seal with what it has
	CountedCover         // half of the members count as covering
	CountedDual          // W-A+1 members have to answer, whatever their cities
	SmallestLast         // a recovery ends at the least newest entry
	FirstLast            // a recovery ends where the first member that answered does
	EarlyClose           // a recovery closes before the rule holds, and says that it does
	ClaimedHolders       // a recovery names all members as holders
	ForeignCounts        // a wiped node counts as one that holds nothing
	AckBeyondFreeze      // a writer goes on confirming while it rolls
	UnknownIsDone        // an unknown outcome of a roll is taken for success
	UnknownIsRefused     // an unknown outcome of a roll is taken for failure
	StaleAck             // acknowledgements of the last segment count in the next
	ResendSkips          // a resend leaves an entry out
	CloseBelow           // a roll closes below what was confirmed
	SilentDegrade        // every entry is said to be protected
	ForcedEarly          // a forced close does not wait for all members that are left
	MachinesEnd
)

// active is set once, before anything runs.
var active Bug

// Set arms a bug for the whole process; None disarms.
func Set(b Bug) { active = b }

// Is says whether a bug is armed.
func Is(b Bug) bool { return active == b }
