// Package wire is the language between the log's nodes and their clients:
// frames, messages, and their codec. It does no I/O. FORMAT.md is its reference.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/twinspan/twinspan/log"
)

// Versions this program speaks. In 2 the checksum of an Append's frame covers its
// payload as well, from 3 on the payload's own is enough; 4 has the messages of a
// tally besides.
const (
	VersionMin = 2
	VersionMax = 4

	// VersionTally is the oldest that has Tally, Tallied, Via and Acks.
	VersionTally = 4

	versionWhole = 2 // the newest whose frames have a checksum over all of them
)

// Sizes of frames, in bytes.
const (
	HeaderSize = 12
	// BodyMax bounds any frame: the largest payload and what goes with it.
	BodyMax = log.MaxPayload + 64<<10
	// GreetingMax bounds a frame before the two sides know each other.
	GreetingMax = 4 << 10
	// ControlMax bounds a frame that carries no entries but may carry cursors
	// with their GTID sets.
	ControlMax = 8 << 20
)

// Kind names a message.
type Kind uint8

// The messages. FORMAT.md says who sends which when.
const (
	KindHello     Kind = 1
	KindWelcome   Kind = 2
	KindSeal      Kind = 3
	KindSealed    Kind = 4
	KindAttach    Kind = 5
	KindAttached  Kind = 6
	KindAppend    Kind = 7
	KindAck       Kind = 8
	KindLAC       Kind = 9
	KindRead      Kind = 10
	KindReading   Kind = 11
	KindData      Kind = 12
	KindCredit    Kind = 13
	KindTail      Kind = 14
	KindError     Kind = 15
	KindPing      Kind = 16
	KindBounds    Kind = 17
	KindBoundsOK  Kind = 18
	KindStreams   Kind = 19
	KindStreamsOK Kind = 20
	KindDone      Kind = 21
	KindClose     Kind = 22
	KindCopy      Kind = 23
	KindMeta      Kind = 24
	KindMetaOK    Kind = 25
	KindRaft      Kind = 26
	KindAdmin     Kind = 27
	KindAdminOK   Kind = 28
	KindTally     Kind = 29
	KindTallied   Kind = 30
	KindVia       Kind = 31
	KindAcks      Kind = 32
)

var kindNames = [...]string{
	KindHello: "Hello", KindWelcome: "Welcome", KindSeal: "Seal", KindSealed: "Sealed", KindAttach: "Attach",
	KindAttached: "Attached", KindAppend: "Append", KindAck: "Ack", KindLAC: "LAC", KindRead: "Read",
	KindReading: "Reading", KindData: "Data", KindCredit: "Credit", KindTail: "Tail", KindError: "Error",
	KindPing: "Ping", KindBounds: "Bounds", KindBoundsOK: "BoundsOK", KindStreams: "Streams",
	KindStreamsOK: "StreamsOK", KindDone: "Done", KindClose: "Close", KindCopy: "Copy", KindMeta: "Meta",
	KindMetaOK: "MetaOK", KindRaft: "Raft", KindAdmin: "Admin", KindAdminOK: "AdminOK",
	KindTally: "Tally", KindTallied: "Tallied", KindVia: "Via", KindAcks: "Acks",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Header precedes each frame's body.
type Header struct {
	Length int // of the body, bytes
	Kind   Kind
	crc    uint32
}

// ErrFrame says that bytes are not a frame: the connection is of no more use.
var ErrFrame = errors.New("bad frame")

// ParseHeader reads a frame header. limit is the longest body the receiver takes
// now; nothing is allocated before it is checked. Errors wrap ErrFrame and
// log.ErrProtocol.
func ParseHeader(b []byte, limit int) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("frame header of %d bytes: %w: %w", len(b), ErrFrame, log.ErrProtocol)
	}
	h := Header{Length: int(le.Uint32(b)), Kind: Kind(b[4]), crc: le.Uint32(b[8:])}
	if b[5] != 0 || b[6] != 0 || b[7] != 0 || int(h.Kind) >= len(kindNames) || kindNames[h.Kind] == "" {
		return Header{}, fmt.Errorf("frame header %x is none of this protocol: %w: %w", b[:HeaderSize], ErrFrame, log.ErrProtocol)
	}
	if h.Length > limit {
		return Header{}, fmt.Errorf("%v frame of %d bytes, at most %d are taken here: %w: %w", h.Kind, h.Length, limit, ErrFrame, log.ErrProtocol)
	}
	return h, nil
}

