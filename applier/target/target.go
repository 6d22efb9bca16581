// Package target is everything that speaks SQL to the server that changes are
// applied to: its catalogue, the statements that give a row the state its
// change asks for, the session they run in, the applier's state tables, and
// the replay of DDL.
//
// The package holds no goroutines and no positions of its own: the lanes above
// it decide what is applied when, and in which transaction.
package target

import (
	"context"
	"database/sql"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// Execer is a *sql.Conn from OpenSession or a *sql.Tx on one.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Key is a PRIMARY or UNIQUE index of a target table.
type Key struct {
	Name    string
	Parts   []schema.KeyPart // in index order; Column is into Table.Columns
	Primary bool
	// Functional: a part is an expression, or the index is unique by a hash
	// the server computes; Parts then lacks what has no column.
	Functional bool
}

// ForeignKey is a constraint of which the table is the child.
type ForeignKey struct {
	Name          string
	Columns       []int // into Table.Columns, in constraint order
	Parent        schema.Name
	ParentColumns []string
	OnDelete      string // the catalogue's words: CASCADE, SET NULL, RESTRICT, NO ACTION …
	OnUpdate      string
}

// Table is a table of the target as its catalogue has it now. It is immutable;
// a DDL makes a new one.
type Table struct {
	schema.Table
	// Generated[i]: column i is computed by the server, never written.
	Generated []bool
	// Keys are the unique indexes, PRIMARY first, the others in the
	// catalogue's order.
	Keys []Key
	// Identity is the index into Keys that names a row: PRIMARY, else the
	// first UNIQUE of only NOT NULL whole columns that is not functional;
	// -1: none.
	Identity    int
	ForeignKeys []ForeignKey // this table is the child
	// Children are the tables whose foreign keys point at this one, itself
	// included when it refers to itself; sorted.
	Children []schema.Name
	Engine   string
	Triggers []string // names, sorted
	Sequence bool     // a MariaDB SEQUENCE: one row, which INSERT replaces

	server  server.Info
	shown   uint64   // the definition, see shown
	columns []column // what the catalogue says beyond schema.Column
}

// column is what only the target's catalogue tells of a column.
type column struct {
	dataType string // information_schema's DATA_TYPE, lower case
	scale    int    // digits after the point, also of FLOAT(M,D); -1: none
	fill     bool   // may be left out of an INSERT: default, nullable, auto_increment
	auto     bool   // AUTO_INCREMENT
	versions bool   // MariaDB system versioning's row_start or row_end
	// invisible as the catalogue says it: MariaDB's row events do not.
	invisible bool
	srid      *uint32 // the one spatial reference system that values may have; nil: any
	stored    string  // how MariaDB stores it unlike its type, which row events would have to know; "": as its type
}

// Outcome counts what Apply did to rows. The last three are where the target
// was not as the log expects it, which is explained by a replay or is a double
// write.
type Outcome struct {
	// Row changes by operation; their sum is the number of rows given.
	Inserted, Updated, Deleted int
	Statements                 int // SQL statements sent
	// InsertFound: INSERTs whose own row was there already and became the
	// image. UpdateMissing: UPDATEs whose row was not there and was inserted.
	// DeleteMissing: DELETEs whose row was gone already. For merged statements
	// they come from affected-row counts: a row that is there and equal to the
	// image already counts as missing for an UPDATE, and not at all for an
	// INSERT.
	InsertFound, UpdateMissing, DeleteMissing int
}

// Add sums outcomes.
func (o *Outcome) Add(p Outcome) {
	o.Inserted += p.Inserted
	o.Updated += p.Updated
	o.Deleted += p.Deleted
	o.Statements += p.Statements
	o.InsertFound += p.InsertFound
	o.UpdateMissing += p.UpdateMissing
	o.DeleteMissing += p.DeleteMissing
}

// Doubt says that the target was not as the log expects it.
func (o Outcome) Doubt() bool {
	return o.InsertFound != 0 || o.UpdateMissing != 0 || o.DeleteMissing != 0
}
