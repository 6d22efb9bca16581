package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer"
	"github.com/twinspan/twinspan/producer/binlog"
)

// decode compares the way from the binlog to encoded entries, all of it (dump,
// checks, decoding, Avro, batches) into a log that throws them away, with a bare
// go-mysql reader that only decodes. Both read the same binlog from its start.
func decode(ctx context.Context, s settings) error {
	o := mysqltest.Options{Flavor: mysqltest.MySQL97}
	source, err := mysqltest.Run(ctx, o)
	if err != nil {
		return err
	}
	defer closing(source)
	rows, bytes, err := decodeLoad(ctx, source, s.rows)
	if err != nil {
		return err
	}
	want, err := source.GTIDs(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("decode: %d rows, %.0f MB of binlog, MySQL 9.7\n", rows, float64(bytes)/1e6)
	var bare, own []float64
	for round := range s.rounds {
		var b, t time.Duration
		var err1, err2 error
		if round%2 == 0 {
			b, err1 = readBare(ctx, source, rows)
			t, err2 = readOwn(ctx, source, want)
		} else {
			t, err2 = readOwn(ctx, source, want)
			b, err1 = readBare(ctx, source, rows)
		}
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		bare, own = append(bare, float64(rows)/b.Seconds()), append(own, float64(rows)/t.Seconds())
		fmt.Printf("  round %d: bare go-mysql %7.0f rows/s %5.0f MB/s   twinspan %7.0f rows/s %5.0f MB/s   ratio %.2f\n", round+1,
			bare[round], float64(bytes)/1e6/b.Seconds(), own[round], float64(bytes)/1e6/t.Seconds(), own[round]/bare[round])
	}
	fmt.Printf("RESULT bench-decode bare_rows_per_second=%.0f twinspan_rows_per_second=%.0f ratio=%.2f\n", median(bare), median(own), median(own)/median(bare))
	return nil
}

// decodeLoad writes rows of about 200 bytes and updates each once, so that an
// update carries about 400 bytes of images.
func decodeLoad(ctx context.Context, source *mysqltest.Server, rows int) (changes int, bytes int64, err error) {
	db := source.DB()
	if _, err := db.ExecContext(ctx, "CREATE DATABASE bench"); err != nil {
		return 0, 0, err
	}
	if _, err := db.ExecContext(ctx, `CREATE TABLE bench.d (id INT PRIMARY KEY, a BIGINT UNSIGNED, b DECIMAL(18,4), c DATETIME(6), d DATE, e VARCHAR(64), f CHAR(60),
		g VARBINARY(40), h ENUM('new','paid','void'), i DOUBLE, j INT NULL, k TIMESTAMP(3), l SMALLINT, m TINYINT UNSIGNED, n VARCHAR(20) NULL)`); err != nil {
		return 0, 0, err
	}
	const step = 1000
	for from := 0; from < rows/2; from += step {
		var b strings.Builder
		b.WriteString("INSERT INTO bench.d VALUES ")
		for id := from; id < from+step; id++ {
			if id > from {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "(%d,%d,%d.%04d,'2026-01-02 03:04:05.%06d','2026-02-03','customer-%032d',REPEAT('f',58),REPEAT('g',38),'paid',%d.5,NULL,'2026-01-02 03:04:05.123',%d,%d,'note-%d')",
				id, uint64(id)<<32, id, id%10000, id%1000000, id, id, id%30000, id%200, id)
		}
		if _, err := db.ExecContext(ctx, b.String()); err != nil {
			return 0, 0, err
		}
		if _, err := db.ExecContext(ctx, "UPDATE bench.d SET b=b+1, j=id WHERE id>=? AND id<?", from, from+step); err != nil {
			return 0, 0, err
		}
		changes += 2 * step
	}
	var file string
	var encrypted any
	list, err := db.QueryContext(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = list.Close() }() // read only
	for list.Next() {
		var size int64
		if err := list.Scan(&file, &size, &encrypted); err != nil {
			return 0, 0, err
		}
		bytes += size
	}
	return changes, bytes, list.Err()
}

func readBare(ctx context.Context, source *mysqltest.Server, rows int) (time.Duration, error) {
	host, port, err := net.SplitHostPort(source.Address)
	if err != nil {
		return 0, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, err
	}
	h := &counting{rows: rows, done: make(chan struct{})}
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{ServerID: 4_000_000_001, Flavor: "mysql", Host: host, Port: uint16(p), User: "root",
		SynchronousEventHandler: h, TimestampStringLocation: time.UTC, VerifyChecksum: true, DisableRetrySync: true,
		Logger: slog.New(slog.DiscardHandler)})
	defer syncer.Close()
	set, err := mysql.ParseMysqlGTIDSet("")
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := syncer.StartSyncGTID(set); err != nil {
		return 0, err
	}
	select {
	case <-h.done:
		return time.Since(began), nil
	case <-time.After(patience):
		return 0, errors.New("the bare reader did not reach the end")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// counting is a handler of go-mysql that waits for a number of rows.
type counting struct {
	rows, seen int
	done       chan struct{} // closed by the handler once seen reaches rows
}

func (c *counting) HandleEvent(e *replication.BinlogEvent) error {
	r, ok := e.Event.(*replication.RowsEvent)
	if !ok {
		return nil
	}
	n := len(r.Rows)
	if e.Header.EventType == replication.UPDATE_ROWS_EVENTv2 {
		n /= 2
	}
	if c.seen += n; c.seen == c.rows {
		close(c.done)
	}
	return nil
}

func readOwn(ctx context.Context, source *mysqltest.Server, upto string) (time.Duration, error) {
	d := &discard{}
	p, err := producer.New(producer.Config{Stream: "bench", Start: producer.StartEarliest, Binlog: binlog.Config{Server: source.Endpoint()}}, d, zerolog.Nop())
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1) // owner: the goroutine below; one value
	began := time.Now()
	go func() { ended <- p.Run(ctx) }()
	err = until(ctx, "producer", func() (bool, error) { return p.Status().GTIDSet == upto, nil })
	took := time.Since(began)
	cancel()
	return took, errors.Join(err, <-ended)
}

// discard is a log that confirms everything and keeps nothing.
type discard struct {
	log.Log // no other method is called
	mu      sync.Mutex
	next    log.Offset
}

func (d *discard) Bounds(context.Context, string) (log.Bounds, error) {
	return log.Bounds{}, log.ErrNoStream
}
func (d *discard) OpenWriter(context.Context, string) (log.Writer, error) {
	return discardWriter{d}, nil
}

type discardWriter struct{ *discard }

func (discardWriter) Epoch() log.Epoch { return 1 }
func (w discardWriter) Bounds() log.Bounds {
	w.mu.Lock()
	defer w.mu.Unlock()
	return log.Bounds{LAC: w.next - 1, LSO: w.next - 1, Epoch: 1}
}

func (w discardWriter) Append(context.Context, log.Draft) (log.Offset, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	return w.next - 1, nil
}

func (discardWriter) Wait(_ context.Context, o log.Offset) (log.Ack, error) {
	return log.Ack{Offset: o, Protected: true}, nil
}
func (discardWriter) Close() error { return nil }
