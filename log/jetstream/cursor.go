package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// What a stream needs beside its entries is kept in a bucket: its cursors in one
// document, so that one read sees all of them as they were at one time, and where
// it was trimmed. Documents are replaced by compare and set.

const (
	cursorsMax      = 1024
	cursorBytesMax  = 4 << 20
	groupBytesMax   = 255
	documentCursors = "cursors"
	documentTrim    = "trim"
)

type cursorDocument struct {
	Cursors []storedCursor `json:"cursors"`
}

type storedCursor struct {
	Group   string     `json:"group"`
	Offset  log.Offset `json:"offset"`
	GTIDSet string     `json:"gtid_set,omitempty"`
	Time    int64      `json:"time_us"`
}

// bucket opens the bucket of the prefix and makes it when there is none. Its
// stream answers only from its leader: a replica that lags would show a cursor
// as it was.
func (l *Log) bucket(ctx context.Context, api js.JetStream) (js.KeyValue, error) {
	l.mu.Lock()
	kv := l.kv
	l.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	name := l.cfg.Prefix + "-state"
	kv, err := api.KeyValue(ctx, name)
	if errors.Is(err, js.ErrBucketNotFound) {
		c := js.StreamConfig{
			Name: "KV_" + name, Description: "twinspan cursors", Subjects: []string{"$KV." + name + ".>"}, Storage: js.FileStorage, Replicas: l.cfg.Replicas,
			Discard: js.DiscardNew, MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, DenyDelete: true, AllowRollup: true,
		}
		if l.cfg.Cluster != "" || len(l.cfg.Tags) > 0 {
			c.Placement = &js.Placement{Cluster: l.cfg.Cluster, Tags: l.cfg.Tags}
		}
		if _, err := api.CreateStream(ctx, c); err != nil && !errors.Is(err, js.ErrStreamNameAlreadyInUse) {
			return nil, err
		}
		kv, err = api.KeyValue(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kv = kv
	return kv, nil
}

// document reads a document; revision 0: there is none yet.
func (l *Log) document(ctx context.Context, n names, which string, into any) (revision uint64, err error) {
	err = l.try(ctx, func(ctx context.Context, api js.JetStream) error {
		kv, err := l.bucket(ctx, api)
		if err != nil {
			return err
		}
		e, err := kv.Get(ctx, n.token+"."+which)
		if errors.Is(err, js.ErrKeyNotFound) {
			revision = 0
			return nil
		}
		if err != nil {
			return err
		}
		revision = e.Revision()
		if err := json.Unmarshal(e.Value(), into); err != nil {
			return fmt.Errorf("document %s of %s: %w: %w", which, n.js, log.ErrSuspect, err)
		}
		return nil
	})
	return revision, err
}

// errMoved: someone else replaced the document first.
var errMoved = errors.New("the document has changed")

// replace stores a document in the place of the revision that was read. Without
// an answer the outcome is unknown; the caller reads again.
func (l *Log) replace(ctx context.Context, n names, which string, revision uint64, document any) error {
	text, err := json.Marshal(document)
	if err != nil {
		return err
	}
	api, err := l.conn()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	defer l.cutOff(cancel)()
	kv, err := l.bucket(ctx, api)
	if err != nil {
		return err
	}
	_, err = kv.Update(ctx, n.token+"."+which, text, revision)
	var e *js.APIError
	if errors.As(err, &e) && (e.ErrorCode == codeWrongLastSequence || e.ErrorCode == codeWrongLastSequenceConstant) {
		return errMoved
	}
	return err
}

// edit changes a document until nobody got in between. change says whether there
// is anything to store.
func edit[T any](ctx context.Context, l *Log, n names, which string, change func(*T) (store bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*l.cfg.RequestTimeout)
	defer cancel()
	for {
		document := new(T)
		revision, err := l.document(ctx, n, which, document)
		if err != nil {
			return err
		}
		store, err := change(document)
		if err != nil || !store {
			return err
		}
		err = l.replace(ctx, n, which, revision, document)
		if err == nil {
			return nil
		}
		if dead := l.alive(); dead != nil {
			return dead
		}
		if !errors.Is(err, errMoved) && !passing(err) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", log.ErrUnavailable, errors.Join(ctx.Err(), err))
		}
	}
}

// Cursors of the stream.
func (l *Log) Cursors(ctx context.Context, stream string) ([]log.Cursor, error) {
	n, err := l.cfg.names(stream)
	if err == nil {
		_, err = l.info(ctx, n) // is there such a stream?
	}
	var d cursorDocument
	if err == nil {
		_, err = l.document(ctx, n, documentCursors, &d)
	}
	if err != nil {
		return nil, fmt.Errorf("cursors of stream %q: %w", stream, err)
	}
	out := make([]log.Cursor, 0, len(d.Cursors))
	for _, c := range d.Cursors {
		out = append(out, log.Cursor{Group: c.Group, Offset: c.Offset, GTIDSet: c.GTIDSet, UpdatedAt: time.UnixMicro(c.Time).UTC()})
	}
	return out, nil
}

// StoreCursor stores the cursor. Without an answer the outcome is unknown; it may
// be stored again.
func (l *Log) StoreCursor(ctx context.Context, stream string, c log.Cursor) error {
	if err := l.storeCursor(ctx, stream, c); err != nil {
		return fmt.Errorf("cursor %q of stream %q at %d: %w", c.Group, stream, c.Offset, err)
	}
	return nil
}

func (l *Log) storeCursor(ctx context.Context, stream string, c log.Cursor) error {
	n, err := l.cfg.names(stream)
	if err != nil {
		return err
	}
	if c.Group == "" || len(c.Group) > groupBytesMax || c.Offset < log.None {
		return fmt.Errorf("want a group's name of 1 to %d bytes and an offset from %d: %w", groupBytesMax, log.None, log.ErrProtocol)
	}
	if c.UpdatedAt.IsZero() {
		c.UpdatedAt = time.Now()
	}
	t, err := l.tail(ctx, n)
	if err != nil {
		return err
	}
	if c.Offset > t.offset {
		return fmt.Errorf("entries are confirmed up to %d: %w", t.offset, log.ErrProtocol)
	}
	return edit(ctx, l, n, documentCursors, func(d *cursorDocument) (bool, error) {
		next := storedCursor{Group: c.Group, Offset: c.Offset, GTIDSet: c.GTIDSet, Time: c.UpdatedAt.UnixMicro()}
		i, found := slices.BinarySearchFunc(d.Cursors, c.Group, func(s storedCursor, g string) int { return cmp.Compare(s.Group, g) })
		switch {
		case found && c.Offset < d.Cursors[i].Offset:
			return false, fmt.Errorf("it stands at %d: %w", d.Cursors[i].Offset, log.ErrCursorBehind)
		case found:
			d.Cursors[i] = next
		case len(d.Cursors) == cursorsMax:
			return false, fmt.Errorf("the stream has %d cursors: %w", cursorsMax, log.ErrProtocol)
		default:
			d.Cursors = slices.Insert(d.Cursors, i, next)
		}
		total := 0
		for _, s := range d.Cursors {
			total += len(s.Group) + len(s.GTIDSet)
		}
		if total > cursorBytesMax {
			return false, fmt.Errorf("the stream's cursors take %d bytes, more than %d: %w", total, cursorBytesMax, log.ErrTooLarge)
		}
		return true, nil
	})
}
