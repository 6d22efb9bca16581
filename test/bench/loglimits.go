package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machineBusy begins to count, and its result ends: the cores of the machine that
// were busy meanwhile, with whatever. 0 where the kernel does not tell.
func machineBusy() func() float64 {
	before, began := busySeconds(), time.Now()
	return func() float64 { return (busySeconds() - before) / time.Since(began).Seconds() }
}

// busySeconds is the time that all cores together were not idle.
func busySeconds() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	total := 0.0
	for i, f := range strings.Fields(line) {
		if v, err := strconv.ParseFloat(f, 64); err == nil && i != 4 && i != 5 && i < 9 { // idle and waiting for the disk; guests count twice
			total += v
		}
	}
	return total / 100
}

// limits says what a spell's rate came from: where the time of an entry went, and
// how much of the machine was used.
func (m measured) limits(window int) {
	if m.flushes.count == 0 {
		return
	}
	own := m.cpu / m.took.Seconds()
	fmt.Printf("           a flush took %.1f ms, so a full window of %d waits for about %.1f of them; of %d cores %.1f went to the log and %.1f to others\n",
		1000*m.flushes.seconds/m.flushes.count, window, m.quantile(.5).Seconds()*m.flushes.count/m.flushes.seconds, runtime.NumCPU(), own, max(m.machine-own, 0))
}
