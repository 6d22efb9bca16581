package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/child"
	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// between is the round trip between the cities of the benches.
const between = 30 * time.Millisecond

// cityPlaces are a node in each of two cities and a witness in a third; city b is
// behind the network that delays.
func cityPlaces(s logSettings, way wan.Way) (*wan.Network, []place, error) {
	places := []place{
		{name: "a1", city: "a", listen: freeAddress(), bind: "127.0.1.1"},
		{name: "b1", city: "b", listen: freeAddress(), bind: "127.0.2.1"},
		{name: "w1", city: "c", listen: freeAddress(), bind: "127.0.3.1", witness: true},
	}
	cfg := wan.Config{Logger: zerolog.Nop(), QueueBytes: 64 << 20, Seed: uint64(s.seed)}
	for i, c := range []string{"a", "b", "c"} {
		cfg.Cities = append(cfg.Cities, wan.Place{Prefix: netip.MustParsePrefix(fmt.Sprintf("127.0.%d.0/24", i+1)), City: c})
		for _, d := range []string{"a", "b", "c"} {
			if c != d {
				cfg.Ways = append(cfg.Ways, wan.Between{From: c, To: d, Way: way})
			}
		}
		cfg.Gates = append(cfg.Gates, wan.Gate{Name: places[i].name, City: c, Listen: "127.0.0.1:0", Target: places[i].listen})
	}
	n, err := wan.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	for i, g := range n.Gates() {
		places[i].address = g.Listen
	}
	return n, places, nil
}

// twoCities appends from city a with the rule that b must have every entry.
func twoCities(ctx context.Context, s logSettings, r *results) error {
	network, places, err := cityPlaces(s, wan.Way{Delay: between / 2})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1) // owner: the goroutine below; one value
	go func() { ended <- network.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}()
	own, err := startOwn(ctx, s.binary, filepath.Join(s.dir, "cities"), places)
	if err != nil {
		return err
	}
	defer stopping(own)
	l, err := own.log("a", "127.0.1.9", quorum.NodeRule{Cities: map[string]int{"a": 1, "b": 1}})
	if err != nil {
		return err
	}
	c := &contestant{name: "far", pids: own.pids()}
	if err := c.open(ctx, l, "far"); err != nil {
		return err
	}
	s.window = 4096
	if err := warm(ctx, s, own, c); err != nil {
		return err
	}
	var over, rates, cpus []float64
	for range s.rounds {
		one, err := load(ctx, c.as, 1, s.spell, nil)
		if err != nil {
			return err
		}
		before, err := own.flushes(ctx)
		if err != nil {
			return err
		}
		busy := machineBusy()
		many, err := load(ctx, c.as, s.window, s.spell, own.pids())
		if err != nil {
			return err
		}
		many.machine = busy()
		after, err := own.flushes(ctx)
		if err != nil {
			return err
		}
		many.flushes = after.since(before)
		fmt.Printf("  round %d: %d in flight %.0f /s, %.1f µs CPU each with the network's own; p50 %s; one in flight p50 %s\n", len(rates)+1, s.window, many.rate(), many.cpuEach(), short(many.quantile(.5)), short(one.quantile(.5)))
		many.limits(s.window)
		if _, err := c.settle(ctx); err != nil {
			return err
		}
		r.want(one.quantile(0) >= between, fmt.Sprintf("an entry was confirmed in %s, before the far city can have had it", short(one.quantile(0))))
		over = append(over, (one.quantile(.5)-between).Seconds()*1000)
		rates, cpus = append(rates, many.rate()), append(cpus, many.cpuEach())
	}
	fmt.Printf("log: %s between the cities, the far one required: p50 at one in flight %.2f ms above the round trip; %d in flight %.0f /s, %.1f µs CPU each with the network's own\n",
		between, median(over), s.window, median(rates), median(cpus))
	r.add("far_p50_above_rtt_ms", "%.2f", median(over))
	r.add("far_per_second", "%.0f", median(rates))
	r.add("far_cpu_us_with_network", "%.1f", median(cpus))
	if s.profile != "" {
		s.profile = filepath.Join(s.profile, "cities")
		if err := profile(ctx, s, own, c); err != nil {
			return err
		}
	}
	r.want(median(over) <= 3, fmt.Sprintf("%.2f ms above the round trip, at most 3 are wanted", median(over)))
	r.want(median(rates) >= 80000, fmt.Sprintf("%.0f appends/s to a far city, at least 80000 are wanted", median(rates)))
	return nil
}

// childWriter is the first argument of the process that recovery kills.
const childWriter = "log-writer"

// childMain is the process that recovery kills: it appends to a stream for ever.
func childMain(stream string, nodes []string) error {
	ctx := context.Background()
	own := &ownSide{}
	for _, n := range nodes {
		own.places = append(own.places, place{address: n})
	}
	l, err := own.log("a", "", quorum.NodeRule{Total: 2})
	if err != nil {
		return err
	}
	a, err := open(ctx, l, stream)
	if err != nil {
		return err
	}
	fmt.Println("open")
	_, err = load(ctx, []appender{a}, 1024, time.Hour, nil)
	return err
}

