package sim

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"

	"github.com/twinspan/twinspan/log/quorum"
)

const streamName = "s"

var errKilled = errors.New("killed")

type kind uint8

const (
	mSeal kind = iota // from a writer to a node
	mAttach
	mAppend
	mLAC
	mClose
	rSealed // back
	rAttached
	rAck
	rError
	evConnUp
	evConnDown
	evTick
	evLoad
	evStart
	evCommand
	evAnswered
	evSync
	evOp
	evNodeTick
	evNodeUp
	evHealDisk
	evHealMeta
	evHealLinks
	evUnblock
	evWipe
	evFault
	evRead
	evKeep
	evRepair
	evForce
	evAlone
)

// How long a system may take to come back when everything has healed: in µs, and
// in events. It usually takes some hundreds of events.
const (
	reviveAfter  = 10_000_000
	reviveEvents = 60_000
)

// Config of one schedule.
type Config struct {
	Seed   uint64
	Events int64        // at least so many; then everything heals
	Bug    Bug          // the shell's part of it; the machines' is armed for the process
	Skip   map[int]bool // faults left out, by number
	Until  int          // faults from this number on are left out; 0: none
	Trace  io.Writer
}

// Result of one schedule.
type Result struct {
	Seed        uint64
	Events      int64
	Acked       int64
	Beside      int64 // more, by writers of a city that was given up
	Unprotected int64
	Segments    int
	Faults      int
	Takeovers   int
	Leaps       int // of these, behind a gap
	Cuts        int // segments of which they left the beginning only
	Losses      int // of more disks than a rule bears
	Forced      int // closes with a gap behind
	Violation   *Violation
	Layout      string
}

// world is everything that happens in one schedule.
type world struct {
	cfg    Config
	bug    Bug
	now    int64 // µs
	events int64
	queue  queue
	net    rng // delays and losses
	dice   rng // everything else
	trace  io.Writer

	lay      layout
	ruleNode quorum.NodeRule
	near     int64 // one way, µs
	far      int64
	pace     int64 // of appends
	unrest   int64 // between faults

	nodes   [nodesMax]node
	count   uint8
	members [nodesMax][]quorum.Member // by identity
	writers []writer
	readers []reader
	conns   []conn
	answers []quorum.Sealed
	calls   []call
	repairs []repair
	segs    []*segment
	meta    authority
	before  known          // to the last takeover
	lonely  [citiesMax]int // nodes of the city that it gave up
	mirror  *mirror
	scratch quorum.View

	blocked   [actors]uint32 // bit b of a: nothing gets from a to b
	slowLink  uint32
	lossy     bool
	leader    uint8
	ids       uint32
	faults    int
	calm      bool
	takeovers int
	cuts      int // segments of which they left the beginning only
	leaps     int // of these, behind a gap
	losses    int // of more disks than a rule bears
	forced    int

	canon       []fixed
	confirmed   int32
	acked       int64
	beside      int64 // acknowledged to writers that a takeover left behind, and not part of the stream
	unprotected int64
	ackedAt     int64
	healedAt    int64
	healedTo    int
}

func (w *world) push(e event) { w.queue.push(e) }

// member is a node under one of its identities.
func (w *world) member(n uint8, inc uint16) quorum.Member {
	for int(inc) >= len(w.members[n]) {
		w.members[n] = append(w.members[n], quorum.Member{
			Node: "n" + strconv.Itoa(int(n)), UUID: "n" + strconv.Itoa(int(n)) + "." + strconv.Itoa(len(w.members[n])), City: cityNames[w.nodes[n].city],
		})
	}
	return w.members[n][inc]
}

func incarnation(uuid string) uint16 {
	n, err := strconv.Atoi(uuid[3:]) // "n0.7"
	if err != nil {
		panic(err) // this package made it
	}
	return uint16(n)
}

func newWorld(c Config) *world {
	r := rng{s: c.Seed}
	w := &world{cfg: c, bug: c.Bug, trace: c.Trace, confirmed: -1}
	w.lay = pickLayout(&r)
	w.ruleNode = w.lay.rule.node()
	w.near, w.far = r.between(50, 400), r.between(500, 4000)
	w.pace = r.between(1000, 12000)
	w.unrest = r.between(4000, 60000)
	w.net, w.dice = rng{s: r.next()}, rng{s: r.next()}
	w.conns = make([]conn, 1, 512)
	w.queue.heap = make([]event, 0, 512)
	w.canon = make([]fixed, 0, 4096)
	for city, k := range w.lay.cities {
		for range k {
			w.nodes[w.count] = node{idx: w.count, city: uint8(city), inc: 1, up: true, slow: 1, gen: 1}
			w.meta.nodes[w.count] = 1
			w.push(event{at: r.between(1000, 20000), kind: evNodeTick, who: w.count})
			w.count++
		}
	}
	for i := range 1 + w.dice.n(writersMax) {
		w.writers = append(w.writers, writer{idx: uint8(i), city: uint8(i % len(w.lay.cities))})
		w.push(event{at: r.between(0, 30000) * int64(i), kind: evStart, who: uint8(i)})
	}
	for i := range 1 + w.dice.n(readersMax) {
		w.readers = append(w.readers, reader{idx: uint8(i), city: uint8((i + len(w.lay.cities) - 1) % len(w.lay.cities))})
		w.meta.cursors[i] = -1
		w.push(event{at: r.between(1000, 9000), kind: evRead, who: uint8(i)})
	}
	for len(w.readers) < 1 {
		w.readers = append(w.readers, reader{})
	}
	w.meta.gen, w.meta.number, w.meta.lso = 1, 1, -1
	w.meta.relist(w)
	if c.Seed%8 == 0 {
		w.mirror = newMirror(w)
	}
	w.push(event{at: 5000, kind: evKeep})
	w.push(event{at: r.between(2000, 60000), kind: evFault})
	return w
}

