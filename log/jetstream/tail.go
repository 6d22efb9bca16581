package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// message is one message of a JetStream stream and what its mark says.
type message struct {
	seq     uint64
	mark    mark
	payload []byte
}

// errNoMessage is the answer to a question for a message that is not there.
var errNoMessage = errors.New("no such message")

// get asks the stream's leader for one message. by: {"seq":n}, {"last_by_subj":s},
// or {"seq":n,"next_by_subj":s} for the first one from n on.
func (l *Log) get(ctx context.Context, n names, by map[string]any) (message, error) {
	request, err := json.Marshal(by)
	if err != nil {
		return message{}, err
	}
	var out message
	err = l.try(ctx, func(ctx context.Context, api js.JetStream) error {
		reply, err := api.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+n.js, request)
		if err != nil {
			return err
		}
		var r struct {
			Error   *js.APIError `json:"error"`
			Message *struct {
				Subject string `json:"subject"`
				Seq     uint64 `json:"seq"`
				Header  []byte `json:"hdrs"`
				Data    []byte `json:"data"`
			} `json:"message"`
		}
		if err := json.Unmarshal(reply.Data, &r); err != nil {
			return fmt.Errorf("reply to a request for a message: %w: %w", log.ErrProtocol, err)
		}
		switch {
		case r.Error != nil && r.Error.ErrorCode == js.JSErrCodeMessageNotFound:
			return errNoMessage
		case r.Error != nil && r.Error.ErrorCode == js.JSErrCodeStreamNotFound:
			return log.ErrNoStream
		case r.Error != nil:
			return r.Error
		case r.Message == nil:
			return fmt.Errorf("reply to a request for a message is empty: %w", log.ErrProtocol)
		}
		h, err := nats.DecodeHeadersMsg(r.Message.Header)
		if err != nil {
			h = nats.Header{} // parseMark says what is wrong
		}
		out.seq, out.payload = r.Message.Seq, r.Message.Data
		if out.mark, err = parseMark(h.Get(markHeader), r.Message.Data, true); err != nil {
			return fmt.Errorf("message %d: %w", r.Message.Seq, err)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errNoMessage) {
		err = fmt.Errorf("message %v of %s: %w", by, n.js, err)
	}
	return out, err
}

// tail is where a stream stands.
type tail struct {
	seq    uint64     // the stream's last sequence
	opened uint64     // sequence of the newest fence; 0: the stream has had no writer
	epoch  log.Epoch  // of that fence
	valid  uint64     // sequence of the newest entry that counts, or of the fence
	offset log.Offset // of that entry
	lac    log.Offset // what its writer had seen confirmed when it sent the entry
	lso    log.Offset
	last   map[log.Topic]log.Offset
}

// chain goes on behind the newest entry that counts.
func (t *tail) chain() chain {
	return chain{fence: t.opened, epoch: t.epoch, seq: t.valid, next: t.offset + 1}
}

// at moves the tail to a message that counts.
func (t *tail) at(m message) {
	t.valid, t.offset, t.lac, t.lso, t.last = m.seq, m.mark.offset, m.mark.lac, m.mark.lso, m.mark.last
}

// tail finds the newest entry that counts.
func (l *Log) tail(ctx context.Context, n names) (tail, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.RequestTimeout)
	defer cancel()
	for {
		t, ok, err := l.tailOnce(ctx, n)
		if ok || err != nil {
			return t, err
		}
		select { // the stream moved under us
		case <-ctx.Done():
			return tail{}, fmt.Errorf("%w: %w", log.ErrUnavailable, ctx.Err())
		case <-l.closed:
			return tail{}, l.alive()
		case <-time.After(time.Millisecond):
		}
	}
}

// tailOnce looks at the last message and the last fence. What lies between the
// newest entry that is known to count and the last message is walked: usually
// nothing, at most what a writer has in flight.
func (l *Log) tailOnce(ctx context.Context, n names) (t tail, ok bool, err error) {
	newest, err := l.get(ctx, n, map[string]any{"last_by_subj": n.base + ".>"})
	if errors.Is(err, errNoMessage) {
		return l.emptyTail(ctx, n)
	}
	if err != nil {
		return tail{}, false, err
	}
	fence := newest
	if !newest.mark.fence {
		if fence, err = l.get(ctx, n, map[string]any{"last_by_subj": n.fences()}); err != nil {
			return tail{}, false, suspectIfMissing(err)
		}
	}
	if fence.seq > newest.seq || newest.mark.opened > fence.seq {
		return tail{}, false, nil // a new writer came in between, or a leader that lags answered
	}
	t = tail{
		seq: newest.seq, opened: fence.seq, epoch: fence.mark.epoch,
	}
	t.at(fence)
	if newest.seq == fence.seq {
		return t, true, nil
	}
	if known := l.knownTail(n); known.opened == t.opened && known.valid > t.valid {
		t.valid, t.offset, t.lac, t.lso, t.last = known.valid, known.offset, known.lac, known.lso, known.last
	}
	// What a writer had confirmed when it sent an entry counts.
	if k := &newest.mark; k.opened == t.opened && k.lac > t.offset {
		at, err := l.get(ctx, n, map[string]any{"seq": t.valid + uint64(k.lac-t.offset)})
		if err != nil {
			return tail{}, false, suspectIfMissing(err)
		}
		if at.mark.fence || at.mark.offset != k.lac || at.mark.opened != t.opened {
			return tail{}, false, fmt.Errorf("message %d is not entry %d: %w", at.seq, k.lac, log.ErrSuspect)
		}
		t.at(at)
	}
	if t.valid+1 == newest.seq && newest.mark.opened == t.opened && newest.mark.offset == t.offset+1 {
		t.at(newest)
	} else if t.valid < newest.seq {
		if err := l.walk(ctx, n, &t, newest.seq); err != nil {
			if errors.Is(err, errHole) { // retention, while we walked
				return tail{}, false, nil
			}
			return tail{}, false, err
		}
	}
	l.knowTail(n, t)
	return t, true, nil
}

