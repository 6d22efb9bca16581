package binlog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/change/gtid"
	"github.com/twinspan/twinspan/internal/server"
)

const (
	remedyLogAhead = "let the server catch up if it is a standby that lags; if it never will, the set's primary lost " +
		"committed work (see its error log): find a server that holds it, or re-seed the set from the target"
	remedyNoGTID = "turn GTIDs on: SET GLOBAL enforce_gtid_consistency=ON; SET GLOBAL gtid_mode=OFF_PERMISSIVE, then ON_PERMISSIVE, then ON; " +
		"transactions without a GTID that are in the binlog already can't be read: start after them"
)

// State is what a server says of its binlog.
type State struct {
	server.Info
	// Executed is everything the server committed and would send: MySQL's
	// gtid_executed, MariaDB's gtid_binlog_pos.
	Executed gtid.Set
	// Purged is what it committed and can't send any more. Always empty for
	// MariaDB, which tells only when asked for a dump.
	Purged gtid.Set
	// LowerNames: the server keeps names of schemas and tables in lower case.
	LowerNames bool
	// last is MariaDB's gtid_binlog_state: the newest number by domain and server.
	last map[origin]uint64
}

// origin is where MariaDB's GTIDs come from.
type origin struct{ domain, server uint32 }

// Earliest is the set to start from for everything the server ever committed.
// It is a halt when a part of that is purged.
func (s State) Earliest() (gtid.Set, error) {
	if !s.Purged.IsEmpty() {
		return gtid.Set{}, haltf(HaltGap,
			"take a snapshot for the target and start from its GTID set, or start from \"current\" if the target needs no history",
			"start from the earliest transaction: the server has purged %s", clip(s.Purged.String()))
	}
	return gtid.New(string(s.Flavor)), nil
}

// Source names the server, without a position.
func (s State) Source() change.Source {
	c := change.Source{Flavor: string(s.Flavor), ServerUUID: s.ServerUUID}
	if s.Flavor == server.MariaDB {
		c.ServerUUID = strconv.FormatUint(uint64(s.ServerID), 10)
	}
	return c
}

// readState asks a server about its binlog.
func readState(ctx context.Context, q server.Querier) (State, error) {
	info, err := server.Detect(ctx, q)
	if err != nil {
		return State{}, err
	}
	s := State{Info: info}
	var logBin bool
	var lower int
	if err := q.QueryRowContext(ctx, "SELECT @@GLOBAL.log_bin, @@GLOBAL.lower_case_table_names").Scan(&logBin, &lower); err != nil {
		return s, err
	}
	s.LowerNames = lower == 1
	if !logBin {
		return s, haltf(HaltNoBinlog, "start the server with log_bin (and, on a standby, log_replica_updates)", "the server writes no binlog")
	}
	if s.Flavor == server.MariaDB {
		return s, s.readMariaDB(ctx, q)
	}
	return s, s.readMySQL(ctx, q)
}

func (s *State) readMySQL(ctx context.Context, q server.Querier) error {
	var mode, executed, purged string
	var updates bool
	err := q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.log_replica_updates").
		Scan(&mode, &executed, &purged, &updates)
	if server.ErrorNumber(err) == 1193 { // before 8.0.26 the variable has its old name
		err = q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged, @@GLOBAL.log_slave_updates").
			Scan(&mode, &executed, &purged, &updates)
	}
	if err != nil {
		return err
	}
	if mode != "ON" { // a dump by GTID set is refused in the permissive modes, too
		return haltf(HaltNoGTID, remedyNoGTID, "gtid_mode is %s", mode)
	}
	if s.Executed, err = gtid.Parse(gtid.MySQL, executed); err != nil {
		return fmt.Errorf("gtid_executed: %w", err)
	}
	if s.Purged, err = gtid.Parse(gtid.MySQL, purged); err != nil {
		return fmt.Errorf("gtid_purged: %w", err)
	}
	if updates {
		return nil
	}
	replica, err := isReplica(ctx, q)
	if err == nil && replica {
		return haltf(HaltNoBinlog, "set log_replica_updates=ON in my.cnf and restart the server",
			"the server is a replica and does not log what it applies")
	}
	return err
}

