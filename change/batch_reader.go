package change

import (
	"fmt"
	"math"
	"sync"

	"github.com/twinspan/twinspan/schema"
)

// Codecs finds the codec of a fingerprint, making it from the registry's table
// when it is asked for first. It is safe for concurrent use.
type Codecs struct {
	tables *schema.Registry
	mu     sync.RWMutex
	made   map[schema.Fingerprint]*Codec // at most as many as the registry has tables
}

// NewCodecs makes codecs for the registry's tables.
func NewCodecs(tables *schema.Registry) *Codecs {
	return &Codecs{tables: tables, made: make(map[schema.Fingerprint]*Codec)}
}

// Codec fails with schema.ErrUnknownVersion when the fingerprint was not published.
func (c *Codecs) Codec(f schema.Fingerprint) (*Codec, error) {
	c.mu.RLock()
	codec := c.made[f]
	c.mu.RUnlock()
	if codec != nil {
		return codec, nil
	}
	t, err := c.tables.Table(f)
	if err != nil {
		return nil, err
	}
	if codec, err = NewCodec(t); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if first := c.made[f]; first != nil {
		return first, nil
	}
	c.made[f] = codec
	return codec, nil
}

// BatchReader reads a batch transaction by transaction and row by row, so that a
// large one is never in memory decoded. One goroutine uses it. What it returns
// may share the payload's memory.
type BatchReader struct {
	in      input
	codecs  *Codecs
	codec   *Codec // of the row before
	values  slab
	gtidSet string
	source  Source
	// Items that are left in the array block that is being read.
	transactions, rows int64
	inRows             bool
	current            Transaction // without rows
	micros             int64       // current's commit time as the payload has it
}

// NewBatchReader reads the batch's head. codecs may be nil for a caller who
// reads no rows. It fails with ErrMalformed.
func NewBatchReader(payload []byte, codecs *Codecs) (*BatchReader, error) {
	r := &BatchReader{in: input{b: payload}, codecs: codecs}
	switch r.in.long() {
	case 0:
	case 1:
		r.gtidSet = r.in.string()
	default:
		r.in.fail()
	}
	r.source = Source{Flavor: r.in.string(), ServerUUID: r.in.string(), File: r.in.string(), Position: uint64(r.in.long())}
	if r.in.bad {
		return nil, fmt.Errorf("%w: head of a batch", ErrMalformed)
	}
	return r, nil
}

// GTIDSet is Batch.GTIDSet; empty where it was left out.
func (r *BatchReader) GTIDSet() string { return r.gtidSet }

// Source is Batch.Source.
func (r *BatchReader) Source() Source { return r.source }

// Next reads the next transaction's head into t, with its DDL and without its
// rows. It skips rows of the one before that were not read. False means that the
// batch is at its end. It fails with ErrMalformed.
func (r *BatchReader) Next(t *Transaction) (bool, error) {
	for r.inRows {
		if _, _, err := r.rowFields(); err != nil {
			return false, err
		}
	}
	if !r.in.block(&r.transactions) {
		if r.in.bad || len(r.in.b) > 0 {
			return false, fmt.Errorf("%w: end of a batch", ErrMalformed)
		}
		return false, nil
	}
	c := Transaction{GTID: r.in.string()}
	r.micros = r.in.long()
	c.CommitTime = fromMicros(r.micros)
	id := r.in.long()
	c.ServerID = uint32(id)
	c.Continues, c.Continued = r.in.bool(), r.in.bool()
	switch r.in.long() {
	case 0:
	case 1:
		c.DDL = r.in.ddl()
	default:
		r.in.fail()
	}
	if r.in.bad || id < 0 || id > math.MaxUint32 {
		r.in.fail()
		return false, fmt.Errorf("%w: head of transaction %q", ErrMalformed, clip(c.GTID))
	}
	r.current, r.inRows, r.rows = c, true, 0
	*t = c
	return true, nil
}