// knownTail is what an earlier look found; entries that count go on counting.
func (l *Log) knownTail(n names) tail {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tails[n.token]
}

func (l *Log) knowTail(n names, t tail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, known := l.tails[n.token]; !known && len(l.tails) >= tailsMax || old.valid > t.valid {
		return
	}
	l.tails[n.token] = t
}

// tailsMax bounds the streams whose tails are remembered.
const tailsMax = 4096

func suspectIfMissing(err error) error {
	if errors.Is(err, errNoMessage) {
		return fmt.Errorf("%w: %w", log.ErrSuspect, err)
	}
	return err
}

// emptyTail makes sure that a stream without messages never had any.
func (l *Log) emptyTail(ctx context.Context, n names) (t tail, ok bool, err error) {
	info, err := l.info(ctx, n)
	if err != nil {
		return tail{}, false, err
	}
	if info.State.Msgs > 0 {
		return tail{}, false, nil
	}
	if info.State.LastSeq > 0 {
		return tail{}, false, fmt.Errorf("JetStream stream %s had %d messages and has none: %w", n.js, info.State.LastSeq, log.ErrSuspect)
	}
	return tail{offset: log.None, lso: log.None}, true, nil
}

func (l *Log) info(ctx context.Context, n names) (info *js.StreamInfo, err error) {
	err = l.try(ctx, func(ctx context.Context, api js.JetStream) error {
		s, err := api.Stream(ctx, n.js)
		if errors.Is(err, js.ErrStreamNotFound) {
			return log.ErrNoStream
		}
		if err == nil {
			info = s.CachedInfo() // of this very request
		}
		return err
	})
	return info, err
}

// place is where a reader starts.
type place struct {
	seq    uint64    // sequence of the entry, when it exists
	opened uint64    // sequence of the newest fence before it
	epoch  log.Epoch // of that fence
}

// locate finds the sequence of the entry at an offset. Behind its fence a writer's
// entries are dense, so it lies as far behind the newest fence that was set at or
// below it as it lies above that fence's offset. Fences are never removed.
func (l *Log) locate(ctx context.Context, n names, t tail, at log.Offset) (place, error) {
	if t.opened == 0 {
		return place{seq: 1}, nil
	}
	behind := func(f message) place {
		return place{seq: f.seq + uint64(at-f.mark.offset), opened: f.seq, epoch: f.mark.epoch}
	}
	fence, err := l.fenceFrom(ctx, n, t.opened)
	if err != nil {
		return place{}, err
	}
	if fence.mark.offset < at {
		return behind(fence), nil
	}
	// The first sequence from which on every fence lies at or above the entry:
	// right before it is the fence we want.
	x := sort.Search(int(t.opened), func(i int) bool {
		if err != nil {
			return true
		}
		var f message
		f, err = l.fenceFrom(ctx, n, uint64(i)+1)
		return err == nil && f.mark.offset >= at
	})
	if err != nil {
		return place{}, err
	}
	if fence, err = l.fenceFrom(ctx, n, uint64(max(x, 1))); err != nil {
		return place{}, err
	}
	if x == 0 || fence.seq != uint64(x) || fence.mark.offset >= at {
		return place{}, fmt.Errorf("no fence of %s before entry %d: %w", n.js, at, log.ErrSuspect)
	}
	return behind(fence), nil
}

// fenceFrom is the first fence from a sequence on.
func (l *Log) fenceFrom(ctx context.Context, n names, seq uint64) (message, error) {
	f, err := l.get(ctx, n, map[string]any{"seq": seq, "next_by_subj": n.fences()})
	if err == nil && !f.mark.fence {
		err = fmt.Errorf("message %d of %s is no fence: %w", f.seq, n.js, log.ErrSuspect)
	}
	return f, suspectIfMissing(err)
}
