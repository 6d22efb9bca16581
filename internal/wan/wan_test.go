package wan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo gives back what it gets, each connection, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				_, _ = io.Copy(c, c) // a reset is what some tests want
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return l.Addr().String()
}

// cities a, b and c, told by 127.0.1.x, 127.0.2.x and 127.0.3.x, with an echo in b.
func cities(t *testing.T, ways ...Between) *Network {
	t.Helper()
	var places []Place
	for i, c := range []string{"a", "b", "c"} {
		places = append(places, Place{netip.MustParsePrefix(fmt.Sprintf("127.0.%d.0/24", i+1)), c})
	}
	n, err := New(Config{Gates: []Gate{{Name: "b1", City: "b", Listen: "127.0.0.1:0", Target: echo(t)}}, Cities: places, Ways: ways})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1) // owner: the goroutine; bound 1; never closed
	go func() { done <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func from(t *testing.T, n *Network, address string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", n.Gates()[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// round sends a word and waits for it to come back.
func round(c net.Conn, word string) error {
	if _, err := c.Write([]byte(word)); err != nil {
		return err
	}
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != word {
		return fmt.Errorf("%q came back for %q", b, word)
	}
	return nil
}

func between(from, to string, w Way) Between { return Between{From: from, To: to, Way: w} }

func TestDelayIsWhatWasAskedFor(t *testing.T) {
	n := cities(t, between("a", "b", Way{Delay: 10 * time.Millisecond}), between("b", "a", Way{Delay: 5 * time.Millisecond}))
	for _, c := range []struct {
		source string
		want   time.Duration
	}{{"127.0.1.9", 15 * time.Millisecond}, {"127.0.2.9", 0}} {
		conn := from(t, n, c.source)
		if err := round(conn, "first"); err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for range 60 {
			began := time.Now()
			if err := round(conn, "word"); err != nil {
				t.Fatal(err)
			}
			d := time.Since(began)
			if d < c.want {
				t.Fatalf("%s: a round trip in %v, less than %v", c.source, d, c.want)
			}
			took = append(took, d-c.want)
		}
		slices.Sort(took)
		// Others use these processors as well: the median is what the proxy adds.
		t.Logf("from %s: added to %v: median %v, p90 %v", c.source, c.want, took[30], took[54])
		if took[30] > time.Millisecond {
			t.Errorf("from %s: %v are added to %v", c.source, took[30], c.want)
		}
	}
}

func TestDelayTakesNoThroughputAndKeepsOrder(t *testing.T) {
	near := throughput(t, 0)
	far := throughput(t, 20*time.Millisecond)
	t.Logf("%.0f MB/s without a delay, %.0f with 20 ms each way", near, far)
	// They are alike; a delay that costs throughput would leave a hundredth.
	if far < near/10 {
		t.Errorf("%.0f MB/s without a delay, only %.0f with 20 ms each way", near, far)
	}
}

// throughput is how many MB/s of random bytes pass a network of this delay, out and
// back, on one connection.
func throughput(t *testing.T, delay time.Duration) float64 {
	t.Helper()
	n := cities(t, between("a", "b", Way{Delay: delay, Jitter: delay / 7}), between("b", "a", Way{Delay: delay}))
	conn := from(t, n, "127.0.1.1")
	const total = 64 << 20
	began := time.Now()
	sent := make(chan error, 1) // owner: the goroutine; bound 1; never closed
	go func() {
		random := rand.New(rand.NewPCG(1, 2))
		b := make([]byte, 1<<20)
		for at := 0; at < total; at += len(b) {
			for i := 0; i < len(b); i += 8 {
				binary.LittleEndian.PutUint64(b[i:], random.Uint64())
			}
			if _, err := conn.Write(b); err != nil {
				sent <- err
				return
			}
		}
		sent <- conn.CloseWrite()
	}()
	random := rand.New(rand.NewPCG(1, 2))
	b, want := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := 0; at < total; at += len(b) {
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatal(at, err)
		}
		for i := 0; i < len(want); i += 8 {
			binary.LittleEndian.PutUint64(want[i:], random.Uint64())
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("other bytes came back at %d", at)
		}
	}
	rate := 2 * float64(total) / time.Since(began).Seconds() / 1e6 // every byte passes the network twice
	if n, err := conn.Read(b); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	flows := n.Flows()
	if len(flows) != 1 || flows[0].Sent != total || flows[0].Received != total || flows[0].City != "a" || flows[0].GateCity != "b" || flows[0].Connections != 1 {
		t.Errorf("%+v", flows)
	}
	return rate
}

func TestRate(t *testing.T) {
	n := cities(t, between("a", "b", Way{Rate: 4 << 20}))
	conn := from(t, n, "127.0.1.1")
	began := time.Now()
	var all sync.WaitGroup
	all.Go(func() {
		_, _ = conn.Write(make([]byte, 2<<20))
	})
	if _, err := io.ReadFull(conn, make([]byte, 2<<20)); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if d := time.Since(began); d < 450*time.Millisecond || d > 20*time.Second {
		t.Errorf("2 MiB at 4 MiB/s took %v", d)
	}
}

func TestCuts(t *testing.T) {
	n := cities(t)
	silent := func(c net.Conn) error {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		defer func() { _ = c.SetReadDeadline(time.Now().Add(10 * time.Second)) }()
		if b, err := c.Read(make([]byte, 1)); err == nil {
			return fmt.Errorf("%d bytes came through", b)
		} else if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
			return fmt.Errorf("the connection ended: %w", err)
		}
		return nil
	}
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	a, b, c := from(t, n, "127.0.1.1"), from(t, n, "127.0.2.1"), from(t, n, "127.0.3.1")
	for _, conn := range []net.Conn{a, b, c} {
		check("before", round(conn, "x"))
	}

	check("partition", n.Partition("a", "b", Hold))
	_, err := a.Write([]byte("held"))
	check("write", err)
	check("a is cut off", silent(a))
	late := from(t, n, "127.0.1.2")
	_, err = late.Write([]byte("late"))
	check("write", err)
	check("a new connection is cut off", silent(late))
	check("b within itself", round(b, "x"))
	check("c to b", round(c, "x"))
	check("heal", n.Partition("a", "b", Open))
	for conn, word := range map[net.Conn]string{a: "held", late: "late"} {
		got := make([]byte, 4)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != word {
			t.Errorf("after the cut: %q, %v", got, err)
		}
	}

	// One way: what b says does not reach a, what a says reaches b.
	before := n.Flows()[0]
	check("one way", n.SetCut("b", "a", Hold))
	_, err = a.Write([]byte("heard"))
	check("write", err)
	check("b is not heard", silent(a))
	if after := n.Flows()[0]; after.Sent != before.Sent+5 || after.Received != before.Received {
		t.Errorf("%+v, then %+v", before, after)
	}
	check("heal", n.SetCut("b", "a", Open))
	if _, err := io.ReadFull(a, make([]byte, 5)); err != nil {
		t.Error(err)
	}

	check("reset", n.Partition("a", "b", Reset))
	if err := round(a, "x"); err == nil {
		t.Error("a connection outlived its reset")
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.1.3")}}
	if conn, err := d.Dial("tcp", n.Gates()[0].Listen); err == nil { // the reset may come that early
		if err := round(conn, "x"); err == nil {
			t.Error("a new connection passes a line that resets")
		}
		_ = conn.Close()
	}
	check("c to b", round(c, "x"))
	check("heal", n.Partition("a", "b", Open))
	check("after the reset", round(from(t, n, "127.0.1.3"), "x"))

	if err := n.Set("a", "b", Way{Cut: "cut"}); err == nil {
		t.Error("an unknown cut is taken")
	}
}

func TestControlFromAnotherProcess(t *testing.T) {
	n := cities(t)
	s := httptest.NewServer(n.Handler())
	defer s.Close()
	r := Remote{URL: s.URL}
	w := Way{Delay: 3 * time.Millisecond, Rate: 1 << 30}
	if err := r.Set(t.Context(), "a", "b", w); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Between{between("a", "b", w)}, n.Ways()); d != "" {
		t.Error(d)
	}
	if err := r.Set(t.Context(), "a", "b", Way{Delay: -1}); err == nil {
		t.Error("a negative delay is taken")
	}
	if err := round(from(t, n, "127.0.1.1"), "word"); err != nil {
		t.Fatal(err)
	}
	flows, err := r.Flows(t.Context())
	if err != nil || len(flows) != 1 || flows[0].Source != "127.0.1.1" || flows[0].Sent != 4 || flows[0].Received != 4 {
		t.Errorf("%+v %v", flows, err)
	}
	gates, err := r.Gates(t.Context())
	if err != nil || len(gates) != 1 || gates[0].City != "b" {
		t.Errorf("%+v %v", gates, err)
	}
	s.CloseClientConnections()
}

// A target that is not there is a reset, not a silence.
func TestTargetIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := l.Addr().String()
	_ = l.Close()
	n := cities(t)
	m, err := New(Config{Gates: []Gate{{Name: "x", City: "b", Listen: "127.0.0.1:0", Target: away}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = m.Run(ctx) })
	if conn, err := net.Dial("tcp", m.Gates()[0].Listen); err == nil { // the reset may come that early
		if err := round(conn, "x"); err == nil {
			t.Error("somebody answers")
		}
		_ = conn.Close()
	}
	cancel()
	all.Wait()
	if _, err := New(Config{Gates: []Gate{{Name: "y", Listen: n.Gates()[0].Listen}}}); err == nil {
		t.Error("one address twice")
	}
}
