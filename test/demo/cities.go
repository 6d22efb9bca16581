package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/test/harness"
)

// crossed counts the bytes of entries that readers of a city took from its own
// nodes and from others, over all lives of the processes.
type crossed struct {
	mu        sync.Mutex
	near, far map[harness.Role]*harness.Counter // by node
	consumer  harness.Counter                   // entries that the consumer says it got from a
}

const (
	pushedMetric   = "twinspan_log_pushed_bytes_total"
	receivedMetric = "twinspan_log_received_bytes_total"
)

// look takes in the counters of everybody that answers.
func (c *crossed) look(ctx context.Context, p *harness.Pipeline) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.near == nil {
		c.near, c.far = map[harness.Role]*harness.Counter{}, map[harness.Role]*harness.Counter{}
	}
	for _, r := range p.Nodes() {
		if c.near[r] == nil {
			c.near[r], c.far[r] = &harness.Counter{}, &harness.Counter{}
		}
		for label, into := range map[string]*harness.Counter{`city="own"`: c.near[r], `city="other"`: c.far[r]} {
			if v, err := p.Metric(ctx, r, pushedMetric, label); err == nil { // else it is down now
				into.See(v)
			}
		}
	}
	if v, err := p.Metric(ctx, harness.Consumer, receivedMetric, `node_city="a"`); err == nil {
		c.consumer.See(v)
	}
}

// showCrossings says who moved how much between the cities, and returns what the
// consumer took from nodes of another one.
func (d *demo) showCrossings(ctx context.Context) (int64, error) {
	d.crossed.look(ctx, d.pipeline)
	all, err := d.pipeline.Crossings(ctx)
	if err != nil {
		return 0, err
	}
	d.crossed.mu.Lock()
	defer d.crossed.mu.Unlock()
	var near, far float64
	for _, r := range d.pipeline.Nodes() {
		near += d.crossed.near[r].Total
		far += d.crossed.far[r].Total
	}
	d.screen.event("bytes between the cities, all frames, over all lives of the processes:")
	for _, x := range all {
		if x.Sent+x.Received < 1<<10 {
			continue
		}
		what := "metadata, repair"
		switch harness.Role(x.Who) {
		case harness.Producer:
			what = "entries, as the rule of one node in each city asks"
		case harness.Ops:
			what = "the comparison of what all nodes hold"
		case harness.Consumer:
			what = fmt.Sprintf("metadata and cursors; entries: %.0f", d.crossed.consumer.Total)
		}
		d.screen.event("  %-9s %s → %s %9s, back %9s   %s", x.Who, strings.ToUpper(x.From), strings.ToUpper(x.To), bytesText(x.Sent), bytesText(x.Received), what)
	}
	d.screen.event("entries sent to readers by nodes of their own city %s, by nodes of another city %s", bytesText(int64(near)), bytesText(int64(far)))
	return int64(max(d.crossed.consumer.Total, far)), nil
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// wholeFor is how long repair may take.
const wholeFor = 30 * time.Second

// verifyLog waits until the cluster says that nothing is wrong with it, and compares
// all replicas. It returns the number of differences.
func (d *demo) verifyLog(ctx context.Context) (int64, error) {
	for until := time.Now().Add(wholeFor); ; {
		out, err := d.pipeline.Command(ctx, "log", "status", "--strict").CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(until) {
			return 0, fmt.Errorf("the log is not whole again after %s: %w\n%s", wholeFor, err, out)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	out, err := d.pipeline.Command(ctx, "log", "verify", "-o", "json").Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		said := ""
		if exit != nil {
			said = string(exit.Stderr)
		}
		return 0, fmt.Errorf("twinspan log verify: %w\n%s%s", err, out, said)
	}
	var r struct {
		Segments    int   `json:"segments"`
		Entries     int64 `json:"entries"`
		Differences int64 `json:"differences"`
		Found       []any `json:"found"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, fmt.Errorf("twinspan log verify printed %.200q: %w", out, err)
	}
	d.screen.event("twinspan log verify: %d segments, %d entries on every node that should have them, %d differences", r.Segments, r.Entries, r.Differences)
	if exit != nil && r.Differences == 0 {
		r.Differences = 1 // it said that something differs
	}
	return r.Differences, nil
}
