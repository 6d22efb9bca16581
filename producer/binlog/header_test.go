package binlog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/internal/server"
)

// theirHeader is what go-mysql makes of a GTID event's body; false where it
// can't read it.
func theirHeader(body []byte) (h Header, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	var g replication.GTIDEvent
	if err := g.Decode(slices.Clone(body)); err != nil || g.GNO < 1 {
		return h, false
	}
	h.GTID = fmt.Sprintf("%x-%x-%x-%x-%x:%d", g.SID[:4], g.SID[4:6], g.SID[6:8], g.SID[8:10], g.SID[10:], g.GNO)
	h.CommitTime = time.UnixMicro(int64(g.OriginalCommitTimestamp)).UTC()
	if g.OriginalCommitTimestamp == 0 {
		h.CommitTime = time.UnixMicro(int64(g.ImmediateCommitTimestamp)).UTC()
	}
	if g.OriginalCommitTimestamp == 0 && g.ImmediateCommitTimestamp == 0 {
		h.CommitTime = time.Unix(1_700_000_000, 0).UTC()
	}
	return h, true
}

// gtidBody is a GTID event's body with times of the commit on the server and, if
// not 0, at the origin.
func gtidBody(n byte, immediate, original uint64) []byte {
	b := []byte{1, 0xd5, 0x72, 0x76, 0xc2, 0xc6, 0x60, 0x11, 0xf1, 0x8f, 0x1b, 0x02, 0xfc, 0x50, 0xa0, 0xfb, 0x10, n, 1, 0, 0, 0, 0, 0, 0, 2}
	b = append(b, make([]byte, 16)...)
	times := []uint64{immediate}
	if original != 0 {
		times = []uint64{immediate | 1<<55, original}
	}
	for _, v := range times {
		for i := range 7 {
			b = append(b, byte(v>>(8*i)))
		}
	}
	return append(b, 0xfc, 1, 2, 0x70, 0x38, 1, 0) // length of the transaction, version of the server
}

// FuzzGTIDEvent: our reading of GTID events is go-mysql's, wherever that has one.
func FuzzGTIDEvent(f *testing.F) {
	const at = 1_772_000_000_123_456
	for _, b := range [][]byte{gtidBody(1, at, 0), gtidBody(200, at, at-1000), gtidBody(0, 0, 0), gtidBody(9, 0, at)} {
		f.Add(b)
		for cut := range b {
			f.Add(b[:cut])
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := newEvent(raw(replication.GTID_EVENT, 0, body))
		got, _, err := newEventReader(server.MySQL, false).header(&e)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		want, ok := theirHeader(body)
		if !ok {
			return // what they can't read, we need not
		}
		want.ServerID = 7
		if err == nil && got != want || err != nil && len(body) >= len(gtidBody(1, 1, 1)) {
			t.Errorf("%x: %+v, %v, want %+v", body, got, err, want)
		}
	})
}

// FuzzBegin: what is taken for a plain BEGIN is one to go-mysql's parser, too.
func FuzzBegin(f *testing.F) {
	for _, text := range []string{"BEGIN", "BEGIN ", "COMMIT", "", "XBEGIN"} {
		b := queryEvent(text)[headerBytes:]
		f.Add(b)
		f.Add(b[:len(b)-1])
		f.Add(queryWith(text, 0, []byte{0, 1, 2, 3, 4}, 0)[headerBytes:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e := newEvent(raw(replication.QUERY_EVENT, 0, body))
		if !isPlainBegin(&e) {
			return
		}
		r := newEventReader(server.MySQL, false)
		if err := r.read(formatEvent("9.7.0", false), func(*event) error { return nil }); err != nil {
			t.Fatal(err)
		}
		ev, err := r.parse(&e)
		if q, ok := ev.(*replication.QueryEvent); err != nil || !ok || string(q.Query) != "BEGIN" {
			t.Errorf("%x: %v, %v", body, ev, err)
		}
	})
}
