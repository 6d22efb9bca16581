// Package route decides which of the source's changes reach the target, and under
// which names. It stands between the log's reader and the applier, so that the log
// stays complete and two consumers of one log may differ.
//
// Nothing here may make the target differ from the source unseen. What a rule leaves
// out is left out whole: rows, statements and references alike. A statement whose
// effect would cross the border of the rules, or whose names can't be replaced,
// is a Refusal: the consumer halts before it, with what to do.
package route

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Config is what an operator writes. Patterns are schema.table, with * for anything
// and ? for one character; what stands between backquotes means itself. Names are
// compared byte by byte, as the binlog spells them.
type Config struct {
	// Include: only these tables. Empty: every table.
	Include []string
	// Exclude: not these, also where Include has them.
	Exclude []string
	// SkipInsert, SkipUpdate, SkipDelete and SkipDDL leave single operations of
	// tables out. Such tables differ from the source afterwards, by the operator's
	// will.
	SkipInsert, SkipUpdate, SkipDelete, SkipDDL []string
	// Done lists GTIDs whose statement an operator has carried out on the target
	// by hand, after a Refusal. It is no part of the digest.
	Done []string
	// Routes are "schema.table -> schema.table", the first that fits. Each half has
	// a * at most, and it stands for the same on both sides.
	Routes []string
}

// Empty tells whether the configuration changes nothing.
func (c Config) Empty() bool {
	return len(c.Include)+len(c.Exclude)+len(c.SkipInsert)+len(c.SkipUpdate)+len(c.SkipDelete)+len(c.SkipDDL)+len(c.Done)+len(c.Routes) == 0
}

// Digest names what the rules do: the same for the same rules in the same order,
// "" for none.
func (c Config) Digest() string {
	c.Done = nil
	if c.Empty() {
		return ""
	}
	sum := sha256.Sum256([]byte(c.String()))
	return hex.EncodeToString(sum[:16])
}

// Stamp is Digest as a number, 0 for none: the applier keeps it beside the lanes
// that were filled by these rules (applier.Config.Rules).
func (c Config) Stamp() uint64 {
	if c.Done = nil; c.Empty() {
		return 0
	}
	sum := sha256.Sum256([]byte(c.String()))
	return binary.BigEndian.Uint64(sum[:])
}

// String is the rules in a form for people, one to a line. Order counts only among
// routes.
func (c Config) String() string {
	var b strings.Builder
	for _, s := range []struct {
		name string
		list []string
	}{{"include", c.Include}, {"exclude", c.Exclude}, {"skip_insert", c.SkipInsert}, {"skip_update", c.SkipUpdate},
		{"skip_delete", c.SkipDelete}, {"skip_ddl", c.SkipDDL}} {
		for _, p := range slices.Compact(slices.Sorted(slices.Values(s.list))) {
			fmt.Fprintf(&b, "%s %s\n", s.name, p)
		}
	}
	for _, r := range c.Routes {
		from, to, _ := strings.Cut(r, "->")
		fmt.Fprintf(&b, "route %s -> %s\n", strings.TrimSpace(from), strings.TrimSpace(to))
	}
	return b.String()
}

// Problem is what is wrong with one entry of a Config.
type Problem struct {
	List  string // include, exclude, skip_insert …, routes
	Index int
	Text  string
}

func (p Problem) Error() string { return fmt.Sprintf("%s[%d]: %s", p.List, p.Index, p.Text) }

// Rules is a Config that was read.
type Rules struct {
	cfg              Config
	include, exclude []pattern
	skip             [4][]pattern // by operation
	routes           []rename
}

// The operations that can be left out.
const (
	skipInsert = iota
	skipUpdate
	skipDelete
	skipDDL
)

var skipNames = [4]string{"skip_insert", "skip_update", "skip_delete", "skip_ddl"}

// rename is one route.
type rename struct {
	text          string
	from          pattern
	schema, table shift
}

