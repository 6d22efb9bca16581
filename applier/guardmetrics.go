package applier

import (
	"github.com/prometheus/client_golang/prometheus"
)

var (
	descConflicts     = desc("conflicts_total", "Changes that found the target other than they were made on.", "kind", "table", "action")
	descParked        = desc("exceptions_parked_total", "Changes parked by this process.", "cause")
	descOpen          = desc("exceptions_open", "Changes that are parked on the target.")
	descTried         = desc("exception_retries_total", "Automatic tries of parked changes, by result.", "result")
	guardDescriptions = []*prometheus.Desc{descConflicts, descParked, descOpen, descTried}
)

// metricTables bounds the series by table; the others are summed up as (other).
const metricTables = 100

func (g *guard) collect(ch chan<- prometheus.Metric, stream string) {
	type key struct{ kind, table, action string }
	sums := map[key]float64{}
	tables := map[string]bool{}
	for _, c := range g.ring.Report().Counts {
		if !tables[c.Table] && len(tables) < metricTables {
			tables[c.Table] = true
		}
		table := c.Table
		if !tables[table] {
			table = "(other)"
		}
		sums[key{string(c.Kind), table, c.Action}] += float64(c.Count)
	}
	for k, n := range sums {
		ch <- prometheus.MustNewConstMetric(descConflicts, prometheus.CounterValue, n, stream, k.kind, k.table, k.action)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for cause, n := range g.parked {
		ch <- prometheus.MustNewConstMetric(descParked, prometheus.CounterValue, float64(n), stream, string(cause))
	}
	for result, n := range g.tried {
		ch <- prometheus.MustNewConstMetric(descTried, prometheus.CounterValue, float64(n), stream, result)
	}
	ch <- prometheus.MustNewConstMetric(descOpen, prometheus.GaugeValue, float64(g.open.Load()), stream)
}
