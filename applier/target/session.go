package target

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// Open makes the pool that lanes take their sessions from. UPDATE counts the
// rows it matched, not those it changed, so that "no such row" shows. Several
// statements may come in one packet; see Writer.TryAll.
func Open(e server.Endpoint) (*sql.DB, error) {
	return server.Open(e, server.Options{FoundRows: true, MultiStatements: true})
}

// dmlMode is the sql_mode rows are written under. Strict: nothing is ever cut
// short or replaced silently. Zero and invalid dates pass, since the source
// held them. No mode that changes how literals are read.
const dmlMode = "NO_AUTO_VALUE_ON_ZERO,STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"

// lenientMode is dmlMode without strictness.
const lenientMode = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"

// setting is a session variable and the value it must have.
type setting struct {
	name, value string // value in SQL
	// restricted: setting it needs a privilege on some version, so it is set
	// only where it differs; want is its value as SELECT shows it.
	want string
}

// sessionSettings of a lane, by flavour. foreign_key_checks and unique_checks
// stay on: a statement whose rows ask for no foreign key checks says so itself
// (see Plan), and relaxed unique checks are only ever a permission to be faster.
func sessionSettings(info server.Info) []setting {
	s := []setting{
		{name: "character_set_client", value: "utf8mb4"},
		{name: "character_set_connection", value: "utf8mb4"},
		{name: "character_set_results", value: "utf8mb4"},
		{name: "time_zone", value: "'+00:00'"},
		{name: "sql_mode", value: "'" + dmlMode + "'"},
		{name: "autocommit", value: "1"},
		{name: "foreign_key_checks", value: "1"},
		{name: "unique_checks", value: "1"},
		{name: "sql_safe_updates", value: "0"},
		{name: "sql_select_limit", value: "18446744073709551615"},
		{name: "innodb_lock_wait_timeout", value: "30"},
		{name: "lock_wait_timeout", value: "60"},
	}
	if info.Flavor == server.MariaDB {
		s = append(s,
			setting{name: "tx_isolation", value: "'READ-COMMITTED'"},
			setting{name: "tx_read_only", value: "0"},
			setting{name: "max_statement_time", value: "0"},
			// The source checked its rows, some of them against its own
			// clock or user; MySQL knows no such switch.
			setting{name: "check_constraint_checks", value: "0"},
			setting{name: "system_versioning_asof", value: "DEFAULT"},
		)
		return s
	}
	return append(s,
		setting{name: "transaction_isolation", value: "'READ-COMMITTED'"},
		setting{name: "transaction_read_only", value: "0"},
		setting{name: "max_execution_time", value: "0"},
		setting{name: "explicit_defaults_for_timestamp", value: "1", want: "1"},
		setting{name: "sql_generate_invisible_primary_key", value: "0", want: "0"},
		setting{name: "show_gipk_in_create_table_and_information_schema", value: "1", want: "1"},
	)
}

// OpenSession takes a connection out of the pool and gives it the session
// variables that rows are applied under. The caller closes it; a connection
// whose transaction failed in an unknown way should be thrown away, not
// returned (see Discard).
func OpenSession(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("target session: %w", err)
	}
	info, err := server.Detect(ctx, conn)
	if err == nil {
		err = prepareSession(ctx, conn, sessionSettings(info))
	}
	if err != nil {
		Discard(conn)
		return nil, fmt.Errorf("target session: %w", err)
	}
	return conn, nil
}

// prepareSession applies settings, restricted ones only where they differ.
func prepareSession(ctx context.Context, q server.Querier, settings []setting) error {
	var now []string
	var check []setting
	for _, s := range settings {
		if s.want == "" {
			now = append(now, "SESSION "+s.name+" = "+s.value)
		} else {
			check = append(check, s)
		}
	}
	if len(now) > 0 {
		if _, err := q.ExecContext(ctx, "SET "+strings.Join(now, ", ")); err != nil {
			return err
		}
	}
	for _, s := range check {
		var have sql.NullString
		err := q.QueryRowContext(ctx, "SELECT @@SESSION."+s.name).Scan(&have)
		if server.ErrorNumber(err) == 1193 { // unknown variable: older than it
			continue
		}
		if err != nil {
			return err
		}
		if have.String == s.want {
			continue
		}
		if _, err := q.ExecContext(ctx, "SET SESSION "+s.name+" = "+s.value); err != nil {
			return fmt.Errorf("%s is %s and must be %s: %w", s.name, have.String, s.want, err)
		}
	}
	return nil
}

// Discard closes the connection itself instead of returning it to its pool.
func Discard(conn *sql.Conn) {
	// The first error only says that the connection is to be dropped, and
	// Close then has nothing left to fail on.
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}

// packetLimit asks for the longest statement the server takes, in bytes.
func packetLimit(ctx context.Context, x Execer) (int, error) {
	rows, err := x.QueryContext(ctx, "SELECT @@max_allowed_packet")
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var n string
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			return 0, err
		}
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	return strconv.Atoi(n)
}
