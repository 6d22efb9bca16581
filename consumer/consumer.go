// Package consumer reads a stream of the log in order, from where its sink
// stands, and feeds it transactions whose end is in the log. It remembers
// nothing: the sink says where to resume, and the cursor in the log is for
// retention and for people.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Sink takes the changes over. *applier.Applier is one.
type Sink interface {
	// Resume is the first offset wanted. What is durable from there on is fed
	// again and skipped by the sink.
	Resume(ctx context.Context) (log.Offset, error)
	// Apply takes a transaction or a part of one, with the place of its first
	// change (its DDL, else its first row), and the log's GTID set as of its
	// end, empty where that is not known. A part (t.Continued) may be followed
	// by another at any later place; only the last part's end takes a place of
	// its own, behind its rows. It blocks while the sink is busy. It fails with
	// ctx's error, or because the sink has ended, and never will take more.
	Apply(ctx context.Context, first change.Place, t *change.Transaction, held string) error
	// Durable is the place up to which all is durable, and the GTID set there.
	Durable() (change.Place, string)
}

// Router decides what of a part of a transaction goes on to the sink, and under
// which names. It hands it to apply in one or several parts, each change with the
// place that it has in the log. *route.Router is one.
type Router interface {
	// Feed fails with what apply answered, or else before it called apply.
	Feed(ctx context.Context, first change.Place, t *change.Transaction, held string,
		apply func(ctx context.Context, first change.Place, t *change.Transaction, held string) error) error
	// Counts are how many rows and statements were left out. Any goroutine asks.
	Counts() (rows, statements int64)
}

// Config of a Consumer. Zero fields take the default in brackets.
type Config struct {
	Stream string
	Group  string
	// CursorInterval [2 s] is how often the cursor follows the sink.
	CursorInterval time.Duration
	// ChunkRows [1024] is how many rows of a transaction are decoded at a time.
	ChunkRows int
	// Router [nil: everything goes on as it is] leaves changes out and renames.
	Router Router
	// RetryMax [5 s] is the longest pause before a halt is looked at again.
	RetryMax time.Duration
}

// Consumer reads one stream for one group.
type Consumer struct {
	cfg    Config
	log    log.Log
	sink   Sink
	logger zerolog.Logger

	// Of Run's goroutine.
	registry *schema.Registry
	codecs   *change.Codecs
	next     change.Place // the first change that was not fed
	run      openRun      // the transaction that is open before next
	lso      log.Offset   // of the log, as the reader last heard
	anchored bool         // the log is the one the sink was fed from; written under mu
	given    bool         // the sink was told the log's GTID set
	entered  bool         // a data entry was read; before it, run is not known
	rows     []change.Row // free ones, of which a transaction's are taken
	fed      change.Place // the end of the transaction that was fed last; before the log: none
	held     gtid.Set     // what the log holds before next.Offset
	heldOK   bool         // held is known

	mu    sync.Mutex // guards state
	state state
}

// New makes a consumer. Run does the work.
func New(cfg Config, l log.Log, sink Sink, logger zerolog.Logger) (*Consumer, error) {
	if cfg.Stream == "" || cfg.Group == "" {
		return nil, errors.New("consumer: a stream and a group are needed")
	}
	if cfg.CursorInterval <= 0 {
		cfg.CursorInterval = 2 * time.Second
	}
	if cfg.ChunkRows <= 0 {
		cfg.ChunkRows = 1024
	}
	if cfg.RetryMax <= 0 {
		cfg.RetryMax = 5 * time.Second
	}
	c := &Consumer{cfg: cfg, log: l, sink: sink, fed: change.Place{Offset: log.None}, logger: logger.With().Str("stream", cfg.Stream).Str("group", cfg.Group).Logger()}
	c.registry = schema.NewRegistry(0)
	c.codecs = change.NewCodecs(c.registry)
	return c, nil
}

// Registry holds the table versions that were read so far.
func (c *Consumer) Registry() *schema.Registry { return c.registry }

// Run reads and feeds until ctx ends (nil) or the sink has ended (its error). It
// is called once. Everything else is tried again for ever, with what is in the
// way shown by Status; nothing is ever skipped.
func (c *Consumer) Run(ctx context.Context) error {
	from, err := c.sink.Resume(ctx)
	if ctx.Err() != nil {
		return nil // told to end
	}
	if err != nil {
		return err
	}
	c.next = change.Place{Offset: max(from, 0)}
	c.mu.Lock()
	c.state.next, c.state.started = c.next.Offset, true
	c.mu.Unlock()
	c.logger.Info().Int64("offset", int64(c.next.Offset)).Msg("consumer resumes")

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		c.storeCursors(ctx)
	}()
	defer wg.Wait()
	defer cancel()

	pause := retryMin
	for {
		before := c.next
		err := c.session(ctx)
		var sunk *sinkError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &sunk):
			return fmt.Errorf("consumer of stream %s at %d: %w", c.cfg.Stream, c.next.Offset, sunk.err)
		}
		if c.passed(ctx, err) {
			continue
		}
		if c.next != before {
			pause = retryMin
		}
		c.note(err)
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		pause = min(2*pause, c.cfg.RetryMax)
	}
}

