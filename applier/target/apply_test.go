package target

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/schema"
)

// TestIntents: what must be so afterwards is so, whatever was there before.
func TestIntents(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE merged (id INT PRIMARY KEY, v VARCHAR(20))", "CREATE TABLE keyed (id INT PRIMARY KEY, v VARCHAR(20) UNIQUE)")
		for _, table := range []string{"merged", "keyed"} {
			t.Run(table, func(t *testing.T) {
				sub := *b
				sub.t = t
				p := sub.plan(table, table)
				all := "SELECT * FROM " + table + " ORDER BY id"
				check := func(out Outcome, want string) {
					t.Helper()
					if got := fmt.Sprintf("found %d missing %d gone %d", out.InsertFound, out.UpdateMissing, out.DeleteMissing); got != want {
						t.Errorf("outcome %s, want %s", got, want)
					}
				}
				check(sub.mustApply(p, p.insert(image(1, "a")...), p.insert(image(2, "b")...)), "found 0 missing 0 gone 0")
				check(sub.mustApply(p, p.insert(image(1, "a2")...), p.insert(image(3, "c")...)), "found 1 missing 0 gone 0")
				sub.want(all, "1|a2", "2|b", "3|c")
				check(sub.mustApply(p, p.update(image(3, "c"), image(3, "c2"))), "found 0 missing 0 gone 0")
				check(sub.mustApply(p, p.update(image(9, "x"), image(9, "y"))), "found 0 missing 1 gone 0")
				check(sub.mustApply(p, p.update(image(8, "x"), image(10, "z"))), "found 0 missing 1 gone 0")
				check(sub.mustApply(p, p.remove(image(9, "y")...), p.remove(image(77, "n")...)), "found 0 missing 0 gone 1")
				sub.want(all, "1|a2", "2|b", "3|c2", "10|z")
				// A key that moves onto a row that should not be there.
				check(sub.mustApply(p, p.update(image(1, "a2"), image(2, "moved"))), "found 1 missing 0 gone 0")
				sub.want(all, "2|moved", "3|c2", "10|z")
				// One transaction: swap by a third key, then delete and insert again.
				sub.mustApply(p, p.update(image(2, "moved"), image(-1, "moved")), p.update(image(3, "c2"), image(2, "c2")), p.update(image(-1, "moved"), image(3, "moved")),
					p.remove(image(10, "z")...), p.insert(image(10, "again")...), p.update(image(10, "again"), image(10, "last")),
					p.insert(image(11, "brief")...), p.remove(image(11, "brief")...))
				sub.want(all, "2|c2", "3|moved", "10|last")
			})
		}
	})
}

func TestConflicts(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE u (id INT PRIMARY KEY, u VARCHAR(20), n INT NULL UNIQUE, UNIQUE KEY by_u (u))")
		p := b.plan("u", "u")
		b.mustApply(p, p.insert(image(1, "a", nil)...), p.insert(image(2, "b", nil)...))
		for name, row := range map[string]change.Row{
			"insert": p.insert(image(3, "A", nil)...),
			"update": p.update(image(2, "b", nil), image(2, "a", nil)),
			"move":   p.update(image(2, "b", nil), image(5, "a", nil)),
			"absent": p.update(image(7, "q", nil), image(7, "a", nil)),
			"onto":   p.insert(image(2, "a", nil)...),
		} {
			_, err := b.apply(p, p.insert(image(50, "x", 50)...), row)
			var c *Conflict
			if !errors.As(err, &c) || !errors.Is(err, ErrConflict) {
				t.Fatalf("%s: %v", name, err)
			}
			if c.Index != 1 || c.Key != "by_u" || c.HolderIdentity != " (id=1)" || len(c.Holder) != 3 || string(c.Holder[1].Bytes()) != "a" || c.Holder[0].Integer() != 1 {
				t.Errorf("%s: %+v", name, c)
			}
		}
		b.want("SELECT * FROM u ORDER BY id", "1|a|NULL", "2|b|NULL")
		// The conflict of apply.md: a late INSERT must not remove the other row.
		b.exec("DELETE FROM u")
		b.mustApply(p, p.insert(image(2, "a", nil)...))
		if _, err := b.apply(p, p.insert(image(1, "a", nil)...)); !errors.Is(err, ErrConflict) {
			t.Errorf("%v", err)
		}
		b.want("SELECT * FROM u", "2|a|NULL")
	})
}

