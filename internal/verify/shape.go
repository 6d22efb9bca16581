package verify

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// wideBytes is up to where a value of a large type is compared itself; a longer
// one by its length and SHA-256, so that a chunk's memory has a bound whatever
// is in it.
const wideBytes = 4096

// shape is how a table that is on both sides is read: select lists that both
// servers answer with the same bytes for the same value, and with others for any
// other value.
type shape struct {
	name    schema.Name // on the source
	there   schema.Name // on the target
	columns []field
	key     []keyColumn // empty: the table is a multiset
	hint    string      // the key's index, where both sides have it
	width   int64       // average bytes a row, by statistics
}

// field is one column; its expressions never give text of a charset.
type field struct {
	name           string
	source, target string
	wide           bool // the first byte says whether it is the value ('=') or its digest ('#')
}

type keyColumn struct {
	at      int    // index in columns
	name    string // quoted
	literal func(value []byte) string
}

func newShape(s, t *description, sameFlavor bool) *shape {
	sh := &shape{name: s.name, there: t.name, width: max(s.width, t.width)}
	of := map[string]column{}
	for _, c := range t.columns {
		of[c.name] = c
	}
	for _, c := range s.columns {
		o := of[c.name]
		f := field{name: c.name, wide: isWide(c) || isWide(o)}
		// Types of JSON values only count where both sides have them.
		f.source, f.target = expression(c, sameFlavor), expression(o, sameFlavor)
		sh.columns = append(sh.columns, f)
	}
	if s.key == nil || t.key == nil {
		return sh
	}
	for _, i := range s.key.columns {
		c := s.columns[i]
		k := keyColumn{at: i, name: server.QuoteName(c.name), literal: literalOf(c)}
		if k.literal == nil || sh.columns[i].wide || of[c.name].nullable {
			sh.key = nil
			return sh
		}
		sh.key = append(sh.key, k)
	}
	if t.key.name == s.key.name {
		sh.hint = " FORCE INDEX (" + server.QuoteName(s.key.name) + ")"
	}
	return sh
}

// expression reads a column so that equal bytes mean equal values.
func expression(c column, types bool) string {
	q := server.QuoteName(c.name)
	switch c.dataType {
	case "float", "double":
		// The text of a FLOAT has six digits, and that of a DOUBLE(m,d) has d
		// behind the point; as a plain DOUBLE each has all that it needs.
		return "CAST(" + q + " AS DOUBLE)"
	case "char", "varchar", "tinytext", "text", "mediumtext", "longtext", "vector":
		return "CAST(" + q + " AS BINARY)"
	case "enum", "set":
		// The error value 0 reads as '', and so may a label.
		return "CONCAT(" + q + " + 0, ':', HEX(" + q + "))"
	case "uuid", "inet4", "inet6":
		return "CAST(CAST(" + q + " AS CHAR) AS BINARY)"
	case "bit":
		return "HEX(" + q + ")"
	case "json":
		text := "CAST(CAST(" + q + " AS CHAR CHARACTER SET utf8mb4) AS BINARY)"
		if !types {
			return text
		}
		// The text does not tell a DECIMAL from a DOUBLE, a date from a string,
		// or a signed number from an unsigned one: the types of all nodes do.
		return "CONCAT(" + text + ", x'0A', COALESCE((SELECT GROUP_CONCAT(JSON_TYPE(v) ORDER BY o) FROM " +
			"JSON_TABLE(JSON_EXTRACT(" + q + ", '$', '$**.*', '$**[*]'), '$[*]' COLUMNS (o FOR ORDINALITY, v JSON PATH '$')) AS nodes), ''))"
	}
	return q
}

func isWide(c column) bool {
	switch c.dataType {
	case "text", "mediumtext", "longtext", "blob", "mediumblob", "longblob", "json", "geometry", "vector",
		"point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection":
		return true
	}
	return false
}

// literalOf makes a column's literals for comparisons with the column itself, in
// a form that lets the server use an index; nil where there is none: a server
// compares ENUM and SET as strings and sorts them as numbers.
func literalOf(c column) func([]byte) string {
	hexed := func(introducer string) func([]byte) string {
		return func(v []byte) string {
			if len(v) == 0 {
				return introducer + "''"
			}
			return introducer + " x'" + hex.EncodeToString(v) + "'"
		}
	}
	switch c.dataType {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "year":
		return func(v []byte) string { return string(v) } // the server's own digits
	case "float", "double":
		return func(v []byte) string {
			if s := string(v); strings.ContainsAny(s, "eE") {
				return s
			}
			return string(v) + "e0" // without it the literal is a DECIMAL
		}
	case "bit":
		return func(v []byte) string {
			n, err := strconv.ParseUint(string(v), 16, 64) // HEX() of at most 64 bits
			if err != nil {
				return "NULL"
			}
			return strconv.FormatUint(n, 10)
		}
	case "date", "time", "datetime", "timestamp", "uuid", "inet4", "inet6":
		return func(v []byte) string { return "'" + string(v) + "'" } // the server's own text
	case "char", "varchar", "tinytext":
		return hexed("_" + c.charset)
	case "binary", "varbinary", "tinyblob":
		return hexed("_binary")
	}
	return nil
}

