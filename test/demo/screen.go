package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen shows the run: on a terminal a table that is drawn over itself with
// the events above it, elsewhere plain lines.
type screen struct {
	out   *os.File
	live  bool
	began time.Time

	mu       sync.Mutex
	name     string
	lines    int // of the table that is on the screen now
	lastLine time.Time
	table    []string
}

func newScreen(out *os.File) *screen {
	return &screen{out: out, live: term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb", began: time.Now()}
}

// clear removes the table. mu is held.
func (s *screen) clear() {
	if s.lines > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines)
		s.lines = 0
	}
}

func (s *screen) draw() {
	width, _, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width < 20 {
		width = 100
	}
	for _, l := range s.table {
		if r := []rune(l); len(r) >= width {
			l = string(r[:width-1])
		}
		fmt.Fprintln(s.out, l)
	}
	s.lines = len(s.table)
}

func (s *screen) stamp() string { return fmt.Sprintf("%6.1f s", time.Since(s.began).Seconds()) }

// event is a line that stays.
func (s *screen) event(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, "%s  %s\n", s.stamp(), fmt.Sprintf(format, args...))
	if s.live {
		s.draw()
	}
}

// phase names what is going on.
func (s *screen) phase(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = name
	if s.live {
		s.clear()
		s.table = []string{"", s.stamp() + "  " + name + " …"}
		s.draw()
	}
}

// show brings a new state of affairs.
func (s *screen) show(v view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live {
		if time.Since(s.lastLine) >= 2*time.Second {
			s.lastLine = time.Now()
			fmt.Fprintf(s.out, "%s  A: %d transactions, %d rows (%.0f rows/s), %d DDL | lag to B %s | kills %d\n",
				s.stamp(), v.transactions, v.rows, v.rowsPerSecond, v.ddl, v.lag.Round(time.Millisecond), v.kills)
		}
		return
	}
	s.clear()
	s.table = append([]string{"", s.stamp() + "  " + s.name}, v.lines()...)
	s.draw()
}

func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// view is the state of affairs at one moment.
type view struct {
	primary, standby, target string // addresses and what they do
	transactions, rows, ddl  int64
	rowsPerSecond            float64
	lag                      time.Duration
	kills                    int
	processes                []string
}

func (v view) lines() []string {
	l := []string{
		fmt.Sprintf("  A  primary   %-40s %9d transactions  %9d rows  %7.0f rows/s  %5d DDL", v.primary, v.transactions, v.rows, v.rowsPerSecond, v.ddl),
		fmt.Sprintf("  A  standby   %s", v.standby),
	}
	for _, p := range v.processes {
		l = append(l, "     "+p)
	}
	return append(l, fmt.Sprintf("  B  target    %-40s %9s behind  kills %d", v.target, v.lag.Round(time.Millisecond), v.kills))
}

func (d *demo) snapshot() view {
	st := d.load.Stats()
	v := view{
		primary: d.primary.Address, standby: d.standby.Address, target: d.target.Address,
		transactions: st.Transactions, rows: st.Rows, ddl: st.DDL, lag: d.pulse.lag(), kills: d.pipeline.Kills(),
	}
	if s := time.Since(d.began).Seconds(); s > 0 {
		v.rowsPerSecond = float64(st.Rows) / s
	}
	if d.standby.PID() == 0 {
		v.standby += "  down"
	} else if status, err := d.standby.ReplicaStatus(context.Background()); err == nil {
		v.standby += fmt.Sprintf("  replication io=%s sql=%s", strings.ToLower(status.IO), strings.ToLower(status.SQL))
	}
	for _, r := range d.pipeline.Roles() {
		pid, since := d.pipeline.Process(r)
		state := "down"
		if pid != 0 {
			state = fmt.Sprintf("pid %d, up %.0f s, %s resident", pid, time.Since(since).Seconds(), resident(pid))
		}
		v.processes = append(v.processes, fmt.Sprintf("%-9s %s", r, state))
	}
	return v
}

// resident is the memory of a process, as the kernel says.
func resident(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "?"
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	kib := 0
	if _, err := fmt.Sscanf(rest, "%d", &kib); err != nil {
		return "?"
	}
	return fmt.Sprintf("%d MiB", kib/1024)
}
