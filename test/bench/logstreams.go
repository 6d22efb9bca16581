package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/twinspan/twinspan/log/quorum"
)

// manyStreams compares 64 streams with one, the window being the same in all. A
// round is four spells, one, many, many, one or the other way round, and its ratio
// is that of their sums: what the machine does beside it, slowly more or slowly
// less, falls on both alike.
func manyStreams(ctx context.Context, s logSettings, r *results) error {
	const streams, window = 64, 4096
	own, err := threeNodes(ctx, s, "streams")
	if err != nil {
		return err
	}
	defer stopping(own)
	l, err := own.log("a", "", quorum.NodeRule{Total: 2})
	if err != nil {
		return err
	}
	one := &contestant{name: "one stream", key: "one_stream", pids: own.pids(), flushes: own.flushes}
	many := &contestant{name: fmt.Sprintf("%d streams", streams), key: "streams64", pids: own.pids(), flushes: own.flushes}
	var names []string
	for i := range streams {
		names = append(names, fmt.Sprintf("many-%02d", i))
	}
	if err := errors.Join(one.open(ctx, l, "one"), many.open(ctx, l, names...)); err != nil {
		return err
	}
	s.window = window
	if err := warm(ctx, s, own, one); err != nil {
		return err
	}
	if _, err := load(ctx, many.as, window, s.spell/4, own.pids()); err != nil {
		return err
	}
	var rates, cpus []float64
	one.rounds, many.rounds = map[int][]measured{}, map[int][]measured{}
	for round := range s.rounds {
		sums := map[*contestant]measured{}
		for i := range 4 {
			c := []*contestant{one, many}[(round+(i+1)/2)%2]
			m, err := c.watched(ctx, window, s.spell/2)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			sums[c] = sums[c].and(m)
		}
		for _, c := range []*contestant{one, many} {
			m := sums[c]
			c.rounds[window] = append(c.rounds[window], m)
			fmt.Printf("  round %d: %-10s %8.0f /s %6.2f µs CPU each, of it %.2f the writer's   p50 %8s p99 %8s   a flush of %.0f entries took %.1f ms; others had %.1f cores\n",
				round+1, c.name, m.rate(), m.cpuEach(), m.own*1e6/float64(m.entries), short(m.quantile(.5)), short(m.quantile(.99)),
				m.perFlush(), 1000*m.flushes.seconds/m.flushes.count, max(m.machine-m.cpu/m.took.Seconds(), 0))
		}
		rates = append(rates, sums[many].rate()/sums[one].rate())
		cpus = append(cpus, sums[many].cpuEach()/sums[one].cpuEach())
		if err := many.renew(ctx); err != nil {
			return err
		}
		if _, err := one.settle(ctx); err != nil { // both have left the journal then
			return err
		}
	}
	if s.profile != "" {
		for _, c := range []*contestant{one, many} {
			p := s
			p.profile = filepath.Join(s.profile, c.key)
			if err := profile(ctx, p, own, c); err != nil {
				return err
			}
		}
	}
	fmt.Printf("log: %d in flight: one stream %.0f /s, %d streams %.0f /s together, ratio %.2f; CPU of an entry %.2f and %.2f µs, ratio %.2f; %.0f and %.0f entries a flush (medians)\n",
		window, one.over(window, measured.rate), streams, many.over(window, measured.rate), median(rates),
		one.over(window, measured.cpuEach), many.over(window, measured.cpuEach), median(cpus),
		one.over(window, measured.perFlush), many.over(window, measured.perFlush))
	for _, c := range []*contestant{one, many} {
		r.add(c.key+"_per_second", "%.0f", c.over(window, measured.rate))
		r.add(c.key+"_cpu_us", "%.2f", c.over(window, measured.cpuEach))
		r.add(c.key+"_entries_per_flush", "%.0f", c.over(window, measured.perFlush))
	}
	r.add("streams64_ratio", "%.2f", median(rates))
	r.add("streams64_cpu_ratio", "%.2f", median(cpus))
	r.want(median(rates) >= 0.8, fmt.Sprintf("64 streams reach %.2f of one, at least 0.8 is wanted", median(rates)))
	return nil
}
