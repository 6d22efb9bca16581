package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
)

// tallies are the connections on which clients with many streams take their
// acknowledgements, by their tokens.
type tallies struct {
	mu sync.Mutex
	by map[uint64]*tally
}

// tally gathers what the append connections of one client have on disk. While one
// message is sent the next one fills; a group commit of many streams costs one.
type tally struct {
	conn  *conn
	token uint64
	// wake has a token when something is due; owner: the tally; bound 1; never closed.
	wake chan struct{}

	mu      sync.Mutex
	members map[*counted]struct{}
	due     []*counted // at most all members
	gone    bool       // it takes nothing more
}

// counted is one append connection of a tally. Its fields are guarded by the
// tally's lock, but for those that never change.
type counted struct {
	tally  *tally
	conn   *conn
	number uint64

	last log.Offset // to be told
	due  bool
}

// open makes a tally of the connection.
func (ts *tallies) open(c *conn) (*tally, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, fmt.Errorf("token of a tally: %w", err)
	}
	t := &tally{conn: c, token: binary.LittleEndian.Uint64(b[:]), wake: make(chan struct{}, 1), members: map[*counted]struct{}{}}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.by == nil {
		ts.by = map[uint64]*tally{}
	}
	if _, taken := ts.by[t.token]; taken { // never, with tokens of that size
		return nil, fmt.Errorf("token of a tally is taken: %w", log.ErrUnavailable)
	}
	ts.by[t.token] = t
	return t, nil
}

// join counts an append connection in; nil: there is no such tally any more.
func (ts *tallies) join(via wire.Via, c *conn) *counted {
	ts.mu.Lock()
	t := ts.by[via.Token]
	ts.mu.Unlock()
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return nil
	}
	m := &counted{tally: t, conn: c, number: via.Number}
	t.members[m] = struct{}{}
	return m
}

// leave takes the connection out. What was due is not told: it ends.
func (m *counted) leave() {
	t := m.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.members, m)
	if m.due {
		m.due = false
		for i, x := range t.due {
			if x == m {
				t.due = append(t.due[:i], t.due[i+1:]...)
				break
			}
		}
	}
}

// ack has it told that everything up to last is on disk. log.ErrUnavailable: the
// tally ended, and the append connection has to.
func (m *counted) ack(last log.Offset) error {
	t := m.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return fmt.Errorf("the client's tally ended: %w", log.ErrUnavailable)
	}
	m.last = last
	if !m.due {
		m.due = true
		t.due = append(t.due, m)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
	return nil
}

// waiting is how many have something to be told.
func (t *tally) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.due)
}

// take is what is due, behind acks.
func (t *tally) take(acks []wire.NumberedAck) []wire.NumberedAck {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, m := range t.due {
		acks = append(acks, wire.NumberedAck{Number: m.number, Last: m.last})
		m.due = false
		t.due[i] = nil
	}
	t.due = t.due[:0]
	return acks
}

// end drops the append connections that it counted: their client has to hear of
// what they have on disk in another way.
func (t *tally) end() {
	ts := &t.conn.node.tallies
	ts.mu.Lock()
	delete(ts.by, t.token)
	ts.mu.Unlock()
	t.mu.Lock()
	t.gone = true
	members := t.members
	t.members, t.due = map[*counted]struct{}{}, nil
	t.mu.Unlock()
	for m := range members {
		m.conn.drop()
	}
}

// tally serves a tally until its client goes.
func (c *conn) tally(ctx context.Context) error {
	t, err := c.node.tallies.open(c)
	if err != nil {
		return c.refuse(err)
	}
	defer t.end()
	if err := c.link.Send(&wire.Tallied{Token: t.token}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() {
		if t.tell(ctx) != nil {
			c.drop() // wake the reading side
		}
	})
	k, _, err := c.link.Next(ctx, wire.ControlMax)
	t.end() // before the wait for a write that may be under way
	if err == nil {
		err = fmt.Errorf("%v on a tally: %w", k, log.ErrProtocol)
	}
	return err
}

// tell sends what is due.
func (t *tally) tell(ctx context.Context) error {
	var m wire.Acks
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return nil
		}
		// A group commit wakes all whose entries were in it, one after the other: let
		// them run first, as long as that brings more.
		for had := 0; ; {
			runtime.Gosched()
			n := t.waiting()
			if n <= had {
				break
			}
			had = n
		}
		if m.Acks = t.take(m.Acks[:0]); len(m.Acks) == 0 {
			continue
		}
		if err := t.conn.link.Send(&m); err != nil {
			return err
		}
	}
}
