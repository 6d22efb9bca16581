package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/twinspan/twinspan/log"
)

// writer publishes entries ahead of their confirmation, in order, on a connection
// of its own. Each one names the sequence it has to follow, so a message that is
// lost or refused takes all behind it along. The writer dies at the first error.
type writer struct {
	log    *Log
	names  names
	epoch  log.Epoch
	opened uint64     // sequence of our fence
	base   log.Offset // the newest entry before it: entry o has sequence opened + o - base
	first  log.Offset
	inbox  string
	nc     *nats.Conn
	loops  sync.WaitGroup
	stop   chan struct{} // closed by end
	once   sync.Once
	turn   chan struct{} // holds a token while an entry is published; owner: the writer; bound 1; never closed

	mu        sync.Mutex
	next      log.Offset
	confirmed log.Offset
	lso       log.Offset // of the confirmed entries
	sentLSO   log.Offset // of all
	last      map[log.Topic]log.Offset
	pending   []flying // from confirmed+1 on, bounded by the windows
	bytes     int64    // of pending
	failing   bool     // an error is being looked into
	err       error    // why the writer is dead
	closing   bool
	changed   chan struct{} // closed and replaced at each change
}

// flying is an entry that is not confirmed.
type flying struct {
	bytes int64
	sent  time.Time
	ends  bool
	acked bool // before an earlier one was
}

func newWriter(l *Log, n names, f tail, first log.Offset) *writer {
	w := &writer{
		log: l, names: n, epoch: f.epoch, opened: f.opened, base: f.offset, first: first,
		stop: make(chan struct{}), turn: make(chan struct{}, 1),
		next: f.offset + 1, confirmed: f.offset, lso: f.lso, sentLSO: f.lso, last: maps.Clone(f.last),
		changed: make(chan struct{}),
	}
	if w.last == nil {
		w.last = map[log.Topic]log.Offset{}
	}
	return w
}

// start connects and starts the loops.
func (w *writer) start() error {
	gone := func(nc *nats.Conn, err error) {
		w.end(fmt.Errorf("connection to %s is lost: %w: %w", nc.ConnectedAddr(), log.ErrUnavailable, errors.Join(err, nc.LastError())))
	}
	nc, err := w.log.dial(true, nats.DisconnectErrHandler(gone), nats.ClosedHandler(func(nc *nats.Conn) { gone(nc, nil) }))
	if err != nil {
		return err
	}
	w.nc, w.inbox = nc, nc.NewInbox()
	sub, err := nc.Subscribe(w.inbox+".*", w.answered)
	if err == nil {
		// Bounded by what is in flight.
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		nc.Close()
		return fmt.Errorf("subscribe: %w: %w", log.ErrUnavailable, err)
	}
	w.loops.Go(w.watch)
	w.loops.Go(w.trim)
	return nil
}

func (w *writer) Epoch() log.Epoch { return w.epoch }

func (w *writer) Bounds() log.Bounds {
	w.mu.Lock()
	defer w.mu.Unlock()
	return log.Bounds{First: w.first, LAC: w.confirmed, LSO: w.lso, Epoch: w.epoch}
}

func (w *writer) Append(ctx context.Context, d log.Draft) (log.Offset, error) {
	if len(d.Payload) == 0 || len(d.Payload) > log.MaxPayload {
		return 0, fmt.Errorf("stream %q: append of %d bytes: %w", w.names.stream, len(d.Payload), log.ErrTooLarge)
	}
	// The turn makes the order of offsets that of the connection.
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	m, err := w.admit(ctx, d)
	if err != nil {
		return 0, err
	}
	seq := w.opened + uint64(m.offset-w.base)
	msg := &nats.Msg{
		Subject: w.names.entry(w.epoch, d.Topic), Reply: w.inbox + "." + strconv.FormatInt(int64(m.offset), 10), Data: d.Payload,
		Header: nats.Header{
			js.ExpectedStreamHeader:  {w.names.js},
			js.ExpectedLastSeqHeader: {strconv.FormatUint(seq-1, 10)},
			markHeader:               {m.encode(d.Payload)},
		},
	}
	if err := w.nc.PublishMsg(msg); err != nil {
		w.end(fmt.Errorf("publish: %w: %w", log.ErrUnavailable, err))
		w.mu.Lock()
		defer w.mu.Unlock()
		return 0, w.err
	}
	return m.offset, nil
}

