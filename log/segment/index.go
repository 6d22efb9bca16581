package segment

import (
	"fmt"
	"hash/crc32"

	"github.com/twinspan/twinspan/log"
)

// The index of one entry is four bytes: where its record starts (27 bits, in
// units of 8 bytes; 0: the record is lost), the class of its topic (4 bits), and
// whether it ends a transaction (1 bit). A reader of one topic passes over the
// entries of the others without touching the disk.
const (
	endsBit    = 1
	classShift = 1
	classOther = 15 // topics from 15 on share a class; their records are looked at
	placeShift = 5
)

func topicClass(t log.Topic) uint32 { return min(uint32(t), classOther) }

func indexBits(t log.Topic, ends bool) uint32 {
	b := topicClass(t) << classShift
	if ends {
		b |= endsBit
	}
	return b
}

func indexEntry(place int64, bits uint32) uint32 { return uint32(place/align)<<placeShift | bits }
func indexPlace(e uint32) int64                  { return int64(e>>placeShift) * align }
func indexClass(e uint32) uint32                 { return e >> classShift & 15 }

// run is the entries of one replica in one file, without a gap. A lost entry has
// a zero in the index; a run without a file is lost as a whole.
type run struct {
	replica *Replica
	file    *file
	first   log.Offset
	count   uint32
	lost    uint32 // elements without a place
	bytes   int64  // records with their headers
	oldest  int64  // µs, the least and the greatest time of its entries
	newest  int64
	ends    log.Offset // the newest entry that ends a transaction; None
	lac     log.Offset // the greatest that a record told
	classes uint32     // of topics, a bit each
	// index has one element per entry; nil when it has to be loaded from the
	// file's saved index at indexAt. Elements never change once appended.
	index   []uint32
	indexAt int64
	indexed uint32 // crc of the saved elements
}

func (r *run) last() log.Offset { return r.first + log.Offset(r.count) - 1 }

// add appends the entry's index. Entries missing before it are marked lost.
func (r *run) add(off log.Offset, place int64, bits uint32, lac log.Offset, time int64, size int) {
	r.pad(off)
	if r.bytes == 0 {
		r.oldest, r.newest = time, time
	}
	r.index = append(r.index, indexEntry(place, bits))
	r.count++
	r.bytes += int64(size)
	r.oldest, r.newest = min(r.oldest, time), max(r.newest, time)
	r.lac = max(r.lac, lac)
	r.classes |= 1 << indexClass(bits)
	if bits&endsBit != 0 {
		r.ends = off
	}
}

// pad marks everything before off that the run does not have as lost.
func (r *run) pad(off log.Offset) {
	for r.last()+1 < off {
		r.index = append(r.index, 0)
		r.count++
		r.lost++
	}
}

func newRun(r *Replica, f *file, first log.Offset) *run {
	return &run{replica: r, file: f, first: first, ends: log.None, lac: log.None}
}

// lostRun stands for entries that no file holds.
func lostRun(r *Replica, first, last log.Offset) *run {
	n := uint32(last - first + 1)
	return &run{replica: r, first: first, count: n, lost: n, ends: log.None, lac: log.None}
}

// The saved index of a sealed file lies beside it. It is only a shortcut: when it
// is missing or bad, the journal file is read instead.
//
//	magic u32, crc u32 of the rest of the head, file id u64, salt u64, end i64,
//	runs u32, 0 u32, head length u32, then per run 80 bytes; after the head
//	each run's elements.
const (
	savedMagic = uint32(0x32495754) // "TWI2"
	savedFixed = 44
	savedRun   = 80
)

