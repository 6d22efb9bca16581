package applier

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/change"
)

// TestBrake: rows per second hold over all lanes, a pause lasts as long as its
// reason, and a change of the limits is felt at once.
func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b brake
		b.set(Throttle{RowsPerSecond: 100})
		if n := b.rows(4000); n != 10 {
			t.Errorf("batches of %d rows", n)
		}
		began := time.Now()
		for range 30 {
			b.wait(t.Context())
			b.took(10)
		}
		if took := time.Since(began); took != 2900*time.Millisecond {
			t.Errorf("300 rows took %s", took)
		}
		waited := make(chan time.Duration) // owner: the goroutine; not closed
		wait := func() {
			at := time.Now()
			b.wait(t.Context())
			waited <- time.Since(at)
		}
		b.took(100000)
		go wait()
		time.Sleep(time.Second)
		b.set(Throttle{ThreadsRunning: 10, ReplicaLag: time.Second})
		if d := <-waited; d != time.Second {
			t.Errorf("waited for %s after the limit was gone", d)
		}
		b.saw(load{threads: 11, asked: 1}, nil)
		if s := b.status(); s.Paused == "" {
			t.Errorf("%+v", s)
		}
		go wait()
		time.Sleep(3 * time.Second)
		b.saw(load{threads: 3, asked: 1, lag: 2 * time.Second, behind: "r"}, nil) // another reason
		time.Sleep(2 * time.Second)
		b.saw(load{threads: 10, asked: 1, lag: time.Second}, nil)
		if d := <-waited; d != 5*time.Second {
			t.Errorf("paused for %s", d)
		}
		if s := b.status(); s.Paused != "" || s.PausedSeconds != 5 {
			t.Errorf("%+v", s)
		}
		b.saw(load{threads: 20}, errors.New("away"))
		if s := b.status(); s.Paused != "" || s.Trouble != "away" {
			t.Errorf("who can't be asked stops nothing: %+v", s)
		}
		if b.saw(load{}, nil); b.status().Trouble == "" {
			t.Error("no replica answers, and nobody is told")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b.saw(load{threads: 11}, nil)
		b.wait(ctx) // ends with its context
	})
}

// TestBatchSize: batches grow while the target keeps up, and shrink when it does
// not.
func TestBatchSize(t *testing.T) {
	const most, goal = 4000, 200 * time.Millisecond
	var b batchSize
	if b.rows(most) != batchRowsFirst || b.rows(7) != 7 {
		t.Errorf("begins with %d", b.rows(most))
	}
	for range 10 {
		b.wrote(b.rows(most), most, goal/10, goal)
	}
	if b.rows(most) != most {
		t.Errorf("has grown to %d", b.rows(most))
	}
	b.wrote(3, most, goal/10, goal)
	if b.rows(most) != most {
		t.Error("a small batch says nothing")
	}
	for range 20 {
		b.wrote(b.rows(most), most, 2*goal, goal)
	}
	if b.rows(most) != batchRowsMin {
		t.Errorf("has shrunk to %d", b.rows(most))
	}
	b.wrote(batchRowsMin, most, 10*goal, goal)
	if b.rows(most) != batchRowsMin {
		t.Errorf("below its least: %d", b.rows(most))
	}
}

// TestPausedApplier: while the target has too much to do, nothing is written,
// and what was read stays within the window; then it goes on.
func TestPausedApplier(t *testing.T) {
	h := newHostile(1, 0)
	h.burden = load{threads: 50}
	cfg, err := Config{Stream: "s", Lanes: 3, ProgressInterval: time.Millisecond, WindowBytes: 4000, Throttle: Throttle{ThreadsRunning: 10}}.as(causality.Ordered).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	cfg.LargeBytes = 8 << 20
	a := newApplier(cfg, &client{h, 3}, zerolog.Nop())
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	for a.Status().Throttle.Paused == "" && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	const n = 200
	fed := make(chan error, 1)
	go func() {
		for i := range n {
			row := change.Row{Table: shellTable, After: []change.Value{change.IntegerOf(int64(i)), change.TextOf([]byte("x"))}}
			if err := a.Apply(ctx, change.Place{Index: int32(2 * i)}, &change.Transaction{GTID: "0-1-1", CommitTime: time.Now(), Rows: []change.Row{row}}, ""); err != nil {
				fed <- err
				return
			}
		}
		fed <- nil
	}()
	for a.Status().WindowBytes <= cfg.WindowBytes && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case err := <-fed:
		t.Fatalf("all was taken in: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	if s := a.Status(); s.Rows > 0 || s.WindowBytes > 2*cfg.WindowBytes {
		t.Errorf("%d rows were written, %d bytes are held", s.Rows, s.WindowBytes)
	}
	h.mu.Lock()
	h.burden = load{threads: 5}
	h.mu.Unlock()
	if err := <-fed; err != nil {
		t.Error(err)
	}
	for a.Status().Rows < n && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
