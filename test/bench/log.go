package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// logSettings are the sizes of bench-log.
type logSettings struct {
	settings
	// windows are the entries in flight of the comparison. The target counts at the
	// largest; so do the spells of other parts.
	windows []int
	window  int
	spell   time.Duration
	only    string
	// segments is how many closed segments the node of the cold start has.
	segments int
	dir      string
	// profile is a folder for CPU profiles of one spell of load on our side;
	// empty: none.
	profile string
}

// results are the figures of the last line, in the order they were found.
type results struct {
	pairs []string
	bad   []string
}

func (r *results) add(key, format string, value any) {
	r.pairs = append(r.pairs, key+"="+fmt.Sprintf(format, value))
}

// want notes a figure that misses its target.
func (r *results) want(ok bool, what string) {
	if !ok {
		r.bad = append(r.bad, what)
	}
}

// errTarget: a figure is not what it has to be.
var errTarget = errors.New("a target was missed")

// benchLog measures the replicated log against JetStream, and by itself.
func benchLog(ctx context.Context, s logSettings) (err error) {
	if s.dir, err = os.MkdirTemp(s.journal, "twinspan-bench-log-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	r := &results{}
	for _, part := range []struct {
		name string
		run  func(context.Context, logSettings, *results) error
	}{
		{"compare", compare},
		{"streams", manyStreams},
		{"cities", twoCities},
		{"readers", readers},
		{"recovery", recovery},
		{"cold", coldStart},
		{"memory", memory},
		{"codec", codecs},
	} {
		if s.only != "" && !slices.Contains(strings.Split(s.only, ","), part.name) {
			continue
		}
		if err := runPart(ctx, s, part.name, part.run, r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Printf("RESULT bench-log %s\n", strings.Join(r.pairs, " "))
	if len(r.bad) > 0 {
		return fmt.Errorf("%w: %s", errTarget, strings.Join(r.bad, "; "))
	}
	return nil
}

// runPart runs one in a folder of its own, which goes with it: the journals of all
// of them together would fill a disk.
func runPart(ctx context.Context, s logSettings, name string, run func(context.Context, logSettings, *results) error, r *results) (err error) {
	s.dir = filepath.Join(s.dir, name)
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	return run(ctx, s, r)
}

// threeNodes is a cluster of one city.
func threeNodes(ctx context.Context, s logSettings, name string) (*ownSide, error) {
	var places []place
	for i := range 3 {
		places = append(places, place{name: fmt.Sprintf("n%d", i+1), city: "a", listen: freeAddress()})
	}
	return startOwn(ctx, s.binary, filepath.Join(s.dir, name), places)
}

// contestant is one way to append, with what belongs to it.
type contestant struct {
	name    string
	key     string
	as      []appender
	reopen  func(context.Context) ([]appender, error) // after their segments were ended; nil: there are none
	pids    []int
	flushes func(context.Context) (flushes, error)
	rounds  map[int][]measured // by what was in flight
	settled []float64          // CPU µs an entry, afterwards
	durable int                // replicas that must have an entry on disk before it is confirmed
}

// open makes it a writer of each of the streams.
func (c *contestant) open(ctx context.Context, l log.Log, streams ...string) (err error) {
	c.reopen = func(ctx context.Context) (as []appender, err error) {
		for _, name := range streams {
			a, err := open(ctx, l, name)
			if err != nil {
				return nil, err
			}
			as = append(as, a)
		}
		return as, nil
	}
	c.as, err = c.reopen(ctx)
	return err
}

// compare runs both sides in turns on the same machine: three durable replicas
// each, the same entries, the same window.
func compare(ctx context.Context, s logSettings, r *results) error {
	theirs, err := startNATS(ctx, s.dir)
	if err != nil {
		return err
	}
	defer func() { _ = theirs.Close() }() // their folder goes too
	own, err := threeNodes(ctx, s, "compare")
	if err != nil {
		return err
	}
	defer func() { stopping(own) }()
	field := []*contestant{
		{name: "JetStream R3, sync always", key: "jetstream", durable: 2},
		{name: "twinspan, 2 of 3", key: "two_of_three", durable: 2},
		{name: "twinspan, all 3", key: "all_three", durable: 3},
	}
	publisher, err := theirs.open(ctx, "bench", s.window)
	if err != nil {
		return err
	}
	field[0].as, field[0].pids = []appender{publisher}, theirs.pids()
	for _, c := range field[1:] {
		l, err := own.log("a", "", quorum.NodeRule{Total: c.durable})
		if err != nil {
			return err
		}
		if err := c.open(ctx, l, fmt.Sprintf("bench-%d", c.durable)); err != nil {
			return err
		}
		c.pids, c.flushes = own.pids(), own.flushes
	}
	fmt.Printf("log: entries of %d bytes, three durable replicas on one disk, %v in flight, %d rounds of %s each in turns\n", entryBytes, s.windows, s.rounds, s.spell)
	for _, c := range []*contestant{field[0], field[1]} {
		if err := warm(ctx, s, own, c); err != nil {
			return err
		}
	}
	for round := range s.rounds {
		for i := range field {
			c := field[(i+round)%len(field)]
			if err := c.turn(ctx, s, round); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	report(s, field, r)
	if s.profile != "" {
		if err := profile(ctx, s, own, field[1]); err != nil {
			return err
		}
	}
	return countFlushes(ctx, s, field, r)
}

// turn measures it once with each window, then with one entry in flight.
func (c *contestant) turn(ctx context.Context, s logSettings, round int) error {
	if c.rounds == nil {
		c.rounds = map[int][]measured{}
	}
	entries := 0
	for _, window := range append(slices.Clone(s.windows), 1) {
		spell := s.spell
		if window == 1 {
			spell /= 4
		}
		m, err := c.watched(ctx, window, spell)
		if err != nil {
			return err
		}
		c.rounds[window] = append(c.rounds[window], m)
		entries += m.entries
		fmt.Printf("  round %d: %-26s %4d in flight %8.0f /s %6.1f µs CPU each   p50 %8s p99 %8s p99.9 %8s\n", round+1, c.name, window,
			m.rate(), m.cpuEach(), short(m.quantile(.5)), short(m.quantile(.99)), short(m.quantile(.999)))
		m.limits(window)
	}
	later, err := c.settle(ctx)
	c.settled = append(c.settled, later*1e6/float64(entries))
	return err
}

// watched is load, with the flushes and what else the machine did.
func (c *contestant) watched(ctx context.Context, window int, spell time.Duration) (m measured, err error) {
	var before, after flushes
	if c.flushes != nil {
		if before, err = c.flushes(ctx); err != nil {
			return m, err
		}
	}
	busy := machineBusy()
	if m, err = load(ctx, c.as, window, spell, c.pids); err != nil {
		return m, err
	}
	m.machine = busy()
	if c.flushes != nil {
		after, err = c.flushes(ctx)
		m.flushes = after.since(before)
	}
	return m, err
}

// warm lets files get their space, caches and heaps their size, and journals the
// files that they use again and again.
func warm(ctx context.Context, s logSettings, own *ownSide, c *contestant) error {
	for {
		if _, err := load(ctx, c.as, s.window, s.spell, c.pids); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if _, err := c.settle(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if c.reopen == nil {
			return nil
		}
		if v, err := own.metric(ctx, 0, "twinspan_log_append_bytes_total"); err != nil || v > 1.5*(1<<30) {
			return err
		}
	}
}

// renew ends the segments, if there are any, and opens the next ones.
func (c *contestant) renew(ctx context.Context) (err error) {
	if c.reopen == nil {
		return nil
	}
	for _, a := range c.as {
		if err := a.close(); err != nil {
			return err
		}
	}
	c.as, err = c.reopen(ctx)
	return err
}

// settle ends the segment, if there are any, and waits until the processes of the
// contestant have nothing left to do. It returns what they spent on that, in
// seconds: moving closed segments to their own, compressed files.
func (c *contestant) settle(ctx context.Context) (cpu float64, err error) {
	before := cpuOf(c.pids)
	if err := c.renew(ctx); err != nil {
		return 0, err
	}
	const look = 500 * time.Millisecond
	least := time.Duration(0)
	if c.reopen != nil {
		least = 11 * time.Second // a node looks for what may leave its journal every ten
	}
	idle := 0
	for began, last := time.Now(), before; (idle < 2 || time.Since(began) < least) && time.Since(began) < time.Minute; {
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		now := cpuOf(c.pids)
		if now-last < 0.05 {
			idle++
		} else {
			idle = 0
		}
		last = now
	}
	return cpuOf(c.pids) - before, nil
}

// report prints medians over the rounds, and ratios of what stood side by side.
func report(s logSettings, field []*contestant, r *results) {
	base := field[0]
	for _, window := range s.windows {
		for _, c := range field {
			over := func(f func(measured) float64) float64 { return c.over(window, f) }
			key := fmt.Sprintf("%s_w%d_", c.key, window)
			r.add(key+"per_second", "%.0f", over(measured.rate))
			r.add(key+"cpu_us", "%.1f", over(measured.cpuEach))
			for _, q := range []struct {
				key string
				q   float64
			}{{"p50", .5}, {"p99", .99}, {"p999", .999}} {
				r.add(key+q.key+"_ms", "%.2f", over(func(m measured) float64 { return m.quantile(q.q).Seconds() * 1000 }))
			}
		}
		for _, c := range field[1:] {
			var rate, cpu []float64
			for i, m := range c.rounds[window] {
				rate = append(rate, m.rate()/base.rounds[window][i].rate())
				cpu = append(cpu, base.rounds[window][i].cpuEach()/m.cpuEach())
			}
			fmt.Printf("  %-26s %4d in flight: %.1f times the appends/s of JetStream, 1/%.1f of its CPU per entry (medians of the rounds' ratios)\n", c.name, window, median(rate), median(cpu))
			r.add(fmt.Sprintf("%s_w%d_ratio", c.key, window), "%.2f", median(rate))
			r.add(fmt.Sprintf("%s_w%d_cpu_ratio", c.key, window), "%.2f", median(cpu))
			if c.key == "two_of_three" && window == s.window {
				each := c.over(window, measured.cpuEach)
				r.want(median(rate) >= 8, fmt.Sprintf("%.1f times JetStream's appends/s, at least 8 are wanted", median(rate)))
				r.want(each <= 10, fmt.Sprintf("%.1f µs CPU per entry, at most 10 are wanted", each))
			}
		}
	}
	for _, c := range field {
		r.add(c.key+"_cpu_later_us", "%.1f", median(c.settled))
		r.add(c.key+"_one_in_flight_p50_ms", "%.2f", c.over(1, func(m measured) float64 { return m.quantile(.5).Seconds() * 1000 }))
	}
}

// over is the median of a figure over the rounds with that window.
func (c *contestant) over(window int, f func(measured) float64) float64 {
	var v []float64
	for _, m := range c.rounds[window] {
		v = append(v, f(m))
	}
	return median(v)
}

func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func stopping(o *ownSide) {
	if err := o.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}
