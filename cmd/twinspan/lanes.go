package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
)

// applierConfig is that of the file, with what was set since.
func (p *process) applierConfig() applier.Config {
	c := applierConfig(p.cfg)
	if n := p.lanesSet.Load(); n > 0 {
		c.Lanes = int(n)
	}
	if t := p.throttleSet.Load(); t != nil {
		c.Throttle = *t
	}
	return c
}

// readThrottle takes the configuration's throttle over where it is other than it was
// there before: a signal for another reason must not undo what an operator set.
func (p *process) readThrottle(t config.Throttle) {
	if reflect.DeepEqual(t, p.throttleRead) {
		return
	}
	p.throttleRead = t
	limits := throttleOf(t)
	p.throttleSet.Store(&limits)
	if a := p.applier.Load(); a != nil {
		a.SetThrottle(limits)
	}
	p.logger.Info().Int("rows_per_second", limits.RowsPerSecond).Dur("replica_lag", limits.ReplicaLag).
		Int("threads_running", limits.ThreadsRunning).Msg("the configuration has another throttle")
}

// laneControl changes the process's applier, and those that come after it.
type laneControl struct{ p *process }

// Lanes implements admin.Control.
func (c laneControl) Lanes() (*admin.Lanes, error) {
	a := c.p.applier.Load()
	if a == nil {
		return nil, admin.ErrNoApplier
	}
	s := a.Status()
	t := s.Throttle
	d := &admin.Lanes{
		Stream: s.Stream, Target: c.p.cfg.Target.Address, Atomicity: s.Atomicity, Wanted: s.LanesWanted, Lanes: []admin.Lane{},
		Throttle: admin.Throttle{
			RowsPerSecond: t.RowsPerSecond, ReplicaLag: t.ReplicaLag.Seconds(), Replicas: t.Replicas, ThreadsRunning: t.Throttle.ThreadsRunning,
			Paused: t.Paused, PausedSeconds: t.PausedSeconds, LagNow: t.Lag.Seconds(), ThreadsNow: t.Threads, Trouble: t.Trouble,
		},
	}
	for i, l := range s.Lanes {
		lane := admin.Lane{
			Lane: i, Offset: l.Place.Offset, Index: l.Place.Index, Pending: l.Pending, Lag: l.LagSeconds, Rows: l.Rows, Rate: l.RowsPerSecond,
			Batches: l.Batches, BatchRows: l.BatchRows, BatchTime: l.BatchSeconds, Condition: l.Condition,
		}
		if l.WaitsFor >= 0 {
			lane.WaitsFor = &l.WaitsFor
		}
		d.Lanes = append(d.Lanes, lane)
	}
	return d, nil
}

// SetLanes implements admin.Control.
func (c laneControl) SetLanes(n int) error {
	a := c.p.applier.Load()
	if a == nil {
		return admin.ErrNoApplier
	}
	if err := a.SetLanes(n); err != nil {
		return err
	}
	c.p.lanesSet.Store(int64(n))
	c.p.logger.Info().Int("lanes", n).Msg("an operator asked for other lanes")
	return nil
}

// SetThrottle implements admin.Control.
func (c laneControl) SetThrottle(t admin.Throttle) error {
	a := c.p.applier.Load()
	if a == nil {
		return admin.ErrNoApplier
	}
	if t.RowsPerSecond < 0 || t.ThreadsRunning < 0 || t.ReplicaLag < 0 || t.ReplicaLag > 30*24*3600 {
		return errors.New("a limit is 0, for none, or more, and a lag at most 30 days")
	}
	limits := applier.Throttle{
		RowsPerSecond: t.RowsPerSecond, ReplicaLag: time.Duration(t.ReplicaLag * float64(time.Second)), Replicas: t.Replicas, ThreadsRunning: t.ThreadsRunning,
	}
	c.p.throttleSet.Store(&limits)
	a.SetThrottle(limits)
	c.p.logger.Info().Int("rows_per_second", limits.RowsPerSecond).Dur("replica_lag", limits.ReplicaLag).
		Int("threads_running", limits.ThreadsRunning).Msg("an operator set the throttle")
	return nil
}

