package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/log"
)

var (
	bucketLog  = []byte("log")  // big-endian index → record
	bucketVars = []byte("vars") // raft's term and vote
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const whatSet = "set" // the one kind of change that Raft does not bear to fail

// disk is Raft's log and its few variables in one bbolt file: every change is
// durable when the call returns. The first failed write ends it: what a file
// holds after that only a new start can tell. Only a write that found no room is
// taken back and may be tried again.
type disk struct {
	db *bolt.DB

	mu     sync.Mutex
	err    error
	failed chan struct{} // closed with err; owner: the disk
	mute   chan struct{} // closed when nothing that Raft says is heard any more; owner: Run
}

// openDisk fails when another process has the file.
func openDisk(dir string) (*disk, error) {
	path := filepath.Join(dir, "raft.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, OpenFile: openReserved,
	})
	if err != nil {
		if errors.Is(err, berrors.ErrTimeout) {
			return nil, fmt.Errorf("%s: another process has it: %w", path, err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	d := &disk{db: db, failed: make(chan struct{}), mute: make(chan struct{})}
	err = d.update("make", func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bucketLog, bucketVars} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// reserveBytes of the file are taken from the file system at once: entries must
// not fill the disk to where the metadata can't tell anybody.
const reserveBytes = 32 << 20

func openReserved(path string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	if flag&os.O_RDWR != 0 {
		// Where it is not possible, the file grows as it must.
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, reserveBytes)
	}
	return f, nil
}

func (d *disk) close() error {
	if err := d.db.Close(); err != nil {
		return fmt.Errorf("metadata: close: %w", err)
	}
	return nil
}

// fault is the error that ended the disk; nil: it works.
func (d *disk) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (d *disk) update(what string, f func(*bolt.Tx) error) error {
	if err := d.fault(); err != nil {
		return err
	}
	if err := d.db.Update(f); err != nil {
		err = fmt.Errorf("metadata: raft's log: %s: %w", what, err)
		if what != whatSet && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
			return fmt.Errorf("%w: %w", err, log.ErrFull)
		}
		d.mu.Lock()
		if d.err == nil {
			d.err = err
			close(d.failed)
		}
		d.mu.Unlock()
		return err
	}
	return nil
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// A record is a CRC-32C of the rest, then version, type, term, time, the length of
// the extensions, extensions, data.
const (
	recordVersion = 1
	recordFixed   = 4 + 1 + 1 + 8 + 8 + 4
)

func encodeRecord(l *raft.Log) []byte {
	b := make([]byte, 4, recordFixed+len(l.Extensions)+len(l.Data))
	b = append(b, recordVersion, byte(l.Type))
	b = binary.BigEndian.AppendUint64(b, l.Term)
	at := int64(0)
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	b = append(append(b, l.Extensions...), l.Data...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func decodeRecord(index uint64, b []byte, l *raft.Log) error {
	if len(b) < recordFixed || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return fmt.Errorf("metadata: raft's entry %d: %w", index, log.ErrSuspect)
	}
	extensions := int64(binary.BigEndian.Uint32(b[22:]))
	if b[4] != recordVersion || extensions > int64(len(b)-recordFixed) {
		return fmt.Errorf("metadata: raft's entry %d of version %d: %w", index, b[4], log.ErrProtocol)
	}
	*l = raft.Log{Index: index, Type: raft.LogType(b[5]), Term: binary.BigEndian.Uint64(b[6:])}
	if at := int64(binary.BigEndian.Uint64(b[14:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	rest := append([]byte(nil), b[recordFixed:]...) // bbolt's memory ends with the transaction
	l.Extensions, l.Data = rest[:extensions:extensions], rest[extensions:]
	return nil
}

// FirstIndex is part of raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) {
	return d.edge(func(c *bolt.Cursor) []byte { k, _ := c.First(); return k })
}

// LastIndex is part of raft.LogStore.
func (d *disk) LastIndex() (uint64, error) {
	return d.edge(func(c *bolt.Cursor) []byte { k, _ := c.Last(); return k })
}

func (d *disk) edge(pick func(*bolt.Cursor) []byte) (index uint64, err error) {
	err = d.db.View(func(tx *bolt.Tx) error {
		if k := pick(tx.Bucket(bucketLog).Cursor()); k != nil {
			index = binary.BigEndian.Uint64(k)
		}
		return nil
	})
	return index, err
}

// GetLog is part of raft.LogStore.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	return d.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog).Get(key(index))
		if b == nil {
			return raft.ErrLogNotFound
		}
		return decodeRecord(index, b, l)
	})
}

// StoreLog is part of raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// StoreLogs is part of raft.LogStore.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	return d.update("store", func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.9 // keys only grow
		for _, l := range logs {
			if err := b.Put(key(l.Index), encodeRecord(l)); err != nil {
				return fmt.Errorf("entry %d: %w", l.Index, err)
			}
		}
		return nil
	})
}

