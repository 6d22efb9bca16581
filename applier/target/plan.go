package target

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/twinspan/twinspan/applier/rowevent"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Plan is how rows of one version of a source table are written to a target
// table as it is now. It is immutable and safe for concurrent use; after a DDL
// that names the table make a new one.
type Plan struct {
	source *schema.Table
	table  *Table
	name   string // quoted, qualified

	writers []writer // by source column; formInvalid: not written
	quoted  [][]byte // the target's column name, by source column
	to      []int    // target column by source column
	write   []int    // source columns that are written, in order
	match   []int    // source columns a row without identity is matched by

	key      *Key      // the identity in target columns; nil: none
	identity []keyPart // the identity in source columns
	others   []otherKey
	prefixed bool // a part of the identity is a prefix

	mode      mode
	upserts   bool   // an upsert of an existing row changes exactly that row
	fastInto  string // "t (a, b) VALUES ", after INSERT INTO
	upsert    string // " ON DUPLICATE KEY UPDATE …"
	hasParent bool   // takes part in foreign keys, either way

	// events write the rows as row events; nil: as SQL, because of plain.
	events *rowevent.Table
	plain  string

	packet atomic.Int64 // max_allowed_packet, 0: not asked yet
}

type keyPart struct {
	column int // source column
	prefix int // in characters or bytes; 0: whole
}

// otherKey is a unique key beside the identity.
type otherKey struct {
	name  string
	parts []keyPart
	// opaque: a part is an expression or a column the source has not; which
	// row holds a value can't be asked by column.
	opaque bool
}

// mode is how freely rows may be merged.
type mode uint8

const (
	// modeCollapse: one final image per row, deletes then upserts.
	modeCollapse mode = iota
	// modeOrdered: order is kept, neighbours of one kind share a statement.
	modeOrdered
	// modeMultiset: no identity; row by row by all columns.
	modeMultiset
	// modeSequence: a MariaDB sequence's one row.
	modeSequence
)

// NewPlan pairs source and target columns by name. It fails with *Incompatible
// where the target can't hold the source's rows exactly. Columns that only the
// target has must fill themselves; columns the target computes are not written.
//
// What can't be seen here, since row events don't tell: that a source's Binary(16)
// is a MariaDB UUID (a target UUID takes it as one), and how a source FLOAT(M,D)
// rounds.
func NewPlan(source *schema.Table, t *Table) (*Plan, error) {
	p := &Plan{
		source: source, table: t,
		name:    server.QuoteName(t.Name.Schema) + "." + server.QuoteName(t.Name.Table),
		writers: make([]writer, len(source.Columns)),
		quoted:  make([][]byte, len(source.Columns)),
		to:      make([]int, len(source.Columns)),
	}
	refuse := func(column, reason, remedy string) error {
		return &Incompatible{Table: t.Name, Column: column, Reason: reason, Remedy: remedy}
	}
	if len(t.Triggers) > 0 {
		return nil, refuse("", fmt.Sprintf("its triggers (%s) would fire for replicated rows", strings.Join(t.Triggers, ", ")),
			"drop them on the target; the source's are kept in twinspan.parked_definition until a failover")
	}
	unique := map[int]bool{}
	for _, k := range t.Keys {
		for _, part := range k.Parts {
			unique[part.Column] = true
		}
	}
	from := make([]int, len(t.Columns)) // source column by target column, -1: none
	for i := range from {
		from[i] = -1
	}
	for i := range source.Columns {
		src := &source.Columns[i]
		j := t.index(src.Name)
		if src.Hidden() {
			continue // the target computes its own, if it has any
		}
		if j < 0 {
			return nil, refuse(src.Name, "the target has no such column", "add it to the target, with the source's type")
		}
		if from[j] >= 0 {
			return nil, refuse(src.Name, "two source columns have this name on the target", "")
		}
		if t.columns[j].versions {
			return nil, refuse(src.Name, "the table is system-versioned, and its history can't be written", "ALTER TABLE … DROP SYSTEM VERSIONING on both sides, or exclude the table")
		}
		dst := &t.Columns[j]
		from[j], p.to[i] = i, j
		p.quoted[i] = appendIdentifier(nil, dst.Name)
		w, reason := pair(src, dst, t.columns[j], t.server)
		if reason == "" && unique[j] {
			reason = keyFits(src, dst)
		}
		if reason != "" {
			return nil, refuse(src.Name, reason, "give the target's column the source's definition: "+src.SQLType())
		}
		p.writers[i] = w
		if !t.Generated[j] {
			p.write = append(p.write, i)
			p.match = append(p.match, i)
		}
	}
	for j := range t.Columns {
		if from[j] < 0 && !t.Generated[j] && !t.columns[j].fill {
			return nil, refuse(t.Columns[j].Name, "the source has no such column and it has no default", "give it a default or make it nullable")
		}
	}
	if len(p.write) == 0 {
		return nil, refuse("", "no column can be written", "")
	}
	p.hasParent = len(t.ForeignKeys) > 0 || len(t.Children) > 0
	p.chooseKey(from)
	p.chooseMode()
	p.prepare()
	p.events, p.plain = p.rowEvents(from)
	return p, nil
}

