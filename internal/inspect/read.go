package inspect

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Query says what to read.
type Query struct {
	Stream string
	Topic  log.Topic
	// From is the first offset; negative: where the other conditions allow to
	// start, else the oldest entry that is kept.
	From log.Offset
	// To is the last offset; negative: the end.
	To log.Offset
	// Last starts this many entries before the end; 0: not used.
	Last int64
	// Since and Until bound the commit time (of schema entries: when they were
	// appended); the zero time does not.
	Since, Until time.Time
	GTID         string
	// Table is schema.table; * stands for anything.
	Table string
	// Key holds columns that the row, before or after, must have these values
	// in; see plain for how they are written.
	Key map[string]string
	// Follow goes on at the end and waits for more.
	Follow bool
	// Limit ends after this many records; 0: none.
	Limit int
	// Entries gives the heads of entries instead of what they hold.
	Entries bool
}

// errEnough ends a reading early.
var errEnough = errors.New("enough")

// Read calls emit for each record, in the order of the log, up to the end of the
// log as it is now (or for ever with Follow). Only entries up to the last whole
// transaction are shown.
func Read(ctx context.Context, l log.Log, q Query, emit func(*Record) error) error {
	if q.Table != "" {
		if _, err := path.Match(q.Table, ""); err != nil {
			return fmt.Errorf("table pattern %q: %w", q.Table, err)
		}
	}
	b, err := l.Bounds(ctx, q.Stream)
	if err != nil {
		return err
	}
	from, err := start(ctx, l, q, b)
	if err != nil {
		return err
	}
	end := b.LSO + 1
	if q.To >= 0 {
		end = min(end, q.To+1)
	}
	if q.Follow {
		end = 0
		if q.To >= 0 {
			end = q.To + 1
		}
	}
	if !q.Follow && from >= end {
		return nil
	}
	topics := []log.Topic{q.Topic}
	if q.Topic == log.TopicData {
		topics = append(topics, log.TopicSchema)
	}
	r, err := l.OpenReader(ctx, q.Stream, log.ReaderOptions{From: from, To: end, Topics: topics, Committed: true})
	if err != nil {
		return err
	}
	defer r.Close()
	v := &viewer{query: q, tables: schema.NewRegistry(0), prints: map[*schema.Table]string{}, emit: emit}
	v.codecs = change.NewCodecs(v.tables)
	if q.Topic == log.TopicData && !q.Entries {
		if err := published(ctx, l, q.Stream, from, func(_ log.Entry, tv schema.TableVersion) error {
			_, err := v.tables.Add(tv)
			return err
		}); err != nil {
			return err
		}
	}
	for {
		e, err := r.Next(ctx)
		if err == nil {
			err = v.entry(e)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, errEnough):
			return nil
		case err != nil:
			return err
		}
	}
}

// viewer turns entries into records.
type viewer struct {
	query  Query
	tables *schema.Registry
	codecs *change.Codecs
	prints map[*schema.Table]string // fingerprints
	emit   func(*Record) error
	given  int
	open   string // the transaction that was begun and not ended
}

func (v *viewer) give(r *Record) error {
	if err := v.emit(r); err != nil {
		return err
	}
	if v.given++; v.query.Limit > 0 && v.given >= v.query.Limit {
		return errEnough
	}
	return nil
}

func (v *viewer) entry(e log.Entry) error {
	var err error
	switch e.Topic {
	case log.TopicSchema:
		err = v.schema(e)
	case log.TopicData:
		err = v.data(e)
	default:
		if v.query.Entries {
			return v.give(&Record{Offset: e.Offset, Op: "entry", Entry: head(e)})
		}
		r := &Record{Offset: e.Offset, Op: "exception"}
		if json.Valid(e.Payload) {
			r.Payload = json.RawMessage(e.Payload)
		} else {
			r.Payload = map[string]string{"base64": base64.StdEncoding.EncodeToString(e.Payload)}
		}
		return v.give(r)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("entry %d: %w", e.Offset, err)
	}
	return err
}

func head(e log.Entry) *Entry {
	return &Entry{Topic: e.Topic.String(), Epoch: e.Epoch, AppendedAt: e.AppendedAt, EndsTransaction: e.EndsTransaction, Bytes: len(e.Payload)}
}

func (v *viewer) schema(e log.Entry) error {
	tv, err := v.tables.AddEntry(e.Payload)
	if err != nil {
		return err
	}
	if v.query.Topic != log.TopicSchema {
		return nil
	}
	q := &v.query
	if !v.wantsTable(tv.Table.Name) || q.GTID != "" && q.GTID != tv.GTID || !within(e.AppendedAt, q.Since, q.Until) {
		return nil
	}
	if q.Entries {
		return v.give(&Record{Offset: e.Offset, Op: "entry", Entry: head(e)})
	}
	return v.give(&Record{Offset: e.Offset, Op: "schema", Table: tv.Table.Name.String(), GTID: tv.GTID,
		Fingerprint: tv.Fingerprint.String(), Schema: describe(tv)})
}