// list is the select list of all columns.
func (sh *shape) list(source bool) string {
	e := make([]string, len(sh.columns))
	for i, f := range sh.columns {
		if e[i] = f.on(source); f.wide {
			e[i] = fmt.Sprintf("IF(OCTET_LENGTH(%[1]s) <= %[2]d, CONCAT('=', %[1]s), "+
				"CONCAT('#', OCTET_LENGTH(%[1]s), ' bytes, SHA-256 ', SHA2(%[1]s, 256)))", e[i], wideBytes)
		}
	}
	return strings.Join(e, ", ")
}

func (f field) on(source bool) string {
	if source {
		return f.source
	}
	return f.target
}

// digest is the expression of a row's SHA-256, in hex. A NULL stands as a letter,
// a wide value as its own SHA-256, and any other with its length, so that no two
// rows are hashed alike. It is NULL only for a row that is larger than the
// server's max_allowed_packet.
func (sh *shape) digest(source bool) string {
	e := make([]string, len(sh.columns))
	for i, f := range sh.columns {
		x := f.on(source)
		if f.wide {
			x = "CONCAT('S', SHA2(" + x + ", 256))"
		} else {
			x = "CONCAT(OCTET_LENGTH(" + x + "), ':', " + x + ")"
		}
		e[i] = "IF(" + server.QuoteName(f.name) + " IS NULL, 'N', " + x + ")"
	}
	return "SHA2(CONCAT(" + strings.Join(e, ", ") + "), 256)"
}

func (sh *shape) table(source bool) string {
	n := sh.there
	if source {
		n = sh.name
	}
	return server.QuoteName(n.Schema) + "." + server.QuoteName(n.Table)
}

// from is the table with the condition.
func (sh *shape) from(source bool, condition string) string {
	s := " FROM " + sh.table(source) + sh.hint
	if condition != "" {
		s += " WHERE " + condition
	}
	return s
}

func (sh *shape) order() string {
	names := make([]string, len(sh.key))
	for i, k := range sh.key {
		names[i] = k.name
	}
	return " ORDER BY " + strings.Join(names, ", ")
}

// interval is the condition after < key <= upto; nil bounds are open.
func (sh *shape) interval(after, upto keyValues) string {
	var parts []string
	if after != nil {
		parts = append(parts, sh.beyond(after, ">", ">"))
	}
	if upto != nil {
		parts = append(parts, sh.beyond(upto, "<", "<="))
	}
	return strings.Join(parts, " AND ")
}

// beyond compares the key lexicographically, spelt out so that both servers make
// ranges of an index from it: (a > x OR (a = x AND b > y) …).
func (sh *shape) beyond(x keyValues, strict, last string) string {
	or := make([]string, len(sh.key))
	for i := range sh.key {
		var and []string
		for j := range i {
			and = append(and, sh.compare(j, "=", x))
		}
		op := strict
		if i == len(sh.key)-1 {
			op = last
		}
		or[i] = "(" + strings.Join(append(and, sh.compare(i, op, x)), " AND ") + ")"
	}
	return "(" + strings.Join(or, " OR ") + ")"
}

// among is the condition for a set of keys.
func (sh *shape) among(some []candidate) string {
	or := make([]string, 0, len(some))
	for _, c := range some {
		and := make([]string, len(sh.key))
		for j := range sh.key {
			and[j] = sh.compare(j, "=", c.key)
		}
		or = append(or, "("+strings.Join(and, " AND ")+")")
	}
	return strings.Join(or, " OR ")
}

func (sh *shape) compare(i int, op string, x keyValues) string {
	return sh.key[i].name + " " + op + " " + sh.key[i].literal(x[i])
}

// keyValues are a key's columns as the select list gives them.
type keyValues [][]byte

// keyOf picks them out of a row.
func (sh *shape) keyOf(x row) keyValues {
	k := make(keyValues, len(sh.key))
	for i := range sh.key {
		k[i] = x[sh.key[i].at]
	}
	return k
}

// id is an unambiguous string of the key's bytes.
func (k keyValues) id() string {
	var b []byte
	for _, v := range k {
		b = strconv.AppendInt(b, int64(len(v)), 10)
		b = append(append(b, ':'), v...)
	}
	return string(b)
}
