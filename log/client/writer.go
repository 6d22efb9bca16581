package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
)

// OpenWriter seals the stream, which fences every earlier writer, and attaches to
// the new epoch.
func (c *Client) OpenWriter(ctx context.Context, stream string) (log.Writer, error) {
	s, err := c.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open writer of stream %q: %w", stream, err)
	}
	var sealed wire.SoloSealed
	var attached wire.Attached
	err = c.within(ctx, s, func(ctx context.Context) error {
		if err := s.Send(&wire.SoloSeal{Stream: stream, Create: true}); err != nil {
			return err
		}
		if err := s.Expect(ctx, &sealed); err != nil {
			return err
		}
		if err := s.Send(&wire.SoloAttach{Stream: stream, Epoch: sealed.Bounds.Epoch}); err != nil {
			return err
		}
		return s.Expect(ctx, &attached)
	})
	if err == nil && attached.Last != sealed.Last {
		err = fmt.Errorf("sealed at %d, attached at %d: %w", sealed.Last, attached.Last, log.ErrProtocol)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open writer of stream %q: %w", stream, err)
	}
	w := &writer{
		client: c, session: s, stream: stream, first: sealed.Bounds.First, epoch: sealed.Bounds.Epoch,
		window:  quorum.NewWindow(sealed.Last, sealed.Bounds.LSO, 1, quorum.Any),
		changed: make(chan struct{}), work: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if err := c.adopt(w); err != nil {
		s.close()
		return nil, err
	}
	w.loops.Go(w.pump)
	w.loops.Go(w.listen)
	return w, nil
}

// writer numbers entries, sends them ahead of their acknowledgements, and dies at
// the first error: who wants to go on opens a new one and reads its tail.
type writer struct {
	client  *Client
	session *session
	stream  string
	first   log.Offset
	epoch   log.Epoch
	loops   sync.WaitGroup
	work    chan struct{} // one token: the queue has frames; owner: the writer; never closed
	stop    chan struct{} // closed by end
	once    sync.Once

	mu      sync.Mutex
	window  *quorum.Window
	queue   []piece // encoded frames, bounded by the window
	small   int     // index in queue of the buffer that small frames join; valid while tail is set
	tail    bool
	spares  [][]byte // empty chunks to encode into
	err     error    // why the writer is dead
	closing bool
	changed chan struct{} // closed and replaced at each change
}

const (
	chunkBytes = 64 << 10 // small frames join one chunk
	copyMax    = 8 << 10  // payloads up to here are copied behind their frame's head
)

// piece is a part of the byte stream to the node.
type piece struct {
	bytes []byte
	chunk bool // the writer's own, to be used again; else a payload
}

func (w *writer) Epoch() log.Epoch { return w.epoch }

func (w *writer) Bounds() log.Bounds {
	w.mu.Lock()
	defer w.mu.Unlock()
	return log.Bounds{First: w.first, LAC: w.window.Confirmed(), LSO: w.window.LSO(), Epoch: w.epoch}
}

func (w *writer) Append(ctx context.Context, d log.Draft) (log.Offset, error) {
	if len(d.Payload) == 0 || len(d.Payload) > log.MaxPayload {
		return 0, fmt.Errorf("stream %q: append of %d bytes: %w", w.stream, len(d.Payload), log.ErrTooLarge)
	}
	sum := segment.Checksum(d.Payload)
	size := len(d.Payload) + wire.AppendOverhead
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if err := w.openLocked(); err != nil {
			return 0, err
		}
		if f := w.window.InFlight(); f == 0 || f+int64(size) <= w.client.cfg.WindowBytes {
			break
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
			w.mu.Lock()
		case <-ctx.Done():
			w.mu.Lock()
			return 0, ctx.Err()
		}
	}
	o := w.window.Append(size, d.EndsTransaction)
	w.encodeLocked(&wire.Append{
		Offset: o, LAC: w.window.Confirmed(), Time: time.Now().UnixMicro(), Topic: d.Topic, Ends: d.EndsTransaction,
		Checksum: sum, Payload: d.Payload,
	})
	select {
	case w.work <- struct{}{}:
	default:
	}
	return o, nil
}

func (w *writer) openLocked() error {
	if w.err != nil {
		return w.err
	}
	if w.closing {
		return fmt.Errorf("writer of stream %q: %w", w.stream, log.ErrClosed)
	}
	return nil
}

