package segment_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

const damageEntries = 60

// damageDisk holds a segment of three streams, damageEntries each, over several files, closed
// cleanly.
func damageDisk(t *testing.T) *vfs.Disk {
	t.Helper()
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	var ws []*writer
	for _, n := range []string{"a", "b", "c"} {
		ws = append(ws, o.writer(n))
	}
	for i := range damageEntries {
		for j, w := range ws {
			if j == 2 && i >= 10 && i < damageEntries-1 {
				continue // a quiet stream: a few entries at the start
			}
			if err := w.append(log.TopicData, true, damagePayload(w.r.ID().Stream, w.next)); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			for _, w := range ws {
				if err := w.wait(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	return disk
}

func damagePayload(stream string, o log.Offset) []byte {
	return fmt.Appendf(nil, "%s/%d/%s", stream, o, strings.Repeat("x", int(o*131)%1500))
}

// TestDamageBelowTheDurableEnd flips one bit at many places of every journal file
// and opens the result, with and without saved indexes, twice. An entry is either
// read with its bytes or answered with ErrSuspect; nothing is missing without a
// word, no second stream suffers, and the quiet stream's tail is not given away.
func TestDamageBelowTheDurableEnd(t *testing.T) {
	clean := damageDisk(t)
	files, err := clean.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	step := int64(211)
	if testing.Short() {
		step = 997
	}
	tried, hurt := 0, 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name, "journal-") {
			continue
		}
		for at := int64(0); at < f.Size; at += step {
			for _, indexes := range []bool{true, false} {
				d := clean.Restart()
				if err := d.Flip("/log/"+f.Name, at, uint(at)); err != nil {
					t.Fatal(err)
				}
				if !indexes {
					removeIndexes(t, d)
				}
				n, err := damaged(d)
				if err != nil {
					t.Fatalf("%s: bit %d of byte %d, indexes %v: %v", f.Name, at%8, at, indexes, err)
				}
				tried++
				hurt += n
			}
		}
	}
	t.Logf("%d flips, %d of them hurt a stream", tried, hurt)
	if hurt == 0 {
		t.Fatal("no flip hurt anything: the test does not reach the entries")
	}
}

func removeIndexes(t *testing.T, d *vfs.Disk) {
	t.Helper()
	files, err := d.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name, "index-") {
			if err := d.Remove("/log/" + f.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// damaged opens the disk twice and says how many streams were hurt.
func damaged(d *vfs.Disk) (int, error) {
	worst := 0
	for life := range 2 {
		s, err := segment.Open(imageConfig(d))
		if err != nil {
			return 0, fmt.Errorf("life %d: open: %w", life, err)
		}
		ran := make(chan error, 1)
		go func() { ran <- s.Run(context.Background()) }()
		n, err := inspect(s)
		if err = errors.Join(err, s.Close(), <-ran); err != nil {
			return n, fmt.Errorf("life %d: %w", life, err)
		}
		if life > 0 && n < worst {
			return n, fmt.Errorf("damage that was known is forgotten: %d streams, then %d", worst, n)
		}
		worst = max(worst, n)
		d = d.Restart()
	}
	return worst, nil
}

func inspect(s *segment.Store) (int, error) {
	hurt := 0
	for _, name := range []string{"a", "b", "c"} {
		want := log.Offset(damageEntries)
		if name == "c" {
			want = 11
		}
		r, err := s.Replica(segment.ID{Stream: name, Segment: 1})
		if err != nil {
			return hurt, err
		}
		bad := 0
		for o := log.Offset(0); o < want; {
			entries, _, next, err := r.Read(segment.Query{From: o, Unconfirmed: true}, nil, nil)
			if errors.Is(err, log.ErrSuspect) {
				bad++
				o++
				continue
			}
			if err != nil {
				return hurt, err
			}
			if next == o {
				return hurt, fmt.Errorf("stream %s: nothing at %d of %d, and no error", name, o, want)
			}
			for _, e := range entries {
				if e.Offset != o || string(e.Payload) != string(damagePayload(name, o)) {
					return hurt, fmt.Errorf("stream %s: entry %d is not what was written", name, o)
				}
				o++
			}
		}
		if bad > 0 {
			hurt++
		}
		if bad > 1 {
			return hurt, fmt.Errorf("stream %s: one bit costs %d entries", name, bad)
		}
		if hurt > 1 {
			return hurt, errors.New("one bit hurts several streams")
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, last, err := s.Attach(ctx, r.Descriptor(), 1)
		cancel()
		if err != nil || last < want-1 {
			return hurt, fmt.Errorf("stream %s: a writer would go on behind %d of %d: %w", name, last, want-1, err)
		}
	}
	return hurt, nil
}

// TestLostFiles removes whole journal files: what they held is suspect, not
// absent, and a replica that may have ended there takes no appends.
// A peer that has it all makes it whole.
func TestLostFiles(t *testing.T) {
	clean := damageDisk(t)
	peer := open(t, imageConfig(clean.Restart()))
	files, err := clean.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasPrefix(f.Name, "journal-") {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			d := clean.Restart()
			if err := d.Remove("/log/" + f.Name); err != nil {
				t.Fatal(err)
			}
			o := open(t, imageConfig(d))
			lost := 0
			for _, name := range []string{"a", "b", "c"} {
				want := log.Offset(damageEntries)
				if name == "c" {
					want = 11
				}
				r := o.replica(name, 1)
				whole := true
				for at := log.Offset(0); at < want; at++ {
					entries, _, _, err := r.Read(segment.Query{From: at, BytesMax: 1, Unconfirmed: true}, nil, nil)
					if errors.Is(err, log.ErrSuspect) {
						whole = false
						lost++
						continue
					}
					if err != nil || len(entries) == 0 || string(entries[0].Payload) != string(damagePayload(name, at)) {
						t.Fatalf("stream %s entry %d: %d entries, %v", name, at, len(entries), err)
					}
				}
				ending := r.Info().Held < want-1
				_, last, err := o.Attach(context.Background(), r.Descriptor(), 1)
				if err == nil && (last != want-1 || ending) || err != nil && !errors.Is(err, log.ErrSuspect) || ending && whole {
					t.Fatalf("stream %s: a writer would go on behind %d of %d (whole %v): %v", name, last, want-1, whole, err)
				}
				// Once it is known where the segment ends, so is what is missing.
				if err := r.Close(ctx, want-1, r.Info().LSO); err != nil {
					t.Fatal(err)
				}
				var missing int
				for _, m := range r.Info().Missing {
					missing += int(m.Last - m.First + 1)
				}
				if (missing == 0) != whole || r.Info().Complete != whole {
					t.Fatalf("stream %s: %d missing, complete %v, whole %v", name, missing, r.Info().Complete, whole)
				}
				good := source(peer.replica(name, 1), new(int))
				fixed, err := o.Repair(ctx, segment.Copied{Descriptor: r.Descriptor(), Last: want - 1, LSO: r.Info().EndLSO}, good)
				if err != nil || !fixed.Info().Complete {
					t.Fatalf("stream %s: %+v, %v", name, fixed.Info(), err)
				}
				entries, err := readAll(fixed, segment.Query{})
				if err != nil || len(entries) != int(want) {
					t.Fatalf("stream %s: %d entries after the repair: %v", name, len(entries), err)
				}
				for _, e := range entries {
					if string(e.Payload) != string(damagePayload(name, e.Offset)) {
						t.Fatalf("stream %s: entry %d after the repair", name, e.Offset)
					}
				}
			}
			t.Logf("%d entries lost", lost)
		})
	}
}

// TestDamageBesideTheJournal flips bits in the copies of the meta and in saved
// indexes: nothing is lost, because there is a second copy, or the journal.
func TestDamageBesideTheJournal(t *testing.T) {
	clean := damageDisk(t)
	files, err := clean.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name, "meta.") && !strings.HasPrefix(f.Name, "index-") {
			continue
		}
		for at := int64(0); at < min(f.Size, 3000); at += 29 {
			d := clean.Restart()
			if err := d.Flip("/log/"+f.Name, at, uint(at)); err != nil {
				t.Fatal(err)
			}
			c := imageConfig(d)
			c.IndexCacheBytes = 1
			o := open(t, c)
			for _, name := range []string{"a", "b", "c"} {
				if i := o.replica(name, 1).Info(); i.Fence != 1 {
					t.Fatalf("%s, byte %d: stream %s has fence %d", f.Name, at, name, i.Fence)
				}
			}
			hurt, err := inspect(o.Store)
			if err != nil || hurt > 0 {
				t.Fatalf("%s, byte %d: %d streams hurt, %v", f.Name, at, hurt, err)
			}
			if err := o.stop(); err != nil {
				t.Fatal(err)
			}
			tried++
		}
	}
	t.Logf("%d flips", tried)
	both := clean.Restart()
	for _, name := range []string{"/log/meta.a", "/log/meta.b"} {
		if err := both.Flip(name, 100, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := segment.Open(imageConfig(both)); !errors.Is(err, log.ErrSuspect) {
		t.Fatalf("open with both copies of the meta damaged: %v", err)
	}
}

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
		bad := 0
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
