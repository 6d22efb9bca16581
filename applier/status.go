package applier

import (
	"fmt"
	"sort"
	"time"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
)

// Slots of notes beside those of the lanes.
const (
	dispatcherSlot = -1
	progressSlot   = -2
)

// status is what Applier.mu guards for Status.
type status struct {
	rows, skipped, transactions, ddls int64
	outcome                           target.Outcome
	retries                           int64
	notes                             map[int]*note // by lane or slot: what is in the way
}

// note is trouble that lasts.
type note struct {
	what  string
	err   error
	halt  *Halt // nil: passing trouble
	since time.Time
	tries int
}

// Status is a picture of an Applier.
type Status struct {
	Stream string `json:"stream"`
	Owner  bool   `json:"owner"` // it has taken the stream over
	Epoch  uint64 `json:"epoch"`
	// Atomicity is how transactions are applied now: row, transaction, or
	// "transaction, in any order".
	Atomicity string `json:"atomicity"`
	Lanes     []Lane `json:"lanes"`
	// LanesWanted differs from the lanes while they are about to be changed.
	LanesWanted int        `json:"lanes_wanted"`
	Throttle    Throttling `json:"throttle"`
	// Floor is the stored place below which everything is durable, and
	// GTIDSet what was applied there.
	Floor   change.Place `json:"floor"`
	GTIDSet string       `json:"gtid_set"`
	// Newest is the source's commit time of the newest transaction below the
	// floor. Pending is that of the oldest one above it, nil when there is none.
	Newest  *time.Time `json:"newest,omitempty"`
	Pending *time.Time `json:"pending,omitempty"`
	// LagSeconds is the age of the oldest transaction that was fed and is not
	// below the floor; 0 when there is none.
	LagSeconds  float64 `json:"lag_seconds"`
	WindowBytes int64   `json:"window_bytes"`

	Rows         int64 `json:"rows"` // durable since Run began
	Skipped      int64 `json:"skipped"`
	Transactions int64 `json:"transactions"`
	DDLs         int64 `json:"ddls"`
	Retries      int64 `json:"retries"`
	Statements   int64 `json:"statements"`
	// Where the target was not as the log expects it: someone else writes there.
	InsertFound   int64 `json:"insert_found"`
	UpdateMissing int64 `json:"update_missing"`
	DeleteMissing int64 `json:"delete_missing"`
	// Conflicts were met since the applier was made; Exceptions are open now.
	Conflicts  int64 `json:"conflicts"`
	Exceptions int64 `json:"exceptions"`

	Halts []Halt `json:"halts,omitempty"`
	// Troubles are passing conditions: the target is away, a lock is waited for.
	Troubles []string `json:"troubles,omitempty"`
}

// Lane of Status.
type Lane struct {
	Place    change.Place `json:"place"`
	Pending  int          `json:"pending"`   // row changes; in the order of commits, transactions
	WaitsFor int          `json:"waits_for"` // a lane; -1: none
	Batches  int64        `json:"batches"`
	Rows     int64        `json:"rows"` // durable since the lane was made
	// RowsPerSecond is of late, and BatchRows how many it takes at a time at most.
	RowsPerSecond float64 `json:"rows_per_second"`
	BatchRows     int     `json:"batch_rows"`
	// BatchSeconds is what its last batch took on the target.
	BatchSeconds float64 `json:"batch_seconds"`
	// LagSeconds is the age of the oldest transaction it has something of; 0: it
	// has nothing to do.
	LagSeconds float64 `json:"lag_seconds"`
	Condition  string  `json:"condition,omitempty"` // what is in the way
}

