package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
)

func (a *app) logVerify() *cobra.Command {
	var o ops.VerifyOptions
	c := &cobra.Command{
		Use:   "verify [STREAM]",
		Short: "Compare what all nodes hold, entry by entry",
		Long: `Reads every replica of every segment that the metadata lists, whole, checks each
entry against its own checksum, and compares it with the first holder's: offset,
epoch, time, topic, end of transaction, payload. It reads all the log from all its
nodes: mind the line between cities.

Exit code 0 when all are equal, 3 when a replica differs, is damaged, or lacks
entries it should have, 5 when nothing differs but a replica could not be read.`,
		Example: "  twinspan log verify\n  twinspan log verify payments --from-segment 40\n  twinspan log verify payments --segment 17 -o json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			if len(names) > 0 {
				o.Stream = names[0]
			}
			if o.Segment > 0 && o.Stream == "" {
				return cli.Usage("--segment needs a stream")
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			bar := cli.NewBar(a.err)
			n, bytes := 0, int64(0)
			o.Progress = func(s ops.SegmentCheck) {
				n++
				for _, r := range s.Replicas {
					bytes += r.Bytes
				}
				bar.Show(0, 0, fmt.Sprintf("%d segments, %s read", n, size(bytes)))
			}
			r, err := client.Verify(c.Context(), o)
			bar.Clear()
			if err != nil {
				return opsError(err)
			}
			if err := p.Print(r, func() error { printLogReport(p, r); return nil }); err != nil {
				return err
			}
			switch {
			case r.Differences > 0:
				return cli.Exit(cli.ExitDifferences)
			case r.Unreachable > 0:
				return cli.Exit(cli.ExitUnreachable)
			}
			return nil
		},
	}
	c.Flags().Uint32Var(&o.Segment, "segment", 0, "only this segment")
	c.Flags().Uint32Var(&o.From, "from-segment", 1, "this segment and those after it")
	c.MarkFlagsMutuallyExclusive("segment", "from-segment")
	return c
}

func printLogReport(p *cli.Printer, r *ops.Report) {
	for _, s := range r.Found {
		for _, x := range s.Replicas {
			if x.Verdict == ops.Equal {
				continue
			}
			p.Printf("%s segment %d on %s: %s  %s\n", s.Stream, s.Segment, x.Node, p.Paint("red", string(x.Verdict)), cli.OneLine(x.Detail))
		}
	}
	if len(r.Found) > 0 {
		p.Printf("\n")
	}
	p.Printf("%s, %s, %s, %s; %s, %d not reachable, %s with one replica only\n",
		count(int64(r.Streams), "stream", "streams"), count(int64(r.Segments), "segment", "segments"), count(r.Entries, "entry", "entries"), size(r.Bytes),
		count(int64(r.Differences), "replica differs", "replicas differ"), r.Unreachable, count(int64(r.Single), "segment", "segments"))
}
