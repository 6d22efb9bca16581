package quorum

import (
	"fmt"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
)

// ReplicaState is what a node knows of one segment from its own disk, at the
// replica's creation and after a restart.
type ReplicaState struct {
	First  log.Offset // of the segment
	Fence  log.Epoch  // durable
	Last   log.Offset // newest durable entry; First-1: none
	LSO    log.Offset // newest entry up to Last that ends a transaction; the descriptor's FirstLSO when there is none here
	LAC    log.Offset // as the newest durable record says; log.None: unknown
	Closed bool
	End    log.Offset // of a closed one; above Last: the replica is incomplete
	EndLSO log.Offset
	// Suspect: damage may have taken entries from the end, so Last proves nothing.
	Suspect bool
}

// Sealed is a node's answer to a seal. It is made in one step with the durable
// fence: nothing of a lower epoch is stored behind Last, ever.
type Sealed struct {
	Last   log.Offset
	LAC    log.Offset
	LSO    log.Offset // newest entry up to Last that ends a transaction
	Closed bool
	End    log.Offset // of a closed one: where metadata ended it
	EndLSO log.Offset
}

// Replica is a node's part of the protocol for one segment: a contiguous prefix
// behind one durable fence. It is not safe for concurrent use; it does no I/O.
// The shell stores what Admit lets in, in that order, reports what became durable,
// and writes the fence and the close when SealReady and CloseReady say so.
//
//	Admit ─▶ queued ─▶ (disk) ─▶ Durable ─▶ ack the writer
//	BeginSeal ─▶ (queue runs dry: Durable or Dropped) ─▶ SealReady ─▶ (disk) ─▶ FenceDurable ─▶ Sealed
//	BeginClose ─▶ (queue runs dry) ─▶ CloseReady ─▶ (disk) ─▶ CloseDurable
type Replica struct {
	first   log.Offset
	fence   log.Epoch
	sealing log.Epoch // what the fence has to become; 0: nothing to do
	queued  log.Offset
	durable log.Offset
	lso     log.Offset
	lac     log.Offset
	end     log.Offset
	endLSO  log.Offset
	closing bool
	closed  bool
	suspect bool
}

// NewReplica starts from what is durable.
func NewReplica(s ReplicaState) Replica {
	return Replica{
		first: s.First, fence: s.Fence, queued: s.Last, durable: s.Last, lso: s.LSO, lac: s.LAC,
		closed: s.Closed, end: s.End, endLSO: s.EndLSO, suspect: s.Suspect,
	}
}

// State is what a restart would have to find.
func (r *Replica) State() ReplicaState {
	return ReplicaState{
		First: r.first, Fence: r.fence, Last: r.durable, LSO: r.lso, LAC: r.lac,
		Closed: r.closed, End: r.end, EndLSO: r.endLSO, Suspect: r.suspect,
	}
}

// First is the segment's first offset.
func (r *Replica) First() log.Offset { return r.first }

// Fence is the durable fence: the only epoch that may append.
func (r *Replica) Fence() log.Epoch { return r.fence }

// Queued is the newest entry let in, durable or not.
func (r *Replica) Queued() log.Offset { return r.queued }

// Last is the newest durable entry, which is the cumulative acknowledgement.
func (r *Replica) Last() log.Offset {
	if fault.Is(fault.AckBeforeSync) {
		return r.queued
	}
	return r.durable
}

// LSO is the newest durable entry that ends a transaction.
func (r *Replica) LSO() log.Offset { return r.lso }

// LAC is the newest confirmed entry the node has heard of.
func (r *Replica) LAC() log.Offset { return r.lac }

// Closed reports the segment's end once the node has it durable.
func (r *Replica) Closed() (end, lso log.Offset, ok bool) { return r.end, r.endLSO, r.closed }

// Complete: closed, and all of it is here.
func (r *Replica) Complete() bool { return r.closed && !r.suspect && r.durable == r.end }

// Suspect says that damage may have taken entries.
func (r *Replica) Suspect() bool { return r.suspect }

// Visible is the newest entry that a reader may be shown.
func (r *Replica) Visible() log.Offset {
	if fault.Is(fault.BeyondLAC) || fault.Is(fault.StaleSuffix) && r.closed {
		return r.durable
	}
	if r.closed {
		return min(r.end, r.durable)
	}
	return min(r.lac, r.durable)
}

// Admit lets an entry of the segment's writer, or a recovery's copy, into the
// node's queue. fresh is false for an entry that is here already, which is not
// stored again: the same offset in the same segment is always the same entry.
// Errors: log.ErrFenced (the epoch is not the fence, or soon will not be),
// log.ErrClosed, log.ErrSuspect, log.ErrProtocol (a gap).
func (r *Replica) Admit(epoch log.Epoch, o log.Offset) (fresh bool, err error) {
	if (epoch != r.fence || r.sealing != 0) && !fault.Is(fault.LowEpochAccepted) {
		if epoch > r.fence && epoch >= r.sealing {
			return false, fmt.Errorf("append of epoch %d, attached is %d: %w", epoch, r.fence, log.ErrProtocol)
		}
		return false, fmt.Errorf("append of epoch %d, fence %d: %w", epoch, max(r.fence, r.sealing), log.ErrFenced)
	}
	if (r.closing || r.closed) && o > r.end {
		return false, fmt.Errorf("append of entry %d, the segment ends at %d: %w", o, r.end, log.ErrClosed)
	}
	return r.next(o)
}

// Fill lets in an entry that a closed segment is missing here: repair.
// log.ErrProtocol when the segment is not closed, or for a gap, or beyond the end.
func (r *Replica) Fill(o log.Offset) (fresh bool, err error) {
	if !r.closed || o > r.end {
		return false, fmt.Errorf("repair of entry %d, closed %t at %d: %w", o, r.closed, r.end, log.ErrProtocol)
	}
	return r.next(o)
}

