package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// seat is a member of the segment that is written, or is about to be: it keeps a
// connection to the node, sends it entries and takes its acknowledgements.
type seat struct {
	w       *writer
	index   int
	member  quorum.Member
	segment quorum.Descriptor
	begin   chan struct{} // closed when the metadata has the segment
	gone    chan struct{} // closed when the seat is left
	wake    chan struct{} // one token: there is something to send; owner: the seat; never closed

	// Guarded by the writer's lock.
	left    bool       // the writer has gone on without it
	session *session   // attached; nil while it is not
	idle    bool       // the sender sleeps
	next    log.Offset // to be sent
	place   place      // of next
	lac     log.Offset // to be told by itself; log.None: nothing
	err     error      // of the last attempt
	sent    int64      // bytes
}

const sendBytes = 256 << 10 // of one write, about

func (s *seat) wakeLocked() {
	if s.idle {
		s.idle = false
		signal(s.wake)
	}
}

// leaveLocked ends the seat for good.
func (s *seat) leaveLocked() {
	if s.left {
		return
	}
	s.left = true
	close(s.gone)
	if s.session != nil {
		s.session.cut()
	}
	s.idle = false
	signal(s.wake)
}

// run connects, again and again, until the seat is left. The first connection is
// made while the metadata is still asked whether there will be the segment.
func (s *seat) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { // a dial under way ends with the seat
		select {
		case <-s.gone:
			cancel()
		case <-ctx.Done():
		}
	})
	for pause := newPause(); ; {
		attached, err := s.once(ctx)
		if attached {
			pause = newPause()
		}
		if !s.goOn(err) {
			return
		}
		if pause.wait(ctx) != nil {
			return
		}
	}
}

// goOn tells the machine what ended an attempt, and whether to try again.
func (s *seat) goOn(err error) bool {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	s.err = err
	if s.left || w.err != nil {
		return false
	}
	w.client.cfg.Logger.Debug().Err(err).Str("stream", w.stream).Uint32("segment", s.segment.Segment).Str("node", s.member.Node).Msg("log writer lost a member")
	if w.core.Descriptor().Segment != s.segment.Segment {
		return true // the metadata is still asked for the segment
	}
	if isReply(err) {
		switch {
		case errors.Is(err, log.ErrFenced):
			w.doubt = true // the metadata knows
			w.refuseLocked(s)
		case errors.Is(err, log.ErrUnavailable), errors.Is(err, log.ErrElsewhere), errors.Is(err, log.ErrUnknown):
		default: // suspect, full, closed, a protocol it does not follow
			w.refuseLocked(s)
		}
	} else if errors.Is(err, log.ErrIdentity) || errors.Is(err, log.ErrProtocol) && !errors.Is(err, wire.ErrFrame) {
		w.refuseLocked(s)
	}
	w.core.Broken(s.index, s.segment.Segment, w.now())
	signal(w.look)
	return w.core.State(s.index) != quorum.Out
}

// once is one connection. attached: it came as far as entries.
func (s *seat) once(ctx context.Context) (attached bool, err error) {
	w := s.w
	address, err := w.client.book.address(ctx, s.member)
	if err != nil {
		return false, err
	}
	conn, err := w.client.dialMember(ctx, address, s.member)
	if err != nil {
		return false, err
	}
	defer conn.close()
	select {
	case <-s.begin:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	counted := s.count(ctx, conn, address)
	if counted != nil {
		defer counted.leave()
	}
	var reply wire.Attached
	err = w.client.within(ctx, conn, func(ctx context.Context) error {
		if counted != nil {
			if err := conn.Send(&wire.Via{Token: counted.tally.token, Number: counted.number}); err != nil {
				return err
			}
		}
		if err := conn.Send(&wire.Attach{Descriptor: s.segment, Epoch: w.epoch}); err != nil {
			return err
		}
		return conn.Expect(ctx, &reply)
	})
	if err != nil {
		return false, err
	}
	if err := s.attach(conn, reply.Last, counted); err != nil {
		return false, err
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		if err := s.send(conn); err != nil {
			conn.cut() // the receiving side ends with it
		}
	})
	err = s.receive(ctx, conn)
	conn.cut()
	w.mu.Lock()
	s.session = nil
	s.idle = false
	signal(s.wake)
	w.mu.Unlock()
	sender.Wait()
	return true, err
}

