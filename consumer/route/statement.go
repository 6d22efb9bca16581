package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// statement is what is left of a transaction's DDL: nil for nothing, itself where
// the rules do not touch it, or a copy with other names.
func (r *Router) statement(t *change.Transaction) (*change.DDL, error) {
	if t.DDL == nil || r.done[t.GTID] {
		return nil, nil
	}
	j := &job{rules: r.rules, d: t.DDL, gtid: t.GTID}
	keep, err := j.decide()
	if err != nil || !keep {
		return nil, err
	}
	return j.rewritten()
}

// job is one statement on its way.
type job struct {
	rules   *Rules
	d       *change.DDL
	gtid    string
	dialect ddl.Dialect
	st      ddl.Statement
	// names are those of st.Mentions as the source's tables are called: a server
	// that keeps names in lower case lets statements spell them as they like.
	names []schema.Name
	// drop and cut: mentions that go with the comma beside them, and a text put in
	// front of another.
	drop   map[int]bool
	prefix map[int]string
}

func (j *job) refuse(code Code, remedy, format string, args ...any) error {
	if remedy == "" {
		remedy = byHand(j.gtid)
	}
	return &Refusal{Code: code, GTID: j.gtid, Reason: fmt.Sprintf(format, args...), Remedy: remedy, Text: j.d.Text}
}

// charsets that a statement may come in, by the id of a collation. The text's
// letters matter only where it has others than ASCII.
func charsetOf(id uint16) (string, bool) {
	switch {
	case id == 0, id == 33, id == 45, id == 46, id == 76, id == 83, id >= 192 && id <= 247, id >= 255 && id <= 323,
		id >= 576 && id <= 578, id >= 608 && id <= 610, id == 1057, id == 1069, id == 1070, id == 1107, id >= 1216 && id <= 1271, id >= 2048 && id < 2560:
		return "utf8mb4", true
	case id == 11, id == 65:
		return "ascii", true
	case id == 63:
		return "binary", true
	case id == 5, id == 8, id == 15, id == 31, id == 47, id == 48, id == 49, id == 94, id == 1032, id == 1071:
		return "latin1", true
	}
	return "", false
}

// read classifies the statement.
func (j *job) read() error {
	j.dialect = ddl.Dialect{Flavor: server.MySQL, SQLMode: j.d.SQLMode}
	if !strings.Contains(j.gtid, ":") {
		j.dialect.Flavor = server.MariaDB
	}
	var ok bool
	if j.dialect.Charset, ok = charsetOf(j.d.CharsetClient); !ok {
		for i := range len(j.d.Text) {
			if j.d.Text[i] >= 0x80 {
				return j.refuse(CodeText, "", "its text is in the character set of collation %d, in which names can't be replaced", j.d.CharsetClient)
			}
		}
		j.dialect.Charset = "ascii"
	}
	var err error
	if j.st, err = ddl.Classify(j.d.Text, j.d.DefaultSchema, j.dialect); err != nil {
		return j.refuse(CodeText, "", "%v", err)
	}
	j.names = make([]schema.Name, len(j.st.Mentions))
	for i, m := range j.st.Mentions {
		j.names[i] = m.Name
		if k := slices.Index(j.st.Tables, m.Name); k >= 0 && len(j.d.Tables) == len(j.st.Tables) &&
			strings.EqualFold(j.d.Tables[k].String(), m.Name.String()) {
			j.names[i] = j.d.Tables[k]
		}
	}
	return nil
}

// way of a mention, refused where it must not come by its name.
func (j *job) way(i int) (Way, error) {
	w := j.rules.Table(j.names[i])
	return w, w.check(j.gtid)
}

// changed are the mentions of what it changes, in order of the text.
func (j *job) changed() (out []int) {
	for i, m := range j.st.Mentions {
		if m.Role == ddl.Changes {
			out = append(out, i)
		}
	}
	return out
}

