package ddl

import (
	"strings"

	"github.com/twinspan/twinspan/schema"
)

// scan walks over the tokens of one statement.
type scan struct {
	t       []token
	i       int
	schema  string // default schema
	charset string
	maria   bool
	ctes    []string // of a WITH in front of the statement
	failed  string   // the first thing that was not as it must be
	stmt    Statement
}

func (s *scan) fail(why string) {
	if s.failed == "" {
		s.failed = why
	}
}

var none = token{kind: symbol, s: "\x00"}

func (s *scan) peek(n int) token {
	if s.i+n < len(s.t) && s.i+n >= 0 {
		return s.t[s.i+n]
	}
	return none
}

func (s *scan) end() bool { return s.i >= len(s.t) }

// take steps over the keywords when they come next, in that order.
func (s *scan) take(keywords ...string) bool {
	for n, k := range keywords {
		if !s.peek(n).is(k) {
			return false
		}
	}
	s.i += len(keywords)
	return true
}

// takeAny steps over one of the keywords.
func (s *scan) takeAny(keywords ...string) bool {
	if s.peek(0).in(keywords...) {
		s.i++
		return true
	}
	return false
}

func (s *scan) takeSym(c byte) bool {
	if s.peek(0).sym(c) {
		s.i++
		return true
	}
	return false
}

func (s *scan) isName(n int) bool {
	t := s.peek(n)
	return t.kind == word || t.kind == quoted
}

// ident reads one identifier as UTF-8.
func (s *scan) ident() string {
	t := s.peek(0)
	if t.kind != word && t.kind != quoted || t.s == "" {
		s.fail("a name is missing")
		return ""
	}
	s.i++
	out, ok := nameToUTF8(t.s, s.charset)
	if !ok {
		s.fail("a name in character set " + s.charset + " that can't be converted")
	}
	return out
}

// name reads [schema.]name or .name.
func (s *scan) name() schema.Name {
	first := s.i
	n := s.qualified()
	s.spot(n, first)
	return n
}

// spot notes where the name that begins at token first stands.
func (s *scan) spot(n schema.Name, first int) {
	if s.failed != "" || first >= s.i {
		return
	}
	from := s.t[first].from
	for _, m := range s.stmt.Mentions {
		if m.From == from {
			return
		}
	}
	s.stmt.Mentions = append(s.stmt.Mentions, Mention{Name: n, From: from, To: s.t[s.i-1].to})
}

// role says what the name read last is there for.
func (s *scan) role(r Role) {
	if n := len(s.stmt.Mentions); n > 0 {
		s.stmt.Mentions[n-1].Role = r
	}
}

// unspot forgets the name read last.
func (s *scan) unspot() { s.stmt.Mentions = s.stmt.Mentions[:len(s.stmt.Mentions)-1] }

// database reads the name of a schema.
func (s *scan) database() schema.Name {
	first := s.i
	n := schema.Name{Schema: s.ident()}
	s.spot(n, first)
	s.role(Object)
	return n
}

func (s *scan) qualified() schema.Name {
	if s.takeSym('.') {
		return schema.Name{Schema: s.schema, Table: s.ident()}
	}
	first := s.ident()
	if s.peek(0).sym('.') && s.isName(1) {
		s.i++
		return schema.Name{Schema: first, Table: s.ident()}
	}
	return schema.Name{Schema: s.schema, Table: first}
}

func add(to []schema.Name, n schema.Name) []schema.Name {
	for _, x := range to {
		if x == n {
			return to
		}
	}
	return append(to, n)
}

// mentions notes a table that is only referred to.
func (s *scan) mentions(n schema.Name) { s.stmt.Tables = add(s.stmt.Tables, n) }

// changes notes a table that is not the same afterwards.
func (s *scan) changes(n schema.Name) {
	s.mentions(n)
	s.role(Changes)
	s.stmt.Changed = add(s.stmt.Changed, n)
}

// changesList reads a list of names.
func (s *scan) changesList() {
	for {
		s.changes(s.name())
		if !s.takeSym(',') {
			return
		}
	}
}

// ifExists steps over IF EXISTS and IF NOT EXISTS.
func (s *scan) ifExists() {
	if !s.take("IF", "EXISTS") {
		s.take("IF", "NOT", "EXISTS")
	}
}

// wait steps over MariaDB's WAIT n and NOWAIT.
func (s *scan) wait() {
	if s.take("NOWAIT") {
		return
	}
	if n := s.peek(1); s.peek(0).is("WAIT") && (n.kind == text || n.kind == word && n.s[0] >= '0' && n.s[0] <= '9') {
		s.i += 2
	}
}

// parens steps over a whole parenthesis.
func (s *scan) parens() {
	depth := 0
	for ; !s.end(); s.i++ {
		switch {
		case s.peek(0).sym('('):
			depth++
		case s.peek(0).sym(')'):
			if depth--; depth == 0 {
				s.i++
				return
			}
		}
	}
	s.fail("a parenthesis does not end")
}

// only checks that nothing but semicolons follows.
func (s *scan) only() {
	for s.takeSym(';') {
	}
	if !s.end() {
		s.fail("unexpected " + strings.TrimSpace(s.peek(0).s))
	}
}
