package sim

import (
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// ent is an entry. Its content bears the number of the source's transaction it
// stands for, so that what is skipped or doubled shows.
type ent struct {
	content uint64
	epoch   uint32 // it was admitted with
	lac     int32
	ends    bool
}

func (e ent) gtid() uint64 { return e.content >> 20 }

// segment is a descriptor that somebody proposed, and all that is true of it,
// which no machine can see.
type segment struct {
	idx       int32
	num       uint32
	gen       uint32
	epoch     uint32
	first     int32
	firstLSO  int32
	desc      quorum.Descriptor
	rule      rule
	protected bool
	nodes     []uint8
	incs      []uint16
	index     [nodesMax]int8 // of a node among the members, -1

	content  []ent    // the one truth about each entry, from first on
	durable  []int32  // newest entry that each member ever had on disk
	answered []uint32 // highest epoch that each member answered a seal of

	known   bool // to the metadata
	closed  bool
	partial bool
	gone    bool // empty, or trimmed
	lost    bool // it stands for offsets that a forced close passed over
	cut     bool // its newest entries are lost, behind left
	barren  bool // if so, and no transaction ends in the others
	left    int32
	force   bool // an operator gives its lost members up
	beside  bool // it ends before a takeover's gap, or is listed no more: a lost city's writer may go on behind end
	end     int32
	endLSO  int32
	ever    [nodesMax]uint16 // disk that once held all of it, by repair
	holders [nodesMax]uint16 // identity of the disk that holds all of it, by node; 0: none
}

// segmentOf registers a proposed descriptor.
func (w *world) segmentOf(d *quorum.Descriptor) *segment {
	s := &segment{
		idx: int32(len(w.segs)), num: d.Segment, gen: uint32(d.Generation), epoch: uint32(d.Epoch), first: int32(d.First), firstLSO: int32(d.FirstLSO),
		desc: *d, rule: ruleOf(d.Rule), protected: d.Protected,
	}
	for i := range s.index {
		s.index[i] = -1
	}
	for i, m := range d.Members {
		n := m.Node[1] - '0'
		s.nodes = append(s.nodes, n)
		s.incs = append(s.incs, incarnation(m.UUID))
		s.index[n] = int8(i)
		s.durable = append(s.durable, s.first-1)
		s.answered = append(s.answered, 0)
	}
	w.segs = append(w.segs, s)
	return s
}

// has says which members ever had the entry on disk, counted by city.
func (s *segment) has(w *world, o int32) (count [citiesMax]int) {
	for i, d := range s.durable {
		if d >= o {
			count[w.nodes[s.nodes[i]].city]++
		}
	}
	return count
}

// upto is the newest entry of a closed segment that is not lost.
func (s *segment) upto() int32 {
	if s.cut {
		return s.left
	}
	return s.end
}

// complete: all of the closed segment that is not lost is here.
func (r *replica) complete() bool {
	return r.m.Complete() || r.seg.cut && !r.m.Suspect() && int32(r.m.Last()) >= r.seg.left
}

// at is the truth about an entry; it panics for one that never was.
func (s *segment) at(o int32) *ent { return &s.content[o-s.first] }

func off(o int32) log.Offset { return log.Offset(o) }
