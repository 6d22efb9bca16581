package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Wipe takes all a stopped node has on disk away, as a new disk does.
func (l *Lab) Wipe(names ...string) error {
	var errs []error
	for _, name := range names {
		n := l.Node(name)
		if l.Running(name) {
			return fmt.Errorf("wipe node %s: it runs", name)
		}
		errs = append(errs, os.RemoveAll(n.Dir))
	}
	return errors.Join(errs...)
}

// Fill takes the rest of a node's small disk away, until Empty.
func (l *Lab) Fill(name string) error {
	f, err := os.Create(l.ballast(name))
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); err != nil {
			if len(block) > 512 {
				block = block[:len(block)/2]
				continue
			}
			return f.Close()
		}
	}
}

// Empty takes back what Fill did.
func (l *Lab) Empty(name string) error { return os.Remove(l.ballast(name)) }

func (l *Lab) ballast(name string) string { return filepath.Join(l.Node(name).disk, "ballast") }

// Damage changes bytes in a stopped node's files of entries: places of them, each
// somewhere in what was written, the newest kilobytes of a file excepted. It
// returns where.
func (l *Lab) Damage(name string, places int, r *rand.Rand) ([]string, error) {
	n := l.Node(name)
	if l.Running(name) {
		return nil, fmt.Errorf("damage node %s: it runs", name)
	}
	var files []string
	err := filepath.WalkDir(n.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && holdsEntries(e.Name()) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var where []string
	for range 50 * places {
		if len(where) == places || len(files) == 0 {
			break
		}
		path := files[r.IntN(len(files))]
		b, err := os.ReadFile(path)
		if err != nil {
			return where, err
		}
		used := len(bytes.TrimRight(b, "\x00")) - 64<<10
		if used < 32<<10 {
			continue
		}
		at := 16<<10 + r.IntN(used-16<<10)
		length := 1 + r.IntN(600)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return where, err
		}
		bad := make([]byte, length)
		for i := range bad {
			bad[i] = b[min(at+i, len(b)-1)] ^ byte(1+r.IntN(255))
		}
		_, err = f.WriteAt(bad, int64(at))
		if err := errors.Join(err, f.Close()); err != nil {
			return where, err
		}
		where = append(where, fmt.Sprintf("%s@%d+%d", filepath.Base(path), at, length))
	}
	return where, nil
}

// holdsEntries tells the journal's files and those of closed segments, and
// JetStream's blocks.
func holdsEntries(name string) bool {
	return strings.HasSuffix(name, ".twj") || strings.HasSuffix(name, ".tws") || strings.HasSuffix(name, ".blk")
}
