package history

import (
	"fmt"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/schema"
)

func columnSQL(c *schema.Column) string {
	s := fmt.Sprintf("`%s` ", c.Name)
	switch c.Type {
	case schema.Int:
		s += "INT"
	case schema.BigInt:
		s += "BIGINT"
		if c.Unsigned {
			s += " UNSIGNED"
		}
	case schema.VarBinary:
		s += fmt.Sprintf("VARBINARY(%d)", c.Length)
	case schema.VarChar:
		s += fmt.Sprintf("VARCHAR(%d)", c.Length/4)
	case schema.Char:
		s += fmt.Sprintf("CHAR(%d)", c.Length/4)
	case schema.Text:
		s += "TEXT"
	}
	if c.Collation != "" {
		s += " CHARACTER SET utf8mb4 COLLATE " + c.Collation
	}
	if c.Nullable {
		return s + " NULL"
	}
	return s + " NOT NULL"
}

// SQL creates the table.
func (t *Table) SQL() string {
	var parts []string
	for i := range t.Def.Columns {
		parts = append(parts, columnSQL(&t.Def.Columns[i]))
	}
	for _, k := range t.Def.Keys {
		var cols []string
		for _, p := range k.Parts {
			c := "`" + t.Def.Columns[p.Column].Name + "`"
			if p.Prefix > 0 {
				c += fmt.Sprintf("(%d)", p.Prefix)
			}
			cols = append(cols, c)
		}
		head := "UNIQUE KEY `" + k.Name + "`"
		if k.Primary {
			head = "PRIMARY KEY"
		}
		parts = append(parts, head+" ("+strings.Join(cols, ", ")+")")
	}
	if t.Parent >= 0 {
		parts = append(parts, fmt.Sprintf("FOREIGN KEY (`p`) REFERENCES `%s`.`%s` (`id`)", t.Rep.Schema, t.Rep.Table))
	}
	return fmt.Sprintf("CREATE TABLE `%s`.`%s` (%s) ENGINE=InnoDB", t.Def.Name.Schema, t.Def.Name.Table, strings.Join(parts, ", "))
}

// Query reads the table in the form of Text.
func (t *Table) Query() string {
	var cols []string
	for _, c := range t.Def.Columns {
		cols = append(cols, fmt.Sprintf("IF(`%s` IS NULL, 'NULL', HEX(CAST(`%s` AS CHAR)))", c.Name, c.Name))
		if c.Type == schema.VarBinary {
			cols[len(cols)-1] = fmt.Sprintf("IF(`%s` IS NULL, 'NULL', HEX(`%s`))", c.Name, c.Name)
		}
	}
	return fmt.Sprintf("SELECT CONCAT_WS(',', %s) FROM `%s`.`%s`", strings.Join(cols, ", "), t.Def.Name.Schema, t.Def.Name.Table)
}

// Text is a row as Query answers it.
func Text(row []change.Value) string {
	var s []string
	for _, v := range row {
		switch v.Kind() {
		case change.Null:
			s = append(s, "NULL")
		case change.Integer:
			s = append(s, fmt.Sprintf("%X", fmt.Append(nil, v.Integer())))
		default:
			s = append(s, fmt.Sprintf("%X", v.Bytes()))
		}
	}
	return strings.Join(s, ",")
}
