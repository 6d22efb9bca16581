package sim

import (
	"github.com/twinspan/twinspan/log/quorum"
)

// verb of a command to the metadata.
type verb uint8

const (
	cmdOwn verb = iota
	cmdAdvance
	cmdDegrade
	cmdRegister // and forget what bore the name before
	cmdDrain
	cmdHeld
	cmdTrim
	cmdCursor
)

// command to the metadata.
type command struct {
	verb    verb
	epoch   uint32
	close   bool
	seg     int32 // to close; or held
	last    int32
	lso     int32
	holders [nodesMax]uint16
	reason  bool
	open    int32 // -1: none
	city    uint8
	off     bool
	node    uint8
	inc     uint16
	lost    bool
	before  int32
	reader  uint8
	o       int32
	evict   bool
}

// reply of the metadata.
type reply struct {
	outcome quorum.Outcome
	epoch   uint32
	open    int32 // the open segment; -1
	number  uint32
	first   int32
	lso     int32
	gen     uint32
}

// authority is the metadata: what is decided, once and for all. It is a small
// model of log/meta of its own, against which the real State is compared.
type authority struct {
	epoch  uint32
	gen    uint32
	listed []int32 // segments, oldest first
	number uint32  // of the next
	first  int32
	lso    int32
	known
	forgotten [nodesMax]uint16 // in takeovers: this identity and all before it
	since     [nodesMax]int    // when that was, in the mirror's history
	cursors   [readersMax]int32
	below     int32    // everything below was trimmed
	emptied   *segment // the last one that was closed without an entry
	list      *listing
}

// known is what a writer decides from.
type known struct {
	nodes    [nodesMax]uint16 // identity registered; 0: none
	drained  [nodesMax]bool
	degraded [citiesMax]bool
}

// listing is an immutable picture of the segments, as a node's local view has it.
type listing struct {
	segs   []int32
	closed []bool
	number uint32
	at     int // index in the mirror's history
}

func (a *authority) relist(w *world) {
	l := &listing{segs: append([]int32(nil), a.listed...), number: a.number}
	for _, s := range a.listed {
		l.closed = append(l.closed, w.segs[s].closed)
	}
	if w.mirror != nil {
		l.at = len(w.mirror.views)
	}
	a.list = l
}

func (a *authority) newest(w *world) *segment {
	if n := len(a.listed); n > 0 {
		return w.segs[a.listed[n-1]]
	}
	return nil
}

// apply makes a command happen.
func (w *world) apply(c *command) reply {
	a := &w.meta
	r := reply{outcome: quorum.Done, open: -1, gen: a.gen}
	switch c.verb {
	case cmdOwn:
		a.epoch++
		r.epoch, r.number, r.first, r.lso = a.epoch, a.number, a.first, a.lso
		if s := a.newest(w); s != nil && !s.closed {
			r.open = s.idx
		}
	case cmdAdvance:
		r.outcome = w.advance(c)
	case cmdDegrade:
		if w.lay.loss == lossBlock && !c.off && !a.degraded[c.city] {
			r.outcome = quorum.Refused
			break
		}
		a.degraded[c.city] = !c.off
	case cmdRegister:
		if c.inc < a.nodes[c.node] || c.inc <= a.forgotten[c.node] && c.inc != a.nodes[c.node] {
			r.outcome = quorum.Refused // it was forgotten
			break
		}
		if a.nodes[c.node] != c.inc {
			a.forget(w, c.node)
			a.drained[c.node] = false
		}
		if a.nodes[c.node] != c.inc && w.mirror != nil {
			a.since[c.node] = len(w.mirror.views) // the view behind this command
		}
		a.nodes[c.node] = c.inc
	case cmdDrain:
		if a.nodes[c.node] == 0 {
			r.outcome = quorum.Refused
			break
		}
		a.drained[c.node] = !c.off && !w.calm // a late one would hold for ever
	case cmdHeld:
		w.held(c, &r)
	case cmdTrim:
		r.outcome = w.trim(c)
	case cmdCursor:
		if c.o < a.cursors[c.reader] {
			r.outcome = quorum.Refused
			break
		}
		a.cursors[c.reader] = c.o
	}
	if w.mirror != nil {
		w.mirror.check(w, c, &r)
	}
	return r
}

