// Package conformance is the contract of log.Log as tests. Every engine passes
// it: what a caller may rely on is what is checked here.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Open gives a fresh, empty log that is closed by the test's cleanup.
type Open func(t *testing.T) log.Log

// Crash ends whatever serves l without any warning, starts it again on what it
// left, and gives the log anew. l is of no more use.
type Crash func(t *testing.T, l log.Log) log.Log

// patience bounds every single wait of the suite. It is long enough for a few
// copies of the largest payload under the race detector on a busy machine.
const patience = 90 * time.Second

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, l log.Log)
	}{
		{"order", order},
		{"pipelining", pipelining},
		{"concurrent appends", concurrent},
		{"zombie writer is fenced", zombie},
		{"writer in flight is fenced", zombieInFlight},
		{"tail following", tail},
		{"many readers", manyReaders},
		{"topics", topics},
		{"committed stops at the LSO", committed},
		{"bounds", bounds},
		{"cursors", cursors},
		{"no such stream", noStream},
		{"reader ahead of the log", ahead},
		{"large payloads", large},
		{"refused payloads", refused},
		{"many streams", manyStreams},
		{"slow reader", slowReader},
		{"close of a writer", closeWriter},
		{"close of a reader", closeReader},
		{"close of the log", closeLog},
		{"contexts", contexts},
		{"reader resumes anywhere", resume},
		{"reader with an end", readerEnds},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// RunCrash adds what must hold across crashes.
func RunCrash(t *testing.T, open Open, crash Crash) {
	t.Run("acknowledged entries survive", func(t *testing.T) { survive(t, open(t), crash) })
	t.Run("writer dies with the node", func(t *testing.T) { writerDies(t, open(t), crash) })
	t.Run("cursors and epochs survive", func(t *testing.T) { stateSurvives(t, open(t), crash) })
}

func ctxOf(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// body is the payload of an entry: anyone can check it.
func body(stream string, o log.Offset) []byte {
	r := rand.New(rand.NewPCG(uint64(o), uint64(len(stream))))
	b := fmt.Appendf(nil, "%s/%d/", stream, o)
	for range r.IntN(300) {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

func openWriter(t *testing.T, l log.Log, stream string) log.Writer {
	t.Helper()
	return must[log.Writer](t)(l.OpenWriter(ctxOf(t), stream))
}

func openReader(t *testing.T, l log.Log, stream string, o log.ReaderOptions) log.Reader {
	t.Helper()
	r := must[log.Reader](t)(l.OpenReader(ctxOf(t), stream, o))
	t.Cleanup(func() { check(t, r.Close()) })
	return r
}

// fill appends n entries of a stream and waits for the last.
func fill(t *testing.T, w log.Writer, stream string, n int) {
	t.Helper()
	last := w.Bounds().LAC
	for range n {
		d := log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body(stream, last+1)}
		o := must[log.Offset](t)(w.Append(ctxOf(t), d))
		if o != last+1 {
			t.Fatalf("append got offset %d, want %d", o, last+1)
		}
		last = o
	}
	if a := must[log.Ack](t)(w.Wait(ctxOf(t), last)); a.Offset != last {
		t.Fatalf("ack %+v, want offset %d", a, last)
	}
}

// expect reads n entries and checks them.
func expect(t *testing.T, r log.Reader, stream string, from log.Offset, n int) {
	t.Helper()
	ctx := ctxOf(t)
	for o := from; o < from+log.Offset(n); o++ {
		e, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("stream %q entry %d: %v", stream, o, err)
		}
		if e.Offset != o || !bytes.Equal(e.Payload, body(stream, o)) {
			t.Fatalf("stream %q: got entry %d of %d bytes, want entry %d", stream, e.Offset, len(e.Payload), o)
		}
	}
}

// quiet checks that the reader has nothing to deliver now.
func quiet(t *testing.T, r log.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if e, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("entry %d, error %v: want nothing yet", e.Offset, err)
	}
}

func order(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	if w.Epoch() == 0 {
		t.Fatal("the writer's epoch is 0")
	}
	before := time.Now().Add(-time.Minute)
	fill(t, w, "s", 1000)
	r := openReader(t, l, "s", log.ReaderOptions{})
	e := must[log.Entry](t)(r.Next(ctxOf(t)))
	if e.Offset != 0 || e.Epoch != w.Epoch() || e.Topic != log.TopicData || !e.EndsTransaction || e.AppendedAt.Before(before) || e.AppendedAt.After(time.Now().Add(time.Minute)) {
		t.Fatalf("entry %+v", e)
	}
	expect(t, r, "s", 1, 999)
	quiet(t, r)
	check(t, w.Close())
}

func pipelining(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	const n = 20000
	for o := range log.Offset(n) {
		if got := must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body("s", o)})); got != o {
			t.Fatalf("offset %d, want %d", got, o)
		}
	}
	for _, o := range []log.Offset{n - 1, 0, n / 2} {
		must[log.Ack](t)(w.Wait(ctxOf(t), o))
	}
	if b := w.Bounds(); b.LAC != n-1 || b.LSO != n-1 || b.Epoch != w.Epoch() {
		t.Fatalf("bounds %+v", b)
	}
	expect(t, openReader(t, l, "s", log.ReaderOptions{}), "s", 0, n)
	check(t, w.Close())
}

