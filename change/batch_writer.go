package change

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twinspan/twinspan/schema"
)

// headroom is left before a batch's transactions for what is only known at its
// end: the GTID set and the source. A larger set costs one copy of the batch.
const headroom = 1024

// BatchWriter encodes a batch while its transactions come in, row by row and
// without allocating for each: Begin, then DDL at most once, then Row as often
// as there are rows, then End; Finish when the batch is full. Arrays are written
// as blocks of one item, so that nothing has to be counted first. One goroutine
// uses it. Calls in another order are mistakes of the program, and panic.
type BatchWriter struct {
	buf       []byte // nil until something is written
	hint      int    // bytes of payload that buf is made for
	state     writerState
	begun     int // where the last transaction starts in buf
	continued int // where the open transaction's "continued" stands in buf
	transacts int
	rows      int
	rowsBegun int // rows before the last transaction
}

type writerState uint8

const (
	betweenTransactions writerState = iota
	beforeDDL                       // begun; neither DDL nor rows yet
	inRows
)

// NewBatchWriter makes an empty writer. sizeHint is the expected payload in bytes;
// memory for it is taken with the first transaction.
func NewBatchWriter(sizeHint int) *BatchWriter { return &BatchWriter{hint: sizeHint} }

func (w *BatchWriter) room() {
	if w.buf == nil {
		w.buf = make([]byte, headroom, headroom+max(w.hint, headroom))
	}
}

// Size is how many bytes the batch has so far, without the GTID set and the
// source.
func (w *BatchWriter) Size() int { return max(len(w.buf)-headroom, 0) }

// Transactions is how many transactions were begun, Rows how many rows written.
func (w *BatchWriter) Transactions() int { return w.transacts }

// Rows is how many rows the batch has.
func (w *BatchWriter) Rows() int { return w.rows }

// Open tells whether a transaction was begun and not ended.
func (w *BatchWriter) Open() bool { return w.state != betweenTransactions }

// Begin starts a transaction, or, with continues, a later part of one.
func (w *BatchWriter) Begin(gtid string, commitTime time.Time, serverID uint32, continues bool) {
	w.expect(w.state == betweenTransactions, "Begin inside a transaction")
	w.room()
	w.begun, w.rowsBegun = len(w.buf), w.rows
	w.buf = append(w.buf, 2) // a block of one transaction
	w.buf = appendString(w.buf, gtid)
	w.buf = binary.AppendVarint(w.buf, micros(commitTime))
	w.buf = binary.AppendVarint(w.buf, int64(serverID))
	w.buf = append(w.buf, boolByte(continues))
	w.continued = len(w.buf)
	w.buf = append(w.buf, 0)
	w.state = beforeDDL
	w.transacts++
}

// DDL gives the transaction its statement, before any row.
func (w *BatchWriter) DDL(d *DDL) {
	w.expect(w.state == beforeDDL, "DDL outside a transaction or behind its rows")
	w.buf = appendDDL(append(w.buf, 2), d)
	w.state = inRows
}

// Row adds a row of the codec's table. gtid and commitTime are its transaction's.
// It fails with ErrValue, and the batch is then as it was.
func (w *BatchWriter) Row(c *Codec, r *Row, gtid string, commitTime time.Time) error {
	w.expect(w.state != betweenTransactions, "Row outside a transaction")
	start, state := len(w.buf), w.state
	w.openRows()
	w.buf = append(w.buf, 2) // a block of one row
	w.buf = append(w.buf, c.head...)
	// The payload's length stands before it. Most payloads have the same
	// number of digits, so leave room for two and move the payload otherwise.
	const guess = 2
	at := len(w.buf)
	w.buf = append(w.buf, 0, 0)
	b, err := c.AppendRow(w.buf, r, gtid, commitTime)
	if err != nil {
		w.buf, w.state = w.buf[:start], state
		return err
	}
	n := len(b) - at - guess
	var length [binary.MaxVarintLen64]byte
	size := binary.PutVarint(length[:], int64(n))
	if size != guess {
		b = append(b, length[:max(size-guess, 0)]...) // grow; the bytes are overwritten
		copy(b[at+size:], b[at+guess:at+guess+n])
		b = b[:at+size+n]
	}
	copy(b[at:], length[:size])
	w.buf = b
	w.rows++
	return nil
}

func (w *BatchWriter) openRows() {
	if w.state == beforeDDL {
		w.buf = append(w.buf, 0) // no DDL
		w.state = inRows
	}
}

// End ends the transaction, or, with continued, this part of it.
func (w *BatchWriter) End(continued bool) {
	w.expect(w.state != betweenTransactions, "End outside a transaction")
	w.openRows()
	w.buf = append(w.buf, 0) // no more rows
	w.buf[w.continued] = boolByte(continued)
	w.state = betweenTransactions
}

