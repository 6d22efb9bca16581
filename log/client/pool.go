package client

import (
	"context"
	"sync"

	"github.com/twinspan/twinspan/log/wire"
)

const (
	requestsMax = 16 // at once, to one address
	idleMax     = 2  // connections kept, to one address
)

// pool keeps connections for requests, by address.
type pool struct {
	client *Client

	mu    sync.Mutex
	doors map[string]*door
}

// door is the way to one address.
type door struct {
	turns chan struct{} // a token per request under way; owner: the pool; bound requestsMax; never closed
	idle  []*session    // guarded by the pool's lock
}

func (p *pool) door(address string) *door {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.doors[address]
	if d == nil {
		d = &door{turns: make(chan struct{}, requestsMax)}
		p.doors[address] = d
	}
	return d
}

func (p *pool) take(d *door) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(d.idle)
	if n == 0 {
		return nil
	}
	s := d.idle[n-1]
	d.idle = d.idle[:n-1]
	return s
}

func (p *pool) put(d *door, s *session) {
	p.mu.Lock()
	if len(d.idle) < idleMax && p.client.alive() == nil {
		d.idle = append(d.idle, s)
		s = nil
	}
	p.mu.Unlock()
	if s != nil {
		s.close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.doors {
		for _, s := range d.idle {
			s.close()
		}
		d.idle = nil
	}
}

// request sends m to a node and reads the reply. Every request may be repeated,
// so one that finds an old connection dead is sent again on a new one. The reply
// owns its bytes.
func (c *Client) request(ctx context.Context, address string, m, reply wire.Message) error {
	d := c.pool.door(address)
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return c.alive()
	}
	for {
		s := c.pool.take(d)
		fresh := s == nil
		if fresh {
			var err error
			if s, err = c.dial(ctx, address); err != nil {
				return err
			}
		}
		err := c.within(ctx, s, func(ctx context.Context) error {
			if err := s.Send(m); err != nil {
				return err
			}
			if err := s.Expect(ctx, reply); err != nil {
				return err
			}
			if ok, is := reply.(*wire.MetaOK); is {
				ok.Response = append([]byte(nil), ok.Response...) // the link's buffer is used again
			}
			return nil
		})
		if err == nil || isReply(err) {
			c.pool.put(d, s)
			return err
		}
		s.close()
		if fresh || ctx.Err() != nil || c.alive() != nil {
			return err
		}
	}
}
