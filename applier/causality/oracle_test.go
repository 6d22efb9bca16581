package causality

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twinspan/twinspan/applier/internal/history"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

var (
	histories = flag.Int("histories", 2000, "histories of the oracle test")
	seedFlag  = flag.Uint64("seed", 0, "replay this one history; 0: by the clock")
)

// bug is a rule that a test turns off.
type bug struct {
	name      string
	faults    Faults
	table     func(history.Table) history.Table // how the keys are seen
	footprint func(Footprint, *change.Row) Footprint
	relane    bool // lanes are replaced without a drain
	noFloor   bool // the floor is stored without regard to the watermark
	lenient   bool // surprises of the target are not errors; only the end counts
}

// durable is what survives a crash: the target.
type durable struct {
	db    *history.Database
	lanes []change.Place
	floor change.Place
}

// machine drives a schedule over the durable state, and loses everything else.
type machine struct {
	*rand.Rand
	bug      bug
	steps    []history.Step
	routings []*Routing
	durable  durable

	sched   *Schedule[history.Step]
	next    int // of steps
	replay  change.Place
	relaned bool
	lanes   int // configured
	ends    []struct {
		seq   int64
		place change.Place
	}
	stats *struct{ waits, skips, crashes, batches int }
}

var errStuck = errors.New("no lane can move")

func (m *machine) restart() {
	m.lanes = 1 + m.IntN(5)
	m.next, m.ends = 0, nil
	for m.next < len(m.steps) && m.steps[m.next].Place.Compare(m.durable.floor) <= 0 {
		m.next++
	}
	m.replay = m.durable.floor
	for _, p := range m.durable.lanes {
		if p.Compare(m.replay) > 0 {
			m.replay = p
		}
	}
	if m.replay == m.durable.floor || m.bug.relane {
		m.relane()
	} else {
		m.relaned = len(m.durable.lanes) == m.lanes
		m.begin()
	}
}

func (m *machine) begin() {
	m.sched = New[history.Step](m.durable.lanes)
	m.sched.Raise(m.durable.floor)
	m.sched.SetFaults(m.bug.faults)
}

func (m *machine) relane() {
	m.durable.lanes = slices.Repeat([]change.Place{m.durable.floor}, m.lanes)
	m.relaned = true
	m.begin()
}

// dispatch feeds the next step.
func (m *machine) dispatch() error {
	s := m.steps[m.next]
	if !m.relaned && s.Place.Compare(m.replay) > 0 && (m.next == 0 || m.steps[m.next-1].Row == nil) {
		if err := m.drain(); err != nil {
			return err
		}
		m.saveFloor()
		m.relane()
	}
	m.next++
	if s.Row == nil {
		m.ends = append(m.ends, struct {
			seq   int64
			place change.Place
		}{m.sched.Pass(1), s.Place})
		return nil
	}
	f, err := m.routings[s.Table].Footprint(nil, s.Row)
	if err != nil {
		return err
	}
	if m.bug.footprint != nil {
		f = m.bug.footprint(f, s.Row)
	}
	lane, added := m.sched.Add(s.Place, f, 1, 1, s)
	if !added {
		m.stats.skips++
	} else if q := m.sched.lanes[lane].queue; len(q[len(q)-1].waits) > 0 {
		m.stats.waits++
	}
	return nil
}

// write commits what a lane holds: rows and place together.
func (m *machine) write(lane int) error {
	batch := m.sched.lanes[lane].taken
	db := m.durable.db.Clone()
	rows := make([]history.Step, len(batch))
	for i := range batch {
		rows[i] = batch[i].Work
	}
	runs := Runs(rows,
		func(s history.Step) any { return s.Table },
		func(s history.Step) bool { return m.durable.db.Tables[s.Table].Rep == schema.Name{} },
		func(a, b history.Step) bool { return true })
	for _, run := range runs {
		for _, i := range run {
			s := batch[i].Work
			if err := db.Apply(s.Table, s.Row, !m.bug.lenient); err != nil {
				return fmt.Errorf("at %d/%d, lane %d: %w", s.Place.Offset, s.Place.Index, lane, err)
			}
		}
	}
	m.durable.db = db
	m.durable.lanes[lane] = batch[len(batch)-1].Place
	m.stats.batches++
	return nil
}

func (m *machine) saveFloor() {
	low := m.sched.Low()
	for len(m.ends) > 0 && (m.ends[0].seq <= low || m.bug.noFloor) {
		m.durable.floor = m.ends[0].place
		m.ends = m.ends[1:]
	}
}

// lane moves one lane by one step; false when it can't.
func (m *machine) lane(i int) (bool, error) {
	if len(m.sched.lanes[i].taken) > 0 {
		if err := m.write(i); err != nil {
			return false, err
		}
		m.sched.Done(i)
		return true, nil
	}
	batch, _ := m.sched.Take(i, Limits{Rows: 1 + m.IntN(6), Cost: 1000})
	return batch != nil, nil
}

func (m *machine) drain() error {
	for !m.sched.Idle() {
		moved := false
		for _, i := range m.Perm(m.sched.Lanes()) {
			ok, err := m.lane(i)
			if err != nil {
				return err
			}
			moved = moved || ok
		}
		if !moved {
			return errStuck
		}
	}
	if l := m.sched.Load(); l != 0 {
		return fmt.Errorf("idle, and the load is %d", l)
	}
	return nil
}

