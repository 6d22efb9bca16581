package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

// result is the last line of a run.
type result struct {
	rows, transactions int64
	rowsPerSecond      float64
	lagP99             time.Duration
	kills              int
	lost, doubled      int
	differences        int64
	farEntries         int64 // bytes of entries that the consumer took from another city
}

func (r result) good() bool { return r.lost == 0 && r.doubled == 0 && r.differences == 0 }

func (r result) String() string {
	return fmt.Sprintf("RESULT demo rows=%d transactions=%d rows_per_second=%.0f lag_p99_ms=%d kills=%d lost=%d doubled=%d differences=%d consumer_far_entry_bytes=%d",
		r.rows, r.transactions, r.rowsPerSecond, r.lagP99.Milliseconds(), r.kills, r.lost, r.doubled, r.differences, r.farEntries)
}

// check compares what A committed with what the log and B have.
func (d *demo) check(ctx context.Context) (result, error) {
	caughtUp := time.Now()
	median, p99, most := d.pulse.quantiles()
	res := result{lagP99: p99, kills: d.pipeline.Kills()}
	d.screen.event("lag to B, crashes included: median %s, p99 %s, most %s", median.Round(time.Millisecond), p99.Round(time.Millisecond), most.Round(time.Millisecond))

	d.screen.phase("checking the log: every transaction of A once, in order")
	set, err := d.primary.GTIDs(ctx)
	if err != nil {
		return res, err
	}
	audit, err := d.pipeline.Audit(ctx, set)
	if err != nil {
		return res, fmt.Errorf("checking the log: %w", err)
	}
	res.rows, res.transactions = audit.Rows, audit.Transactions
	res.rowsPerSecond = float64(audit.Rows) / caughtUp.Sub(d.began).Seconds()
	res.lost, res.doubled = len(audit.Lost), len(audit.Doubled)
	d.screen.event("the log holds %d transactions with %d row changes; lost %d, doubled %d", audit.Transactions, audit.Rows, res.lost, res.doubled)
	if n := len(audit.Disorder) + len(audit.Unknown); n > 0 {
		d.screen.event("out of order: %v; not from A: %v", audit.Disorder, audit.Unknown)
		res.differences += int64(n)
	}

	d.screen.phase("comparing what the nodes hold, entry by entry (twinspan log verify)")
	n, err := d.verifyLog(ctx)
	if err != nil {
		return res, err
	}
	res.differences += n
	if res.farEntries, err = d.showCrossings(ctx); err != nil {
		return res, err
	}

	d.screen.phase("comparing every row (twinspan verify)")
	n, err = d.verify(ctx)
	if err != nil {
		return res, err
	}
	res.differences += n

	d.screen.phase("comparing every row a second time, by other means")
	found, err := workload.Differences(ctx, d.primary.DB(), d.target.DB(), append(workload.Schemas(), "load_pulse"))
	if err != nil {
		return res, fmt.Errorf("second comparison: %w", err)
	}
	for _, f := range found {
		d.screen.event("differs: %s", f)
	}
	if err := workload.CheckSum(ctx, d.target.DB()); err != nil {
		d.screen.event("B: %v", err)
		res.differences++
	}
	// Both comparisons see the same rows: what one alone sees counts too.
	res.differences = max(res.differences, int64(len(found)))
	d.screen.event("second comparison: %d differences", len(found))
	return res, nil
}

// verify runs twinspan's own comparison and returns the number of differences.
func (d *demo) verify(ctx context.Context) (int64, error) {
	out, err := d.pipeline.Command(ctx, "verify", "-o", "json").Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		said := ""
		if exit != nil {
			said = string(exit.Stderr)
		}
		return 0, fmt.Errorf("twinspan verify: %w\n%s", err, said)
	}
	var report struct {
		Rows        int64 `json:"rows"`
		Differences int64 `json:"differences"`
		Unsettled   int64 `json:"unsettled"`
		Tables      []struct {
			Table       string `json:"table"`
			Differences int64  `json:"differences"`
		} `json:"tables"`
	}
	if e := json.Unmarshal(out, &report); e != nil {
		return 0, fmt.Errorf("twinspan verify printed %.200q: %w", out, e)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "verify.json"), out, 0o600); err != nil {
		return 0, err
	}
	for _, t := range report.Tables {
		if t.Differences > 0 {
			d.screen.event("%s: %d differences, see verify.json", t.Table, t.Differences)
		}
	}
	d.screen.event("twinspan verify: %d rows in %d tables, %d differences", report.Rows, len(report.Tables), report.Differences+report.Unsettled)
	n := report.Differences + report.Unsettled
	if exit != nil && n == 0 {
		n = 1 // it said that something differs
	}
	return n, nil
}

// leaveRunning says how to look at what runs, and how to end it.
func (d *demo) leaveRunning() error {
	var pids []string
	for _, r := range d.pipeline.Roles() {
		pid, _ := d.pipeline.Process(r)
		pids = append(pids, fmt.Sprint(pid))
	}
	pids = append(pids, fmt.Sprint(d.pipeline.NetworkPID()))
	for _, s := range []*mysqltest.Server{d.target, d.standby, d.primary} {
		pids = append(pids, fmt.Sprint(s.PID()))
	}
	stop := filepath.Join(d.dir, "stop")
	script := "#!/bin/sh\n# Ends what the demo left running. Its data stays in " + d.dir + "\nkill " + strings.Join(pids, " ") + " 2>/dev/null\n" +
		"for p in " + strings.Join(pids, " ") + "; do while [ -d /proc/$p ]; do sleep 0.1; done; done\nrm -f \"$0\"\n"
	if err := os.WriteFile(stop, []byte(script), 0o700); err != nil {
		return err
	}
	client := func(s *mysqltest.Server) string { return strings.Join(d.flavor.Client(s.Address), " ") }
	fmt.Printf(`
Everything is still running.
  twinspan     %[1]s status -c %[2]s
               %[1]s topic read -c %[2]s data --limit 5
               %[1]s log status -c %[2]s
               %[1]s verify -c %[2]s
  metrics      %[3]s/metrics (producer)  %[4]s/metrics (consumer)  %[5]s/metrics (node a1)
  between      curl -d '{"from":"a","to":"b","delay":15000000,"cut":"hold"}' %[11]s/way   and to heal it without "cut"
  primary A    %[6]s
  standby A    %[7]s
  target B     %[8]s
  logs, yaml   %[9]s
  end it       %[10]s

`, d.binary, d.pipeline.ConfigFile(harness.Ops), d.pipeline.AdminURL(harness.Producer), d.pipeline.AdminURL(harness.Consumer),
		d.pipeline.AdminURL(d.pipeline.Nodes()[0]), client(d.primary), client(d.standby), client(d.target), d.dir, stop, d.pipeline.WAN().URL)
	return nil
}