// forget drops what a disk that is gone held.
func (a *authority) forget(w *world, node uint8) {
	for _, s := range a.listed {
		w.segs[s].holders[node] = 0
	}
	a.nodes[node] = 0
}

func (w *world) held(c *command, r *reply) {
	s := w.segs[c.seg]
	switch {
	case !s.known || s.gone || !s.closed || s.lost:
		r.outcome = quorum.Refused
	case c.lost:
		if s.holders[c.node] != c.inc {
			return
		}
		others := false
		for n, h := range s.holders {
			others = others || h != 0 && n != int(c.node)
		}
		if !others {
			r.outcome = quorum.Refused
			return
		}
		s.holders[c.node] = 0
	case w.meta.nodes[c.node] != c.inc:
		r.outcome = quorum.Refused
	default:
		w.claims(s, c.node, c.inc)
		s.holders[c.node] = c.inc
	}
}

func (w *world) trim(c *command) quorum.Outcome {
	a := &w.meta
	keep := 1 // the newest closed one stays, for the producer
	for keep <= len(a.listed) {
		if s := w.segs[a.listed[len(a.listed)-keep]]; s.closed && !s.lost && !s.barren {
			break
		}
		keep++
	}
	cut := 0 // behind the end of a transaction
	for i := range max(0, len(a.listed)-keep) {
		s := w.segs[a.listed[i]]
		if s.end >= c.before {
			break
		}
		if s.endLSO == s.end {
			cut = i + 1
		}
	}
	if cut > 0 && !c.evict {
		for i := range w.readers {
			if a.cursors[i] < w.segs[a.listed[cut-1]].end {
				return quorum.Refused
			}
		}
	}
	for i := range cut {
		s := w.segs[a.listed[i]]
		s.gone = true
		a.below = s.end + 1
		w.trimmed(s)
	}
	if cut > 0 {
		a.listed = append([]int32(nil), a.listed[cut:]...)
		a.relist(w)
	}
	return quorum.Done
}

func (w *world) advance(c *command) quorum.Outcome {
	a := &w.meta
	if c.epoch != a.epoch && w.bug != BugOldEpochAdvances {
		return quorum.Fenced
	}
	newest := a.newest(w)
	if c.open >= 0 && w.segs[c.open].known {
		if !w.segs[c.open].gone && (!c.close || a.closedSo(w.segs[c.seg], c)) {
			return quorum.Done // a repetition
		}
		return quorum.Refused // one from long ago
	}
	var s *segment
	if c.close {
		s = w.segs[c.seg]
		if c.open < 0 && a.closedSo(s, c) {
			return quorum.Done // a repetition
		}
		if newest != s || s.closed || c.last < s.first-1 || c.last >= s.first && !a.anyRegistered(&c.holders) {
			return quorum.Refused
		}
	} else if newest != nil && !newest.closed {
		return quorum.Refused
	}
	if c.open >= 0 {
		next := w.segs[c.open]
		first := a.first
		number := a.number
		if c.close {
			first = c.last + 1
		}
		if next.first != first || next.num != number || next.epoch != c.epoch || next.gen != a.gen {
			return quorum.Refused
		}
		for i, n := range next.nodes {
			if a.nodes[n] != next.incs[i] || a.drained[n] {
				return quorum.Refused
			}
		}
		if next.protected && next.rule != w.lay.rule || !next.protected && w.lay.loss != lossAfter && a.degraded == [citiesMax]bool{} {
			return quorum.Refused
		}
	}
	if c.close {
		w.closes(s, c)
		a.first, a.lso = c.last+1, c.lso
		defer func() {
			if c.lost {
				w.passes(s, c)
				a.relist(w)
			}
		}()
		s.end, s.endLSO = c.last, c.lso
		if c.last < s.first {
			s.gone = true
			a.emptied = s
			a.listed = a.listed[:len(a.listed)-1]
		} else {
			s.closed = true
			for n, h := range c.holders {
				if h != 0 && a.nodes[n] == h {
					s.holders[n] = h
				}
			}
			s.partial = !s.rule.holds(w.cities(s.holders))
		}
	}
	if c.open >= 0 {
		next := w.segs[c.open]
		next.known = true
		a.listed = append(a.listed, next.idx)
		a.number = next.num + 1
		w.opens(next)
		w.wentAlone(next)
	}
	a.relist(w)
	return quorum.Done
}

