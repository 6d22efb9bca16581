package ddl

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Classify tells what a statement of the binlog does. defaultSchema completes
// unqualified names. It returns ErrUnclassified, with what stood in the way, for
// a statement whose effect or tables it can't tell for sure.
//
// Names come out as the statement spells them; a server with
// lower_case_table_names=1 spells them in lower case everywhere else.
func Classify(text, defaultSchema string, d Dialect) (Statement, error) {
	tokens, err := lex(text, d)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrUnclassified, err)
	}
	s := newScan(tokens, defaultSchema, d)
	s.statement()
	slices.SortFunc(s.stmt.Mentions, func(a, b Mention) int { return a.From - b.From })
	if s.failed == "" && !hasBody(s.stmt.Class) {
		s.oneStatement()
	}
	if s.failed != "" {
		return Statement{}, fmt.Errorf("%w: %s: %.120q", ErrUnclassified, s.failed, text)
	}
	return s.stmt, nil
}

func newScan(tokens []token, defaultSchema string, d Dialect) *scan {
	s := &scan{t: tokens, schema: defaultSchema, charset: d.Charset, maria: d.Flavor == server.MariaDB}
	if s.charset == "" {
		s.charset = "utf8mb4"
	}
	return s
}

// hasBody tells which statements hold further statements.
func hasBody(c Class) bool { return c == Routine || c == Trigger || c == Event }

// oneStatement checks that parentheses pair up and nothing follows a semicolon.
func (s *scan) oneStatement() {
	depth := 0
	for i, t := range s.t {
		switch {
		case t.sym('('):
			depth++
		case t.sym(')'):
			if depth--; depth < 0 {
				s.fail("a parenthesis too many")
			}
		case t.sym(';'):
			for _, u := range s.t[i:] {
				if !u.sym(';') {
					s.fail("more than one statement")
				}
			}
		}
	}
	if depth > 0 {
		s.fail("a parenthesis does not end")
	}
}

func (s *scan) statement() {
	for s.takeSym(';') {
	}
	if s.end() {
		s.stmt.Class = Empty
		return
	}
	t := s.peek(0)
	if t.sym('(') && s.beginsQuery() {
		s.stmt = Statement{Class: DML, Verb: "SELECT"}
		s.query(nil, false, "", 0)
		return
	}
	if t.kind != word {
		s.fail("it begins with no keyword")
		return
	}
	s.stmt.Verb = t.up
	s.i++
	switch t.up {
	case "CREATE":
		s.create()
	case "ALTER":
		s.alter()
	case "DROP":
		s.drop()
	case "RENAME":
		s.rename()
	case "TRUNCATE":
		s.stmt.Class = TruncateTable
		s.take("TABLE")
		s.changes(s.name())
		s.wait()
		s.only()
	case "SET":
		s.set()
	default:
		s.other(t.up)
	}
}

// heads of statements that need no more than their first word.
var heads = map[string]Class{
	"COMMIT": Transaction, "SAVEPOINT": Transaction, "RELEASE": Transaction, "ROLLBACK": Transaction, "XA": XA,
	"GRANT": Account, "REVOKE": Account,
	"CALL": DML, "DO": DML, "HANDLER": DML, "EXECUTE": DML,
	"FLUSH": Flush,
	"RESET": Admin, "PURGE": Admin, "KILL": Admin, "SHUTDOWN": Admin, "RESTART": Admin, "INSTALL": Admin, "UNINSTALL": Admin,
	"CHANGE": Admin, "CLONE": Admin, "BINLOG": Admin, "HELP": Admin, "SHOW": Admin, "USE": Admin, "PREPARE": Admin,
	"DEALLOCATE": Admin, "SIGNAL": Admin, "RESIGNAL": Admin, "GET": Admin, "STOP": Admin, "BACKUP": Admin,
	"LOCK": Admin, "UNLOCK": Admin, "EXPLAIN": Admin, "DESCRIBE": Admin, "DESC": Admin,
}

