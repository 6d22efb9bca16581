package meta

import (
	"slices"
	"sort"

	"github.com/twinspan/twinspan/log"
)

// chunkMax segments share a chunk: a change copies one chunk and the list of
// chunks, which is 1 KiB and, with 100,000 segments, 19 KiB.
const chunkMax = 128

// chain is a stream's list of segments, sorted by number and offset. It is copied
// on write, and what was read from it never changes. The zero value is empty.
type chain struct {
	chunks [][]*Segment // none is empty
	count  int
}

// chainOf takes the slice over.
func chainOf(all []*Segment) chain {
	c := chain{count: len(all)}
	for part := range slices.Chunk(all, chunkMax) {
		c.chunks = append(c.chunks, part)
	}
	return c
}

// place of a segment in a chain.
type place struct{ chunk, index int }

func (c chain) at(p place) *Segment { return c.chunks[p.chunk][p.index] }

// last segment but n; nil when there are not so many.
func (c chain) last(n int) *Segment {
	for i := len(c.chunks) - 1; i >= 0; i-- {
		if n < len(c.chunks[i]) {
			return c.chunks[i][len(c.chunks[i])-1-n]
		}
		n -= len(c.chunks[i])
	}
	return nil
}

func (c chain) first() *Segment {
	if c.count == 0 {
		return nil
	}
	return c.chunks[0][0]
}

// seek is the place of the first segment for which reached holds; it must hold
// for all behind one for which it does. false: for none.
func (c chain) seek(reached func(*Segment) bool) (place, bool) {
	i := sort.Search(len(c.chunks), func(i int) bool { return reached(c.chunks[i][len(c.chunks[i])-1]) })
	if i == len(c.chunks) {
		return place{}, false
	}
	return place{i, sort.Search(len(c.chunks[i]), func(j int) bool { return reached(c.chunks[i][j]) })}, true
}

func (c chain) find(number uint32) (place, bool) {
	p, ok := c.seek(func(s *Segment) bool { return s.Segment >= number })
	return p, ok && c.at(p).Segment == number
}

// push adds s at the end.
func (c *chain) push(s *Segment) {
	c.count++
	n := len(c.chunks)
	if n == 0 || len(c.chunks[n-1]) >= chunkMax {
		c.chunks = append(slices.Clip(c.chunks), []*Segment{s})
		return
	}
	c.chunks = slices.Clone(c.chunks)
	c.chunks[n-1] = append(slices.Clip(c.chunks[n-1]), s)
}

// pop takes the last segment away.
func (c *chain) pop() {
	c.count--
	n := len(c.chunks) - 1
	c.chunks = slices.Clone(c.chunks)
	if c.chunks[n] = c.chunks[n][:len(c.chunks[n])-1]; len(c.chunks[n]) == 0 {
		c.chunks = c.chunks[:n]
	}
}

// replace puts s at p.
func (c *chain) replace(p place, s *Segment) {
	c.chunks = slices.Clone(c.chunks)
	c.chunks[p.chunk] = slices.Clone(c.chunks[p.chunk])
	c.chunks[p.chunk][p.index] = s
}

// drop takes the first n away.
func (c *chain) drop(n int) {
	c.count -= n
	c.chunks = slices.Clone(c.chunks)
	for n > 0 && n >= len(c.chunks[0]) {
		n -= len(c.chunks[0])
		c.chunks = c.chunks[1:]
	}
	if n > 0 {
		c.chunks[0] = c.chunks[0][n:]
	}
}

// each calls f from p on until it returns false.
func (c chain) each(p place, f func(*Segment) bool) {
	for i, j := p.chunk, p.index; i < len(c.chunks); i, j = i+1, 0 {
		for ; j < len(c.chunks[i]); j++ {
			if !f(c.chunks[i][j]) {
				return
			}
		}
	}
}

// short is a closed segment with fewer copies than the policy's rule wants.
type short struct {
	number      uint32
	first, last log.Offset
}

// with adds or removes a segment; shorts is sorted by number and copied.
func withShort(list []short, s *Segment, want bool) []short {
	i, found := slices.BinarySearchFunc(list, s.Segment, func(x short, n uint32) int { return int(int64(x.number) - int64(n)) })
	switch {
	case want && !found:
		return slices.Insert(slices.Clip(list), i, short{s.Segment, s.First, s.Left()})
	case !want && found:
		return append(slices.Clip(list[:i]), list[i+1:]...)
	}
	return list
}
