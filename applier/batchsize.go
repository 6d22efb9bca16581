package applier

import (
	"math"
	"time"

	"github.com/twinspan/twinspan/applier/target"
)

// batchSize follows how large a lane's batches may be: as large as the target
// takes within the time that a batch shall take, and its configured bound. Large
// ones merge more and commit less; a target that is slow gets smaller ones, so
// that who waits for a lane does not wait for long.
type batchSize struct {
	limit int           // 0: none was written yet
	took  time.Duration // the last one
}

const (
	batchRowsFirst = 500
	batchRowsMin   = 16
)

// rows is the limit of the next batch; most is the configured bound.
func (b *batchSize) rows(most int) int {
	if b.limit == 0 {
		return min(batchRowsFirst, most)
	}
	return min(b.limit, most)
}

// wrote takes in how long a batch of so many rows took.
func (b *batchSize) wrote(rows, most int, took, goal time.Duration) {
	limit := b.rows(most)
	b.took = took
	switch {
	case took > goal && rows > batchRowsMin:
		limit = max(batchRowsMin, min(limit, rows)/2)
	case took < goal/2 && rows >= limit/2:
		limit = min(2*limit, most)
	}
	b.limit = limit
}

// uneven is the limit of the batch that is taken now, up to half below what it may
// be. Lanes that commit together wait for the same flush and go on together; with
// batches of one size they would come back together, too, and the target's CPU would
// idle at every flush. a.mu is held.
func (a *Applier) uneven(rows int) int {
	a.taken++
	_, part := math.Modf(float64(a.taken) * math.Phi) // no two that follow each other are close
	return max(1, rows-int(part*float64(rows/2)))
}

// wrote takes in what a lane did to rows.
func (a *Applier) wrote(index int, o target.Outcome, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lanes[index].size.wrote(o.Inserted+o.Updated+o.Deleted, a.cfg.BatchRows, took, a.cfg.BatchTime)
	a.state.outcome.Add(o)
	if o.Doubt() {
		a.log.Debug().Int("insert_found", o.InsertFound).Int("update_missing", o.UpdateMissing).
			Int("delete_missing", o.DeleteMissing).Msg("target was not as the log expects it")
	}
}
