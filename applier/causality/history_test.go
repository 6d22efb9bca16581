package causality

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// step is one logged change, or a transaction's end (row nil).
type step struct {
	place change.Place
	table int
	row   *change.Row
}

// generator makes schemas and histories that a server could have logged.
type generator struct {
	*rand.Rand
	db *database
}

var words = []string{"a", "A", "á", "b", "B", "ab", "Ab", "aB ", "a ", "abc", "ABD", "abx", "", " "}

func (g *generator) text(c *schema.Column) change.Value {
	w := words[g.IntN(len(words))]
	if c.Type == schema.Char {
		for len(w) > 0 && w[len(w)-1] == ' ' {
			w = w[:len(w)-1]
		}
	}
	return change.TextOf([]byte(w))
}

func (g *generator) value(c *schema.Column) change.Value {
	if c.Nullable && g.IntN(4) == 0 {
		return change.Value{}
	}
	switch c.Type {
	case schema.Int:
		return change.IntegerOf(int64(g.IntN(6)))
	case schema.BigInt:
		if c.Unsigned {
			return change.TextOf(fmt.Append(nil, g.IntN(6)))
		}
		return change.IntegerOf(int64(g.IntN(6)) - 3)
	case schema.VarBinary:
		return change.BytesOf([]byte(words[g.IntN(len(words))]))
	}
	return g.text(c)
}

func (g *generator) column(name string, nullable bool) schema.Column {
	c := schema.Column{Name: name, Nullable: nullable}
	switch g.IntN(6) {
	case 0:
		c.Type = schema.BigInt
		c.Unsigned = g.IntN(2) == 0
	case 1:
		c.Type, c.Length = schema.VarBinary, 20
	case 2, 3:
		c.Type = []schema.Type{schema.VarChar, schema.Char, schema.Text}[g.IntN(3)]
		c.Length, c.Charset = 80, "utf8mb4"
		c.Collation = []string{"utf8mb4_general_ci", "utf8mb4_0900_ai_ci", "utf8mb4_bin", "utf8mb4_unicode_ci"}[g.IntN(4)]
	default:
		c.Type = schema.Int
	}
	return c
}

// part is a key part; some text columns have a prefix of two characters.
func (g *generator) part(t *target.Table, column int) schema.KeyPart {
	p := schema.KeyPart{Column: column}
	switch t.Columns[column].Type {
	case schema.VarChar, schema.Char, schema.Text, schema.VarBinary:
		if g.IntN(3) == 0 {
			p.Prefix = 2
		}
	}
	return p
}

func (g *generator) table(n int) modelTable {
	t := &target.Table{Identity: 0}
	t.Name = schema.Name{Schema: "s", Table: fmt.Sprintf("t%d", n)}
	for i := range 2 + g.IntN(3) {
		t.Columns = append(t.Columns, g.column(fmt.Sprintf("c%d", i), i > 1 || i == 1 && g.IntN(2) == 0))
	}
	pk := []schema.KeyPart{g.part(t, 0)}
	if !t.Columns[1].Nullable && g.IntN(3) == 0 {
		pk = append(pk, g.part(t, 1))
	}
	switch g.IntN(8) {
	case 0: // no key at all
		t.Identity = -1
		return modelTable{def: t, parent: -1}
	default:
		t.Keys = append(t.Keys, target.Key{Name: "PRIMARY", Primary: true, Parts: pk})
	}
	for u := range g.IntN(3) {
		parts := []schema.KeyPart{g.part(t, 1+g.IntN(len(t.Columns)-1))}
		if g.IntN(3) == 0 {
			if c := g.IntN(len(t.Columns)); c != parts[0].Column {
				parts = append(parts, g.part(t, c))
			}
		}
		t.Keys = append(t.Keys, target.Key{Name: fmt.Sprintf("u%d", u), Parts: parts})
	}
	return modelTable{def: t, parent: -1}
}

// family is a parent and a child that refers to it.
func (g *generator) family(n int) []modelTable {
	var both []modelTable
	for i, name := range []string{"parent", "child"} {
		t := &target.Table{}
		t.Name = schema.Name{Schema: "s", Table: fmt.Sprintf("%s%d", name, n)}
		t.Columns = []schema.Column{{Name: "id", Type: schema.Int}, {Name: "p", Type: schema.Int, Nullable: true}}
		t.Keys = []target.Key{{Name: "PRIMARY", Primary: true, Parts: []schema.KeyPart{{Column: 0}}}}
		both = append(both, modelTable{def: t, parent: i*(n+1) - 1, rep: schema.Name{Schema: "s", Table: fmt.Sprintf("parent%d", n)}})
	}
	return both
}

func (g *generator) schema() []modelTable {
	var ts []modelTable
	if g.IntN(3) == 0 {
		ts = g.family(0)
	}
	for range 1 + g.IntN(2) {
		ts = append(ts, g.table(len(ts)))
	}
	return ts
}

// change makes one legal change of a table, nil when it found none.
func (g *generator) change(table int) *change.Row {
	t := &g.db.tables[table]
	rows := g.db.rows[table]
	fresh := func() []change.Value {
		row := make([]change.Value, len(t.def.Columns))
		for i := range row {
			row[i] = g.value(&t.def.Columns[i])
		}
		return row
	}
	for range 8 {
		r := &change.Row{Table: &t.def.Table}
		except := -1
		switch {
		case len(rows) == 0 || g.IntN(3) == 0:
			r.Op, r.After = change.Insert, fresh()
		case g.IntN(3) == 0:
			r.Op, r.Before = change.Delete, rows[g.IntN(len(rows))]
			if !g.db.childless(table, r.Before) {
				continue
			}
		default:
			except = g.IntN(len(rows))
			r.Op, r.Before, r.After = change.Update, rows[except], slices.Clone(rows[except])
			other := fresh()
			if g.IntN(3) == 0 && len(rows) > 1 { // take over another row's values
				other = rows[g.IntN(len(rows))]
			}
			for i := range r.After {
				if g.IntN(2) == 0 {
					r.After[i] = other[i]
				}
			}
			if !r.Before[0].Equal(r.After[0]) && !g.db.childless(table, r.Before) {
				continue
			}
		}
		if r.After == nil || g.db.clash(table, r.After, except) == "" {
			if err := g.db.apply(table, r, true); err != nil {
				panic(err)
			}
			return r
		}
	}
	return nil
}

// history makes about n changes in transactions and entries.
func (g *generator) history(n int) []step {
	var steps []step
	p := change.Place{}
	add := func(table int, r *change.Row) {
		steps = append(steps, step{place: p, table: table, row: r})
		p.Index++
	}
	for len(steps) < n {
		for range 1 + g.IntN(4) {
			table := g.IntN(len(g.db.tables))
			if r := g.change(table); r != nil {
				add(table, r)
				if g.IntN(4) == 0 && r.Op == change.Delete { // delete and re-insert in one go
					if again := g.change(table); again != nil {
						add(table, again)
					}
				}
			}
		}
		add(0, nil)
		if g.IntN(3) == 0 {
			p = change.Place{Offset: p.Offset + log.Offset(1+g.IntN(2))}
		}
	}
	return steps
}
