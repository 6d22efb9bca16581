package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/inspect"
	"github.com/twinspan/twinspan/log"
)

func (a *app) topicCommand() *cobra.Command {
	return group("topic", "Look into the log: its topics and what they hold",
		`  twinspan topic list
  twinspan topic read --last 20
  twinspan topic read --table shop.orders --key id=17 --since 1h`,
		a.topicList(), a.topicRead(), a.topicCreate(), a.topicPolicy())
}

// topicInfo is one topic of a stream.
type topicInfo struct {
	Stream  string       `json:"stream"`
	Topics  []string     `json:"topics"`
	First   log.Offset   `json:"first"`
	LAC     log.Offset   `json:"lac"`
	LSO     log.Offset   `json:"lso"`
	Epoch   log.Epoch    `json:"epoch"`
	Cursors []cursorInfo `json:"cursors"`
}

type cursorInfo struct {
	Group     string     `json:"group"`
	Offset    log.Offset `json:"offset"`
	Behind    int64      `json:"behind"` // entries up to the LAC
	GTIDSet   string     `json:"gtid_set,omitempty"`
	UpdatedAt time.Time  `json:"updated_at,omitzero"`
}

func (a *app) topicList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the streams of the log, their bounds and who reads them",
		Long: `A stream's offsets count its entries from 0; its topics (data, schema, exceptions)
are views of that one order. LAC is the last confirmed entry, LSO the last one that
ends a transaction.`,
		Example: "  twinspan topic list\n  twinspan topic list -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			_, l, err := a.reach()
			if err != nil {
				return err
			}
			defer l.Close()
			names, err := l.Streams(c.Context())
			if err != nil {
				return unreachable(err)
			}
			out, ctx := []topicInfo{}, c.Context()
			for _, name := range names {
				b, err := l.Bounds(c.Context(), name)
				if err != nil {
					return unreachable(err)
				}
				cursors, err := l.Cursors(c.Context(), name)
				if err != nil {
					return unreachable(err)
				}
				t := topicInfo{Stream: name, First: b.First, LAC: b.LAC, LSO: b.LSO, Epoch: b.Epoch, Cursors: []cursorInfo{},
					Topics: []string{log.TopicData.String(), log.TopicSchema.String(), log.TopicExceptions.String()}}
				for _, c := range cursors {
					t.Cursors = append(t.Cursors, cursorInfo{c.Group, c.Offset, log.Behind(ctx, l, name, c.Offset, b.LAC), c.GTIDSet, c.UpdatedAt})
				}
				out = append(out, t)
			}
			return p.Print(out, func() error {
				var rows [][]string
				for _, t := range out {
					var readers []string
					for _, c := range t.Cursors {
						readers = append(readers, fmt.Sprintf("%s needs %d on", c.Group, c.Offset+1))
					}
					rows = append(rows, []string{t.Stream, fmt.Sprint(t.First), fmt.Sprint(t.LAC), fmt.Sprint(t.LSO),
						fmt.Sprint(t.Epoch), strings.Join(readers, ", ")})
				}
				p.Rows([]string{"stream", "first", "lac", "lso", "epoch", "readers"}, rows)
				return nil
			})
		},
	}
}

