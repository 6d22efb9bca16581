// Command demo shows twinspan's main job on one machine: a primary and a standby
// in "A", a target in "B", and between them a log of two cities with two nodes
// each and a witness, a delay between the cities. Under a mixed load with
// definitions changing in the middle every process is killed, and all nodes of a
// city at once; then it checks row by row that nothing is missing, doubled or
// different, and entry by entry that all nodes of the log hold the same.
//
// Exit codes: 0 all is equal, 1 the demo could not be finished, 2 usage, 3 lost,
// doubled or different.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
)

type settings struct {
	binary  string
	flavor  mysqltest.Flavor
	seed    uint64
	length  time.Duration
	clients int
	rate    float64
	large   int
	delay   time.Duration
	calm    bool
	keep    bool
	dir     string
}

func main() {
	s := settings{}
	flavor := ""
	flag.StringVar(&s.binary, "twinspan", "bin/twinspan", "the built `binary`")
	flag.StringVar(&flavor, "flavor", "mysql97", "server: mysql97, mariadb1011 or mariadb118")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()%1e9), "of everything random")
	flag.DurationVar(&s.delay, "delay", 30*time.Millisecond, "round trip between any two cities")
	flag.DurationVar(&s.length, "load", 36*time.Second, "how long the load lasts")
	flag.IntVar(&s.clients, "clients", 4, "clients that write")
	flag.Float64Var(&s.rate, "rate", 300, "transactions per second of all clients, 0: as many as go")
	flag.IntVar(&s.large, "large", 20000, "rows of the large transaction")
	flag.BoolVar(&s.calm, "calm", false, "kill nothing")
	flag.BoolVar(&s.keep, "keep", false, "leave everything running and say how to look at it")
	flag.StringVar(&s.dir, "dir", "", "folder for logs and, with -keep, data (default: a temporary one; with -keep demo-data)")
	flag.Parse()
	var err error
	if s.flavor, err = mysqltest.ParseFlavor(flavor); err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "demo:", errors.Join(err, unexpected(flag.Args())))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, s)
	stop()
	os.Exit(code)
}

func unexpected(args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("unexpected arguments %q", args)
}

func run(ctx context.Context, s settings) int {
	var err error
	temporary := false
	switch {
	case s.dir == "" && s.keep:
		s.dir = "demo-data"
	case s.dir == "":
		if s.dir, err = os.MkdirTemp("", "twinspan-demo-"); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return 1
		}
		temporary = true
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	d := &demo{settings: s, screen: newScreen(os.Stdout)}
	res, err := d.run(ctx)
	d.screen.close()
	switch {
	case err != nil && ctx.Err() != nil:
		err = errors.New("interrupted")
	case err == nil && s.keep:
		err = d.leaveRunning()
	}
	if !s.keep || err != nil {
		if e := d.close(); e != nil && err == nil {
			err = e
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\ndemo: seed %d; logs and configuration are in %s\n", err, s.seed, s.dir)
		return 1
	}
	good := res.good()
	if temporary && good {
		_ = os.RemoveAll(s.dir) // nobody needs it any more
	} else if !good {
		fmt.Printf("seed %d; logs and configuration are in %s\n", s.seed, s.dir)
	}
	fmt.Println(res)
	if !good {
		return 3
	}
	return 0
}