// New reads the rules; the problems are all that is wrong with them.
func New(cfg Config) (*Rules, []Problem) {
	r := &Rules{cfg: cfg}
	var problems []Problem
	read := func(list string, texts []string) (out []pattern) {
		for i, t := range texts {
			p, err := parsePattern(t)
			if err != nil {
				problems = append(problems, Problem{list, i, err.Error()})
				continue
			}
			out = append(out, p)
		}
		return out
	}
	r.include, r.exclude = read("include", cfg.Include), read("exclude", cfg.Exclude)
	for i, l := range [4][]string{cfg.SkipInsert, cfg.SkipUpdate, cfg.SkipDelete, cfg.SkipDDL} {
		r.skip[i] = read(skipNames[i], l)
	}
	for i, t := range cfg.Routes {
		x, err := parseRoute(t)
		if err != nil {
			problems = append(problems, Problem{"routes", i, err.Error()})
			continue
		}
		for k, y := range r.routes {
			if y.from.text == x.from.text {
				problems = append(problems, Problem{"routes", i, fmt.Sprintf("%s is routed by routes[%d] already: the first route that fits is taken", x.from.text, k)})
			}
		}
		r.routes = append(r.routes, x)
	}
	return r, problems
}

func parseRoute(text string) (rename, error) {
	from, to, ok := strings.Cut(text, "->")
	if !ok {
		return rename{}, fmt.Errorf("%q: write it as schema.table -> schema.table", text)
	}
	f, err := parsePattern(strings.TrimSpace(from))
	if err != nil {
		return rename{}, err
	}
	t, err := parsePattern(strings.TrimSpace(to))
	if err != nil {
		return rename{}, err
	}
	x := rename{text: f.text + " -> " + t.text, from: f}
	if x.schema, err = newShift(f.schema, t.schema); err == nil {
		x.table, err = newShift(f.table, t.table)
	}
	if err != nil {
		return rename{}, fmt.Errorf("%q: %w", text, err)
	}
	for _, name := range append(slices.Clone(schema.SystemSchemas), "twinspan") {
		if t.schema.matches(name) && !t.schema.all() {
			return rename{}, fmt.Errorf("%q: schema %s belongs to the server or to twinspan", text, name)
		}
	}
	return x, nil
}

// Way is what becomes of a table.
type Way struct {
	Source schema.Name
	// Included: its rows and statements reach the target, as Target.
	Included bool
	Target   schema.Name
	// Rule is what decided: "exclude[0] *.tmp_*", "route shop.* -> shop_b.*";
	// empty: no rule said anything.
	Rule string
	// Skips are the operations that are left out: insert, update, delete, ddl.
	Skips []string
	// Taken is another table whose name on the target this would be; only its
	// owner may come. Zero: none.
	Taken schema.Name

	skip [4]bool
}

// Differs tells whether the table's rows are meant to differ from the source's.
func (w Way) Differs() bool { return w.skip[skipInsert] || w.skip[skipUpdate] || w.skip[skipDelete] }

func system(schemaName string) bool {
	s := strings.ToLower(schemaName)
	return s == "twinspan" || slices.Contains(schema.SystemSchemas, s)
}

// Table decides about a table (or view, or sequence).
func (r *Rules) Table(n schema.Name) Way {
	w := Way{Source: n, Target: n}
	if system(n.Schema) {
		w.Included = true // the applier knows what to leave alone
		return w
	}
	if w.Included, w.Rule = r.included(n); !w.Included {
		return w
	}
	if t, rule, ok := r.renamed(n); ok {
		w.Target, w.Rule = t, rule
	}
	for i, list := range r.skip {
		for _, p := range list {
			if p.matches(n) && !w.skip[i] {
				w.skip[i] = true
				w.Skips = append(w.Skips, strings.TrimPrefix(skipNames[i], "skip_"))
			}
		}
	}
	if o, ok := r.Owner(w.Target); ok && o != n {
		w.Taken = o
	}
	return w
}