// recovery kills a writer with entries in flight and takes the stream over.
func recovery(ctx context.Context, s logSettings, r *results) error {
	own, err := threeNodes(ctx, s, "recovery")
	if err != nil {
		return err
	}
	defer stopping(own)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l, err := own.log("a", "", quorum.NodeRule{Total: 2})
	if err != nil {
		return err
	}
	var took []float64
	before := log.Offset(0) // LAC behind which the last writer began
	for round := range max(s.rounds, 5) {
		args := []string{"-dir", own.dir, childWriter, "recovery"}
		for _, p := range own.places {
			args = append(args, p.address)
		}
		c := exec.Command(self, args...)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			return err
		}
		writer, err := child.Start(c, false)
		if err != nil {
			return err
		}
		if _, err := out.Read(make([]byte, 16)); err != nil { // it says when it is open
			return errors.Join(err, writer.Kill())
		}
		time.Sleep(time.Second)
		began := time.Now()
		if err := writer.Kill(); err != nil {
			return err
		}
		w, err := l.OpenWriter(ctx, "recovery")
		if err != nil {
			return err
		}
		found := w.Bounds().LAC
		o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payloads[0]})
		if err == nil {
			_, err = w.Wait(ctx, o)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds())
		fmt.Printf("  recovery %d: %.0f ms from the kill to the first new entry confirmed, behind %d of the one killed\n", round+1, took[round]*1000, found-before)
		r.want(found-before > 1024, fmt.Sprintf("the writer that was killed had %d entries confirmed: it was not at work", found-before))
		before = o
	}
	fmt.Printf("log: a stream is written again %.0f ms after its writer was killed (median), %.0f at most; a lease, where one is held, comes on top\n", median(took)*1000, slices.Max(took)*1000)
	r.add("recovery_ms", "%.0f", median(took)*1000)
	r.add("recovery_max_ms", "%.0f", slices.Max(took)*1000)
	r.want(slices.Max(took) < 2, fmt.Sprintf("recovery takes up to %.1f s, less than 2 are wanted", slices.Max(took)))
	return nil
}

// coldStreams are the streams among which the segments of the cold start are.
const coldStreams = 50

// coldStart fills a node with closed segments, kills it, and measures how long its
// process takes until it serves the first and the last of a stream. A writer that
// is opened closes the segment of the one before.
func coldStart(ctx context.Context, s logSettings, r *results) error {
	own, err := startOwn(ctx, s.binary, filepath.Join(s.dir, "cold"), []place{{name: "n1", city: "a", listen: freeAddress()}})
	if err != nil {
		return err
	}
	defer stopping(own)
	l, err := own.client(client.Config{City: "a", Policy: &meta.Policy{Rule: quorum.NodeRule{Total: 1}, Loss: meta.LossBlock}})
	if err != nil {
		return err
	}
	began := time.Now()
	each := s.segments/coldStreams + 1
	errs := make([]error, coldStreams)
	var all sync.WaitGroup
	for i := range coldStreams {
		all.Go(func() {
			for range each {
				if errs[i] = oneSegment(ctx, l, fmt.Sprintf("cold-%02d", i)); errs[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	segments := 0
	for i := range coldStreams {
		st, err := l.Metadata().Stream(ctx, fmt.Sprintf("cold-%02d", i))
		if err != nil {
			return err
		}
		segments += int(st.NextSegment) - 2 // numbers begin at 1, and the newest is open
	}
	fmt.Printf("  cold start: %d closed segments of %d streams made in %s\n", segments, coldStreams, short(time.Since(began)))
	r.want(segments >= s.segments, fmt.Sprintf("only %d closed segments were made, %d are wanted", segments, s.segments))
	var took []float64
	for range 3 {
		if err := own.processes[0].Kill(); err != nil {
			return err
		}
		if err := uncache(filepath.Join(own.dir, own.places[0].name)); err != nil {
			return err
		}
		began := time.Now()
		if err := own.start(0); err != nil {
			return err
		}
		if err := firstAndLast(ctx, own, log.Offset(each)); err != nil {
			return err
		}
		took = append(took, time.Since(began).Seconds())
	}
	fmt.Printf("log: a node with %d closed segments serves %.2f s after its process was started, its files out of the page cache\n", segments, median(took))
	r.add("cold_start_seconds", "%.2f", median(took))
	r.add("cold_segments", "%d", segments)
	r.want(median(took) < 5, fmt.Sprintf("a cold start takes %.1f s, less than 5 are wanted", median(took)))
	return nil
}

// uncache takes what lies below dir out of the page cache, as after a boot.
func uncache(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err = f.Sync(); err == nil { // only clean pages go
			err = dropPages(f)
		}
		return errors.Join(err, f.Close())
	})
}

// oneSegment appends one entry with a writer of its own.
func oneSegment(ctx context.Context, l log.Log, stream string) error {
	w, err := l.OpenWriter(ctx, stream)
	if err != nil {
		return err
	}
	o, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payloads[0]})
	if err == nil {
		_, err = w.Wait(ctx, o)
	}
	return errors.Join(err, w.Close())
}

// firstAndLast reads the first and the last entry, as soon as the node lets it.
func firstAndLast(ctx context.Context, own *ownSide, n log.Offset) error {
	return until(ctx, "cold start", func() (bool, error) {
		if !own.processes[0].Running() {
			return false, fmt.Errorf("the node ended: %w", own.processes[0].Err())
		}
		l, err := own.client(client.Config{City: "a", ReconnectFor: time.Second})
		if err != nil {
			return false, err
		}
		for _, from := range []log.Offset{0, n - 1} {
			rd, err := l.OpenReader(ctx, "cold-00", log.ReaderOptions{From: from})
			if err != nil {
				return false, nil //nolint:nilerr // not up yet
			}
			once, cancel := context.WithTimeout(ctx, time.Second)
			e, err := rd.Next(once)
			cancel()
			if closing := rd.Close(); err != nil || closing != nil || e.Offset != from {
				return false, closing
			}
		}
		return true, nil
	})
}
