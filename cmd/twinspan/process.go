package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/applier"
	"github.com/twinspan/twinspan/consumer"
	"github.com/twinspan/twinspan/internal/admin"
	"github.com/twinspan/twinspan/internal/certs"
	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/daemon"
	"github.com/twinspan/twinspan/internal/doctor"
	"github.com/twinspan/twinspan/internal/ops"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/node"
	"github.com/twinspan/twinspan/producer"
	"github.com/twinspan/twinspan/producer/binlog"
)

// process is all parts of a running twinspan, wired together.
type process struct {
	cfg     *config.Config
	logger  zerolog.Logger
	started time.Time
	metrics *prometheus.Registry
	admin   *admin.Server
	daemon  *daemon.Daemon

	security security
	node     *node.Node // nil without the role
	log      log.Log    // the node's, or a client

	// The parts that are made anew at each start of their role.
	producer atomic.Pointer[producer.Producer]
	applier  atomic.Pointer[applier.Applier]
	consumer atomic.Pointer[consumer.Consumer]

	// What was set while running, for the appliers to come.
	lanesSet    atomic.Int64 // 0: as configured
	throttleSet atomic.Pointer[applier.Throttle]
	// throttleRead is what the configuration had when it was read last. It belongs
	// to the goroutine that serves signals.
	throttleRead config.Throttle

	advised sync.Map // check → what was found when it was told last
}

// assemble makes the parts and takes addresses and directories; nothing works
// before run.
func assemble(c *config.Config, logger zerolog.Logger) (p *process, err error) {
	p = &process{cfg: c, logger: logger, started: time.Now().UTC(), metrics: prometheus.NewRegistry(), throttleRead: c.Applier.Throttle}
	var undo []func() error
	defer func() {
		if err != nil {
			for _, f := range undo {
				err = errors.Join(err, f())
			}
		}
	}()
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if p.security, err = openSecurity(c); err != nil {
		return nil, err
	}
	p.security.report(logger)
	p.metrics.MustRegister(certs.Collector(p.security.node, p.security.log))
	var roles []daemon.Role
	if c.Has(config.RoleNode) {
		if p.node, err = node.New(nodeConfig(c, p.security, logger)); err != nil {
			return nil, cli.Fail(cli.ExitError, err, "twinspan doctor node looks at the directory")
		}
		undo = append(undo, p.node.Close)
		p.log = p.node.Log()
		p.metrics.MustRegister(p.node.Collector())
		roles = append(roles, daemon.Role{Name: string(config.RoleNode), Run: p.runNode, Judge: judgeNode, Inside: p.insideNode})
	} else if p.log, err = openLog(c, p.security, logger); err != nil {
		return nil, err
	}
	undo = append(undo, p.log.Close)
	if c.Has(config.RoleProducer) {
		roles = append(roles, daemon.Role{Name: string(config.RoleProducer), Run: p.runProducer, Judge: judge, Inside: p.insideProducer})
	}
	if c.Has(config.RoleConsumer) {
		roles = append(roles, daemon.Role{Name: string(config.RoleConsumer), Run: p.runConsumer, Judge: judge, Inside: p.insideConsumer})
	}
	p.daemon = daemon.New(logger, roles...)
	p.metrics.MustRegister(&meter{p}, logMeter{p.log},
		part{func() prometheus.Collector { return collector(p.producer.Load()) }},
		part{func() prometheus.Collector { return collector(p.consumer.Load()) }},
		part{func() prometheus.Collector { return collector(p.applier.Load()) }})
	p.admin, err = admin.New(admin.Options{
		Listen: c.Admin.Listen, Pprof: c.Admin.Pprof, Metrics: p.metrics, Status: p.status, Views: p.views(), Ready: p.daemon.Ready, Log: logger,
		Control: laneControl{p},
	})
	if err != nil {
		return nil, cli.Fail(cli.ExitError, err, "another process uses the address: set admin.listen")
	}
	return p, nil
}

