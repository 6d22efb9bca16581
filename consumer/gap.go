package consumer

import (
	"context"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
)

// gapError is a loss of the log that the consumer has come to, having read all
// that was before it.
type gapError struct {
	lost *log.LostError
	// begun: the target was given something of what was lost, or a transaction
	// whose end was. It comes again behind the gap, and would be applied twice.
	begun bool
	err   error
}

func (e *gapError) Error() string { return e.err.Error() }
func (e *gapError) Unwrap() error { return e.err }

// remedy is what an operator of the group can do.
func (e *gapError) remedy(group string) string {
	if e.begun {
		return "the target has changes that the log lost, and the producer ships them again under other offsets: stop the consumer and the producer, " +
			"and begin a new stream, under a new name, from the GTID set that the target has applied (producer.start); the runbook has the steps, at log-damaged"
	}
	return fmt.Sprintf("twinspan log status shows since when, and why. Nothing of it was applied, and the producer ships again what its server's binlog still has: "+
		"twinspan cursor seek %s --to %d shows what it would do, and with --yes --reason says that the loss is known; then the consumer goes on behind it", group, e.lost.To)
}

// atGap tells a gap ahead of the main reader from every other error.
func (c *Consumer) atGap(err error) error {
	var lost *log.LostError
	if !errors.As(err, &lost) {
		return err
	}
	place, _ := c.sink.Durable()
	begun := c.next.Compare(change.Place{Offset: lost.From}) > 0 || place.Offset >= lost.From || c.run.open && !c.run.discard
	return &gapError{lost: lost, begun: begun, err: err}
}

// passed moves the consumer over a gap of the log that it stands before, once an
// operator has moved the group's cursor behind it: that is his word that the loss is
// known. Nothing of the gap was applied then. What the gap lost and the producer
// ships again comes behind it, and is checked against the set that the target has;
// what it does not ship again is found missing there.
func (c *Consumer) passed(ctx context.Context, err error) bool {
	var gap *gapError
	if !errors.As(err, &gap) || gap.begun {
		return false
	}
	cursors, err := c.log.Cursors(ctx, c.cfg.Stream)
	if err != nil {
		return false
	}
	for _, x := range cursors {
		if x.Group != c.cfg.Group || x.Offset < gap.lost.To || !c.settled() {
			continue
		}
		// What goes on behind the gap has no beginning, whatever was read before it.
		c.next, c.run, c.entered = change.Place{Offset: gap.lost.To + 1}, openRun{}, true
		c.mu.Lock()
		c.state.next = c.next.Offset
		c.mu.Unlock()
		c.logger.Warn().Int64("from", int64(gap.lost.From)).Int64("to", int64(gap.lost.To)).Msg("a gap of the log is passed over: its loss was accepted")
		return true
	}
	return false
}

// settled makes sure that the set which the log held before the gap is known, so
// that what comes behind it can be checked. A consumer that began to read shortly
// before it may have met none; then it is the set that the target has, as soon as
// all that was fed is durable there. False: it is not yet.
func (c *Consumer) settled() bool {
	place, text := c.sink.Durable()
	if c.heldOK {
		return true // the log itself has told
	}
	if place.Compare(c.fed) < 0 {
		return false
	}
	if text == "" {
		return true
	}
	held, err := gtid.Parse(flavorOf(text), text)
	if err != nil {
		c.logger.Error().Err(err).Msg("GTID set applied")
		return false
	}
	c.held, c.heldOK = held, true
	return true
}
