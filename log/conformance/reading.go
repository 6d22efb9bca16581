package conformance

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

func tail(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	r := openReader(t, l, "s", log.ReaderOptions{})
	quiet(t, r)
	var worst time.Duration
	for o := range log.Offset(50) {
		must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body("s", o)}))
		must[log.Ack](t)(w.Wait(ctxOf(t), o))
		confirmed := time.Now()
		expect(t, r, "s", o, 1)
		worst = max(worst, time.Since(confirmed))
		time.Sleep(2 * time.Millisecond)
	}
	// Far below any polling interval one would dare, far above a busy machine's
	// scheduling.
	if worst > time.Second {
		t.Fatalf("an entry came %v after it was confirmed", worst)
	}
	check(t, w.Close())
}

func manyReaders(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	var all sync.WaitGroup
	const n = 2000
	for range 8 {
		r := openReader(t, l, "s", log.ReaderOptions{})
		all.Go(func() {
			for o := range log.Offset(n) {
				e, err := r.Next(ctxOf(t))
				if err != nil || e.Offset != o || !bytes.Equal(e.Payload, body("s", o)) {
					t.Errorf("entry %d, want %d: %v", e.Offset, o, err)
					return
				}
			}
		})
	}
	fill(t, w, "s", n)
	all.Wait()
	check(t, w.Close())
}

func topics(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	kinds := []log.Topic{log.TopicData, log.TopicSchema, log.TopicExceptions, 14, 15, 16, 4000}
	const n = 700
	var last log.Offset
	for i := range n {
		last = must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: kinds[i%len(kinds)], EndsTransaction: true, Payload: body("s", log.Offset(i))}))
	}
	must[log.Ack](t)(w.Wait(ctxOf(t), last))
	for _, c := range []struct {
		name string
		want []log.Topic
	}{
		{"schema", []log.Topic{log.TopicSchema}},
		{"two", []log.Topic{log.TopicExceptions, 16}},
		{"high", []log.Topic{15}},
		{"none of them", []log.Topic{9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := openReader(t, l, "s", log.ReaderOptions{From: 3, Topics: c.want})
			for o := log.Offset(3); o < n; o++ {
				k := kinds[int(o)%len(kinds)]
				if !slices.Contains(c.want, k) {
					continue
				}
				e := must[log.Entry](t)(r.Next(ctxOf(t)))
				if e.Offset != o || e.Topic != k || !bytes.Equal(e.Payload, body("s", o)) {
					t.Fatalf("entry %d of topic %v, want %d of %v", e.Offset, e.Topic, o, k)
				}
			}
			quiet(t, r)
		})
	}
	r := openReader(t, l, "s", log.ReaderOptions{From: n, Topics: []log.Topic{log.TopicSchema}})
	fill(t, w, "s", 5)
	must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicSchema, EndsTransaction: true, Payload: body("s", n+5)}))
	if e := must[log.Entry](t)(r.Next(ctxOf(t))); e.Offset != n+5 {
		t.Fatalf("entry %d, want %d", e.Offset, n+5)
	}
	check(t, w.Close())
}

func committed(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	put := func(o log.Offset, ends bool) {
		t.Helper()
		if got := must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: ends, Payload: body("s", o)})); got != o {
			t.Fatalf("offset %d, want %d", got, o)
		}
		must[log.Ack](t)(w.Wait(ctxOf(t), o))
	}
	put(0, true)
	put(1, false)
	put(2, false)
	whole := openReader(t, l, "s", log.ReaderOptions{Committed: true})
	every := openReader(t, l, "s", log.ReaderOptions{})
	expect(t, whole, "s", 0, 1)
	quiet(t, whole)
	expect(t, every, "s", 0, 3)
	if b := w.Bounds(); b.LAC != 2 || b.LSO != 0 {
		t.Fatalf("bounds %+v", b)
	}
	put(3, true)
	expect(t, whole, "s", 1, 3)
	put(4, false)
	quiet(t, whole)
	check(t, w.Close())
	// A new writer finds the open transaction: LAC 4, LSO 3.
	w = openWriter(t, l, "s")
	if b := w.Bounds(); b.LAC != 4 || b.LSO != 3 {
		t.Fatalf("bounds %+v", b)
	}
	put(5, true)
	expect(t, whole, "s", 4, 2)
	check(t, w.Close())
}

func ahead(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	fill(t, w, "s", 3)
	_, err := l.OpenReader(ctxOf(t), "s", log.ReaderOptions{From: 5})
	wantError(t, err, log.ErrSuspect)
	r := openReader(t, l, "s", log.ReaderOptions{From: 3})
	quiet(t, r)
	fill(t, w, "s", 1)
	expect(t, r, "s", 3, 1)
	check(t, w.Close())
}

// slowReader holds a reader still while the writer goes on far beyond any
// buffer between them.
func slowReader(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	fill(t, w, "s", 1)
	r := openReader(t, l, "s", log.ReaderOptions{})
	expect(t, r, "s", 0, 1)
	p := bytes.Repeat([]byte("x"), 1<<20)
	var last log.Offset
	for range 48 {
		last = must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p}))
	}
	must[log.Ack](t)(w.Wait(ctxOf(t), last))
	for o := log.Offset(1); o <= last; o++ {
		if e := must[log.Entry](t)(r.Next(ctxOf(t))); e.Offset != o || len(e.Payload) != len(p) {
			t.Fatalf("entry %d of %d bytes, want %d", e.Offset, len(e.Payload), o)
		}
	}
	check(t, w.Close())
}

func resume(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	const n = 3000
	fill(t, w, "s", n)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		from := rnd.IntN(n)
		r := must[log.Reader](t)(l.OpenReader(ctxOf(t), "s", log.ReaderOptions{From: log.Offset(from), Committed: rnd.IntN(2) == 0}))
		expect(t, r, "s", log.Offset(from), min(n-from, 1+rnd.IntN(200)))
		check(t, r.Close())
	}
	check(t, w.Close())
}
