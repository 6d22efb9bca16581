package meta

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// Replica is what a surviving node holds of a segment.
type Replica struct {
	Node       string            `json:"node"`
	UUID       string            `json:"uuid"`
	Descriptor quorum.Descriptor `json:"descriptor"`
	Fence      log.Epoch         `json:"fence"`
	Last       log.Offset        `json:"last"`
	LAC        log.Offset        `json:"lac"` // the newest that it knows to be confirmed
	LSO        log.Offset        `json:"lso"` // newest one up to Last that ends a transaction; below First: none of its own
	// Closed: it was told the segment's end, which is the next two.
	Closed     bool       `json:"closed"`
	ClosedLast log.Offset `json:"closed_last"`
	ClosedLSO  log.Offset `json:"closed_lso"`
	// Suspect: damage may have taken entries, or it lacks some of a closed segment, so
	// it holds nothing for sure.
	Suspect bool `json:"suspect"`
	// Partial: it is suspect for one reason only: a closed segment's newest entries are
	// not there. All is well up to Last.
	Partial bool `json:"partial,omitempty"`
}

// takeoverStep is how far epochs and terms jump in a takeover, so that none is
// given out again that the lost majority gave out last.
const takeoverStep = 1 << 20

// merge brings what survivors' replicas prove into the view.
func (v *View) merge(replicas []Replica, voters []Peer) error {
	v.terms += takeoverStep
	byStream := map[string][]Replica{}
	for _, r := range replicas {
		if err := checkName("stream", r.Descriptor.Stream); err != nil {
			return err
		}
		if r.Descriptor.Segment == 0 || r.Descriptor.First < 0 || r.Descriptor.FirstLSO >= r.Descriptor.First {
			return fmt.Errorf("stream %q: node %q has segment %d at %d: %w", r.Descriptor.Stream, r.Node, r.Descriptor.Segment, r.Descriptor.First, log.ErrProtocol)
		}
		// Only survivors speak: what a lost node told of itself is not there any more.
		if slices.ContainsFunc(voters, func(p Peer) bool { return p.Name == r.Node }) {
			byStream[r.Descriptor.Stream] = append(byStream[r.Descriptor.Stream], r)
		}
	}
	names := v.streams.keys()
	for name := range byStream {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if _, known := v.streams.get(name); !known {
			if err := v.create(&Create{Stream: name, Policy: policyOf(byStream[name])}); err != nil {
				return fmt.Errorf("stream %q: %w", name, err)
			}
		}
		st, _ := v.streams.get(name)
		next := *st
		if err := next.merge(v, byStream[name]); err != nil {
			return fmt.Errorf("stream %q: %w", name, err)
		}
		v.streams.put(name, &next)
	}
	return nil
}

