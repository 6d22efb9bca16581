package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/segment"
	"github.com/twinspan/twinspan/log/wire"
)

// writer is the only appender of a stream at its epoch. The machine in core
// decides; seats carry entries to the members of the present segment; the manager
// moves from segment to segment. It dies at the first error that can't be mended:
// who wants to go on opens a new one and reads its tail.
type writer struct {
	client *Client
	stream string
	epoch  log.Epoch
	first  log.Offset // of the stream, when it was opened
	began  time.Time  // the core's clock starts here
	loops  sync.WaitGroup
	stop   chan struct{} // closed by end
	once   sync.Once
	// announce fires when the LAC may have to be sent by itself. Whoever confirms
	// starts it, which spares the announcer a turn for every acknowledgement.
	announce *time.Timer
	// look asks the manager to decide; one token; owner: the writer; never closed.
	look    chan struct{}
	managed chan struct{} // closed when the manager has returned

	mu       sync.Mutex
	core     *quorum.Writer
	ring     *ring
	seats    []*seat // one for each member of the present segment
	prepared []*seat // of the segment that is being opened
	waiters  waiters
	room     chan struct{} // closed when there may be room again; nil: nobody waits
	told     log.Offset    // LAC that the last entry or announcement carried
	armed    bool          // an announcement is due
	doubt    bool          // a node spoke of a newer epoch: ask the metadata
	err      error         // why the writer is dead
	closing  bool
	outlook  outlook
	refused  map[quorum.Member]time.Duration // nodes that did not take a segment, and until when they are left alone
	blocked  string                          // why nothing can be confirmed; empty: it can
	rolls    int64
	resumes  int64
	degraded int64
}

// startWriter begins in the segment that a has opened. before are the members of
// the one that it closed.
func (c *Client) startWriter(a quorum.Advance, before []quorum.Member, o outlook) (*writer, error) {
	core, err := quorum.NewWriter(*a.Open, quorum.Settings{
		RollAfter: c.cfg.RollAfter, RollEvery: c.cfg.RollEvery, PenaltyAfter: c.cfg.PenaltyAfter, SegmentBytes: c.cfg.SegmentBytes,
	}, 0)
	if err != nil {
		return nil, err
	}
	w := &writer{
		client: c, stream: a.Stream, epoch: a.Epoch, first: o.stream.First, began: time.Now(),
		stop: make(chan struct{}), announce: time.NewTimer(time.Hour), look: make(chan struct{}, 1),
		managed: make(chan struct{}), told: a.Open.First - 1,
		core: core, ring: newRing(a.Open.First), outlook: o, refused: map[quorum.Member]time.Duration{},
	}
	if err := c.adopt(w); err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.sitLocked(w.prepare(a.Open))
	w.mu.Unlock()
	w.loops.Go(w.manage)
	w.loops.Go(w.probe)
	w.loops.Go(w.announcer)
	if a.Close != nil {
		w.tell(a, before)
	}
	return w, nil
}

func (w *writer) now() time.Duration { return time.Since(w.began) }

func (w *writer) Epoch() log.Epoch { return w.epoch }

func (w *writer) Bounds() log.Bounds {
	w.mu.Lock()
	defer w.mu.Unlock()
	return log.Bounds{First: w.first, LAC: w.core.Confirmed(), LSO: w.core.LSO(), Epoch: w.epoch}
}

func (w *writer) Append(ctx context.Context, d log.Draft) (log.Offset, error) {
	if len(d.Payload) == 0 || len(d.Payload) > log.MaxPayload {
		return 0, fmt.Errorf("stream %q: append of %d bytes: %w", w.stream, len(d.Payload), log.ErrTooLarge)
	}
	a := wire.Append{
		Time: time.Now().UnixMicro(), Topic: d.Topic, Ends: d.EndsTransaction,
		Checksum: segment.Checksum(d.Payload), Payload: d.Payload,
	}
	size := len(d.Payload) + wire.AppendOverhead
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if err := w.openLocked(); err != nil {
			return 0, err
		}
		if f := w.core.InFlight(); f == 0 || f+int64(size) <= w.client.cfg.WindowBytes {
			break
		}
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
			w.mu.Lock()
		case <-ctx.Done():
			w.mu.Lock()
			return 0, ctx.Err()
		}
	}
	a.LAC = w.core.Confirmed()
	w.told = a.LAC
	a.Offset = w.core.Append(size, d.EndsTransaction)
	w.ring.add(&a)
	for _, s := range w.seats {
		s.wakeLocked()
	}
	return a.Offset, nil
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

// confirmedLocked follows a change of what is confirmed.
func (w *writer) confirmedLocked() {
	w.waiters.release(w.core.Confirmed())
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
	if !w.armed && w.announceLocked() { // which starts the machine's clock
		w.armed = true
		w.announce.Reset(announceAfter)
	}
}