// DeleteRange is part of raft.LogStore.
func (d *disk) DeleteRange(from, to uint64) error {
	return d.update("delete", func(tx *bolt.Tx) error {
		var keys [][]byte // to delete under a cursor would move it
		b := tx.Bucket(bucketLog)
		c := b.Cursor()
		for k, _ := c.Seek(key(from)); k != nil && binary.BigEndian.Uint64(k) <= to; k, _ = c.Next() {
			keys = append(keys, slices.Clone(k))
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set is part of raft.StableStore. Raft panics when it can't write its term. So a
// write that fails ends the disk and returns when this node's Raft is cut off from
// all others: what it believes to have promised then, nobody hears.
func (d *disk) Set(k, v []byte) error {
	err := d.update(whatSet, func(tx *bolt.Tx) error { return tx.Bucket(bucketVars).Put(k, v) })
	if err != nil {
		<-d.mute
	}
	return nil
}

// store is Set for who can bear an error.
func (d *disk) store(k []byte, v uint64) error {
	return d.update(whatSet, func(tx *bolt.Tx) error { return tx.Bucket(bucketVars).Put(k, key(v)) })
}

// unbegin takes back a first configuration that was cut short. Raft stores term 1
// and then the entry with the configuration; a directory with the one and not the
// other would count as a cluster's for ever, wait to be let in by itself, and keep the
// others from forming theirs. Nobody campaigns for term 1, so a node with nothing else
// has promised nothing.
func (d *disk) unbegin(snaps raft.SnapshotStore) error {
	list, err := snaps.List()
	if err != nil || len(list) > 0 {
		return err
	}
	half := func(tx *bolt.Tx) bool {
		k, _ := tx.Bucket(bucketLog).Cursor().First()
		vars := tx.Bucket(bucketVars)
		return k == nil && bytes.Equal(vars.Get(keyCurrentTerm), key(1)) && vars.Get(keyLastVoteTerm) == nil
	}
	is := false
	if err := d.db.View(func(tx *bolt.Tx) error { is = half(tx); return nil }); err != nil || !is {
		return err
	}
	return d.update("take back the first term", func(tx *bolt.Tx) error {
		if !half(tx) {
			return nil
		}
		return tx.Bucket(bucketVars).Delete(keyCurrentTerm)
	})
}

// Get is part of raft.StableStore.
func (d *disk) Get(k []byte) (v []byte, err error) {
	err = d.db.View(func(tx *bolt.Tx) error {
		v = append([]byte{}, tx.Bucket(bucketVars).Get(k)...)
		return nil
	})
	return v, err
}

// SetUint64 is part of raft.StableStore.
func (d *disk) SetUint64(k []byte, v uint64) error { return d.Set(k, key(v)) }

// GetUint64 is part of raft.StableStore.
func (d *disk) GetUint64(k []byte) (uint64, error) {
	v, err := d.Get(k)
	if err != nil || len(v) == 0 {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("metadata: raft's %s of %d bytes: %w", k, len(v), log.ErrSuspect)
	}
	return binary.BigEndian.Uint64(v), nil
}
