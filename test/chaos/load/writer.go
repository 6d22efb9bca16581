package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/test/chaos/history"
)

// writer takes turns with those of other processes at one stream.
type writer struct {
	*Worker
	Stream
	random *rand.Rand
	log    log.Log
}

func (w *writer) run(ctx context.Context) {
	defer func() {
		if w.log != nil {
			closeLog(w.log)
		}
	}()
	if !pause(ctx, time.Duration(w.random.Int64N(int64(w.Rest)))) {
		return
	}
	for ctx.Err() == nil {
		if w.log == nil {
			if w.log = w.client(ctx); w.log == nil {
				return
			}
		}
		open, session, err := w.open(ctx)
		if errors.Is(err, log.ErrFenced) {
			w.rest(ctx) // another one was opened meanwhile
			continue
		}
		if err != nil {
			if !pause(ctx, about(w.random, 60*time.Millisecond)) {
				return
			}
			continue
		}
		broken := w.turn(ctx, open, session)
		w.close(open, session)
		if ctx.Err() == nil && !broken {
			w.rest(ctx)
		}
	}
}

// openFor bounds one attempt to open a writer.
const openFor = 10 * time.Second

func (w *writer) open(ctx context.Context) (log.Writer, int64, error) {
	op, session := w.Record.Op(), w.session()
	r := history.Record{Op: op, Kind: history.Open, Phase: history.Invoke, Stream: w.Name(), Session: session}
	w.Record.Put(r)
	limited, cancel := context.WithTimeout(ctx, openFor)
	defer cancel()
	open, err := w.log.OpenWriter(limited, w.Name())
	if err != nil {
		r.Phase, r.Err = history.Failed, err.Error()
		w.Record.Put(r)
		return nil, 0, err
	}
	r.Phase, r.Epoch, r.Offset = history.OK, uint64(open.Epoch()), int64(open.Bounds().LAC)
	w.Record.Put(r)
	return open, session, nil
}

// Name of the stream; the worker has one, too.
func (w *writer) Name() string { return w.Stream.Name }

// pending is an append that has an offset and no answer.
type pending struct {
	op     int64
	offset log.Offset
}

// turn appends until the writer dies, its time is over, or ctx ends, then waits for
// what is in flight. It tells whether the writer died of anything but a newer one.
func (w *writer) turn(ctx context.Context, open log.Writer, session int64) bool {
	// The appender sends, the waiter receives; bound: the window; closed below.
	flying := make(chan pending, max(w.Window-1, 0))
	dead, kill := context.WithCancel(ctx)
	defer kill()
	broken := false
	var waiter sync.WaitGroup
	waiter.Go(func() { broken = w.wait(ctx, open, flying, kill) })
	w.fill(dead, open, session, flying)
	close(flying)
	waiter.Wait()
	return broken
}

// fill appends. Now and then it falls silent for longer than others are patient,
// and goes on as if nothing had happened.
func (w *writer) fill(ctx context.Context, open log.Writer, session int64, flying chan<- pending) {
	until := time.Now().Add(about(w.random, w.Turn))
	silent := w.random.IntN(4) == 0
	gap := time.Duration(float64(time.Second) / w.PerSecond)
	next := time.Now()
	for time.Now().Before(until) {
		if silent && time.Until(until) < w.Turn/4 {
			silent = false
			if !pause(ctx, about(w.random, 2*w.Rest)) {
				return
			}
			until = time.Now().Add(w.Turn / 4)
		}
		// Late appends are made up for, up to a tenth of a second's worth.
		next = next.Add(gap)
		if late := time.Now().Add(-100 * time.Millisecond); next.Before(late) {
			next = late
		}
		if d := time.Until(next); d > time.Millisecond && !pause(ctx, d) || ctx.Err() != nil {
			return
		}
		p, ok := w.append(ctx, open, session)
		if !ok {
			return
		}
		flying <- p // the waiter takes them all, whatever happens
	}
}

