package history

import (
	"slices"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// bulk makes legal changes of one table that follow each other, as statements over
// many rows do: most of them in the order of the first column, some of them several
// times over one row.
func (g *Generator) bulk(table int) []*change.Row {
	b := run{g: g, table: table, t: &g.DB.Tables[table]}
	n := 1 + g.IntN(g.Bulk)
	kind := g.IntN(7)
	switch size := len(g.DB.Rows[table]); {
	case size > 2*g.Bulk:
		kind = 6 // it does not grow for ever
	case size < 2:
		kind = 0
	}
	switch kind {
	case 0, 1:
		b.insert(n)
	case 2:
		b.update(n)
	case 3:
		b.move(n)
	case 4:
		b.swap()
	case 5:
		b.again(n)
	default:
		b.remove(n)
	}
	return b.out
}

// Bulk is a table that runs of changes get far in: a whole number is its key, or it has
// none at all.
func Bulk(name string, keyed bool) Table {
	t := &target.Table{Identity: -1}
	t.Name = schema.Name{Schema: "hist", Table: name}
	t.Columns = []schema.Column{{Name: "c0", Type: schema.Int}, {Name: "c1", Type: schema.Int, Nullable: true}}
	if keyed {
		t.Identity, t.Keys = 0, []target.Key{{Name: "PRIMARY", Primary: true, Parts: []schema.KeyPart{{Column: 0}}}}
	}
	return Table{Def: t, Parent: -1}
}

// run gathers changes of one table.
type run struct {
	g     *Generator
	table int
	t     *Table
	out   []*change.Row
}

// do carries a change out, if it is legal; nil stands for no row.
func (b *run) do(before, after []change.Value) bool {
	db, r, except := b.g.DB, &change.Row{Table: &b.t.Def.Table, Before: before, After: after}, -1
	switch {
	case before == nil:
		r.Op = change.Insert
	case after == nil:
		r.Op = change.Delete
	default:
		r.Op = change.Update
	}
	if before != nil {
		if except = db.find(b.table, before); except < 0 || !same(db.Rows[b.table][except], before) {
			return false
		}
		if (after == nil || !before[0].Equal(after[0])) && !db.childless(b.table, before) {
			return false
		}
	}
	if after != nil && db.clash(b.table, after, except) != "" {
		return false
	}
	if err := db.Apply(b.table, r, true); err != nil {
		panic(err)
	}
	b.out = append(b.out, r)
	return true
}

// some are up to n rows that were inserted one after the other.
func (b *run) some(n int) [][]change.Value {
	rows := b.g.DB.Rows[b.table]
	if len(rows) == 0 {
		return nil
	}
	from := b.g.IntN(len(rows))
	return slices.Clone(rows[from:min(from+n, len(rows))])
}

// numbered: the table is ordered by whole numbers.
func (b *run) numbered() bool { return b.t.Def.Columns[0].Type == schema.Int }

// insert adds rows in key order; without a key, perhaps the same one each time.
func (b *run) insert(n int) {
	from, row, equal := b.g.IntN(b.g.Spread), b.g.fresh(b.t), b.t.Def.Identity < 0 && b.g.IntN(2) == 0
	for i := range n {
		if !equal {
			if row = b.g.fresh(b.t); b.numbered() {
				row[0] = change.IntegerOf(b.g.at(from + i))
			}
		}
		b.do(nil, row)
	}
}

// update gives one column new values.
func (b *run) update(n int) {
	c := 1 + b.g.IntN(len(b.t.Def.Columns)-1)
	for _, row := range b.some(n) {
		after := slices.Clone(row)
		after[c] = b.g.value(&b.t.Def.Columns[c])
		b.do(row, after)
	}
}

// move is UPDATE … SET first = first + 1 ORDER BY first DESC.
func (b *run) move(n int) {
	rows := b.some(n)
	slices.Reverse(rows)
	for _, row := range rows {
		after := slices.Clone(row)
		if after[0] = b.g.value(&b.t.Def.Columns[0]); b.numbered() {
			after[0] = change.IntegerOf(row[0].Integer() + 1)
		}
		b.do(row, after)
	}
}

// swap exchanges a column of two rows, by way of a third value.
func (b *run) swap() {
	rows, c := b.some(2), b.g.IntN(len(b.t.Def.Columns))
	if len(rows) < 2 {
		return
	}
	with := func(row []change.Value, v change.Value) []change.Value {
		row = slices.Clone(row)
		row[c] = v
		return row
	}
	x, y := rows[0], rows[1]
	away := with(x, b.g.value(&b.t.Def.Columns[c]))
	if b.do(x, away) && b.do(y, with(y, x[c])) {
		b.do(away, with(x, y[c]))
	}
}

// again changes rows twice and more: what is updated is deleted next, what is
// deleted comes back.
func (b *run) again(n int) {
	for i, row := range b.some(1 + n/2) {
		after := slices.Clone(row)
		c := 1 + b.g.IntN(len(row)-1)
		after[c] = b.g.value(&b.t.Def.Columns[c])
		switch b.g.IntN(3) {
		case 0:
			if b.do(row, after) {
				b.do(after, nil)
			}
		case 1:
			if b.do(row, nil) {
				b.do(nil, after)
			}
		default:
			if b.numbered() { // a row that is there for a moment only
				row = slices.Clone(after)
				row[0] = change.IntegerOf(b.g.at(b.g.Spread + i))
			}
			if b.do(nil, row) && b.do(row, after) {
				b.do(after, nil)
			}
		}
	}
}

func (b *run) remove(n int) {
	for _, row := range b.some(n) {
		b.do(row, nil)
	}
}
