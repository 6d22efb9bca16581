package binlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema/ddl"
)

const remedyUnclassified = "apply the statement's effect to the target by hand if it has any there, then skip this GTID"

// query takes in a query event: the bounds of a transaction, a DDL, or a change
// logged as a statement.
func (a *assembler) query(ctx context.Context, e *event) error {
	if err := a.inside(e); err != nil {
		return err
	}
	if isPlainBegin(e) {
		a.tx.begun = true
		return nil
	}
	ev, err := a.reader.parse(e)
	if err != nil {
		return err
	}
	q, ok := ev.(*replication.QueryEvent)
	if !ok {
		return fmt.Errorf("%w: %s %s", ErrDamaged, e.typ, a.where(e))
	}
	text := string(q.Query)
	word, rest := firstWord(text)
	switch word {
	case "BEGIN":
		if isBegin(rest) {
			a.tx.begun = true
			return nil
		}
	case "COMMIT":
		return a.end(ctx)
	case "ROLLBACK":
		if second, _ := firstWord(rest); second == "TO" {
			return a.rolledBack(e, text, "a part of the transaction")
		}
		if err := a.rolledBack(e, text, "the transaction"); err != nil {
			return err
		}
		return a.end(ctx)
	case "SAVEPOINT", "RELEASE":
		return nil
	case "XA":
		return a.xaQuery(ctx, e, rest)
	}
	if a.tx.skip {
		if a.tx.begun {
			return nil
		}
		return a.end(ctx)
	}
	if err := a.statement(ctx, e, q, text); err != nil {
		return err
	}
	if a.tx.begun {
		return nil
	}
	return a.end(ctx)
}

// isPlainBegin tells the BEGIN that all but a few transactions start with,
// without the work of a statement. What it does not know is a statement. The
// event: thread (4 bytes), duration (4), length of the schema's name (1), error
// (2), length of the session (2), session, schema, a zero, text.
func isPlainBegin(e *event) bool {
	f := fieldReader{b: e.body}
	f.take(8)
	schema := int(f.u8())
	f.take(2)
	f.take(int(f.u16()) + schema + 1)
	return e.typ == replication.QUERY_EVENT && !f.short && string(f.b[f.at:]) == "BEGIN"
}

// rolledBack: a transaction that changed tables of an engine without
// transactions is logged with its ROLLBACK, since those changes stay. Which
// rows those are, the binlog does not say.
func (a *assembler) rolledBack(e *event, text, what string) error {
	if a.tx.skip || a.tx.rows == 0 && a.tx.statements == 0 {
		return nil
	}
	return haltf(HaltUnclassified, "tables of engines with and without transactions were changed in one transaction: bring the target in line, "+
		"skip this GTID, and convert those tables to InnoDB", "%s was rolled back after %d rows (%s), %s", what, a.tx.rows, head(text), a.where(e))
}

// statement hands a statement over, drops one without effect on the target, or
// halts on one that may not be replayed.
func (a *assembler) statement(ctx context.Context, e *event, q *replication.QueryEvent, text string) error {
	session, err := parseContext(q.StatusVars)
	if err != nil {
		return haltf(HaltDecode, "this server writes a session context that is not known: report its version; "+remedyUnclassified,
			"%s, %s", head(text), a.where(e)).because(err)
	}
	d := &change.DDL{Text: text, DefaultSchema: string(q.Schema)}
	if e.flags&replication.LOG_EVENT_SUPPRESS_USE_F != 0 {
		// Like CREATE DATABASE: the schema it ran in need not exist.
		d.DefaultSchema = ""
	}
	session.fill(d)
	d.Timestamp = time.Unix(int64(e.timestamp), int64(session.Microseconds)*1000).UTC()
	if a.flavor == server.MariaDB && session.AlterPhase&(alterStart|alterRollback) != 0 {
		// The ALTER itself is the one that is committed later. Until then
		// the table has its old definition, and so have its rows.
		return nil
	}
	v, changed, all, err := a.judge.decide(ctx, d)
	if err != nil && !errors.Is(err, ddl.ErrUnclassified) {
		return err
	} else if err != nil {
		return haltf(HaltUnclassified, remedyUnclassified, "%s, %s", head(text), a.where(e)).because(err)
	}
	switch v {
	case verdictIgnore:
		a.count.Ignored.Add(1)
		return nil
	case verdictRows:
		return haltf(HaltStatement, remedyRow, "a change was logged as a statement (%s), %s", head(text), a.where(e))
	}
	if q.ErrorCode != 0 {
		return haltf(HaltUnclassified, remedyUnclassified, "a statement failed half-way with error %d at its source (%s), %s", q.ErrorCode, head(text), a.where(e))
	}
	a.tables.forget(changed, all)
	a.tx.statements++
	a.count.Statements.Add(1)
	return fromSink(a.sink.DDL(d))
}

// firstWord is the first keyword in capitals, and what follows it. Comments
// before it are passed over.
func firstWord(s string) (word, rest string) {
	for {
		s = strings.TrimLeft(s, " \t\r\n;")
		switch {
		case strings.HasPrefix(s, "/*") && !strings.HasPrefix(s, "/*!") && !strings.HasPrefix(s, "/*M!"):
			_, after, ok := strings.Cut(s[2:], "*/")
			if !ok {
				return "", ""
			}
			s = after
			continue
		case strings.HasPrefix(s, "#"), strings.HasPrefix(s, "-- "), strings.HasPrefix(s, "--\n"):
			_, after, ok := strings.Cut(s, "\n")
			if !ok {
				return "", ""
			}
			s = after
			continue
		}
		break
	}
	i := 0
	for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z' || s[i] == '_') {
		i++
	}
	return strings.ToUpper(s[:i]), s[i:]
}

// isBegin tells the start of a transaction from MariaDB's BEGIN NOT ATOMIC, which
// is never logged as such but costs nothing to tell apart.
func isBegin(rest string) bool {
	word, _ := firstWord(rest)
	return word == "" || word == "WORK"
}

// head is the start of a statement, for messages.
func head(text string) string {
	const most = 120
	text = strings.ToValidUTF8(strings.Join(strings.Fields(text), " "), "?")
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}
