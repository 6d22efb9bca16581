package binlog

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	packetHead = 4         // length (3), sequence number (1)
	packetMax  = 1<<24 - 1 // a packet of this length goes on in the next one
	// bufferBytes is what a connection reads into: many events at once. A larger
	// event makes it grow, up to bufferKept for good.
	bufferBytes = 128 << 10
	bufferKept  = 1 << 20
	bufferSteep = 64 << 20 // beyond it, the buffer no longer doubles
)

// errSequence: packets were lost or mixed up on their way.
var errSequence = errors.New("packet out of sequence")

// packetReader takes the packets of a dump from its connection. It reads what
// is there in one go and hands out parts of its own buffer, so that an event is
// copied once on its way from the socket and costs no memory of its own. It is
// used by one goroutine.
type packetReader struct {
	conn     net.Conn
	timeout  time.Duration // of silence
	sequence byte
	buf      []byte
	at, end  int // buf[at:end] was read and not handed out
}

// next returns one packet's payload. It is the caller's, to be changed even,
// until the next call.
func (r *packetReader) next() ([]byte, error) {
	switch rest := r.end - r.at; {
	case r.buf == nil, len(r.buf) > bufferKept && rest <= bufferBytes:
		small := make([]byte, bufferBytes)
		r.end = copy(small, r.buf[r.at:r.end])
		r.buf, r.at = small, 0
	case rest == 0:
		r.at, r.end = 0, 0
	}
	for n := 0; ; { // n bytes of the payload lie at at, and a head behind them
		if err := r.fill(n + packetHead); err != nil {
			return nil, err
		}
		head := r.buf[r.at+n:]
		part := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		if head[3] != r.sequence {
			return nil, fmt.Errorf("%w: %d, want %d", errSequence, head[3], r.sequence)
		}
		r.sequence++
		if n == 0 {
			r.at += packetHead
		} else { // what was read behind a head in the middle closes up
			r.end = r.at + n + copy(head, r.buf[r.at+n+packetHead:r.end])
		}
		if n += part; n > eventBytesMax+1 {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrDamaged, eventBytesMax)
		}
		if err := r.fill(n); err != nil {
			return nil, err
		}
		if part < packetMax {
			p := r.buf[r.at : r.at+n : r.at+n]
			r.at += n
			return p, nil
		}
	}
}

// fill reads until n bytes lie behind at. Memory grows with what arrives, not with
// what a length promises.
func (r *packetReader) fill(n int) error {
	for r.end-r.at < n {
		switch {
		case r.at > 0 && r.at+n > len(r.buf):
			r.end = copy(r.buf, r.buf[r.at:r.end])
			r.at = 0
		case r.end == len(r.buf):
			more := len(r.buf)
			if more > bufferSteep {
				more /= 4
			}
			grown := make([]byte, len(r.buf)+more)
			copy(grown, r.buf)
			r.buf = grown
		}
		if err := r.conn.SetReadDeadline(time.Now().Add(r.timeout)); err != nil {
			return fmt.Errorf("read the dump: %w", err)
		}
		got, err := r.conn.Read(r.buf[r.end:])
		r.end += got
		if err != nil && r.end-r.at < n {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // a dump ends with a packet that says so
			}
			return fmt.Errorf("read the dump: %w", err)
		}
	}
	return nil
}