// TestCollatedIdentities: bytes differ, the database sees one row.
func TestCollatedIdentities(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE c (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)")
		p := b.plan("c", "c")
		b.mustApply(p, p.insert(image("a", 1)...))
		b.mustApply(p, p.remove(image("a", 1)...), p.insert(image("A", 2)...))
		b.want("SELECT * FROM c", "A|2")
		b.mustApply(p, p.update(image("A", 2), image("á", 3)))
		b.want("SELECT * FROM c", "á|3")
		b.mustApply(p, p.remove(image("á", 3)...), p.insert(image("A ", 4)...), p.remove(image("A ", 4)...), p.insert(image("a", 5)...))
		b.want("SELECT * FROM c", "a|5")
		b.mustApply(p, p.update(image("a", 5), image("B", 5)), p.insert(image("A", 6)...))
		b.want("SELECT * FROM c ORDER BY k", "A|6", "B|5")

		b.exec("CREATE TABLE pre (k VARCHAR(200) COLLATE utf8mb4_bin NOT NULL, v INT, PRIMARY KEY (k(3)))")
		q := b.plan("pre", "pre")
		if q.mode != modeOrdered || !q.prefixed {
			t.Errorf("prefix key merges")
		}
		b.mustApply(q, q.insert(image("abcdef", 1)...), q.insert(image("abd", 2)...))
		b.mustApply(q, q.insert(image("abcxyz", 3)...)) // the same prefix
		b.want("SELECT * FROM pre ORDER BY k", "abcxyz|3", "abd|2")
		b.mustApply(q, q.update(image("abcdef", 1), image("zbc", 4)), q.remove(image("abd-", 2)...), q.remove(image("nothing", 2)...))
		b.want("SELECT * FROM pre ORDER BY k", "zbc|4")
	})
}

func TestMultiset(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE m (a INT, s VARCHAR(20) COLLATE utf8mb4_general_ci, f DOUBLE)")
		p := b.plan("m", "m")
		if p.Identity() != nil {
			t.Fatal("has an identity")
		}
		b.mustApply(p, p.insert(image(1, "a", 0.1)...), p.insert(image(1, "A", 0.1)...), p.insert(image(1, "a", 0.1)...), p.insert(image(1, "a ", 0.1)...), p.insert(image(nil, nil, nil)...))
		b.mustApply(p, p.remove(image(1, "a", 0.1)...))
		b.want("SELECT a, CONCAT('[', s, ']') FROM m ORDER BY BINARY s", "NULL|NULL", "1|[A]", "1|[a]", "1|[a ]")
		b.mustApply(p, p.update(image(1, "A", 0.1), image(2, nil, 0.2)), p.remove(image(nil, nil, nil)...))
		b.want("SELECT a, CONCAT('[', s, ']'), f FROM m ORDER BY a, BINARY s", "1|[a]|0.1", "1|[a ]|0.1", "2|NULL|0.2")
		_, err := b.apply(p, p.insert(image(4, "x", 1.0)...), p.remove(image(1, "A", 0.1)...))
		var e *RowError
		if !errors.As(err, &e) || !errors.Is(err, ErrMissing) || e.Index != 1 {
			t.Errorf("%v", err)
		}
		b.mustApply(p, p.update(image(2, nil, 0.2), image(2, nil, 0.2)))
		b.want("SELECT COUNT(*) FROM m", "3")
		if b.info.Flavor == server.MySQL || b.info.AtLeast(11, 8) {
			b.exec("DELETE FROM m", "INSERT INTO m VALUES (1, 'z', 0e0), (1, 'z', -0e0)")
			negative := change.RealOf(math.Copysign(0, -1))
			b.mustApply(p, p.remove(image(1, "z", negative)...))
			b.want("SELECT f FROM m", "0")
		}
	})
}

