// Package applier writes the changes of a stream to a target server: in
// parallel lanes, each with a connection of its own, ordered by causality (see
// package causality), each storing its place in the log in the very transaction
// that applies its rows.
package applier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Config of an Applier. Zero fields take the default in brackets.
type Config struct {
	Stream string
	Target server.Endpoint
	Lanes  int // [8]
	// A lane commits when it has BatchRows [4000] or BatchBytes [1 MiB], or
	// when nothing more came for BatchDelay [0: at once]. It begins with fewer
	// rows, and takes more as the target keeps up; see BatchTime.
	BatchRows  int
	BatchBytes int64
	BatchDelay time.Duration
	// BatchTime [500 ms] is what a batch shall take at most on the target: a
	// lane takes fewer rows at a time while they take longer.
	BatchTime time.Duration
	// Atomicity [AtomicRow] says what readers of the target see of a transaction.
	Atomicity Atomicity
	// AnyOrder: transactions become visible in whatever order they get done. It
	// counts for AtomicTransaction; else they do in the order of the log.
	AnyOrder bool
	// LargeBytes [8 MiB] is the memory from which on a transaction that is
	// applied as a whole is written while it is read, alone.
	LargeBytes int64
	// Throttle is what it starts with; see SetThrottle.
	Throttle Throttle
	// Rules stands for what decides which of the log's changes are fed, and by which
	// names [0: nothing]. Lanes that stand apart go on by the same only.
	Rules uint64
	// WindowBytes [48 MiB] bounds what is decoded and not yet durable, in
	// bytes of memory. One transaction part may go beyond it.
	WindowBytes int64
	// Conflicts say what becomes of a change that meets another state of the
	// target than it was made on, and Exceptions which changes are parked.
	Conflicts  conflicts.Policies
	Exceptions Exceptions
	// ProgressInterval [1 s] is how often the floor is stored.
	ProgressInterval time.Duration
	// Lease [30 s]: an owner that is frozen for longer loses its connections,
	// by the target's own clock, and with them the stream.
	Lease time.Duration
	// Owner [host and process id] is shown to people.
	Owner string
	// older: lanes are filled as an older program did; for tests of going on from it.
	older bool
}

// Atomicity is what readers of the target may see of a source transaction.
type Atomicity string

const (
	// AtomicRow: its rows appear one after the other, in several lanes at once.
	AtomicRow Atomicity = "row"
	// AtomicTransaction: all of it, or nothing.
	AtomicTransaction Atomicity = "transaction"
)

func (c Config) mode() causality.Mode {
	if c.older {
		c.older = false
		return c.mode().Older()
	}
	switch {
	case c.Atomicity != AtomicTransaction:
		return causality.Rows
	case c.AnyOrder:
		return causality.Transactions
	}
	return causality.Ordered
}

// MaxLanes is how many lanes there can be.
const MaxLanes = 1024

func (c Config) withDefaults() (Config, error) {
	if c.Stream == "" {
		return c, errors.New("applier: no stream")
	}
	if len(c.Stream) > 190 {
		return c, fmt.Errorf("applier: stream name of %d bytes: at most 190", len(c.Stream))
	}
	set := func(p *int64, d int64) {
		if *p <= 0 {
			*p = d
		}
	}
	if c.Lanes <= 0 {
		c.Lanes = 8
	}
	if c.Lanes > MaxLanes {
		return c, fmt.Errorf("applier: %d lanes: at most %d", c.Lanes, MaxLanes)
	}
	if c.BatchRows <= 0 {
		c.BatchRows = 4000
	}
	switch c.Atomicity {
	case "":
		c.Atomicity = AtomicRow
	case AtomicRow, AtomicTransaction:
	default:
		return c, fmt.Errorf("applier: atomicity %q: %s or %s", c.Atomicity, AtomicRow, AtomicTransaction)
	}
	set(&c.LargeBytes, 8<<20)
	set((*int64)(&c.BatchTime), int64(500*time.Millisecond))
	set(&c.BatchBytes, 1<<20)
	set(&c.WindowBytes, 48<<20)
	set((*int64)(&c.ProgressInterval), int64(time.Second))
	set((*int64)(&c.Lease), int64(30*time.Second))
	if c.Exceptions.Max <= 0 {
		c.Exceptions.Max = 10_000
	}
	if err := c.checkExceptions(); err != nil {
		return c, err
	}
	if c.Owner == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "?"
		}
		c.Owner = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	return c, nil
}

