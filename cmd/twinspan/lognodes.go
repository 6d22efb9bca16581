package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/node"
)

func (a *app) logNodes() *cobra.Command {
	c := &cobra.Command{
		Use:   "nodes",
		Short: "List the log's nodes: identity, state, what they hold, repair",
		Long: `Asks every registered node. A node's uuid is its directory's: one that was wiped is
another node, and registers under the old name only after the old one was
forgotten.`,
		Example: "  twinspan log nodes\n  twinspan log nodes -o json\n  twinspan log nodes drain a2 --yes --reason \"new disk\"",
		Args:    subcommand,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			o, err := client.Overview(c.Context())
			if err != nil {
				return opsError(err)
			}
			return p.Print(o.Nodes, func() error {
				printNodes(p, o)
				for _, n := range o.Nodes {
					if n.Error != "" {
						p.Printf("\n%s: %s\n", n.Name, cli.OneLine(n.Error))
					}
					if q := n.Quarantine; q != nil {
						p.Printf("\n%s is quarantined: generation %d was begun without it. What only it had, %s, is in %s on its machine.\n",
							n.Name, q.Generation, count(q.Entries, "entry", "entries"), strings.Join(q.Files, ", "))
					}
				}
				return nil
			})
		},
	}
	c.AddCommand(a.nodesDrain(true), a.nodesDrain(false), a.nodesForget(), a.nodesRejoin())
	return c
}

// nodeChange is the result of a verb that changes a node's part.
type nodeChange struct {
	Verb    string       `json:"verb"`
	Node    string       `json:"node"`
	Preview *ops.Leaving `json:"preview,omitempty"`
	Changed bool         `json:"changed"`
}

// changeNode is what the verbs on one node have in common.
func (a *app) changeNode(c *cobra.Command, verb, name string, agreed *consent, show func(*cli.Printer, *ops.Leaving),
	refuse func(*ops.Leaving) error, do func(*ops.Client, *ops.Leaving) error) error {
	p, err := a.printer()
	if err != nil {
		return err
	}
	if err := agreed.check(); err != nil {
		return err
	}
	_, client, err := a.operate()
	if err != nil {
		return err
	}
	l, err := client.Leaving(c.Context(), name)
	if err != nil {
		return opsError(err)
	}
	r := nodeChange{Verb: verb, Node: name, Preview: l}
	if err := refuse(l); err != nil {
		return err
	}
	if agreed.yes {
		if err := do(client, l); err != nil {
			return opsError(err)
		}
		r.Changed = true
	}
	return p.Print(r, func() error {
		show(p, l)
		if !agreed.yes {
			agreed.again(p)
		} else {
			p.Printf("\nDone.\n")
		}
		return nil
	})
}

func printLeaving(p *cli.Printer, l *ops.Leaving) {
	state := "does not answer"
	if l.Reachable {
		state = "answers"
	}
	p.Printf("node %s (%s, %s, %s) %s\n", l.Node.Name, l.Node.City, l.Node.Address, short(l.Node.UUID), state)
	p.Printf("  holds %s", count(int64(l.Holds), "closed segment", "closed segments"))
	if len(l.LastOf) > 0 {
		p.Printf(", %d of them alone: %s", len(l.LastOf), strings.Join(l.LastOf, " "))
	}
	p.Printf("\n")
	if len(l.OpenIn) > 0 {
		p.Printf("  is a member of the open segment of %s\n", strings.Join(l.OpenIn, ", "))
	}
}

func nothingToRefuse(*ops.Leaving) error { return nil }

func (a *app) nodesDrain(on bool) *cobra.Command {
	var agreed consent
	c := &cobra.Command{
		Use:   "drain NODE",
		Short: "Take a node out of new segments, before maintenance",
		Long: `Writers open their next segment without the node, at once where it is a member of
the open one. What it holds it keeps, and serves.`,
		Example: "  twinspan log nodes drain a2\n  twinspan log nodes drain a2 --yes --reason \"new disk\"",
		Args:    args(cobra.ExactArgs(1)),
	}
	if !on {
		c.Use, c.Short = "undrain NODE", "Let a drained node take part again"
		c.Long = "Writers take the node into the next segment they open."
		c.Example = "  twinspan log nodes undrain a2 --yes --reason \"the disk is in\""
	}
	c.RunE = func(c *cobra.Command, names []string) error {
		verb := strings.Fields(c.Use)[0]
		return a.changeNode(c, verb, names[0], &agreed, func(p *cli.Printer, l *ops.Leaving) {
			printLeaving(p, l)
			if on {
				p.Printf("  it would take part in no new segment\n")
			} else {
				p.Printf("  it would take part in new segments again\n")
			}
		}, nothingToRefuse, func(client *ops.Client, _ *ops.Leaving) error {
			return client.Change(c.Context(), meta.Command{Drain: &meta.Drain{Node: names[0], Drained: on}}, operator(), agreed.reason)
		})
	}
	agreed.flags(c)
	return c
}

