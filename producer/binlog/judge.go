package binlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
	"github.com/twinspan/twinspan/schema/ddl"
)

// verdict is what happens to a statement.
type verdict uint8

const (
	verdictShip   verdict = iota // hand it over
	verdictIgnore                // no effect on the target
	verdictRows                  // changes rows: it must not be replayed
)

// judge decides about statements. What it ships keeps its class, so that the
// applier can have policies of its own (for accounts, say); what it ignores has
// no effect that a target needs.
//
//	definitions (tables, views, routines, accounts …)   ship
//	… of internal schemas only                          ignore
//	… of internal and other schemas in one statement    halt UNCLASSIFIED
//	temporary tables, maintenance, flush, set, admin    ignore
//	INSERT … CREATE TABLE … SELECT as a statement       halt STATEMENT
//	tablespaces from files (IMPORT, DISCARD)            halt UNCLASSIFIED
//	what the classifier can't tell                      halt UNCLASSIFIED
type judge struct {
	flavor     server.Flavor
	version    int // as executable comments count it
	collations schema.Collations
	internal   map[string]bool
	// convert asks the server to turn text of a character set into UTF-8: only
	// the server knows exactly how.
	convert func(ctx context.Context, charset, text string) (string, error)
	lower   bool // lower_case_table_names=1: names are in lower case but for statements
}

// decide fills in d's class and tables. changed are tables whose definition may
// be another one afterwards; all says that these are not known.
func (j *judge) decide(ctx context.Context, d *change.DDL) (v verdict, changed []schema.Name, all bool, err error) {
	dialect := ddl.Dialect{Flavor: j.flavor, Version: j.version, SQLMode: d.SQLMode}
	text := d.Text
	if c, ok := j.collations[int(d.CharsetClient)]; ok && !schema.IsUTF8(c.Charset) && !ascii(text) {
		if text, err = j.convert(ctx, c.Charset, text); err != nil {
			return 0, nil, false, err
		}
	} else if !ok && d.CharsetClient != 0 && !ascii(text) {
		return 0, nil, false, fmt.Errorf("%w: its character set (collation %d) is not known", ddl.ErrUnclassified, d.CharsetClient)
	}
	st, err := ddl.Classify(text, d.DefaultSchema, dialect)
	if err != nil {
		return 0, nil, false, err
	}
	d.Class, d.Tables = string(st.Class), j.spell(st.Tables)
	inside, outside := j.split(st)
	switch st.Class {
	case ddl.DML, ddl.CreateTableSelect:
		if st.Class == ddl.DML && inside && !outside {
			return verdictIgnore, nil, false, nil
		}
		return verdictRows, nil, false, nil
	case ddl.ImportTablespace:
		return 0, nil, false, fmt.Errorf("%w: it changes rows by way of files", ddl.ErrUnclassified)
	case ddl.Transaction, ddl.XA:
		return 0, nil, false, fmt.Errorf("%w: it ends or begins a transaction in a form that is not known", ddl.ErrUnclassified)
	}
	if !st.Class.ChangesDefinitions() {
		return verdictIgnore, nil, false, nil
	}
	if inside && outside {
		return 0, nil, false, fmt.Errorf("%w: it changes both internal and other schemas", ddl.ErrUnclassified)
	}
	if inside {
		return verdictIgnore, nil, false, nil
	}
	if !st.Class.ChangesTables() {
		return verdictShip, nil, false, nil
	}
	changed = j.spell(st.Changed)
	return verdictShip, changed, st.Class == ddl.DropDatabase || len(changed) == 0, nil
}

// split tells whether the statement is about something in internal schemas, and
// in others.
func (j *judge) split(st ddl.Statement) (inside, outside bool) {
	look := func(s string) {
		if s == "" {
			return
		}
		if low := strings.ToLower(s); j.lower || alwaysLower[low] {
			s = low
		}
		if j.internal[s] {
			inside = true
		} else {
			outside = true
		}
	}
	names := st.Changed
	if st.Class == ddl.DML {
		names = st.Tables
	}
	for _, n := range names {
		look(n.Schema)
	}
	look(st.Object.Schema)
	return inside, outside
}

// alwaysLower are schemas whose names no server tells apart by case.
var alwaysLower = map[string]bool{"information_schema": true, "performance_schema": true}

func (j *judge) spell(names []schema.Name) []schema.Name {
	if !j.lower {
		return names
	}
	names = slices.Clone(names)
	for i := range names {
		names[i].Schema, names[i].Table = strings.ToLower(names[i].Schema), strings.ToLower(names[i].Table)
	}
	return names
}

// convertText is judge.convert by way of the stream's server.
func (s *Stream) convertText(ctx context.Context, charset, text string) (string, error) {
	var out string
	q := "SELECT CONVERT(_" + charset + " 0x" + hex.EncodeToString([]byte(text)) + " USING utf8mb4)"
	if err := s.db.QueryRowContext(ctx, q).Scan(&out); err != nil {
		if server.ErrorNumber(err) != 0 {
			err = fmt.Errorf("%w: its character set is %s: %w", ddl.ErrUnclassified, charset, err)
		}
		return "", err
	}
	// What can't be converted comes out as '?', which is never a part of a
	// character in the sets a client may use.
	if strings.Count(out, "?") != strings.Count(text, "?") {
		return "", fmt.Errorf("%w: it is not valid in its character set %s", ddl.ErrUnclassified, charset)
	}
	return out, nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
