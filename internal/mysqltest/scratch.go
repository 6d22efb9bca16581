package mysqltest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Scratch folders live in <temp>/twinspan-servers/<pid>-<random>, one per
// process. Its owner holds a lock on the folder's file "owner" as long as it
// lives, so whoever comes later can tell and remove what a killed owner left.

// scratchRoot is short: a socket's path may have 107 bytes.
func scratchRoot() string { return filepath.Join(os.TempDir(), "twinspan-servers") }

var scratch struct {
	sync.Mutex
	dir   string
	owner *os.File // holds the lock until the process ends
	next  int
	ports map[int]*os.File
}

// lockFile takes an exclusive lock on path; wait=false fails at once when
// another open file holds it.
func lockFile(path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// scratchDir makes a new empty folder for one server.
func scratchDir(name string) (string, error) {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.dir == "" {
		root := scratchRoot()
		if err := os.MkdirAll(root, 0o700); err != nil {
			return "", err
		}
		sweep(root)
		dir, err := os.MkdirTemp(root, strconv.Itoa(os.Getpid())+"-")
		if err != nil {
			return "", err
		}
		if scratch.owner, err = lockFile(filepath.Join(dir, "owner"), false); err != nil {
			return "", err
		}
		scratch.dir = dir
	}
	scratch.next++
	dir := filepath.Join(scratch.dir, fmt.Sprintf("%d-%s", scratch.next, name))
	return dir, os.Mkdir(dir, 0o700)
}

// releaseScratch removes the process's folder once it holds no server.
func releaseScratch() {
	scratch.Lock()
	defer scratch.Unlock()
	if scratch.dir == "" {
		return
	}
	left, err := os.ReadDir(scratch.dir)
	if err != nil || len(left) > 1 {
		return
	}
	if os.RemoveAll(scratch.dir) == nil {
		_ = scratch.owner.Close() // only the lock goes
		scratch.dir, scratch.owner = "", nil
	}
}

// sweep removes what dead owners left. Best effort: another process may sweep too.
func sweep(root string) {
	dirs, err := filepath.Glob(filepath.Join(root, "*-*"))
	if err != nil {
		return
	}
	for _, d := range dirs {
		owner := filepath.Join(d, "owner")
		if _, err := os.Stat(owner); err != nil {
			continue // being made, or a detached server's
		}
		f, err := lockFile(owner, false)
		if err != nil {
			continue // alive
		}
		_ = os.RemoveAll(d)
		_ = f.Close()
	}
}

// The ports that servers get: below Linux's ephemeral range, so that no client
// connection can take one while its server is down.
const portFirst, portCount = 26000, 6000

// FreePort reserves a loopback port for this process, for other programs that a
// test runs beside its servers. It stays reserved as long as the process lives.
func FreePort() (int, error) {
	scratch.Lock()
	defer scratch.Unlock()
	locks := filepath.Join(scratchRoot(), "ports")
	if err := os.MkdirAll(locks, 0o700); err != nil {
		return 0, err
	}
	for range 200 {
		port := portFirst + rand.IntN(portCount)
		f, err := lockFile(filepath.Join(locks, strconv.Itoa(port)), false)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			_ = f.Close()
			continue
		}
		if err := l.Close(); err != nil {
			return 0, errors.Join(err, f.Close())
		}
		if scratch.ports == nil {
			scratch.ports = map[int]*os.File{}
		}
		scratch.ports[port] = f
		return port, nil
	}
	return 0, errors.New("no free port found on 127.0.0.1")
}

func releasePort(port int) {
	scratch.Lock()
	defer scratch.Unlock()
	if f := scratch.ports[port]; f != nil {
		_ = f.Close()
		delete(scratch.ports, port)
	}
}

// copyTree copies a data directory. Holes and preallocated space stay unwritten.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(dst, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copyFile(path, dst)
	})
}

// Linux lseek(2).
const seekData, seekHole = 3, 4

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	for at := int64(0); at < info.Size(); {
		start, err := src.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return err
		}
		end, err := src.Seek(start, seekHole)
		if err != nil {
			return err
		}
		if _, err := src.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, end-start); err != nil {
			return fmt.Errorf("copy %s: %w", from, err)
		}
		at = end
	}
	return dst.Truncate(info.Size())
}
