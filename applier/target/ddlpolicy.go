package target

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// policy tells what becomes of a statement: Replayed, Skipped or Parked, or an
// error where only an operator can tell.
func (r *DDLRunner) policy(j *ddlJob) (Decision, error) {
	if system, err := r.system(j); err != nil || system {
		return Skipped, err
	}
	switch j.st.Class {
	case ddl.Empty, ddl.TemporaryTable, ddl.Maintenance, ddl.Flush, ddl.Set, ddl.Transaction, ddl.XA, ddl.Admin:
		return Skipped, nil
	case ddl.Instance, ddl.LoadableFunction, ddl.Server:
		// Keys, libraries and remote logins belong to one machine.
		return Skipped, nil
	case ddl.Account:
		if r.o.ReplayAccounts {
			return Replayed, nil
		}
		return Skipped, nil
	case ddl.DML:
		return "", j.fault("it changes rows as a statement, which row images do not cover", "set binlog_format=ROW for every session of the source, and take a new copy of the tables it names", nil)
	case ddl.CreateTableSelect:
		if !j.st.StartTransaction {
			return "", j.fault("it takes rows from a query, which row images do not cover", "set binlog_format=ROW for every session of the source, and take a new copy of the table", nil)
		}
	case ddl.ImportTablespace:
		return "", j.fault("it takes a table's data from files that only the source has", "copy the table to the target, then record the place as done in twinspan.ddl_state", nil)
	case ddl.Trigger, ddl.Event:
		return Parked, nil
	}
	if !j.st.Class.ChangesDefinitions() {
		return "", j.fault(fmt.Sprintf("class %q is not known", j.st.Class), remedyByHand, nil)
	}
	return Replayed, nil
}

// system tells whether the statement is about the servers' own schemas or our
// state, which are not replicated. One that mixes them with others is refused.
func (r *DDLRunner) system(j *ddlJob) (bool, error) {
	var ours, others int
	note := func(name string) {
		name = strings.ToLower(name)
		switch {
		case name == "":
		case name == StateSchema || slices.Contains(schema.SystemSchemas, name):
			ours++
		default:
			others++
		}
	}
	for _, n := range j.st.Changed {
		note(n.Schema)
	}
	if j.st.Class != ddl.Account {
		note(j.st.Object.Schema)
	}
	if ours > 0 && others > 0 {
		return false, j.fault("it changes system schemas and others at once", remedyByHand, nil)
	}
	return ours > 0, nil
}

// park keeps a trigger's or event's statement, so that nothing fires for
// replicated rows; promoting the target runs what is parked, in order.
func (j *ddlJob) park(ctx context.Context) error {
	kind := string(j.st.Class)
	if err := j.dropReal(ctx, kind); err != nil {
		return err
	}
	session, err := json.Marshal(map[string]any{
		"sql_mode": j.d.SQLMode, "flags2": j.d.Flags2, "default_schema": j.d.DefaultSchema, "time_zone": j.d.TimeZone,
		"character_set_client": j.d.CharsetClient, "collation_connection": j.d.CollationConnection,
		"collation_server": j.d.CollationServer, "timestamp": j.d.Timestamp, "variables": j.d.Variables,
	})
	if err != nil {
		return err
	}
	var table schema.Name
	if j.st.Class == ddl.Trigger && len(j.st.Tables) > 0 {
		table = j.st.Tables[0]
	}
	tx, err := j.r.o.DB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	var created, all int
	if err := tx.QueryRowContext(ctx, "SELECT COALESCE(SUM(verb = 'CREATE'), 0), COUNT(*) FROM twinspan.parked_definition"+
		" WHERE stream = ? AND kind = ? AND object_schema = ? AND object_name = ?", j.r.o.Stream, kind, j.st.Object.Schema, j.st.Object.Table).Scan(&created, &all); err != nil {
		return err
	}
	// A DROP, or a CREATE OR REPLACE, of what was created here takes it away.
	// Anything else is kept and will run in its turn.
	gone := j.st.Verb == "DROP" && created > 0 && created == all
	if gone || j.st.Replace {
		if _, err := tx.ExecContext(ctx, "DELETE FROM twinspan.parked_definition WHERE stream = ? AND kind = ? AND object_schema = ? AND object_name = ?",
			j.r.o.Stream, kind, j.st.Object.Schema, j.st.Object.Table); err != nil {
			return err
		}
	}
	if !gone {
		if _, err := tx.ExecContext(ctx, "INSERT INTO twinspan.parked_definition (stream, entry_offset, entry_index, kind, verb, object_schema, object_name,"+
			" table_schema, table_name, renamed, statement, session, parked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)",
			j.r.o.Stream, int64(j.place.Offset), j.place.Index, kind, j.st.Verb, j.st.Object.Schema, j.st.Object.Table,
			table.Schema, table.Table, []byte(j.d.Text), string(session), now()); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO twinspan.ddl_state (stream, entry_offset, entry_index, state, class, default_schema, statement,"+
		" server_version, before_digest, after_digest, intended_at, done_at) VALUES (?, ?, ?, 'parked', ?, ?, ?, ?, '', '', ?, ?)",
		j.r.o.Stream, int64(j.place.Offset), j.place.Index, kind, j.d.DefaultSchema, []byte(j.d.Text), j.r.info.Version, now(), now()); err != nil {
		return err
	}
	return tx.Commit()
}

// dropReal drops a trigger or event that exists on the target itself, from
// before it was a target. It may run twice.
func (j *ddlJob) dropReal(ctx context.Context, kind string) error {
	if j.st.Verb != "DROP" {
		return nil
	}
	query, verb := "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ? AND TRIGGER_NAME = ?", "DROP TRIGGER IF EXISTS "
	if kind == string(ddl.Event) {
		query, verb = "SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = ? AND EVENT_NAME = ?", "DROP EVENT IF EXISTS "
	}
	var n int
	if err := j.conn.QueryRowContext(ctx, query, j.st.Object.Schema, j.st.Object.Table).Scan(&n); err != nil || n == 0 {
		return err
	}
	_, err := j.conn.ExecContext(ctx, verb+server.QuoteName(j.st.Object.Schema)+"."+server.QuoteName(j.st.Object.Table))
	return err
}

// followTables keeps parked triggers with their tables: gone with a dropped one,
// marked with a renamed one.
func (j *ddlJob) followTables(ctx context.Context, q server.Querier) error {
	switch j.st.Class {
	case ddl.DropTable:
		for _, n := range j.st.Changed {
			if _, err := q.ExecContext(ctx, "DELETE FROM twinspan.parked_definition WHERE stream = ? AND kind = 'trigger' AND table_schema = ? AND table_name = ?",
				j.r.o.Stream, n.Schema, n.Table); err != nil {
				return err
			}
		}
	case ddl.DropDatabase:
		_, err := q.ExecContext(ctx, "DELETE FROM twinspan.parked_definition WHERE stream = ? AND object_schema = ?", j.r.o.Stream, j.st.Object.Schema)
		return err
	case ddl.RenameTable, ddl.AlterTable:
		for _, n := range j.st.Changed {
			// Which name became which is not told; that a name moved is.
			if j.st.Class == ddl.AlterTable && len(j.st.Changed) < 2 {
				return nil
			}
			if _, err := q.ExecContext(ctx, "UPDATE twinspan.parked_definition SET renamed = 1 WHERE stream = ? AND kind = 'trigger' AND table_schema = ? AND table_name = ?",
				j.r.o.Stream, n.Schema, n.Table); err != nil {
				return err
			}
		}
	}
	return nil
}