// Status may be called at any time from any goroutine.
func (a *Applier) Status() Status {
	s := Status{Stream: a.cfg.Stream, Throttle: a.brake.status()}
	select {
	case <-a.ready:
		s.Owner = true
	default:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.Owner {
		s.Epoch, s.Floor, s.GTIDSet = a.epoch, a.stored.place, a.stored.gtidSet
		if n := a.stored.newest; !n.IsZero() {
			s.Newest = &n
		}
	}
	s.LanesWanted, s.Atomicity = a.want, a.cfg.mode().String()
	if a.sched != nil {
		s.Atomicity = a.mode.String()
		for i, l := range a.lanes {
			lane := Lane{Place: a.sched.Place(i), Pending: a.sched.Pending(i), WaitsFor: l.blockedBy, Batches: l.batches, Rows: l.rows,
				RowsPerSecond: l.rate, BatchRows: l.size.rows(a.cfg.BatchRows), BatchSeconds: l.size.took.Seconds()}
			if oldest := a.sched.Oldest(i); oldest > 0 {
				lane.LagSeconds = max(0, time.Since(a.committed(oldest)).Seconds())
			}
			if n := a.state.notes[i]; n != nil {
				lane.Condition = n.err.Error()
			}
			s.Lanes = append(s.Lanes, lane)
		}
		s.WindowBytes = a.sched.Load()
		pending := a.open
		if low := a.sched.Low(); len(a.ends) > 0 && a.ends[len(a.ends)-1].seq > low {
			for _, e := range a.ends {
				if e.seq > low {
					pending = e.commit
					break
				}
			}
		}
		if !pending.IsZero() {
			s.Pending = &pending
			s.LagSeconds = max(0, time.Since(pending).Seconds())
		}
	}
	st := &a.state
	s.Rows, s.Skipped, s.Transactions, s.DDLs, s.Retries = st.rows, st.skipped, st.transactions, st.ddls, st.retries
	s.Statements = int64(st.outcome.Statements)
	s.InsertFound, s.UpdateMissing, s.DeleteMissing = int64(st.outcome.InsertFound), int64(st.outcome.UpdateMissing), int64(st.outcome.DeleteMissing)
	s.Conflicts, s.Exceptions = a.guard.ring.Total(), a.guard.open.Load()
	for slot := progressSlot; slot < len(a.lanes); slot++ {
		n := st.notes[slot]
		switch {
		case n == nil:
		case n.halt != nil:
			h := *n.halt
			h.Since, h.Tries = n.since, n.tries
			s.Halts = append(s.Halts, h)
		default:
			s.Troubles = append(s.Troubles, fmt.Sprintf("%s (%d tries since %s): %v", n.what, n.tries, n.since.UTC().Format(time.RFC3339), n.err))
		}
	}
	return s
}

// committed is the source's commit time of the transaction that the change with
// this number is of; mu is held.
func (a *Applier) committed(seq int64) time.Time {
	if i := sort.Search(len(a.ends), func(i int) bool { return a.ends[i].seq >= seq }); i < len(a.ends) {
		return a.ends[i].commit
	}
	if a.open.IsZero() {
		return time.Now()
	}
	return a.open
}

// note remembers what is in a lane's or the dispatcher's way; nil clears it.
func (a *Applier) note(slot int, err error, p change.Place, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.state.notes[slot]
	if err == nil {
		if n != nil {
			delete(a.state.notes, slot)
			if n.halt != nil {
				a.log.Info().Str("code", string(n.halt.Code)).Int("tries", n.tries).Msg("halt is over")
			}
		}
		return
	}
	if a.closing {
		return // connections are being closed: that says nothing about the target
	}
	a.state.retries++
	if a.state.notes == nil {
		a.state.notes = map[int]*note{}
	}
	now := time.Now()
	if n == nil {
		n = &note{since: now}
		a.state.notes[slot] = n
	}
	n.what, n.err = what, err
	n.tries++
	t := assess(err)
	var was Code
	if n.halt != nil {
		was = n.halt.Code
	}
	n.halt = nil
	if t.code != "" {
		n.halt = &Halt{Code: t.code, Reason: err.Error(), Remedy: t.remedy, Place: p}
		if was != t.code {
			n.since = now
			a.log.Error().Str("code", string(t.code)).Int("lane", slot).Int64("offset", int64(p.Offset)).
				Int32("index", p.Index).Str("remedy", t.remedy).Err(err).Msg("halted")
		}
		return
	}
	if n.tries == 1 || n.tries%64 == 0 {
		a.log.Warn().Int("lane", slot).Int("tries", n.tries).Err(err).Msg(what + " failed, trying again")
	}
}

// count adds what a lane did to rows.
func (a *Applier) count(o target.Outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.outcome.Add(o)
	if o.Doubt() {
		a.log.Debug().Int("insert_found", o.InsertFound).Int("update_missing", o.UpdateMissing).
			Int("delete_missing", o.DeleteMissing).Msg("target was not as the log expects it")
	}
}
