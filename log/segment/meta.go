package segment

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/vfs"
)

// meta is what the node must remember apart from entries: a head, and a line for
// each replica that is not wholly in its own file. It is small and is written as
// a whole.
type meta struct {
	Version    uint64      `json:"version"` // of the content; grows with every write
	Node       string      `json:"node"`
	UUID       string      `json:"uuid"` // hex, 16 bytes, drawn when the directory was made
	Generation uint64      `json:"generation"`
	Newest     uint64      `json:"newest_file"`
	Files      []metaFile  `json:"files"` // sealed files that are still needed
	NextID     uint32      `json:"next_replica"`
	Shelves    []metaShelf `json:"shelves,omitempty"`
	Floors     []metaFloor `json:"floors,omitempty"`
	Raw        int64       `json:"raw"` // bytes of the records in all own files

	lines []metaLine // as read
}

type metaFile struct {
	ID  uint64 `json:"id"`
	End int64  `json:"end"` // where its durable groups end
}

// metaShelf names the replicas of a stream that are wholly in their own files:
// so a file that vanished is missed.
type metaShelf struct {
	Stream   string      `json:"stream"`
	Segments [][2]uint32 `json:"segments"` // ranges, both ends included
}

// metaFloor is a floor.
type metaFloor struct {
	Stream  string    `json:"stream"`
	Segment uint32    `json:"segment"`
	Epoch   log.Epoch `json:"epoch"`
}

// metaReplica is a replica's line.
type metaReplica struct {
	ID     uint32     `json:"id"` // in the journal
	Fence  log.Epoch  `json:"fence"`
	Held   log.Offset `json:"held"` // durable when this was written; the journal may hold more, never less
	LAC    log.Offset `json:"lac"`  // the newest that was known then
	Closed bool       `json:"closed,omitempty"`
	Last   log.Offset `json:"last,omitempty"` // of a closed one
	LSO    log.Offset `json:"lso,omitempty"`
	Filed  log.Offset `json:"filed"`           // its own file covers what comes up to here, at least; below the first: it has none
	Doubt  bool       `json:"doubt,omitempty"` // damage may have taken entries after the last one found
}

// metaLine is a line as it is read.
type metaLine struct {
	metaReplica
	Descriptor quorum.Descriptor `json:"descriptor"`
}

// metaStore keeps two copies of the meta in two files that are written in place,
// one after the other, each synced. A write is done when both are: a crash in
// between leaves one whole copy, and one damaged copy later never takes an
// acknowledged change (an epoch above all) with it.
type metaStore struct {
	files [2]vfs.File
	good  [2]bool
	sizes [2]int64
}

const (
	metaMagic    = "twinspan-log-meta "
	metaHead     = 64       // bytes of the head line, with its newline
	metaQuantum  = 64 << 10 // files grow in such steps, so that a write changes no metadata
	metaBytesMax = 256 << 20
)

var metaNames = [2]string{"meta.a", "meta.b"}

// errNoMeta says that the directory has no meta files at all.
var errNoMeta = errors.New("no meta file")

// openMeta reads the newer good copy, and makes sure that it is on disk.
func openMeta(fsys vfs.FS, dir string) (*metaStore, *meta, error) {
	ms := &metaStore{}
	var best *meta
	var failures []error
	var versions [2]uint64
	missing := 0
	for i, name := range metaNames {
		f, err := fsys.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			return nil, nil, errors.Join(err, ms.close())
		}
		ms.files[i] = f
		size, err := f.Size()
		if err != nil {
			return nil, nil, errors.Join(err, ms.close())
		}
		ms.sizes[i] = size
		b := make([]byte, min(size, metaBytesMax))
		if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, nil, errors.Join(err, ms.close())
		}
		m, err := decodeMeta(b)
		if err != nil {
			if errors.Is(err, log.ErrProtocol) {
				return nil, nil, errors.Join(err, ms.close())
			}
			failures = append(failures, fmt.Errorf("%s: %w", name, err))
			continue
		}
		versions[i], ms.good[i] = m.Version, true
		if best == nil || m.Version > best.Version {
			best = m
		}
	}
	// What this process does rests on the newer copy. So the one that is behind is as
	// bad as none, and gets written first; and the newer one may have been written
	// by a life that ended before it was synced.
	for i := range ms.good {
		ms.good[i] = ms.good[i] && versions[i] == best.Version
		if ms.good[i] {
			if err := ms.files[i].Sync(); err != nil {
				return nil, nil, errors.Join(fmt.Errorf("%s: %w", metaNames[i], err), ms.close())
			}
		}
	}
	if missing == len(metaNames) {
		return nil, nil, errNoMeta
	}
	if best == nil {
		return nil, nil, errors.Join(fmt.Errorf("no readable copy of the meta in %s: %w", dir, log.ErrSuspect),
			errors.Join(failures...), ms.close())
	}
	return ms, best, nil
}

// write makes an encoded meta durable in both copies. The copy that is not the only good one
// goes first. ENOSPC leaves a good copy and may be tried again; any other error
// is for good.
func (ms *metaStore) write(fsys vfs.FS, dir string, b []byte) error {
	order := [2]int{0, 1}
	if !ms.good[1] && ms.good[0] {
		order = [2]int{1, 0}
	}
	for _, i := range order {
		if err := ms.writeCopy(fsys, dir, i, b); err != nil {
			return fmt.Errorf("%s: %w", metaNames[i], err)
		}
	}
	return nil
}

