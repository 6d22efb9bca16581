package link

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/log/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// between says whether d is at least bound and at most an eighth more.
func between(d, bound time.Duration) bool { return d >= bound && d <= bound+bound/8 }

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		l := New(near, Options{Idle: 8 * time.Second})
		peer := New(far, Options{})
		const signs, pause = 40, 3 * time.Second
		var sender sync.WaitGroup
		sender.Go(func() {
			for range signs {
				time.Sleep(pause)
				if err := peer.Send(&wire.LAC{LAC: 7}); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range signs {
			if _, _, err := l.Next(t.Context(), wire.ControlMax); err != nil {
				t.Fatalf("sign %d of life: %v", i, err)
			}
		}
		sender.Wait()
		for _, idle := range []time.Duration{8 * time.Second, 2 * time.Second, 16 * time.Second} {
			l.SetIdle(idle, 0)
			began := time.Now()
			if _, _, err := l.Next(t.Context(), wire.ControlMax); !errors.Is(err, os.ErrDeadlineExceeded) || !between(time.Since(began), idle) {
				t.Errorf("with %v allowed, silence ends after %v with %v", idle, time.Since(began), err)
			}
		}
		if err := errors.Join(l.Close(), peer.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestWriteBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		const bound = 8 * time.Second
		l := New(near, Options{Write: bound})
		peer := New(far, Options{})
		for i := range 40 { // what the deadline was set for at first is long over by the end
			var reader sync.WaitGroup
			reader.Go(func() {
				time.Sleep(bound - time.Second)
				if _, _, err := peer.Next(t.Context(), wire.ControlMax); err != nil {
					t.Error(err)
				}
			})
			if err := l.Send(&wire.LAC{LAC: 7}); err != nil {
				t.Fatalf("message %d to a slow reader: %v", i, err)
			}
			reader.Wait()
		}
		began := time.Now()
		if err := l.Send(&wire.LAC{LAC: 8}); !errors.Is(err, os.ErrDeadlineExceeded) || !between(time.Since(began), bound) {
			t.Errorf("a write that nobody takes ends after %v with %v", time.Since(began), err)
		}
		if err := errors.Join(l.Close(), peer.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestFrames sends frames of all sizes over several connections at once, in pieces.
func TestFrames(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var all sync.WaitGroup
	for n := range 8 {
		near, far := sockets(t)
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		var bodies [][]byte
		var stream []byte
		for range 60 {
			size := 1 + r.IntN(4<<10)
			switch r.IntN(10) {
			case 0:
				size = 1 + r.IntN(2*bufferBytes)
			case 1:
				size = bufferBytes - wire.HeaderSize - wire.AppendOverhead + r.IntN(64)
			}
			a := wire.Append{Offset: 1, Payload: bytes.Repeat([]byte{byte(r.Uint32())}, size)}
			frame := append(wire.EncodeAppend(nil, &a), a.Payload...)
			bodies = append(bodies, frame[wire.HeaderSize:])
			stream = append(stream, frame...)
		}
		all.Go(func() {
			for len(stream) > 0 {
				k := min(len(stream), 1+r.IntN(100<<10))
				if _, err := far.Write(stream[:k]); err != nil {
					t.Error(err)
					break
				}
				stream = stream[k:]
			}
			if err := far.Close(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			l := New(near, Options{Idle: time.Minute, Small: n%2 == 0})
			l.Grow()
			for i, want := range bodies {
				k, body, err := l.Next(t.Context(), wire.BodyMax)
				if err != nil || k != wire.KindAppend {
					t.Errorf("connection %d, frame %d of %d bytes: %v %v", n, i, len(want), k, err)
					break
				}
				if !bytes.Equal(body, want) {
					t.Errorf("connection %d, frame %d of %d bytes: %d other ones", n, i, len(want), len(body))
				}
			}
			if _, _, err := l.Next(t.Context(), wire.BodyMax); !errors.Is(err, io.EOF) {
				t.Errorf("connection %d ends with %v", n, err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func sockets(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if far, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return near, far
}
