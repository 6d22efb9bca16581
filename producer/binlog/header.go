package binlog

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/internal/server"
)

// Flags of MariaDB's GTID event; sql/log_event.h, Gtid_log_event.
const (
	mariaStandalone  = 1 // one event follows, without a commit event
	mariaPreparedXA  = 64
	mariaCompletedXA = 128
)

// header reads a GTID event of either flavour. flags are MariaDB's.
func (r *eventReader) header(e *event) (h Header, flags byte, err error) {
	if r.flavor == server.MariaDB {
		f := fieldReader{b: e.body}
		n, domain := f.u64(), f.u32()
		flags = f.u8()
		if f.short || n == 0 {
			return h, 0, fmt.Errorf("%w: %s of %d bytes", ErrDamaged, e.typ, len(e.body))
		}
		return Header{
			GTID:       mariaGTIDText(domain, e.serverID, n),
			CommitTime: time.Unix(int64(e.timestamp), 0).UTC(), ServerID: e.serverID,
		}, flags, nil
	}
	if e.typ == replication.GTID_EVENT {
		return headerMySQL(e)
	}
	ev, err := r.parse(e)
	if err != nil {
		return h, 0, err
	}
	g, ok := ev.(*replication.GtidTaggedLogEvent)
	if !ok || len(g.SID) != 16 || g.GNO < 1 {
		return h, 0, fmt.Errorf("%w: %s of %d bytes", ErrDamaged, e.typ, len(e.body))
	}
	h.GTID = gtidText(g.SID, g.Tag.String(), uint64(g.GNO))
	h.ServerID = e.serverID
	h.CommitTime = commitTime(e, g.OriginalCommitTimestamp, g.ImmediateCommitTimestamp)
	return h, 0, nil
}

// headerMySQL reads MySQL's GTID event without a tag, of which there is one for
// each transaction: flags (1 byte), UUID (16), number (8), the kind of the
// logical clock (1; 2 is the only one) and its two numbers (8 each), then times
// in microseconds (7 bytes each): that of the commit on the server, and, where
// its highest bit is set, that of the commit at the origin. Source: MySQL's
// libs/mysql/binlog/event/control_events.cpp, Gtid_event.
func headerMySQL(e *event) (h Header, flags byte, err error) {
	f := fieldReader{b: e.body}
	f.take(1)
	sid, n := f.take(16), f.u64()
	if f.short || n == 0 || n > math.MaxInt64 {
		return h, 0, fmt.Errorf("%w: %s of %d bytes", ErrDamaged, e.typ, len(e.body))
	}
	var original, immediate uint64
	const more = 1 << 55
	if f.u8() == 2 { // short before MySQL 5.7, which is as good as another kind
		f.take(16)
		if !f.done() { // from MySQL 8.0.1 on
			immediate = f.u56()
			if original = immediate; immediate&more != 0 {
				immediate &^= more
				original = f.u56()
			}
		}
		if f.short {
			return h, 0, fmt.Errorf("%w: %s of %d bytes", ErrDamaged, e.typ, len(e.body))
		}
	}
	return Header{GTID: gtidText(sid, "", n), CommitTime: commitTime(e, original, immediate), ServerID: e.serverID}, 0, nil
}

// commitTime is the first of the times that the event has.
func commitTime(e *event, original, immediate uint64) time.Time {
	switch {
	case original != 0:
		return time.UnixMicro(int64(original)).UTC()
	case immediate != 0:
		return time.UnixMicro(int64(immediate)).UTC()
	}
	return time.Unix(int64(e.timestamp), 0).UTC() // a server before 8.0.1
}

// gtidText is a GTID of MySQL in its own spelling.
func gtidText(sid []byte, tag string, n uint64) string {
	b := make([]byte, 0, 96)
	for i, c := range sid {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	if tag != "" {
		b = append(append(b, ':'), tag...)
	}
	return string(strconv.AppendUint(append(b, ':'), n, 10))
}

func mariaGTIDText(domain, serverID uint32, n uint64) string {
	b := make([]byte, 0, 48)
	b = append(strconv.AppendUint(b, uint64(domain), 10), '-')
	b = append(strconv.AppendUint(b, uint64(serverID), 10), '-')
	return string(strconv.AppendUint(b, n, 10))
}
