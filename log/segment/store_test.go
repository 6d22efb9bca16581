package segment_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

// opened is a running store that the test's end closes.
type opened struct {
	*segment.Store
	t    testing.TB
	ran  chan error // Run's result; closed by no one, room for it
	done bool
}

func open(t testing.TB, c segment.Config) *opened {
	t.Helper()
	if c.Name == "" {
		c.Name = "a1"
	}
	if c.FileBytes == 0 {
		c.FileBytes = 1 << 20
	}
	if c.Logger.GetLevel() == zerolog.TraceLevel {
		c.Logger = zerolog.Nop()
	}
	s, err := segment.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	o := &opened{Store: s, t: t, ran: make(chan error, 1)}
	go func() { o.ran <- s.Run(context.Background()) }()
	t.Cleanup(func() {
		if !o.done {
			_ = o.stop()
		}
	})
	return o
}

func (o *opened) stop() error {
	o.done = true
	if err := o.Store.Close(); err != nil {
		return err
	}
	return <-o.ran
}

var members = []quorum.Member{
	{Node: "a1", UUID: "a1", City: "a"}, {Node: "a2", UUID: "a2", City: "a"}, {Node: "b1", UUID: "b1", City: "b"},
}

// describe makes a descriptor of a segment with that many members.
func describe(stream string, number uint32, first, lso log.Offset, epoch log.Epoch, nodes int) quorum.Descriptor {
	return quorum.Descriptor{
		Stream: stream, Segment: number, First: first, FirstLSO: lso, Epoch: epoch, Generation: 1,
		Members: members[:nodes], Rule: quorum.NodeRule{Total: nodes/2 + 1}, Protected: true,
	}
}

// writer appends to one replica and confirms when told.
type writer struct {
	r     *segment.Replica
	epoch log.Epoch
	next  log.Offset
	lac   log.Offset
	lso   log.Offset // of what was appended
}

func (o *opened) attach(d quorum.Descriptor, epoch log.Epoch) *writer {
	o.t.Helper()
	r, last, err := o.Attach(context.Background(), d, epoch)
	if err != nil {
		o.t.Fatal(err)
	}
	return &writer{r, epoch, last + 1, r.Info().LAC, r.Info().LSO}
}

// writer attaches the first segment of a stream.
func (o *opened) writer(stream string) *writer {
	o.t.Helper()
	return o.attach(describe(stream, 1, 0, log.None, 1, 1), 1)
}

func (w *writer) append(topic log.Topic, ends bool, payload []byte) error {
	err := w.r.Append(context.Background(), &segment.Append{
		Epoch: w.epoch, Offset: w.next, LAC: w.lac, Topic: topic, Ends: ends, Time: time.Now().UnixMicro(),
		Checksum: segment.Checksum(payload), Payload: payload,
	})
	if err == nil {
		if ends {
			w.lso = w.next
		}
		w.next++
	}
	return err
}

// durable blocks until everything appended is.
func (w *writer) durable() error {
	for {
		p, changed, err := w.r.Progress(w.epoch)
		if err = errors.Join(err, p.Err); err != nil {
			return err
		}
		if p.Last >= w.next-1 {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			return fmt.Errorf("nothing durable beyond %d of %d", p.Last, w.next-1)
		}
	}
}

// wait blocks until everything appended is durable, and confirms it.
func (w *writer) wait() error {
	if err := w.durable(); err != nil {
		return err
	}
	w.lac = w.next - 1
	return w.r.Confirm(w.epoch, w.lac)
}

// end closes the segment behind what was appended.
func (w *writer) end() error { return w.r.Close(context.Background(), w.next-1, w.lso) }

// readAll reads a replica from an offset up to what may be shown.
func readAll(r *segment.Replica, q segment.Query) ([]log.Entry, error) {
	var out []log.Entry
	for {
		entries, _, next, err := r.Read(q, nil, nil)
		if err != nil {
			return out, err
		}
		for _, e := range entries {
			out = append(out, e.Entry)
		}
		if next <= q.From {
			return out, nil
		}
		q.From = next
	}
}

func payload(stream string, i int) []byte {
	return fmt.Appendf(nil, "%s/%d/%s", stream, i, string(make([]byte, i*37%900)))
}

