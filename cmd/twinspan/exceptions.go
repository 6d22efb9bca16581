package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

func (a *app) exceptionsCommand() *cobra.Command {
	return group("exceptions", "Changes that could not be applied: list, show, retry, skip",
		`  twinspan exceptions list
  twinspan exceptions show 17
  twinspan exceptions retry 17 --dry-run
  twinspan exceptions skip 17 --reason "row was corrected by hand, ticket 4711" --yes`,
		a.exceptionsList(), a.exceptionsShow(), a.exceptionsRetry(), a.exceptionsSkip())
}

// parkedAt is the store on the configured target.
type parkedAt struct {
	l       *config.Loaded
	db      *sql.DB
	retrier *exceptions.Retrier
}

func (a *app) parkedAt(ctx context.Context) (*parkedAt, error) {
	l, err := a.load(true)
	if err != nil {
		return nil, err
	}
	if l.Target.Address == "" {
		return nil, cli.Usage("the configuration names no target: exceptions are kept there")
	}
	db, err := target.Open(l.Target)
	if err != nil {
		return nil, cli.Fail(cli.ExitUnreachable, err, "twinspan doctor target looks closer")
	}
	there, err := exceptions.Exists(ctx, db)
	if err == nil && !there {
		err = errNoExceptions
	}
	if err != nil {
		db.Close()
		return nil, exceptionsError(err)
	}
	rules := exceptionRules(&l.Applier)
	s := &exceptions.Store{Stream: l.Stream, Max: rules.Max, Retry: rules.Retry}
	return &parkedAt{l: l, db: db, retrier: &exceptions.Retrier{Store: s, DB: db, Policies: conflictPolicies(&l.Applier), By: operator()}}, nil
}

var errNoExceptions = errors.New("no consumer has kept exceptions on this target")

func exceptionsError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoExceptions):
		return cli.Fail(cli.ExitError, err, "apply.exceptions.on says what is parked")
	case errors.Is(err, exceptions.ErrNotFound):
		return cli.Fail(cli.ExitError, err, "twinspan exceptions list shows the open ones, with --history the others")
	case errors.Is(err, exceptions.ErrDamaged):
		return cli.Fail(cli.ExitError, err, "report this; skip gives it up")
	case target.Retryable(err):
		return cli.Fail(cli.ExitUnreachable, err, "it may or may not have been done: twinspan exceptions list shows it; the command may be repeated")
	}
	return cli.Fail(cli.ExitUnreachable, err, "twinspan doctor target looks closer")
}

func (a *app) exceptionsList() *cobra.Command {
	var f exceptions.Filter
	c := &cobra.Command{
		Use:   "list",
		Short: "List parked changes, in the order of the log",
		Long: `Lists the changes that are parked on the target, with the ones that follow them by
their keys. With --history also those that were applied or skipped later.`,
		Example: `  twinspan exceptions list -c twinspan.yaml
  twinspan exceptions list --table shop.stock -o json
  twinspan exceptions list --gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:23 --history`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := wholeName(f.Table); err != nil {
				return err
			}
			if f.Limit < 0 {
				return cli.Usage("--limit %d: 0 lists all", f.Limit)
			}
			at, err := a.parkedAt(c.Context())
			if err != nil {
				return err
			}
			defer at.db.Close()
			all, err := at.retrier.Store.List(c.Context(), at.db, f)
			if err != nil {
				return exceptionsError(err)
			}
			return p.Print(all, func() error { printExceptions(p, all); return nil })
		},
	}
	c.Flags().StringVar(&f.Table, "table", "", "only this table, schema.table, by its name on the target")
	c.Flags().StringVar(&f.GTID, "gtid", "", "only those of this transaction")
	c.Flags().BoolVar(&f.History, "history", false, "also those that are not open any more")
	c.Flags().IntVar(&f.Limit, "limit", 0, "at most so many; 0: all")
	return c
}

func printExceptions(p *cli.Printer, all []exceptions.Exception) {
	if len(all) == 0 {
		p.Printf("nothing is parked\n")
		return
	}
	var rows [][]string
	for _, e := range all {
		what := string(e.Cause)
		switch {
		case e.Kind != "":
			what = string(e.Kind)
		case e.Behind != 0:
			what = fmt.Sprintf("follows %d", e.Behind)
		}
		state := string(e.State)
		if e.NextTry != nil {
			state += fmt.Sprintf(", %d tries, next %s", e.Tries, e.NextTry.Format(time.TimeOnly))
		} else if e.ResolvedBy != "" {
			state += " by " + e.ResolvedBy
		}
		rows = append(rows, []string{fmt.Sprint(e.ID), e.Operation, rowName(e.Table, e.Key), what, e.GTID, e.ParkedAt.Format(time.DateTime), state})
	}
	p.Rows([]string{"id", "operation", "row", "cause", "gtid", "parked (UTC)", "state"}, rows)
}

// rowName is a table, and what names the row in it.
func rowName(table, key string) string { return strings.TrimSpace(table + " " + key) }

