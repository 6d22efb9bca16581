// Package link moves wire frames over one connection: framing, deadlines,
// keep-alive, and bounded buffers. Both sides of the log use it.
package link

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
)

// bufferBytes is the read buffer; frames that fit are used where they lie.
const bufferBytes = 128 << 10

// Options of a Link. Idle and Write may last an eighth longer.
type Options struct {
	Idle  time.Duration // silence after which the peer counts as gone; 0: never
	Ping  time.Duration // own silence after which a Ping is sent
	Write time.Duration // how long one write may take; 0: for ever
	// Memory bounds, together with other links, the bodies that do not fit
	// the read buffer; nil: only the frame limit does.
	Memory *semaphore.Weighted
	// Small starts with a buffer for requests alone; Grow gives it the large one.
	Small bool
}

const smallBytes = 8 << 10

// Link is one connection. One goroutine reads; any may send.
type Link struct {
	conn    net.Conn
	opt     Options
	r       *bufio.Reader
	version uint16 // of the frames, both ways

	readBy deadline
	last   int                   // bytes of the read buffer that the last body takes
	charge int64                 // of Memory, for the last body
	head   [wire.HeaderSize]byte // of the last large frame
	large  []byte

	mu      sync.Mutex
	writeBy deadline
	out     []byte // encoding buffer
	quiet   bool   // nothing was sent since the last tick of KeepAlive
}

// deadline is one of the connection's. To move it costs about as much as to encode a
// small frame, so it is set a little too late and stays for a while: what it bounds
// may take an eighth longer than asked for.
type deadline struct{ next time.Time } // when it has to be moved

func (d *deadline) arm(bound time.Duration, set func(time.Time) error) error {
	now := time.Now()
	if now.Before(d.next) {
		return nil
	}
	d.next = now.Add(bound / 8)
	return set(d.next.Add(bound))
}

// New wraps a connection.
func New(conn net.Conn, o Options) *Link {
	size := bufferBytes
	if o.Small {
		size = smallBytes
	}
	return &Link{conn: conn, opt: o, r: bufio.NewReaderSize(conn, size), version: wire.VersionMax}
}

// SetVersion is what the greeting has come to; before it all versions are the same.
// It comes before KeepAlive, between two calls of Next, and before anything is sent
// that the greeting does not allow yet.
func (l *Link) SetVersion(version uint16) { l.version = version }

// Version is what the greeting has come to.
func (l *Link) Version() uint16 { return l.version }

// Detach gives the connection up as a byte stream: what the peer sent behind the
// last frame comes first. Close and KeepAlive must have no part in it any more.
func (l *Link) Detach() (net.Conn, error) {
	l.Free()
	rest, err := l.r.Peek(l.r.Buffered())
	if err == nil {
		err = l.conn.SetDeadline(time.Time{})
	}
	if err != nil || len(rest) == 0 {
		return l.conn, err
	}
	return &detached{l.conn, io.MultiReader(bytes.NewReader(rest), l.conn)}, nil
}

// detached is a connection of which a Link has read a part already.
type detached struct {
	net.Conn
	r io.Reader
}

func (d *detached) Read(b []byte) (int, error) { return d.r.Read(b) }

// Grow gives a Link that was made with a small buffer the large one, for a
// connection that carries entries. It comes between two calls of Next.
func (l *Link) Grow() {
	l.Free()
	if l.r.Size() >= bufferBytes {
		return
	}
	rest, err := l.r.Peek(l.r.Buffered())
	if err != nil { // what is buffered can be peeked
		return
	}
	from := io.Reader(l.conn)
	if len(rest) > 0 {
		from = io.MultiReader(bytes.NewReader(bytes.Clone(rest)), l.conn)
	}
	l.r = bufio.NewReaderSize(from, bufferBytes)
}

// Close closes the connection; reads and writes under way fail.
func (l *Link) Close() error { return l.conn.Close() }

// Remote is the peer's address.
func (l *Link) Remote() string { return l.conn.RemoteAddr().String() }

// SetIdle changes how long silence is borne, and how long one's own may last. It
// comes before KeepAlive and between two calls of Next.
func (l *Link) SetIdle(idle, ping time.Duration) {
	l.opt.Idle, l.opt.Ping = idle, ping
	l.readBy = deadline{}
}

// Next reads a frame whose body has at most limit bytes. The body is valid until
// the next call. Pings are passed over. ctx ends a wait for memory, not one for
// bytes: close the link for that.
func (l *Link) Next(ctx context.Context, limit int) (wire.Kind, []byte, error) {
	for {
		k, body, err := l.next(ctx, limit)
		if err != nil || k != wire.KindPing {
			return k, body, err
		}
	}
}

