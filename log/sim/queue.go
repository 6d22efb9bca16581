package sim

// event is something that happens at a time. What its fields mean depends on its
// kind; it carries no pointers, so that millions of them cost nothing to keep.
type event struct {
	at      int64 // µs
	seq     uint32
	gen     uint32 // of the connection, the process or the command it belongs to
	content uint64
	epoch   uint32
	seg     int32 // index of a segment in world.segs
	o       int32 // offset
	lac     int32
	kind    kind
	who     uint8
	peer    uint8
	ends    bool
}

// queue is a 4-ary heap of events by time; what is equal in time keeps its order.
type queue struct {
	heap []event
	seq  uint32
}

func before(a, b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

func (q *queue) push(e event) {
	e.seq = q.seq
	q.seq++
	q.heap = append(q.heap, e)
	i := len(q.heap) - 1
	for i > 0 {
		p := (i - 1) / 4
		if !before(&e, &q.heap[p]) {
			break
		}
		q.heap[i] = q.heap[p]
		i = p
	}
	q.heap[i] = e
}

func (q *queue) pop() (event, bool) {
	if len(q.heap) == 0 {
		return event{}, false
	}
	top := q.heap[0]
	last := len(q.heap) - 1
	e := q.heap[last]
	q.heap = q.heap[:last]
	if last == 0 {
		return top, true
	}
	i := 0
	for {
		c := 4*i + 1
		if c >= last {
			break
		}
		m := c
		for k := c + 1; k < min(c+4, last); k++ {
			if before(&q.heap[k], &q.heap[m]) {
				m = k
			}
		}
		if !before(&q.heap[m], &e) {
			break
		}
		q.heap[i] = q.heap[m]
		i = m
	}
	q.heap[i] = e
	return top, true
}
