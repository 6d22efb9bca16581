package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/consumer/route"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/internal/verify"
	"github.com/twinspan/twinspan/schema"
)

func (a *app) filtersCommand() *cobra.Command {
	return group("filters", "What the filters and routes do to each table",
		`  twinspan filters check
  twinspan filters accept`,
		a.filtersCheck(), a.filtersAccept())
}

// filterReport is what filters check prints.
type filterReport struct {
	route.Survey
	Digest  string `json:"digest"`
	Stored  string `json:"stored_digest"`
	Changed bool   `json:"changed"` // the target was filled by other rules
	listed  bool   // the source was asked
}

func (a *app) filtersCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Show what happens to each table that the source has now; changes nothing",
		Long: `Asks the source for its tables and shows for each whether it is replicated, which
rule of apply.filters or apply.routes decided, and its name on the target. Below it
names what would halt the consumer or make the target differ: two tables that would
become one, foreign keys out of the filter, rules other than those that the target
was filled by. Source and target are only read; either may be left out of the
configuration, and what it could tell is left out then.

Exit code 0 when nothing is in the way, 3 when something is, 5 when a server can't be
reached.`,
		Example: `  twinspan filters check -c twinspan.yaml
  twinspan filters check --set 'apply.routes=shop.* -> shop_b.*' -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			l, err := a.load(true)
			if err != nil {
				return err
			}
			if l.Source.Address == "" && l.Target.Address == "" {
				return cli.Usage("the configuration names neither source nor target: filters check needs one of them")
			}
			r, err := lookAtRules(c.Context(), l.Config)
			if err != nil {
				return cli.Fail(cli.ExitUnreachable, err, "twinspan doctor looks closer")
			}
			if err := p.Print(r, func() error { printFilters(p, r); return nil }); err != nil {
				return err
			}
			if len(r.Troubles) > 0 || r.Changed {
				return cli.Exit(cli.ExitDifferences)
			}
			return nil
		},
	}
}

func (a *app) filtersAccept() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "accept",
		Short: "Record that the target is as the configured filters and routes want it",
		Long: `A consumer whose filters or routes are not those that its target was filled by halts
with FILTERS_CHANGED: tables that come in anew are not there, or lack what was left
out. Stop the consumer, bring the target in order, then accept and start it again:

  - a table that comes in anew: copy it from the source as it is now, under its name
    on the target. Changes that the copy has and that come a second time do no harm
    to a table with a key; one without a key needs a copy as of the very place that
    the consumer has reached, so better seed the target anew.
  - a table that is left out from now on: drop it, or keep what it has.
  - a table with a new name: rename it.

It is refused while lanes stand apart: what a lane has applied can only be told by
the rules that filled it. A consumer that has applied all of the log, or has one lane
(twinspan lanes set 1), may be stopped and given other rules; so may one whose
transactions are committed in the source's order, at any time. Where rows have lanes
of their own, rules that only leave more tables or row operations out always may
follow. It is also refused while changes are parked that the new rules would lead
elsewhere. Look with filters accept before anything is changed on the target.

