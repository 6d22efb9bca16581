package mysqltest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Start runs a server of its own for a test. It ends, and its folder goes, with
// the test; when the test fails, the end of the server's log is shown. A server
// that is not installed fails the test.
func Start(t testing.TB, f Flavor, opts ...Option) *Server {
	t.Helper()
	o := Options{Flavor: f}
	for _, opt := range opts {
		opt(&o)
	}
	s, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s on %s, end of its log:\n%s", s.Flavor, s.Address, s.Log(30))
		}
		if err := s.Close(); err != nil {
			t.Errorf("close %s on %s: %v", s.Flavor, s.Address, err)
		}
	})
	return s
}

// shared holds one server per flavour and options for the whole test binary.
var shared struct {
	sync.Mutex
	servers map[string]*Server
	schemas int
}

// Shared returns the package's one server of a flavour (and options), starting
// it at first use, and the name of a fresh, empty schema that goes with the
// test. A test that changes global settings wants Start instead. The server
// ends with Main or StopShared, or else with the process.
func Shared(t testing.TB, f Flavor, opts ...Option) (*Server, string) {
	t.Helper()
	o := Options{Flavor: f}
	for _, opt := range opts {
		opt(&o)
	}
	shared.Lock()
	defer shared.Unlock()
	key := fmt.Sprint(f, slices.Sorted(maps.Keys(o.Settings)), o)
	s := shared.servers[key]
	if s == nil || s.PID() == 0 {
		var err error
		if s, err = Run(context.Background(), o); err != nil {
			t.Fatalf("%v", err)
		}
		if shared.servers == nil {
			shared.servers = map[string]*Server{}
		}
		shared.servers[key] = s
	}
	shared.schemas++
	schema := fmt.Sprintf("t%d", shared.schemas)
	s.Exec(t, "CREATE DATABASE "+schema)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s on %s, end of its log:\n%s", s.Flavor, s.Address, s.Log(30))
		}
		if _, err := s.DB().ExecContext(context.Background(), "DROP DATABASE IF EXISTS "+schema); err != nil {
			t.Errorf("drop %s on %s: %v", schema, s.Address, err)
		}
	})
	return s, schema
}

// StopShared ends the servers of Shared.
func StopShared() {
	shared.Lock()
	defer shared.Unlock()
	for k, s := range shared.servers {
		if err := s.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "close %s: %v\n", k, err)
		}
	}
	shared.servers = nil
}

// Main is a TestMain that ends the servers of Shared:
//
//	func TestMain(m *testing.M) { mysqltest.Main(m) }
//
// The checks run after that, such as goleak's, and fail the run.
func Main(m *testing.M, checks ...func() error) {
	code := m.Run()
	StopShared()
	for _, check := range checks {
		if err := check(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Exec runs statements one after the other on one connection, so that USE and
// SET hold for those that follow. An error fails the test.
func (s *Server) Exec(t testing.TB, statements ...string) {
	t.Helper()
	ctx := context.Background()
	c, err := s.DB().Conn(ctx)
	if err != nil {
		t.Fatalf("connect to %s: %v", s.Address, err)
	}
	// The connection's session state must not reach the pool's next user.
	defer discard(c)
	for _, q := range statements {
		if _, err := c.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %s: %v", s.Address, shorten(q), err)
		}
	}
}

// Null is how Query returns SQL's NULL.
const Null = "NULL"

// Query returns the rows of a query as text, NULL as Null. An error fails the test.
func (s *Server) Query(t testing.TB, query string, args ...any) [][]string {
	t.Helper()
	rows, err := s.DB().QueryContext(context.Background(), query, args...)
	if err != nil {
		t.Fatalf("%s: %s: %v", s.Address, shorten(query), err)
	}
	defer func() { _ = rows.Close() }() // scan reports rows.Err
	all, _, err := scan(rows)
	if err != nil {
		t.Fatalf("%s: %s: %v", s.Address, shorten(query), err)
	}
	return all
}

// Value returns the only column of the only row of a query.
func (s *Server) Value(t testing.TB, query string, args ...any) string {
	t.Helper()
	rows := s.Query(t, query, args...)
	if len(rows) != 1 || len(rows[0]) != 1 {
		t.Fatalf("%s: %s: want one value, got %v", s.Address, shorten(query), rows)
	}
	return rows[0][0]
}

func scan(rows *sql.Rows) ([][]string, []string, error) {
	cols, err := rows.Columns()
	if err != nil {
		return nil, nil, err
	}
	var all [][]string
	for rows.Next() {
		raw := make([]sql.NullString, len(cols))
		into := make([]any, len(cols))
		for i := range raw {
			into[i] = &raw[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, nil, err
		}
		row := make([]string, len(cols))
		for i, v := range raw {
			row[i] = Null
			if v.Valid {
				row[i] = v.String
			}
		}
		all = append(all, row)
	}
	return all, cols, rows.Err()
}

// discard closes the connection itself instead of returning it to its pool.
func discard(c *sql.Conn) {
	_ = c.Raw(func(any) error { return driver.ErrBadConn }) // makes the pool drop it
	_ = c.Close()
}

func shorten(q string) string {
	if len(q) > 300 {
		q = q[:300] + "…"
	}
	return strings.Join(strings.Fields(q), " ")
}