func (l *Link) next(ctx context.Context, limit int) (wire.Kind, []byte, error) {
	l.Free()
	if err := l.arm(wire.HeaderSize); err != nil {
		return 0, nil, err
	}
	b, err := l.r.Peek(wire.HeaderSize)
	if err != nil {
		if len(b) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, l.silence(err)
	}
	h, err := wire.ParseHeader(b, limit)
	if err != nil {
		return 0, nil, err
	}
	var head, body []byte
	if total := wire.HeaderSize + h.Length; total <= l.r.Size() {
		if err := l.arm(total); err != nil {
			return 0, nil, err
		}
		if b, err = l.r.Peek(total); err != nil {
			return 0, nil, l.silence(err)
		}
		head, body, l.last = b[:wire.HeaderSize], b[wire.HeaderSize:], total
	} else {
		head = append(l.head[:0], b...)
		if _, err := l.r.Discard(wire.HeaderSize); err != nil {
			return 0, nil, err
		}
		if body, err = l.readLarge(ctx, h.Length); err != nil {
			return 0, nil, l.silence(err)
		}
	}
	if err := h.Check(l.version, head, body); err != nil {
		return 0, nil, err
	}
	return h.Kind, body, nil
}

func (l *Link) readLarge(ctx context.Context, n int) ([]byte, error) {
	if l.opt.Memory != nil {
		if err := l.opt.Memory.Acquire(ctx, int64(n)); err != nil {
			return nil, err
		}
		l.charge = int64(n)
	}
	// The buffer grows with what arrives, to eight times that: a lying length
	// costs little, and most bodies are moved once.
	const step = 1 << 20
	l.large = make([]byte, 0, min(n, step))
	for len(l.large) < n {
		at := len(l.large)
		if at == cap(l.large) {
			l.large = append(make([]byte, 0, min(n, 8*at)), l.large...)
		}
		l.large = l.large[:min(cap(l.large), at+step)]
		if err := l.arm(len(l.large) - at); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(l.r, l.large[at:]); err != nil {
			return nil, err
		}
	}
	return l.large, nil
}

// arm sets the deadline of a read that wants so many bytes. What has arrived needs
// none: a crowd of small frames shares one.
func (l *Link) arm(n int) error {
	if l.opt.Idle <= 0 || l.r.Buffered() >= n {
		return nil
	}
	return l.readBy.arm(l.opt.Idle, l.conn.SetReadDeadline)
}

// Free gives up the last body before the next one is read.
func (l *Link) Free() {
	if l.last > 0 {
		_, _ = l.r.Discard(l.last) // it was peeked, so it is there
		l.last = 0
	}
	if l.charge > 0 {
		l.opt.Memory.Release(l.charge)
		l.charge = 0
	}
	l.large = nil
}

// Own makes the body that Next returned last the caller's for good.
func (l *Link) Own(body []byte) []byte {
	if l.large != nil {
		l.large = nil
		return body
	}
	return slices.Clone(body)
}

func (l *Link) silence(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("silent for %v: %w", l.opt.Idle, err)
	}
	return err
}

// Send writes one message.
func (l *Link) Send(m wire.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = wire.Encode(l.out[:0], m)
	if !wire.SameFrames(l.version) {
		wire.Reseal(l.version, l.out)
	}
	err := l.write(l.out)
	if cap(l.out) > 1<<20 {
		l.out = nil
	}
	return err
}

// SendBuffers writes whole frames that the caller encoded. A peer of an older
// version gets a copy with its checksums: the frames are for other peers, too.
func (l *Link) SendBuffers(buffers net.Buffers) error {
	if !wire.SameFrames(l.version) {
		whole := bytes.Join(buffers, nil)
		wire.Reseal(l.version, whole)
		buffers = net.Buffers{whole}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quiet = false
	if err := l.armWrite(); err != nil {
		return err
	}
	_, err := buffers.WriteTo(l.conn)
	return err
}

func (l *Link) write(b []byte) error {
	l.quiet = false
	if err := l.armWrite(); err != nil {
		return err
	}
	_, err := l.conn.Write(b)
	return err
}

func (l *Link) armWrite() error {
	if l.opt.Write == 0 {
		return nil
	}
	return l.writeBy.arm(l.opt.Write, l.conn.SetWriteDeadline)
}

// KeepAlive sends a Ping whenever nothing else was sent for a while, until stop
// is closed or the connection fails.
func (l *Link) KeepAlive(stop <-chan struct{}) {
	if l.opt.Ping <= 0 {
		return
	}
	tick := time.NewTicker(l.opt.Ping)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if !l.ping() {
				return
			}
		}
	}
}

func (l *Link) ping() bool {
	// A send under way is a sign of life; waiting behind it could hide the stop.
	if !l.mu.TryLock() {
		return true
	}
	defer l.mu.Unlock()
	if !l.quiet {
		l.quiet = true
		return true
	}
	l.out = wire.Encode(l.out[:0], &wire.Ping{})
	err := l.write(l.out)
	l.quiet = true
	return err == nil
}

// Expect reads the reply to a request into want. An Error reply becomes its
// error; any other message is log.ErrProtocol.
func (l *Link) Expect(ctx context.Context, want wire.Message) error {
	k, body, err := l.Next(ctx, wire.BodyMax)
	if err != nil {
		return err
	}
	switch k {
	case want.Kind():
		return wire.Decode(want, body)
	case wire.KindError:
		m := &wire.Error{}
		if err := wire.Decode(m, body); err != nil {
			return err
		}
		return m.Err()
	}
	return fmt.Errorf("%v in place of %v: %w", k, want.Kind(), log.ErrProtocol)
}
