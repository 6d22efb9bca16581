package sim

import (
	"slices"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/quorum"
)

// crash stops a node at once. keep is how much of the group that is being synced
// is on disk: -1 leaves that to chance.
func (w *world) crash(n *node, keep int) {
	if !n.up {
		return
	}
	n.up, n.downAt = false, w.now
	n.boot++
	if keep < 0 {
		keep = w.dice.n(len(n.syncing) + 1)
	}
	if w.bug == BugTornHole && len(n.syncing) > 2 {
		n.syncing = slices.Delete(n.syncing, 1, 2)
		keep = len(n.syncing)
	}
	w.store(n, n.syncing[:keep])
	if w.bug == BugStaleBytes && keep < len(n.syncing) && len(n.syncing) > 0 {
		rec := n.syncing[keep]
		rec.ent.content ^= 1 << 19 // an older life of the file, taken for this one
		w.store(n, []record{rec})
	}
	n.syncing, n.queue, n.busy = n.syncing[:0], n.queue[:0], false
	for _, r := range n.live {
		if r.busy != opNone && w.dice.oneIn(2) {
			w.operate(n, r)
		}
		r.busy = opNone
	}
	for i := range w.writers {
		if c := &w.writers[i].conns[n.idx]; c.state != connDown {
			w.push(event{at: w.now + w.net.between(100, 4000), kind: evConnDown, who: uint8(i), peer: n.idx, gen: c.gen})
		}
	}
	if w.trace != nil {
		w.tracef("n%d     crashes, %d records kept", n.idx, keep)
	}
}

// restart brings a node up with what its disk has.
func (w *world) restart(n *node) {
	if n.up {
		return
	}
	n.up, n.fail = true, 0
	live := n.live
	n.live = nil
	for _, r := range live {
		if !r.disk.made {
			n.reps[r.seg.num] = nil
			continue
		}
		w.reopen(n, r)
		n.live = append(n.live, r)
	}
	if n.gen == w.meta.gen {
		w.register(n)
	}
	if w.trace != nil {
		w.tracef("n%d     is up, disk %d", n.idx, n.inc)
	}
}

// reopen rebuilds a replica's machine from its disk.
func (w *world) reopen(n *node, r *replica) {
	d := &r.disk
	suspect := d.rot >= 0
	if suspect && w.bug == BugCorruptAbsent {
		d.ents, d.rot, suspect = d.ents[:d.rot-d.first], -1, false
	}
	lac, last := int32(log.None), d.last()
	if suspect {
		last = d.rot - 1 // as far as it can be read
	}
	r.lso = r.seg.firstLSO
	for o := last; o >= d.first; o-- {
		en := &d.ents[o-d.first]
		if o == last {
			lac = en.lac
		}
		if en.ends {
			r.lso = o
			break
		}
	}
	r.m = quorum.NewReplica(quorum.ReplicaState{
		First: off(d.first), Fence: log.Epoch(d.fence), Last: off(last), LSO: off(r.lso), LAC: off(lac),
		Closed: d.closed, End: off(d.end), EndLSO: off(d.endLSO), Suspect: suspect,
	})
	r.waiting, r.conn, r.fills = r.waiting[:0], 0, false
}

// wipe gives a node an empty disk, under a new identity.
func (w *world) wipe(n *node) {
	if w.bug != BugWipedRejoins {
		n.inc++
	}
	n.reps, n.live = nil, nil
	n.seen = nil
	if w.trace != nil {
		w.tracef("n%d     loses its disk", n.idx)
	}
}

// forgetReplica undoes the making of a replica that nothing was stored for.
func (w *world) forgetReplica(n *node, r *replica) {
	n.reps[r.seg.num] = nil
	n.live = slices.DeleteFunc(n.live, func(x *replica) bool { return x == r })
}

// nodeTick: the node compares its replicas with its local view of the metadata,
// which may be old.
func (w *world) nodeTick(n *node) {
	w.push(event{at: w.now + w.dice.between(8000, 40000), kind: evNodeTick, who: n.idx})
	if !n.up || n.frozen > w.now {
		return
	}
	if n.gen != w.meta.gen { // the old metadata has nothing new to tell it
		if w.blocked[actorMeta]>>n.idx&1 == 0 && (w.calm || w.dice.oneIn(4)) {
			w.quarantine(n)
		}
		return
	}
	w.register(n)
	if w.dice.oneIn(2) && w.blocked[actorMeta]>>n.idx&1 == 0 {
		n.seen = w.meta.list
	}
	v := n.seen
	if v == nil {
		return
	}
	for k := 0; k < len(n.live); k++ {
		r := n.live[k]
		at := slices.Index(v.segs, r.seg.idx)
		switch {
		case at >= 0 && v.closed[at]:
			if _, _, ok := r.m.Closed(); !ok {
				w.closeReplica(n, r, r.seg.end, r.seg.endLSO)
			} else if !r.complete() && r.seg.holders[n.idx] == n.inc {
				w.ask(keeper, 0, command{verb: cmdHeld, seg: r.seg.idx, node: n.idx, inc: n.inc, lost: true, open: -1})
			}
		case at < 0 && (r.seg.num < v.number || w.bug == BugDropUnlisted) && r.busy == opNone && r.m.Queued() == r.m.Last() && len(r.waiting) == 0:
			// Listed once, and no longer.
			w.dropped(n, r)
			r.dropped, r.disk.ents, r.conn = true, nil, 0
			n.live = slices.Delete(n.live, k, k+1)
			k--
			if w.bug == BugDropForgetsFence || w.bug == BugDropUnlisted {
				n.reps[r.seg.num] = nil
			}
		}
	}
}

// register makes a new disk known in the place of the one that was lost.
func (w *world) register(n *node) {
	if w.meta.nodes[n.idx] != n.inc {
		w.ask(keeper, 0, command{verb: cmdRegister, node: n.idx, inc: n.inc, open: -1})
	}
}
