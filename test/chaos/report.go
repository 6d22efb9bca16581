package main

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/twinspan/twinspan/test/chaos/check"
)

// report of one scenario.
type report struct {
	check.Report
	verdicts []check.Verdict
	extra    []string // breaches a scenario found itself
	took     time.Duration
	memory   int64 // bytes, of the largest node
	// A takeover gives up what only the lost city had confirmed, and that city's
	// nodes export it.
	forfeited, exported int
}

func (r *report) illegal() int {
	n := 0
	for _, v := range r.verdicts {
		if v.Result == porcupine.Illegal {
			n++
		}
	}
	return n
}

func (r *report) failed() bool { return r.Failed() || r.illegal() > 0 || len(r.extra) > 0 }

func (r *report) breaches() []string {
	out := append(r.extra, r.Breaches...)
	for _, v := range r.verdicts {
		if v.Result == porcupine.Illegal {
			out = append(out, fmt.Sprintf("stream %s: no order of its %d operations explains what everybody was told", v.Stream, v.Operations))
		}
	}
	return out
}

// line of a scenario.
func (r *report) line(name string) string {
	ops, undecided, took := 0, 0, time.Duration(0)
	for _, v := range r.verdicts {
		ops += v.Operations
		took += v.Took
		if v.Result == porcupine.Unknown {
			undecided++
		}
	}
	text := fmt.Sprintf("%-17s acknowledged=%d lost=%d duplicated=%d reordered=%d changed=%d foreign=%d lies=%d unreadable=%d unknown=%d survived=%d unprotected=%d "+
		"unavailable_ms=%d unavailable_total_ms=%d writers=%d reads=%d porcupine_ops=%d porcupine_ms=%d illegal=%d undecided=%d node_mb=%d seconds=%.1f",
		name, r.Acknowledged, r.Lost, r.Duplicated, r.Reordered, r.Changed, r.Foreign, r.Lies, r.Unreadable, r.Unknown, r.Survived, r.Unprotected,
		r.UnavailableMax.Milliseconds(), r.Unavailable.Milliseconds(), r.Fenced, r.Reads, ops, took.Milliseconds(), r.illegal(), undecided, r.memory>>20, r.took.Seconds())
	if r.forfeited+r.exported > 0 {
		text += fmt.Sprintf(" forfeited=%d exported=%d", r.forfeited, r.exported)
	}
	return text
}

// total of all scenarios.
type total struct {
	scenarios, failed                                int
	acknowledged, lost, duplicated, reordered, other int
	unknown, unprotected                             int
	unavailable                                      time.Duration
	errors                                           []error
}

func (t *total) add(r *report, err error) {
	t.scenarios++
	if r.failed() {
		t.failed++
	}
	if err != nil {
		t.errors = append(t.errors, err)
	}
	t.acknowledged += r.Acknowledged
	t.lost += r.Lost
	t.duplicated += r.Duplicated
	t.reordered += r.Reordered
	t.other += r.Changed + r.Foreign + r.Lies + r.Unreadable + r.illegal() + len(r.extra)
	t.unknown += r.Unknown
	t.unprotected += r.Unprotected
	t.unavailable = max(t.unavailable, r.UnavailableMax)
}

func (t *total) line(engine string, seed uint64) string {
	return fmt.Sprintf("RESULT chaos scenarios=%d acknowledged=%d lost=%d duplicated=%d reordered=%d unknown=%d unavailable_ms_max=%d engine=%s "+
		"other_breaches=%d unprotected=%d not_run=%d seed=%d",
		t.scenarios, t.acknowledged, t.lost, t.duplicated, t.reordered, t.unknown, t.unavailable.Milliseconds(), engine,
		t.other, t.unprotected, len(t.errors), seed)
}
