// Package ddl tells what a statement of the binlog does and which tables it
// names, without changing a byte of it: the original text is what is replayed.
//
// A lexer and a few dozen heads of statements are all it needs. Full parsers
// refuse a third of what the servers accept (invisible columns, triggers,
// system versioning, START TRANSACTION …), and the part of a statement that
// matters here stands at its beginning, or behind a handful of reserved words.
package ddl

import (
	"errors"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// ErrUnclassified: nobody can say what the statement does. The caller stops:
// skipping it could lose a change, replaying it could do harm.
var ErrUnclassified = errors.New("unclassified statement")

// Class is what a statement does. Classes are stored in the log and never
// change their names.
type Class string

// The classes.
const (
	Empty Class = "empty" // nothing but comments

	CreateTable       Class = "create_table" // also CREATE … LIKE
	CreateTableSelect Class = "create_table_select"
	AlterTable        Class = "alter_table"
	RenameTable       Class = "rename_table"
	DropTable         Class = "drop_table"
	TruncateTable     Class = "truncate_table"
	ExchangePartition Class = "exchange_partition" // also MariaDB's CONVERT PARTITION … TO TABLE and back
	ImportTablespace  Class = "import_tablespace"  // ALTER TABLE … DISCARD or IMPORT TABLESPACE, IMPORT TABLE: data from files
	CreateIndex       Class = "create_index"
	DropIndex         Class = "drop_index"
	TemporaryTable    Class = "temporary_table" // CREATE or DROP TEMPORARY TABLE or SEQUENCE

	CreateDatabase Class = "create_database"
	AlterDatabase  Class = "alter_database"
	DropDatabase   Class = "drop_database"

	// The verb tells creating, altering and dropping apart.
	View             Class = "view"
	Trigger          Class = "trigger"
	Routine          Class = "routine" // procedures, functions, packages, libraries
	LoadableFunction Class = "loadable_function"
	Event            Class = "event"
	Sequence         Class = "sequence" // MariaDB
	Account          Class = "account"  // users, roles, grants, passwords
	Server           Class = "server"   // of FEDERATED tables
	Tablespace       Class = "tablespace"
	Instance         Class = "instance" // ALTER INSTANCE, resource groups, spatial reference systems

	Maintenance Class = "maintenance" // ANALYZE, OPTIMIZE, REPAIR, CHECK, CHECKSUM TABLE, key caches
	Flush       Class = "flush"
	Set         Class = "set"
	Transaction Class = "transaction" // BEGIN, COMMIT, ROLLBACK, SAVEPOINT …
	XA          Class = "xa"
	DML         Class = "dml" // changes rows, or may: INSERT, UPDATE, LOAD, CALL, SELECT …
	Admin       Class = "admin"
)

// ChangesDefinitions tells whether the statement creates, changes or drops
// something that has to be so on the target too.
func (c Class) ChangesDefinitions() bool {
	switch c {
	case Empty, TemporaryTable, Maintenance, Flush, Set, Transaction, XA, DML, Admin:
		return false
	}
	return true
}

// ChangesTables tells whether a table's columns, keys, name or existence may be
// different afterwards.
func (c Class) ChangesTables() bool {
	switch c {
	case CreateTable, CreateTableSelect, AlterTable, RenameTable, DropTable, ExchangePartition, ImportTablespace, CreateIndex, DropIndex,
		DropDatabase, Sequence, View:
		return true
	}
	return false
}

// Dialect is how the server that ran a statement reads it.
type Dialect struct {
	Flavor server.Flavor
	// Version as executable comments count it: 90704 for MySQL 9.7.4, 101106
	// for MariaDB 10.11.6. 0 takes the newest.
	Version int
	// SQLMode is the session's, as the query event has it: ANSI_QUOTES and
	// NO_BACKSLASH_ESCAPES change what quotes mean.
	SQLMode uint64
	// Charset of the text, character_set_client; empty is UTF-8. Names come
	// out in UTF-8.
	Charset string
}

// Statement is what Classify found.
type Statement struct {
	Class Class
	// Verb is the statement's first word in upper case: CREATE, ALTER …
	Verb string
	// Tables are all tables (and views and sequences) that it names, each
	// once, in order: both sides of a RENAME, both tables of an EXCHANGE, LIKE
	// and SELECT sources, tables that foreign keys refer to, a trigger's table.
	// Not those in bodies of routines, triggers and events.
	Tables []schema.Name
	// Changed is the part of Tables that it creates, changes, empties or
	// drops.
	Changed []schema.Name
	// Object is what it is about where that is no table: a database (Schema
	// only), trigger, routine, event.
	Object schema.Name
	// StartTransaction: the CREATE TABLE opens the transaction of the rows that
	// follow it (MySQL's form of CREATE … SELECT).
	StartTransaction bool
	// Replace: CREATE OR REPLACE, which drops what was there.
	Replace bool
	// Mentions are the places where those names, and Object, stand in the text,
	// in order.
	Mentions []Mention
}
