package segment

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/vfs"
)

// A replica's own file holds its entries up to some offset in compressed blocks.
// It is written once, under another name, synced, and renamed.
//
//	0      pointer, 96 bytes, zeros up to 4 KiB
//	4096   blocks: records (32 bytes and payload each), packed or plain
//	       index, twice: 56 bytes for each block
//	       head, twice: JSON
//	end-96 pointer again
//
// The pointer says where index and head lie, and their checksums; the index has
// those of the blocks. Each starts from a seed of node and salt, mixed with the
// offset in the file. The payloads keep the checksums of their writer.
const (
	archiveStart   = page
	pointerSize    = 96
	blockRowSize   = 56
	archivedRecord = 32

	archiveHeadMax  = 16 << 20
	archiveIndexMax = 64 << 20
	blockRawMax     = 64 << 20 // a block's records: BlockBytes at most, and one entry
)

var archiveMagic = [8]byte{'T', 'W', 'S', 'P', 'S', 'E', 'G', 'M'}

// pointer is the fixed part of a replica's own file.
type pointer struct {
	Node      [16]byte
	Salt      uint64
	IndexAt   int64
	IndexSize uint32 // of one copy
	IndexCRC  uint32
	HeadAt    int64
	HeadSize  uint32
	HeadCRC   uint32
	Size      int64 // of the file
}

func (p *pointer) encode() []byte {
	b := make([]byte, pointerSize)
	copy(b, archiveMagic[:])
	le.PutUint32(b[8:], version)
	copy(b[16:32], needs)
	copy(b[32:48], p.Node[:])
	le.PutUint64(b[48:], p.Salt)
	le.PutUint64(b[56:], uint64(p.IndexAt))
	le.PutUint32(b[64:], p.IndexSize)
	le.PutUint32(b[68:], p.IndexCRC)
	le.PutUint64(b[72:], uint64(p.HeadAt))
	le.PutUint32(b[80:], p.HeadSize)
	le.PutUint32(b[84:], p.HeadCRC)
	le.PutUint64(b[88:], uint64(p.Size))
	le.PutUint32(b[12:], crc32.Checksum(b[16:], castagnoli))
	return b
}

func decodePointer(b []byte) (pointer, error) {
	var p pointer
	if len(b) < pointerSize || !bytes.Equal(b[:8], archiveMagic[:]) {
		return p, fmt.Errorf("segment file: %w", errFormat)
	}
	if got, want := crc32.Checksum(b[16:pointerSize], castagnoli), le.Uint32(b[12:]); got != want {
		return p, fmt.Errorf("segment file crc %08x, stored %08x: %w", got, want, errFormat)
	}
	if err := checkVersion("segment file", le.Uint32(b[8:]), release(b[16:])); err != nil {
		return p, err
	}
	copy(p.Node[:], b[32:])
	p.Salt = le.Uint64(b[48:])
	p.IndexAt, p.IndexSize, p.IndexCRC = int64(le.Uint64(b[56:])), le.Uint32(b[64:]), le.Uint32(b[68:])
	p.HeadAt, p.HeadSize, p.HeadCRC = int64(le.Uint64(b[72:])), le.Uint32(b[80:]), le.Uint32(b[84:])
	p.Size = int64(le.Uint64(b[88:]))
	if p.IndexSize > archiveIndexMax || p.HeadSize > archiveHeadMax || p.IndexAt < archiveStart ||
		p.HeadAt != p.IndexAt+2*int64(p.IndexSize) || p.Size != p.HeadAt+2*int64(p.HeadSize)+pointerSize {
		return p, fmt.Errorf("segment file of %d bytes, index %d at %d: %w", p.Size, p.IndexSize, p.IndexAt, errFormat)
	}
	return p, nil
}

func (p *pointer) seed() uint32 {
	var b [24]byte
	copy(b[:], p.Node[:])
	le.PutUint64(b[16:], p.Salt)
	return crc32.Checksum(b[:], castagnoli)
}

// placed is a checksum over b in a file that may be longer than 4 GiB.
func placed(seed uint32, at int64, b []byte) uint32 {
	var a [8]byte
	le.PutUint64(a[:], uint64(at))
	return crc32.Update(crc32.Update(seed, castagnoli, a[:]), castagnoli, b)
}

