package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/log"
)

// Purpose says who opens a connection.
type Purpose uint8

// The purposes.
const (
	PurposeClient Purpose = 1 // a writer, a reader, requests
	PurposeNode   Purpose = 2 // another node of the cluster
	PurposeTool   Purpose = 3 // an operator's command
)

// Hello opens a connection.
type Hello struct {
	VersionMin, VersionMax uint16
	Purpose                Purpose
	// Generation is the newest one of the cluster that the sender knows; 0: none.
	// A node that is behind it must not serve any more.
	Generation uint64
	City       string // of the sender; empty: none
	Client     string // for the node's log; of a node its name
	UUID       string // of a node's directory; empty: not a node
}

const helloMagic = 0x4e505754 // "TWPN"

// Kind is KindHello.
func (*Hello) Kind() Kind { return KindHello }
func (m *Hello) encode(b []byte) []byte {
	b = le.AppendUint32(b, helloMagic)
	b = le.AppendUint16(b, m.VersionMin)
	b = le.AppendUint16(b, m.VersionMax)
	b = append(b, byte(m.Purpose))
	b = le.AppendUint64(b, m.Generation)
	return putText(putText(putText(b, m.City), m.Client), m.UUID)
}

// decode takes the versions first: a Hello of another version is known by them,
// whatever follows.
func (m *Hello) decode(d *decoder) {
	if magic := d.u32(); d.err == nil && magic != helloMagic {
		d.err = fmt.Errorf("magic %08x", magic)
	}
	m.VersionMin, m.VersionMax = d.u16(), d.u16()
	if d.err == nil && (m.VersionMin > VersionMax || m.VersionMax < VersionMin) {
		d.b = nil // Negotiate says so
		return
	}
	m.Purpose, m.Generation, m.City, m.Client, m.UUID = Purpose(d.u8()), d.u64(), d.text(), d.text(), d.text()
}

// Negotiate is the highest version both sides speak, or log.ErrProtocol.
func (m *Hello) Negotiate() (uint16, error) {
	v := min(m.VersionMax, VersionMax)
	if v < max(m.VersionMin, VersionMin) {
		return 0, fmt.Errorf("the client speaks versions %d to %d, this node %d to %d: %w", m.VersionMin, m.VersionMax, VersionMin, VersionMax, log.ErrProtocol)
	}
	return v, nil
}

// Welcome answers Hello.
type Welcome struct {
	Version uint16
	Node    string
	UUID    string
	City    string
	// Generation of the cluster as the node has it on disk.
	Generation uint64
	// IdleMS is after how much silence the node drops the connection.
	IdleMS uint32
}

// Kind is KindWelcome.
func (*Welcome) Kind() Kind { return KindWelcome }
func (m *Welcome) encode(b []byte) []byte {
	b = le.AppendUint16(b, m.Version)
	b = putText(b, m.Node)
	b = putText(b, m.UUID)
	b = putText(b, m.City)
	b = le.AppendUint64(b, m.Generation)
	return le.AppendUint32(b, m.IdleMS)
}
func (m *Welcome) decode(d *decoder) {
	m.Version, m.Node, m.UUID, m.City, m.Generation, m.IdleMS = d.u16(), d.text(), d.text(), d.text(), d.u64(), d.u32()
}

func putBounds(b []byte, x log.Bounds) []byte {
	b = putOffset(b, x.First)
	b = putOffset(b, x.LAC)
	b = putOffset(b, x.LSO)
	return le.AppendUint64(b, uint64(x.Epoch))
}

func (d *decoder) bounds() log.Bounds {
	return log.Bounds{First: d.offset(), LAC: d.offset(), LSO: d.offset(), Epoch: log.Epoch(d.u64())}
}

// Append stores one entry. It is not answered one by one: Ack is cumulative.
type Append struct {
	Offset   log.Offset
	LAC      log.Offset // the writer's
	Time     int64      // µs since 1970
	Topic    log.Topic
	Ends     bool
	Checksum uint32 // CRC-32C of the payload; it stays with the entry for good
	Payload  []byte // a part of the decoded body
}

// appendHead is what an Append's body has before the payload.
const appendHead = 31

