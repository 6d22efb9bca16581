package applier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/schema"
)

// shell is an applier over a backend in memory that is fed by hand.
type shell struct {
	t    *testing.T
	h    *hostile
	a    *Applier
	ctx  context.Context
	next change.Place
	n    int
	id   int64
	end  func() error // of Run
}

func newShell(ctx context.Context, t *testing.T, cfg Config, h *hostile, b func(*client) backend) *shell {
	t.Helper()
	cfg.Stream, cfg.Lanes = "s", 2
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{h, 2}
	s := &shell{t: t, h: h, a: newApplier(cfg, b(c), zerolog.Nop())}
	life, cancel := context.WithCancel(ctx)
	s.ctx = ctx
	ran := make(chan error, 1) // owner: the goroutine; bound 1; not closed
	go func() { ran <- s.a.Run(life) }()
	s.end = func() error {
		cancel()
		return <-ran
	}
	return s
}

func plainly(c *client) backend { return c }

// inserts are new rows of the tables.
func (s *shell) inserts(tables ...*schema.Table) (out []change.Row) {
	for _, t := range tables {
		s.id++
		out = append(out, change.Row{Table: t, After: []change.Value{change.IntegerOf(s.id), change.TextOf([]byte("x"))}})
	}
	return out
}

// part feeds a part of a transaction; open: it is not the last.
func (s *shell) part(open bool, rows []change.Row) error {
	gtid := fmt.Sprintf("0-1-%d", s.n+1)
	err := s.a.Apply(s.ctx, s.next, &change.Transaction{GTID: gtid, CommitTime: time.Now(), Rows: rows, Continued: open}, "")
	if s.next.Index += int32(len(rows)); !open {
		s.next.Index++
		s.n++
	}
	return err
}

func (s *shell) feed(rows []change.Row) {
	s.t.Helper()
	if err := s.part(false, rows); err != nil {
		s.t.Fatal(err)
	}
}

// settled waits until all that was fed is durable.
func (s *shell) settled() {
	s.t.Helper()
	for p, _ := s.a.Durable(); p.Index != s.next.Index-1; p, _ = s.a.Durable() {
		if s.ctx.Err() != nil {
			s.t.Fatalf("not durable: %+v", s.a.Status())
		}
		time.Sleep(time.Millisecond)
	}
}

func many(t *schema.Table, n int) []*schema.Table {
	out := make([]*schema.Table, n)
	for i := range out {
		out[i] = t
	}
	return out
}

func named(name string) *schema.Table {
	t := *shellTable
	t.Name.Table = name
	return &t
}

// wider is a version of the table whose rows find their lanes another way.
func wider() *schema.Table {
	t := *shellTable
	t.Columns = append([]schema.Column(nil), t.Columns...)
	t.Columns[0].Type = schema.BigInt
	return &t
}

// TestNewVersionWithinLargeTransaction: a version of a table that was not seen before
// may come in the middle of a transaction that is written as it is read. A crash in
// it, or behind it, leaves nothing that a restart can't go on from.
func TestNewVersionWithinLargeTransaction(t *testing.T) {
	for _, mode := range []causality.Mode{causality.Transactions, causality.Ordered} {
		for name, second := range map[string]*schema.Table{"same keys": named("t"), "other keys": wider()} {
			t.Run(mode.String()+"/"+name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				cfg := Config{ProgressInterval: time.Millisecond}.as(mode)
				h := newHostile(1, 0)
				s := newShell(ctx, t, cfg, h, plainly)
				s.feed(s.inserts(shellTable))
				s.settled()
				from, n, id := s.next, s.n, s.id
				other := named("other")
				big := func() []change.Row {
					s.next, s.n, s.id = from, n, id
					return s.inserts(append(many(other, 60), append(many(second, 60), other, second)...)...)
				}
				if err := s.part(true, big()); err != nil { // the end does not come
					t.Fatal(err)
				}
				if err := s.end(); err != nil {
					t.Fatal(err)
				}
				h.mu.Lock()
				digest, floor, rows := h.digests[second.Name], h.progress, len(h.rows)
				h.mu.Unlock()
				if want := digestOf(t, h, second); digest != want {
					t.Errorf("digest %x is stored, not %x", digest, want)
				}
				if floor.place.Index != from.Index-1 || rows != 1 {
					t.Errorf("the floor is %v and %d rows are there", floor.place, rows)
				}
				for _, what := range []string{"cut short", "durable and not known to be"} {
					h.mu.Lock()
					h.progress = floor
					h.mu.Unlock()
					r := newShell(ctx, t, cfg, h, plainly)
					rows := big()
					r.next, r.n = s.next, s.n
					r.feed(rows)
					r.feed(nil)
					r.settled()
					if st := r.a.Status(); what == "cut short" && st.Skipped > 0 || what != "cut short" && st.Skipped != int64(len(rows)) {
						t.Errorf("%s: %d rows were skipped", what, st.Skipped)
					}
					if err := r.end(); err != nil {
						t.Fatal(err)
					}
					h.mu.Lock()
					if h.problem != nil || len(h.rows) != 1+len(rows) {
						t.Errorf("%s: %d rows, %v", what, len(h.rows), h.problem)
					}
					h.mu.Unlock()
				}
			})
		}
	}
}

func digestOf(t *testing.T, h *hostile, table *schema.Table) uint64 {
	t.Helper()
	r, err := (&client{h, 2}).route(context.Background(), table)
	if err != nil {
		t.Fatal(err)
	}
	return r.routing.Digest()
}

// gated lets nobody commit while it is shut.
type gated struct {
	*client
	gate chan struct{} // owner: the test; closed by it to let all through
}

