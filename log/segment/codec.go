package segment

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression is how blocks of entries are packed when they leave the journal.
// Each block says how it was, so a change leaves the files that are there
// readable.
type Compression uint8

// The compressions. S2 costs a quarter of the CPU of Zstd or less, and stores a
// quarter to a half more.
const (
	S2 Compression = iota
	Zstd
	Plain
)

var compressionNames = [...]string{S2: "s2", Zstd: "zstd", Plain: "none"}

func (c Compression) String() string {
	if int(c) < len(compressionNames) {
		return compressionNames[c]
	}
	return fmt.Sprintf("compression-%d", uint8(c))
}

// ParseCompression is the inverse of String.
func ParseCompression(s string) (Compression, error) {
	for i, name := range compressionNames {
		if name == s {
			return Compression(i), nil
		}
	}
	return 0, fmt.Errorf("unknown compression %q: use s2, zstd or none", s)
}

// The codec of a block, as its row in the index has it.
const (
	codecPlain = 0
	codecZstd  = 1
	codecS2    = 2
	codecLast  = codecS2
)

// packer packs and unpacks blocks. It is safe for concurrent use.
type packer struct {
	way     Compression
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

func newPacker(way Compression) (p *packer, err error) {
	p = &packer{way: way}
	if p.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	if p.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(blockRawMax)); err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return p, nil
}

const (
	sampleBytes = 16 << 10 // of a block, to see whether packing it is worth the while
	sampleLeast = 0.02     // of compress.Estimate; noise has 0
)

// pack returns the bytes to store for a block and their codec. into is a buffer of
// an earlier call or nil; the one returned is for the next.
func (p *packer) pack(raw, into []byte) (stored, buffer []byte, codec uint32) {
	switch p.way {
	case S2:
		// It notices noise by itself, and passes over it.
		if n := s2.MaxEncodedLen(len(raw)); cap(into) < n {
			into = make([]byte, n)
		}
		stored, codec = s2.Encode(into[:cap(into)], raw), codecS2
		into = stored
	case Zstd:
		middle := raw[max(0, len(raw)-sampleBytes)/2:]
		if len(raw) > 2*sampleBytes && compress.Estimate(middle[:sampleBytes]) < sampleLeast {
			return raw, into, codecPlain
		}
		into = p.encoder.EncodeAll(raw, into[:0])
		stored, codec = into, codecZstd
	default:
		return raw, into, codecPlain
	}
	if len(stored) >= len(raw) {
		return raw, into, codecPlain
	}
	return stored, into, codec
}

// unpack puts the records of a packed block into buf, which has room for all of
// them: raw bytes, no more and no less.
func (p *packer) unpack(codec uint32, packed, buf []byte, raw int) ([]byte, error) {
	var err error
	switch codec {
	case codecZstd:
		buf, err = p.decoder.DecodeAll(packed, buf[:0])
	case codecS2:
		var n int
		if n, err = s2.DecodedLen(packed); err == nil && n != raw {
			return buf[:0], fmt.Errorf("the block unpacks to %d of %d bytes: %w", n, raw, errFormat)
		}
		if err == nil {
			buf, err = s2.Decode(buf[:raw], packed)
		}
	default:
		return buf[:0], fmt.Errorf("codec %d: %w", codec, errFormat)
	}
	if err != nil || len(buf) != raw {
		return buf, fmt.Errorf("the block unpacks to %d of %d bytes: %w", len(buf), raw, errors.Join(errFormat, err))
	}
	return buf, nil
}
