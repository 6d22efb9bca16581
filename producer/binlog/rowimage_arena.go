package binlog

import "github.com/twinspan/twinspan/change"

// Arena is where decoded rows live. It carves row images and formatted text
// from chunks, so that a row costs far less than one allocation; chunks are
// never taken back and go when nobody holds a value in them. One Arena serves
// any number of decoders but only one goroutine. The zero Arena is ready.
type Arena struct {
	values []change.Value // what is free of the current chunk
	text   []byte         // what is free of the current chunk, len 0
	pinned int            // bytes of events that values of the current chunk may hold
}

const (
	arenaValues = 2048
	arenaText   = 32 << 10
	// arenaPinned bounds how many event bytes an idle chunk can keep alive
	// beyond the last event.
	arenaPinned = 1 << 20
)

// pin notes that an event of n bytes will be referred to.
func (a *Arena) pin(n int) {
	if a.pinned += n; a.pinned > arenaPinned {
		a.values, a.pinned = nil, n
	}
}

// row is memory for n values, all Null.
func (a *Arena) row(n int) []change.Value {
	if n > arenaValues/4 {
		return make([]change.Value, n)
	}
	if len(a.values) < n {
		a.values = make([]change.Value, arenaValues)
	}
	r := a.values[:n:n]
	a.values = a.values[n:]
	return r
}

// room makes sure that n bytes of text can be appended without growing.
func (a *Arena) room(n int) {
	if cap(a.text) < n {
		a.text = make([]byte, 0, max(n, arenaText))
	}
}

// keep takes what was appended to a.text as one value's text.
func (a *Arena) keep(appended []byte) []byte {
	n := len(appended)
	a.text = appended[n:n]
	return appended[:n:n]
}