// admit waits for room in the window and numbers the entry.
func (w *writer) admit(ctx context.Context, d log.Draft) (mark, error) {
	size := int64(len(d.Payload)) + 512 // its headers
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if w.err != nil {
			return mark{}, w.err
		}
		if w.closing {
			return mark{}, fmt.Errorf("writer of stream %q: %w", w.names.stream, log.ErrClosed)
		}
		if !w.failing && (w.bytes == 0 || w.bytes+size <= w.log.cfg.WindowBytes && len(w.pending) < w.log.cfg.WindowEntries) {
			break
		}
		if err := w.awaitLocked(ctx, nil); err != nil {
			return mark{}, err
		}
	}
	if _, known := w.last[d.Topic]; !known && len(w.last) == topicsMax {
		return mark{}, fmt.Errorf("stream %q: topic %v would be its %dth: %w", w.names.stream, d.Topic, topicsMax+1, log.ErrProtocol)
	}
	o := w.next
	w.next++
	w.last[d.Topic] = o
	if d.EndsTransaction {
		w.sentLSO = o
	}
	now := time.Now()
	w.pending = append(w.pending, flying{bytes: size, sent: now, ends: d.EndsTransaction})
	w.bytes += size
	return mark{
		epoch: w.epoch, offset: o, lso: w.sentLSO, lac: w.confirmed, opened: w.opened, ends: d.EndsTransaction,
		topic: d.Topic, time: now, last: maps.Clone(w.last),
	}, nil
}

// awaitLocked gives up the lock until something changes.
func (w *writer) awaitLocked(ctx context.Context, quit <-chan struct{}) error {
	changed := w.changed
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-quit:
		return fmt.Errorf("jetstream log: %w", log.ErrClosed)
	}
}

// answered takes what the servers say about one entry.
func (w *writer) answered(m *nats.Msg) {
	o, err := strconv.ParseInt(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	if err != nil {
		return // not to anything we sent
	}
	if status := m.Header.Get("Status"); status != "" {
		w.fail(fmt.Errorf("entry %d: status %s: %w", o, status, log.ErrUnavailable))
		return
	}
	var a struct {
		Seq   uint64       `json:"seq"`
		Error *js.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		w.end(fmt.Errorf("answer %.200q to entry %d: %w: %w", m.Data, o, log.ErrProtocol, err))
		return
	}
	if a.Error != nil {
		w.fail(fmt.Errorf("entry %d: %w", o, refusal(a.Error)))
		return
	}
	if want := w.opened + uint64(log.Offset(o)-w.base); a.Seq != want {
		w.end(fmt.Errorf("entry %d got sequence %d, and %d was demanded: %w", o, a.Seq, want, log.ErrProtocol))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	i := int(log.Offset(o) - w.confirmed - 1)
	if i < 0 || i >= len(w.pending) {
		return
	}
	w.pending[i].acked = true
	if i > 0 {
		return
	}
	n := 0
	for n < len(w.pending) && w.pending[n].acked {
		w.confirmed++
		w.bytes -= w.pending[n].bytes
		if w.pending[n].ends {
			w.lso = w.confirmed
		}
		n++
	}
	w.pending = w.pending[n:]
	w.wakeLocked()
}

// refusal tells the servers' errors apart.
func refusal(e *js.APIError) error {
	switch e.ErrorCode {
	case codeWrongLastSequence, codeWrongLastSequenceConstant:
		return fmt.Errorf("%w: %w", errOutOfStep, e)
	case codeStoreFailed, codeNoResources:
		return fmt.Errorf("%w: %w", log.ErrFull, e)
	}
	return fmt.Errorf("%w: %w", log.ErrUnavailable, e)
}

// errOutOfStep: another message has the sequence, or one before it got lost.
var errOutOfStep = errors.New("the stream does not stand where this writer left it")

// fail looks into why an entry was refused, and ends the writer. The servers do
// not say whether a newer writer is the reason: the stream itself does.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failing || w.err != nil {
		return
	}
	w.failing = true
	w.loops.Go(func() {
		switch e := w.owner(5 * time.Second); {
		case e > w.epoch:
			err = fmt.Errorf("%w: epoch %d: %w", log.ErrFenced, e, err)
		case errors.Is(err, errOutOfStep):
			err = fmt.Errorf("%w: %w", log.ErrUnavailable, err)
		}
		w.end(err)
	})
}