// Applier is one stream's way into one target. Run works until its context
// ends; Apply feeds it, from one goroutine, in log order.
type Applier struct {
	cfg     Config
	backend backend
	log     zerolog.Logger
	guard   *guard

	ready chan struct{} // closed by Run when the stored places are known
	ended chan struct{} // closed by Run when it returns

	// Of the feeding goroutine, after ready.
	routes  map[*schema.Table]*route
	current map[schema.Name]*route // by the target's name: what is in flight came by it
	last    *route                 // the one of the row before
	digests map[schema.Name]uint64
	groups  causality.Groups[*route]
	replay  change.Place   // stored places reach up to here: lanes may stand apart below
	from    *origin        // the transaction that is being fed
	looked  time.Time      // when passing routes were looked up last
	inside  bool           // a transaction's first part was fed, its end was not
	whole   gathered       // that transaction, where transactions are applied as a whole
	mode    causality.Mode // written under mu

	// feeding is held by who feeds, or changes the lanes. Owner: Apply and
	// adjust; bound 1; never closed.
	feeding chan struct{}
	// relaneDue: lanes or mode are not as wanted.
	relaneDue atomic.Bool
	adjusted  chan struct{} // tells adjust that they are not; bound 1; never closed

	epoch uint64       // set before ready, then constant
	floor change.Place // stored when Run began, then constant

	mu    sync.Mutex // guards all below; held for short, never over I/O
	sched scheduler
	lanes []*laneState
	taken uint64       // batches, by all lanes
	want  int          // lanes
	fed   change.Place // the end of the newest transaction fed
	brake brake
	room  *sync.Cond // the feeder waits here for the window, or for a drain
	drain bool       // the feeder waits for everything: lanes don't linger
	ends  []end      // transaction ends above the floor, in order
	open  time.Time  // commit time of the transaction that is being fed; zero: none
	state status
	// stored is the progress the target holds.
	stored progress
	group  *laneGroup
	// closing: Run is on its way out.
	closing bool

	save sync.Mutex // one saver of progress at a time; guards the rest; taken before mu
	trk  track
	// replacing: the target may have other lanes by now than we do. Nothing is saved
	// meanwhile; all that was fed is below the stored floor.
	replacing bool
}

// end is the end of a transaction that was dispatched.
type end struct {
	seq    int64
	place  change.Place
	gtid   string
	held   string // the log's GTID set as of here; empty: not known
	commit time.Time
}

// New makes an applier. It does not connect.
func New(cfg Config, logger zerolog.Logger) (*Applier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	b, err := newSQLBackend(cfg, logger)
	if err != nil {
		return nil, err
	}
	return newApplier(cfg, b, logger), nil
}

func newApplier(cfg Config, b backend, logger zerolog.Logger) *Applier {
	a := &Applier{
		cfg: cfg, backend: b, log: logger.With().Str("stream", cfg.Stream).Logger(),
		ready: make(chan struct{}), ended: make(chan struct{}),
		routes: map[*schema.Table]*route{}, current: map[schema.Name]*route{},
		feeding: make(chan struct{}, 1), adjusted: make(chan struct{}, 1), want: cfg.Lanes,
	}
	if s, ok := b.(*sqlBackend); ok {
		a.guard = s.guard
	} else {
		a.guard = newGuard(cfg, logger)
	}
	a.brake.set(cfg.Throttle)
	a.room = sync.NewCond(&a.mu)
	return a
}

// Run takes the stream over, applies what Apply feeds, and returns when ctx ends
// (nil), with ErrFenced when another applier took over, with ErrRegressed when the
// target lost what it had confirmed, with ErrInterrupted, or with ErrTableChanged. It
// is called once.
// While the target is away or something is wrong there, it tries for ever; see
// Status.
func (a *Applier) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer close(a.ended)
	defer func() {
		if err := a.backend.close(); err != nil { // nothing is lost with a connection
			a.log.Debug().Err(err).Msg("close the target's connections")
		}
	}()

	stop := context.AfterFunc(ctx, a.wakeAll)
	defer stop()
	if err := a.takeOver(ctx, cancel); err != nil {
		return ended(ctx, err)
	}
	close(a.ready)

	var wg sync.WaitGroup
	for _, f := range []func(context.Context) error{
		func(ctx context.Context) error { return a.backend.hold(ctx, a.epoch) },
		a.saveRegularly,
		a.adjust,
		a.watchTarget,
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := f(ctx); err != nil {
				cancel(err)
			}
		}()
	}
	<-ctx.Done()
	a.mu.Lock()
	a.closing = true // no lanes are started from here on
	group := a.group
	a.room.Broadcast()
	a.mu.Unlock()
	group.stop()
	wg.Wait()
	return ended(ctx, nil)
}

// ended is what a Run that was cancelled has to say.
func ended(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case final(cause):
		return cause
	case cause == nil:
		return err
	case errors.Is(cause, context.Canceled), errors.Is(cause, context.DeadlineExceeded):
		return nil
	}
	return cause
}