func (a *app) lanesCommand() *cobra.Command {
	list := a.lanesList()
	c := group("lanes", "Look at the lanes that write the target, change how many, or slow them down",
		`  twinspan lanes
  twinspan lanes set 16
  twinspan lanes throttle --rows-per-second 5000`,
		list, a.lanesSet(), a.lanesThrottle())
	c.Long = `Without a word it lists them, as lanes list does. All of these ask the running
process over its admin listener; changes are taken on its own machine only.`
	c.Flags().AddFlag(list.Flags().Lookup("admin"))
	c.RunE = func(c *cobra.Command, words []string) error {
		list.SetContext(c.Context())
		return list.RunE(list, words)
	}
	return c
}

// askLanes sends one request to the process and reads its answer.
func (a *app) askLanes(ctx context.Context, address, method, path string, body, reply any) error {
	address, err := a.adminAddress(address)
	if err != nil {
		return err
	}
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(b)
	}
	err = admin.Ask(ctx, method, "http://"+address+path, send, reply)
	var refused *admin.Refused
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &refused):
		return cli.Fail(cli.ExitUnreachable, err, "is the process running, and is this its admin.listen?")
	case refused.Status == http.StatusServiceUnavailable, refused.Status == http.StatusNotFound:
		return cli.Fail(cli.ExitError, errors.New(cli.OneLine(refused.Text)), "twinspan status shows the roles of the process: ask that of the consumer")
	}
	return cli.Fail(cli.ExitError, errors.New(cli.OneLine(refused.Text)), "nothing was changed")
}

func (a *app) lanesList() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the lanes: position, work, waits, speed",
		Long: `A lane is a connection that writes the target. Each keeps its own position, in the
transaction that applies its rows. With atomicity row every row has its lane; a lane
that waits for another one has a change that must not be made before that one's.`,
		Example: "  twinspan lanes list\n  twinspan lanes list -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			var d admin.Lanes
			if err := a.askLanes(c.Context(), address, http.MethodGet, "/lanes", nil, &d); err != nil {
				return err
			}
			return p.Print(&d, func() error { printLanes(p, &d); return nil })
		},
	}
	c.Flags().StringVar(&address, "admin", "", "the process's admin listener, host:port")
	return c
}

func printLanes(p *cli.Printer, d *admin.Lanes) {
	p.Printf("stream %s into %s, %d lanes, atomicity %s\n", d.Stream, d.Target, len(d.Lanes), d.Atomicity)
	if d.Wanted != len(d.Lanes) {
		p.Printf("%s when all that was read is durable: %d lanes\n", p.Paint("yellow", "changes"), d.Wanted)
	}
	printThrottle(p, &d.Throttle)
	p.Printf("\n")
	var rows [][]string
	for _, l := range d.Lanes {
		waits := "-"
		if l.WaitsFor != nil {
			waits = fmt.Sprint(*l.WaitsFor)
		}
		rows = append(rows, []string{fmt.Sprint(l.Lane), fmt.Sprintf("%d/%d", l.Offset, l.Index), fmt.Sprint(l.Pending), waits,
			fmt.Sprintf("%.3f s", l.Lag), fmt.Sprintf("%.0f", l.Rate), fmt.Sprint(l.Rows), fmt.Sprint(l.Batches), fmt.Sprint(l.BatchRows),
			fmt.Sprintf("%.0f ms", 1000*l.BatchTime), cli.OneLine(l.Condition)})
	}
	p.Rows([]string{"lane", "position", "pending", "waits for", "lag", "rows/s", "rows", "batches", "batch rows", "batch time", ""}, rows)
}

func printThrottle(p *cli.Printer, t *admin.Throttle) {
	var limits []string
	if t.RowsPerSecond > 0 {
		limits = append(limits, fmt.Sprintf("%d rows/s", t.RowsPerSecond))
	}
	if t.ReplicaLag > 0 {
		limits = append(limits, fmt.Sprintf("replicas at most %s behind", time.Duration(t.ReplicaLag*float64(time.Second))))
	}
	if t.ThreadsRunning > 0 {
		limits = append(limits, fmt.Sprintf("at most %d threads running", t.ThreadsRunning))
	}
	if len(limits) == 0 {
		p.Printf("throttle: none\n")
		return
	}
	p.Printf("throttle: %s; paused for %.0f s so far\n", strings.Join(limits, ", "), t.PausedSeconds)
	if t.Paused != "" {
		p.Printf("%s: %s\n", p.Paint("yellow", "paused"), t.Paused)
	}
	if t.Trouble != "" {
		p.Printf("%s: %s\n", p.Paint("red", "can't tell"), t.Trouble)
	}
}

