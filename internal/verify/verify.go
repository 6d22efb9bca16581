// Package verify compares source and target row by row while both are in use.
//
// A keyed table is read in chunks of its key; a table without a usable key is
// compared as a multiset of rows. What differs at first is only a candidate: the
// target runs behind the source, so a candidate is read again after the pipeline
// has caught up with the source's GTID set of that moment, and counts as a
// difference only when the source's row stood still meanwhile and the target's
// still differs. Values are compared in the bytes the servers store (text in its
// own charset, floats with all their digits), not in what a client would print.
package verify

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Side is one of the two servers.
type Side struct {
	DB   *sql.DB
	Info server.Info
}

// Config of a comparison.
type Config struct {
	Source, Target Side
	// Include chooses tables; nil takes every table but the servers' own and
	// twinspan's.
	Include func(schema.Name) bool
	// Names says how tables of the source are called on the target; nil: the same.
	Names Names
	// Settle blocks until the target has applied all that the source had
	// committed when it was called; see WaitForProgress. nil: nothing is in
	// motion, and a first difference is final.
	Settle func(ctx context.Context) error
	// ChunkRows bounds the rows of one read (default 2000, fewer for wide rows).
	ChunkRows int
	// Workers is how many tables are compared at once (default 2).
	Workers int
	// Attempts is how often a candidate is read again before it is given up as
	// unsettled (default 8).
	Attempts int
	// KeysMax bounds the differing rows listed per table (default 20).
	KeysMax int
	// Progress, when set, is called now and then from several goroutines.
	Progress func(Progress)
}

// Names are filters and routes as far as a comparison goes.
type Names interface {
	// Target is a table's name on the target; false: it is left out.
	Target(source schema.Name) (schema.Name, bool)
	// Source is the other way; false: nothing of the source goes there.
	Source(target schema.Name) (schema.Name, bool)
	// Apart says why a table's rows are meant to differ; empty: they are not.
	Apart(source schema.Name) string
}

// Progress of a running comparison.
type Progress struct {
	TablesDone, Tables int
	RowsDone           int64
	RowsEstimated      int64 // by the source's statistics: a guess
	Table              string
	Differences        int64
}

// Kind of a difference.
type Kind string

// The kinds.
const (
	Missing    Kind = "missing"    // on the source only
	Extra      Kind = "extra"      // on the target only
	Different  Kind = "different"  // on both, with other values
	Definition Kind = "definition" // the tables' columns differ
	Unsettled  Kind = "unsettled"  // still moving when given up
)

// Difference is one row, or one definition, that is not the same.
type Difference struct {
	Kind    Kind     `json:"kind"`
	Key     string   `json:"key,omitempty"` // column=value, …
	Columns []Column `json:"columns,omitempty"`
	Detail  string   `json:"detail,omitempty"`
	Count   int64    `json:"count,omitempty"` // of equal rows, in tables without a key
}

// Column of a difference, with both values in a printable form.
type Column struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Target string `json:"target"`
}

// TableReport is the outcome for one table.
type TableReport struct {
	Table       string       `json:"table"`
	Method      string       `json:"method"` // key, multiset, none: its rows are meant to differ
	Rows        int64        `json:"rows"`   // of the source
	Differences int64        `json:"differences"`
	Missing     int64        `json:"missing"`   // of the differences: rows on the source only
	Extra       int64        `json:"extra"`     // rows on the target only
	Different   int64        `json:"different"` // rows with other values
	Unsettled   int64        `json:"unsettled"` // still moving when given up
	Listed      []Difference `json:"listed,omitempty"`
	Note        string       `json:"note,omitempty"` // why its rows were not compared
}

// Report is the outcome of a comparison.
type Report struct {
	Tables      []TableReport `json:"tables"`
	Objects     []Difference  `json:"objects,omitempty"` // views and routines missing on a side
	Rows        int64         `json:"rows"`
	Differences int64         `json:"differences"`
	Unsettled   int64         `json:"unsettled"`
	Seconds     float64       `json:"seconds"`
}

// Equal says that nothing differs and nothing was left open.
func (r Report) Equal() bool { return r.Differences == 0 && r.Unsettled == 0 }

type run struct {
	cfg Config
	mu  sync.Mutex // guards prog
	// prog is the progress so far.
	prog Progress
}

// Run compares. An error means that the comparison could not be finished; what
// it found until then is in the report.
func Run(ctx context.Context, cfg Config) (Report, error) {
	began := time.Now()
	setDefault(&cfg.ChunkRows, 2000)
	setDefault(&cfg.Workers, 2)
	setDefault(&cfg.Attempts, 8)
	setDefault(&cfg.KeysMax, 20)
	r := &run{cfg: cfg}
	rep, err := r.all(ctx)
	for _, t := range rep.Tables {
		rep.Rows += t.Rows
		rep.Differences += t.Differences
		rep.Unsettled += t.Unsettled
	}
	rep.Differences += int64(len(rep.Objects))
	sort.Slice(rep.Tables, func(i, j int) bool { return rep.Tables[i].Table < rep.Tables[j].Table })
	rep.Seconds = time.Since(began).Seconds()
	return rep, err
}

func setDefault(p *int, v int) {
	if *p <= 0 {
		*p = v
	}
}

