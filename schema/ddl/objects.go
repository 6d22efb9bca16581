package ddl

import "github.com/twinspan/twinspan/schema"

// head is what stands between CREATE, ALTER or DROP and the kind of object.
type head struct {
	temporary bool
	index     bool // UNIQUE, FULLTEXT …: an index must follow
}

// head steps over modifiers, in whatever order.
func (s *scan) head() head {
	var h head
	for s.failed == "" {
		switch {
		case s.take("OR", "REPLACE"):
			s.stmt.Replace = true
		case s.take("TEMPORARY"):
			h.temporary = true
		case s.takeAny("ONLINE", "OFFLINE", "IGNORE", "AGGREGATE"):
		case s.peek(0).is("SPATIAL") && s.peek(1).is("REFERENCE"):
			return h
		case s.takeAny("UNIQUE", "FULLTEXT", "SPATIAL"):
			h.index = true
		case s.peek(0).is("VECTOR") && s.peek(1).is("INDEX"):
			s.i++
			h.index = true
		case s.take("ALGORITHM"):
			s.takeSym('=')
			s.i++
		case s.take("DEFINER"):
			if !s.takeSym('=') {
				s.fail("DEFINER without a user")
			}
			s.account()
		case s.take("SQL", "SECURITY"):
			s.i++
		default:
			return h
		}
	}
	return h
}

// object notes a named object that is no table.
func (s *scan) object(c Class) {
	s.stmt.Class = c
	s.ifExists()
	s.stmt.Object = s.name()
	s.role(Object)
}

// simple are the objects whose kind is all there is to know, by the word behind
// CREATE, ALTER or DROP.
var simple = map[string]Class{
	"USER": Account, "ROLE": Account, "SERVER": Server, "TABLESPACE": Tablespace, "INSTANCE": Instance,
}

// common handles what CREATE, ALTER and DROP have in common; false: something
// else.
func (s *scan) common() bool {
	t := s.peek(0)
	if c, ok := simple[t.up]; ok && t.kind == word {
		s.i++
		s.stmt.Class = c
		return true
	}
	switch {
	case s.take("UNDO", "TABLESPACE"), s.take("LOGFILE", "GROUP"):
		s.stmt.Class = Tablespace
	case s.take("SPATIAL", "REFERENCE", "SYSTEM"), s.take("RESOURCE", "GROUP"):
		s.stmt.Class = Instance
	case s.takeAny("EVENT"):
		s.object(Event)
	case s.takeAny("PROCEDURE"), s.takeAny("LIBRARY"), s.maria && s.take("PACKAGE", "BODY"), s.maria && s.takeAny("PACKAGE"):
		s.object(Routine)
	default:
		return false
	}
	return true
}

func (s *scan) create() {
	h := s.head()
	switch {
	case h.index && !s.peek(0).is("INDEX"):
		s.fail("CREATE of what?")
	case s.common():
	case s.take("TABLE"):
		s.createTable()
		if h.temporary {
			s.stmt.Class = TemporaryTable
		}
	case s.maria && s.take("SEQUENCE"):
		s.stmt.Class = Sequence
		if h.temporary {
			s.stmt.Class = TemporaryTable
		}
		s.ifExists()
		s.changes(s.name())
	case s.takeAny("DATABASE", "SCHEMA"):
		s.stmt.Class = CreateDatabase
		s.ifExists()
		s.stmt.Object = s.database()
	case s.takeView():
		s.view()
	case s.take("TRIGGER"):
		s.object(Trigger)
		for !s.end() && !s.take("ON") {
			s.i++
		}
		s.mentions(s.name())
	case s.take("FUNCTION"):
		s.object(Routine)
		// CREATE FUNCTION f RETURNS type SONAME 'library'
		if s.take("RETURNS") && s.peek(1).is("SONAME") {
			s.stmt.Class = LoadableFunction
		}
	case s.take("INDEX"):
		s.index(CreateIndex)
	default:
		s.fail("CREATE of what?")
	}
}

// takeView steps over VIEW, or MySQL's JSON [RELATIONAL] DUALITY VIEW.
func (s *scan) takeView() bool {
	return s.take("VIEW") || s.take("JSON", "DUALITY", "VIEW") || s.take("JSON", "RELATIONAL", "DUALITY", "VIEW")
}

func (s *scan) view() {
	s.stmt.Class = View
	s.ifExists()
	s.changes(s.name())
	if s.peek(0).sym('(') {
		s.parens()
	}
	if !s.take("AS") {
		s.fail("a view without AS")
		return
	}
	s.query(nil, false, "", 0)
}

func (s *scan) index(c Class) {
	s.stmt.Class = c
	s.ifExists()
	s.ident()
	for !s.end() && !s.take("ON") {
		s.i++
	}
	s.changes(s.name())
}

func (s *scan) createTable() {
	s.stmt.Class = CreateTable
	s.ifExists()
	s.changes(s.name())
	switch {
	case s.take("LIKE"):
		s.mentions(s.name())
		s.only()
		return
	case s.peek(0).sym('(') && s.peek(1).is("LIKE"):
		s.i += 2
		s.mentions(s.name())
		if !s.takeSym(')') {
			s.fail("LIKE of more than one table")
		}
		s.only()
		return
	case s.peek(0).sym('(') && !s.beginsQuery():
		s.definitions()
	}
	for !s.end() && s.failed == "" {
		switch {
		case s.beginsQuery():
			s.stmt.Class = CreateTableSelect
			s.query(nil, false, "", 0)
			return
		case s.take("START", "TRANSACTION"):
			s.stmt.StartTransaction = true
		case s.peek(0).is("UNION") && !s.peek(1).in("ALL", "DISTINCT"):
			s.mergeUnion()
		case s.peek(0).sym('('):
			s.parens()
		default:
			s.i++
		}
	}
}

