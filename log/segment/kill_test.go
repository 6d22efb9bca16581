package segment_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
)

// childDir makes the test binary a store of its own, which TestMain runs until it
// is killed.
const childDir = "TWINSPAN_TEST_STORE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, runChild(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func killConfig(dir string) segment.Config {
	return segment.Config{
		Dir: dir, Name: "a1", FileBytes: 256 << 10, GroupBytes: 64 << 10, JournalBytes: 512 << 10, ClosedMax: 2,
		TidyEvery: 5 * time.Millisecond, IdleCommit: time.Millisecond, BlockBytes: 16 << 10, Logger: zerolog.Nop(),
	}
}

// runChild appends to one stream, closing a segment now and then and giving up old
// ones, and says on its output what is durable.
func runChild(dir string) error {
	s, err := segment.Open(killConfig(dir))
	if err != nil {
		return err
	}
	go func() { // it must not outlive the test, however that ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	go func() {
		fmt.Fprintln(os.Stderr, s.Run(context.Background()))
		os.Exit(1)
	}()
	number, first := uint32(1), log.Offset(0)
	for _, i := range s.Replicas() {
		if number, first = i.Segment, i.First; i.Closed {
			number, first = i.Segment+1, i.Last+1
		}
	}
	for ; ; number++ {
		r, last, err := s.Attach(ctx, describe("s", number, first, max(lsoAt(first-1), log.None), 1, 1), 1)
		if err != nil {
			return err
		}
		for n := range 40 {
			for range 10 {
				last++
				e := entryAt("s", last, 1)
				if err := r.Append(ctx, &segment.Append{
					Epoch: 1, Offset: last, LAC: last - 10, Topic: e.Topic, Ends: e.EndsTransaction,
					Time: e.AppendedAt.UnixMicro(), Checksum: e.Checksum, Payload: e.Payload,
				}); err != nil {
					return err
				}
			}
			if err := durable(ctx, r, 1, last); err != nil {
				return err
			}
			fmt.Println(number, last, n)
		}
		if err := r.Close(ctx, last, max(lsoAt(last), first-1)); err != nil {
			return err
		}
		first = last + 1
		for _, i := range s.Replicas() { // a kill may have come before the drop of an older one
			if i.Segment+8 > number {
				break
			}
			old, err := s.Replica(i.ID())
			if err == nil {
				err = old.Drop(ctx)
			}
			if err != nil {
				return err
			}
		}
	}
}

// TestKill9 kills a real process again and again: what it said was durable is
// there, byte by byte, and nothing has a gap.
func TestKill9(t *testing.T) {
	lives := 15
	if testing.Short() {
		lives = 4
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	checked, archived := 0, 0
	for life := range lives {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		if _, err := cmd.StdinPipe(); err != nil { // open as long as this process lives
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var number uint32
		var last log.Offset
		lines := bufio.NewScanner(out)
		until := time.Now().Add(time.Duration(50+r.IntN(250)) * time.Millisecond)
		killed := false
		for lines.Scan() {
			var n uint32
			var o, batch log.Offset
			if _, err := fmt.Sscan(lines.Text(), &n, &o, &batch); err != nil {
				break // cut short
			}
			number, last = n, o
			if !killed && time.Now().After(until) {
				killed = true
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !killed || !errors.As(err, &exit) {
			t.Fatalf("life %d: killed %v, it ends with %v", life, killed, err)
		}
		s, err := segment.Open(killConfig(dir))
		if err != nil {
			t.Fatalf("life %d: %v", life, err)
		}
		var expected log.Offset
		all := s.Replicas()
		archived = max(archived, s.Stats().Archived)
		for k, i := range all {
			if i.Suspect || k > 0 && i.First != expected || k < len(all)-1 && !i.Complete {
				t.Fatalf("life %d: %+v, want it to start at %d", life, i, expected)
			}
			rep, err := s.Replica(i.ID())
			if err != nil {
				t.Fatal(err)
			}
			entries, err := readAll(rep, segment.Query{From: i.First, Unconfirmed: true})
			if err != nil || len(entries) != int(i.Held-i.First+1) {
				t.Fatalf("life %d: %d entries of %+v: %v", life, len(entries), i, err)
			}
			for j, e := range entries {
				if want := entryAt("s", i.First+log.Offset(j), 1); e.Offset != want.Offset || string(e.Payload) != string(want.Payload) {
					t.Fatalf("life %d: entry %d differs", life, e.Offset)
				}
			}
			checked += len(entries)
			expected = i.Held + 1
		}
		if end := all[len(all)-1]; end.Segment < number || end.Held < last {
			t.Fatalf("life %d: entry %d of segment %d was durable, there is %+v", life, last, number, end)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if archived == 0 {
		t.Fatal("nothing ever left the journal")
	}
	t.Logf("RESULT kills=%d entries=%d archived=%d lost=0", lives, checked, archived)
}
