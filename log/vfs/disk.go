package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Sector is the unit in which the model loses, keeps or garbles bytes.
const Sector = 512

// OpKind names an operation on a Disk.
type OpKind string

// The operations that change a Disk.
const (
	OpMkdir    OpKind = "mkdir"
	OpCreate   OpKind = "create"
	OpWrite    OpKind = "write"
	OpSync     OpKind = "sync"
	OpTruncate OpKind = "truncate"
	OpRename   OpKind = "rename"
	OpRemove   OpKind = "remove"
	OpSyncDir  OpKind = "syncdir"
)

// Op is one operation about to run. Seq counts them from 1.
type Op struct {
	Seq   int64
	Kind  OpKind
	Name  string
	Bytes int
}

// Fault is what a hook wants to happen to an operation. The zero Fault lets it
// run. Err is returned to the caller; Done says that the operation took effect
// nevertheless ("persisted but reported failed"). A sync that fails without
// effect drops its bytes as Linux does: they stay readable, marked clean, and
// no later sync writes them.
type Fault struct {
	Err  error
	Done bool
}

// Disk is a disk in memory that remembers what was synced. It is safe for
// concurrent use. Image gives the disk as a power cut could leave it.
type Disk struct {
	mu       sync.Mutex
	names    map[string]*inode // what a running process sees
	durable  map[string]*inode // what a SyncDir secured
	pending  []change          // of names, in order
	dirs     map[string]bool   // made with MkdirAll, which is durable at once
	locks    map[string]bool
	capacity int64 // bytes; 0: no limit
	seq      int64
	hook     func(Op) Fault
	after    func(Op)
}

// change of a name that waits for the SyncDir of its directory.
type change struct {
	dir   string
	apply func(map[string]*inode)
}

type inode struct {
	current []byte
	synced  []byte
	dirty   map[int]struct{} // sectors whose current bytes are not synced
}

// NewDisk is an empty disk of unlimited size.
func NewDisk() *Disk {
	return &Disk{names: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{}, locks: map[string]bool{}}
}

// SetHook makes h decide the fate of each operation. h runs with no lock held
// and may call Image.
func (d *Disk) SetHook(h func(Op) Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = h
}

// SetAfter makes h see each operation once it took effect.
func (d *Disk) SetAfter(h func(Op)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after = h
}

// SetCapacity bounds the bytes of all files; writes beyond it fail with ENOSPC.
func (d *Disk) SetCapacity(bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = bytes
}

// Used is the bytes of all files.
func (d *Disk) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used()
}

func (d *Disk) used() int64 {
	var n int64
	for _, f := range d.names {
		n += int64(len(f.current))
	}
	return n
}

// Restart is the same disk for the next process of the same boot: the page
// cache survived, the locks did not, faults are off.
func (d *Disk) Restart() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := map[*inode]*inode{}
	copyOf := func(f *inode) *inode {
		if c, ok := seen[f]; ok {
			return c
		}
		c := &inode{current: slices.Clone(f.current), synced: slices.Clone(f.synced), dirty: maps.Clone(f.dirty)}
		seen[f] = c
		return c
	}
	out := NewDisk()
	out.dirs = maps.Clone(d.dirs)
	for n, f := range d.names {
		out.names[n] = copyOf(f)
	}
	for n := range d.names { // names are treated as durable: the kernel lives on
		out.durable[n] = out.names[n]
	}
	return out
}

// Image is the disk as a power cut at this moment could leave it: of the bytes
// not synced each sector is kept, lost or garbage, and of the names changed
// since the last SyncDir of their directory a prefix survived.
func (d *Disk) Image(r *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.durable)
	kept := map[string]int{} // how many changes of a directory survive
	for _, c := range d.pending {
		kept[c.dir]++
	}
	for _, dir := range slices.Sorted(maps.Keys(kept)) {
		kept[dir] = r.IntN(kept[dir] + 1)
	}
	for _, c := range d.pending {
		if kept[c.dir] > 0 {
			kept[c.dir]--
			c.apply(names)
		}
	}
	mood := r.IntN(4) // 0: all lost, 1: all kept, else a mixture
	seen := map[*inode]*inode{}
	out := NewDisk()
	out.dirs = maps.Clone(d.dirs)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		f := names[n]
		c, ok := seen[f]
		if !ok {
			c = f.image(r, mood)
			seen[f] = c
		}
		out.names[n], out.durable[n] = c, c
	}
	return out
}

