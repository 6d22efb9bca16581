package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
)

func (a *app) cursorCommand() *cobra.Command {
	return group("cursor", "Look at the readers' places in the log, or move one",
		`  twinspan cursor list
  twinspan cursor seek city-b --to 1200`,
		a.cursorList(), a.cursorSeek())
}

// streamCursor is a cursor and how far it is behind.
type streamCursor struct {
	Stream string `json:"stream"`
	cursorInfo
}

func (a *app) cursorList() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the readers of the stream, and how far each is",
		Long: `A cursor is a group's confirmed place: everything up to its offset was taken over.
The log keeps every entry that a cursor still needs.`,
		Example: "  twinspan cursor list\n  twinspan cursor list --all -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			l, eng, err := a.reach()
			if err != nil {
				return err
			}
			defer eng.Close()
			names := []string{l.Stream}
			if all {
				if names, err = eng.Streams(c.Context()); err != nil {
					return opsError(err)
				}
			}
			out := []streamCursor{}
			for _, name := range names {
				b, err := eng.Bounds(c.Context(), name)
				if err != nil {
					return opsError(err)
				}
				cursors, err := eng.Cursors(c.Context(), name)
				if err != nil {
					return opsError(err)
				}
				for _, x := range cursors {
					out = append(out, streamCursor{name, cursorInfo{x.Group, x.Offset, log.Behind(c.Context(), eng, name, x.Offset, b.LAC), x.GTIDSet, x.UpdatedAt}})
				}
			}
			return p.Print(out, func() error {
				var rows [][]string
				for _, x := range out {
					rows = append(rows, []string{x.Stream, x.Group, fmt.Sprint(x.Offset), fmt.Sprint(x.Behind), ago(x.UpdatedAt), x.GTIDSet})
				}
				p.Rows([]string{"stream", "group", "offset", "behind", "moved", "gtids"}, rows)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "of all streams")
	return c
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

func (a *app) cursorSeek() *cobra.Command {
	var agreed consent
	var to int64
	var remove bool
	c := &cobra.Command{
		Use:   "seek GROUP",
		Short: "Move a group's cursor in the log, or remove it",
		Long: `Moves the place from which the log keeps entries for a group. A twinspan consumer
finds its own place again from the positions in its target, which this does not
touch: moving its cursor forward lets the log give up entries that it may still
need, moving it back keeps entries longer, as far as they are still there. Removing
it lets the log forget the group: that is for a reader that is gone for good.`,
		Example: "  twinspan cursor seek city-b --to 1200\n  twinspan cursor seek old-report --remove --yes --reason \"the report is no more\"",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if err := agreed.check(); err != nil {
				return err
			}
			if !remove && !c.Flags().Changed("to") {
				return cli.Usage("--to or --remove is missing: say where the cursor shall stand")
			}
			l, client, err := a.operate()
			if err != nil {
				return err
			}
			_, eng, err := a.reach()
			if err != nil {
				return err
			}
			defer eng.Close()
			b, err := eng.Bounds(c.Context(), l.Stream)
			if err != nil {
				return opsError(err)
			}
			cursors, err := eng.Cursors(c.Context(), l.Stream)
			if err != nil {
				return opsError(err)
			}
			i := slices.IndexFunc(cursors, func(x log.Cursor) bool { return x.Group == names[0] })
			if i < 0 && remove {
				return cli.Fail(cli.ExitUsage, fmt.Errorf("stream %s has no reader %q", l.Stream, names[0]), "twinspan cursor list shows them")
			}
			r := seekResult{Stream: l.Stream, Group: names[0], From: log.None, To: log.Offset(to), Remove: remove, First: b.First, LAC: b.LAC}
			cursor := log.Cursor{Group: names[0], Offset: r.To}
			if i >= 0 {
				r.Exists, r.From = true, cursors[i].Offset
				cursor.GTIDSet = cursors[i].GTIDSet
			}
			if err := r.check(); err != nil {
				return err
			}
			if r.To != r.From {
				cursor.GTIDSet = "" // it was that of another place
			}
			if agreed.yes {
				put := &meta.PutCursor{Stream: l.Stream, Cursor: cursor, Seek: true, Remove: remove}
				if err := client.Change(c.Context(), meta.Command{Cursor: put}, operator(), agreed.reason); err != nil {
					return opsError(err)
				}
				r.Changed = true
			}
			return p.Print(r, func() error {
				r.print(p)
				if r.Changed {
					p.Printf("\nDone.\n")
				} else {
					agreed.again(p)
				}
				return nil
			})
		},
	}
	agreed.flags(c)
	c.Flags().Int64Var(&to, "to", 0, "the last entry that counts as taken over; -1: none")
	c.Flags().BoolVar(&remove, "remove", false, "forget the group")
	c.MarkFlagsMutuallyExclusive("to", "remove")
	return c
}

// seekResult is what cursor seek would do, or did.
type seekResult struct {
	Stream  string     `json:"stream"`
	Group   string     `json:"group"`
	Exists  bool       `json:"exists"`
	From    log.Offset `json:"from"`
	To      log.Offset `json:"to"`
	Remove  bool       `json:"remove"`
	First   log.Offset `json:"first"`
	LAC     log.Offset `json:"lac"`
	Changed bool       `json:"changed"`
}

func (r *seekResult) check() error {
	switch {
	case r.Remove:
		return nil
	case r.To > r.LAC:
		return cli.Fail(cli.ExitUnsafe, fmt.Errorf("offset %d is beyond the last confirmed entry, %d", r.To, r.LAC), "nothing was changed")
	case r.To+1 < r.First:
		return cli.Fail(cli.ExitUnsafe, fmt.Errorf("entry %d is no longer kept, the oldest one is %d", r.To+1, r.First), "nothing was changed")
	}
	return nil
}

func (r *seekResult) print(p *cli.Printer) {
	p.Printf("stream %s holds %s\n", r.Stream, offsets(r.First, r.LAC))
	switch {
	case r.Remove:
		p.Printf("  %s: the cursor at %d would be removed; nothing is kept for this group any more\n", r.Group, r.From)
	case !r.Exists:
		p.Printf("  %s: a new cursor at %d; entries from %d on are kept for it\n", r.Group, r.To, r.To+1)
	case r.To > r.From:
		p.Printf("  %s: from %d forward to %d; %d entries are %s\n", r.Group, r.From, r.To, r.To-r.From, p.Paint("red", "no longer kept for it"))
	default:
		p.Printf("  %s: from %d back to %d; %d entries are kept for it again\n", r.Group, r.From, r.To, r.From-r.To)
	}
}