// policyOf a stream that the metadata does not know: the rule of its newest
// protected segment.
func policyOf(replicas []Replica) Policy {
	best := slices.MaxFunc(replicas, func(a, b Replica) int {
		if a.Descriptor.Protected != b.Descriptor.Protected {
			if a.Descriptor.Protected {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.Descriptor.Segment, b.Descriptor.Segment)
	})
	return Policy{Rule: best.Descriptor.Rule, Loss: LossBlock}
}

// merge rebuilds the end of the stream from where replicas know more, or better.
func (st *stream) merge(v *View, replicas []Replica) error {
	epoch := st.Epoch
	byNumber := map[uint32][]Replica{}
	for _, r := range replicas {
		epoch = max(epoch, r.Fence, r.Descriptor.Epoch)
		byNumber[r.Descriptor.Segment] = append(byNumber[r.Descriptor.Segment], r)
	}
	st.Epoch, st.Owner = epoch+takeoverStep, ""
	st.Version++
	numbers := slices.Sorted(maps.Keys(byNumber))

	// A segment, or an end of one, that a replica contradicts was never committed;
	// nor was anything behind it.
	for _, n := range numbers {
		p, known := st.live.find(n)
		if !known {
			continue
		}
		s := st.live.at(p)
		for _, r := range byNumber[n] {
			if !sameDescriptor(&s.Descriptor, &r.Descriptor) {
				st.cut(s.Segment)
				break
			}
			if s.Closed && (r.Closed && r.ClosedLast != s.Last || r.LAC > s.Last) {
				st.cut(s.Segment + 1)
				st.reopen()
				break
			}
		}
	}
	for _, n := range numbers {
		d := byNumber[n][0].Descriptor
		for _, r := range byNumber[n] {
			if !sameDescriptor(&d, &r.Descriptor) {
				return fmt.Errorf("segment %d: nodes %q and %q have different ones: %w", n, byNumber[n][0].Node, r.Node, log.ErrSuspect)
			}
		}
		if s := st.open(); s != nil && n == s.Segment || n < st.NextSegment && (s == nil || n < s.Segment) {
			continue // known, or retention took it
		}
		st.retract(d.First)
		if err := st.reach(v, d, byNumber); err != nil {
			return err
		}
		st.live.push(&Segment{Descriptor: d})
		st.NextSegment = n + 1
		if !d.Protected {
			st.widen(d.First, log.None, "found in a takeover", "", v)
		}
	}
	if s := st.open(); s != nil { // the newest may have been closed without the export's knowing
		for _, r := range byNumber[s.Segment] {
			if r.Closed {
				st.shut(v, r.ClosedLast, r.ClosedLSO, byNumber[s.Segment])
				break
			}
		}
	}
	st.short = st.allShort()
	st.settle(v)
	return nil
}

// cut takes away every live segment from that number on.
func (st *stream) cut(from uint32) {
	for {
		s := st.live.last(0)
		if s == nil || s.Segment < from {
			break
		}
		st.live.pop()
		st.NextSegment, st.NextFirst, st.NextLSO = s.Segment, s.First, s.FirstLSO
	}
	st.Gaps = slices.DeleteFunc(slices.Clone(st.Gaps), func(g Gap) bool { return g.From >= st.NextFirst })
	if n := len(st.Windows); n > 0 {
		st.Windows = slices.Clone(st.Windows)
		for ; n > 0 && st.Windows[n-1].From >= st.NextFirst; n-- {
			st.Windows = st.Windows[:n-1]
		}
		if n > 0 && (st.Windows[n-1].To == log.None || st.Windows[n-1].To >= st.NextFirst) {
			st.Windows[n-1].To = st.NextFirst - 1
		}
	}
}

// reopen makes the newest segment open again: its end was never committed.
func (st *stream) reopen() {
	s := st.live.last(0)
	if s == nil || !s.Closed {
		return
	}
	p, _ := st.live.find(s.Segment)
	st.live.replace(p, &Segment{Descriptor: s.Descriptor})
	st.NextFirst, st.NextLSO = s.First, s.FirstLSO
	st.Gaps = slices.DeleteFunc(slices.Clone(st.Gaps), func(g Gap) bool { return g.From >= s.First })
	if n := len(st.Windows); n > 0 && !s.Protected && st.Windows[n-1].To == s.Last {
		st.Windows = slices.Clone(st.Windows)
		st.Windows[n-1].To = log.None
	}
}

// retract takes back ends that a segment which starts at first contradicts.
func (st *stream) retract(first log.Offset) {
	for s := st.live.last(0); s != nil && (s.First > first || s.Closed && s.Last >= first); s = st.live.last(0) {
		if s.First < first {
			st.cut(s.Segment + 1)
			st.reopen()
			return
		}
		st.cut(s.Segment)
	}
}

// reach makes the stream end where d starts. Segments that no survivor has are a
// hole: listed, held by nobody. Whether a number that is missing was a segment
// with entries, or one that stayed empty, is known only where the entries before
// it are of the same writer, whose entries are the same in every segment.
func (st *stream) reach(v *View, d quorum.Descriptor, replicas map[uint32][]Replica) error {
	if s := st.live.last(0); s != nil && s.Closed && s.Last >= d.First {
		return fmt.Errorf("segment %d starts at %d, inside segment %d: %w", d.Segment, d.First, s.Segment, log.ErrSuspect)
	}
	if s := st.open(); s != nil {
		last, lso := d.First-1, d.FirstLSO
		if d.Segment > s.Segment+1 { // its own end is not known: only what is confirmed is certain to be in it
			last, lso = s.First-1, s.FirstLSO
			for _, r := range replicas[s.Segment] {
				if r.Closed {
					last, lso = r.ClosedLast, r.ClosedLSO
					break
				}
				if last = max(last, min(r.LAC, d.First-1)); d.Epoch == s.Epoch && !r.Suspect && r.Last >= d.First-1 {
					last = d.First - 1
				}
			}
			if last == d.First-1 {
				lso = d.FirstLSO
			}
		}
		st.shut(v, last, lso, replicas[s.Segment])
	}
	if d.First > st.NextFirst {
		if st.NextSegment >= d.Segment {
			return fmt.Errorf("segment %d starts at %d, the one before ends at %d: %w", d.Segment, d.First, st.NextFirst-1, log.ErrSuspect)
		}
		st.pass(v, d, d.First-1, d.FirstLSO, "lost in a takeover", "")
	}
	st.NextSegment, st.NextFirst, st.NextLSO = d.Segment, d.First, d.FirstLSO
	return nil
}

// shut closes the open segment as the survivors have it.
func (st *stream) shut(v *View, last, lso log.Offset, replicas []Replica) {
	s := st.open()
	if last < s.First {
		st.emptied, st.end = s.Segment, s.First-1
		st.live.pop()
		if !s.Protected {
			st.endWindow(s.First-1, v)
		}
		return
	}
	next := *s
	next.Closed, next.Last, next.LSO, next.ClosedAt = true, last, lso, v.now
	left := make([]Left, 0, len(replicas))
	for i := range replicas {
		if r := &replicas[i]; v.stores(r.Node, r.UUID) {
			left = append(left, Left{Node: r.Node, UUID: r.UUID, Last: r.Last, Damaged: r.Suspect})
		}
	}
	next.Holders = v.holding(left, last, false)
	p, _ := st.live.find(s.Segment)
	st.live.replace(p, &next)
	st.NextFirst, st.NextLSO = last+1, lso
	if !s.Protected {
		st.endWindow(last, v)
	} else if !satisfies(next.Holders, st.Policy.Rule) {
		st.widen(s.First, last, "closed in a takeover", "", v)
	}
}
