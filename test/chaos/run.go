package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/internal/natstest"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/test/chaos/check"
	"github.com/twinspan/twinspan/test/chaos/history"
	"github.com/twinspan/twinspan/test/chaos/lab"
	"github.com/twinspan/twinspan/test/chaos/load"
)

// run is a scenario under way.
type run struct {
	settings
	*lab.Lab
	scenario *scenario
	random   *rand.Rand
	dir      string
	record   *history.Recorder
	worker   *load.Worker // in this process
	streams  []load.Stream
	lives    map[string]int // of workers
	report   *report
	forfeit  *forfeit // nil: no takeover
	logger   zerolog.Logger
}

// The worker processes. Each writer goes for every stream; each reader reads all.
var workers = []struct {
	name  string
	city  int // index
	write bool
}{{"w1", 0, true}, {"w2", 0, true}, {"w3", 1, true}, {"r1", 0, false}, {"r2", 1, false}}

// streamsOf a run: two that are short and much fought over, which porcupine takes
// whole, and a busy one for the linear checker.
func streamsOf() []load.Stream {
	return []load.Stream{
		{Name: "duel", PerSecond: 60, Window: 6, Bytes: 900, Turn: 1500 * time.Millisecond, Rest: time.Second},
		{Name: "relay", PerSecond: 40, Window: 1, Bytes: 600, Turn: 4 * time.Second, Rest: 2 * time.Second},
		{Name: "bulk", PerSecond: 500, Window: 256, Bytes: 4000, Turn: 8 * time.Second, Rest: 6 * time.Second},
	}
}

// The limits of porcupine: it takes streams of up to so many operations, and so
// much time for each.
const (
	operationsMax = 12000
	searchFor     = 15 * time.Second
)

// perform runs a scenario and judges it. An error says that it could not be run
// to its end; the report then tells what was found until there.
func perform(ctx context.Context, s settings, sc *scenario, round int) (*report, error) {
	began := time.Now()
	r := &run{
		settings: s, scenario: sc, lives: map[string]int{}, streams: streamsOf(), report: &report{},
		random: rand.New(rand.NewPCG(s.seed+uint64(round), history.Sum([]byte(sc.name)))),
		dir:    filepath.Join(s.dir, fmt.Sprintf("%s-%d", sc.name, round)),
	}
	err := r.perform(ctx)
	r.report.took = time.Since(began)
	return r.report, err
}

