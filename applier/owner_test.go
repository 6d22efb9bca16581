package applier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// TestFrozenOwner: an applier's process is stopped in the middle of its work. A
// second one takes the stream over after the lease and finishes. Thawed, the
// first finds itself fenced and changes nothing.
func TestFrozenOwner(t *testing.T) {
	for _, f := range []mysqltest.Flavor{mysqltest.MySQL97, mysqltest.MariaDB1011} {
		t.Run(string(f), func(t *testing.T) {
			srv, seed, g, h := liveServer(t, f)
			rng := rand.New(rand.NewPCG(seed, 13))
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			c := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestChild$", "-test.v")
			c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %d", childEnv, srv.Address, f.Server(), seed, *liveChanges, 4))
			var out strings.Builder
			c.Stdout, c.Stderr = &out, &out
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			for { // until it is in the middle of its work
				var rows int
				err := srv.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM twinspan.lane_position WHERE log_offset >= 0").Scan(&rows)
				if err == nil && rows > 0 {
					break
				}
				if ctx.Err() != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			a, err := New(liveConfig(srv, 3), zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			life, end := context.WithCancel(ctx)
			ran := make(chan error, 1)
			go func() { ran <- a.Run(life) }()
			start := time.Now()
			if !feedAll(life, a, h, lastPlace(h)) {
				t.Errorf("second applier did not finish: %+v", a.Status())
			}
			t.Logf("took over and finished in %s", time.Since(start).Round(time.Millisecond))
			if err := c.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			waited := c.Wait()
			if d := difference(ctx, srv, g); d != "" {
				t.Error(d)
			}
			end()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
			// A child that had finished before the freeze proves nothing.
			if waited == nil {
				t.Logf("the child had finished")
			} else if !strings.Contains(out.String(), "fenced") {
				t.Errorf("the child ended with %v:\n%s", waited, out.String())
			}
		})
	}
}

// TestOneOwner: a second applier waits while the first is alive, and says so;
// it goes on where the first stops.
func TestOneOwner(t *testing.T) {
	srv, _, g, h := liveServer(t, mysqltest.MySQL97)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := func() (*Applier, context.CancelFunc, chan error) {
		a, err := New(liveConfig(srv, 4), zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		life, end := context.WithCancel(ctx)
		ran := make(chan error, 1)
		go func() { ran <- a.Run(life) }()
		return a, end, ran
	}
	first, endFirst, firstRan := run()
	if !feedAll(ctx, first, h[:len(h)/2], lastPlace(h[:len(h)/2])) {
		t.Fatalf("%+v", first.Status())
	}
	second, endSecond, secondRan := run()
	for len(second.Status().Troubles) == 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if s := second.Status(); s.Owner || !strings.Contains(fmt.Sprint(s.Troubles), "another applier owns the stream") {
		t.Errorf("second: %+v", s)
	}
	endFirst()
	if err := <-firstRan; err != nil {
		t.Errorf("first: %v", err)
	}
	if !feedAll(ctx, second, h, lastPlace(h)) {
		t.Errorf("%+v", second.Status())
	}
	if d := difference(ctx, srv, g); d != "" {
		t.Error(d)
	}
	// Someone raises the epoch by hand: the owner stops by itself.
	srv.Exec(t, "UPDATE twinspan.stream SET epoch = epoch + 1")
	select {
	case err := <-secondRan:
		if !errors.Is(err, ErrFenced) {
			t.Errorf("second: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a fenced owner does not stop")
	}
	endSecond()
}
