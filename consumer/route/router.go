package route

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Router applies Rules to a stream of transactions. One goroutine feeds it; Counts
// may be read by any.
type Router struct {
	rules *Rules
	done  map[string]bool

	// Of the feeding goroutine.
	tables map[*schema.Table]*way // as many as the stream has table versions
	open   bool                   // the transaction that continues was seen from its beginning
	fed    bool                   // and a part of it was fed
	rows   atomic.Int64           // left out
	ddl    atomic.Int64           // left out, whole
}

// way is what becomes of the rows of one table version.
type way struct {
	Way
	table *schema.Table // under its new name
}

// NewRouter makes a router.
func NewRouter(r *Rules) *Router {
	x := &Router{rules: r, done: map[string]bool{}, tables: map[*schema.Table]*way{}}
	for _, g := range r.cfg.Done {
		x.done[g] = true
	}
	return x
}

// Counts are how many rows and statements were left out since the start.
func (r *Router) Counts() (rows, statements int64) { return r.rows.Load(), r.ddl.Load() }

// Feed hands on what is left of a transaction, or of a part of one, in as many parts
// as there are gaps: every change keeps the place that it has in the log, and the
// end of a transaction always comes, so that the GTID set grows as the source's
// does. It fails with a *Refusal before anything was handed on, or with apply's
// error. The rows of t are its own afterwards.
func (r *Router) Feed(ctx context.Context, first change.Place, t *change.Transaction, held string,
	apply func(ctx context.Context, first change.Place, t *change.Transaction, held string) error) error {
	if !t.Continues {
		r.open, r.fed = true, false
	}
	d, err := r.statement(t)
	if err != nil {
		return err
	}
	kept := 0
	for i := range t.Rows {
		w, err := r.way(t.Rows[i].Table, t.GTID)
		if err != nil {
			return err
		}
		if w.Included && !w.skips(t.Rows[i].Op) {
			kept++
		}
	}
	r.rows.Add(int64(len(t.Rows) - kept))
	if t.DDL != nil && d == nil {
		r.ddl.Add(1)
	}
	continued := t.Continued
	next := first // the place of what comes next
	part := change.Transaction{GTID: t.GTID, CommitTime: t.CommitTime, ServerID: t.ServerID, DDL: d}
	if t.DDL != nil {
		next.Index++
		if d == nil {
			first = next
		}
	}
	flush := func(last bool) error {
		if !last && part.DDL == nil && len(part.Rows) == 0 {
			return nil
		}
		part.Continued = !last || continued
		part.Continues = t.Continues && !r.open || r.fed
		p, h := part, ""
		if last {
			h = held
		}
		if err := apply(ctx, first, &p, h); err != nil {
			return err
		}
		r.fed = true
		part.DDL, part.Rows = nil, nil
		return nil
	}
	from := 0 // rows[from:i] go on together
	for i := range t.Rows {
		row := &t.Rows[i]
		w := r.tables[row.Table]
		if w.Included && !w.skips(row.Op) {
			row.Table = w.table
			next.Index++
			continue
		}
		part.Rows = slices.Clip(t.Rows[from:i])
		if err := flush(false); err != nil {
			return err
		}
		from = i + 1
		next.Index++
		first = next
	}
	part.Rows = slices.Clip(t.Rows[from:])
	if continued && part.DDL == nil && len(part.Rows) == 0 {
		return nil
	}
	if err := flush(true); err != nil {
		return err
	}
	if !continued {
		r.open, r.fed = false, false
	}
	return nil
}

// way decides about the rows of a table version.
func (r *Router) way(t *schema.Table, gtid string) (*way, error) {
	if w := r.tables[t]; w != nil {
		return w, nil
	}
	w := &way{Way: r.rules.Table(t.Name), table: t}
	if err := w.check(gtid); err != nil {
		return nil, err
	}
	if w.Included && w.Target != t.Name {
		c := *t
		c.Name = w.Target
		w.table = &c
	}
	r.tables[t] = w
	return w, nil
}