func (r *run) perform(ctx context.Context) (err error) {
	if err := os.MkdirAll(r.historyDir(), 0o700); err != nil {
		return err
	}
	said, err := os.Create(filepath.Join(r.dir, "run.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, said.Close()) }()
	r.logger = zerolog.New(said).Level(zerolog.InfoLevel).With().Timestamp().Logger()
	if r.record, err = history.Create(r.historyDir(), "run"); err != nil {
		return err
	}
	engine, err := r.program()
	if err != nil {
		return errors.Join(err, r.record.Close())
	}
	r.Lab, err = lab.New(lab.Config{Dir: r.dir, Engine: engine, Nodes: r.scenario.nodes, Delay: r.delay, Logger: r.logger})
	if err != nil {
		return errors.Join(err, r.record.Close())
	}
	defer func() { err = errors.Join(err, r.Lab.Close()) }()
	r.worker = &load.Worker{
		Name: "run", Record: r.record, Seed: r.seed, Stall: r.scenario.stall(),
		Connect: func() (log.Log, error) { return r.reach(r.city(0)).connect("chaos/run", r.logger) },
	}
	o := check.Options{Cities: r.scenario.protect, StrongBounds: r.scenario.strongBounds}
	err = r.play(ctx, &o)
	if err = errors.Join(err, r.record.Close()); err != nil && !errors.Is(err, errJudge) {
		return err
	}
	return errors.Join(err, r.judge(o))
}

// program is what the nodes run.
func (r *run) program() (lab.Engine, error) {
	if r.engine != jetStream {
		return lab.Twinspan{Binary: r.binary}, nil
	}
	binary, err := natstest.Binary()
	return lab.JetStream{Binary: binary}, err
}

// errJudge: the run is of use in spite of the error.
var errJudge = errors.New("not all of it could be done")

func (r *run) historyDir() string { return filepath.Join(r.dir, "history") }

// play is setting up, the workload, the faults, the healing and the final reading.
func (r *run) play(ctx context.Context, o *check.Options) error {
	if err := r.Start(ctx, r.In()...); err != nil {
		return err
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	o.From = history.Now()
	for _, w := range workers {
		if err := r.hire(w.name); err != nil {
			return err
		}
	}
	err := r.sleep(ctx, 0.1)
	if err == nil {
		err = r.scenario.faults(ctx, r)
	}
	err = errors.Join(err, r.heal(ctx))
	if err == nil {
		err = r.sleep(ctx, 0.2)
	}
	for _, name := range r.Workers() {
		err = errors.Join(err, r.EndWorker(name, syscall.SIGTERM))
	}
	o.To = history.Now()
	if err != nil {
		return err
	}
	if err := r.final(ctx); err != nil {
		return fmt.Errorf("%w: %w", errJudge, err)
	}
	r.report.memory = r.PeakBytes()
	return nil
}

// sleep is a part of the scenario's duration.
func (r *run) sleep(ctx context.Context, part float64) error {
	return sleep(ctx, time.Duration(part*float64(r.duration)))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errors.Join(errStopped, ctx.Err())
	}
}

// say writes a fault into the history.
func (r *run) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.record.Put(history.Record{Kind: history.Fault, Text: text})
	r.logger.Info().Msg(text)
}

// reach from a city, by way of all nodes; or of some nodes only.
func (r *run) reach(city string, only ...string) reach {
	// The nearest nodes first, as an operator would list them.
	var names []string
	for _, name := range append(r.Storing(city), r.Storing()...) {
		if len(only) == 0 || only[0] == name {
			names = append(names, name)
		}
	}
	out := reach{Engine: r.engine, Nodes: unique(r.Addresses(names...)), City: city, Cities: r.scenario.storing(), Source: r.Source(city).String(), Degrade: r.scenario.degrade}
	if len(only) > 0 {
		out.Only = out.Nodes
	}
	return out
}

func unique(list []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// city of the workers with that index, where there are fewer cities the first.
func (r *run) city(i int) string { return r.Cities()[i%len(r.scenario.storing())] }

// hire starts a worker, or its next life.
func (r *run) hire(name string) error {
	for _, w := range workers {
		if w.name != name {
			continue
		}
		r.lives[name]++
		return r.StartWorker(name, taskVariable, task{
			Name: r.life(name), History: r.historyDir(), Seed: r.random.Uint64(), Stall: r.scenario.stall(), Write: w.write,
			Streams: r.streams, Reach: r.reach(r.city(w.city)),
		})
	}
	panic("no worker " + name)
}

// life is the name of a worker's present process.
func (r *run) life(name string) string { return fmt.Sprintf("%s.%d", name, r.lives[name]) }

// prepare waits until the cluster takes writers, and makes the streams.
func (r *run) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	// Streams that are made before all nodes are known may have to do without some.
	if err := r.whole(ctx); err != nil {
		return err
	}
	return r.eachStream(func(name string) error {
		if _, err := r.worker.Probe(ctx, name); err != nil {
			return fmt.Errorf("the cluster takes no writer: %w", err)
		}
		return nil
	})
}

// eachStream calls f for all streams at once.
func (r *run) eachStream(f func(name string) error) error {
	errs := make([]error, len(r.streams))
	var all sync.WaitGroup
	for i, s := range r.streams {
		all.Go(func() { errs[i] = f(s.Name) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// heal undoes all that can be undone.
func (r *run) heal(ctx context.Context) error {
	r.say("all is healed")
	return errors.Join(r.Heal(), r.Thaw(r.In()...), r.Start(ctx, r.In()...))
}

// final appends a last entry to each stream, which only succeeds when the stream
// is alive, and reads all of it in every way there is.
func (r *run) final(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	var dead sync.Map // streams that take no writer, and why
	err := r.eachStream(func(name string) error {
		end, err := r.worker.Probe(ctx, name)
		if err != nil {
			dead.Store(name, err)
			return nil
		}
		return r.readAll(ctx, name, end)
	})
	for name, err := range dead.Range {
		r.report.extra = append(r.report.extra, fmt.Sprintf("stream %s takes no writer after everything was healed: %v", name, err))
	}
	return errors.Join(err, r.whole(ctx), r.verify(ctx))
}

// readAll reads a stream up to its end in every way there is.
func (r *run) readAll(ctx context.Context, stream string, end log.Offset) error {
	var errs []error
	for via, reach := range r.ways() {
		l, err := reach.connect("chaos/final", r.logger)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		// What goes wrong is in the history, and counts as unreadable.
		_ = r.worker.Final(limited, l, stream, end, via)
		cancel()
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// ways to read at the end: from each city, and by each node alone.
func (r *run) ways() map[string]reach {
	out := map[string]reach{}
	for _, city := range r.scenario.storing() {
		out["city "+city] = r.reach(city)
	}
	return out
}

func (r *run) judge(o check.Options) error {
	records, err := history.Load(r.historyDir())
	if err != nil {
		return err
	}
	if r.forfeit != nil {
		var given []string
		records, given = check.Forfeit(records, r.forfeit.lost, r.forfeit.at)
		r.report.forfeited = len(given)
		if err := r.handedOver(given, records); err != nil {
			return err
		}
	}
	records = check.Bridge(records)
	found, err := check.Linear(records, o)
	if err != nil {
		return err
	}
	r.report.Report = *found
	r.report.verdicts, err = check.Linearizable(records, o, operationsMax, searchFor)
	return err
}
