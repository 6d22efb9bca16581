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
// fingerprints are equal. Both must be valid. Columns are told apart by name, so a renamed column is
// one dropped and one added.
func Diff(a, b *Table) []Change {
	var out []Change
	if a.Name != b.Name {
		out = append(out, Change{Kind: TableRenamed, Before: a.Name.String(), After: b.Name.String()})
	}
	in := func(t *Table, name string) int {
		return slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
	}
	for i := range a.Columns {
		c := &a.Columns[i]
		j := in(b, c.Name)
		if j < 0 {
			out = append(out, Change{Kind: ColumnDropped, Column: c.Name, Before: c.SQLType()})
			continue
		}
		if !c.equal(&b.Columns[j]) {
			before, after := c.SQLType(), b.Columns[j].SQLType()
			if before == after {
				before, after = fmt.Sprintf("%+v", *c), fmt.Sprintf("%+v", b.Columns[j])
			}
			out = append(out, Change{Kind: ColumnChanged, Column: c.Name, Before: before, After: after})
		}
	}
	var places []int // in a, of the columns that both have, in b's order
	for i := range b.Columns {
		if j := in(a, b.Columns[i].Name); j >= 0 {
			places = append(places, j)
		}
	}
	inOrder := longestAscent(places)
	for i := range b.Columns {
		c := &b.Columns[i]
		if j := in(a, c.Name); j < 0 {
			out = append(out, Change{Kind: ColumnAdded, Column: c.Name, After: c.SQLType()})
		} else if !inOrder[j] {
			out = append(out, Change{Kind: ColumnMoved, Column: c.Name,
				Before: fmt.Sprintf("position %d", j+1), After: fmt.Sprintf("position %d", i+1)})
		}
	}
	sameParts := slices.EqualFunc(a.PrimaryKey, b.PrimaryKey, func(p, q KeyPart) bool {
		return a.Columns[p.Column].Name == b.Columns[q.Column].Name && p.Prefix == q.Prefix
	})
	if !sameParts {
		out = append(out, Change{Kind: KeyChanged,
			Before: "(" + strings.Join(a.KeyColumns(), ", ") + ")", After: "(" + strings.Join(b.KeyColumns(), ", ") + ")"})
	}
	return out
}

// longestAscent gives the members of a longest ascending subsequence: what need
// not move to bring the numbers, which are all different, into order.
func longestAscent(numbers []int) map[int]bool {
	var ends []int          // ends[k]: index of the lowest end of an ascent of k+1
	before := map[int]int{} // index of the one before in its ascent
	for i, n := range numbers {
		k, _ := slices.BinarySearchFunc(ends, n, func(e, n int) int { return numbers[e] - n })
		if k > 0 {
			before[i] = ends[k-1]
		}
		if k == len(ends) {
			ends = append(ends, i)
		} else {
			ends[k] = i
		}
	}
	out := map[int]bool{}
	if len(ends) == 0 {
		return out
	}
	for i, ok := ends[len(ends)-1], true; ok; i, ok = before[i] {
		out[numbers[i]] = true
	}
	return out
}

func (c *Column) equal(d *Column) bool {
	return c.Name == d.Name && c.Type == d.Type && c.Nullable == d.Nullable && c.Unsigned == d.Unsigned &&
		c.Length == d.Length && c.Precision == d.Precision && c.Scale == d.Scale &&
		c.Charset == d.Charset && c.Collation == d.Collation && slices.Equal(c.Members, d.Members) &&
		c.Geometry == d.Geometry && c.Invisible == d.Invisible
}
