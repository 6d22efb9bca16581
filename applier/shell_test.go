package applier

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) {
	mysqltest.Main(m, func() error {
		// A dependency of the collation tables starts it with the program.
		return goleak.Find(goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
	})
}

// hostile is a backend in memory that fails in every way a server can: before a
// transaction, in it, and after its commit. One table, id → value; a change
// that meets another state than the log's is a problem.
type hostile struct {
	mu       sync.Mutex
	rng      *rand.Rand
	failures int // in 100

	epoch    uint64
	lanes    []change.Place
	routing  int
	progress progress
	digests  map[schema.Name]uint64
	rows     map[int64]string
	ddls     map[change.Place]bool
	ddlRuns  int
	problem  error
	writes   int
	burden   load
	// states, when set, are the contents after each transaction, by its end: all
	// that a reader may ever see.
	states map[change.Place]string

	lease time.Duration // sessions that are silent for longer are dead; 0: never

	largest     int      // rows of a batch
	incarnation int      // of the server: sessions of an earlier one are dead
	saved       *hostile // what a server that lost its last commits has
	regressions int
}

// snapshot and regress: a server that crashes may lose its last commits, all
// that came after one of them.
func (h *hostile) snapshot() {
	h.saved = &hostile{lanes: slices.Clone(h.lanes), progress: h.progress, digests: maps.Clone(h.digests), rows: maps.Clone(h.rows),
		ddls: maps.Clone(h.ddls), epoch: h.epoch, routing: h.routing}
}

func (h *hostile) regress() {
	s := h.saved
	if s == nil || s.epoch != h.epoch {
		return
	}
	h.lanes, h.progress, h.digests, h.rows, h.ddls, h.routing = s.lanes, s.progress, s.digests, s.rows, s.ddls, s.routing
	h.saved = nil
	h.incarnation++
	h.regressions++
}

func newHostile(seed uint64, failures int) *hostile {
	return &hostile{rng: rand.New(rand.NewPCG(seed, 0)), failures: failures, routing: causality.RoutingVersion,
		progress: progress{place: causality.Start}, digests: map[schema.Name]uint64{}, rows: map[int64]string{}, ddls: map[change.Place]bool{}}
}

func (h *hostile) fails() error {
	if h.rng.IntN(100) < h.failures {
		return driver.ErrBadConn
	}
	return nil
}

// client is one applier's view of a hostile backend.
type client struct {
	*hostile
	lanesConfigured int
}

func (c *client) close() error { return nil }

func (c *client) claim(context.Context) (claimed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fails(); err != nil {
		return claimed{}, err
	}
	c.epoch++
	if c.lanes == nil {
		for range c.lanesConfigured {
			c.lanes = append(c.lanes, causality.Start)
		}
	}
	d := map[schema.Name]uint64{}
	for k, v := range c.digests {
		d[k] = v
	}
	return claimed{epoch: c.epoch, standing: c.stand(), progress: c.progress, digests: d}, nil
}

func (h *hostile) stand() standing { return standing{slices.Clone(h.lanes), h.routing} }

func (c *client) fenced(epoch uint64) error {
	if epoch != c.epoch {
		return fmt.Errorf("epoch %d: %w", epoch, ErrFenced)
	}
	return nil
}

func (c *client) relane(_ context.Context, epoch uint64, lanes int, m causality.Mode, p change.Place) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.fenced(epoch), c.fails()); err != nil {
		return err
	}
	if err := sameFloor(c.progress.place, p); err != nil {
		return err
	}
	for _, at := range c.lanes {
		if at.Compare(p) > 0 {
			c.problem = fmt.Errorf("lanes replaced at %v while one is at %v", p, at)
		}
	}
	c.lanes, c.routing = nil, m.Version()
	for range lanes {
		c.lanes = append(c.lanes, p)
	}
	return c.fails()
}

func (c *client) load(context.Context, Throttle) (load, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.burden, c.fails()
}

func (c *client) saveProgress(_ context.Context, epoch uint64, p progress, believed standing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.fenced(epoch), c.fails()); err != nil {
		return err
	}
	if err := notBehind(believed, standing{c.lanes, c.routing}); err != nil {
		return err
	}
	if p.place.Compare(c.progress.place) < 0 {
		c.problem = fmt.Errorf("floor went back from %v to %v", c.progress.place, p.place)
	}
	c.progress = p
	return c.fails()
}