func within(t, since, until time.Time) bool {
	return (since.IsZero() || !t.Before(since)) && (until.IsZero() || t.Before(until))
}

func (v *viewer) wantsTable(n schema.Name) bool {
	if v.query.Table == "" {
		return true
	}
	// A name may hold a slash, which a pattern's * does not match.
	ok, err := path.Match(strings.ReplaceAll(v.query.Table, "/", "\x00"), strings.ReplaceAll(n.String(), "/", "\x00"))
	return err == nil && ok
}

// data shows the transactions of an entry.
func (v *viewer) data(e log.Entry) error {
	r, err := change.NewBatchReader(e.Payload, v.codecs)
	if err != nil {
		return err
	}
	if v.query.Entries {
		return v.heads(e, r)
	}
	var t change.Transaction
	for {
		more, err := r.Next(&t)
		if err != nil || !more {
			return err
		}
		if v.open != "" && !t.Continues {
			if v.wants(v.open, time.Time{}) && v.query.Table == "" && v.query.Key == nil {
				if err := v.give(&Record{Offset: e.Offset, Op: "abandoned", GTID: v.open}); err != nil {
					return err
				}
			}
		}
		v.open = ""
		if t.Continued {
			v.open = t.GTID
		}
		if !v.wants(t.GTID, t.CommitTime) {
			continue
		}
		if err := v.transaction(e, r, t); err != nil {
			return err
		}
		if v.query.GTID != "" && !t.Continued {
			return errEnough // it is there once
		}
	}
}

// wants tells whether the transaction is wanted; the zero time fits any time.
func (v *viewer) wants(gtid string, at time.Time) bool {
	return (v.query.GTID == "" || strings.EqualFold(v.query.GTID, gtid)) && (at.IsZero() || within(at, v.query.Since, v.query.Until))
}

func (v *viewer) transaction(e log.Entry, r *change.BatchReader, t change.Transaction) error {
	at := t.CommitTime
	if t.DDL != nil && v.query.Key == nil && v.wantsStatement(t.DDL) {
		err := v.give(&Record{Offset: e.Offset, Op: "ddl", GTID: t.GTID, CommitTime: &at, ServerID: t.ServerID, DDL: statement(t.DDL)})
		if err != nil {
			return err
		}
	}
	for {
		var row change.Row
		more, err := r.NextRow(&row)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
		if !v.wantsTable(row.Table.Name) || !v.hasKey(&row) {
			continue
		}
		position := row.Position
		rec := &Record{Offset: e.Offset, Op: row.Op.String(), Table: row.Table.Name.String(), GTID: t.GTID, Position: &position,
			CommitTime: &at, ServerID: t.ServerID, Fingerprint: v.fingerprint(row.Table), Flags: flagNames(row.Flags)}
		if row.Before != nil {
			rec.Before = &Image{row.Table, row.Before}
		}
		if row.After != nil {
			rec.After = &Image{row.Table, row.After}
		}
		if err := v.give(rec); err != nil {
			return err
		}
	}
}

func (v *viewer) fingerprint(t *schema.Table) string {
	s, ok := v.prints[t]
	if !ok {
		s = schema.FingerprintOf(t).String()
		v.prints[t] = s
	}
	return s
}

func (v *viewer) wantsStatement(d *change.DDL) bool {
	if v.query.Table == "" {
		return true
	}
	for _, n := range d.Tables {
		if v.wantsTable(n) {
			return true
		}
	}
	return false
}

// hasKey: every column of the key has its value, in one of the row's images.
func (v *viewer) hasKey(row *change.Row) bool {
	if len(v.query.Key) == 0 {
		return true
	}
	for _, image := range [][]change.Value{row.Before, row.After} {
		found := 0
		for i := range image {
			if want, ok := v.query.Key[row.Table.Columns[i].Name]; ok && plain(image[i]) == want {
				found++
			}
		}
		if found == len(v.query.Key) {
			return true
		}
	}
	return false
}

// heads shows an entry without decoding its rows.
func (v *viewer) heads(e log.Entry, r *change.BatchReader) error {
	h := head(e)
	src := r.Source()
	h.GTIDSet, h.Server, h.File, h.FilePosition = r.GTIDSet(), src.ServerUUID, src.File, src.Position
	wanted := v.query.GTID == "" && v.query.Since.IsZero() && v.query.Until.IsZero()
	var t change.Transaction
	for {
		more, err := r.Next(&t)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if h.Transactions++; h.Transactions == 1 {
			h.FirstGTID, h.Continues = t.GTID, t.Continues
		}
		h.LastGTID, h.Continued = t.GTID, t.Continued
		wanted = wanted || v.wants(t.GTID, t.CommitTime)
	}
	if !wanted {
		return nil
	}
	return v.give(&Record{Offset: e.Offset, Op: "entry", Entry: h})
}
