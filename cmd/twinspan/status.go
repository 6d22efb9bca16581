package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/daemon"
)

func (a *app) statusCommand() *cobra.Command {
	var address string
	var watch time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Ask a running process how it is: roles, positions, lag, halts",
		Long: `Asks the running process over its admin listener, which it finds in the
configuration or by --admin. Lag is in seconds, by the source's commit times; 0
means that nothing is on its way.

Exit code 0 when the process answers, whatever it says, and 5 when it does not.`,
		Example: `  twinspan status -c twinspan.yaml
  twinspan status --admin 127.0.0.1:8040 -o json
  twinspan status --watch 2s`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			address, err := a.adminAddress(address)
			if err != nil {
				return err
			}
			for {
				d, err := askStatus(c.Context(), address)
				if err != nil {
					return err
				}
				if err := p.Print(d, func() error { printStatus(p, d); return nil }); err != nil {
					return err
				}
				if watch <= 0 {
					return nil
				}
				select {
				case <-time.After(watch):
					if p.Format == cli.Table {
						p.Printf("\n")
					}
				case <-c.Context().Done():
					return nil
				}
			}
		},
	}
	c.Flags().StringVar(&address, "admin", "", "the process's admin listener, host:port")
	c.Flags().DurationVarP(&watch, "watch", "w", 0, "ask again after this long, for ever")
	return c
}

// adminAddress is the admin listener of the process to ask: the one given, that of
// the configuration, or without one the default.
func (a *app) adminAddress(given string) (string, error) {
	switch {
	case given != "":
		return given, nil
	case a.path() == "" && len(a.set) == 0:
		return config.Default().Admin.Listen, nil
	}
	l, err := a.load(true)
	if err != nil {
		return "", err
	}
	return l.Admin.Listen, nil
}

// statusBytesMax bounds what a process may answer.
const statusBytesMax = 16 << 20

func askStatus(ctx context.Context, address string) (*admin.Document, error) {
	hint := "is the process running, and is this its admin.listen?"
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status", nil)
	if err != nil {
		return nil, cli.Usage("%q is not an address: write host:port", address)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, cli.Fail(cli.ExitUnreachable, err, hint)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, cli.Fail(cli.ExitUnreachable, fmt.Errorf("%s answers %s", address, res.Status), hint)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, statusBytesMax+1))
	if err == nil && len(b) > statusBytesMax {
		err = errors.New("the answer is too long")
	}
	d := &admin.Document{}
	if err == nil {
		err = json.Unmarshal(b, d)
	}
	if err != nil {
		return nil, cli.Fail(cli.ExitUnreachable, fmt.Errorf("status of %s: %w", address, err), hint)
	}
	return d, nil
}

func printStatus(p *cli.Printer, d *admin.Document) {
	ready := p.Paint("green", "ready")
	if !d.Ready {
		ready = p.Paint("red", "not ready")
	}
	p.Printf("stream %s, city %s, %s, pid %d, up %s, twinspan %s\n", d.Stream, d.City, ready, d.PID,
		d.At.Sub(d.StartedAt).Round(time.Second), d.Version)
	p.Printf("lag    end to end %s (source to log %s, source to target %s)\n\n", seconds(d.Lag.EndToEnd), seconds(d.Lag.SourceToLog),
		seconds(d.Lag.SourceToTarget))

	var rows [][]string
	for _, r := range d.Roles {
		note := r.Trouble
		if note == "" && len(r.Halts) == 0 {
			note = r.Error
		}
		rows = append(rows, []string{r.Role, paintState(p, r.State), d.At.Sub(r.Since).Round(time.Second).String(), fmt.Sprint(r.Restarts), note})
	}
	p.Rows([]string{"role", "state", "for", "restarts", ""}, rows)

	rows = nil
	if l := d.Log; l != nil {
		what := fmt.Sprintf("%s: offsets %d to %d, LSO %d, epoch %d", l.Where, l.First, l.LAC, l.LSO, l.Epoch)
		switch {
		case l.Error != "":
			what = l.Where + ": " + l.Error
		case !l.Exists:
			what = l.Where + ": the stream does not exist yet"
		}
		rows = append(rows, []string{"log", what})
		for _, c := range l.Cursors {
			rows = append(rows, []string{"", fmt.Sprintf("%s needs entries from %d on, %d of them are here", c.Group, c.Offset+1, c.Behind)})
		}
		if n := l.Node; n != nil {
			rows = append(rows, []string{"node", fmt.Sprintf("%s: %d MiB used, %d MiB free", n.Dir, n.UsedBytes>>20, n.FreeBytes>>20)})
		}
	}
	if s := d.Producer; s != nil {
		link := "connected"
		if !s.Connected {
			link = "not connected"
		}
		rows = append(rows, []string{"producer", strings.TrimSpace(fmt.Sprintf("%s %s %s, %s", s.Server, s.Flavor, s.Version, link))},
			[]string{"", "in the log: " + s.GTIDSet})
		if s.CommitTime != nil {
			rows = append(rows, []string{"", fmt.Sprintf("offset %d, committed %s, read at %s:%d", s.Offset, s.CommitTime.Format(time.RFC3339), s.File, s.FilePosition)})
		}
	}
	if s := d.Applier; s != nil {
		rows = append(rows, []string{"consumer", fmt.Sprintf("%s, group %s, %d lanes (%d waiting), %d changes pending", s.Target, s.Group, s.Lanes, s.LanesWaiting, s.Pending)},
			[]string{"", "applied: " + s.GTIDSet},
			[]string{"", "atomicity: " + s.Atomicity},
			[]string{"", fmt.Sprintf("offset %d; since start %d rows, %d transactions, %d DDL, %d retries, %d conflicts; %d changes are parked", s.Offset, s.Rows, s.Transactions, s.DDLs, s.Retries, s.Conflicts, s.Exceptions)})
	}
	if d.Applier != nil && d.Applier.Paused != "" {
		rows = append(rows, []string{"", p.Paint("yellow", "paused") + ": " + d.Applier.Paused})
	}
	if len(rows) > 0 {
		p.Printf("\n")
		for _, r := range rows {
			p.Printf("%-9s %s\n", r[0], r[1])
		}
	}
	for _, r := range d.Roles {
		for _, h := range r.Halts {
			p.Printf("\n%s %s %s", p.Paint("red", "HALT"), r.Role, p.Paint("bold", h.Code))
			if h.GTID != "" {
				p.Printf(" at %s", h.GTID)
			}
			if h.Offset > 0 {
				p.Printf(" at offset %d", h.Offset)
			}
			p.Printf(", since %s\n  %s\n", h.Since.Format(time.RFC3339), cli.OneLine(h.Detail))
			if h.Remedy != "" {
				p.Printf("  → %s\n", cli.OneLine(h.Remedy))
			}
		}
	}
}

func paintState(p *cli.Printer, s daemon.State) string {
	switch s {
	case daemon.Running:
		return p.Paint("green", string(s))
	case daemon.Halted:
		return p.Paint("red", string(s))
	}
	return p.Paint("yellow", string(s))
}

func seconds(v *float64) string {
	if v == nil {
		return "not known"
	}
	return fmt.Sprintf("%.3f s", *v)
}
