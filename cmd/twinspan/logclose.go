package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log/client"
)

func (a *app) segmentsClose() *cobra.Command {
	var agreed consent
	var force bool
	var giveUp []string
	c := &cobra.Command{
		Use:   "close STREAM --force",
		Short: "End an open segment of which too many members lost their disks",
		Long: `The last resort, when no writer can open a stream because the disks of so many
members of its open segment are gone that the others can't tell what was confirmed.
Give up first those whose disks are gone (log nodes forget); all others must answer.

The segment ends at the newest entry that any member has who is left. What was
confirmed behind that, if anything was, is lost; so the offsets behind are passed
over, and recorded as a gap: no other entry will ever bear one of them. The owner is
fenced, and the next writer goes on behind the gap. A reader that reaches the gap
stops with an error until its group's cursor is moved behind it (cursor seek). A
producer ships again, from its server's binlog, whatever the log does not hold.

Without --yes it says what every member has, what is certain, and what may be lost.`,
		Example: "  twinspan log segments close payments --force\n  twinspan log segments close payments --force --yes --reason \"the disks of a1 and b2 are gone\"",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := agreed.check(); err != nil {
				return err
			}
			if !force {
				return cli.Fail(cli.ExitUsage, errors.New("--force is missing"), "a segment is ended by its writer, or by the next one; this is for when neither can")
			}
			_, o, err := a.operate()
			if err != nil {
				return err
			}
			preview, err := o.Closing(c.Context(), names[0], giveUp)
			if err != nil {
				return opsError(err)
			}
			result := struct {
				Preview *ops.Closing   `json:"preview"`
				Closed  *client.Forced `json:"closed,omitempty"`
			}{Preview: preview}
			if agreed.yes && preview.Refuse == "" {
				_, eng, err := a.reach()
				if err != nil {
					return err
				}
				defer eng.Close() // it only asked
				result.Closed, err = eng.(*client.Client).ForceClose(c.Context(), names[0], client.Force{By: operator(), Reason: agreed.reason, GiveUp: giveUp})
				if err != nil {
					return opsError(err)
				}
			}
			if err := p.Print(result, func() error {
				printClosing(p, preview)
				switch f := result.Closed; {
				case f != nil && f.Lost:
					p.Printf("\nDone: segment %d ends at %d, entries %d to %d are given up; the next one is %d.\n", f.Segment, f.Last, f.Last+1, f.LostTo, f.LostTo+1)
				case f != nil:
					p.Printf("\nDone: segment %d ends at %d, without a loss.\n", f.Segment, f.Last)
				case preview.Refuse == "":
					agreed.again(p)
				}
				return nil
			}); err != nil {
				return err
			}
			if preview.Refuse != "" {
				return cli.Fail(cli.ExitUnsafe, errors.New(preview.Refuse), "nothing was changed")
			}
			return nil
		},
	}
	agreed.flags(c)
	c.Flags().BoolVar(&force, "force", false, "you know that entries which were confirmed may be lost by it")
	c.Flags().StringArrayVar(&giveUp, "give-up", nil, "a node that answers, and whose copy of the segment is damaged (repeatable)")
	return c
}

func printClosing(p *cli.Printer, v *ops.Closing) {
	p.Printf("%s  segment %d from %d, epoch %d (%s), rule %s\n", p.Paint("bold", v.Stream), v.Segment, v.First, v.Epoch, owner(v.Owner), v.Rule)
	for _, m := range v.Members {
		state := fmt.Sprintf("has up to %d, knows %d to be confirmed", m.Last, m.LAC)
		switch {
		case m.Gone:
			state = p.Paint("red", "given up: its directory was forgotten")
		case !m.Answers:
			state = p.Paint("red", "does not answer") + ": " + cli.OneLine(m.Error)
		case m.Damaged:
			state = p.Paint("red", "damaged") + ", readable up to " + fmt.Sprint(m.Last)
		}
		if m.GivenUp && !m.Gone {
			state += ", given up"
		}
		p.Printf("  member  %s (%s) %s\n", m.Node, m.City, state)
	}
	if v.Refuse != "" {
		return
	}
	p.Printf("  kept    %d to %d: all that any of them has\n", v.First, v.Last)
	if v.Confirmed > v.Last {
		p.Printf("  %s\n", p.Paint("red", fmt.Sprintf("lost    %d to %d for sure: they were confirmed, and nobody has them", v.Last+1, v.Confirmed)))
	}
	p.Printf("  %s\n", p.Paint("red", fmt.Sprintf("doubt   whether anything behind %d was confirmed: nobody who is left would know", max(v.Last, v.Confirmed))))
	p.Printf("  gap     %d to %d: passed over, never used again; readers get an error there\n", v.LostFrom, v.LostTo)
	var groups []string
	for _, x := range v.Cursors {
		at := fmt.Sprintf("%s at %d", x.Group, x.Offset)
		if x.Offset > v.Last {
			at += p.Paint("red", fmt.Sprintf(" (took over %d entries that are lost)", x.Offset-v.Last))
		}
		groups = append(groups, at)
	}
	if len(groups) > 0 {
		p.Printf("  readers %s\n", strings.Join(groups, ", "))
	}
}
