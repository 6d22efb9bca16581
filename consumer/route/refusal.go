package route

import (
	"fmt"

	"github.com/twinspan/twinspan/schema"
)

// Code names the reason of a Refusal.
type Code string

// The reasons.
const (
	// CodeTaken: two tables of the source would be one on the target.
	CodeTaken Code = "ROUTE_COLLISION"
	// CodeName: a route makes a name that no server takes.
	CodeName Code = "ROUTE_NAME"
	// CodeText: the names in a statement can't be replaced.
	CodeText Code = "ROUTE_STATEMENT"
	// CodeRename: a table is renamed into the filter or out of it.
	CodeRename Code = "FILTER_RENAME"
	// CodeReference: a replicated definition needs one that is left out.
	CodeReference Code = "FILTER_REFERENCE"
	// CodeMixed: one statement changes tables inside and outside of the filter,
	// and can't be cut in two.
	CodeMixed Code = "FILTER_MIXED"
	// CodeDatabase: a statement about a schema that is replicated in part.
	CodeDatabase Code = "FILTER_SCHEMA"
	// CodeBody: a routine, trigger or event may refer to tables that are left out
	// or have other names.
	CodeBody Code = "FILTER_DEFINITION"
)

// Refusal is a change that the rules can't take across without the target drifting
// from the source.
type Refusal struct {
	Code   Code
	GTID   string
	Reason string
	Remedy string
	Text   string // of the statement; empty for rows
}

func (e *Refusal) Error() string {
	s := fmt.Sprintf("%s: %s", e.GTID, e.Reason)
	if e.Text != "" {
		s += fmt.Sprintf(": %.200q", e.Text)
	}
	return s
}

// byHand is the way around any statement.
func byHand(gtid string) string {
	return fmt.Sprintf("carry its effect out on the target by hand, as far as the filters and routes want it there, then add %s to apply.filters.done and restart", gtid)
}

// check refuses a table that must not come by the name it would get.
func (w Way) check(gtid string) error {
	switch {
	case !w.Included:
		return nil
	case w.Taken != (schema.Name{}):
		return &Refusal{Code: CodeTaken, GTID: gtid,
			Reason: fmt.Sprintf("%s would be %s on the target, which is where %s goes: rows with equal keys would replace each other", w.Source, w.Target, w.Taken),
			Remedy: fmt.Sprintf("exclude %s or give it a route of its own, then twinspan filters accept", w.Source)}
	case tooLong(w.Target):
		return &Refusal{Code: CodeName, GTID: gtid,
			Reason: fmt.Sprintf("%s would be %s on the target: a name has at most %d characters", w.Source, w.Target, nameMax),
			Remedy: fmt.Sprintf("give %s a shorter route, then twinspan filters accept", w.Source)}
	}
	return nil
}
