package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
)

// logDegrade makes degrade, or its end, restore.
func (a *app) logDegrade(off bool) *cobra.Command {
	var agreed consent
	var city string
	c := &cobra.Command{
		Use:   "degrade STREAM --without CITY",
		Short: "Let a stream go on without a city: what is confirmed then is not protected",
		Long: `The stream's writer opens its next segment with a rule that asks nothing of the
city. From then on entries are confirmed that the loss of this city would take with
it; each says so, the window is recorded, shown and alarmed, and ends when the city
is back and has been given its copies. Afterwards log restore asks for the full rule
again. Needs a policy of degrade-manual or degrade-after.`,
		Example: "  twinspan log degrade payments --without b\n  twinspan log degrade payments --without b --yes --reason \"cable cut, ticket 4711\"",
		Args:    args(cobra.ExactArgs(1)),
	}
	if off {
		c.Use, c.Short = "restore STREAM --without CITY", "Ask for a stream's full rule again, after degrade"
		c.Long = `The stream's writer opens its next segment with the full rule as soon as enough
nodes of the city answer.`
		c.Example = "  twinspan log restore payments --without b\n  twinspan log restore payments --without b --yes --reason \"cable mended\""
	}
	c.RunE = func(c *cobra.Command, names []string) error {
		p, err := a.printer()
		if err != nil {
			return err
		}
		if err := agreed.check(); err != nil {
			return err
		}
		if city == "" {
			return cli.Fail(cli.ExitUsage, errors.New("--without is missing"), "name the city to do without")
		}
		_, client, err := a.operate()
		if err != nil {
			return err
		}
		w, err := client.Without(c.Context(), names[0], city, off)
		if err != nil {
			return opsError(err)
		}
		r := struct {
			*ops.Weaker
			Off     bool `json:"off"`
			Changed bool `json:"changed"`
		}{w, off, false}
		if w.Refuse != "" {
			return cli.Fail(cli.ExitUnsafe, fmt.Errorf("stream %s, city %s: %s", w.Stream, city, w.Refuse), "nothing was changed")
		}
		if agreed.yes {
			if err := client.Degrade(c.Context(), names[0], city, off, operator(), agreed.reason); err != nil {
				return opsError(err)
			}
			r.Changed = true
		}
		return p.Print(r, func() error {
			printWeaker(p, w, off)
			if r.Changed {
				p.Printf("\nDone. twinspan log status shows when the writer has followed.\n")
			} else {
				agreed.again(p)
			}
			return nil
		})
	}
	agreed.flags(c)
	c.Flags().StringVar(&city, "without", "", "the city")
	return c
}

func printWeaker(p *cli.Printer, w *ops.Weaker, off bool) {
	p.Printf("stream %s, policy %s\n", w.Stream, w.Loss)
	for _, m := range w.Members {
		state := "answers"
		if !m.Answers {
			state = p.Paint("red", "does not answer")
		}
		p.Printf("  node  %s (%s) %s\n", m.Node, m.City, state)
	}
	from, to := w.Rule, w.Without
	if off {
		from, to = to, from
	}
	p.Printf("  rule  %s → %s\n", from, to)
	switch {
	case off && w.Waiting:
		p.Printf("  %s the full rule can't be met now: the stream would wait\n", p.Paint("yellow", "!"))
	case off:
		p.Printf("  the full rule can be met\n")
	default:
		if !w.Waiting {
			p.Printf("  %s the full rule can be met now: there is no need for this\n", p.Paint("yellow", "!"))
		}
		if !w.WouldHold {
			p.Printf("  %s not even the weaker rule can be met by the nodes that answer: the stream would still wait\n", p.Paint("yellow", "!"))
		}
		if len(w.Alive) > 0 {
			p.Printf("  %s nodes of %s answer: %v\n", p.Paint("yellow", "!"), w.City, w.Alive)
		}
		p.Printf("  %s\n", p.Paint("red", "what is confirmed then is lost if this side is lost before "+w.City+" has its copies"))
	}
}
