package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// countFlushes shows that both sides pay for durability: how many times the
// processes of each called fsync or fdatasync during a spell of load of its own,
// as the kernel saw it. Tracing slows both down, so nothing else is measured
// meanwhile.
func countFlushes(ctx context.Context, s logSettings, field []*contestant, r *results) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Println("  flushes: strace is not installed (apt-get install strace), so only our own count is shown")
		for _, c := range field[1:] {
			m := c.rounds[len(c.rounds)-1]
			fmt.Printf("  flushes: %-26s %.0f by the nodes' own count for %d entries\n", c.name, m.flushes.count, m.entries)
		}
		return nil
	}
	for _, c := range field {
		file := filepath.Join(s.dir, "strace-"+c.key)
		args := []string{"-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o", file}
		for _, p := range c.pids {
			args = append(args, "-p", strconv.Itoa(p))
		}
		trace := exec.Command(strace, args...)
		if err := trace.Start(); err != nil {
			return err
		}
		time.Sleep(500 * time.Millisecond) // it attaches
		var own flushes
		if c.flushes != nil {
			if own, err = c.flushes(ctx); err != nil {
				return err
			}
		}
		m, err := load(ctx, c.as, s.window, s.spell/2, c.pids)
		if c.flushes != nil && err == nil {
			var after flushes
			after, err = c.flushes(ctx)
			own = after.since(own)
		}
		err = errors.Join(err, trace.Process.Signal(syscall.SIGINT))
		_ = trace.Wait() // ended by our signal
		if err != nil {
			return err
		}
		calls, err := straceCalls(file)
		if err != nil {
			return err
		}
		line := fmt.Sprintf("  flushes: %-26s %6d by strace for %d entries on three nodes, one for %.1f entries of a node", c.name, calls, m.entries, 3*float64(m.entries)/float64(max(calls, 1)))
		if c.flushes != nil {
			line += fmt.Sprintf("; %.0f by the nodes' own count", own.count)
		}
		fmt.Println(line)
		r.add(c.key+"_entries_per_flush", "%.1f", 3*float64(m.entries)/float64(max(calls, 1)))
		r.want(calls > 0, c.name+" never flushed")
	}
	return nil
}

// straceCalls adds up the calls column of strace -c.
func straceCalls(file string) (total int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		switch f[len(f)-1] {
		case "fsync", "fdatasync", "sync_file_range", "msync":
			n, err := strconv.Atoi(f[3])
			if err != nil {
				return 0, fmt.Errorf("strace says %q: %w", line, err)
			}
			total += n
		}
	}
	return total, nil
}
