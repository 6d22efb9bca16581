// Package load is what the worker processes of a chaos run do: writers that compete
// for streams, and readers that follow and read again. Everything they ask for and
// are told goes into the history.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/test/chaos/history"
)

// Stream is how one stream is used.
type Stream struct {
	Name string `json:"name"`
	// PerSecond is the pace of its one writer, Window how many appends it has in
	// flight, Bytes the size of the largest payload.
	PerSecond float64 `json:"per_second"`
	Window    int     `json:"window"`
	Bytes     int     `json:"bytes"`
	// Turn is how long a writer keeps the stream on average, Rest how long it
	// then leaves it to others, unless nobody writes.
	Turn time.Duration `json:"turn"`
	Rest time.Duration `json:"rest"`
}

// Worker of a process.
type Worker struct {
	Name    string                  // of the process; it stands in every ID
	Connect func() (log.Log, error) // a new client
	Record  *history.Recorder
	Seed    uint64
	// Stall is how long a writer sees no progress of a stream before it takes it
	// over, and how long a closing writer may take.
	Stall time.Duration

	mu       sync.Mutex
	sessions int64
	sequence int64
	seen     map[string]map[int64]history.Seen // by stream and offset: what this process got first, or last
}

func (w *Worker) session() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions++
	return w.sessions
}

func (w *Worker) id() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sequence++
	return history.ID(w.Name, w.sequence)
}

func (w *Worker) random(what string, i int) *rand.Rand {
	return rand.New(rand.NewPCG(w.Seed, history.Sum(fmt.Appendf(nil, "%s/%s/%d", w.Name, what, i))))
}

// Write competes for each of the streams until ctx ends.
func (w *Worker) Write(ctx context.Context, streams []Stream) {
	var all sync.WaitGroup
	for i, s := range streams {
		all.Go(func() { (&writer{Worker: w, Stream: s, random: w.random("write", i)}).run(ctx) })
	}
	all.Wait()
}

// Read follows each of the streams, reads them again and again, and asks for
// their bounds, until ctx ends.
func (w *Worker) Read(ctx context.Context, streams []Stream) {
	var all sync.WaitGroup
	for i, s := range streams {
		all.Go(func() { w.follow(ctx, s.Name) })
		all.Go(func() { w.again(ctx, s.Name, w.random("again", i)) })
		all.Go(func() { w.ask(ctx, s.Name, w.random("ask", i)) })
	}
	all.Wait()
}

// pause is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// about is a random time around d: from a half to three halves of it.
func about(r *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(r.Int64N(int64(max(d, 1))))
}

// bounds asks, and says so.
func (w *Worker) bounds(ctx context.Context, l log.Log, stream string) (log.Bounds, error) {
	op := w.Record.Op()
	w.Record.Put(history.Record{Op: op, Kind: history.Bounds, Phase: history.Invoke, Stream: stream})
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	b, err := l.Bounds(ctx, stream)
	if err != nil {
		w.Record.Put(history.Record{Op: op, Kind: history.Bounds, Phase: history.Failed, Stream: stream, Err: err.Error()})
		return b, err
	}
	w.Record.Put(history.Record{Op: op, Kind: history.Bounds, Phase: history.OK, Stream: stream, Offset: int64(b.LAC), Epoch: uint64(b.Epoch)})
	return b, nil
}

// ask asks for the bounds a few times a second.
func (w *Worker) ask(ctx context.Context, stream string, r *rand.Rand) {
	l := w.client(ctx)
	if l == nil {
		return
	}
	defer closeLog(l)
	for pause(ctx, about(r, 200*time.Millisecond)) {
		_, _ = w.bounds(ctx, l, stream) // the history has it
	}
}

// client connects; nil: ctx has ended.
func (w *Worker) client(ctx context.Context) log.Log {
	for {
		l, err := w.Connect()
		if err == nil {
			return l
		}
		w.Record.Put(history.Record{Kind: history.Fault, Err: err.Error(), Text: "client"})
		if !pause(ctx, 100*time.Millisecond) {
			return nil
		}
	}
}

func closeLog(l log.Log) {
	_ = l.Close() // what was under way is unknown, as the history says already
}

// ended tells an error that only says that the run is over.
func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}
