package target

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

func TestMain(m *testing.M) {
	// A dependency of vitess starts this one when it is imported.
	glog := goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon")
	mysqltest.Main(m, func() error { return goleak.Find(glog) })
}

// bench is one server with a session as lanes have it, and a schema of its own.
type bench struct {
	t       *testing.T
	server  *mysqltest.Server
	schema  string
	db      *sql.DB
	conn    *sql.Conn
	catalog *Catalog
	info    server.Info
	// events: apply goes through writer, and must be able to use row events
	// for every table that has no reason not to.
	events bool
	wary   bool // row events may be refused where SQL finds nothing
	writer *Writer
	turns  int // of native, which opens every other transaction itself
}

// lead is how such a transaction begins, in place of the move of a lane's place.
const lead = "UPDATE opener SET n = n + 1"

func (b *bench) opener() {
	b.t.Helper()
	b.exec("CREATE TEMPORARY TABLE IF NOT EXISTS opener (n INT)", "DELETE FROM opener", "INSERT INTO opener VALUES (0)")
}

// onEach runs a test on every flavour.
func onEach(t *testing.T, f func(t *testing.T, b *bench)) {
	for _, flavor := range mysqltest.Flavors() {
		t.Run(string(flavor), func(t *testing.T) { f(t, newBench(t, flavor)) })
	}
}

// inBothWays runs a test on every flavour, and again with row events.
func inBothWays(t *testing.T, f func(t *testing.T, b *bench)) {
	for _, flavor := range mysqltest.Flavors() {
		for _, way := range []string{"SQL", "events"} {
			t.Run(string(flavor)+"/"+way, func(t *testing.T) {
				b := newBench(t, flavor)
				b.events = way == "events"
				f(t, b)
			})
		}
	}
}

// eventful is a writer that uses row events, for however few rows.
func (b *bench) eventful() *Writer {
	b.t.Helper()
	w, err := NewWriter(context.Background(), b.conn, b.info)
	if err != nil || w.Reason() != "" {
		b.t.Fatal(w.Reason(), err)
	}
	w.few = 1
	return w
}

func newBench(t *testing.T, flavor mysqltest.Flavor) *bench {
	t.Helper()
	ctx := context.Background()
	b := &bench{t: t}
	b.server, b.schema = mysqltest.Shared(t, flavor)
	var err error
	if b.db, err = Open(b.server.Endpoint()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.db.Close() })
	if b.conn, err = OpenSession(ctx, b.db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.conn.Close() })
	if b.info, err = server.Detect(ctx, b.db); err != nil {
		t.Fatal(err)
	}
	collations, err := schema.LoadCollations(ctx, b.db)
	if err != nil {
		t.Fatal(err)
	}
	b.catalog = NewCatalog(b.info, collations)
	b.exec("USE " + b.schema)
	return b
}

// exec runs statements on the session.
func (b *bench) exec(statements ...string) {
	b.t.Helper()
	for _, s := range statements {
		if _, err := b.conn.ExecContext(context.Background(), s); err != nil {
			b.t.Fatalf("%.300s: %v", s, err)
		}
	}
}

// rows are a query's rows, values joined with "|", NULL as "NULL".
func (b *bench) rows(query string) []string {
	b.t.Helper()
	rows, err := b.conn.QueryContext(context.Background(), query)
	if err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	cols, _ := rows.Columns()
	var out []string
	for rows.Next() {
		raw, err := scanRaw(rows, len(cols))
		if err != nil {
			b.t.Fatal(err)
		}
		var s []string
		for _, r := range raw {
			if r == nil {
				s = append(s, "NULL")
			} else {
				s = append(s, string(r))
			}
		}
		out = append(out, strings.Join(s, "|"))
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bench) want(query string, want ...string) {
	b.t.Helper()
	got := b.rows(query)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		b.t.Errorf("%s\n got %q\nwant %q", query, got, want)
	}
}

func (b *bench) table(name string) *Table {
	b.t.Helper()
	b.catalog.ForgetAll()
	t, err := b.catalog.Table(context.Background(), b.conn, schema.Name{Schema: b.schema, Table: name})
	if err != nil {
		b.t.Fatal(err)
	}
	return t
}