// wholeName refuses what is no schema.table, which nothing would be found under.
func wholeName(table string) error {
	if table != "" && !strings.Contains(table, ".") {
		return cli.Usage("--table %q: write it as schema.table", table)
	}
	return nil
}

func exceptionID(words []string) (int64, error) {
	id, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil || id <= 0 {
		return 0, cli.Usage("%q is not the number of an exception", words[0])
	}
	return id, nil
}

func (a *app) exceptionsShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a parked change beside the row that the target has now",
		Long: `Shows why a change is parked, its images, and the target's present row where it
would go, column by column. ≠ marks what keeps it from being applied: under the
policies exception and halt the target's row must be as the source had it before.
Where another row is in the way, that is shown, and = marks what both have. To find
that out it tries the change, and undoes it.`,
		Example: "  twinspan exceptions show 17\n  twinspan exceptions show 17 -o json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			id, err := exceptionID(words)
			if err != nil {
				return err
			}
			at, err := a.parkedAt(c.Context())
			if err != nil {
				return err
			}
			defer at.db.Close()
			d, err := at.retrier.Show(c.Context(), id)
			if err != nil {
				return exceptionsError(err)
			}
			return p.Print(d, func() error { printException(p, d); return nil })
		},
	}
}

func printException(p *cli.Printer, d *exceptions.Detail) {
	p.Printf("exception %d, %s: %s of %s\n", d.ID, d.State, d.Operation, rowName(d.Table, d.Key))
	p.Printf("  cause   %s", d.Cause)
	if d.Kind != "" {
		p.Printf(", %s", d.Kind)
	}
	if d.Behind != 0 {
		p.Printf(" %d", d.Behind)
	}
	if d.Detail != "" {
		p.Printf(": %s", cli.OneLine(d.Detail))
	}
	p.Printf("\n  source  GTID %s, place %d/%d in the log", d.GTID, d.Place.Offset, d.Place.Index)
	if d.CommitTime != nil {
		p.Printf(", committed %s", d.CommitTime.Format(time.RFC3339))
	}
	p.Printf("\n")
	if len(d.Chain) > 1 {
		var ids []string
		for _, id := range d.Chain[:min(len(d.Chain), 20)] {
			ids = append(ids, fmt.Sprint(id))
		}
		more := ""
		if n := len(d.Chain) - len(ids); n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		p.Printf("  chain   %s%s: applied together, in the order of the log\n", strings.Join(ids, ", "), more)
	}
	if d.Tries > 0 {
		p.Printf("  tried   %d times", d.Tries)
		if d.LastError != "" {
			p.Printf(": %s", cli.OneLine(d.LastError))
		}
		p.Printf("\n")
	}
	if d.ResolvedBy != "" && d.ResolvedAt != nil {
		p.Printf("  %-7s %s by %s", d.State, d.ResolvedAt.Format(time.RFC3339), d.ResolvedBy)
		if d.Reason != "" {
			p.Printf(": %s", cli.OneLine(d.Reason))
		}
		p.Printf("\n")
	}
	switch {
	case d.Trouble != "":
		p.Printf("  now     %s\n", cli.OneLine(d.Trouble))
	case d.Now != "":
		p.Printf("  now     %s\n", d.Now)
	case d.State == exceptions.Open && d.Behind == 0:
		p.Printf("  now     %s\n", p.Paint("green", "nothing is in its way: retry applies it"))
	}
	p.Printf("\n")
	printImages(p, d.Now, d.Before, d.After, d.Present)
}

func (a *app) exceptionsRetry() *cobra.Command {
	var table string
	var all, dry, force bool
	c := &cobra.Command{
		Use:   "retry [ID]",
		Short: "Apply a parked change and those that follow it, in order, in one transaction",
		Long: `Applies the chain that a change belongs to: all parked changes that hang together by
their keys, in the order of the log, in one transaction of the target, or none of it.
It works beside a running consumer, and without one.

A change whose table has the policy exception or halt is applied only if the target's
row is as the source had it before. --source-wins applies it over whatever is there;
a row that holds a secondary unique key is not touched by that either.

Exit code 0 when all chains were applied, 3 when one still can't be.`,
		Example: `  twinspan exceptions retry 17 --dry-run
  twinspan exceptions retry 17
  twinspan exceptions retry --table shop.stock
  twinspan exceptions retry --all -o json`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := wholeName(table); err != nil {
				return err
			}
			chosen := len(words)
			if table != "" {
				chosen++
			}
			if all {
				chosen++
			}
			if chosen != 1 {
				return cli.Usage("name one: the number of an exception, --table, or --all")
			}
			at, err := a.parkedAt(c.Context())
			if err != nil {
				return err
			}
			defer at.db.Close()
			at.retrier.DryRun, at.retrier.Force = dry, force
			ids, err := at.chosen(c.Context(), words, table)
			if err != nil {
				return err
			}
			return a.retryChains(c.Context(), p, at, ids, dry)
		},
	}
	c.Flags().StringVar(&table, "table", "", "all chains with a change of this table, schema.table")
	c.Flags().BoolVar(&all, "all", false, "all chains")
	c.Flags().BoolVar(&dry, "dry-run", false, "undo it in the end, and say what would have happened")
	c.Flags().BoolVar(&force, "source-wins", false, "apply over whatever the target's row is")
	return c
}

