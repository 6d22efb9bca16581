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

// transaction is what a lane gets.
type transaction struct {
	steps []history.Step
	end   change.Place
}

// wholeMachine drives a schedule of whole transactions as machine does one of
// rows. A lane's batch is written in three steps, as a server sees it: its rows
// are looked up, it is committed, the lane hears of that.
type wholeMachine struct {
	*rand.Rand
	bug      Bug
	mode     causality.Mode
	log      []transaction
	routings []*causality.Routing
	states   map[change.Place]string // what the source held after each transaction

	// Durable.
	db    *history.Database
	lanes []change.Place
	floor change.Place

	sched interface {
		Add(change.Place, causality.Footprint, int, int64, transaction) (int, bool)
		Pass(int64) int64
		Take(int, causality.Limits) ([]causality.Item[transaction], int)
		Turn(int) bool
		Done(int)
		Raise(change.Place)
		Lanes() int
		Idle() bool
		Low() int64
		Load() int64
		SetFaults(causality.Faults)
	}
	hands []*hand // by lane; nil: empty
	next  int
	ends  []struct {
		seq   int64
		place change.Place
	}
	stats *Stats
}

type hand struct {
	batch    []causality.Item[transaction]
	executed bool
	durable  bool
}

func (m *wholeMachine) restart(lanes int) {
	m.next, m.ends = 0, nil
	for m.next < len(m.log) && m.log[m.next].end.Compare(m.floor) <= 0 {
		m.next++
	}
	top := causality.Start
	for _, p := range m.lanes {
		if p.Compare(top) > 0 {
			top = p
		}
	}
	if top.Compare(m.floor) <= 0 { // no lane is ahead
		m.lanes = slices.Repeat([]change.Place{m.floor}, lanes)
	}
	if m.mode == causality.Ordered && !m.bug.blind {
		m.sched = causality.NewSequence[transaction](m.lanes)
	} else {
		m.sched = causality.New[transaction](m.lanes)
	}
	m.sched.Raise(m.floor)
	m.sched.SetFaults(m.bug.faults)
	m.hands = make([]*hand, len(m.lanes))
}

func (m *wholeMachine) dispatch() error {
	t := m.log[m.next]
	m.next++
	parts := []transaction{t}
	if n := len(t.steps); m.bug.half && n > 1 {
		middle := t.steps[n/2-1].Place
		parts = []transaction{{t.steps[:n/2], middle}, {t.steps[n/2:], t.end}}
	}
	for _, p := range parts {
		var f causality.Footprint
		for i, s := range p.steps {
			one, err := m.routings[s.Table].Footprint(m.mode, nil, s.Row)
			if err != nil {
				return err
			}
			if i == 0 {
				f.Home = one.Home
			}
			if one.Touches == nil {
				one.Touches = []uint64{one.Home}
			}
			f.Touches = append(f.Touches, one.Touches...)
		}
		if len(p.steps) > 0 {
			if _, added := m.sched.Add(p.end, f, len(p.steps), 1, p); !added {
				m.stats.Skips++
			}
		}
	}
	m.ends = append(m.ends, struct {
		seq   int64
		place change.Place
	}{m.sched.Pass(1), t.end})
	return nil
}

// execute looks up what the batch changes, as it is now; commit makes the
// changes visible.
func (m *wholeMachine) run(db *history.Database, batch []causality.Item[transaction]) (*history.Database, error) {
	db = db.Clone()
	var rows []history.Step
	for _, item := range batch {
		rows = append(rows, item.Work.steps...)
	}
	of, runs := causality.Runs(nil, rows,
		func(s history.Step) int { return s.Table },
		func(s history.Step) bool { return m.db.Tables[s.Table].Rep == schema.Name{} },
		func(a, b history.Step) bool { return true })
	for run := range runs {
		for i := range rows {
			if int(of[i]) != run {
				continue
			}
			if err := db.Apply(rows[i].Table, rows[i].Row, true); err != nil {
				return nil, fmt.Errorf("at %v: %w", rows[i].Place, err)
			}
		}
	}
	return db, nil
}

var errVisible = errors.New("visible is what never was")

// visible checks what a reader of the target sees.
func (m *wholeMachine) visible() error {
	if m.mode != causality.Ordered {
		return nil
	}
	top := m.floor
	for _, p := range m.lanes {
		if p.Compare(top) > 0 {
			top = p
		}
	}
	if want, ok := m.states[top]; !ok || want != m.db.Contents() {
		return fmt.Errorf("%w, at %v", errVisible, top)
	}
	return nil
}