// TestData: a batch with a bad row names that row.
func TestBadRowIsFound(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE src (id INT PRIMARY KEY, d DATETIME, v INT)", "CREATE TABLE dst (id INT PRIMARY KEY, d DATETIME, v INT)",
			"CREATE TABLE many (id INT, d DATETIME, v INT)", "CREATE TABLE uk (id INT PRIMARY KEY, d DATETIME, v INT, UNIQUE (v))")
		for _, dst := range []string{"dst", "many", "uk"} {
			p := b.plan("src", dst)
			var rows []change.Row
			for i := range 50 {
				d := "2020-01-01 00:00:00"
				if i == 33 {
					d = "2020-01-77 00:00:00"
				}
				rows = append(rows, p.insert(image(i, d, i)...))
			}
			_, err := b.apply(p, rows...)
			var e *RowError
			if !errors.As(err, &e) || !errors.Is(err, ErrData) || e.Index != 33 {
				t.Errorf("%s: %v", dst, err)
			}
			b.want("SELECT COUNT(*) FROM "+dst, "0")
			rows[33].After[1] = change.TextOf([]byte("1'; DROP TABLE dst"))
			if _, err := b.apply(p, rows...); !errors.As(err, &e) || e.Index != 33 {
				t.Errorf("%s: %v", dst, err)
			}
		}
	})
}

func TestErrorValue(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE e (id INT PRIMARY KEY, e ENUM('a','b') NOT NULL)", "CREATE TABLE n (id INT, e ENUM('a','b'))")
		zero := change.OrdinalOf(0)
		for _, table := range []string{"e", "n"} {
			p := b.plan("e", table)
			b.mustApply(p, p.insert(image(1, "a")...), p.insert(image(2, zero)...), p.insert(image(3, "b")...))
			b.want("SELECT id, e+0 FROM "+table+" ORDER BY id", "1|1", "2|0", "3|2")
			b.mustApply(p, p.update(image(1, "a"), image(1, zero)), p.update(image(2, zero), image(2, "b")))
			b.want("SELECT id, e+0 FROM "+table+" ORDER BY id", "1|0", "2|2", "3|2")
			b.mustApply(p, p.remove(image(1, zero)...))
			b.want("SELECT id, e+0 FROM "+table+" ORDER BY id", "2|2", "3|2")
		}
	})
}

func TestOddNamesAndColumns(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		name := "we`ird 'x\" 订单 select"
		q := server.QuoteName(name)
		extra := "`inv` INT INVISIBLE DEFAULT 5,"
		b.exec("CREATE TABLE " + q + " (`a``b` INT, " + extra + " `select` VARCHAR(20), `g'v` INT AS (`a``b` + 1) VIRTUAL, `g s` INT AS (`a``b` * 2) STORED, PRIMARY KEY (`a``b`))")
		p := b.plan(name, name)
		b.mustApply(p, p.insert(image(1, 7, "x", 2, 2)...), p.insert(image(0, 8, "y", 1, 0)...))
		b.mustApply(p, p.update(image(1, 7, "x", 2, 2), image(2, 9, "it's", 3, 4)))
		b.want("SELECT `a``b`, inv, `select`, `g'v`, `g s` FROM "+q+" ORDER BY 1", "0|8|y|1|0", "2|9|it's|3|4")
		b.mustApply(p, p.remove(image(2, 9, "it's", 3, 4)...))
		b.want("SELECT COUNT(*) FROM "+q, "1")

		b.exec("CREATE TABLE auto (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")
		a := b.plan("auto", "auto")
		b.mustApply(a, a.insert(image(0, 1)...))
		b.want("SELECT * FROM auto", "0|1")
		if b.info.Flavor == server.MySQL {
			b.exec("SET sql_generate_invisible_primary_key = 1", "CREATE TABLE gipk (v INT)", "SET sql_generate_invisible_primary_key = 0")
			g := b.plan("gipk", "gipk")
			b.mustApply(g, g.insert(image("77", 1)...))
			b.mustApply(g, g.update(image("77", 1), image("77", 2)))
			b.want("SELECT my_row_id, v FROM gipk", "77|2")
		}
		if b.info.Flavor == server.MariaDB {
			b.exec("CREATE SEQUENCE sq")
			q := b.plan("sq", "sq")
			state := image(1001, 1, int(math.MaxInt64-1), 1, 1, 1000, 0, 0)
			b.mustApply(q, q.insert(image(501, 1, int(math.MaxInt64-1), 1, 1, 1000, 0, 0)...), q.insert(state...))
			b.want("SELECT NEXTVAL(sq)", "1001")
		}
	})
}

