package node_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/vfs"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

// put appends n entries of a KiB, each tenth to the schema topic, and waits.
func put(t *testing.T, w log.Writer, n int) log.Offset {
	t.Helper()
	var last log.Offset
	for range n {
		topic := log.TopicData
		if w.Bounds().LAC%10 == 9 {
			topic = log.TopicSchema
		}
		var err error
		if last, err = w.Append(context.Background(), log.Draft{Topic: topic, EndsTransaction: true, Payload: bytes.Repeat([]byte("x"), 1024)}); err != nil {
			t.Fatal(err)
		}
		if _, err = w.Wait(context.Background(), last); err != nil {
			t.Fatal(err)
		}
	}
	return last
}

// TestTrimmed checks what readers see of retention, in process and over the
// wire: a reader that is overtaken is told, and the schema topic stays whole.
func TestTrimmed(t *testing.T) {
	n := start(t, node.Config{
		Dir: "/log", FS: vfs.NewDisk(), Listen: "127.0.0.1:0", FileBytes: 128 << 10,
		RetentionEvery: 20 * time.Millisecond,
	})
	remote := dial(t, client.Config{Nodes: []string{n.Addr().String()}, ReadWindowBytes: 8 << 10, SegmentBytes: 64 << 10, RollEvery: time.Millisecond, Policy: &meta.Policy{Rule: quorum.NodeRule{Total: 1}, Loss: meta.LossBlock, BytesMax: 1}})
	w, err := remote.OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	put(t, w, 20)
	type engine struct {
		name   string
		log    log.Log
		reader log.Reader
	}
	engines := []engine{{"embedded", n.Log(), nil}, {"wire", remote, nil}}
	for i := range engines {
		e := &engines[i]
		if e.reader, err = e.log.OpenReader(context.Background(), "s", log.ReaderOptions{}); err == nil {
			_, err = e.reader.Next(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	last := put(t, w, 1500)
	for deadline := time.Now().Add(10 * time.Second); firstOf(t, remote) < 500; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is trimmed: %+v", n.Stats())
		}
		last = put(t, w, 20) // segments close as entries come
		if err := remote.StoreCursor(context.Background(), "s", log.Cursor{Group: "g", Offset: last}); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if _, err := e.log.OpenReader(ctx, "s", log.ReaderOptions{From: 5}); !errors.Is(err, log.ErrTrimmed) {
				t.Fatalf("open below the first entry: %v", err)
			}
			at := log.Offset(1)
			for at <= last { // what had arrived, or was still at hand, then the news; never a gap
				entry, err := e.reader.Next(ctx)
				if errors.Is(err, log.ErrTrimmed) {
					break
				}
				if err != nil || entry.Offset != at {
					t.Fatalf("entry %d where %d should come: %v", entry.Offset, at, err)
				}
				at++
			}
			schema, err := e.log.OpenReader(ctx, "s", log.ReaderOptions{To: last + 1, Topics: []log.Topic{log.TopicSchema}})
			if err != nil {
				t.Fatal(err)
			}
			seen := 0
			for want := log.Offset(10); want <= last; want += 10 {
				entry, err := schema.Next(ctx)
				if err != nil || entry.Offset != want {
					t.Fatalf("schema entry %d where %d should come: %v", entry.Offset, want, err)
				}
				seen++
			}
			if err := errors.Join(schema.Close(), e.reader.Close()); err != nil {
				t.Fatal(err)
			}
			t.Logf("trimmed at %d, %d schema entries", at, seen)
		})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func firstOf(t *testing.T, l log.Log) log.Offset {
	t.Helper()
	b, err := l.Bounds(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	return b.First
}

// TestTLS runs the wire under TLS with client certificates; a plain client and a
// stranger get nowhere.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "log"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	n := start(t, node.Config{
		Listen: "127.0.0.1:0", HandshakeTimeout: 300 * time.Millisecond,
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13},
	})
	good := dial(t, client.Config{Nodes: []string{n.Addr().String()}, TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}})
	w, err := good.OpenWriter(context.Background(), "s")
	if err != nil {
		t.Fatal(err)
	}
	last := put(t, w, 50)
	r, err := good.OpenReader(context.Background(), "s", log.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for o := log.Offset(0); o <= last; o++ {
		if e, err := r.Next(context.Background()); err != nil || e.Offset != o {
			t.Fatalf("entry %d: %v", e.Offset, err)
		}
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*tls.Config{"plain": nil, "no certificate": {RootCAs: pool}, "unknown authority": {Certificates: []tls.Certificate{cert}}} {
		bad := dial(t, client.Config{Nodes: []string{n.Addr().String()}, TLS: c})
		if _, err := bad.Streams(context.Background()); !errors.Is(err, log.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkAppendOne waits for each entry: the latency of one sync.
func BenchmarkAppendOne(b *testing.B) {
	n := start(b, node.Config{Listen: "127.0.0.1:0", FileBytes: 64 << 20})
	w, err := dial(b, client.Config{Nodes: []string{n.Addr().String()}}).OpenWriter(context.Background(), "s")
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1024)
	b.ResetTimer()
	for range b.N {
		o, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p})
		if err == nil {
			_, err = w.Wait(context.Background(), o)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	s := n.Stats().Segment
	b.ReportMetric(float64(s.SyncTime.Microseconds())/float64(s.Syncs), "µs/sync")
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead1KiB reads a backlog over the wire.
func BenchmarkRead1KiB(b *testing.B) {
	n := start(b, node.Config{Listen: "127.0.0.1:0", FileBytes: 64 << 20})
	w, err := n.Log().OpenWriter(context.Background(), "s")
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 1024)
	for range b.N {
		if _, err := w.Append(context.Background(), log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p}); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1024)
	b.ReportAllocs()
	b.ResetTimer()
	r, err := dial(b, client.Config{Nodes: []string{n.Addr().String()}}).OpenReader(context.Background(), "s", log.ReaderOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if _, err := r.Next(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
}

// TestDamagedPayload: an Append whose payload changed on its way, which its frame's
// checksum does not cover, ends the connection, and nothing of it is stored.
func TestDamagedPayload(t *testing.T) {
	n, out := startLogged(t, node.Config{})
	d := quorum.Descriptor{
		Stream: "s", Segment: 1, FirstLSO: log.None, Epoch: 1, Generation: 1, Rule: quorum.NodeRule{Total: 1},
		Members: []quorum.Member{{Node: "a1", UUID: n.Stats().UUID, City: "local"}},
	}
	payload := []byte("payload")
	frames := append(hello(), wire.Encode(nil, &wire.Attach{Descriptor: d, Epoch: 1})...)
	for o := range log.Offset(2) {
		frames = append(frames, wire.Encode(nil, &wire.Append{
			Offset: o, LAC: log.None, Topic: log.TopicData, Ends: true, Checksum: segment.Checksum(payload), Payload: payload,
		})...)
	}
	frames[len(frames)-1] ^= 1
	conn := raw(t, n)
	if _, err := conn.Write(frames); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(15 * time.Second); !strings.Contains(out.String(), "payload checksum differs") || n.Stats().Segment.Appends < 1; {
		if time.Now().After(deadline) {
			t.Fatalf("stats %+v; the node's log says\n%s", n.Stats().Segment, out)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got := n.Stats().Segment.Appends; got != 1 {
		t.Fatalf("%d entries are stored", got)
	}
}

// TestVersionTwo: a writer of the version before is served as it speaks: its frames
// have a checksum over the payload as well, and one that is wrong ends the connection.
func TestVersionTwo(t *testing.T) {
	n, out := startLogged(t, node.Config{})
	d := quorum.Descriptor{
		Stream: "s", Segment: 1, FirstLSO: log.None, Epoch: 1, Generation: 1, Rule: quorum.NodeRule{Total: 1},
		Members: []quorum.Member{{Node: "a1", UUID: n.Stats().UUID, City: "local"}},
	}
	payload := []byte("payload")
	l := link.New(raw(t, n), link.Options{Idle: 20 * time.Second})
	if err := l.Send(&wire.Hello{VersionMin: 1, VersionMax: 2, Purpose: wire.PurposeClient, Client: "old"}); err != nil {
		t.Fatal(err)
	}
	var welcome wire.Welcome
	if err := l.Expect(t.Context(), &welcome); err != nil || welcome.Version != 2 {
		t.Fatalf("version %d: %v", welcome.Version, err)
	}
	if err := l.Send(&wire.Attach{Descriptor: d, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	var attached wire.Attached
	if err := l.Expect(t.Context(), &attached); err != nil {
		t.Fatal(err)
	}
	frame := func(o log.Offset) []byte { // as that version's programs make it
		b := wire.Encode(nil, &wire.Append{Offset: o, LAC: log.None, Topic: log.TopicData, Ends: true, Checksum: segment.Checksum(payload), Payload: payload})
		binary.LittleEndian.PutUint32(b[8:], segment.Checksum(append(bytes.Clone(b[:8]), b[wire.HeaderSize:]...)))
		return b
	}
	if err := l.SendBuffers(net.Buffers{frame(0)}); err != nil {
		t.Fatal(err)
	}
	var ack wire.Ack
	if err := l.Expect(t.Context(), &ack); err != nil || ack.Last != 0 {
		t.Fatalf("acknowledged %d: %v", ack.Last, err)
	}
	bad := frame(1)
	bad[len(bad)-1] ^= 1
	if err := l.SendBuffers(net.Buffers{bad}); err != nil {
		t.Fatal(err)
	}
	if err := l.Expect(t.Context(), &ack); err == nil {
		t.Fatal("a damaged frame is acknowledged")
	}
	for deadline := time.Now().Add(15 * time.Second); !strings.Contains(out.String(), "Append frame of 38 bytes: crc"); {
		if time.Now().After(deadline) {
			t.Fatalf("the node's log says\n%s", out)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
