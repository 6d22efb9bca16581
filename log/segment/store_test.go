package segment_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// writer appends at one epoch and waits when told.
type writer struct {
	st    *segment.Stream
	epoch log.Epoch
	next  log.Offset
}

func (o *opened) writer(name string) *writer {
	o.t.Helper()
	st, status, err := o.Fence(context.Background(), name, 0, true)
	if err != nil {
		o.t.Fatal(err)
	}
	return &writer{st, status.Epoch, status.Last + 1}
}

func (w *writer) append(topic log.Topic, ends bool, payload []byte) error {
	err := w.st.Append(context.Background(), &segment.Append{
		Epoch: w.epoch, Offset: w.next, LAC: log.None, Topic: topic, Ends: ends, Time: time.Now().UnixMicro(),
		Checksum: segment.Checksum(payload), Payload: payload,
	})
	if err == nil {
		w.next++
	}
	return err
}

// wait blocks until everything appended is durable.
func (w *writer) wait() error {
	for {
		status, changed, err := w.st.Status()
		if err != nil {
			return err
		}
		if status.Broken != nil {
			return status.Broken
		}
		if status.Last >= w.next-1 {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			return fmt.Errorf("nothing durable beyond %d of %d", status.Last, w.next-1)
		}
	}
}

// readAll reads the stream from an offset up to what is confirmed.
func readAll(st *segment.Stream, q segment.Query) ([]log.Entry, error) {
	var out []log.Entry
	for {
		entries, _, next, err := st.Read(q, nil, nil)
		if err != nil {
			return out, err
		}
		for _, e := range entries {
			out = append(out, e.Entry)
		}
		if next == q.From {
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
				if err := w.append(log.TopicData, w.next%3 == 0, payload(w.st.Name(), int(w.next))); err != nil {
					t.Fatal(err)
				}
			}
			total++
		}
		if err := errors.Join(a.wait(), b.wait()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			st, err := o.Stream(name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(st, segment.Query{})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != total {
				t.Fatalf("life %d stream %s: %d entries, want %d", life, name, len(got), total)
			}
			for i, e := range got {
				if string(e.Payload) != string(payload(name, i)) || e.Offset != log.Offset(i) || e.EndsTransaction != (i%3 == 0) {
					t.Fatalf("stream %s entry %d differs", name, i)
				}
			}
			if b := st.Bounds(); b.LSO != log.Offset((total-1)/3*3) || b.LAC != log.Offset(total-1) {
				t.Fatalf("bounds %+v", b)
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

// TestManyEpochs opens writer after writer: the list of segments stays bounded,
// and every epoch but the newest is fenced where it ended.
func TestManyEpochs(t *testing.T) {
	c := imageConfig(vfs.NewDisk())
	c.Retention = segment.Retention{}
	o := open(t, c)
	var st *segment.Stream
	const epochs = 1500
	for i := range epochs {
		w := o.writer("s")
		st = w.st
		if err := errors.Join(w.append(log.TopicData, true, payload("s", i)), w.wait()); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue
		}
		p, _, err := st.Progress(w.epoch - 1)
		if err != nil || !errors.Is(p.Err, log.ErrFenced) || p.Last != log.Offset(i-1) {
			t.Fatalf("epoch %d: %+v, %v", w.epoch-1, p, err)
		}
	}
	for epoch := log.Epoch(1); epoch < epochs; epoch++ {
		p, _, err := st.Progress(epoch)
		if err != nil || !errors.Is(p.Err, log.ErrFenced) || p.Last != log.Offset(epoch-1) && p.Last != log.None {
			t.Fatalf("epoch %d: %+v, %v", epoch, p, err)
		}
	}
	entries, err := readAll(st, segment.Query{})
	if err != nil || len(entries) != epochs {
		t.Fatalf("%d entries: %v", len(entries), err)
	}
}