func (a *app) nodesForget() *cobra.Command {
	var agreed consent
	var force bool
	var accept int64
	var giveUp []string
	c := &cobra.Command{
		Use:   "forget NODE",
		Short: "Give up a node's identity: its disk is gone for good",
		Long: `After this a new, empty directory may come under the node's name (or the name is
taken out of the list), and repair copies to it what the old one held. The old
directory is never let in again. A node that answers is not forgotten.

Nor is one that alone holds all of a closed segment: entries would be lost. The
preview asks the others what they have of it, because one may have its beginning.
When the disk is gone for good, --force with --accept-loss and the number of entries
that the preview says does it: what others have stays, the entries behind it are LOST
then, recorded as a gap with your name and reason. Readers get an error there until
their group's cursor is moved behind it (cursor seek). A node that can't be asked now
may have more: bring it back first, or forgo that with --give-up. --force is also asked
for where the only others that hold a segment do not answer now.`,
		Example: "  twinspan log nodes forget b2\n  twinspan log nodes forget b2 --yes --reason \"disk broken, replaced\"\n  twinspan log nodes forget b2 --force --accept-loss 1200 --yes --reason \"both disks are gone\"",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			return a.changeNode(c, "forget", names[0], &agreed, func(p *cli.Printer, l *ops.Leaving) {
				printLeaving(p, l)
				p.Printf("  its directory would never be let in again\n")
				printLosing(p, l)
			}, func(l *ops.Leaving) error {
				switch {
				case l.Reachable:
					return cli.Fail(cli.ExitUnsafe, fmt.Errorf("node %s answers: its disk is not gone", names[0]), "log nodes drain takes it out of new segments; stop it first if its directory was replaced")
				case !agreed.yes:
					return nil
				case len(unasked(l, giveUp)) > 0:
					silent := unasked(l, giveUp)
					return cli.Fail(cli.ExitUnsafe, fmt.Errorf("node %s alone holds all of %s, and %s, which may have some of it, could not be asked", names[0], strings.Join(l.LastOf, ", "), strings.Join(silent, ", ")),
						"bring it back first; --give-up "+strings.Join(silent, " --give-up ")+" forgoes what only it may have")
				case l.LosingEntries > 0 && (!force || accept != l.LosingEntries):
					return cli.Fail(cli.ExitUnsafe, fmt.Errorf("node %s alone holds all of %s: %s would be lost", names[0], strings.Join(l.LastOf, ", "), count(l.LosingEntries, "entry", "entries")),
						fmt.Sprintf("bring it back; --force --accept-loss %d gives those entries up for good", l.LosingEntries))
				case len(l.Silent) > 0 && !force:
					return cli.Fail(cli.ExitUnsafe, fmt.Errorf("nobody who answers now has %s, but perhaps %s", strings.Join(l.Silent, ", "), names[0]), "bring the others back first, and let repair copy; --force trusts that they come back")
				}
				return nil
			}, func(client *ops.Client, l *ops.Leaving) error {
				return client.Forget(c.Context(), l, operator(), agreed.reason)
			})
		},
	}
	agreed.flags(c)
	c.Flags().BoolVar(&force, "force", false, "even when it alone holds segments, or nobody else who answers does")
	c.Flags().Int64Var(&accept, "accept-loss", 0, "with --force: this `number` of entries, which the preview says, is lost")
	c.Flags().StringArrayVar(&giveUp, "give-up", nil, "a node that can't be asked, and may have some of what only this one holds (repeatable)")
	return c
}

// unasked are the nodes that could not be asked, and are not given up.
func unasked(l *ops.Leaving, giveUp []string) (out []string) {
	for _, x := range l.Unasked {
		if !slices.Contains(giveUp, x.Node) {
			out = append(out, x.Node)
		}
	}
	return out
}

