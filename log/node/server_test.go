package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/vfs"
	"github.com/twinspan/twinspan/log/wire"
)

// lockedBuffer takes a node's log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startLogged(t *testing.T, c node.Config) (*running, *lockedBuffer) {
	t.Helper()
	out := &lockedBuffer{}
	c.Name, c.Dir, c.FileBytes, c.Listen = "a1", t.TempDir(), 1<<20, "127.0.0.1:0"
	c.Logger = zerolog.New(out)
	n, err := node.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r, out
}

func raw(t *testing.T, n *running) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func hello() []byte {
	return wire.Encode(nil, &wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeClient, Client: "test"})
}

// TestBadPeers sends what no client would. The connection ends, the reason is in
// the node's log, and a good client notices nothing.
func TestBadPeers(t *testing.T) {
	huge := make([]byte, wire.HeaderSize)
	binary.LittleEndian.PutUint32(huge, 1<<31)
	huge[4] = byte(wire.KindAppend)
	noise := make([]byte, 1<<16)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	flipped := wire.Encode(nil, &wire.Bounds{Stream: "s"})
	flipped[len(flipped)-1] ^= 1
	future := wire.Encode(nil, &wire.Hello{VersionMin: 200, VersionMax: 300})
	for _, c := range []struct {
		name string
		send []byte
		want string
	}{
		{"http", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "none of this protocol"},
		{"noise", noise, "protocol"},
		{"zeros", make([]byte, 4096), "none of this protocol"},
		{"oversized frame", huge, "at most"},
		{"oversized frame after the greeting", append(hello(), huge...), "at most"},
		{"wrong checksum", append(hello(), flipped...), "crc"},
		{"no greeting", wire.Encode(nil, &wire.Streams{}), "before Hello"},
		{"future version", future, "versions 200 to 300"},
		{"two greetings", append(hello(), hello()...), "not a request"},
		{"append without attach", append(hello(), wire.Encode(nil, &wire.Append{Payload: []byte("x")})...), "not a request"},
		{"credit beyond reason", append(hello(), wire.Encode(nil, &wire.Read{Stream: "s", Credit: 1 << 60})...), "credit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, out := startLogged(t, node.Config{})
			good := dial(t, client.Config{Nodes: []string{n.Addr().String()}})
			w, err := good.OpenWriter(context.Background(), "s")
			if err != nil {
				t.Fatal(err)
			}
			conn := raw(t, n)
			go func() { _, _ = conn.Write(c.send) }() // it may be cut off in the middle
			_, err = io.Copy(io.Discard, conn)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("the connection stays open")
			}
			for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), c.want); {
				if time.Now().After(deadline) {
					t.Fatalf("the node's log does not say %q:\n%s", c.want, out)
				}
				time.Sleep(5 * time.Millisecond)
			}
			o, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("x")})
			if err == nil {
				_, err = w.Wait(context.Background(), o)
			}
			if err = errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			if n.Stats().Broken != 1 {
				t.Fatalf("stats %+v", n.Stats())
			}
		})
	}
}

// TestLyingLengths opens many connections that announce large frames and send
// little: the node's memory does not follow.
func TestLyingLengths(t *testing.T) {
	n := start(t, node.Config{Listen: "127.0.0.1:0"})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := quorum.Descriptor{
		Stream: "s", Segment: 1, FirstLSO: log.None, Epoch: 1, Generation: 1, Rule: quorum.NodeRule{Total: 1},
		Members: []quorum.Member{{Node: "a1", UUID: n.Stats().UUID, City: "local"}},
	}
	for i := range 64 {
		c := raw(t, n)
		frames := hello()
		frames = append(frames, wire.Encode(nil, &wire.Attach{Descriptor: d, Epoch: log.Epoch(i + 1)})...)
		head := make([]byte, wire.HeaderSize)
		binary.LittleEndian.PutUint32(head, log.MaxPayload)
		head[4] = byte(wire.KindAppend)
		if _, err := c.Write(append(frames, head...)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 128<<20 {
		t.Fatalf("64 announced frames took %d MiB", grown>>20)
	}
}

func TestSilentPeers(t *testing.T) {
	n, out := startLogged(t, node.Config{HandshakeTimeout: 50 * time.Millisecond, IdleTimeout: 200 * time.Millisecond})
	mute := raw(t, n)
	if _, err := io.Copy(io.Discard, mute); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	half := raw(t, n)
	if _, err := half.Write(hello()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, half); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "silent for 50ms") || !strings.Contains(out.String(), "silent for 200ms") {
		t.Fatalf("the node's log:\n%s", out)
	}
	// A quiet client pings, so it stays.
	l := dial(t, client.Config{Nodes: []string{n.Addr().String()}, IdleTimeout: 200 * time.Millisecond})
	w, err := l.OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	o, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("x")})
	if err == nil {
		_, err = w.Wait(context.Background(), o)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestConnectionCap(t *testing.T) {
	n, out := startLogged(t, node.Config{ConnectionsMax: 3})
	for range 3 {
		c := raw(t, n)
		if _, err := c.Write(hello()); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, wire.HeaderSize)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.Copy(io.Discard, raw(t, n)); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "too many") || n.Stats().Refused != 1 || n.Stats().Connections != 3 {
		t.Fatalf("stats %+v, log:\n%s", n.Stats(), out)
	}
}

