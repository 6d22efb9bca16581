package workload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/internal/server"
)

// Differences compares schemas of two servers by the plainest means there are:
// every row of every table as bytes, tables as multisets of rows, definitions as
// the servers print them. It shares no code with twinspan's own verification, on
// purpose, and holds a digest of every row in memory. The result has one line per
// difference, at most 100.
func Differences(ctx context.Context, a, b *sql.DB, schemas []string) ([]string, error) {
	var found []string
	for _, s := range schemas {
		ta, err := objects(ctx, a, s)
		if err != nil {
			return nil, err
		}
		tb, err := objects(ctx, b, s)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(keys(ta, tb)) {
			if ta[name] != tb[name] {
				found = append(found, fmt.Sprintf("%s.%s: %s here, %s there", s, name, or(ta[name], "missing"), or(tb[name], "missing")))
				continue
			}
			d, err := object(ctx, a, b, s, name, ta[name])
			if err != nil {
				return nil, err
			}
			found = append(found, d...)
			if len(found) >= 100 {
				return append(found[:100], "… and perhaps more"), nil
			}
		}
	}
	return found, nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func keys(maps ...map[string]string) func(yield func(string) bool) {
	all := map[string]bool{}
	for _, m := range maps {
		for k := range m {
			all[k] = true
		}
	}
	return func(yield func(string) bool) {
		for k := range all {
			if !yield(k) {
				return
			}
		}
	}
}

// objects of a schema: tables and views, name to kind.
func objects(ctx context.Context, db *sql.DB, schema string) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = ?", schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	m := map[string]string{}
	for rows.Next() {
		var n, k string
		if err := rows.Scan(&n, &k); err != nil {
			return nil, err
		}
		m[n] = k
	}
	return m, rows.Err()
}

func object(ctx context.Context, a, b *sql.DB, schema, name, kind string) ([]string, error) {
	full := server.QuoteName(schema) + "." + server.QuoteName(name)
	da, err := definition(ctx, a, full, kind)
	if err != nil {
		return nil, err
	}
	db, err := definition(ctx, b, full, kind)
	if err != nil {
		return nil, err
	}
	var found []string
	if da != db {
		found = append(found, fmt.Sprintf("%s.%s: defined as\n%s\nand\n%s", schema, name, da, db))
	}
	if kind != "BASE TABLE" {
		return found, nil
	}
	cols, err := columnNames(ctx, a, schema, name)
	if err != nil {
		return nil, err
	}
	ra, err := digests(ctx, a, full, cols)
	if err != nil {
		return nil, err
	}
	rb, err := digests(ctx, b, full, cols)
	if err != nil {
		if server.ErrorNumber(err) == 1054 { // a column is missing there: said above
			return found, nil
		}
		return nil, err
	}
	for k, va := range ra {
		if vb := rb[k]; va.n != vb.n {
			found = append(found, fmt.Sprintf("%s.%s: %d times here, %d there: %s", schema, name, va.n, vb.n, va.text))
		}
	}
	for k, vb := range rb {
		if _, ok := ra[k]; !ok {
			found = append(found, fmt.Sprintf("%s.%s: 0 times here, %d there: %s", schema, name, vb.n, vb.text))
		}
	}
	if len(found) > 12 {
		found = append(found[:12], fmt.Sprintf("%s.%s: … %d differences in this table", schema, name, len(found)))
	}
	return found, nil
}

// definition is SHOW CREATE without the counters that rows move.
func definition(ctx context.Context, db *sql.DB, full, kind string) (string, error) {
	what := "TABLE"
	if kind == "VIEW" {
		what = "VIEW"
	}
	rows, err := db.QueryContext(ctx, "SHOW CREATE "+what+" "+full)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return "", err
	}
	values := make([]sql.RawBytes, len(cols))
	into := make([]any, len(cols))
	for i := range values {
		into[i] = &values[i]
	}
	var text string
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return "", err
		}
		text = string(values[1])
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if i := strings.LastIndex(text, " AUTO_INCREMENT="); i >= 0 && i > strings.LastIndex(text, "\n)") {
		rest := text[i+len(" AUTO_INCREMENT="):]
		text = text[:i] + strings.TrimLeft(rest, "0123456789")
	}
	return text, nil
}

// columnNames includes the invisible ones.
func columnNames(ctx context.Context, db *sql.DB, schema, name string) ([]string, error) {
	rows, err := db.QueryContext(ctx, "SELECT column_name FROM information_schema.columns WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position", schema, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var cols []string
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			return nil, err
		}
		cols = append(cols, c)
	}
	return cols, rows.Err()
}

type counted struct {
	n    int
	text string // the beginning of the row, for people
}

// digests reads a whole table. Text is read in its own charset, so that two
// encodings of one character differ.
func digests(ctx context.Context, db *sql.DB, full string, cols []string) (map[[32]byte]counted, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SET character_set_results = NULL, time_zone = '+00:00'"); err != nil {
		return nil, err
	}
	quoted := make([]string, len(cols))
	for i, c := range cols {
		quoted[i] = server.QuoteName(c)
	}
	rows, err := conn.QueryContext(ctx, "SELECT "+strings.Join(quoted, ", ")+" FROM "+full)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]sql.RawBytes, len(cols))
	into := make([]any, len(cols))
	for i := range values {
		into[i] = &values[i]
	}
	all := map[[32]byte]counted{}
	var row bytes.Buffer
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row.Reset()
		for _, v := range values {
			length := int64(len(v))
			if v == nil {
				length = -1
			}
			row.Write(binary.BigEndian.AppendUint64(nil, uint64(length)))
			row.Write(v)
		}
		k := sha256.Sum256(row.Bytes())
		c := all[k]
		c.n++
		if c.text == "" {
			c.text = rowText(cols, values)
		}
		all[k] = c
	}
	if _, err := conn.ExecContext(ctx, "SET character_set_results = utf8mb4"); err != nil {
		return nil, err
	}
	return all, rows.Err()
}

func rowText(cols []string, values []sql.RawBytes) string {
	var b strings.Builder
	for i, v := range values {
		if b.Len() > 600 {
			b.WriteString(" …")
			break
		}
		switch {
		case v == nil:
			fmt.Fprintf(&b, " %s=NULL", cols[i])
		case len(v) > 60:
			fmt.Fprintf(&b, " %s=%q…(%d bytes)", cols[i], v[:60], len(v))
		default:
			fmt.Fprintf(&b, " %s=%q", cols[i], v)
		}
	}
	return strings.TrimSpace(b.String())
}
