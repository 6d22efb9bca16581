package binlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// absent reads the binlog from a set on, over a connection of its own, until it
// has met every wanted transaction or the binlog ends, and returns those it did
// not meet. Parallel replicas write some transactions ahead of others although
// replica_preserve_commit_order is ON (a CREATE TABLE IF NOT EXISTS that finds
// its table, for one): those they overtook stand a few transactions later.
func (s *Stream) absent(ctx context.Context, f server.Flavor, from, wanted gtid.Set) (gtid.Set, error) {
	d, err := openDump(ctx, s.cfg.Server, dumpOptions{
		flavor: f, from: from, serverID: s.cfg.ServerID ^ 1<<30, uuid: s.scanUUID,
		heartbeat: s.cfg.Heartbeat, timeout: s.cfg.ReadTimeout, noWait: true,
	})
	if err != nil {
		return wanted, err
	}
	defer d.close()
	stop := context.AfterFunc(ctx, d.close)
	defer stop()
	r := newEventReader(f, d.crc)
	defer r.close()
	met := gtid.New(string(f))
	take := func(e *event) error {
		switch e.typ {
		case replication.GTID_EVENT, replication.GTID_TAGGED_LOG_EVENT:
			h, _, err := r.header(e)
			if err != nil {
				return err
			}
			return met.Add(h.GTID)
		}
		return nil
	}
	for !met.Contains(wanted) {
		raw, err := d.next()
		if errors.Is(err, errEnd) {
			break
		}
		if err == nil {
			err = r.read(raw, take)
		}
		if err != nil {
			return wanted, fmt.Errorf("look ahead in the binlog: %w", err)
		}
	}
	return wanted.Minus(met), nil
}