func (m *machine) run() error {
	m.restart()
	crashes := m.IntN(4)
	slow := m.IntN(4) // a lane that hardly ever moves
	for m.next < len(m.steps) || !m.sched.Idle() {
		switch k := m.IntN(12); {
		case k < 5:
			if m.next < len(m.steps) {
				if err := m.dispatch(); err != nil {
					return err
				}
			} else if err := m.drain(); err != nil {
				return err
			}
		case k < 10:
			i := m.IntN(m.sched.Lanes())
			if i == slow && m.IntN(8) > 0 {
				continue
			}
			if _, err := m.lane(i); err != nil {
				return err
			}
		case k == 10:
			m.saveFloor()
		case crashes > 0 && m.IntN(6) == 0:
			crashes--
			m.stats.crashes++
			// A lane may have committed without anyone having heard of it.
			if i := m.IntN(m.sched.Lanes()); len(m.sched.lanes[i].taken) > 0 && m.IntN(2) == 0 {
				if err := m.write(i); err != nil {
					return err
				}
			}
			m.restart()
		}
	}
	return nil
}

// play runs one history by its seed and compares with the serial outcome.
func play(seed uint64, b bug, stats *struct{ waits, skips, crashes, batches int }) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	g := history.New(rng)
	g.DB = history.NewDatabase(g.Schema())
	steps := g.History(20 + rng.IntN(100))
	want := g.DB.Contents()

	m := &machine{Rand: rng, bug: b, steps: steps, stats: stats}
	m.durable = durable{db: history.NewDatabase(g.DB.Tables), lanes: slices.Repeat([]change.Place{Start}, 1+rng.IntN(5)), floor: Start}
	for _, t := range g.DB.Tables {
		seen := t
		if b.table != nil {
			seen = b.table(t)
		}
		m.routings = append(m.routings, NewRouting(server.MySQL, &seen.Def.Table, seen.Def, seen.Rep, seen.Rep != schema.Name{}))
	}
	if err := m.run(); err != nil {
		return err
	}
	if got := m.durable.db.Contents(); got != want {
		return fmt.Errorf("end state differs:\n%s\nwant\n%s", got, want)
	}
	return nil
}

// TestAgainstSerialOracle: in every order that lanes can take, with crashes
// anywhere, the end is that of applying the log serially, and on the way no
// change meets a state that it was not logged in.
func TestAgainstSerialOracle(t *testing.T) {
	first, n := uint64(time.Now().UnixNano()), *histories
	if testing.Short() {
		n = min(n, 500)
	}
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	var stats struct{ waits, skips, crashes, batches int }
	for i := range n {
		seed := first + uint64(i)
		if err := play(seed, bug{}, &stats); err != nil {
			t.Fatalf("seed %d (replay with -seed=%d): %v", seed, seed, err)
		}
	}
	t.Logf("0 failures in %d histories from seed %d: %+v", n, first, stats)
	if n > 100 && (stats.waits == 0 || stats.skips == 0 || stats.crashes == 0) {
		t.Errorf("the histories are too tame: %+v", stats)
	}
}

func bytesAreKeys(t history.Table) history.Table {
	def := *t.Def
	def.Columns = slices.Clone(def.Columns)
	for i := range def.Columns {
		if c := &def.Columns[i]; c.Collation != "" {
			c.Collation = "utf8mb4_0900_bin"
		}
	}
	t.Def = &def
	return t
}

func noPrefixes(t history.Table) history.Table {
	def := *t.Def
	def.Keys = slices.Clone(def.Keys)
	for i := range def.Keys {
		k := &def.Keys[i]
		k.Parts = slices.Clone(k.Parts)
		for j := range k.Parts {
			k.Parts[j].Prefix = 0
		}
	}
	t.Def = &def
	return t
}

func primaryOnly(t history.Table) history.Table {
	def := *t.Def
	if len(def.Keys) > 1 {
		def.Keys = def.Keys[:1]
	}
	t.Def = &def
	return t
}

// TestSeededBugsAreCaught: each rule is there because leaving it out goes wrong.
func TestSeededBugsAreCaught(t *testing.T) {
	for _, b := range []bug{
		{name: "naive hashing", faults: Faults{NoWaits: true}},
		{name: "naive hashing, by the end state alone", faults: Faults{NoWaits: true}, lenient: true},
		{name: "lanes replay below their place", faults: Faults{NoSkip: true}},
		{name: "lanes replay below their place, by the end state alone", faults: Faults{NoSkip: true}, lenient: true},
		{name: "bytes are equality", table: bytesAreKeys},
		{name: "prefixes ignored", table: noPrefixes},
		{name: "only the primary key", table: primaryOnly},
		{name: "foreign keys ignored", table: func(t history.Table) history.Table { t.Rep = schema.Name{}; return t }},
		{name: "before images ignored", footprint: func(f Footprint, r *change.Row) Footprint {
			if r.Op == change.Update {
				f.Touches = f.Touches[len(f.Touches)/2:]
			}
			return f
		}},
		{name: "lanes replaced without a drain", relane: true},
		{name: "floor above the watermark", noFloor: true},
	} {
		t.Run(b.name, func(t *testing.T) {
			var stats struct{ waits, skips, crashes, batches int }
			const budget = 3000
			for seed := uint64(1); seed <= budget; seed++ {
				if err := play(seed, b, &stats); err != nil {
					t.Logf("caught by seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("not caught in %d histories", budget)
		})
	}
}
