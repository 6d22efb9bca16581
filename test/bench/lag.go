package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/wan"
	"github.com/twinspan/twinspan/test/harness"
)

// lagSettings are those of the lag part.
type lagSettings struct {
	settings
	rate      int
	spell     time.Duration
	delays    string
	atomicity string
}

// lag times how long a transaction takes from its commit in A until a reader in
// B sees it, at a steady rate: native replication and our whole pipeline in turn,
// under the same load, with the cities so far apart. Ours waits for the log's node
// in B before it goes on, so one round trip more is what it may take.
func lag(ctx context.Context, s lagSettings) error {
	var behind []string
	for _, text := range strings.Split(s.delays, ",") {
		rtt, err := time.ParseDuration(strings.TrimSpace(text))
		if err != nil {
			return err
		}
		ok, err := lagAt(ctx, s, rtt)
		if err != nil {
			return fmt.Errorf("%s between the cities: %w", rtt, err)
		}
		if !ok {
			behind = append(behind, rtt.String())
		}
	}
	if len(behind) > 0 {
		return fmt.Errorf("%w: later than native and a round trip with %s between the cities", errTarget, strings.Join(behind, ", "))
	}
	return nil
}

func lagAt(ctx context.Context, s lagSettings, rtt time.Duration) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "twinspan-bench-lag-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	var servers []*mysqltest.Server
	defer func() {
		for _, srv := range servers {
			closing(srv)
		}
	}()
	run := func(opts ...mysqltest.Option) (*mysqltest.Server, error) {
		o := mysqltest.Options{Flavor: s.flavor, Durable: true}
		for _, f := range opts {
			f(&o)
		}
		srv, err := mysqltest.Run(ctx, o)
		if err == nil {
			servers = append(servers, srv)
		}
		return srv, err
	}
	source, err := run(mysqltest.With("sync-binlog", "0"), mysqltest.With("innodb-flush-log-at-trx-commit", "2"))
	if err != nil {
		return false, err
	}
	native, err := run()
	if err != nil {
		return false, err
	}
	target, err := run()
	if err != nil {
		return false, err
	}
	gate, err := lagNetwork(ctx, source, rtt)
	if err != nil {
		return false, err
	}
	defer gate.stop()
	if err := gate.replicate(ctx, native); err != nil {
		return false, err
	}
	p, err := harness.New(harness.Config{
		Binary: s.binary, Dir: filepath.Join(dir, "pipeline"), Stream: "bench", Source: source, Target: target,
		Set:    map[harness.Role][]string{harness.Consumer: {"apply.atomicity=" + s.atomicity}},
		Cities: &harness.Cities{RoundTrip: rtt},
	})
	if err != nil {
		return false, err
	}
	if err := p.StartAll(ctx); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	m := &lagMeter{source: source.DB()}
	if err := m.prepare(ctx); err != nil {
		return false, err
	}
	settle := func() error {
		want, err := source.GTIDs(ctx)
		if err != nil {
			return err
		}
		return errors.Join(native.WaitForGTIDs(ctx, want), p.WaitApplied(ctx, want, time.Minute))
	}
	if err := settle(); err != nil {
		return false, err
	}
	fmt.Printf("lag: %d transactions/s, %s between the cities, %s, atomicity %s, %d rounds of %s each\n", s.rate, rtt, s.flavor, s.atomicity, s.rounds, s.spell)
	var theirs, ours []time.Duration
	for round := range s.rounds {
		turns := []func() error{
			func() error { // native alone
				thaw, err := freezeRoles(p, harness.Consumer, harness.Producer)
				if err != nil {
					return err
				}
				defer thaw()
				l, err := m.measure(ctx, native.DB(), s.rate, s.spell)
				theirs = append(theirs, l...)
				reportLag("native", round, l)
				return err
			},
			func() error {
				if err := stopNative(ctx, native, "STOP"); err != nil {
					return err
				}
				l, err := m.measure(ctx, target.DB(), s.rate, s.spell)
				ours = append(ours, l...)
				reportLag("twinspan", round, l)
				return errors.Join(err, stopNative(ctx, native, "START"))
			},
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return false, err
			}
			if err := settle(); err != nil {
				return false, err
			}
		}
	}
	n50, n99, o50, o99 := quantile(theirs, 0.5), quantile(theirs, 0.99), quantile(ours, 0.5), quantile(ours, 0.99)
	ok = o50 <= n50+rtt && o99 <= n99+rtt
	fmt.Printf("RESULT bench-lag rtt_ms=%.0f flavor=%s atomicity=%s rate=%d native_p50_ms=%.1f native_p99_ms=%.1f twinspan_p50_ms=%.1f twinspan_p99_ms=%.1f allowed_p50_ms=%.1f allowed_p99_ms=%.1f ok=%v\n",
		ms(rtt), s.flavor, s.atomicity, s.rate, ms(n50), ms(n99), ms(o50), ms(o99), ms(n50+rtt), ms(n99+rtt), ok)
	return ok, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func quantile(l []time.Duration, q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	l = slices.Sorted(slices.Values(l))
	return l[int(q*float64(len(l)-1))]
}