func (r *Replica) next(o log.Offset) (bool, error) {
	if r.suspect {
		return false, fmt.Errorf("entry %d: %w", o, log.ErrSuspect)
	}
	if o < r.first || o > r.queued+1 && !fault.Is(fault.GapAccepted) {
		return false, fmt.Errorf("entry %d, the next one is %d: %w", o, r.queued+1, log.ErrProtocol)
	}
	if o <= r.queued {
		return fault.Is(fault.DuplicateStored), nil
	}
	r.queued = o
	return true, nil
}

// Durable reports that everything up to last is on disk; lso is the newest entry
// up to there that ends a transaction.
func (r *Replica) Durable(last, lso log.Offset) {
	if last < r.durable || last > r.queued {
		panic(fmt.Sprintf("quorum: durable %d, was %d, queued %d", last, r.durable, r.queued)) // a caller's bug, not an input
	}
	r.durable, r.lso = last, lso
}

// Dropped reports that what was queued and is not durable never will be.
func (r *Replica) Dropped() { r.queued = r.durable }

// Confirm takes a LAC from the writer. It never goes back.
func (r *Replica) Confirm(epoch log.Epoch, lac log.Offset) error {
	if epoch != r.fence {
		return fmt.Errorf("confirm by epoch %d, fence %d: %w", epoch, r.fence, log.ErrFenced)
	}
	r.lac = max(r.lac, lac)
	return nil
}

// Damaged marks the replica: what it holds below the damage may be read, its end
// proves nothing, and it stores no more until Renew.
func (r *Replica) Damaged() { r.suspect = true }

// Judged says anew whether damage may have taken entries, once the segment's end
// tells what has to be here. What is queued stays queued.
func (r *Replica) Judged(suspect bool) { r.suspect = suspect }

// Renew starts a closed replica over, empty, so that repair can Fill it. The
// shell has removed what was stored.
func (r *Replica) Renew() error {
	if !r.closed {
		return fmt.Errorf("renew of an open segment: %w", log.ErrProtocol)
	}
	r.suspect, r.queued, r.durable, r.lso = false, r.first-1, r.first-1, log.None
	return nil
}

// BeginSeal raises the fence to epoch, or joins a seal that does. From here on
// nothing of a lower epoch is let in. log.ErrFenced when the fence is higher. An
// Attach of a higher epoch is a seal, too.
func (r *Replica) BeginSeal(epoch log.Epoch) error {
	if high := max(r.fence, r.sealing); epoch < high {
		return fmt.Errorf("seal of epoch %d, fence %d: %w", epoch, high, log.ErrFenced)
	}
	if epoch > r.fence && (!fault.Is(fault.UnfencedSeal) || r.fence == 0) {
		r.sealing = epoch
	}
	return nil
}

// SealReady gives the epoch to make durable as the fence, once no entry of a
// lower epoch is on its way to the disk.
func (r *Replica) SealReady() (epoch log.Epoch, ok bool) {
	return r.sealing, r.sealing != 0 && (r.queued == r.durable || fault.Is(fault.SealNotAtomic))
}

// FenceDurable reports the fence on disk. A higher one asked for meanwhile is
// SealReady's next answer.
func (r *Replica) FenceDurable(epoch log.Epoch) {
	r.fence = max(r.fence, epoch)
	if r.sealing <= r.fence {
		r.sealing = 0
	}
}

// Sealed answers a seal. ok is false while the fence is not durable. Errors:
// log.ErrFenced when a higher epoch came, log.ErrSuspect: fenced, but the node
// can't say where its entries end.
func (r *Replica) Sealed(epoch log.Epoch) (s Sealed, ok bool, err error) {
	if high := max(r.fence, r.sealing); epoch < high {
		return Sealed{}, false, fmt.Errorf("seal of epoch %d, fence %d: %w", epoch, high, log.ErrFenced)
	}
	if epoch > r.fence && (!fault.Is(fault.UnfencedSeal) || r.fence == 0) {
		return Sealed{}, false, nil
	}
	if r.suspect && !fault.Is(fault.SuspectAnswers) {
		return Sealed{}, false, fmt.Errorf("sealed at epoch %d: %w", epoch, log.ErrSuspect)
	}
	return Sealed{Last: r.durable, LAC: r.lac, LSO: r.lso, Closed: r.closed, End: r.end, EndLSO: r.endLSO}, true, nil
}

// BeginClose takes the segment's end from the metadata. From here on nothing
// above it is appended; what a late append brings below it is welcome. Repeating it is no error; another end is log.ErrProtocol, and so is
// one below what readers were shown.
func (r *Replica) BeginClose(end, lso log.Offset) error {
	if (r.closed || r.closing) && end != r.end {
		return fmt.Errorf("close at %d, it is at %d already: %w", end, r.end, log.ErrProtocol)
	}
	if end < r.first-1 || end < min(r.lac, r.durable) {
		return fmt.Errorf("close at %d, first %d, confirmed %d: %w", end, r.first, r.lac, log.ErrProtocol)
	}
	if !r.closed {
		r.closing, r.end, r.endLSO = true, end, lso
	}
	return nil
}

// CloseReady says that the close can be made durable: entries above the end are
// cut off with it.
func (r *Replica) CloseReady() (end log.Offset, ok bool) {
	return r.end, r.closing && r.queued == r.durable
}

// CloseDurable reports the close on disk.
func (r *Replica) CloseDurable() {
	r.closing, r.closed = false, true
	if r.durable > r.end && !fault.Is(fault.StaleSuffix) {
		r.durable, r.queued, r.lso = r.end, r.end, r.endLSO
	}
}
