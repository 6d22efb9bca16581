package history

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Step is one logged change, or a transaction's end (Row nil).
type Step struct {
	Place change.Place
	Table int
	Row   *change.Row
	DDL   string // instead of a row
}

// Generator makes schemas and histories that a server could have logged.
type Generator struct {
	*rand.Rand
	DB *Database
	// Collations to choose from.
	Collations []string
	// Spread is how many different numbers there are: few make keys collide.
	Spread int
	// Block is how many numbers follow each other; others are far away, for lanes are
	// given blocks of neighbours.
	Block int
	// Bulk bounds the runs of changes of one table that follow each other.
	Bulk int
	// DDL lets tables gain columns on the way.
	DDL bool
}

// New makes a generator of collisions, without DDL.
func New(r *rand.Rand) *Generator {
	return &Generator{Rand: r, Spread: 6, Block: []int{2, 4, 64}[r.IntN(3)], Bulk: 12, Collations: []string{"utf8mb4_general_ci", "utf8mb4_0900_ai_ci", "utf8mb4_bin", "utf8mb4_unicode_ci"}}
}

var words = []string{"a", "A", "á", "b", "B", "ab", "Ab", "aB ", "a ", "abc", "ABD", "abx", "", " "}

func (g *Generator) text(c *schema.Column) change.Value {
	w := words[g.IntN(len(words))]
	if c.Type == schema.Char {
		for len(w) > 0 && w[len(w)-1] == ' ' {
			w = w[:len(w)-1]
		}
	}
	return change.TextOf([]byte(w))
}

// at is the nth number.
func (g *Generator) at(n int) int64 { return int64(n/g.Block*5000 + n%g.Block) }

func (g *Generator) number() int64 { return g.at(g.IntN(g.Spread)) }

func (g *Generator) value(c *schema.Column) change.Value {
	if c.Nullable && g.IntN(4) == 0 {
		return change.Value{}
	}
	switch c.Type {
	case schema.Int:
		return change.IntegerOf(g.number())
	case schema.BigInt:
		if c.Unsigned {
			return change.TextOf(fmt.Append(nil, g.number()))
		}
		return change.IntegerOf(g.number() - 3)
	case schema.VarBinary:
		return change.BytesOf([]byte(words[g.IntN(len(words))]))
	}
	return g.text(c)
}

func (g *Generator) column(name string, nullable bool) schema.Column {
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
		if c.Type == schema.Text {
			c.Length = 0 // it has none, and a definition that says so is not valid
		}
		c.Collation = g.Collations[g.IntN(len(g.Collations))]
	default:
		c.Type = schema.Int
	}
	return c
}

// part is a key part; some text columns have a prefix of two characters.
func (g *Generator) part(t *target.Table, column int) schema.KeyPart {
	p := schema.KeyPart{Column: column}
	switch t.Columns[column].Type {
	case schema.VarChar, schema.Char, schema.Text, schema.VarBinary:
		if g.IntN(3) == 0 || t.Columns[column].Type == schema.Text {
			p.Prefix = 2
		}
	}
	return p
}

func (g *Generator) table(n int) Table {
	t := &target.Table{Identity: 0}
	t.Name = schema.Name{Schema: "hist", Table: fmt.Sprintf("t%d", n)}
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
		return Table{Def: t, Parent: -1}
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
	return Table{Def: t, Parent: -1}
}

// family is a parent and a child that refers to it.
func (g *Generator) family(n int) []Table {
	var both []Table
	for i, name := range []string{"parent", "child"} {
		t := &target.Table{}
		t.Name = schema.Name{Schema: "hist", Table: fmt.Sprintf("%s%d", name, n)}
		t.Columns = []schema.Column{{Name: "id", Type: schema.Int}, {Name: "p", Type: schema.Int, Nullable: true}}
		t.Keys = []target.Key{{Name: "PRIMARY", Primary: true, Parts: []schema.KeyPart{{Column: 0}}}}
		both = append(both, Table{Def: t, Parent: i*(n+1) - 1, Rep: schema.Name{Schema: "hist", Table: fmt.Sprintf("parent%d", n)}})
	}
	return both
}

func (g *Generator) Schema() []Table {
	var ts []Table
	if g.IntN(3) == 0 {
		ts = g.family(0)
	}
	for range 1 + g.IntN(2) {
		ts = append(ts, g.table(len(ts)))
	}
	return ts
}

func (g *Generator) fresh(t *Table) []change.Value {
	row := make([]change.Value, len(t.Def.Columns))
	for i := range row {
		row[i] = g.value(&t.Def.Columns[i])
	}
	return row
}

// change makes one legal change of a table, nil when it found none.
func (g *Generator) change(table int) *change.Row {
	t := &g.DB.Tables[table]
	rows := g.DB.Rows[table]
	for range 8 {
		r := &change.Row{Table: &t.Def.Table}
		except := -1
		switch {
		case len(rows) == 0 || g.IntN(3) == 0:
			r.Op, r.After = change.Insert, g.fresh(t)
		case g.IntN(3) == 0:
			r.Op, r.Before = change.Delete, rows[g.IntN(len(rows))]
			if !g.DB.childless(table, r.Before) {
				continue
			}
		default:
			except = g.IntN(len(rows))
			r.Op, r.Before, r.After = change.Update, rows[except], slices.Clone(rows[except])
			other := g.fresh(t)
			if g.IntN(3) == 0 && len(rows) > 1 { // take over another row's values
				other = rows[g.IntN(len(rows))]
			}
			for i := range r.After {
				if g.IntN(2) == 0 {
					r.After[i] = other[i]
				}
			}
			if !r.Before[0].Equal(r.After[0]) && !g.DB.childless(table, r.Before) {
				continue
			}
		}
		if r.After == nil || g.DB.clash(table, r.After, except) == "" {
			if err := g.DB.Apply(table, r, true); err != nil {
				panic(err)
			}
			return r
		}
	}
	return nil
}

// History makes about n changes in transactions and entries.
func (g *Generator) History(n int) []Step {
	var steps []Step
	p := change.Place{}
	most := []int{4, 4, 40}[g.IntN(3)] // changes, or runs of them, of a transaction
	add := func(table int, r *change.Row) {
		steps = append(steps, Step{Place: p, Table: table, Row: r})
		p.Index++
	}
	for len(steps) < n {
		if g.DDL && g.IntN(150) == 0 {
			table := g.IntN(len(g.DB.Tables))
			steps = append(steps, Step{Place: p, Table: table, DDL: g.addColumn(table)})
			p.Index++
			add(0, nil)
			continue
		}
		for range 1 + g.IntN(most) {
			table := g.IntN(len(g.DB.Tables))
			if g.IntN(5+g.Bulk/8) == 0 {
				for _, r := range g.bulk(table) {
					add(table, r)
				}
				continue
			}
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

// addColumn gives a table one more column, NULL in every row.
func (g *Generator) addColumn(table int) string {
	t := &g.DB.Tables[table]
	def := *t.Def
	c := schema.Column{Name: fmt.Sprintf("c%d", len(def.Columns)), Type: schema.Int, Nullable: true}
	def.Columns = append(slices.Clone(def.Columns), c)
	t.Def = &def
	for i, r := range g.DB.Rows[table] {
		g.DB.Rows[table][i] = append(slices.Clone(r), change.Value{})
	}
	return fmt.Sprintf("ALTER TABLE `%s`.`%s` ADD COLUMN %s", def.Name.Schema, def.Name.Table, columnSQL(&c))
}