func (f *inode) image(r *rand.Rand, mood int) *inode {
	size := len(f.synced)
	if mood == 1 || mood > 1 && r.IntN(2) == 0 {
		size = len(f.current)
	}
	b := make([]byte, size)
	copy(b, f.synced)
	for _, s := range slices.Sorted(maps.Keys(f.dirty)) {
		lo := s * Sector
		if lo >= size {
			continue
		}
		hi := min(lo+Sector, size)
		switch choice := r.IntN(8); {
		case mood == 0:
		case mood == 1 || choice < 4:
			if lo < len(f.current) {
				copy(b[lo:hi], f.current[lo:])
			}
		case choice == 4:
			for i := lo; i < hi; i++ {
				b[i] = byte(r.Uint32())
			}
		}
	}
	return &inode{current: b, synced: slices.Clone(b), dirty: map[int]struct{}{}}
}

// Flip inverts one bit of a file, as rot does: in the synced bytes too.
func (d *Disk) Flip(name string, offset int64, bit uint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[name]
	if f == nil || offset >= int64(len(f.current)) {
		return fmt.Errorf("flip %s at %d: %w", name, offset, fs.ErrNotExist)
	}
	f.current[offset] ^= 1 << (bit % 8)
	if offset < int64(len(f.synced)) {
		f.synced[offset] ^= 1 << (bit % 8)
	}
	return nil
}

// Bytes is a copy of a file's current content, nil when there is none.
func (d *Disk) Bytes(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.names[name]; f != nil {
		return slices.Clone(f.current)
	}
	return nil
}

// do runs one operation under the hook. apply runs with the lock held.
func (d *Disk) do(kind OpKind, name string, n int, apply func() error, failed func()) error {
	d.mu.Lock()
	d.seq++
	op := Op{Seq: d.seq, Kind: kind, Name: name, Bytes: n}
	hook, after := d.hook, d.after
	d.mu.Unlock()
	var fault Fault
	if hook != nil {
		fault = hook(op)
	}
	if fault.Err != nil && !fault.Done {
		if failed != nil {
			d.mu.Lock()
			failed()
			d.mu.Unlock()
		}
		return fmt.Errorf("%s %s: %w", kind, name, fault.Err)
	}
	d.mu.Lock()
	err := apply()
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	if after != nil {
		after(op)
	}
	if fault.Err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, fault.Err)
	}
	return nil
}

// MkdirAll makes dir and its parents, durably.
func (d *Disk) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	d.mu.Lock()
	there := d.dirs[dir]
	d.mu.Unlock()
	if there {
		return nil
	}
	return d.do(OpMkdir, dir, 0, func() error {
		for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
			d.dirs[dir] = true
		}
		return nil
	}, nil)
}

// Create makes an empty file.
func (d *Disk) Create(name string) (File, error) {
	f := &inode{dirty: map[int]struct{}{}}
	err := d.do(OpCreate, name, 0, func() error {
		if d.names[name] != nil {
			return fs.ErrExist
		}
		d.change(name, func(m map[string]*inode) { m[name] = f })
		return nil
	}, nil)
	if err != nil {
		return nil, err
	}
	return &diskFile{d: d, f: f, name: name}, nil
}

// change applies a change of a name now and remembers it for SyncDir.
func (d *Disk) change(name string, apply func(map[string]*inode)) {
	apply(d.names)
	d.pending = append(d.pending, change{filepath.Dir(name), apply})
}

// Open opens an existing file.
func (d *Disk) Open(name string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[name]
	if f == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &diskFile{d: d, f: f, name: name}, nil
}

