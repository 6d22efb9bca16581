package binlog

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// wired is a connection that delivers bytes in pieces of random sizes, and then
// ends.
type wired struct {
	net.Conn // no other method is called
	rest     []byte
	most     int // bytes in one piece
	r        *rand.Rand
}

func (c *wired) SetReadDeadline(time.Time) error { return nil }

func (c *wired) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.rest[:min(len(c.rest), 1+c.r.IntN(c.most))])
	c.rest = c.rest[n:]
	return n, nil
}

// packetsOf is payloads as a server sends them.
func packetsOf(sequence byte, payloads ...[]byte) []byte {
	var b []byte
	for _, p := range payloads {
		for {
			n := min(len(p), packetMax)
			b = append(b, byte(n), byte(n>>8), byte(n>>16), sequence)
			b = append(b, p[:n]...)
			p = p[n:]
			sequence++
			if n < packetMax {
				break
			}
		}
	}
	return b
}

// patterned repeats a stretch whose length is prime to every size around here.
func patterned(n int, first byte) []byte {
	stretch := make([]byte, min(n, 65521))
	for i := range stretch {
		stretch[i] = first + byte(i*7) + byte(i>>8)
	}
	b := make([]byte, 0, n)
	for len(b) < n {
		b = append(b, stretch[:min(len(stretch), n-len(b))]...)
	}
	return b
}

// TestPackets: packets of all sizes, in pieces of all sizes, come out as they went
// in, and what is handed out may be written to.
func TestPackets(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	random := func() (all [][]byte) {
		for i := range 300 {
			n := r.IntN(600)
			switch r.IntN(20) {
			case 0:
				n = 0
			case 1:
				n = r.IntN(2 * bufferBytes)
			case 2:
				n = bufferBytes - packetHead + r.IntN(9) - 4
			}
			if i%100 == 50 {
				n = bufferKept + r.IntN(bufferKept)
			}
			all = append(all, patterned(n, byte(i)))
		}
		return all
	}
	large := func(sizes ...int) (all [][]byte) {
		for i, n := range sizes {
			all = append(all, patterned(n, byte(i)))
		}
		return all
	}
	for _, c := range []struct {
		name string
		all  [][]byte
		most int
	}{
		{"byte by byte", random()[:40], 1},
		{"small pieces", random(), 300},
		{"large pieces", random(), 1 << 20},
		{"around one packet", large(100, packetMax-1, packetMax, packetMax+1, 3), 1 << 20},
		{"three packets", large(2*packetMax, 7, 2*packetMax+12345, 0), 3 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := packetReader{conn: &wired{rest: packetsOf(250, c.all...), most: c.most, r: r}, sequence: 250}
			for i, want := range c.all {
				got, err := p.next()
				if err != nil {
					t.Fatalf("packet %d of %d bytes: %v", i, len(want), err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("packet %d of %d bytes: %d others", i, len(want), len(got))
				}
				clear(got)
				if len(got) > 0 && cap(got) != len(got) {
					t.Fatalf("packet %d: appending to it would write over the next", i)
				}
			}
			if got, err := p.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("after the end: %d bytes, %v", len(got), err)
			}
			if len(p.buf) > 8*packetMax {
				t.Errorf("a buffer of %d bytes", len(p.buf))
			}
		})
	}
}

// TestPacketsKeepNoLargeBuffer: memory of a large event goes once it was taken.
func TestPacketsKeepNoLargeBuffer(t *testing.T) {
	all := [][]byte{patterned(20<<20, 1), patterned(10, 2), patterned(10, 3)}
	p := packetReader{conn: &wired{rest: packetsOf(0, all...), most: 1 << 20, r: rand.New(rand.NewPCG(1, 1))}}
	for i := range all {
		if got, err := p.next(); err != nil || !bytes.Equal(got, all[i]) {
			t.Fatalf("packet %d: %d bytes, %v", i, len(got), err)
		}
	}
	if len(p.buf) != bufferBytes {
		t.Errorf("a buffer of %d bytes", len(p.buf))
	}
}

// TestPacketsDamaged: bytes that are lost anywhere are an error, never a packet
// put together from two.
func TestPacketsDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	whole := packetsOf(7, patterned(40, 1), patterned(0, 2), patterned(30, 3))
	for cut := range whole {
		p := packetReader{conn: &wired{rest: whole[:cut], most: 16, r: r}, sequence: 7}
		var err error
		for err == nil {
			_, err = p.next()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	for _, at := range []int{3, 40 + packetHead + 3} { // the sequence numbers
		b := slices.Clone(whole)
		b[at]++
		p := packetReader{conn: &wired{rest: b, most: 16, r: r}, sequence: 7}
		var err error
		for err == nil {
			_, err = p.next()
		}
		if !errors.Is(err, errSequence) {
			t.Errorf("sequence at %d: %v", at, err)
		}
	}
}

// TestPacketsTimeOut: a peer that is silent is an error after a while.
func TestPacketsTimeOut(t *testing.T) {
	us, them := net.Pipe()
	defer func() { _, _ = us.Close(), them.Close() }()
	p := packetReader{conn: us, timeout: time.Millisecond}
	if _, err := p.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// FuzzPackets: whatever the bytes, and however they come, the packets are those
// that a reading from end to end finds.
func FuzzPackets(f *testing.F) {
	f.Add(packetsOf(0, patterned(40, 1), nil, patterned(300, 3)), uint64(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0, 1, 2, 3}, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := packetReader{conn: &wired{rest: b, most: 1 + r.IntN(64), r: r}}
		for sequence, rest := byte(0), b; ; sequence++ {
			got, err := p.next()
			n := 0
			ok := len(rest) >= packetHead && rest[3] == sequence
			if ok {
				n = int(rest[0]) | int(rest[1])<<8 | int(rest[2])<<16
				ok = n < packetMax && len(rest) >= packetHead+n
			}
			if ok != (err == nil) {
				t.Fatalf("%v, at %d of %d", err, len(b)-len(rest), len(b))
			}
			if err != nil {
				return
			}
			if !bytes.Equal(got, rest[packetHead:packetHead+n]) {
				t.Fatalf("%x at %d", got, len(b)-len(rest))
			}
			rest = rest[packetHead+n:]
		}
	})
}
