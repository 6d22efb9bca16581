package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/wire"
)

// rawEntry is one entry as it is stored.
type rawEntry struct {
	Node       string     `json:"node"`
	Segment    uint32     `json:"segment"`
	Offset     log.Offset `json:"offset"`
	Epoch      log.Epoch  `json:"epoch"`
	Topic      string     `json:"topic"`
	AppendedAt time.Time  `json:"appended_at"`
	Ends       bool       `json:"ends_transaction"`
	Checksum   string     `json:"checksum"` // CRC-32C of the payload
	Bytes      int        `json:"bytes"`
	Payload    string     `json:"payload,omitempty"` // hexadecimal, with --payload
}

func (a *app) logRead() *cobra.Command {
	var from, to int64
	var limit int
	var node string
	var payload, unconfirmed bool
	c := &cobra.Command{
		Use:   "read STREAM",
		Short: "Print entries as they are stored, on one node",
		Long: `Prints entries as a node stores them, one JSON object in a line: what topic read
decodes, raw. The node is the first that holds the segment, or --node; that is how
two nodes are compared by hand. With --unconfirmed also those of an open segment
that are on the node's disk, but not known there to be confirmed.`,
		Example: "  twinspan log read payments --from 1200 --limit 20\n  twinspan log read payments --node b1 --from 1200 --payload\n  twinspan log read payments --node a2 --unconfirmed --from 5000",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, names []string) error {
			if _, err := a.printer(); err != nil {
				return err
			}
			_, client, err := a.operate()
			if err != nil {
				return err
			}
			e := json.NewEncoder(a.out)
			left := limit
			each := func(on string, segment uint32) func(*wire.Stored) error {
				return func(s *wire.Stored) error {
					r := rawEntry{
						Node: on, Segment: segment, Offset: s.Offset, Epoch: s.Epoch, Topic: s.Topic.String(), AppendedAt: s.AppendedAt,
						Ends: s.EndsTransaction, Checksum: fmt.Sprintf("%08x", s.Checksum), Bytes: len(s.Payload),
					}
					if payload {
						r.Payload = hex.EncodeToString(s.Payload)
					}
					if err := e.Encode(r); err != nil {
						return err
					}
					if left--; left == 0 {
						return io.EOF
					}
					return nil
				}
			}
			end := log.Offset(to)
			if to < 0 {
				end = 1<<62 - 1
			}
			err = readRaw(c, client, names[0], log.Offset(from), end, node, unconfirmed, each)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return opsError(err)
		},
	}
	f := c.Flags()
	f.Int64Var(&from, "from", 0, "first offset; below the oldest kept one, that one")
	f.Int64Var(&to, "to", -1, "last offset")
	f.IntVarP(&limit, "limit", "n", 0, "stop after so many; 0: at the end")
	f.StringVar(&node, "node", "", "read on this node")
	f.BoolVar(&payload, "payload", false, "print the payloads, in hexadecimal")
	f.BoolVar(&unconfirmed, "unconfirmed", false, "also what is not known to be confirmed")
	return c
}

// readRaw goes through the segments from one offset to another.
func readRaw(c *cobra.Command, client *ops.Client, stream string, from, to log.Offset, on string, unconfirmed bool,
	each func(node string, segment uint32) func(*wire.Stored) error) error {
	store := client.Metadata()
	nodes, err := store.Nodes(c.Context())
	if err != nil {
		return err
	}
	if on != "" && !slices.ContainsFunc(nodes, func(n meta.Node) bool { return n.Name == on }) {
		return cli.Fail(cli.ExitUsage, fmt.Errorf("there is no node %q", on), "twinspan log nodes lists them")
	}
	for at := uint32(1); ; {
		page, err := store.Segments(c.Context(), stream, at, meta.SegmentsPageMax)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		for i := range page {
			s := &page[i]
			if s.First > to {
				return nil
			}
			if s.Closed && s.Last < from {
				continue
			}
			if err := readSegment(c, client, s, nodes, from, to, on, unconfirmed, each); err != nil {
				return err
			}
			if s.Closed && s.Left() < s.Last && to > s.Left() {
				return &log.LostError{Stream: stream, From: s.Left() + 1, To: s.Last}
			}
		}
		at = page[len(page)-1].Segment + 1
	}
}

func readSegment(c *cobra.Command, client *ops.Client, s *meta.Segment, nodes []meta.Node, from, to log.Offset, on string, unconfirmed bool,
	each func(node string, segment uint32) func(*wire.Stored) error) error {
	members := s.Members
	if s.Closed {
		members = s.Holders
	}
	var last error
	for _, m := range members {
		i := slices.IndexFunc(nodes, func(n meta.Node) bool { return n.Name == m.Node && n.UUID == m.UUID })
		if i < 0 || on != "" && m.Node != on {
			continue
		}
		first, end := max(from, s.First), to+1
		if s.Closed {
			end = min(end, s.Left()+1)
		} else {
			b, err := client.Copy(c.Context(), nodes[i].Address, s.Stream, s.Segment, s.First, s.First, unconfirmed, nil)
			if err != nil {
				last = err
				continue
			}
			end = min(end, b.LAC+1)
		}
		if first >= end {
			return nil
		}
		printed := false
		do := each(m.Node, s.Segment)
		_, err := client.Copy(c.Context(), nodes[i].Address, s.Stream, s.Segment, first, end, unconfirmed, func(e *wire.Stored) error {
			printed = true
			return do(e)
		})
		if err == nil || printed || c.Context().Err() != nil {
			return err
		}
		last = err
	}
	if last == nil {
		last = fmt.Errorf("stream %q segment %d: none of its holders is there: %w", s.Stream, s.Segment, log.ErrUnavailable)
		if on != "" {
			last = fmt.Errorf("stream %q segment %d is not on node %s: %w", s.Stream, s.Segment, on, log.ErrElsewhere)
		}
	}
	return last
}