// archiveHead says what a replica's own file holds.
type archiveHead struct {
	Descriptor quorum.Descriptor `json:"descriptor"`
	Fence      log.Epoch         `json:"fence"`
	Upto       log.Offset        `json:"upto"` // it covers the entries from the segment's first up to here
	LAC        log.Offset        `json:"lac"`
	LSO        log.Offset        `json:"lso"` // newest entry up to Upto that ends a transaction
	Closed     bool              `json:"closed,omitempty"`
	Last       log.Offset        `json:"last"` // of a closed segment; it may lie above Upto
	EndLSO     log.Offset        `json:"end_lso"`
	Compacted  bool              `json:"compacted,omitempty"`
	Kept       []log.Topic       `json:"kept,omitempty"`    // of a compacted one
	Missing    []Range           `json:"missing,omitempty"` // damaged when the file was written

	Entries int64  `json:"entries"`
	Bytes   int64  `json:"bytes"` // of the records, as in the journal
	Oldest  int64  `json:"oldest"`
	Newest  int64  `json:"newest"`
	Classes uint32 `json:"classes"`
}

func decodeHead(b []byte) (archiveHead, error) {
	var h archiveHead
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, fmt.Errorf("segment file head: %w: %w", err, errFormat)
	}
	first := h.Descriptor.First
	if first < 0 || h.Descriptor.Segment == 0 || h.Upto < first-1 || h.Closed && (h.Last < first-1 || h.Upto > h.Last) {
		return h, fmt.Errorf("segment file of %s, %d to %d: %w", ID{h.Descriptor.Stream, h.Descriptor.Segment}, first, h.Upto, errFormat)
	}
	at := first
	for _, m := range h.Missing {
		if m.First < at || m.Last < m.First || m.Last > h.Upto {
			return h, fmt.Errorf("segment file with %d to %d missing: %w", m.First, m.Last, errFormat)
		}
		at = m.Last + 1
	}
	return h, nil
}

// block is a row of the index.
type block struct {
	At          int64
	Stored, Raw uint32 // bytes, as they lie there and of the records
	First, Last log.Offset
	Count       uint32
	Classes     uint32     // of topics, a bit each
	Ends        log.Offset // newest entry in it that ends a transaction; None
	CRC         uint32     // of the stored bytes
	Codec       uint32
}

func encodeBlocks(blocks []block) []byte {
	b := make([]byte, 0, len(blocks)*blockRowSize)
	for _, x := range blocks {
		b = le.AppendUint64(b, uint64(x.At))
		b = le.AppendUint32(b, x.Stored)
		b = le.AppendUint32(b, x.Raw)
		b = le.AppendUint64(b, uint64(x.First))
		b = le.AppendUint64(b, uint64(x.Last))
		b = le.AppendUint32(b, x.Count)
		b = le.AppendUint32(b, x.Classes)
		b = le.AppendUint64(b, uint64(x.Ends))
		b = le.AppendUint32(b, x.CRC)
		b = le.AppendUint32(b, x.Codec)
	}
	return b
}

// decodeBlocks reads an index whose blocks end before limit.
func decodeBlocks(b []byte, limit int64) ([]block, error) {
	if len(b)%blockRowSize != 0 {
		return nil, fmt.Errorf("index of %d bytes: %w", len(b), errFormat)
	}
	out := make([]block, 0, len(b)/blockRowSize)
	at, o := int64(archiveStart), log.Offset(0)
	for ; len(b) > 0; b = b[blockRowSize:] {
		x := block{
			At: int64(le.Uint64(b)), Stored: le.Uint32(b[8:]), Raw: le.Uint32(b[12:]), First: log.Offset(le.Uint64(b[16:])),
			Last: log.Offset(le.Uint64(b[24:])), Count: le.Uint32(b[32:]), Classes: le.Uint32(b[36:]),
			Ends: log.Offset(le.Uint64(b[40:])), CRC: le.Uint32(b[48:]), Codec: le.Uint32(b[52:]),
		}
		if x.At != at || x.Stored == 0 || x.At > limit-int64(x.Stored) || x.Raw > blockRawMax || x.First < o || x.Last < x.First ||
			x.Count == 0 || x.Count > x.Raw/archivedRecord || x.Codec > codecLast || x.Codec == codecPlain && x.Raw != x.Stored {
			return nil, fmt.Errorf("index row %d, entries %d to %d: %w", len(out), x.First, x.Last, errFormat)
		}
		at, o = x.At+int64(x.Stored), x.Last+1
		out = append(out, x)
	}
	return out, nil
}

