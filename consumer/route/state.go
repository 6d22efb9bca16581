package route

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/twinspan/twinspan/internal/server"
)

// ErrChanged: the target was filled by other rules than these. What those left out
// is not there, and what they renamed has another name.
var ErrChanged = errors.New("filters or routes are not those that the target was filled by")

// CodeChanged is the halt for ErrChanged.
const CodeChanged = "FILTERS_CHANGED"

// Stored are the rules that a stream's progress on a target was made by.
type Stored struct {
	Known  bool   // something is recorded
	Digest string // "": no rules
	Text   string // for people
	At     string // UTC
}

// Recorded reads what the target says. Without a record a stream that has progress
// was filled without rules.
func Recorded(ctx context.Context, q server.Querier, stream string) (s Stored, progress bool, err error) {
	var tables int
	if err := q.QueryRowContext(ctx, "SELECT (COALESCE(SUM(TABLE_NAME IN ('progress', 'lane_position')), 0) = 2) + 2 * COALESCE(SUM(TABLE_NAME = 'rules'), 0) FROM information_schema.TABLES"+
		" WHERE TABLE_SCHEMA = 'twinspan'").Scan(&tables); err != nil {
		return s, false, fmt.Errorf("stored rules: %w", err)
	}
	if tables&1 != 0 {
		var n int
		// A lane may be ahead of the first floor.
		if err := q.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM twinspan.progress WHERE stream = ? AND log_offset >= 0)"+
			" + (SELECT COUNT(*) FROM twinspan.lane_position WHERE stream = ? AND log_offset >= 0)", stream, stream).Scan(&n); err != nil {
			return s, false, fmt.Errorf("stored rules: %w", err)
		}
		progress = n > 0
	}
	if tables&2 != 0 {
		err := q.QueryRowContext(ctx, "SELECT digest, rules, CAST(accepted_at AS CHAR) FROM twinspan.rules WHERE stream = ?", stream).Scan(&s.Digest, &s.Text, &s.At)
		switch {
		case err == nil:
			s.Known = true
		case !errors.Is(err, sql.ErrNoRows):
			return s, false, fmt.Errorf("stored rules: %w", err)
		}
	}
	return s, progress, nil
}

// Agree fails with ErrChanged unless the rules are those that the target was filled
// by. It records the rules of a stream that begins.
func Agree(ctx context.Context, q server.Querier, stream string, c Config) error {
	s, progress, err := Recorded(ctx, q, stream)
	switch {
	case err != nil:
		return err
	case s.Digest == c.Digest():
		return nil
	case progress:
		return fmt.Errorf("stream %s: %w: the target's are %s, the configuration's %s", stream, ErrChanged, spell(s.Digest), spell(c.Digest()))
	}
	if err := prepare(ctx, q); err != nil {
		return err
	}
	return record(ctx, q, stream, c)
}

func spell(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest
}

// prepare makes the table of the records where it is missing.
func prepare(ctx context.Context, q server.Querier) error {
	for _, text := range []string{
		"CREATE DATABASE IF NOT EXISTS twinspan CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
		"CREATE TABLE IF NOT EXISTS twinspan.rules (stream VARCHAR(190) NOT NULL PRIMARY KEY, digest VARCHAR(64) NOT NULL COMMENT 'of the filters and routes that filled the target'," +
			" rules LONGTEXT NOT NULL, accepted_at DATETIME(6) NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
	} {
		if _, err := q.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("store rules: %w", err)
		}
	}
	return nil
}

func record(ctx context.Context, q server.Querier, stream string, c Config) error {
	if _, err := q.ExecContext(ctx, "REPLACE INTO twinspan.rules (stream, digest, rules, accepted_at) VALUES (?, ?, ?, UTC_TIMESTAMP(6))", stream, c.Digest(), c.String()); err != nil {
		return fmt.Errorf("store rules: %w", err)
	}
	return nil
}
