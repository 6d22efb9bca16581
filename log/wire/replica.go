package wire

import (
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// Seal fences a segment: its node stores nothing for an epoch below Epoch any
// more, not even when it hears of the segment for the first time now.
type Seal struct {
	Descriptor quorum.Descriptor
	Epoch      log.Epoch
}

// Kind is KindSeal.
func (*Seal) Kind() Kind { return KindSeal }
func (m *Seal) encode(b []byte) []byte {
	return le.AppendUint64(AppendDescriptor(b, &m.Descriptor), uint64(m.Epoch))
}
func (m *Seal) decode(d *decoder) { m.Descriptor, m.Epoch = d.descriptor(), log.Epoch(d.u64()) }

// Sealed answers Seal: the fence is durable, and this is what the node holds, as
// one atomic step.
type Sealed struct {
	Last   log.Offset // newest entry on disk; Descriptor.First-1: none
	LAC    log.Offset // the newest that the node knows to be confirmed
	LSO    log.Offset // the newest up to Last that ends a transaction
	Closed bool       // the node was told the segment's end
	End    log.Offset // of a closed one: where it ends, above Last when the node lags; else 0
	EndLSO log.Offset // of a closed one; else 0
}

// Kind is KindSealed.
func (*Sealed) Kind() Kind { return KindSealed }
func (m *Sealed) encode(b []byte) []byte {
	b = putFlag(putOffset(putOffset(putOffset(b, m.Last), m.LAC), m.LSO), m.Closed)
	return putOffset(putOffset(b, m.End), m.EndLSO)
}
func (m *Sealed) decode(d *decoder) {
	m.Last, m.LAC, m.LSO, m.Closed = d.offset(), d.offset(), d.offset(), d.flag()
	m.End, m.EndLSO = d.offset(), d.offset()
}

// Attach makes the connection an append connection of a segment. Epoch is the
// descriptor's own for its writer, the fence's for a recovery or a repair.
type Attach struct {
	Descriptor quorum.Descriptor
	Epoch      log.Epoch
}

// Kind is KindAttach.
func (*Attach) Kind() Kind { return KindAttach }
func (m *Attach) encode(b []byte) []byte {
	return le.AppendUint64(AppendDescriptor(b, &m.Descriptor), uint64(m.Epoch))
}
func (m *Attach) decode(d *decoder) { m.Descriptor, m.Epoch = d.descriptor(), log.Epoch(d.u64()) }

// Attached answers Attach. The next Append carries Last+1.
type Attached struct{ Last log.Offset }

// Kind is KindAttached.
func (*Attached) Kind() Kind               { return KindAttached }
func (m *Attached) encode(b []byte) []byte { return putOffset(b, m.Last) }
func (m *Attached) decode(d *decoder)      { m.Last = d.offset() }

// Close tells a node where a segment ends, as metadata has it. What the node
// holds above Last goes; what it lacks below is for the repairer.
type Close struct {
	Stream  string
	Segment uint32
	Last    log.Offset
	LSO     log.Offset
}

// Kind is KindClose.
func (*Close) Kind() Kind { return KindClose }
func (m *Close) encode(b []byte) []byte {
	return putOffset(putOffset(le.AppendUint32(putText(b, m.Stream), m.Segment), m.Last), m.LSO)
}
func (m *Close) decode(d *decoder) {
	m.Stream, m.Segment, m.Last, m.LSO = d.text(), d.u32(), d.offset(), d.offset()
}

// Copy makes the connection a read connection of one replica, for recovery and
// repair.
type Copy struct {
	Stream  string
	Segment uint32
	From    log.Offset
	To      log.Offset // the first one not wanted
	Credit  uint64     // bytes of Data frames the node may send
	// Raw: entries that are not confirmed, too.
	Raw bool
}

// Kind is KindCopy.
func (*Copy) Kind() Kind { return KindCopy }
func (m *Copy) encode(b []byte) []byte {
	b = putOffset(putOffset(le.AppendUint32(putText(b, m.Stream), m.Segment), m.From), m.To)
	return putFlag(le.AppendUint64(b, m.Credit), m.Raw)
}
func (m *Copy) decode(d *decoder) {
	m.Stream, m.Segment, m.From, m.To, m.Credit, m.Raw = d.text(), d.u32(), d.offset(), d.offset(), d.u64(), d.flag()
}

// Meta carries a request to the metadata, in the metadata's own form.
type Meta struct{ Request []byte } // a part of the decoded body

// Kind is KindMeta.
func (*Meta) Kind() Kind               { return KindMeta }
func (m *Meta) encode(b []byte) []byte { return append(b, m.Request...) }
func (m *Meta) decode(d *decoder)      { m.Request = d.take(len(d.b)) }

// MetaOK answers Meta.
type MetaOK struct{ Response []byte } // a part of the decoded body

// Kind is KindMetaOK.
func (*MetaOK) Kind() Kind               { return KindMetaOK }
func (m *MetaOK) encode(b []byte) []byte { return append(b, m.Response...) }
func (m *MetaOK) decode(d *decoder)      { m.Response = d.take(len(d.b)) }

// Raft turns the connection, after a Done, into a byte stream of the metadata's
// consensus: no frame follows.
type Raft struct{}

// Kind is KindRaft.
func (*Raft) Kind() Kind               { return KindRaft }
func (m *Raft) encode(b []byte) []byte { return b }
func (m *Raft) decode(*decoder)        {}

// Admin asks a node for something outside the flow of entries: its state, a
// repair, its part in a takeover. Verb says what, Request is JSON.
type Admin struct {
	Verb    string
	Request []byte // a part of the decoded body
}

// Kind is KindAdmin.
func (*Admin) Kind() Kind               { return KindAdmin }
func (m *Admin) encode(b []byte) []byte { return append(putText(b, m.Verb), m.Request...) }
func (m *Admin) decode(d *decoder)      { m.Verb, m.Request = d.text(), d.take(len(d.b)) }

// AdminOK answers Admin, in JSON.
type AdminOK struct{ Response []byte } // a part of the decoded body

// Kind is KindAdminOK.
func (*AdminOK) Kind() Kind               { return KindAdminOK }
func (m *AdminOK) encode(b []byte) []byte { return append(b, m.Response...) }
func (m *AdminOK) decode(d *decoder)      { m.Response = d.take(len(d.b)) }