// chooseKey takes the table's identity, or where the source lacks a column of
// it, another key that names a row.
func (p *Plan) chooseKey(from []int) {
	t := p.table
	order := make([]int, 0, len(t.Keys)+1)
	if t.Identity >= 0 {
		order = append(order, t.Identity)
	}
	for i := range t.Keys {
		if i != t.Identity {
			order = append(order, i)
		}
	}
	for _, i := range order {
		k := &t.Keys[i]
		other := otherKey{name: k.Name, opaque: k.Functional}
		usable := !k.Functional && len(k.Parts) > 0
		for _, part := range k.Parts {
			if from[part.Column] < 0 {
				usable, other.opaque = false, true
				continue
			}
			if !k.Primary && (part.Prefix > 0 || t.Columns[part.Column].Nullable) {
				usable = false
			}
			other.parts = append(other.parts, keyPart{from[part.Column], part.Prefix})
		}
		if p.key == nil && usable {
			p.key, p.identity = k, other.parts
			continue
		}
		p.others = append(p.others, other)
	}
}

func (p *Plan) chooseMode() {
	switch {
	case p.table.Sequence:
		p.mode = modeSequence
		return
	case p.key == nil:
		p.mode = modeMultiset
		return
	}
	p.upserts = p.key.Primary && strings.EqualFold(p.table.Engine, "InnoDB")
	p.mode = modeCollapse
	if len(p.others) > 0 {
		p.mode = modeOrdered
	}
	for _, part := range p.identity {
		p.prefixed = p.prefixed || part.prefix > 0
		if part.prefix > 0 || p.table.Generated[p.to[part.column]] {
			p.mode, p.upserts = modeOrdered, false
		}
	}
}

// collapses tells whether these rows may be merged to one image each. Where the
// target enforces and cascades foreign keys itself, a delete and an insert of
// one row are not an update of it, and rows of one table depend on each other.
func (p *Plan) collapses(flags change.Flags) bool {
	return p.mode == modeCollapse && (len(p.table.Children) == 0 || !p.enforces(flags))
}

// enforces: the target checks foreign keys for these rows, and cascades.
func (p *Plan) enforces(flags change.Flags) bool {
	return p.hasParent && flags&(change.NoForeignKeyChecks|change.CascadesLogged) == 0
}

// verb begins a statement: the word and what holds for this statement alone:
// foreign key checks off where the rows ask for it, strict mode off where an
// ENUM's error value must pass.
func (p *Plan) verb(word string, flags change.Flags, lenient bool) string {
	unchecked := p.hasParent && !p.enforces(flags)
	if !unchecked && !lenient {
		return word + " "
	}
	if p.table.server.Flavor == server.MariaDB {
		switch {
		case unchecked && lenient:
			return "SET STATEMENT foreign_key_checks=0, sql_mode='" + lenientMode + "' FOR " + word + " "
		case lenient:
			return "SET STATEMENT sql_mode='" + lenientMode + "' FOR " + word + " "
		}
		return "SET STATEMENT foreign_key_checks=0 FOR " + word + " "
	}
	switch {
	case unchecked && lenient:
		return word + " /*+ SET_VAR(foreign_key_checks=0) SET_VAR(sql_mode='" + lenientMode + "') */ "
	case lenient:
		return word + " /*+ SET_VAR(sql_mode='" + lenientMode + "') */ "
	}
	return word + " /*+ SET_VAR(foreign_key_checks=0) */ "
}

func (p *Plan) prepare() {
	var cols, set strings.Builder
	for n, i := range p.write {
		if n > 0 {
			cols.WriteString(",")
			set.WriteString(",")
		}
		cols.Write(p.quoted[i])
		fmt.Fprintf(&set, "%s=VALUES(%s)", p.quoted[i], p.quoted[i])
	}
	p.fastInto = "INTO " + p.name + " (" + cols.String() + ") VALUES "
	p.upsert = " ON DUPLICATE KEY UPDATE " + set.String()
}

// Source is the table version whose rows the plan takes.
func (p *Plan) Source() *schema.Table { return p.source }

// Table is the target's table.
func (p *Plan) Table() *Table { return p.table }

// Identity are the source columns, in key order, that name a row on the target;
// nil where nothing does, and rows are a multiset.
func (p *Plan) Identity() []int {
	var out []int
	for _, k := range p.identity {
		out = append(out, k.column)
	}
	return out
}

// describe names a row by its identity, for people: " (id=5)".
func (p *Plan) describe(row []change.Value) string {
	parts := p.identity
	if p.key == nil || row == nil {
		return ""
	}
	b := []byte(" (")
	for n, k := range parts {
		if n > 0 {
			b = append(b, ", "...)
		}
		b = append(append(b, p.source.Columns[k.column].Name...), '=')
		at := len(b)
		var err error
		if b, err = p.writers[k.column].append(b, row[k.column]); err != nil {
			b = append(b[:at], '?')
		}
		if len(b)-at > 80 {
			b = append(b[:at+80], "…"...)
		}
	}
	return string(append(b, ')'))
}