func TestForeignKeys(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE parent (id INT PRIMARY KEY, v INT)", "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
			"CREATE TABLE other (id INT PRIMARY KEY)", "CREATE DATABASE "+b.schema+"x", "CREATE TABLE "+b.schema+"x.far (id INT PRIMARY KEY, c INT, FOREIGN KEY (c) REFERENCES "+b.schema+".child (id))")
		defer b.exec("DROP DATABASE " + b.schema + "x")
		p, c := b.plan("parent", "parent"), b.plan("child", "child")
		ctx := context.Background()
		rep := func(s, n string) (schema.Name, bool) {
			t.Helper()
			r, any, err := b.catalog.Component(ctx, b.conn, schema.Name{Schema: s, Table: n})
			if err != nil {
				t.Fatal(err)
			}
			return r, any
		}
		r1, any1 := rep(b.schema, "parent")
		r2, _ := rep(b.schema+"x", "far")
		r3, any3 := rep(b.schema, "other")
		if r1 != r2 || !any1 || any3 || r3.Table != "other" || r1.Table != "child" {
			t.Errorf("components %v %v %v", r1, r2, r3)
		}
		b.mustApply(p, p.insert(image(1, 1)...), p.insert(image(2, 1)...))
		b.mustApply(c, c.insert(image(10, 1)...), c.insert(image(20, 2)...))
		// Delete and insert of a parent cascades in between.
		b.mustApply(p, p.remove(image(1, 1)...), p.insert(image(1, 5)...))
		b.want("SELECT * FROM child", "20|2")
		// The source logged its cascades: ours must not.
		logged := p.remove(image(2, 1)...)
		logged.Flags = change.NoForeignKeyChecks
		b.mustApply(p, logged)
		b.want("SELECT * FROM child", "20|2")
		orphan := c.insert(image(30, 99)...)
		if _, err := b.apply(c, orphan); !errors.Is(err, ErrData) {
			t.Errorf("%v", err)
		}
		orphan.Flags = change.CascadesLogged
		b.mustApply(c, orphan)
		b.want("SELECT * FROM child ORDER BY id", "20|2", "30|99")
		b.want("SELECT @@foreign_key_checks", "1")
	})
}

func TestPacketLimit(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE big (id INT PRIMARY KEY, v LONGBLOB)")
		p := b.plan("big", "big")
		var rows []change.Row
		for i := range 40 {
			rows = append(rows, p.insert(image(i, make([]byte, 100_000))...))
		}
		if out := b.mustApply(p, rows...); out.Statements < 8 {
			t.Errorf("%d statements", out.Statements)
		}
		b.want("SELECT COUNT(*), SUM(LENGTH(v)) FROM big", "40|4000000")
		p.packet.Store(150_000)
		_, err := b.apply(p, p.insert(image(100, []byte("small"))...), p.insert(image(101, make([]byte, 80_000))...))
		var e *RowError
		if !errors.As(err, &e) || !errors.Is(err, ErrTooLarge) || e.Index != 1 {
			t.Errorf("%.200v", err)
		}
	})
}