// AppendOverhead is what an Append takes beside its payload, header included.
const AppendOverhead = HeaderSize + appendHead

// Kind is KindAppend.
func (*Append) Kind() Kind { return KindAppend }
func (m *Append) encodeHead(b []byte) []byte {
	b = putOffset(b, m.Offset)
	b = putOffset(b, m.LAC)
	b = le.AppendUint64(b, uint64(m.Time))
	b = le.AppendUint16(b, uint16(m.Topic))
	b = putFlag(b, m.Ends)
	return le.AppendUint32(b, m.Checksum)
}
func (m *Append) encode(b []byte) []byte { return append(m.encodeHead(b), m.Payload...) }
func (m *Append) decode(d *decoder) {
	m.Offset, m.LAC, m.Time = d.offset(), d.offset(), int64(d.u64())
	m.Topic, m.Ends, m.Checksum = log.Topic(d.u16()), d.flag(), d.u32()
	m.Payload = d.take(len(d.b))
	if d.err == nil && len(m.Payload) == 0 {
		d.err = errors.New("no payload")
	}
}

// Ack says that every entry up to Last is durable on the node.
type Ack struct{ Last log.Offset }

// Kind is KindAck.
func (*Ack) Kind() Kind               { return KindAck }
func (m *Ack) encode(b []byte) []byte { return putOffset(b, m.Last) }
func (m *Ack) decode(d *decoder)      { m.Last = d.offset() }

// LAC tells the node what the writer confirmed, when no Append follows soon.
type LAC struct{ LAC log.Offset }

// Kind is KindLAC.
func (*LAC) Kind() Kind               { return KindLAC }
func (m *LAC) encode(b []byte) []byte { return putOffset(b, m.LAC) }
func (m *LAC) decode(d *decoder)      { m.LAC = d.offset() }

// Read makes the connection a read connection.
type Read struct {
	Stream    string
	From      log.Offset
	To        log.Offset // 0: no end
	Committed bool
	Credit    uint64 // bytes of Data frames the node may send
	Topics    []log.Topic
}

// Kind is KindRead.
func (*Read) Kind() Kind { return KindRead }
func (m *Read) encode(b []byte) []byte {
	b = putText(b, m.Stream)
	b = putOffset(b, m.From)
	b = putOffset(b, m.To)
	b = putFlag(b, m.Committed)
	b = le.AppendUint64(b, m.Credit)
	b = le.AppendUint32(b, uint32(len(m.Topics)))
	for _, t := range m.Topics {
		b = le.AppendUint16(b, uint16(t))
	}
	return b
}
func (m *Read) decode(d *decoder) {
	m.Stream, m.From, m.To, m.Committed, m.Credit = d.text(), d.offset(), d.offset(), d.flag(), d.u64()
	m.Topics = nil
	for range d.count(2) {
		m.Topics = append(m.Topics, log.Topic(d.u16()))
	}
}

// Reading answers Read.
type Reading struct{ Bounds log.Bounds }

// Kind is KindReading.
func (*Reading) Kind() Kind               { return KindReading }
func (m *Reading) encode(b []byte) []byte { return putBounds(b, m.Bounds) }
func (m *Reading) decode(d *decoder)      { m.Bounds = d.bounds() }

// Stored is an entry in a Data message.
type Stored struct {
	log.Entry
	Checksum uint32
}

// Data carries confirmed entries to a reader, in order. It uses up credit: as
// many bytes as its frame has.
type Data struct {
	Next    log.Offset // where a reader that comes back goes on
	Bounds  log.Bounds
	Entries []Stored // payloads are parts of the decoded body
}

const storedFixed = 8 + 8 + 8 + 2 + 1 + 4 + 4

// DataSize is what entries of that many payload bytes take in a frame.
func DataSize(entries, payloads int) int {
	return HeaderSize + 8 + 32 + 4 + entries*storedFixed + payloads
}