// rowFields reads a row without its payload's content; false at the end of the
// transaction's rows.
func (r *BatchReader) rowFields() (f rowFields, more bool, err error) {
	if !r.in.block(&r.rows) {
		r.inRows = false
		if r.in.bad {
			return f, false, fmt.Errorf("%w: rows of %s", ErrMalformed, r.current.GTID)
		}
		return f, false, nil
	}
	f.name = r.in.bytes()
	if len(r.in.b) < len(f.fingerprint) {
		r.in.fail()
	} else {
		r.in.b = r.in.b[copy(f.fingerprint[:], r.in.b):]
	}
	f.payload = r.in.bytes()
	if r.in.bad {
		r.inRows = false
		return f, false, fmt.Errorf("%w: row of %s", ErrMalformed, r.current.GTID)
	}
	return f, true, nil
}

type rowFields struct {
	name        []byte
	fingerprint schema.Fingerprint
	payload     []byte
}

// NextRow reads the next row of the transaction that Next read. False means that
// it has no more. It fails with ErrMalformed, or with schema.ErrUnknownVersion
// for a row of a table version that the schema topic has not published.
func (r *BatchReader) NextRow(row *Row) (bool, error) {
	if !r.inRows {
		return false, nil
	}
	f, more, err := r.rowFields()
	if !more {
		return false, err
	}
	if r.codec == nil || r.codec.fingerprint != f.fingerprint {
		if r.codec, err = r.codecs.Codec(f.fingerprint); err != nil {
			return false, fmt.Errorf("row of %s in %s: %w", f.name, r.current.GTID, err)
		}
	}
	got, gtid, at, err := r.codec.decodeRow(f.payload, &r.values)
	if err != nil {
		return false, fmt.Errorf("%s: %w", r.current.GTID, err)
	}
	if string(gtid) != r.current.GTID || at != r.micros || string(f.name) != r.codec.name {
		return false, fmt.Errorf("%w: row of %s in %s says it is of %s in %q",
			ErrMalformed, r.codec.table.Name, r.current.GTID, clip(string(f.name)), clip(string(gtid)))
	}
	*row = got
	return true, nil
}

// DecodeBatch reads a whole batch. Values share the payload's memory. It needs
// up to 40 bytes for each byte of the payload (a NULL is one byte there, and one
// Value here); a BatchReader needs none of it at once. It fails with
// ErrMalformed, or with schema.ErrUnknownVersion.
func DecodeBatch(payload []byte, codecs *Codecs) (*Batch, error) {
	r, err := NewBatchReader(payload, codecs)
	if err != nil {
		return nil, err
	}
	b := &Batch{GTIDSet: r.gtidSet, Source: r.source}
	for {
		var t Transaction
		more, err := r.Next(&t)
		if err != nil {
			return nil, err
		}
		if !more {
			return b, nil
		}
		for {
			var row Row
			more, err := r.NextRow(&row)
			if err != nil {
				return nil, err
			}
			if !more {
				break
			}
			t.Rows = append(t.Rows, row)
		}
		b.Transactions = append(b.Transactions, t)
	}
}

// block steps to the next item of an Avro array or map: left is what is left of
// the current block, 0 to begin. False means that there are no more, or bad.
func (in *input) block(left *int64) bool {
	if *left == 0 {
		n := in.long()
		if n < 0 { // a block that tells its size in bytes, too
			if n == math.MinInt64 || in.long() < 0 {
				in.fail()
				return false
			}
			n = -n
		}
		if n == 0 {
			return false
		}
		*left = n
	}
	*left--
	return !in.bad
}

func (in *input) ddl() *DDL {
	d := &DDL{Text: in.string(), DefaultSchema: in.string(), SQLMode: uint64(in.long())}
	flags2 := in.long()
	d.Flags2 = uint32(flags2)
	if flags2 != int64(d.Flags2) {
		in.fail()
	}
	for _, id := range []*uint16{&d.CharsetClient, &d.CollationConnection, &d.CollationServer} {
		n := in.long()
		if *id = uint16(n); n != int64(*id) {
			in.fail()
		}
	}
	d.TimeZone = in.string()
	d.Timestamp = fromMicros(in.long())
	for left := int64(0); in.block(&left); {
		name, value := in.string(), in.string()
		if in.bad {
			return nil
		}
		if d.Variables == nil {
			d.Variables = map[string]string{}
		}
		d.Variables[name] = value
	}
	d.Class = in.string()
	for left := int64(0); in.block(&left); {
		n := schema.Name{Schema: in.string(), Table: in.string()}
		if in.bad {
			return nil
		}
		d.Tables = append(d.Tables, n)
	}
	return d
}

// clip keeps what goes into an error message short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
