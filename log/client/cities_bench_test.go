package client_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/node/nodetest"
)

// BenchmarkCities writes to two nodes in each of two cities, one of each required,
// with real disks and a delayed line, all in this process, and reads each entry in
// the other city.
func BenchmarkCities(b *testing.B) {
	for _, rtt := range []time.Duration{0, 30 * time.Millisecond} {
		for _, window := range []int{1, 1024, 4096} {
			b.Run(fmt.Sprintf("rtt=%v/window=%d", rtt, window), func(b *testing.B) {
				k := nodetest.New(b, nodetest.Options{
					Nodes: []string{"a1", "a2", "b1", "b2"}, OnDisk: true, Delay: rtt / 2,
					Node: func(c *node.Config) { c.FileBytes = 64 << 20 },
				})
				ctx := context.Background()
				w, err := k.Client("a", nil).OpenWriter(ctx, "s")
				if err != nil {
					b.Fatal(err)
				}
				r, err := k.Client("b", nil).OpenReader(ctx, "s", log.ReaderOptions{})
				if err != nil {
					b.Fatal(err)
				}
				p := bytes.Repeat([]byte("x"), 1024)
				at := make([]time.Time, b.N)
				acked := make([]time.Duration, b.N)
				read := make(chan []time.Duration, 1) // the reader's times; sent once
				go func() {
					var out []time.Duration
					for i := range b.N {
						e, err := r.Next(ctx)
						if err != nil || e.Offset != log.Offset(i) {
							b.Errorf("entry %d, want %d: %v", e.Offset, i, err)
							break
						}
						out = append(out, time.Since(at[i]))
					}
					read <- out
				}()
				b.ResetTimer()
				before := usage()
				for i := range b.N {
					if i >= window {
						if _, err := w.Wait(ctx, log.Offset(i-window)); err != nil {
							b.Fatal(err)
						}
						acked[i-window] = time.Since(at[i-window])
					}
					at[i] = time.Now()
					if _, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: p}); err != nil {
						b.Fatal(err)
					}
				}
				for i := max(0, b.N-window); i < b.N; i++ {
					if _, err := w.Wait(ctx, log.Offset(i)); err != nil {
						b.Fatal(err)
					}
					acked[i] = time.Since(at[i])
				}
				b.StopTimer()
				b.ReportMetric(float64((usage()-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/entry")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
				there := <-read
				slices.Sort(acked)
				slices.Sort(there)
				b.ReportMetric(float64(acked[b.N/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(there[b.N/2].Microseconds()), "read-p50-µs")
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
