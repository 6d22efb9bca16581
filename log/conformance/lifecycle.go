package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
)

func bounds(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	empty := log.Bounds{First: 0, LAC: log.None, LSO: log.None, Epoch: w.Epoch()}
	if b := must[log.Bounds](t)(l.Bounds(ctxOf(t), "s")); b != empty {
		t.Fatalf("bounds %+v, want %+v", b, empty)
	}
	if b := w.Bounds(); b != empty {
		t.Fatalf("writer's bounds %+v, want %+v", b, empty)
	}
	fill(t, w, "s", 7)
	want := log.Bounds{First: 0, LAC: 6, LSO: 6, Epoch: w.Epoch()}
	if b := must[log.Bounds](t)(l.Bounds(ctxOf(t), "s")); b != want {
		t.Fatalf("bounds %+v, want %+v", b, want)
	}
	r := openReader(t, l, "s", log.ReaderOptions{})
	expect(t, r, "s", 0, 7)
	if b := r.Bounds(); b != want {
		t.Fatalf("reader's bounds %+v, want %+v", b, want)
	}
	// A reader that gets no entries still learns where the stream is.
	none := openReader(t, l, "s", log.ReaderOptions{Topics: []log.Topic{log.TopicExceptions}})
	fill(t, w, "s", 3)
	for deadline := time.Now().Add(patience); none.Bounds().LAC != 9; {
		quiet(t, none)
		if time.Now().After(deadline) {
			t.Fatalf("bounds %+v", none.Bounds())
		}
	}
	check(t, w.Close())
}

func cursors(t *testing.T, l log.Log) {
	ctx := ctxOf(t)
	w := openWriter(t, l, "s")
	fill(t, w, "s", 10)
	if c := must[[]log.Cursor](t)(l.Cursors(ctx, "s")); len(c) != 0 {
		t.Fatalf("cursors %+v", c)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	check(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "z", Offset: log.None}))
	check(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "a", Offset: 4, GTIDSet: "u:1-5", UpdatedAt: now}))
	check(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "a", Offset: 4, GTIDSet: "u:1-6", UpdatedAt: now}))
	wantError(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "a", Offset: 3}), log.ErrCursorBehind)
	wantError(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "a", Offset: 10}), log.ErrProtocol)
	wantError(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "", Offset: 1}), log.ErrProtocol)
	wantError(t, l.StoreCursor(ctx, "nothing", log.Cursor{Group: "a", Offset: 1}), log.ErrNoStream)
	got := must[[]log.Cursor](t)(l.Cursors(ctx, "s"))
	if len(got) != 2 || got[0].Group != "a" || got[1].Group != "z" || got[1].Offset != log.None || got[1].UpdatedAt.IsZero() {
		t.Fatalf("cursors %+v", got)
	}
	if a := got[0]; a.Offset != 4 || a.GTIDSet != "u:1-6" || !a.UpdatedAt.Equal(now) {
		t.Fatalf("cursor %+v", a)
	}
	check(t, l.StoreCursor(ctx, "s", log.Cursor{Group: "a", Offset: 9}))
	check(t, w.Close())
}

func noStream(t *testing.T, l log.Log) {
	ctx := ctxOf(t)
	_, err := l.Bounds(ctx, "nothing")
	wantError(t, err, log.ErrNoStream)
	_, err = l.OpenReader(ctx, "nothing", log.ReaderOptions{})
	wantError(t, err, log.ErrNoStream)
	_, err = l.Cursors(ctx, "nothing")
	wantError(t, err, log.ErrNoStream)
	if s := must[[]string](t)(l.Streams(ctx)); len(s) != 0 {
		t.Fatalf("streams %q", s)
	}
}

func closeWriter(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	const n = 5000
	for o := range log.Offset(n) {
		must[log.Offset](t)(w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: body("s", o)}))
	}
	check(t, w.Close()) // flushes
	check(t, w.Close())
	if b := must[log.Bounds](t)(l.Bounds(ctxOf(t), "s")); b.LAC != n-1 {
		t.Fatalf("bounds %+v", b)
	}
	_, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, Payload: []byte("late")})
	wantError(t, err, log.ErrClosed)
	if a := must[log.Ack](t)(w.Wait(ctxOf(t), n-1)); a.Offset != n-1 {
		t.Fatalf("ack %+v", a)
	}
	next := openWriter(t, l, "s")
	fill(t, next, "s", 1)
	check(t, next.Close())
}

func closeReader(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	r := must[log.Reader](t)(l.OpenReader(ctxOf(t), "s", log.ReaderOptions{}))
	got := make(chan error, 1)
	go func() {
		_, err := r.Next(ctxOf(t))
		got <- err
	}()
	time.Sleep(20 * time.Millisecond)
	check(t, r.Close())
	wantError(t, <-got, log.ErrClosed)
	check(t, r.Close())
	_, err := r.Next(ctxOf(t))
	wantError(t, err, log.ErrClosed)
	check(t, w.Close())
}

func closeLog(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	fill(t, w, "s", 1)
	r := must[log.Reader](t)(l.OpenReader(ctxOf(t), "s", log.ReaderOptions{From: 1}))
	got := make(chan error, 1)
	go func() {
		_, err := r.Next(ctxOf(t))
		got <- err
	}()
	time.Sleep(20 * time.Millisecond)
	check(t, l.Close())
	wantError(t, <-got, log.ErrClosed)
	_, err := w.Append(ctxOf(t), log.Draft{Topic: log.TopicData, Payload: []byte("late")})
	wantError(t, err, log.ErrClosed)
	_, err = l.OpenWriter(ctxOf(t), "s")
	wantError(t, err, log.ErrClosed)
	_, err = l.OpenReader(ctxOf(t), "s", log.ReaderOptions{})
	wantError(t, err, log.ErrClosed)
	_, err = l.Bounds(ctxOf(t), "s")
	wantError(t, err, log.ErrClosed)
	check(t, l.Close())
	check(t, r.Close())
	_ = w.Close() // the log under it is gone
}

func contexts(t *testing.T, l log.Log) {
	w := openWriter(t, l, "s")
	fill(t, w, "s", 2)
	r := openReader(t, l, "s", log.ReaderOptions{})
	done, cancel := context.WithCancel(context.Background())
	cancel()
	expect(t, r, "s", 0, 1)
	for range 3 { // a reader outlives an abandoned wait
		ctx, stop := context.WithTimeout(context.Background(), 5*time.Millisecond)
		if e, err := r.Next(ctx); err == nil && e.Offset != 1 {
			t.Fatalf("entry %d", e.Offset)
		} else if err == nil {
			stop()
			break
		}
		stop()
	}
	_, err := w.Wait(done, 1000)
	if err == nil {
		t.Fatal("an entry that was never appended is confirmed")
	}
	check(t, w.Close())
}
