package sim

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/log/quorum"
)

func (w *world) tracef(format string, args ...any) {
	fmt.Fprintf(w.trace, "%8d %9.3fms  %s\n", w.events, float64(w.now)/1000, fmt.Sprintf(format, args...))
}

var kindNames = [...]string{
	"seal", "attach", "append", "lac", "close", "sealed", "attached", "ack", "error", "up", "down", "tick", "load", "start",
	"command", "answered", "sync", "op", "nodetick", "nodeup", "healdisk", "healmeta", "heallinks", "unblock", "wipe", "fault", "read", "keep", "repair",
}

// show writes a message.
func (w *world) show(e *event) string {
	s := kindNames[e.kind]
	if e.kind <= rError {
		s += fmt.Sprintf(" segment %d", w.segs[e.seg].num)
	}
	switch e.kind {
	case mSeal, mAttach:
		s += fmt.Sprintf(" epoch %d", e.epoch)
	case mAppend:
		s += fmt.Sprintf(" %d epoch %d lac %d tx %d", e.o, e.epoch, e.lac, e.content>>20)
	case mLAC:
		s += fmt.Sprintf(" %d", e.lac)
	case mClose, rAttached, rAck:
		s += fmt.Sprintf(" %d", e.o)
	case rError:
		s += " " + codeNames[e.o]
	}
	if e.kind <= mClose {
		return fmt.Sprintf("w%d %s", e.who, s)
	}
	return fmt.Sprintf("n%d %s", e.peer, s)
}

func (w *world) describe(c *command) string {
	switch c.verb {
	case cmdOwn:
		return "own"
	case cmdAdvance:
		s := fmt.Sprintf("advance epoch %d", c.epoch)
		if c.close {
			s += fmt.Sprintf(" close %d at %d, holders %v", w.segs[c.seg].num, c.last, c.holders)
		}
		if c.open >= 0 {
			n := w.segs[c.open]
			s += fmt.Sprintf(" open %d from %d on %v", n.num, n.first, n.nodes)
		}
		return s
	case cmdDegrade:
		return fmt.Sprintf("degrade %s off %t", cityNames[c.city], c.off)
	case cmdRegister:
		return fmt.Sprintf("register n%d disk %d", c.node, c.inc)
	case cmdDrain:
		return fmt.Sprintf("drain n%d off %t", c.node, c.off)
	case cmdHeld:
		return fmt.Sprintf("held n%d segment %d lost %t", c.node, w.segs[c.seg].num, c.lost)
	case cmdTrim:
		return fmt.Sprintf("trim below %d", c.before)
	}
	return fmt.Sprintf("cursor %d at %d", c.reader, c.o)
}

func showMembers(m []quorum.Member) string {
	var s []string
	for _, x := range m {
		s = append(s, x.Node)
	}
	return strings.Join(s, ",")
}

// state is the situation in one line, for a system that does not come back.
func (w *world) state() string {
	var b strings.Builder
	fmt.Fprintf(&b, "acked %d of %d wanted; ", w.acked-w.ackedAt, 20)
	for i := range w.writers {
		p := &w.writers[i]
		fmt.Fprintf(&b, "w%d phase %d", i, p.phase)
		for k := range int(w.count) {
			if p.conns[k].state != connUp {
				fmt.Fprintf(&b, " n%d:%d", k, p.conns[k].state)
			}
			if p.shun[k] > w.now {
				fmt.Fprintf(&b, " shuns n%d", k)
			}
		}
		if p.call != 0 {
			fmt.Fprintf(&b, " asked %s", w.describe(&w.calls[p.call-1].command))
		}
		if p.phase == phaseRun {
			fmt.Fprintf(&b, " segment %d next %d confirmed %d states", p.seg.num, p.q.Next(), p.q.Confirmed())
			for k := range p.seg.nodes {
				fmt.Fprintf(&b, " n%d:%v@%d", p.seg.nodes[k], p.q.State(k), p.q.Mark(k))
			}
		}
		if p.phase == phaseOpen {
			_, ok := p.rec.Ready()
			fmt.Fprintf(&b, " covered %t ready %t wanted %b", p.rec.Covered(), ok, p.rec.Wanted())
		}
		b.WriteString("; ")
	}
	if n := w.meta.newest(w); n != nil {
		fmt.Fprintf(&b, "newest segment %d closed %t protected %t; ", n.num, n.closed, n.protected)
	}
	for _, idx := range w.meta.listed {
		if s := w.segs[idx]; s.closed && !w.lay.rule.holds(w.cities(s.holders)) {
			fmt.Fprintf(&b, "segment %d short, holders %v; ", s.num, s.holders)
		}
	}
	for i := range w.readers {
		fmt.Fprintf(&b, "reader %d at %d of %d; ", i, w.readers[i].pos, w.healedTo)
	}
	fmt.Fprintf(&b, "nodes %v degraded %v", w.meta.nodes, w.meta.degraded)
	return b.String()
}
