package segment_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/segment"
)

// rows looks like a batch of row changes of one table: keys that ascend, times that
// do, names out of a small set, amounts, and noise.
func rows(r *rand.Rand, n int, key *uint64) []byte {
	var b []byte
	for range n {
		*key += 1 + r.Uint64N(3)
		b = binary.LittleEndian.AppendUint32(b, 0x1e000017)
		b = binary.LittleEndian.AppendUint64(b, *key)
		b = binary.LittleEndian.AppendUint64(b, 1.7e15+*key*1000+r.Uint64N(1000))
		b = append(b, fmt.Sprintf("customer-%05d@example.com", r.IntN(20000))...)
		b = append(b, [...]string{"NEW", "PAID", "SHIPPED", "RETURNED"}[r.IntN(4)]...)
		b = binary.LittleEndian.AppendUint32(b, r.Uint32N(100000))
		for range 6 {
			b = append(b, byte(r.Uint32()))
		}
	}
	return b
}

// closed makes a source of closed segments with that many entries of about a
// kilobyte.
func rowSource(entries int) segment.Fetch {
	return func(_ context.Context, from, to log.Offset) ([]segment.Stored, log.Offset, error) {
		to = min(to, from+log.Offset(entries))
		out := make([]segment.Stored, 0, to-from)
		for o := from; o < to; o++ {
			r := rand.New(rand.NewPCG(1, uint64(o)))
			key := uint64(o) * 32
			b := rows(r, 16, &key)
			out = append(out, segment.Stored{Checksum: segment.Checksum(b), Entry: log.Entry{
				Offset: o, Topic: log.TopicData, Epoch: 1, AppendedAt: time.UnixMicro(1e15 + int64(o)), EndsTransaction: true, Payload: b,
			}})
		}
		return out, to, nil
	}
}

func shelve(s *segment.Store, stream string, number uint32, entries int) error {
	first := log.Offset(number-1) * log.Offset(entries)
	last := first + log.Offset(entries) - 1
	d := describe(stream, number, first, first-1, 1, 3)
	_, err := s.Repair(context.Background(), segment.Copied{Descriptor: d, Last: last, LSO: last}, rowSource(entries))
	return err
}

// BenchmarkColdStart opens a store with 10,000 closed segments, and asks for all
// of them.
func BenchmarkColdStart(b *testing.B) {
	c := segment.Config{Dir: b.TempDir(), Name: "a1", Logger: zerolog.Nop()}
	o := open(b, c)
	const streams, segments = 64, 10000
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for w := range 16 {
		all.Go(func() {
			for i := w; i < segments; i += 16 {
				if err := shelve(o.Store, fmt.Sprintf("set%02d", i%streams), uint32(i/streams+1), 10); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(failed, o.stop()); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var listed time.Duration
	for range b.N {
		s, err := segment.Open(c)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		if n := len(s.Replicas()); n != segments {
			b.Fatalf("%d replicas", n)
		}
		listed += time.Since(start)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "open-ms")
	b.ReportMetric(float64(listed.Milliseconds())/float64(b.N), "list-ms")
}

// BenchmarkArchive writes segments of 64 MiB of row changes into their own files.
func BenchmarkArchive(b *testing.B) {
	o := open(b, segment.Config{Dir: b.TempDir(), Name: "a1", Logger: zerolog.Nop()})
	const entries = 1 << 16
	for i := range b.N {
		if err := shelve(o.Store, "s", uint32(i+1), entries); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(o.Stats().OwnRatio, "ratio")
	b.SetBytes(o.Replicas()[0].Bytes)
}

// BenchmarkReadOwn reads a segment's own file as a reader of everything does.
func BenchmarkReadOwn(b *testing.B) {
	o := open(b, segment.Config{Dir: b.TempDir(), Name: "a1", Logger: zerolog.Nop()})
	const entries = 1 << 14
	if err := shelve(o.Store, "s", 1, entries); err != nil {
		b.Fatal(err)
	}
	r := o.replica("s", 1)
	b.SetBytes(r.Info().Bytes)
	b.ReportAllocs()
	var batch []segment.Stored
	var buf []byte
	b.ResetTimer()
	for range b.N {
		n := 0
		var err error
		for next := log.Offset(0); next < entries; n += len(batch) {
			if batch, buf, next, err = r.Read(segment.Query{From: next}, batch, buf); err != nil {
				b.Fatal(err)
			}
		}
		if n != entries {
			b.Fatalf("%d entries", n)
		}
	}
}

// BenchmarkAttach4096 makes 4,096 replicas at once: they share the writes of the
// meta.
func BenchmarkAttach4096(b *testing.B) {
	for range b.N {
		o := open(b, segment.Config{Dir: b.TempDir(), Name: "a1", Logger: zerolog.Nop()})
		var all sync.WaitGroup
		for w := range 64 {
			all.Go(func() {
				for i := range 64 {
					o.attach(describe(fmt.Sprintf("set%02d", w), uint32(i+1), log.Offset(i), log.None, 1, 3), 1)
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(o.Stats().MetaWrites), "meta-writes")
		if err := o.stop(); err != nil {
			b.Fatal(err)
		}
	}
}