func (c *client) saveDigest(_ context.Context, epoch uint64, n schema.Name, d uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.fenced(epoch), c.fails()); err != nil {
		return err
	}
	c.digests[n] = d
	return c.fails()
}

func (c *client) route(_ context.Context, source *schema.Table) (*route, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fails(); err != nil {
		return nil, err
	}
	t := &target.Table{Table: *source, Keys: []target.Key{{Name: "PRIMARY", Primary: true, Parts: source.PrimaryKey}}}
	return &route{source: source, free: true, routing: causality.NewRouting(server.MySQL, source, t, schema.Name{}, false)}, nil
}

func (c *client) forget() {}

func (c *client) changed(*change.DDL) (names []schema.Name, all bool) { return nil, true }

func (c *client) ddl(_ context.Context, epoch uint64, p change.Place, _ *change.DDL, _ server.Flavor) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.fenced(epoch), c.fails()); err != nil {
		return err
	}
	if c.ddls[p] {
		return nil
	}
	for i, at := range c.lanes {
		if at.Compare(p) > 0 {
			c.problem = fmt.Errorf("DDL at %v while lane %d is at %v", p, i, at)
		}
	}
	c.ddls[p] = true
	c.ddlRuns++
	return c.fails()
}

func (c *client) hold(ctx context.Context, epoch uint64) error {
	for {
		c.mu.Lock()
		err := c.fenced(epoch)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

func (c *client) lane(_ context.Context, epoch uint64, index int) (laneSession, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.fails(); err != nil {
		return nil, err
	}
	return &hostileLane{c: c, epoch: epoch, index: index, incarnation: c.incarnation, used: time.Now()}, nil
}

type hostileLane struct {
	c           *client
	epoch       uint64
	index       int
	incarnation int
	used        time.Time

	// The open transaction.
	moved bool
	to    change.Place
	rows  []change.Row
}

func (l *hostileLane) dead() error {
	if l.incarnation != l.c.incarnation || l.c.lease > 0 && time.Since(l.used) > l.c.lease {
		return driver.ErrBadConn
	}
	l.used = time.Now()
	return nil
}

func (l *hostileLane) standing(context.Context) (standing, error) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if err := errors.Join(l.dead(), l.c.fenced(l.epoch), l.c.fails()); err != nil {
		return standing{}, err
	}
	return l.c.stand(), nil
}

func (l *hostileLane) reset(context.Context, error) bool { return false }
func (l *hostileLane) close()                            {}

func (l *hostileLane) rollback(context.Context) error {
	l.rows, l.moved = nil, false
	return nil
}

func (l *hostileLane) batch(ctx context.Context, from, to change.Place, runs []run) (target.Outcome, error) {
	if err := l.move(ctx, from, to); err != nil {
		return target.Outcome{}, err
	}
	return l.apply(ctx, runs)
}

func (l *hostileLane) move(_ context.Context, from, to change.Place) error {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(l.dead(), c.fenced(l.epoch), c.fails()); err != nil {
		return err
	}
	at := c.lanes[l.index]
	if l.moved {
		at = l.to
	}
	if at != from {
		c.problem = fmt.Errorf("lane %d is at %v, not %v", l.index, at, from)
		return c.problem
	}
	l.to, l.moved = to, true
	return nil
}

// look is the row as the open transaction sees it.
func (l *hostileLane) look(id int64) (string, bool) {
	for i := len(l.rows) - 1; i >= 0; i-- {
		r := &l.rows[i]
		if r.After != nil && r.After[0].Integer() == id {
			return string(r.After[1].Bytes()), true
		}
		if r.Before != nil && r.Before[0].Integer() == id {
			return "", false
		}
	}
	v, ok := l.c.rows[id]
	return v, ok
}

func (l *hostileLane) apply(_ context.Context, runs []run) (sum target.Outcome, err error) {
	n := 0
	for _, r := range runs {
		n += len(r.rows)
	}
	l.c.mu.Lock()
	l.c.largest = max(l.c.largest, n)
	l.c.mu.Unlock()
	for _, r := range runs {
		out, err := l.applyRun(r)
		sum.Add(out)
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func (l *hostileLane) applyRun(r run) (target.Outcome, error) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(l.dead(), c.fenced(l.epoch), c.fails()); err != nil {
		return target.Outcome{}, err
	}
	k := 2
	if c.failures > 0 {
		k = c.rng.IntN(150)
	}
	switch k {
	case 0:
		c.snapshot()
	case 1:
		c.regress()
		return target.Outcome{}, driver.ErrBadConn
	}
	for _, row := range r.rows {
		id := row.Before
		if id == nil {
			id = row.After
		}
		have, ok := l.look(id[0].Integer())
		if row.Before == nil && ok || row.Before != nil && have != string(row.Before[1].Bytes()) {
			c.problem = fmt.Errorf("%s of %d met %q, lane %d to %v, lanes %v", row.Op, id[0].Integer(), have, l.index, l.to, c.lanes)
		}
		l.rows = append(l.rows, row)
	}
	return target.Outcome{Updated: len(r.rows)}, nil
}

func (l *hostileLane) alive(context.Context) error {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	return errors.Join(l.dead(), l.c.fails())
}

func (l *hostileLane) commit(context.Context) error {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := l.rows
	l.rows, l.moved = nil, false
	if err := errors.Join(l.dead(), c.fenced(l.epoch), c.fails()); err != nil {
		return err
	}
	for _, row := range rows {
		if row.After == nil {
			delete(c.rows, row.Before[0].Integer())
		} else {
			c.rows[row.After[0].Integer()] = string(row.After[1].Bytes())
		}
	}
	c.lanes[l.index] = l.to
	c.writes++
	if want, ok := c.states[highest(c.lanes)]; c.states != nil && (!ok || fmt.Sprint(c.rows) != want) {
		c.problem = fmt.Errorf("visible at %v: %v, which never was; %q", highest(c.lanes), c.rows, want)
	}
	return c.fails() // committed, and the answer may be lost
}

func highest(places []change.Place) change.Place {
	top := causality.Start
	for _, p := range places {
		if p.Compare(top) > 0 {
			top = p
		}
	}
	return top
}

var shellTable = &schema.Table{
	Name:       schema.Name{Schema: "db", Table: "t"},
	Columns:    []schema.Column{{Name: "id", Type: schema.Int}, {Name: "v", Type: schema.VarChar, Length: 40, Charset: "utf8mb4", Collation: "utf8mb4_bin"}},
	PrimaryKey: []schema.KeyPart{{Column: 0}},
}

// fed is one call of Apply.
type fed struct {
	place change.Place
	t     change.Transaction
}

// as is the configuration for a mode, with large transactions from a few rows on.
func (c Config) as(m causality.Mode) Config {
	if m != causality.Rows {
		c.Atomicity, c.AnyOrder, c.LargeBytes, c.BatchBytes = AtomicTransaction, m == causality.Transactions, 3000, 900
	}
	return c
}

// statesOf is the contents after each transaction, by the place of its end.
func statesOf(history []fed) map[change.Place]string {
	rows := map[int64]string{}
	out := map[change.Place]string{causality.Start: fmt.Sprint(rows)}
	for _, f := range history {
		for _, r := range f.t.Rows {
			if r.After == nil {
				delete(rows, r.Before[0].Integer())
			} else {
				rows[r.After[0].Integer()] = string(r.After[1].Bytes())
			}
		}
		if !f.t.Continued {
			out[lastPlace([]fed{f})] = fmt.Sprint(rows)
		}
	}
	return out
}

// script makes a history of one table, some of it in parts, with DDL.
func script(rng *rand.Rand, n int) ([]fed, map[int64]string) {
	state := map[int64]string{}
	image := func(id int64) []change.Value {
		return []change.Value{change.IntegerOf(id), change.TextOf([]byte(state[id]))}
	}
	var out []fed
	p := change.Place{}
	for i := range n {
		t := change.Transaction{GTID: fmt.Sprintf("0-1-%d", i+1), CommitTime: time.Now()}
		if rng.IntN(40) == 0 {
			t.DDL = &change.DDL{Text: "ALTER"}
		}
		changes, bulk := rng.IntN(12), rng.IntN(8) == 0 // neighbours, one after the other, again and again
		if bulk {
			changes *= 4
		}
		for k := range changes {
			id := int64(rng.IntN(20)) * 700 // in several blocks
			if bulk {
				id = 100_000 + int64(k%20)
			}
			r := change.Row{Table: shellTable}
			_, there := state[id]
			if there {
				r.Before = image(id)
			}
			if there && rng.IntN(3) == 0 {
				r.Op = change.Delete
				delete(state, id)
			} else {
				r.Op = change.Insert
				if there {
					r.Op = change.Update
				}
				state[id] = fmt.Sprintf("%d.%d", i, k)
				r.After = image(id)
			}
			t.Rows = append(t.Rows, r)
		}
		if cut := len(t.Rows) / 2; cut > 0 && t.DDL == nil && rng.IntN(4) == 0 {
			first := t
			first.Rows, first.Continued = t.Rows[:cut], true
			out = append(out, fed{p, first})
			if rng.IntN(2) == 0 {
				p = change.Place{Offset: p.Offset + 1}
			} else {
				p.Index += int32(cut)
			}
			t.Rows, t.Continues = t.Rows[cut:], true
		}
		out = append(out, fed{p, t})
		p.Index += int32(len(t.Rows)) + 1
		if t.DDL != nil {
			p.Index++
		}
		if rng.IntN(3) == 0 {
			p = change.Place{Offset: p.Offset + 1}
		}
	}
	return out, state
}

// TestHostileBackend: one applier after the other, with other numbers of lanes,
// killed at any time, some fenced by their successor while still running, over a
// target that fails all the time and now and then loses its last commits.
func TestHostileBackend(t *testing.T) {
	runs := 12
	if testing.Short() {
		runs = 3
	}
	for _, mode := range []causality.Mode{causality.Rows, causality.Transactions, causality.Ordered} {
		for range runs {
			seed := uint64(time.Now().UnixNano())
			t.Run(fmt.Sprint(mode, "/seed=", seed), func(t *testing.T) { hostileRun(t, seed, mode) })
		}
	}
}

// hostileRun: with Ordered alone, everything that is ever visible is a state
// that the source had at the end of a transaction.
func hostileRun(t *testing.T, seed uint64, mode causality.Mode) {
	rng := rand.New(rand.NewPCG(seed, 1))
	history, want := script(rng, 400)
	h := newHostile(seed, 2)
	if mode == causality.Ordered {
		h.states = statesOf(history)
	}
	var zombies sync.WaitGroup
	defer zombies.Wait()
	end := history[len(history)-1]
	last := end.place
	last.Index += int32(len(end.t.Rows))
	if end.t.DDL != nil {
		last.Index++
	}
	for attempt := 0; ; attempt++ {
		if attempt > 200 {
			t.Fatal("no end")
		}
		lanes := 1 + rng.IntN(6)
		cfg, err := Config{Stream: "s", Lanes: lanes, BatchRows: 1 + rng.IntN(8), WindowBytes: int64(2000 + rng.IntN(20000)),
			ProgressInterval: time.Millisecond, BatchDelay: time.Duration(rng.IntN(2)) * time.Millisecond}.as(mode).withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		cfg.older = rng.IntN(2) == 0 // each goes on from what the other left apart
		a := newApplier(cfg, &client{h, lanes}, zerolog.Nop())
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		life := time.Duration(20+rng.IntN(100)) * time.Millisecond
		kill := time.AfterFunc(life, cancel)
		stopAsking := make(chan struct{}) // closed below, when all is fed or the applier is told to end
		var asking sync.WaitGroup
		if rng.IntN(2) == 0 {
			other, pause := 1+rng.IntN(6), time.Duration(rng.IntN(10))*time.Millisecond
			asking.Go(func() {
				for n := other; ; n = n%6 + 1 {
					select {
					case <-stopAsking:
						return
					case <-time.After(pause):
					}
					if err := a.SetLanes(n); err != nil {
						t.Error(err)
					}
				}
			})
		}
		reached := feedAll(ctx, a, history, last)
		close(stopAsking)
		asking.Wait()
		kill.Stop()
		zombie := !reached && rng.IntN(3) == 0
		if zombie { // it lives on beside its successor, until fenced
			zombies.Add(1)
			go func() {
				defer zombies.Done()
				<-ran
			}()
			time.AfterFunc(200*time.Millisecond, cancel)
		} else {
			cancel()
			if err := <-ran; err != nil && !errors.Is(err, ErrFenced) && !errors.Is(err, ErrRegressed) && !errors.Is(err, ErrInterrupted) {
				t.Errorf("Run: %v", err)
			}
		}
		h.mu.Lock()
		problem, floor := h.problem, h.progress
		h.mu.Unlock()
		if problem != nil {
			cancel()
			t.Fatal(problem)
		}
		if reached {
			h.mu.Lock()
			defer h.mu.Unlock()
			if got := fmt.Sprint(h.rows); got != fmt.Sprint(want) {
				t.Errorf("rows %s\nwant %v", got, want)
			}
			if floor.gtidSet != end.t.GTID {
				t.Errorf("applied %q, want %q", floor.gtidSet, end.t.GTID)
			}
			t.Logf("%d appliers, %d batches, %d DDLs, %d regressions", attempt+1, h.writes, h.ddlRuns, h.regressions)
			return
		}
	}
}

// feedAll feeds from where the applier stands; true when all is durable.
func feedAll(ctx context.Context, a *Applier, history []fed, last change.Place) bool {
	from, err := a.Resume(ctx)
	if err != nil {
		return false
	}
	for _, f := range history {
		if f.place.Offset < from {
			continue
		}
		t := f.t
		if err := a.Apply(ctx, f.place, &t, ""); err != nil {
			return false
		}
	}
	for ctx.Err() == nil {
		if p, _ := a.Durable(); p == last {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// TestResumeWithinTransaction: a lane stands in the middle of rows that follow each
// other. Those up to there are not applied again, together with the next or alone.
func TestResumeWithinTransaction(t *testing.T) {
	const rows, batch = 100, 7
	for done := range rows {
		h := newHostile(1, 0)
		h.lanes = []change.Place{{Index: int32(done)}}
		tx := change.Transaction{GTID: "0-1-1", CommitTime: time.Now()}
		for i := range int64(rows) {
			if tx.Rows = append(tx.Rows, change.Row{Table: shellTable, After: []change.Value{change.IntegerOf(i), change.TextOf([]byte("x"))}}); int(i) <= done {
				h.rows[i] = "x"
			}
		}
		cfg, err := Config{Stream: "s", Lanes: 1, BatchRows: batch, ProgressInterval: time.Millisecond}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		a := newApplier(cfg, &client{h, 1}, zerolog.Nop())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		all := feedAll(ctx, a, []fed{{change.Place{}, tx}}, change.Place{Index: rows})
		cancel()
		if err := <-ran; err != nil || !all {
			t.Fatalf("%d of %d done: %v, %v", done+1, rows, all, err)
		}
		if h.problem != nil || len(h.rows) != rows || h.largest > batch {
			t.Fatalf("%d of %d done: %v; %d rows, %d in a batch", done+1, rows, h.problem, len(h.rows), h.largest)
		}
	}
}

// TestHaltShowsAndHeals: a halt names what is wrong, holds up only what has to
// wait, and ends by itself.
func TestHaltShowsAndHeals(t *testing.T) {
	h := newHostile(1, 0)
	c := &client{h, 4}
	refused := &refusing{client: c}
	refused.set(fmt.Errorf("table db.t: %w", target.ErrNoTable))
	cfg, err := Config{Stream: "s", Lanes: 4, ProgressInterval: time.Millisecond}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	a := newApplier(cfg, refused, zerolog.Nop())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	row := change.Row{Table: shellTable, After: []change.Value{change.IntegerOf(1), change.TextOf([]byte("x"))}}
	fed := make(chan error, 1)
	go func() {
		fed <- a.Apply(ctx, change.Place{}, &change.Transaction{GTID: "0-1-1", Rows: []change.Row{row}}, "0-1-1")
	}()
	for len(a.Status().Halts) == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if halts := a.Status().Halts; len(halts) != 1 || halts[0].Code != CodeTableMissing || !strings.Contains(halts[0].Reason, "db.t") {
		t.Errorf("halts %+v", halts)
	}
	refused.set(nil)
	if err := <-fed; err != nil {
		t.Error(err)
	}
	for p, _ := a.Durable(); p != (change.Place{Index: 1}) && ctx.Err() == nil; p, _ = a.Durable() {
		time.Sleep(time.Millisecond)
	}
	if s := a.Status(); len(s.Halts) != 0 || s.GTIDSet != "0-1-1" || s.Rows != 1 || s.LagSeconds != 0 {
		t.Errorf("status %+v", s)
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if err := a.Apply(context.Background(), change.Place{Offset: 1}, &change.Transaction{}, ""); !errors.Is(err, log.ErrClosed) {
		t.Errorf("Apply after Run: %v", err)
	}
}

type refusing struct {
	*client
	err error
}

func (r *refusing) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *refusing) route(ctx context.Context, s *schema.Table) (*route, error) {
	r.mu.Lock()
	err := r.err
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.client.route(ctx, s)
}
