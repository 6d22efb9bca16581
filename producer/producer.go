package producer

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/producer/binlog"
)

// Producer reads one server's binlog into one stream of the log. It keeps no
// state of its own: the log's tail says where to go on.
type Producer struct {
	cfg    Config
	log    log.Log
	logger zerolog.Logger
	stream *binlog.Stream
	board  board
	// recheck wakes a halted producer. Owner: Recheck; capacity 1, never closed.
	recheck chan struct{}
}

// New checks the configuration. It does not connect.
func New(cfg Config, l log.Log, logger zerolog.Logger) (*Producer, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	logger = logger.With().Str("stream", cfg.Stream).Logger()
	s, err := binlog.New(cfg.Binlog, logger)
	if err != nil {
		return nil, err
	}
	p := &Producer{cfg: cfg, log: l, logger: logger, stream: s, recheck: make(chan struct{}, 1)}
	p.board.init(cfg, s.Counters().Heartbeats)
	return p, nil
}

// Recheck makes a halted producer look at once whether it can go on.
func (p *Producer) Recheck() { signal(p.recheck) }

// Run reads until ctx ends, and then returns nil. What goes away by itself (a
// connection, the log) is tried again for ever. A halt that the operator can
// mend is waited for: Status and metrics tell it, and it is looked at again every
// Config.Recheck. Only FENCED, which names another producer as the stream's
// owner, is returned, as a *Halt. Run may be called once.
func (p *Producer) Run(ctx context.Context) (err error) {
	defer func() {
		p.board.stopped(err)
		err = errors.Join(err, p.stream.Close())
	}()
	backoff := backoffFirst
	for {
		was := p.board.appended()
		err := p.own(ctx)
		if ctx.Err() != nil {
			return nil
		}
		h := binlog.AsHalt(err)
		switch {
		case errors.Is(err, log.ErrFenced):
			h = &Halt{Code: binlog.HaltFenced, Detail: "another producer owns " + p.cfg.Stream, Cause: err,
				Remedy: "run one producer for a stream; this one has stopped, start it again only if the other is gone for good"}
			p.board.halt(h)
			p.logger.Error().Str("code", string(h.Code)).Str("remedy", h.Remedy).Err(h).Msg("halted for good")
			return h
		case h != nil:
			if err := p.await(ctx, h); err != nil {
				return nil
			}
			continue
		}
		if p.board.appended() != was {
			backoff = backoffFirst
		}
		pause := backoff/2 + mathrand.N(backoff/2)
		backoff = min(2*backoff, p.cfg.BackoffMax)
		p.board.trouble(err)
		p.logger.Warn().Err(err).Dur("pause", pause).Msg("can't go on; trying again")
		if err := sleep(ctx, pause); err != nil {
			return nil
		}
	}
}

const backoffFirst = 100 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// await shows a halt and waits until it is to be looked at again.
func (p *Producer) await(ctx context.Context, h *Halt) error {
	if p.board.halt(h) {
		p.logger.Error().Str("code", string(h.Code)).Str("gtid", h.GTID).Str("remedy", h.Remedy).Err(h).Msg("halted")
	}
	t := time.NewTimer(p.cfg.Recheck)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	case <-p.recheck:
	}
	return nil
}

// position says where reading would go on, and whether the server could serve
// it, without taking the stream over.
func (p *Producer) position(ctx context.Context, bounds func() (log.Bounds, error)) (st binlog.State, from gtid.Set, virgin bool, err error) {
	if st, err = p.stream.State(ctx); err != nil {
		return st, from, false, err
	}
	b, err := bounds()
	switch {
	case errors.Is(err, log.ErrNoStream):
		virgin = true
	case err != nil:
		return st, from, false, fmt.Errorf("bounds of the log: %w", err)
	case b.LAC == log.None:
		virgin = true
	case b.LSO == log.None:
		// The first entry of every stream says where it begins, and ends a
		// transaction: it was lost, with all that followed.
		if err := beginAgain(p.cfg.Start); err != nil {
			return st, from, true, err
		}
		virgin = true
	}
	if virgin {
		from, err = startSet(p.cfg.Start, st)
	} else {
		from, err = readTail(ctx, p.log, p.cfg.Stream, b, st.Flavor)
	}
	if errors.Is(err, errNoTail) {
		if err := beginAgain(p.cfg.Start); err != nil {
			return st, from, true, err
		}
		virgin = true
		from, err = startSet(p.cfg.Start, st)
	}
	if errors.Is(err, errNoSet) {
		err = &Halt{Code: binlog.HaltGap, Cause: err, Detail: "the log does not tell where to go on",
			Remedy: "retention removed every entry with a GTID set, or the log lost it (twinspan log status): seed the target from a snapshot, and start a new stream from the snapshot's set"}
	}
	if err == nil {
		err = st.Check(from)
	}
	return st, from, virgin, err
}

