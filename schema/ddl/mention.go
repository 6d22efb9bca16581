package ddl

import (
	"slices"

	"github.com/twinspan/twinspan/schema"
)

// Role is what a name is there for in a statement.
type Role uint8

// The roles.
const (
	Reads   Role = iota // LIKE, REFERENCES, a trigger's table, a sequence, UNION of a MERGE table
	Queries             // a query takes rows from it
	Changes             // one of Statement.Changed
	Object              // Statement.Object
)

// Mention is a name where it stands in the text: text[From:To], with its schema
// where that is written. Name.Table is empty for a schema.
type Mention struct {
	Name     schema.Name
	From, To int
	Role     Role
}

// Column is a column's name with its table's and its schema's before it:
// schema.table.column. From and To are the bytes of schema.table.
type Column struct {
	Table    schema.Name
	From, To int
}

// Columns finds the names of three parts in a statement, wherever they stand.
func Columns(text string, d Dialect) ([]Column, error) {
	tokens, err := lex(text, d)
	if err != nil {
		return nil, err
	}
	var out []Column
	s := newScan(tokens, "", d)
	for ; !s.end(); s.i++ {
		if s.i > 0 && s.peek(-1).sym('.') || !s.isName(0) || !s.peek(1).sym('.') || !s.isName(2) || !s.peek(3).sym('.') {
			continue
		}
		c := Column{From: s.peek(0).from, To: s.peek(2).to}
		if c.Table = s.qualified(); s.failed != "" {
			return nil, ErrUnclassified
		}
		out = append(out, c)
	}
	return out, nil
}

// Identifiers lists every word and quoted name of a statement once, and of those
// with a point between them, the pairs. Keywords are among the words: what a body
// of a routine refers to is in these, and more.
func Identifiers(text string, d Dialect) (words []string, pairs []schema.Name, err error) {
	tokens, err := lex(text, d)
	if err != nil {
		return nil, nil, err
	}
	s := newScan(tokens, "", d)
	for ; !s.end(); s.i++ {
		if !s.isName(0) || s.i > 0 && s.peek(-1).sym('.') {
			continue
		}
		at := s.i
		first := s.ident()
		if s.peek(0).sym('.') && s.isName(1) {
			s.i++
			n := schema.Name{Schema: first, Table: s.ident()}
			if !slices.Contains(pairs, n) {
				pairs = append(pairs, n)
			}
		} else if !slices.Contains(words, first) {
			words = append(words, first)
		}
		if s.failed != "" {
			return nil, nil, ErrUnclassified
		}
		s.i = at
	}
	return words, pairs, nil
}
