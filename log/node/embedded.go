package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment/single"
)

// embedded is the node as a log.Log in its own process.
type embedded struct {
	node *Node
	once sync.Once
	gone chan struct{} // closed by shut
}

// Log is the node's log for this process. Appends wait until Run is under way.
// Closing it ends its writers and readers, not the node.
func (n *Node) Log() log.Log {
	l := &embedded{node: n, gone: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		close(l.gone)
		l.once.Do(func() {})
		return l
	}
	n.handles[l] = struct{}{}
	return l
}

func (l *embedded) shut() { l.once.Do(func() { close(l.gone) }) }

// Close ends the handle.
func (l *embedded) Close() error {
	l.shut()
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	delete(l.node.handles, l)
	return nil
}

func (l *embedded) alive() error {
	select {
	case <-l.gone:
		return fmt.Errorf("log node %q: %w", l.node.cfg.Name, log.ErrClosed)
	default:
		return nil
	}
}

func (l *embedded) stream(name string) (*segment.Stream, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	return l.node.store.Stream(name)
}

func (l *embedded) Bounds(_ context.Context, stream string) (log.Bounds, error) {
	st, err := l.stream(stream)
	if err != nil {
		return log.Bounds{}, err
	}
	return st.Bounds(), nil
}

func (l *embedded) Streams(context.Context) ([]string, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	return l.node.store.Streams(), nil
}

func (l *embedded) Cursors(_ context.Context, stream string) ([]log.Cursor, error) {
	st, err := l.stream(stream)
	if err != nil {
		return nil, err
	}
	return st.Cursors(), nil
}

func (l *embedded) StoreCursor(_ context.Context, stream string, c log.Cursor) error {
	st, err := l.stream(stream)
	if err != nil {
		return err
	}
	return st.StoreCursor(c)
}

func (l *embedded) OpenWriter(ctx context.Context, stream string) (log.Writer, error) {
	if err := l.alive(); err != nil {
		return nil, err
	}
	st, s, err := l.node.store.Fence(ctx, stream, 0, true)
	if err != nil {
		return nil, err
	}
	w := &writer{
		log: l, stream: st, epoch: s.Epoch, bounds: s.Bounds, turn: make(chan struct{}, 1), closed: make(chan struct{}),
		window: quorum.NewWindow(s.Last, s.LSO, 1, quorum.Any), limit: l.node.cfg.WindowBytes,
	}
	l.node.count(&l.node.writers, 1)
	return w, nil
}

// writer is an in-process log.Writer.
type writer struct {
	log    *embedded
	stream *segment.Stream
	epoch  log.Epoch
	bounds log.Bounds // at the start
	limit  int64
	turn   chan struct{} // holds a token while one Append runs; owner: the writer; bound 1; never closed
	once   sync.Once
	closed chan struct{} // closed by Close

	mu     sync.Mutex
	window *quorum.Window
	err    error // why the writer is dead
}

func (w *writer) Epoch() log.Epoch { return w.epoch }

func (w *writer) Bounds() log.Bounds {
	b := w.stream.Bounds()
	_, _ = w.advance() // what killed the writer is for Append and Wait to say
	w.mu.Lock()
	defer w.mu.Unlock()
	return log.Bounds{First: b.First, LAC: w.window.Confirmed(), LSO: w.window.LSO(), Epoch: w.epoch}
}

// advance takes in what became durable. The channel tells when to look again.
func (w *writer) advance() (<-chan struct{}, error) {
	p, changed, err := w.stream.Progress(w.epoch)
	w.mu.Lock()
	defer w.mu.Unlock()
	// Last may name an entry that Append is about to number.
	if _, ackErr := w.window.Acked(0, min(p.Last, w.window.Next()-1)); ackErr != nil {
		err = errors.Join(err, ackErr)
	}
	if err == nil {
		err = p.Err
	}
	if err != nil && w.err == nil && (w.window.Confirmed() < w.window.Next()-1 || errors.Is(err, log.ErrFenced)) {
		w.err = err
	}
	return changed, w.err
}

func (w *writer) Append(ctx context.Context, d log.Draft) (log.Offset, error) {
	if len(d.Payload) == 0 || len(d.Payload) > log.MaxPayload {
		return 0, fmt.Errorf("stream %q: append of %d bytes: %w", w.stream.Name(), len(d.Payload), log.ErrTooLarge)
	}
	if err := w.open(); err != nil {
		return 0, err
	}
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-w.closed:
		return 0, w.open()
	}
	for {
		if err := w.open(); err != nil {
			return 0, err
		}
		w.mu.Lock()
		room := w.window.InFlight() == 0 || w.window.InFlight()+int64(len(d.Payload)) <= w.limit
		next, lac := w.window.Next(), w.window.Confirmed()
		w.mu.Unlock()
		if room {
			return w.append(ctx, d, next, lac)
		}
		changed, err := w.advance()
		if err != nil {
			return 0, err
		}
		w.mu.Lock()
		room = w.window.Confirmed() > lac
		w.mu.Unlock()
		if room {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-w.closed:
		case <-w.log.gone:
		}
	}
}