// own takes the stream over and serves it until something ends that.
func (p *Producer) own(ctx context.Context) (err error) {
	// Look before taking over: a producer that can't serve the stream must not
	// fence one that can.
	if _, _, _, err := p.position(ctx, func() (log.Bounds, error) { return p.log.Bounds(ctx, p.cfg.Stream) }); err != nil {
		return err
	}
	w, err := p.log.OpenWriter(ctx, p.cfg.Stream)
	if err != nil {
		return fmt.Errorf("open the writer: %w", err)
	}
	defer func() {
		if cerr := w.Close(); cerr != nil && !errors.Is(cerr, log.ErrClosed) && !errors.Is(err, log.ErrFenced) {
			p.logger.Warn().Err(cerr).Msg("close the writer")
		}
	}()
	st, from, virgin, err := p.position(ctx, func() (log.Bounds, error) { return w.Bounds(), nil })
	if err != nil {
		return err
	}
	if virgin {
		if err := anchor(ctx, w, from, st.Source()); err != nil {
			return err
		}
	}
	b := w.Bounds()
	p.board.took(w.Epoch(), st, from)
	p.logger.Info().Uint64("epoch", uint64(w.Epoch())).Int64("lac", int64(b.LAC)).Stringer("gtid_set", from).Msg("owns the stream")
	err = p.serve(ctx, w, from, b.LSO == b.LAC)
	if errors.Is(err, errUnfinished) {
		// The stream is taken over again for it, from ourselves and nobody else: a
		// halt may have lasted for days before it.
		err = errors.Join(err, p.unowned(ctx, w.Epoch()))
	}
	return err
}

// unowned is log.ErrFenced where another epoch owns the stream. It asks until the log
// answers, or ctx ends.
func (p *Producer) unowned(ctx context.Context, epoch log.Epoch) error {
	for {
		b, err := p.log.Bounds(ctx, p.cfg.Stream)
		switch {
		case err == nil && b.Epoch != epoch:
			return fmt.Errorf("epoch %d owns the stream, this writer has %d: %w", b.Epoch, epoch, log.ErrFenced)
		case err == nil:
			return nil
		}
		p.board.trouble(err)
		if err := sleep(ctx, backoffFirst); err != nil {
			return err
		}
	}
}

// serve runs the binlog into the writer. Halts of the stream are waited for
// here, under the same writer: what came before the halt is appended, and
// looking again takes nothing from a producer that took over meanwhile.
func (p *Producer) serve(ctx context.Context, w log.Writer, from gtid.Set, ends bool) error {
	g, ctx := errgroup.WithContext(ctx)
	b := newBatcher(ctx, from.Flavor(), p.cfg.BatchBytesMax, p.cfg.TransactionChunkBytes)
	pipe := &pipeline{writer: w, batch: b, delay: p.cfg.BatchDelay, held: from.Clone(), ends: ends, setFirst: true, sent: p.board.sent, note: p.board.confirmed}
	p.board.follow(b)
	defer p.board.follow(nil)
	g.Go(func() error { return pipe.run(ctx) })
	g.Go(func() error {
		at := from.Clone()
		sink := &tally{Sink: b, set: &at, board: &p.board}
		for {
			err := p.stream.Run(ctx, at, sink)
			h := binlog.AsHalt(err)
			if h == nil || ctx.Err() != nil {
				return err
			}
			if err := p.await(ctx, h); err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// tally remembers what the stream handed over completely, so that it can be run
// again from there.
type tally struct {
	binlog.Sink
	set   *gtid.Set
	board *board
	id    string
}

func (t *tally) Begin(h binlog.Header) error {
	t.id = h.GTID
	return t.Sink.Begin(h)
}

func (t *tally) End(at change.Source) error {
	if err := t.Sink.End(at); err != nil {
		return err
	}
	t.board.goesOn()
	return t.set.Add(t.id)
}

// counter is an atomic count.
type counter struct{ n atomic.Int64 }

func (c *counter) add(d int64) { c.n.Add(d) }
func (c *counter) zero() bool  { return c.n.Load() == 0 }
