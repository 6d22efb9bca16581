package sim

import (
	"errors"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/internal/fault"
	"github.com/twinspan/twinspan/log/quorum"
)

// node is a storage node: the shell around its replicas, and its disk.
type node struct {
	idx     uint8
	city    uint8
	inc     uint16 // identity of its directory
	up      bool
	boot    uint32
	downAt  int64 // when it stopped last
	frozen  int64 // until
	reps    []*replica
	live    []*replica // those with something, in the order they were made
	queue   []record   // what the next group will hold
	syncing []record   // the group that is being synced
	busy    bool
	slow    int64 // factor of the disk's time
	full    bool
	fail    int8 // the next sync fails: 1 nothing of it is on disk, 2 all of it is
	seen    *listing
	gen     uint32 // of the cluster, durable
}

// record is an entry on its way to the disk.
type record struct {
	rep *replica
	o   int32
	ent ent
}

// replica is quorum.Replica with a disk under it.
type replica struct {
	m         quorum.Replica
	seg       *segment
	disk      disk
	lso       int32 // of what is durable
	busy      opKind
	wantEpoch uint32
	dropped   bool // for ever: the fence went with it
	waiting   []waiter
	writer    uint8 // who appends, and over which connection
	conn      uint32
	fills     bool // a repair is under way
}

// disk is what of a replica survives a crash.
type disk struct {
	made   bool
	fence  uint32
	closed bool
	end    int32
	endLSO int32
	first  int32
	ents   []ent
	rot    int32 // an entry that is damaged; -1: none
}

func (d *disk) last() int32 { return d.first + int32(len(d.ents)) - 1 }

type opKind uint8

const (
	opNone opKind = iota
	opFence
	opClose
)

type waiter struct {
	writer uint8
	conn   uint32
	epoch  uint32
	attach bool
}

// replica of a segment on a node; made true makes it.
func (w *world) replica(n *node, s *segment, make bool) *replica {
	for int(s.num) >= len(n.reps) {
		n.reps = append(n.reps, nil)
	}
	r := n.reps[s.num]
	if r == nil && make {
		r = &replica{seg: s, disk: disk{first: s.first, rot: -1}, lso: s.firstLSO}
		r.m = quorum.NewReplica(quorum.ReplicaState{First: off(s.first), Last: off(s.first - 1), LSO: off(s.firstLSO), LAC: log.None})
		n.reps[s.num] = r
		n.live = append(n.live, r)
	}
	return r
}

// toNode: a message reaches a node.
func (w *world) toNode(n *node, e *event) {
	c := &w.conns[e.gen]
	if !n.up || c.boot != n.boot || c.cut {
		return
	}
	s := w.segs[e.seg]
	if e.kind == mAppend {
		if int(s.num) < len(n.reps) {
			if r := n.reps[s.num]; r != nil && r.seg == s && !r.dropped {
				w.nodeAppend(n, r, e, c)
				return
			}
		}
		w.refuse(n, e, codeElsewhere)
		return
	}
	switch g := c.generation; {
	case g == 0 || g == n.gen:
	case g > n.gen: // the node was left behind by a takeover: it serves nothing any more
		w.quarantine(n)
		return
	case w.bug != BugOldGeneration:
		w.refuse(n, e, codeGeneration)
		return
	}
	if i := s.index[n.idx]; i < 0 || s.incs[i] != n.inc {
		w.refuse(n, e, codeIdentity)
		return
	}
	make := e.kind == mSeal || e.kind == mAttach
	r := w.replica(n, s, make)
	if r != nil && (r.seg != s || r.dropped) {
		w.refuse(n, e, codeFenced)
		return
	}
	switch e.kind {
	case mSeal, mAttach:
		if e.kind == mSeal && w.bug == BugSealOfUnknown && !r.disk.made && r.busy == opNone {
			// The node never heard of the segment and says so, without keeping the fence.
			w.answer(n, r, waiter{writer: e.who, conn: e.gen, epoch: e.epoch}, quorum.Sealed{Last: off(s.first - 1), LAC: log.None, LSO: off(s.firstLSO)})
			w.forgetReplica(n, r)
			return
		}
		if err := r.m.BeginSeal(log.Epoch(e.epoch)); err != nil {
			w.refuse(n, e, codeFenced)
			return
		}
		r.waiting = append(r.waiting, waiter{writer: e.who, conn: e.gen, epoch: e.epoch, attach: e.kind == mAttach})
		w.pumpReplica(n, r)
	case mLAC:
		if r != nil && r.m.Confirm(log.Epoch(e.epoch), off(e.lac)) == nil {
			w.checkLAC(n, r)
		}
	case mClose:
		if r != nil {
			w.closeReplica(n, r, e.o, e.lac)
		}
	}
}