func reportLag(who string, round int, l []time.Duration) {
	fmt.Printf("  round %d: %-8s p50 %7.1f ms   p99 %7.1f ms   most %7.1f ms   (%d samples)\n",
		round+1, who, ms(quantile(l, 0.5)), ms(quantile(l, 0.99)), ms(quantile(l, 1)), len(l))
}

// freezeRoles stops processes while the other side is measured.
func freezeRoles(p *harness.Pipeline, roles ...harness.Role) (thaw func(), err error) {
	thaw = func() {
		for _, r := range roles {
			if pid, _ := p.Process(r); pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGCONT)
			}
		}
	}
	for _, r := range roles {
		if pid, _ := p.Process(r); pid > 0 {
			err = errors.Join(err, syscall.Kill(pid, syscall.SIGSTOP))
		}
	}
	return thaw, err
}

func stopNative(ctx context.Context, srv *mysqltest.Server, verb string) error {
	what := " REPLICA"
	if srv.Flavor.IsMariaDB() {
		what = " SLAVE"
	}
	_, err := srv.DB().ExecContext(ctx, verb+what)
	return err
}

// lagGate stands between the source and its native replica.
type lagGate struct {
	network *wan.Network
	address string
	stop    func()
}

func lagNetwork(ctx context.Context, source *mysqltest.Server, rtt time.Duration) (*lagGate, error) {
	n, err := wan.New(wan.Config{
		Gates:  []wan.Gate{{Name: "source", City: "a", Listen: "127.0.0.1:0", Target: source.Address}},
		Cities: []wan.Place{{Prefix: netip.MustParsePrefix("127.0.0.0/8"), City: "b"}},
		Ways:   []wan.Between{{From: "a", To: "b", Way: wan.Way{Delay: rtt / 2}}, {From: "b", To: "a", Way: wan.Way{Delay: rtt / 2}}},
		Logger: zerolog.Nop(),
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "bench: network:", err)
		}
	})
	return &lagGate{network: n, address: n.Gates()[0].Listen, stop: func() { cancel(); wg.Wait() }}, nil
}

// replicate makes the server a replica over the gate.
func (g *lagGate) replicate(ctx context.Context, srv *mysqltest.Server) error {
	at, err := netip.ParseAddrPort(g.address)
	if err != nil {
		return err
	}
	return srv.ReplicateFrom(ctx, &mysqltest.Server{Flavor: srv.Flavor, Address: g.address, Port: int(at.Port())})
}

// lagMeter writes to the source and watches a target.
type lagMeter struct {
	source *sql.DB
	next   atomic.Int64 // number of the last beat
}

const (
	lagWriters = 16
	lagRows    = 10000
	beatEvery  = 10 // every so manyth transaction of a writer is one that is watched
	lagPoll    = time.Millisecond
)

