package consumer

import (
	"context"
	"errors"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
)

// passed moves the consumer over a gap of the log that it stands before, once an
// operator has moved the group's cursor behind it: that is his word that the loss is
// known. Nothing of the gap was applied then. What the gap lost and the producer
// ships again comes behind it, and is checked against the sets as everything is; what
// it does not ship again is found missing there.
func (c *Consumer) passed(ctx context.Context, err error) bool {
	var lost *log.LostError
	if !errors.As(err, &lost) || c.next != (change.Place{Offset: lost.From}) {
		return false
	}
	cursors, err := c.log.Cursors(ctx, c.cfg.Stream)
	if err != nil {
		return false
	}
	for _, x := range cursors {
		if x.Group == c.cfg.Group && x.Offset >= lost.To {
			c.next = change.Place{Offset: lost.To + 1}
			c.logger.Warn().Int64("from", int64(lost.From)).Int64("to", int64(lost.To)).Msg("a gap of the log is passed over: its loss was accepted")
			return true
		}
	}
	return false
}