// closedSo says that a segment is closed as the command wants it.
func (a *authority) closedSo(s *segment, c *command) bool {
	return s.closed && !s.gone && s.end == c.last && s.endLSO == c.lso || s == a.emptied && s.end == c.last
}

func (a *authority) anyRegistered(holders *[nodesMax]uint16) bool {
	for n, h := range holders {
		if h != 0 && a.nodes[n] == h {
			return true
		}
	}
	return false
}

// cities counts disks by city.
func (w *world) cities(holders [nodesMax]uint16) (count [citiesMax]int) {
	for n, h := range holders {
		if h != 0 {
			count[w.nodes[n].city]++
		}
	}
	return count
}

// call is a command under way.
type call struct {
	command command
	reply   reply
	waiting bool
	gen     uint32 // of the metadata that was asked
	over    bool   // it arrived, or never will
	client  uint8  // a writer; or the keeper, which asks nothing back
	process uint32
}

const keeper = 0xff

// ask sends a command; its answer comes as evAnswered, possibly Unknown.
func (w *world) ask(client uint8, process uint32, c command) uint32 {
	id := uint32(len(w.calls))
	w.calls = append(w.calls, call{command: c, waiting: true, gen: w.meta.gen, client: client, process: process})
	d := w.net.between(300, 3000)
	switch {
	case w.net.oneIn(40): // late: the client has given up by then
		d += w.net.between(5000, 80000)
	case client != keeper && w.net.oneIn(400):
		d += w.net.between(80000, 400000)
	}
	actor := actorKeeper
	if client != keeper {
		actor = actorWriter + int(client)
	}
	lost := w.lossy && w.net.oneIn(2) || w.blocked[actor]>>actorMeta&1 == 1
	if client != keeper && w.left(&w.writers[client]) && !w.calm && !w.net.oneIn(8) {
		// It asks those voters who are gone.
		w.push(event{at: w.now + 15000, kind: evAnswered, gen: id, who: client, ends: true})
		w.calls[id].over = true
		return id
	}
	if !lost || w.net.oneIn(8) { // what seems lost may only be very late
		if lost {
			d += w.net.between(5000, 80000)
		}
		w.push(event{at: w.now + d, kind: evCommand, gen: id})
	} else {
		w.calls[id].over = true
	}
	if client != keeper {
		w.push(event{at: w.now + 15000, kind: evAnswered, gen: id, who: client, ends: true})
	}
	return id
}

// commanded: a command reaches the metadata.
func (w *world) commanded(e *event) {
	c := &w.calls[e.gen]
	c.over = true
	if c.gen != w.meta.gen {
		return // it went down with the old metadata
	}
	c.reply = w.apply(&c.command)
	if w.trace != nil {
		w.tracef("meta   %s -> %v", w.describe(&c.command), c.reply.outcome)
	}
	if c.client == keeper {
		return
	}
	if w.lossy && w.net.oneIn(2) || w.blocked[actorMeta]>>(actorWriter+c.client)&1 == 1 || w.net.oneIn(30) {
		return // done, and nobody hears of it
	}
	w.push(event{at: w.now + w.net.between(300, 3000), kind: evAnswered, gen: e.gen, who: c.client})
}

// answered: a writer hears of its command, or gives up waiting.
func (w *world) answered(e *event) {
	c := &w.calls[e.gen]
	if !c.waiting {
		return
	}
	c.waiting = false
	r := c.reply
	if e.ends {
		r = reply{outcome: quorum.Unknown, open: -1}
	}
	if p := &w.writers[c.client]; p.id == c.process && p.call == e.gen+1 {
		p.call = 0
		w.told(p, &c.command, &r)
	}
}
