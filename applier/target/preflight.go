package target

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Severity of a finding.
type Severity string

// The severities. Mandatory: applying would fail or go wrong.
const (
	Mandatory Severity = "mandatory"
	Advisory  Severity = "advisory"
)

// Finding is one thing Preflight does not like.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"` // a stable word for scripts
	Message  string   `json:"message"`
	FixSQL   []string `json:"fix_sql,omitempty"` // statements without semicolons
}

// PreflightOptions say what the target will have to take.
type PreflightOptions struct {
	// Replicates tells which schemas are applied; nil: all but the servers' own.
	Replicates func(schema string) bool
	// Source is the flavour of the source; empty: the target's own.
	Source server.Flavor
	// MaxAllowedPacket and LowerCaseTableNames of the source; 0 and -1: not known.
	MaxAllowedPacket    int64
	LowerCaseTableNames int
}

// namesMax is how many names a finding lists.
const namesMax = 10

// Preflight looks at a target before anything is applied to it. It changes
// nothing. The findings come in a fixed order of checks.
func Preflight(ctx context.Context, db *sql.DB, o PreflightOptions) ([]Finding, error) {
	info, err := server.Detect(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("preflight of the target: %w", err)
	}
	p := &preflight{ctx: ctx, q: db, info: info, o: o}
	for _, check := range []func() error{
		p.version, p.variables, p.readOnly, p.privileges, p.triggers, p.events, p.engines, p.keys, p.foreignKeys, p.versioned, p.zones,
	} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("preflight of the target: %w", err)
		}
	}
	return p.found, nil
}

type preflight struct {
	ctx    context.Context // of the one call
	q      server.Querier
	info   server.Info
	o      PreflightOptions
	found  []Finding
	grants grants
}

func (p *preflight) add(s Severity, check, fix, format string, args ...any) {
	f := Finding{Severity: s, Check: check, Message: fmt.Sprintf(format, args...)}
	if fix != "" {
		f.FixSQL = strings.Split(fix, "\n")
	}
	p.found = append(p.found, f)
}

func (p *preflight) replicated(name string) bool {
	lower := strings.ToLower(name)
	if lower == StateSchema || slices.Contains(schema.SystemSchemas, lower) {
		return false
	}
	return p.o.Replicates == nil || p.o.Replicates(name)
}

func (p *preflight) version() error {
	if p.info.Flavor == server.MySQL && !p.info.AtLeast(8, 0) || p.info.Flavor == server.MariaDB && !p.info.AtLeast(10, 6) {
		p.add(Mandatory, "version", "", "%s %s: DDL is not all or nothing before MySQL 8.0 and MariaDB 10.6", p.info.Flavor, p.info.Version)
	}
	return nil
}

// variable is a global variable's value; false where the server has none of it.
func (p *preflight) variable(name string) (string, bool, error) {
	var v sql.NullString
	err := p.q.QueryRowContext(p.ctx, "SELECT @@GLOBAL."+name).Scan(&v)
	if server.ErrorNumber(err) == 1193 {
		return "", false, nil
	}
	return v.String, err == nil, err
}

func (p *preflight) variables() error {
	for _, c := range []struct {
		name     string
		good     func(v string) bool
		severity Severity
		fix, why string
	}{
		{"binlog_format", func(v string) bool { return v == "ROW" }, Mandatory, "SET GLOBAL binlog_format = ROW",
			"rows of tables without a key are changed with LIMIT 1, which its own replicas must not repeat as a statement"},
		{"innodb_flush_log_at_trx_commit", is("1"), Advisory, "SET GLOBAL innodb_flush_log_at_trx_commit = 1", "a crash of its machine may lose commits that the log has let go of"},
		{"sync_binlog", is("1"), Advisory, "SET GLOBAL sync_binlog = 1", "a crash of its machine may lose commits from the binlog of its replicas"},
		{"default_storage_engine", is("InnoDB"), Advisory, "SET GLOBAL default_storage_engine = InnoDB", "tables created without an engine would have another one than on a usual source"},
		{"innodb_rollback_on_timeout", is("0", "OFF"), Advisory, "", "a lock wait that times out undoes a whole batch"},
		{"slave_exec_mode", is("STRICT"), Advisory, "SET GLOBAL slave_exec_mode = STRICT", "row events would overwrite what is in their way, so rows are written as SQL statements, which is slower"},
		{"slave_run_triggers_for_rbr", is("NO"), Advisory, "SET GLOBAL slave_run_triggers_for_rbr = NO", "a trigger that someone makes by hand would fire for rows of row events"},
		{"secure_timestamp", is("NO"), Mandatory, "", "DDL can't run under the time it had on the source"},
		{"sql_require_primary_key", is("0", "OFF"), Advisory, "SET GLOBAL sql_require_primary_key = OFF", "tables without a key can't be created, unless the applier may set session variables"},
	} {
		v, known, err := p.variable(c.name)
		if err != nil {
			return err
		}
		if known && !c.good(v) {
			p.add(c.severity, c.name, c.fix, "%s is %s: %s", c.name, v, c.why)
		}
	}
	v, _, err := p.variable("max_allowed_packet")
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return err
	}
	// Hex doubles the size of binary values on their way.
	switch want := min(2*p.o.MaxAllowedPacket, 1<<30); {
	case want > n:
		p.add(Advisory, "max_allowed_packet", fmt.Sprintf("SET GLOBAL max_allowed_packet = %d", want),
			"max_allowed_packet is %d, the source's %d: a row of binary data needs twice its size, up to %d", n, p.o.MaxAllowedPacket, want)
	case n < 64<<20:
		p.add(Advisory, "max_allowed_packet", "SET GLOBAL max_allowed_packet = 1073741824", "max_allowed_packet is %d: larger rows can't be applied", n)
	}
	v, _, err = p.variable("lower_case_table_names")
	if err != nil {
		return err
	}
	if want := strconv.Itoa(p.o.LowerCaseTableNames); p.o.LowerCaseTableNames >= 0 && v != want {
		p.add(Mandatory, "lower_case_table_names", "", "lower_case_table_names is %s, the source's %s: names that differ on one side may be one on the other", v, want)
	}
	return nil
}