func (a *app) lanesSet() *cobra.Command {
	var address string
	var patience time.Duration
	c := &cobra.Command{
		Use:   "set N",
		Short: "Change the number of lanes while the process runs",
		Long: `The lanes finish what was read, their positions become one, and N lanes go on from
there. It holds until the process ends; put apply.lanes into the configuration to keep
it. A crash at any moment leaves either the old lanes or the new ones.`,
		Example: "  twinspan lanes set 16\n  twinspan lanes set 4 --wait 0s -o json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, words []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(words[0])
			if err != nil || n < 1 || n > lanesMost {
				return cli.Usage("%q lanes: a whole number from 1 to %d", words[0], lanesMost)
			}
			var set admin.SetLanes
			if err := a.askLanes(c.Context(), address, http.MethodPost, "/control/lanes", admin.SetLanes{Lanes: n}, &set); err != nil {
				return err
			}
			r := struct {
				Lanes int  `json:"lanes"`
				Done  bool `json:"done"`
			}{Lanes: n}
			for until := time.Now().Add(patience); ; {
				var d admin.Lanes
				if err := a.askLanes(c.Context(), address, http.MethodGet, "/lanes", nil, &d); err != nil {
					return err
				}
				if r.Done = len(d.Lanes) == n; r.Done || time.Now().After(until) {
					break
				}
				select {
				case <-time.After(100 * time.Millisecond):
				case <-c.Context().Done():
					return c.Context().Err()
				}
			}
			return p.Print(r, func() error {
				if r.Done {
					p.Printf("%d lanes\n", n)
				} else {
					p.Printf("not yet: %d lanes begin when all that was read is durable; twinspan lanes shows it\n", n)
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&address, "admin", "", "the process's admin listener, host:port")
	c.Flags().DurationVar(&patience, "wait", 10*time.Second, "how long to wait for it")
	return c
}

// lanesMost is the configuration's bound, too.
const lanesMost = 256

func (a *app) lanesThrottle() *cobra.Command {
	var address string
	var off bool
	var t admin.Throttle
	var lag time.Duration
	c := &cobra.Command{
		Use:   "throttle",
		Short: "Spare the target while the process runs, or stop sparing it",
		Long: `Sets the limits that are named and leaves the others; without a flag it shows them.
0 takes a limit away, --off all of them. What is held back waits in the log. It holds
until the process ends, or reads another apply.throttle at SIGHUP; put it there to
keep it.`,
		Example: "  twinspan lanes throttle --rows-per-second 5000\n  twinspan lanes throttle --replica-lag 10s --threads-running 40\n  twinspan lanes throttle --off",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.printer()
			if err != nil {
				return err
			}
			var d admin.Lanes
			show := func() error {
				return a.askLanes(c.Context(), address, http.MethodGet, "/lanes", nil, &d)
			}
			if err := show(); err != nil {
				return err
			}
			now, flags := d.Throttle, c.Flags()
			next := admin.Throttle{RowsPerSecond: now.RowsPerSecond, ReplicaLag: now.ReplicaLag, Replicas: now.Replicas, ThreadsRunning: now.ThreadsRunning}
			changed := off
			if off {
				next = admin.Throttle{Replicas: now.Replicas}
			}
			for name, set := range map[string]func(){
				"rows-per-second": func() { next.RowsPerSecond = t.RowsPerSecond },
				"replica-lag":     func() { next.ReplicaLag = lag.Seconds() },
				"threads-running": func() { next.ThreadsRunning = t.ThreadsRunning },
			} {
				if flags.Changed(name) {
					set()
					changed = true
				}
			}
			if changed {
				var taken admin.Throttle
				if err := a.askLanes(c.Context(), address, http.MethodPost, "/control/throttle", next, &taken); err != nil {
					return err
				}
				if err := show(); err != nil {
					return err
				}
			}
			return p.Print(&d.Throttle, func() error { printThrottle(p, &d.Throttle); return nil })
		},
	}
	f := c.Flags()
	f.StringVar(&address, "admin", "", "the process's admin listener, host:port")
	f.IntVar(&t.RowsPerSecond, "rows-per-second", 0, "row changes written per second")
	f.DurationVar(&lag, "replica-lag", 0, "nothing is written while a replica of the target is behind by more")
	f.IntVar(&t.ThreadsRunning, "threads-running", 0, "nothing is written while more threads run on the target")
	f.BoolVar(&off, "off", false, "take every limit away")
	return c
}
