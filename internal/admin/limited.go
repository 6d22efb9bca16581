package admin

import (
	"net"
	"sync"
)

// limited is a listener that has at most so many connections open.
type limited struct {
	net.Listener
	slots  chan struct{} // owner: limited; bound: the limit; never closed
	closed chan struct{} // closed by Close
	once   sync.Once
}

func newLimited(l net.Listener, n int) *limited {
	return &limited{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slot{Conn: c, free: func() { <-l.slots }}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// slot is a connection that gives its slot back when it is closed.
type slot struct {
	net.Conn
	once sync.Once
	free func()
}

func (s *slot) Close() error {
	err := s.Conn.Close()
	s.once.Do(s.free)
	return err
}
