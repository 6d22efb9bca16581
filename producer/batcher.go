package producer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
	"github.com/twinspan/twinspan/schema"
)

// sealed is a batch that is ready to be appended, and what it needs.
type sealed struct {
	schemas [][]byte            // entries of the schema topic that go before it
	batch   *change.BatchWriter // to be finished
	source  change.Source
	ends    bool      // no transaction is open after it
	whole   gtid.Set  // the transactions that are whole with it
	first   time.Time // commit time of its first transaction
	last    time.Time // of its last
	count   int       // whole transactions
	rows    int
}

// batcher gathers transactions to batches. The stream's goroutine fills it (it
// is the stream's sink), and the appender takes batches out.
//
// An entry holds either whole transactions, or one part of one transaction and
// nothing else. So an entry below the LSO is never half one and half the other,
// and a writer that takes over can tell from the LSO alone what the log holds.
type batcher struct {
	bytesMax, chunkBytes int
	flavor               string

	// ctx is the pipeline's: its end frees a blocked stream.
	ctx context.Context

	mu   sync.Mutex
	open *change.BatchWriter
	// What goes with open.
	schemas [][]byte
	whole   gtid.Set
	count   int
	since   time.Time // when the first whole transaction of open ended
	firstAt time.Time
	lastAt  time.Time
	source  change.Source // where the last whole transaction ended

	full *sealed // at most one; waits for the appender

	// The open transaction.
	tx    binlog.Header
	parts int  // already sealed; 0 when none is open
	bare  bool // no DDL and no row in this part yet

	// What this writer published. A new writer publishes again: harmless to
	// readers, bounded by the table versions in use, and it needs no look at
	// the past.
	published map[schema.Fingerprint]*change.Codec
	codecs    map[*schema.Table]*change.Codec // at most codecsMax
	// The table of the last row and its codec: rows of one come together.
	table *schema.Table
	codec *change.Codec

	// size is what the batches of late have come to, the room a new one is
	// given: much more would be garbage, and less is copied as it grows.
	size int

	// wake tells the appender to look. Owner: batcher; capacity 1, never
	// closed; a full one means that it will look anyway.
	wake chan struct{}
	// room tells the stream that full was taken. As wake.
	room chan struct{}
}

func newBatcher(ctx context.Context, flavor string, bytesMax, chunkBytes int) *batcher {
	return &batcher{
		ctx: ctx, flavor: flavor, bytesMax: bytesMax, chunkBytes: chunkBytes,
		open: change.NewBatchWriter(0), whole: gtid.New(flavor),
		published: map[schema.Fingerprint]*change.Codec{}, codecs: map[*schema.Table]*change.Codec{},
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

// codecsMax bounds the cache by pointer: a stream that connects again comes with
// new pointers to the same versions.
const codecsMax = 20_000

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// errUnfinished: parts of a transaction went to the log, and its end did not come.
// Readers discard them where the next epoch begins, and only there: that within an
// epoch whatever begins also ends lets them tell from a later end alone that a large
// transaction is whole.
var errUnfinished = errors.New("the source broke off within a transaction of which the log has parts; it is read anew under the next epoch")

// Begin is binlog.Sink's. What was begun and not ended is taken back. Where parts of
// it went to the log it fails with errUnfinished.
func (b *batcher) Begin(h binlog.Header) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.parts > 0 {
		return errUnfinished
	}
	b.takeBack()
	b.tx, b.bare = h, true
	b.open.Begin(h.GTID, h.CommitTime, h.ServerID, false)
	return nil
}

// takeBack drops the open transaction. Its schema entries stay: they are true,
// and b.published says that they are on their way.
func (b *batcher) takeBack() {
	if b.open.Open() {
		b.open.Drop()
	}
}

// DDL is binlog.Sink's.
func (b *batcher) DDL(d *change.DDL) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.bare { // a part has one statement, before its rows
		if err := b.cut(); err != nil {
			return err
		}
	}
	b.open.DDL(d)
	b.bare = false
	return b.bound()
}

// Row is binlog.Sink's.
func (b *batcher) Row(r *change.Row) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Table != b.table {
		c := b.codecs[r.Table]
		if c == nil {
			var err error
			if c, err = b.publish(r.Table); err != nil {
				return err
			}
		}
		b.table, b.codec = r.Table, c
	}
	b.bare = false
	if err := b.open.Row(b.codec, r, b.tx.GTID, b.tx.CommitTime); err != nil {
		if errors.Is(err, change.ErrValue) {
			return &Halt{Code: binlog.HaltDecode, GTID: b.tx.GTID, Detail: "a row does not fit its table's definition", Cause: err,
				Remedy: "compare the table's definition with the binlog at this transaction; then bring the target in line and skip this GTID"}
		}
		return err
	}
	return b.bound()
}