// encodeLocked queues the frame. Small ones share a chunk, so that a crowd of
// them leaves in one write; the payload of a large one is sent from where it is.
func (w *writer) encodeLocked(a *wire.Append) {
	need := wire.AppendOverhead
	if len(a.Payload) <= copyMax {
		need += len(a.Payload)
	}
	if !w.tail || len(w.queue[w.small].bytes)+need > chunkBytes {
		w.small, w.tail = len(w.queue), true
		w.queue = append(w.queue, piece{w.chunkLocked(), true})
	}
	b := &w.queue[w.small].bytes
	*b = wire.EncodeAppend(*b, a)
	if len(a.Payload) <= copyMax {
		*b = append(*b, a.Payload...)
		return
	}
	w.queue = append(w.queue, piece{a.Payload, false})
	w.tail = false
}

func (w *writer) chunkLocked() []byte {
	if n := len(w.spares); n > 0 {
		c := w.spares[n-1]
		w.spares = w.spares[:n-1]
		return c
	}
	return make([]byte, 0, chunkBytes)
}

// pump sends what is queued.
func (w *writer) pump() {
	var idle []piece
	var list net.Buffers
	for {
		select {
		case <-w.work:
		case <-w.stop:
			return
		}
		w.mu.Lock()
		queue := w.queue
		if len(queue) == 0 { // an earlier turn sent it
			w.mu.Unlock()
			continue
		}
		w.queue, w.tail = idle, false
		w.mu.Unlock()
		list = list[:0]
		for _, p := range queue {
			list = append(list, p.bytes)
		}
		if err := w.session.SendBuffers(list); err != nil {
			w.end(fmt.Errorf("send: %w", err))
			return
		}
		w.mu.Lock()
		for _, p := range queue {
			if p.chunk && len(w.spares) < int(w.client.cfg.WindowBytes/chunkBytes) {
				w.spares = append(w.spares, p.bytes[:0])
			}
		}
		w.mu.Unlock()
		clear(queue)
		idle = queue[:0]
	}
}

// listen takes acknowledgements until the connection ends.
func (w *writer) listen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		k, body, err := w.session.Next(ctx, wire.ControlMax)
		if err != nil {
			w.end(err)
			return
		}
		switch k {
		case wire.KindAck:
			var m wire.Ack
			if err := wire.Decode(&m, body); err != nil {
				w.end(err)
				return
			}
			if err := w.acked(m.Last); err != nil {
				w.end(err)
				return
			}
		case wire.KindError:
			var m wire.Error
			if err := wire.Decode(&m, body); err != nil {
				w.end(err)
				return
			}
			w.end(m.Err())
			return
		default:
			w.end(fmt.Errorf("%v to a writer: %w", k, log.ErrProtocol))
			return
		}
	}
}

func (w *writer) acked(last log.Offset) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	more, err := w.window.Acked(0, last)
	if more {
		w.wakeLocked()
	}
	return err
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
		if err == nil {
			err = log.ErrClosed
		}
		if !isReply(err) && !errors.Is(err, log.ErrClosed) {
			err = fmt.Errorf("%w: connection to node %s: %w", log.ErrUnavailable, w.session.node, err)
		}
		w.err = fmt.Errorf("writer of stream %q at epoch %d: %w", w.stream, w.epoch, err)
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
		if o <= w.window.Confirmed() {
			return log.Ack{Offset: o, Protected: true}, nil
		}
		if o >= w.window.Next() {
			return log.Ack{}, fmt.Errorf("stream %q: wait for entry %d, the next one is %d: %w", w.stream, o, w.window.Next(), log.ErrProtocol)
		}
		if w.err != nil {
			return log.Ack{}, fmt.Errorf("stream %q: entry %d: %w: %w", w.stream, o, log.ErrUnknown, w.err)
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
			w.mu.Lock()
		case <-ctx.Done():
			w.mu.Lock()
			return log.Ack{}, ctx.Err()
		case <-quit:
			w.mu.Lock()
			return log.Ack{}, fmt.Errorf("stream %q: entry %d: %w: log client: %w", w.stream, o, log.ErrUnknown, log.ErrClosed)
		}
	}
}

// Close waits for what is in flight, or for the writer's or the client's end.
func (w *writer) Close() error {
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		w.loops.Wait()
		return nil
	}
	w.closing = true
	w.wakeLocked()
	last := w.window.Next() - 1
	w.mu.Unlock()
	_, err := w.wait(context.Background(), last, w.client.closed)
	w.end(nil)
	w.session.close()
	w.loops.Wait()
	w.client.disown(w)
	if err != nil {
		return fmt.Errorf("close writer: %w", err)
	}
	return nil
}