// decodeBlock takes the records of a block apart. Payloads stay parts of raw.
func decodeBlock(raw []byte, x *block, epoch log.Epoch, entries []Stored) ([]Stored, error) {
	o := x.First
	bad := func(what string) ([]Stored, error) {
		return entries, fmt.Errorf("block of entries %d to %d: %s at %d: %w", x.First, x.Last, what, o, errFormat)
	}
	for n := range x.Count {
		if len(raw) < archivedRecord {
			return bad("it is cut")
		}
		e := Stored{Checksum: le.Uint32(raw[16:]), Entry: log.Entry{
			Offset: log.Offset(le.Uint64(raw)), AppendedAt: microTime(int64(le.Uint64(raw[8:]))), Epoch: epoch,
			Topic: log.Topic(le.Uint16(raw[24:])), EndsTransaction: le.Uint16(raw[26:])&flagEnds != 0,
		}}
		size := int(le.Uint32(raw[20:]))
		if e.Offset < o || e.Offset > x.Last || n == 0 && e.Offset != x.First || size == 0 || size > len(raw)-archivedRecord {
			return bad("a record is out of place")
		}
		o = e.Offset
		e.Payload = raw[archivedRecord : archivedRecord+size : archivedRecord+size]
		if Checksum(e.Payload) != e.Checksum {
			return bad("the payload's checksum differs")
		}
		raw = raw[archivedRecord+size:]
		o++
		entries = append(entries, e)
	}
	if o != x.Last+1 || len(raw) > 0 {
		return bad("it ends")
	}
	return entries, nil
}

func appendArchived(b []byte, e *Stored) []byte {
	b = le.AppendUint64(b, uint64(e.Offset))
	b = le.AppendUint64(b, uint64(e.AppendedAt.UnixMicro()))
	b = le.AppendUint32(b, e.Checksum)
	b = le.AppendUint32(b, uint32(len(e.Payload)))
	b = le.AppendUint16(b, uint16(e.Topic))
	flags := uint16(0)
	if e.EndsTransaction {
		flags = flagEnds
	}
	b = le.AppendUint16(b, flags)
	b = le.AppendUint32(b, 0)
	return append(b, e.Payload...)
}

// archive is a replica's own file. Its head never changes; the rest is guarded by
// the store's lock.
type archive struct {
	path string
	ptr  pointer
	head archiveHead
	size int64

	handle vfs.File // nil: closed, nobody reads
	blocks []block  // the index, while handle is open
	refs   int
	used   uint64
	gone   bool // replaced or dropped: closed with its last reader
}

// readHead reads a file's pointer and head.
func readHead(f vfs.File) (pointer, archiveHead, error) {
	var b [pointerSize]byte
	var p pointer
	size, err := f.Size()
	if err != nil {
		return p, archiveHead{}, err
	}
	if size < archiveStart+pointerSize {
		return p, archiveHead{}, fmt.Errorf("segment file of %d bytes: %w", size, errFormat)
	}
	for _, at := range []int64{0, size - pointerSize} {
		if _, err = f.ReadAt(b[:], at); err != nil {
			return p, archiveHead{}, err
		}
		if p, err = decodePointer(b[:]); err == nil || !errors.Is(err, errFormat) {
			break
		}
	}
	if err == nil && p.Size != size {
		err = fmt.Errorf("segment file of %d bytes, it should have %d: %w", size, p.Size, errFormat)
	}
	if err != nil {
		return p, archiveHead{}, err
	}
	raw, err := readTwice(f, p.HeadAt, p.HeadSize, p.HeadCRC, p.seed())
	if err != nil {
		return p, archiveHead{}, err
	}
	h, err := decodeHead(raw)
	return p, h, err
}

// readTwice reads one of two equal copies of size bytes that lie at at.
func readTwice(f vfs.File, at int64, size, crc, seed uint32) ([]byte, error) {
	b := make([]byte, size)
	for i := range int64(2) {
		if _, err := f.ReadAt(b, at+i*int64(size)); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if placed(seed, at, b) == crc {
			return b, nil
		}
	}
	return nil, fmt.Errorf("segment file: both copies of %d bytes at %d are damaged: %w", size, at, errFormat)
}

// archiveWriter writes a replica's own file.
type archiveWriter struct {
	f      vfs.File
	path   string
	limit  int // bytes of a block
	packer *packer
	pace   func() // between blocks: lets appends have the disk; nil: no pause
	ptr    pointer
	seed   uint32
	head   archiveHead
	at     int64
	synced int64
	raw    []byte
	packed []byte
	row    block
	blocks []block
}

