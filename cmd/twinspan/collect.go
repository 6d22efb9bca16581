package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/consumer"
	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/daemon"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/client"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/producer"
)

// status puts together what /status says.
func (p *process) status(ctx context.Context) *admin.Document {
	d := &admin.Document{
		Version: version, Stream: p.cfg.Stream, City: p.cfg.City, PID: os.Getpid(), StartedAt: p.started, At: time.Now().UTC(),
		Ready: p.daemon.Ready() == nil, Roles: p.daemon.Status(), Log: p.logStatus(ctx),
	}
	if x := p.producer.Load(); x != nil {
		s := x.Status()
		d.Producer = &admin.ProducerStatus{
			Server: s.Server, Version: s.ServerVersion, Flavor: s.Flavor, Connected: s.Connected, GTIDSet: s.GTIDSet,
			Offset: s.Offset, Protected: s.Protected, File: s.File, FilePosition: s.Position, CommitTime: s.CommitTime,
		}
		d.Lag.SourceToLog = lagOfProducer(s)
	}
	a, c := p.applier.Load(), p.consumer.Load()
	if a != nil && c != nil {
		s, r := a.Status(), c.Status(ctx)
		d.Applier = applierStatus(p.cfg.Target.Address, s, r)
		d.Lag.SourceToTarget = lagOfApplier(s, r, d.At, d.Log.Error == "")
	}
	d.Lag.EndToEnd = larger(d.Lag.SourceToLog, d.Lag.SourceToTarget)
	return d
}

func (p *process) logStatus(ctx context.Context) *admin.LogStatus {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s := &admin.LogStatus{Where: p.where(), First: 0, LAC: log.None, LSO: log.None}
	b, err := p.log.Bounds(ctx, p.cfg.Stream)
	var cursors []log.Cursor
	if err == nil {
		s.Exists, s.First, s.LAC, s.LSO, s.Epoch = true, b.First, b.LAC, b.LSO, b.Epoch
		cursors, err = p.log.Cursors(ctx, p.cfg.Stream)
	}
	if err != nil && !errors.Is(err, log.ErrNoStream) {
		s.Error = err.Error()
	}
	for _, c := range cursors {
		s.Cursors = append(s.Cursors, admin.CursorStatus{Group: c.Group, Offset: c.Offset, Behind: log.Behind(ctx, p.log, p.cfg.Stream, c.Offset, b.LAC), UpdatedAt: c.UpdatedAt})
	}
	if p.node != nil {
		st := p.node.Stats()
		s.Node = &admin.NodeStatus{Dir: p.cfg.Node.Dir, UsedBytes: st.Segment.DiskBytes}
		var disk unix.Statfs_t
		if err := unix.Statfs(p.cfg.Node.Dir, &disk); err == nil {
			s.Node.FreeBytes = int64(disk.Bavail) * disk.Bsize
		}
	}
	return s
}

func applierStatus(target string, s applier.Status, r consumer.Status) *admin.ApplierStatus {
	out := &admin.ApplierStatus{
		Target: target, Group: r.Group, GTIDSet: s.GTIDSet, Offset: s.Floor.Offset, Lanes: len(s.Lanes), WindowBytes: s.WindowBytes,
		CommitTime: s.Newest, Rows: s.Rows, Transactions: s.Transactions, DDLs: s.DDLs, Retries: s.Retries,
		Conflicts: s.Conflicts, Exceptions: s.Exceptions, Atomicity: s.Atomicity, Paused: s.Throttle.Paused,
	}
	for _, l := range s.Lanes {
		out.Pending += l.Pending
		if l.WaitsFor >= 0 {
			out.LanesWaiting++
		}
	}
	return out
}

// lagOfProducer is not known while the producer can't see its source.
func lagOfProducer(s producer.Status) *float64 {
	if !s.Connected || s.State != producer.StateRunning {
		return nil
	}
	return &s.LagSeconds
}

// lagOfApplier is the age of the oldest transaction in the log that is not on the
// target. One that was not read yet counts from the newest one that was. While
// the log can't be seen, nobody knows what is in it.
func lagOfApplier(s applier.Status, r consumer.Status, now time.Time, logSeen bool) *float64 {
	since := func(t *time.Time) *float64 {
		if t == nil {
			return nil
		}
		v := max(0, now.Sub(*t).Seconds())
		return &v
	}
	switch {
	case !s.Owner, r.Halt != nil, r.Trouble != "":
		return since(s.Newest) // at most this old: more is not known
	case s.Pending != nil:
		return &s.LagSeconds
	case !logSeen:
		return nil
	case r.Behind > 0 && r.Read != nil:
		return since(r.Read)
	}
	zero := 0.0
	return &zero
}

// logAway is nil while the log answers. A reader says nothing of a node that is
// gone for a moment; it comes back to it by itself.
func (p *process) logAway(ctx context.Context) error {
	if _, err := p.log.Bounds(ctx, p.cfg.Stream); err != nil && !errors.Is(err, log.ErrNoStream) {
		return err
	}
	return nil
}

func larger(a, b *float64) *float64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

func (p *process) insideNode() ([]daemon.Halt, string) {
	s := p.node.Stats()
	switch {
	case s.State == node.StateQuarantined:
		return []daemon.Halt{{Code: "QUARANTINED", Detail: "the cluster was taken over without this node; it serves nothing, and exports what only it has",
			Remedy: "twinspan log nodes shows the export; twinspan log nodes rejoin " + s.Name + " takes it in again", Since: p.started}}, ""
	case s.Segment.Full:
		return nil, log.ErrFull.Error()
	case !s.Leader:
		return nil, "the metadata has no leader: nothing is opened or closed; twinspan log nodes shows who is away"
	case s.State == node.StateStarting:
		return nil, "not registered in the metadata yet"
	}
	return nil, p.security.trouble()
}

