package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// clockMargin is how far the clocks of source and writer may be apart for a
// search by time to begin early enough.
const clockMargin = 5 * time.Minute

// start is the offset to read from.
func start(ctx context.Context, l log.Log, q Query, b log.Bounds) (log.Offset, error) {
	first := b.First
	if q.Topic == log.TopicSchema {
		first = 0 // this topic is never trimmed
	}
	switch {
	case q.From >= 0:
		return q.From, nil
	case q.Last > 0:
		return max(first, b.LSO+1-log.Offset(q.Last)), nil
	case q.Topic != log.TopicData:
		return first, nil
	}
	from := first
	if q.GTID != "" {
		o, err := beforeGTID(ctx, l, q.Stream, b, q.GTID)
		if err != nil {
			return 0, err
		}
		from = max(from, o)
	}
	if !q.Since.IsZero() {
		// An entry is appended after its transactions were committed.
		o, err := search(b, func(at log.Offset) (bool, error) {
			e, err := one(ctx, l, q.Stream, at, b, nil)
			return err == nil && e.AppendedAt.Before(q.Since.Add(-clockMargin)), err
		})
		if err != nil {
			return 0, err
		}
		from = max(from, o)
	}
	return from, nil
}

// search finds by halves the first offset for which before is false. before is
// true for none or for all up to some offset.
func search(b log.Bounds, before func(log.Offset) (bool, error)) (log.Offset, error) {
	low, high := b.First, b.LSO+1
	for low < high {
		mid := low + (high-low)/2
		yes, err := before(mid)
		if errors.Is(err, io.EOF) {
			yes, err = false, nil // nothing of the topic from here on
		}
		if err != nil {
			return 0, err
		}
		if yes {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}

// one is the first entry at or after an offset that has a property; io.EOF when
// there is none.
func one(ctx context.Context, l log.Log, stream string, at log.Offset, b log.Bounds, has func(log.Entry) bool) (log.Entry, error) {
	o := log.ReaderOptions{From: at, To: b.LSO + 1, Committed: true}
	if has != nil {
		o.Topics = []log.Topic{log.TopicData}
	}
	r, err := l.OpenReader(ctx, stream, o)
	if err != nil {
		return log.Entry{}, err
	}
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if err != nil || has == nil || has(e) {
			return e, err
		}
	}
}

// beforeGTID is an offset at or before the transaction's: the GTID sets that the
// batches carry now and then tell on which side it stands.
func beforeGTID(ctx context.Context, l log.Log, stream string, b log.Bounds, id string) (log.Offset, error) {
	if b.LSO < b.First {
		return b.First, nil
	}
	from := b.First
	_, err := search(b, func(at log.Offset) (bool, error) {
		var set, flavor string
		e, err := one(ctx, l, stream, at, b, func(e log.Entry) bool {
			r, err := change.NewBatchReader(e.Payload, nil)
			if err != nil {
				return false
			}
			set, flavor = r.GTIDSet(), r.Source().Flavor
			return set != ""
		})
		if err != nil {
			return false, err
		}
		s, err := gtid.Parse(flavor, set)
		if err != nil {
			return false, fmt.Errorf("entry %d: %w", e.Offset, err)
		}
		has, err := s.ContainsGTID(id)
		if err != nil {
			return false, err
		}
		if !has {
			// The entry itself has its transactions in its set, so the one
			// that is looked for comes later.
			from = max(from, e.Offset+1)
		}
		return !has, nil
	})
	return from, err
}

// published calls f for every table version that was published before an offset.
func published(ctx context.Context, l log.Log, stream string, before log.Offset, f func(log.Entry, schema.TableVersion) error) error {
	if before <= 0 {
		return nil
	}
	r, err := l.OpenReader(ctx, stream, log.ReaderOptions{To: before, Topics: []log.Topic{log.TopicSchema}})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		tv, err := schema.DecodeTableVersion(e.Payload)
		if err == nil {
			err = f(e, tv)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Offset, err)
		}
	}
}

// Version is one table version for people.
type Version struct {
	Table       string     `json:"table"`
	Offset      log.Offset `json:"offset"` // where it was published
	PublishedAt time.Time  `json:"published_at,omitzero"`
	GTID        string     `json:"gtid,omitempty"` // first use
	Fingerprint string     `json:"fingerprint"`
	Columns     []Column   `json:"columns,omitempty"`
	PrimaryKey  []string   `json:"primary_key,omitempty"`
	// Definition is the version itself.
	Definition schema.TableVersion `json:"-"`
}

// Column of a Version.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable,omitempty"`
	Key      bool   `json:"key,omitempty"`
}

func describe(tv schema.TableVersion) *Version {
	v := &Version{Table: tv.Table.Name.String(), GTID: tv.GTID, Fingerprint: tv.Fingerprint.String(), Definition: tv,
		PrimaryKey: tv.Table.KeyColumns()}
	key := map[int]bool{}
	for _, k := range tv.Table.PrimaryKey {
		key[k.Column] = true
	}
	for i := range tv.Table.Columns {
		c := &tv.Table.Columns[i]
		v.Columns = append(v.Columns, Column{Name: c.Name, Type: c.SQLType(), Nullable: c.Nullable, Key: key[i]})
	}
	return v
}

// Versions are all table versions of a stream, in the order of their publication.
// A version that was published again (a table that went back to an earlier
// definition) stands there each time.
func Versions(ctx context.Context, l log.Log, stream string) ([]*Version, error) {
	b, err := l.Bounds(ctx, stream)
	if err != nil {
		return nil, err
	}
	var out []*Version
	err = published(ctx, l, stream, b.LAC+1, func(e log.Entry, tv schema.TableVersion) error {
		v := describe(tv)
		v.Offset, v.PublishedAt = e.Offset, e.AppendedAt
		out = append(out, v)
		return nil
	})
	return out, err
}
