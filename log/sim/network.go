package sim

// conn is one connection between a writer and a node, for ever: another one has
// another number. Within it messages keep their order, both ways.
type conn struct {
	writer     uint8
	node       uint8
	boot       uint32 // of the node, when it was made
	inc        uint16 // identity that the node gave
	generation uint32 // that the writer gave; 0: it knew none
	process    uint32 // of the writer
	lastTo     int64  // arrival of the newest message
	lastFrom   int64
	cut        bool // what is on its way to the node is lost
	stuck      bool // a message was lost: so will be all that follow
	doomed     bool // somebody will notice
}

type connState uint8

const (
	connDown connState = iota
	connOpening
	connUp
)

// end is a writer's end of a connection to a node.
type end struct {
	gen     uint32 // index in world.conns
	state   connState
	retryAt int64
}

func (w *world) delay(from, to uint8) int64 {
	a, b := w.cityOf(from), w.cityOf(to)
	d := w.near
	if a != b {
		d = w.far
	}
	d += int64(w.net.n(int(d)/2 + 1))
	if w.slowLink>>from&1 == 1 || w.slowLink>>to&1 == 1 {
		d *= 6
	}
	return d
}

func (w *world) cityOf(actor uint8) uint8 {
	switch {
	case actor < w.count:
		return w.nodes[actor].city
	case actor >= actorWriter && int(actor-actorWriter) < len(w.writers):
		return w.writers[actor-actorWriter].city
	case actor >= actorReader && int(actor-actorReader) < len(w.readers):
		return w.readers[actor-actorReader].city
	}
	return 0
}

func (w *world) linked(from, to uint8) bool { return w.blocked[from]>>to&1 == 0 }

// connect starts a connection from a writer to a node.
func (w *world) connect(p *writer, n *node) {
	e := &p.conns[n.idx]
	if e.state != connDown || w.now < e.retryAt {
		return
	}
	e.gen = uint32(len(w.conns))
	e.state = connOpening
	w.conns = append(w.conns, conn{writer: p.idx, node: n.idx, boot: n.boot, process: p.id})
	a := actorWriter + p.idx
	w.push(event{at: w.now + w.delay(a, n.idx) + w.delay(n.idx, a), kind: evConnUp, who: p.idx, peer: n.idx, gen: e.gen})
}

func (w *world) connected(p *writer, e *event) {
	x := &p.conns[e.peer]
	if x.gen != e.gen || x.state != connOpening {
		return
	}
	n := &w.nodes[e.peer]
	a := actorWriter + p.idx
	if !n.up || n.boot != w.conns[e.gen].boot || !w.linked(a, n.idx) || !w.linked(n.idx, a) {
		x.state, x.retryAt = connDown, w.now+w.net.between(500, 6000)
		return
	}
	x.state = connUp
	w.conns[e.gen].inc = n.inc
	w.conns[e.gen].generation = p.gen
	w.peered(p, e.peer)
}

// disconnected: the writer notices the end of a connection. What it had sent may
// still arrive, behind what it sends over the next one.
func (w *world) disconnected(p *writer, e *event) {
	x := &p.conns[e.peer]
	if x.gen != e.gen || x.state == connDown {
		return
	}
	x.state, x.retryAt = connDown, w.now+w.net.between(100, 3000)
	if w.net.oneIn(2) {
		w.conns[e.gen].cut = true
	}
	w.lost(p, e.peer)
}

// send a message from a writer to a node.
func (w *world) send(p *writer, n uint8, e event) {
	x := &p.conns[n]
	if x.state != connUp {
		return
	}
	c := &w.conns[x.gen]
	a := actorWriter + p.idx
	if c.stuck || !w.linked(a, n) {
		w.stall(c, x.gen)
		return
	}
	at := max(w.now+w.delay(a, n), c.lastTo)
	c.lastTo = at
	e.at, e.gen, e.who, e.peer = at, x.gen, p.idx, n
	w.push(e)
}

// reply from a node to a writer, over the connection e.gen.
func (w *world) reply(n *node, e event) {
	if e.gen == 0 {
		return
	}
	c := &w.conns[e.gen]
	if c.boot != n.boot {
		return
	}
	a := actorWriter + c.writer
	if c.stuck || !w.linked(n.idx, a) {
		w.stall(c, e.gen)
		return
	}
	at := max(w.now+w.delay(n.idx, a), c.lastFrom)
	c.lastFrom = at
	e.at, e.who, e.peer = at, c.writer, n.idx
	w.push(e)
}

// stall loses a message, and with it the connection: nothing behind it arrives
// that way, and after a time somebody notices.
func (w *world) stall(c *conn, gen uint32) {
	c.stuck = true
	if !c.doomed {
		c.doomed = true
		w.push(event{at: w.now + w.net.between(2000, 20000), kind: evConnDown, who: c.writer, peer: c.node, gen: gen})
	}
}
