package segment

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/log/vfs"
)

// found is a record that a scan came across.
type found struct {
	record
	place int64
	size  int
}

// scanned is what a journal file holds.
type scanned struct {
	end     int64   // where the groups known to be durable end
	used    int64   // where the last good group ends; nothing of use lies behind
	records []found // of those groups, in order
	lost    []touch // named by a group, but not found in it
	// doubt is where damage ends that no group header accounts for; 0: none. Any
	// replica without an entry behind it may have lost some there.
	doubt int64
	// tail is the good beginning of a last group that nothing proves durable.
	tail     []found
	sequence uint64
	groups   int
}

// scanner reads a journal file group by group.
type scanner struct {
	h    vfs.File
	seed uint32
	size int64
	pend pending
	out  scanned
}

// scanFile reads the groups of a file. end is where they are known to end; 0
// when nobody knows, for the newest file only: then a last group without one
// behind it is unproven, and whatever is unreadable behind the last good header
// is a torn tail. Unreadable bytes in front of a good header are damage: that
// header was only written after they had been synced.
func scanFile(h vfs.File, head fileHeader, end int64) (scanned, error) {
	size, err := h.Size()
	if err != nil {
		return scanned{}, err
	}
	sc := &scanner{h: h, seed: head.seed(), size: size}
	limit := size
	if end > 0 {
		limit = min(end, size)
	}
	at, lastAt := int64(dataStart), int64(0)
	for at < limit {
		g, err := sc.head(at, limit)
		if err == nil && sc.out.groups > 0 && g.Sequence <= sc.out.sequence {
			err = fmt.Errorf("group %d after %d: %w", g.Sequence, sc.out.sequence, errFormat)
		}
		if err == nil {
			if err := sc.body(at, g); err != nil {
				return scanned{}, err
			}
			sc.out.sequence = g.Sequence
			sc.out.groups++
			lastAt = at
			at += g.Length
			continue
		}
		if !errors.Is(err, errFormat) {
			return scanned{}, err
		}
		next, g, err := sc.search(at+page, limit)
		if err != nil {
			return scanned{}, err
		}
		if next == 0 {
			if end == 0 {
				break // a torn tail
			}
			next = limit
			sc.doubt(next)
		} else if g.PrevStart != at {
			sc.doubt(next)
		}
		if err := sc.salvage(at, next, g.Prev); err != nil {
			return scanned{}, err
		}
		at = next
	}
	sc.out.end, sc.out.used = at, at
	if end > 0 {
		sc.settle()
		sc.out.end = end
		if size < end {
			sc.doubt(end)
		}
		return sc.out, nil
	}
	// The newest file: its last group has to speak for itself.
	if lastAt > 0 {
		sc.out.end = lastAt
		sc.out.tail = sc.pend.good
	}
	return sc.out, nil
}

func (sc *scanner) doubt(at int64) {
	if sc.out.doubt == 0 || at > sc.out.doubt {
		sc.out.doubt = at
	}
}

// head reads the group header at offset at.
func (sc *scanner) head(at, limit int64) (groupHead, error) {
	b := make([]byte, min(page, limit-at))
	if err := sc.read(b, at); err != nil {
		return groupHead{}, err
	}
	n, err := groupHeadSize(b)
	if err != nil {
		return groupHead{}, err
	}
	if n > len(b) {
		if int64(n) > limit-at {
			return groupHead{}, fmt.Errorf("group header of %d bytes at %d: %w", n, at, errFormat)
		}
		b = make([]byte, n)
		if err := sc.read(b, at); err != nil {
			return groupHead{}, err
		}
	}
	g, err := decodeGroupHead(b, sc.seed, at)
	if err == nil && g.Length > limit-at {
		err = fmt.Errorf("group of %d bytes at %d passes %d: %w", g.Length, at, limit, errFormat)
	}
	return g, err
}

// search looks for the next good group header from offset at on; 0: none.
func (sc *scanner) search(at, limit int64) (int64, groupHead, error) {
	for ; at < limit; at += page {
		g, err := sc.head(at, limit)
		if err == nil && (sc.out.groups == 0 || g.Sequence > sc.out.sequence) {
			return at, g, nil
		}
		if err != nil && !errors.Is(err, errFormat) {
			return 0, groupHead{}, err
		}
	}
	return 0, groupHead{}, nil
}

// pending is the group read last: whether it is durable, only what follows tells.
type pending struct {
	good   []found // records up to the first bad one
	rest   []found // good records behind it
	broken bool
	table  []touch
}

// body reads the records of a group. The group before it is hereby proven.
func (sc *scanner) body(at int64, g groupHead) error {
	b := make([]byte, g.Length)
	if err := sc.read(b, at); err != nil {
		return err
	}
	sc.settle()
	sc.pend = pending{table: g.Touched}
	sc.records(b[g.size():], at+int64(g.size()), g.Records)
	return nil
}

// salvage reads what is left of a group whose header is unreadable. table is
// what the header behind it says the group held.
func (sc *scanner) salvage(at, next int64, table []touch) error {
	b := make([]byte, next-at)
	if err := sc.read(b, at); err != nil {
		return err
	}
	sc.settle()
	sc.pend = pending{table: table, broken: true}
	sc.records(b, at, math.MaxUint32)
	sc.pend.broken = true
	return nil
}

// records collects up to limit records from b, which lies at offset at. Behind a
// bad one it goes on at the next good one.
func (sc *scanner) records(b []byte, at int64, limit uint32) {
	p := &sc.pend
	seen := uint32(0)
	for len(b) >= recordHeader && seen < limit {
		r, err := decodeRecord(b, sc.seed, at)
		size := recordSize(int(r.Length))
		if err != nil || size > len(b) {
			p.broken = true
			b, at = b[align:], at+align
			continue
		}
		if Checksum(b[recordHeader:recordHeader+int(r.Length)]) != r.PayloadCRC {
			p.broken = true
		}
		f := found{record: r, place: at, size: size}
		if p.broken {
			p.rest = append(p.rest, f)
		} else {
			p.good = append(p.good, f)
		}
		seen++
		b, at = b[size:], at+int64(size)
	}
	p.broken = p.broken || seen < limit
}

// settle counts the group read last as durable: what is bad in it is damage, and
// its table says what is lost. A record with a bad payload keeps its place: a
// read of it will say so.
func (sc *scanner) settle() {
	sc.out.records = append(append(sc.out.records, sc.pend.good...), sc.pend.rest...)
	if sc.pend.broken {
		sc.out.lost = append(sc.out.lost, sc.pend.table...)
	}
	sc.pend = pending{}
}

func (sc *scanner) read(b []byte, at int64) error {
	n, err := sc.h.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		clear(b[n:])
		return nil
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
}

// end is the place behind the entry.
func (t touch) end() log.Offset { return t.First + log.Offset(t.Count) }
