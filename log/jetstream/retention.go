package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// trimDocument says where the entries that are kept begin. It is written before
// anything is removed, so that a reader that finds entries missing knows why.
type trimDocument struct {
	First log.Offset `json:"first"`
}

// trimmed is the oldest entry of the stream that is kept.
func (l *Log) trimmed(ctx context.Context, n names) (log.Offset, error) {
	var d trimDocument
	_, err := l.document(ctx, n, documentTrim, &d)
	return d.First, err
}

// trim is the writer's loop: whoever owns the stream keeps it in bounds.
func (w *writer) trim() {
	if w.log.cfg.Retention.BytesMax == 0 && w.log.cfg.Retention.AgeMax == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.loops.Go(func() {
		select {
		case <-w.stop:
			cancel()
		case <-ctx.Done():
		}
	})
	tick := time.NewTicker(w.log.cfg.Retention.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
		first, err := w.log.Trim(ctx, w.names.stream)
		if err != nil {
			if ctx.Err() == nil { // the next turn tries again; until then more is kept than need be
				w.log.cfg.Logger.Warn().Err(err).Str("stream", w.names.stream).Msg("retention could not remove old entries")
			}
			continue
		}
		w.mu.Lock()
		w.first = max(w.first, first)
		w.mu.Unlock()
	}
}

// Trim removes the entries that Config.Retention no longer keeps and that every
// cursor has passed, up to the end of a transaction, and returns the first offset
// that is kept. Entries of the schema topic stay, and so do fences. Without a
// cursor everything stays. A writer calls it every Retention.Every.
func (l *Log) Trim(ctx context.Context, stream string) (log.Offset, error) {
	n, err := l.cfg.names(stream)
	if err != nil {
		return 0, err
	}
	first, err := l.trimStream(ctx, n)
	if err != nil {
		return 0, fmt.Errorf("trim stream %q: %w", stream, err)
	}
	return first, nil
}

func (l *Log) trimStream(ctx context.Context, n names) (log.Offset, error) {
	t, err := l.tail(ctx, n)
	if err != nil {
		return 0, err
	}
	first, err := l.trimmed(ctx, n)
	if err != nil {
		return 0, err
	}
	cut, err := l.cut(ctx, n, t, first)
	if err != nil {
		return 0, err
	}
	if cut > first {
		err := edit(ctx, l, n, documentTrim, func(d *trimDocument) (bool, error) {
			first = max(d.First, cut)
			if d.First >= cut {
				return false, nil
			}
			d.First = cut
			return true, nil
		})
		if err != nil {
			return 0, err
		}
	}
	// Also what an earlier turn left behind when it was interrupted.
	if first > 0 {
		err = l.purge(ctx, n, t, first)
	}
	return first, err
}

// cut is the first offset that has to be kept.
func (l *Log) cut(ctx context.Context, n names, t tail, first log.Offset) (log.Offset, error) {
	var d cursorDocument
	if _, err := l.document(ctx, n, documentCursors, &d); err != nil {
		return 0, err
	}
	if len(d.Cursors) == 0 {
		return first, nil
	}
	// The newest entry stays, and so does the one it names as confirmed: there
	// the next look at the stream's end begins.
	keep := min(t.lso+1, t.offset, t.lac)
	for _, c := range d.Cursors {
		keep = min(keep, c.Offset+1)
	}
	if keep <= first {
		return first, nil
	}
	cut := first
	if most := l.cfg.Retention.BytesMax; most > 0 {
		info, err := l.info(ctx, n)
		if err != nil {
			return 0, err
		}
		if over := int64(info.State.Bytes) - most; over > 0 {
			each := max(1, int64(info.State.Bytes/max(1, info.State.Msgs)))
			cut = min(keep, first+log.Offset(over/each)+1)
		}
	}
	if most := l.cfg.Retention.AgeMax; most > 0 {
		oldest := time.Now().Add(-most)
		var err error
		young := sort.Search(int(keep-cut), func(i int) bool {
			if err != nil {
				return true
			}
			var m message
			m, err = l.entry(ctx, n, t, cut+log.Offset(i))
			return err == nil && !m.mark.time.Before(oldest)
		})
		if err != nil {
			return 0, err
		}
		cut += log.Offset(young)
	}
	if cut <= first {
		return first, nil
	}
	// Not in the middle of a transaction.
	m, err := l.entry(ctx, n, t, cut-1)
	if err != nil {
		return 0, err
	}
	return max(first, m.mark.lso+1), nil
}

// entry reads the entry at an offset that is kept.
func (l *Log) entry(ctx context.Context, n names, t tail, o log.Offset) (message, error) {
	p, err := l.locate(ctx, n, t, o)
	if err != nil {
		return message{}, err
	}
	m, err := l.get(ctx, n, map[string]any{"seq": p.seq})
	if err == nil && (m.mark.fence || m.mark.offset != o || m.mark.opened != p.opened) {
		err = fmt.Errorf("message %d is not entry %d: %w", p.seq, o, log.ErrSuspect)
	}
	return m, suspectIfMissing(err)
}

// purge removes everything before an offset but the schema topic and fences.
func (l *Log) purge(ctx context.Context, n names, t tail, before log.Offset) error {
	p, err := l.locate(ctx, n, t, before)
	if err != nil {
		return err
	}
	for _, topic := range slices.Sorted(maps.Keys(t.last)) {
		if topic == log.TopicSchema {
			continue
		}
		oldest, err := l.get(ctx, n, map[string]any{"seq": 1, "next_by_subj": n.topic(topic)})
		if errors.Is(err, errNoMessage) || err == nil && oldest.seq >= p.seq {
			continue
		}
		if err != nil {
			return err
		}
		err = l.try(ctx, func(ctx context.Context, api js.JetStream) error {
			s, err := api.Stream(ctx, n.js)
			if err != nil {
				return err
			}
			return s.Purge(ctx, js.WithPurgeSubject(n.topic(topic)), js.WithPurgeSequence(p.seq))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
