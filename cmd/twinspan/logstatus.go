package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
)

func (a *app) logStatus() *cobra.Command {
	var strict bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say how the log is: streams, protection, nodes, who leads",
		Long: `Asks the metadata and every node. A stream is protected while the entries it
confirms are on as many nodes, in as many cities, as its policy asks. An
unprotected window stays until its entries have been copied to where the policy
wants them. Without a leader of the metadata, what one node knew last is shown and
said to be stale.

Exit code 0 when somebody answers (with --strict: when there is no problem either,
else 3), 5 when nobody does.`,
		Example: "  twinspan log status\n  twinspan log status -o json\n  twinspan log status --strict",
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
			o, err := client.Overview(c.Context())
			if err != nil {
				return opsError(err)
			}
			if err := p.Print(o, func() error { printOverview(p, o); return nil }); err != nil {
				return err
			}
			if strict && len(o.Problems) > 0 {
				return cli.Exit(cli.ExitDifferences)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&strict, "strict", false, "exit code 3 when there is any problem")
	return c
}

func printOverview(p *cli.Printer, o *ops.Overview) {
	leader := "led by " + o.Leader
	if o.Leader == "" {
		leader = p.Paint("red", "no leader")
	}
	p.Printf("generation %d, metadata %s\n\n", o.Generation, leader)
	printNodes(p, o)
	for i := range o.Streams {
		p.Printf("\n")
		printStream(p, &o.Streams[i])
	}
	for i, s := range o.Problems {
		if i == 0 {
			p.Printf("\n")
		}
		p.Printf("%s %s\n", p.Paint("red", "!"), cli.OneLine(s))
	}
}

func printNodes(p *cli.Printer, o *ops.Overview) {
	var rows [][]string
	for _, n := range o.Nodes {
		state := n.State
		switch {
		case !n.Reachable:
			state = p.Paint("red", "away")
		case n.Quarantine != nil:
			state = p.Paint("red", state)
		case n.Drained:
			state = p.Paint("yellow", "drained")
		case n.Witness:
			state += ", witness"
		}
		repair := "-"
		if n.Missing > 0 {
			repair = fmt.Sprintf("%d to copy", n.Missing)
		}
		rows = append(rows, []string{n.Name, n.City, n.Address, short(n.UUID), state, n.Role, fmt.Sprint(n.Replicas), size(n.Bytes), repair, n.Version})
	}
	p.Rows([]string{"node", "city", "address", "uuid", "state", "metadata", "replicas", "bytes", "repair", "version"}, rows)
}

func printStream(p *cli.Printer, s *ops.StreamView) {
	state := p.Paint("green", "protected")
	if !s.Protected {
		state = p.Paint("red", "NOT PROTECTED")
	}
	segment := fmt.Sprintf("segment %d closed", s.Segment)
	switch {
	case s.Open:
		segment = fmt.Sprintf("segment %d open", s.Segment)
	case s.Segment == 0:
		segment = "no segment yet"
	}
	p.Printf("%s  epoch %d (%s), %s, %s, %s\n", p.Paint("bold", s.Name), s.Epoch, owner(s.Owner), segment, offsets(s.First, s.LAC), state)
	p.Printf("  rule    %s; without it: %s\n", s.Rule, loss(s.Policy))
	for _, m := range s.Members {
		what := fmt.Sprintf("has %d", m.Last)
		switch {
		case !m.Answers:
			what = p.Paint("red", "does not answer") + ": " + cli.OneLine(m.Error)
		case m.Behind > 0:
			what += fmt.Sprintf(", %d behind", m.Behind)
		}
		p.Printf("  member  %s (%s) %s\n", m.Node, m.City, what)
	}
	for _, c := range s.Cursors {
		p.Printf("  reader  %s needs entries from %d on, %d of them are here\n", c.Group, c.Offset+1, behind(s, c.Offset))
	}
	printGaps(p, s.Gaps)
	for _, w := range s.Windows {
		to := "now"
		if w.To > log.None {
			to = fmt.Sprint(w.To)
		}
		since := w.Since.UTC().Format(time.RFC3339)
		switch {
		case !w.RestoredAt.IsZero():
			p.Printf("  window  %d to %s unprotected from %s to %s: %s\n", w.From, to, since, w.RestoredAt.UTC().Format(time.RFC3339), cli.OneLine(w.Reason))
		default:
			p.Printf("  window  %s since %s: %s\n", p.Paint("red", fmt.Sprintf("%d to %s UNPROTECTED", w.From, to)), since, cli.OneLine(w.Reason))
		}
	}
}

func printGaps(p *cli.Printer, gaps []meta.Gap) {
	for _, g := range gaps {
		by := ""
		if g.By != "" {
			by = ", " + g.By
		}
		p.Printf("  gap     %s since %s: %s%s\n", p.Paint("red", fmt.Sprintf("%d to %d LOST", g.From, g.To)), g.At.UTC().Format(time.RFC3339), cli.OneLine(g.Reason), by)
	}
}

func owner(s string) string {
	if s == "" {
		return "no writer yet"
	}
	return s
}

// loss is what a stream does while its rule can't be met.
func loss(p meta.Policy) string {
	if p.Loss == meta.LossDegradeAfter {
		return fmt.Sprintf("degrade after %s", p.After)
	}
	return strings.ReplaceAll(string(p.Loss), "-", " ")
}

// short is enough of an identity to tell it from others.
func short(uuid string) string {
	if len(uuid) > 8 {
		return uuid[:8]
	}
	return uuid
}

// size of bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// count of things for people.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// offsets says what a stream holds.
func offsets(first, last log.Offset) string {
	if last < first {
		return "no entries"
	}
	return fmt.Sprintf("offsets %d to %d", first, last)
}

// behind is how many entries there are behind an offset; those of gaps are none.
func behind(s *ops.StreamView, at log.Offset) int64 {
	n := int64(s.LAC - at)
	for _, g := range s.Gaps {
		n -= max(0, int64(min(g.To, s.LAC)-max(g.From-1, at)))
	}
	return max(0, n)
}
