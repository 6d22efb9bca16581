package binlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/klauspost/compress/zstd"

	"github.com/twinspan/twinspan/internal/server"
)

const (
	headerBytes   = replication.EventHeaderSize
	checksumBytes = replication.BinlogChecksumLength
	// eventBytesMax is above what a server can write: max_allowed_packet ends
	// at 1 GiB.
	eventBytesMax = 1<<30 + 1<<20
	// payloadWindowMax bounds the memory that unpacking a compressed
	// transaction takes, whatever its size. It is zstd's window at its highest
	// level.
	payloadWindowMax = 128 << 20
)

// event is one binlog event, taken out of a compressed transaction where it
// was in one. It and its bytes are valid until the next one is read: what is to
// be kept is copied.
type event struct {
	typ       replication.EventType
	flags     uint16
	timestamp uint32 // seconds; of the statement, at its source
	serverID  uint32 // where it was first written
	// bare is the event as written, common header included and checksum
	// excluded, with its length set right; body is what follows the header.
	bare, body []byte
	end        uint32 // end of the outermost event in its file, 0 where not known
	size       int    // bytes read for it: 0 inside a compressed transaction but for the first
}

// eventReader turns the packets of one dump into events. It is used by one
// goroutine.
type eventReader struct {
	flavor server.Flavor
	parser *replication.BinlogParser
	format []byte // the format description without checksum, for new parsers
	crc    bool   // events of this file carry a checksum
	unpack *zstd.Decoder
	outer  event // of the packet
	// What takes events out of compressed transactions, one after the other.
	inner    event
	unpacked []byte
	head     [headerBytes]byte
}

// newEventReader: crc says whether the server sends checksums before it has
// sent a format description.
func newEventReader(flavor server.Flavor, crc bool) *eventReader {
	return &eventReader{flavor: flavor, crc: crc}
}

func (r *eventReader) close() {
	if r.unpack != nil {
		r.unpack.Close()
	}
}

// read takes one packet and gives the events in it to visit, in order. It keeps
// nothing of the packet and changes it. Errors of its own wrap ErrDamaged; those
// of visit are returned as they are.
func (r *eventReader) read(raw []byte, visit func(*event) error) error {
	if len(raw) < headerBytes {
		return fmt.Errorf("%w: %d bytes", ErrDamaged, len(raw))
	}
	typ := replication.EventType(raw[4])
	if n := binary.LittleEndian.Uint32(raw[9:]); int64(n) != int64(len(raw)) {
		return fmt.Errorf("%w: %s says %d bytes and has %d", ErrDamaged, typ, n, len(raw))
	}
	if typ == replication.FORMAT_DESCRIPTION_EVENT {
		if err := r.describe(raw); err != nil {
			return err
		}
	} else if r.format == nil && typ != replication.ROTATE_EVENT && typ != replication.HEARTBEAT_EVENT {
		return fmt.Errorf("%w: %s before a format description", ErrDamaged, typ)
	}
	size := len(raw)
	if r.crc || typ == replication.FORMAT_DESCRIPTION_EVENT {
		n := size - checksumBytes
		if n < headerBytes {
			return fmt.Errorf("%w: %s of %d bytes has no room for a checksum", ErrDamaged, typ, size)
		}
		if r.crc && crc32.ChecksumIEEE(raw[:n]) != binary.LittleEndian.Uint32(raw[n:]) {
			return fmt.Errorf("%w: %s ending at %d: wrong checksum", ErrDamaged, typ, binary.LittleEndian.Uint32(raw[13:]))
		}
		if typ != replication.FORMAT_DESCRIPTION_EVENT {
			raw = raw[:n:n]
		}
	}
	binary.LittleEndian.PutUint32(raw[9:], uint32(len(raw)))
	e := &r.outer
	*e = newEvent(raw)
	e.end, e.size = binary.LittleEndian.Uint32(raw[13:]), size
	if typ == replication.TRANSACTION_PAYLOAD_EVENT {
		return r.payload(e, visit)
	}
	return visit(e)
}

func newEvent(bare []byte) event {
	return event{
		timestamp: binary.LittleEndian.Uint32(bare),
		typ:       replication.EventType(bare[4]),
		serverID:  binary.LittleEndian.Uint32(bare[5:]),
		flags:     binary.LittleEndian.Uint16(bare[17:]),
		bare:      bare,
		body:      bare[headerBytes:],
	}
}

// describe takes in a format description: from here on, until the next one,
// events look like this.
func (r *eventReader) describe(raw []byte) error {
	if len(raw) < headerBytes+2+50+4+1+checksumBytes+1 {
		return fmt.Errorf("%w: format description of %d bytes", ErrDamaged, len(raw))
	}
	at := len(raw) - checksumBytes - 1
	switch alg := replication.BinlogChecksum(raw[at]); alg {
	case replication.BINLOG_CHECKSUM_ALG_OFF, replication.BINLOG_CHECKSUM_ALG_CRC32:
		r.crc = alg == replication.BINLOG_CHECKSUM_ALG_CRC32
	default:
		return fmt.Errorf("%w: checksum algorithm %d", ErrDamaged, alg)
	}
	r.format = bytes.Clone(raw)
	r.format[at] = byte(replication.BINLOG_CHECKSUM_ALG_OFF)
	var err error
	r.parser, err = r.newParser()
	return err
}

