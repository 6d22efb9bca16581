package binlog

import "github.com/twinspan/twinspan/change"

// Arena is where decoded rows live: one row change at a time, over and over in
// the same memory. One Arena serves any number of decoders but only one
// goroutine. The zero Arena is ready.
type Arena struct {
	values []change.Value // of both images
	used   int
	text   []byte // formatted text of both images
}

// arenaTextMax is what the arena keeps from one row to the next. A row with a
// larger document has memory of its own.
const arenaTextMax = 256 << 10

// reset takes everything back.
func (a *Arena) reset() {
	a.used = 0
	if a.text = a.text[:0]; cap(a.text) > arenaTextMax {
		a.text = nil
	}
}

// row is memory for n values, with what was in it.
func (a *Arena) row(n int) []change.Value {
	if len(a.values)-a.used < n {
		// An image handed out before keeps the memory it has.
		a.values, a.used = make([]change.Value, 2*n), 0
	}
	r := a.values[a.used : a.used+n : a.used+n]
	a.used += n
	return r
}

// keep takes what was appended to a.text as one value's text. Should appending
// have moved the text, values before it keep the memory they have.
func (a *Arena) keep(appended []byte) []byte {
	from := len(a.text)
	a.text = appended
	return appended[from:len(appended):len(appended)]
}
