package target

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// ErrChanged: someone changed a table on the target by hand since it was read, so
// a plan for it may write other values than the source has. The catalogue must be
// read anew.
var ErrChanged = errors.New("the target's table was changed by hand")

// shown is the hash of what SHOW CREATE TABLE says of a table, without its
// counter; 0: there is no such table. name is quoted.
//
// Of all that a server can be asked about a table it is the cheapest by far, since
// it takes it from the open table instead of its dictionary.
func shown(ctx context.Context, q server.Querier, name string) (uint64, error) {
	text, err := second(ctx, q, "SHOW CREATE TABLE "+name)
	if n := server.ErrorNumber(err); n == 1146 || n == 1049 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return definitionHash([]byte(text)), nil
}

var counterMark = []byte(" AUTO_INCREMENT=")

// definitionHash is of a text by SHOW CREATE TABLE, without its counter; never 0.
func definitionHash(text []byte) uint64 {
	if bytes.Contains(text, counterMark) {
		text = autoIncrement.ReplaceAll(text, nil)
	}
	return max(1, xxhash.Sum64(text))
}

func (t *Table) quoted() string {
	return server.QuoteName(t.Name.Schema) + "." + server.QuoteName(t.Name.Table)
}

// Unchanged fails with ErrChanged where the table is not defined as it was when the
// plan was made, in anything that SHOW CREATE TABLE tells: columns, types, labels,
// charsets, keys. Called in the transaction that has written to the table, which
// keeps the definition as it is until its end, it says so of what was written. It
// does not see triggers; see Triggered. A table that is gone is no change: nothing
// can have been written to it.
//
// The connection is one of OpenSession's.
func (p *Plan) Unchanged(ctx context.Context, conn server.Querier) error {
	now, err := shown(ctx, conn, p.name)
	if err != nil {
		return fmt.Errorf("definition of %s: %w", p.table.Name, err)
	}
	return p.same(now)
}

// same compares what a table is now, 0 if it is gone, with what it was.
func (p *Plan) same(now uint64) error {
	if now != 0 && now != p.table.shown {
		return fmt.Errorf("table %s: %w", p.table.Name, ErrChanged)
	}
	return nil
}

// Triggered fails with ErrChanged where one of the tables, by the names that the
// target has for them, has a trigger.
func Triggered(ctx context.Context, q server.Querier, tables []schema.Name) error {
	var schemas []string
	for _, n := range tables {
		if !slices.Contains(schemas, n.Schema) {
			schemas = append(schemas, n.Schema)
		}
	}
	for _, s := range schemas {
		// MariaDB looks at every schema unless it is told one.
		if err := triggeredIn(ctx, q, s, tables); err != nil {
			return err
		}
	}
	return nil
}

func triggeredIn(ctx context.Context, q server.Querier, in string, tables []schema.Name) (err error) {
	rows, err := q.QueryContext(ctx, "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = ?", in)
	if err != nil {
		return fmt.Errorf("triggers of the target: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var trigger sql.NullString
		n := schema.Name{Schema: in}
		if err := rows.Scan(&n.Table, &trigger); err != nil {
			return err
		}
		if slices.Contains(tables, n) {
			return fmt.Errorf("table %s has the trigger %s: %w", n, server.QuoteName(trigger.String), ErrChanged)
		}
	}
	return rows.Err()
}
