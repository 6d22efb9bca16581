// Package jetstream is the log on a NATS JetStream cluster: the same contract on
// servers that are already there. See DESIGN.md for how fencing works and for
// what JetStream can't promise.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// Log is a log.Log on JetStream. It connects when it is used; each writer has a
// connection of its own.
type Log struct {
	cfg    Config
	closed chan struct{} // closed by Close
	once   sync.Once
	// shared lets a stream take the subjects of every epoch, as a server does
	// that has not heard of the latest one yet. Set only by tests.
	shared bool

	mu   sync.Mutex
	nc   *nats.Conn // nil until the first use
	js   js.JetStream
	kv   js.KeyValue
	open map[interface{ Close() error }]struct{} // writers and readers
	// tails are the newest entries known to count, by token.
	tails map[string]tail
}

// New checks the configuration.
func New(cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Log{cfg: cfg, closed: make(chan struct{}), open: map[interface{ Close() error }]struct{}{}, tails: map[string]tail{}}, nil
}

// Close ends the writers and readers of this Log, without waiting for what they
// have in flight, and its connections.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.closed) })
	l.mu.Lock()
	open := l.open
	l.open = map[interface{ Close() error }]struct{}{}
	nc := l.nc
	l.mu.Unlock()
	for o := range open {
		_ = o.Close() // what was in flight is unknown, which its owner was told
	}
	if nc != nil {
		nc.Close()
	}
	return nil
}

func (l *Log) alive() error {
	select {
	case <-l.closed:
		return fmt.Errorf("jetstream log: %w", log.ErrClosed)
	default:
		return nil
	}
}

func (l *Log) adopt(o interface{ Close() error }) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(); err != nil {
		return err
	}
	l.open[o] = struct{}{}
	return nil
}

func (l *Log) disown(o interface{ Close() error }) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, o)
}

// dial connects. own says that the connection is one writer's, which must not
// come back by itself: what was sent would be in doubt.
func (l *Log) dial(own bool, more ...nats.Option) (*nats.Conn, error) {
	o := []nats.Option{
		nats.Name(l.cfg.Name), nats.Timeout(l.cfg.DialTimeout), nats.PingInterval(3 * time.Second), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(10 * time.Second), nats.NoCallbacksAfterClientClose(),
		// Left alone, the client library writes to standard error.
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.cfg.Logger.Debug().Err(err).Msg("NATS connection")
		}),
		// A publish while there is no connection fails instead of waiting for
		// one: a later entry must not overtake it.
		nats.ReconnectBufSize(-1),
	}
	if own {
		o = append(o, nats.NoReconnect())
	} else {
		o = append(o, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	}
	if l.cfg.Credentials != "" {
		o = append(o, nats.UserCredentials(l.cfg.Credentials))
	}
	if l.cfg.TLS != nil {
		o = append(o, nats.Secure(l.cfg.TLS))
	}
	nc, err := nats.Connect(strings.Join(l.cfg.Servers, ","), append(o, more...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", strings.Join(l.cfg.Servers, ", "), log.ErrUnavailable, err)
	}
	if err := checkServer(nc); err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nil
}

// conn is the connection that everything but writers shares.
func (l *Log) conn() (js.JetStream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.alive(); err != nil {
		return nil, err
	}
	if l.nc != nil {
		return l.js, nil
	}
	nc, err := l.dial(false)
	if err != nil {
		return nil, err
	}
	api, err := js.New(nc, js.WithDefaultTimeout(5*time.Second))
	if err != nil {
		nc.Close()
		return nil, err
	}
	l.nc, l.js = nc, api
	return api, nil
}

// try runs f, again and again while it fails for reasons that pass: servers that
// restart, elections. Each attempt has an end of its own, because a server that
// is frozen answers nothing. What f does must bear repetition.
func (l *Log) try(ctx context.Context, f func(ctx context.Context, api js.JetStream) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.RequestTimeout)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		api, err := l.conn()
		if err == nil {
			attempt, end := context.WithTimeout(ctx, min(4*time.Second, l.cfg.RequestTimeout))
			unhook := l.cutOff(end)
			err = f(attempt, api)
			unhook()
			end()
		}
		if err == nil {
			return nil
		}
		if dead := l.alive(); dead != nil {
			return dead
		}
		if !passing(err) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-l.closed:
		case <-ctx.Done():
			if errors.Is(err, log.ErrUnavailable) {
				return errors.Join(ctx.Err(), err)
			}
			return fmt.Errorf("%w: %w", log.ErrUnavailable, errors.Join(ctx.Err(), err))
		}
	}
}

// cutOff calls cancel when the Log is closed, until the function it returns is
// called.
func (l *Log) cutOff(cancel context.CancelFunc) (unhook func()) {
	done := make(chan struct{}) // closed by unhook
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-l.closed:
			cancel()
		case <-done:
		}
	})
	return func() {
		close(done)
		watch.Wait()
	}
}

// passing says that the same request may well succeed in a moment.
func passing(err error) bool {
	var api *js.APIError
	if errors.As(err, &api) {
		return api.ErrorCode == codeNoPeers || api.Code == 503 || api.Code == 408 || api.Code == 500 && api.ErrorCode != codeStoreFailed
	}
	for _, e := range []error{
		log.ErrUnavailable, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrStaleConnection, nats.ErrNoServers, nats.ErrConnectionClosed, js.ErrNoStreamResponse, context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// The servers' error codes that are told apart.
const (
	codeWrongLastSequence         = 10071
	codeWrongLastSequenceConstant = 10164
	codeStoreFailed               = 10077
	codeNoResources               = 10023
	codeNoPeers                   = 10005 // also while a server is only just coming
)

// Streams lists the streams of the prefix.
func (l *Log) Streams(ctx context.Context) ([]string, error) {
	var out []string
	err := l.try(ctx, func(ctx context.Context, api js.JetStream) error {
		out = nil
		list := api.StreamNames(ctx, js.WithStreamListSubject(l.cfg.Prefix+".>"))
		for name := range list.Name() {
			t, ours := strings.CutPrefix(name, l.cfg.Prefix+"_")
			if !ours {
				continue
			}
			s, err := untoken(t)
			if err != nil {
				return err
			}
			out = append(out, s)
		}
		if err := list.Err(); err != nil && !errors.Is(err, js.ErrEndOfData) {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	slices.Sort(out)
	return out, nil
}

// Bounds of the stream, as its leader has them.
func (l *Log) Bounds(ctx context.Context, stream string) (log.Bounds, error) {
	n, err := l.cfg.names(stream)
	if err != nil {
		return log.Bounds{}, err
	}
	t, err := l.tail(ctx, n)
	var b log.Bounds
	if err == nil {
		b, err = l.bounds(ctx, n, t)
	}
	if err != nil {
		return log.Bounds{}, fmt.Errorf("bounds of stream %q: %w", stream, err)
	}
	return b, nil
}

func (l *Log) bounds(ctx context.Context, n names, t tail) (log.Bounds, error) {
	cut, err := l.trimmed(ctx, n)
	return log.Bounds{First: cut, LAC: t.offset, LSO: t.lso, Epoch: t.epoch}, err
}