// Check compares the frame with the header's checksum, as the version that the
// connection speaks has it. head is what ParseHeader read. From version 3 on the
// payload of an Append is not looked at: it has a checksum of its own, and whoever
// stores it checks that.
func (h Header) Check(version uint16, head, body []byte) error {
	if got := frameCRC(version, h.Kind, head, body); got != h.crc {
		return fmt.Errorf("%v frame of %d bytes: crc %08x, sent %08x: %w: %w", h.Kind, h.Length, got, h.crc, ErrFrame, log.ErrProtocol)
	}
	return nil
}

func frameCRC(version uint16, k Kind, head, body []byte) uint32 {
	if k == KindAppend && version > versionWhole {
		body = body[:min(len(body), appendHead)]
	}
	return crc32.Update(crc32.Checksum(head[:8], castagnoli), castagnoli, body)
}

// Message is anything that travels.
type Message interface {
	Kind() Kind
	// encode appends the body.
	encode(b []byte) []byte
	// decode reads the body; payloads are parts of it.
	decode(d *decoder)
}

// Encode appends m as a frame of the newest version; Reseal makes it one of another.
func Encode(b []byte, m Message) []byte {
	start := len(b)
	b = append(b, make([]byte, HeaderSize)...)
	b = m.encode(b)
	seal(b[start:], m.Kind(), 0)
	return b
}

// EncodeAppend appends the frame of an Append without its payload, which the
// caller sends right behind it.
func EncodeAppend(b []byte, a *Append) []byte {
	start := len(b)
	b = append(b, make([]byte, HeaderSize)...)
	b = a.encodeHead(b)
	seal(b[start:], KindAppend, len(a.Payload))
	return b
}

// seal fills the header of a frame whose body is in b, but for rest bytes of an
// Append's payload.
func seal(b []byte, k Kind, rest int) {
	body := b[HeaderSize:]
	le.PutUint32(b, uint32(len(body)+rest))
	b[4] = byte(k)
	le.PutUint32(b[8:], frameCRC(VersionMax, k, b, body))
}

// SameFrames says that the frames of that version are those that Encode makes.
func SameFrames(version uint16) bool { return version > versionWhole }

// Reseal gives whole frames in b, which Encode or EncodeAppend and their payloads
// have made, the checksums of that version.
func Reseal(version uint16, b []byte) {
	for len(b) >= HeaderSize {
		end := min(len(b), HeaderSize+int(le.Uint32(b)))
		le.PutUint32(b[8:], frameCRC(version, Kind(b[4]), b, b[HeaderSize:end]))
		b = b[end:]
	}
}

// Decode reads a body into m, whose kind the caller has matched. Everything must
// be used up. Errors wrap ErrFrame and log.ErrProtocol.
func Decode(m Message, body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return fmt.Errorf("%v message: %w: %w: %w", m.Kind(), d.err, ErrFrame, log.ErrProtocol)
	}
	return nil
}

// DecodeAppend is Decode for the message that comes by the million.
func DecodeAppend(m *Append, body []byte) error {
	d := decoder{b: body}
	m.decode(&d)
	if d.err != nil {
		return fmt.Errorf("%v message: %w: %w: %w", KindAppend, d.err, ErrFrame, log.ErrProtocol)
	}
	return nil
}

// decoder takes fields off the front of b. After its first error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

var errShort = errors.New("cut short")

func (d *decoder) take(n int) []byte {
	if d.err != nil || n > len(d.b) {
		if d.err == nil {
			d.err = errShort
		}
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return le.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

func (d *decoder) offset() log.Offset { return log.Offset(d.u64()) }

func (d *decoder) flag() bool {
	switch d.u8() {
	case 0:
		return false
	case 1:
		return true
	}
	if d.err == nil {
		d.err = errors.New("a flag is neither 0 nor 1")
	}
	return false
}

func (d *decoder) bytes() []byte { return d.take(int(min(uint64(d.u32()), BodyMax+1))) }

func (d *decoder) text() string { return string(d.bytes()) }

// count reads the number of elements that take at least least bytes each.
func (d *decoder) count(least int) int {
	n := int(d.u32())
	if d.err == nil && n > len(d.b)/least {
		d.err = fmt.Errorf("%d elements in %d bytes", n, len(d.b))
	}
	if d.err != nil {
		return 0
	}
	return n
}

func putText(b []byte, s string) []byte {
	return append(le.AppendUint32(b, uint32(len(s))), s...)
}

func putFlag(b []byte, f bool) []byte {
	if f {
		return append(b, 1)
	}
	return append(b, 0)
}

func putOffset(b []byte, o log.Offset) []byte { return le.AppendUint64(b, uint64(o)) }