func (a *app) topicRead() *cobra.Command {
	var q inspect.Query
	var from, to int64
	var since, until string
	var keys []string
	c := &cobra.Command{
		Use:   "read [data|schema|exceptions]",
		Short: "Print what a topic holds, decoded, one JSON object in a line",
		Long: `Prints row changes and statements in the order of the log, one JSON object in a
line (or with -o yaml one document each), from the oldest entry that is kept, or
from where the conditions allow to start, to the last whole transaction.

In row images, DECIMAL, unsigned BIGINT, dates and times are strings as the server
writes them, bytes are {"base64": "…"}, and MySQL's JSON stands as it is. --key
takes values the same way, bytes as 0x and hexadecimal digits; several --key must
all hold.`,
		Example: `  twinspan topic read --last 20
  twinspan topic read --table shop.orders --key id=17
  twinspan topic read --table 'shop.*' --since 10m --follow
  twinspan topic read --gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:23
  twinspan topic read --from 1200 --to 1300 --entries
  twinspan topic read schema -o json`,
		ValidArgs: []string{"data", "schema", "exceptions"},
		Args:      words(1),
		RunE: func(c *cobra.Command, names []string) error {
			format, err := cli.ParseFormat(a.output)
			if err != nil {
				return err
			}
			q.Topic = log.TopicData
			if len(names) > 0 {
				if q.Topic, err = log.ParseTopic(names[0]); err != nil {
					return cli.Usage("%v", err)
				}
			}
			q.From, q.To = log.Offset(from), log.Offset(to)
			now := time.Now()
			if q.Since, err = parseTime(since, now); err != nil {
				return err
			}
			if q.Until, err = parseTime(until, now); err != nil {
				return err
			}
			if q.Key, err = parseKeys(keys); err != nil {
				return err
			}
			l, eng, err := a.reach()
			if err != nil {
				return err
			}
			defer eng.Close()
			q.Stream = l.Stream
			e := json.NewEncoder(a.out)
			e.SetEscapeHTML(false)
			err = inspect.Read(c.Context(), eng, q, func(r *inspect.Record) error {
				if format != cli.YAML {
					return e.Encode(r)
				}
				b, err := json.Marshal(r)
				if err == nil {
					b, err = yaml.JSONToYAML(b)
				}
				if err == nil {
					_, err = fmt.Fprintf(a.out, "---\n%s", b)
				}
				return err
			})
			return logError(err)
		},
	}
	f := c.Flags()
	f.Int64Var(&from, "from", -1, "first offset")
	f.Int64Var(&to, "to", -1, "last offset")
	f.Int64Var(&q.Last, "last", 0, "start this many entries before the end")
	f.StringVar(&since, "since", "", "committed at or after: 2026-01-02T15:04:05Z, or 10m for ten minutes ago")
	f.StringVar(&until, "until", "", "committed before")
	f.StringVar(&q.GTID, "gtid", "", "only this transaction")
	f.StringVar(&q.Table, "table", "", "only this table, schema.table; * stands for anything")
	f.StringArrayVar(&keys, "key", nil, "only rows that have this value, before or after, as column=value (repeatable)")
	f.BoolVarP(&q.Follow, "follow", "f", false, "wait for more at the end")
	f.IntVarP(&q.Limit, "limit", "n", 0, "stop after this many lines")
	f.BoolVar(&q.Entries, "entries", false, "print the entries themselves: size, time, epoch, GTIDs, where they were read")
	c.MarkFlagsMutuallyExclusive("from", "last")
	return c
}

// parseTime reads a point in time: absolute, or a duration before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d.Abs()), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil {
			return now.AddDate(0, 0, -n), nil
		}
	}
	return time.Time{}, cli.Usage("%q is no time: write 2026-01-02T15:04:05Z, 2026-01-02 15:04 (UTC), or 10m for ten minutes ago", s)
}

func parseKeys(keys []string) (map[string]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	m := map[string]string{}
	for _, k := range keys {
		column, v, ok := strings.Cut(k, "=")
		if !ok || column == "" {
			return nil, cli.Usage("--key %q: write it as column=value", k)
		}
		m[column] = v
	}
	return m, nil
}

// logError gives an error of the log its exit code and a hint.
func logError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, log.ErrNoStream):
		return cli.Fail(cli.ExitError, err, "twinspan topic list shows the streams there are; the first producer makes one")
	case errors.Is(err, log.ErrTrimmed):
		return cli.Fail(cli.ExitError, err, "twinspan topic list shows the oldest entry that is kept")
	case errors.Is(err, log.ErrUnavailable):
		return unreachable(err)
	}
	return err
}

func unreachable(err error) error {
	if refused(err) {
		return cli.Fail(cli.ExitUnreachable, err, "twinspan certs show tells what a certificate is good for; see log.tls in twinspan config example")
	}
	return cli.Fail(cli.ExitUnreachable, err, "is the process with the node role running, and log.nodes its address?")
}