func (w *world) closeReplica(n *node, r *replica, end, lso int32) {
	if err := r.m.BeginClose(off(end), off(lso)); err != nil {
		if !r.m.Suspect() {
			w.violate(7, "node n%d: segment %d: %v", n.idx, r.seg.num, err)
		}
		return
	}
	w.pumpReplica(n, r)
}

// nodeAppend is the hot path.
func (w *world) nodeAppend(n *node, r *replica, e *event, c *conn) {
	if n.full {
		w.refuse(n, e, codeFull)
		return
	}
	before := r.m.Queued()
	fresh, err := r.m.Admit(log.Epoch(e.epoch), off(e.o))
	if err != nil {
		code := codeGap
		switch {
		case errors.Is(err, log.ErrFenced):
			code = codeFenced
		case errors.Is(err, log.ErrClosed):
			code = codeClosed
		case errors.Is(err, log.ErrSuspect):
			code = codeSuspect
		}
		w.refuse(n, e, code)
		return
	}
	r.writer, r.conn = e.who, e.gen
	if r.m.Confirm(log.Epoch(e.epoch), off(e.lac)) == nil {
		w.checkLAC(n, r)
	}
	if fresh {
		w.admitted(n, r, e, int32(before))
		w.enqueue(n, record{rep: r, o: e.o, ent: ent{content: e.content, epoch: e.epoch, lac: int32(r.m.LAC()), ends: e.ends}})
	} else {
		w.acknowledge(n, r)
	}
	if w.bug == Bug(fault.AckBeforeSync) {
		w.acknowledge(n, r)
	}
}

func (w *world) enqueue(n *node, rec record) {
	n.queue = append(n.queue, rec)
	if !n.busy {
		w.startSync(n)
	}
}

func (w *world) startSync(n *node) {
	n.queue, n.syncing = n.syncing[:0], n.queue
	n.busy = true
	w.push(event{at: w.now + n.slow*w.net.between(80, 900), kind: evSync, who: n.idx, gen: n.boot})
}

// synced: the group is on disk, or the sync failed.
func (w *world) synced(n *node, e *event) {
	if !n.up || e.gen != n.boot {
		return
	}
	if n.fail != 0 {
		keep := 0
		if n.fail == 2 {
			keep = len(n.syncing)
		}
		n.fail = 0
		w.crash(n, keep)
		return
	}
	if n.full {
		w.dropQueue(n)
	} else {
		w.store(n, n.syncing)
		for i := 0; i < len(n.syncing); {
			r := n.syncing[i].rep
			last := n.syncing[i].o
			for i++; i < len(n.syncing) && n.syncing[i].rep == r; i++ {
				last = max(last, n.syncing[i].o)
			}
			r.m.Durable(off(last), off(r.lso))
			w.acknowledge(n, r)
			if r.busy == opNone {
				w.pumpReplica(n, r)
			}
			if r.fills {
				w.filled(n, r)
			}
		}
	}
	n.syncing = n.syncing[:0]
	n.busy = false
	if len(n.queue) > 0 {
		w.startSync(n)
	}
}

// dropQueue: no space. Whoever waits has to attach again.
func (w *world) dropQueue(n *node) {
	for _, recs := range [2][]record{n.syncing, n.queue} {
		for i := range recs {
			if r := recs[i].rep; r.m.Queued() > r.m.Last() {
				r.m.Dropped()
				w.reply(n, event{kind: rError, gen: r.conn, seg: r.seg.idx, o: int32(codeFull)})
				w.pumpReplica(n, r)
			}
		}
	}
	n.queue = n.queue[:0]
}

// store puts records on the disk.
func (w *world) store(n *node, recs []record) {
	for i := range recs {
		rec := &recs[i]
		r := rec.rep
		r.disk.ents = append(r.disk.ents, rec.ent)
		if rec.ent.ends {
			r.lso = max(r.lso, rec.o)
		}
		w.stored(n, r, rec)
	}
}