// lookAfter is how long an entry may be without an answer until the writer looks
// whether it was fenced: a message may be dropped without a word while the stream
// changes its subjects.
const lookAfter = time.Second

// watch ends the writer when the servers stop answering.
func (w *writer) watch() {
	tick := time.NewTicker(min(w.log.cfg.AckTimeout/8, lookAfter/2))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
		w.mu.Lock()
		var late time.Duration
		if len(w.pending) > 0 {
			late = time.Since(w.pending[0].sent)
		}
		o := w.confirmed + 1
		w.mu.Unlock()
		if late > w.log.cfg.AckTimeout {
			w.fail(fmt.Errorf("entry %d is not confirmed after %v: %w", o, w.log.cfg.AckTimeout, log.ErrUnavailable))
		} else if late > lookAfter {
			if e := w.owner(2 * time.Second); e > w.epoch {
				w.end(fmt.Errorf("%w: epoch %d", log.ErrFenced, e))
			}
		}
	}
}

// owner is the epoch of the stream's newest fence; 0: it could not be found out.
func (w *writer) owner(patience time.Duration) log.Epoch {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	f, err := w.log.get(ctx, w.names, map[string]any{"last_by_subj": w.names.fences()})
	if err != nil {
		return 0
	}
	return f.mark.epoch
}

func (w *writer) wakeLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// end makes the writer dead and wakes everyone. What is not confirmed has an
// unknown outcome, and the error says so.
func (w *writer) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("writer of stream %q at epoch %d: %w", w.names.stream, w.epoch, err)
	}
	w.wakeLocked()
	w.once.Do(func() { close(w.stop) })
}

func (w *writer) Wait(ctx context.Context, o log.Offset) (log.Ack, error) { return w.wait(ctx, o, nil) }

// wait is Wait that gives up when quit is closed.
func (w *writer) wait(ctx context.Context, o log.Offset, quit <-chan struct{}) (log.Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if o <= w.confirmed {
			// A majority of the replicas has it on disk. Which cities they
			// are in JetStream can't be told, so no city's loss is covered.
			return log.Ack{Offset: o, Protected: false}, nil
		}
		if o >= w.next {
			return log.Ack{}, fmt.Errorf("stream %q: wait for entry %d, the next one is %d: %w", w.names.stream, o, w.next, log.ErrProtocol)
		}
		if w.err != nil {
			return log.Ack{}, fmt.Errorf("stream %q: entry %d: %w: %w", w.names.stream, o, log.ErrUnknown, w.err)
		}
		if err := w.awaitLocked(ctx, quit); err != nil {
			if errors.Is(err, log.ErrClosed) {
				err = fmt.Errorf("stream %q: entry %d: %w: %w", w.names.stream, o, log.ErrUnknown, err)
			}
			return log.Ack{}, err
		}
	}
}

// Close waits for what is in flight, or for the writer's or the Log's end.
func (w *writer) Close() error {
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		w.loops.Wait()
		return nil
	}
	w.closing = true
	w.wakeLocked()
	last := w.next - 1
	w.mu.Unlock()
	_, err := w.wait(context.Background(), last, w.log.closed)
	w.end(log.ErrClosed)
	w.release()
	w.log.disown(w)
	if err != nil {
		return fmt.Errorf("close writer: %w", err)
	}
	return nil
}

// release gives up the connection and joins the loops of a writer that is dead.
func (w *writer) release() {
	w.nc.Close()
	w.loops.Wait()
}