Without --yes it says what would be recorded. verify tells whether all is well
afterwards.`,
		Example: "  twinspan filters accept -c twinspan.yaml\n  twinspan filters accept -c twinspan.yaml --yes",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			l, err := a.load(true)
			if err != nil {
				return err
			}
			if l.Target.Address == "" {
				return cli.Usage("the configuration names no target: its record is there")
			}
			db, err := server.Open(l.Target, doctorOptions)
			if err != nil {
				return err
			}
			defer db.Close()
			var out struct {
				*route.Acceptance
				Changed bool `json:"changed"`
			}
			if yes {
				out.Acceptance, err = route.Accept(c.Context(), db, l.Stream, l.Applier.Rules(), applier.Layout)
				out.Changed = err == nil
			} else {
				out.Acceptance, err = route.Weigh(c.Context(), db, l.Stream, l.Applier.Rules(), applier.Layout)
			}
			if err != nil && !errors.Is(err, route.ErrUnsafe) {
				return cli.Fail(cli.ExitUnreachable, err, "twinspan doctor target looks closer")
			}
			if err := p.Print(out, func() error { printAcceptance(p, out.Acceptance, out.Changed); return nil }); err != nil {
				return err
			}
			if out.Refuse != "" {
				return cli.Fail(cli.ExitUnsafe, errors.New(out.Refuse), out.Remedy)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "carry it out; without it nothing is changed")
	return c
}

// printAcceptance shows the rules line by line, with what is new in them and what
// is no more.
func printAcceptance(p *cli.Printer, r *route.Acceptance, done bool) {
	was, will := strings.Split(strings.TrimSpace(r.Old), "\n"), strings.Split(strings.TrimSpace(r.Rules), "\n")
	for _, line := range was {
		if line != "" && !slices.Contains(will, line) {
			p.Printf("%s\n", p.Paint("red", "- "+line))
		}
	}
	for _, line := range will {
		switch {
		case line == "":
		case slices.Contains(was, line):
			p.Printf("  %s\n", line)
		default:
			p.Printf("%s\n", p.Paint("green", "+ "+line))
		}
	}
	p.Printf("stream %s: the target was filled by filters and routes %s, configured are %s", r.Stream, orNone(r.Stored), orNone(r.Digest))
	if r.Apart > 0 {
		p.Printf("; %d of %d lanes are ahead of the others", r.Apart, r.Lanes)
	}
	switch {
	case done:
		p.Printf("\nRecorded.\n")
	case r.Refuse == "":
		p.Printf("\nNothing was changed. With --yes they are recorded as what the target was filled by.\n")
	default:
		p.Printf("\n")
	}
}

func orNone(digest string) string {
	if digest == "" {
		return "(none)"
	}
	return digest
}

// lookAtRules asks whichever server is configured.
func lookAtRules(ctx context.Context, c *config.Config) (*filterReport, error) {
	rules, problems := route.New(c.Applier.Rules())
	if len(problems) > 0 {
		return nil, problems[0]
	}
	r := &filterReport{Survey: route.Survey{Tables: []route.Outcome{}, Troubles: []route.Trouble{}}, Digest: c.Applier.Rules().Digest()}
	if c.Source.Address != "" {
		db, err := server.Open(c.Source, doctorOptions)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		info, err := server.Detect(ctx, db)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", c.Source.Address, err)
		}
		if r.Survey, err = rules.Look(ctx, db, info); err != nil {
			return nil, fmt.Errorf("source %s: %w", c.Source.Address, err)
		}
		r.listed = true
	}
	if c.Target.Address != "" {
		db, err := server.Open(c.Target, doctorOptions)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		stored, progress, err := route.Recorded(ctx, db, c.Stream)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", c.Target.Address, err)
		}
		r.Stored, r.Changed = stored.Digest, progress && stored.Digest != r.Digest
		more, err := rules.LookAtTarget(ctx, db)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", c.Target.Address, err)
		}
		r.Troubles = append(r.Troubles, more...)
	}
	return r, nil
}

func printFilters(p *cli.Printer, r *filterReport) {
	var rows [][]string
	in := 0
	for _, t := range r.Tables {
		what := p.Paint("yellow", "left out")
		if t.Included {
			in++
			if what = "as it is"; t.Target != t.Table {
				what = "as " + t.Target
			}
			if len(t.Skips) > 0 {
				what += ", without " + strings.Join(t.Skips, ", ")
			}
			if t.Differs {
				what += p.Paint("yellow", " (will differ)")
			}
		}
		rows = append(rows, []string{t.Table, t.Kind, what, t.Rule})
	}
	if !r.listed {
		p.Printf("the configuration names no source: its tables are not listed\n")
	} else {
		p.Rows([]string{"table", "kind", "replicated", "rule"}, rows)
	}
	for _, t := range r.Troubles {
		p.Printf("\n%s %s: %s\n  remedy: %s\n", p.Paint("red", string(t.Code)), t.Table, t.Detail, t.Remedy)
	}
	if r.Changed {
		p.Printf("\n%s the target was filled by other filters and routes\n  remedy: %s\n", p.Paint("red", route.CodeChanged), changedRemedy)
	}
	p.Printf("\n%d tables, %d replicated, %d problems\n", len(r.Tables), in, len(r.Troubles))
}

const changedRemedy = "set apply.filters and apply.routes back; or see that twinspan filters accept refuses nothing, bring the target in order and record it (--yes); its --help says how"

// rulesError is what keeps a consumer from starting with its rules.
type rulesError struct{ troubles []route.Trouble }

func (e *rulesError) Error() string {
	var all []string
	for _, t := range e.troubles {
		all = append(all, fmt.Sprintf("%s %s: %s", t.Code, t.Table, t.Detail))
	}
	return "filters and routes: " + strings.Join(all, "; ")
}

// router is what the consumer's changes go through: nil where nothing is filtered
// or routed. It fails while the rules do not fit the servers.
func (p *process) router(ctx context.Context) (*route.Router, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	cfg := p.cfg.Applier.Rules()
	db, err := server.Open(p.cfg.Target, doctorOptions)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := route.Agree(ctx, db, p.cfg.Stream, cfg); err != nil || cfg.Empty() {
		return nil, err
	}
	rules, problems := route.New(cfg)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	r, err := lookAtRules(ctx, p.cfg)
	if err != nil {
		// The source may be away: the stream itself tells what halts.
		only := *p.cfg
		only.Source.Address = ""
		if r, err = lookAtRules(ctx, &only); err != nil {
			return nil, err
		}
	}
	if len(r.Troubles) > 0 {
		return nil, &rulesError{r.Troubles}
	}
	for _, t := range r.Tables {
		if t.Differs {
			p.logger.Warn().Str("table", t.Table).Strs("left_out", t.Skips).Msg("the table will differ from the source: operations of it are left out")
		}
	}
	return route.NewRouter(rules), nil
}

// asRulesHalt tells what it means that the rules did not fit.
func asRulesHalt(err error) (code, remedy string, ok bool) {
	var troubles *rulesError
	switch {
	case errors.As(err, &troubles):
		return string(troubles.troubles[0].Code), troubles.troubles[0].Remedy + "; twinspan filters check shows all", true
	case errors.Is(err, route.ErrChanged):
		return route.CodeChanged, changedRemedy, true
	}
	return "", "", false
}

// names are the rules as verify asks for them.
type names struct{ rules *route.Rules }

// namesOf is nil where nothing is filtered or routed.
func namesOf(c *config.Config) (verify.Names, error) {
	cfg := c.Applier.Rules()
	if cfg.Empty() {
		return nil, nil
	}
	rules, problems := route.New(cfg)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return names{rules}, nil
}

func (n names) Target(source schema.Name) (schema.Name, bool) {
	w := n.rules.Table(source)
	return w.Target, w.Included
}

func (n names) Source(target schema.Name) (schema.Name, bool) { return n.rules.Owner(target) }

func (n names) Apart(source schema.Name) string {
	if w := n.rules.Table(source); w.Differs() {
		return "without " + strings.Join(w.Skips, ", ")
	}
	return ""
}
