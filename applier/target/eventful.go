package target

import (
	"github.com/twinspan/twinspan/applier/rowevent"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// eventful: rows with these flags can be written as row events. Where the target
// itself has to follow foreign keys from a parent, the exact path does.
func (p *Plan) eventful(flags change.Flags) bool {
	return p.events != nil && (len(p.table.Children) == 0 || !p.enforces(flags))
}

// bare: rows with these flags are written without foreign key checks.
func (p *Plan) bare(flags change.Flags) bool { return p.hasParent && !p.enforces(flags) }

// rowEvents prepares the table's row events, nil where rows go as SQL: the
// server would compute or convert something that an image does not tell.
func (p *Plan) rowEvents(from []int) (*rowevent.Table, string) {
	t := p.table
	if !p.upserts || p.prefixed {
		return nil, "no PRIMARY key over whole columns in InnoDB"
	}
	var columns []rowevent.Column
	for j := range t.Columns {
		c := &t.Columns[j]
		i := from[j]
		switch {
		case t.Generated[j], t.columns[j].versions:
			return nil, "column " + c.Name + " is computed by the server"
		case c.Invisible, t.columns[j].invisible:
			return nil, "column " + c.Name + " is invisible" // see Writer.shape
		case i < 0:
			return nil, "column " + c.Name + " is not in the source"
		case t.columns[j].stored != "":
			return nil, "column " + c.Name + " " + t.columns[j].stored
		}
		w := &p.writers[i]
		same := charsetName(p.source.Columns[i].Charset) == charsetName(c.Charset)
		switch {
		case w.form == formInvalid, w.form == formEncoded && !same,
			(w.form == formSingle || w.form == formReal) && w.decimals >= 0,
			w.form == formHex && c.Type != schema.Geometry && c.Type != schema.Vector:
			return nil, "column " + c.Name + " has values that only SQL converts"
		}
		columns = append(columns, rowevent.Column{
			Target: c, Source: i, Ordinals: w.ordinals, SRID: t.columns[j].srid,
			// The server with which TIMESTAMP reaches 2106; others would misread it.
			Far: t.server.Flavor == server.MariaDB && t.server.AtLeast(11, 5),
		})
	}
	events, err := rowevent.New(t.server.Flavor, t.Name, columns)
	if err != nil {
		return nil, err.Error()
	}
	return events, ""
}
