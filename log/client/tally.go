package client

import (
	"context"
	"fmt"
	"sync"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
	"github.com/twinspan/twinspan/log/wire"
)

// tallyFrom is how many writers of one client share a connection to each node for
// their acknowledgements. One alone does better without.
const tallyFrom = 2

// tallies are the connections on which nodes tell the acknowledgements of all the
// streams that this client writes.
type tallies struct {
	client *Client

	mu sync.Mutex
	by map[quorum.Member]*tally
}

// tally is one of them. It lives as long as seats use it.
type tally struct {
	owner  *tallies
	member quorum.Member
	ready  chan struct{} // closed when it was opened, or could not be
	loop   sync.WaitGroup

	// Set before ready is closed.
	session *session // nil: it could not be opened
	token   uint64

	// Guarded by the owner's lock.
	users  int
	number uint64
	seats  map[uint64]*counted
	ended  bool
}

// counted is one attachment of a seat, whose acknowledgements come on a tally.
type counted struct {
	tally   *tally
	seat    *seat
	session *session // that carries the entries
	number  uint64

	early log.Offset // acknowledged before the seat knew that it is attached; guarded by the writer's lock
}

// several says that the client has enough writers for tallies.
func (c *Client) several() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.writers) >= c.tallyFrom
}

// join is the tally of a node, for one more user, who calls leave. nil: there is none
// to be had, and acknowledgements come with the entries' own connection.
func (ts *tallies) join(ctx context.Context, m quorum.Member, address string) *tally {
	ts.mu.Lock()
	t := ts.by[m]
	first := t == nil
	if first {
		t = &tally{owner: ts, member: m, ready: make(chan struct{}), seats: map[uint64]*counted{}}
		ts.by[m] = t
	}
	t.users++
	ts.mu.Unlock()
	if first {
		if err := t.open(ctx, address); err != nil {
			ts.client.cfg.Logger.Debug().Err(err).Str("node", m.Node).Msg("log writers get each its own acknowledgements of a node")
		}
		close(t.ready)
	}
	select {
	case <-t.ready:
		if t.session != nil {
			return t
		}
	case <-ctx.Done():
	}
	t.leave()
	return nil
}

// open connects, and begins to listen.
func (t *tally) open(ctx context.Context, address string) error {
	c := t.owner.client
	s, err := c.dialMember(ctx, address, t.member)
	if err != nil {
		return err
	}
	var reply wire.Tallied
	err = c.within(ctx, s, func(ctx context.Context) error {
		if err := s.Send(&wire.Tally{}); err != nil {
			return err
		}
		return s.Expect(ctx, &reply)
	})
	if err != nil {
		s.close()
		return err
	}
	t.session, t.token = s, reply.Token
	t.loop.Go(t.listen)
	return nil
}

// leave is one user's end, without any lock; the last one closes it.
func (t *tally) leave() {
	ts := t.owner
	ts.mu.Lock()
	t.users--
	last := t.users == 0
	if last {
		t.forgetLocked()
	}
	ts.mu.Unlock()
	if last && t.session != nil { // nobody opens it any more: whoever does is a user
		t.session.close()
		t.loop.Wait()
	}
}

// forgetLocked keeps new users away.
func (t *tally) forgetLocked() {
	t.ended = true
	if t.owner.by[t.member] == t {
		delete(t.owner.by, t.member)
	}
}

// count gives a seat's connection its number, for a user of the tally; nil: it has
// ended.
func (t *tally) count(s *seat, conn *session) *counted {
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	if t.ended {
		return nil
	}
	t.number++
	c := &counted{tally: t, seat: s, session: conn, number: t.number, early: log.None}
	t.seats[c.number] = c
	return c
}

// leave is the end of the connection, without any lock.
func (c *counted) leave() {
	c.tally.owner.mu.Lock()
	delete(c.tally.seats, c.number)
	c.tally.owner.mu.Unlock()
	c.tally.leave()
}

// listen passes acknowledgements on until the connection ends. Those whose
// acknowledgements came on it come again then.
func (t *tally) listen() {
	err := t.receive()
	ts := t.owner
	ts.mu.Lock()
	t.forgetLocked()
	var cut []*session
	for _, c := range t.seats {
		cut = append(cut, c.session)
	}
	ts.mu.Unlock()
	for _, s := range cut {
		s.cut()
	}
	ts.client.cfg.Logger.Debug().Err(err).Str("node", t.member.Node).Int("streams", len(cut)).Msg("log writers lost their acknowledgements of a node")
}

func (t *tally) receive() error {
	var m wire.Acks
	var to []*counted // of m.Acks, same indexes; nil: gone
	for {
		k, body, err := t.session.Next(context.Background(), wire.ControlMax) // leave cuts it
		if err != nil {
			return err
		}
		if k != wire.KindAcks {
			return fmt.Errorf("%v on a tally: %w", k, log.ErrProtocol)
		}
		if err := wire.Decode(&m, body); err != nil {
			return err
		}
		to = to[:0]
		t.owner.mu.Lock()
		for _, a := range m.Acks {
			to = append(to, t.seats[a.Number])
		}
		t.owner.mu.Unlock()
		for i, c := range to {
			if c != nil {
				c.seat.tallied(c, m.Acks[i].Last)
			}
		}
	}
}