func (w *writer) append(ctx context.Context, open log.Writer, session int64) (pending, bool) {
	id, op := w.id(), w.Record.Op()
	payload := history.Payload(id, history.PayloadMin+w.random.IntN(max(w.Bytes-history.PayloadMin, 1)))
	r := history.Record{Op: op, Kind: history.Append, Phase: history.Invoke, Stream: w.Name(), Session: session, ID: id, Sum: history.Sum(payload)}
	w.Record.Put(r)
	topic := log.TopicData
	if w.random.IntN(10) == 0 {
		topic = log.TopicExceptions
	}
	o, err := open.Append(ctx, log.Draft{Topic: topic, EndsTransaction: w.random.IntN(4) > 0, Payload: payload})
	r = history.Record{Op: op, Kind: history.Append, Phase: history.Queued, Stream: w.Name(), Session: session, Offset: int64(o)}
	if err != nil {
		r.Phase, r.Offset, r.Err = history.Failed, 0, err.Error()
		w.Record.Put(r)
		return pending{}, false
	}
	w.Record.Put(r)
	return pending{op, o}, true
}

// wait takes the answers in order. After ctx ends it waits a little longer: what
// is confirmed by then need not be called unknown. It tells whether anything failed
// for another reason than a newer writer.
func (w *writer) wait(ctx context.Context, open log.Writer, flying <-chan pending, kill func()) (broken bool) {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		pause(patient, w.Stall)
		cancel()
	})()
	for p := range flying {
		r := history.Record{Op: p.op, Kind: history.Append, Phase: history.OK, Stream: w.Name()}
		ack, err := open.Wait(patient, p.offset)
		if err != nil {
			r.Phase, r.Err = history.Failed, err.Error()
			broken = broken || !errors.Is(err, log.ErrFenced)
			kill()
		} else {
			r.Offset, r.Protected = int64(ack.Offset), ack.Protected
		}
		w.Record.Put(r)
	}
	return broken
}

// close ends the writer in order, or with its whole client when that takes long.
func (w *writer) close(open log.Writer, session int64) {
	r := history.Record{Op: w.Record.Op(), Kind: history.Close, Phase: history.OK, Stream: w.Name(), Session: session}
	done := make(chan error, 1) // one answer, from the goroutine below
	go func() { done <- open.Close() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(w.Stall):
		closeLog(w.log)
		w.log = nil
		err = errors.Join(errors.New("the client was closed over it"), <-done)
	}
	if err != nil {
		r.Phase, r.Err = history.Failed, err.Error()
	}
	w.Record.Put(r)
}

// rest leaves the stream to others as long as one of them makes progress.
func (w *writer) rest(ctx context.Context) {
	until := time.Now().Add(about(w.random, w.Rest))
	last, moved := log.None, time.Now()
	for time.Now().Before(until) && time.Since(moved) < w.Stall && w.log != nil {
		if !pause(ctx, about(w.random, w.Stall/6)) {
			return
		}
		if b, err := w.bounds(ctx, w.log, w.Name()); err == nil && b.LAC != last {
			last, moved = b.LAC, time.Now()
		}
	}
}

// Probe opens the stream, appends one entry and waits until it is confirmed,
// trying until ctx ends. It returns the number of entries the stream then has.
func (w *Worker) Probe(ctx context.Context, stream string) (log.Offset, error) {
	p := &writer{Worker: w, Stream: Stream{Name: stream, Bytes: history.PayloadMin}, random: w.random("probe", 0)}
	defer func() {
		if p.log != nil {
			closeLog(p.log)
		}
	}()
	for {
		if p.log == nil {
			if p.log = w.client(ctx); p.log == nil {
				return 0, ctx.Err()
			}
		}
		end, err := p.probe(ctx)
		if err == nil {
			return end, nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return 0, errors.Join(ctx.Err(), err)
		}
	}
}

func (w *writer) probe(ctx context.Context) (log.Offset, error) {
	open, session, err := w.open(ctx)
	if err != nil {
		return 0, err
	}
	defer w.close(open, session)
	ctx, cancel := context.WithTimeout(ctx, openFor)
	defer cancel()
	id, r := w.id(), history.Record{Op: w.Record.Op(), Kind: history.Append, Phase: history.Invoke, Stream: w.Name(), Session: session}
	payload := history.Payload(id, 0)
	r.ID, r.Sum = id, history.Sum(payload)
	w.Record.Put(r)
	o, err := open.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload})
	r = history.Record{Op: r.Op, Kind: history.Append, Phase: history.OK, Stream: w.Name()}
	var ack log.Ack
	if err == nil {
		ack, err = open.Wait(ctx, o)
	}
	if err != nil {
		r.Phase, r.Err = history.Failed, err.Error()
		w.Record.Put(r)
		return 0, err
	}
	r.Offset, r.Protected = int64(ack.Offset), ack.Protected
	w.Record.Put(r)
	return o + 1, nil
}