func concurrent(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	const writers, each = 8, 300
	var mu sync.Mutex
	at := map[log.Offset]string{}
	var all sync.WaitGroup
	for g := range writers {
		all.Go(func() {
			last := log.None
			for i := range each {
				p := fmt.Sprintf("%d/%d", g, i)
				o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte(p)})
				if err == nil {
					_, err = w.Wait(ctxOf(t), o)
				}
				if err != nil || o <= last {
					t.Errorf("append %s after %d: %d, %v", p, last, o, err)
					return
				}
				last = o
				mu.Lock()
				at[o] = p
				mu.Unlock()
			}
		})
	}
	all.Wait()
	r := openReader(t, l, "s", log.ReaderOptions{})
	for o := range log.Offset(writers * each) {
		if e := must[log.Entry](t)(r.Next(ctxOf(t))); e.Offset != o || string(e.Payload) != at[o] {
			t.Fatalf("entry %d is %q, want %q", o, e.Payload, at[o])
		}
	}
	check(t, w.Close())
}

func zombie(t *testing.T, l log.Log) {
	old := openWriter(t, l, "s")
	fill(t, old, "s", 10)
	young := openWriter(t, l, "s")
	if young.Epoch() <= old.Epoch() {
		t.Fatalf("epoch %d after %d", young.Epoch(), old.Epoch())
	}
	if b := young.Bounds(); b.LAC != 9 || b.LSO != 9 {
		t.Fatalf("bounds %+v", b)
	}
	fill(t, young, "s", 10)
	o, err := old.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("zombie")})
	if err == nil { // it may only be found out when the append arrives
		_, err = old.Wait(ctxOf(t), o)
	}
	wantError(t, err, log.ErrFenced)
	if _, err := old.Append(ctxOf(t), log.Draft{Topic: log.TopicData, Payload: []byte("zombie")}); err == nil {
		t.Fatal("a dead writer took an entry")
	}
	if a := must[log.Ack](t)(old.Wait(ctxOf(t), 9)); a.Offset != 9 {
		t.Fatalf("ack %+v of an entry confirmed before the fence", a)
	}
	_ = old.Close() // it has an entry in flight that will never be confirmed
	expect(t, openReader(t, l, "s", log.ReaderOptions{}), "s", 0, 20)
	check(t, young.Close())
}

