// Package daemon keeps the roles of one process running: it starts them in
// order, restarts one that failed, shows one that halted, and stops them in the
// opposite order.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/log"
)

// State of a role.
type State string

// The states.
const (
	Starting State = "starting"
	Running  State = "running"
	Halted   State = "halted"  // stopped by itself, for a reason that needs a person or another server
	Retrying State = "waiting" // failed, will be started again
	Stopped  State = "stopped"
)

// Halt is why a role stopped by itself, in words for people.
type Halt struct {
	Code   string     `json:"code"`
	Detail string     `json:"detail"`
	Remedy string     `json:"remedy,omitempty"`
	GTID   string     `json:"gtid,omitempty"`
	Offset log.Offset `json:"offset,omitempty"` // of the change that can't be applied
	Since  time.Time  `json:"since,omitzero"`
}

// Verdict is what an error of a role means.
type Verdict struct {
	Halt *Halt // nil: a failure that may pass
	// Final: starting again can't help, or would do harm. The role stays
	// halted until the process is restarted.
	Final bool
	// Fatal: the process must end.
	Fatal bool
}

// Role is one part of the process.
type Role struct {
	Name string
	// Run does the role's work until ctx ends or it fails. It calls ready once
	// it works. It is called again, from new, after a failure.
	Run func(ctx context.Context, ready func()) error
	// Judge tells what an error means; nil treats every error as one that may pass.
	Judge func(error) Verdict
	// Inside, when set, tells of a running role whether it stands still by
	// itself, and what it is trying to get over.
	Inside func() (halts []Halt, trouble string)
}