// decide tells whether the statement goes on.
func (j *job) decide() (bool, error) {
	if err := j.read(); err != nil {
		return false, err
	}
	switch j.st.Class {
	case ddl.CreateDatabase, ddl.AlterDatabase, ddl.DropDatabase:
		return j.database()
	case ddl.Routine, ddl.Event, ddl.Trigger:
		return j.body()
	case ddl.DML:
		for _, n := range j.st.Changed {
			if w := j.rules.Table(n); w.Included {
				return true, nil // the applier says what to do about it
			}
		}
		return len(j.st.Changed) == 0, nil
	}
	at := j.changed()
	if len(at) == 0 || !j.st.Class.ChangesDefinitions() {
		return true, nil // the applier leaves it out, or names no table
	}
	ways := make([]Way, len(at))
	in, skipped := 0, 0
	for k, i := range at {
		var err error
		if ways[k], err = j.way(i); err != nil {
			return false, err
		}
		if ways[k].Included {
			in++
			if ways[k].skip[skipDDL] {
				skipped++
			}
		}
	}
	switch {
	case in == 0:
		return false, nil
	case skipped == in:
		return false, nil
	case skipped > 0:
		return false, j.refuse(CodeMixed, "", "its DDL is left out for some of the tables that it changes, not for all (skip_ddl)")
	}
	switch {
	case j.st.Class == ddl.RenameTable:
		return j.renames(at, ways)
	case j.st.Class == ddl.ExchangePartition && in < len(at):
		return false, j.refuse(CodeMixed, "", "it exchanges rows between a table that is replicated and one that is left out")
	case j.st.Verb == "DROP" && j.st.Class != ddl.DropIndex:
		for k := range at {
			if !ways[k].Included {
				j.leave(at[k])
			}
		}
	case in < len(at):
		// ALTER TABLE … RENAME TO is all that is left with two tables.
		return false, j.crossing(j.names[at[0]], j.names[at[len(at)-1]], ways[0].Included)
	}
	return true, j.references()
}

func (j *job) crossing(from, to schema.Name, leaves bool) error {
	if leaves {
		return j.refuse(CodeRename, fmt.Sprintf("drop or rename the table on the target by hand and add %s to apply.filters.done; or include %s as well", j.gtid, to),
			"%s, which is replicated, becomes %s, which is left out", from, to)
	}
	return j.refuse(CodeRename, fmt.Sprintf("copy the table to the target as it is after this statement, with its rows, under the name that %s has there, and add %s to apply.filters.done; or exclude it", to, j.gtid),
		"%s, which is left out, becomes %s, which is replicated: its rows are not on the target", from, to)
}

func (j *job) leave(i int) {
	if j.drop == nil {
		j.drop = map[int]bool{}
	}
	j.drop[i] = true
}

// renames follows each table of a RENAME through all its steps. A table may pass
// through a name that is left out, as swaps do; where it ends counts.
func (j *job) renames(at []int, ways []Way) (bool, error) {
	type lineage struct {
		first    schema.Name
		included bool
	}
	now := map[schema.Name]lineage{}
	kept := 0
	for k := 0; k+1 < len(at); k += 2 {
		from, to := j.names[at[k]], j.names[at[k+1]]
		l, known := now[from]
		if !known {
			l = lineage{from, ways[k].Included}
		}
		delete(now, from)
		now[to] = l
		if l.included {
			kept++
		} else {
			j.leave(at[k])
			j.leave(at[k+1])
		}
	}
	for _, to := range slices.SortedFunc(mapKeys(now), schema.Name.Compare) {
		if l := now[to]; l.included != j.rules.Table(to).Included {
			return false, j.crossing(l.first, to, l.included)
		}
	}
	return kept > 0, nil
}

