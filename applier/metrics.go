package applier

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("twinspan_applier_"+name, help, append([]string{"stream"}, labels...), nil)
}

var (
	descRows     = desc("rows_total", "Row changes durable on the target.")
	descSkipped  = desc("rows_skipped_total", "Row changes read again that were durable already.")
	descTrans    = desc("transactions_total", "Transactions fed.")
	descDDLs     = desc("ddls_total", "DDL statements carried out.")
	descBatches  = desc("batches_total", "Target transactions committed, by lane.", "lane")
	descStmts    = desc("statements_total", "SQL statements for rows.")
	descRetries  = desc("retries_total", "Tries that failed.")
	descDoubt    = desc("doubts_total", "Row changes that met another state of the target than the log's.", "kind")
	descPending  = desc("lane_pending_rows", "Row changes of a lane that are not durable.", "lane")
	descWindow   = desc("window_bytes", "Memory of what is fed and not durable.")
	descLag      = desc("lag_seconds", "Age of the oldest transaction that was fed and is not durable.")
	descFloor    = desc("floor_offset", "Entry up to which everything is durable.")
	descHalted   = desc("halted", "1 while something is halted, by code.", "code")
	descLaneRows = desc("lane_rows_total", "Row changes durable, by lane.", "lane")
	descLaneLag  = desc("lane_lag_seconds", "Age of the oldest transaction that a lane has something of.", "lane")
	descLaneSize = desc("lane_batch_rows", "How many rows a lane takes at a time at most.", "lane")
	descPaused   = desc("throttle_paused", "1 while the throttle lets nothing be written.")
	descPauses   = desc("throttle_paused_seconds_total", "How long the throttle let nothing be written.")
	descLimit    = desc("throttle_rows_per_second", "Row changes that may be written per second; 0: no limit.")
	descOwner    = desc("owner", "1 while this process owns the stream on the target.")
	descriptions = []*prometheus.Desc{descRows, descSkipped, descTrans, descDDLs, descBatches, descStmts, descRetries,
		descDoubt, descPending, descWindow, descLag, descFloor, descHalted, descOwner, descLaneRows, descLaneLag, descLaneSize, descPaused, descPauses, descLimit}
)

// Describe implements prometheus.Collector.
func (a *Applier) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptions {
		ch <- d
	}
	for _, d := range guardDescriptions {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *Applier) Collect(ch chan<- prometheus.Metric) {
	s := a.Status()
	emit := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, append([]string{s.Stream}, labels...)...)
	}
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	emit(descRows, counter, float64(s.Rows))
	emit(descSkipped, counter, float64(s.Skipped))
	emit(descTrans, counter, float64(s.Transactions))
	emit(descDDLs, counter, float64(s.DDLs))
	emit(descStmts, counter, float64(s.Statements))
	emit(descRetries, counter, float64(s.Retries))
	emit(descDoubt, counter, float64(s.InsertFound), "insert_found")
	emit(descDoubt, counter, float64(s.UpdateMissing), "update_missing")
	emit(descDoubt, counter, float64(s.DeleteMissing), "delete_missing")
	for i, l := range s.Lanes {
		emit(descBatches, counter, float64(l.Batches), strconv.Itoa(i))
		emit(descPending, gauge, float64(l.Pending), strconv.Itoa(i))
		emit(descLaneRows, counter, float64(l.Rows), strconv.Itoa(i))
		emit(descLaneLag, gauge, l.LagSeconds, strconv.Itoa(i))
		emit(descLaneSize, gauge, float64(l.BatchRows), strconv.Itoa(i))
	}
	paused := 0.0
	if s.Throttle.Paused != "" {
		paused = 1
	}
	emit(descPaused, gauge, paused)
	emit(descPauses, counter, s.Throttle.PausedSeconds)
	emit(descLimit, gauge, float64(s.Throttle.RowsPerSecond))
	emit(descWindow, gauge, float64(s.WindowBytes))
	emit(descLag, gauge, s.LagSeconds)
	emit(descFloor, gauge, float64(s.Floor.Offset))
	owner := 0.0
	if s.Owner {
		owner = 1
	}
	emit(descOwner, gauge, owner)
	a.guard.collect(ch, s.Stream)
	halts := map[Code]bool{}
	for _, h := range s.Halts {
		halts[h.Code] = true
	}
	for c := range halts {
		emit(descHalted, gauge, 1, string(c))
	}
}
