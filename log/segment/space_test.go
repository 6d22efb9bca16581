package segment_test

import (
	"bytes"
	"errors"
	"strings"
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
	c.Retention = segment.Retention{}
	o := open(t, c)
	w := o.writer("a")
	disk.SetCapacity(disk.Used() + 300<<10)
	body := bytes.Repeat([]byte("x"), 4<<10)
	var err error
	acked := log.None
	for range 10000 {
		if err = w.append(log.TopicData, true, body); err == nil {
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
	st, err := o.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(st, segment.Query{}); err != nil || len(got) != int(acked)+1 {
		t.Fatalf("%d entries, %v: want %d", len(got), err, acked+1)
	}
	// A restart on the full disk: what is there can be read, cursors move.
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	full := disk.Restart()
	full.SetCapacity(full.Used() + 1<<10)
	disk, c.FS = full, full
	o = open(t, c)
	if st, err = o.Stream("a"); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(st, segment.Query{}); err != nil || len(got) != int(acked)+1 {
		t.Fatalf("%d entries, %v: want %d", len(got), err, acked+1)
	}
	if err := st.StoreCursor(log.Cursor{Group: "g", Offset: acked}); err != nil {
		t.Fatal(err)
	}
	disk.SetCapacity(0)
	deadline := time.Now().Add(10 * time.Second)
	for o.Stats().Full && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	w = o.writer("a")
	if w.next != acked+1 {
		t.Fatalf("after the shortage the next entry is %d, want %d", w.next, acked+1)
	}
	for range 100 {
		if err := w.append(log.TopicData, true, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.wait(); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(st, segment.Query{}); err != nil || len(got) != int(acked)+101 {
		t.Fatalf("%d entries, %v: want %d", len(got), err, acked+101)
	}
}

// TestRetentionFindsSpace fills the disk and moves the cursor: no space comes from
// outside, and every file holds schema entries that have to be copied first.
func TestRetentionFindsSpace(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.GroupBytes = 8 << 10
	o := open(t, c)
	w := o.writer("a")
	for deadline := time.Now().Add(5 * time.Second); o.Stats().Spares == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", o.Stats())
		}
	}
	disk.SetCapacity(disk.Used() + 500<<10)
	taken := 0
	for range 5 {
		var err error
		for range 10000 {
			topic := log.TopicData
			if w.next%20 == 0 {
				topic = log.TopicSchema
			}
			if err = w.append(topic, true, bytes.Repeat([]byte("x"), 2<<10)); err == nil {
				err = w.wait()
			}
			if err != nil {
				break
			}
			taken++
		}
		if !errors.Is(err, log.ErrFull) {
			t.Fatalf("a full disk gives %v", err)
		}
		if err := w.st.StoreCursor(log.Cursor{Group: "g", Offset: w.st.Bounds().LAC}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); o.Stats().Full; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("retention found no space: %+v", o.Stats())
			}
		}
		w = o.writer("a")
	}
	t.Logf("%d entries went through %d KiB", taken, (disk.Used()+500<<10)>>10)
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
