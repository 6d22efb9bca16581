package segment_test

import (
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

// damageDisk holds three streams, damageEntries each, over several files, closed
// cleanly.
func damageDisk(t *testing.T) *vfs.Disk {
	t.Helper()
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.Retention = segment.Retention{}
	o := open(t, c)
	var ws []*writer
	for _, n := range []string{"a", "b", "c"} {
		ws = append(ws, o.writer(n))
	}
	for i := range damageEntries {
		for j, w := range ws {
			if j == 2 && i >= 10 && i < damageEntries-1 {
				continue // a quiet stream: a few entries at the start
			}
			if err := w.append(log.TopicData, true, damagePayload(w.st.Name(), w.next)); err != nil {
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
		c := imageConfig(d)
		c.Retention = segment.Retention{}
		s, err := segment.Open(c)
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
		st, err := s.Stream(name)
		if err != nil {
			return hurt, err
		}
		bad := 0
		for o := log.Offset(0); o < want; {
			entries, _, next, err := st.Read(segment.Query{From: o}, nil, nil)
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
		_, status, err := s.Fence(ctx, name, 0, false)
		cancel()
		if err != nil || status.Last < want-1 {
			return hurt, fmt.Errorf("stream %s: a writer would go on behind %d of %d: %w", name, status.Last, want-1, err)
		}
	}
	return hurt, nil
}

// TestLostFiles removes whole journal files: what they held is suspect, not
// absent, and a stream that may have ended there takes no writer.
func TestLostFiles(t *testing.T) {
	clean := damageDisk(t)
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
			c := imageConfig(d)
			c.Retention = segment.Retention{}
			o := open(t, c)
			lost := 0
			for _, name := range []string{"a", "b", "c"} {
				want := log.Offset(damageEntries)
				if name == "c" {
					want = 11
				}
				st, err := o.Stream(name)
				if err != nil {
					t.Fatal(err)
				}
				whole := true
				for at := log.Offset(0); at < want; at++ {
					entries, _, _, err := st.Read(segment.Query{From: at, BytesMax: 1}, nil, nil)
					if errors.Is(err, log.ErrSuspect) {
						whole = false
						lost++
						continue
					}
					if err != nil || len(entries) == 0 || string(entries[0].Payload) != string(damagePayload(name, at)) {
						t.Fatalf("stream %s entry %d: %d entries, %v", name, at, len(entries), err)
					}
				}
				status, _, err := st.Status()
				if err != nil {
					t.Fatal(err)
				}
				_, after, err := o.Fence(context.Background(), name, 0, false)
				if status.Suspect != errors.Is(err, log.ErrSuspect) {
					t.Fatalf("stream %s: suspect %v, fence %v", name, status.Suspect, err)
				}
				if err == nil && after.Last != want-1 {
					t.Fatalf("stream %s: a writer would go on behind %d of %d (whole %v)", name, after.Last, want-1, whole)
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
			c.Retention = segment.Retention{}
			c.IndexCacheBytes = 1
			o := open(t, c)
			for _, name := range []string{"a", "b", "c"} {
				st, err := o.Stream(name)
				if err != nil {
					t.Fatalf("%s, byte %d: %v", f.Name, at, err)
				}
				if b := st.Bounds(); b.Epoch != 1 {
					t.Fatalf("%s, byte %d: stream %s is at epoch %d", f.Name, at, name, b.Epoch)
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