// Run plays one schedule to its end.
func Run(c Config) (res Result) {
	w := newWorld(c)
	res.Seed, res.Layout = c.Seed, w.lay.String()
	defer func() {
		res.Events, res.Acked, res.Segments, res.Faults, res.Unprotected, res.Takeovers = w.events, w.acked, len(w.segs), w.faults, w.unprotected, w.takeovers
		res.Losses, res.Forced, res.Leaps, res.Cuts = w.losses, w.forced, w.leaps, w.cuts
		res.Beside = w.beside
		if p := recover(); p != nil {
			v, ok := p.(*Violation)
			if !ok {
				v = &Violation{Text: fmt.Sprintf("panic: %v", p), At: w.events}
				if c.Trace != nil {
					v.Text += "\n" + string(debug.Stack())
				}
			}
			res.Violation = v
		}
	}()
	w.play()
	return res
}

// play runs the faults' part, heals, and waits for life to return.
func (w *world) play() {
	for w.events < w.cfg.Events {
		w.step()
	}
	w.heal()
	w.healedTo = len(w.canon)
	for !w.recovered() {
		w.step()
		if w.now-w.healedAt > reviveAfter || w.events > w.cfg.Events+reviveEvents {
			w.violate(15, "%d µs and %d events after everything healed: %s", w.now-w.healedAt, w.events-w.cfg.Events, w.state())
		}
	}
	w.check()
}

// step makes the next thing happen.
func (w *world) step() {
	e, ok := w.queue.pop()
	if !ok {
		w.violate(15, "nothing happens any more")
	}
	w.now = e.at
	w.events++
	switch e.kind {
	case mSeal, mAttach, mAppend, mLAC, mClose:
		n := &w.nodes[e.peer]
		if n.frozen > w.now {
			w.defers(&e, n.frozen)
			return
		}
		if w.trace != nil {
			w.tracef("n%d  <-  %s", n.idx, w.show(&e))
		}
		w.toNode(n, &e)
	case evSync, evOp:
		n := &w.nodes[e.who]
		switch {
		case n.frozen > w.now:
			w.defers(&e, n.frozen)
		case e.kind == evSync:
			w.synced(n, &e)
		default:
			w.operated(n, &e)
		}
	case rSealed, rAttached, rAck, rError, evConnUp, evConnDown, evTick, evLoad, evAnswered:
		w.writerEvent(&e)
	case evStart:
		if p := &w.writers[e.who]; p.phase == phaseDown && p.id == e.gen {
			w.startWriter(p)
		}
	case evCommand:
		w.commanded(&e)
	case evNodeTick:
		w.nodeTick(&w.nodes[e.who])
	case evRead:
		w.poll(&w.readers[e.who])
	case evKeep:
		w.keep()
	case evRepair:
		w.repairOn(&e)
	default:
		w.faultEvent(&e)
	}
}

func (w *world) writerEvent(e *event) {
	p := &w.writers[e.who]
	if p.frozen > w.now {
		w.defers(e, p.frozen)
		return
	}
	switch e.kind {
	case evTick, evLoad:
		if p.id != e.gen || p.phase == phaseDown {
			return
		}
		if e.kind == evTick {
			w.tick(p)
		} else {
			w.load(p)
		}
	case evConnUp:
		w.connected(p, e)
	case evConnDown:
		w.disconnected(p, e)
	case evAnswered:
		w.answered(e)
	default:
		if w.trace != nil {
			w.tracef("w%d  <-  %s", p.idx, w.show(e))
		}
		w.toWriter(p, e)
	}
}

func (w *world) faultEvent(e *event) {
	switch e.kind {
	case evFault:
		if !w.calm {
			w.chaos()
		}
	case evNodeUp:
		w.restart(&w.nodes[e.who])
	case evWipe:
		w.wipes(e.gen)
	case evHealDisk:
		w.nodes[e.who].full, w.nodes[e.who].slow = false, 1
	case evHealMeta:
		w.lossy = false
	case evHealLinks:
		w.slowLink = 0
	case evForce:
		w.forces(e.seg)
	case evAlone:
		w.alone(e.seg)
	case evUnblock:
		w.blocked[e.who] &^= 1 << e.peer
	}
}

// defers an event to a frozen process until it thaws.
func (w *world) defers(e *event, until int64) {
	e.at = until
	w.push(*e)
}
