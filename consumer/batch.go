package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
)

// What the log must never hold. Each is a halt.
var (
	errRun      = errors.New("parts of a transaction do not fit together")
	errMismatch = errors.New("the log's GTID set is not what its transactions add up to")
	errRepeated = errors.New("the log holds a transaction twice")
)

// openRun is a transaction whose first part was read and whose end was not.
type openRun struct {
	gtid  string
	epoch log.Epoch
	open  bool
	// discard: its end is not in the log and never will be: the producer died,
	// and its successor began the transaction anew.
	discard bool
}

// head is a transaction of a batch without its rows.
type head struct {
	gtid                 string
	continues, continued bool
}

// heads reads the heads of a batch, skipping the rows. Behind a part that continues
// in another entry there is nothing, which feed makes sure of, so its rows are not
// read for that.
func heads(payload []byte) ([]head, string, error) {
	r, err := change.NewBatchReader(payload, nil)
	if err != nil {
		return nil, "", err
	}
	var hs []head
	for {
		var t change.Transaction
		more, err := r.Next(&t)
		if err != nil {
			return nil, "", err
		}
		if !more {
			return hs, r.GTIDSet(), nil
		}
		hs = append(hs, head{t.GTID, t.Continues, t.Continued})
		if t.Continued {
			return hs, r.GTIDSet(), nil
		}
	}
}

// batch feeds the transactions of an entry. Everything that can be known
// without the rows is checked before the first of them is fed.
func (c *Consumer) batch(ctx context.Context, e log.Entry) error {
	hs, set, err := heads(e.Payload)
	if err != nil {
		return err
	}
	p, err := c.plan(ctx, e, hs, set)
	if err != nil {
		return err
	}
	if err := c.feed(ctx, e, p); err != nil {
		return err
	}
	c.run, c.held, c.heldOK, c.entered = p.run, p.held, p.heldOK, true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.transactions += int64(p.complete)
	if p.run.discard && !p.wasDiscarding {
		c.state.discarded++
	}
	return nil
}

// plan is what to do with a batch, and what is so after it.
type plan struct {
	skip          []bool // by transaction: parts of a run that is discarded
	lastComplete  int    // -1: none
	complete      int
	set           string
	run           openRun
	wasDiscarding bool
	held          gtid.Set
	heldOK        bool
}

func (c *Consumer) plan(ctx context.Context, e log.Entry, hs []head, set string) (plan, error) {
	p := plan{skip: make([]bool, len(hs)), lastComplete: -1, set: set, run: c.run, wasDiscarding: c.run.discard, heldOK: c.heldOK}
	if c.heldOK {
		p.held = c.held.Clone()
	}
	for i, h := range hs {
		if err := c.step(ctx, e, &p, i, h); err != nil {
			return p, err
		}
	}
	if set == "" {
		return p, nil
	}
	flavor := flavorOf(set)
	said, err := gtid.Parse(flavor, set)
	if err != nil {
		return p, err
	}
	if p.heldOK && !p.held.Equal(said) {
		return p, fmt.Errorf("%w: the entry says %s, its transactions make %s", errMismatch, short(set), short(p.held.String()))
	}
	p.held, p.heldOK = said, true
	return p, nil
}

