package consumer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
)

// memlog is a log.Log in memory with one stream, whose readers fail on demand.
type memlog struct {
	mu      sync.Mutex
	grew    chan struct{} // closed and replaced at every append
	entries []log.Entry
	first   log.Offset
	cursors map[string]log.Cursor
	// fail is asked before every delivery; an error breaks the reader.
	fail func(log.Entry) error
}

func newMemlog() *memlog {
	return &memlog{grew: make(chan struct{}), cursors: map[string]log.Cursor{}}
}

func (l *memlog) add(topic log.Topic, epoch log.Epoch, ends bool, payload []byte) log.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := log.Offset(len(l.entries))
	l.entries = append(l.entries, log.Entry{Offset: o, Topic: topic, Epoch: epoch, EndsTransaction: ends, Payload: payload, AppendedAt: time.Now()})
	close(l.grew)
	l.grew = make(chan struct{})
	return o
}

func (l *memlog) bounds() log.Bounds {
	b := log.Bounds{First: l.first, LAC: log.Offset(len(l.entries)) - 1, LSO: log.None}
	for i, e := range l.entries {
		if e.EndsTransaction {
			b.LSO = log.Offset(i)
		}
	}
	return b
}

func (l *memlog) Bounds(context.Context, string) (log.Bounds, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bounds(), nil
}

func (l *memlog) OpenWriter(context.Context, string) (log.Writer, error) {
	return nil, fmt.Errorf("memlog: %w", log.ErrUnavailable)
}

func (l *memlog) OpenReader(_ context.Context, _ string, o log.ReaderOptions) (log.Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.From < l.first && !slices.Equal(o.Topics, []log.Topic{log.TopicSchema}) {
		return nil, fmt.Errorf("memlog: %w", log.ErrTrimmed)
	}
	return &memreader{l: l, o: o, next: o.From}, nil
}

func (l *memlog) Streams(context.Context) ([]string, error) { return []string{"s"}, nil }

func (l *memlog) Cursors(context.Context, string) ([]log.Cursor, error) { return nil, nil }

func (l *memlog) StoreCursor(_ context.Context, _ string, c log.Cursor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.cursors[c.Group]; ok && c.Offset < old.Offset {
		return log.ErrCursorBehind
	}
	l.cursors[c.Group] = c
	return nil
}

func (l *memlog) Close() error { return nil }

type memreader struct {
	l    *memlog
	o    log.ReaderOptions
	next log.Offset
}

func (r *memreader) Bounds() log.Bounds {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	return r.l.bounds()
}

func (r *memreader) Close() error { return nil }

func (r *memreader) Next(ctx context.Context) (log.Entry, error) {
	for {
		r.l.mu.Lock()
		b := r.l.bounds()
		last := b.LAC
		if r.o.Committed {
			last = b.LSO
		}
		for r.next <= last {
			if r.o.To > 0 && r.next >= r.o.To {
				break
			}
			e := r.l.entries[r.next]
			if len(r.o.Topics) == 0 || slices.Contains(r.o.Topics, e.Topic) {
				fail := r.l.fail
				r.l.mu.Unlock()
				if fail != nil {
					if err := fail(e); err != nil {
						return log.Entry{}, err
					}
				}
				r.next++
				return e, nil
			}
			r.next++
		}
		grew := r.l.grew
		r.l.mu.Unlock()
		if r.o.To > 0 && r.next >= r.o.To {
			return log.Entry{}, io.EOF
		}
		select {
		case <-ctx.Done():
			return log.Entry{}, ctx.Err()
		case <-grew:
		}
	}
}
