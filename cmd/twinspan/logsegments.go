package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

func (a *app) logSegments() *cobra.Command {
	var from uint32
	var limit int
	c := &cobra.Command{
		Use:   "segments STREAM",
		Short: "List a stream's segments: offsets, members, who holds all of them",
		Long: `A stream is a chain of segments. Members and rule of a segment never change; on
trouble the writer closes one and opens the next. Holders have all of a closed
segment. PARTIAL: the holders do not satisfy the stream's rule, repair has to copy.
LOST: offsets that a forced close passed over, or that nobody who is left has an entry
at. LOST from N: the newest entries of a segment are; holders have the ones before.`,
		Example: "  twinspan log segments payments\n  twinspan log segments payments --from 100 --limit 20\n  twinspan log segments payments -o json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if limit < 1 {
				return cli.Usage("--limit %d: at least 1", limit)
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			store := client.Metadata()
			st, err := store.Stream(c.Context(), names[0])
			if err != nil {
				return opsError(err)
			}
			result := struct {
				Stream   string         `json:"stream"`
				Segments []meta.Segment `json:"segments"`
				Next     uint32         `json:"next"` // --from of the next page; 0: there is none
			}{names[0], []meta.Segment{}, 0}
			for at := from; len(result.Segments) < limit; {
				page, err := store.Segments(c.Context(), names[0], at, min(limit-len(result.Segments), meta.SegmentsPageMax))
				if err != nil {
					return opsError(err)
				}
				if len(page) == 0 {
					break
				}
				result.Segments = append(result.Segments, page...)
				at = page[len(page)-1].Segment + 1
			}
			if n := len(result.Segments); n > 0 && n >= limit {
				if last := result.Segments[n-1].Segment; len(st.Segments) > 0 && st.Segments[len(st.Segments)-1].Segment > last {
					result.Next = last + 1
				}
			}
			return p.Print(result, func() error {
				printSegments(p, result.Segments, st.Policy.Rule)
				if result.Next > 0 {
					p.Printf("\nMore: --from %d\n", result.Next)
				}
				return nil
			})
		},
	}
	c.Flags().Uint32Var(&from, "from", 1, "first number")
	c.Flags().IntVarP(&limit, "limit", "n", 100, "at most so many")
	c.AddCommand(a.segmentsClose())
	return c
}

func printSegments(p *cli.Printer, all []meta.Segment, rule quorum.NodeRule) {
	var rows [][]string
	for _, s := range all {
		last, bytes, state := "", "", "open"
		if s.Closed {
			last, bytes, state = fmt.Sprint(s.Last), size(s.Bytes), "closed "+s.ClosedAt.UTC().Format(time.DateTime)
			if _, err := rule.Of(s.Holders); err != nil && !s.Lost {
				state = p.Paint("red", "PARTIAL")
			}
		}
		if s.Lost {
			state = p.Paint("red", "LOST") + " " + s.ClosedAt.UTC().Format(time.DateTime)
			rows = append(rows, []string{fmt.Sprint(s.Segment), fmt.Sprint(s.First), last, fmt.Sprint(s.Epoch), "-", "-", "-", "nobody", state})
			continue
		}
		if s.LostTail > 0 {
			state += ", " + p.Paint("red", fmt.Sprintf("LOST from %d", s.Left()+1))
		}
		if s.Compacted {
			state += ", compacted"
		}
		if !s.Protected {
			state += ", unprotected"
		}
		members, holders := memberNames(s.Members), memberNames(s.Holders)
		if holders == members {
			holders = "all"
		}
		rows = append(rows, []string{fmt.Sprint(s.Segment), fmt.Sprint(s.First), last, fmt.Sprint(s.Epoch), bytes, s.Rule.String(), members, holders, state})
	}
	p.Rows([]string{"segment", "first", "last", "epoch", "bytes", "rule", "members", "holders", ""}, rows)
}

func memberNames(all []quorum.Member) string {
	var names []string
	for _, m := range all {
		names = append(names, m.Node)
	}
	return strings.Join(names, " ")
}
