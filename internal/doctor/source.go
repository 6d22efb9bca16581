package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twinspan/twinspan/change/gtid"
)

// SourceOptions say what is known besides the server.
type SourceOptions struct {
	Address  string
	ServerID uint32 // the producer's replication server id; 0: not known
	// Logged is the GTID set that the log's tail holds; empty: not known.
	Logged string
}

// Source looks at the server whose binlog is to be read. It asks only what needs
// no more privileges than the producer has; what it can't see is Unknown.
func Source(ctx context.Context, db *sql.DB, o SourceOptions) *Report {
	r := &Report{Subject: "source", Where: o.Address}
	p, err := newProbe(ctx, r, db)
	if err != nil {
		return r.unreachable(err)
	}
	p.sourceVersion()
	p.binlog()
	if p.on("log_bin") {
		p.filters(ctx)
	}
	p.gtids()
	p.sourcePrivileges()
	p.serverID(ctx, o.ServerID)
	p.standby(ctx)
	p.retention()
	p.gap(ctx, o.Logged)
	p.sourceDurability()
	p.sourceTables(ctx)
	p.clock()
	p.tls(ctx)
	return r
}

func (p *probe) sourceVersion() {
	oldest, good := "8.0", p.info.AtLeast(8, 0)
	if p.mariadb() {
		oldest, good = "10.5", p.info.AtLeast(10, 5)
	}
	if !good {
		p.add(Finding{Check: "version", Severity: Mandatory, Outcome: Failed, Detail: p.Server,
			Remedy: "upgrade to " + flavorName(p.info.Flavor) + " " + oldest + " or newer: older binlogs do not carry full row metadata"})
		return
	}
	p.ok("version", Mandatory, "%s", p.Server)
}

// binlog checks what the server writes into its binlog. The settings marked so
// can differ per session; the producer checks every event again.
func (p *probe) binlog() {
	p.must("log_bin", "log_bin", Mandatory, []string{"ON"},
		"switch the binlog on: without it there is nothing to read", p.inFile("log_bin", "binlog"))
	if !p.on("log_bin") {
		return
	}
	open := "-- open sessions keep the old value: let applications reconnect afterwards"
	p.must("binlog_format", "binlog_format", Mandatory, []string{"ROW"},
		"log rows, not statements", append(p.set("binlog_format", "ROW"), open))
	p.must("binlog_row_image", "binlog_row_image", Mandatory, []string{"FULL"},
		"log all columns of a row: a partial image can't be applied exactly", append(p.set("binlog_row_image", "FULL"), open))
	p.must("binlog_row_metadata", "binlog_row_metadata", Mandatory, []string{"FULL"},
		"log column names, signs, character sets and keys with the rows, so that each row is described as it was when it was written",
		p.set("binlog_row_metadata", "FULL"))
	p.must("partial_json", "binlog_row_value_options", Mandatory, []string{""},
		"log whole JSON documents, not differences", append(p.set("binlog_row_value_options", "''"), open))
}

// filters of the binlog can be read only with the privilege to see its status.
func (p *probe) filters(ctx context.Context) {
	show := "SHOW MASTER STATUS"
	if p.mariadb() {
		show = "SHOW BINLOG STATUS"
	} else if p.info.AtLeast(8, 2) {
		show = "SHOW BINARY LOG STATUS"
	}
	row, err := p.row(ctx, show)
	if err != nil {
		p.unknown("binlog_filter", Advisory, err)
		return
	}
	if row["binlog_do_db"] == "" && row["binlog_ignore_db"] == "" {
		p.ok("binlog_filter", Advisory, "every schema is logged")
		return
	}
	for _, name := range []string{"binlog_do_db", "binlog_ignore_db"} {
		if v := row[name]; v != "" {
			p.add(Finding{Check: "binlog_filter", Severity: Advisory, Outcome: Failed,
				Detail: fmt.Sprintf("%s is %s: what it leaves out is not replicated", name, v),
				Remedy: "remove the filter unless that is what you want",
				SQL:    []string{"-- remove " + name + " from the server's configuration file, then restart it"}})
		}
	}
}

func (p *probe) gtids() {
	if p.mariadb() {
		p.ok("gtid", Mandatory, "MariaDB logs a GTID with every transaction")
		p.must("gtid_strict_mode", "gtid_strict_mode", Advisory, []string{"ON", "1"},
			"refuse transactions that would break the order of sequence numbers", p.set("gtid_strict_mode", "ON"))
		return
	}
	p.must("enforce_gtid_consistency", "enforce_gtid_consistency", Mandatory, []string{"ON", "1"},
		"refuse statements that no single GTID can name", p.set("enforce_gtid_consistency", "ON"))
	// The mode moves one step at a time.
	steps := []string{"OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"}
	var sql []string
	if i := slices.Index(steps, strings.ToUpper(p.vars["gtid_mode"])); i >= 0 {
		for _, s := range steps[i+1:] {
			if s == "ON" {
				sql = append(sql, "-- wait until SHOW STATUS LIKE 'Ongoing_anonymous_transaction_count' shows 0 on every server of the set")
			}
			sql = append(sql, "SET PERSIST gtid_mode = "+s)
		}
	}
	p.must("gtid_mode", "gtid_mode", Mandatory, []string{"ON"},
		"give every transaction a GTID, step by step, on every server of the set", sql)
}

