package producer

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/producer/binlog"
)

// TestMetrics gathers from a producer that has worked, and from a halted one.
func TestMetrics(t *testing.T) {
	srv := mysqltest.Start(t, mysqltest.MySQL97)
	p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(p.Producer); err != nil {
		t.Fatal(err)
	}
	srv.Exec(t, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1),(2)")
	p.holds(t, srv)
	get := func(name string, label ...string) float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != name {
				continue
			}
			for _, m := range f.GetMetric() {
				text := m.String()
				ok := true
				for _, l := range label {
					ok = ok && strings.Contains(text, `"`+l+`"`)
				}
				switch {
				case !ok:
				case m.GetGauge() != nil:
					return m.GetGauge().GetValue()
				case m.GetCounter() != nil:
					return m.GetCounter().GetValue()
				case m.GetHistogram() != nil:
					return float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
		t.Fatalf("no %s%v", name, label)
		return 0
	}
	for name, want := range map[string]float64{
		"twinspan_producer_connected": 1, "twinspan_producer_transactions_total": 3, "twinspan_producer_rows_total": 2, "twinspan_producer_epoch": 1,
		"twinspan_producer_reconnects_total": 0, "twinspan_producer_protected": 1, "twinspan_producer_lag_seconds": 0,
	} {
		if got := get(name, "s"); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if get("twinspan_producer_binlog_events_total", "write_rows") != 1 || get("twinspan_producer_commit_to_log_seconds") < 1 || get("twinspan_producer_binlog_bytes_total") < 500 {
		t.Error("events, latency or bytes")
	}
	srv.Exec(t, "SET SESSION binlog_format=STATEMENT", "INSERT INTO d.t VALUES (3)")
	p.halts(t, binlog.HaltStatement)
	if get("twinspan_producer_halted", "STATEMENT") != 1 || get("twinspan_producer_halted", "GAP") != 0 || get("twinspan_producer_halts_total", "STATEMENT") != 1 {
		t.Error("halted")
	}
	p.Recheck() // it stays one halt
	if get("twinspan_producer_halts_total", "STATEMENT") != 1 {
		t.Error("the same halt counts twice")
	}
}