// count has the connection's acknowledgements come on a tally, if that is of use and
// to be had.
func (s *seat) count(ctx context.Context, conn *session, address string) *counted {
	c := s.w.client
	if conn.Version() < wire.VersionTally || !c.several() {
		return nil
	}
	t := c.tallies.join(ctx, s.member, address)
	if t == nil {
		return nil
	}
	counted := t.count(s, conn)
	if counted == nil {
		t.leave()
	}
	return counted
}

// attach tells the machine what the member has. counted: where its acknowledgements
// come; nil: on the connection.
func (s *seat) attach(conn *session, last log.Offset, counted *counted) error {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.left {
		return log.ErrClosed
	}
	was := w.core.State(s.index)
	from, ok := w.core.Attached(s.index, s.segment.Segment, last, w.now())
	if !ok {
		return fmt.Errorf("node %s has entry %d, and those from %d to %d are here: it can't go on: %w",
			s.member.Node, last, w.ring.first(), w.ring.next-1, log.ErrUnavailable)
	}
	if was == quorum.Lost {
		w.resumes++
	}
	s.session, s.next, s.place = conn, from, w.ring.seek(from)
	s.err, s.lac = nil, log.None
	if lac := w.core.Confirmed(); lac >= s.segment.First {
		s.lac = lac // it may have missed the announcement
	}
	// What the node had on disk before the connection broke counts, and what it had
	// queued then and acknowledged since.
	if counted != nil {
		last = max(last, counted.early)
	}
	more, err := w.core.Acked(s.index, s.segment.Segment, last)
	if err != nil {
		w.failLocked(err)
		return err
	}
	if more {
		w.confirmedLocked()
		w.trimLocked()
	}
	signal(w.look)
	return nil
}

// send carries entries as they come, until the connection ends.
func (s *seat) send(conn *session) error {
	w := s.w
	var list net.Buffers
	var pinned []*chunk
	var lacFrame []byte
	crowd := false // the last write carried more than one entry
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for {
			if s.session != conn || s.left {
				return nil
			}
			if s.next < w.ring.next || s.lac != log.None {
				break
			}
			s.idle = true
			w.mu.Unlock()
			<-s.wake
			if crowd {
				// Whoever appends is likely to have more than one again, and runs
				// first if it is ready to: fewer and larger writes.
				runtime.Gosched()
			}
			w.mu.Lock()
		}
		list = list[:0]
		from := s.place
		if from.chunk < w.ring.base {
			if s.next < w.ring.first() {
				return fmt.Errorf("entries from %d are no longer kept", s.next)
			}
			from = w.ring.seek(s.next)
		}
		parts, pins, to, last := w.ring.batch(from, sendBytes, list, pinned)
		s.place = to
		if last != log.None {
			crowd = last > s.next
			s.next = last + 1
		}
		if s.lac != log.None && s.next == w.ring.next {
			lacFrame = wire.Encode(lacFrame[:0], &wire.LAC{LAC: s.lac})
			parts = append(parts, lacFrame)
			s.lac = log.None
		}
		for _, p := range parts {
			s.sent += int64(len(p))
		}
		w.mu.Unlock()
		err := conn.SendBuffers(parts)
		w.mu.Lock()
		list, pinned = parts[:0], unpin(pins)
		if err != nil {
			return err
		}
	}
}

// receive takes acknowledgements until the connection ends.
func (s *seat) receive(ctx context.Context, conn *session) error {
	for {
		k, body, err := conn.Next(ctx, wire.ControlMax)
		if err != nil {
			return err
		}
		switch k {
		case wire.KindAck:
			var m wire.Ack
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			if err := s.acked(m.Last); err != nil {
				return err
			}
		case wire.KindError:
			var m wire.Error
			if err := wire.Decode(&m, body); err != nil {
				return err
			}
			return m.Err()
		default:
			return fmt.Errorf("%v to a writer: %w", k, log.ErrProtocol)
		}
	}
}

func (s *seat) acked(last log.Offset) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.ackedLocked(last)
}

// tallied is acked for what came on a tally. It only counts while the connection is
// the seat's: the node may have lost what it had at the time of an earlier one.
func (s *seat) tallied(c *counted, last log.Offset) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.session != c.session {
		c.early = max(c.early, last)
		return
	}
	_ = s.ackedLocked(last) // the writer is dead then
}

func (s *seat) ackedLocked(last log.Offset) error {
	w := s.w
	if s.left {
		return nil
	}
	more, err := w.core.Acked(s.index, s.segment.Segment, last)
	if err != nil {
		w.failLocked(err)
		return err
	}
	if more {
		w.confirmedLocked()
	}
	w.trimLocked()
	return nil
}
