package target

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/internal/server"
)

// TestCrossFlavour pairs tables of one flavour with tables of the other, and
// carries values over where they fit.
func TestCrossFlavour(t *testing.T) {
	my, ma := newBench(t, mysqltest.MySQL97), newBench(t, mysqltest.MariaDB118)
	for n, c := range []struct {
		from, to     *bench
		src, dst     string // of column v; a key column k is added
		value, check string // SQL on the source; expression on both
		refused      bool
	}{
		{from: my, to: ma, src: "JSON", dst: "JSON", value: `'{"a": 1.0, "b": "日本"}'`, check: "CAST(v AS CHAR CHARACTER SET utf8mb4)"},
		{from: my, to: ma, src: "JSON", dst: "TEXT", refused: true},
		{from: ma, to: my, src: "JSON", dst: "JSON", refused: true},
		{from: my, to: ma, src: "VECTOR(3)", dst: "VECTOR(3)", value: "TO_VECTOR('[1,2,3.5]')", check: "HEX(v)"},
		{from: ma, to: my, src: "VECTOR(3)", dst: "VECTOR(3)", value: "VEC_FromText('[1,2,3.5]')", check: "HEX(v)"},
		{from: my, to: ma, src: "VECTOR(3)", dst: "VECTOR(4)", refused: true},
		{from: my, to: ma, src: "GEOMETRY", dst: "GEOMETRY", value: "ST_GeomFromText('LINESTRING(0 0,1 1)', 4326)", check: "HEX(v)"},
		{from: ma, to: my, src: "POINT", dst: "POINT", value: "POINT(1,2)", check: "HEX(v)"},
		{from: my, to: ma, src: "GEOMETRYCOLLECTION", dst: "GEOMETRYCOLLECTION", value: "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')", check: "HEX(v)"},
		{from: ma, to: my, src: "UUID", dst: "BINARY(16)", value: "'12345678-9abc-1def-8123-456789ab0000'", check: "HEX(CAST(v AS BINARY))"},
		{from: my, to: ma, src: "VARCHAR(20) COLLATE utf8mb4_0900_ai_ci", dst: "VARCHAR(20) COLLATE utf8mb4_general_ci", value: "'é🚲'", check: "HEX(v)"},
		{from: my, to: ma, src: "VARCHAR(20) COLLATE utf8mb4_0900_ai_ci UNIQUE", dst: "VARCHAR(20) COLLATE utf8mb4_general_ci UNIQUE", refused: true},
		{from: my, to: ma, src: "VARCHAR(20) COLLATE utf8mb4_0900_ai_ci UNIQUE", dst: "VARCHAR(20) COLLATE utf8mb4_nopad_bin UNIQUE", value: "'é🚲 '", check: "HEX(v)"},
		{from: ma, to: my, src: "VARCHAR(20) COLLATE utf8mb4_general_ci UNIQUE", dst: "VARCHAR(20) COLLATE utf8mb4_general_ci UNIQUE", value: "'x'", check: "HEX(v)"},
		{from: my, to: ma, src: "YEAR", dst: "YEAR", value: "1999", check: "v+0"},
		{from: my, to: ma, src: "TIMESTAMP(6) NULL", dst: "TIMESTAMP(6) NULL", value: "'2020-01-01 00:00:00.5'", check: "v"},
		{from: ma, to: my, src: "INET6", dst: "VARBINARY(16)", value: "'::1'", check: "HEX(CAST(v AS BINARY))"},
	} {
		t.Run(fmt.Sprintf("%d %s into %s", n, c.src, c.dst), func(t *testing.T) {
			c.from.t, c.to.t = t, t
			table := fmt.Sprintf("x%d", n)
			c.from.exec("CREATE TABLE " + table + " (k INT PRIMARY KEY, v " + c.src + ")")
			c.to.exec("CREATE TABLE " + table + " (k INT PRIMARY KEY, v " + c.dst + ")")
			source := c.from.table(table)
			p, err := NewPlan(&source.Table, c.to.table(table))
			if c.refused || err != nil {
				if c.refused != errors.Is(err, ErrIncompatible) {
					t.Errorf("%v", err)
				}
				return
			}
			c.from.exec("INSERT INTO " + table + " VALUES (1, " + c.value + ")")
			im := c.from.images(c.from.plan(table, table), "FROM "+table)[0]
			c.to.mustApply(p, p.insert(im...))
			c.to.want("SELECT "+c.check+" FROM "+table, c.from.rows("SELECT "+c.check+" FROM "+table)...)
		})
	}
}

