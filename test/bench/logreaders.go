package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

const (
	// readersRate is what the paced writer appends a second: a busy set's, and
	// little enough for thousands of readers on one machine to be sent all of it.
	readersRate   = 200
	readersStream = "read-by-many"
)

// readers shows that many readers of one stream, at its tail, do not slow its
// writer. All processes share the machine's cores, the readers' own included, so
// the writer that may not be slowed is a paced one; what becomes of one that takes
// all it can get is printed beside it. Nodes encode a frame once, whoever gets it:
// their processor time for each entry delivered says so.
func readers(ctx context.Context, s logSettings, r *results) error {
	own, err := threeNodes(ctx, s, "readers")
	if err != nil {
		return err
	}
	defer stopping(own)
	l, err := own.log("a", "", quorum.NodeRule{Total: 2})
	if err != nil {
		return err
	}
	c := &contestant{name: "writer", pids: own.pids()}
	if err := c.open(ctx, l, readersStream); err != nil {
		return err
	}
	if _, err := load(ctx, c.as, 1024, s.spell/2, nil); err != nil {
		return err
	}
	levels := []int{0, 100, 2000}
	found := make([][]crowdFigures, len(levels))
	for range s.rounds {
		for i, n := range levels {
			f, err := crowded(ctx, s, own, c, n)
			if err != nil {
				return fmt.Errorf("%d readers: %w", n, err)
			}
			found[i] = append(found[i], f)
		}
		if _, err := c.settle(ctx); err != nil {
			return err
		}
	}
	var each []float64     // of a level, nodes' CPU µs for an entry delivered
	var kept, late float64 // with the most readers: of the paced rate, and of p50, ms more than alone
	for i, n := range levels {
		over := func(f func(x, alone crowdFigures) float64) float64 {
			var v []float64
			for round, x := range found[i] {
				v = append(v, f(x, found[0][round]))
			}
			return median(v)
		}
		ms := func(q float64) float64 {
			return over(func(x, _ crowdFigures) float64 { return x.paced.quantile(q).Seconds() * 1000 })
		}
		kept = over(func(x, _ crowdFigures) float64 { return x.paced.rate() / readersRate })
		late = over(func(x, alone crowdFigures) float64 {
			return (x.paced.quantile(.5) - alone.paced.quantile(.5)).Seconds() * 1000
		})
		share := over(func(x, _ crowdFigures) float64 { return x.delivered / float64(max(n*x.paced.entries, 1)) })
		cost := over(func(x, alone crowdFigures) float64 {
			return (x.nodes - alone.nodes*x.paced.took.Seconds()/alone.paced.took.Seconds()) * 1e6 / max(x.delivered, 1)
		})
		full := over(func(x, alone crowdFigures) float64 { return x.full.rate() / alone.full.rate() })
		line := fmt.Sprintf("  %4d readers: %.1f %% of %d appends/s, p50 %.1f ms p99 %.1f ms", n, 100*kept, readersRate, ms(.5), ms(.99))
		key := fmt.Sprintf("readers%d_", n)
		r.add(key+"p50_ms", "%.2f", ms(.5))
		r.add(key+"p99_ms", "%.2f", ms(.99))
		if n > 0 {
			line += fmt.Sprintf("; each got %.0f %% of it or more, %.2f µs of the nodes' CPU for an entry delivered; a writer that takes all it can: %.2f of its rate alone", 100*share, cost, full)
			r.add(key+"cpu_us_per_delivery", "%.2f", cost)
			r.add(key+"saturated_ratio", "%.2f", full)
			each = append(each, cost)
			r.want(share >= 0.8, fmt.Sprintf("%d readers got %.0f %% of what was appended, at least 80 are wanted", n, 100*share))
		}
		fmt.Println(line)
	}
	most := levels[len(levels)-1]
	r.add("readers_rate_kept", "%.3f", kept)
	r.want(kept >= 0.95, fmt.Sprintf("%d readers slow a paced writer to %.1f %% of its rate", most, 100*kept))
	r.want(late <= 25, fmt.Sprintf("with %d readers half of the entries wait %.0f ms longer, at most 25 are wanted", most, late))
	r.want(each[len(each)-1] <= 10, fmt.Sprintf("%.1f µs CPU for each entry delivered to %d readers, at most 10 are wanted", each[len(each)-1], most))
	return nil
}

// crowdFigures are what one number of readers came to.
type crowdFigures struct {
	paced, full measured
	nodes       float64 // seconds of the nodes' CPU during the paced spell
	delivered   float64 // entries, during the paced spell and the moment after it
}