// definitions reads the parenthesis with columns and keys.
func (s *scan) definitions() {
	depth := 0
	for ; !s.end() && s.failed == ""; s.i++ {
		switch t := s.peek(0); {
		case t.sym('('):
			depth++
		case t.sym(')'):
			if depth--; depth == 0 {
				s.i++
				return
			}
		default:
			s.reference(t)
		}
	}
	s.fail("a parenthesis does not end")
}

// reference notes what a word within definitions refers to. It leaves the scan
// at the last token it read.
func (s *scan) reference(t token) {
	if t.is("REFERENCES") && !s.peek(-1).sym('.') {
		s.i++
		s.mentions(s.name())
		s.i--
		return
	}
	if t.kind == word {
		s.i++
		s.sequenceUse(t)
		s.i--
	}
}

// mergeUnion reads UNION=(t1, t2) of a MERGE table.
func (s *scan) mergeUnion() {
	s.i++
	s.takeSym('=')
	if !s.takeSym('(') {
		s.fail("UNION without tables")
		return
	}
	for !s.takeSym(')') {
		s.mentions(s.name())
		if !s.takeSym(',') && !s.peek(0).sym(')') {
			s.fail("UNION without end")
			return
		}
	}
}

func (s *scan) alter() {
	s.head()
	switch {
	case s.common():
	case s.take("TABLE"):
		s.alterTable()
	case s.takeAny("DATABASE", "SCHEMA"):
		s.stmt.Class = AlterDatabase
		s.stmt.Object = schema.Name{Schema: s.schema}
		if s.isName(0) && !s.databaseOption() {
			s.stmt.Object = s.database()
		}
	case s.takeView():
		s.view()
	case s.take("FUNCTION"):
		s.object(Routine)
	case s.maria && s.take("SEQUENCE"):
		s.stmt.Class = Sequence
		s.ifExists()
		s.changes(s.name())
	default:
		s.fail("ALTER of what?")
	}
}

// databaseOption tells whether ALTER DATABASE goes on with an option, so that
// the name was left out.
func (s *scan) databaseOption() bool {
	t, next := s.peek(0), s.peek(1)
	switch {
	case t.in("CHARACTER", "DEFAULT", "COLLATE"):
		return true // reserved words
	case t.in("CHARSET", "ENCRYPTION", "COMMENT"):
		return next.sym('=') || next.kind == text || t.is("CHARSET") && next.kind == word && s.i+2 == len(s.t)
	case t.is("READ"):
		return next.is("ONLY")
	}
	return false
}

func (s *scan) alterTable() {
	s.stmt.Class = AlterTable
	s.ifExists()
	s.changes(s.name())
	s.wait()
	depth, start := 0, true // start: a new action begins
	for ; !s.end() && s.failed == ""; s.i++ {
		t := s.peek(0)
		first := start
		start = false
		switch {
		case t.sym('('):
			depth++
		case t.sym(')'):
			depth--
		case t.sym(','):
			start = depth == 0
		case depth == 0 && first:
			s.alterAction(t)
		case depth == 0 && t.is("UNION"):
			s.mergeUnion()
			s.i--
		default:
			s.reference(t)
		}
	}
}

// alterAction handles the first word of an action, and leaves the scan at the
// last token it read.
func (s *scan) alterAction(t token) {
	switch {
	case t.is("RENAME") && !s.peek(1).in("COLUMN", "INDEX", "KEY", "CONSTRAINT"):
		s.i++
		if !s.takeAny("TO", "AS") {
			s.takeSym('=')
		}
		s.changes(s.name())
		s.i--
	case t.is("EXCHANGE") && s.peek(1).is("PARTITION"):
		s.stmt.Class = ExchangePartition
		for !s.end() && !s.take("WITH", "TABLE") {
			s.i++
		}
		s.changes(s.name())
		s.i--
	case t.is("CONVERT") && s.peek(1).in("PARTITION", "TABLE"):
		s.stmt.Class = ExchangePartition
		for !s.end() && !s.take("TABLE") {
			s.i++
		}
		s.changes(s.name())
		s.i--
	case t.in("DISCARD", "IMPORT") && s.peek(1).in("TABLESPACE", "PARTITION"):
		s.stmt.Class = ImportTablespace
	case t.is("UNION"):
		s.mergeUnion()
		s.i--
	}
}

func (s *scan) drop() {
	h := s.head()
	switch {
	case s.common():
	case s.takeAny("TABLE", "TABLES"):
		s.dropTables(DropTable, h)
	case s.maria && s.take("SEQUENCE"):
		s.dropTables(Sequence, h)
	case s.take("VIEW"):
		s.dropTables(View, h)
	case s.takeAny("DATABASE", "SCHEMA"):
		s.stmt.Class = DropDatabase
		s.ifExists()
		s.stmt.Object = s.database()
		s.only()
	case s.take("TRIGGER"):
		s.object(Trigger)
	case s.take("FUNCTION"):
		s.object(Routine)
	case s.take("INDEX"):
		s.index(DropIndex)
	case s.take("PREPARE"):
		s.stmt.Class = Admin
	default:
		s.fail("DROP of what?")
	}
}

func (s *scan) dropTables(c Class, h head) {
	s.stmt.Class = c
	if h.temporary {
		s.stmt.Class = TemporaryTable
	}
	s.ifExists()
	s.changesList()
	s.wait()
	s.takeAny("RESTRICT", "CASCADE")
	s.only()
}
