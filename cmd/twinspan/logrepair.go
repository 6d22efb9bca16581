package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log/node"
)

func (a *app) logRepair() *cobra.Command {
	c := group("repair", "Look at the repair of closed segments, or have it done now",
		"  twinspan log repair status\n  twinspan log repair now", a.repairStatus(), a.repairNow())
	c.Long = `One node, the keeper, looks after closed segments: it has copied what a node should
hold and does not, at most node.repair_rate bytes per second, without lowering
anybody's protection. It works by itself; now makes it look at once.`
	return c
}

func (a *app) repairStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say what repair has still to copy",
		Long: `Exit code 0 when nothing is missing, 3 when copies are missing, 5 when nobody
answers.`,
		Example: "  twinspan log repair status\n  twinspan log repair status -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			r, err := client.RepairStatus(c.Context())
			if err != nil {
				return opsError(err)
			}
			if err := p.Print(r, func() error { printRepair(p, r); return nil }); err != nil {
				return err
			}
			if len(r.Missing) > 0 || r.Short > 0 {
				return cli.Exit(cli.ExitDifferences)
			}
			return nil
		},
	}
}

func printRepair(p *cli.Printer, r *ops.RepairStatus) {
	keeper := r.Keeper
	if keeper == "" {
		keeper = "nobody"
	}
	p.Printf("keeper %s; copied since its start: %d replicas, %s\n", keeper, r.Done, size(r.Copied))
	if r.Problem != "" {
		p.Printf("%s %s\n", p.Paint("red", "!"), cli.OneLine(r.Problem))
	}
	printMissing(p, r.Missing)
	if r.Short > 0 {
		p.Printf("%s %s copies that their stream's rule asks for\n", p.Paint("red", "!"), count(int64(r.Short), "closed segment lacks", "closed segments lack"))
	}
}

func printMissing(p *cli.Printer, missing []node.MissingCopy) {
	if len(missing) == 0 {
		p.Printf("nothing is missing\n")
		return
	}
	var rows [][]string
	for _, m := range missing {
		state := ""
		if m.Unprotected {
			state = p.Paint("red", "unprotected")
		}
		rows = append(rows, []string{m.Stream, fmt.Sprint(m.Segment), m.Node, state, cli.OneLine(m.Problem)})
	}
	p.Rows([]string{"stream", "segment", "missing on", "", "problem"}, rows)
}

func (a *app) repairNow() *cobra.Command {
	return &cobra.Command{
		Use:     "now",
		Short:   "Have the keeper look at once, and wait for it",
		Long:    "Runs one round of repair at the keeper. Exit code 3 when copies are missing after it.",
		Example: "  twinspan log repair now\n  twinspan log repair now -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			r, at, err := client.Repair(c.Context())
			if err != nil {
				return opsError(err)
			}
			if err := p.Print(r, func() error {
				p.Printf("the keeper at %s copied %d replicas, %s\n", at, r.Copied, size(r.Bytes))
				printMissing(p, r.Missing)
				return nil
			}); err != nil {
				return err
			}
			if len(r.Missing) > 0 {
				return cli.Exit(cli.ExitDifferences)
			}
			return nil
		},
	}
}
