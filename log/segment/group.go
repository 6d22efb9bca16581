package segment

import (
	"slices"

	"github.com/twinspan/twinspan/log"
)

// group collects records while the group before it is being synced. Records are
// encoded where the append runs, behind room for the longest header, so that the
// whole group leaves in one write and an append keeps nothing of its caller's.
type group struct {
	buf      []byte // groupHeader bytes of room, then records
	slots    []slot
	touched  []touch
	replicas []*Replica // of touched, same indexes
}

// slot is where one record lies in a group, and what the index needs of it.
type slot struct {
	touch int32 // index in touched
	at    int32 // offset in buf
	size  int32 // of the record
	bits  uint32
	time  int64
	off   log.Offset
	lac   log.Offset
}

const bufferKept = 8 << 20 // a buffer grown beyond it is not kept for the next group

func newGroup(bytes int) *group {
	return &group{buf: make([]byte, groupHeader, groupHeader+bytes)}
}

func (g *group) empty() bool { return len(g.slots) == 0 }

// bytes is how much the group's records take.
func (g *group) bytes() int { return len(g.buf) - groupHeader }

func (g *group) reset() {
	if cap(g.buf) > bufferKept {
		g.buf = make([]byte, groupHeader)
	}
	g.buf = g.buf[:groupHeader]
	g.slots = g.slots[:0]
	g.touched = g.touched[:0]
	clear(g.replicas)
	g.replicas = g.replicas[:0]
}

// add copies one record in. The store's lock is held.
func (g *group) add(to *Replica, r *record, payload []byte) {
	if to.touchedIn != g {
		to.touchedIn, to.touched = g, int32(len(g.touched))
		g.touched = append(g.touched, touch{Replica: r.Replica, Segment: r.Segment, First: r.Offset})
		g.replicas = append(g.replicas, to)
	}
	t := to.touched
	g.touched[t].Count++
	at := len(g.buf)
	need := recordSize(len(payload))
	g.buf = slices.Grow(g.buf, need)[:at+need]
	b := g.buf[at:] // of an earlier group: all of it is written below
	r.encode(b)
	n := copy(b[recordHeader:], payload)
	clear(b[recordHeader+n:])
	g.slots = append(g.slots, slot{
		touch: t, at: int32(at), size: int32(need), bits: indexBits(r.Topic, r.Flags&flagEnds != 0),
		time: r.Time, off: r.Offset, lac: r.LAC,
	})
}

// room says whether a further record of that many bytes may join.
func (g *group) room(need, limit int) bool {
	return g.empty() || g.bytes()+need <= limit && len(g.touched) < touchedMax
}

// seal turns the group into the bytes to write at offset at: header, records,
// zeros up to the page. prev is the table of the group before in that file.
func (g *group) seal(seed uint32, at int64, sequence uint64, prevStart int64, prev []touch) []byte {
	head := groupHead{
		Sequence: sequence, Records: uint32(len(g.slots)), PrevStart: prevStart,
		Touched: g.touched, Prev: prev,
	}
	start := groupHeader - head.size()
	if pad := (len(g.buf) - start) % page; pad > 0 {
		g.buf = append(g.buf, zeros[:page-pad]...)
	}
	b := g.buf[start:]
	head.Length = int64(len(b))
	head.encode(b, seed, at)
	for i := range g.slots {
		s := &g.slots[i]
		stamp(g.buf[s.at:], seed, at+int64(int(s.at)-start))
	}
	return b
}

// place is the offset in the file of what lies at offset at of the buffer.
func (g *group) place(groupAt int64, headSize int, at int32) int64 {
	return groupAt + int64(int(at)-(groupHeader-headSize))
}

// sealedSize bounds what seal will return.
func (g *group) sealedSize(prev int) int64 {
	n := groupFixed + touchSize*(len(g.touched)+prev) + g.bytes()
	return int64((n + page - 1) / page * page)
}

var zeros [1 << 20]byte
