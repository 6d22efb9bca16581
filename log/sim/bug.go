package sim

import "github.com/twinspan/twinspan/log/internal/fault"

// Bug is a defect to seed: one of the machines' own (package fault), or one of the
// shell around them.
type Bug uint8

// The shell's bugs.
const (
	BugNone               = Bug(fault.None)
	BugFenceVolatile      = Bug(fault.MachinesEnd) + iota // a fence is answered and not stored
	BugSealOfUnknown                                      // a node that never heard of a segment answers a seal and forgets the fence
	BugCorruptAbsent                                      // damage is answered as absence
	BugWipedRejoins                                       // a wiped node keeps its identity
	BugTornHole                                           // a torn group loses a record in its middle
	BugStaleBytes                                         // bytes of a recycled file are taken for new ones
	BugAttachEarly                                        // a writer uses the next segment before the roll's outcome is known
	BugLACAhead                                           // the LAC is what was appended, not what was confirmed
	BugResumeFromMemory                                   // a producer resumes where it believes it was, without reading the tail
	BugOldEpochAdvances                                   // the metadata lets any epoch close and open
	BugTrimIgnoresCursors                                 // retention looks at the near cursor only
	BugHeldEarly                                          // a repair is reported before it is durable
	BugRepairMoves                                        // repair takes the old copy away first
	BugDropUnlisted                                       // a node drops what its old view of the metadata does not list yet
	BugDropForgetsFence                                   // a dropped replica can be made anew
	BugCopiedWhenSent                                     // a recovery counts copies that were sent, not acknowledged
	BugOldGeneration                                      // nodes of a new generation take writers of an old one
	BugLostReused                                         // a forced close passes over no offsets
	BugTakeoverReuses                                     // a takeover passes over no offsets that the lost city confirmed alone
	BugTakeoverBuries                                     // a takeover gives up what a survivor has of a segment that it lacks the end of
	bugsEnd
)

var bugNames = map[Bug]string{
	Bug(fault.UnfencedSeal):     "a seal is answered without a fence",
	Bug(fault.SealNotAtomic):    "seal not atomic with the newest entry",
	Bug(fault.AckBeforeSync):    "acknowledged before fsync",
	Bug(fault.GapAccepted):      "node accepts a gap",
	Bug(fault.DuplicateStored):  "duplicate append stored",
	Bug(fault.LowEpochAccepted): "lower epoch accepted after the seal",
	Bug(fault.BeyondLAC):        "reader beyond the LAC",
	Bug(fault.StaleSuffix):      "stale suffix of a closed segment shown",
	Bug(fault.SuspectAnswers):   "suspect node answers a seal",
	Bug(fault.CountedCover):     "half of the members count as covering",
	Bug(fault.CountedDual):      "count-based coverage instead of the dual",
	Bug(fault.SmallestLast):     "recovery takes the smallest end",
	Bug(fault.FirstLast):        "recovery takes the first answer's end",
	Bug(fault.EarlyClose):       "recovery closes before the rule holds",
	Bug(fault.ClaimedHolders):   "recovery names all members as holders",
	Bug(fault.ForeignCounts):    "wiped node counts as covering",
	Bug(fault.AckBeyondFreeze):  "roll confirms beyond the freeze",
	Bug(fault.UnknownIsDone):    "unknown outcome taken for success",
	Bug(fault.UnknownIsRefused): "unknown outcome taken for failure",
	Bug(fault.StaleAck):         "acks of the old segment count in the new",
	Bug(fault.ResendSkips):      "resend skips an entry",
	Bug(fault.CloseBelow):       "segments overlap: closed below the confirmed",
	Bug(fault.SilentDegrade):    "silent degrade",
	BugFenceVolatile:            "fence not persisted",
	BugSealOfUnknown:            "fence of an unknown segment not kept",
	BugCorruptAbsent:            "corrupt answered as absent",
	BugWipedRejoins:             "wiped node rejoins under its name",
	BugTornHole:                 "torn group with a hole accepted",
	BugStaleBytes:               "stale recycled bytes accepted",
	BugAttachEarly:              "attach before the advance is known",
	BugLACAhead:                 "LAC ahead of acks",
	BugResumeFromMemory:         "GTIDs resumed from memory, not the tail",
	BugOldEpochAdvances:         "old epoch closes and opens",
	BugTrimIgnoresCursors:       "trim ignores a far cursor",
	BugHeldEarly:                "repair reported before it is durable",
	BugRepairMoves:              "repair lowers protection",
	BugDropUnlisted:             "replica dropped by an old view",
	BugDropForgetsFence:         "dropped replica made anew",
	BugCopiedWhenSent:           "copies counted when sent",
	BugOldGeneration:            "old generation accepted",
	BugLostReused:               "offsets reused behind a forced close",
	BugTakeoverReuses:           "offsets reused behind a takeover",
	BugTakeoverBuries:           "a takeover gives up what is left of a segment",
	Bug(fault.ForcedEarly):      "forced close before all that are left are sealed",
}

func (b Bug) String() string {
	if s, ok := bugNames[b]; ok {
		return s
	}
	return "none"
}

// Bugs lists every bug that can be seeded.
func Bugs() []Bug {
	var out []Bug
	for b := Bug(1); b < bugsEnd; b++ {
		if _, ok := bugNames[b]; ok {
			out = append(out, b)
		}
	}
	return out
}
