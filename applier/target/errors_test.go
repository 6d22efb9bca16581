package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/twinspan/twinspan/applier/rowevent"
	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

// TestClassesOfErrors: what is the server's trouble is never taken for a row's, for
// then its statement would be done again row by row, perhaps after the server has
// undone the whole transaction, and the row be parked.
func TestClassesOfErrors(t *testing.T) {
	for _, c := range []struct {
		number uint16
		retry  bool
		class  failure
	}{
		{1205, true, failOther}, {1206, true, failOther}, {1213, true, failOther}, // undo all, or may
		{1026, true, failOther}, {1878, true, failOther}, {1037, true, failOther}, {1038, true, failOther}, {1041, true, failOther},
		{1047, true, failOther}, {1637, true, failOther}, {3101, true, failOther},
		{1197, false, failOther}, {1534, false, failOther}, {1598, false, failOther}, {1785, false, failOther},
		{1036, false, failOther}, {1194, false, failOther}, {1812, false, failOther}, {3098, false, failOther}, {1146, false, failOther},
		{1062, false, failDuplicate}, {1586, false, failDuplicate},
		{1264, false, failRow}, {1406, false, failRow}, {1452, false, failRow}, {3819, false, failRow}, {1644, false, failRow}, {1713, false, failRow},
	} {
		err := fmt.Errorf("wrapped: %w", &mysql.MySQLError{Number: c.number})
		if got := Retryable(err); got != c.retry {
			t.Errorf("%d: retryable %t", c.number, got)
		}
		if got := classify(err); got != c.class {
			t.Errorf("%d: class %d, want %d", c.number, got, c.class)
		}
	}
}

// TestHandlerErrorOfRowEventsIsADoubt: a server that says no more of a row event
// than that a handler failed is asked again in SQL, which names the reason.
func TestHandlerErrorOfRowEventsIsADoubt(t *testing.T) {
	b := newBench(t, mysqltest.MariaDB1011)
	b.events, b.wary = true, true
	b.exec("CREATE TABLE l (id INT PRIMARY KEY, v TIMESTAMP NULL)")
	p := b.plan("l", "l")
	// The image of a server whose TIMESTAMP reaches 2106.
	columns := []rowevent.Column{{Target: &p.table.Columns[0], Source: 0}, {Target: &p.table.Columns[1], Source: 1, Far: true}}
	var err error
	if p.events, err = rowevent.New(server.MariaDB, p.table.Name, columns); err != nil {
		t.Fatal(err)
	}
	_, err = b.apply(p, p.insert(change.IntegerOf(1), change.TextOf([]byte("2090-01-02 03:04:05"))))
	if server.ErrorNumber(b.writer.Doubt()) != 1030 {
		t.Fatalf("row events were to be refused with 1030: %v", b.writer.Doubt())
	}
	if !errors.Is(err, ErrData) || Retryable(err) {
		t.Errorf("SQL was to name the row: %v", err)
	}
}

// refusing fails statements that begin with a text, from the nth on.
type refusing struct {
	*sql.Conn
	text string
	nth  int
}

func (r *refusing) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if strings.HasPrefix(query, r.text) {
		if r.nth--; r.nth <= 0 {
			return nil, &mysql.MySQLError{Number: 1227, Message: "refused by the test"}
		}
	}
	return r.Conn.ExecContext(ctx, query, args...)
}

// TestUndecidedSession: a session that may not use row events is good for SQL; one
// that was left without a decided gtid_next is good for nothing, and given up.
func TestUndecidedSession(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name   string
		conn   refusing
		usable bool
	}{
		{"may not decide", refusing{text: "SET SESSION gtid_next", nth: 1}, true},
		{"may not send", refusing{text: "BINLOG", nth: 1}, true},
		{"may not decide again", refusing{text: "SET SESSION gtid_next", nth: 2}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, mysqltest.MySQL97)
			b.exec("CREATE TABLE u (id INT PRIMARY KEY)")
			c.conn.Conn = b.conn
			w, err := NewWriter(ctx, &c.conn, b.info)
			_, broken := b.conn.ExecContext(ctx, "INSERT INTO u VALUES (1)")
			if (err == nil) != c.usable || (broken == nil) != c.usable {
				t.Fatalf("NewWriter: %v; the session afterwards: %v", err, broken)
			}
			if c.usable && w.Reason() == "" {
				t.Error("no reason")
			}
		})
	}
}
