package binlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
)

const remedyXA = "complete the prepared XA transactions on the source (XA RECOVER lists them); if they are to stay that large, raise the producer's xa_bytes_max"

// prepared holds the row events of MySQL's XA transactions between PREPARE and
// COMMIT. A prepared transaction is logged under a GTID of its own, and may be
// rolled back yet, so its rows are no part of the stream before its COMMIT.
//
// Nothing of it is stored: the PREPARE's GTID stays out of what was handed over
// until the COMMIT, which has the server send it again after a restart.
type prepared struct {
	bytesMax int
	bytes    int
	byXID    map[string]*held
}

// held is one prepared transaction.
type held struct {
	id     string   // the GTID of its PREPARE
	events [][]byte // table maps and row events, bare
	bytes  int
	ready  bool // its PREPARE was seen
}

func (p *prepared) reset() { p.byXID, p.bytes = map[string]*held{}, 0 }

func (p *prepared) keep(xid string, e *event) error {
	h := p.byXID[xid]
	if h == nil {
		return fmt.Errorf("%w: rows of XA transaction %s, which did not start", ErrDamaged, xid)
	}
	n := len(e.bare)
	if p.bytes+n > p.bytesMax {
		return haltf(HaltXA, remedyXA, "prepared XA transactions hold more than %d bytes of changes", p.bytesMax)
	}
	h.events = append(h.events, bytes.Clone(e.bare))
	h.bytes += n
	p.bytes += n
	return nil
}

func (p *prepared) drop(xid string) {
	if h := p.byXID[xid]; h != nil {
		p.bytes -= h.bytes
		delete(p.byXID, xid)
	}
}

// xaQuery takes in XA START, END, COMMIT and ROLLBACK. MySQL writes the id in
// one spelling everywhere: X'gtrid',X'bqual',format.
func (a *assembler) xaQuery(ctx context.Context, e *event, rest string) error {
	verb, rest := firstWord(rest)
	xid := strings.TrimSpace(rest)
	if a.tx.skip {
		switch verb {
		case "START", "BEGIN":
			a.tx.begun = true
		case "COMMIT", "ROLLBACK":
			return a.end(ctx)
		}
		return nil
	}
	switch verb {
	case "START", "BEGIN":
		if a.xa.byXID[xid] != nil {
			return haltf(HaltDecode, remedyDamaged, "XA transaction %s starts again, %s", xid, a.where(e))
		}
		a.tx.begun, a.tx.xid = true, xid
		a.xa.byXID[xid] = &held{id: a.tx.id}
		return nil
	case "END":
		return nil
	case "COMMIT":
		xid = strings.TrimSpace(strings.TrimSuffix(xid, "ONE PHASE"))
		return a.xaCommit(ctx, e, xid)
	case "ROLLBACK":
		if err := a.xaPrepared(xid, false); err != nil {
			return err
		}
		return a.end(ctx)
	}
	return haltf(HaltXA, remedyXA, "XA %s %s, %s", verb, head(rest), a.where(e))
}

// prepare takes in an XA prepare event: one byte that says "commit in one
// phase", then the id.
func (a *assembler) prepare(ctx context.Context, e *event) error {
	if err := a.inside(e); err != nil {
		return err
	}
	if a.tx.skip {
		return a.end(ctx)
	}
	r := fieldReader{b: e.body}
	onePhase, format, n, m := r.u8(), r.u32(), r.u32(), r.u32()
	data := r.take(int(min(n, 64)) + int(min(m, 64)))
	if r.short || n > 64 || m > 64 {
		return fmt.Errorf("%w: %s %s", ErrDamaged, e.typ, a.where(e))
	}
	xid := fmt.Sprintf("X'%x',X'%x',%d", data[:n], data[n:], int32(format))
	h := a.xa.byXID[a.tx.xid]
	if h == nil || a.tx.xid != xid {
		return haltf(HaltXA, remedyXA, "XA transaction %s is prepared where %q started, %s", xid, a.tx.xid, a.where(e))
	}
	if onePhase != 0 {
		a.tx.xid = ""
		if err := a.replay(ctx, h); err != nil {
			return err
		}
		a.xa.drop(xid)
		return a.end(ctx)
	}
	h.ready = true
	// Its GTID is not handed over: what was begun is taken back by the next
	// Begin.
	a.tx = transaction{}
	return nil
}

// xaCommit hands over the rows of a prepared transaction in the place, and under
// the GTID, of its COMMIT; the PREPARE's GTID goes before it, empty.
func (a *assembler) xaCommit(ctx context.Context, e *event, xid string) error {
	h := a.xa.byXID[xid]
	if h == nil {
		// One that was prepared before the binlog that we were given: the
		// start lies between its PREPARE and its COMMIT.
		return haltf(HaltXA, "bring the target in line with this XA transaction and skip this GTID",
			"XA transaction %s is committed, and its changes lie before the start of this stream, %s", xid, a.where(e))
	}
	if err := a.xaPrepared(xid, true); err != nil {
		return err
	}
	if err := a.replay(ctx, h); err != nil {
		return err
	}
	return a.end(ctx)
}

// xaPrepared gives out the GTID of a PREPARE, without content, before that of
// the COMMIT or ROLLBACK that is open now.
func (a *assembler) xaPrepared(xid string, must bool) error {
	h := a.xa.byXID[xid]
	if h == nil {
		if must {
			return fmt.Errorf("%w: XA transaction %s is not prepared", ErrDamaged, xid)
		}
		return nil
	}
	a.xa.drop(xid)
	now := a.tx.header
	before := now
	before.GTID = h.id
	if err := a.sink.Begin(before); err != nil {
		return sinkError{err}
	}
	if err := a.sink.End(a.source); err != nil {
		return sinkError{err}
	}
	if err := a.done.Add(h.id); err != nil {
		return err
	}
	return fromSink(a.sink.Begin(now))
}

// replay decodes held events as if they came now. Their tables can't have
// changed: a prepared transaction keeps its metadata locks.
func (a *assembler) replay(ctx context.Context, h *held) error {
	clear(a.tables.current)
	for _, b := range h.events {
		binary.LittleEndian.PutUint32(b[9:], uint32(len(b)))
		held := newEvent(b)
		e := &held
		var err error
		if isRows(e.typ) {
			err = a.decode(ctx, e)
		} else {
			err = a.tables.define(ctx, a.reader, e)
		}
		if err = a.named(e, err); err != nil {
			return err
		}
	}
	return nil
}
