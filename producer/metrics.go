package producer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/producer/binlog"
)

// histogram counts observations by upper bound; see latencyBounds.
type histogram struct {
	counts [len(latencyBounds)]uint64
	count  uint64
	sum    float64
}

// latencyBounds are in seconds: from a commit at the source to its confirmation
// by the log.
var latencyBounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}

func (h *histogram) observe(v float64) {
	h.count++
	h.sum += v
	for i, b := range latencyBounds {
		if v <= b {
			h.counts[i]++
		}
	}
}

var (
	labels = []string{"stream"}

	descUp           = prometheus.NewDesc("twinspan_producer_connected", "1 while the binlog connection is up.", labels, nil)
	descHalted       = prometheus.NewDesc("twinspan_producer_halted", "1 while the producer is halted, with the reason.", []string{"stream", "code"}, nil)
	descHalts        = prometheus.NewDesc("twinspan_producer_halts_total", "Halts by reason.", []string{"stream", "code"}, nil)
	descEpoch        = prometheus.NewDesc("twinspan_producer_epoch", "Epoch of the log that this producer owns.", labels, nil)
	descOffset       = prometheus.NewDesc("twinspan_producer_confirmed_offset", "Newest confirmed data entry.", labels, nil)
	descProtected    = prometheus.NewDesc("twinspan_producer_protected", "1 when the newest confirmed entry had its full ack rule.", labels, nil)
	descLag          = prometheus.NewDesc("twinspan_producer_lag_seconds", "Age of the oldest transaction that was read and is not confirmed by the log.", labels, nil)
	descTransactions = prometheus.NewDesc("twinspan_producer_transactions_total", "Transactions confirmed by the log.", labels, nil)
	descRows         = prometheus.NewDesc("twinspan_producer_rows_total", "Row changes confirmed by the log.", labels, nil)
	descBytes        = prometheus.NewDesc("twinspan_producer_appended_bytes_total", "Bytes of data entries confirmed by the log.", labels, nil)
	descEntries      = prometheus.NewDesc("twinspan_producer_entries_total", "Data entries confirmed by the log.", labels, nil)
	descRead         = prometheus.NewDesc("twinspan_producer_binlog_bytes_total", "Bytes of binlog received.", labels, nil)
	descEvents       = prometheus.NewDesc("twinspan_producer_binlog_events_total", "Binlog events received by type.", []string{"stream", "type"}, nil)
	descStatements   = prometheus.NewDesc("twinspan_producer_statements_total", "Statements read: handed over, or ignored as without effect on the target.", []string{"stream", "verdict"}, nil)
	descReconnects   = prometheus.NewDesc("twinspan_producer_reconnects_total", "Binlog connections that were lost and made again.", labels, nil)
	descLatency      = prometheus.NewDesc("twinspan_producer_commit_to_log_seconds", "From the commit at its source to the confirmation by the log.", labels, nil)
)

var descs = []*prometheus.Desc{
	descUp, descHalted, descHalts, descEpoch, descOffset, descProtected, descLag, descTransactions, descRows, descBytes, descEntries,
	descRead, descEvents, descStatements, descReconnects, descLatency,
}

// Describe is prometheus.Collector's: a Producer is one.
func (p *Producer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (p *Producer) Collect(ch chan<- prometheus.Metric) {
	s, c := p.Status(), p.stream.Counters()
	gauge := func(d *prometheus.Desc, v float64, l ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{s.Stream}, l...)...)
	}
	count := func(d *prometheus.Desc, v int64, l ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{s.Stream}, l...)...)
	}
	gauge(descUp, toFloat(s.Connected))
	gauge(descEpoch, float64(s.Epoch))
	gauge(descOffset, float64(s.Offset))
	gauge(descProtected, toFloat(s.Protected))
	gauge(descLag, s.LagSeconds)
	for _, code := range binlog.Codes {
		gauge(descHalted, toFloat(s.Halt != nil && s.Halt.Code == string(code)), string(code))
	}
	c.Events(func(name string, n int64) { count(descEvents, n, name) })
	count(descRead, c.Bytes.Load())
	count(descStatements, c.Statements.Load(), "handed_over")
	count(descStatements, c.Ignored.Load(), "ignored")
	count(descReconnects, c.Reconnects.Load())

	b := &p.board
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, code := range binlog.Codes {
		count(descHalts, b.halts[string(code)], string(code))
	}
	count(descTransactions, b.transactions)
	count(descRows, b.rows)
	count(descBytes, b.bytes)
	count(descEntries, b.entries)
	buckets := make(map[float64]uint64, len(latencyBounds))
	for i, bound := range latencyBounds {
		buckets[bound] = b.latency.counts[i]
	}
	ch <- prometheus.MustNewConstHistogram(descLatency, b.latency.count, b.latency.sum, buckets, s.Stream)
}

func toFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