// Drop takes back the open transaction, as if it had not begun.
func (w *BatchWriter) Drop() {
	w.expect(w.state != betweenTransactions, "Drop outside a transaction")
	w.buf, w.rows, w.state = w.buf[:w.begun], w.rowsBegun, betweenTransactions
	w.transacts--
}

// Split moves the open transaction into a writer of its own, which it returns,
// and leaves those before it ready for Finish.
func (w *BatchWriter) Split() *BatchWriter {
	w.expect(w.state != betweenTransactions, "Split outside a transaction")
	n := NewBatchWriter(len(w.buf))
	n.room()
	n.begun = len(n.buf)
	n.buf = append(n.buf, w.buf[w.begun:]...)
	n.continued = n.begun + w.continued - w.begun
	n.state, n.transacts, n.rows = w.state, 1, w.rows-w.rowsBegun
	w.Drop()
	return n
}

// Finish gives the batch's payload, which the caller owns, and makes the writer
// ready for the next batch. gtidSet may be empty: see Batch.GTIDSet.
func (w *BatchWriter) Finish(gtidSet string, s Source) []byte {
	w.expect(w.state == betweenTransactions, "Finish inside a transaction")
	w.room()
	w.buf = append(w.buf, 0) // no more transactions
	var room [headroom]byte
	head := room[:0]
	if gtidSet == "" {
		head = append(head, 0)
	} else {
		head = appendString(append(head, 2), gtidSet)
	}
	head = appendString(head, s.Flavor)
	head = appendString(head, s.ServerUUID)
	head = appendString(head, s.File)
	head = binary.AppendVarint(head, int64(s.Position))

	payload := w.buf
	if len(head) <= headroom {
		payload = payload[headroom-len(head):]
		copy(payload, head)
	} else {
		payload = append(head, payload[headroom:]...)
	}
	*w = BatchWriter{hint: len(w.buf)}
	return payload
}

func (w *BatchWriter) expect(ok bool, mistake string) {
	if !ok {
		panic("change.BatchWriter: " + mistake)
	}
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func appendDDL(b []byte, d *DDL) []byte {
	b = appendString(b, d.Text)
	b = appendString(b, d.DefaultSchema)
	b = binary.AppendVarint(b, int64(d.SQLMode))
	b = binary.AppendVarint(b, int64(d.Flags2))
	b = binary.AppendVarint(b, int64(d.CharsetClient))
	b = binary.AppendVarint(b, int64(d.CollationConnection))
	b = binary.AppendVarint(b, int64(d.CollationServer))
	b = appendString(b, d.TimeZone)
	b = binary.AppendVarint(b, micros(d.Timestamp))
	if len(d.Variables) > 0 {
		b = binary.AppendVarint(b, int64(len(d.Variables)))
		for _, name := range slices.Sorted(maps.Keys(d.Variables)) {
			b = appendString(appendString(b, name), d.Variables[name])
		}
	}
	b = append(b, 0)
	b = appendString(b, d.Class)
	if len(d.Tables) > 0 {
		b = binary.AppendVarint(b, int64(len(d.Tables)))
		for _, n := range d.Tables {
			b = appendString(appendString(b, n.Schema), n.Table)
		}
	}
	return append(b, 0)
}

// AppendBatch appends the payload of a whole batch. Each row's Table must be
// there. It fails with ErrValue, or when a table is not valid; dst is then as it
// was.
func AppendBatch(dst []byte, b *Batch) ([]byte, error) {
	w := NewBatchWriter(0)
	codecs := map[*schema.Table]*Codec{}
	for i := range b.Transactions {
		t := &b.Transactions[i]
		w.Begin(t.GTID, t.CommitTime, t.ServerID, t.Continues)
		if t.DDL != nil {
			w.DDL(t.DDL)
		}
		for k := range t.Rows {
			r := &t.Rows[k]
			if r.Table == nil {
				return dst, fmt.Errorf("row %d of %s has no table: %w", k, t.GTID, ErrValue)
			}
			c := codecs[r.Table]
			if c == nil {
				var err error
				if c, err = NewCodec(r.Table); err != nil {
					return dst, err
				}
				codecs[r.Table] = c
			}
			if err := w.Row(c, r, t.GTID, t.CommitTime); err != nil {
				return dst, fmt.Errorf("row %d of %s: %w", k, t.GTID, err)
			}
		}
		w.End(t.Continued)
	}
	return append(dst, w.Finish(b.GTIDSet, b.Source)...), nil
}
