// Command chaos runs a cluster of real processes, lets writers and readers work on
// it, and does to it what happens to clusters: processes are killed and frozen,
// lines cut and slowed, disks filled, wiped and damaged, whole cities lost. At the
// end of each scenario it reads everything, and holds it against what the writers
// were told.
//
//	go run ./test/chaos                          every scenario once
//	go run ./test/chaos -run 'kill|partition'    some of them
//	go run ./test/chaos -list
//
// The last line says RESULT; the exit code is 3 when a promise was broken.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// settings of all scenarios.
type settings struct {
	binary   string
	engine   string
	dir      string // of the runs; empty: a temporary one that is removed
	filter   *regexp.Regexp
	rounds   int
	seed     uint64
	duration time.Duration // of the faults of one scenario, about
	delay    time.Duration // between cities, one way
	keep     bool
	out      io.Writer
}

// The engines.
const (
	twinSpan  = "twinspan"
	jetStream = "jetstream"
)

// The exit codes beside 0.
const (
	exitError  = 1
	exitUsage  = 2
	exitBreach = 3
)

func main() {
	if task := os.Getenv(taskVariable); task != "" {
		os.Exit(work(task))
	}
	s := settings{out: os.Stdout}
	filter := flag.String("run", "", "only scenarios whose name matches the `expression`")
	list := flag.Bool("list", false, "name the scenarios and end")
	flag.StringVar(&s.binary, "twinspan", "bin/twinspan", "the built `binary`")
	flag.StringVar(&s.engine, "engine", twinSpan, "twinspan or jetstream")
	flag.StringVar(&s.dir, "dir", "", "folder for everything (default: a temporary one)")
	flag.IntVar(&s.rounds, "rounds", 1, "of all scenarios")
	flag.Uint64Var(&s.seed, "seed", 0, "of the schedule; 0: a new one")
	flag.DurationVar(&s.duration, "duration", 8*time.Second, "of the faults of one scenario")
	flag.DurationVar(&s.delay, "delay", 15*time.Millisecond, "between two cities, one way")
	flag.BoolVar(&s.keep, "keep", false, "keep histories, logs and data")
	flag.Parse()
	var err error
	if s.filter, err = regexp.Compile(*filter); err != nil || flag.NArg() > 0 || s.engine != twinSpan && s.engine != jetStream {
		fmt.Fprintln(os.Stderr, "chaos: bad arguments; engines are twinspan and jetstream:", err, flag.Args())
		os.Exit(exitUsage)
	}
	if *list {
		for _, sc := range scenarios(s.engine) {
			fmt.Printf("%-18s %s\n", sc.name, sc.about)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := all(ctx, s)
	stop()
	os.Exit(code)
}

// all runs the scenarios and prints the result; it returns the exit code.
func all(ctx context.Context, s settings) int {
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano() % 1e9)
	}
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "twinspan-chaos-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return exitError
		}
		s.dir = dir
	}
	var err error
	for _, path := range []*string{&s.binary, &s.dir} {
		if *path, err = filepath.Abs(*path); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return exitError
		}
	}
	fmt.Fprintf(s.out, "chaos: engine %s, seed %d: replay with make chaos SEED=%d\n", s.engine, s.seed, s.seed)
	var sum total
	for round := range s.rounds {
		for _, sc := range scenarios(s.engine) {
			if !s.filter.MatchString(sc.name) || ctx.Err() != nil {
				continue
			}
			r, err := perform(ctx, s, sc, round)
			sum.add(r, err)
			fmt.Fprintln(s.out, r.line(sc.name))
			if err != nil {
				fmt.Fprintf(s.out, "  %s could not be run to its end: %v\n", sc.name, err)
			}
			for _, b := range r.breaches() {
				fmt.Fprintln(s.out, "  BREACH", b)
			}
			if err != nil || r.failed() {
				s.keep = true
			}
		}
	}
	if s.keep {
		fmt.Fprintln(s.out, "chaos: everything is in", s.dir)
	} else if err := os.RemoveAll(s.dir); err != nil {
		fmt.Fprintln(s.out, "chaos:", err)
	}
	if sum.scenarios == 0 && ctx.Err() == nil {
		fmt.Fprintln(s.out, "chaos: no scenario has such a name")
		return exitUsage
	}
	fmt.Fprintln(s.out, sum.line(s.engine, s.seed))
	switch {
	case sum.failed > 0:
		return exitBreach
	case len(sum.errors) > 0 || ctx.Err() != nil:
		return exitError
	}
	return 0
}

var errStopped = errors.New("stopped")