func TestIncompatible(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		n := 0
		for _, c := range []struct{ src, dst, want string }{
			{"v INT", "v BIGINT", ""}, {"v INT UNSIGNED", "v BIGINT", ""}, {"v INT UNSIGNED", "v INT", "v"}, {"v BIGINT", "v INT", "v"}, {"v INT NULL", "v INT NOT NULL", "v"},
			{"v VARCHAR(10)", "v VARCHAR(9)", "v"}, {"v VARCHAR(10)", "v TEXT", ""}, {"v VARCHAR(10) CHARACTER SET latin1", "v VARCHAR(10)", ""}, {"v VARCHAR(10)", "v VARCHAR(10) CHARACTER SET latin1", "v"},
			{"v VARCHAR(5)", "v CHAR(5)", "v"}, {"v DATETIME(3)", "v DATETIME(6)", ""}, {"v DATETIME(3)", "v DATETIME", "v"}, {"v TIMESTAMP NULL", "v DATETIME", "v"},
			{"v DECIMAL(10,2)", "v DECIMAL(12,4)", ""}, {"v DECIMAL(10,2)", "v DECIMAL(10,4)", "v"}, {"v DOUBLE", "v FLOAT", "v"}, {"v FLOAT", "v DOUBLE", ""},
			{"v ENUM('a','b')", "v ENUM('x','b','a')", ""}, {"v ENUM('a','b')", "v ENUM('a')", "v"}, {"v BINARY(4)", "v BINARY(5)", "v"}, {"v BINARY(4)", "v VARBINARY(5)", ""},
			{"v INT, w INT", "v INT", "w"}, {"v INT", "v INT, w INT NOT NULL", "w"}, {"v INT", "v INT, w INT NOT NULL DEFAULT 1", ""}, {"v INT", "v INT, w INT", ""},
			{"v VARCHAR(5) COLLATE utf8mb4_bin UNIQUE", "v VARCHAR(5) COLLATE utf8mb4_general_ci UNIQUE", "v"}, {"v VARCHAR(5) COLLATE utf8mb4_general_ci UNIQUE", "v VARCHAR(5) COLLATE utf8mb4_bin UNIQUE", ""},
			{"v POINT", "v GEOMETRY", ""}, {"v GEOMETRY", "v POINT", "v"}, {"v BIT(3)", "v BIT(4)", ""}, {"v TEXT", "v BLOB", "v"},
		} {
			n++
			src, dst := fmt.Sprintf("s%d", n), fmt.Sprintf("d%d", n)
			b.exec("CREATE TABLE "+src+" (id INT PRIMARY KEY, "+c.src+")", "CREATE TABLE "+dst+" (id INT PRIMARY KEY, "+c.dst+")")
			_, err := NewPlan(&b.table(src).Table, b.table(dst))
			var e *Incompatible
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s into %s: %v", c.src, c.dst, err)
			case c.want != "" && (!errors.As(err, &e) || !errors.Is(err, ErrIncompatible) || e.Column != c.want):
				t.Errorf("%s into %s: %v", c.src, c.dst, err)
			}
		}
		if _, err := b.catalog.Table(context.Background(), b.conn, schema.Name{Schema: b.schema, Table: "nothing"}); !errors.Is(err, ErrNoTable) {
			t.Errorf("%v", err)
		}
		b.exec("CREATE TABLE fires (id INT PRIMARY KEY)", "CREATE TRIGGER tr AFTER INSERT ON fires FOR EACH ROW SET @a = 1")
		tab := b.table("fires")
		if _, err := NewPlan(&tab.Table, tab); !errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), "tr") {
			t.Errorf("%v", err)
		}
	})
}

