// Package doctor looks at the source, the log, the target and this machine, and
// says what must be different before changes can be replicated exactly. It only
// reads. A mandatory finding is something a role would halt on, or worse, would
// not notice; an advisory one makes trouble likely.
package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Severity of a check.
type Severity string

// The severities.
const (
	Mandatory Severity = "mandatory"
	Advisory  Severity = "advisory"
)

// Outcome of a check.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"
	Unknown Outcome = "unknown" // could not be looked at; Detail says why
)

// Finding is the outcome of one check.
type Finding struct {
	// Check is stable: subject, dot, what; such as source.binlog_format.
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Outcome  Outcome  `json:"outcome"`
	Detail   string   `json:"detail"`           // what was seen
	Remedy   string   `json:"remedy,omitempty"` // what to do, when it is not ok
	// SQL repairs it, to be run on the subject by an administrator. A line
	// that starts with -- is for people: what no statement can do.
	SQL []string `json:"sql,omitempty"`
}

// Report is all findings about one subject.
type Report struct {
	Subject  string    `json:"subject"`          // source, target, log, node, process
	Where    string    `json:"where,omitempty"`  // address or path
	Server   string    `json:"server,omitempty"` // flavour and version
	Findings []Finding `json:"findings"`
	// Error says that the subject could not be reached; there are then no
	// findings, or only those made before.
	Error string `json:"error,omitempty"`
	Err   error  `json:"-"`
}

// Failed are the findings of a severity that are not ok and not unknown.
func (r *Report) Failed(s Severity) []Finding {
	var out []Finding
	for _, f := range r.Findings {
		if f.Outcome == Failed && f.Severity == s {
			out = append(out, f)
		}
	}
	return out
}

// Accept makes the named checks advisory: the operator has looked at them.
func (r *Report) Accept(checks []string) {
	for i := range r.Findings {
		if f := &r.Findings[i]; slices.Contains(checks, f.Check) && f.Severity == Mandatory {
			f.Severity = Advisory
			f.Remedy += " (accepted by doctor.accept)"
		}
	}
}

// unreachable makes a report of an error.
func (r *Report) unreachable(err error) *Report {
	r.Err = err
	r.Error = strings.Join(strings.Fields(err.Error()), " ")
	return r
}

func (r *Report) add(f Finding) {
	f.Check = r.Subject + "." + f.Check
	r.Findings = append(r.Findings, f)
}

func (r *Report) ok(check string, s Severity, format string, args ...any) {
	r.add(Finding{Check: check, Severity: s, Outcome: OK, Detail: fmt.Sprintf(format, args...)})
}

func (r *Report) unknown(check string, s Severity, err error) {
	r.add(Finding{Check: check, Severity: s, Outcome: Unknown, Detail: strings.Join(strings.Fields(err.Error()), " ")})
}

// Script is the SQL of all findings that are not ok, ready for the server's own
// client, each under a comment that says what it is for.
func Script(reports ...*Report) string {
	var b strings.Builder
	for _, r := range reports {
		var body strings.Builder
		for _, f := range r.Findings {
			if f.Outcome != Failed || len(f.SQL) == 0 {
				continue
			}
			fmt.Fprintf(&body, "\n-- %s (%s): %s\n", f.Check, f.Severity, comment(f.Detail))
			for _, s := range f.SQL {
				if !strings.HasPrefix(s, "--") {
					s += ";"
				}
				body.WriteString(s + "\n")
			}
		}
		if body.Len() > 0 {
			fmt.Fprintf(&b, "-- On the %s, %s, as an administrator.\n%s\n", r.Subject, r.Where, body.String())
		}
	}
	return b.String()
}

// comment keeps text inside one comment line.
func comment(s string) string { return strings.Join(strings.Fields(s), " ") }

// listing is at most limit of the names, and how many more there are.
func listing(names []string, limit int) string {
	slices.Sort(names)
	if len(names) <= limit {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
}