// TestReaderComesBack cuts a reader's connections again and again and restarts
// the node: no entry is skipped or seen twice.
func TestReaderComesBack(t *testing.T) {
	disk, metaDir := vfs.NewDisk(), t.TempDir()
	n := start(t, node.Config{Dir: "/log", FS: disk, MetaDir: metaDir, Listen: "127.0.0.1:0"})
	var address atomic.Value
	address.Store(n.Addr().String())
	var mu sync.Mutex
	var conns []net.Conn
	l := dial(t, client.Config{
		Nodes: []string{"node:1"}, ReadWindowBytes: 64 << 10, ReconnectFor: 20 * time.Second,
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address.Load().(string))
			if err == nil {
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
			return c, err
		},
	})
	w, err := n.Log().OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	rd, err := l.OpenReader(context.Background(), "s", log.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const entries = 6000
	var all sync.WaitGroup
	all.Go(func() {
		for o := range log.Offset(entries) {
			e, err := rd.Next(context.Background())
			if err != nil || e.Offset != o || len(e.Payload) != 100+int(o%900) {
				t.Errorf("entry %d of %d bytes, want %d: %v", e.Offset, len(e.Payload), o, err)
				return
			}
		}
	})
	for o := range log.Offset(entries) {
		if _, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: make([]byte, 100+int(o%900))}); err != nil {
			t.Fatal(err)
		}
		if o%500 == 250 {
			if _, err := w.Wait(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			for _, c := range conns {
				_ = c.Close() // that is the test
			}
			conns = nil
			mu.Unlock()
		}
		if o == entries/2 {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			n = start(t, node.Config{Dir: "/log", FS: disk.Restart(), MetaDir: metaDir, Listen: "127.0.0.1:0"})
			address.Store(n.Addr().String())
			if w, err = n.Log().OpenWriter(context.Background(), "s"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if err := rd.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReaderGivesUp stops the node for good.
func TestReaderGivesUp(t *testing.T) {
	n := start(t, node.Config{Listen: "127.0.0.1:0"})
	l := dial(t, client.Config{Nodes: []string{n.Addr().String()}, ReconnectFor: 100 * time.Millisecond})
	hasty := dial(t, client.Config{Nodes: []string{n.Addr().String()}, OpenFor: 300 * time.Millisecond, RequestTimeout: 300 * time.Millisecond})
	w, err := l.OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	rd, err := l.OpenReader(context.Background(), "s", log.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := rd.Next(context.Background()); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("reader: %v", err)
	}
	// The writer waits: the node may come back.
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, Payload: []byte("x")})
	if err == nil {
		_, err = w.Wait(ctx, o)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("writer: %v", err)
	}
	if _, err := hasty.Streams(context.Background()); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("streams: %v", err)
	}
	if _, err := hasty.OpenWriter(context.Background(), "s"); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("open writer: %v", err)
	}
	if err := errors.Join(rd.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // its entry will never be confirmed
}

// TestDeadDisk lets a sync fail: Run returns the error, everyone is told, and
// nothing unconfirmed was promised.
func TestDeadDisk(t *testing.T) {
	disk := vfs.NewDisk()
	n, err := node.New(node.Config{Name: "a1", Dir: "/log", MetaDir: t.TempDir(), FS: disk, FileBytes: 1 << 20, Listen: "127.0.0.1:0", Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Run(context.Background()) }()
	l := dial(t, client.Config{Nodes: []string{n.Addr().String()}, ReconnectFor: 10 * time.Millisecond})
	var ws []log.Writer
	for _, from := range []log.Log{l, n.Log()} {
		w, err := from.OpenWriter(context.Background(), []string{"remote", "local"}[len(ws)])
		if err != nil {
			t.Fatal(err)
		}
		ws = append(ws, w)
	}
	disk.SetHook(func(op vfs.Op) vfs.Fault {
		if op.Kind == vfs.OpSync && !strings.Contains(op.Name, "meta") {
			return vfs.Fault{Err: syscall.EIO}
		}
		return vfs.Fault{}
	})
	for _, w := range ws {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("x")})
		if err == nil {
			_, err = w.Wait(ctx, o)
		}
		cancel()
		if err == nil {
			t.Fatal("an entry is confirmed on a dead disk")
		}
	}
	if err := l.Close(); err != nil { // the writers would wait for the node to come back
		t.Fatal(err)
	}
	for _, w := range ws {
		_ = w.Close() // dead
	}
	select {
	case err := <-done:
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("Run ends with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the node runs on")
	}
}

func TestMetrics(t *testing.T) {
	n := start(t, node.Config{})
	for i := range 100 {
		w, err := n.Log().OpenWriter(context.Background(), strings.Repeat("s", i+1))
		if err == nil {
			_, err = w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: []byte("x")})
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(n.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := 0
	for _, f := range families {
		series += len(f.Metric)
		if f.GetName() == "twinspan_log_appends_total" && f.Metric[0].Counter.GetValue() != 100 {
			t.Fatalf("appends %v", f.Metric[0])
		}
	}
	if series > 600 || n.Stats().Segment.Replicas != 100 {
		t.Fatalf("%d series for %d streams", series, n.Stats().Segment.Replicas)
	}
}

func BenchmarkAppend1KiB(b *testing.B) {
	for _, engine := range []string{"embedded", "wire"} {
		b.Run(engine, func(b *testing.B) {
			n := start(b, node.Config{Listen: "127.0.0.1:0", FileBytes: 64 << 20})
			l := n.Log()
			if engine == "wire" {
				l = dial(b, client.Config{Nodes: []string{n.Addr().String()}})
			}
			w, err := l.OpenWriter(context.Background(), "s")
			if err != nil {
				b.Fatal(err)
			}
			p := make([]byte, 1024)
			b.SetBytes(1024)
			b.ReportAllocs()
			b.ResetTimer()
			var last log.Offset
			for range b.N {
				if last, err = w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p}); err != nil {
					b.Fatal(err)
				}
			}
			if _, err := w.Wait(context.Background(), last); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			b.ReportMetric(float64(b.N)/float64(max(1, n.Stats().Segment.Groups)), "appends/sync")
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