// plan writes rows of the source table src into the table dst.
func (b *bench) plan(src, dst string) *Plan {
	b.t.Helper()
	p, err := NewPlan(&b.table(src).Table, b.table(dst))
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// images reads a table's rows as row images of the plan's source.
func (b *bench) images(p *Plan, query string) [][]change.Value {
	b.t.Helper()
	list := []byte("SELECT ")
	for i := range p.source.Columns {
		if i > 0 {
			list = append(list, ',')
		}
		list = p.selectExpression(list, i)
	}
	rows, err := b.conn.QueryContext(context.Background(), string(list)+" "+query)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	var out [][]change.Value
	for rows.Next() {
		raw, err := scanRaw(rows, len(p.source.Columns))
		if err != nil {
			b.t.Fatal(err)
		}
		image := make([]change.Value, len(raw))
		for i := range raw {
			if image[i], err = p.readValue(i, raw[i]); err != nil {
				b.t.Fatalf("%s: %v", p.source.Columns[i].Name, err)
			}
		}
		out = append(out, image)
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// apply runs rows in a transaction of their own.
func (b *bench) apply(p *Plan, rows ...change.Row) (Outcome, error) {
	b.t.Helper()
	var out Outcome
	var err error
	if b.events && b.writer == nil {
		if b.writer, err = NewWriter(context.Background(), b.conn, b.info); err != nil || b.writer.Reason() != "" {
			b.t.Fatalf("no row events: %s: %v", b.writer.Reason(), err)
		}
		b.writer.few = 1
		b.opener()
	}
	b.exec("BEGIN")
	if b.events {
		out, err = b.native(p, rows)
	} else {
		out, err = p.Apply(context.Background(), b.conn, rows)
	}
	if err != nil {
		b.exec("ROLLBACK")
		return out, err
	}
	b.exec("COMMIT")
	return out, nil
}

// native applies rows through a writer.
func (b *bench) native(p *Plan, rows []change.Row) (Outcome, error) {
	b.t.Helper()
	w := b.writer
	w.rest = 0
	runs := []Run{{Plan: p, Rows: rows}}
	ctx := context.Background()
	if len(rows) > 0 && w.Together(runs) == 1 {
		var out Outcome
		var done bool
		var err error
		if b.turns++; b.turns%2 == 0 && w.Opens(runs) {
			out, _, done, err = w.TryAll(ctx, lead, runs)
		} else {
			out, done, err = w.Try(ctx, runs)
		}
		if done || err != nil {
			return out, err
		}
		out, err = p.Apply(ctx, b.conn, rows)
		if err == nil && !out.Doubt() && !b.wary {
			b.t.Errorf("%s: row events were refused: %v", p.table.Name, w.Doubt())
		}
		return out, err
	}
	return p.Apply(ctx, b.conn, rows)
}

func (b *bench) mustApply(p *Plan, rows ...change.Row) Outcome {
	b.t.Helper()
	out, err := b.apply(p, rows...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (p *Plan) insert(image ...change.Value) change.Row {
	return change.Row{Table: p.source, Op: change.Insert, After: image}
}

func (p *Plan) update(before, after []change.Value) change.Row {
	return change.Row{Table: p.source, Op: change.Update, Before: before, After: after}
}

func (p *Plan) remove(image ...change.Value) change.Row {
	return change.Row{Table: p.source, Op: change.Delete, Before: image}
}

// image makes values: ints are Integer, strings Text, nil Null, the rest as is.
func image(values ...any) []change.Value {
	out := make([]change.Value, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case nil:
		case int:
			out[i] = change.IntegerOf(int64(v))
		case string:
			out[i] = change.TextOf([]byte(v))
		case float64:
			out[i] = change.RealOf(v)
		case []byte:
			out[i] = change.BytesOf(v)
		case change.Value:
			out[i] = v
		default:
			panic(fmt.Sprintf("image of %T", v))
		}
	}
	return out
}

// loggedRows are the bytes of the row images that the server's newest binlog has
// of INSERTs into a table: what a replica would store, bit for bit.
func (b *bench) loggedRows(table string) []byte {
	b.t.Helper()
	files, err := filepath.Glob(filepath.Join(b.server.Dir, "data", "binlog.[0-9]*[0-9]"))
	if err != nil || len(files) == 0 {
		b.t.Fatalf("no binlog in %s: %v", b.server.Dir, err)
	}
	sort.Strings(files)
	data, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		b.t.Fatal(err)
	}
	var out []byte
	ours := map[uint64]bool{}
	for at := 4; at+19 <= len(data); {
		typ, size := data[at+4], int(binary.LittleEndian.Uint32(data[at+9:]))
		if size < 19 || at+size > len(data) {
			break
		}
		body := data[at+19 : at+size-4] // CRC32 at the end
		if b.info.Flavor == server.MariaDB && b.rawNoChecksum() {
			body = data[at+19 : at+size]
		}
		at += size
		switch typ {
		case 19: // table map
			id := uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
			db := string(body[9 : 9+body[8]])
			rest := body[9+int(body[8])+1:]
			name := string(rest[1 : 1+rest[0]])
			ours[id] = db == b.schema && name == table
		case 23, 30: // write rows, version 1 and 2
			id := uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
			if !ours[id] {
				continue
			}
			rest := body[8:]
			if typ == 30 {
				rest = rest[binary.LittleEndian.Uint16(rest):]
			}
			columns := int(rest[0])
			if rest = rest[1:]; columns == 0xfc { // in the next two bytes
				columns, rest = int(binary.LittleEndian.Uint16(rest)), rest[2:]
			}
			out = append(out, rest[(columns+7)/8:]...)
		}
	}
	return out
}

func (b *bench) rawNoChecksum() bool {
	return len(b.rows("SELECT 1 FROM DUAL WHERE @@global.binlog_checksum = 'NONE'")) == 1
}
