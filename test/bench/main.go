// Command bench prints, for each thing a user would otherwise pick, the ratio of
// twinspan to it, from one run in which both take turns on the same machine.
//
//	go run ./test/bench            all of it
//	go run ./test/bench apply      one part: decode, append, apply, log or lag
//	go run ./test/bench -workload b,c -flavor mariadb1011 -scale 0.2 apply
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

// settings are the sizes of a run; the defaults take about four minutes on two
// cores.
type settings struct {
	binary  string
	rounds  int
	rows    int
	seed    int64
	journal string

	flavor   mysqltest.Flavor
	workload string
	scale    float64
	strict   bool
	profile  string
	only     string
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "twinspan", "bin/twinspan", "the built `binary`")
	flag.IntVar(&s.rounds, "rounds", 3, "interleaved rounds; 0: one, or three of the apply part's workloads whose aim is parity")
	flag.IntVar(&s.rows, "rows", 300000, "row changes of the decode part's first shape; the others have fewer")
	flavor := flag.String("flavor", string(mysqltest.MySQL97), "of the apply part's servers: mysql97, mariadb1011 or mariadb118")
	flag.StringVar(&s.workload, "workload", "a", "of the apply part, a comma list of a to f; empty: all of them")
	flag.Float64Var(&s.scale, "scale", 0.2, "of the apply part's tables and backlogs; 1 is the full size")
	flag.BoolVar(&s.strict, "strict", false, "exit 3 when a workload of the apply part misses a target")
	flag.Int64Var(&s.seed, "seed", 1, "of the generated rows")
	flag.StringVar(&s.journal, "dir", "", "folder for the journals of the append and log parts (default: a temporary one)")
	l := logSettings{}
	windows := flag.String("windows", "1024,4096", "entries in flight in the log part's comparison, a comma list; the target counts at the largest")
	flag.DurationVar(&l.spell, "spell", 5*time.Second, "how long each measurement of the log and lag parts takes")
	flag.IntVar(&l.segments, "segments", 10000, "closed segments of the log part's cold start")
	flag.StringVar(&l.only, "only", "", "of the log part: compare, streams, cities, readers, recovery, cold, memory, codec, separated by commas (default: all); of the decode part: how a shape's name begins")
	flag.StringVar(&l.profile, "profile", "", "`folder` for CPU profiles of our side, in the log part's comparison, the decode part and the apply part")
	g := lagSettings{}
	flag.IntVar(&g.rate, "rate", 1000, "transactions a second of the lag part")
	flag.StringVar(&g.delays, "delays", "0s,30ms", "round trips between the cities of the lag part, a comma list")
	flag.StringVar(&g.atomicity, "atomicity", "row", "of the lag part: row or transaction")
	flag.Parse()
	var err error
	if s.flavor, err = mysqltest.ParseFlavor(*flavor); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	if l.windows, err = parseWindows(*windows); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	l.window = slices.Max(l.windows)
	s.profile, s.only = l.profile, l.only
	l.settings, g.settings, g.spell = s, s, l.spell
	parts := flag.Args()
	if len(parts) == 0 {
		parts = []string{"decode", "append", "apply"}
	}
	all := map[string]func(context.Context, settings) error{
		"decode": decode, "append": appendEntries, "apply": apply,
		"log": func(ctx context.Context, _ settings) error { return benchLog(ctx, l) },
		"lag": func(ctx context.Context, _ settings) error { return lag(ctx, g) },
	}
	if len(parts) > 1 && (parts[0] == childWriter || parts[0] == childReaders) {
		child := childMain
		if parts[0] == childReaders {
			child = crowdMain
		}
		if err := child(parts[1], parts[2:]); err != nil {
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
			fmt.Fprintf(os.Stderr, "bench: no part %q: decode, append, apply, log or lag\n", p)
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

// parseWindows reads a comma list of how much is in flight.
func parseWindows(list string) (windows []int, err error) {
	for f := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 2 || n > 1<<16 {
			return nil, fmt.Errorf("window %q: want 2 to %d entries", f, 1<<16)
		}
		windows = append(windows, n)
	}
	return windows, nil
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
