package causality

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// The model is a database with real unique and foreign key semantics, and a
// second opinion on equality: it folds strings by hand, not by weights.

// modelTable is a table definition and what the model needs beside it.
type modelTable struct {
	def    *target.Table
	parent int // index of the table that column 1 refers to; -1: none
	rep    schema.Name
}

// database is the state of all tables.
type database struct {
	tables []modelTable
	rows   [][][]change.Value
}

func newDatabase(tables []modelTable) *database {
	return &database{tables: tables, rows: make([][][]change.Value, len(tables))}
}

func (d *database) clone() *database {
	c := newDatabase(d.tables)
	for i, r := range d.rows {
		c.rows[i] = slices.Clone(r)
	}
	return c
}

// fold is the value as the database compares it.
func fold(c *schema.Column, v change.Value, prefix int) string {
	switch v.Kind() {
	case change.Integer:
		return fmt.Sprint(v.Integer())
	case change.Text:
		s := []rune(string(v.Bytes()))
		if prefix > 0 && len(s) > prefix {
			s = s[:prefix]
		}
		if strings.HasSuffix(c.Collation, "_ci") {
			s = []rune(strings.NewReplacer("á", "a", "Á", "a").Replace(strings.ToLower(string(s))))
		}
		return strings.TrimRight(string(s), " ")
	case change.Bytes:
		s := v.Bytes()
		if prefix > 0 && len(s) > prefix {
			s = s[:prefix]
		}
		return string(s)
	}
	panic("model: kind")
}

// keyOf is false when a part is NULL.
func (t *modelTable) keyOf(k int, row []change.Value) (string, bool) {
	var s strings.Builder
	for _, p := range t.def.Keys[k].Parts {
		v := row[p.Column]
		if v.IsNull() {
			return "", false
		}
		fmt.Fprintf(&s, "%q,", fold(&t.def.Columns[p.Column], v, p.Prefix))
	}
	return s.String(), true
}

func same(a, b []change.Value) bool {
	return slices.EqualFunc(a, b, func(x, y change.Value) bool { return x.Equal(y) })
}

// find looks a row up by its identity, or by all its values.
func (d *database) find(table int, row []change.Value) int {
	t := &d.tables[table]
	if t.def.Identity < 0 {
		return slices.IndexFunc(d.rows[table], func(r []change.Value) bool { return same(r, row) })
	}
	want, _ := t.keyOf(t.def.Identity, row)
	return slices.IndexFunc(d.rows[table], func(r []change.Value) bool {
		have, _ := t.keyOf(t.def.Identity, r)
		return have == want
	})
}

// clash names the unique key that row would break, leaving out row `except`.
func (d *database) clash(table int, row []change.Value, except int) string {
	t := &d.tables[table]
	for k := range t.def.Keys {
		want, ok := t.keyOf(k, row)
		if !ok {
			continue
		}
		for i, r := range d.rows[table] {
			if have, ok := t.keyOf(k, r); i != except && ok && have == want {
				return t.def.Keys[k].Name
			}
		}
	}
	if t.parent >= 0 && !row[1].IsNull() && !slices.ContainsFunc(d.rows[t.parent], func(r []change.Value) bool { return r[0].Equal(row[1]) }) {
		return "foreign key"
	}
	return ""
}

// childless: no row refers to this one.
func (d *database) childless(table int, row []change.Value) bool {
	for c := range d.tables {
		if d.tables[c].parent == table && slices.ContainsFunc(d.rows[c], func(r []change.Value) bool { return r[1].Equal(row[0]) }) {
			return false
		}
	}
	return true
}

// apply carries a change out by its intent. strict makes every surprise an
// error: with places that skip what is durable, no change ever meets another
// state than the one it was logged in.
func (d *database) apply(table int, r *change.Row, strict bool) error {
	surprise := func(what string) error {
		if strict {
			return fmt.Errorf("%s on %s: %s: %s → %s", r.Op, d.tables[table].def.Name.Table, what, show(r.Before), show(r.After))
		}
		return nil
	}
	at := -1
	if r.Before != nil {
		if at = d.find(table, r.Before); at < 0 {
			if err := surprise("row is missing"); err != nil {
				return err
			}
		} else if strict && !same(d.rows[table][at], r.Before) {
			return surprise("row is another: " + show(d.rows[table][at]))
		}
	}
	if r.After == nil {
		if at >= 0 {
			if !d.childless(table, d.rows[table][at]) {
				return fmt.Errorf("delete on %s: row has children", d.tables[table].def.Name.Table)
			}
			d.rows[table] = slices.Delete(d.rows[table], at, at+1)
		}
		return nil
	}
	if r.Before == nil && d.tables[table].def.Identity >= 0 {
		if at = d.find(table, r.After); at >= 0 {
			if err := surprise("row is there"); err != nil {
				return err
			}
		}
	}
	for k := d.clash(table, r.After, at); k != ""; k = d.clash(table, r.After, at) {
		if !strict {
			// What "delete first, then insert" does to the holder.
			i := slices.IndexFunc(d.rows[table], func(row []change.Value) bool {
				alone := &database{tables: d.tables, rows: make([][][]change.Value, len(d.tables))}
				alone.rows[table] = [][]change.Value{row}
				return !same(row, at0(d.rows[table], at)) && alone.clash(table, r.After, -1) == k
			})
			if i >= 0 {
				d.rows[table] = slices.Delete(slices.Clone(d.rows[table]), i, i+1)
				if i < at {
					at--
				}
				continue
			}
		}
		return fmt.Errorf("%s on %s: conflict on %s: %s → %s", r.Op, d.tables[table].def.Name.Table, k, show(r.Before), show(r.After))
	}
	if at >= 0 {
		d.rows[table] = slices.Clone(d.rows[table])
		d.rows[table][at] = r.After
	} else {
		d.rows[table] = append(d.rows[table], r.After)
	}
	return nil
}

func at0(rows [][]change.Value, i int) []change.Value {
	if i < 0 {
		return nil
	}
	return rows[i]
}

func show(row []change.Value) string {
	if row == nil {
		return "-"
	}
	var s []string
	for _, v := range row {
		switch v.Kind() {
		case change.Null:
			s = append(s, "NULL")
		case change.Integer:
			s = append(s, fmt.Sprint(v.Integer()))
		default:
			s = append(s, fmt.Sprintf("%q", v.Bytes()))
		}
	}
	return "(" + strings.Join(s, ",") + ")"
}

// contents is the state as sorted text.
func (d *database) contents() string {
	var s []string
	for t, rows := range d.rows {
		for _, r := range rows {
			s = append(s, d.tables[t].def.Name.Table+show(r))
		}
	}
	slices.Sort(s)
	return strings.Join(s, "\n")
}
