package client_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/wire"
	"github.com/twinspan/twinspan/log/wire/link"
)

func (n *memoryNode) appends(ctx context.Context, l *link.Link, m *wire.Attach) wire.Message {
	n.mu.Lock()
	p, err := n.fenceLocked(&m.Descriptor, m.Epoch)
	if err != nil {
		n.mu.Unlock()
		return wire.ErrorOf(err)
	}
	last := p.core.Last()
	n.mu.Unlock()
	if err := l.Send(&wire.Attached{Last: last}); err != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var acker sync.WaitGroup
	defer acker.Wait()
	defer cancel()
	acker.Go(func() { n.acks(ctx, l, p, m.Epoch, last) })
	for {
		k, body, err := l.Next(ctx, wire.BodyMax)
		if err != nil || n.thaw(ctx) != nil {
			return nil
		}
		switch k {
		case wire.KindAppend:
			var a wire.Append
			if err := wire.DecodeAppend(&a, body); err != nil {
				return wire.ErrorOf(err)
			}
			n.mu.Lock()
			fresh, err := p.core.Admit(m.Epoch, a.Offset)
			if err == nil && fresh {
				p.entries = append(p.entries[:a.Offset-p.First], wire.Stored{Entry: log.Entry{
					Offset: a.Offset, Topic: a.Topic, Epoch: p.Epoch, AppendedAt: time.UnixMicro(a.Time).UTC(),
					EndsTransaction: a.Ends, Payload: slices.Clone(a.Payload),
				}, Checksum: a.Checksum})
			}
			if err == nil {
				err = p.core.Confirm(m.Epoch, a.LAC)
			}
			n.wakeLocked()
			n.mu.Unlock()
			if err != nil {
				return wire.ErrorOf(err)
			}
		case wire.KindLAC:
			var a wire.LAC
			if err := wire.Decode(&a, body); err != nil {
				return wire.ErrorOf(err)
			}
			n.mu.Lock()
			err := p.core.Confirm(m.Epoch, a.LAC)
			n.wakeLocked()
			n.mu.Unlock()
			if err != nil {
				return wire.ErrorOf(err)
			}
		default:
			return wire.ErrorOf(fmt.Errorf("%v: %w", k, log.ErrProtocol))
		}
	}
}

// acks commits what is queued, after the delay, and says so.
func (n *memoryNode) acks(ctx context.Context, l *link.Link, p *part, e log.Epoch, sent log.Offset) {
	for {
		n.mu.Lock()
		delay := n.delay
		n.mu.Unlock()
		if delay > 0 {
			time.Sleep(delay)
		}
		if n.thaw(ctx) != nil {
			return
		}
		n.mu.Lock()
		changed := n.changed
		fenced := p.core.Fence() != e
		if !fenced && p.core.Queued() > p.core.Last() {
			n.commitLocked(p)
			n.wakeLocked()
		}
		last := p.core.Last()
		n.mu.Unlock()
		if fenced {
			_ = l.Send(wire.ErrorOf(log.ErrFenced))
			return
		}
		if last > sent {
			if l.Send(&wire.Ack{Last: last}) != nil {
				return
			}
			sent = last
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (n *memoryNode) copies(ctx context.Context, l *link.Link, m *wire.Copy) wire.Message {
	n.mu.Lock()
	p := n.findLocked(m.Stream, m.Segment)
	if p == nil {
		n.mu.Unlock()
		return wire.ErrorOf(log.ErrElsewhere)
	}
	last := p.core.Last()
	if !m.Raw {
		last = p.core.Visible()
	}
	b := log.Bounds{First: p.First, LAC: last, LSO: p.core.LSO(), Epoch: p.Epoch}
	entries := slices.Clone(p.entries[:last-p.First+1])
	n.mu.Unlock()
	if l.Send(&wire.Reading{Bounds: b}) != nil {
		return nil
	}
	for o := m.From; o < m.To; o++ {
		if o > last {
			return wire.ErrorOf(log.ErrElsewhere)
		}
		if l.Send(&wire.Data{Next: o + 1, Bounds: b, Entries: entries[o-p.First : o-p.First+1]}) != nil {
			return nil
		}
	}
	if l.Send(&wire.Tail{Next: m.To, Bounds: b}) != nil {
		return nil
	}
	_, _, _ = l.Next(ctx, wire.ControlMax) // the end
	return nil
}

func (n *memoryNode) reads(ctx context.Context, l *link.Link, m *wire.Read) wire.Message {
	n.mu.Lock()
	b, _ := n.boundsLocked(m.Stream)
	n.mu.Unlock()
	if n.at(m.Stream, m.From) == nil {
		return wire.ErrorOf(log.ErrElsewhere)
	}
	if l.Send(&wire.Reading{Bounds: b}) != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var credits sync.WaitGroup
	defer credits.Wait()
	defer cancel()
	var mu sync.Mutex
	credit := int64(m.Credit)
	credits.Go(func() {
		defer cancel()
		for {
			_, body, err := l.Next(ctx, wire.ControlMax)
			if err != nil {
				return
			}
			var c wire.Credit
			if wire.Decode(&c, body) != nil {
				return
			}
			mu.Lock()
			credit += int64(c.Bytes)
			mu.Unlock()
			n.set(func(*memoryNode) {})
		}
	})
	defer func() { _ = l.Close() }()
	next, told := m.From, b
	for {
		n.mu.Lock()
		changed := n.changed
		n.mu.Unlock()
		p := n.at(m.Stream, next)
		if p == nil {
			_ = l.Send(wire.ErrorOf(log.ErrElsewhere))
			return nil
		}
		var out []wire.Stored
		size := 0
		n.mu.Lock()
		b, _ := n.boundsLocked(m.Stream)
		top := p.core.Visible()
		if m.Committed {
			top = min(top, b.LSO)
		}
		from := next
		for ; next <= top && size < 64<<10 && (m.To == 0 || next < m.To); next++ {
			e := p.entries[next-p.First]
			if len(m.Topics) == 0 || slices.Contains(m.Topics, e.Topic) {
				out = append(out, e)
				size += len(e.Payload)
			}
		}
		frozen := n.frozen
		n.mu.Unlock()
		if frozen && n.thaw(ctx) != nil {
			return nil
		}
		mu.Lock()
		left := credit
		mu.Unlock()
		if len(out) > 0 && left <= 0 {
			next = from
		} else if len(out) > 0 {
			frame := wire.Encode(nil, &wire.Data{Next: next, Bounds: b, Entries: out})
			mu.Lock()
			credit -= int64(len(frame))
			mu.Unlock()
			if l.SendBuffers(net.Buffers{frame}) != nil {
				return nil
			}
			told = b
			continue
		} else if next > from || b != told {
			if l.Send(&wire.Tail{Next: next, Bounds: b}) != nil {
				return nil
			}
			told = b
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// at is the replica that has, or will have, the entry; nil: it is elsewhere.
func (n *memoryNode) at(stream string, o log.Offset) *part {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range slices.Backward(n.parts) {
		if p.Stream != stream || o < p.First {
			continue
		}
		if end, _, closed := p.core.Closed(); closed && o > end || closed && o > p.core.Last() {
			return nil
		}
		return p
	}
	return nil
}
