// Command bench prints, for each thing a user would otherwise pick, the ratio of
// twinspan to it, from one run in which both take turns on the same machine.
//
//	go run ./test/bench            all of it
//	go run ./test/bench apply      one part: decode, append, apply or log
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// settings are the sizes of a run; the defaults take about three minutes on two
// cores.
type settings struct {
	binary  string
	rounds  int
	rows    int
	seed    int64
	journal string
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "twinspan", "bin/twinspan", "the built `binary`")
	flag.IntVar(&s.rounds, "rounds", 3, "interleaved rounds")
	flag.IntVar(&s.rows, "rows", 20000, "row changes per round of the apply part; the decode part takes five times as many")
	flag.Int64Var(&s.seed, "seed", 1, "of the generated rows")
	flag.StringVar(&s.journal, "dir", "", "folder for the journals of the append and log parts (default: a temporary one)")
	l := logSettings{}
	flag.IntVar(&l.window, "window", 1024, "entries in flight in the log part's comparison")
	flag.DurationVar(&l.spell, "spell", 5*time.Second, "how long each measurement of the log part takes")
	flag.IntVar(&l.segments, "segments", 10000, "closed segments of the log part's cold start")
	flag.StringVar(&l.only, "only", "", "of the log part: compare, streams, cities, recovery, cold, separated by commas (default: all)")
	flag.StringVar(&l.profile, "profile", "", "`folder` for CPU profiles of our side of the log part's comparison")
	flag.Parse()
	l.settings = s
	parts := flag.Args()
	if len(parts) == 0 {
		parts = []string{"decode", "append", "apply"}
	}
	all := map[string]func(context.Context, settings) error{
		"decode": decode, "append": appendEntries, "apply": apply,
		"log": func(ctx context.Context, _ settings) error { return benchLog(ctx, l) },
	}
	if len(parts) > 1 && parts[0] == childWriter {
		if err := childMain(s, parts[1], parts[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, p := range parts {
		f, ok := all[p]
		if !ok {
			fmt.Fprintf(os.Stderr, "bench: no part %q: decode, append, apply or log\n", p)
			os.Exit(2)
		}
		if err := f(ctx, s); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", p, err)
			stop()
			if errors.Is(err, errTarget) {
				os.Exit(3)
			}
			os.Exit(1)
		}
	}
}

// median of a round's figures.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
