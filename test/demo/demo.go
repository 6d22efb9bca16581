package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/workload"
	"github.com/twinspan/twinspan/test/harness"
)

const stream = "demo"

// demo is one run. Its parts are made by run, in this order, and ended by close.
type demo struct {
	settings
	screen *screen

	primary, standby, target *mysqltest.Server
	pipeline                 *harness.Pipeline
	load                     *workload.Workload
	crossed                  crossed
	pulse                    *pulse
	began, loaded            time.Time
}

func (d *demo) run(ctx context.Context) (result, error) {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"starting three servers and the replication in A", d.startServers},
		{"starting twinspan: nodes in A, B and C, a producer, a consumer", d.startPipeline},
		{"filling the tables", d.prepare},
		{"load, with crashes", d.drive},
		{"waiting for B to catch up", d.catchUp},
	}
	d.screen.event("seed %d, %s, logs in %s", d.seed, d.flavor, d.dir)
	for _, s := range steps {
		began := time.Now()
		d.screen.phase(s.name)
		if err := s.do(ctx); err != nil {
			return result{}, fmt.Errorf("%s: %w", s.name, err)
		}
		d.screen.event("%s: %.1f s", s.name, time.Since(began).Seconds())
	}
	return d.check(ctx)
}

func (d *demo) startServers(ctx context.Context) error {
	if d.keep {
		// What an earlier run left goes first.
		if stop := filepath.Join(d.dir, "stop"); exists(stop) {
			if out, err := exec.CommandContext(ctx, stop).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", stop, err, out)
			}
		}
		if err := os.RemoveAll(d.dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	var g errgroup.Group
	for name, s := range map[string]**mysqltest.Server{"primary": &d.primary, "standby": &d.standby, "target": &d.target} {
		g.Go(func() (err error) {
			o := mysqltest.Options{Flavor: d.flavor, Durable: true, Detach: d.keep}
			if d.keep {
				o.Dir = filepath.Join(d.dir, name)
			}
			*s, err = mysqltest.Run(ctx, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return d.standby.ReplicateFrom(ctx, d.primary)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (d *demo) startPipeline(ctx context.Context) error {
	var err error
	d.pipeline, err = harness.New(harness.Config{
		Binary: d.binary, Dir: d.dir, Stream: stream, Source: d.standby, Target: d.target, Detach: d.keep,
		Cities: &harness.Cities{RoundTrip: d.delay},
	})
	if err != nil {
		return err
	}
	return d.pipeline.StartAll(ctx)
}

func (d *demo) prepare(ctx context.Context) error {
	f, err := os.Create(filepath.Join(d.dir, "load.log"))
	if err != nil {
		return err
	}
	d.load = workload.New(workload.Config{
		Seed: d.seed, DB: d.primary.DB(), Clients: d.clients, Rate: d.rate, Types: true, DDLEvery: 200 * time.Millisecond,
		Log: zerolog.New(f).With().Timestamp().Logger(),
	})
	if err := d.load.Prepare(ctx); err != nil {
		return err
	}
	d.pulse, err = newPulse(ctx, d.primary.DB(), d.target.DB())
	return err
}

// drive runs the load, the pulse and the crashes side by side.
func (d *demo) drive(ctx context.Context) error {
	d.began = time.Now()
	ctx, cancel := context.WithTimeout(ctx, d.length)
	defer cancel()
	var watchers sync.WaitGroup
	watch, stopWatching := context.WithCancel(ctx)
	watchers.Go(func() { d.watch(watch) })
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.load.Run(gctx) })
	g.Go(func() error { return d.pulse.write(gctx) })
	g.Go(func() error { return d.pulse.read(gctx) })
	if !d.calm {
		g.Go(func() error { return d.crash(gctx) })
	}
	err := g.Wait()
	stopWatching()
	watchers.Wait()
	d.loaded = time.Now()
	st := d.load.Stats()
	if len(st.Unexpected) > 0 {
		err = errors.Join(err, fmt.Errorf("the server refused statements of the load: %v", st.Unexpected))
	}
	return err
}

// cityAway is how long a whole city stays down.
const cityAway = 3 * time.Second

// crash is the plan of a run: every process at least once, the standby in between,
// all nodes of a city at once, and the large transaction under fire.
func (d *demo) crash(ctx context.Context) error {
	r := rand.New(rand.NewPCG(d.seed, 99))
	lost, other := "a", "b"
	if r.IntN(2) == 0 {
		lost, other = other, lost
	}
	// One after the other those that the city's end does not take with it.
	single := append(d.pipeline.In(other), d.pipeline.In("c")...)
	single = append(single, harness.Producer, harness.Consumer)
	r.Shuffle(len(single), func(i, j int) { single[i], single[j] = single[j], single[i] })
	plan := []func(context.Context) error{
		d.killer(single[0]), d.killer(single[1]), d.cityKiller(lost), d.killer(single[2]), d.restartStandby,
		d.largeTransaction, d.killer(single[3]), d.killer(single[4]),
	}
	// At fixed times, whatever one of them takes; the last second is for the
	// load alone.
	gap := (d.length - time.Second) / time.Duration(len(plan)+1)
	g, gctx := errgroup.WithContext(ctx)
	for i, do := range plan {
		at := d.began.Add(gap*time.Duration(i+1) - gap/8 + time.Duration(r.Int64N(int64(gap/4))))
		select {
		case <-gctx.Done():
		case <-time.After(time.Until(at)):
			g.Go(func() error { return do(gctx) })
		}
	}
	err := g.Wait()
	<-ctx.Done()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil // the load was over in the middle of it
	}
	return err
}

func (d *demo) killer(r harness.Role) func(context.Context) error {
	return func(ctx context.Context) error {
		pid, _ := d.pipeline.Process(r)
		if err := d.pipeline.Kill(r); err != nil {
			return err
		}
		d.screen.event("kill -9 %d (%s)", pid, r)
		// Without ctx: what was killed must run again in any case.
		began := time.Now()
		if err := d.pipeline.Start(context.WithoutCancel(ctx), r); err != nil {
			return err
		}
		pid, _ = d.pipeline.Process(r)
		d.screen.event("%s is back as %d after %.1f s", r, pid, time.Since(began).Seconds())
		return nil
	}
}

// cityKiller ends all nodes of a city at once.
func (d *demo) cityKiller(city string) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes := d.pipeline.In(city)
		var pids []string
		for _, r := range nodes {
			pid, _ := d.pipeline.Process(r)
			pids = append(pids, fmt.Sprint(pid))
		}
		for _, r := range nodes {
			if err := d.pipeline.Kill(r); err != nil {
				return err
			}
		}
		d.screen.event("kill -9 %s: all nodes of city %s are gone; the log waits, A's clients do not", strings.Join(pids, " "), strings.ToUpper(city))
		select {
		case <-ctx.Done():
		case <-time.After(cityAway):
		}
		began := time.Now()
		for _, r := range nodes {
			if err := d.pipeline.Start(context.WithoutCancel(ctx), r); err != nil {
				return err
			}
		}
		d.screen.event("the nodes of city %s are back after %.1f s", strings.ToUpper(city), time.Since(began).Seconds()+cityAway.Seconds())
		return nil
	}
}

// restartStandby crashes the standby: a clean shutdown of a MySQL with a dump
// client takes ten seconds of waiting, and shows less.
func (d *demo) restartStandby(ctx context.Context) error {
	began := time.Now()
	d.screen.event("kill -9 %d (the standby, under the producer)", d.standby.PID())
	if err := d.standby.Kill(); err != nil {
		return err
	}
	if err := d.standby.Restart(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	d.screen.event("the standby is back as %d after %.1f s", d.standby.PID(), time.Since(began).Seconds())
	return nil
}

func (d *demo) largeTransaction(ctx context.Context) error {
	began := time.Now()
	d.screen.event("one transaction with %d row changes begins", d.large*7/3)
	if err := d.load.Large(ctx, d.large); err != nil {
		return err
	}
	d.screen.event("the large transaction is committed after %.1f s", time.Since(began).Seconds())
	return nil
}

// catchUp waits until B has all that A committed.
func (d *demo) catchUp(ctx context.Context) error {
	set, err := d.primary.GTIDs(ctx)
	if err != nil {
		return err
	}
	if err := d.standby.WaitForGTIDs(ctx, set); err != nil {
		return err
	}
	var watchers sync.WaitGroup
	watch, stop := context.WithCancel(ctx)
	watchers.Go(func() { d.watch(watch) })
	defer watchers.Wait()
	defer stop()
	if err := d.pipeline.WaitApplied(ctx, set, 60*time.Second); err != nil {
		return err
	}
	// The last pulses arrived with the rest.
	if err := d.pulse.poll(ctx); err != nil {
		return err
	}
	d.screen.event("B has everything that A committed")
	return nil
}

// watch feeds the screen until its context ends.
func (d *demo) watch(ctx context.Context) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		d.crossed.look(ctx, d.pipeline)
		d.screen.show(d.snapshot())
	}
}

// close ends everything that was started, in any state of the run.
func (d *demo) close() error {
	var errs []error
	if d.pipeline != nil {
		errs = append(errs, d.pipeline.Stop())
	}
	for _, s := range []*mysqltest.Server{d.target, d.standby, d.primary} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
