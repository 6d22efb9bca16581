// Package change is what flows from the binlog through the log to the target:
// transactions, row changes and DDL, their values, and their Avro encoding.
package change

import (
	"time"

	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Op is what happened to a row.
type Op uint8

// The operations of a row change. Insert has only an after image, Delete only a
// before image, Update both.
const (
	Insert Op = iota
	Update
	Delete
)

func (o Op) String() string {
	switch o {
	case Insert:
		return "insert"
	case Update:
		return "update"
	case Delete:
		return "delete"
	}
	return "invalid"
}

// Flags of a row event that its applier must honour.
type Flags uint16

// Bits of Flags.
const (
	// NoForeignKeyChecks: the source ran with foreign_key_checks=0, or the
	// row is the logged effect of a cascade.
	NoForeignKeyChecks Flags = 1 << iota
	// RelaxedUniqueChecks: the source ran with unique_checks=0.
	RelaxedUniqueChecks
	// CascadesLogged: the source logs the rows its foreign keys change
	// (MySQL from 9.6 on), so the target must not cascade again.
	CascadesLogged
)

// Row is one row change. Before and After have one value per column of Table,
// in order; an image that the operation does not have is nil. Values may share
// memory with the buffer they were decoded from and are never changed.
type Row struct {
	Table    *schema.Table
	Op       Op
	Flags    Flags
	Position int64 // index of the row in its transaction, from 0
	Before   []Value
	After    []Value
}

// DDL is a statement that changes definitions, with the session settings it ran
// under. Text is the original, in the charset of CharsetClient.
type DDL struct {
	Text          string
	DefaultSchema string
	SQLMode       uint64 // the server's bit set, as in the query event
	Flags2        uint32 // OPTION_* bits of the query event (foreign_key_checks …)
	// Collation ids of the session: character_set_client,
	// collation_connection, collation_server; 0: not in the event.
	CharsetClient       uint16
	CollationConnection uint16
	CollationServer     uint16
	TimeZone            string    // "" : not in the event
	Timestamp           time.Time // with microseconds where the event has them
	// Variables are further session settings of the event by variable name, in
	// SQL spelling, such as "default_collation_for_utf8mb4" or "lc_time_names",
	// "auto_increment_increment", "explicit_defaults_for_timestamp".
	Variables map[string]string
	// Class and Tables are the producer's classification: what it is, and
	// every table it names (each qualified).
	Class  string
	Tables []schema.Name
}

// Transaction is one source transaction or, for a large one, a part of it. Its
// rows keep the order of the binlog.
type Transaction struct {
	GTID       string
	CommitTime time.Time // at the original source, UTC, microseconds
	ServerID   uint32    // where it was first committed
	DDL        *DDL      // runs before Rows; nil for plain transactions
	Rows       []Row
	// Continues: an earlier part came before this one. Continued: a later
	// part follows. A plain transaction has neither.
	Continues bool
	Continued bool
}

// Batch is the payload of one entry of the data topic.
type Batch struct {
	// GTIDSet is what the log holds once this batch's last complete transaction
	// is in it. Empty where the writer left it out to save space; then walk
	// back to the last batch that has it and add the GTIDs from there on.
	GTIDSet string
	// Source names the server the changes were read from, and where: for
	// people and for diagnosis, never for resuming.
	Source       Source
	Transactions []Transaction
}

// Source is where a batch was read.
type Source struct {
	Flavor     string // "mysql" or "mariadb"
	ServerUUID string // or server id for MariaDB
	File       string
	Position   uint64 // end of the last event of the batch; 0 where not known
}

// Place is where a change stands in the log: ordered by entry, then by its
// index among the changes (rows, DDLs, and transaction ends) of that entry.
type Place struct {
	Offset log.Offset `json:"offset"`
	Index  int32      `json:"index"`
}

// Compare orders places as the log does: -1, 0, +1.
func (p Place) Compare(q Place) int {
	switch {
	case p.Offset < q.Offset:
		return -1
	case p.Offset > q.Offset:
		return 1
	case p.Index < q.Index:
		return -1
	case p.Index > q.Index:
		return 1
	}
	return 0
}
