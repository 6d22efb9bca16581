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
// processes of each called fsync or fdatasync, as the kernel saw it, during spells
// of load of its own. With one entry in flight no two entries share a flush, so
// each must have cost as many as its rule asks for. Tracing slows both down, so
// nothing else is measured meanwhile.
func countFlushes(ctx context.Context, s logSettings, field []*contestant, r *results) error {
	for _, c := range field[1:] { // by the nodes' own count, of the rounds
		for _, m := range c.rounds[1] {
			r.want(m.flushes.count >= float64(c.durable*m.entries), fmt.Sprintf("%s: %.0f flushes for %d entries, one at a time: each needs %d", c.name, m.flushes.count, m.entries, c.durable))
		}
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Println("  flushes: strace is not installed (apt-get install strace), so only our own nodes' count was looked at")
		return nil //nolint:nilerr // what could be counted was
	}
	for _, c := range field {
		for _, window := range []int{s.window, 1} {
			calls, m, err := c.traced(ctx, s, strace, window)
			if err != nil {
				return err
			}
			per := float64(calls) / float64(m.entries)
			line := fmt.Sprintf("  flushes: %-26s %4d in flight %6d by strace for %d entries on three nodes", c.name, window, calls, m.entries)
			if window == 1 {
				line += fmt.Sprintf(", %.1f for each", per)
				r.add(c.key+"_flushes_per_entry_alone", "%.1f", per)
				r.want(per >= float64(c.durable), fmt.Sprintf("%s: %.1f flushes for each entry, one at a time: %d are needed", c.name, per, c.durable))
			} else {
				line += fmt.Sprintf(", one for %.1f entries of a node", 3/per)
				r.add(c.key+"_entries_per_flush", "%.1f", 3/per)
				r.want(calls > 0, c.name+" never flushed")
			}
			if c.flushes != nil {
				line += fmt.Sprintf("; %.0f by the nodes' own count", m.flushes.count)
			}
			fmt.Println(line)
		}
	}
	return nil
}

// traced is a short spell of load with its flushes counted.
func (c *contestant) traced(ctx context.Context, s logSettings, strace string, window int) (calls int, m measured, err error) {
	file := filepath.Join(s.dir, fmt.Sprintf("strace-%s-%d", c.key, window))
	args := []string{"-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o", file}
	for _, p := range c.pids {
		args = append(args, "-p", strconv.Itoa(p))
	}
	trace := exec.Command(strace, args...)
	if err := trace.Start(); err != nil {
		return 0, m, err
	}
	time.Sleep(500 * time.Millisecond) // it attaches
	m, err = c.watched(ctx, window, s.spell/3)
	err = errors.Join(err, trace.Process.Signal(syscall.SIGINT))
	_ = trace.Wait() // ended by our signal
	if err != nil {
		return 0, m, err
	}
	if m.entries == 0 {
		return 0, m, fmt.Errorf("%s: nothing was confirmed under strace", c.name)
	}
	calls, err = straceCalls(file)
	return calls, m, err
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
