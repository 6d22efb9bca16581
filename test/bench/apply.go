package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// apply times how fast a backlog reaches the target: native replication with its
// relay log already fetched, in turn with each number of workers, against our
// consumer and lanes with the log already filled. Both targets have full
// durability; they take turns, and the one that is not measured stands still.
func apply(ctx context.Context, s settings) (err error) {
	var results, missed []string
	for _, w := range workloads {
		if s.workload != "" && !strings.Contains(","+s.workload+",", ","+w.name+",") {
			continue
		}
		f, e := applyOne(ctx, s, w)
		if e != nil {
			err = fmt.Errorf("workload %s: %w", w.name, e)
			break
		}
		results = append(results, f.result(s.flavor, w))
		missed = append(missed, f.missed(s.flavor, w)...)
	}
	for _, r := range results {
		fmt.Println(r)
	}
	for _, m := range missed {
		fmt.Println("MISSED", m)
	}
	if err == nil && len(missed) > 0 && s.strict {
		err = fmt.Errorf("%w: %s", errTarget, strings.Join(missed, "; "))
	}
	return err
}

// sample is one timed application of a backlog.
type sample struct {
	rate     float64 // row changes a second
	server   float64 // CPU µs of the target's mysqld per row change
	twinspan float64 // CPU µs of our consumer per row change
	resident float64 // MiB, the most our consumer had
}

// middle is the median of each figure but the last, of which it is the most.
func middle(v []sample) (m sample) {
	of := func(f func(sample) float64) float64 {
		var out []float64
		for _, x := range v {
			out = append(out, f(x))
		}
		return median(out)
	}
	m.rate, m.server = of(func(x sample) float64 { return x.rate }), of(func(x sample) float64 { return x.server })
	m.twinspan = of(func(x sample) float64 { return x.twinspan })
	for _, x := range v {
		m.resident = max(m.resident, x.resident)
	}
	return m
}

// figures are the outcome of a workload.
type figures struct {
	workers     int // native's best number of them
	native, own sample
	// ratio of our rows/s to that of the spell of native's, with the best number
	// of workers, which it took turns with; the median of all rounds. The machine's
	// pace changes within minutes, so spells further apart say less.
	ratio float64
}

// share is our CPU as a part of the target's, or of what native's spends where
// the target is spared the work.
func (f figures) share(w workload) float64 {
	if w.merges {
		return f.own.twinspan / f.native.server
	}
	return f.own.twinspan / f.own.server
}

// What every workload has to keep: our CPU as a part of the target's mysqld's,
// and what our consumer has resident.
const (
	shareMost    = 1.0 / 3
	residentMiBs = 256
)

// measure is whose CPU ours is a part of.
func (w workload) measure() string {
	if w.merges {
		return "native"
	}
	return "mysqld"
}

func (w workload) least(flavor mysqltest.Flavor) float64 {
	if flavor.IsMariaDB() {
		return w.targetMariaDB
	}
	return w.target
}

func (f figures) result(flavor mysqltest.Flavor, w workload) string {
	return fmt.Sprintf("RESULT bench-apply workload=%s flavor=%s native_workers=%d native_rows_per_second=%.0f native_mysqld_us_per_row=%.2f"+
		" twinspan_rows_per_second=%.0f mysqld_us_per_row=%.2f twinspan_us_per_row=%.2f cpu_share=%.2f cpu_share_of=%s cpu_share_most=%.2f"+
		" ratio=%.2f target=%.1f resident_mib_max=%.0f resident_mib_most=%d",
		w.name, flavor, f.workers, f.native.rate, f.native.server, f.own.rate, f.own.server, f.own.twinspan, f.share(w), w.measure(), shareMost,
		f.ratio, w.least(flavor), f.own.resident, residentMiBs)
}

// missed are the targets that the figures are short of.
func (f figures) missed(flavor mysqltest.Flavor, w workload) (out []string) {
	if least := w.least(flavor); f.ratio < least {
		out = append(out, fmt.Sprintf("%s: %.2f times native's rows/s, and at least %.1f are wanted", w.name, f.ratio, least))
	}
	if f.share(w) > shareMost {
		out = append(out, fmt.Sprintf("%s: twinspan takes %.2f of %s's CPU, and at most %.2f is wanted", w.name, f.share(w), w.measure(), shareMost))
	}
	if f.own.resident > residentMiBs {
		out = append(out, fmt.Sprintf("%s: twinspan has %.0f MiB resident, and at most %d are wanted", w.name, f.own.resident, residentMiBs))
	}
	return out
}

func applyOne(ctx context.Context, s settings, w workload) (f figures, err error) {
	atomicity := "row"
	if w.name == transactionMode {
		atomicity = "transaction"
	}
	a, err := newArena(ctx, s, atomicity)
	if err != nil {
		return f, err
	}
	defer a.close()
	rows := max(1, int(float64(w.rows)*s.scale))
	if err := w.prepare(ctx, a.source.DB(), s.scale); err != nil {
		return f, err
	}
	want, err := a.source.GTIDs(ctx)
	if err != nil {
		return f, err
	}
	if err := errors.Join(a.native.WaitForGTIDs(ctx, want), a.pipeline.await(ctx, a.flavor, want)); err != nil {
		return f, err
	}
	rng := rand.New(rand.NewPCG(uint64(s.seed), 1))
	fmt.Printf("apply %s: %s; %d row changes a time, %s, full durability\n", w.name, w.title, rows, s.flavor)
	fmt.Printf("  %-22s %10s %14s %16s %12s\n", "", "rows/s", "mysqld µs/row", "twinspan µs/row", "twinspan MiB")
	native, ratios := map[int][]sample{}, map[int][]float64{}
	var own []sample
	rounds := w.rounds // more where parity is the aim and noise decides
	if s.rounds > 0 {
		rounds = s.rounds
	}
	for round := range rounds {
		for turn, workers := range nativeWorkers {
			n, o, err := a.round(ctx, w, rng, rows, workers, (round+turn)%2 == 0)
			if err != nil {
				return f, err
			}
			native[workers], own = append(native[workers], n), append(own, o)
			ratios[workers] = append(ratios[workers], o.rate/n.rate)
			fmt.Printf("  %-22s %10.0f %14.1f\n", fmt.Sprintf("native, %d workers", workers), n.rate, n.server)
			fmt.Printf("  %-22s %10.0f %14.1f %16.1f %12.0f\n", "twinspan", o.rate, o.server, o.twinspan, o.resident)
		}
	}
	f.own = middle(own)
	for _, n := range nativeWorkers {
		if m := middle(native[n]); m.rate > f.native.rate {
			f.native, f.workers, f.ratio = m, n, median(ratios[n])
		}
	}
	fmt.Printf("  %-22s %10.2f times native's best, with %d workers; twinspan takes %.2f of %s's CPU\n", "median", f.ratio, f.workers, f.share(w), w.measure())
	return f, nil
}
