package segment_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

func retentionConfig(d *vfs.Disk) segment.Config {
	c := imageConfig(d)
	c.RetentionEvery = time.Hour // the test calls Trim
	c.Retention = segment.Retention{BytesMax: 128 << 10}
	c.IndexCacheBytes = 1 // every index is loaded again and again
	c.OpenFilesMax = 2
	return c
}

// append20 appends n entries of 4 KiB, every 20th to the schema topic.
func append20(t *testing.T, w *writer, n int) {
	t.Helper()
	for range n {
		topic := log.TopicData
		if w.next%20 == 0 {
			topic = log.TopicSchema
		}
		if err := w.append(topic, true, retentionPayload(w.next)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.wait(); err != nil {
		t.Fatal(err)
	}
}

func retentionPayload(o log.Offset) []byte {
	return fmt.Appendf(make([]byte, 0, 4<<10), "%d/%s", o, make([]byte, 4000))
}

func schemaOffsets(t *testing.T, o *opened, name string) []log.Offset {
	t.Helper()
	st, err := o.Stream(name)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := readAll(st, segment.Query{Topics: []log.Topic{log.TopicSchema}})
	if err != nil {
		t.Fatal(err)
	}
	var out []log.Offset
	for _, e := range entries {
		if string(e.Payload) != string(retentionPayload(e.Offset)) || e.Topic != log.TopicSchema {
			t.Fatalf("schema entry %d differs", e.Offset)
		}
		out = append(out, e.Offset)
	}
	return out
}

func TestRetention(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, retentionConfig(disk))
	w := o.writer("s")
	append20(t, w, 400)
	if err := o.Trim(); err != nil {
		t.Fatal(err)
	}
	if b := w.st.Bounds(); b.First != 0 {
		t.Fatalf("trimmed to %d although nobody has a cursor", b.First)
	}
	store := func(group string, at log.Offset) {
		t.Helper()
		if err := w.st.StoreCursor(log.Cursor{Group: group, Offset: at}); err != nil {
			t.Fatal(err)
		}
	}
	store("slow", 99)
	store("fast", 399)
	if err := o.Trim(); err != nil {
		t.Fatal(err)
	}
	first := w.st.Bounds().First
	if first == 0 || first > 100 {
		t.Fatalf("trimmed to %d, the slow cursor is at 99", first)
	}
	_, err := readAll(w.st, segment.Query{From: first - 1})
	if !errors.Is(err, log.ErrTrimmed) {
		t.Fatalf("read below the first entry: %v", err)
	}
	store("slow", 399)
	if err := o.Trim(); err != nil {
		t.Fatal(err)
	}
	kept := 400 - w.st.Bounds().First
	if bytes := int64(kept) * 4 << 10; bytes < 128<<10 || bytes > 320<<10 {
		t.Fatalf("%d entries kept", kept)
	}
	// The schema topic is whole, from the beginning, now and after a restart,
	// and after its entries moved again and again.
	for round := range 6 {
		want := int((w.next + 19) / 20)
		got := schemaOffsets(t, o, "s")
		if len(got) != want {
			t.Fatalf("round %d: schema entries %v, want %d", round, got, want)
		}
		for i, at := range got {
			if at != log.Offset(20*i) {
				t.Fatalf("round %d: schema entries %v", round, got)
			}
		}
		entries, err := readAll(w.st, segment.Query{From: w.st.Bounds().First})
		if err != nil || len(entries) != int(w.next-w.st.Bounds().First) {
			t.Fatalf("round %d: %d entries: %v", round, len(entries), err)
		}
		before := w.st.Bounds()
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart()
		o = open(t, retentionConfig(disk))
		w = o.writer("s")
		if b := w.st.Bounds(); b.First != before.First || b.LAC != before.LAC || b.LSO != before.LSO {
			t.Fatalf("bounds %+v, were %+v", b, before)
		}
		append20(t, w, 200)
		store("slow", w.next-1)
		store("fast", w.next-1)
		if err := o.Trim(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); o.Stats().DiskBytes > 1600<<10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("6.4 MiB went through, a fifth of which may be dense with kept entries, and %d bytes of files stay: %+v", o.Stats().DiskBytes, o.Stats())
		}
	}
}

// TestRetentionByAge keeps what is young.
func TestRetentionByAge(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	c := retentionConfig(vfs.NewDisk())
	c.Retention = segment.Retention{AgeMax: time.Hour}
	c.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	o := open(t, c)
	w := o.writer("s")
	append20(t, w, 200)
	if err := w.st.StoreCursor(log.Cursor{Group: "g", Offset: 199}); err != nil {
		t.Fatal(err)
	}
	if err := o.Trim(); err != nil {
		t.Fatal(err)
	}
	if b := w.st.Bounds(); b.First != 0 {
		t.Fatalf("young entries were trimmed to %d", b.First)
	}
	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	if err := o.Trim(); err != nil {
		t.Fatal(err)
	}
	if b := w.st.Bounds(); b.First == 0 || b.First > 190 {
		t.Fatalf("old entries were trimmed to %d", b.First)
	}
}

