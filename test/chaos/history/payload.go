package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

const (
	payloadMagic = 0x68635754 // "TWch"
	payloadHead  = 4 + 4 + 1
	payloadTail  = 8
	// PayloadMin is the size that any payload can have.
	PayloadMin = payloadHead + 255 + payloadTail
)

// ID names an entry: who appended it, and its number there. It is never used
// twice, not even after an unknown outcome.
func ID(process string, seq int64) string { return process + "/" + strconv.FormatInt(seq, 10) }

// Payload of an entry: it bears its name, is filled from it, and ends with a
// checksum, so that a reader can tell what it is without asking anyone. size is
// at least PayloadMin; an ID has up to 255 bytes.
func Payload(id string, size int) []byte {
	size = max(size, PayloadMin)
	b := make([]byte, 0, size)
	b = binary.LittleEndian.AppendUint32(b, payloadMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = append(b, byte(len(id)))
	b = append(b, id...)
	fill := rand.New(rand.NewPCG(xxhash.Sum64String(id), uint64(size)))
	for len(b) < size-payloadTail {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], fill.Uint64())
		b = append(b, word[:min(8, size-payloadTail-len(b))]...)
	}
	return binary.LittleEndian.AppendUint64(b, xxhash.Sum64(b))
}

// Sum of a payload, as it stands in the history.
func Sum(payload []byte) uint64 { return xxhash.Sum64(payload) }

// ParsePayload tells which entry a payload is. It fails unless every byte is right.
func ParsePayload(b []byte) (string, error) {
	if len(b) < PayloadMin || binary.LittleEndian.Uint32(b) != payloadMagic {
		return "", errors.New("payload is none of this run's")
	}
	if n := binary.LittleEndian.Uint32(b[4:]); int(n) != len(b) {
		return "", fmt.Errorf("payload of %d bytes was written with %d", len(b), n)
	}
	if xxhash.Sum64(b[:len(b)-payloadTail]) != binary.LittleEndian.Uint64(b[len(b)-payloadTail:]) {
		return "", errors.New("payload's checksum is wrong")
	}
	id := string(b[payloadHead : payloadHead+int(b[payloadHead-1])])
	if string(Payload(id, len(b))) != string(b) {
		return "", fmt.Errorf("payload of %q is not what was written", id)
	}
	return id, nil
}

// ProcessOf an ID.
func ProcessOf(id string) string {
	p, _, _ := strings.Cut(id, "/")
	return p
}