// run works until ctx ends, or until a part fails that the process can't go on
// without. The admin listener ends last.
func (p *process) run(ctx context.Context) error {
	g := new(errgroup.Group)
	adminCtx, stopAdmin := context.WithCancel(context.WithoutCancel(ctx))
	rolesCtx, stopRoles := context.WithCancel(ctx)
	g.Go(func() error {
		defer stopRoles()
		return p.admin.Run(adminCtx)
	})
	g.Go(func() error {
		defer stopAdmin()
		err := p.daemon.Run(rolesCtx)
		return errors.Join(err, p.log.Close())
	})
	return g.Wait()
}

// retry looks at halts again at once.
func (p *process) retry() {
	if x := p.producer.Load(); x != nil {
		x.Recheck()
	}
	p.daemon.Retry()
}

func (p *process) runNode(ctx context.Context, ready func()) error {
	ready()
	return p.node.Run(ctx)
}

// judgeNode: a journal that died is not used again by this process; its successor
// recovers what is durable.
func judgeNode(error) daemon.Verdict { return daemon.Verdict{Fatal: true} }

func (p *process) runProducer(ctx context.Context, ready func()) error {
	if err := p.preflight(ctx, func(ctx context.Context) (*doctor.Report, error) {
		return lookAtSource(ctx, p.cfg)
	}); err != nil {
		return err
	}
	if err := p.ensureStream(ctx); err != nil {
		return err
	}
	x, err := producer.New(producerConfig(p.cfg), p.log, p.logger.With().Str("role", string(config.RoleProducer)).Logger())
	if err != nil {
		return err
	}
	p.producer.Store(x)
	defer p.producer.Store(nil)
	ready()
	return x.Run(ctx)
}

// ensureStream makes the stream with the configured policy. A client alone would
// take its rule from the nodes that have come so far.
func (p *process) ensureStream(ctx context.Context) error {
	if p.node != nil || p.cfg.Log.Engine != config.EngineTwinspan {
		return nil // its log knows the cluster's list, or is elsewhere
	}
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	c := ops.New(ops.Config{Seeds: logNodes(p.cfg), City: p.cfg.City, Name: "producer", Dial: dialer(p.cfg, p.security.log)})
	_, _, err := c.Create(ctx, p.cfg.Stream, policyOf(p.cfg.Log.Policy))
	return err
}

func (p *process) runConsumer(ctx context.Context, ready func()) error {
	if err := p.preflight(ctx, func(ctx context.Context) (*doctor.Report, error) {
		return lookAtTarget(ctx, p.cfg)
	}); err != nil {
		return err
	}
	logger := p.logger.With().Str("role", string(config.RoleConsumer)).Logger()
	a, err := applier.New(p.applierConfig(), logger)
	if err != nil {
		return err
	}
	reading := consumer.Config{Stream: p.cfg.Stream, Group: p.cfg.Consumer.Group}
	if router, err := p.router(ctx); err != nil {
		return err
	} else if router != nil {
		reading.Router = router
	}
	c, err := consumer.New(reading, p.log, a, logger)
	if err != nil {
		return err
	}
	p.applier.Store(a)
	a.SetThrottle(p.applierConfig().Throttle) // it may have been set since a was made
	p.consumer.Store(c)
	defer p.applier.Store(nil)
	defer p.consumer.Store(nil)
	ready()
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return endless(inner, a.Run(inner)) })
	g.Go(func() error { return endless(inner, c.Run(inner)) })
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// endless makes an end that nobody asked for an error, so that the other part
// ends as well.
func endless(ctx context.Context, err error) error {
	if err == nil && ctx.Err() == nil {
		return errors.New("ended without being told to")
	}
	return err
}

// preflightTimeout bounds how long the checks may delay a start. On a server with
// very many tables some are then not known.
const preflightTimeout = 15 * time.Second