// TestTrimKeepsTransactions never leaves a first entry in mid-transaction.
func TestTrimKeepsTransactions(t *testing.T) {
	o := open(t, retentionConfig(vfs.NewDisk()))
	w := o.writer("s")
	const chunk = 50 // entries of a transaction: more than a file holds
	for range 8 * chunk {
		if err := w.append(log.TopicData, w.next%chunk == chunk-1, retentionPayload(w.next)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.wait(), w.st.StoreCursor(log.Cursor{Group: "g", Offset: 8*chunk - 1}), o.Trim()); err != nil {
		t.Fatal(err)
	}
	if f := w.st.Bounds().First; f%chunk != 0 {
		t.Fatalf("trimmed to %d, in the middle of a transaction of %d entries", f, chunk)
	}
}

// TestReadersDuringTrim reads while files are trimmed and used again under the
// readers: right bytes or ErrTrimmed.
func TestReadersDuringTrim(t *testing.T) {
	c := retentionConfig(vfs.NewDisk())
	c.RetentionEvery = time.Millisecond
	o := open(t, c)
	w := o.writer("s")
	append20(t, w, 50)
	stop := make(chan struct{})
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				b := w.st.Bounds()
				from := b.First + log.Offset(r.Int64N(int64(b.LAC-b.First+1)))
				entries, _, _, err := w.st.Read(segment.Query{From: from}, nil, nil)
				if errors.Is(err, log.ErrTrimmed) {
					continue
				}
				if err != nil || len(entries) == 0 {
					t.Errorf("read from %d of %+v: %d entries, %v", from, b, len(entries), err)
					return
				}
				for j, e := range entries {
					if e.Offset != from+log.Offset(j) || string(e.Payload) != string(retentionPayload(e.Offset)) {
						t.Errorf("entry %d is not what was written", e.Offset)
						return
					}
				}
			}
		})
	}
	for range 60 {
		append20(t, w, 50)
		if err := w.st.StoreCursor(log.Cursor{Group: "g", Offset: w.next - 1}); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	all.Wait()
	if o.Stats().Trimmed == 0 {
		t.Fatal("nothing was trimmed")
	}
}

// TestSegmentsRoll closes segments that grew large and keeps the stream whole.
func TestSegmentsRoll(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.Retention = segment.Retention{}
	o := open(t, c)
	w := o.writer("s")
	for range 10 {
		append20(t, w, 30)
	}
	var status segment.Status
	for deadline := time.Now().Add(5 * time.Second); status.Segment < 3; time.Sleep(time.Millisecond) {
		append20(t, w, 1)
		var err error
		if status, _, err = w.st.Status(); err != nil || time.Now().After(deadline) {
			t.Fatalf("segment %d: %v", status.Segment, err)
		}
	}
	entries, err := readAll(w.st, segment.Query{})
	if err != nil || len(entries) != int(w.next) {
		t.Fatalf("%d entries, want %d: %v", len(entries), w.next, err)
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	o = open(t, func() segment.Config { c := c; c.FS = disk.Restart(); return c }())
	_, after, err := o.Fence(context.Background(), "s", 0, false)
	if err != nil || after.Segment < status.Segment || after.Last != w.next-1 {
		t.Fatalf("after a restart: %+v, %v", after, err)
	}
}

// TestClockJumps: a node's clock that leaps by years, both ways, takes away
// nothing that a reader still needs, and the order does not ask the clock.
func TestClockJumps(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	disk := vfs.NewDisk()
	c := retentionConfig(disk)
	c.Retention = segment.Retention{AgeMax: time.Hour}
	c.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	o := open(t, c)
	const cursor = 99
	for i, leap := range []time.Duration{0, -10 * 365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour, -5 * 365 * 24 * time.Hour} {
		mu.Lock()
		now = now.Add(leap)
		mu.Unlock()
		w := o.writer("s")
		append20(t, w, 100)
		if i == 0 {
			if err := w.st.StoreCursor(log.Cursor{Group: "g", Offset: cursor}); err != nil {
				t.Fatal(err)
			}
		}
		if err := o.Trim(); err != nil {
			t.Fatal(err)
		}
		b := w.st.Bounds()
		if b.First > cursor+1 || b.LAC != log.Offset(100*(i+1)-1) {
			t.Fatalf("after a leap of %s: bounds %+v", leap, b)
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		o = open(t, c)
	}
	w := o.writer("s")
	next := log.Offset(cursor + 1)
	q := segment.Query{From: next, BytesMax: 64 << 10}
	for next < w.next {
		entries, _, from, err := w.st.Read(q, nil, nil)
		if err != nil || len(entries) == 0 {
			t.Fatalf("at %d: %d entries, %v", next, len(entries), err)
		}
		for _, e := range entries {
			if e.Offset != next {
				t.Fatalf("entry %d where %d should come", e.Offset, next)
			}
			next++
		}
		q.From = from
	}
}
