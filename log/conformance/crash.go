package conformance

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

// survive appends through several crashes: what was confirmed is there, in order,
// with its bytes, and a reader goes on where it was. A writer may outlive a crash
// of what it writes to; the next one fences it.
func survive(t *testing.T, l log.Log, crash Crash) {
	next := log.Offset(0)
	end := func() {} // of the writer before
	for life := range 6 {
		w := openWriter(t, l, "s")
		end()
		b := w.Bounds()
		if b.LAC < next-1 {
			t.Fatalf("life %d: LAC %d, but %d was confirmed", life, b.LAC, next-1)
		}
		r := must[log.Reader](t)(l.OpenReader(ctxOf(t), "s", log.ReaderOptions{}))
		expect(t, r, "s", 0, int(b.LAC+1))
		check(t, r.Close())
		var acked atomic.Int64
		acked.Store(int64(b.LAC))
		done := make(chan struct{}) // closed by the writing goroutine
		go func() {
			defer close(done)
			for o := b.LAC + 1; ; o++ {
				_, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body("s", o)})
				if err == nil && o%7 == 0 {
					if _, err = w.Wait(context.Background(), o); err == nil {
						acked.Store(int64(o))
					}
				}
				if err != nil {
					return
				}
			}
		}()
		time.Sleep(30 * time.Millisecond)
		l = crash(t, l)
		end = func() {
			t.Helper()
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("a writer that was fenced, or lost its log, goes on")
			}
			_ = w.Close() // it died
			next = log.Offset(acked.Load()) + 1
		}
	}
	w := openWriter(t, l, "s")
	end()
	if b := w.Bounds(); b.LAC < next-1 {
		t.Fatalf("LAC %d, but %d was confirmed", b.LAC, next-1)
	}
	check(t, w.Close())
}

// writerDies: a writer either outlives the crash, or says that it did not; what it
// said of its entries holds either way.
func writerDies(t *testing.T, l log.Log, crash Crash) {
	w := openWriter(t, l, "s")
	fill(t, w, "s", 5)
	l = crash(t, l)
	o, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body("s", 5)})
	if err == nil {
		_, err = w.Wait(ctxOf(t), o)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v of a writer whose node crashed", err)
	}
	outlived := err == nil
	next := openWriter(t, l, "s")
	_ = w.Close() // it died, or was fenced
	b := next.Bounds()
	if b.LAC < 4 || b.LAC > 5 || outlived && b.LAC != 5 {
		t.Fatalf("bounds %+v; the entry behind the crash was confirmed: %t", b, outlived)
	}
	fill(t, next, "s", 5)
	expect(t, openReader(t, l, "s", log.ReaderOptions{}), "s", 0, int(b.LAC)+6)
	check(t, next.Close())
}

func stateSurvives(t *testing.T, l log.Log, crash Crash) {
	var epoch log.Epoch
	for i := range log.Offset(4) {
		w := openWriter(t, l, "s")
		if w.Epoch() <= epoch {
			t.Fatalf("epoch %d after %d", w.Epoch(), epoch)
		}
		epoch = w.Epoch()
		if b := w.Bounds(); b.LAC != i-1 {
			t.Fatalf("bounds %+v, want LAC %d", b, i-1)
		}
		fill(t, w, "s", 1)
		check(t, l.StoreCursor(ctxOf(t), "s", log.Cursor{Group: "g", Offset: i, GTIDSet: "set"}))
		l = crash(t, l)
		_ = w.Close() // it died
		c := must[[]log.Cursor](t)(l.Cursors(ctxOf(t), "s"))
		if len(c) != 1 || c[0].Offset != i || c[0].GTIDSet != "set" {
			t.Fatalf("cursors %+v, want one at %d", c, i)
		}
		wantError(t, l.StoreCursor(ctxOf(t), "s", log.Cursor{Group: "g", Offset: i - 1}), log.ErrCursorBehind)
		if b := must[log.Bounds](t)(l.Bounds(ctxOf(t), "s")); b.LAC > i || b.Epoch != epoch { // what only the writer knew to be confirmed, the next one finds
			t.Fatalf("bounds %+v, want LAC up to %d, epoch %d", b, i, epoch)
		}
	}
	if r := must[log.Reader](t)(l.OpenReader(ctxOf(t), "s", log.ReaderOptions{})); true {
		e := must[log.Entry](t)(r.Next(ctxOf(t)))
		if !bytes.Equal(e.Payload, body("s", 0)) {
			t.Fatalf("entry %d differs", e.Offset)
		}
		check(t, r.Close())
	}
}