// printLosing says what forgetting a node would lose, or leave to others.
func printLosing(p *cli.Printer, l *ops.Leaving) {
	for i, s := range l.Losing {
		if i == 100 {
			p.Printf("  and %s more\n", count(int64(len(l.Losing)-i), "segment", "segments"))
			break
		}
		id, by := fmt.Sprintf("%s/%d", s.Stream, s.Segment), strings.Join(s.KeptBy, " ")
		if s.Damaged {
			by += ", damaged"
		}
		if s.Kept >= s.Last {
			p.Printf("  %s, entries %d to %d, stays: also on %s\n", id, s.First, s.Last, by)
			continue
		}
		if s.Kept >= s.First {
			p.Printf("  %s, entries %d to %d, stay: also on %s\n", id, s.First, s.Kept, by)
		}
		text := fmt.Sprintf("%s, entries %d to %d, would be LOST: nobody else has them", id, s.Kept+1, s.Last)
		if len(s.Groups) > 0 {
			text += "; still needed by " + strings.Join(s.Groups, ", ")
		}
		p.Printf("  %s\n", p.Paint("red", text))
	}
	for _, x := range l.Unasked {
		p.Printf("  %s\n", p.Paint("red", fmt.Sprintf("%s may have more of what only %s holds, and could not be asked: %s", x.Node, l.Node.Name, x.Why)))
	}
	for _, id := range l.Silent {
		p.Printf("  %s\n", p.Paint("red", id+": the others that hold it do not answer"))
	}
	for _, stream := range l.Uncovered {
		p.Printf("  %s\n", p.Paint("red", stream+": its open segment could then only be ended by log segments close --force"))
	}
}

func (a *app) nodesRejoin() *cobra.Command {
	var agreed consent
	var address string
	var leave bool
	c := &cobra.Command{
		Use:   "rejoin NODE",
		Short: "Take a quarantined node in again, after a takeover",
		Long: `A node whose city was given up by a takeover stands aside when it learns of it, and
exports what only it had to files. This makes it empty and takes it in again under
a fresh identity; repair then copies to it. Its old directory is kept aside on its
machine, and so is the export: nothing is deleted. It is refused while the node has
entries that nobody else has, by what the cluster lists now, and that are in no file
of the export; they are exported then, or --leave-behind leaves them in the old
directory.`,
		Example: "  twinspan log nodes rejoin a1\n  twinspan log nodes rejoin a1 --yes --reason \"city a has power again\"",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := agreed.check(); err != nil {
				return err
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			s, at, err := client.Find(c.Context(), names[0], address)
			if err != nil {
				return opsError(err)
			}
			r := struct {
				Verb    string           `json:"verb"`
				Node    string           `json:"node"`
				Address string           `json:"address"`
				State   node.State       `json:"state"`
				Export  *node.Quarantine `json:"quarantine,omitempty"`
				// Unexported are entries that nobody else has and no file of the export.
				Unexported []node.Unexported `json:"unexported"`
				Changed    bool              `json:"changed"`
			}{"rejoin", names[0], at, s.State, s.Quarantine, []node.Unexported{}, false}
			if s.State != node.StateQuarantined {
				return cli.Fail(cli.ExitUnsafe, fmt.Errorf("node %s is %s, not quarantined: there is nothing to rejoin", names[0], s.State), "twinspan log nodes shows the states")
			}
			var left node.Rejoined
			unknown := client.Admin(c.Context(), at, node.AdminRejoin, node.RejoinOrder{Preview: true}, &left)
			r.Unexported = append(r.Unexported, left.Unexported...)
			if q := s.Quarantine; agreed.yes && !leave && q != nil && !q.Exported {
				return cli.Fail(cli.ExitUnsafe, fmt.Errorf("node %s has not exported yet what only it had: %s", names[0], q.Problem), "remove the reason (room on its disk?), and try again")
			}
			if agreed.yes {
				if err := client.Admin(c.Context(), at, node.AdminRejoin, node.RejoinOrder{Reason: agreed.reason, LeaveBehind: leave}, nil); err != nil {
					return opsError(err)
				}
				r.Changed = true
			}
			return p.Print(r, func() error {
				p.Printf("node %s at %s is quarantined\n", names[0], at)
				if q := s.Quarantine; q != nil {
					p.Printf("  generation %d was begun without it; it learnt that from %s\n", q.Generation, q.LearntFrom)
					p.Printf("  what only it had: %s, exported to %s\n", count(q.Entries, "entry", "entries"), strings.Join(q.Files, ", "))
				}
				for _, x := range r.Unexported {
					p.Printf("  %s\n", p.Paint("red", fmt.Sprintf("not exported: entries %d to %d of %s, segment %d, which nobody else has", x.From, x.To, x.Stream, x.Segment)))
				}
				if unknown != nil {
					p.Printf("  whether anything is not exported can't be told now: %s\n", cli.OneLine(unknown.Error()))
				}
				if r.Changed {
					p.Printf("\nIt joins with a fresh identity. twinspan log nodes shows what repair has still to bring it.\n")
				} else {
					p.Printf("  it would begin again, empty, with a fresh identity; its old directory is kept aside\n")
					agreed.again(p)
				}
				return nil
			})
		},
	}
	agreed.flags(c)
	c.Flags().BoolVar(&leave, "leave-behind", false, "also while entries that nobody else has are not exported")
	c.Flags().StringVar(&address, "address", "", "where the node is, host:port, if nobody knows it any more")
	return c
}