// takeOver claims the stream and sets up the lanes as they were left.
func (a *Applier) takeOver(ctx context.Context, fail context.CancelCauseFunc) error {
	var c claimed
	var mode causality.Mode
	err := a.untilDone(ctx, change.Place{}, "take the stream over", func(ctx context.Context) (err error) {
		if c, err = a.backend.claim(ctx); err != nil {
			return err
		}
		apart := false
		for _, p := range c.lanes {
			apart = apart || p.Compare(c.progress.place) > 0
		}
		var known bool
		if mode, known = causality.ModeOf(c.routing); apart && !known {
			return fmt.Errorf("%w: version %d, this is %d", errRouting, c.routing, a.cfg.mode().Version())
		}
		want := a.wanted()
		if !apart && (len(c.lanes) != want || c.routing != a.cfg.mode().Version()) {
			mode = a.cfg.mode()
			if err := a.backend.relane(ctx, c.epoch, want, mode, c.progress.place); err != nil {
				return err
			}
			c.lanes = slices.Repeat([]change.Place{c.progress.place}, want)
		}
		return a.sameRules(ctx, &c, apart && !prefix(mode, len(c.lanes)))
	})
	if err != nil {
		return err
	}
	a.epoch, a.floor, a.digests = c.epoch, c.progress.place, c.digests
	a.replay = a.floor
	for _, p := range c.lanes {
		if p.Compare(a.replay) > 0 {
			a.replay = p
		}
	}
	if err := a.trk.load(c.progress); err != nil {
		return fmt.Errorf("stored progress of stream %s: %w", a.cfg.Stream, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = c.progress
	a.setLanes(mode, c.lanes, a.floor)
	a.fed = a.floor
	a.startLanes(ctx, fail, c.lanes)
	a.log.Info().Uint64("epoch", c.epoch).Int("lanes", len(c.lanes)).Stringer("atomicity", mode).
		Int64("floor", int64(a.floor.Offset)).Int64("replay_to", int64(a.replay.Offset)).Msg("applier owns the stream")
	return nil
}

// rulesName is where the Config.Rules that lanes were filled by lie among the
// digests. No table is called so.
var rulesName = schema.Name{}

// prefix: the highest of the lanes' places says that all of the log up to there is
// durable, whatever was left out of it.
func prefix(m causality.Mode, lanes int) bool { return m == causality.Ordered || lanes == 1 }

// Layout tells what stored places of a routing version mean; a version that is not
// known means nothing. inOrder: the highest of them is what is durable, whatever is
// left out of the log; byRow: each row has a lane of its own.
func Layout(version, lanes int) (inOrder, byRow bool) {
	m, known := causality.ModeOf(version)
	return known && prefix(m, lanes), known && m.ByRow()
}

// sameRules fails with errRules where lanes that stand apart were filled by other
// rules: which rows are durable could not be told.
func (a *Applier) sameRules(ctx context.Context, c *claimed, apart bool) error {
	stored, known := c.digests[rulesName]
	switch {
	case known && stored == a.cfg.Rules:
		return nil
	case known && apart: // an older version did not say by which
		return errRules
	}
	if err := a.backend.saveDigest(ctx, c.epoch, rulesName, a.cfg.Rules); err != nil {
		return err
	}
	c.digests[rulesName] = a.cfg.Rules
	return nil
}

// scheduler is a causality.Schedule or a causality.Sequence.
type scheduler interface {
	Add(p change.Place, f causality.Footprint, rows int, cost int64, w work) (laneIndex int, added bool)
	Pass(cost int64) int64
	Take(laneIndex int, limit causality.Limits) (batch []causality.Item[work], blocker int)
	Turn(laneIndex int) bool
	Next() int
	Done(laneIndex int)
	Raise(p change.Place)
	Place(laneIndex int) change.Place
	Pending(laneIndex int) int
	Oldest(laneIndex int) int64
	Idle() bool
	Low() int64
	Load() int64
}

// setLanes makes a fresh schedule; mu is held.
func (a *Applier) setLanes(mode causality.Mode, places []change.Place, floor change.Place) {
	if a.mode = mode; mode == causality.Ordered {
		a.sched = causality.NewSequence[work](places)
	} else {
		a.sched = causality.New[work](places)
	}
	a.sched.Raise(floor)
	a.lanes = make([]*laneState, len(places))
	for i := range a.lanes {
		a.lanes[i] = &laneState{wake: sync.NewCond(&a.mu), blockedBy: -1, stored: places[i]}
	}
	a.relaneDue.Store(mode != a.cfg.mode() || len(places) != a.want)
}

// Resume is the first offset to feed. It waits until Run has taken the stream
// over. Entries before it are durable in full; what is durable of those from it
// on is skipped by Apply.
func (a *Applier) Resume(ctx context.Context) (log.Offset, error) {
	if err := a.await(ctx); err != nil {
		return 0, err
	}
	return max(a.floor.Offset, 0), nil
}

// await returns once Run has taken over.
func (a *Applier) await(ctx context.Context) error {
	select {
	case <-a.ready:
	case <-a.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-a.ended:
		return fmt.Errorf("applier of stream %s: %w", a.cfg.Stream, log.ErrClosed)
	default:
		return nil
	}
}

// Durable is the place up to which everything fed is durable and recorded so on
// the target, with the GTID set applied there. It is behind Resume's place
// never, and moves on about every ProgressInterval.
func (a *Applier) Durable() (change.Place, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stored.place, a.stored.gtidSet
}

// wakeAll makes every waiter look again: the context ended.
func (a *Applier) wakeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.room.Broadcast()
	for _, l := range a.lanes {
		l.wake.Broadcast()
	}
}
