package conflicts

import (
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/applier/target"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

// Record is one conflict.
type Record struct {
	At        time.Time    `json:"at"`
	Kind      target.Kind  `json:"kind"`
	Table     string       `json:"table"`
	Operation string       `json:"operation,omitempty"`
	Key       string       `json:"key,omitempty"`
	GTID      string       `json:"gtid,omitempty"`
	Place     change.Place `json:"place"`
	// Action is what was done: a policy, or "already" where the target's row was
	// as the change leaves it.
	Action    string `json:"action"`
	Exception int64  `json:"exception,omitempty"` // its number, where it was parked
	Before    Image  `json:"before,omitempty"`
	After     Image  `json:"after,omitempty"`
	Present   Image  `json:"present,omitempty"` // the target's row in the way
	// Count is more than 1 for conflicts that were only counted, so many of one
	// kind in one batch: they were too many to look at each.
	Count int `json:"count"`
}

// Already is the action where there was nothing left to do.
const Already = "already"

// Count is how often a kind was met on a table, and what was done.
type Count struct {
	Kind   target.Kind `json:"kind"`
	Table  string      `json:"table"`
	Action string      `json:"action"`
	Count  int64       `json:"count"`
}

// Bounds of what is remembered.
const (
	ringRecords = 256
	countRows   = 2000 // by table, kind and action; what is above goes to table "(other)"
)

// Ring counts conflicts and keeps the newest. It is safe for concurrent use.
type Ring struct {
	mu      sync.Mutex
	records []Record // at most ringRecords, as a ring once full
	next    int
	total   int64
	counts  map[Count]int64 // key: Count with Count 0
}

// Add takes conflicts in, once they are facts: their transaction was committed, or
// they stop a lane.
func (r *Ring) Add(records ...Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[Count]int64{}
	}
	for _, x := range records {
		x.Count = max(x.Count, 1)
		r.total += int64(x.Count)
		key := Count{Kind: x.Kind, Table: x.Table, Action: x.Action}
		if _, known := r.counts[key]; !known && len(r.counts) >= countRows {
			key.Table = "(other)"
		}
		r.counts[key] += int64(x.Count)
		if len(r.records) < ringRecords {
			r.records = append(r.records, x)
			continue
		}
		r.records[r.next] = x
		r.next = (r.next + 1) % ringRecords
	}
}

// Total is how many there were.
func (r *Ring) Total() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// Report is what is known of conflicts since the applier was started.
type Report struct {
	Total  int64    `json:"total"`
	Counts []Count  `json:"counts"`
	Newest []Record `json:"newest"` // the newest first, at most 256
}

// Report copies what there is.
func (r *Ring) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Report{Total: r.total, Counts: []Count{}, Newest: []Record{}}
	for k, n := range r.counts {
		k.Count = n
		out.Counts = append(out.Counts, k)
	}
	slices.SortFunc(out.Counts, func(a, b Count) int {
		switch {
		case a.Count != b.Count:
			return int(b.Count - a.Count)
		case a.Table != b.Table:
			return compare(a.Table, b.Table)
		case a.Kind != b.Kind:
			return compare(a.Kind, b.Kind)
		}
		return compare(a.Action, b.Action)
	})
	for i := range r.records {
		at := (r.next - 1 - i + 2*len(r.records)) % len(r.records)
		out.Newest = append(out.Newest, r.records[at])
	}
	return out
}

func compare[T ~string](a, b T) int {
	if a < b {
		return -1
	}
	return 1
}

// Image is a row for people, column by column; values are cut short.
type Image []Cell

// Cell is one column's value; nil is NULL.
type Cell struct {
	Column string  `json:"column"`
	Value  *string `json:"value"`
}

// Bounds of an Image.
const (
	valueBytes = 200
	imageBytes = 4 << 10
)

// Show makes a row image readable. It is nil for a nil image.
func Show(t *schema.Table, image []change.Value) Image {
	if image == nil {
		return nil
	}
	out := Image{}
	size := 0
	for i := range image {
		if i >= len(t.Columns) || t.Columns[i].Hidden() {
			continue
		}
		c := Cell{Column: t.Columns[i].Name}
		if !image[i].IsNull() {
			s := text(image[i])
			if size += len(s); size > imageBytes {
				s = "…"
			}
			c.Value = &s
		}
		out = append(out, c)
	}
	return out
}
