package producer

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
)

// setShare bounds what GTID sets cost: one is written with a batch when it is at
// most this part of the bytes appended since the last one. So to find it again
// takes reading this many times its size, and a batch.
const setShare = 8

// flightsMax bounds the entries that were appended and not confirmed.
const flightsMax = 1024

// flight is one data entry on its way.
type flight struct {
	offset log.Offset
	*sealed
	bytes int
}

// pipeline takes batches to the log, for the life of one writer.
type pipeline struct {
	writer log.Writer
	batch  *batcher
	delay  time.Duration
	sent   func(time.Time)       // an entry goes out; its first transaction's commit time
	note   func(flight, log.Ack) // it is confirmed; called in order by one goroutine

	// Appender's.
	held     gtid.Set // what the log holds once all that was appended is in it
	ends     bool     // no transaction is open at the end of the log
	setAt    int      // bytes appended since a set was written
	setBytes int      // length of the set when it was last spelled out
	setFirst bool     // none was written by this writer yet

	// flights: appender's, who closes it; bound flightsMax.
	flights chan flight
	flying  counter
}

// run appends until ctx ends or the writer fails.
func (p *pipeline) run(ctx context.Context) error {
	p.flights = make(chan flight, flightsMax)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(p.flights)
		return p.append(ctx)
	})
	g.Go(func() error { return p.confirm(ctx) })
	return g.Wait()
}

func (p *pipeline) append(ctx context.Context) error {
	for {
		s, wait := p.batch.take(p.flying.zero(), p.delay)
		if s == nil {
			if err := p.sleep(ctx, wait); err != nil {
				return err
			}
			continue
		}
		if err := p.send(ctx, s); err != nil {
			return err
		}
	}
}

// sleep waits for the batcher, and for at most d unless that is 0.
func (p *pipeline) sleep(ctx context.Context, d time.Duration) error {
	var timeout <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.batch.wake:
	case <-timeout:
	}
	return nil
}

func (p *pipeline) send(ctx context.Context, s *sealed) error {
	for _, payload := range s.schemas {
		if _, err := p.writer.Append(ctx, log.Draft{Topic: log.TopicSchema, EndsTransaction: p.ends, Payload: payload}); err != nil {
			return fmt.Errorf("append a table version: %w", err)
		}
	}
	if err := p.held.Union(s.whole); err != nil {
		return err
	}
	payload := s.batch.Finish(p.setFor(s.batch.Size()), s.source)
	f := flight{sealed: s, bytes: len(payload)}
	s.batch = nil
	p.flying.add(1)
	p.sent(s.first)
	offset, err := p.writer.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: s.ends, Payload: payload})
	if err != nil {
		return fmt.Errorf("append a batch of %d bytes: %w", f.bytes, err)
	}
	f.offset, p.ends = offset, s.ends
	select {
	case p.flights <- f:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setFor is the set to write with a batch of that size; empty: none.
func (p *pipeline) setFor(bytes int) string {
	p.setAt += bytes
	if !p.setFirst && p.setBytes*setShare > p.setAt {
		return ""
	}
	text := p.held.String()
	p.setBytes = len(text)
	if !p.setFirst && len(text)*setShare > p.setAt {
		return ""
	}
	p.setAt, p.setFirst = 0, false
	return text
}

func (p *pipeline) confirm(ctx context.Context) error {
	for f := range p.flights {
		ack, err := p.writer.Wait(ctx, f.offset)
		if err != nil {
			return fmt.Errorf("wait for entry %d: %w", f.offset, err)
		}
		p.note(f, ack)
		p.flying.add(-1)
		if p.flying.zero() {
			signal(p.batch.wake)
		}
	}
	return nil
}

// anchor writes an entry that says where an empty log begins. Without it a
// producer that starts "current" would, after a restart before the first
// transaction, skip what was committed in between.
func anchor(ctx context.Context, w log.Writer, set gtid.Set, src change.Source) error {
	payload := change.NewBatchWriter(0).Finish(set.String(), src)
	offset, err := w.Append(ctx, log.Draft{Topic: log.TopicData, EndsTransaction: true, Payload: payload})
	if err == nil {
		_, err = w.Wait(ctx, offset)
	}
	if err != nil {
		return fmt.Errorf("append the start: %w", err)
	}
	return nil
}
