package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/twinspan/twinspan/internal/cli"
	"github.com/twinspan/twinspan/internal/config"
	"github.com/twinspan/twinspan/internal/daemon"
)

func (a *app) runCommand() *cobra.Command {
	var roles, level string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the roles named in the configuration, until told to stop",
		Long: `Runs any mix of the roles producer, node and consumer in this process.

A wrong configuration ends it with exit code 2 before anything starts. After that
it stays up: what fails is tried again; what can't be replicated exactly halts its
role, with a code and a remedy in the log, in status, in /metrics and in /readyz,
and goes on by itself once the reason is gone, where that is safe.

SIGINT and SIGTERM let what is under way finish; a second one ends at once. SIGHUP
reads the log level and apply.throttle from the configuration again, and looks at
halts at once. A throttle that is not other than it was in the configuration before
leaves alone what twinspan lanes throttle has set.`,
		Example: `  twinspan run -c twinspan.yaml
  twinspan run -c twinspan.yaml --roles node
  TWINSPAN_SOURCE_PASSWORD=… twinspan run --log-level debug`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if roles != "" {
				a.set = append(a.set, "roles="+roles)
			}
			if level != "" {
				a.set = append(a.set, "logging.level="+level)
			}
			l, err := a.load(false)
			if err != nil {
				return err
			}
			return a.runRoles(c.Context(), l)
		},
	}
	c.Flags().StringVar(&roles, "roles", "", "run these roles instead, separated by commas")
	c.Flags().StringVar(&level, "log-level", "", "log at this level instead: trace, debug, info, warn, error")
	return c
}

// What the collector aims at unless GOMEMLIMIT and GOGC say otherwise. The roles
// bound what they hold (the applier's window most of it); the rest may be garbage,
// because marking what is held is a tenth of what a row costs and more. With the
// program itself it is to stay below 256 MiB, which make bench-apply checks.
const (
	heapBytes = 216 << 20
	gcPercent = 200
)

func (a *app) runRoles(ctx context.Context, l *config.Loaded) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapBytes)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	logger := newLogger(a.err, l.Logging)
	if l.City != "" {
		logger = logger.With().Str("city", l.City).Logger()
	}
	for _, w := range l.Warnings {
		logger.Warn().Str("where", w.Where).Str("key", w.Path).Msg(w.What)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 4) // owner: signal.Notify; bound 4; never closed
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	p, err := assemble(l.Config, logger)
	if err != nil {
		return err
	}
	logger.Info().Str("version", version).Str("stream", l.Stream).Strs("roles", roleNames(l.Config)).
		Str("admin", p.admin.Address()).Int("pid", os.Getpid()).Msg("twinspan starts")

	watched := make(chan struct{}) // closed by the goroutine below, which ends with ctx
	go func() {
		defer close(watched)
		a.watch(ctx, stop, signals, p, logger)
	}()
	notify(logger, sd.SdNotifyReady)
	err = p.run(ctx)
	stop()
	<-watched
	if err != nil {
		logger.Error().Err(err).Msg("twinspan ends")
		return cli.Fail(cli.ExitError, err, "the process log has the details")
	}
	logger.Info().Msg("twinspan ends")
	return nil
}

// watch serves signals and systemd until ctx ends.
func (a *app) watch(ctx context.Context, stop context.CancelFunc, signals <-chan os.Signal, p *process, logger zerolog.Logger) {
	var beat <-chan time.Time
	if every, err := sd.SdWatchdogEnabled(false); err == nil && every > 0 {
		t := time.NewTicker(every / 3)
		defer t.Stop()
		beat = t.C
	}
	told := time.NewTicker(2 * time.Second)
	defer told.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat:
			// The roles' states are behind a lock of the daemon: a process
			// that can't even read them is dead.
			_ = p.daemon.Status()
			notify(logger, sd.SdNotifyWatchdog)
		case <-told.C:
			if s := summary(p.daemon); s != last {
				last = s
				notify(logger, "STATUS="+s)
			}
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.reload(p, logger)
				continue
			}
			logger.Info().Stringer("signal", s).Msg("stopping; a second signal ends at once")
			notify(logger, sd.SdNotifyStopping)
			stop()
			go impatient(signals)
			return
		}
	}
}

// impatient ends the process at the next signal. It is joined by nobody: it ends
// with the process, whichever way.
func impatient(signals <-chan os.Signal) {
	for s := range signals {
		if s != syscall.SIGHUP {
			os.Exit(cli.ExitError)
		}
	}
}

// reload takes over what can change while running.
func (a *app) reload(p *process, logger zerolog.Logger) {
	l, err := config.Load(config.Input{Path: a.path(), Env: a.env, Flags: a.set})
	var invalid *config.Invalid
	switch {
	case errors.As(err, &invalid):
		for _, p := range invalid.Problems {
			logger.Error().Str("problem", p.String()).Msg("configuration not taken over")
		}
		return
	case err != nil:
		logger.Error().Err(err).Msg("configuration not taken over")
		return
	}
	setLevel(l.Logging)
	p.security.report(logger)
	p.retry()
	p.readThrottle(l.Applier.Throttle)
	logger.Info().Str("level", l.Logging.Level).Msg("log level and throttle read again; everything else needs a restart")
}

// notify tells systemd; without one it does nothing.
func notify(logger zerolog.Logger, state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		logger.Debug().Err(err).Msg("systemd was not told")
	}
}

// summary is the states of all roles in one line.
func summary(d *daemon.Daemon) string {
	s := ""
	for _, r := range d.Status() {
		if s != "" {
			s += ", "
		}
		s += fmt.Sprintf("%s %s", r.Role, r.State)
		for _, h := range r.Halts {
			s += " (" + h.Code + ")"
		}
	}
	return s
}

func roleNames(c *config.Config) []string {
	var out []string
	for _, r := range config.Roles {
		if c.Has(r) {
			out = append(out, string(r))
		}
	}
	return out
}
