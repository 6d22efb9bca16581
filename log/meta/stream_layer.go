package meta

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/twinspan/twinspan/log"
)

// layer is raft.StreamLayer over connections that others make. It closes all of
// them at the end, since Raft leaves those it serves open.
type layer struct {
	address string
	accept  <-chan net.Conn
	dial    func(context.Context, string) (net.Conn, error)
	ctx     context.Context
	cancel  context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newLayer(c *Config, address string) *layer {
	l := &layer{address: address, accept: c.Accept, dial: c.Dial, conns: map[net.Conn]struct{}{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Accept is part of net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c, ok := <-l.accept:
		if ok {
			return l.track(c)
		}
		<-l.ctx.Done() // no more will come
	case <-l.ctx.Done():
	}
	return nil, net.ErrClosed
}

// Dial is part of raft.StreamLayer.
func (l *layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if l.dial == nil {
		return nil, fmt.Errorf("metadata: no way to %s: %w", address, log.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	c, err := l.dial(ctx, string(address))
	if err != nil {
		return nil, err
	}
	return l.track(c)
}

func (l *layer) track(c net.Conn) (net.Conn, error) {
	t := &tracked{Conn: c, layer: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		_ = c.Close() // nothing was sent on it
		return nil, net.ErrClosed
	}
	l.conns[t] = struct{}{}
	return t, nil
}

// Close is part of net.Listener.
func (l *layer) Close() error {
	l.cancel()
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		_ = c.(*tracked).Conn.Close() // Raft's requests may be repeated
	}
	return nil
}

// Addr is part of net.Listener.
func (l *layer) Addr() net.Addr { return address(l.address) }

type tracked struct {
	net.Conn
	layer *layer
}

func (t *tracked) Close() error {
	t.layer.mu.Lock()
	delete(t.layer.conns, t)
	t.layer.mu.Unlock()
	return t.Conn.Close()
}

type address string

func (address) Network() string  { return "twinspan" }
func (a address) String() string { return string(a) }