// preflight stops a role while a mandatory check fails. What can't be looked at
// does not stop it: the roles check for themselves whatever they need.
func (p *process) preflight(ctx context.Context, look func(context.Context) (*doctor.Report, error)) error {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	r, err := look(ctx)
	if err != nil {
		return err
	}
	if r.Err != nil {
		return fmt.Errorf("%s %s: %w", r.Subject, r.Where, r.Err)
	}
	r.Accept(p.cfg.Doctor.Accept)
	for _, f := range r.Failed(doctor.Advisory) {
		if old, said := p.advised.Swap(f.Check, f.Detail); !said || old != f.Detail { // once, not at every try
			p.logger.Warn().Str("check", f.Check).Str("found", f.Detail).Str("remedy", f.Remedy).Msg("advice")
		}
	}
	if bad := r.Failed(doctor.Mandatory); len(bad) > 0 {
		return &preflightError{r.Subject, bad}
	}
	return nil
}

// preflightError is what mandatory checks found.
type preflightError struct {
	subject string
	found   []doctor.Finding
}

func (e *preflightError) Error() string {
	var all []string
	for _, f := range e.found {
		all = append(all, fmt.Sprintf("%s: %s", f.Check, f.Detail))
	}
	return fmt.Sprintf("%v: %s", errMandatory, strings.Join(all, "; "))
}

func (e *preflightError) Unwrap() error { return errMandatory }

// judge tells what it means that a role ended.
func judge(err error) daemon.Verdict {
	var flight *preflightError
	if errors.As(err, &flight) {
		first := flight.found[0]
		return daemon.Verdict{Halt: &daemon.Halt{Code: "PREFLIGHT", Detail: flight.Error(),
			Remedy: first.Remedy + "; twinspan doctor " + flight.subject + " --fix-sql prints the statements for all"}}
	}
	if code, remedy, ok := asRulesHalt(err); ok {
		return daemon.Verdict{Halt: &daemon.Halt{Code: code, Detail: err.Error(), Remedy: remedy}}
	}
	if h := binlog.AsHalt(err); h != nil {
		// The producer waits for whatever may pass; it ends only when
		// another owns the stream, and must not take it back.
		detail := h.Detail
		if h.Cause != nil {
			detail += ": " + h.Cause.Error()
		}
		return daemon.Verdict{Final: true, Halt: &daemon.Halt{Code: string(h.Code), Detail: detail, Remedy: h.Remedy, GTID: h.GTID}}
	}
	var cut *applier.Interrupted
	if errors.As(err, &cut) && cut.Halt != nil {
		return daemon.Verdict{Halt: &daemon.Halt{Code: string(cut.Halt.Code), Detail: cut.Halt.Reason, Remedy: cut.Halt.Remedy, Offset: cut.Halt.Place.Offset}}
	}
	if errors.Is(err, applier.ErrFenced) {
		return daemon.Verdict{Final: true, Halt: &daemon.Halt{Code: "FENCED", Detail: err.Error(),
			Remedy: "run one consumer for a stream and target; this one has stopped, restart it only if the other is gone for good"}}
	}
	return daemon.Verdict{}
}

// collector is x as a collector, nil where it is none.
func collector[T any](x *T) prometheus.Collector {
	c, ok := any(x).(prometheus.Collector)
	if x == nil || !ok {
		return nil
	}
	return c
}

// where this process finds the log, in words.
func (p *process) where() string {
	if p.node != nil {
		return "this process"
	}
	return strings.Join(p.cfg.Log.Nodes, ",")
}

func lookAtSource(ctx context.Context, c *config.Config) (*doctor.Report, error) {
	db, err := server.Open(c.Source, doctorOptions)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return doctor.Source(ctx, db, doctor.SourceOptions{Address: c.Source.Address, ServerID: uint32(c.Producer.ServerID)}), nil
}

func lookAtTarget(ctx context.Context, c *config.Config) (*doctor.Report, error) {
	db, err := server.Open(c.Target, doctorOptions)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	o := doctor.TargetOptions{Address: c.Target.Address}
	if c.Source.Address != "" {
		if o.Source, err = server.Open(c.Source, doctorOptions); err != nil {
			return nil, err
		}
		defer o.Source.Close()
	}
	return doctor.Target(ctx, db, o), nil
}

// hostName is shown to people who look at the target's record of its owner.
func hostName() string {
	h, err := os.Hostname()
	if err != nil {
		return "?"
	}
	return h
}
