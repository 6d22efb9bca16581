package wire

import "github.com/twinspan/twinspan/log"

// Tally makes the connection one on which the node tells what several append
// connections of the client have on disk. It carries nothing else.
type Tally struct{}

// Kind is KindTally.
func (*Tally) Kind() Kind               { return KindTally }
func (m *Tally) encode(b []byte) []byte { return b }
func (m *Tally) decode(*decoder)        {}

// Tallied answers Tally. Token names the connection; nobody can guess it.
type Tallied struct{ Token uint64 }

// Kind is KindTallied.
func (*Tallied) Kind() Kind               { return KindTallied }
func (m *Tallied) encode(b []byte) []byte { return le.AppendUint64(b, m.Token) }
func (m *Tallied) decode(d *decoder)      { m.Token = d.u64() }

// Via comes before an Attach, and is not answered: the acknowledgements of the
// append connection go out on the tally of that token, under that number, which the
// client uses once. Where there is no such tally any more they come as Acks do
// without it.
type Via struct{ Token, Number uint64 }

// Kind is KindVia.
func (*Via) Kind() Kind { return KindVia }
func (m *Via) encode(b []byte) []byte {
	return le.AppendUint64(le.AppendUint64(b, m.Token), m.Number)
}
func (m *Via) decode(d *decoder) { m.Token, m.Number = d.u64(), d.u64() }

// Acks are the acknowledgements of a tally: one Ack for each append connection that
// has more on disk.
type Acks struct{ Acks []NumberedAck }

// NumberedAck is the Ack of the append connection that goes by Number.
type NumberedAck struct {
	Number uint64
	Last   log.Offset
}

// Kind is KindAcks.
func (*Acks) Kind() Kind { return KindAcks }
func (m *Acks) encode(b []byte) []byte {
	b = le.AppendUint32(b, uint32(len(m.Acks)))
	for _, a := range m.Acks {
		b = putOffset(le.AppendUint64(b, a.Number), a.Last)
	}
	return b
}

// decode uses the memory that is there.
func (m *Acks) decode(d *decoder) {
	m.Acks = m.Acks[:0]
	for range d.count(8 + 8) {
		m.Acks = append(m.Acks, NumberedAck{d.u64(), d.offset()})
	}
}