// encodeIndex is the saved index of f, whose runs are complete.
func encodeIndex(h fileHeader, end int64, runs []*run) []byte {
	head := savedFixed + savedRun*len(runs)
	total := head
	for _, r := range runs {
		total += 4 * len(r.index)
	}
	b := make([]byte, total)
	le.PutUint32(b, savedMagic)
	le.PutUint64(b[8:], h.ID)
	le.PutUint64(b[16:], h.Salt)
	le.PutUint64(b[24:], uint64(end))
	le.PutUint32(b[32:], uint32(len(runs)))
	le.PutUint32(b[40:], uint32(head))
	p, at := b[savedFixed:], head
	for _, r := range runs {
		elements := b[at : at+4*len(r.index)]
		for i, e := range r.index {
			le.PutUint32(elements[4*i:], e)
		}
		le.PutUint32(p, r.replica.num)
		le.PutUint32(p[4:], r.count)
		le.PutUint64(p[8:], uint64(r.first))
		le.PutUint64(p[16:], uint64(r.bytes))
		le.PutUint64(p[24:], uint64(r.oldest))
		le.PutUint64(p[32:], uint64(r.newest))
		le.PutUint64(p[40:], uint64(r.ends))
		le.PutUint64(p[48:], uint64(r.lac))
		le.PutUint64(p[56:], uint64(at))
		le.PutUint32(p[64:], crc32.Checksum(elements, castagnoli))
		le.PutUint32(p[68:], r.classes)
		le.PutUint32(p[72:], r.lost)
		p, at = p[savedRun:], at+len(elements)
	}
	le.PutUint32(b[4:], crc32.Checksum(b[8:head], castagnoli))
	return b
}

// savedIndex is a decoded head.
type savedIndex struct {
	id, salt uint64
	end      int64
	runs     []savedRunRow
}

type savedRunRow struct {
	replica, count, crc uint32
	classes, lost       uint32
	first, ends, lac    log.Offset
	bytes               int64
	oldest, newest      int64
	at                  int64
}

// savedHeadSize is the length of the head whose first bytes are b.
func savedHeadSize(b []byte) (int64, error) {
	if len(b) < savedFixed || le.Uint32(b) != savedMagic {
		return 0, fmt.Errorf("saved index: %w", errFormat)
	}
	n := int64(savedFixed) + savedRun*int64(le.Uint32(b[32:]))
	if n != int64(le.Uint32(b[40:])) || n > 256<<20 {
		return 0, fmt.Errorf("saved index head of %d bytes: %w", n, errFormat)
	}
	return n, nil
}

// decodeIndex reads the head of a saved index of total bytes.
func decodeIndex(b []byte, total int64) (savedIndex, error) {
	var x savedIndex
	n, err := savedHeadSize(b)
	if err != nil {
		return x, err
	}
	if int64(len(b)) < n {
		return x, fmt.Errorf("saved index cut at %d of %d bytes: %w", len(b), n, errFormat)
	}
	if got, want := crc32.Checksum(b[8:n], castagnoli), le.Uint32(b[4:]); got != want {
		return x, fmt.Errorf("saved index crc %08x, stored %08x: %w", got, want, errFormat)
	}
	x.id, x.salt, x.end = le.Uint64(b[8:]), le.Uint64(b[16:]), int64(le.Uint64(b[24:]))
	runs := int(le.Uint32(b[32:]))
	p := b[savedFixed:n]
	for range runs {
		r := savedRunRow{
			replica: le.Uint32(p), count: le.Uint32(p[4:]), first: log.Offset(le.Uint64(p[8:])),
			bytes: int64(le.Uint64(p[16:])), oldest: int64(le.Uint64(p[24:])), newest: int64(le.Uint64(p[32:])),
			ends: log.Offset(le.Uint64(p[40:])), lac: log.Offset(le.Uint64(p[48:])),
			at: int64(le.Uint64(p[56:])), crc: le.Uint32(p[64:]), classes: le.Uint32(p[68:]), lost: le.Uint32(p[72:]),
		}
		if r.count == 0 || r.first < 0 || r.at < n || r.at+4*int64(r.count) > total {
			return x, fmt.Errorf("saved index run of replica %d: %w", r.replica, errFormat)
		}
		x.runs = append(x.runs, r)
		p = p[savedRun:]
	}
	return x, nil
}

// decodeElements turns a run's saved elements back.
func decodeElements(b []byte, crc uint32) ([]uint32, error) {
	if got := crc32.Checksum(b, castagnoli); got != crc {
		return nil, fmt.Errorf("saved index elements crc %08x, stored %08x: %w", got, crc, errFormat)
	}
	out := make([]uint32, len(b)/4)
	for i := range out {
		out[i] = le.Uint32(b[4*i:])
	}
	return out, nil
}
