package wan

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// chunkBytes is how much is read at once.
const chunkBytes = 256 << 10

// chunk is a piece of a stream, or its end.
type chunk struct {
	data []byte
	due  time.Time
	end  error // io.EOF: the sender closed; another: the connection broke
}

// pipe carries one direction of one connection.
type pipe struct {
	from, to *net.TCPConn
	lane     *lane
	sent     *atomic.Int64 // bytes that were let through
	stop     <-chan struct{}
	limit    int // bytes in the queue

	mu     sync.Mutex
	queue  []chunk
	queued int
	last   time.Time     // due time of the newest chunk: order is kept
	more   chan struct{} // owner: the reader; bound 1; never closed
	room   chan struct{} // owner: the writer; bound 1; never closed
}

func newPipe(from, to *net.TCPConn, l *lane, sent *atomic.Int64, stop <-chan struct{}, limit int) *pipe {
	return &pipe{from: from, to: to, lane: l, sent: sent, stop: stop, limit: limit, more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

var buffers = sync.Pool{New: func() any { b := make([]byte, chunkBytes); return &b }}

// read takes what the sender gives until it ends, the queue being the brake.
func (p *pipe) read() {
	buf := *buffers.Get().(*[]byte)
	defer func() { buffers.Put(&buf) }()
	for {
		n, err := p.from.Read(buf)
		now := time.Now()
		if n > 0 {
			c := chunk{data: append([]byte(nil), buf[:n]...), due: p.lane.due(now, n)}
			if n > chunkBytes/2 { // not copied: the buffer goes along
				c.data = buf[:n]
				buf = *buffers.Get().(*[]byte)
			}
			if !p.put(c) {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				err = net.ErrClosed
			}
			p.put(chunk{due: p.lane.due(now, 0), end: err})
			return
		}
	}
}

// put queues a chunk; false: the connection is over.
func (p *pipe) put(c chunk) bool {
	for {
		p.mu.Lock()
		if p.queued < p.limit {
			if c.due.Before(p.last) {
				c.due = p.last
			}
			p.last = c.due
			p.queue = append(p.queue, c)
			p.queued += len(c.data)
			p.mu.Unlock()
			wake(p.more)
			return true
		}
		p.mu.Unlock()
		select {
		case <-p.room:
		case <-p.stop:
			return false
		}
	}
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// write gives the receiver each chunk when it is due. It returns how the stream
// ended: nil after the sender closed its half and the receiver knows.
func (p *pipe) write() error {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.mu.Unlock()
			select {
			case <-p.more:
				continue
			case <-p.stop:
				return net.ErrClosed
			}
		}
		c := p.queue[0]
		p.queue[0] = chunk{}
		p.queue = p.queue[1:]
		p.queued -= len(c.data)
		p.mu.Unlock()
		wake(p.room)
		if !sleepUntil(c.due, p.stop) || !p.lane.pass(p.stop) {
			return net.ErrClosed
		}
		if c.end != nil {
			if errors.Is(c.end, io.EOF) {
				return p.to.CloseWrite()
			}
			return c.end
		}
		p.sent.Add(int64(len(c.data))) // before, so that whoever has the bytes sees them counted
		if _, err := p.to.Write(c.data); err != nil {
			return err
		}
		if cap(c.data) == chunkBytes {
			b := c.data[:chunkBytes]
			buffers.Put(&b)
		}
	}
}

// fine is how long before its end a wait is left to the kernel's own timer: the
// runtime's wakes up at whole milliseconds.
const fine = 1500 * time.Microsecond

// sleepUntil is false when stop was closed first.
func sleepUntil(at time.Time, stop <-chan struct{}) bool {
	if d := time.Until(at) - fine; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-stop:
			return false
		}
	}
	for {
		d := time.Until(at)
		if d <= 0 {
			return true
		}
		ts := unix.NsecToTimespec(int64(d))
		_ = unix.Nanosleep(&ts, nil) // a signal of the runtime may cut it short
	}
}
