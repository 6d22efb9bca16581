package segment_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

var ctx = context.Background()

func fill(t testing.TB, w *writer, n int) {
	t.Helper()
	for range n {
		topic := log.TopicData
		if w.next%20 == 0 {
			topic = log.TopicSchema
		}
		if err := w.append(topic, w.next%5 == 4, body(w.r.ID().Stream, w.next)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.wait(); err != nil {
		t.Fatal(err)
	}
}

// body is what an entry must hold, whoever wrote it.
func body(stream string, o log.Offset) []byte {
	return fmt.Appendf(make([]byte, 0, 1<<10), "%s/%d/%0*d", stream, o, 50+int(o)*211%900, o)
}

// expect reads a replica and compares every entry.
func expect(t testing.TB, r *segment.Replica, q segment.Query, first, last log.Offset) {
	t.Helper()
	q.From = first
	got, err := readAll(r, q)
	if err != nil || len(got) != int(last-first+1) {
		t.Fatalf("%s: %d entries from %d, want up to %d: %v", r.ID(), len(got), first, last, err)
	}
	for i, e := range got {
		o := first + log.Offset(i)
		if e.Offset != o || string(e.Payload) != string(body(r.ID().Stream, o)) || e.EndsTransaction != (o%5 == 4) || e.Epoch != r.Descriptor().Epoch {
			t.Fatalf("%s: entry %d at the place of %d, or another one", r.ID(), e.Offset, o)
		}
	}
}

func (o *opened) replica(stream string, n uint32) *segment.Replica {
	o.t.Helper()
	r, err := o.Replica(segment.ID{Stream: stream, Segment: n})
	if err != nil {
		o.t.Fatal(err)
	}
	return r
}

// TestFences: what an older epoch appends is refused from the moment a seal of a
// newer one answers, here and after a restart, also where the segment was not
// known before.
func TestFences(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	d := describe("s", 1, 0, log.None, 3, 3)
	w := o.attach(d, 3)
	fill(t, w, 10)
	again := o.attach(d, 3) // the same writer, on a new connection
	if again.next != 10 {
		t.Fatalf("it goes on at %d", again.next)
	}
	again.next = 8 // entries that are here already are no error, and are not stored again
	fill(t, again, 5)
	sealed, err := o.Seal(ctx, d, 5)
	if err != nil || sealed != (segment.Sealed{Last: 12, LAC: 12, LSO: 9}) {
		t.Fatalf("%+v, %v", sealed, err)
	}
	if sealed, err = o.Seal(ctx, d, 5); err != nil || sealed.Last != 12 {
		t.Fatalf("sealed twice: %+v, %v", sealed, err)
	}
	for _, err := range []error{
		w.append(log.TopicData, true, body("s", 13)), again.append(log.TopicData, true, body("s", 13)),
		w.r.Confirm(3, 12),
	} {
		if !errors.Is(err, log.ErrFenced) {
			t.Fatalf("the old epoch gets %v", err)
		}
	}
	if p, _, _ := w.r.Progress(3); !errors.Is(p.Err, log.ErrFenced) {
		t.Fatalf("progress of the old epoch: %+v", p)
	}
	if _, _, err := o.Attach(ctx, d, 3); !errors.Is(err, log.ErrFenced) {
		t.Fatalf("attach of the old epoch: %v", err)
	}
	if _, err := o.Seal(ctx, d, 4); !errors.Is(err, log.ErrFenced) {
		t.Fatalf("seal of an epoch between: %v", err)
	}
	// A segment nobody told this node of.
	unknown := describe("s", 2, 13, 9, 5, 3)
	if sealed, err := o.Seal(ctx, unknown, 9); err != nil || sealed.Last != 12 || sealed.LSO != 9 {
		t.Fatalf("%+v, %v", sealed, err)
	}
	other := d
	other.Rule.Total = 3
	if _, err := o.Seal(ctx, other, 9); !errors.Is(err, log.ErrProtocol) {
		t.Fatalf("another descriptor of the same segment: %v", err)
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	o = open(t, imageConfig(disk.Restart()))
	for _, c := range []struct {
		d     quorum.Descriptor
		epoch log.Epoch
		fails bool
	}{{d, 4, true}, {unknown, 8, true}, {d, 5, false}, {unknown, 9, false}} {
		if _, _, err := o.Attach(ctx, c.d, c.epoch); errors.Is(err, log.ErrFenced) != c.fails || err != nil && !c.fails {
			t.Fatalf("segment %d, epoch %d after a restart: %v", c.d.Segment, c.epoch, err)
		}
	}
	expect(t, o.replica("s", 1), segment.Query{}, 0, 12)
}

// TestClose: entries above the end are gone, ones below it are known to be missing.
func TestClose(t *testing.T) {
	for _, archive := range []bool{false, true} {
		t.Run(fmt.Sprintf("archived %v", archive), func(t *testing.T) {
			disk := vfs.NewDisk()
			c := imageConfig(disk)
			o := open(t, c)
			long := o.attach(describe("long", 1, 0, log.None, 1, 3), 1)
			for range 30 {
				if err := long.append(log.TopicData, long.next%5 == 4, body("long", long.next)); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(long.durable(), long.r.Close(ctx, 19, 19)); err != nil {
				t.Fatal(err)
			}
			short := o.attach(describe("short", 1, 0, log.None, 1, 3), 1)
			fill(t, short, 10)
			if err := errors.Join(short.r.Close(ctx, 19, 19), short.r.Close(ctx, 19, 19)); err != nil {
				t.Fatal(err)
			}
			if err := short.r.Close(ctx, 20, 19); !errors.Is(err, log.ErrProtocol) {
				t.Fatalf("closed at another end: %v", err)
			}
			for life := range 3 {
				long, short := o.replica("long", 1), o.replica("short", 1)
				expect(t, long, segment.Query{}, 0, 19)
				expect(t, long, segment.Query{Unconfirmed: true}, 0, 19)
				if i := long.Info(); !i.Complete || i.Last != 19 || i.Held != 19 || len(i.Missing) > 0 || i.Archived != (archive && life > 0) {
					t.Fatalf("life %d: %+v", life, i)
				}
				got, err := readAll(short, segment.Query{})
				if len(got) != 10 || !errors.Is(err, log.ErrElsewhere) {
					t.Fatalf("life %d: %d entries, %v", life, len(got), err)
				}
				if i := short.Info(); i.Complete || i.Held != 9 || len(i.Missing) != 1 || i.Missing[0] != (segment.Range{First: 10, Last: 19}) {
					t.Fatalf("life %d: %+v", life, i)
				}
				if _, _, err := o.Attach(ctx, long.Descriptor(), 1); !errors.Is(err, log.ErrClosed) {
					t.Fatalf("attach of a closed segment: %v", err)
				}
				if sealed, err := o.Seal(ctx, short.Descriptor(), 8); err != nil || !sealed.Closed || sealed.Last != 9 || sealed.End != 19 {
					t.Fatalf("%+v, %v", sealed, err)
				}
				if err := o.stop(); err != nil {
					t.Fatal(err)
				}
				disk = disk.Restart()
				c.FS = disk
				if archive {
					c.ClosedMax = 1
				}
				o = open(t, c)
				if archive && life == 0 {
					await(t, func() bool { return o.Stats().Archived >= 1 })
					c.JournalBytes = 1
					if err := o.stop(); err != nil {
						t.Fatal(err)
					}
					o = open(t, c)
					// An open segment that spans files makes the journal large.
					w := o.writer("more")
					for range 8 {
						fill(t, w, 50)
					}
					await(t, func() bool { return o.Stats().Archived == 2 })
				}
			}
		})
	}
}

// TestAppendDuringClose: an entry below the end that comes while the end is being
// stored, and is stored after it, is taken, as a seal that waits is answered.
func TestAppendDuringClose(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	d := describe("s", 1, 0, log.None, 1, 3)
	w := o.attach(d, 1)
	fill(t, w, 10)
	meta, journal := make(chan struct{}), make(chan struct{}) // closed to let their writes pass
	reached := make(chan string, 64)                          // names of files that wait to be written; bound: more than there are writes
	disk.SetHook(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpWrite {
			gate := journal
			if strings.Contains(op.Name, "meta") {
				gate = meta
			}
			select {
			case <-gate:
			default:
				reached <- op.Name
				<-gate
			}
		}
		return vfs.Fault{}
	})
	closed := make(chan error, 1)
	go func() { closed <- w.r.Close(ctx, 19, 19) }()
	for !strings.Contains(<-reached, "meta") {
		// The journal may be about to write, too; the end is on its way to the disk behind it.
	}
	if err := w.append(log.TopicData, true, body("s", 10)); err != nil {
		t.Fatal(err)
	}
	sealed := make(chan error, 1)
	go func() {
		s, err := o.Seal(ctx, d, 5)
		if err == nil && (s.Last != 10 || !s.Closed || s.End != 19) {
			err = fmt.Errorf("sealed as %+v", s)
		}
		sealed <- err
	}()
	close(meta)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	close(journal)
	if err := <-sealed; err != nil {
		t.Fatal(err)
	}
	if i := w.r.Info(); i.Held != 10 || !i.Closed || len(i.Missing) != 1 || i.Missing[0] != (segment.Range{First: 11, Last: 19}) {
		t.Fatalf("%+v", i)
	}
	disk.SetHook(nil)
}

func await(t testing.TB, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Helper()
			t.Fatal("it does not come to pass")
		}
	}
}

// TestLeaveTheJournal: closed segments move to files of their own, a quiet open one
// moves its older part, and the journal stays small; all of it reads the same.
func TestLeaveTheJournal(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	c.JournalBytes = 256 << 10
	c.OpenFilesMax = 2
	c.IndexCacheBytes = 1
	o := open(t, c)
	quiet := o.attach(describe("quiet/µ", 1, 0, log.None, 1, 1), 1)
	var ends []log.Offset
	for n := range uint32(12) {
		first := log.Offset(0)
		if n > 0 {
			first = ends[n-1] + 1
		}
		w := o.attach(describe("busy", n+1, first, first-1, 1, 1), 1)
		for range 6 {
			fill(t, w, 50)
			fill(t, quiet, 1)
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, w.next-1)
	}
	check := func() {
		t.Helper()
		first := log.Offset(0)
		for n, last := range ends {
			r := o.replica("busy", uint32(n+1))
			expect(t, r, segment.Query{}, first, last)
			expect(t, r, segment.Query{Unconfirmed: true}, (first+last)/2, last)
			if got, err := readAll(r, segment.Query{From: first, Topics: []log.Topic{log.TopicSchema}}); err != nil || len(got) != 15 {
				t.Fatalf("segment %d: %d schema entries, %v", n+1, len(got), err)
			}
			if got, err := readAll(r, segment.Query{From: first, Committed: true, To: first + 13}); err != nil || len(got) != 13 {
				t.Fatalf("segment %d: %d entries below the end asked for, %v", n+1, len(got), err)
			}
			if i := r.Info(); !i.Complete || i.Last != last || !i.MayHold(log.TopicSchema) || i.MayHold(log.TopicExceptions) || i.Entries != 300 {
				t.Fatalf("%+v", i)
			}
			first = last + 1
		}
		expect(t, o.replica("quiet/µ", 1), segment.Query{}, 0, quiet.next-1)
	}
	await(t, func() bool { s := o.Stats(); return s.DiskBytes-s.OwnBytes <= 256<<10+4*64<<10 })
	if s := o.Stats(); s.Archived < 6 || s.OwnRatio < 2 || s.Archivings < 7 {
		t.Fatalf("%+v", s)
	}
	check()
	for range 2 {
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart()
		c.FS = disk
		o = open(t, c)
		check()
		quiet = o.attach(describe("quiet/µ", 1, 0, log.None, 1, 1), 1)
		fill(t, quiet, 3)
	}
	for _, i := range o.Replicas() {
		if i.Suspect || i.Closed != (i.Stream == "busy") {
			t.Fatalf("%+v", i)
		}
	}
}

// TestCompactAndDrop: a compaction leaves the schema topic, a drop leaves nothing
// but the refusal to make the segment anew; both survive a restart.
func TestCompactAndDrop(t *testing.T) {
	disk := vfs.NewDisk()
	c := imageConfig(disk)
	o := open(t, c)
	d1, d2 := describe("s", 1, 0, log.None, 2, 1), describe("s", 2, 100, 99, 2, 1)
	for _, d := range []quorum.Descriptor{d1, d2} {
		w := o.attach(d, 2)
		fill(t, w, 100)
		if err := w.r.Compact(ctx, []log.Topic{log.TopicSchema}, 0); !errors.Is(err, log.ErrProtocol) {
			t.Fatalf("compaction of an open segment: %v", err)
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(o.replica("s", 2).Compact(ctx, []log.Topic{log.TopicSchema}, 0), o.replica("s", 2).Compact(ctx, []log.Topic{log.TopicSchema}, 0)); err != nil {
		t.Fatal(err)
	}
	gone := o.replica("s", 1)
	if err := gone.Drop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := gone.Drop(ctx); !errors.Is(err, log.ErrElsewhere) {
		t.Fatalf("dropped twice: %v", err)
	}
	if _, err := readAll(gone, segment.Query{}); !errors.Is(err, log.ErrElsewhere) {
		t.Fatalf("read of a dropped replica: %v", err)
	}
	for life := range 2 {
		r := o.replica("s", 2)
		got, err := readAll(r, segment.Query{From: 100, Topics: []log.Topic{log.TopicSchema}})
		if err != nil || len(got) != 5 || got[1].Offset != 120 {
			t.Fatalf("life %d: %d schema entries, %v", life, len(got), err)
		}
		if got, err = readAll(r, segment.Query{From: 100, Unconfirmed: true}); err != nil || len(got) != 5 {
			t.Fatalf("life %d: %d entries for a peer, %v", life, len(got), err)
		}
		if _, err := readAll(r, segment.Query{From: 100}); !errors.Is(err, log.ErrTrimmed) {
			t.Fatalf("life %d: read of everything: %v", life, err)
		}
		if i := r.Info(); !i.Compacted || !i.Complete || i.Entries != 5 || i.Last != 199 || i.LSO != 199 {
			t.Fatalf("life %d: %+v", life, i)
		}
		for _, epoch := range []log.Epoch{2, 9} {
			if _, _, err := o.Attach(ctx, d1, epoch); !errors.Is(err, log.ErrFenced) {
				t.Fatalf("life %d: attach of a dropped segment at epoch %d: %v", life, epoch, err)
			}
			if _, err := o.Seal(ctx, d1, epoch); !errors.Is(err, log.ErrFenced) {
				t.Fatalf("life %d: seal of a dropped segment at epoch %d: %v", life, epoch, err)
			}
		}
		if _, err := o.Replica(segment.ID{Stream: "s", Segment: 1}); !errors.Is(err, log.ErrElsewhere) {
			t.Fatalf("life %d: %v", life, err)
		}
		if len(o.Replicas()) != 1 {
			t.Fatalf("life %d: %+v", life, o.Replicas())
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart()
		c.FS = disk
		o = open(t, c)
	}
	if got := o.Stats().Trimmed; got != 0 {
		t.Fatalf("counters start at Open: %d", got)
	}
}

// source is a peer that has all of a segment.
func source(r *segment.Replica, calls *int) segment.Fetch {
	return func(_ context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
		*calls++
		entries, _, next, err := r.Read(segment.Query{From: from, To: to, Unconfirmed: true, BytesMax: 8 << 10}, nil, nil)
		return entries, next, err
	}
}

// TestWhatIsLeft: of a segment whose newest entries nobody has a node is given the
// others, which may be compacted; both survive a restart.
func TestWhatIsLeft(t *testing.T) {
	a, b := vfs.NewDisk(), vfs.NewDisk()
	from, to := open(t, imageConfig(a)), open(t, imageConfig(b))
	d := describe("s", 1, 0, log.None, 6, 3)
	w := from.attach(d, 6)
	fill(t, w, 62)
	if err := w.r.Close(ctx, 99, 99); err != nil {
		t.Fatal(err)
	}
	for _, lost := range []int64{-1, 101} {
		if _, err := to.Repair(ctx, segment.Copied{Descriptor: d, Last: 99, LSO: 99, Lost: lost}, nil); !errors.Is(err, log.ErrProtocol) {
			t.Fatalf("%d entries lost: %v", lost, err)
		}
	}
	calls := 0
	c := segment.Copied{Descriptor: d, Last: 99, LSO: 99, Lost: 37}
	if _, err := to.Repair(ctx, c, source(w.r, &calls)); !errors.Is(err, log.ErrElsewhere) {
		t.Fatalf("more than there is: %v", err)
	}
	c.Lost = 38
	for range 2 { // the second time there is nothing to do
		calls = 0
		if _, err := to.Repair(ctx, c, source(w.r, &calls)); err != nil {
			t.Fatal(err)
		}
	}
	if calls > 0 {
		t.Fatal("what is left is copied again")
	}
	restart := func() *segment.Replica {
		if err := to.stop(); err != nil {
			t.Fatal(err)
		}
		b = b.Restart()
		to = open(t, imageConfig(b))
		r := to.replica("s", 1)
		if i := r.Info(); !i.Closed || i.Complete || i.Suspect || i.Held != 61 || i.Last != 99 || i.EndLSO != 99 || i.Bytes == 0 {
			t.Fatalf("%+v", i)
		}
		return r
	}
	r := restart()
	expect(t, r, segment.Query{To: 62}, 0, 61)
	if i := r.Info(); i.LSO != 59 {
		t.Fatalf("the newest end of a transaction that is left: %+v", i)
	}
	expect(t, r, segment.Query{Committed: true, To: 60}, 0, 59)
	schema := []log.Topic{log.TopicSchema}
	if err := r.Compact(ctx, schema, 37); !errors.Is(err, log.ErrElsewhere) {
		t.Fatalf("compaction of what lacks an entry: %v", err)
	}
	if err := r.Compact(ctx, schema, 38); err != nil {
		t.Fatal(err)
	}
	r = restart()
	if got, err := readAll(r, segment.Query{Topics: schema, To: 62}); err != nil || len(got) != 4 || got[3].Offset != 60 {
		t.Fatalf("%d schema entries, %v", len(got), err)
	}
	if err := r.Close(ctx, 99, 99); err != nil { // the metadata says so again and again
		t.Fatal(err)
	}
	if err := errors.Join(from.stop(), to.stop()); err != nil {
		t.Fatal(err)
	}
}

// TestRepair: a node that has nothing of a segment, or the beginning, or damage in
// the middle, gets the rest from a peer, and no more than that.
func TestRepair(t *testing.T) {
	a, b := vfs.NewDisk(), vfs.NewDisk()
	from, to := open(t, imageConfig(a)), open(t, imageConfig(b))
	d := describe("s", 4, 50, 44, 6, 3)
	w := from.attach(d, 6)
	fill(t, w, 200)
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	c := segment.Copied{Descriptor: d, Last: 249, LSO: 249}
	calls := 0
	failing := func(context.Context, log.Offset, log.Offset) ([]segment.Stored, log.Offset, error) {
		return nil, 0, log.ErrUnavailable
	}
	if _, err := to.Repair(ctx, c, failing); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("a peer that fails: %v", err)
	}
	if _, err := to.Replica(segment.ID{Stream: "s", Segment: 4}); !errors.Is(err, log.ErrElsewhere) {
		t.Fatalf("a failed repair leaves %v", err)
	}
	for name, spoil := range map[string]func([]segment.Stored) []segment.Stored{
		"a gap":         func(e []segment.Stored) []segment.Stored { return e[1:] },
		"a short one":   func(e []segment.Stored) []segment.Stored { return e[:len(e)-1] },
		"other bytes":   func(e []segment.Stored) []segment.Stored { e[0].Payload = []byte("x"); return e },
		"another epoch": func(e []segment.Stored) []segment.Stored { e[0].Epoch++; return e },
	} {
		good := source(w.r, &calls)
		_, err := to.Repair(ctx, c, func(ctx context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
			e, next, err := good(ctx, from, to)
			return spoil(e), next, err
		})
		if !errors.Is(err, log.ErrSuspect) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	good := source(w.r, &calls)
	r, err := to.Repair(ctx, c, func(ctx context.Context, from, last log.Offset) ([]segment.Stored, log.Offset, error) {
		// What the repair makes is not durable yet: no fence may hang on it.
		if _, err := to.Seal(ctx, d, 9); !errors.Is(err, log.ErrUnavailable) {
			t.Errorf("seal in mid-repair: %v", err)
		}
		return good(ctx, from, last)
	})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, segment.Query{}, 50, 249)
	calls = 0
	if _, err := to.Repair(ctx, c, source(w.r, &calls)); err != nil || calls > 0 {
		t.Fatalf("a whole replica is copied again: %d, %v", calls, err)
	}
	if err := to.stop(); err != nil {
		t.Fatal(err)
	}
	b = b.Restart()
	to = open(t, imageConfig(b))
	expect(t, to.replica("s", 4), segment.Query{}, 50, 249)
	if err := to.replica("s", 4).Drop(ctx); err != nil {
		t.Fatal(err)
	}

	// The beginning is here, and the segment was not known to be closed.
	d2 := describe("s", 5, 250, 249, 6, 3)
	part, whole := to.attach(d2, 6), from.attach(d2, 6)
	fill(t, part, 30)
	fill(t, whole, 90)
	if err := whole.end(); err != nil {
		t.Fatal(err)
	}
	var asked []log.Offset
	good = source(whole.r, &calls)
	r, err = to.Repair(ctx, segment.Copied{Descriptor: d2, Last: 339, LSO: 339}, func(ctx context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
		asked = append(asked, from)
		return good(ctx, from, to)
	})
	if err != nil || asked[0] != 280 {
		t.Fatalf("it asked for %v: %v", asked, err)
	}
	expect(t, r, segment.Query{}, 250, 339)
	if i := r.Info(); !i.Complete || !i.Archived {
		t.Fatalf("%+v", i)
	}
	part.next = 340
	if err := part.append(log.TopicData, true, []byte("x")); !errors.Is(err, log.ErrClosed) {
		t.Fatalf("append behind the end: %v", err)
	}
	// A compacted one.
	if err := whole.r.Compact(ctx, []log.Topic{log.TopicSchema}, 0); err != nil {
		t.Fatal(err)
	}
	third := open(t, imageConfig(vfs.NewDisk()))
	r, err = third.Repair(ctx, segment.Copied{Descriptor: d2, Last: 339, LSO: 339, Kept: []log.Topic{log.TopicSchema}}, source(whole.r, &calls))
	if err != nil {
		t.Fatal(err)
	}
	if i := r.Info(); !i.Complete || !i.Compacted || i.Entries != whole.r.Info().Entries {
		t.Fatalf("%+v", i)
	}
}

// TestGeneration only grows.
func TestGeneration(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	if err := errors.Join(o.SetGeneration(ctx, 3), o.SetGeneration(ctx, 3)); err != nil {
		t.Fatal(err)
	}
	if err := o.SetGeneration(ctx, 2); !errors.Is(err, log.ErrGeneration) {
		t.Fatalf("an older generation: %v", err)
	}
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	if o = open(t, imageConfig(disk.Restart())); o.Generation() != 3 {
		t.Fatalf("generation %d after a restart", o.Generation())
	}
}

// TestEmptyOwnFile: a compaction may leave nothing, and that is read like anything.
func TestEmptyOwnFile(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	w := o.attach(describe("s", 1, 1, 0, 1, 1), 1)
	for range 3 {
		if err := w.append(log.TopicData, true, body("s", w.next)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.wait(), w.end(), w.r.Compact(ctx, []log.Topic{log.TopicSchema}, 0)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		q := segment.Query{From: 1, Topics: []log.Topic{log.TopicSchema}}
		entries, _, next, err := o.replica("s", 1).Read(q, nil, nil)
		if err != nil || len(entries) > 0 || next != 4 {
			t.Fatalf("%d entries, next %d, %v", len(entries), next, err)
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
		disk = disk.Restart()
		o = open(t, imageConfig(disk))
	}
}
