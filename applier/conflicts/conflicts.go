// Package conflicts is what is done about double writes, and what is remembered of
// them: policies by table, counts by kind, and the newest ones with their images.
package conflicts

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/schema"
)

// Policy says what becomes of a change that meets a conflict.
type Policy string

// The policies.
const (
	SourceWins Policy = "source-wins" // the target's row becomes what the source has
	TargetWins Policy = "target-wins" // the change is dropped
	Exception  Policy = "exception"   // the change is parked
	Halt       Policy = "halt"        // its lane stops until the conflict is gone
)

// All policies.
var All = []Policy{SourceWins, TargetWins, Exception, Halt}

// Policies of an applier; the zero value is SourceWins.
type Policies struct {
	Policy Policy
	// Tables have their own, by schema.table on the target, where * stands for
	// anything. An exact name goes first, then the longest pattern.
	Tables map[string]Policy
	// Images: before images are compared under SourceWins, too. Other policies
	// always compare them.
	Images bool
}

// Check fails for a policy or pattern that is none.
func (p Policies) Check() error {
	if p.Policy != "" && !slices.Contains(All, p.Policy) {
		return fmt.Errorf("conflicts: unknown policy %q", p.Policy)
	}
	for t, q := range p.Tables {
		if !slices.Contains(All, q) {
			return fmt.Errorf("conflicts: table %s: unknown policy %q", t, q)
		}
		if _, err := path.Match(t, ""); err != nil || !strings.Contains(t, ".") {
			return fmt.Errorf("conflicts: %q: write a table as schema.table", t)
		}
	}
	return nil
}

// For is the policy of a table.
func (p Policies) For(n schema.Name) Policy {
	name := n.String()
	if q, ok := p.Tables[name]; ok {
		return q
	}
	best, found := "", p.Policy
	for pattern, q := range p.Tables {
		ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(name, "/", "\x00"))
		if err == nil && ok && (len(pattern) > len(best) || len(pattern) == len(best) && pattern > best) {
			best, found = pattern, q
		}
	}
	if found == "" {
		return SourceWins
	}
	return found
}

// Compares tells whether before images of the table are compared.
func (p Policies) Compares(n schema.Name) bool { return p.Images || p.For(n) != SourceWins }

// Decide is the policy for one conflict. What only a blind overwrite of another row
// could resolve is never resolved: SourceWins halts at a secondary key's holder, and
// where no key tells which row a change means.
func (p Policies) Decide(n schema.Name, k target.Kind, named bool) Policy {
	q := p.For(n)
	if q == SourceWins && (k == target.UniqueHolder || !named) {
		return Halt
	}
	return q
}
