package vfs

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestDirect mixes writes of both ways with reads, and compares with a copy in
// memory. A file is renamed meanwhile, as the journal's are.
func TestDirect(t *testing.T) {
	const size = 8 << 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	file, err := OS{}.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f := file.(*osFile)
	model := make([]byte, size)
	if _, err := f.WriteAt(model, 0); err != nil {
		t.Fatal(err)
	}
	went := f.direct.f != nil // tells whether this file system has the way
	t.Logf("past the page cache: %v", went)
	if next := name + "b"; os.Rename(name, next) == nil {
		name = next
	}
	steps := 400
	if testing.Short() {
		steps = 80
	}
	for step := range steps {
		at, n := r.IntN(size), 1+r.IntN(3000)
		if r.IntN(2) == 0 {
			at, n = at/directAlign*directAlign, directMin+directAlign*r.IntN(2*directChunk/directAlign)
		}
		n = min(n, size-at)
		b := make([]byte, n+1)[r.IntN(2):][:n] // at any address
		fill := byte(r.Uint32())
		for i := range b {
			b[i] = fill + byte(i*7)
		}
		if got, err := f.WriteAt(b, int64(at)); got != n || err != nil {
			t.Fatalf("step %d: wrote %d of %d at %d: %v", step, got, n, at, err)
		}
		copy(model[at:], b)
		if step%16 == 0 {
			if err := f.Sync(); err != nil {
				t.Fatalf("step %d: sync: %v", step, err)
			}
		}
		from := max(0, at-r.IntN(20000))
		got := make([]byte, min(size-from, n+40000))
		if _, err := f.ReadAt(got, int64(from)); err != nil {
			t.Fatalf("step %d: read: %v", step, err)
		}
		if !bytes.Equal(got, model[from:from+len(got)]) {
			t.Fatalf("step %d: %d bytes at %d are not what was written", step, n, at)
		}
		if step == steps*3/4 { // as if the file system changed its mind
			f.direct.refuse()
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(model[:directMin], 0); err == nil {
		t.Fatal("a closed file was written")
	}
	got, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(got, model) {
		t.Fatalf("the file is not what was written: %v", err)
	}
}

// TestDirectBeside lets readers run ahead of a writer, so that what the kernel read
// early has to be given up when it is written.
func TestDirectBeside(t *testing.T) {
	const group, groups = 2 * directMin, 64
	file, err := OS{}.Create(filepath.Join(t.TempDir(), "a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, group*groups), 0); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	stop := make(chan struct{}) // closed when all is written
	for range 3 {
		readers.Go(func() {
			b := make([]byte, 3*group)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := file.ReadAt(b, int64(i%(groups-3))*group+1000); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range groups {
		b := bytes.Repeat([]byte{byte(i + 1)}, group)
		if i%3 == 2 { // a small one between large ones
			b = b[:directAlign]
		}
		if _, err := file.WriteAt(b, int64(i)*group); err != nil {
			t.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(b))
		if _, err := file.ReadAt(got, int64(i)*group); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("group %d: not what was written: %v", i, err)
		}
	}
	close(stop)
	readers.Wait()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDirectOnlyWhereItPays: small and unaligned writes do not open the second way.
func TestDirectOnlyWhereItPays(t *testing.T) {
	file, err := OS{}.Create(filepath.Join(t.TempDir(), strings.Repeat("x", 50)))
	if err != nil {
		t.Fatal(err)
	}
	f := file.(*osFile)
	for _, c := range []struct{ n, at int }{{directAlign, 0}, {directMin - directAlign, 0}, {directMin + 1, 0}, {directMin, 512}} {
		if _, err := f.WriteAt(make([]byte, c.n), int64(c.at)); err != nil {
			t.Fatal(err)
		}
	}
	if f.direct.f != nil || f.direct.refused {
		t.Fatal("they did")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
