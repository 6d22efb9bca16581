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

// TestTwoHeadsGone: two heads of groups in a row are damaged, so that nobody can
// say whose entries were there: a replica without an entry behind takes no appends
// until its end is known; another one does not care.
func TestTwoHeadsGone(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	a, b := o.writer("a"), o.writer("b")
	for range 3 {
		if err := errors.Join(a.append(log.TopicData, true, body("a", a.next)), a.wait()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(b.append(log.TopicData, true, body("b", b.next)), b.wait(), o.stop()); err != nil {
		t.Fatal(err)
	}
	disk = disk.Restart()
	files, err := disk.List("/log")
	if err != nil {
		t.Fatal(err)
	}
	heads := 0
	for _, f := range files {
		if !strings.HasPrefix(f.Name, "journal-") {
			continue
		}
		content := disk.Bytes("/log/" + f.Name)
		for at := 8192; at+40 < len(content) && bytes.Contains(content, body("a", 2)); at += 4096 {
			if string(content[at+4:at+8]) != "TWGC" {
				continue
			}
			if heads++; heads == 2 || heads == 3 {
				if err := disk.Flip("/log/"+f.Name, int64(at)+9, 1); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if heads < 4 {
		t.Fatalf("%d groups", heads)
	}
	removeIndexes(t, disk)
	for range 2 {
		o = open(t, imageConfig(disk))
		ra := o.replica("a", 1)
		if _, _, err := o.Attach(ctx, ra.Descriptor(), 4); !errors.Is(err, log.ErrSuspect) {
			t.Fatalf("attach where the end is in doubt: %v", err)
		}
		if _, err := o.Seal(ctx, ra.Descriptor(), 4); !errors.Is(err, log.ErrSuspect) {
			t.Fatalf("seal where the end is in doubt: %v", err)
		}
		if w := o.writer("b"); w.next != 1 {
			t.Fatalf("the other one goes on at %d", w.next)
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart()
	}
	o = open(t, imageConfig(disk))
	ra := o.replica("a", 1)
	if err := ra.Close(ctx, 2, 2); err != nil {
		t.Fatal(err)
	}
	if i := ra.Info(); i.Suspect || !i.Complete {
		t.Fatalf("the end is known, and every entry was found: %+v", i)
	}
	expectAll(t, ra, 3)
}

func expectAll(t *testing.T, r *segment.Replica, n int) {
	t.Helper()
	got, err := readAll(r, segment.Query{})
	if err != nil || len(got) != n {
		t.Fatalf("%d entries, %v: want %d", len(got), err, n)
	}
}
