package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
)

// Cursors of the stream.
func (c *Client) Cursors(ctx context.Context, stream string) ([]log.Cursor, error) {
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	st, err := c.book.stream(ctx, stream)
	if err != nil {
		return nil, c.said(fmt.Errorf("cursors of stream %q: %w", stream, err))
	}
	return st.Cursors, nil
}

// StoreCursor stores the cursor. It returns once the cursor, or a later one of the
// same group that was stored meanwhile, is durable. A group that stores more often
// than every Config.CursorEvery waits its turn, and only its newest cursor
// travels. Without an answer the outcome is unknown; it may be stored again.
func (c *Client) StoreCursor(ctx context.Context, stream string, cursor log.Cursor) error {
	if cursor.UpdatedAt.IsZero() {
		cursor.UpdatedAt = time.Now().UTC()
	}
	ctx, done, err := c.bind(ctx)
	if err != nil {
		return err
	}
	defer done()
	if cursor.Group == "" || cursor.Offset < log.None || !utf8.ValidString(cursor.Group) || !utf8.ValidString(cursor.GTIDSet) {
		return fmt.Errorf("cursor of group %q at %d: %w", cursor.Group, cursor.Offset, log.ErrProtocol)
	}
	if err := c.confirmedAt(ctx, stream, cursor.Offset); err != nil {
		return c.said(fmt.Errorf("cursor of group %q in stream %q: %w", cursor.Group, stream, err))
	}
	if err := c.cursors.store(ctx, stream, cursor); err != nil {
		return c.said(fmt.Errorf("cursor of group %q in stream %q at %d: %w", cursor.Group, stream, cursor.Offset, err))
	}
	return nil
}

// confirmedAt makes sure that the entry is confirmed. What a reader or writer of
// this client has seen needs no question.
func (c *Client) confirmedAt(ctx context.Context, stream string, o log.Offset) error {
	if o <= c.cursors.seen(stream) {
		return nil
	}
	seen := log.None
	c.mu.Lock()
	if w := c.writers[stream]; w != nil {
		seen = w.Bounds().LAC
	}
	for r := range c.readers {
		if r.stream == stream {
			seen = max(seen, r.Bounds().LAC)
		}
	}
	c.mu.Unlock()
	if o > seen {
		b, err := c.bounds(ctx, stream)
		if err != nil {
			return err
		}
		seen = max(seen, b.LAC)
	}
	c.cursors.saw(stream, seen)
	if o > seen {
		return fmt.Errorf("offset %d is not confirmed, the newest that is is %d: %w", o, seen, log.ErrProtocol)
	}
	return nil
}

type cursorKey struct{ stream, group string }

// cursors makes one command out of many calls for the same group.
type cursors struct {
	client *Client

	mu     sync.Mutex
	groups map[cursorKey]*group
	lacs   map[string]log.Offset // known to be confirmed, by stream
}

// group is one group's cursor on its way.
type group struct {
	turn    chan struct{} // holds a token while a command is on its way; owner: the group; bound 1; never closed
	tokens  float64       // commands that may go at once
	at      time.Time     // when tokens was counted
	waiting *flight       // what goes next; nil: nothing waits
}

// flight is one command that many calls share.
type flight struct {
	cursor log.Cursor    // changes until it goes
	done   chan struct{} // closed when err is set
	err    error
}

// burst is how many commands of a quiet group may go without a wait.
const burst = 4

func (k *cursors) seen(stream string) log.Offset {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o, ok := k.lacs[stream]; ok {
		return o
	}
	return log.None
}

func (k *cursors) saw(stream string, o log.Offset) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lacs == nil || len(k.lacs) > remembered {
		k.lacs = map[string]log.Offset{}
	}
	if old, ok := k.lacs[stream]; !ok || o > old {
		k.lacs[stream] = o
	}
}

// remembered bounds what is kept per stream and per group.
const remembered = 16 << 10

func (k *cursors) group(key cursorKey) *group {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[key]
	if g == nil {
		if len(k.groups) > remembered {
			for old, x := range k.groups {
				if x.waiting == nil && len(x.turn) == 0 {
					delete(k.groups, old)
				}
			}
		}
		g = &group{turn: make(chan struct{}, 1), tokens: burst, at: time.Now()}
		k.groups[key] = g
	}
	return g
}

// join adds the cursor to what goes next. behind: a later one is waiting already.
func (k *cursors) join(g *group, c log.Cursor) (f *flight, behind bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f = g.waiting
	switch {
	case f == nil:
		f = &flight{cursor: c, done: make(chan struct{})}
		g.waiting = f
	case c.Offset < f.cursor.Offset:
		return f, true
	default:
		f.cursor = c // the newest goes for all
	}
	return f, false
}

// store waits until the cursor, or a later one, was stored or refused.
func (k *cursors) store(ctx context.Context, stream string, c log.Cursor) error {
	key := cursorKey{stream, c.Group}
	g := k.group(key)
	for {
		f, behind := k.join(g, c)
		for landed := false; !landed; {
			select {
			case <-f.done:
				landed = true
			case g.turn <- struct{}{}:
				k.fly(ctx, key, g, f)
				<-g.turn
			case <-ctx.Done():
				return ctx.Err()
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		switch {
		case behind && errors.Is(f.err, log.ErrCursorBehind):
			return f.err // so is the lower one
		case errors.Is(f.err, errAbandoned), behind && f.err != nil:
			continue // for itself, now
		case behind:
			return fmt.Errorf("offset %d was stored: %w", f.cursor.Offset, log.ErrCursorBehind)
		}
		return f.err
	}
}

// errAbandoned: who was to store for all gave up while the command was on its way.
var errAbandoned = errors.New("outcome not known to those who wait")

// fly stores the flight's cursor once it is time, unless that has happened. The
// turn is held.
func (k *cursors) fly(ctx context.Context, key cursorKey, g *group, f *flight) {
	k.mu.Lock()
	if g.waiting != f {
		k.mu.Unlock()
		return
	}
	now := time.Now()
	every := k.client.cfg.CursorEvery
	g.tokens = min(burst, g.tokens+float64(now.Sub(g.at))/float64(every))
	g.at = now
	wait := time.Duration((1 - g.tokens) * float64(every))
	k.mu.Unlock()
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return // another one takes the turn
		}
	}
	k.mu.Lock()
	g.tokens--
	g.waiting = nil
	c := f.cursor
	k.mu.Unlock()
	_, err := within(ctx, k.client.cfg.RequestTimeout, func(ctx context.Context) (meta.Result, error) {
		return k.client.meta.Do(ctx, meta.Command{Now: time.Now().UTC(), Cursor: &meta.PutCursor{Stream: key.stream, Cursor: c}})
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", errAbandoned, err)
	}
	k.client.stats.cursors.Add(1)
	f.err = err
	close(f.done)
}
