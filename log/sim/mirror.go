package sim

import (
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/meta"
	"github.com/twinspan/twinspan/log/quorum"
)

// mirror feeds every command to the real metadata, too. Both have to agree on each
// outcome, and on what there is afterwards.
type mirror struct {
	state *meta.State
	views []*meta.View // after each command, oldest first
}

func newMirror(w *world) *mirror {
	m := &mirror{state: meta.NewState()}
	policy := meta.Policy{Rule: w.ruleNode, Loss: [...]meta.Loss{meta.LossBlock, meta.LossDegradeManual, meta.LossDegradeAfter}[w.lay.loss], After: degradeAfter}
	m.must(w, meta.Command{Create: &meta.Create{Stream: streamName, Policy: policy}})
	for i := range w.nodes[:w.count] {
		m.register(w, uint8(i), 1)
	}
	for i := range w.readers {
		m.must(w, meta.Command{Cursor: &meta.PutCursor{Stream: streamName, Cursor: log.Cursor{Group: group(uint8(i)), Offset: log.None}}})
	}
	return m
}

func group(reader uint8) string { return "g" + string('0'+reader) }

func (m *mirror) must(w *world, c meta.Command) {
	if _, err := m.state.Apply(c); err != nil {
		w.violate(0, "metadata: %v", err)
	}
}

func (m *mirror) register(w *world, n uint8, inc uint16) {
	x := w.member(n, inc)
	m.must(w, meta.Command{Register: &meta.Register{Node: meta.Node{Name: x.Node, UUID: x.UUID, City: x.City, Address: x.Node + ":1"}}})
}

// check applies what the model has applied, and compares.
func (m *mirror) check(w *world, c *command, r *reply) {
	cmd := meta.Command{Now: time.UnixMicro(w.now)}
	defer func() { m.views = append(m.views, m.state.View()) }()
	switch c.verb {
	case cmdOwn:
		cmd.Own = &meta.Own{Stream: streamName}
	case cmdAdvance:
		cmd.Advance = m.advance(w, c)
	case cmdDegrade:
		cmd.Degrade = &meta.Degrade{Stream: streamName, City: cityNames[c.city], Off: c.off}
	case cmdRegister:
		if r.outcome != quorum.Done {
			return
		}
		if old, ok := m.state.View().Node(w.member(c.node, c.inc).Node); ok && old.UUID != w.member(c.node, c.inc).UUID {
			m.must(w, meta.Command{Forget: &meta.Forget{Node: old.Name, UUID: old.UUID, Force: true}})
		}
		m.register(w, c.node, c.inc)
	case cmdDrain:
		cmd.Drain = &meta.Drain{Node: w.member(c.node, 1).Node, Drained: w.meta.drained[c.node]}
	case cmdHeld:
		cmd.Held = &meta.Held{Stream: streamName, Segment: w.segs[c.seg].num, Member: w.member(c.node, c.inc), Lost: c.lost}
	case cmdTrim:
		cmd.Trim = &meta.Trim{Stream: streamName, Before: off(c.before), Evict: c.evict}
	case cmdCursor:
		cmd.Cursor = &meta.PutCursor{Stream: streamName, Cursor: log.Cursor{Group: group(c.reader), Offset: off(c.o)}}
	}
	if c.verb != cmdRegister {
		out, err := m.state.Apply(cmd)
		if (err == nil) != (r.outcome == quorum.Done) {
			w.violate(7, "%s: the metadata says %v, the model %d", w.describe(c), err, r.outcome)
		}
		if c.verb == cmdOwn && (out.Stream == nil || uint32(out.Stream.Epoch) != r.epoch || out.Stream.NextSegment != r.number) {
			w.violate(7, "own: the metadata gives %+v, the model %+v", out.Stream, r)
		}
	}
	if c.verb != cmdCursor && c.verb != cmdOwn {
		m.compare(w, c)
	}
}

func (m *mirror) advance(w *world, c *command) *meta.Advance {
	a := &meta.Advance{Stream: streamName, Epoch: log.Epoch(c.epoch)}
	if c.close {
		a.Close = &meta.Close{Segment: w.segs[c.seg].num, Last: off(c.last), LSO: off(c.lso)}
		for n, h := range c.holders {
			if h != 0 {
				a.Close.Holders = append(a.Close.Holders, w.member(uint8(n), h))
			}
		}
	}
	if c.open >= 0 {
		d := w.segs[c.open].desc
		a.Open = &d
	}
	if c.lost {
		a.Lost = &meta.Lost{To: off(c.o), Reason: "two disks", By: "operator"}
	}
	if c.reason {
		a.Reason = "reason"
	}
	return a
}

// compare the lists of segments, and the windows with what is short.
func (m *mirror) compare(w *world, c *command) {
	v := m.state.View()
	list, _ := v.Segments(streamName, 1, 1<<20)
	if len(list) != len(w.meta.listed) {
		w.violate(7, "after %s the metadata lists %d segments, the model %d", w.describe(c), len(list), len(w.meta.listed))
	}
	short := false
	for i := range list {
		a, b := &list[i], w.segs[w.meta.listed[i]]
		if a.Segment != b.num || a.First != off(b.first) || a.Closed != b.closed || b.closed && (a.Last != off(b.end) || a.LSO != off(b.endLSO)) {
			w.violate(7, "after %s the metadata has %+v, the model segment %d from %d, closed %t at %d", w.describe(c), *a, b.num, b.first, b.closed, b.end)
		}
		if a.Closed && !a.Lost && a.Left() != off(b.upto()) {
			w.violate(7, "after %s segment %d is left up to %d, in the model up to %d", w.describe(c), b.num, a.Left(), b.upto())
		}
		if a.Lost != b.lost {
			w.violate(7, "after %s segment %d is lost: %t, in the model %t", w.describe(c), b.num, a.Lost, b.lost)
		}
		if !b.closed || b.lost {
			continue
		}
		var holders [nodesMax]uint16
		for _, h := range a.Holders {
			holders[h.Node[1]-'0'] = incarnation(h.UUID)
		}
		if holders != b.holders {
			w.violate(7, "after %s segment %d is held by %v, in the model by %v", w.describe(c), b.num, holders, b.holders)
		}
		if s := !w.lay.rule.holds(w.cities(b.holders)); s {
			short = true
			m.windowed(w, v, b)
		}
	}
	st, _ := v.Stream(streamName)
	if (st.Short > 0) != short {
		w.violate(11, "the metadata counts %d short segments, the model says %t", st.Short, short)
	}
}

// windowed: a segment that is closed without the full rule, and not because disks
// were lost since, lies in a window that is not over.
func (m *mirror) windowed(w *world, v *meta.View, s *segment) {
	if !s.partial && s.protected {
		return
	}
	st, _ := v.Stream(streamName)
	for _, x := range st.Windows {
		if x.From <= off(s.first) && (x.To == log.None || x.To >= off(s.end)) {
			return
		}
	}
	w.violate(11, "segment %d up to %d was never protected, and no window says so", s.num, s.end)
}