// crowded attaches readers and appends, first at a steady rate, then with all there is.
func crowded(ctx context.Context, s logSettings, own *ownSide, c *contestant, n int) (f crowdFigures, err error) {
	if n > 0 {
		crowd, err := startCrowd(ctx, own, n)
		if err != nil {
			return f, err
		}
		defer func() { err = errors.Join(err, crowd.Kill()) }()
	}
	pushed := func() (float64, error) { return own.total(ctx, "twinspan_log_pushed_bytes_total") }
	before, err := pushed()
	if err != nil {
		return f, err
	}
	cpu := 0.0
	for _, p := range own.pids() {
		cpu -= cpuSeconds(p)
	}
	if f.paced, err = pace(ctx, c.as[0], readersRate, s.spell); err != nil {
		return f, err
	}
	// What is on its way to the last of them arrives.
	after, err := pushed()
	for last := before; err == nil && after > last; {
		time.Sleep(200 * time.Millisecond)
		last = after
		after, err = pushed()
	}
	if err != nil {
		return f, err
	}
	for _, p := range own.pids() {
		cpu += cpuSeconds(p)
	}
	f.nodes = cpu
	f.delivered = (after - before) / float64(wire.DataSize(1, entryBytes)) // at least: larger frames spend less on their heads
	f.full, err = load(ctx, c.as, 1024, s.spell/2, nil)
	return f, err
}

// pace appends at a steady rate, whatever becomes of what was appended before.
func pace(ctx context.Context, a appender, perSecond int, spell time.Duration) (measured, error) {
	// Owner: this goroutine, which closes it; the waiter takes. A writer that is
	// slowed by more than its bound is not paced any more.
	flying := make(chan ticket, perSecond)
	var m measured
	var waiter sync.WaitGroup
	var waited error
	waiter.Go(func() {
		for t := range flying {
			if waited != nil {
				continue
			}
			if waited = a.wait(ctx, t); waited == nil {
				m.latencies = append(m.latencies, time.Since(t.began))
			}
		}
	})
	began := time.Now()
	var err error
	for i := 0; err == nil; i++ {
		at := began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
		if at.Sub(began) >= spell {
			break
		}
		time.Sleep(time.Until(at))
		var t ticket
		if t, err = a.append(ctx, payloads[i%len(payloads)]); err == nil {
			t.began = at // a late one has waited already
			flying <- t
		}
	}
	took := time.Since(began)
	close(flying)
	waiter.Wait()
	m.entries, m.took = len(m.latencies), took
	sortLatencies(&m)
	return m, errors.Join(err, waited)
}

// childReaders is the first argument of the process that reads with many.
const childReaders = "log-readers"

// startCrowd starts it and waits until the nodes have all of its readers.
func startCrowd(ctx context.Context, own *ownSide, n int) (*child.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-dir", own.dir, childReaders, strconv.Itoa(n)}
	for _, p := range own.places {
		args = append(args, p.address)
	}
	c := exec.Command(self, args...)
	c.Stderr = os.Stderr
	crowd, err := child.Start(c, false)
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = until(wait, "readers", func() (bool, error) {
		if !crowd.Running() {
			return false, fmt.Errorf("the readers' process ended: %w", crowd.Err())
		}
		open, err := own.total(ctx, "twinspan_log_readers")
		return int(open) == n, err
	})
	if err != nil {
		return nil, errors.Join(err, crowd.Kill())
	}
	return crowd, nil
}

// total is the sum of a metric over the nodes.
func (s *ownSide) total(ctx context.Context, name string) (sum float64, err error) {
	for i := range s.places {
		v, err := s.metric(ctx, i, name)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// crowdMain reads the stream's tail with so many readers, spread over the nodes,
// and looks at nothing: it is the nodes, and the writer, that are measured.
func crowdMain(count string, nodes []string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ctx := context.Background()
	own := &ownSide{}
	for _, a := range nodes {
		own.places = append(own.places, place{address: a})
	}
	l, err := own.log("a", "", quorum.NodeRule{Total: 2})
	if err != nil {
		return err
	}
	tail, err := l.OpenReader(ctx, readersStream, log.ReaderOptions{})
	if err != nil {
		return err
	}
	from := tail.Bounds().LAC + 1
	if err := tail.Close(); err != nil {
		return err
	}
	hello := wire.Encode(nil, &wire.Hello{VersionMin: wire.VersionMin, VersionMax: wire.VersionMax, Purpose: wire.PurposeClient, City: "a", Client: "crowd"})
	hello = wire.Encode(hello, &wire.Read{Stream: readersStream, From: from, Credit: 1 << 29})
	ping := wire.Encode(nil, &wire.Ping{})
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		conn, err := net.Dial("tcp", nodes[i%len(nodes)])
		if err != nil {
			return err
		}
		if _, err := conn.Write(hello); err != nil {
			return err
		}
		all.Go(func() {
			_, errs[i] = io.Copy(io.Discard, onlyReader{conn})
		})
		all.Go(func() {
			for range time.Tick(4 * time.Second) { // a silent peer is dropped
				if _, err := conn.Write(ping); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// onlyReader keeps io.Copy from moving the bytes within the kernel.
type onlyReader struct{ io.Reader }
