package causality

import (
	"math/bits"
	"math/rand/v2"
)

// latest maps keys to a number for the newest change that touched each: what a
// dispatched row looks up and replaces for each of its keys. It is an open
// table, which does both at once, and forgets what nobody has to wait for when
// it would have to grow. So it is bounded by the keys of what is in flight, times
// eight. The zero value is empty.
type latest struct {
	slots []slot // a power of two of them
	used  int
	shift int    // of a hash to a slot
	mix   uint64 // odd and secret: who chooses keys does not choose slots
}

type slot struct {
	key   uint64
	value uint64 // 0: the slot is empty
}

const minSlots = 1 << 12

// swap stores a value that is not 0 and answers with the one before; 0: none.
// pending says whether a value still matters to anyone.
func (l *latest) swap(key, value uint64, pending func(uint64) bool) uint64 {
	if 4*l.used >= 3*len(l.slots) {
		l.sweep(pending)
	}
	s := l.find(key)
	old := s.value
	if old == 0 {
		s.key = key
		l.used++
	}
	s.value = value
	return old
}

// find is the key's slot, or the empty one where it belongs.
func (l *latest) find(key uint64) *slot {
	for i := int(key * l.mix >> l.shift); ; i++ {
		if s := &l.slots[i&(len(l.slots)-1)]; s.key == key || s.value == 0 {
			return s
		}
	}
}

// sweep makes a new table of the values that matter.
func (l *latest) sweep(pending func(uint64) bool) {
	if l.mix == 0 {
		l.mix = rand.Uint64() | 1
	}
	old, n := l.slots, 0
	for i := range old {
		if old[i].value != 0 && pending(old[i].value) {
			n++
		}
	}
	size := minSlots
	for size < 4*n {
		size *= 2
	}
	l.slots, l.used, l.shift = make([]slot, size), n, 64-bits.TrailingZeros(uint(size))
	for i := range old {
		if old[i].value != 0 && pending(old[i].value) {
			*l.find(old[i].key) = old[i]
		}
	}
}
