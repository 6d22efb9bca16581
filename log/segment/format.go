package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twinspan/twinspan/log"
)

// The layout of a journal file. DESIGN.md draws it; FORMAT of the numbers:
// little-endian, fixed widths, CRC-32C (Castagnoli).
const (
	page       = 4096     // groups start on pages, so that durable bytes are never written again
	dataStart  = 2 * page // two copies of the file header come first
	needsAt    = 96       // in the file header
	headerSize = 128      // bytes of the file header that mean something

	groupFixed  = 40 // group header before its tables
	touchSize   = 24 // one row of a group header's tables
	touchedMax  = 1024
	groupHeader = groupFixed + 2*touchedMax*touchSize // the longest group header

	recordHeader = 72
	align        = 8 // records start at multiples of it

	// FileBytesMax is what the index can address: 27 bits of 8-byte units.
	FileBytesMax = 1 << 30
)

var (
	fileMagic  = [8]byte{'T', 'W', 'S', 'P', 'J', 'R', 'N', 'L'}
	groupMagic = uint32(0x43475754) // "TWGC"
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// The version of everything in the directory, and the first release that reads it.
// Both stand where every later version will have them, so that a program can say
// which one is needed instead of it. The meta gets the newest version before
// anything else is written, so a program that is too old stops there. Version 3 has
// a codec of blocks that version 2 takes for damage (codecS2).
const (
	version   = 3
	oldest    = 2 // that is still read
	needs     = "0.3"
	needsSize = 16
)

// checkVersion refuses bytes of a version that is not read: written well, but not
// for us.
func checkVersion(what string, v uint32, release string) error {
	switch {
	case v < oldest:
		return fmt.Errorf("%s has format %d, this program reads %d to %d: read it with the release that wrote it: %w", what, v, oldest, version, log.ErrProtocol)
	case v > version:
		return fmt.Errorf("%s has format %d, this program reads %d to %d: use twinspan %s or later: %w", what, v, oldest, version, release, log.ErrProtocol)
	}
	return nil
}

// release is the text of a needs field.
func release(b []byte) string { return string(bytes.TrimRight(b[:needsSize], "\x00")) }

// errFormat says that bytes are not what this package wrote at that place. The
// callers decide whether that is a torn tail or damage.
var errFormat = errors.New("bad format")

// Checksum is the CRC-32C of a payload, as records store it and the wire
// carries it from the writer to the reader.
func Checksum(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// fileHeader is the head of a journal file. ID grows with every activation and
// is never used twice; Generation counts how often the file was recycled; Salt
// is random. Together with the node's identity they seed every checksum of the
// file, so that bytes of an earlier life never validate.
type fileHeader struct {
	ID         uint64
	Generation uint32
	Salt       uint64
	Node       [16]byte
	PrevID     uint64 // the file before this one; 0: none
	PrevEnd    int64  // where that file's durable groups end
	Size       int64  // bytes of the file
	CreatedAt  int64  // µs since 1970
}

// encode fills two pages with two copies of h.
func (h fileHeader) encode(b []byte) {
	clear(b[:dataStart])
	copy(b, fileMagic[:])
	le.PutUint32(b[8:], version)
	le.PutUint64(b[16:], h.ID)
	le.PutUint32(b[24:], h.Generation)
	le.PutUint64(b[32:], h.Salt)
	copy(b[40:], h.Node[:])
	le.PutUint64(b[56:], h.PrevID)
	le.PutUint64(b[64:], uint64(h.PrevEnd))
	le.PutUint64(b[72:], uint64(h.Size))
	le.PutUint64(b[80:], uint64(h.CreatedAt))
	copy(b[needsAt:needsAt+needsSize], needs)
	le.PutUint32(b[12:], crc32.Checksum(b[:headerSize], castagnoli))
	copy(b[page:], b[:page])
}

// decodeFileHeader reads one copy of a header.
func decodeFileHeader(b []byte) (fileHeader, error) {
	var h fileHeader
	if len(b) < headerSize {
		return h, fmt.Errorf("file header of %d bytes: %w", len(b), errFormat)
	}
	if !bytes.Equal(b[:8], fileMagic[:]) {
		return h, fmt.Errorf("file header magic %x: %w", b[:8], errFormat)
	}
	var image [headerSize]byte
	copy(image[:], b)
	le.PutUint32(image[12:], 0)
	if got, want := crc32.Checksum(image[:], castagnoli), le.Uint32(b[12:]); got != want {
		return h, fmt.Errorf("file header crc %08x, stored %08x: %w", got, want, errFormat)
	}
	if err := checkVersion("journal file", le.Uint32(b[8:]), release(b[needsAt:])); err != nil {
		return h, err
	}
	h.ID = le.Uint64(b[16:])
	h.Generation = le.Uint32(b[24:])
	h.Salt = le.Uint64(b[32:])
	copy(h.Node[:], b[40:56])
	h.PrevID = le.Uint64(b[56:])
	h.PrevEnd = int64(le.Uint64(b[64:]))
	h.Size = int64(le.Uint64(b[72:]))
	h.CreatedAt = int64(le.Uint64(b[80:]))
	return h, nil
}

// seed is the start value of the file's checksums.
func (h fileHeader) seed() uint32 {
	var b [36]byte
	copy(b[:], h.Node[:])
	le.PutUint64(b[16:], h.ID)
	le.PutUint32(b[24:], h.Generation)
	le.PutUint64(b[28:], h.Salt)
	return crc32.Checksum(b[:], castagnoli)
}

// seeded is the checksum of b as found at offset at of a file with that seed. A
// CRC is a one-to-one function of its start value, and a file has less than 2^32
// bytes, so the same bytes at two places of a file never have the same checksum.
func seeded(seed uint32, at int64, b []byte) uint32 {
	return crc32.Update(seed^uint32(at), castagnoli, b)
}

// kind tells records apart.
type kind uint16

const (
	kindEntry kind = 1
)

const flagEnds = 1 << 0 // the entry ends a transaction

// record is a record's header.
type record struct {
	Kind       kind
	Flags      uint16
	Length     uint32 // of the payload
	PayloadCRC uint32
	Replica    uint32
	Segment    uint32
	Offset     log.Offset
	Epoch      log.Epoch
	LAC        log.Offset // confirmed when the record was appended
	LSO        log.Offset
	Time       int64 // µs since 1970, the writer's clock
	Topic      log.Topic
}

// recordSize is what a payload takes in the journal.
func recordSize(payload int) int { return (recordHeader + payload + align - 1) &^ (align - 1) }

// encode fills the header but for its checksum, which depends on the place.
func (r *record) encode(b []byte) {
	_ = b[recordHeader-1]
	le.PutUint32(b[0:], 0)
	le.PutUint16(b[4:], uint16(r.Kind))
	le.PutUint16(b[6:], r.Flags)
	le.PutUint32(b[8:], r.Length)
	le.PutUint32(b[12:], r.PayloadCRC)
	le.PutUint32(b[16:], r.Replica)
	le.PutUint32(b[20:], r.Segment)
	le.PutUint64(b[24:], uint64(r.Offset))
	le.PutUint64(b[32:], uint64(r.Epoch))
	le.PutUint64(b[40:], uint64(r.LAC))
	le.PutUint64(b[48:], uint64(r.LSO))
	le.PutUint64(b[56:], uint64(r.Time))
	le.PutUint16(b[64:], uint16(r.Topic))
	le.PutUint16(b[66:], 0)
	le.PutUint32(b[68:], 0)
}

// stamp writes the header's checksum for the place the record will have.
func stamp(b []byte, seed uint32, at int64) {
	le.PutUint32(b, seeded(seed, at, b[4:recordHeader]))
}

// decodeRecord reads the record header found at offset at. It does not look at
// the payload.
func decodeRecord(b []byte, seed uint32, at int64) (record, error) {
	var r record
	if len(b) < recordHeader {
		return r, fmt.Errorf("record of %d bytes: %w", len(b), errFormat)
	}
	if got, want := seeded(seed, at, b[4:recordHeader]), le.Uint32(b); got != want {
		return r, fmt.Errorf("record crc %08x, stored %08x: %w", got, want, errFormat)
	}
	r.Kind = kind(le.Uint16(b[4:]))
	r.Flags = le.Uint16(b[6:])
	r.Length = le.Uint32(b[8:])
	r.PayloadCRC = le.Uint32(b[12:])
	r.Replica = le.Uint32(b[16:])
	r.Segment = le.Uint32(b[20:])
	r.Offset = log.Offset(le.Uint64(b[24:]))
	r.Epoch = log.Epoch(le.Uint64(b[32:]))
	r.LAC = log.Offset(le.Uint64(b[40:]))
	r.LSO = log.Offset(le.Uint64(b[48:]))
	r.Time = int64(le.Uint64(b[56:]))
	r.Topic = log.Topic(le.Uint16(b[64:]))
	if r.Kind != kindEntry || r.Length == 0 || r.Length > log.MaxPayload || r.Offset < 0 {
		return r, fmt.Errorf("record of kind %d, length %d, offset %d: %w", r.Kind, r.Length, r.Offset, errFormat)
	}
	return r, nil
}

// touch says which entries of a replica a group holds.
type touch struct {
	Replica uint32
	Segment uint32
	First   log.Offset
	Count   uint32
}

// groupHead opens a group: what one fdatasync made durable. Finding it valid
// proves that everything before it in the file is durable, because a group is
// written only after the one before was synced. It names what it holds and what
// the group before held, so that damage can be put down to its replicas. A group
// without records is a commit block: it only proves.
type groupHead struct {
	Sequence  uint64 // of all groups of the node; ascends in a file
	Length    int64  // bytes, whole pages
	Records   uint32
	PrevStart int64 // offset of the group before; 0: none in this file
	Touched   []touch
	Prev      []touch
}

func (g *groupHead) size() int { return groupFixed + touchSize*(len(g.Touched)+len(g.Prev)) }

// encode writes the header for its place into b, g.size() bytes.
func (g *groupHead) encode(b []byte, seed uint32, at int64) {
	n := g.size()
	le.PutUint32(b[4:], groupMagic)
	le.PutUint64(b[8:], g.Sequence)
	le.PutUint32(b[16:], uint32(g.Length))
	le.PutUint32(b[20:], g.Records)
	le.PutUint16(b[24:], uint16(len(g.Touched)))
	le.PutUint16(b[26:], uint16(len(g.Prev)))
	le.PutUint32(b[28:], 0)
	le.PutUint64(b[32:], uint64(g.PrevStart))
	p := b[groupFixed:n]
	for _, table := range [][]touch{g.Touched, g.Prev} {
		for _, t := range table {
			le.PutUint32(p, t.Replica)
			le.PutUint32(p[4:], t.Segment)
			le.PutUint64(p[8:], uint64(t.First))
			le.PutUint32(p[16:], t.Count)
			le.PutUint32(p[20:], 0)
			p = p[touchSize:]
		}
	}
	le.PutUint32(b, seeded(seed, at, b[4:n]))
}

// groupHeadSize tells how long the group header starting with b is, from its
// fixed part and before its checksum can be checked.
func groupHeadSize(b []byte) (int, error) {
	if len(b) < groupFixed || le.Uint32(b[4:]) != groupMagic {
		return 0, fmt.Errorf("no group header: %w", errFormat)
	}
	touched, prev := int(le.Uint16(b[24:])), int(le.Uint16(b[26:]))
	if touched > touchedMax || prev > touchedMax {
		return 0, fmt.Errorf("group header with tables of %d and %d: %w", touched, prev, errFormat)
	}
	return groupFixed + touchSize*(touched+prev), nil
}

// decodeGroupHead reads the group header found at offset at.
func decodeGroupHead(b []byte, seed uint32, at int64) (groupHead, error) {
	var g groupHead
	n, err := groupHeadSize(b)
	if err != nil {
		return g, err
	}
	if len(b) < n {
		return g, fmt.Errorf("group header cut at %d of %d bytes: %w", len(b), n, errFormat)
	}
	if got, want := seeded(seed, at, b[4:n]), le.Uint32(b); got != want {
		return g, fmt.Errorf("group header crc %08x, stored %08x: %w", got, want, errFormat)
	}
	g.Sequence = le.Uint64(b[8:])
	g.Length = int64(le.Uint32(b[16:]))
	g.Records = le.Uint32(b[20:])
	g.PrevStart = int64(le.Uint64(b[32:]))
	if g.Length < int64(n) || g.Length%page != 0 {
		return g, fmt.Errorf("group of %d bytes: %w", g.Length, errFormat)
	}
	touched := int(le.Uint16(b[24:]))
	for p, i := b[groupFixed:n], 0; len(p) > 0; p, i = p[touchSize:], i+1 {
		t := touch{le.Uint32(p), le.Uint32(p[4:]), log.Offset(le.Uint64(p[8:])), le.Uint32(p[16:])}
		if i < touched {
			g.Touched = append(g.Touched, t)
		} else {
			g.Prev = append(g.Prev, t)
		}
	}
	return g, nil
}