// chosen are the first exceptions of the chains that were asked for.
func (at *parkedAt) chosen(ctx context.Context, words []string, table string) ([]int64, error) {
	if len(words) == 1 {
		id, err := exceptionID(words)
		return []int64{id}, err
	}
	chains, err := at.retrier.Store.Chains(ctx, at.db)
	if err != nil {
		return nil, exceptionsError(err)
	}
	wanted := map[int64]bool{}
	if table != "" {
		of, err := at.retrier.Store.List(ctx, at.db, exceptions.Filter{Table: table})
		if err != nil {
			return nil, exceptionsError(err)
		}
		for _, e := range of {
			wanted[e.ID] = true
		}
	}
	var out []int64
	for _, c := range chains {
		for _, id := range c {
			if table == "" || wanted[id] {
				out = append(out, c[0])
				break
			}
		}
	}
	return out, nil
}

func (a *app) retryChains(ctx context.Context, p *cli.Printer, at *parkedAt, ids []int64, dry bool) error {
	outcomes := []*exceptions.Outcome{}
	failed := 0
	for _, id := range ids {
		o, err := at.retrier.Retry(ctx, id)
		if errors.Is(err, exceptions.ErrNotFound) && len(ids) > 1 {
			continue // done by itself meanwhile
		}
		if err != nil {
			return exceptionsError(err)
		}
		if !o.Applied {
			failed++
		}
		outcomes = append(outcomes, o)
	}
	err := p.Print(outcomes, func() error {
		for _, o := range outcomes {
			printOutcome(p, o, dry)
		}
		if len(outcomes) == 0 {
			p.Printf("nothing is parked\n")
		}
		return nil
	})
	if err == nil && failed > 0 {
		return cli.Exit(cli.ExitDifferences)
	}
	return err
}

func printOutcome(p *cli.Printer, o *exceptions.Outcome, dry bool) {
	var ids []string
	for _, e := range o.Chain {
		ids = append(ids, fmt.Sprint(e.ID))
	}
	what := strings.Join(ids, ", ")
	if len(ids) > 12 {
		what = fmt.Sprintf("%s … %s (%d changes)", strings.Join(ids[:6], ", "), ids[len(ids)-1], len(ids))
	}
	switch {
	case !o.Applied:
		p.Printf("%s: %s, exception %d: %s\n", what, p.Paint("red", "still can't be applied"), o.Failed, cli.OneLine(o.Error))
	case dry:
		p.Printf("%s: %s; nothing was changed\n", what, p.Paint("green", "can be applied"))
	default:
		p.Printf("%s: %s\n", what, p.Paint("green", "applied"))
	}
	if o.Dropped > 0 {
		p.Printf("  %d of them were dropped by the policy target-wins\n", o.Dropped)
	}
}

func (a *app) exceptionsSkip() *cobra.Command {
	var agreed consent
	var whole bool
	c := &cobra.Command{
		Use:   "skip ID",
		Short: "Give a parked change up; it stays in the history, with who, when and why",
		Long: `The change is never applied: afterwards the target differs from the source, unless
somebody has brought its row in line by hand. Changes that follow it stay parked, and
are tried again by themselves; --chain gives all of them up.`,
		Example: `  twinspan exceptions skip 17 --reason "row was corrected by hand, ticket 4711"
  twinspan exceptions skip 17 --chain --reason "table is re-seeded tonight" --yes`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := agreed.check(); err != nil {
				return err
			}
			id, err := exceptionID(words)
			if err != nil {
				return err
			}
			at, err := a.parkedAt(c.Context())
			if err != nil {
				return err
			}
			defer at.db.Close()
			at.retrier.DryRun = !agreed.yes
			gone, err := at.retrier.Skip(c.Context(), id, whole, agreed.reason)
			if err != nil {
				return exceptionsError(err)
			}
			r := struct {
				Skipped []exceptions.Exception `json:"skipped"`
				Changed bool                   `json:"changed"`
			}{gone, agreed.yes}
			return p.Print(r, func() error {
				printExceptions(p, gone)
				if agreed.yes {
					p.Printf("\n%s skipped: %s\n", p.Paint("green", fmt.Sprint(len(gone))), agreed.reason)
				} else {
					agreed.again(p)
				}
				return nil
			})
		},
	}
	agreed.flags(c)
	c.Flags().Lookup("reason").Usage = "why; it is kept with the change, and who asked"
	c.Flags().BoolVar(&whole, "chain", false, "all changes that hang together with it by their keys")
	return c
}
