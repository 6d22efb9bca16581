package vfs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Large writes go past the page cache: to copy them there, and to write the copies
// out at the Sync that follows, costs more than half of what the whole write
// does, and a third to half of the disk's throughput. Small ones gain nothing and
// are read soon, so they take the usual way.
const (
	directMin   = 64 << 10
	directAlign = 4 << 10 // of a write's place and length, and of its memory; no disk asks for more
	directChunk = 1 << 20 // written at once
)

// direct is the second way to a file. The zero value opens it when it is needed.
type direct struct {
	mu      sync.Mutex
	f       *os.File
	refused bool // the file system has no such way
}

// bounces are aligned buffers of directChunk bytes: a caller's memory is not aligned.
var bounces = sync.Pool{New: func() any {
	b := make([]byte, directChunk+directAlign)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (directAlign - 1)
	b = b[skip:][:directChunk:directChunk]
	return &b
}}

// WriteAt writes whole pages in bulk past the page cache, where the file system
// lets it, and everything else through it. Both see each other's bytes.
func (f *osFile) WriteAt(b []byte, at int64) (n int, err error) {
	if len(b) >= directMin && len(b)%directAlign == 0 && at%directAlign == 0 {
		if n, err = f.writeDirect(b, at); err != nil || n == len(b) {
			return n, err
		}
	}
	rest, err := f.File.WriteAt(b[n:], at+int64(n))
	return n + rest, err
}

// writeDirect writes as much of b as this way takes; the rest is for the other.
func (f *osFile) writeDirect(b []byte, at int64) (done int, err error) {
	d := f.direct.open(f.File)
	if d == nil {
		return 0, nil
	}
	bounce := bounces.Get().(*[]byte)
	defer bounces.Put(bounce)
	for done < len(b) {
		n, err := d.WriteAt((*bounce)[:copy(*bounce, b[done:])], at+int64(done))
		done += n
		switch {
		case errors.Is(err, syscall.EINVAL): // it wants another alignment, or part of the chunk was written
			if n == 0 {
				f.direct.refuse()
			}
			return done, nil
		case err != nil:
			return done, err
		}
	}
	return done, nil
}

// open is the second way to file, nil when there is none.
func (d *direct) open(file *os.File) *os.File {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused {
		return nil
	}
	if d.f != nil {
		return d.f
	}
	err := retryInterrupted(file, func(fd int) error {
		// Not by its name, which may be another one by now.
		again, err := syscall.Open(fmt.Sprintf("/proc/self/fd/%d", fd), syscall.O_RDWR|syscall.O_DIRECT|syscall.O_CLOEXEC, 0)
		if err == nil {
			d.f = os.NewFile(uintptr(again), file.Name())
		}
		return err
	})
	d.refused = err != nil // the usual way will tell if something is wrong with the file
	return d.f
}

// refuse keeps to the usual way from now on.
func (d *direct) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = true
}

func (f *osFile) Close() error {
	f.direct.refuse()
	var err error
	if f.direct.f != nil {
		err = f.direct.f.Close()
	}
	return errors.Join(f.File.Close(), err)
}