func (m *lagMeter) prepare(ctx context.Context) error {
	m.source.SetMaxIdleConns(lagWriters)
	for _, q := range []string{
		"CREATE DATABASE bench_lag",
		"CREATE TABLE bench_lag.beat (id BIGINT PRIMARY KEY, note VARCHAR(60) NOT NULL) ENGINE=InnoDB",
		"CREATE TABLE bench_lag.item (id INT PRIMARY KEY, n INT NOT NULL, note VARCHAR(100) NOT NULL) ENGINE=InnoDB",
	} {
		if _, err := m.source.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	for from := 0; from < lagRows; from += 1000 {
		var v []string
		for id := range 1000 {
			v = append(v, fmt.Sprintf("(%d,0,'%s')", from+id, strings.Repeat("x", 80)))
		}
		if _, err := m.source.ExecContext(ctx, "INSERT INTO bench_lag.item VALUES "+strings.Join(v, ",")); err != nil {
			return err
		}
	}
	return nil
}

// measure writes at the rate for as long as told and returns what the watched
// transactions took. The first second warms up and is left out.
func (m *lagMeter) measure(ctx context.Context, target *sql.DB, rate int, spell time.Duration) ([]time.Duration, error) {
	began := time.Now()
	end := began.Add(spell + time.Second)
	var mu sync.Mutex
	pending := map[int64]time.Time{}
	var lags []time.Duration
	var wg sync.WaitGroup
	failed := make(chan error, lagWriters) // owner: the writers; bound: one each; never closed
	period := time.Duration(lagWriters) * time.Second / time.Duration(rate)
	for w := range lagWriters {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), uint64(began.UnixNano())))
			conn, err := m.source.Conn(ctx)
			if err != nil {
				failed <- err
				return
			}
			defer conn.Close()
			due := began.Add(period * time.Duration(w) / lagWriters)
			for i := 0; due.Before(end); i, due = i+1, due.Add(period) {
				time.Sleep(time.Until(due))
				if i%beatEvery != 0 {
					_, err = conn.ExecContext(ctx, fmt.Sprintf("UPDATE bench_lag.item SET n = n + 1, note = '%080d' WHERE id = %d", i, rng.IntN(lagRows)))
				} else {
					id := m.next.Add(1)
					_, err = conn.ExecContext(ctx, fmt.Sprintf("INSERT INTO bench_lag.beat VALUES (%d, 'a beat of the bench')", id))
					mu.Lock()
					pending[id] = time.Now()
					mu.Unlock()
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	look := func() error {
		mu.Lock()
		oldest := int64(-1)
		for id := range pending {
			if oldest < 0 || id < oldest {
				oldest = id
			}
		}
		mu.Unlock()
		if oldest < 0 {
			return nil
		}
		rows, err := target.QueryContext(ctx, fmt.Sprintf("SELECT id FROM bench_lag.beat WHERE id >= %d", oldest))
		if err != nil {
			return err
		}
		defer rows.Close()
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		for rows.Next() {
			var id int64
			if err := rows.Scan(&id); err != nil {
				return err
			}
			if at, ok := pending[id]; ok {
				delete(pending, id)
				if at.Sub(began) > time.Second {
					lags = append(lags, max(0, now.Sub(at)))
				}
			}
		}
		return rows.Err()
	}
	written := make(chan struct{}) // closed below when every writer has ended
	go func() { wg.Wait(); close(written) }()
	for over := false; ; {
		select {
		case <-written:
			over = true
		case err := <-failed:
			<-written
			return nil, err
		default:
		}
		if err := look(); err != nil {
			<-written
			return nil, err
		}
		mu.Lock()
		left := len(pending)
		mu.Unlock()
		if over && left == 0 {
			return lags, nil
		}
		if time.Since(end) > patience {
			<-written
			return nil, fmt.Errorf("%d transactions are not on the target after %s", left, patience)
		}
		time.Sleep(lagPoll)
	}
}
