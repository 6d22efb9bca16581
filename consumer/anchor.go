package consumer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
)

// errOther: the log is not the one that the sink was fed from. Its offsets name
// other changes, and to go on at one of them would leave changes out.
var errOther = errors.New("this is not the log that the target was fed from")

// behindError: the log begins behind the entry at which the target stands, because
// somebody moved the group's cursor past it, to accept a gap perhaps, and retention
// followed. Sets could tell whether whole transactions are missing in between, but
// not whether the target has a part of one, which would be applied twice.
type behindError struct{ place, first log.Offset }

func (e *behindError) Error() string {
	return fmt.Sprintf("the target stands at entry %d, and the log begins at %d: %v", e.place, e.first, log.ErrTrimmed)
}

func (e *behindError) Unwrap() error { return log.ErrTrimmed }

// remedy is what an operator can do.
func (e *behindError) remedy(group string) string {
	return fmt.Sprintf("see that log.nodes names the log that the target was fed from. If it does, the cursor of %s was moved behind entry %d while the consumer was stopped, "+
		"and retention took what the target needs (twinspan cursor list, twinspan log status): seed the target anew; or, where the source's binlog "+
		"still has what is missing, begin a new stream, under a new name, from the GTID set that the target has applied (producer.start); the runbook has the steps, at log-damaged", group, e.place)
}

// anchorStep is how many entries before the sink's place are looked at first for
// a GTID set.
const anchorStep = 64

// anchor checks that the sink's place means in this log what it meant when it
// was stored. An offset alone does not tell: a log that was made anew counts from
// 0 again and grows past any offset. The GTID set does: what the log holds up to
// the sink's place must be what the sink has applied.
func (c *Consumer) anchor(ctx context.Context) error {
	place, text := c.sink.Durable()
	if place.Offset < 0 || text == "" {
		return nil // nothing was applied yet
	}
	applied, err := gtid.Parse(flavorOf(text), text)
	if err != nil {
		return fmt.Errorf("GTID set applied: %w", err)
	}
	b, err := c.log.Bounds(ctx, c.cfg.Stream)
	if err == nil && place.Offset < b.First {
		return &behindError{place.Offset, b.First}
	}
	switch {
	case errors.Is(err, log.ErrNoStream):
		return fmt.Errorf("%w: the target stands at entry %d, and the log has no such stream", errOther, place.Offset)
	case err != nil:
		return err
	case place.Offset > b.LSO:
		if err := c.vanished(ctx, place.Offset, b); err != nil {
			return err
		}
		return fmt.Errorf("%w: the target stands at entry %d, and the log ends at %d", errOther, place.Offset, b.LSO)
	}
	// The set stands in the entry itself as a rule, else a little before it.
	for step := log.Offset(0); ; step = max(anchorStep, step*8) {
		from := max(b.First, place.Offset-step)
		done, err := c.compare(ctx, from, place.Offset, b.LSO, applied)
		var lost *log.LostError
		if errors.As(err, &lost) && lost.To < place.Offset {
			b.First = lost.To + 1 // behind a gap the log begins anew
			continue
		}
		if lost != nil {
			return c.atGap(err) // the target stands in it
		}
		if err != nil || done {
			return err
		}
		if from == b.First {
			// Nothing tells; what is read next is checked against its sets.
			return nil
		}
	}
}

// vanished is an error when the entry at which the target stands is one that the
// log lost, behind the newest end of a transaction that it has.
func (c *Consumer) vanished(ctx context.Context, at log.Offset, b log.Bounds) error {
	if at > b.LAC {
		return nil
	}
	r, err := c.log.OpenReader(ctx, c.cfg.Stream, log.ReaderOptions{From: at, To: at + 1})
	if err == nil {
		defer c.shut(r)
		_, err = r.Next(ctx)
	}
	if errors.Is(err, log.ErrLost) {
		return c.atGap(err)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// compare reads from an offset up to the sink's entry, and then on to the first
// set where there was none. False: no set was found before the sink's entry, and
// none behind it.
func (c *Consumer) compare(ctx context.Context, from, at, end log.Offset, applied gtid.Set) (bool, error) {
	r, err := c.log.OpenReader(ctx, c.cfg.Stream, log.ReaderOptions{From: from, To: end + 1, Topics: []log.Topic{log.TopicData}, Committed: true})
	if err != nil {
		return false, fmt.Errorf("look at entry %d: %w", at, err)
	}
	defer c.shut(r)
	var logged gtid.Set // what the log holds as of the entry that was read last
	known, met := false, false
	if from == 0 {
		// A writer's first batch always has its set, but for the empty one.
		logged, known = gtid.New(applied.Flavor()), true
	}
	want := applied.Clone() // what it should hold then, from the sink's entry on
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			if !met {
				return false, fmt.Errorf("%w: entry %d holds no changes", errOther, at)
			}
			return false, nil
		}
		if errors.Is(err, log.ErrLost) && met {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look at entry %d: %w", at, err)
		}
		if e.Offset > at && !met {
			return false, fmt.Errorf("%w: entry %d holds no changes", errOther, at)
		}
		ids, set, err := ends(e.Payload)
		if err != nil {
			return false, fmt.Errorf("entry %d: %w", e.Offset, err)
		}
		if e.Offset >= at {
			// Up to the sink's place the transactions are applied, behind it none.
			behind := e.Offset > at
			for _, id := range ids {
				has, err := applied.ContainsGTID(id)
				if err != nil {
					return false, fmt.Errorf("%w: entry %d: %w", errOther, e.Offset, err)
				}
				if has && behind {
					return false, fmt.Errorf("%w: %s was applied, and stands behind the target's place in entry %d", errOther, id, e.Offset)
				}
				if behind = behind || !has; behind {
					if err := want.Add(id); err != nil {
						return false, err
					}
				}
			}
			met = true
		}
		switch {
		case set != "":
			if logged, err = gtid.Parse(flavorOf(set), set); err != nil {
				return false, fmt.Errorf("entry %d: %w", e.Offset, err)
			}
			known = true
		case known:
			for _, id := range ids {
				if err := logged.Add(id); err != nil {
					return false, fmt.Errorf("%w: entry %d: %w", errOther, e.Offset, err)
				}
			}
		}
		if !met || !known {
			continue
		}
		if !logged.Equal(want) {
			return false, fmt.Errorf("%w: the log holds %s up to entry %d, the target %s", errOther,
				short(logged.String()), e.Offset, short(want.String()))
		}
		return true, nil
	}
}

// ends lists the transactions that end in a batch.
func ends(payload []byte) ([]string, string, error) {
	r, err := change.NewBatchReader(payload, nil)
	if err != nil {
		return nil, "", err
	}
	var ids []string
	for {
		var t change.Transaction
		more, err := r.Next(&t)
		if err != nil || !more {
			return ids, r.GTIDSet(), err
		}
		if !t.Continued && t.GTID != "" {
			ids = append(ids, t.GTID)
		}
	}
}
