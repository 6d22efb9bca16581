package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
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

// Bounds of the judged shape: rows/s beside the bare reader's, and heap
// allocations for each row.
const (
	decodeRatioMin  = 1.5
	decodeAllocsMax = 1
)

// decode compares the way from the binlog to encoded entries, all of it (dump,
// checks, decoding, Avro, batches) into a log that throws them away, with a bare
// go-mysql reader that only decodes. Both read the same binlog from its start,
// in turn, for each shape of table.
func decode(ctx context.Context, s settings) error {
	var behind []string
	for _, d := range decodeShapes {
		if !strings.HasPrefix(d.name, s.only) {
			continue
		}
		r, err := decodeOne(ctx, s, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		if d.judged && r.ratio < decodeRatioMin {
			behind = append(behind, fmt.Sprintf("%s: %.2f times the bare reader's rows/s, not %.1f", d.name, r.ratio, decodeRatioMin))
		}
		if d.judged && r.allocs >= decodeAllocsMax {
			behind = append(behind, fmt.Sprintf("%s: %.2f allocations a row, not below %d", d.name, r.allocs, decodeAllocsMax))
		}
	}
	if len(behind) > 0 {
		return fmt.Errorf("%w: %s", errTarget, strings.Join(behind, "; "))
	}
	return nil
}

// decodeResult is the medians of one shape: of the rounds' ratios, and of our
// allocations a row.
type decodeResult struct{ ratio, allocs float64 }

func decodeOne(ctx context.Context, s settings, d decodeShape) (r decodeResult, err error) {
	o := mysqltest.Options{Flavor: s.flavor}
	source, err := mysqltest.Run(ctx, o)
	if err != nil {
		return r, err
	}
	defer closing(source)
	rows, bytes, err := d.load(ctx, source, max(s.rows/d.share, 1))
	if err != nil {
		return r, err
	}
	want, err := source.GTIDs(ctx)
	if err != nil {
		return r, err
	}
	fmt.Printf("decode: %s: %d rows, %.0f bytes of binlog each, %s\n", d.name, rows, float64(bytes)/float64(rows), s.flavor)
	bare := func() error { return readBare(ctx, source, s.flavor, rows) }
	own := func() error {
		stop, err := cpuProfile(s.profile, "decode-"+strings.Fields(d.name)[0])
		if err != nil {
			return err
		}
		return errors.Join(readOwn(ctx, source, want), stop())
	}
	var theirs, ours []reading
	var ratios []float64
	for round := range s.rounds {
		var b, t reading
		var err1, err2 error
		if round%2 == 0 {
			b, err1 = measure(rows, bare)
			t, err2 = measure(rows, own)
		} else {
			t, err2 = measure(rows, own)
			b, err1 = measure(rows, bare)
		}
		if err := errors.Join(err1, err2); err != nil {
			return r, err
		}
		theirs, ours, ratios = append(theirs, b), append(ours, t), append(ratios, t.rate/b.rate)
		fmt.Printf("  round %d: bare go-mysql %s   twinspan %s   ratio %.2f\n", round+1, b, t, t.rate/b.rate)
	}
	mid := func(of []reading, what func(reading) float64) float64 {
		var v []float64
		for _, x := range of {
			v = append(v, what(x))
		}
		return median(v)
	}
	rate, cpu, allocs := func(x reading) float64 { return x.rate }, func(x reading) float64 { return x.cpu }, func(x reading) float64 { return x.allocs }
	r = decodeResult{ratio: median(ratios), allocs: mid(ours, allocs)}
	fmt.Printf("RESULT bench-decode shape=%q bare_rows_per_second=%.0f twinspan_rows_per_second=%.0f ratio=%.2f bare_cpu_us_per_row=%.2f twinspan_cpu_us_per_row=%.2f "+
		"bare_allocs_per_row=%.2f twinspan_allocs_per_row=%.3f\n", d.name, mid(theirs, rate), mid(ours, rate), r.ratio, mid(theirs, cpu), mid(ours, cpu),
		mid(theirs, allocs), r.allocs)
	return r, nil
}

// reading is what one pass over the binlog took.
type reading struct {
	rate   float64 // rows/s
	cpu    float64 // µs of this process for each row
	allocs float64 // heap allocations for each row
}

func (r reading) String() string {
	return fmt.Sprintf("%7.0f rows/s %5.2f µs CPU %6.3f allocs a row", r.rate, r.cpu, r.allocs)
}

// measure runs one side alone in this process.
func measure(rows int, run func() error) (reading, error) {
	runtime.GC() // what the other side left is not for this one to collect
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, began := cpuSeconds(os.Getpid()), time.Now()
	err := run()
	took, cpu := time.Since(began), cpuSeconds(os.Getpid())-cpu
	runtime.ReadMemStats(&after)
	n := float64(rows)
	return reading{rate: n / took.Seconds(), cpu: cpu * 1e6 / n, allocs: float64(after.Mallocs-before.Mallocs) / n}, err
}

// cpuProfile starts a CPU profile of this process into a file of that name, and
// returns how to end it; "" for no folder: none.
func cpuProfile(folder, name string) (stop func() error, err error) {
	if folder == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(folder, name+".pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// readBare reads the rows with go-mysql's syncer, which decodes them and hands
// them to a handler that counts.
func readBare(ctx context.Context, source *mysqltest.Server, f mysqltest.Flavor, rows int) error {
	host, port, err := net.SplitHostPort(source.Address)
	if err != nil {
		return err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	h := &counting{rows: rows, done: make(chan struct{})}
	flavor := string(f.Server())
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{ServerID: 4_000_000_001, Flavor: flavor, Host: host, Port: uint16(p), User: "root",
		SynchronousEventHandler: h, TimestampStringLocation: time.UTC, VerifyChecksum: true, DisableRetrySync: true,
		Logger: slog.New(slog.DiscardHandler)})
	defer syncer.Close()
	set, err := mysql.ParseGTIDSet(flavor, "")
	if err != nil {
		return err
	}
	if _, err := syncer.StartSyncGTID(set); err != nil {
		return err
	}
	select {
	case <-h.done:
		return nil
	case <-time.After(patience):
		return errors.New("the bare reader did not reach the end")
	case <-ctx.Done():
		return ctx.Err()
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
	if t := e.Header.EventType; t == replication.UPDATE_ROWS_EVENTv2 || t == replication.UPDATE_ROWS_EVENTv1 {
		n /= 2
	}
	if c.seen += n; c.seen == c.rows {
		close(c.done)
	}
	return nil
}

// readOwn runs a whole producer until its log has all of the binlog.
func readOwn(ctx context.Context, source *mysqltest.Server, upto string) error {
	p, err := producer.New(producer.Config{Stream: "bench", Start: producer.StartEarliest, Binlog: binlog.Config{Server: source.Endpoint()}}, &discard{}, zerolog.Nop())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1) // owner: the goroutine below; one value
	go func() { ended <- p.Run(ctx) }()
	err = until(ctx, "producer", func() (bool, error) { return p.Status().GTIDSet == upto, nil })
	cancel()
	return errors.Join(err, <-ended)
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
