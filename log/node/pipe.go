package node

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBytes is the buffer of one direction of a pipe. It is larger than a chunk
// of frames, so that neither side waits for the other's turn.
const pipeBytes = 512 << 10

// pipe is a connection within the process: two buffers in memory, with the
// deadlines and the close of a real one.
func pipe() (client, server net.Conn) {
	a, b := newHalf(), newHalf()
	return &pipeEnd{in: a, out: b}, &pipeEnd{in: b, out: a}
}

// half is one direction.
type half struct {
	mu     sync.Mutex
	buf    []byte // ring; allocated by the first write
	at, n  int
	closed bool // by the writer: the reader gets what is left, then io.EOF
	broken bool // by the reader: writes fail

	read, write   sync.Cond // of mu
	readBy        time.Time
	writeBy       time.Time
	readT, writeT *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.read.L, h.write.L = &h.mu, &h.mu
	return h
}

func late(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (h *half) take(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.n == 0 {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.closed:
			return 0, io.EOF
		case late(h.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		}
		h.read.Wait()
	}
	if h.broken {
		return 0, net.ErrClosed
	}
	done := 0
	for done < len(b) && h.n > 0 {
		k := copy(b[done:], h.buf[h.at:min(h.at+h.n, len(h.buf))])
		h.at, h.n, done = (h.at+k)%len(h.buf), h.n-k, done+k
	}
	if h.n == 0 {
		h.at = 0
	}
	h.write.Signal()
	return done, nil
}

func (h *half) put(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.buf == nil {
		h.buf = make([]byte, pipeBytes)
	}
	done := 0
	for {
		switch {
		case h.closed:
			return done, net.ErrClosed
		case h.broken:
			return done, io.ErrClosedPipe
		case late(h.writeBy):
			return done, os.ErrDeadlineExceeded
		case done == len(b):
			return done, nil
		}
		for done < len(b) && h.n < len(h.buf) {
			end := (h.at + h.n) % len(h.buf)
			stop := len(h.buf)
			if end < h.at {
				stop = h.at
			}
			k := copy(h.buf[end:stop], b[done:])
			h.n, done = h.n+k, done+k
		}
		h.read.Signal()
		if done < len(b) {
			h.write.Wait()
		}
	}
}

// deadline arms the timer that wakes whoever waits when the time has come.
func (h *half) deadline(t time.Time, by *time.Time, timer **time.Timer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*by = t
	if t.IsZero() {
		if *timer != nil {
			(*timer).Stop()
		}
		return
	}
	if *timer == nil {
		*timer = time.AfterFunc(time.Until(t), h.wake)
	} else {
		(*timer).Reset(time.Until(t))
	}
}

func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read.Broadcast()
	h.write.Broadcast()
}

func (h *half) end(side *bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*side = true
	h.read.Broadcast()
	h.write.Broadcast()
	for _, t := range []*time.Timer{h.readT, h.writeT} {
		if t != nil {
			t.Stop()
		}
	}
}

// pipeEnd is one side of a pipe.
type pipeEnd struct{ in, out *half }

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.take(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.put(b) }
func (p *pipeEnd) Close() error {
	p.out.end(&p.out.closed)
	p.in.end(&p.in.broken)
	return nil
}
func (p *pipeEnd) LocalAddr() net.Addr  { return pipeAddr{} }
func (p *pipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }
func (p *pipeEnd) SetDeadline(t time.Time) error {
	_ = p.SetReadDeadline(t) // neither can fail
	return p.SetWriteDeadline(t)
}
func (p *pipeEnd) SetReadDeadline(t time.Time) error {
	p.in.deadline(t, &p.in.readBy, &p.in.readT)
	return nil
}
func (p *pipeEnd) SetWriteDeadline(t time.Time) error {
	p.out.deadline(t, &p.out.writeBy, &p.out.writeT)
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "this-process" }