func (p *probe) sourcePrivileges() {
	need := []string{"REPLICATION SLAVE", "REPLICATION CLIENT"}
	if p.mariadb() {
		need = []string{"REPLICATION SLAVE", "BINLOG MONITOR"}
	}
	if missing := p.grants.missing("*.*", need...); len(missing) > 0 {
		p.add(Finding{Check: "privileges", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("%s lacks %s", p.grants.account, strings.Join(missing, ", ")),
			Remedy: "grant what is missing", SQL: []string{p.grants.statement("*.*", missing)}})
	} else {
		p.ok("privileges", Mandatory, "%s has %s", p.grants.account, strings.Join(need, ", "))
	}
	if len(p.grants.missing("*.*", "SELECT")) > 0 {
		p.add(Finding{Check: "select", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("%s may not read all tables", p.grants.account),
			Remedy: "verify compares rows through this account, and doctor looks at table definitions",
			SQL:    []string{p.grants.statement("*.*", []string{"SELECT", "SHOW VIEW"})}})
	}
}

func (p *probe) serverID(ctx context.Context, mine uint32) {
	if p.info.ServerID == 0 {
		p.add(Finding{Check: "server_id", Severity: Mandatory, Outcome: Failed, Detail: "server_id is 0: the server refuses replicas",
			Remedy: "give every server of the set an id of its own", SQL: p.inFile("server_id", "1")})
		return
	}
	if mine == 0 {
		p.ok("server_id", Mandatory, "server_id is %d", p.info.ServerID)
		return
	}
	if mine == p.info.ServerID {
		p.add(Finding{Check: "server_id", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("producer.server_id %d is the server's own", mine),
			Remedy: "set producer.server_id to auto, or to a number no server of the set has"})
		return
	}
	show := "SHOW REPLICAS"
	if p.mariadb() {
		show = "SHOW REPLICA HOSTS"
	}
	rows, err := p.rows(ctx, show)
	if err != nil {
		p.unknown("server_id", Advisory, err)
		return
	}
	for _, row := range rows {
		if row["server_id"] == strconv.FormatUint(uint64(mine), 10) {
			p.add(Finding{Check: "server_id", Severity: Advisory, Outcome: Failed,
				Detail: fmt.Sprintf("a replica with producer.server_id %d is connected, from %s", mine, shown(row["host"])),
				Remedy: "if that is not this producer itself, choose another producer.server_id: two of one id throw each other out"})
			return
		}
	}
	p.ok("server_id", Mandatory, "server_id is %d, the producer's %d is free", p.info.ServerID, mine)
}

// standby checks what only matters on a server that replicates from another.
func (p *probe) standby(ctx context.Context) {
	rows, err := p.rows(ctx, "SHOW REPLICA STATUS")
	if err != nil {
		f := Finding{Check: "standby", Severity: Advisory, Outcome: Unknown, Detail: oneLine(err)}
		if p.mariadb() {
			if missing := p.grants.missing("*.*", "SLAVE MONITOR"); len(missing) > 0 {
				f.Outcome = Failed
				f.Detail = fmt.Sprintf("%s lacks SLAVE MONITOR, so nobody can say whether this is a standby", p.grants.account)
				f.Remedy = "grant what is missing"
				f.SQL = []string{p.grants.statement("*.*", missing)}
			}
		}
		p.add(f)
		return
	}
	if len(rows) == 0 {
		p.ok("standby", Advisory, "the server is not a standby: reading a primary's binlog costs it some network and disk")
		return
	}
	running := func(row map[string]string, names ...string) bool {
		for _, n := range names {
			if v, ok := row[n]; ok {
				return v == "Yes"
			}
		}
		return false
	}
	for _, row := range rows {
		if !running(row, "replica_io_running", "slave_io_running") || !running(row, "replica_sql_running", "slave_sql_running") {
			p.add(Finding{Check: "standby", Severity: Advisory, Outcome: Failed, Detail: "the standby's own replication does not run",
				Remedy: "look at SHOW REPLICA STATUS: nothing new reaches this server's binlog", SQL: []string{"START REPLICA"}})
		}
	}
	p.must("log_replica_updates", p.first("log_replica_updates", "log_slave_updates"), Mandatory, []string{"ON", "1"},
		"log what the standby applies: else its binlog is empty", p.inFile(p.first("log_replica_updates", "log_slave_updates"), "ON"))
	if !p.mariadb() {
		name := p.first("replica_preserve_commit_order", "slave_preserve_commit_order")
		p.must("commit_order", name, Mandatory, []string{"ON", "1"},
			"keep the primary's commit order in the standby's binlog",
			[]string{"STOP REPLICA SQL_THREAD", "SET PERSIST " + name + " = ON", "START REPLICA SQL_THREAD"})
	} else if len(rows) == 1 {
		p.ok("commit_order", Mandatory, "slave_parallel_mode %s keeps the order within a domain", p.vars["slave_parallel_mode"])
	}
	if p.on("read_only") || p.on("super_read_only") {
		p.ok("read_only", Advisory, "the standby is read only")
	} else {
		name := "super_read_only"
		if p.mariadb() {
			name = "read_only"
		}
		p.add(Finding{Check: "read_only", Severity: Advisory, Outcome: Failed,
			Detail: "the standby accepts writes", Remedy: "a transaction that begins here exists nowhere else, and halts the producer (ERRANT)",
			SQL: p.set(name, "ON")})
	}
}

