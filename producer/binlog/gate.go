package binlog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

// commitGate holds a transaction back until the server has committed it. MySQL
// sends a transaction once it is in the binlog, which with semi-synchronous
// replication can be long before its commit; if the server dies between the two,
// the transaction may never have been.
//
// One question answers for everything that was committed meanwhile, so behind
// the tail nothing is asked, and at the tail no more often than a round trip
// takes.
//
// MariaDB has no such gate (a nil commitGate): its recovery commits what is in
// the binlog, so being there is the commit.
type commitGate struct {
	known    gtid.Set
	executed func(context.Context) (gtid.Set, error)
}

func (g *commitGate) wait(ctx context.Context, id string) error {
	if g == nil {
		return nil
	}
	for pause := time.Duration(0); ; pause = min(2*pause+100*time.Microsecond, 20*time.Millisecond) {
		ok, err := g.known.ContainsGTID(id)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if g.known, err = g.executed(ctx); err != nil {
			return err
		}
	}
}

// errantCheck makes the check for transactions that began on the server itself
// although it is a standby: they exist nowhere else in the set, and are never
// shipped. Without a primary to ask there is none.
func (s *Stream) errantCheck(st State) func(context.Context, string) error {
	if s.first == nil {
		return func(context.Context, string) error { return nil }
	}
	known := gtid.New(string(st.Flavor))
	self := fmt.Sprintf("-%d-", st.ServerID)
	return func(ctx context.Context, id string) error {
		if st.Flavor == server.MySQL && !strings.HasPrefix(id, st.ServerUUID+":") || st.Flavor == server.MariaDB && !strings.Contains(id, self) {
			return nil
		}
		has, err := known.ContainsGTID(id)
		if err == nil && !has {
			asking, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
			if known, err = executed(asking, s.first, st.Flavor); err == nil {
				has, err = known.ContainsGTID(id)
			}
			cancel()
		}
		if err != nil {
			return fmt.Errorf("ask the primary %s for %s: %w", s.cfg.Primary.Address, id, err)
		}
		if has {
			return nil
		}
		return &Halt{Code: HaltErrant, GTID: id, Detail: "the transaction began on the standby, and the primary does not have it",
			Remedy: "find out what wrote to the standby; bring the standby in line with the primary and skip this GTID, or commit an empty transaction " +
				"under it on the primary; keep standbys super_read_only"}
	}
}
