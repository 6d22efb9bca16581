package schema

import (
	"fmt"
	"slices"
	"strings"
)

// ChangeKind is what differs between two versions of a table.
type ChangeKind string

// The kinds of changes.
const (
	TableRenamed  ChangeKind = "table renamed"
	ColumnAdded   ChangeKind = "column added"
	ColumnDropped ChangeKind = "column dropped"
	ColumnChanged ChangeKind = "column changed"
	ColumnMoved   ChangeKind = "column moved"
	KeyChanged    ChangeKind = "primary key changed"
)

// Change is one difference. Before and After say what it was and is, for people;
// the side that has nothing is empty.
type Change struct {
	Kind   ChangeKind `json:"kind"`
	Column string     `json:"column,omitempty"`
	Before string     `json:"before,omitempty"`
	After  string     `json:"after,omitempty"`
}

func (c Change) String() string {
	s := string(c.Kind)
	if c.Column != "" {
		s += " " + c.Column
	}
	switch {
	case c.Before == "" && c.After != "":
		return s + ": " + c.After
	case c.After == "" && c.Before != "":
		return s + ": " + c.Before
	case c.Before != "":
		return s + ": " + c.Before + " -> " + c.After
	}
	return s
}

// Diff lists what makes b another version than a: no changes exactly when their
// fingerprints are equal. Columns are told apart by name, so a renamed column is
// one dropped and one added.
func Diff(a, b *Table) []Change {
	var out []Change
	if a.Name != b.Name {
		out = append(out, Change{Kind: TableRenamed, Before: a.Name.String(), After: b.Name.String()})
	}
	in := func(t *Table, name string) int {
		return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	}
	var kept []string // names of a's columns that b has, in a's order
	for i := range a.Columns {
		c := &a.Columns[i]
		j := in(b, c.Name)
		if j < 0 {
			out = append(out, Change{Kind: ColumnDropped, Column: c.Name, Before: c.SQLType()})
			continue
		}
		kept = append(kept, c.Name)
		if !c.equal(&b.Columns[j]) {
			before, after := c.SQLType(), b.Columns[j].SQLType()
			if before == after {
				before, after = fmt.Sprintf("%+v", *c), fmt.Sprintf("%+v", b.Columns[j])
			}
			out = append(out, Change{Kind: ColumnChanged, Column: c.Name, Before: before, After: after})
		}
	}
	next := 0
	for i := range b.Columns {
		c := &b.Columns[i]
		if in(a, c.Name) < 0 {
			out = append(out, Change{Kind: ColumnAdded, Column: c.Name, After: c.SQLType()})
			continue
		}
		if kept[next] != c.Name {
			out = append(out, Change{Kind: ColumnMoved, Column: c.Name,
				Before: fmt.Sprintf("position %d", in(a, c.Name)+1), After: fmt.Sprintf("position %d", i+1)})
		}
		next++
	}
	if ka, kb := strings.Join(a.KeyColumns(), ", "), strings.Join(b.KeyColumns(), ", "); ka != kb {
		out = append(out, Change{Kind: KeyChanged, Before: "(" + ka + ")", After: "(" + kb + ")"})
	}
	return out
}

func (c *Column) equal(d *Column) bool {
	return c.Name == d.Name && c.Type == d.Type && c.Nullable == d.Nullable && c.Unsigned == d.Unsigned &&
		c.Length == d.Length && c.Precision == d.Precision && c.Scale == d.Scale &&
		c.Charset == d.Charset && c.Collation == d.Collation && slices.Equal(c.Members, d.Members) &&
		c.Geometry == d.Geometry && c.Invisible == d.Invisible
}
