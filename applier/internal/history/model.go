// Package history makes what the applier's tests run on: random schemas, random
// histories that a server could have logged, and a model of a database to apply
// them to.
package history

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

// Table is a table definition and what the model needs beside it.
type Table struct {
	Def    *target.Table
	Parent int // index of the table that column 1 refers to; -1: none
	Rep    schema.Name
}

// Database is the state of all tables.
type Database struct {
	Tables []Table
	Rows   [][][]change.Value // by table
}

func NewDatabase(tables []Table) *Database {
	return &Database{Tables: tables, Rows: make([][][]change.Value, len(tables))}
}

func (d *Database) Clone() *Database {
	c := NewDatabase(d.Tables)
	for i, r := range d.Rows {
		c.Rows[i] = slices.Clone(r)
	}
	return c
}

var accents = strings.NewReplacer("á", "a", "Á", "a")

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
			s = []rune(accents.Replace(strings.ToLower(string(s))))
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

// sameKey is false when a part is NULL.
func (t *Table) sameKey(k int, a, b []change.Value) bool {
	for _, p := range t.Def.Keys[k].Parts {
		x, y := a[p.Column], b[p.Column]
		switch {
		case x.IsNull() || y.IsNull():
			return false
		case x.Kind() == change.Integer && y.Kind() == change.Integer:
			if x.Integer() != y.Integer() {
				return false
			}
		case !x.Equal(y) && fold(&t.Def.Columns[p.Column], x, p.Prefix) != fold(&t.Def.Columns[p.Column], y, p.Prefix):
			return false
		}
	}
	return true
}

func same(a, b []change.Value) bool {
	return slices.EqualFunc(a, b, func(x, y change.Value) bool { return x.Equal(y) })
}

// find looks a row up by its identity, or by all its values.
func (d *Database) find(table int, row []change.Value) int {
	t := &d.Tables[table]
	if t.Def.Identity < 0 {
		return slices.IndexFunc(d.Rows[table], func(r []change.Value) bool { return same(r, row) })
	}
	return slices.IndexFunc(d.Rows[table], func(r []change.Value) bool { return t.sameKey(t.Def.Identity, row, r) })
}

// clash names the unique key that row would break, leaving out row `except`.
func (d *Database) clash(table int, row []change.Value, except int) string {
	t := &d.Tables[table]
	for k := range t.Def.Keys {
		for i, r := range d.Rows[table] {
			if i != except && t.sameKey(k, row, r) {
				return t.Def.Keys[k].Name
			}
		}
	}
	if t.Parent >= 0 && !row[1].IsNull() && !slices.ContainsFunc(d.Rows[t.Parent], func(r []change.Value) bool { return r[0].Equal(row[1]) }) {
		return "foreign key"
	}
	return ""
}

// childless: no row refers to this one.
func (d *Database) childless(table int, row []change.Value) bool {
	for c := range d.Tables {
		if d.Tables[c].Parent == table && slices.ContainsFunc(d.Rows[c], func(r []change.Value) bool { return r[1].Equal(row[0]) }) {
			return false
		}
	}
	return true
}

// Apply carries a change out by its intent. strict makes every surprise an
// error: with places that skip what is durable, no change ever meets another
// state than the one it was logged in.
func (d *Database) Apply(table int, r *change.Row, strict bool) error {
	surprise := func(what string) error {
		if strict {
			return fmt.Errorf("%s on %s: %s: %s → %s", r.Op, d.Tables[table].Def.Name.Table, what, Show(r.Before), Show(r.After))
		}
		return nil
	}
	at := -1
	if r.Before != nil {
		if at = d.find(table, r.Before); at < 0 {
			if err := surprise("row is missing"); err != nil {
				return err
			}
		} else if strict && !same(d.Rows[table][at], r.Before) {
			return surprise("row is another: " + Show(d.Rows[table][at]))
		}
	}
	if r.After == nil {
		if at >= 0 {
			if !d.childless(table, d.Rows[table][at]) {
				return fmt.Errorf("delete on %s: row has children", d.Tables[table].Def.Name.Table)
			}
			d.Rows[table] = slices.Delete(d.Rows[table], at, at+1)
		}
		return nil
	}
	if r.Before == nil && d.Tables[table].Def.Identity >= 0 {
		if at = d.find(table, r.After); at >= 0 {
			if err := surprise("row is there"); err != nil {
				return err
			}
		}
	}
	for k := d.clash(table, r.After, at); k != ""; k = d.clash(table, r.After, at) {
		if !strict {
			// What "delete first, then insert" does to the holder.
			i := slices.IndexFunc(d.Rows[table], func(row []change.Value) bool {
				alone := &Database{Tables: d.Tables, Rows: make([][][]change.Value, len(d.Tables))}
				alone.Rows[table] = [][]change.Value{row}
				return !same(row, at0(d.Rows[table], at)) && alone.clash(table, r.After, -1) == k
			})
			if i >= 0 {
				d.Rows[table] = slices.Delete(slices.Clone(d.Rows[table]), i, i+1)
				if i < at {
					at--
				}
				continue
			}
		}
		return fmt.Errorf("%s on %s: conflict on %s: %s → %s", r.Op, d.Tables[table].Def.Name.Table, k, Show(r.Before), Show(r.After))
	}
	if at >= 0 {
		d.Rows[table] = slices.Clone(d.Rows[table])
		d.Rows[table][at] = r.After
	} else {
		d.Rows[table] = append(d.Rows[table], r.After)
	}
	return nil
}

func at0(rows [][]change.Value, i int) []change.Value {
	if i < 0 {
		return nil
	}
	return rows[i]
}

func Show(row []change.Value) string {
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

// Contents is the state as sorted text.
func (d *Database) Contents() string {
	var s []string
	for t, rows := range d.Rows {
		for _, r := range rows {
			s = append(s, d.Tables[t].Def.Name.Table+Show(r))
		}
	}
	slices.Sort(s)
	return strings.Join(s, "\n")
}