func (r *Rules) included(n schema.Name) (bool, string) {
	rule := ""
	if len(r.include) > 0 {
		i := slices.IndexFunc(r.include, func(p pattern) bool { return p.matches(n) })
		if i < 0 {
			return false, "not in include"
		}
		rule = "include " + r.include[i].text
	}
	if i := slices.IndexFunc(r.exclude, func(p pattern) bool { return p.matches(n) }); i >= 0 {
		return false, "exclude " + r.exclude[i].text
	}
	return true, rule
}

// renamed is the name by the first route that fits.
func (r *Rules) renamed(n schema.Name) (schema.Name, string, bool) {
	for _, x := range r.routes {
		if t, ok := x.forth(n); ok {
			return t, "route " + x.text, true
		}
	}
	return n, "", false
}

func (x rename) forth(n schema.Name) (schema.Name, bool) {
	s, okS := x.schema.forth(n.Schema)
	t, okT := x.table.forth(n.Table)
	return schema.Name{Schema: s, Table: t}, okS && okT
}

// Owner is the table of the source that a name on the target belongs to; false:
// none that is included. Where several would become one name, the earlier route
// has it, and an unrouted table comes last: two tables never become one, since
// rows of the one with the keys of the other would be lost unseen.
func (r *Rules) Owner(target schema.Name) (schema.Name, bool) {
	if system(target.Schema) {
		return target, true
	}
	for i, x := range r.routes {
		s, okS := x.schema.back(target.Schema)
		t, okT := x.table.back(target.Table)
		n := schema.Name{Schema: s, Table: t}
		if !okS || !okT || system(s) {
			continue
		}
		if in, _ := r.included(n); in && r.routeOf(n) == i {
			return n, true
		}
	}
	if in, _ := r.included(target); in && r.routeOf(target) < 0 {
		return target, true
	}
	return schema.Name{}, false
}

// routeOf is the index of the route that a table takes; -1: none.
func (r *Rules) routeOf(n schema.Name) int {
	return slices.IndexFunc(r.routes, func(x rename) bool { _, ok := x.forth(n); return ok })
}

// realm is what the rules make of a schema as a whole.
type realm struct {
	none  bool // no table in it is included
	whole bool // every table in it is
	// target is the schema that its tables go to by default. uniform: they all
	// do, and keep their names.
	target  string
	uniform bool
}

// plain: a text that names tables of this schema without saying so means the same
// on the target.
func (m realm) plain() bool { return m.whole && m.uniform }

func (r *Rules) realm(name string) realm {
	m := realm{target: name, uniform: true, whole: len(r.include) == 0, none: len(r.include) > 0}
	if system(name) {
		return realm{whole: true, uniform: true, target: name}
	}
	for _, p := range r.include {
		if p.schema.matches(name) {
			m.none = false
			m.whole = m.whole || p.table.all()
		}
	}
	for _, p := range r.exclude {
		if p.schema.matches(name) {
			m.whole = false
			m.none = m.none || p.table.all()
		}
	}
	for _, x := range r.routes {
		to, ok := x.schema.forth(name)
		if !ok {
			continue
		}
		if x.from.table.all() && x.table.identity() {
			m.target = to
			break
		}
		m.uniform = false
	}
	return m
}

// sole tells whether all that a target's schema holds by replication comes from
// this one schema of the source.
func (r *Rules) sole(source string, m realm) bool {
	for _, x := range r.routes {
		if from, ok := x.schema.back(m.target); ok && from != source {
			return false
		}
	}
	// Tables that are called so at the source lose their names to the route.
	return true
}

// skips tells whether an operation of a row is left out.
func (w Way) skips(o change.Op) bool {
	switch o {
	case change.Insert:
		return w.skip[skipInsert]
	case change.Update:
		return w.skip[skipUpdate]
	case change.Delete:
		return w.skip[skipDelete]
	}
	return false
}

// nameMax is how many characters a name may have.
const nameMax = 64

func tooLong(n schema.Name) bool {
	return utf8.RuneCountInString(n.Schema) > nameMax || utf8.RuneCountInString(n.Table) > nameMax
}