func (s *State) readMariaDB(ctx context.Context, q server.Querier) error {
	var pos, state string
	var updates bool
	err := q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_binlog_state, @@GLOBAL.log_slave_updates").Scan(&pos, &state, &updates)
	if err != nil {
		return err
	}
	if s.Executed, err = gtid.Parse(gtid.MariaDB, pos); err != nil {
		return fmt.Errorf("gtid_binlog_pos: %w", err)
	}
	s.Purged = gtid.New(gtid.MariaDB)
	if s.last, err = parseBinlogState(state); err != nil {
		return err
	}
	if updates {
		return nil
	}
	replica, err := isReplica(ctx, q)
	if err == nil && replica {
		return haltf(HaltNoBinlog, "set log_slave_updates=ON in my.cnf and restart the server",
			"the server is a replica and does not log what it applies")
	}
	return err
}

// isReplica: SHOW REPLICA STATUS has columns that differ by version; whether it
// has a row is all that is asked.
func isReplica(ctx context.Context, q server.Querier) (bool, error) {
	rows, err := q.QueryContext(ctx, "SHOW REPLICA STATUS")
	if err != nil {
		return false, err
	}
	defer func() { _ = rows.Close() }()
	return rows.Next(), rows.Err()
}

// parseBinlogState reads MariaDB's gtid_binlog_state, which has one GTID for
// each server of each domain.
func parseBinlogState(text string) (map[origin]uint64, error) {
	last := map[origin]uint64{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		g, err := parseMariaGTID(part)
		if err != nil {
			return nil, fmt.Errorf("gtid_binlog_state: %w", err)
		}
		last[g.origin] = max(last[g.origin], g.n)
	}
	return last, nil
}

type mariaGTID struct {
	origin
	n uint64
}

func parseMariaGTID(text string) (mariaGTID, error) {
	var g mariaGTID
	f := strings.Split(text, "-")
	if len(f) != 3 {
		return g, fmt.Errorf("%q: %w", text, gtid.ErrInvalid)
	}
	d, err1 := strconv.ParseUint(f[0], 10, 32)
	s, err2 := strconv.ParseUint(f[1], 10, 32)
	n, err3 := strconv.ParseUint(f[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return g, fmt.Errorf("%q: %w", text, gtid.ErrInvalid)
	}
	return mariaGTID{origin{uint32(d), uint32(s)}, n}, nil
}

// Check compares what the log holds with what the server has and had. The
// server makes the same comparison when the dump starts, but only for MySQL, and
// says no more than that it failed.
func (s State) Check(have gtid.Set) error {
	if s.Flavor == server.MariaDB {
		return s.checkMariaDB(have)
	}
	if gone := s.Purged.Minus(have); !gone.IsEmpty() {
		return haltf(HaltGap, remedySnapshot, "the log lacks %s, and the server has purged them", clip(gone.String()))
	}
	if ahead := have.Minus(s.Executed); !ahead.IsEmpty() {
		return haltf(HaltLogAhead, remedyLogAhead, "the log holds %s, which the server has not", clip(ahead.String()))
	}
	return nil
}

func (s State) checkMariaDB(have gtid.Set) error {
	for part := range strings.SplitSeq(have.String(), ",") {
		if part == "" {
			continue
		}
		g, err := parseMariaGTID(part)
		if err != nil {
			return err
		}
		if s.last[g.origin] < g.n {
			return haltf(HaltLogAhead, remedyLogAhead, "the log ends at %s, which is not in the server's binlog state", part)
		}
	}
	return nil
}

// clip keeps a GTID set readable in a message.
func clip(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d characters)", s[:most], len(s))
}

// executed asks only for what was committed: MySQL's gtid_executed.
func executed(ctx context.Context, db *sql.DB, f server.Flavor) (gtid.Set, error) {
	q := "SELECT @@GLOBAL.gtid_executed"
	if f == server.MariaDB {
		q = "SELECT @@GLOBAL.gtid_binlog_pos"
	}
	var text string
	if err := db.QueryRowContext(ctx, q).Scan(&text); err != nil {
		return gtid.Set{}, err
	}
	return gtid.Parse(string(f), text)
}