// Rename replaces newName, which is in the same directory.
func (d *Disk) Rename(oldName, newName string) error {
	return d.do(OpRename, oldName, 0, func() error {
		f := d.names[oldName]
		if f == nil {
			return fs.ErrNotExist
		}
		if filepath.Dir(oldName) != filepath.Dir(newName) {
			return syscall.EXDEV // the log never does; the model of unsynced names would have to know
		}
		d.change(oldName, func(m map[string]*inode) {
			delete(m, oldName)
			m[newName] = f
		})
		return nil
	}, nil)
}

// Remove deletes a name.
func (d *Disk) Remove(name string) error {
	return d.do(OpRemove, name, 0, func() error {
		if d.names[name] == nil {
			return fs.ErrNotExist
		}
		d.change(name, func(m map[string]*inode) { delete(m, name) })
		return nil
	}, nil)
}

// List returns what lies directly in dir.
func (d *Disk) List(dir string) ([]Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir = filepath.Clean(dir)
	var out []Info
	for n, f := range d.names {
		if filepath.Dir(n) == dir {
			out = append(out, Info{Name: filepath.Base(n), Size: int64(len(f.current))})
		}
	}
	for n := range d.dirs {
		if filepath.Dir(n) == dir {
			out = append(out, Info{Name: filepath.Base(n), Dir: true})
		}
	}
	if len(out) == 0 && !d.dirs[dir] {
		return nil, fmt.Errorf("list %s: %w", dir, fs.ErrNotExist)
	}
	slices.SortFunc(out, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// SyncDir makes all changes of names in dir durable.
func (d *Disk) SyncDir(dir string) error {
	return d.do(OpSyncDir, dir, 0, func() error {
		d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
			if c.dir != filepath.Clean(dir) {
				return false
			}
			c.apply(d.durable)
			return true
		})
		return nil
	}, nil)
}

// Lock takes a lock that lives until Close, or until the disk's next image.
func (d *Disk) Lock(name string) (io.Closer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locks[name] {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	d.locks[name] = true
	return &diskLock{d, name}, nil
}

type diskLock struct {
	d    *Disk
	name string
}

func (l *diskLock) Close() error {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	delete(l.d.locks, l.name)
	return nil
}

type diskFile struct {
	d    *Disk
	f    *inode
	name string
}

func (h *diskFile) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off >= int64(len(h.f.current)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.current[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *diskFile) WriteAt(p []byte, off int64) (int, error) {
	err := h.d.do(OpWrite, h.name, len(p), func() error {
		end := off + int64(len(p))
		if grow := end - int64(len(h.f.current)); grow > 0 {
			if h.d.capacity > 0 && h.d.used()+grow > h.d.capacity {
				return syscall.ENOSPC
			}
			h.f.current = append(h.f.current, make([]byte, grow)...)
		}
		copy(h.f.current[off:], p)
		for s := off / Sector; s*Sector < end; s++ {
			h.f.dirty[int(s)] = struct{}{}
		}
		return nil
	}, nil)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (h *diskFile) Sync() error {
	return h.d.do(OpSync, h.name, 0, func() error {
		f := h.f
		if len(f.synced) > len(f.current) {
			f.synced = f.synced[:len(f.current)]
		}
		f.synced = append(f.synced, make([]byte, len(f.current)-len(f.synced))...)
		for s := range f.dirty {
			if lo := s * Sector; lo < len(f.current) {
				copy(f.synced[lo:min(lo+Sector, len(f.current))], f.current[lo:])
			}
		}
		clear(f.dirty)
		return nil
	}, func() { clear(h.f.dirty) })
}

func (h *diskFile) Truncate(size int64) error {
	return h.d.do(OpTruncate, h.name, 0, func() error {
		f := h.f
		if size <= int64(len(f.current)) {
			f.current = f.current[:size]
			return nil
		}
		f.current = append(f.current, make([]byte, size-int64(len(f.current)))...)
		return nil
	}, nil)
}

func (h *diskFile) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return int64(len(h.f.current)), nil
}

func (h *diskFile) Close() error { return nil }
