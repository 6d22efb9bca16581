package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// pull receives the messages of a stream in order, through a consumer that the
// servers forget: where it stands is known here alone. Whenever anything is amiss
// (a message missing from the consumer's own numbering, no heartbeat, a consumer
// that is gone with its server) a new consumer starts at the next message.
type pull struct {
	log     *Log
	names   names
	filters []string // subjects; none: all
	bare    bool     // without payloads
	next    uint64   // stream sequence
	// room blocks until bytes may be asked for, and says how many.
	room func(ctx context.Context) (int64, error)
	// take gets each message; an error ends the pull.
	take func(m message) error
}

const (
	pullMessages  = 1000 // of one request
	pullExpires   = 30 * time.Second
	pullHeartbeat = 3 * time.Second
)

// run receives until the context ends, take fails, or no consumer can be had for
// Config.ReconnectFor.
func (p *pull) run(ctx context.Context) error {
	deadline := time.Now().Add(p.log.cfg.ReconnectFor)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		before := p.next
		err := p.consume(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var fatal *fatalError
		if errors.As(err, &fatal) {
			return fatal.error
		}
		if p.next != before {
			deadline, wait = time.Now().Add(p.log.cfg.ReconnectFor), 10*time.Millisecond
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no consumer of %s for %v: %w: %w", p.names.js, p.log.cfg.ReconnectFor, log.ErrUnavailable, err)
		}
		p.log.cfg.Logger.Debug().Err(err).Str("stream", p.names.stream).Uint64("sequence", p.next).Msg("reading goes on with a new consumer")
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fatalError ends a pull for good.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// consume makes one consumer and receives from it until something is amiss.
func (p *pull) consume(ctx context.Context) error {
	api, err := p.log.conn()
	if err != nil {
		if errors.Is(err, log.ErrClosed) {
			return &fatalError{err}
		}
		return err
	}
	attempt, end := context.WithTimeout(ctx, 4*time.Second)
	consumer, err := api.CreateConsumer(attempt, p.names.js, js.ConsumerConfig{
		DeliverPolicy: js.DeliverByStartSequencePolicy, OptStartSeq: p.next, AckPolicy: js.AckNonePolicy, FilterSubjects: p.filters,
		HeadersOnly: p.bare, Replicas: 1, MemoryStorage: true, InactiveThreshold: 2 * pullExpires,
	})
	end()
	if errors.Is(err, js.ErrStreamNotFound) {
		return &fatalError{fmt.Errorf("%s: %w", p.names.js, log.ErrNoStream)}
	}
	if err != nil {
		return fmt.Errorf("make a consumer: %w", err)
	}
	name := consumer.CachedInfo().Name
	defer func() {
		// Without an answer it goes by itself after InactiveThreshold.
		gone, end := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer end()
		if err := api.DeleteConsumer(gone, p.names.js, name); err != nil {
			p.log.cfg.Logger.Debug().Err(err).Str("consumer", name).Msg("a consumer is left to its timeout")
		}
	}()
	nc := api.Conn()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return err
	}
	unsubscribe := func() { _ = sub.Unsubscribe() } // nothing is in it that is wanted
	defer unsubscribe()
	defer context.AfterFunc(ctx, unsubscribe)() // wakes NextMsg
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err // what may be in it is bounded by what was asked for
	}
	r := receiver{pull: p, nc: nc, sub: sub, subject: "$JS.API.CONSUMER.MSG.NEXT." + p.names.js + "." + name}
	for {
		room, err := p.room(ctx)
		if err != nil {
			return &fatalError{err}
		}
		if err := r.request(room); err != nil {
			return err
		}
	}
}

// receiver is one consumer's numbering.
type receiver struct {
	*pull
	nc      *nats.Conn
	sub     *nats.Subscription
	subject string
	seen    uint64 // messages of this consumer
	big     bool   // the next message is larger than the room: ask for it alone
}

// request asks for messages and receives them until the servers end the request.
func (r *receiver) request(room int64) error {
	ask := map[string]any{"batch": pullMessages, "max_bytes": room, "expires": pullExpires, "idle_heartbeat": pullHeartbeat}
	if r.big {
		ask = map[string]any{"batch": 1, "expires": pullExpires, "idle_heartbeat": pullHeartbeat}
	}
	text, err := json.Marshal(ask)
	if err != nil {
		return err
	}
	if err := r.nc.PublishRequest(r.subject, r.sub.Subject, text); err != nil {
		return err
	}
	for got := 0; got < ask["batch"].(int); {
		m, err := r.sub.NextMsg(2*pullHeartbeat + time.Second)
		if err != nil {
			return fmt.Errorf("no heartbeat of the consumer: %w", err)
		}
		if status := m.Header.Get("Status"); status != "" && len(m.Data) == 0 && !strings.HasPrefix(m.Reply, "$JS.ACK.") {
			what := m.Header.Get("Description")
			switch {
			case status == "100":
				continue
			case status == "408":
				return nil // expired: ask again
			case status == "409" && strings.Contains(what, "MaxBytes"):
				r.big = got == 0
				return nil
			case status == "409" && strings.Contains(what, "Batch Completed"):
				return nil
			}
			return fmt.Errorf("consumer says %s %s", status, what)
		}
		got++
		r.big = false
		if err := r.message(m); err != nil {
			return err
		}
	}
	return nil
}

// message checks the numbering and hands the message on.
func (r *receiver) message(m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	r.seen++
	if meta.Sequence.Consumer != r.seen {
		return fmt.Errorf("message %d of the consumer came where %d should", meta.Sequence.Consumer, r.seen)
	}
	if meta.Sequence.Stream < r.next {
		return nil // a replica that lags began further back
	}
	mark, err := parseMark(m.Header.Get(markHeader), m.Data, !r.bare)
	if err != nil {
		return &fatalError{fmt.Errorf("message %d of %s: %w", meta.Sequence.Stream, r.names.js, err)}
	}
	if err := r.take(message{seq: meta.Sequence.Stream, mark: mark, payload: m.Data}); err != nil {
		return &fatalError{err}
	}
	r.next = meta.Sequence.Stream + 1
	return nil
}