// Status of one role.
type Status struct {
	Role     string    `json:"role"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Error    string    `json:"error,omitempty"` // the last one
	RetryAt  time.Time `json:"retry_at,omitzero"`
	// Halts say why it stands still: the reason it stopped, or what it found
	// while it runs.
	Halts []Halt `json:"halts,omitempty"`
	// Trouble is what a running role is trying to get over by itself.
	Trouble string `json:"trouble,omitempty"`
}

// Pauses before a role is started again.
const (
	pauseMin = 200 * time.Millisecond
	pauseMax = 15 * time.Second
	// pauseHalt is how often a halted role looks whether its reason is gone.
	pauseHalt = 10 * time.Second
	// steady is how long a role must have run for the pause to start small again.
	steady = 30 * time.Second
)

// Daemon runs roles. Create it with New.
type Daemon struct {
	logger zerolog.Logger
	roles  []Role

	mu     sync.Mutex
	status map[string]*Status
	// changed is told of every change of state; nil for none.
	changed func()
	wake    map[string]chan struct{} // owner: the role's keeper; bound 1; never closed
}

// New makes a daemon for the roles, in the order in which they start.
func New(logger zerolog.Logger, roles ...Role) *Daemon {
	d := &Daemon{logger: logger, roles: roles, status: map[string]*Status{}, wake: map[string]chan struct{}{}}
	for _, r := range roles {
		d.status[r.Name] = &Status{Role: r.Name, State: Starting, Since: time.Now().UTC()}
		d.wake[r.Name] = make(chan struct{}, 1)
	}
	return d
}

// OnChange sets a function that is called after a role changed its state, by the
// role's goroutine. Call it before Run.
func (d *Daemon) OnChange(f func()) { d.changed = f }

// Run keeps the roles running until ctx ends, then stops them one after the
// other, the last one first. It returns the error of a role that is fatal.
func (d *Daemon) Run(ctx context.Context) error {
	type kept struct {
		stop context.CancelFunc
		done chan struct{} // owner: the keeper; closed when the role has ended
	}
	var running []kept
	fatal := make(chan error, len(d.roles)) // owner: the keepers; bound: one each; never closed
	for _, r := range d.roles {
		// Not a child of ctx: the roles end in order, not all at once.
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		k := kept{stop: stop, done: make(chan struct{})}
		running = append(running, k)
		go func() {
			defer close(k.done)
			if err := d.keep(own, r); err != nil {
				fatal <- err
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-fatal:
	}
	for i := len(running) - 1; i >= 0; i-- {
		running[i].stop()
		<-running[i].done
	}
	return err
}

// keep runs one role again and again until ctx ends. An error is fatal.
func (d *Daemon) keep(ctx context.Context, r Role) error {
	logger := d.logger.With().Str("role", r.Name).Logger()
	pause, told := pauseMin, ""
	for {
		d.set(r.Name, func(s *Status) { s.State, s.RetryAt = keepHalted(s), time.Time{} })
		logger.Debug().Msg("starting")
		began := time.Now()
		err := r.Run(ctx, func() {
			d.set(r.Name, func(s *Status) { s.State, s.Halts, s.Error = Running, nil, "" })
			logger.Info().Msg("running")
		})
		if ctx.Err() != nil {
			d.set(r.Name, func(s *Status) { s.State, s.RetryAt = Stopped, time.Time{} })
			if err != nil && !errors.Is(err, context.Canceled) {
				logger.Warn().Err(err).Msg("stopped with an error")
			} else {
				logger.Info().Msg("stopped")
			}
			return nil
		}
		if err == nil {
			err = errors.New("ended without being told to")
		}
		var v Verdict
		if r.Judge != nil {
			v = r.Judge(err)
		}
		if v.Fatal {
			d.set(r.Name, func(s *Status) { s.State, s.Error = Stopped, err.Error() })
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		if time.Since(began) > steady {
			pause = pauseMin
		}
		wait := pause + rand.N(pause/2)
		if v.Halt != nil {
			wait = pauseHalt
			level := zerolog.ErrorLevel
			if told == v.Halt.Code+v.Halt.Detail {
				level = zerolog.DebugLevel // still the same
			}
			told = v.Halt.Code + v.Halt.Detail
			logger.WithLevel(level).Str("halt", v.Halt.Code).Str("gtid", v.Halt.GTID).Str("detail", v.Halt.Detail).
				Str("remedy", v.Halt.Remedy).Bool("final", v.Final).Msg("HALT")
		} else {
			told = ""
			logger.Warn().Err(err).Dur("again_in", wait).Msg("failed, will start again")
			pause = min(2*pause, pauseMax)
		}
		d.set(r.Name, func(s *Status) {
			s.Restarts++
			s.Error, s.Halts = err.Error(), nil
			s.State, s.RetryAt = Retrying, time.Now().UTC().Add(wait)
			if v.Halt != nil {
				h := *v.Halt
				if h.Since.IsZero() {
					h.Since = time.Now().UTC()
				}
				s.State, s.Halts = Halted, []Halt{h}
			}
			if v.Final {
				s.RetryAt = time.Time{}
			}
		})
		var again <-chan time.Time
		if !v.Final {
			t := time.NewTimer(wait)
			again = t.C
		}
		select {
		case <-again:
		case <-d.wake[r.Name]:
		case <-ctx.Done():
			d.set(r.Name, func(s *Status) { s.State, s.RetryAt = Stopped, time.Time{} })
			return nil
		}
	}
}

// keepHalted leaves a halted role shown as halted while it looks again.
func keepHalted(s *Status) State {
	if s.State == Halted {
		return Halted
	}
	return Starting
}

func (d *Daemon) set(name string, f func(*Status)) {
	d.mu.Lock()
	s := d.status[name]
	before := s.State
	f(s)
	changed := s.State != before
	if changed {
		s.Since = time.Now().UTC()
	}
	d.mu.Unlock()
	if changed && d.changed != nil {
		d.changed()
	}
}

// Retry starts halted and waiting roles again at once.
func (d *Daemon) Retry() {
	for _, w := range d.wake {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// Status is the state of every role, in their order.
func (d *Daemon) Status() []Status {
	d.mu.Lock()
	out := make([]Status, 0, len(d.roles))
	for _, r := range d.roles {
		out = append(out, *d.status[r.Name])
	}
	d.mu.Unlock()
	for i, r := range d.roles {
		if s := &out[i]; s.State == Running && r.Inside != nil {
			if s.Halts, s.Trouble = r.Inside(); len(s.Halts) > 0 {
				s.State = Halted
			}
		}
	}
	return out
}

// Ready is nil when every role works, else says which does not.
func (d *Daemon) Ready() error {
	var errs []error
	for _, s := range d.Status() {
		switch {
		case s.State == Running && s.Trouble == "":
		case len(s.Halts) > 0:
			for _, h := range s.Halts {
				errs = append(errs, fmt.Errorf("%s: halt %s: %s", s.Role, h.Code, h.Detail))
			}
		case s.Trouble != "":
			errs = append(errs, fmt.Errorf("%s: %s", s.Role, s.Trouble))
		case s.Error != "":
			errs = append(errs, fmt.Errorf("%s: %s: %s", s.Role, s.State, s.Error))
		default:
			errs = append(errs, fmt.Errorf("%s: %s", s.Role, s.State))
		}
	}
	return errors.Join(errs...)
}