func (ms *metaStore) writeCopy(fsys vfs.FS, dir string, i int, b []byte) error {
	if ms.files[i] == nil {
		name := filepath.Join(dir, metaNames[i])
		f, err := fsys.Create(name)
		if err != nil {
			return err
		}
		ms.files[i] = f
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	ms.good[i] = false
	if int64(len(b)) > ms.sizes[i] {
		grown := (int64(len(b)) + metaQuantum - 1) / metaQuantum * metaQuantum
		b = append(b, make([]byte, grown-int64(len(b)))...)
	}
	if _, err := ms.files[i].WriteAt(b, 0); err != nil {
		return err
	}
	if err := ms.files[i].Sync(); err != nil {
		return err
	}
	ms.sizes[i] = max(ms.sizes[i], int64(len(b)))
	ms.good[i] = true
	return nil
}

func (ms *metaStore) close() error {
	var errs []error
	for _, f := range ms.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// encodeMeta is a first line of 64 bytes (magic, format, release, crc, length), the
// head as a line of JSON, and the replicas' lines.
func encodeMeta(m *meta, lines [][]byte) ([]byte, error) {
	head, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode meta: %w", err)
	}
	size := metaHead + len(head) + 1
	for _, l := range lines {
		size += len(l)
	}
	b := make([]byte, metaHead, size+metaQuantum)
	b = append(append(b, head...), '\n')
	for _, l := range lines {
		b = append(b, l...)
	}
	body := b[metaHead:]
	first := fmt.Sprintf("%s%d %s %08x %d", metaMagic, version, needs, crc32.Checksum(body, castagnoli), len(body))
	n := copy(b[:metaHead], first)
	for ; n < metaHead-1; n++ {
		b[n] = ' '
	}
	b[n] = '\n'
	return b, nil
}

// encodeLine is a replica's line; descriptor is JSON.
func (m *metaReplica) encodeLine(descriptor []byte) []byte {
	b := fmt.Appendf(nil, `{"id":%d,"fence":%d,"held":%d,"lac":%d,"filed":%d`, m.ID, m.Fence, m.Held, m.LAC, m.Filed)
	if m.Closed {
		b = fmt.Appendf(b, `,"closed":true,"last":%d,"lso":%d`, m.Last, m.LSO)
	}
	if m.Doubt {
		b = append(b, `,"doubt":true`...)
	}
	b = append(append(b, `,"descriptor":`...), descriptor...)
	return append(b, "}\n"...)
}

func decodeMeta(b []byte) (*meta, error) {
	if len(b) < metaHead || !bytes.HasPrefix(b, []byte(metaMagic)) {
		return nil, fmt.Errorf("meta head: %w", errFormat)
	}
	fields := bytes.Fields(b[len(metaMagic):metaHead])
	if len(fields) < 3 {
		return nil, fmt.Errorf("meta head: %w", errFormat)
	}
	format, err := strconv.ParseUint(string(fields[0]), 10, 31)
	if err != nil {
		return nil, fmt.Errorf("meta format %q: %w", fields[0], errFormat)
	}
	if err := checkVersion("the log directory", uint32(format), string(fields[1])); err != nil {
		return nil, err
	}
	if len(fields) != 4 {
		return nil, fmt.Errorf("meta head: %w", errFormat)
	}
	crc, err := strconv.ParseUint(string(fields[2]), 16, 32)
	if err != nil {
		return nil, fmt.Errorf("meta crc %q: %w", fields[2], errFormat)
	}
	n, err := strconv.ParseUint(string(fields[3]), 10, 31)
	if err != nil || int(n) > len(b)-metaHead {
		return nil, fmt.Errorf("meta length %q of %d: %w", fields[3], len(b), errFormat)
	}
	body := b[metaHead : metaHead+int(n)]
	if got := crc32.Checksum(body, castagnoli); got != uint32(crc) {
		return nil, fmt.Errorf("meta crc %08x, stored %08x: %w", got, crc, errFormat)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	m := &meta{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("meta body: %w: %w", err, errFormat)
	}
	if id, err := hex.DecodeString(m.UUID); err != nil || len(id) != 16 {
		return nil, fmt.Errorf("meta uuid %q: %w", m.UUID, errFormat)
	}
	for d.More() {
		var l metaLine
		if err := d.Decode(&l); err != nil {
			return nil, fmt.Errorf("meta line %d: %w: %w", len(m.lines)+1, err, errFormat)
		}
		if l.ID == 0 || l.ID > m.NextID || l.Descriptor.Segment == 0 || l.Descriptor.First < 0 || l.Held < l.Descriptor.First-1 ||
			l.Closed && l.Last < l.Descriptor.First-1 {
			return nil, fmt.Errorf("meta line %d: replica %d of %s: %w", len(m.lines)+1, l.ID, ID{l.Descriptor.Stream, l.Descriptor.Segment}, errFormat)
		}
		m.lines = append(m.lines, l)
	}
	return m, nil
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
