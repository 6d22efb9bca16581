package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/twinspan/twinspan/log"
)

// OpenWriter fences every earlier writer: first the stream stops taking their
// subjects, then a fence is appended, on the condition that the stream's last
// message and its last fence are the ones that were looked at. What the fence
// says is therefore the stream's end for every earlier epoch.
func (l *Log) OpenWriter(ctx context.Context, stream string) (log.Writer, error) {
	n, err := l.cfg.names(stream)
	if err != nil {
		return nil, err
	}
	w, err := l.openWriter(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("open writer of stream %q: %w", stream, err)
	}
	return w, nil
}

func (l *Log) openWriter(ctx context.Context, n names) (*writer, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	if err := l.checkSync(ctx); err != nil {
		return nil, err
	}
	if err := l.ensureStream(ctx, n); err != nil {
		return nil, err
	}
	f, err := l.fence(ctx, n)
	if err != nil {
		return nil, err
	}
	first, err := l.trimmed(ctx, n)
	if err != nil {
		return nil, err
	}
	w := newWriter(l, n, f, first)
	if err := w.start(); err != nil {
		return nil, err
	}
	if err := l.adopt(w); err != nil {
		w.end(log.ErrClosed)
		w.release()
		return nil, err
	}
	return w, nil
}

// ensureStream makes the stream when there is none, and looks at its rules.
func (l *Log) ensureStream(ctx context.Context, n names) error {
	info, err := l.info(ctx, n)
	if errors.Is(err, log.ErrNoStream) {
		err = l.try(ctx, func(ctx context.Context, api js.JetStream) error {
			s, err := api.CreateStream(ctx, l.streamConfig(n, 1))
			if errors.Is(err, js.ErrStreamNameAlreadyInUse) {
				s, err = api.Stream(ctx, n.js) // another writer was faster
			}
			if err == nil {
				info = s.CachedInfo()
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	return checkConfig(info.Config)
}

func (l *Log) streamConfig(n names, e log.Epoch) js.StreamConfig {
	c := js.StreamConfig{
		Name: n.js, Description: "twinspan log", Subjects: n.subjects(e), Storage: js.FileStorage, Replicas: l.cfg.Replicas,
		Retention: js.LimitsPolicy, Discard: js.DiscardNew, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
		DenyDelete: true, Metadata: map[string]string{"twinspan.stream": n.stream},
	}
	if l.shared {
		c.Subjects = []string{n.base + ".>"}
	}
	if l.cfg.Cluster != "" || len(l.cfg.Tags) > 0 {
		c.Placement = &js.Placement{Cluster: l.cfg.Cluster, Tags: l.cfg.Tags}
	}
	return c
}

// fence opens the next epoch.
func (l *Log) fence(ctx context.Context, n names) (tail, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*l.cfg.RequestTimeout)
	defer cancel()
	nonce := nuid.Next()
	for {
		t, err := l.tail(ctx, n)
		if err != nil {
			return tail{}, err
		}
		next := mark{
			fence: true, epoch: t.epoch + 1, offset: t.offset, lso: t.lso, lac: t.offset, opened: t.opened,
			time: time.Now(), last: t.last, nonce: nonce,
		}
		if err := l.takeOver(ctx, n, next.epoch); err != nil {
			return tail{}, err
		}
		seq, err := l.appendFence(ctx, n, t, next)
		if err == nil {
			return tail{seq: seq, opened: seq, epoch: next.epoch, offset: t.offset, lso: t.lso, last: maps.Clone(t.last)}, nil
		}
		if dead := l.alive(); dead != nil {
			return tail{}, dead
		}
		if ctx.Err() != nil {
			return tail{}, fmt.Errorf("fence: %w: %w", log.ErrUnavailable, errors.Join(ctx.Err(), err))
		}
		var api *js.APIError
		if !passing(err) && !(errors.As(err, &api) && (api.ErrorCode == codeWrongLastSequence || api.ErrorCode == codeWrongLastSequenceConstant)) {
			return tail{}, fmt.Errorf("fence: %w", err)
		}
		// Something else came first, or the answer got lost. In the latter
		// case our own fence is the newest and is simply outdone.
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		case <-l.closed:
		}
	}
}

// takeOver makes the stream take only the subjects of one epoch, and fences. It
// keeps messages of a fenced writer that are still under way from getting in
// between the new one's; that they would not count if they did is the fence's work.
func (l *Log) takeOver(ctx context.Context, n names, e log.Epoch) error {
	if l.shared {
		return nil
	}
	return l.try(ctx, func(ctx context.Context, api js.JetStream) error {
		s, err := api.Stream(ctx, n.js)
		if err != nil {
			return err
		}
		c := s.CachedInfo().Config
		if slices.Equal(c.Subjects, n.subjects(e)) {
			return nil
		}
		c.Subjects = n.subjects(e)
		_, err = api.UpdateStream(ctx, c)
		return err
	})
}

// appendFence appends behind exactly the tail that is given.
func (l *Log) appendFence(ctx context.Context, n names, t tail, m mark) (uint64, error) {
	api, err := l.conn()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	defer l.cutOff(cancel)()
	msg := &nats.Msg{Subject: n.fences(), Header: nats.Header{markHeader: {m.encode(nil)}}}
	a, err := api.PublishMsg(ctx, msg, js.WithExpectStream(n.js), js.WithExpectLastSequence(t.seq), js.WithExpectLastSequencePerSubject(t.opened), js.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	if a.Sequence != t.seq+1 || a.Duplicate {
		return 0, fmt.Errorf("fence behind message %d got sequence %d: %w", t.seq, a.Sequence, log.ErrProtocol)
	}
	return a.Sequence, nil
}
