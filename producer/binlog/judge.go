package binlog

import (
	"fmt"

	"github.com/twinspan/twinspan/change"
)

type verdict uint8

const (
	verdictShip   verdict = iota // hand it over
	verdictIgnore                // no effect on the target
	verdictRows                  // changes rows: it must not be replayed
)

// judge says what is to be done with a statement, and fills in its class and
// tables.
func (a *assembler) judge(d *change.DDL) (verdict, error) {
	switch w, _ := firstWord(d.Text); w {
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD":
		return verdictRows, nil
	case "CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE":
		d.Class = "ddl"
		return verdictShip, nil
	case "GRANT", "REVOKE", "FLUSH", "ANALYZE", "OPTIMIZE":
		return verdictIgnore, nil
	default:
		return 0, fmt.Errorf("statement begins with %q", w)
	}
}