const retryMin = 50 * time.Millisecond

// sinkError is an error that the sink answered with.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }
func (e *sinkError) Unwrap() error { return e.err }

// session reads from next on until something goes wrong. It may be called again
// then: next tells what was fed, by the change.
func (c *Consumer) session(ctx context.Context) error {
	if !c.anchored {
		if err := c.anchor(ctx); err != nil {
			return err
		}
		c.mu.Lock()
		c.anchored = true
		c.mu.Unlock()
	}
	if err := c.loadSchemas(ctx); err != nil {
		return err
	}
	r, err := c.log.OpenReader(ctx, c.cfg.Stream, log.ReaderOptions{
		From: c.next.Offset, Topics: []log.Topic{log.TopicData, log.TopicSchema}, Committed: true,
	})
	if err != nil {
		return c.atGap(err)
	}
	defer c.shut(r)
	for {
		e, err := r.Next(ctx)
		if err != nil {
			return c.atGap(err)
		}
		if err := c.entry(ctx, e, r.Bounds()); err != nil {
			return err
		}
		c.note(nil)
	}
}

// shut closes a reader. It has nothing of ours to lose.
func (c *Consumer) shut(r log.Reader) {
	if err := r.Close(); err != nil {
		c.logger.Debug().Err(err).Msg("close a reader")
	}
}

// loadSchemas reads what the schema topic published before next. Readers from
// next on get the rest in order, before the first row of each.
func (c *Consumer) loadSchemas(ctx context.Context) error {
	if c.next.Offset == 0 {
		return nil
	}
	o := log.ReaderOptions{To: c.next.Offset, Topics: []log.Topic{log.TopicSchema}}
	r, err := c.log.OpenReader(ctx, c.cfg.Stream, o)
	if errors.Is(err, log.ErrTrimmed) {
		var b log.Bounds
		if b, err = c.log.Bounds(ctx, c.cfg.Stream); err != nil {
			return err
		}
		if o.From = b.First; o.From >= o.To {
			return nil
		}
		r, err = c.log.OpenReader(ctx, c.cfg.Stream, o)
	}
	if err != nil {
		return fmt.Errorf("read table versions: %w", err)
	}
	defer c.shut(r)
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read table versions: %w", err)
		}
		if _, err := c.registry.AddEntry(e.Payload); err != nil {
			return fmt.Errorf("entry %d: %w", e.Offset, err)
		}
	}
}

// entry takes in one entry, from next.Index on.
func (c *Consumer) entry(ctx context.Context, e log.Entry, b log.Bounds) error {
	c.lso = b.LSO
	switch e.Topic {
	case log.TopicSchema:
		if _, err := c.registry.AddEntry(e.Payload); err != nil {
			return fmt.Errorf("entry %d: %w", e.Offset, err)
		}
	case log.TopicData:
		if err := c.batch(ctx, e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Offset, err)
		}
	}
	c.next = change.Place{Offset: e.Offset + 1}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.next, c.state.bounds = c.next.Offset, b
	c.state.entries++
	c.state.bytes += int64(len(e.Payload))
	return nil
}

// storeCursors lets the cursor follow the sink, for retention. The entry that
// holds the sink's place stays: a resumed reader begins with it.
func (c *Consumer) storeCursors(ctx context.Context) {
	last := log.None
	tick := time.NewTicker(c.cfg.CursorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		anchored := c.anchored
		c.mu.Unlock()
		place, set := c.sink.Durable()
		o := place.Offset - 1
		if o <= last || !anchored {
			continue
		}
		err := c.log.StoreCursor(ctx, c.cfg.Stream, log.Cursor{Group: c.cfg.Group, Offset: o, GTIDSet: set, UpdatedAt: time.Now().UTC()})
		switch {
		case err == nil, errors.Is(err, log.ErrCursorBehind):
			// Behind: the target was restored to an earlier state. What it
			// needs may be gone already, and then the reader says so.
			last = o
		case ctx.Err() == nil:
			c.logger.Warn().Err(err).Msg("cursor not stored")
		}
	}
}