func TestOddKeys(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		if b.info.Flavor == server.MariaDB {
			b.exec("CREATE TABLE per (id INT, s DATE, e DATE, PERIOD FOR p (s, e), PRIMARY KEY (id, p WITHOUT OVERLAPS))",
				"CREATE TABLE hashed (id INT PRIMARY KEY, b BLOB, UNIQUE (b))")
			if per := b.table("per"); per.Identity != -1 || len(per.Keys) != 1 || !per.Keys[0].Functional {
				t.Errorf("%+v", per.Keys)
			}
			p := b.plan("per", "per")
			b.mustApply(p, p.insert(image(1, "2020-01-01", "2020-02-01")...), p.update(image(1, "2020-01-01", "2020-02-01"), image(1, "2020-01-01", "2020-01-15")),
				p.insert(image(1, "2020-01-15", "2020-02-01")...))
			b.want("SELECT COUNT(*) FROM per", "2")
			if _, err := b.apply(p, p.insert(image(1, "2020-01-20", "2020-01-21")...)); !errors.Is(err, ErrConflict) {
				t.Errorf("%v", err)
			}
			if h := b.table("hashed"); h.Identity != 0 || len(h.Keys) != 2 || !h.Keys[1].Functional {
				t.Errorf("%+v", h.Keys)
			}
			h := b.plan("hashed", "hashed")
			hash := image("12345")[0]
			b.mustApply(h, h.insert(image(1, []byte("x"), hash)...), h.insert(image(2, []byte("y"), hash)...), h.update(image(1, []byte("x"), hash), image(1, []byte("z"), hash)))
			b.want("SELECT * FROM hashed ORDER BY id", "1|z", "2|y")
			if _, err := b.apply(h, h.insert(image(3, []byte("y"), hash)...)); !errors.Is(err, ErrConflict) {
				t.Errorf("%v", err)
			}
			return
		}
		b.exec("CREATE TABLE fun (id INT PRIMARY KEY, a INT, b INT, UNIQUE KEY f ((a + b)))")
		if f := b.table("fun"); f.Identity != 0 || len(f.Keys) != 2 || !f.Keys[1].Functional {
			t.Errorf("%+v", f.Keys)
		}
		p := b.plan("fun", "fun")
		b.mustApply(p, p.insert(image(1, 1, 1)...))
		var c *Conflict
		if _, err := b.apply(p, p.insert(image(2, 0, 2)...)); !errors.As(err, &c) || c.Key != "f" {
			t.Errorf("%v", err)
		}
	})
}

// TestManyUpdatesNeverHitAnotherRow: a missing row whose unique value another row
// holds is a conflict, whether it comes alone or among others.
func TestManyUpdatesNeverHitAnotherRow(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE u (id INT PRIMARY KEY, u INT UNIQUE, v INT)")
		p := b.plan("u", "u")
		var rows []change.Row
		for i := range 10 {
			rows = append(rows, p.insert(image(i, i, 0)...))
		}
		b.mustApply(p, rows...)
		rows = rows[:0]
		for i := range 10 {
			rows = append(rows, p.update(image(i, i, 0), image(i, i, 1)))
		}
		if out := b.mustApply(p, rows...); out.Statements > 3 || out.Doubt() {
			t.Errorf("%+v", out)
		}
		b.want("SELECT COUNT(*), SUM(v) FROM u", "10|10")
		b.exec("UPDATE u SET id = 77 WHERE id = 3")
		if _, err := b.apply(p, rows...); !errors.Is(err, ErrConflict) {
			t.Errorf("%v", err)
		}
		b.want("SELECT * FROM u WHERE u = 3", "77|3|1")
		b.exec("DELETE FROM u WHERE id = 77")
		if out := b.mustApply(p, rows...); out.UpdateMissing != 1 {
			t.Errorf("%+v", out)
		}
		// Swapped by way of NULL, in one run.
		b.mustApply(p, p.update(image(1, 1, 1), image(1, nil, 1)), p.update(image(2, 2, 1), image(2, 1, 1)), p.update(image(1, nil, 1), image(1, 2, 1)), p.update(image(5, 5, 1), image(5, 5, 9)))
		b.want("SELECT id, u FROM u WHERE id IN (1, 2) ORDER BY u", "2|1", "1|2")
	})
}