// trimLocked gives up entries that nobody needs any more, or that there is no
// room for, and the members that miss them.
func (w *writer) trimLocked() {
	before := w.ring.first()
	w.ring.trim(w.core.Needed(), w.core.Confirmed(), w.client.cfg.RetainBytes)
	kept := w.ring.first()
	if kept == before {
		return
	}
	w.core.Kept(kept, func(i int) log.Offset { return w.seats[i].next - 1 }, w.now())
	for i, s := range w.seats {
		if w.core.State(i) == quorum.Out && s.session != nil {
			s.session.cut()
			signal(w.look)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// failLocked makes the writer dead and wakes everyone. What is not confirmed has
// an unknown outcome, and Wait says so.
func (w *writer) failLocked(err error) {
	if w.err == nil {
		w.err = fmt.Errorf("writer of stream %q at epoch %d: %w", w.stream, w.epoch, err)
	}
	w.waiters.releaseAll()
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
	for _, s := range w.seats {
		s.leaveLocked()
	}
	for _, s := range w.prepared {
		s.leaveLocked()
	}
	w.once.Do(func() { close(w.stop) })
}

// coreFailedLocked follows an error of the machine.
func (w *writer) coreFailedLocked() bool {
	err := w.core.Err()
	if err != nil {
		w.failLocked(err)
	}
	return err != nil
}

func (w *writer) Wait(ctx context.Context, o log.Offset) (log.Ack, error) { return w.wait(ctx, o, nil) }

// wait is Wait that gives up when quit is closed.
func (w *writer) wait(ctx context.Context, o log.Offset, quit <-chan struct{}) (log.Ack, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if o <= w.core.Confirmed() {
			return log.Ack{Offset: o, Protected: w.core.Protected(o)}, nil
		}
		if o >= w.core.Next() {
			return log.Ack{}, fmt.Errorf("stream %q: wait for entry %d, the next one is %d: %w", w.stream, o, w.core.Next(), log.ErrProtocol)
		}
		if w.err != nil {
			return log.Ack{}, fmt.Errorf("stream %q: entry %d: %w: %w", w.stream, o, log.ErrUnknown, w.err)
		}
		x := w.waiters.add(o)
		w.mu.Unlock()
		select {
		case <-x.released:
			w.mu.Lock()
			w.waiters.done(x)
		case <-ctx.Done():
			w.mu.Lock()
			w.waiters.remove(x)
			return log.Ack{}, ctx.Err()
		case <-quit:
			w.mu.Lock()
			w.waiters.remove(x)
			return log.Ack{}, fmt.Errorf("stream %q: entry %d: %w: log client: %w", w.stream, o, log.ErrUnknown, log.ErrClosed)
		}
	}
}

// announcer sends the LAC by itself once nothing was appended for a while.
func (w *writer) announcer() {
	defer w.announce.Stop()
	for {
		select {
		case <-w.announce.C:
		case <-w.stop:
			return
		}
		w.mu.Lock()
		if w.armed = w.announceLocked(); w.armed {
			w.announce.Reset(announceAfter)
		}
		w.mu.Unlock()
	}
}

const announceAfter = time.Millisecond

// announceLocked tells the members the LAC when it is due, and says whether to
// look again.
func (w *writer) announceLocked() (again bool) {
	lac, due := w.core.IdleLAC(w.now())
	if !due {
		return w.told != lac && w.err == nil
	}
	w.told = lac
	for _, s := range w.seats {
		s.lac = lac
		s.wakeLocked()
	}
	return false
}

// Close waits for what is in flight, as long as something becomes confirmed within
// Config.RequestTimeout, or for the writer's or the client's end. Then it ends the
// segment: the next writer finds nothing to recover.
func (w *writer) Close() error {
	w.mu.Lock()
	if w.closing {
		w.mu.Unlock()
		w.loops.Wait()
		return nil
	}
	w.closing = true
	last := w.core.Next() - 1
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
	w.mu.Unlock()
	err := w.drain(last)
	if err == nil && w.client.alive() == nil {
		w.finish()
	}
	w.mu.Lock()
	w.failLocked(log.ErrClosed)
	w.mu.Unlock()
	w.loops.Wait()
	w.client.disown(w)
	if err != nil {
		return fmt.Errorf("close writer: %w", err)
	}
	return nil
}

// drain waits until everything up to last is confirmed, or nothing moves.
func (w *writer) drain(last log.Offset) error {
	for {
		before := w.Bounds().LAC
		ctx, cancel := context.WithTimeout(context.Background(), w.client.cfg.RequestTimeout)
		_, err := w.wait(ctx, last, w.client.closed)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if w.Bounds().LAC == before {
			return fmt.Errorf("stream %q: entries from %d to %d were not confirmed within %v: %w: %w",
				w.stream, before+1, last, w.client.cfg.RequestTimeout, log.ErrUnknown, log.ErrUnavailable)
		}
	}
}