func (p *process) insideProducer() ([]daemon.Halt, string) {
	x := p.producer.Load()
	if x == nil {
		return nil, ""
	}
	s := x.Status()
	switch {
	case s.Halt != nil:
		return []daemon.Halt{{Code: s.Halt.Code, Detail: s.Halt.Detail, Remedy: s.Halt.Remedy, GTID: s.Halt.GTID, Since: s.Halt.Since}}, ""
	case s.State == producer.StateTrouble:
		return nil, s.LastError
	case s.State == producer.StateStarting:
		return nil, "looking at the source and the log"
	}
	return nil, writerTrouble(p.log, p.cfg.Stream)
}

// writerTrouble says why the stream's writer in this process can't have anything
// confirmed; "" when it can.
func writerTrouble(l log.Log, stream string) string {
	c, ok := l.(interface{ Stats() client.Stats })
	if !ok {
		return ""
	}
	for _, w := range c.Stats().Writers {
		if w.Stream != stream || w.Error != "" {
			continue
		}
		if w.Blocked != "" {
			return "the log waits: " + w.Blocked
		}
		var all []quorum.Member
		var answering uint64
		var away []string
		for i, m := range w.Members {
			all = append(all, m.Member)
			if m.Error == "" {
				answering |= 1 << i
			} else {
				away = append(away, m.Node+": "+m.Error)
			}
		}
		if q, err := w.Rule.Of(all); err == nil && !q.Ack(answering) {
			return fmt.Sprintf("the log waits: nothing can be confirmed (%s) without %s", w.Rule, strings.Join(away, "; "))
		}
	}
	return ""
}

func (p *process) insideConsumer() (halts []daemon.Halt, trouble string) {
	a, c := p.applier.Load(), p.consumer.Load()
	if a == nil || c == nil {
		return nil, ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, r, away := a.Status(), c.Status(ctx), p.logAway(ctx)
	for _, h := range s.Halts {
		halts = append(halts, daemon.Halt{Code: string(h.Code), Detail: h.Reason, Remedy: h.Remedy, Offset: h.Place.Offset, Since: h.Since})
	}
	if h := r.Halt; h != nil {
		halts = append(halts, daemon.Halt{Code: string(h.Code), Detail: h.Reason, Remedy: h.Remedy, Offset: h.Offset, Since: h.Since})
	}
	switch {
	case len(s.Troubles) > 0:
		trouble = s.Troubles[0]
	case r.Trouble != "":
		trouble = r.Trouble
	case away != nil:
		trouble = away.Error()
	case !s.Owner:
		trouble = "taking the stream over on the target"
	}
	return halts, trouble
}

// meter gives the process's own metrics, and those of the parts that are made
// anew at each start of their role.
type meter struct{ p *process }

var (
	descInfo     = prometheus.NewDesc("twinspan_build_info", "1, with the version.", []string{"version", "go"}, nil)
	descRole     = prometheus.NewDesc("twinspan_role_state", "1 for the state that a role is in.", []string{"role", "state"}, nil)
	descRestarts = prometheus.NewDesc("twinspan_role_restarts_total", "How often a role was started again.", []string{"role"}, nil)
	descHalted   = prometheus.NewDesc("twinspan_halted", "1 for each halt of a role, with its code.", []string{"role", "code"}, nil)
	descLag      = prometheus.NewDesc("twinspan_lag_seconds", "Age of the oldest transaction on its way, by the source's commit time; NaN: not known.", []string{"stream", "path"}, nil)
)

// Describe implements prometheus.Collector. The parts' metrics are left out: a
// part may not be there yet.
func (m *meter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInfo, descRole, descRestarts, descHalted, descLag} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *meter) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(descInfo, 1, version, buildInfo().Go)
	for _, s := range m.p.daemon.Status() {
		for _, state := range []daemon.State{daemon.Starting, daemon.Running, daemon.Halted, daemon.Retrying, daemon.Stopped} {
			v := 0.0
			if s.State == state {
				v = 1
			}
			gauge(descRole, v, s.Role, string(state))
		}
		ch <- prometheus.MustNewConstMetric(descRestarts, prometheus.CounterValue, float64(s.Restarts), s.Role)
		seen := map[string]bool{}
		for _, h := range s.Halts {
			if !seen[h.Code] {
				seen[h.Code] = true
				gauge(descHalted, 1, s.Role, h.Code)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	now := time.Now().UTC()
	if x := m.p.producer.Load(); x != nil {
		gauge(descLag, orNaN(lagOfProducer(x.Status())), m.p.cfg.Stream, "source_to_log")
	}
	if a, c := m.p.applier.Load(), m.p.consumer.Load(); a != nil && c != nil {
		gauge(descLag, orNaN(lagOfApplier(a.Status(), c.Status(ctx), now, m.p.logAway(ctx) == nil)), m.p.cfg.Stream, "source_to_target")
	}
}

func orNaN(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

// part is the collector of a part that is there at times.
type part struct{ get func() prometheus.Collector }

// Describe sends nothing: the part's metrics are not known beforehand.
func (part) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c part) Collect(ch chan<- prometheus.Metric) {
	if inner := c.get(); inner != nil {
		inner.Collect(ch)
	}
}
