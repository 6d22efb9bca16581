package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
)

// logMeter gives the metrics of this process's client of the log.
type logMeter struct{ log log.Log }

var (
	descReceived = prometheus.NewDesc("twinspan_log_received_bytes_total", "Bytes of entries read from nodes, by the nodes' city.", []string{"node_city"}, nil)
	descSent     = prometheus.NewDesc("twinspan_log_writer_segment_bytes", "Bytes sent to a member of the writer's open segment.", []string{"stream", "node", "node_city"}, nil)
	descWaiting  = prometheus.NewDesc("twinspan_log_writer_in_flight_bytes", "Bytes appended and not confirmed.", []string{"stream"}, nil)
	descGuarded  = prometheus.NewDesc("twinspan_log_writer_protected", "1 while entries are confirmed by the stream's full rule.", []string{"stream"}, nil)
	descBlocked  = prometheus.NewDesc("twinspan_log_writer_blocked", "1 while nothing can be confirmed.", []string{"stream"}, nil)
	descRolls    = prometheus.NewDesc("twinspan_log_writer_rolls_total", "Changes of segment since the writer was opened.", []string{"stream"}, nil)
)

// Describe implements prometheus.Collector.
func (m logMeter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descReceived, descSent, descWaiting, descGuarded, descBlocked, descRolls} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m logMeter) Collect(ch chan<- prometheus.Metric) {
	l, ok := m.log.(interface{ Stats() client.Stats })
	if !ok {
		return
	}
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	flag := func(is bool) float64 {
		if is {
			return 1
		}
		return 0
	}
	s := l.Stats()
	for city, n := range s.Received {
		put(descReceived, prometheus.CounterValue, float64(n), city)
	}
	seen := map[string]bool{}
	for _, w := range s.Writers {
		if seen[w.Stream] || w.Error != "" {
			continue // one that is on its way out
		}
		seen[w.Stream] = true
		put(descWaiting, prometheus.GaugeValue, float64(w.InFlightBytes), w.Stream)
		put(descGuarded, prometheus.GaugeValue, flag(w.Protected), w.Stream)
		put(descBlocked, prometheus.GaugeValue, flag(writerTrouble(m.log, w.Stream) != ""), w.Stream)
		put(descRolls, prometheus.CounterValue, float64(w.Rolls), w.Stream)
		for _, m := range w.Members {
			put(descSent, prometheus.GaugeValue, float64(m.SentBytes), w.Stream, m.Node, m.City)
		}
	}
}
