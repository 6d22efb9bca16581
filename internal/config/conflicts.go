package config

import (
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Conflicts say what becomes of a change that finds the target other than it was
// made on.
type Conflicts struct {
	Policy string `yaml:"policy"`
	// Compare: keys, or images to compare before images under source-wins, too.
	Compare string        `yaml:"compare"`
	Tables  TablePolicies `yaml:"tables"`
}

// Exceptions say which changes are parked when they can't be applied.
type Exceptions struct {
	// On lists causes: conflict, data, missing-table. Empty: they halt.
	On []string `yaml:"on"`
	// Followers: park or wait.
	Followers string         `yaml:"followers"`
	Max       int            `yaml:"max"`
	Retry     ExceptionRetry `yaml:"retry"`
}

// ExceptionRetry is how often a parked change is tried again by itself.
type ExceptionRetry struct {
	First Duration `yaml:"first"`
	Max   Duration `yaml:"max"`
}

var (
	conflictPolicies = []string{"source-wins", "target-wins", "exception", "halt"}
	exceptionCauses  = []string{"conflict", "data", "missing-table"}
)

// TablePolicies are conflict policies by table. As text they are db.t=halt,db.*=exception.
type TablePolicies map[string]string

// UnmarshalText accepts the text form; empty: none.
func (p *TablePolicies) UnmarshalText(b []byte) error {
	out := TablePolicies{}
	for w := range strings.SplitSeq(string(b), ",") {
		if w = strings.TrimSpace(w); w == "" {
			continue
		}
		table, policy, ok := strings.Cut(w, "=")
		if !ok {
			return fmt.Errorf("%q is not a table's policy: write it as schema.table=policy, such as shop.stock=halt", w)
		}
		if _, twice := out[table]; twice {
			return fmt.Errorf("table %q stands here twice", table)
		}
		out[table] = policy
	}
	if len(out) == 0 {
		out = nil
	}
	*p = out
	return nil
}

// tablePolicies decodes a policy for each table.
func (d *decoder) tablePolicies(n ast.Node, values []*ast.MappingValueNode, path string, dst reflect.Value) {
	d.origins[path] = d.where(n.GetToken())
	out := TablePolicies{}
	for _, kv := range values {
		table, ok := scalarText(kv.Key)
		if !ok {
			d.problem(kv.Key, path, "a table must be a plain word, such as shop.stock")
			continue
		}
		sub := join(path, table)
		text, ok := "", false
		if kv.Value != nil {
			text, ok = scalarText(kv.Value)
		}
		_, twice := out[table]
		switch {
		case !ok:
			d.problem(kv.Key, sub, "the policy is missing: write it as table: policy")
		case twice:
			d.problem(kv.Key, sub, "the table stands here a second time")
		default:
			d.origins[sub] = d.where(kv.Key.GetToken())
			out[table] = text
		}
	}
	if len(out) == 0 {
		out = nil
	}
	dst.Set(reflect.ValueOf(out))
}

// choice reports a word that is none of those known.
func (v *validator) choice(at, what, word string, known []string) {
	if slices.Contains(known, word) {
		return
	}
	hint := "use " + strings.Join(known, ", ")
	if n := nearest(word, known); n != "" {
		hint = "did you mean " + n + "?"
	}
	v.problem(at, "unknown %s %q; %s", what, word, hint)
}

func (v *validator) conflicts() {
	c, e := v.c.Applier.Conflicts, v.c.Applier.Exceptions
	v.choice("apply.conflicts.policy", "policy", c.Policy, conflictPolicies)
	v.choice("apply.conflicts.compare", "choice", c.Compare, []string{"keys", "images"})
	parks := c.Policy == "exception"
	for _, table := range slices.Sorted(maps.Keys(c.Tables)) {
		at := "apply.conflicts.tables." + table
		if v.origins[at] == "" {
			at = "apply.conflicts.tables"
		}
		if _, err := path.Match(table, ""); err != nil || !strings.Contains(table, ".") {
			v.problem(at, "%q is not a table: write it as schema.table; * stands for anything", table)
		}
		v.choice(at, "policy", c.Tables[table], conflictPolicies)
		parks = parks || c.Tables[table] == "exception"
	}
	for i, cause := range e.On {
		at := fmt.Sprintf("apply.exceptions.on[%d]", i)
		if v.origins[at] == "" {
			at = "apply.exceptions.on"
		}
		v.choice(at, "cause", cause, exceptionCauses)
	}
	if parks && !slices.Contains(e.On, "conflict") {
		v.problem("apply.exceptions.on", "a conflict policy is exception, and conflict is not in this list: add it, or use halt")
	}
	v.choice("apply.exceptions.followers", "choice", e.Followers, []string{"park", "wait"})
	between(v, "apply.exceptions.max", e.Max, 1, 1_000_000)
	durationUpTo(v, "apply.exceptions.retry.first", e.Retry.First, 24*time.Hour)
	durationUpTo(v, "apply.exceptions.retry.max", e.Retry.Max, 30*24*time.Hour)
	if e.Retry.Max < e.Retry.First {
		v.problem("apply.exceptions.retry.max", "%s is less than first, %s", e.Retry.Max, e.Retry.First)
	}
	if e.Retry.First > 0 && e.Retry.First.Std() < 100*time.Millisecond {
		v.problem("apply.exceptions.retry.first", "%s is less than 100ms", e.Retry.First)
	}
}