// zombieInFlight fences a writer that appends without a pause: what it saw
// confirmed is there, and nothing of it comes after the new writer's first.
func zombieInFlight(t *testing.T, l log.Log) {
	for range 10 {
		old := openWriter(t, l, "s")
		start := old.Bounds().LAC + 1
		acked := start - 1
		done := make(chan struct{}) // closed by the zombie's goroutine
		go func() {
			defer close(done)
			for {
				o, err := old.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("old")})
				if err == nil && o%16 == 0 {
					_, err = old.Wait(context.Background(), o)
				}
				if err != nil {
					return
				}
				if o%16 == 0 {
					acked = o
				}
			}
		}()
		time.Sleep(20 * time.Millisecond)
		young := openWriter(t, l, "s")
		base := young.Bounds().LAC
		o := must[log.Offset](t)(young.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("young")}))
		must[log.Ack](t)(young.Wait(ctxOf(t), o))
		<-done
		_ = old.Close() // it was fenced with entries in flight
		if base < acked || o != base+1 {
			t.Fatalf("the new writer starts at %d behind %d, the old one saw %d confirmed", o, base, acked)
		}
		r := openReader(t, l, "s", log.ReaderOptions{From: start})
		for want := start; want <= o; want++ {
			e := must[log.Entry](t)(r.Next(ctxOf(t)))
			text, epoch := "old", old.Epoch()
			if want == o {
				text, epoch = "young", young.Epoch()
			}
			if e.Offset != want || string(e.Payload) != text || e.Epoch != epoch {
				t.Fatalf("entry %d %q epoch %d, want %d %q epoch %d", e.Offset, e.Payload, e.Epoch, want, text, epoch)
			}
		}
		quiet(t, r)
		check(t, young.Close())
	}
}

func large(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	sizes := []int{1, 4 << 10, 100 << 10, 1 << 20, 12 << 20, 3, log.MaxPayload, 5}
	if testing.Short() { // four nodes and a race detector in one process have enough to do
		sizes = []int{1, 4 << 10, 100 << 10, 1 << 20, 3, 6 << 20, 5}
	}
	var last log.Offset
	for i, n := range sizes {
		last = must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: bytes.Repeat([]byte{byte(i + 1)}, n)}))
	}
	must[log.Ack](t)(w.Wait(ctxOf(t), last))
	r := openReader(t, l, "s", log.ReaderOptions{})
	for i, n := range sizes {
		e := must[log.Entry](t)(r.Next(ctxOf(t)))
		if len(e.Payload) != n || e.Payload[0] != byte(i+1) || e.Payload[n-1] != byte(i+1) {
			t.Fatalf("entry %d has %d bytes, want %d", e.Offset, len(e.Payload), n)
		}
	}
	check(t, w.Close())
}

func refused(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	_, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, Payload: make([]byte, log.MaxPayload+1)})
	wantError(t, err, log.ErrTooLarge)
	_, err = w.Append(ctxOf(t), log.Draft{Topic: log.TopicData})
	wantError(t, err, log.ErrTooLarge)
	_ = w.Close() // it may count as dead
	for _, name := range []string{"", string(make([]byte, 300)), "\xff"} {
		if _, err := l.OpenWriter(ctxOf(t), name); err == nil {
			t.Fatalf("a writer of stream %q", name)
		}
	}
}

func manyStreams(t *testing.T, l log.Log) {
	const streams, each = 64, 50
	names := make([]string, streams)
	var all sync.WaitGroup
	for i := range streams {
		names[i] = fmt.Sprintf("set-%03d", i)
		w := openWriter(t, l, names[i])
		all.Go(func() {
			for o := range log.Offset(each) {
				got, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body(names[i], o)})
				if err != nil || got != o {
					t.Errorf("%s: offset %d, want %d: %v", names[i], got, o, err)
					return
				}
			}
			if _, err := w.Wait(ctxOf(t), each-1); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := must[[]string](t)(l.Streams(ctxOf(t))); !slices.Equal(got, names) {
		t.Fatalf("streams %q", got)
	}
	for _, n := range names {
		r := must[log.Reader](t)(l.OpenReader(ctxOf(t), n, log.ReaderOptions{}))
		expect(t, r, n, 0, each)
		check(t, r.Close())
	}
}
