// Package vfs is the seam between the log's files and the disk. The log uses
// only these verbs, so that a test can put a disk behind them that tears writes,
// loses what was never synced, runs out of space, or lies about a failed sync
// (Disk), and a program gets the operating system's (OS).
package vfs

import (
	"errors"
	"io"
)

// FS is a file system as the log sees it. Names are paths. A file's bytes are
// durable after File.Sync; a create, rename or remove after SyncDir of the
// directory. Errors are those of package os (fs.ErrNotExist, syscall.ENOSPC).
type FS interface {
	// MkdirAll makes dir and its missing parents, durably.
	MkdirAll(dir string) error
	// Create makes an empty file; it fails with fs.ErrExist when there is one.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Rename replaces newName atomically.
	Rename(oldName, newName string) error
	Remove(name string) error
	// List returns what lies directly in dir, sorted by name.
	List(dir string) ([]Info, error)
	SyncDir(dir string) error
	// Lock takes the named lock file for this process; ErrLocked when another
	// open of it, in this process or another one, holds it.
	Lock(name string) (io.Closer, error)
}

// Info is one name in a directory.
type Info struct {
	Name string // without the directory
	Size int64  // bytes
	Dir  bool
}

// File is an open file. Reads and writes at different places may run at the
// same time.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the bytes and the length durable (fdatasync). After an error
	// nothing is known about what was written since the last Sync, and a
	// second Sync proves nothing.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
}

// ErrLocked says that somebody else holds the lock file.
var ErrLocked = errors.New("locked by another process")