// acknowledge tells the appender of a replica how far it is durable.
func (w *world) acknowledge(n *node, r *replica) {
	if r.conn != 0 {
		w.reply(n, event{kind: rAck, gen: r.conn, seg: r.seg.idx, o: int32(r.m.Last())})
	}
}

type code int32

const (
	codeFenced code = iota
	codeSuspect
	codeIdentity
	codeFull
	codeClosed
	codeGap
	codeElsewhere
	codeGeneration
)

var codeNames = [...]string{"fenced", "suspect", "identity", "full", "closed", "gap", "elsewhere", "generation"}

func (w *world) refuse(n *node, e *event, c code) {
	if w.trace != nil {
		w.tracef("n%d     refuses %s: %s", n.idx, w.show(e), codeNames[c])
	}
	w.reply(n, event{kind: rError, gen: e.gen, seg: e.seg, o: int32(c)})
}

// pumpReplica starts what the machine is ready for, and answers who waits.
func (w *world) pumpReplica(n *node, r *replica) {
	if r.busy == opNone {
		if epoch, ok := r.m.SealReady(); ok {
			r.busy, r.wantEpoch = opFence, uint32(epoch)
		} else if _, ok := r.m.CloseReady(); ok {
			r.busy = opClose
		}
		if r.busy != opNone {
			w.push(event{at: w.now + n.slow*w.net.between(80, 900), kind: evOp, who: n.idx, gen: n.boot, seg: r.seg.idx})
		}
	}
	keep := r.waiting[:0]
	for _, wt := range r.waiting {
		s, ok, err := r.m.Sealed(log.Epoch(wt.epoch))
		switch {
		case errors.Is(err, log.ErrSuspect):
			w.reply(n, event{kind: rError, gen: wt.conn, seg: r.seg.idx, o: int32(codeSuspect)})
		case err != nil:
			w.reply(n, event{kind: rError, gen: wt.conn, seg: r.seg.idx, o: int32(codeFenced)})
		case ok && wt.attach && r.m.Queued() != r.m.Last():
			keep = append(keep, wt) // what an earlier attachment queued comes first
		case ok:
			w.answer(n, r, wt, s)
		default:
			keep = append(keep, wt)
		}
	}
	r.waiting = keep
}

func (w *world) answer(n *node, r *replica, wt waiter, s quorum.Sealed) {
	if wt.attach {
		r.writer, r.conn = wt.writer, wt.conn
		w.reply(n, event{kind: rAttached, gen: wt.conn, seg: r.seg.idx, o: int32(s.Last)})
		return
	}
	w.sealed(n, r, wt.epoch)
	w.answers = append(w.answers, s)
	w.reply(n, event{kind: rSealed, gen: wt.conn, seg: r.seg.idx, epoch: wt.epoch, content: uint64(len(w.answers) - 1)})
}

// operated: a fence or a close is on disk.
func (w *world) operated(n *node, e *event) {
	if !n.up || e.gen != n.boot {
		return
	}
	r := n.reps[w.segs[e.seg].num]
	if r == nil || r.busy == opNone {
		return
	}
	w.operate(n, r)
	if r.busy == opFence {
		r.m.FenceDurable(log.Epoch(r.wantEpoch))
	} else {
		r.m.CloseDurable()
	}
	r.busy = opNone
	w.pumpReplica(n, r)
	if r.fills {
		w.filled(n, r)
	}
}

// operate does to the disk what is under way.
func (w *world) operate(n *node, r *replica) {
	d := &r.disk
	d.made = true
	switch r.busy {
	case opFence:
		if w.bug != BugFenceVolatile {
			d.fence = max(d.fence, r.wantEpoch)
		} else if d.fence == 0 {
			d.fence = r.seg.epoch
		}
	case opClose:
		e, _ := r.m.CloseReady()
		end, lso := int32(e), r.closeLSO()
		d.closed, d.end, d.endLSO = true, end, lso
		if w.bug != Bug(fault.StaleSuffix) && d.last() > end {
			d.ents = d.ents[:end-d.first+1]
			r.lso = lso
		}
		if d.rot > end {
			d.rot = -1
		}
	}
}

func (r *replica) closeLSO() int32 { _, lso, _ := r.m.Closed(); return int32(lso) }
