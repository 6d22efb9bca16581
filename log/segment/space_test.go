package segment_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// TestFull runs out of space and gets some back.
func TestFull(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	o := open(t, c)
	w := o.writer("a")
	disk.SetCapacity(disk.Used() + 300<<10)
	big := bytes.Repeat([]byte("x"), 4<<10)
	var err error
	acked := log.None
	for range 10000 {
		if err = w.append(log.TopicData, true, big); err == nil {
			err = w.wait()
		}
		if err != nil {
			break
		}
		acked = w.next - 1
	}
	if !errors.Is(err, log.ErrFull) {
		t.Fatalf("a full disk gives %v", err)
	}
	if !o.Stats().Full || o.Fault() != nil {
		t.Fatalf("stats %+v, fault %v", o.Stats(), o.Fault())
	}
	all := func(last log.Offset) {
		t.Helper()
		if got, err := readAll(o.replica("a", 1), segment.Query{Unconfirmed: true}); err != nil || len(got) != int(last)+1 {
			t.Fatalf("%d entries, %v: want %d", len(got), err, last+1)
		}
	}
	all(acked)
	// A restart on the full disk: what is there can be read, fences move.
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	full := disk.Restart()
	full.SetCapacity(full.Used() + 1<<10)
	disk, c.FS = full, full
	o = open(t, c)
	all(acked)
	d := o.replica("a", 1).Descriptor()
	if sealed, err := o.Seal(ctx, d, 7); err != nil || sealed.Last != acked {
		t.Fatalf("seal on a full disk: %+v, %v", sealed, err)
	}
	disk.SetCapacity(0)
	await(t, func() bool { return !o.Stats().Full && o.Stats().Spares > 0 })
	w = o.attach(d, 7)
	if w.next != acked+1 {
		t.Fatalf("after the shortage the next entry is %d, want %d", w.next, acked+1)
	}
	for range 100 {
		if err := w.append(log.TopicData, true, big); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.wait(); err != nil {
		t.Fatal(err)
	}
	all(acked + 100)
}

// TestSpaceIsFound fills the disk with closed segments: giving some up makes room
// for appends, and so does their archiving, for which the spare file stands back.
func TestSpaceIsFound(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.JournalBytes = 1 << 30 // nothing leaves by itself
	o := open(t, c)
	await(t, func() bool { return o.Stats().Spares > 0 })
	disk.SetCapacity(disk.Used() + 500<<10)
	first, number := log.Offset(0), uint32(0)
	fillDisk := func() {
		t.Helper()
		var err error
		for err == nil {
			number++
			var r *segment.Replica
			var last log.Offset
			d := describe("a", number, first, first-1, 1, 1)
			if r, last, err = o.Attach(ctx, d, 1); err != nil {
				break
			}
			w := &writer{r: r, epoch: 1, next: last + 1, lac: last, lso: last}
			for range 20 {
				if err = w.append(log.TopicData, true, bytes.Repeat([]byte("x"), 2<<10)); err != nil {
					break
				}
			}
			if err == nil {
				err = w.wait()
			}
			first = r.Info().Held + 1
			if closeErr := r.Close(ctx, first-1, first-1); closeErr != nil {
				t.Fatal(closeErr)
			}
		}
		if !errors.Is(err, log.ErrFull) {
			t.Fatalf("a full disk gives %v", err)
		}
	}
	fillDisk()
	for i := uint32(1); i < number/2; i++ {
		if err := o.replica("a", i).Drop(ctx); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() bool { return !o.Stats().Full })
	before := number
	fillDisk()
	if number <= before {
		t.Fatal("nothing went in after half was given up")
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	// Two spare files and the reserve, and then room for nothing beside them: the
	// first one becomes the file that is written next.
	disk = disk.Restart()
	disk.SetCapacity(disk.Used() + 300<<10)
	c.FS, c.SpareFiles = disk, 2
	o = open(t, c)
	await(t, func() bool { return o.Stats().Spares == 2 })
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	capacity := disk.Used() + 1<<10
	disk = disk.Restart()
	disk.SetCapacity(capacity)
	c.FS, c.JournalBytes = disk, 128<<10
	o = open(t, c)
	await(t, func() bool { return o.Stats().Archived > 5 && !o.Stats().Full })
	fillDisk()
}

// TestFullAnywhere takes the space away at random moments of a random load, and
// gives it back: whatever fails then says so, nothing dies, and no promise is lost.
func TestFullAnywhere(t *testing.T) {
	runs := 25
	if testing.Short() {
		runs = 5
	}
	base := uint64(time.Now().UnixNano())
	failures := 0
	for i := range runs {
		seed := base + uint64(i)
		r := rand.New(rand.NewPCG(seed, 1))
		disk, p := vfs.NewDisk(), newPromise()
		s, err := segment.Open(crashConfig(disk))
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background()) }()
		stop := make(chan struct{})
		var tide sync.WaitGroup
		tide.Go(func() { // the space comes and goes
			r := rand.New(rand.NewPCG(seed, 2))
			for {
				select {
				case <-stop:
					disk.SetCapacity(0)
					return
				case <-time.After(time.Duration(r.IntN(3000)) * time.Microsecond):
					disk.SetCapacity(disk.Used() + r.Int64N(100<<10))
				}
				time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
				disk.SetCapacity(0)
			}
		})
		for range 12 {
			if err := work(r, s, p); errors.Is(err, log.ErrFull) {
				failures++
			} else if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		close(stop)
		tide.Wait()
		if err := holds(s, p); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := errors.Join(s.Fault(), s.Close(), <-ran); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := verify(image{disk: disk.Image(r), promise: p}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if failures == 0 {
		t.Fatal("there always was space")
	}
	t.Logf("%d requests failed for want of space, nothing was lost; seeds from %d", failures, base)
}

// TestOneOwner checks the lock and the identity of the directory.
func TestOneOwner(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	if _, err := segment.Open(imageConfig(disk)); !errors.Is(err, vfs.ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	w := o.writer("a")
	if err := errors.Join(w.append(log.TopicData, true, []byte("x")), w.wait(), o.stop()); err != nil {
		t.Fatal(err)
	}
	c := imageConfig(disk.Restart())
	c.Name = "b2"
	if _, err := segment.Open(c); !errors.Is(err, log.ErrIdentity) || !strings.Contains(err.Error(), "a1") {
		t.Fatalf("open as another node: %v", err)
	}
	// Someone else's files.
	foreign := vfs.NewDisk()
	if _, err := foreign.Create("/log/ibdata1"); err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Open(imageConfig(foreign)); !errors.Is(err, log.ErrIdentity) {
		t.Fatalf("open of a foreign directory: %v", err)
	}
	// A journal file of another node, and a directory that lost its meta.
	other := vfs.NewDisk()
	oo := open(t, imageConfig(other))
	if err := oo.stop(); err != nil {
		t.Fatal(err)
	}
	mixed := disk.Restart()
	f, err := mixed.Create("/log/journal-00000000000000ff.twj")
	if err != nil {
		t.Fatal(err)
	}
	infos, err := other.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if strings.HasPrefix(i.Name, "journal-") {
			if _, err := f.WriteAt(other.Bytes("/log/"+i.Name), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := segment.Open(imageConfig(mixed)); !errors.Is(err, log.ErrIdentity) {
		t.Fatalf("open with a foreign journal file: %v", err)
	}
	lost := disk.Restart()
	if err := errors.Join(lost.Remove("/log/meta.a"), lost.Remove("/log/meta.b")); err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Open(imageConfig(lost)); !errors.Is(err, log.ErrIdentity) {
		t.Fatalf("open without meta: %v", err)
	}
}
