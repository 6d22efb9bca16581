package doctor

import (
	"context"
	"fmt"
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

func (p *probe) keys(ctx context.Context) {
	p.tableCheck(ctx, "keys", Advisory, noKey, "every table has a primary key", "tables without a primary key",
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
	p.keys(ctx)
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