// Two spellings of one key in a merged run: the one that ends dead takes the row
// of the one that ends alive, and that is no surprise.
func TestCollapseOfOneKeyInTwoSpellings(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		b.exec("CREATE TABLE spelled (k VARCHAR(5) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)")
		p := b.plan("spelled", "spelled")
		b.mustApply(p, p.insert(image("a", 1)...))
		out := b.mustApply(p, p.remove(image("a", 1)...), p.insert(image("A", 2)...), p.remove(image("A", 2)...), p.insert(image("a", 3)...))
		if out.Doubt() {
			t.Errorf("%+v", out)
		}
		b.want("SELECT * FROM spelled", "a|3")
	})
}

// TestRandomHistories applies random valid histories in random runs, and compares
// with the table the history was made on.
func TestRandomHistories(t *testing.T) {
	inBothWays(t, func(t *testing.T, b *bench) {
		for n, def := range []string{
			"id INT PRIMARY KEY, u INT, v INT",
			"id INT PRIMARY KEY, u INT UNIQUE, v INT",
			"id INT, u INT NOT NULL UNIQUE, v INT",
			"id INT, u INT, v INT",
			"id INT, u INT, v INT NOT NULL, PRIMARY KEY (v, id)",
		} {
			seed := rand.Uint64()
			table := fmt.Sprintf("h%d", n)
			b.exec("CREATE TABLE "+table+" ("+def+")", "CREATE TABLE "+table+"d ("+def+")")
			p := b.plan(table, table+"d")
			if failed := b.history(p, table, rand.New(rand.NewPCG(seed, 1))); failed != "" {
				t.Fatalf("seed %d: %s: %s", seed, def, failed)
			}
		}
	})
}

func (b *bench) history(p *Plan, table string, rng *rand.Rand) string {
	ctx := context.Background()
	unique := [][]int{}
	for _, k := range p.table.Keys {
		var cols []int
		for _, part := range k.Parts {
			cols = append(cols, part.Column)
		}
		unique = append(unique, cols)
	}
	var live [][]change.Value
	free := func(im []change.Value, but int) bool {
		for _, cols := range unique {
			for i, other := range live {
				same := i != but
				for _, c := range cols {
					same = same && !im[c].IsNull() && im[c].Equal(other[c])
				}
				if same {
					return false
				}
			}
		}
		return true
	}
	var history []change.Row
	for len(history) < 600 {
		im := image(rng.IntN(20), rng.IntN(20), rng.IntN(4))
		at := -1
		if len(live) > 0 {
			at = rng.IntN(len(live))
		}
		switch op := rng.IntN(3); {
		case op == 0 && len(live) < 15 && free(im, -1):
			live = append(live, im)
			history = append(history, p.insert(im...))
		case op == 1 && at >= 0:
			if rng.IntN(2) == 0 {
				im[0] = live[at][0]
			}
			if !free(im, at) {
				continue
			}
			history = append(history, p.update(live[at], im))
			live[at] = im
		case op == 2 && at >= 0:
			history = append(history, p.remove(live[at]...))
			live = append(live[:at], live[at+1:]...)
		}
	}
	for i := 0; i < len(history); {
		n := min(1+rng.IntN(40), len(history)-i)
		b.exec("BEGIN")
		out, err := p.Apply(ctx, b.conn, history[i:i+n])
		if err != nil {
			b.exec("ROLLBACK")
			return fmt.Sprintf("rows %d to %d: %v", i, i+n, err)
		}
		b.exec("COMMIT")
		if out.Doubt() {
			return fmt.Sprintf("rows %d to %d: outcome %+v", i, i+n, out)
		}
		i += n
	}
	var want []string
	for _, im := range live {
		want = append(want, fmt.Sprintf("(%d,%d,%d)", im[0].Integer(), im[1].Integer(), im[2].Integer()))
	}
	if len(want) > 0 {
		b.exec("INSERT INTO " + table + " VALUES " + strings.Join(want, ","))
	}
	list := "SELECT id, u, v FROM %s ORDER BY id, u, v"
	if got, want := b.rows(fmt.Sprintf(list, table+"d")), b.rows(fmt.Sprintf(list, table)); strings.Join(got, ";") != strings.Join(want, ";") {
		return fmt.Sprintf("got %v want %v", got, want)
	}
	return ""
}
