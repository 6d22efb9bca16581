package applier

import (
	"context"
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/applier/target"
)

// stateTables are what the applier remembers, all of it on the target:
//
//	stream         who owns a stream here, and how its lanes are laid out
//	lane_position  how far each lane is; written in the transaction of its rows
//	progress       the floor: everything at or before it is durable
//	routing        by which keys each table's rows find their lane
var stateTables = []string{
	`CREATE TABLE IF NOT EXISTS twinspan.stream (
		stream VARCHAR(190) NOT NULL PRIMARY KEY,
		epoch BIGINT UNSIGNED NOT NULL,
		owner VARCHAR(255) NOT NULL,
		lanes INT NOT NULL,
		routing_version INT NOT NULL,
		claimed_at DATETIME(6) NULL)`,
	`CREATE TABLE IF NOT EXISTS twinspan.lane_position (
		stream VARCHAR(190) NOT NULL,
		lane INT NOT NULL,
		epoch BIGINT UNSIGNED NOT NULL,
		log_offset BIGINT NOT NULL,
		log_index INT NOT NULL,
		updated_at DATETIME(6) NULL,
		PRIMARY KEY (stream, lane))`,
	`CREATE TABLE IF NOT EXISTS twinspan.progress (
		stream VARCHAR(190) NOT NULL PRIMARY KEY,
		epoch BIGINT UNSIGNED NOT NULL,
		log_offset BIGINT NOT NULL,
		log_index INT NOT NULL,
		gtid_set LONGTEXT NOT NULL,
		commit_time DATETIME(6) NULL COMMENT 'source commit time of the newest transaction applied, UTC',
		pending_since DATETIME(6) NULL COMMENT 'source commit time of the oldest transaction read and not applied, UTC',
		updated_at DATETIME(6) NULL)`,
	`CREATE TABLE IF NOT EXISTS twinspan.routing (
		stream VARCHAR(190) NOT NULL,
		table_schema VARCHAR(64) NOT NULL,
		table_name VARCHAR(64) NOT NULL,
		digest BIGINT UNSIGNED NOT NULL,
		PRIMARY KEY (stream, table_schema, table_name))`,
}

const stateOptions = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

// prepare makes the state tables where they are missing.
func (b *sqlBackend) prepare(ctx context.Context) error {
	if err := target.EnsureState(ctx, b.db); err != nil {
		return err
	}
	var n int
	if err := b.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'twinspan'
		AND table_name IN ('stream', 'lane_position', 'progress', 'routing')`).Scan(&n); err != nil {
		return fmt.Errorf("state tables: %w", err)
	}
	if n == len(stateTables) {
		return nil
	}
	for _, q := range append([]string{"CREATE DATABASE IF NOT EXISTS twinspan CHARACTER SET utf8mb4"}, stateTables...) {
		if strings.HasPrefix(q, "CREATE TABLE") {
			q += stateOptions
		}
		if _, err := b.db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("state tables: %w", err)
		}
	}
	return nil
}