func (s *scan) other(verb string) {
	if c, ok := heads[verb]; ok {
		s.stmt.Class = c
		return
	}
	switch verb {
	case "BEGIN":
		s.stmt.Class = Transaction
		s.take("WORK")
		s.only() // MariaDB's BEGIN NOT ATOMIC is a program
	case "START":
		s.stmt.Class = Admin
		if s.take("TRANSACTION") {
			s.stmt.Class = Transaction
		}
	case "SELECT", "VALUES", "TABLE":
		s.i--
		s.stmt.Class = DML
		s.query(s.ctes, false, "", 0)
	case "WITH":
		s.stmt.Class = DML
		s.ctes = s.with(nil, 0)
		switch t := s.peek(0); {
		case t.in("UPDATE", "DELETE"):
			s.stmt.Verb = t.up
			s.i++
			s.other(t.up)
		default:
			s.query(s.ctes, false, "", 0)
		}
	case "INSERT", "REPLACE":
		s.stmt.Class = DML
		for s.takeAny("LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE") {
		}
		s.take("INTO")
		s.changes(s.name())
		s.query(nil, false, "", 0)
	case "UPDATE":
		s.stmt.Class = DML
		for s.takeAny("LOW_PRIORITY", "IGNORE") {
		}
		read := len(s.stmt.Tables) // by a WITH
		s.query(s.ctes, true, "SET", 0)
		s.stmt.Changed = slices.Clip(s.stmt.Tables[read:])
		s.query(s.ctes, false, "", 0)
	case "DELETE":
		s.delete()
	case "LOAD":
		s.load()
	case "IMPORT":
		s.stmt.Class = ImportTablespace
	case "ANALYZE", "OPTIMIZE", "REPAIR", "CHECK", "CHECKSUM":
		s.maintenance(verb)
	case "CACHE":
		s.stmt.Class = Maintenance
		s.takeAny("INDEX")
		s.mentions(s.name())
	default:
		s.fail("unknown statement " + verb)
	}
}

func (s *scan) delete() {
	s.stmt.Class = DML
	for s.takeAny("LOW_PRIORITY", "QUICK", "IGNORE", "HISTORY") {
	}
	// The tables stand behind USING, or else behind the first FROM; what
	// stands before them can be aliases.
	depth, from, using := 0, -1, -1
	for i := s.i; i < len(s.t); i++ {
		switch t := s.t[i]; {
		case t.sym('('):
			depth++
		case t.sym(')'):
			depth--
		case depth == 0 && t.is("FROM") && from < 0:
			from = i
		case depth == 0 && t.is("USING") && using < 0 && !s.tokenAt(i+1).sym('('):
			using = i
		}
	}
	at := max(from, using)
	if at < 0 {
		s.fail("DELETE without FROM")
		return
	}
	s.i = at + 1
	read := len(s.stmt.Tables)
	s.query(s.ctes, true, "", 0)
	s.stmt.Changed = slices.Clip(s.stmt.Tables[read:])
}

func (s *scan) tokenAt(i int) token { return s.peek(i - s.i) }

func (s *scan) load() {
	s.stmt.Class = DML
	if s.take("INDEX", "INTO", "CACHE") {
		s.stmt.Class = Maintenance
		s.mentions(s.name())
		return
	}
	for !s.end() {
		if s.take("INTO", "TABLE") {
			s.changes(s.name())
			return
		}
		s.i++
	}
	// LOAD DATA of a query event may come without its file part.
}

func (s *scan) maintenance(verb string) {
	s.stmt.Class = Maintenance
	s.takeAny("NO_WRITE_TO_BINLOG", "LOCAL")
	switch {
	case s.takeAny("TABLE", "TABLES"):
	case (verb == "CHECK" || verb == "REPAIR") && s.take("VIEW"):
	case verb == "ANALYZE": // MariaDB: ANALYZE [FORMAT=…] statement runs it
		s.stmt.Class = DML
		return
	default:
		s.fail(verb + " of what?")
		return
	}
	s.ifExists()
	for {
		s.mentions(s.name())
		if !s.takeSym(',') {
			return
		}
	}
}

func (s *scan) rename() {
	if s.takeAny("USER", "ROLE") {
		s.stmt.Class = Account
		return
	}
	if !s.takeAny("TABLE", "TABLES") {
		s.fail("RENAME of what?")
		return
	}
	s.stmt.Class = RenameTable
	s.ifExists()
	for {
		s.changes(s.name())
		s.wait()
		if !s.take("TO") {
			s.fail("RENAME without TO")
			return
		}
		s.changes(s.name())
		if !s.takeSym(',') {
			break
		}
	}
	s.only()
}

func (s *scan) set() {
	s.stmt.Class = Set
	switch {
	case s.take("PASSWORD"), s.take("DEFAULT", "ROLE"):
		s.stmt.Class = Account
	case s.maria && s.take("STATEMENT"):
		// SET STATEMENT variable = value, … FOR statement
		depth := 0
		for ; !s.end(); s.i++ {
			switch t := s.peek(0); {
			case t.sym('('):
				depth++
			case t.sym(')'):
				depth--
			case depth == 0 && t.is("FOR"):
				s.i++
				s.stmt = Statement{}
				s.statement()
				return
			}
		}
		s.fail("SET STATEMENT without FOR")
	}
}

// account steps over a user: 'a'@'b', a, CURRENT_USER().
func (s *scan) account() {
	switch t := s.peek(0); t.kind {
	case word, quoted, text:
		s.i++
		if s.peek(0).sym('(') {
			s.parens()
		}
		if s.peek(0).kind == at {
			s.i++
		}
	default:
		s.fail("a user is missing")
	}
}

func nameToUTF8(s, charset string) (string, bool) {
	out, ok := schema.ToUTF8([]byte(s), charset)
	return out, ok && !strings.ContainsRune(out, 0)
}
