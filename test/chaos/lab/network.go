package lab

import (
	"time"

	"github.com/twinspan/twinspan/internal/wan"
)

// normal is the way between two cities when nothing is wrong.
func (l *Lab) normal(from, to string) wan.Way {
	if from == to {
		return wan.Way{}
	}
	return wan.Way{Delay: l.cfg.Delay}
}

// sites are the network's names for all that is in a city.
func (l *Lab) sites(city string) []string { return append(l.In(city), crowd(city)) }

// Way sets how bytes get from one city to another, in that direction only.
func (l *Lab) Way(from, to string, w wan.Way) error { return l.ways(l.sites(from), l.sites(to), w) }

func (l *Lab) ways(from, to []string, w wan.Way) error {
	for _, a := range from {
		for _, b := range to {
			if err := l.network.Set(a, b, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// CutOneWay lets nothing through from one city to another; the other direction
// stays as it is.
func (l *Lab) CutOneWay(from, to string, c wan.Cut) error {
	w := l.normal(from, to)
	w.Cut = c
	return l.Way(from, to, w)
}

// CutOff separates a city from all others, both ways.
func (l *Lab) CutOff(city string, c wan.Cut) error {
	for _, other := range l.cities {
		if other == city {
			continue
		}
		if err := l.CutOneWay(city, other, c); err != nil {
			return err
		}
		if err := l.CutOneWay(other, city, c); err != nil {
			return err
		}
	}
	return nil
}

// Isolate separates one node from everything, both ways.
func (l *Lab) Isolate(node string, c wan.Cut) error {
	for _, city := range l.cities {
		for _, site := range l.sites(city) {
			if site == node {
				continue
			}
			w := l.normal(city, l.Node(node).City)
			w.Cut = c
			if err := l.ways([]string{site}, []string{node}, w); err != nil {
				return err
			}
			if err := l.ways([]string{node}, []string{site}, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Slow makes the ways between all cities slower by delay and at most rate bytes a
// second for each pair of processes.
func (l *Lab) Slow(delay, jitter time.Duration, rate int64) error {
	for _, a := range l.cities {
		for _, b := range l.cities {
			if a == b {
				continue
			}
			w := l.normal(a, b)
			w.Delay, w.Jitter, w.Rate = w.Delay+delay, jitter, rate
			if err := l.Way(a, b, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Heal makes every way normal again.
func (l *Lab) Heal() error {
	for _, a := range l.cities {
		for _, b := range l.cities {
			if err := l.Way(a, b, l.normal(a, b)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flows is what passed so far, by source and node.
func (l *Lab) Flows() []wan.Flow { return l.network.Flows() }