func TestAppendReadReopen(t *testing.T) {
	c := segment.Config{Dir: t.TempDir()}
	total := 0
	for life := range 4 {
		o := open(t, c)
		a, b := o.writer("a"), o.writer("b")
		if int(a.next) != total {
			t.Fatalf("life %d: next offset %d, want %d", life, a.next, total)
		}
		for range 3000 {
			for _, w := range []*writer{a, b} {
				if err := w.append(log.TopicData, w.next%3 == 0, payload(w.r.ID().Stream, int(w.next))); err != nil {
					t.Fatal(err)
				}
			}
			total++
		}
		if err := errors.Join(a.wait(), b.wait()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			r, err := o.Replica(segment.ID{Stream: name, Segment: 1})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(r, segment.Query{})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != total {
				t.Fatalf("life %d stream %s: %d entries, want %d", life, name, len(got), total)
			}
			for i, e := range got {
				if string(e.Payload) != string(payload(name, i)) || e.Offset != log.Offset(i) || e.EndsTransaction != (i%3 == 0) || e.Epoch != 1 {
					t.Fatalf("stream %s entry %d differs", name, i)
				}
			}
			if i := r.Info(); i.LSO != log.Offset((total-1)/3*3) || i.LAC != log.Offset(total-1) || i.Held != i.LAC || i.Entries != int64(total) {
				t.Fatalf("info %+v", i)
			}
		}
		if err := o.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkAppend1KiB(b *testing.B) {
	o := open(b, segment.Config{Dir: b.TempDir(), FileBytes: 64 << 20})
	w := o.writer("a")
	p := make([]byte, 1024)
	b.SetBytes(1024)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := w.append(log.TopicData, true, p); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(b.N)/float64(max(1, o.Stats().Syncs)), "appends/sync")
}

// TestConfirmed: readers see what is confirmed, never more, and the LSO follows.
func TestConfirmed(t *testing.T) {
	disk := vfs.NewDisk()
	o := open(t, imageConfig(disk))
	w := o.attach(describe("s", 3, 100, 98, 7, 3), 7)
	if w.next != 100 {
		t.Fatalf("a segment from 100 starts at %d", w.next)
	}
	for i := range 10 {
		if err := w.append(log.TopicData, i%4 == 3, payload("s", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.durable(); err != nil {
		t.Fatal(err)
	}
	seen := func(what string, q segment.Query, want int) {
		t.Helper()
		q.From = max(q.From, 100)
		if got, err := readAll(w.r, q); err != nil || len(got) != want {
			t.Fatalf("%s: %d entries, %v: want %d", what, len(got), err, want)
		}
	}
	seen("nothing is confirmed", segment.Query{}, 0)
	seen("unconfirmed", segment.Query{Unconfirmed: true}, 10)
	for _, c := range []struct{ lac, lso log.Offset }{{99, 98}, {102, 98}, {103, 103}, {106, 103}, {105, 103}, {109, 107}} {
		if err := w.r.Confirm(7, c.lac); err != nil {
			t.Fatal(err)
		}
		st, _, err := w.r.State()
		if err != nil || st.LSO != c.lso {
			t.Fatalf("confirmed %d: %+v, %v: want LSO %d", c.lac, st, err, c.lso)
		}
		seen("confirmed", segment.Query{}, int(st.LAC-99))
		seen("committed", segment.Query{Committed: true}, max(0, int(c.lso-99)))
	}
	if err := w.r.Confirm(6, 109); !errors.Is(err, log.ErrFenced) {
		t.Fatalf("confirm of an older epoch: %v", err)
	}
	// What records told is known after a restart.
	w.lac = 109
	if err := errors.Join(w.append(log.TopicData, false, []byte("x")), w.durable(), o.stop()); err != nil {
		t.Fatal(err)
	}
	o = open(t, imageConfig(disk.Restart()))
	r, err := o.Replica(segment.ID{Stream: "s", Segment: 3})
	if err != nil {
		t.Fatal(err)
	}
	if i := r.Info(); i.LAC != 109 || i.LSO != 107 || i.Held != 110 || i.First != 100 || i.Epoch != 7 {
		t.Fatalf("after a restart: %+v", i)
	}
}