// newParser makes a parser for events without checksums. It is for everything
// but row images, which are ours (see Decoder).
func (r *eventReader) newParser() (*replication.BinlogParser, error) {
	p := replication.NewBinlogParser()
	p.SetFlavor(string(r.flavor))
	_, err := parseWith(p, r.format)
	return p, err
}

// parse decodes an event other than a table map or row event.
func (r *eventReader) parse(e *event) (replication.Event, error) { return parseWith(r.parser, e.bare) }

// tableMap decodes a table map. It takes a parser of its own, which would keep
// every table map it has seen.
func (r *eventReader) tableMap(e *event) (*replication.TableMapEvent, error) {
	p, err := r.newParser()
	if err != nil {
		return nil, err
	}
	ev, err := parseWith(p, bytes.Clone(e.bare))
	if err != nil {
		return nil, err
	}
	m, ok := ev.(*replication.TableMapEvent)
	if !ok {
		return nil, fmt.Errorf("%w: %s is no table map", ErrDamaged, e.typ)
	}
	return m, nil
}

// parseWith runs go-mysql's parser, which indexes into what it is given and
// panics when that is short.
func parseWith(p *replication.BinlogParser, bare []byte) (ev replication.Event, err error) {
	defer func() {
		if x := recover(); x != nil {
			ev, err = nil, fmt.Errorf("%w: %s: %v", ErrDamaged, replication.EventType(bare[4]), x)
		}
	}()
	b, err := p.Parse(bare)
	if err != nil {
		var e *replication.EventError // its text has the whole event
		if errors.As(err, &e) {
			err = errors.New(e.Err)
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, replication.EventType(bare[4]), err)
	}
	return b.Event, nil
}

// Fields of a transaction payload event; MySQL source documentation,
// Transaction_payload::fields.
const (
	payloadEnd         = 0
	payloadCompression = 2
	compressionZstd    = 0
	compressionNone    = 255
)

// payload unpacks a compressed transaction as a stream: what it takes in memory
// is the packed event, zstd's window, and one event.
func (r *eventReader) payload(outer *event, visit func(*event) error) error {
	f := fieldReader{b: outer.body}
	compression := uint64(compressionNone)
	for {
		kind := f.packed()
		if kind == payloadEnd && !f.short {
			break
		}
		v := f.take(int(min(f.packed(), eventBytesMax)))
		if f.short {
			return fmt.Errorf("%w: transaction payload header is cut short", ErrDamaged)
		}
		if kind == payloadCompression {
			inner := fieldReader{b: v}
			compression = inner.packed()
		}
	}
	body := bytes.NewReader(outer.body[f.at:])
	var in io.Reader = body
	switch compression {
	case compressionNone:
	case compressionZstd:
		if r.unpack == nil {
			d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(payloadWindowMax))
			if err != nil {
				return fmt.Errorf("zstd decoder: %w", err)
			}
			r.unpack = d
		}
		if err := r.unpack.Reset(body); err != nil {
			return fmt.Errorf("%w: compressed transaction: %w", ErrDamaged, err)
		}
		in = r.unpack
	default:
		return fmt.Errorf("%w: transaction payload compressed by method %d", ErrDamaged, compression)
	}
	size := outer.size
	for {
		head := r.head[:]
		if _, err := io.ReadFull(in, head); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: compressed transaction: %w", ErrDamaged, err)
		}
		n := binary.LittleEndian.Uint32(head[9:])
		if n < headerBytes || n > eventBytesMax {
			return fmt.Errorf("%w: compressed transaction: event of %d bytes", ErrDamaged, n)
		}
		raw, err := r.readEvent(in, head, int(n))
		if err != nil {
			return fmt.Errorf("%w: compressed transaction: %w", ErrDamaged, err)
		}
		e := &r.inner
		*e = newEvent(raw)
		e.end, e.size = outer.end, size
		size = 0
		if err := visit(e); err != nil {
			return err
		}
	}
}

// readEvent reads an event's body behind its header. Memory grows with what
// really arrives, not with what a damaged length promises.
func (r *eventReader) readEvent(in io.Reader, head []byte, n int) ([]byte, error) {
	const sure = 1 << 20
	if n <= sure {
		if cap(r.unpacked) < n {
			r.unpacked = make([]byte, max(n, 16<<10))
		}
		raw := r.unpacked[:n:n]
		copy(raw, head)
		_, err := io.ReadFull(in, raw[len(head):])
		return raw, err
	}
	var b bytes.Buffer
	b.Write(head)
	got, err := io.CopyN(&b, in, int64(n-len(head)))
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w after %d of %d bytes", io.ErrUnexpectedEOF, got, n)
	}
	return b.Bytes(), err
}

// packed reads a length-encoded integer.
func (r *fieldReader) packed() uint64 {
	switch b := r.u8(); b {
	case 0xfc:
		return uint64(r.u16())
	case 0xfd:
		return uint64(r.u24())
	case 0xfe:
		return r.u64()
	case 0xfb, 0xff:
		r.short = true
		return 0
	default:
		return uint64(b)
	}
}
