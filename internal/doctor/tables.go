package doctor

import (
	"context"
	"fmt"
	"strings"
)

// tablesListed bounds how many tables a finding names.
const tablesListed = 10

// ours excludes the servers' own schemas and twinspan's from a query on t.
const ours = ` t.table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys', 'twinspan') `

// tables that a query over information_schema.tables t names, as schema.table.
func (p *probe) tables(ctx context.Context, where string) ([]string, error) {
	return p.names(ctx, "SELECT CONCAT(t.table_schema, '.', t.table_name) FROM information_schema.tables t WHERE"+ours+"AND "+where)
}

// tableCheck reports the tables that a condition finds.
func (p *probe) tableCheck(ctx context.Context, check string, s Severity, where, good, bad, remedy string) {
	names, err := p.tables(ctx, where)
	switch {
	case err != nil:
		p.unknown(check, s, err)
	case len(names) == 0:
		p.ok(check, s, "%s", good)
	default:
		p.add(Finding{Check: check, Severity: s, Outcome: Failed,
			Detail: fmt.Sprintf("%d %s: %s", len(names), bad, listing(names, tablesListed)), Remedy: remedy})
	}
}

// noKey finds base tables without a primary key.
const noKey = `t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND NOT EXISTS (SELECT 1 FROM information_schema.table_constraints c
	WHERE c.table_schema = t.table_schema AND c.table_name = t.table_name AND c.constraint_type = 'PRIMARY KEY')`

func (p *probe) keys(ctx context.Context, severity Severity) {
	p.tableCheck(ctx, "keys", severity, noKey, "every table has a primary key", "tables without a primary key",
		"such a table is applied by one lane, each row found by all its columns: exact, but slow; give it a key, an invisible one will do")
}

// sourceTables looks at definitions, as far as the account may see them.
func (p *probe) sourceTables(ctx context.Context) {
	if !p.grants.has("SELECT", "*.*") {
		seen, err := p.tables(ctx, "1 = 1")
		if err != nil || len(seen) == 0 {
			p.add(Finding{Check: "tables", Severity: Advisory, Outcome: Unknown,
				Detail: "the account sees no tables, so their definitions were not looked at"})
			return
		}
	}
	p.keys(ctx, Advisory)
	p.tableCheck(ctx, "engines", Advisory, `t.table_type = 'BASE TABLE' AND t.engine NOT IN ('InnoDB', 'RocksDB', 'ndbcluster')`,
		"every table is transactional", "tables that are not transactional",
		"a crash may leave such a table and the binlog different; convert it: ALTER TABLE … ENGINE = InnoDB")
	if !p.mariadb() {
		return
	}
	p.tableCheck(ctx, "versioned", Mandatory, `t.table_type = 'SYSTEM VERSIONED'`,
		"no table is system versioned", "system-versioned tables",
		"their history can't be replicated exactly: ALTER TABLE … DROP SYSTEM VERSIONING")
	p.tableCheck(ctx, "sequences", Advisory, `t.table_type = 'SEQUENCE'`,
		"there are no sequences", "sequences",
		"after a failover set them beyond what the old primary may have given out")
	columns, err := p.names(ctx, `SELECT CONCAT(t.table_schema, '.', t.table_name, '.', t.column_name) FROM information_schema.columns t
		WHERE`+ours+`AND t.column_type LIKE '%COMPRESSED%'`)
	switch {
	case err != nil:
		p.unknown("compressed_columns", Mandatory, err)
	case len(columns) == 0:
		p.ok("compressed_columns", Mandatory, "no column is COMPRESSED")
	default:
		p.add(Finding{Check: "compressed_columns", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("%d COMPRESSED columns: %s", len(columns), listing(columns, tablesListed)),
			Remedy: "row events carry them in a form of their own: ALTER TABLE … MODIFY the column without COMPRESSED"})
	}
}

// definitions that run code when rows change; on a target they would fire for
// replicated rows as well.
func (p *probe) firing(ctx context.Context) {
	triggers, err := p.names(ctx, `SELECT CONCAT(t.trigger_schema, '.', t.trigger_name) FROM information_schema.triggers t
		WHERE t.trigger_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema', 'twinspan')`)
	switch {
	case err != nil:
		p.unknown("triggers", Advisory, err)
	case len(triggers) == 0:
		p.ok("triggers", Advisory, "no trigger would fire for replicated rows")
	default:
		p.add(Finding{Check: "triggers", Severity: Advisory, Outcome: Failed,
			Detail: fmt.Sprintf("%d triggers: %s", len(triggers), listing(triggers, tablesListed)),
			Remedy: "on a replicated table they would do again what is in the log already, so the applier halts there (TRIGGERS): keep their text, drop them here, create them at failover",
			SQL:    dropEach("TRIGGER", triggers)})
	}
	events, err := p.names(ctx, `SELECT CONCAT(t.event_schema, '.', t.event_name) FROM information_schema.events t WHERE t.status = 'ENABLED'`)
	switch {
	case err != nil:
		p.unknown("events", Mandatory, err)
	case len(events) == 0 || !p.on("event_scheduler"):
		p.ok("events", Mandatory, "no event runs")
	default:
		p.add(Finding{Check: "events", Severity: Mandatory, Outcome: Failed,
			Detail: fmt.Sprintf("%d events are enabled and the scheduler is on: %s", len(events), listing(events, tablesListed)),
			Remedy: "what they change on the target does not exist on the source: switch the scheduler off until failover",
			SQL:    p.set("event_scheduler", "OFF")})
	}
}

func dropEach(kind string, names []string) []string {
	out := []string{"-- keep them first: mysqldump --no-data --no-create-info --triggers --all-databases > triggers.sql"}
	for i, n := range names {
		if i == tablesListed {
			out = append(out, fmt.Sprintf("-- and %d more", len(names)-i))
			break
		}
		schema, name, _ := strings.Cut(n, ".")
		out = append(out, fmt.Sprintf("-- DROP %s %s.%s;", kind, quote(schema), quote(name)))
	}
	return out
}

// foreignKeys only tells: the applier reads them from the catalogue itself.
func (p *probe) foreignKeys(ctx context.Context) {
	p.tableCheck(ctx, "foreign_keys", Advisory, `EXISTS (SELECT 1 FROM information_schema.referential_constraints c
		WHERE c.constraint_schema = t.table_schema AND c.table_name = t.table_name)`,
		"no table has a foreign key", "tables with foreign keys",
		"tables tied by foreign keys share one lane where the source does not log cascades: exact, but not parallel")
}
