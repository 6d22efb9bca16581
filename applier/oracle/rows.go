package oracle

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/twinspan/twinspan/applier/causality"
	"github.com/twinspan/twinspan/applier/internal/history"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// durable is what survives a crash: the target.
type durable struct {
	db    *history.Database
	lanes []change.Place
	floor change.Place
}

// piece is what a lane gets at a time: rows of one table that follow each other.
type piece struct {
	table int
	steps []history.Step
}

// machine drives a schedule over the durable state, and loses everything else.
type machine struct {
	*rand.Rand
	bug      Bug
	merges   bool // batches are merged as the writer does it
	steps    []history.Step
	routings []*causality.Routing
	durable  durable

	sched   *causality.Schedule[piece]
	groups  causality.Groups[int]
	next    int // of steps
	replay  change.Place
	call    int // at most so many rows are dispatched at once
	limits  struct{ group, batch causality.Limits }
	relaned bool
	lanes   int // configured
	ends    []struct {
		seq   int64
		place change.Place
	}
	hands [][]causality.Item[piece] // by lane: what it works on
	stats *Stats
}

var errStuck = errors.New("no lane can move")

func (m *machine) restart() {
	m.lanes = 1 + m.IntN(5)
	m.call = []int{1, 4, 64}[m.IntN(3)]
	m.limits.group = causality.Limits{Rows: 1 + m.IntN(12), Cost: int64(1 + m.IntN(40))}
	m.limits.batch = causality.Limits{Rows: 1 + m.IntN(12), Cost: int64(1 + m.IntN(80))}
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
	m.sched = causality.New[piece](m.durable.lanes)
	m.hands = make([][]causality.Item[piece], len(m.durable.lanes))
	m.sched.Raise(m.durable.floor)
	m.sched.SetFaults(m.bug.faults)
}

func (m *machine) relane() {
	m.durable.lanes = slices.Repeat([]change.Place{m.durable.floor}, m.lanes)
	m.relaned = true
	m.begin()
}

// dispatch feeds the next rows of a transaction, or its end.
func (m *machine) dispatch() error {
	s := m.steps[m.next]
	if !m.relaned && s.Place.Compare(m.replay) > 0 && (m.next == 0 || m.steps[m.next-1].Row == nil) {
		if err := m.drain(); err != nil {
			return err
		}
		m.saveFloor()
		m.relane()
	}
	if s.Row == nil {
		m.next++
		m.ends = append(m.ends, struct {
			seq   int64
			place change.Place
		}{m.sched.Pass(1), s.Place})
		return nil
	}
	return m.rows(m.next + 1 + m.IntN(m.call))
}

// rows feeds rows of the transaction as the applier does, up to a step.
func (m *machine) rows(to int) error {
	lanes, alone := m.sched.Lanes(), m.replay
	if m.bug.joint.lanes {
		lanes = 1
	}
	if m.bug.joint.alone != nil {
		alone = m.bug.joint.alone(alone)
	}
	m.groups.Begin(lanes, m.limits.group, alone)
	first, firsts := m.next, []int(nil)
	for ; m.next < min(to, len(m.steps)) && m.steps[m.next].Row != nil; m.next++ {
		s := m.steps[m.next]
		scratch := m.groups.Scratch()
		f, err := m.routings[s.Table].Footprint(causality.Rows, scratch, s.Row)
		if err != nil {
			return err
		}
		if m.bug.footprint != nil && f.Touches != nil {
			own := m.bug.footprint(causality.Footprint{Home: f.Home, Touches: slices.Clone(f.Touches[len(scratch):])}, s.Row)
			f = causality.Footprint{Home: own.Home, Touches: append(scratch, own.Touches...)}
		}
		firsts = append(firsts, max(0, len(f.Touches)-len(scratch)))
		table := s.Table
		if m.bug.joint.tables {
			table = 0
		}
		m.groups.Row(s.Place, f, table, 1+int64(s.Place.Index%3))
	}
	all, n := m.groups.All(), 0
	for i := range all {
		g := &all[i]
		steps, f, p := m.steps[first+n:first+n+g.Rows], m.groups.Footprint(g), g.Last()
		if m.bug.joint.touches {
			f.Touches = f.Touches[:firsts[n]]
		}
		if m.bug.joint.place {
			p = g.First
		}
		n += g.Rows
		if _, added := m.sched.Add(p, f, g.Rows, g.Cost, piece{steps[0].Table, steps}); !added {
			m.stats.Skips++
		}
		m.stats.Joined += g.Rows - 1
	}
	return nil
}

