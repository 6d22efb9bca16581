package certs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var descLeft = prometheus.NewDesc("twinspan_certificate_left_seconds",
	"How long a certificate in use is still valid; below 0: it has expired.", []string{"file", "subject"}, nil)

// Collector gives the validity of all that the sources use; nil ones are passed over.
func Collector(sources ...*Source) prometheus.Collector { return collector(sources) }

type collector []*Source

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) { ch <- descLeft }

// Collect implements prometheus.Collector.
func (all collector) Collect(ch chan<- prometheus.Metric) {
	// Of several of one name, an old and a new authority, say, the first to end.
	ends := map[[2]string]time.Time{}
	for _, s := range all {
		if s == nil {
			continue
		}
		for _, c := range s.Certificates() {
			key := [2]string{c.File, c.Subject}
			if old, ok := ends[key]; !ok || c.NotAfter.Before(old) {
				ends[key] = c.NotAfter
			}
		}
	}
	for key, end := range ends {
		ch <- prometheus.MustNewConstMetric(descLeft, prometheus.GaugeValue, time.Until(end).Seconds(), key[0], key[1])
	}
}
