package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/twinspan/twinspan/log/vfs"
)

// TestBoth runs the same operations over the system's disk and the one in memory.
func TestBoth(t *testing.T) {
	for name, c := range map[string]struct {
		fs  vfs.FS
		dir string
	}{"os": {vfs.OS{}, t.TempDir()}, "memory": {vfs.NewDisk(), "/d"}} {
		t.Run(name, func(t *testing.T) {
			path := func(n string) string { return c.dir + "/" + n }
			if err := c.fs.MkdirAll(c.dir); err != nil {
				t.Fatal(err)
			}
			f, err := c.fs.Create(path("a"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.fs.Create(path("a")); !errors.Is(err, fs.ErrExist) {
				t.Fatalf("second create: %v", err)
			}
			if _, err := c.fs.Open(path("nothing")); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open of nothing: %v", err)
			}
			if _, err := f.WriteAt([]byte("hello"), 3); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(f.Sync(), f.Truncate(7), c.fs.Rename(path("a"), path("b")), c.fs.SyncDir(c.dir)); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 10)
			n, err := f.ReadAt(b, 0)
			if n != 7 || !errors.Is(err, io.EOF) || !bytes.Equal(b[:n], []byte("\x00\x00\x00hell")) {
				t.Fatalf("%d bytes %q: %v", n, b[:n], err)
			}
			if size, err := f.Size(); size != 7 || err != nil {
				t.Fatalf("size %d: %v", size, err)
			}
			list, err := c.fs.List(c.dir)
			if err != nil || len(list) != 1 || list[0].Name != "b" || list[0].Size != 7 || list[0].Dir {
				t.Fatalf("list %+v: %v", list, err)
			}
			lock, err := c.fs.Lock(path("lock"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.fs.Lock(path("lock")); !errors.Is(err, vfs.ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			if err := lock.Close(); err != nil {
				t.Fatal(err)
			}
			if lock, err = c.fs.Lock(path("lock")); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(lock.Close(), f.Close(), c.fs.Remove(path("b"))); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestImages checks the model itself: synced bytes and names are in every image,
// others in some and not in others, and a failed sync leaves bytes that only the
// page cache has.
func TestImages(t *testing.T) {
	d := vfs.NewDisk()
	f, err := d.Create("/d/f")
	if err != nil {
		t.Fatal(err)
	}
	synced, loose := bytes.Repeat([]byte("s"), 2*vfs.Sector), bytes.Repeat([]byte("l"), 2*vfs.Sector)
	write := func(p []byte, at int64) {
		t.Helper()
		if _, err := f.WriteAt(p, at); err != nil {
			t.Fatal(err)
		}
	}
	write(synced, 0)
	write(loose, 2*vfs.Sector)
	if err := errors.Join(f.Sync(), d.SyncDir("/d")); err != nil {
		t.Fatal(err)
	}
	write(bytes.ToUpper(loose), 2*vfs.Sector)
	if _, err := d.Create("/d/g"); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	kinds := map[string]bool{}
	for range 300 {
		im := d.Image(r)
		b := im.Bytes("/d/f")
		if len(b) != 4*vfs.Sector || !bytes.Equal(b[:2*vfs.Sector], synced) {
			t.Fatal("synced bytes are not in an image")
		}
		for s := 2; s < 4; s++ {
			switch sector := b[s*vfs.Sector : (s+1)*vfs.Sector]; {
			case bytes.Equal(sector, loose[:vfs.Sector]):
				kinds["old"] = true
			case bytes.Equal(sector, bytes.ToUpper(loose[:vfs.Sector])):
				kinds["new"] = true
			default:
				kinds["garbage"] = true
			}
		}
		kinds[map[bool]string{true: "name", false: "no name"}[im.Bytes("/d/g") != nil]] = true
	}
	if len(kinds) != 5 {
		t.Fatalf("images show only %v", kinds)
	}
	d.SetHook(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSync {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("sync: %v", err)
	}
	d.SetHook(nil)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if b := d.Restart().Bytes("/d/f"); !bytes.Equal(b[2*vfs.Sector:], bytes.ToUpper(loose)) {
		t.Fatal("the page cache lost bytes")
	}
	if b := d.Image(r).Bytes("/d/f"); !bytes.Equal(b[2*vfs.Sector:], loose) {
		t.Fatal("a sync after a failed one made bytes durable")
	}
	d.SetCapacity(d.Used())
	if _, err := f.WriteAt([]byte("x"), 1<<20); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write on a full disk: %v", err)
	}
}