// publish queues a table version for the schema topic.
func (b *batcher) publish(t *schema.Table) (*change.Codec, error) {
	c, err := change.NewCodec(t)
	if err != nil {
		return nil, &Halt{Code: binlog.HaltMetadata, GTID: b.tx.GTID, Detail: "a table's definition is not valid", Cause: err,
			Remedy: "this is a defect of twinspan: report it with the table's definition; to go on, skip this GTID"}
	}
	if len(b.codecs) >= codecsMax {
		clear(b.codecs)
	}
	if known := b.published[c.Fingerprint()]; known != nil {
		b.codecs[t] = known
		return known, nil
	}
	v, err := schema.NewTableVersion(t, b.tx.GTID)
	if err != nil {
		return nil, fmt.Errorf("describe %s: %w", t.Name, err)
	}
	payload, err := v.Encode()
	if err != nil {
		return nil, err
	}
	b.schemas = append(b.schemas, payload)
	b.published[c.Fingerprint()], b.codecs[t] = c, c
	return c, nil
}

// bound keeps batches and parts within their sizes.
func (b *batcher) bound() error {
	size := b.open.Size()
	if size < b.bytesMax {
		return nil
	}
	if b.count > 0 {
		if err := b.sealWhole(); err != nil {
			return err
		}
		size = b.open.Size()
	}
	if size > log.MaxPayload-(1<<20) {
		return &Halt{Code: binlog.HaltTooLarge, GTID: b.tx.GTID,
			Detail: fmt.Sprintf("one row or statement takes %d bytes, and an entry of the log at most %d", size, log.MaxPayload),
			Remedy: "store such values in pieces; to go on, bring the target in line and skip this GTID"}
	}
	if size >= b.chunkBytes {
		return b.cut()
	}
	return nil
}

// cut ends a part of the open transaction and begins the next.
func (b *batcher) cut() error {
	if b.count > 0 {
		if err := b.sealWhole(); err != nil {
			return err
		}
	}
	b.open.End(true)
	if err := b.await(); err != nil {
		return err
	}
	b.full = &sealed{
		schemas: b.schemas, batch: b.open, source: b.source, whole: gtid.New(b.flavor),
		first: b.tx.CommitTime, last: b.tx.CommitTime, rows: b.open.Rows(),
	}
	b.schemas = nil
	b.fresh()
	b.parts++
	b.bare = true
	b.open.Begin(b.tx.GTID, b.tx.CommitTime, b.tx.ServerID, true)
	signal(b.wake)
	return nil
}

// End is binlog.Sink's.
func (b *batcher) End(at change.Source) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open.End(false)
	if err := b.whole.Add(b.tx.GTID); err != nil {
		return err
	}
	if b.count == 0 {
		b.since, b.firstAt = time.Now(), b.tx.CommitTime
	}
	b.count++
	b.lastAt, b.source = b.tx.CommitTime, at
	if b.open.Size() >= b.bytesMax || b.parts > 0 {
		if err := b.sealWhole(); err != nil {
			return err
		}
	}
	b.parts = 0
	signal(b.wake)
	return nil
}

// sealWhole moves the whole transactions to full, when that is free.
func (b *batcher) sealWhole() error {
	if err := b.await(); err != nil {
		return err
	}
	// The appender may have taken them meanwhile.
	if b.count > 0 {
		b.full = b.seal()
		signal(b.wake)
	}
	return nil
}

// fresh begins a batch with as much room as the last ones took, and an eighth
// more: a batch ends with the row that no longer fits.
func (b *batcher) fresh() {
	last := b.open.Size()
	b.size = min(max(last+last/8, b.size-b.size/4), 2*max(b.bytesMax, b.chunkBytes))
	b.open = change.NewBatchWriter(b.size)
}

// await waits until full is free. It gives up the lock meanwhile.
func (b *batcher) await() error {
	for b.full != nil {
		b.mu.Unlock()
		select {
		case <-b.room:
		case <-b.ctx.Done():
		}
		b.mu.Lock()
		if err := b.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// seal takes the whole transactions out of open, and leaves the open one there.
func (b *batcher) seal() *sealed {
	s := &sealed{
		batch: b.open, schemas: b.schemas, source: b.source, ends: true,
		whole: b.whole, first: b.firstAt, last: b.lastAt, count: b.count,
	}
	if b.open.Open() {
		b.open = b.open.Split()
	} else {
		b.fresh()
	}
	s.rows = s.batch.Rows()
	b.schemas, b.whole, b.count = nil, gtid.New(b.flavor), 0
	return s
}

// take gives the next batch to append; nil when there is none yet, with the time
// to wait for more unless wake tells earlier (0: as long as it takes). With
// idle, whole transactions do not wait.
func (b *batcher) take(idle bool, delay time.Duration) (*sealed, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.full; s != nil {
		b.full = nil
		signal(b.room)
		return s, 0
	}
	if b.count == 0 {
		return nil, 0
	}
	if wait := delay - time.Since(b.since); !idle && wait > 0 {
		return nil, wait
	}
	return b.seal(), 0
}

// pending is the commit time of the oldest transaction that waits; zero: none.
func (b *batcher) pending() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.full != nil:
		return b.full.first
	case b.count > 0:
		return b.firstAt
	case b.open.Open():
		return b.tx.CommitTime
	}
	return time.Time{}
}