type gatedLane struct {
	laneSession
	gate chan struct{}
}

func (g *gated) lane(ctx context.Context, epoch uint64, index int) (laneSession, error) {
	l, err := g.client.lane(ctx, epoch, index)
	return &gatedLane{l, g.gate}, err
}

func (l *gatedLane) commit(ctx context.Context) error {
	select {
	case <-l.gate:
		return l.laneSession.commit(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestVersionsWithinTransaction: what follows a transaction that has a table in two
// versions does not see the keys of the older one, so it comes when that is durable.
func TestVersionsWithinTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := newShell(t.Context(), t, Config{Atomicity: AtomicTransaction, AnyOrder: true}, newHostile(1, 0), func(c *client) backend { return &gated{c, gate} })
		fed := make(chan error, 1)
		go func() { fed <- s.part(false, s.inserts(shellTable, wider())) }()
		synctest.Wait()
		select {
		case err := <-fed:
			t.Errorf("fed while it is not durable: %v", err)
			close(gate)
		default:
			close(gate)
			if err := <-fed; err != nil {
				t.Error(err)
			}
		}
		if err := s.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestSkippedLargeTransactionTakesNoMemory: nothing is kept of a large transaction,
// also where all of it is durable already.
func TestSkippedLargeTransactionTakesNoMemory(t *testing.T) {
	const parts, each = 40, 250
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	h := newHostile(1, 0)
	for _, skipped := range []int64{0, parts * each} {
		h.progress = progress{place: causality.Start} // the crash came before the floor was stored
		s := newShell(ctx, t, Config{ProgressInterval: time.Hour}.as(causality.Ordered), h, plainly)
		for n := range parts {
			if err := s.part(n < parts-1, s.inserts(many(shellTable, each)...)); err != nil {
				t.Fatal(err)
			}
		}
		if k, r := cap(s.a.whole.touches), cap(s.a.whole.rows); k > 10*each || r > 10*each {
			t.Errorf("%d keys and %d rows are kept of a transaction of %d rows", k, r, parts*each)
		}
		if n := s.a.Status().Skipped; n != skipped {
			t.Errorf("%d rows were skipped, want %d", n, skipped)
		}
		if err := s.end(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLargeTransactionOutlivesPauses: a transaction that is written as it is read is
// kept alive while the throttle, or the log, holds it up for longer than the lease;
// but not while a person is waited for, who may need what it has locked.
func TestLargeTransactionOutlivesPauses(t *testing.T) {
	const lease = 5 * time.Second
	for _, c := range []struct {
		name  string
		cut   bool
		limit Throttle
		pause func(s *shell, refused *refusing)
	}{
		{"rows per second", false, Throttle{RowsPerSecond: 1}, func(*shell, *refusing) {}},
		{"log away", false, Throttle{}, func(*shell, *refusing) { time.Sleep(3 * lease) }},
		{"target busy", false, Throttle{ThreadsRunning: 10}, func(s *shell, _ *refusing) {
			s.h.mu.Lock()
			s.h.burden = load{threads: 11}
			s.h.mu.Unlock()
			time.AfterFunc(3*lease, func() {
				s.h.mu.Lock()
				defer s.h.mu.Unlock()
				s.h.burden = load{}
			})
			time.Sleep(2 * loadInterval)
		}},
		{"halt", true, Throttle{}, func(s *shell, refused *refusing) {
			refused.set(fmt.Errorf("table db.other: %w", target.ErrNoTable))
			time.AfterFunc(3*lease, func() { refused.set(nil) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHostile(1, 0)
				h.lease = lease
				var refused *refusing
				cfg := Config{Lease: lease, Throttle: c.limit}.as(causality.Ordered)
				s := newShell(t.Context(), t, cfg, h, func(cl *client) backend {
					refused = &refusing{client: cl}
					return refused
				})
				err := s.part(true, s.inserts(many(shellTable, 40)...))
				c.pause(s, refused)
				err = errors.Join(err, s.part(false, s.inserts(many(named("other"), 40)...)))
				ran := s.end()
				if h.problem != nil {
					t.Error(h.problem)
				}
				if c.cut {
					if err == nil || !errors.Is(ran, ErrInterrupted) || len(h.rows) > 0 {
						t.Errorf("fed: %v, Run: %v, %d rows", err, ran, len(h.rows))
					}
				} else if err != nil || ran != nil || len(h.rows) != 80 {
					t.Errorf("fed: %v, Run: %v, %d rows", err, ran, len(h.rows))
				}
			})
		})
	}
}

// TestLargeTransactionUnderThrottle: the same on servers, whose lease is the
// connections' wait_timeout.
func TestLargeTransactionUnderThrottle(t *testing.T) {
	bothFlavors(t, func(t *testing.T, f mysqltest.Flavor) {
		t.Parallel() // it mostly waits
		d := newDuel(t, f, Config{Atomicity: AtomicTransaction, LargeBytes: 10 << 10, BatchBytes: 10 << 10})
		d.stop()
		d.cfg.Lease, d.cfg.Throttle.RowsPerSecond = 2*time.Second, 14
		d.start()
		var rows []change.Row
		var want []string
		for i := range 50 {
			rows = append(rows, d.change("t", nil, row(i, i, strings.Repeat("x", 10))))
			want = append(want, fmt.Sprintf("%d %d xxxxxxxxxx", i, i))
		}
		began := time.Now()
		d.feed(rows...)
		if took := time.Since(began); took < d.cfg.Lease {
			t.Fatalf("it took %s: no pause was longer than the lease", took)
		}
		d.settled()
		d.has("t", want...)
	})
}
