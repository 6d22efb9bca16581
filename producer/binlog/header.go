package binlog

import (
	"fmt"
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
			GTID:       fmt.Sprintf("%d-%d-%d", domain, e.serverID, n),
			CommitTime: time.Unix(int64(e.timestamp), 0).UTC(), ServerID: e.serverID,
		}, flags, nil
	}
	ev, err := r.parse(e)
	if err != nil {
		return h, 0, err
	}
	var g *replication.GTIDEvent
	switch ev := ev.(type) {
	case *replication.GTIDEvent:
		g = ev
	case *replication.GtidTaggedLogEvent:
		g = &ev.GTIDEvent
	}
	if g == nil || len(g.SID) != 16 || g.GNO < 1 {
		return h, 0, fmt.Errorf("%w: %s of %d bytes", ErrDamaged, e.typ, len(e.body))
	}
	h.GTID = fmt.Sprintf("%x-%x-%x-%x-%x", g.SID[:4], g.SID[4:6], g.SID[6:8], g.SID[8:10], g.SID[10:])
	if tag := g.Tag.String(); tag != "" {
		h.GTID += ":" + tag
	}
	h.GTID = fmt.Sprintf("%s:%d", h.GTID, g.GNO)
	h.ServerID = e.serverID
	at := g.OriginalCommitTimestamp
	if at == 0 {
		at = g.ImmediateCommitTimestamp
	}
	h.CommitTime = time.UnixMicro(int64(at)).UTC()
	if at == 0 { // a server before 8.0.1
		h.CommitTime = time.Unix(int64(e.timestamp), 0).UTC()
	}
	return h, 0, nil
}
