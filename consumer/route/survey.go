package route

import (
	"context"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Outcome is what happens to one table of the source.
type Outcome struct {
	Table    string   `json:"table"`
	Kind     string   `json:"kind"` // table, view, sequence
	Included bool     `json:"included"`
	Target   string   `json:"target,omitempty"`
	Rule     string   `json:"rule,omitempty"`
	Skips    []string `json:"skips,omitempty"` // operations that are left out
	Differs  bool     `json:"differs"`         // from the source, by the skips
}

// Trouble is what would make the target drift, or the consumer halt.
type Trouble struct {
	Code   Code   `json:"code"`
	Table  string `json:"table"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy"`
}

// Survey is what the rules make of a source as it is now.
type Survey struct {
	Tables   []Outcome `json:"tables"`
	Troubles []Trouble `json:"troubles"`
}

// own are the schemas that belong to the servers and to twinspan.
const own = "('mysql','information_schema','performance_schema','sys','twinspan')"

// foreignKey is a constraint of child that refers to parent.
type foreignKey struct {
	name          string
	child, parent schema.Name
	acts          bool // it changes rows of the child: CASCADE, SET NULL, SET DEFAULT
}

func foreignKeys(ctx context.Context, q server.Querier) ([]foreignKey, error) {
	rows, err := q.QueryContext(ctx, "SELECT r.CONSTRAINT_NAME, r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.UNIQUE_CONSTRAINT_SCHEMA, r.REFERENCED_TABLE_NAME,"+
		" (r.UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR r.DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION'))"+
		" FROM information_schema.REFERENTIAL_CONSTRAINTS r WHERE r.CONSTRAINT_SCHEMA NOT IN "+own+" ORDER BY 2, 3, 1")
	if err != nil {
		return nil, fmt.Errorf("foreign keys: %w", err)
	}
	defer rows.Close()
	var out []foreignKey
	for rows.Next() {
		var k foreignKey
		if err := rows.Scan(&k.name, &k.child.Schema, &k.child.Table, &k.parent.Schema, &k.parent.Table, &k.acts); err != nil {
			return nil, fmt.Errorf("foreign keys: %w", err)
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

// Look tells what happens to every table of the source, and what of it would go
// wrong. It only reads.
func (r *Rules) Look(ctx context.Context, source server.Querier, info server.Info) (Survey, error) {
	s := Survey{Tables: []Outcome{}, Troubles: []Trouble{}}
	rows, err := source.QueryContext(ctx, "SELECT TABLE_SCHEMA, TABLE_NAME, LOWER(TABLE_TYPE) FROM information_schema.TABLES WHERE TABLE_SCHEMA NOT IN "+own+" ORDER BY 1, 2")
	if err != nil {
		return s, fmt.Errorf("tables: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var n schema.Name
		var kind string
		if err := rows.Scan(&n.Schema, &n.Table, &kind); err != nil {
			return s, fmt.Errorf("tables: %w", err)
		}
		w := r.Table(n)
		o := Outcome{Table: n.String(), Kind: strings.TrimPrefix(kind, "base "), Included: w.Included, Rule: w.Rule, Skips: w.Skips, Differs: w.Differs()}
		if w.Included {
			o.Target = w.Target.String()
		}
		s.Tables = append(s.Tables, o)
		if err := w.check("now"); err != nil {
			s.refused(n, err)
		}
	}
	if err := rows.Err(); err != nil {
		return s, fmt.Errorf("tables: %w", err)
	}
	// Cascades are rows of the binlog from 9.6 on.
	logged := info.Flavor == server.MySQL && info.AtLeast(9, 6)
	keys, err := foreignKeys(ctx, source)
	if err != nil {
		return s, err
	}
	for _, k := range keys {
		s.key(r.Table(k.child), r.Table(k.parent), k, logged)
	}
	return s, nil
}

func (s *Survey) refused(n schema.Name, err error) {
	if e, ok := err.(*Refusal); ok { //nolint:errorlint // check makes nothing else
		s.Troubles = append(s.Troubles, Trouble{e.Code, n.String(), e.Reason, e.Remedy})
	}
}

// key judges a foreign key of the source.
func (s *Survey) key(child, parent Way, k foreignKey, logged bool) {
	if !child.Included {
		return
	}
	switch {
	case !parent.Included && k.acts && !logged:
		s.Troubles = append(s.Troubles, Trouble{CodeReference, k.child.String(),
			fmt.Sprintf("foreign key %s lets changes of %s, which is left out (%s), change rows of %s, and the source does not log those", k.name, k.parent, parent.Rule, k.child),
			fmt.Sprintf("include %s, exclude %s, or take the foreign key's action away on the source", k.parent, k.child)})
	case parent.Included && (parent.skip[skipDelete] || parent.skip[skipUpdate]) && k.acts && !logged:
		s.Troubles = append(s.Troubles, Trouble{CodeReference, k.child.String(),
			fmt.Sprintf("foreign key %s lets changes of %s change rows of %s unlogged, and some of them are left out (skip_update, skip_delete)", k.name, k.parent, k.child),
			fmt.Sprintf("leave the operations of %s in, exclude %s, or take the foreign key's action away on the source", k.parent, k.child)})
	}
}

// LookAtTarget tells which foreign keys of the target have a replicated child and a
// parent that is not replicated: the child's rows would be refused, or changed by
// rows of the target's own. It only reads.
func (r *Rules) LookAtTarget(ctx context.Context, target server.Querier) ([]Trouble, error) {
	keys, err := foreignKeys(ctx, target)
	if err != nil {
		return nil, err
	}
	var out []Trouble
	for _, k := range keys {
		child, ok := r.Owner(k.child)
		if !ok {
			continue
		}
		if _, ok := r.Owner(k.parent); !ok {
			out = append(out, Trouble{CodeReference, k.child.String(),
				fmt.Sprintf("on the target, foreign key %s of %s (the source's %s) refers to %s, which is not replicated", k.name, k.child, child, k.parent),
				fmt.Sprintf("drop the foreign key on the target, or replicate what becomes %s", k.parent)})
		}
	}
	return out, nil
}
