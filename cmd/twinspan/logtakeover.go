package main

import (
	"errors"
	"fmt"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/log/node"
)

func (a *app) logTakeover() *cobra.Command {
	var agreed consent
	var fenced []string
	c := &cobra.Command{
		Use:   "takeover --attest-fenced CITY",
		Short: "Go on with the survivors when the metadata's majority died with its city",
		Long: `The last resort, when a city is gone that a majority of the nodes was in: the
survivors begin a new generation of the cluster without it, from the best of what
they know. You attest that the city's nodes are off, or cut off from everybody,
and stay so: they would otherwise go on by themselves. When they come back they
learn of the new generation, stand aside, and export what only they had; log nodes
rejoin takes them in again.

A stream of which the lost nodes may have confirmed entries by themselves, because its
policy lets a city be done without or its rule does not ask for a survivor, goes on
behind a gap: no other entry will ever bear one of those offsets. A consumer that
reaches the gap stops until its group's cursor is moved behind it (cursor seek).

Without --yes it says what would be kept, and where entries that were confirmed may
be lost. It is refused while the metadata has a leader, and while a node of the city
answers.`,
		Example: "  twinspan log takeover --attest-fenced a\n  twinspan log takeover --attest-fenced a --yes --reason \"city a burnt down\"",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := agreed.check(); err != nil {
				return err
			}
			if len(fenced) == 0 {
				return cli.Fail(cli.ExitUsage, errors.New("--attest-fenced is missing"), "name the city that is gone; you vouch for it that its nodes are off or cut off")
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			t, err := client.Takeover(c.Context(), fenced, operator(), agreed.reason, !agreed.yes)
			if err != nil {
				return opsError(err)
			}
			return p.Print(t, func() error {
				printTakeover(p, t)
				if !agreed.yes {
					agreed.again(p)
				}
				return nil
			})
		},
	}
	agreed.flags(c)
	c.Flags().StringArrayVar(&fenced, "attest-fenced", nil, "a city whose nodes are off or cut off, for which you vouch (repeatable)")
	return c
}

func printTakeover(p *cli.Printer, t *node.Takeover) {
	verb := "begins"
	if t.Preview {
		verb = "would begin"
	}
	p.Printf("generation %d %s with %s; given up: %s\n", t.Generation, verb, strings.Join(t.Survivors, ", "), strings.Join(t.Lost, ", "))
	var rows [][]string
	for _, s := range t.Streams {
		state := p.Paint("green", "all that was confirmed is kept")
		if len(s.Gaps) > 0 {
			state = p.Paint("red", "nobody who is left has some of what was confirmed")
		}
		if s.Doubt {
			state = p.Paint("red", "confirmed entries behind it MAY BE LOST: only the given up nodes know")
		}
		if s.Again {
			state = p.Paint("yellow", "an earlier takeover passed over offsets already, and nothing is there since: it passes over as many again")
		}
		for _, g := range s.Gaps {
			state += fmt.Sprintf("; passed over: %d to %d", g.From, g.To)
		}
		rows = append(rows, []string{s.Stream, fmt.Sprint(s.Segments), fmt.Sprint(s.Last), state})
	}
	p.Rows([]string{"stream", "segments", "kept to", ""}, rows)
}

// operator is who changes something, for the record.
func operator() string {
	name := "?"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + hostName()
}
