package client

import (
	"encoding/binary"
	"net"
	"sort"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
)

const (
	chunkBytes = 64 << 10 // small frames join one chunk
	copyMax    = 8 << 10  // payloads up to here are copied behind their frame's head
	sparesMax  = 64       // chunks kept for reuse
)

// ring holds the frames of the newest entries, encoded once, for every member to
// send from. Its chunks are written behind what was published and never moved, so
// a sender reads them without the lock that guards the ring.
type ring struct {
	chunks []*chunk // from head on
	head   int
	base   uint64     // number of chunks[head]
	next   log.Offset // of the entry that is added next
	bytes  int64      // of all chunks
	spares [][]byte
}

// chunk is a stretch of the byte stream to the members.
type chunk struct {
	first log.Offset
	count int
	buf   []byte // whole frames, but for the payload of the last one when it is in large
	large []byte // nothing follows it
	pins  int    // senders that read it now
}

func (c *chunk) size() int64 { return int64(len(c.buf) + len(c.large)) }

// place is where a member's next frame starts.
type place struct {
	chunk uint64
	at    int // in buf; behind its end: the chunk's frames were all sent
}

func newRing(next log.Offset) *ring { return &ring{next: next} }

// first is the oldest entry in the ring; next when it is empty.
func (r *ring) first() log.Offset {
	if r.head == len(r.chunks) {
		return r.next
	}
	return r.chunks[r.head].first
}

func (r *ring) add(a *wire.Append) {
	need := wire.AppendOverhead
	small := len(a.Payload) <= copyMax
	if small {
		need += len(a.Payload)
	}
	var c *chunk
	if n := len(r.chunks); n > r.head {
		c = r.chunks[n-1]
	}
	if c == nil || c.large != nil || len(c.buf)+need > chunkBytes {
		c = &chunk{first: r.next, buf: r.empty()}
		r.push(c)
	}
	before := c.size()
	c.buf = wire.EncodeAppend(c.buf, a)
	if small {
		c.buf = append(c.buf, a.Payload...)
	} else {
		c.large = a.Payload
	}
	c.count++
	r.bytes += c.size() - before
	r.next++
}

func (r *ring) push(c *chunk) {
	if r.head > 0 && len(r.chunks) == cap(r.chunks) {
		n := copy(r.chunks, r.chunks[r.head:])
		clear(r.chunks[n:])
		r.chunks, r.head = r.chunks[:n], 0
	}
	r.chunks = append(r.chunks, c)
}

func (r *ring) empty() []byte {
	if n := len(r.spares); n > 0 {
		b := r.spares[n-1]
		r.spares = r.spares[:n-1]
		return b
	}
	return make([]byte, 0, chunkBytes)
}

// seek is the place of an entry between first and next.
func (r *ring) seek(o log.Offset) place {
	live := r.chunks[r.head:]
	i := sort.Search(len(live), func(i int) bool { return live[i].first > o }) - 1
	if i < 0 { // the ring is empty, and o is next
		return place{r.base + uint64(len(live)), 0}
	}
	c := live[i]
	at := 0
	for skip := o - c.first; skip > 0; skip-- {
		at += wire.HeaderSize + int(binary.LittleEndian.Uint32(c.buf[at:]))
	}
	return place{r.base + uint64(i), at}
}

// batch appends the frames from p on to list, up to about bytesMax, and tells
// where the next one starts and which entry is the last (log.None: there was
// none). The chunks they are in are pinned, and added to pinned for unpin.
func (r *ring) batch(p place, bytesMax int, list net.Buffers, pinned []*chunk) (net.Buffers, []*chunk, place, log.Offset) {
	last := log.None
	bytes := 0
	for bytes < bytesMax {
		i := r.head + int(p.chunk-r.base)
		if i >= len(r.chunks) {
			break
		}
		c := r.chunks[i]
		if p.at < len(c.buf) {
			part := c.buf[p.at:]
			list = append(list, part)
			bytes += len(part)
			if c.large != nil {
				list = append(list, c.large)
				bytes += len(c.large)
			}
			p.at = len(c.buf)
			last = c.first + log.Offset(c.count) - 1
			c.pins++
			pinned = append(pinned, c)
		}
		if i == len(r.chunks)-1 && c.large == nil {
			break // more may join it
		}
		p = place{p.chunk + 1, 0}
	}
	return list, pinned, p, last
}

// unpin lets chunks be used again.
func unpin(pinned []*chunk) []*chunk {
	for i, c := range pinned {
		c.pins--
		pinned[i] = nil
	}
	return pinned[:0]
}

// trim gives up the oldest chunks: all that lie below needed, and those below
// confirmed while the ring is larger than retain.
func (r *ring) trim(needed, confirmed log.Offset, retain int64) {
	for r.head < len(r.chunks) {
		c := r.chunks[r.head]
		last := c.first + log.Offset(c.count) - 1
		if last >= needed && (last > confirmed || r.bytes <= retain) {
			return
		}
		if r.head == len(r.chunks)-1 && c.large == nil {
			return // frames can still join it
		}
		r.bytes -= c.size()
		if c.pins == 0 && len(r.spares) < sparesMax {
			r.spares = append(r.spares, c.buf[:0])
		}
		r.chunks[r.head] = nil
		r.head++
		r.base++
	}
	if r.head == len(r.chunks) {
		r.chunks, r.head = r.chunks[:0], 0
	}
}
