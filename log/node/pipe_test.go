package node

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

func TestPipeKeepsBytes(t *testing.T) {
	a, b := pipe()
	want := make([]byte, 5<<20)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range want {
		want[i] = byte(r.Uint32())
	}
	var all sync.WaitGroup
	all.Go(func() {
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(700<<10))
			if _, err := a.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
		_ = a.Close() // what was written is still read
	})
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, want %d: %v", len(got), len(want), err)
	}
	all.Wait()
	if _, err := b.Write([]byte("x")); err == nil {
		t.Fatal("a write to a closed end succeeds")
	}
}

func TestPipeDeadlines(t *testing.T) {
	a, b := pipe()
	defer func() { _ = a.Close(); _ = b.Close() }()
	_ = a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read: %v", err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := a.Write(make([]byte, 2*pipeBytes)); !errors.Is(err, os.ErrDeadlineExceeded) || n != pipeBytes {
		t.Fatalf("write: %d, %v", n, err)
	}
}
