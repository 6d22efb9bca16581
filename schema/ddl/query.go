package ddl

import (
	"slices"
	"strings"
)

// depthMax bounds how deep parentheses may nest.
const depthMax = 5000

// query notes every table that the query from here on takes rows from, up to
// the end, the parenthesis that closes this level, or the keyword stop at this
// level. tables: it starts within a list of tables. ctes are the names of common
// table expressions that hide tables here.
//
// FROM, JOIN and commas behind FROM bring tables. They mean so only at a level
// of parentheses where a query is: EXTRACT(YEAR FROM x) is none.
func (s *scan) query(ctes []string, tables bool, stop string, depth int) {
	if depth > depthMax {
		s.fail("too many parentheses")
		return
	}
	start := s.i
	isQuery, from, expect := tables, tables, tables
	for !s.end() && s.failed == "" {
		t := s.peek(0)
		switch {
		case t.sym(')'), t.sym(';') && depth == 0, stop != "" && t.is(stop):
			return
		case t.sym('('):
			s.i++
			s.query(ctes, expect, "", depth+1)
			if !s.takeSym(')') {
				s.fail("a parenthesis does not end")
			}
			expect = false
			continue
		case s.i > start && s.peek(-1).sym('.') && t.kind != symbol:
			s.i++ // the column of a qualified name may be spelt like a keyword
			continue
		case expect && s.table(ctes):
			expect = false
			continue
		case t.sym(','):
			expect = from
		}
		s.i++
		if t.kind != word {
			continue
		}
		switch t.up {
		case "WITH":
			// WITH ROLLUP, WITH CHECK OPTION and the like define nothing.
			if s.peek(0).is("RECURSIVE") || s.isName(0) && (s.peek(1).is("AS") || s.peek(1).sym('(')) {
				ctes = s.with(ctes, depth)
			}
		case "SELECT":
			isQuery, from, expect = true, false, false
		case "TABLE": // the statement TABLE t, where a query can begin
			if before := s.peek(-2); s.i-1 == start || before.sym(')') || before.in("AS", "UNION", "ALL", "DISTINCT", "EXCEPT", "INTERSECT", "IGNORE", "REPLACE") {
				isQuery, expect = true, true
			}
		case "FROM":
			if isQuery && !s.otherFrom() {
				from, expect = true, true
			}
		case "JOIN", "STRAIGHT_JOIN":
			expect = from
		case "INDEX", "KEY": // USE INDEX FOR JOIN, FOR ORDER BY, FOR GROUP BY
			if s.take("FOR") && !s.take("JOIN") {
				s.i += 2
			}
		case "VALUES", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "INTO", "SET":
			from, expect = false, false
		case "WINDOW": // a possible alias in MariaDB
			if s.isName(0) && s.peek(1).is("AS") {
				from, expect = false, false
			}
		case "DUPLICATE":
			if s.peek(0).is("KEY") {
				from, expect = false, false
			}
		case "RETURNING":
			if s.maria {
				from, expect = false, false
			}
		default:
			s.sequenceUse(t)
		}
	}
}

// otherFrom tells whether the FROM just read is none that tables follow:
// NTH_VALUE(…) FROM FIRST OVER, FOR SYSTEM_TIME FROM, FOR PORTION OF p FROM.
func (s *scan) otherFrom() bool {
	if s.peek(0).in("FIRST", "LAST") && s.peek(1).in("OVER", "RESPECT", "IGNORE") {
		return true
	}
	return s.maria && (s.peek(-2).is("SYSTEM_TIME") || s.peek(-3).is("OF") && s.peek(-4).is("PORTION"))
}

// table reads what stands where a table is expected, and notes it. It is false
// for what begins a query or is no table yet.
func (s *scan) table(ctes []string) bool {
	t := s.peek(0)
	switch {
	case t.sym('{'): // {OJ t1 LEFT JOIN t2 …}
		s.i++
		s.takeAny("OJ")
		return s.table(ctes)
	case t.in("SELECT", "WITH", "VALUES", "TABLE"):
		return false
	case t.is("LATERAL") && s.peek(1).sym('('):
		s.i++
		return false
	case t.is("DUAL"), t.kind == word && s.peek(1).sym('('): // JSON_TABLE(…)
		s.i++
		return true
	case t.kind != word && t.kind != quoted && !t.sym('.'):
		return false
	}
	qualified := t.sym('.') || s.peek(1).sym('.') && s.isName(2)
	n := s.name()
	if !qualified && hides(ctes, n.Table) {
		s.unspot()
		return true
	}
	s.mentions(n)
	s.role(Queries)
	return true
}

// with reads the definitions of a WITH and returns the names known after them.
func (s *scan) with(ctes []string, depth int) []string {
	recursive := s.take("RECURSIVE")
	for s.failed == "" {
		name := s.ident()
		if s.peek(0).sym('(') {
			s.parens()
		}
		if !s.take("AS") || !s.takeSym('(') {
			s.fail("WITH without a query")
			return ctes
		}
		after := append(slices.Clip(ctes), name)
		if recursive {
			ctes = after
		}
		s.query(ctes, false, "", depth+1)
		if !s.takeSym(')') {
			s.fail("a parenthesis does not end")
		}
		ctes = after
		if s.take("CYCLE") { // MariaDB: CYCLE column, column RESTRICT
			for !s.end() && !s.take("RESTRICT") {
				s.i++
			}
		}
		if !s.takeSym(',') {
			break
		}
	}
	return ctes
}

func hides(ctes []string, name string) bool {
	return slices.ContainsFunc(ctes, func(c string) bool { return strings.EqualFold(c, name) })
}

// sequenceUse notes a sequence behind the word just read: MariaDB's NEXT VALUE
// FOR s, NEXTVAL(s) and the like.
func (s *scan) sequenceUse(t token) {
	if !s.maria {
		return
	}
	switch t.up {
	case "FOR":
		if s.peek(-2).is("VALUE") && s.peek(-3).in("NEXT", "PREVIOUS") {
			s.mentions(s.name())
		}
	case "NEXTVAL", "LASTVAL", "SETVAL":
		if s.peek(0).sym('(') && (s.peek(1).kind == word || s.peek(1).kind == quoted) {
			at := s.i
			s.i++
			s.mentions(s.name())
			s.i = at
		}
	}
}

// beginsQuery tells whether a query begins here, behind parentheses or not.
func (s *scan) beginsQuery() bool {
	n := 0
	for s.peek(n).sym('(') {
		n++
	}
	t := s.peek(n)
	switch {
	case t.is("SELECT"):
		return true
	case t.is("TABLE"):
		return true
	case t.is("VALUES"):
		return s.peek(n+1).sym('(') || s.peek(n+1).is("ROW")
	case t.is("WITH"):
		next := s.peek(n + 1)
		return next.is("RECURSIVE") || (next.kind == word || next.kind == quoted) && (s.peek(n+2).is("AS") || s.peek(n+2).sym('('))
	}
	return false
}
