package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/test/chaos/history"
)

// batchMax and batchFor bound the entries of one record and the time they wait.
const (
	batchMax = 256
	batchFor = 100 * time.Millisecond
)

// follow reads the stream from its beginning, and goes on where it was after each
// error.
func (w *Worker) follow(ctx context.Context, stream string) {
	l := w.client(ctx)
	if l == nil {
		return
	}
	defer closeLog(l)
	next := log.Offset(0)
	for ctx.Err() == nil {
		next, _ = w.read(ctx, l, stream, next, 0)
		if !pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// again reads stretches of the stream, from anywhere to its end, often all of it.
func (w *Worker) again(ctx context.Context, stream string, r *rand.Rand) {
	l := w.client(ctx)
	if l == nil {
		return
	}
	defer closeLog(l)
	for pause(ctx, about(r, 700*time.Millisecond)) {
		b, err := w.bounds(ctx, l, stream)
		if err != nil || b.LAC < 0 {
			continue
		}
		from := b.First
		if r.IntN(3) > 0 { // not far back: there may be a gap of 2^40 offsets
			from = b.LAC - log.Offset(r.Int64N(min(int64(b.LAC-b.First), 1<<16)+1))
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		for err = log.ErrLost; errors.Is(err, log.ErrLost) && from <= b.LAC; {
			from, err = w.read(limited, l, stream, from, b.LAC+1) // the history has it
		}
		cancel()
	}
}

// Final reads the whole stream up to end, and says in the history whether that
// was possible. via names the way it was read.
func (w *Worker) Final(ctx context.Context, l log.Log, stream string, end log.Offset, via string) error {
	next, err := log.Offset(0), error(nil)
	for next < end {
		if next, err = w.read(ctx, l, stream, next, end); next < end && !errors.Is(err, log.ErrLost) && (!errors.Is(err, log.ErrUnavailable) || !pause(ctx, 100*time.Millisecond)) {
			break
		}
	}
	r := history.Record{Kind: history.Final, Phase: history.OK, Stream: stream, Offset: int64(end), Via: via}
	if next < end {
		r.Err = fmt.Sprintf("stopped before entry %d: %v", next, err)
	} else {
		err = nil
	}
	w.Record.Put(r)
	return err
}

// read delivers [from, to) into the history; to 0: until an error. It returns the
// next offset.
func (w *Worker) read(ctx context.Context, l log.Log, stream string, from, to log.Offset) (log.Offset, error) {
	op, session := w.Record.Op(), w.session()
	r := history.Record{Op: op, Kind: history.Attach, Phase: history.Invoke, Stream: stream, Session: session, Offset: int64(from), To: int64(to)}
	w.Record.Put(r)
	rd, err := l.OpenReader(ctx, stream, log.ReaderOptions{From: from, To: to})
	var lost *log.LostError
	if errors.As(err, &lost) {
		return w.gap(stream, lost), err
	}
	if err != nil {
		r.Phase, r.Err = history.Failed, err.Error()
		w.Record.Put(r)
		return from, err
	}
	r.Phase = history.OK
	w.Record.Put(r)
	defer func() { _ = rd.Close() }() // it only read
	b := &batch{worker: w, stream: stream, session: session, from: from, next: from}
	for {
		limited, cancel := context.WithTimeout(ctx, batchFor)
		e, err := rd.Next(limited)
		cancel()
		switch {
		case err == nil:
			b.add(e)
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			b.flush()
		default:
			b.flush()
			if errors.Is(err, io.EOF) {
				err = nil
			} else if errors.As(err, &lost) && lost.From <= b.next {
				return w.gap(stream, lost), err
			} else if !ended(ctx, err) {
				w.Record.Put(history.Record{Op: op, Kind: history.Attach, Phase: history.Failed, Stream: stream, Session: session, Offset: int64(b.next), Err: err.Error()})
			}
			return b.next, err
		}
	}
}

// gap tells of one, and where the stream goes on behind it.
func (w *Worker) gap(stream string, lost *log.LostError) log.Offset {
	w.Record.Put(history.Record{Kind: history.Gap, Phase: history.OK, Stream: stream, From: int64(lost.From), To: int64(lost.To)})
	return lost.To + 1
}

// batch is what a reader got and has not told yet.
type batch struct {
	worker     *Worker
	stream     string
	session    int64
	from, next log.Offset
	began      time.Time
	seen       []history.Seen
}

func (b *batch) add(e log.Entry) {
	if e.Offset != b.next { // the checker sees the gap between two records
		b.flush()
		b.from, b.next = e.Offset, e.Offset
	}
	if b.from == b.next {
		b.began = time.Now()
	}
	b.next++
	id, err := history.ParsePayload(e.Payload)
	if err != nil {
		id = "" // nobody's
	}
	s := history.Seen{At: history.Now(), Offset: int64(e.Offset), Epoch: uint64(e.Epoch), ID: id, Sum: history.Sum(e.Payload), Rest: rest(&e)}
	if b.worker.fresh(b.stream, s) {
		b.seen = append(b.seen, s)
	}
	if int(b.next-b.from) >= batchMax || time.Since(b.began) > batchFor {
		b.flush()
	}
}

// fresh tells whether this is the first time, or not the same as before. It is
// remembered once it stands in the history.
func (w *Worker) fresh(stream string, s history.Seen) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.seen[stream]
	old, ok := known[s.Offset]
	return !ok || old.ID != s.ID || old.Sum != s.Sum || old.Epoch != s.Epoch || old.Rest != s.Rest
}

func (w *Worker) remember(stream string, seen []history.Seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = map[string]map[int64]history.Seen{}
	}
	if w.seen[stream] == nil {
		w.seen[stream] = map[int64]history.Seen{}
	}
	for _, s := range seen {
		w.seen[stream][s.Offset] = s
	}
}

func (b *batch) flush() {
	if b.from == b.next {
		return
	}
	b.worker.Record.Put(history.Record{
		Kind: history.Read, Phase: history.OK, Stream: b.stream, Session: b.session, From: int64(b.from), To: int64(b.next), Seen: b.seen,
	})
	b.worker.remember(b.stream, b.seen)
	b.from, b.seen = b.next, nil
}

// rest is a sum of what is delivered beside payload and offset.
func rest(e *log.Entry) uint64 {
	return xxhash.Sum64String(e.Topic.String() + e.AppendedAt.UTC().Format(time.RFC3339Nano) + map[bool]string{true: "ends"}[e.EndsTransaction])
}