func mapKeys[V any](m map[schema.Name]V) func(func(schema.Name) bool) {
	return func(yield func(schema.Name) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// references refuses what refers to a table that is not on the target.
func (j *job) references() error {
	for i, m := range j.st.Mentions {
		if m.Role != ddl.Reads && m.Role != ddl.Queries {
			continue
		}
		w, err := j.way(i)
		if err != nil {
			return err
		}
		if !w.Included {
			return j.refuse(CodeReference, fmt.Sprintf("include %s as well; or %s", j.names[i], byHand(j.gtid)),
				"it refers to %s, which is left out (%s)", j.names[i], w.Rule)
		}
		if m.Role == ddl.Queries && w.Target.Table != j.names[i].Table {
			return j.refuse(CodeText, "", "its query takes rows from %s, which has another name on the target, and columns in it may be spelt with that name", j.names[i])
		}
	}
	return nil
}

// database decides about CREATE, ALTER and DROP DATABASE.
func (j *job) database() (bool, error) {
	name := j.st.Object.Schema
	m := j.rules.realm(name)
	any := schema.Name{Schema: name, Table: "*"}
	switch {
	case m.none:
		return false, nil
	case slices.ContainsFunc(j.rules.skip[skipDDL], func(p pattern) bool { return p.table.all() && p.schema.matches(name) }):
		return false, nil
	case j.st.Class != ddl.DropDatabase:
		return true, nil
	case slices.ContainsFunc(j.rules.skip[skipDDL], func(p pattern) bool { return p.schema.matches(name) }):
		return false, j.refuse(CodeMixed, "", "the DDL of some tables of %s is left out (skip_ddl), and they would go with it", any)
	case !m.plain():
		return false, j.refuse(CodeDatabase, fmt.Sprintf("drop the replicated tables of %s on the target by hand, then add %s to apply.filters.done", name, j.gtid),
			"only a part of %s is replicated there: the target's schema may hold tables of its own", any)
	case !j.rules.sole(name, m):
		return false, j.refuse(CodeDatabase, fmt.Sprintf("drop the tables that came from %s on the target by hand, then add %s to apply.filters.done", name, j.gtid),
			"tables of other schemas go to %s as well", m.target)
	}
	return true, nil
}

// body decides about routines, triggers and events. What their bodies do can't be
// followed: they go on only where all that a name in them could mean is the same
// on the target.
func (j *job) body() (bool, error) {
	home := j.st.Object.Schema
	if j.st.Class == ddl.Trigger {
		for i, m := range j.st.Mentions {
			if m.Role != ddl.Object { // the table
				if w, err := j.way(i); err != nil || !w.Included || w.skip[skipDDL] {
					return false, err
				}
			}
		}
	}
	m := j.rules.realm(home)
	object := j.st.Object
	switch {
	case m.none && j.st.Class != ddl.Trigger:
		return false, nil
	case slices.ContainsFunc(j.rules.skip[skipDDL], func(p pattern) bool { return p.matches(object) }):
		return false, nil
	}
	if j.st.Verb == "DROP" {
		if m.none {
			return false, nil
		}
		if !m.uniform && j.st.Class == ddl.Trigger {
			return false, j.refuse(CodeBody, "", "nobody can say which table it belonged to, and tables of %s go to several places", home)
		}
		if !m.plain() {
			// It may never have come.
			for i, x := range j.st.Mentions {
				if x.Role == ddl.Object && !strings.Contains(strings.ToUpper(j.d.Text[:x.From]), "EXISTS") {
					j.prefix = map[int]string{i: "IF EXISTS "}
				}
			}
		}
		return true, nil
	}
	words, pairs, err := ddl.Identifiers(j.d.Text, j.dialect)
	if err != nil {
		return false, j.refuse(CodeText, "", "%v", err)
	}
	if !m.plain() {
		for _, w := range words {
			n := schema.Name{Schema: home, Table: w}
			if x := j.rules.Table(n); !x.Included || x.Target.Table != w || x.Target.Schema != m.target {
				return false, j.refuse(CodeBody, "", "it may refer to %s, which is left out or has another name on the target: bodies are not followed", n)
			}
		}
	}
	for _, p := range pairs {
		if slices.ContainsFunc(j.st.Mentions, func(x ddl.Mention) bool { return x.Name == p }) || !j.rules.speaksOf(p.Schema) && p.Schema != home {
			continue
		}
		if x := j.rules.Table(p); !x.Included || x.Target != p {
			return false, j.refuse(CodeBody, "", "it may refer to %s, which is left out or has another name on the target: bodies are not followed", p)
		}
	}
	return true, nil
}

// speaksOf tells whether a rule has a schema in mind, so that a name before a point
// is taken for it and not for a table's alias.
func (r *Rules) speaksOf(name string) bool {
	has := func(g glob) bool { return !g.all() && g.matches(name) }
	for _, list := range [][]pattern{r.include, r.exclude} {
		if slices.ContainsFunc(list, func(p pattern) bool { return has(p.schema) }) {
			return true
		}
	}
	return slices.ContainsFunc(r.routes, func(x rename) bool { return has(x.from.schema) })
}

// rewritten is the statement with the names that things have on the target, and
// the original itself where they are the same.
func (j *job) rewritten() (*change.DDL, error) {
	if !j.st.Class.ChangesDefinitions() {
		return j.d, nil // the applier leaves it out, or halts at it
	}
	targets := make([]schema.Name, len(j.names))
	moved := len(j.drop) > 0 || len(j.prefix) > 0
	for i, m := range j.st.Mentions {
		n := j.names[i]
		switch {
		case m.Role == ddl.Object && n.Table == "":
			targets[i] = schema.Name{Schema: j.rules.realm(n.Schema).target}
		case m.Role == ddl.Object:
			targets[i] = schema.Name{Schema: j.rules.realm(n.Schema).target, Table: n.Table}
		default:
			w := j.rules.Table(n)
			if targets[i] = w.Target; !w.Included { // a name that a table only passes through
				targets[i].Schema = j.rules.realm(n.Schema).target
			}
			if j.st.Class == ddl.Trigger { // it lives where its table does
				home := targets[i].Schema
				for k, o := range j.st.Mentions {
					if o.Role == ddl.Object {
						targets[k] = schema.Name{Schema: home, Table: j.names[k].Table}
					}
				}
			}
		}
		moved = moved || targets[i] != n
	}
	home := j.rules.realm(j.d.DefaultSchema)
	if !moved && (home.target == j.d.DefaultSchema || j.d.DefaultSchema == "") {
		return j.d, nil
	}
	columns, err := j.columns()
	if err != nil {
		return nil, err
	}
	text, ok := j.spell(targets, columns)
	if !ok {
		return nil, j.refuse(CodeText, "", "the new names can't be spelt in the statement's character set")
	}
	d := *j.d
	d.Text = text
	if d.DefaultSchema != "" {
		d.DefaultSchema = home.target
	}
	d.Tables = nil
	for i, m := range j.st.Mentions {
		if m.Role != ddl.Object && !j.drop[i] && !slices.Contains(d.Tables, targets[i]) {
			d.Tables = append(d.Tables, targets[i])
		}
	}
	again, err := ddl.Classify(d.Text, d.DefaultSchema, j.dialect)
	if err != nil {
		return nil, j.refuse(CodeText, "", "with new names it can't be read any more: %v", err)
	}
	var left []schema.Name
	for i := range targets {
		if !j.drop[i] {
			left = append(left, targets[i])
		}
	}
	if again.Class != j.st.Class || !slices.EqualFunc(again.Mentions, left, func(m ddl.Mention, n schema.Name) bool { return m.Name == n }) {
		return nil, j.refuse(CodeText, "", "with new names it reads otherwise")
	}
	return &d, nil
}

// edit is a piece of the text and what stands in its place.
type edit struct {
	from, to int
	with     string
}

// columns are the places of schema.table in schema.table.column of queries.
func (j *job) columns() (out []edit, err error) {
	if j.st.Class != ddl.View && j.st.Class != ddl.CreateTableSelect {
		return nil, nil
	}
	found, err := ddl.Columns(j.d.Text, j.dialect)
	if err != nil {
		return nil, j.refuse(CodeText, "", "%v", err)
	}
	for _, c := range found {
		w := j.rules.Table(c.Table)
		if !w.Included || w.Target.Table != c.Table.Table {
			return nil, j.refuse(CodeText, "", "a column is spelt with %s, which has another name on the target", c.Table)
		}
		if w.Target != c.Table {
			out = append(out, edit{c.From, c.To, ""})
			out[len(out)-1].with = server.QuoteName(w.Target.Schema) + "." + server.QuoteName(w.Target.Table)
		}
	}
	return out, nil
}

// spell puts the names in their places.
func (j *job) spell(targets []schema.Name, edits []edit) (string, bool) {
	text, m := j.d.Text, j.st.Mentions
	for i := 0; i < len(m); i++ {
		if !j.drop[i] {
			with := j.prefix[i] + server.QuoteName(targets[i].Schema)
			if targets[i].Table != "" {
				with += "." + server.QuoteName(targets[i].Table)
			}
			edits = append(edits, edit{m[i].From, m[i].To, with})
			continue
		}
		// A run of what goes takes one comma with it: the one before, or for
		// the first of the list the one behind.
		last := i
		for last+1 < len(m) && j.drop[last+1] {
			last++
		}
		e := edit{m[i].From, m[last].To, ""}
		if i > 0 {
			e.from = m[i-1].To
		} else if last+1 < len(m) {
			e.to = m[last+1].From
		}
		edits = append(edits, e)
		i = last
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.from - b.from })
	var b strings.Builder
	last := 0
	for _, e := range edits {
		if e.from < last {
			return "", false
		}
		if j.dialect.Charset != "utf8mb4" && j.dialect.Charset != "binary" && strings.ContainsFunc(e.with, func(c rune) bool { return c >= 0x80 }) {
			return "", false
		}
		b.WriteString(text[last:e.from])
		b.WriteString(e.with)
		if last = e.to; e.with != "" && last < len(text) && text[last] == '`' {
			b.WriteByte(' ') // two of them would be one within a name
		}
	}
	b.WriteString(text[last:])
	return b.String(), true
}