// all lists both sides and compares table by table. Tables are listed after the
// pipeline has settled, so that a table made a moment ago is not "missing".
func (r *run) all(ctx context.Context) (rep Report, err error) {
	src, tgt, err := r.list(ctx)
	if err != nil {
		return rep, err
	}
	if rep.Objects, err = r.objects(ctx); err != nil {
		return rep, err
	}
	names := make([]schema.Name, 0, len(src))
	for n := range src {
		names = append(names, n)
		r.prog.RowsEstimated += src[n].rows
	}
	for n := range tgt {
		if _, ok := src[n]; !ok {
			rep.Tables = append(rep.Tables, TableReport{Table: n.String(), Differences: 1,
				Listed: []Difference{{Kind: Extra, Detail: "the table is on the target only"}}})
		}
	}
	sort.Slice(names, func(i, j int) bool { return src[names[i]].rows > src[names[j]].rows })
	r.prog.Tables = len(names)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan schema.Name) // owner: this goroutine; unbuffered; closed below
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range min(r.cfg.Workers, max(len(names), 1)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range work {
				tr, err := r.table(ctx, n)
				mu.Lock()
				rep.Tables = append(rep.Tables, tr)
				if err != nil && failed == nil {
					failed = fmt.Errorf("table %s: %w", n, err)
					cancel()
				}
				mu.Unlock()
				r.report(func(p *Progress) { p.TablesDone++ })
			}
		}()
	}
feed:
	for _, n := range names {
		select {
		case work <- n:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	return rep, failed
}

// there is a table's name on the target.
func (r *run) there(n schema.Name) schema.Name {
	if r.cfg.Names != nil {
		if t, ok := r.cfg.Names.Target(n); ok {
			return t
		}
	}
	return n
}

func (r *run) report(change func(*Progress)) {
	r.mu.Lock()
	change(&r.prog)
	p := r.prog
	r.mu.Unlock()
	if r.cfg.Progress != nil {
		r.cfg.Progress(p)
	}
}

// settle is a no-op where nothing is in motion.
func (r *run) settle(ctx context.Context) error {
	if r.cfg.Settle == nil {
		return nil
	}
	if err := r.cfg.Settle(ctx); err != nil {
		return fmt.Errorf("waiting for the target to catch up: %w", err)
	}
	return nil
}

// table compares one table. A definition that differs, or a table that vanishes,
// may be a DDL on its way: that too is only believed after settling.
func (r *run) table(ctx context.Context, n schema.Name) (TableReport, error) {
	rep := TableReport{Table: n.String()}
	if r.cfg.Names != nil {
		if why := r.cfg.Names.Apart(n); why != "" {
			rep.Method, rep.Note = "none", why
			return rep, nil
		}
	}
	sameFlavor := r.cfg.Source.Info.Flavor == r.cfg.Target.Info.Flavor
	r.report(func(p *Progress) { p.Table = n.String() })
	for attempt := 1; ; attempt++ {
		s, err := describe(ctx, r.cfg.Source, n)
		if errors.Is(err, errGone) {
			return rep, nil // dropped since it was listed
		} else if err != nil {
			return rep, err
		}
		t, err := describe(ctx, r.cfg.Target, r.there(n))
		if err != nil && !errors.Is(err, errGone) {
			return rep, err
		}
		var why []string
		if err != nil {
			why = []string{"the table is on the source only"}
		} else {
			why = compareDefinitions(s, t, sameFlavor)
		}
		if len(why) == 0 {
			sh := newShape(s, t, sameFlavor)
			if len(sh.key) > 0 {
				rep.Method = "key"
				err = r.keyed(ctx, sh, &rep)
			} else {
				rep.Method = "multiset"
				err = r.multiset(ctx, sh, &rep)
			}
			if err == nil || !definitionChanged(err) || attempt >= r.cfg.Attempts {
				return rep, err
			}
			rep = TableReport{Table: n.String()}
		} else if r.cfg.Settle == nil || attempt >= 3 {
			kind := Definition
			if errors.Is(err, errGone) {
				kind = Missing
			}
			rep.Differences++
			rep.Listed = append(rep.Listed, Difference{Kind: kind, Detail: strings.Join(why, "; ")})
			return rep, nil
		}
		if err := r.settle(ctx); err != nil {
			return rep, err
		}
	}
}

// definitionChanged: no such table, unknown column, table definition has changed.
func definitionChanged(err error) bool {
	switch server.ErrorNumber(err) {
	case 1146, 1054, 1412:
		return true
	}
	return false
}

func (r *run) add(rep *TableReport, d Difference, n int64) {
	rep.Differences += n
	switch d.Kind {
	case Missing:
		rep.Missing += n
	case Extra:
		rep.Extra += n
	case Different:
		rep.Different += n
	}
	if len(rep.Listed) < r.cfg.KeysMax {
		rep.Listed = append(rep.Listed, d)
	}
	r.report(func(p *Progress) { p.Differences += n })
}

func (r *run) unsettled(rep *TableReport, d Difference, n int64) {
	rep.Unsettled += n
	if len(rep.Listed) < r.cfg.KeysMax {
		rep.Listed = append(rep.Listed, d)
	}
}