// write commits what a lane holds: rows and place together.
func (m *machine) write(lane int) error {
	batch := m.hands[lane]
	db := m.durable.db.Clone()
	var rows []history.Step
	for i := range batch {
		w := &batch[i].Work
		for _, s := range w.steps {
			if s.Table != w.table {
				return fmt.Errorf("lane %d: a row of table %d among those of table %d", lane, s.Table, w.table)
			}
			rows = append(rows, s)
		}
	}
	of, runs := causality.Runs(nil, rows,
		func(s history.Step) int { return s.Table },
		func(s history.Step) bool { return m.durable.db.Tables[s.Table].Rep == schema.Name{} },
		func(a, b history.Step) bool { return true })
	steps := make([][]history.Step, runs)
	for i, run := range of {
		steps[run] = append(steps[run], rows[i])
	}
	for _, run := range steps {
		if err := m.apply(db, run); err != nil {
			return fmt.Errorf("lane %d: %w", lane, err)
		}
	}
	m.durable.db = db
	m.durable.lanes[lane] = batch[len(batch)-1].Place
	m.stats.Batches++
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
	if len(m.hands[i]) > 0 {
		if err := m.write(i); err != nil {
			return false, err
		}
		m.sched.Done(i)
		m.hands[i] = nil
		return true, nil
	}
	batch, blocker := m.sched.Take(i, m.limits.batch)
	if blocker >= 0 {
		m.stats.Waits++
	}
	m.hands[i] = batch
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
	crashes := m.IntN(5)
	slow := m.IntN(4) // a lane that hardly ever moves
	soon := 0         // the next crash, in steps; 0: at any time
	for m.next < len(m.steps) || !m.sched.Idle() {
		k := m.IntN(12)
		if soon--; soon == 0 {
			k = 12
		}
		switch {
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
		case crashes > 0 && (k == 12 || m.IntN(3) == 0):
			crashes--
			if err := m.crash(); err != nil {
				return err
			}
			if soon = 0; m.IntN(2) == 0 { // before it is where it was
				soon = 1 + m.IntN(15)
			}
		}
	}
	return nil
}

func (m *machine) crash() error {
	m.stats.Crashes++
	// A lane may have committed without anyone having heard of it.
	if i := m.IntN(m.sched.Lanes()); len(m.hands[i]) > 0 && m.IntN(2) == 0 {
		if err := m.write(i); err != nil {
			return err
		}
	}
	m.restart()
	return nil
}

// playRows runs one history of row changes and compares with the serial outcome.
func playRows(seed uint64, b Bug, stats *Stats) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	g := history.New(rng)
	g.DB = history.NewDatabase(g.Schema())
	steps := g.History(20 + rng.IntN(100))
	want := g.DB.Contents()

	m := &machine{Rand: rng, bug: b, merges: rng.IntN(2) == 0, steps: steps, stats: stats}
	m.durable = durable{db: history.NewDatabase(g.DB.Tables), lanes: slices.Repeat([]change.Place{causality.Start}, 1+rng.IntN(5)), floor: causality.Start}
	for _, t := range g.DB.Tables {
		seen := t
		if b.table != nil {
			seen = b.table(t)
		}
		m.routings = append(m.routings, causality.NewRouting(server.MySQL, &seen.Def.Table, seen.Def, seen.Rep, seen.Rep != schema.Name{}))
	}
	if err := m.run(); err != nil {
		return err
	}
	if got := m.durable.db.Contents(); got != want {
		return fmt.Errorf("end state differs:\n%s\nwant\n%s", got, want)
	}
	return nil
}

// apply carries out a run of one table.
func (m *machine) apply(db *history.Database, steps []history.Step) error {
	t := db.Tables[steps[0].Table]
	if m.merges && len(t.Def.Keys) == 1 && t.Rep == (schema.Name{}) && t.Parent < 0 {
		return m.merged(db, steps)
	}
	for _, s := range steps {
		if err := db.Apply(s.Table, s.Row, !m.bug.lenient); err != nil {
			return fmt.Errorf("at %d/%d: %w", s.Place.Offset, s.Place.Index, err)
		}
	}
	return nil
}

// merged is the writer's rule for a table whose one unique key is its identity: of
// each row, told apart by the bytes of the identity, only the last image; first what
// is gone, then what is there. An UPDATE of the identity goes alone.
func (m *machine) merged(db *history.Database, steps []history.Step) error {
	t := &db.Tables[steps[0].Table]
	bytes := func(row []change.Value) string {
		s := ""
		for _, p := range t.Def.Keys[0].Parts {
			s += history.Show(row[p.Column:p.Column+1]) + ","
		}
		return s
	}
	last := map[string]*change.Row{}
	var order []string
	flush := func() error {
		for _, dead := range []bool{true, false} {
			for _, k := range order {
				if r := last[k]; (r.Op == change.Delete) == dead {
					if err := db.Apply(steps[0].Table, r, false); err != nil {
						return fmt.Errorf("merged: %w", err)
					}
				}
			}
		}
		clear(last)
		order = order[:0]
		return nil
	}
	for _, s := range steps {
		image := s.Row.After
		if image == nil {
			image = s.Row.Before
		}
		if s.Row.Op == change.Update && bytes(s.Row.Before) != bytes(s.Row.After) && !m.bug.mergeMoves {
			if err := flush(); err != nil {
				return err
			}
			if err := db.Apply(s.Table, s.Row, !m.bug.lenient); err != nil {
				return fmt.Errorf("at %d/%d: %w", s.Place.Offset, s.Place.Index, err)
			}
			continue
		}
		k := bytes(image)
		if last[k] == nil {
			order = append(order, k)
		}
		r := *s.Row
		if r.Op == change.Update { // what matters is what is there afterwards
			r.Before = image
		}
		last[k] = &r
	}
	return flush()
}