// step follows one transaction's head.
func (c *Consumer) step(ctx context.Context, e log.Entry, p *plan, i int, h head) error {
	switch {
	case h.continues && i > 0:
		return fmt.Errorf("%w: %s goes on, and is not the entry's first", errRun, h.gtid)
	case h.continues && !h.continued && !c.entered:
		// The sink stands behind a transaction's end in this entry, so this
		// one, which began before it, is durable; the sink will skip it.
		p.run = openRun{gtid: h.gtid, epoch: e.Epoch, open: true}
	case h.continues && !p.run.open:
		return fmt.Errorf("%w: %s goes on without a beginning", errRun, h.gtid)
	case h.continues && (p.run.gtid != h.gtid || p.run.epoch != e.Epoch):
		return fmt.Errorf("%w: %s of epoch %d goes on as %s of epoch %d", errRun, p.run.gtid, p.run.epoch, h.gtid, e.Epoch)
	case !h.continues && p.run.open && !p.run.discard:
		return fmt.Errorf("%w: %s has no end, and its end was seen", errRun, p.run.gtid)
	}
	if h.continues && p.run.discard {
		if !h.continued {
			return fmt.Errorf("%w: %s was discarded, and has an end", errRun, h.gtid)
		}
		p.skip[i] = true
		return nil
	}
	if !h.continues {
		p.run = openRun{}
		if h.continued {
			whole, err := c.lookAhead(ctx, e, h.gtid)
			if err != nil {
				return err
			}
			p.run = openRun{gtid: h.gtid, epoch: e.Epoch, open: true, discard: !whole}
			p.skip[i] = !whole
		}
	}
	if h.continued {
		return nil
	}
	p.run = openRun{}
	p.lastComplete = i
	p.complete++
	if !p.heldOK || h.gtid == "" {
		return nil
	}
	if p.held.Flavor() == "" {
		p.held = gtid.New(flavorOf(h.gtid))
	}
	twice, err := p.held.ContainsGTID(h.gtid)
	if err != nil {
		return err
	}
	if twice {
		return fmt.Errorf("%w: %s", errRepeated, h.gtid)
	}
	return p.held.Add(h.gtid)
}

// lookAhead tells whether the transaction whose first part is the last thing in
// e has its end in the log. e was delivered, so a later entry that ends a
// transaction is there: this one, or the first after its producer died. Mostly its
// producer lives, and the newest end tells; else all up to the next end is read.
func (c *Consumer) lookAhead(ctx context.Context, e log.Entry, id string) (bool, error) {
	if c.finished(ctx, e) {
		return true, nil
	}
	r, err := c.log.OpenReader(ctx, c.cfg.Stream, log.ReaderOptions{
		From: e.Offset + 1, Topics: []log.Topic{log.TopicData}, Committed: true,
	})
	if errors.Is(err, log.ErrLost) {
		return false, nil // no transaction goes on behind a gap: another epoch begins there
	}
	if err != nil {
		return false, fmt.Errorf("look for the end of %s: %w", id, err)
	}
	defer c.shut(r)
	for {
		n, err := r.Next(ctx)
		if errors.Is(err, log.ErrLost) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look for the end of %s: %w", id, err)
		}
		hs, _, err := heads(n.Payload)
		if err != nil {
			return false, fmt.Errorf("look for the end of %s: entry %d: %w", id, n.Offset, err)
		}
		if len(hs) == 0 {
			continue
		}
		if !hs[0].continues {
			c.logger.Info().Str("gtid", id).Int64("offset", int64(e.Offset)).Int64("until", int64(n.Offset)).
				Msg("transaction without an end is discarded: its producer died")
			return false, nil
		}
		if hs[0].gtid != id || n.Epoch != e.Epoch {
			return false, fmt.Errorf("%w: %s of epoch %d goes on in entry %d as %s of epoch %d", errRun, id, e.Epoch, n.Offset, hs[0].gtid, n.Epoch)
		}
		if !hs[0].continued {
			return true, nil
		}
	}
}

// finishedFor is more than a log takes that can be reached.
const finishedFor = 2 * time.Second

// finished: the producer that wrote e ended a transaction after it, as the newest
// entry says that ends one and is near. It ends one before it begins another, so it
// has ended the one that begins in e, if nothing in between is lost. False: who knows.
func (c *Consumer) finished(ctx context.Context, e log.Entry) bool {
	if c.lso <= e.Offset {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, finishedFor)
	defer cancel()
	if log.Behind(ctx, c.log, c.cfg.Stream, e.Offset, c.lso) != int64(c.lso-e.Offset) {
		return false
	}
	r, err := c.log.OpenReader(ctx, c.cfg.Stream, log.ReaderOptions{From: c.lso, To: c.lso + 1, Committed: true})
	if err != nil {
		return false
	}
	defer c.shut(r)
	end, err := r.Next(ctx)
	return err == nil && end.EndsTransaction && end.Epoch == e.Epoch
}