func TestNegativeZeroNeedsATargetThatKeepsIt(t *testing.T) {
	my, ma := newBench(t, mysqltest.MySQL97), newBench(t, mysqltest.MariaDB1011)
	my.exec("CREATE TABLE z (k INT PRIMARY KEY, v DOUBLE)", "INSERT INTO z VALUES (1, -0e0)")
	ma.exec("CREATE TABLE z (k INT PRIMARY KEY, v DOUBLE)")
	p, err := NewPlan(&my.table("z").Table, ma.table("z"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ma.apply(p, p.insert(my.images(my.plan("z", "z"), "FROM z")[0]...)); !errors.Is(err, ErrData) {
		t.Errorf("%v", err)
	}
}

func TestDDLCrossFlavour(t *testing.T) {
	my, ma := newBench(t, mysqltest.MySQL97), newBench(t, mysqltest.MariaDB118)
	r := ma.replay()
	r.options.Source = server.MySQL
	d := r.statement("CREATE TABLE c (id INT) START TRANSACTION")
	d.CharsetClient, d.CollationConnection, d.CollationServer = 255, 255, 255
	d.SQLMode = 1<<5 | 1<<21 | 1<<23 | 1<<24 | 1<<26 | 1<<30
	d.Variables = map[string]string{"default_collation_for_utf8mb4": "utf8mb4_0900_ai_ci"}
	if err := r.run(d); err != nil {
		t.Fatal(err)
	}
	ma.want("SHOW TABLES", "c")
	bad := r.statement("CREATE TABLE e (v VARCHAR(3) COLLATE utf8mb4_zh_0900_as_cs)")
	var e *DDLError
	if err := r.run(bad); !errors.As(err, &e) || e.Remedy == "" || e.Err == nil {
		t.Errorf("%v", err)
	}

	m := my.replay()
	m.options.Source = server.MariaDB
	d = m.statement("CREATE TABLE c (id INT)")
	d.SQLMode = 1<<28 | 1<<21 // NO_AUTO_CREATE_USER
	d.CharsetClient, d.CollationConnection, d.CollationServer = 45, 2304, 2304
	if err := m.run(d); err != nil {
		t.Fatal(err)
	}
	d = m.statement("CREATE TABLE o (id INT)")
	d.SQLMode = 1 << 9 // ORACLE
	if err := m.run(d); !errors.Is(err, ErrDDL) {
		t.Errorf("%v", err)
	}
	if err := m.run(m.statement("CREATE SEQUENCE s")); !errors.Is(err, ErrDDL) {
		t.Errorf("%v", err)
	}
	my.want("SHOW TABLES", "c")
}

// TestDDLWaitsForAnOrphan: a statement whose client is gone still runs; the next
// attempt waits for its end instead of starting it twice.
func TestDDLWaitsForAnOrphan(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		r := b.replay()
		b.exec("CREATE TABLE x (id INT PRIMARY KEY)", "INSERT INTO x VALUES (1)")
		other, err := OpenSession(context.Background(), b.db)
		if err != nil {
			t.Fatal(err)
		}
		defer Discard(other)
		for _, s := range []string{"USE " + b.schema, "BEGIN", "SELECT * FROM x"} {
			if _, err := other.ExecContext(context.Background(), s); err != nil {
				t.Fatal(err)
			}
		}
		d := r.statement("ALTER TABLE x ADD COLUMN v INT")
		r.offset++
		ctx, cancel := context.WithCancel(context.Background())
		first := make(chan error, 1) // owner: this test; one answer
		go func() { first <- NewDDLRunner(r.options).Run(ctx, change.Place{Offset: r.offset}, d) }()
		for len(b.rows("SELECT 1 FROM information_schema.PROCESSLIST WHERE STATE LIKE 'Waiting for table metadata lock%'")) == 0 {
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		second := make(chan error, 1) // owner: this test; one answer
		go func() { second <- r.again(d) }()
		if _, err := other.ExecContext(context.Background(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		b.want("SELECT * FROM x", "1|NULL")
	})
}
