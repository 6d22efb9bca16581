package wire

import (
	"time"

	"github.com/twinspan/twinspan/log"
)

// SoloSeal is the Seal of a node without metadata, which hands out the epoch.
type SoloSeal struct {
	Stream string
	Epoch  log.Epoch // 0: the node chooses the next one
	Create bool
}

// Kind is KindSoloSeal.
func (*SoloSeal) Kind() Kind { return KindSoloSeal }
func (m *SoloSeal) encode(b []byte) []byte {
	b = putText(b, m.Stream)
	b = le.AppendUint64(b, uint64(m.Epoch))
	return putFlag(b, m.Create)
}
func (m *SoloSeal) decode(d *decoder) {
	m.Stream, m.Epoch, m.Create = d.text(), log.Epoch(d.u64()), d.flag()
}

// SoloSealed answers SoloSeal.
type SoloSealed struct {
	Segment uint32
	Last    log.Offset
	Bounds  log.Bounds
}

// Kind is KindSoloSealed.
func (*SoloSealed) Kind() Kind { return KindSoloSealed }
func (m *SoloSealed) encode(b []byte) []byte {
	b = le.AppendUint32(b, m.Segment)
	return putBounds(putOffset(b, m.Last), m.Bounds)
}
func (m *SoloSealed) decode(d *decoder) {
	m.Segment, m.Last, m.Bounds = d.u32(), d.offset(), d.bounds()
}

// SoloAttach makes the connection the stream's append connection at an epoch.
type SoloAttach struct {
	Stream string
	Epoch  log.Epoch
}

// Kind is KindSoloAttach.
func (*SoloAttach) Kind() Kind { return KindSoloAttach }
func (m *SoloAttach) encode(b []byte) []byte {
	return le.AppendUint64(putText(b, m.Stream), uint64(m.Epoch))
}
func (m *SoloAttach) decode(d *decoder) { m.Stream, m.Epoch = d.text(), log.Epoch(d.u64()) }

// Cursors asks for a stream's cursors.
type Cursors struct{ Stream string }

// Kind is KindCursors.
func (*Cursors) Kind() Kind               { return KindCursors }
func (m *Cursors) encode(b []byte) []byte { return putText(b, m.Stream) }
func (m *Cursors) decode(d *decoder)      { m.Stream = d.text() }

// CursorsOK answers Cursors.
type CursorsOK struct{ Cursors []log.Cursor }

const cursorFixed = 4 + 8 + 4 + 8

func putCursor(b []byte, c log.Cursor) []byte {
	b = putOffset(putText(b, c.Group), c.Offset)
	b = putText(b, c.GTIDSet)
	return le.AppendUint64(b, uint64(c.UpdatedAt.UnixMicro()))
}

func (d *decoder) cursor() log.Cursor {
	return log.Cursor{Group: d.text(), Offset: d.offset(), GTIDSet: d.text(), UpdatedAt: time.UnixMicro(int64(d.u64())).UTC()}
}

// Kind is KindCursorsOK.
func (*CursorsOK) Kind() Kind { return KindCursorsOK }
func (m *CursorsOK) encode(b []byte) []byte {
	b = le.AppendUint32(b, uint32(len(m.Cursors)))
	for _, c := range m.Cursors {
		b = putCursor(b, c)
	}
	return b
}
func (m *CursorsOK) decode(d *decoder) {
	m.Cursors = nil
	for range d.count(cursorFixed) {
		m.Cursors = append(m.Cursors, d.cursor())
	}
}

// StoreCursor stores one cursor.
type StoreCursor struct {
	Stream string
	Cursor log.Cursor
}

// Kind is KindStoreCursor.
func (*StoreCursor) Kind() Kind               { return KindStoreCursor }
func (m *StoreCursor) encode(b []byte) []byte { return putCursor(putText(b, m.Stream), m.Cursor) }
func (m *StoreCursor) decode(d *decoder)      { m.Stream, m.Cursor = d.text(), d.cursor() }
