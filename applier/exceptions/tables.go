package exceptions

import (
	"context"
	"fmt"

	"github.com/twinspan/twinspan/internal/server"
)

// tables of this package, beside the applier's other state.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS twinspan.exception (
		id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
		stream VARCHAR(190) NOT NULL,
		log_offset BIGINT NOT NULL COMMENT 'place of the change in the log',
		log_index INT NOT NULL,
		state VARCHAR(8) NOT NULL COMMENT 'open, applied, skipped',
		table_schema VARCHAR(64) NOT NULL,
		table_name VARCHAR(64) NOT NULL,
		operation VARCHAR(8) NOT NULL,
		row_key VARCHAR(1000) NOT NULL COMMENT 'names the row, for people',
		cause VARCHAR(16) NOT NULL,
		kind VARCHAR(16) NOT NULL,
		detail LONGTEXT NOT NULL,
		behind BIGINT UNSIGNED NULL COMMENT 'the exception whose keys it shares, and follows',
		gtid VARCHAR(190) NOT NULL,
		commit_time DATETIME(6) NULL COMMENT 'at the source, UTC',
		fingerprint VARBINARY(64) NOT NULL COMMENT 'of the definition in exception_schema',
		payload LONGBLOB NOT NULL COMMENT 'the row change as the log has it',
		shape BIGINT UNSIGNED NOT NULL COMMENT 'of the keys of the table when it was parked',
		parked_at DATETIME(6) NOT NULL,
		tries INT NOT NULL DEFAULT 0,
		next_try DATETIME(6) NULL,
		last_error LONGTEXT NULL,
		resolved_at DATETIME(6) NULL,
		resolved_by VARCHAR(255) NULL,
		reason LONGTEXT NULL,
		UNIQUE KEY place (stream, log_offset, log_index),
		KEY state (stream, state, table_schema, table_name))`,
	`CREATE TABLE IF NOT EXISTS twinspan.exception_key (
		stream VARCHAR(190) NOT NULL,
		hash BIGINT UNSIGNED NOT NULL COMMENT 'of a key that an open exception touches',
		exception_id BIGINT UNSIGNED NOT NULL,
		PRIMARY KEY (stream, hash, exception_id),
		KEY exception_id (exception_id))`,
	`CREATE TABLE IF NOT EXISTS twinspan.exception_schema (
		fingerprint VARBINARY(64) NOT NULL PRIMARY KEY,
		definition LONGBLOB NOT NULL)`,
	`CREATE TABLE IF NOT EXISTS twinspan.exception_lock (
		stream VARCHAR(190) NOT NULL PRIMARY KEY,
		open INT NOT NULL COMMENT 'exceptions that are open')`,
}

// Ensure makes the tables where they are missing, and the stream's lock. The
// schema twinspan exists.
func (s *Store) Ensure(ctx context.Context, q server.Querier) error {
	n, err := present(ctx, q)
	if err != nil {
		return s.wrap("state tables", err)
	}
	for _, t := range tables {
		if n == len(tables) {
			break
		}
		if _, err := q.ExecContext(ctx, t+" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
			return s.wrap("state tables", err)
		}
	}
	_, err = q.ExecContext(ctx, `INSERT IGNORE INTO twinspan.exception_lock (stream, open) VALUES (?, 0)`, s.Stream)
	return s.wrap("state tables", err)
}

func present(ctx context.Context, q server.Querier) (int, error) {
	var n int
	err := q.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'twinspan'
		AND TABLE_NAME IN ('exception', 'exception_key', 'exception_schema', 'exception_lock')`).Scan(&n)
	return n, err
}

// Exists tells whether the target has the tables: no applier that keeps exceptions
// has run there, if not.
func Exists(ctx context.Context, q server.Querier) (bool, error) {
	n, err := present(ctx, q)
	if err != nil {
		return false, fmt.Errorf("look for the exceptions: %w", err)
	}
	return n == len(tables), nil
}