func is(want ...string) func(string) bool {
	return func(v string) bool {
		return slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(v, w) })
	}
}

func (p *preflight) triggers() error {
	names, err := p.pairs("SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS ORDER BY 1, 2")
	if err != nil || len(names) == 0 {
		return err
	}
	p.add(Mandatory, "triggers", statements("DROP TRIGGER ", names), "triggers would fire for replicated rows: %s", list(names))
	return nil
}

func (p *preflight) events() error {
	v, known, err := p.variable("event_scheduler")
	if err != nil || !known || !strings.EqualFold(v, "ON") {
		return err
	}
	names, err := p.pairs("SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE STATUS = 'ENABLED' ORDER BY 1, 2")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		p.add(Mandatory, "events", "SET GLOBAL event_scheduler = OFF", "events would change replicated rows: %s", list(names))
	}
	return nil
}

// tablesWhere selects base tables; k tells whether the table has a key that names
// its rows.
const tablesWhere = "SELECT t.TABLE_SCHEMA, t.TABLE_NAME FROM information_schema.TABLES t LEFT JOIN (" +
	"SELECT TABLE_SCHEMA, TABLE_NAME FROM (SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0" +
	" GROUP BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME HAVING INDEX_NAME = 'PRIMARY' OR SUM(NULLABLE = 'YES' OR SUB_PART IS NOT NULL OR COLUMN_NAME IS NULL) = 0) u" +
	" GROUP BY TABLE_SCHEMA, TABLE_NAME) k ON k.TABLE_SCHEMA = t.TABLE_SCHEMA AND k.TABLE_NAME = t.TABLE_NAME" +
	" WHERE t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND "

func (p *preflight) engines() error {
	bare, err := p.pairs(tablesWhere + "t.ENGINE <> 'InnoDB' AND k.TABLE_NAME IS NULL ORDER BY 1, 2")
	if err != nil {
		return err
	}
	if len(bare) > 0 {
		p.add(Mandatory, "engine", statements("ALTER TABLE %s ENGINE = InnoDB", bare), "tables without transactions and without a key: a crash may apply their rows twice: %s", list(bare))
	}
	keyed, err := p.pairs(tablesWhere + "t.ENGINE <> 'InnoDB' AND k.TABLE_NAME IS NOT NULL ORDER BY 1, 2")
	if err != nil {
		return err
	}
	if len(keyed) > 0 {
		p.add(Advisory, "engine", statements("ALTER TABLE %s ENGINE = InnoDB", keyed), "tables without transactions: readers see parts of changes: %s", list(keyed))
	}
	return nil
}

func (p *preflight) keys() error {
	names, err := p.pairs(tablesWhere + "k.TABLE_NAME IS NULL AND t.ENGINE = 'InnoDB' ORDER BY 1, 2")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		p.add(Advisory, "key", "", "tables whose rows nothing names: each change searches the whole table, and one lane does it: %s", list(names))
	}
	return nil
}

func (p *preflight) foreignKeys() error {
	names, err := p.pairs("SELECT DISTINCT CONSTRAINT_SCHEMA, TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS ORDER BY 1, 2")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		p.add(Advisory, "foreign_keys", "", "tables tied by foreign keys are applied in one order, not in parallel: %s", list(names))
	}
	return nil
}

func (p *preflight) versioned() error {
	names, err := p.pairs("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'SYSTEM VERSIONED' ORDER BY 1, 2")
	if err != nil {
		return err
	}
	if len(names) > 0 {
		p.add(Mandatory, "system_versioning", statements("ALTER TABLE %s DROP SYSTEM VERSIONING", names), "the history of system-versioned tables can't be written: %s", list(names))
	}
	return nil
}

func (p *preflight) zones() error {
	var v sql.NullString
	if err := p.q.QueryRowContext(p.ctx, "SELECT CONVERT_TZ('2020-06-01 00:00:00', 'Europe/Berlin', 'UTC')").Scan(&v); err != nil {
		return err
	}
	if !v.Valid {
		p.add(Advisory, "time_zones", "", "it knows no named time zones: DDL of sessions that use one will stop; load them with mysql_tzinfo_to_sql")
	}
	return nil
}

// pairs reads (schema, name) rows of replicated schemas, quoted.
func (p *preflight) pairs(query string) ([]string, error) {
	rows, err := p.q.QueryContext(p.ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s, n string
		if err := rows.Scan(&s, &n); err != nil {
			return nil, err
		}
		if p.replicated(s) {
			out = append(out, server.QuoteName(s)+"."+server.QuoteName(n))
		}
	}
	return out, rows.Err()
}

func list(names []string) string {
	if len(names) > namesMax {
		return strings.Join(names[:namesMax], ", ") + fmt.Sprintf(" and %d more", len(names)-namesMax)
	}
	return strings.Join(names, ", ")
}

// statements makes one for each name, which goes to %s or the end.
func statements(verb string, names []string) string {
	var out []string
	for _, n := range names {
		if before, after, ok := strings.Cut(verb, "%s"); ok {
			out = append(out, before+n+after)
		} else {
			out = append(out, verb+n)
		}
	}
	return strings.Join(out, "\n")
}
