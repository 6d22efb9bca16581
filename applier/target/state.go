package target

import (
	"context"
	"fmt"

	"github.com/twinspan/twinspan/internal/server"
)

// StateSchema holds the applier's own tables on the target. Rows of several
// streams live side by side in each of them.
const StateSchema = "twinspan"

// stateTables of this package; the lanes' positions are made beside them by
// those who write them.
var stateTables = []string{
	// What became of each DDL statement. A row is written before the statement
	// runs, and again after it is done; in between only the digests tell.
	`CREATE TABLE IF NOT EXISTS twinspan.ddl_state (
		stream VARCHAR(190) NOT NULL,
		entry_offset BIGINT NOT NULL COMMENT 'place of the statement in the log',
		entry_index INT NOT NULL,
		state VARCHAR(16) NOT NULL COMMENT 'intended: may be running or have run; done: took effect; skipped; parked',
		class VARCHAR(32) NOT NULL,
		default_schema VARCHAR(64) NOT NULL,
		statement LONGBLOB NOT NULL COMMENT 'original text, in the charset of its session',
		server_version VARCHAR(128) NOT NULL COMMENT 'of the target at that time: digests of two versions can not be compared',
		before_digest CHAR(64) NOT NULL COMMENT 'SHA-256 of the named objects before it ran',
		after_digest CHAR(64) NOT NULL COMMENT 'and afterwards; empty until done',
		intended_at DATETIME(6) NOT NULL,
		done_at DATETIME(6) NULL,
		PRIMARY KEY (stream, entry_offset, entry_index))`,
	// Triggers and events of the source, as statements to run in this order
	// when the target is promoted.
	`CREATE TABLE IF NOT EXISTS twinspan.parked_definition (
		stream VARCHAR(190) NOT NULL,
		entry_offset BIGINT NOT NULL,
		entry_index INT NOT NULL,
		kind VARCHAR(16) NOT NULL COMMENT 'trigger or event',
		verb VARCHAR(16) NOT NULL COMMENT 'CREATE, ALTER or DROP',
		object_schema VARCHAR(64) NOT NULL,
		object_name VARCHAR(64) NOT NULL,
		table_schema VARCHAR(64) NOT NULL COMMENT 'of a trigger: the table it belongs to now',
		table_name VARCHAR(64) NOT NULL,
		renamed TINYINT NOT NULL COMMENT '1: the statement names the table as it was called before',
		statement LONGBLOB NOT NULL,
		session LONGTEXT NOT NULL COMMENT 'JSON: the settings it ran under',
		parked_at DATETIME(6) NOT NULL,
		PRIMARY KEY (stream, entry_offset, entry_index),
		KEY object (object_schema, object_name),
		KEY parent (table_schema, table_name))`,
}

// EnsureState creates the schema twinspan and this package's tables in it where
// they are missing. It may be called again, and by several at once.
func EnsureState(ctx context.Context, q server.Querier) error {
	var n int
	err := q.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'twinspan'"+
		" AND TABLE_NAME IN ('ddl_state', 'parked_definition')").Scan(&n)
	if err != nil {
		return fmt.Errorf("state tables: %w", err)
	}
	if n == len(stateTables) {
		return nil
	}
	if _, err := q.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS twinspan CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
		return fmt.Errorf("state tables: %w", err)
	}
	for _, s := range stateTables {
		if _, err := q.ExecContext(ctx, s+" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
			return fmt.Errorf("state tables: %w", err)
		}
	}
	return nil
}
