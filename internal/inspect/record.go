// Package inspect reads the log for people: rows decoded as JSON, chosen by
// offset, GTID, time, table or key, and the table versions of a stream.
package inspect

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema"
)

// Record is one line of output: a row change, a statement, or a note about the
// log itself. Which fields are set depends on Op.
type Record struct {
	Offset log.Offset `json:"offset"`
	// Op is insert, update, delete, ddl; schema for a table version; exception
	// for an entry of that topic; abandoned when the transaction that was
	// open until here never ended (its rows are ignored by every reader); and
	// entry where entries were asked for instead of their contents.
	Op          string     `json:"op"`
	Table       string     `json:"table,omitempty"`
	GTID        string     `json:"gtid,omitempty"`
	Position    *int64     `json:"position,omitempty"` // of the row in its transaction
	CommitTime  *time.Time `json:"commit_time,omitempty"`
	ServerID    uint32     `json:"server_id,omitempty"`
	Fingerprint string     `json:"fingerprint,omitempty"`
	Flags       []string   `json:"flags,omitempty"`
	Before      *Image     `json:"before,omitempty"`
	After       *Image     `json:"after,omitempty"`
	DDL         *Statement `json:"ddl,omitempty"`
	Schema      *Version   `json:"schema,omitempty"`
	Entry       *Entry     `json:"entry,omitempty"`
	Payload     any        `json:"payload,omitempty"` // of an exception
}

// Statement is a DDL.
type Statement struct {
	Text          string            `json:"text"`
	DefaultSchema string            `json:"default_schema,omitempty"`
	Class         string            `json:"class,omitempty"`
	Tables        []string          `json:"tables,omitempty"`
	SQLMode       uint64            `json:"sql_mode"`
	TimeZone      string            `json:"time_zone,omitempty"`
	Timestamp     time.Time         `json:"timestamp,omitzero"`
	Variables     map[string]string `json:"variables,omitempty"`
}

// Entry is the head of an entry.
type Entry struct {
	Topic           string    `json:"topic"`
	Epoch           log.Epoch `json:"epoch"`
	AppendedAt      time.Time `json:"appended_at"`
	EndsTransaction bool      `json:"ends_transaction"`
	Bytes           int       `json:"bytes"`
	Transactions    int       `json:"transactions,omitempty"`
	FirstGTID       string    `json:"first_gtid,omitempty"`
	LastGTID        string    `json:"last_gtid,omitempty"`
	Continues       bool      `json:"continues,omitempty"`
	Continued       bool      `json:"continued,omitempty"`
	GTIDSet         string    `json:"gtid_set,omitempty"`
	Server          string    `json:"server,omitempty"`
	File            string    `json:"file,omitempty"`
	FilePosition    uint64    `json:"file_position,omitempty"`
}

// Image is a row's values as a JSON object in the order of the columns. Text is
// a string; integers and floats are numbers with all their digits; DECIMAL,
// unsigned BIGINT, dates and times are strings as the server writes them; bytes
// are {"base64": "…"}; MySQL's JSON stands as it is.
type Image struct {
	Table  *schema.Table
	Values []change.Value
}

// MarshalJSON writes the object.
func (m *Image) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, v := range m.Values {
		if i > 0 {
			b.WriteByte(',')
		}
		quoted(&b, m.Table.Columns[i].Name)
		b.WriteByte(':')
		value(&b, v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func value(b *bytes.Buffer, v change.Value) {
	switch v.Kind() {
	case change.Null:
		b.WriteString("null")
	case change.Integer, change.Ordinal:
		b.WriteString(strconv.FormatInt(v.Integer(), 10))
	case change.Single:
		float(b, float64(v.Single()), 32)
	case change.Real:
		float(b, v.Real(), 64)
	case change.Text:
		if utf8.Valid(v.Bytes()) {
			quoted(b, string(v.Bytes()))
		} else {
			raw(b, v.Bytes())
		}
	case change.Document:
		if json.Valid(v.Bytes()) {
			b.Write(v.Bytes())
		} else {
			raw(b, v.Bytes())
		}
	default:
		raw(b, v.Bytes())
	}
}

func float(b *bytes.Buffer, f float64, bits int) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		quoted(b, strconv.FormatFloat(f, 'g', -1, bits)) // no server stores one
		return
	}
	b.Write(strconv.AppendFloat(nil, f, 'g', -1, bits))
}

func raw(b *bytes.Buffer, v []byte) {
	b.WriteString(`{"base64":"`)
	b.WriteString(base64.StdEncoding.EncodeToString(v))
	b.WriteString(`"}`)
}

func quoted(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	// A string always encodes; the encoder ends it with a newline.
	_ = e.Encode(s)
	b.Truncate(b.Len() - 1)
}

// plain is a value as --key writes it: digits and text as they are, bytes in
// hexadecimal with 0x, NULL as null.
func plain(v change.Value) string {
	switch v.Kind() {
	case change.Text, change.Document:
		return string(v.Bytes())
	case change.Bytes:
		return "0x" + hexDigits(v.Bytes())
	}
	var b bytes.Buffer
	value(&b, v)
	return b.String()
}

func hexDigits(v []byte) string {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 2*len(v))
	for _, c := range v {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

func flagNames(f change.Flags) []string {
	var out []string
	for _, n := range []struct {
		bit  change.Flags
		name string
	}{
		{change.NoForeignKeyChecks, "no_foreign_key_checks"},
		{change.RelaxedUniqueChecks, "relaxed_unique_checks"},
		{change.CascadesLogged, "cascades_logged"},
	} {
		if f&n.bit != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

func statement(d *change.DDL) *Statement {
	s := &Statement{Text: d.Text, DefaultSchema: d.DefaultSchema, Class: d.Class, SQLMode: d.SQLMode,
		TimeZone: d.TimeZone, Timestamp: d.Timestamp, Variables: d.Variables}
	for _, t := range d.Tables {
		s.Tables = append(s.Tables, t.String())
	}
	return s
}
