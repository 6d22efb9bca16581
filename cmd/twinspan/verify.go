package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/internal/verify"
	"github.com/twinspan/twinspan/schema"
)

func (a *app) verifyCommand() *cobra.Command {
	var cfg verify.Config
	var tables, exclude []string
	var still bool
	var patience time.Duration
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare source and target row by row, while both are in use",
		Long: `Compares every row of every table in the bytes that the servers store. A row that
differs at first is looked at again after the pipeline has caught up with the
source as it was then; only what differs while the source's row stands still
counts. Tables without a usable key are compared as multisets of rows.

Filters and routes of the configuration are honoured: what they leave out is not
compared, what they rename is compared under its new name.

It needs the two servers, not the log: the target's own record says how far it is.
Exit code 0 when all is equal, 3 when something differs or never stood still long
enough, 5 when a server can't be reached or the target does not catch up.`,
		Example: `  twinspan verify -c twinspan.yaml
  twinspan verify --table 'shop.*' --exclude shop.audit -o json
  twinspan verify --still          nothing is written and nothing replicated now`,
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
			if cfg.Include, err = chooser(tables, exclude); err != nil {
				return err
			}
			closeAll, err := openSides(c.Context(), l.Config, &cfg)
			if err != nil {
				return err
			}
			defer closeAll()
			if !still {
				cfg.Settle = verify.WaitForProgress(cfg.Source, cfg.Target, l.Stream, patience)
			}
			if cfg.Names, err = namesOf(l.Config); err != nil {
				return err
			}
			bar := cli.NewBar(a.err)
			cfg.Progress = func(v verify.Progress) {
				what := fmt.Sprintf("%d of %d tables, %d rows", v.TablesDone, v.Tables, v.RowsDone)
				if v.Differences > 0 {
					what += fmt.Sprintf(", %d differences", v.Differences)
				}
				bar.Show(v.RowsDone, v.RowsEstimated, what+" "+v.Table)
			}
			report, err := verify.Run(c.Context(), cfg)
			bar.Clear()
			if err != nil {
				return verifyError(err)
			}
			if err := p.Print(report, func() error { printComparison(p, report); return nil }); err != nil {
				return err
			}
			if !report.Equal() {
				return cli.Exit(cli.ExitDifferences)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&tables, "table", nil, "compare only these tables, schema.table; * stands for anything (repeatable)")
	f.StringArrayVar(&exclude, "exclude", nil, "leave these tables out (repeatable)")
	f.BoolVar(&still, "still", false, "nothing is in motion: do not wait for the target, and do not look again")
	f.DurationVar(&patience, "patience", 30*time.Second, "give up when the target has not moved for this long")
	f.IntVar(&cfg.ChunkRows, "chunk-rows", 2000, "rows read at once")
	f.IntVar(&cfg.Workers, "workers", 2, "tables compared at once")
	f.IntVar(&cfg.Attempts, "attempts", 8, "how often a differing row is looked at again")
	f.IntVar(&cfg.KeysMax, "keys", 20, "differing rows listed for each table")
	return c
}

// chooser makes the filter of the tables that are compared.
func chooser(tables, exclude []string) (func(schema.Name) bool, error) {
	for _, t := range append(append([]string{}, tables...), exclude...) {
		if _, err := path.Match(t, ""); err != nil || !strings.Contains(t, ".") {
			return nil, cli.Usage("table %q: write it as schema.table; * stands for anything", t)
		}
	}
	if len(tables)+len(exclude) == 0 {
		return nil, nil
	}
	match := func(patterns []string, n schema.Name) bool {
		for _, t := range patterns {
			ok, err := path.Match(strings.ReplaceAll(t, "/", "\x00"), strings.ReplaceAll(n.String(), "/", "\x00"))
			if err == nil && ok {
				return true
			}
		}
		return false
	}
	return func(n schema.Name) bool {
		return (len(tables) == 0 || match(tables, n)) && !match(exclude, n)
	}, nil
}

// openSides connects to both servers.
func openSides(ctx context.Context, c *config.Config, cfg *verify.Config) (func(), error) {
	var open []verify.Side
	closeAll := func() {
		for _, s := range open {
			s.DB.Close()
		}
	}
	for _, s := range []struct {
		name     string
		endpoint server.Endpoint
		into     *verify.Side
	}{{"source", c.Source, &cfg.Source}, {"target", c.Target, &cfg.Target}} {
		if s.endpoint.Address == "" {
			closeAll()
			return nil, cli.Usage("the configuration names no %s: verify needs both servers", s.name)
		}
		side, err := verify.Open(ctx, s.endpoint)
		if err != nil {
			closeAll()
			return nil, cli.Fail(cli.ExitUnreachable, fmt.Errorf("%s: %w", s.name, err), "twinspan doctor "+s.name+" looks closer")
		}
		open = append(open, side)
		*s.into = side
	}
	return closeAll, nil
}

func verifyError(err error) error {
	switch {
	case errors.Is(err, verify.ErrBehind):
		return cli.Fail(cli.ExitUnreachable, err, "twinspan status tells which part stands still")
	case server.ErrorNumber(err) == 1142, server.ErrorNumber(err) == 1044:
		return cli.Fail(cli.ExitError, err, "the account needs SELECT on the tables: twinspan doctor --fix-sql")
	case server.ErrorNumber(err) == 1146 && strings.Contains(err.Error(), "twinspan.progress"):
		return cli.Fail(cli.ExitError, err, "no applier has worked on this target yet; --still compares without waiting for one")
	}
	return err
}

func printComparison(p *cli.Printer, r verify.Report) {
	var rows [][]string
	for _, t := range r.Tables {
		state := p.Paint("green", "equal")
		if t.Differences > 0 {
			state = p.Paint("red", fmt.Sprintf("%d differ", t.Differences))
		} else if t.Unsettled > 0 {
			state = p.Paint("yellow", fmt.Sprintf("%d never stood still", t.Unsettled))
		}
		if t.Method == "none" {
			state = p.Paint("yellow", "not compared: "+t.Note)
		}
		rows = append(rows, []string{t.Table, t.Method, fmt.Sprint(t.Rows), state})
	}
	p.Rows([]string{"table", "by", "rows", "result"}, rows)
	for _, t := range r.Tables {
		for _, d := range t.Listed {
			p.Printf("\n%s %s %s\n", t.Table, d.Kind, strings.TrimSpace(d.Key+" "+d.Detail))
			for _, c := range d.Columns {
				p.Printf("  %s: source %s, target %s\n", c.Name, c.Source, c.Target)
			}
		}
	}
	for _, d := range r.Objects {
		p.Printf("\n%s %s\n", d.Kind, strings.TrimSpace(d.Key+" "+d.Detail))
	}
	p.Printf("\n%d tables, %d rows, %d differences, %d unsettled, %.1f s\n", len(r.Tables), r.Rows, r.Differences, r.Unsettled, r.Seconds)
}