func (m *wholeMachine) commit(lane int) error {
	h := m.hands[lane]
	db, err := m.run(m.db, h.batch)
	if err != nil {
		return err
	}
	to := h.batch[len(h.batch)-1].Place
	crash := m.IntN(20) == 0
	if m.bug.apart && crash {
		m.lanes[lane] = to
		return m.crash()
	}
	m.db = db
	if m.bug.behind && crash {
		return m.crash()
	}
	m.lanes[lane] = to
	h.durable = true
	m.stats.Batches++
	if len(h.batch) > 1 {
		m.stats.Groups++
	}
	return m.visible()
}

func (m *wholeMachine) crash() error {
	m.stats.Crashes++
	m.restart(1 + m.IntN(5))
	return m.visible()
}

// lane moves one lane by one step; false when it can't.
func (m *wholeMachine) lane(i int) (bool, error) {
	h := m.hands[i]
	switch {
	case h == nil:
		batch, blocker := m.sched.Take(i, causality.Limits{Rows: 1 + m.IntN(12), Cost: 1000})
		if batch == nil {
			if blocker >= 0 {
				m.stats.Waits++
			}
			return false, nil
		}
		m.hands[i] = &hand{batch: batch}
	case !h.executed:
		if _, err := m.run(m.db, h.batch); err != nil {
			return false, err
		}
		h.executed = true
	case !h.durable:
		if !m.sched.Turn(i) {
			if m.IntN(10) == 0 {
				h.executed = false // it stalls, and is undone
			}
			return false, nil
		}
		return true, m.commit(i)
	default:
		m.sched.Done(i)
		m.hands[i] = nil
	}
	return true, nil
}

func (m *wholeMachine) all() error {
	crashes := m.IntN(4)
	for m.next < len(m.log) || !m.sched.Idle() {
		switch k := m.IntN(14); {
		case k < 3 && m.next < len(m.log):
			if err := m.dispatch(); err != nil {
				return err
			}
		case k < 12:
			moved := false
			for _, i := range m.Perm(m.sched.Lanes()) {
				if m.IntN(3) == 0 {
					continue
				}
				if i >= len(m.hands) {
					break // crashed meanwhile
				}
				ok, err := m.lane(i)
				if err != nil {
					return err
				}
				moved = moved || ok
			}
			if !moved && m.next == len(m.log) {
				stuck := !m.sched.Idle()
				for i := range m.hands {
					ok, err := m.lane(i)
					if err != nil {
						return err
					}
					if stuck = stuck && !ok; !stuck {
						break
					}
				}
				if stuck {
					return errStuck
				}
			}
		case k == 12:
			low := m.sched.Low()
			for len(m.ends) > 0 && m.ends[0].seq <= low {
				m.floor = m.ends[0].place
				m.ends = m.ends[1:]
			}
		case crashes > 0 && m.IntN(6) == 0:
			crashes--
			if err := m.crash(); err != nil {
				return err
			}
		}
	}
	return nil
}

// playWhole runs one history of whole transactions.
func playWhole(seed uint64, mode causality.Mode, b Bug, stats *Stats) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	g := history.New(rng)
	g.DB = history.NewDatabase(g.Schema())
	m := &wholeMachine{Rand: rng, bug: b, mode: mode, stats: stats, floor: causality.Start, states: map[change.Place]string{}}
	var t transaction
	for _, s := range g.History(20 + rng.IntN(100)) {
		if s.Row != nil {
			t.steps = append(t.steps, s)
			continue
		}
		t.end = s.Place
		m.log = append(m.log, t)
		t = transaction{}
	}
	serial := history.NewDatabase(g.DB.Tables)
	m.states[causality.Start] = serial.Contents()
	for _, t := range m.log {
		for _, s := range t.steps {
			if err := serial.Apply(s.Table, s.Row, true); err != nil {
				return err
			}
		}
		m.states[t.end] = serial.Contents()
	}
	m.db = history.NewDatabase(g.DB.Tables)
	for _, t := range g.DB.Tables {
		m.routings = append(m.routings, causality.NewRouting(server.MySQL, &t.Def.Table, t.Def, t.Rep, t.Rep != schema.Name{}))
	}
	lanes := 1 + rng.IntN(5)
	m.lanes = slices.Repeat([]change.Place{causality.Start}, lanes)
	m.restart(lanes)
	if err := m.all(); err != nil {
		return err
	}
	if l := m.sched.Load(); l != 0 {
		return fmt.Errorf("idle, and the load is %d", l)
	}
	if got, want := m.db.Contents(), serial.Contents(); got != want {
		return fmt.Errorf("end state differs:\n%s\nwant\n%s", got, want)
	}
	return nil
}