// retention looks at how long the binlog is kept.
func (p *probe) retention() {
	seconds, known := p.number("binlog_expire_logs_seconds")
	if !known || seconds == 0 {
		if days, err := strconv.ParseFloat(p.vars["expire_logs_days"], 64); err == nil && days > 0 {
			seconds = int64(days * 86400)
		}
	}
	switch {
	case seconds == 0:
		p.ok("retention", Advisory, "the binlog is never removed by age")
	case seconds < 86400:
		p.add(Finding{Check: "retention", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("the binlog is kept for %s", time.Duration(seconds)*time.Second),
			Remedy: "keep it longer than the log may be away: what is removed before it was read is a gap",
			SQL:    p.set(p.first("binlog_expire_logs_seconds"), "259200")})
	default:
		p.ok("retention", Advisory, "the binlog is kept for %s", time.Duration(seconds)*time.Second)
	}
}

// gap compares what the server has removed from its binlog with what the log
// holds.
func (p *probe) gap(ctx context.Context, logged string) {
	if logged == "" || !p.on("log_bin") {
		return
	}
	removed := p.vars["gtid_purged"]
	var err error
	if p.mariadb() {
		removed, err = p.binlogBegins(ctx)
	}
	var have, gone gtid.Set
	if err == nil {
		have, err = gtid.Parse(string(p.info.Flavor), logged)
	}
	if err == nil {
		gone, err = gtid.Parse(string(p.info.Flavor), removed)
	}
	switch {
	case err != nil:
		p.unknown("gap", Mandatory, err)
	case have.Contains(gone):
		p.ok("gap", Mandatory, "the server still has all that the log lacks")
	default:
		p.add(Finding{Check: "gap", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("the server has removed transactions that the log has not: its binlog begins behind %s, the log holds %s", gone, have),
			Remedy: "read another server of the set that still has them; if none has, load the target anew and start a new stream from its GTID set"})
	}
}

// binlogBegins is what MariaDB's oldest binlog file says was before it.
func (p *probe) binlogBegins(ctx context.Context) (string, error) {
	files, err := p.rows(ctx, "SHOW BINARY LOGS")
	if err != nil || len(files) == 0 {
		return "", err
	}
	events, err := p.rows(ctx, "SHOW BINLOG EVENTS IN "+quoteText(files[0]["log_name"])+" LIMIT 4")
	if err != nil {
		return "", err
	}
	for _, e := range events {
		if e["event_type"] == "Gtid_list" {
			return strings.Trim(e["info"], "[]"), nil
		}
	}
	return "", errors.New("the oldest binlog file says nothing of what was before it")
}

func (p *probe) sourceDurability() {
	var weak []string
	if v, ok := p.vars["sync_binlog"]; ok && v != "1" {
		weak = append(weak, "sync_binlog = "+v)
	}
	if v, ok := p.vars["innodb_flush_log_at_trx_commit"]; ok && v != "1" {
		weak = append(weak, "innodb_flush_log_at_trx_commit = "+v)
	}
	if len(weak) == 0 {
		p.ok("durability", Advisory, "a commit is on disk before it is answered")
		return
	}
	f := Finding{Check: "durability", Severity: Advisory, Outcome: Failed, Detail: strings.Join(weak, ", "),
		Remedy: "after a power failure the server may lack transactions that were already shipped (LOG_AHEAD)"}
	f.SQL = append(p.set("sync_binlog", "1"), p.set("innodb_flush_log_at_trx_commit", "1")...)
	p.add(f)
}

func oneLine(err error) string {
	if err == nil {
		err = errors.New("unknown")
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
