package segment_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// ownDisk holds a closed segment in its own file.
func ownDisk(t *testing.T) (*vfs.Disk, segment.Copied) {
	t.Helper()
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	d := describe("s", 1, 0, log.None, 1, 3)
	w := o.attach(d, 1)
	fill(t, w, 100)
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	r, err := o.Repair(ctx, segment.Copied{Descriptor: d, Last: 99, LSO: 99}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Info().Archived {
		t.Fatal("a whole replica was written anew")
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	disk = disk.Restart()
	c := imageConfig(disk)
	c.ClosedMax = 1
	o = open(t, c)
	for n := range log.Offset(2) { // the oldest of two has to leave
		w := o.attach(describe("s", uint32(n+2), 100+n, 99, 1, 3), 1)
		if err := errors.Join(w.append(log.TopicData, true, body("s", 100+n)), w.wait(), w.end()); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() bool { return o.replica("s", 1).Info().Archived })
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	return disk.Restart(), segment.Copied{Descriptor: d, Last: 99, LSO: 99}
}

// TestDamagedOwnFile flips one bit at many places of a replica's own file: what is
// read is right, what can't be read is suspect and no more than a block, a seal is
// not answered, and a peer makes it whole again.
func TestDamagedOwnFile(t *testing.T) {
	clean, c := ownDisk(t)
	peer := open(t, imageConfig(clean.Restart()))
	const path = "/log/segments/s/1.tws"
	size := len(clean.Bytes(path))
	hurt, lost := 0, 0
	step := 37
	if testing.Short() {
		step = 501
	}
	for at := 0; at < size; at += step {
		d := clean.Restart()
		if err := d.Flip(path, int64(at), uint(at)); err != nil {
			t.Fatal(err)
		}
		o := open(t, imageConfig(d))
		var bad int
		r, err := o.Replica(segment.ID{Stream: "s", Segment: 1})
		if err == nil {
			good, err := r.Verify(ctx)
			if err != nil {
				t.Fatal(err)
			}
			bad = 100 - int(good)
			for x := log.Offset(0); x < 100; {
				entries, _, next, err := r.Read(segment.Query{From: x}, nil, nil)
				if errors.Is(err, log.ErrSuspect) {
					x++
					continue
				}
				if err != nil || next == x {
					t.Fatalf("byte %d: entry %d: %v", at, x, err)
				}
				for _, e := range entries {
					if e.Offset != x || string(e.Payload) != string(body("s", x)) {
						t.Fatalf("byte %d: entry %d is not what was written", at, x)
					}
					x++
				}
			}
		} else if bad = 100; !errors.Is(err, log.ErrSuspect) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if _, err := o.Seal(ctx, c.Descriptor, 9); (bad > 0) != errors.Is(err, log.ErrSuspect) {
			t.Fatalf("byte %d: %d entries are bad, a seal gets %v", at, bad, err)
		}
		if bad > 10 { // more than a block: the file has each of its tables twice
			t.Fatalf("byte %d: one bit costs %d entries", at, bad)
		}
		if bad > 0 {
			hurt++
			lost += bad
			calls := 0
			r, err := o.Repair(ctx, c, source(peer.replica("s", 1), &calls))
			if err != nil || calls > 1 || !r.Info().Complete || r.Info().Suspect {
				t.Fatalf("byte %d: repaired in %d calls: %+v, %v", at, calls, r.Info(), err)
			}
			expect(t, r, segment.Query{}, 0, 99)
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if hurt == 0 {
		t.Fatal("no flip hurt anything")
	}
	t.Logf("%d of %d flips cost %d entries", hurt, size/step+1, lost)

	// The whole file, or both of its pointers.
	for what, spoil := range map[string]func(*vfs.Disk) error{
		"gone": func(d *vfs.Disk) error { return d.Remove(path) },
		"unreadable": func(d *vfs.Disk) error {
			return errors.Join(d.Flip(path, 20, 1), d.Flip(path, int64(size)-20, 1))
		},
	} {
		d := clean.Restart()
		if err := spoil(d); err != nil {
			t.Fatal(err)
		}
		for life := range 2 {
			o := open(t, imageConfig(d))
			if _, err := o.Replica(segment.ID{Stream: "s", Segment: 1}); !errors.Is(err, log.ErrSuspect) {
				t.Fatalf("%s: %v", what, err)
			}
			for _, err := range []error{
				func() error { _, err := o.Seal(ctx, c.Descriptor, 9); return err }(),
				func() error { _, _, err := o.Attach(ctx, c.Descriptor, 9); return err }(),
			} {
				if !errors.Is(err, log.ErrSuspect) {
					t.Fatalf("%s: seal or attach: %v", what, err)
				}
			}
			if all := o.Replicas(); len(all) != 3 || !all[0].Suspect || all[0].Segment != 1 || all[1].Suspect {
				t.Fatalf("%s: %+v", what, all)
			}
			if life == 1 {
				r, err := o.Repair(ctx, c, source(peer.replica("s", 1), new(int)))
				if err != nil {
					t.Fatal(err)
				}
				expect(t, r, segment.Query{}, 0, 99)
			}
			if err := o.stop(); err != nil {
				t.Fatal(err)
			}
			d = d.Restart()
		}
		o := open(t, imageConfig(d))
		expect(t, o.replica("s", 1), segment.Query{}, 0, 99)
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSuspectDoesNotSpeak: a replica of several that met damage, at a start or in a
// read, takes no appends and answers no seal; its fence is durable all the same.
func TestSuspectDoesNotSpeak(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			disk := vfs.NewDisk()
			o := open(t, imageConfig(disk))
			d := describe("s", 1, 0, log.None, 1, 3)
			w := o.attach(d, 1)
			fill(t, w, 20)
			time.Sleep(10 * time.Millisecond) // the last group is proven
			if restart {
				if err := o.stop(); err != nil {
					t.Fatal(err)
				}
				disk = disk.Restart()
			}
			spoil(t, disk, body("s", 7))
			if restart {
				o = open(t, imageConfig(disk))
			}
			r := o.replica("s", 1)
			if got, err := readAll(r, segment.Query{}); len(got) != 7 || !errors.Is(err, log.ErrSuspect) {
				t.Fatalf("%d entries, %v", len(got), err)
			}
			expect(t, r, segment.Query{}, 8, 19)
			if !restart {
				if err := w.append(log.TopicData, true, body("s", 20)); !errors.Is(err, log.ErrSuspect) {
					t.Fatalf("append: %v", err)
				}
			}
			if _, _, err := o.Attach(ctx, d, 1); !errors.Is(err, log.ErrSuspect) {
				t.Fatalf("attach: %v", err)
			}
			if _, err := o.Seal(ctx, d, 5); !errors.Is(err, log.ErrSuspect) {
				t.Fatalf("seal: %v", err)
			}
			if i := r.Info(); i.Fence != 5 || !i.Suspect {
				t.Fatalf("%+v", i)
			}
			if err := r.Close(ctx, 19, 19); err != nil {
				t.Fatal(err)
			}
			if i := r.Info(); i.Complete || len(i.Missing) != 1 || i.Missing[0] != (segment.Range{First: 7, Last: 7}) {
				t.Fatalf("%+v", i)
			}
			var asked []log.Offset
			fixed, err := o.Repair(ctx, segment.Copied{Descriptor: d, Last: 19, LSO: 19}, func(_ context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
				asked = append(asked, from, to)
				b := body("s", from)
				return []segment.Stored{{Checksum: segment.Checksum(b), Entry: log.Entry{Offset: from, Epoch: 1, Topic: log.TopicData, Payload: b}}}, to, nil
			})
			if err != nil || len(asked) != 2 || asked[0] != 7 || asked[1] != 8 || !fixed.Info().Complete {
				t.Fatalf("asked for %v: %v", asked, err)
			}
			expect(t, fixed, segment.Query{}, 0, 19)
		})
	}
}

// spoil flips a bit of every copy of some bytes in the journal.
func spoil(t *testing.T, d *vfs.Disk, what []byte) {
	t.Helper()
	files, err := d.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name, "journal-") {
			continue
		}
		if at := bytes.Index(d.Bytes("/log/"+f.Name), what); at >= 0 {
			n++
			if err := d.Flip("/log/"+f.Name, int64(at)+3, 2); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n == 0 {
		t.Fatal("the bytes are nowhere")
	}
}

// badDisk can't read some bytes of some files.
type badDisk struct {
	*vfs.Disk
	bad map[string][2]int64 // by name: from, to
}

func (d badDisk) Open(name string) (vfs.File, error) {
	f, err := d.Disk.Open(name)
	return badFile{f, d.bad[name]}, err
}

type badFile struct {
	vfs.File
	bad [2]int64
}

func (f badFile) ReadAt(b []byte, at int64) (int, error) {
	if at < f.bad[1] && f.bad[0] < at+int64(len(b)) {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(b, at)
}

// TestUnreadableSector: a sector that the disk can't read costs the entries in it,
// in the journal and in a replica's own file; it neither ends the node nor a repair.
func TestUnreadableSector(t *testing.T) {
	clean, c := ownDisk(t)
	peer := open(t, imageConfig(clean.Restart()))
	const path = "/log/segments/s/1.tws"
	d := badDisk{clean.Restart(), map[string][2]int64{path: {4200, 4712}}}
	config := imageConfig(d.Disk)
	config.FS = d
	o := open(t, config)
	r := o.replica("s", 1)
	good, err := r.Verify(ctx)
	if err != nil || good < 60 || good > 99 || !r.Info().Suspect {
		t.Fatalf("%d entries are good: %v", good, err)
	}
	delete(d.bad, path) // the disk maps another sector to it once it is written
	if r, err = o.Repair(ctx, c, source(peer.replica("s", 1), new(int))); err != nil {
		t.Fatal(err)
	}
	expect(t, r, segment.Query{}, 0, 99)
	w := o.attach(describe("t", 1, 0, log.None, 1, 1), 1)
	fill(t, w, 300) // so that it is not in the newest file, which an open reads
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	next := badDisk{d.Disk.Restart(), d.bad}
	files, err := next.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if at := bytes.Index(next.Bytes("/log/"+f.Name), body("t", 30)); at >= 0 && strings.HasPrefix(f.Name, "journal-") {
			next.bad["/log/"+f.Name] = [2]int64{int64(at), int64(at) + 1}
		}
	}
	if len(next.bad) == 0 {
		t.Fatal("the entry is nowhere")
	}
	config.FS = next
	s, err := segment.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	r, err = s.Replica(segment.ID{Stream: "t", Segment: 1})
	if err != nil {
		t.Fatal(err)
	}
	if good, err := r.Verify(ctx); err != nil || good != 299 {
		t.Fatalf("%d entries are good: %v, %+v", good, err, r.Info())
	}
}
