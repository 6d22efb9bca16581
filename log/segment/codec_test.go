package segment

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestPack: what is packed comes back, noise is stored as it is, and damage is no
// panic.
func TestPack(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	noise := make([]byte, 256<<10)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for _, way := range []Compression{S2, Zstd, Plain} {
		p, err := newPacker(way)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseCompression(way.String()); err != nil || again != way {
			t.Fatalf("%v comes back as %v, %v", way, again, err)
		}
		var into []byte
		for n := range 40 {
			size := 1 + r.IntN(300<<10)
			raw := noise[:min(size, len(noise))]
			if n%2 == 0 {
				raw = bytes.Repeat(fmt.Appendf(nil, "row %d of %d|", n, r.Uint64()), 1+size/16)
			}
			var stored []byte
			var codec uint32
			stored, into, codec = p.pack(raw, into)
			if plain := codec == codecPlain; plain != (len(stored) == len(raw)) || plain && !bytes.Equal(stored, raw) || n%2 == 1 && !plain && len(stored) < len(raw)*9/10 {
				t.Fatalf("seed %d: %v stores %d bytes as %d of codec %d", seed, way, len(raw), len(stored), codec)
			}
			if codec == codecPlain {
				continue
			}
			back, err := p.unpack(codec, stored, make([]byte, 0, len(raw)), len(raw))
			if err != nil || !bytes.Equal(back, raw) {
				t.Fatalf("seed %d: %v: %d bytes come back as %d, %v", seed, way, len(raw), len(back), err)
			}
			if _, err := p.unpack(codec, stored, make([]byte, 0, len(raw)+1), len(raw)+1); !errors.Is(err, errFormat) {
				t.Fatalf("seed %d: %v: a wrong size gives %v", seed, way, err)
			}
			if _, err := p.unpack(codec, stored[:len(stored)-1], make([]byte, 0, len(raw)), len(raw)); !errors.Is(err, errFormat) {
				t.Fatalf("seed %d: %v: a cut block gives %v", seed, way, err)
			}
		}
	}
	if _, err := ParseCompression("lz4"); err == nil {
		t.Fatal("lz4 is taken")
	}
}

// FuzzUnpack gives any bytes for a packed block: no panic, no more memory than the
// index allows, and no error but the format's.
func FuzzUnpack(f *testing.F) {
	for _, way := range []Compression{S2, Zstd} {
		p, err := newPacker(way)
		if err != nil {
			f.Fatal(err)
		}
		stored, _, codec := p.pack(bytes.Repeat([]byte("entry;"), 100), nil)
		f.Add(codec, bytes.Clone(stored), uint16(600))
	}
	p, err := newPacker(S2)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, codec uint32, b []byte, raw uint16) {
		buf, err := p.unpack(codec, b, make([]byte, 0, raw), int(raw))
		if err != nil && !errors.Is(err, errFormat) {
			t.Fatalf("unnamed error %v", err)
		}
		if err == nil && len(buf) != int(raw) {
			t.Fatalf("%d of %d bytes", len(buf), raw)
		}
	})
}
