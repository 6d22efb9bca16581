package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"time"
)

// pulse measures the lag as a user of B sees it: a row is committed on the
// primary every 50 ms, and the time until the target shows it is its lag.
type pulse struct {
	primary, target *sql.DB

	mu      sync.Mutex
	pending map[int64]time.Time // committed in A, not yet seen in B
	lags    []time.Duration
	next    int64
}

const pulseEvery = 50 * time.Millisecond

func newPulse(ctx context.Context, primary, target *sql.DB) (*pulse, error) {
	for _, q := range []string{
		"DROP DATABASE IF EXISTS load_pulse", "CREATE DATABASE load_pulse",
		"CREATE TABLE load_pulse.beat (id BIGINT PRIMARY KEY, at DATETIME(6) NOT NULL)",
	} {
		if _, err := primary.ExecContext(ctx, q); err != nil {
			return nil, fmt.Errorf("%s: %w", q, err)
		}
	}
	return &pulse{primary: primary, target: target, pending: map[int64]time.Time{}}, nil
}

func (p *pulse) write(ctx context.Context) error {
	t := time.NewTicker(pulseEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		p.next++
		_, err := p.primary.ExecContext(ctx, "INSERT INTO load_pulse.beat VALUES (?, NOW(6))", p.next)
		if ctx.Err() != nil {
			return nil // this one has an unknown outcome and is not measured
		}
		if err != nil {
			return fmt.Errorf("pulse: %w", err)
		}
		p.mu.Lock()
		p.pending[p.next] = time.Now()
		p.mu.Unlock()
	}
}

func (p *pulse) read(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := p.poll(ctx); err != nil && ctx.Err() == nil {
			// The table comes to B with the first rows.
			continue
		}
	}
}

// poll looks which of the pending pulses the target has.
func (p *pulse) poll(ctx context.Context) error {
	p.mu.Lock()
	oldest := int64(-1)
	for id := range p.pending {
		if oldest < 0 || id < oldest {
			oldest = id
		}
	}
	p.mu.Unlock()
	if oldest < 0 {
		return nil
	}
	rows, err := p.target.QueryContext(ctx, "SELECT id FROM load_pulse.beat WHERE id >= ?", oldest)
	if err != nil {
		return err
	}
	defer rows.Close()
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return err
		}
		if at, ok := p.pending[id]; ok {
			p.lags = append(p.lags, now.Sub(at))
			delete(p.pending, id)
		}
	}
	return rows.Err()
}

// lag is that of the oldest pulse still on its way, or else of the latest seen.
func (p *pulse) lag() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var most time.Duration
	for _, at := range p.pending {
		most = max(most, time.Since(at))
	}
	if most == 0 && len(p.lags) > 0 {
		most = p.lags[len(p.lags)-1]
	}
	return most
}

// quantiles of all lags, outages included.
func (p *pulse) quantiles() (median, p99, most time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lags) == 0 {
		return 0, 0, 0
	}
	l := slices.Clone(p.lags)
	slices.Sort(l)
	at := func(q float64) time.Duration { return l[int(q*float64(len(l)-1))] }
	return at(0.5), at(0.99), l[len(l)-1]
}