// syncStep bounds what the last sync of a large file has to write at once: the
// journal shares the disk.
const syncStep = 4 << 20

func newArchiveWriter(fsys vfs.FS, path string, node [16]byte, salt uint64, limit int, packer *packer) (*archiveWriter, error) {
	f, err := fsys.Create(path)
	if err != nil {
		return nil, err
	}
	w := &archiveWriter{f: f, path: path, limit: limit, packer: packer, ptr: pointer{Node: node, Salt: salt}, at: archiveStart}
	w.seed = w.ptr.seed()
	w.head.LSO = log.None
	return w, nil
}

// add appends an entry. Offsets ascend.
func (w *archiveWriter) add(e *Stored) error {
	if len(w.raw) > 0 && len(w.raw)+archivedRecord+len(e.Payload) > w.limit {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.row.Count == 0 {
		w.row = block{First: e.Offset, Ends: log.None}
	}
	w.row.Last = e.Offset
	w.row.Count++
	w.row.Classes |= 1 << topicClass(e.Topic)
	h := &w.head
	if e.EndsTransaction {
		w.row.Ends, h.LSO = e.Offset, e.Offset
	}
	t := e.AppendedAt.UnixMicro()
	if h.Entries == 0 {
		h.Oldest, h.Newest = t, t
	}
	h.Oldest, h.Newest = min(h.Oldest, t), max(h.Newest, t)
	h.Entries++
	h.Bytes += int64(recordSize(len(e.Payload)))
	h.Classes |= w.row.Classes
	w.raw = appendArchived(w.raw, e)
	return nil
}

// flush writes the block that is being filled.
func (w *archiveWriter) flush() error {
	if w.row.Count == 0 {
		return nil
	}
	x := w.row
	var b []byte
	b, w.packed, x.Codec = w.packer.pack(w.raw, w.packed)
	if len(w.raw) > math.MaxUint32/2 {
		return fmt.Errorf("block of %d bytes: %w", len(w.raw), log.ErrTooLarge)
	}
	x.At, x.Stored, x.Raw = w.at, uint32(len(b)), uint32(len(w.raw))
	x.CRC = placed(w.seed, w.at, b)
	if _, err := w.f.WriteAt(b, w.at); err != nil {
		return err
	}
	w.at += int64(len(b))
	w.blocks = append(w.blocks, x)
	w.row = block{}
	if cap(w.raw) > bufferKept {
		w.raw, w.packed = nil, nil
	}
	w.raw = w.raw[:0]
	if w.at-w.synced >= syncStep {
		w.synced = w.at
		if err := w.f.Sync(); err != nil {
			return err
		}
	}
	if w.pace != nil {
		w.pace()
	}
	return nil
}

// finish completes the file and makes its bytes durable.
func (w *archiveWriter) finish() (*archive, error) {
	w.pace = nil // the head was made, and should be durable soon
	if err := w.flush(); err != nil {
		return nil, err
	}
	index := encodeBlocks(w.blocks)
	head, err := json.Marshal(&w.head)
	if err != nil {
		return nil, err
	}
	if len(index) > archiveIndexMax || len(head) > archiveHeadMax {
		return nil, fmt.Errorf("segment file with an index of %d and a head of %d bytes: %w", len(index), len(head), log.ErrTooLarge)
	}
	p := &w.ptr
	p.IndexAt, p.IndexSize = w.at, uint32(len(index))
	p.IndexCRC = placed(w.seed, p.IndexAt, index)
	p.HeadAt, p.HeadSize = p.IndexAt+2*int64(len(index)), uint32(len(head))
	p.HeadCRC = placed(w.seed, p.HeadAt, head)
	p.Size = p.HeadAt + 2*int64(len(head)) + pointerSize
	ends := p.encode()
	if _, err := w.f.WriteAt(slices.Concat(index, index, head, head, ends), w.at); err != nil {
		return nil, err
	}
	first := make([]byte, archiveStart)
	copy(first, ends)
	if _, err := w.f.WriteAt(first, 0); err != nil {
		return nil, err
	}
	if err := w.f.Sync(); err != nil {
		return nil, err
	}
	return &archive{ptr: *p, head: w.head, size: p.Size, blocks: w.blocks, handle: w.f}, nil
}
