package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// worker runs until it is told to stop.
func worker(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return ctx.Err()
}

func TestRolesStopInTheOppositeOrder(t *testing.T) {
	var mu sync.Mutex
	var ended []string
	role := func(name string) Role {
		return Role{Name: name, Run: func(ctx context.Context, ready func()) error {
			ready()
			<-ctx.Done()
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, name)
			return ctx.Err()
		}}
	}
	d := New(zerolog.Nop(), role("node"), role("producer"), role("consumer"))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for d.Ready() != nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ended, " "); got != "consumer producer node" {
		t.Error(got)
	}
	for _, s := range d.Status() {
		if s.State != Stopped || s.Restarts != 0 {
			t.Errorf("%+v", s)
		}
	}
}

func TestFailureIsRetriedWithGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		d := New(zerolog.Nop(), Role{Name: "producer", Run: func(ctx context.Context, ready func()) error {
			starts = append(starts, time.Now())
			if len(starts) < 12 {
				return errors.New("no route")
			}
			return worker(ctx, ready)
		}})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(5*time.Minute, cancel)
		if err := d.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(starts) != 12 {
			t.Fatalf("%d starts", len(starts))
		}
		for i := 1; i < len(starts); i++ {
			low := min(pauseMin<<(i-1), pauseMax)
			if got := starts[i].Sub(starts[i-1]); got < low || got > low*3/2 {
				t.Errorf("pause %d was %s, expected %s and up to a half more", i, got, low)
			}
		}
		if s := d.Status()[0]; s.Restarts != 11 || s.State != Stopped {
			t.Errorf("%+v", s)
		}
	})
}

func TestHaltIsShownAndLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gap := errors.New("gap")
		var cured atomic.Bool
		var runs atomic.Int32
		d := New(zerolog.Nop(),
			Role{Name: "node", Run: worker},
			Role{Name: "producer",
				Run: func(ctx context.Context, ready func()) error {
					if runs.Add(1); !cured.Load() {
						return gap
					}
					return worker(ctx, ready)
				},
				Judge: func(err error) Verdict {
					return Verdict{Halt: &Halt{Code: "GAP", Detail: err.Error(), Remedy: "do something"}}
				}})
		var changes atomic.Int32
		d.OnChange(func() { changes.Add(1) })
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		time.Sleep(time.Second)
		s := d.Status()[1]
		if s.State != Halted || len(s.Halts) != 1 || s.Halts[0].Code != "GAP" || d.Status()[0].State != Running {
			t.Fatalf("%+v", d.Status())
		}
		if err := d.Ready(); err == nil || err.Error() != "producer: halt GAP: gap" {
			t.Errorf("ready: %v", err)
		}
		time.Sleep(2 * pauseHalt)
		if n := runs.Load(); n != 3 {
			t.Errorf("%d runs", n)
		}
		cured.Store(true)
		d.Retry()
		synctest.Wait()
		if err := d.Ready(); err != nil {
			t.Error(err)
		}
		if s := d.Status()[1]; s.Halts != nil || s.Error != "" {
			t.Errorf("%+v", s)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := changes.Load(); n < 4 {
			t.Errorf("%d changes", n)
		}
	})
}

func TestFinalHaltIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		d := New(zerolog.Nop(), Role{Name: "producer",
			Run:   func(context.Context, func()) error { runs++; return errors.New("fenced") },
			Judge: func(error) Verdict { return Verdict{Halt: &Halt{Code: "FENCED"}, Final: true} }})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(24*time.Hour, cancel)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
		if runs != 1 {
			t.Errorf("%d runs", runs)
		}
	})
}

func TestFatalErrorEndsTheProcess(t *testing.T) {
	broken := errors.New("fdatasync failed")
	d := New(zerolog.Nop(),
		Role{Name: "node", Run: func(context.Context, func()) error { return broken },
			Judge: func(error) Verdict { return Verdict{Fatal: true} }},
		Role{Name: "producer", Run: worker})
	err := d.Run(context.Background())
	if !errors.Is(err, broken) || err.Error() != "node: fdatasync failed" {
		t.Error(err)
	}
}