// append hands one entry to the journal. The turn is held.
func (w *writer) append(ctx context.Context, d log.Draft, next, lac log.Offset) (log.Offset, error) {
	err := w.stream.Append(ctx, &segment.Append{
		Epoch: w.epoch, Offset: next, LAC: lac, Topic: d.Topic, Ends: d.EndsTransaction,
		Time: time.Now().UnixMicro(), Checksum: segment.Checksum(d.Payload), Payload: d.Payload,
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil && w.err == nil { // a cancelled wait queued nothing
			w.err = err
		}
		return 0, err
	}
	return w.window.Append(len(d.Payload), d.EndsTransaction), nil
}

// open is nil while the writer may append.
func (w *writer) open() error {
	select {
	case <-w.closed:
		return fmt.Errorf("writer of stream %q: %w", w.stream.Name(), log.ErrClosed)
	default:
	}
	if err := w.log.alive(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *writer) Wait(ctx context.Context, o log.Offset) (log.Ack, error) {
	for {
		changed, err := w.advance()
		w.mu.Lock()
		confirmed, next := w.window.Confirmed(), w.window.Next()
		w.mu.Unlock()
		if o <= confirmed {
			return log.Ack{Offset: o, Protected: true}, nil
		}
		if o >= next {
			return log.Ack{}, fmt.Errorf("stream %q: wait for entry %d, the next one is %d: %w", w.stream.Name(), o, next, log.ErrProtocol)
		}
		if err == nil {
			err = w.log.alive()
		}
		if err != nil {
			if !errors.Is(err, log.ErrUnknown) {
				err = fmt.Errorf("stream %q: entry %d: %w: %w", w.stream.Name(), o, log.ErrUnknown, err)
			}
			return log.Ack{}, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return log.Ack{}, ctx.Err()
		case <-w.log.gone:
		}
	}
}

// Close waits for what is in flight. The stream stays at this epoch until the
// next writer.
func (w *writer) Close() error {
	first := false
	w.once.Do(func() { close(w.closed); first = true })
	if !first {
		return nil
	}
	w.turn <- struct{}{} // an Append under way ends first
	defer func() { <-w.turn }()
	w.log.node.count(&w.log.node.writers, -1)
	w.mu.Lock()
	last := w.window.Next() - 1
	w.mu.Unlock()
	if _, err := w.Wait(context.Background(), last); err != nil {
		return fmt.Errorf("close writer: %w", err)
	}
	return nil
}

func (l *embedded) OpenReader(_ context.Context, stream string, o log.ReaderOptions) (log.Reader, error) {
	st, err := l.stream(stream)
	if err != nil {
		return nil, err
	}
	if _, err := startFrom(st, o.From); err != nil {
		return nil, err
	}
	r := &reader{
		log: l, stream: st, closed: make(chan struct{}), to: o.To,
		query: segment.Query{From: o.From, To: o.To, Topics: o.Topics, Committed: o.Committed, BytesMax: 64 << 10},
	}
	if err := st.Readable(r.query); err != nil {
		return nil, err
	}
	l.node.count(&l.node.readers, 1)
	return r, nil
}

// reader is an in-process log.Reader. The journal is its queue.
type reader struct {
	log    *embedded
	stream *segment.Stream
	once   sync.Once
	closed chan struct{} // closed by Close

	query segment.Query // its From is where to go on
	to    log.Offset    // the end; 0: none
	batch []segment.Stored
	at    int // of batch
}

func (r *reader) Bounds() log.Bounds { return r.stream.Bounds() }

func (r *reader) Next(ctx context.Context) (log.Entry, error) {
	for {
		select {
		case <-r.closed:
			return log.Entry{}, fmt.Errorf("reader of stream %q: %w", r.stream.Name(), log.ErrClosed)
		default:
		}
		if err := r.log.alive(); err != nil {
			return log.Entry{}, err
		}
		if r.at < len(r.batch) {
			if r.to > 0 && r.batch[r.at].Offset >= r.to {
				return log.Entry{}, io.EOF
			}
			r.at++
			return r.batch[r.at-1].Entry, nil
		}
		if r.to > 0 && r.query.From >= r.to {
			return log.Entry{}, io.EOF
		}
		if r.query.To > 0 && r.query.From >= r.query.To {
			return log.Entry{}, io.EOF
		}
		if err := ctx.Err(); err != nil {
			return log.Entry{}, err
		}
		_, changed, _ := r.stream.Status() // Read meets the store's error as well
		from := r.query.From
		var err error
		// A new buffer each time: the receiver owns the payloads.
		r.batch, _, r.query.From, err = r.stream.Read(r.query, r.batch, nil)
		r.at = 0
		if err != nil {
			return log.Entry{}, err
		}
		if len(r.batch) > 0 || r.query.From > from {
			continue
		}
		select {
		case <-changed:
		case <-r.closed:
		case <-r.log.gone:
		case <-ctx.Done():
			return log.Entry{}, ctx.Err()
		}
	}
}

func (r *reader) Close() error {
	r.once.Do(func() {
		close(r.closed)
		r.log.node.count(&r.log.node.readers, -1)
	})
	return nil
}