// feed hands the rows over, from next.Index on, a chunk at a time.
func (c *Consumer) feed(ctx context.Context, e log.Entry, p plan) error {
	r, err := change.NewBatchReader(e.Payload, c.codecs)
	if err != nil {
		return err
	}
	if c.next.Offset != e.Offset {
		c.next = change.Place{Offset: e.Offset}
	}
	at := change.Place{Offset: e.Offset}
	for i := 0; ; i++ {
		var t change.Transaction
		more, err := r.Next(&t)
		if err != nil || !more {
			return err
		}
		if i == len(p.skip) {
			return fmt.Errorf("%w: a transaction that continues is not the entry's last; %s is behind it", errRun, t.GTID)
		}
		held := ""
		if i == p.lastComplete {
			// The first one given also tells what was before the log began.
			if held = p.set; held == "" && !c.given && p.heldOK {
				held = p.held.String()
			}
			c.given = c.given || held != ""
		}
		if at, err = c.transaction(ctx, r, t, at, p.skip[i], held); err != nil {
			return err
		}
	}
}

// transaction feeds one transaction's part of an entry and answers with the
// place behind it.
func (c *Consumer) transaction(ctx context.Context, r *change.BatchReader, t change.Transaction, at change.Place, skip bool, held string) (change.Place, error) {
	first, continued := at, t.Continued
	if t.DDL != nil {
		at.Index++
		if at.Compare(c.next) <= 0 { // fed before the reader failed
			t.DDL, first = nil, at
		}
	}
	t.Rows = nil
	for {
		var row change.Row
		more, err := r.NextRow(&row)
		if err != nil {
			return at, err
		}
		if !more {
			break
		}
		at.Index++
		switch {
		case skip:
		case at.Compare(c.next) <= 0:
			first = at
		default:
			c.add(&t, row)
		}
		if len(t.Rows) < c.cfg.ChunkRows {
			continue
		}
		t.Continued = true
		if err := c.apply(ctx, first, &t, "", at); err != nil {
			return at, err
		}
		// The sink keeps what it was given.
		t = change.Transaction{GTID: t.GTID, CommitTime: t.CommitTime, ServerID: t.ServerID, Continues: true}
		first = at
	}
	if t.Continued = continued; !continued {
		at.Index++
	}
	if skip || at.Compare(c.next) <= 0 || continued && len(t.Rows) == 0 && t.DDL == nil {
		return at, nil
	}
	return at, c.apply(ctx, first, &t, held, at)
}

// add appends a row. Rows lie in blocks of ChunkRows, which the sink keeps as long
// as one of their rows is not durable: one allocation for many transactions.
func (c *Consumer) add(t *change.Transaction, row change.Row) {
	n := len(t.Rows)
	if n == len(c.rows) { // the block ends within the transaction, or begins with it
		block := make([]change.Row, max(c.cfg.ChunkRows, n+1))
		copy(block, t.Rows)
		c.rows = block
	}
	c.rows[n] = row
	t.Rows = c.rows[: n+1 : n+1]
}

// apply feeds one part; next moves behind it.
func (c *Consumer) apply(ctx context.Context, first change.Place, t *change.Transaction, held string, next change.Place) error {
	n := int64(len(t.Rows))
	c.rows = c.rows[n:] // they are the sink's now
	sink := func(ctx context.Context, first change.Place, t *change.Transaction, held string) error {
		if err := c.sink.Apply(ctx, first, t, held); err != nil {
			return &sinkError{err}
		}
		return nil
	}
	var err error
	if c.cfg.Router != nil {
		err = c.cfg.Router.Feed(ctx, first, t, held, sink)
	} else {
		err = sink(ctx, first, t, held)
	}
	if err != nil {
		return err
	}
	c.next = next
	if !t.Continued {
		c.fed = change.Place{Offset: next.Offset, Index: next.Index - 1}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.rows += n
	if !t.Continued {
		c.state.read = t.CommitTime
	}
	return nil
}

func short(s string) string {
	if len(s) > 200 {
		return s[:197] + "..."
	}
	return s
}