// Kind is KindData.
func (*Data) Kind() Kind { return KindData }
func (m *Data) encode(b []byte) []byte {
	b = putBounds(putOffset(b, m.Next), m.Bounds)
	b = le.AppendUint32(b, uint32(len(m.Entries)))
	for i := range m.Entries {
		e := &m.Entries[i]
		b = putOffset(b, e.Offset)
		b = le.AppendUint64(b, uint64(e.Epoch))
		b = le.AppendUint64(b, uint64(e.AppendedAt.UnixMicro()))
		b = le.AppendUint16(b, uint16(e.Topic))
		b = putFlag(b, e.EndsTransaction)
		b = le.AppendUint32(b, e.Checksum)
		b = le.AppendUint32(b, uint32(len(e.Payload)))
		b = append(b, e.Payload...)
	}
	return b
}
func (m *Data) decode(d *decoder) {
	m.Next, m.Bounds = d.offset(), d.bounds()
	n := d.count(storedFixed)
	m.Entries = make([]Stored, 0, n)
	for range n {
		e := Stored{Entry: log.Entry{
			Offset: d.offset(), Epoch: log.Epoch(d.u64()), AppendedAt: time.UnixMicro(int64(d.u64())).UTC(),
			Topic: log.Topic(d.u16()), EndsTransaction: d.flag(),
		}, Checksum: d.u32()}
		e.Payload = d.bytes()
		m.Entries = append(m.Entries, e)
	}
}

// Credit lets the node send that many more bytes.
type Credit struct{ Bytes uint64 }

// Kind is KindCredit.
func (*Credit) Kind() Kind               { return KindCredit }
func (m *Credit) encode(b []byte) []byte { return le.AppendUint64(b, m.Bytes) }
func (m *Credit) decode(d *decoder)      { m.Bytes = d.u64() }

// Tail tells a reader about bounds that moved without entries for it. It costs
// no credit.
type Tail struct {
	Next   log.Offset
	Bounds log.Bounds
}

// Kind is KindTail.
func (*Tail) Kind() Kind               { return KindTail }
func (m *Tail) encode(b []byte) []byte { return putBounds(putOffset(b, m.Next), m.Bounds) }
func (m *Tail) decode(d *decoder)      { m.Next, m.Bounds = d.offset(), d.bounds() }

// Ping keeps a quiet connection open; both sides send it, nobody answers.
type Ping struct{}

// Kind is KindPing.
func (*Ping) Kind() Kind               { return KindPing }
func (m *Ping) encode(b []byte) []byte { return b }
func (m *Ping) decode(*decoder)        {}

// Bounds asks for a stream's bounds.
type Bounds struct{ Stream string }

// Kind is KindBounds.
func (*Bounds) Kind() Kind               { return KindBounds }
func (m *Bounds) encode(b []byte) []byte { return putText(b, m.Stream) }
func (m *Bounds) decode(d *decoder)      { m.Stream = d.text() }

// BoundsOK answers Bounds.
type BoundsOK struct{ Bounds log.Bounds }

// Kind is KindBoundsOK.
func (*BoundsOK) Kind() Kind               { return KindBoundsOK }
func (m *BoundsOK) encode(b []byte) []byte { return putBounds(b, m.Bounds) }
func (m *BoundsOK) decode(d *decoder)      { m.Bounds = d.bounds() }

// Streams asks for the names of all streams.
type Streams struct{}

// Kind is KindStreams.
func (*Streams) Kind() Kind               { return KindStreams }
func (m *Streams) encode(b []byte) []byte { return b }
func (m *Streams) decode(*decoder)        {}

// StreamsOK answers Streams.
type StreamsOK struct{ Names []string }

// Kind is KindStreamsOK.
func (*StreamsOK) Kind() Kind { return KindStreamsOK }
func (m *StreamsOK) encode(b []byte) []byte {
	b = le.AppendUint32(b, uint32(len(m.Names)))
	for _, n := range m.Names {
		b = putText(b, n)
	}
	return b
}
func (m *StreamsOK) decode(d *decoder) {
	m.Names = nil
	for range d.count(4) {
		m.Names = append(m.Names, d.text())
	}
}

// Done says that a request without a result succeeded.
type Done struct{}

// Kind is KindDone.
func (*Done) Kind() Kind               { return KindDone }
func (m *Done) encode(b []byte) []byte { return b }
func (m *Done) decode(*decoder)        {}
