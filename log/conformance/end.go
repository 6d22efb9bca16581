package conformance

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

// readerEnds: a reader with an end says so once nothing wanted is left before it,
// however far the last wanted entry is from there, and waits while the end is
// not confirmed.
func readerEnds(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	const n = 3000
	var last log.Offset
	for i := range n {
		topic := log.TopicData
		if i == 2 || i == 40 {
			topic = log.TopicSchema
		}
		// From 2500 on a transaction is open.
		last = must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: topic, EndsTransaction: i < 2500, Payload: body("s", log.Offset(i))}))
	}
	must[log.Ack](t)(w.Wait(ctxOf(t), last))
	schema := []log.Topic{log.TopicSchema}
	for _, c := range []struct {
		name string
		o    log.ReaderOptions
		want int
	}{
		{"all before the end", log.ReaderOptions{To: n}, n},
		{"in the middle", log.ReaderOptions{From: 10, To: 700}, 690},
		{"sparse topic, far end", log.ReaderOptions{To: n, Topics: schema}, 2},
		{"sparse topic, behind its last entry", log.ReaderOptions{From: 41, To: n, Topics: schema}, 0},
		{"end just behind an entry", log.ReaderOptions{To: 41, Topics: schema}, 2},
		{"end at an entry", log.ReaderOptions{To: 40, Topics: schema}, 1},
		{"empty range", log.ReaderOptions{From: 5, To: 5}, 0},
		{"committed", log.ReaderOptions{From: 2400, To: 2500, Committed: true}, 100},
		{"topic without entries", log.ReaderOptions{To: n, Topics: []log.Topic{77}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := openReader(t, l, "s", c.o)
			got := 0
			for {
				e, err := r.Next(ctxOf(t))
				if errors.Is(err, io.EOF) {
					break
				}
				check(t, err)
				if e.Offset < c.o.From || e.Offset >= c.o.To {
					t.Fatalf("entry %d is not between %d and %d", e.Offset, c.o.From, c.o.To)
				}
				got++
			}
			if got != c.want {
				t.Errorf("%d entries, want %d", got, c.want)
			}
			if _, err := r.Next(ctxOf(t)); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
	for name, c := range map[string]struct {
		o   log.ReaderOptions
		get int // how many come before it waits
	}{
		"waits for what is not there yet":  {log.ReaderOptions{From: n - 5, To: n + 1}, 5},
		"waits for the transaction's end":  {log.ReaderOptions{From: 2495, To: n, Committed: true}, 5},
		"waits on a topic without entries": {log.ReaderOptions{From: 41, To: n + 1, Topics: schema}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := openReader(t, l, "s", c.o)
			for range c.get {
				must[log.Entry](t)(r.Next(ctxOf(t)))
			}
			quiet(t, r)
		})
	}
	r := openReader(t, l, "s", log.ReaderOptions{From: 41, To: n + 1, Topics: schema})
	ended := make(chan error, 1) // the reader's outcome; owner: the goroutine below; never closed
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := r.Next(ctx)
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body("s", n)}))
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("the end was confirmed, and the reader says %v", err)
	}
	check(t, w.Close())
}
