package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/applier/conflicts"
	"github.com/twinspan/twinspan/applier/exceptions"
	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/server"
)

// views are the documents of the consumer's part, served by the admin listener.
func (p *process) views() map[string]func(context.Context) (any, error) {
	return map[string]func(context.Context) (any, error){
		"/conflicts": func(context.Context) (any, error) {
			a := p.applier.Load()
			if a == nil {
				return nil, nil
			}
			return a.ConflictReport(), nil
		},
		"/exceptions": func(ctx context.Context) (any, error) {
			if p.applier.Load() == nil {
				return nil, nil
			}
			db, err := server.Open(p.cfg.Target, doctorOptions)
			if err != nil {
				return nil, err
			}
			defer db.Close()
			there, err := exceptions.Exists(ctx, db)
			if err != nil || !there {
				return []exceptions.Exception{}, err
			}
			s := &exceptions.Store{Stream: p.cfg.Stream}
			return s.List(ctx, db, exceptions.Filter{Limit: 1000})
		},
	}
}

func (a *app) conflictsCommand() *cobra.Command {
	var address, table, kind string
	c := &cobra.Command{
		Use:   "conflicts",
		Short: "Show double writes: changes that found the target other than they were made on",
		Long: `Asks the running consumer which conflicts it met since it was started: how many of
each kind, by table and what was done, and the newest of them with the source's two
images and the row that was on the target.

Kinds: insert-exists, update-missing, update-differs, delete-missing, delete-differs,
unique-holder (another row holds a secondary unique key). Actions: what
apply.conflicts says, or "already" where the target's row was as the change leaves it.`,
		Example: `  twinspan conflicts -c twinspan.yaml
  twinspan conflicts --table shop.stock --kind update-differs
  twinspan conflicts -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := wholeName(table); err != nil {
				return err
			}
			if kind != "" && !slices.Contains(target.Kinds, target.Kind(kind)) {
				return cli.Usage("--kind %q: there are %v", kind, target.Kinds)
			}
			address, err := a.adminAddress(address)
			if err != nil {
				return err
			}
			r := &conflicts.Report{}
			if err := askView(c.Context(), address, "/conflicts", r); err != nil {
				return err
			}
			r.Counts = keep(r.Counts, func(x conflicts.Count) bool {
				return (table == "" || x.Table == table) && (kind == "" || string(x.Kind) == kind)
			})
			r.Newest = keep(r.Newest, func(x conflicts.Record) bool {
				return (table == "" || x.Table == table) && (kind == "" || string(x.Kind) == kind)
			})
			return p.Print(r, func() error { printConflicts(p, r); return nil })
		},
	}
	c.Flags().StringVar(&address, "admin", "", "the consumer's admin listener, host:port")
	c.Flags().StringVar(&table, "table", "", "only this table, schema.table")
	c.Flags().StringVar(&kind, "kind", "", "only this kind")
	return c
}

func keep[T any](all []T, wanted func(T) bool) []T {
	out := []T{}
	for _, x := range all {
		if wanted(x) {
			out = append(out, x)
		}
	}
	return out
}

// askView gets a document of the admin listener.
func askView(ctx context.Context, address, path string, into any) error {
	hint := "is the consumer running, and is this its admin.listen?"
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return cli.Usage("%q is not an address: write host:port", address)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return cli.Fail(cli.ExitUnreachable, err, hint)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, statusBytesMax+1))
	switch {
	case err != nil:
	case res.StatusCode == http.StatusNotFound:
		return cli.Fail(cli.ExitUnreachable, fmt.Errorf("%s has no consumer, or it has not started", address), "twinspan status shows its roles, and why one halted")
	case res.StatusCode != http.StatusOK:
		err = errors.New(res.Status + " " + cli.OneLine(string(b[:min(len(b), 200)])))
	case len(b) > statusBytesMax:
		err = errors.New("the answer is too long")
	default:
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return cli.Fail(cli.ExitUnreachable, fmt.Errorf("%s of %s: %w", path[1:], address, err), hint)
	}
	return nil
}

func printConflicts(p *cli.Printer, r *conflicts.Report) {
	if len(r.Counts) == 0 {
		p.Printf("no conflicts since the consumer was started\n")
		return
	}
	var rows [][]string
	for _, c := range r.Counts {
		rows = append(rows, []string{fmt.Sprint(c.Count), string(c.Kind), c.Table, c.Action})
	}
	p.Rows([]string{"count", "kind", "table", "action"}, rows)
	for i, x := range r.Newest {
		if i == 10 {
			p.Printf("\n… and %d more: -o json has them\n", len(r.Newest)-i)
			break
		}
		p.Printf("\n%s %s %s of %s, %s", x.At.Format(time.RFC3339), p.Paint("bold", string(x.Kind)), x.Operation, rowName(x.Table, x.Key), x.Action)
		if x.Exception != 0 {
			p.Printf(" %d", x.Exception)
		}
		if x.GTID != "" {
			p.Printf(", GTID %s", x.GTID)
		}
		p.Printf("\n")
		if x.Before == nil && x.After == nil {
			p.Printf("  %d of them, too many to look at each\n", x.Count)
			continue
		}
		printImages(p, x.Kind, x.Before, x.After, x.Present)
	}
}

// printImages writes the source's images and the target's row side by side. That of
// some kinds is another row than the change means: what is in its way.
func printImages(p *cli.Printer, k target.Kind, before, after, present conflicts.Image) {
	var names []string
	columns := map[string][3]string{}
	for i, image := range []conflicts.Image{before, after, present} {
		for _, cell := range image {
			c, known := columns[cell.Column]
			if !known {
				names = append(names, cell.Column)
			}
			c[i] = "NULL"
			if cell.Value != nil {
				c[i] = *cell.Value
			}
			columns[cell.Column] = c
		}
	}
	absent := func(image conflicts.Image, s string) string {
		if image == nil {
			return "-"
		}
		return s
	}
	there, other := "target has", k == target.InsertExists || k == target.UniqueHolder
	if other {
		there = "in the way"
	}
	var rows [][]string
	for _, n := range names {
		c := columns[n]
		mark := ""
		switch {
		case present == nil:
		case other && c[1] == c[2]:
			mark = "="
		case !other && before != nil && c[0] != c[2]:
			mark = "≠"
		}
		rows = append(rows, []string{"  " + n, absent(before, c[0]), absent(after, c[1]), absent(present, c[2]), mark})
	}
	p.Rows([]string{"  column", "source before", "source after", there, ""}, rows)
}
