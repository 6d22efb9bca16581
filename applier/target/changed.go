package target

import (
	"regexp"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// foreign finds statements that may make or break foreign keys. One that drops
// a constraint by name alone names a table that has one.
var foreign = regexp.MustCompile(`(?i)\b(REFERENCES|FOREIGN|CONSTRAINT)\b`)

// Changed drops what a statement that was carried out may have changed, and
// answers which tables those are; all: any table. Reading a table again costs a
// handful of questions to the server, and the foreign keys cost MariaDB a look at
// every table, so what certainly stayed as it was is kept.
func (c *Catalog) Changed(d *change.DDL) (names []schema.Name, all bool) {
	switch ddl.Class(d.Class) {
	case ddl.View, ddl.Trigger, ddl.Routine, ddl.Event, ddl.Account, ddl.CreateDatabase, ddl.AlterDatabase:
		// A database's defaults concern the tables made after it.
		return nil, false
	case ddl.CreateTable, ddl.CreateTableSelect, ddl.AlterTable, ddl.RenameTable, ddl.DropTable, ddl.TruncateTable,
		ddl.ExchangePartition, ddl.CreateIndex, ddl.DropIndex:
		if len(d.Tables) > 0 && !foreign.MatchString(d.Text) && !c.tied(d.Tables) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.drop(d.Tables)
			return d.Tables, false
		}
	}
	c.ForgetAll()
	return nil, true
}

// tied: one of the tables has a foreign key or is the parent of one, or the
// foreign keys are not known.
func (c *Catalog) tied(names []schema.Name) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.components == nil {
		return true
	}
	for _, n := range names {
		if _, ok := c.components.representative[c.components.key(n)]; ok {
			return true
		}
	}
	return false
}
