package target

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/server"
	"github.com/twinspan/twinspan/log"
	"github.com/twinspan/twinspan/schema/ddl"
)

// replay is a runner with a stream and places of its own.
type replay struct {
	*bench
	options DDLOptions
	offset  log.Offset
	last    Decision
	crash   func(step string) error
}

func (b *bench) replay() *replay {
	r := &replay{bench: b}
	r.options = DDLOptions{DB: b.db, Stream: b.t.Name(), Catalog: b.catalog,
		Observe: func(_ *change.DDL, _ ddl.Class, what Decision) { r.last = what }}
	return r
}

func (r *replay) statement(text string) *change.DDL {
	return &change.DDL{Text: text, DefaultSchema: r.schema, SQLMode: 1<<21 | 1<<30, TimeZone: "+00:00",
		CharsetClient: 45, CollationConnection: 45, CollationServer: 45, Timestamp: time.Unix(1_700_000_000, 0)}
}

// run replays at the next place.
func (r *replay) run(d *change.DDL) error {
	r.offset++
	return r.again(d)
}

// again replays at the same place, with a runner that remembers nothing.
func (r *replay) again(d *change.DDL) error {
	runner := NewDDLRunner(r.options)
	runner.crash = r.crash
	return runner.Run(context.Background(), change.Place{Offset: r.offset}, d)
}

func (r *replay) must(text string) {
	r.t.Helper()
	if err := r.run(r.statement(text)); err != nil {
		r.t.Fatal(err)
	}
}

var errCrash = errors.New("crash")

// TestDDLCrashes stops the runner before and after the statement, for each class,
// and lets a new one go on.
func TestDDLCrashes(t *testing.T) {
	cases := []struct {
		name, setup, text, check, want string
		flavor                         server.Flavor
	}{
		{name: "create table", text: "CREATE TABLE x (id INT PRIMARY KEY)", check: "SELECT COUNT(*) FROM x", want: "0"},
		{name: "create table like", setup: "CREATE TABLE y (id INT PRIMARY KEY)", text: "CREATE TABLE x LIKE y", check: "SELECT COUNT(*) FROM x", want: "0"},
		{name: "create if not exists", setup: "CREATE TABLE x (id INT PRIMARY KEY)", text: "CREATE TABLE IF NOT EXISTS x (z INT)", check: "SELECT COUNT(id) FROM x", want: "0"},
		{name: "create table select", flavor: server.MySQL, text: "CREATE TABLE x (id INT) START TRANSACTION", check: "SELECT COUNT(*) FROM x", want: "0"},
		{name: "add column", setup: "CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (7)", text: "ALTER TABLE x ADD COLUMN v INT NOT NULL DEFAULT 3", check: "SELECT id, v FROM x", want: "7|3"},
		{name: "rebuild", setup: "CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (7)", text: "ALTER TABLE x FORCE", check: "SELECT * FROM x", want: "7"},
		{name: "auto increment", setup: "CREATE TABLE x (id INT PRIMARY KEY AUTO_INCREMENT)", text: "ALTER TABLE x AUTO_INCREMENT = 50", check: "SELECT COUNT(*) FROM x", want: "0"},
		{name: "create index", setup: "CREATE TABLE x (id INT PRIMARY KEY, v INT)", text: "CREATE UNIQUE INDEX i ON x (v)", check: "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND index_name = 'i'", want: "1"},
		{name: "drop index", setup: "CREATE TABLE x (id INT PRIMARY KEY, v INT, KEY i (v))", text: "DROP INDEX i ON x", check: "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() AND index_name = 'i'", want: "0"},
		{name: "rename", setup: "CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (7)", text: "RENAME TABLE x TO y", check: "SELECT * FROM y", want: "7"},
		{name: "swap", setup: "CREATE TABLE x (id INT PRIMARY KEY); CREATE TABLE y (id INT PRIMARY KEY); INSERT INTO x VALUES (7)", text: "RENAME TABLE x TO tmp, y TO x, tmp TO y", check: "SELECT * FROM y", want: "7"},
		{name: "alter rename", setup: "CREATE TABLE x (id INT PRIMARY KEY)", text: "ALTER TABLE x RENAME y", check: "SELECT COUNT(*) FROM y", want: "0"},
		{name: "truncate", setup: "CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (7)", text: "TRUNCATE TABLE x", check: "SELECT COUNT(*) FROM x", want: "0"},
		{name: "truncate partition", setup: "CREATE TABLE x (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20)); INSERT INTO x VALUES (7),(17)",
			text: "ALTER TABLE x TRUNCATE PARTITION p0", check: "SELECT * FROM x", want: "17"},
		{name: "exchange partition", setup: "CREATE TABLE x (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20)); CREATE TABLE y (id INT PRIMARY KEY); INSERT INTO x VALUES (7),(17); INSERT INTO y VALUES (5)",
			text: "ALTER TABLE x EXCHANGE PARTITION p0 WITH TABLE y", check: "SELECT id FROM x ORDER BY id", want: "5\n17"},
		{name: "drop partition", setup: "CREATE TABLE x (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20)); INSERT INTO x VALUES (7),(17)",
			text: "ALTER TABLE x DROP PARTITION p0", check: "SELECT id FROM x ORDER BY id", want: "17"},
		{name: "drop", setup: "CREATE TABLE x (id INT PRIMARY KEY); CREATE TABLE y (id INT)", text: "DROP TABLE x, y", check: "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()", want: "0"},
		{name: "drop if exists", text: "DROP TABLE IF EXISTS x", check: "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()", want: "0"},
		{name: "view", setup: "CREATE TABLE x (id INT PRIMARY KEY)", text: "CREATE ALGORITHM=UNDEFINED DEFINER=`root`@`%` SQL SECURITY DEFINER VIEW v AS SELECT id FROM x", check: "SELECT COUNT(*) FROM v", want: "0"},
		{name: "drop view", setup: "CREATE TABLE x (id INT PRIMARY KEY); CREATE VIEW v AS SELECT * FROM x", text: "DROP VIEW v", check: "SELECT COUNT(*) FROM information_schema.views WHERE table_schema = DATABASE()", want: "0"},
		{name: "procedure", text: "CREATE DEFINER=`root`@`%` PROCEDURE p(IN a INT) BEGIN SELECT a; SELECT ';'; END", check: "SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = DATABASE()", want: "1"},
		{name: "drop function", setup: "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1", text: "DROP FUNCTION f", check: "SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = DATABASE()", want: "0"},
		{name: "sequence", flavor: server.MariaDB, text: "CREATE SEQUENCE s START WITH 5", check: "SELECT next_not_cached_value FROM s", want: "5"},
		{name: "or replace", flavor: server.MariaDB, setup: "CREATE TABLE x (id INT PRIMARY KEY); INSERT INTO x VALUES (1)", text: "CREATE OR REPLACE TABLE x (id INT PRIMARY KEY)", check: "SELECT COUNT(*) FROM x", want: "0"},
	}
	onEach(t, func(t *testing.T, b *bench) {
		for n, c := range cases {
			if c.flavor != "" && c.flavor != b.info.Flavor {
				continue
			}
			for _, step := range []string{"", "intended", "executed"} {
				t.Run(c.name+"/"+step, func(t *testing.T) {
					sub := *b
					sub.t = t
					sub.schema = fmt.Sprintf("%s_%d_%s", b.schema, n, step)
					sub.exec("CREATE DATABASE "+sub.schema, "USE "+sub.schema)
					defer sub.exec("DROP DATABASE " + sub.schema)
					for _, s := range strings.Split(c.setup, "; ") {
						if s != "" {
							sub.exec(s)
						}
					}
					r := sub.replay()
					d := r.statement(c.text)
					if step != "" {
						r.crash = func(at string) error {
							if at == step {
								return errCrash
							}
							return nil
						}
						if err := r.run(d); !errors.Is(err, errCrash) {
							t.Fatalf("no crash: %v", err)
						}
						r.crash = nil
						if err := r.again(d); err != nil {
							t.Fatal(err)
						}
					} else if err := r.run(d); err != nil {
						t.Fatal(err)
					}
					sub.want(c.check, strings.Split(c.want, "\n")...)
					// Once done, a repetition does nothing, even where the
					// statement would.
					if err := r.again(d); err != nil || r.last != AlreadyDone {
						t.Fatalf("again: %s, %v", r.last, err)
					}
					sub.want(c.check, strings.Split(c.want, "\n")...)
				})
			}
		}
	})
}

// TestDDLExecutedIsNotRunAgain: between "executed" and "done" rows may not come,
// but a statement that would show if it ran twice must not.
func TestDDLExecutedIsNotRunAgain(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		r := b.replay()
		b.exec("CREATE TABLE x (id INT PRIMARY KEY)", "CREATE TABLE y (id INT PRIMARY KEY)", "INSERT INTO x VALUES (1)")
		for _, text := range []string{"RENAME TABLE x TO tmp, y TO x, tmp TO y", "TRUNCATE TABLE y"} {
			r.crash = func(at string) error {
				if at == "executed" {
					return errCrash
				}
				return nil
			}
			d := r.statement(text)
			if err := r.run(d); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			r.crash = func(at string) error { t.Errorf("%s: %s again", text, at); return nil }
			if err := r.again(d); err != nil || r.last != AlreadyDone {
				t.Fatalf("%s, %v", r.last, err)
			}
		}
	})
}

func TestDDLHalfDoneDrop(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		r := b.replay()
		b.exec("CREATE TABLE x (id INT)", "CREATE TABLE y (id INT)", "CREATE DATABASE "+b.schema+"_gone", "CREATE TABLE "+b.schema+"_gone.t (id INT)")
		r.crash = func(at string) error { return errCrash }
		drop := r.statement("DROP TABLE x, y")
		if err := r.run(drop); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		b.exec("DROP TABLE x") // as far as the server came
		r.crash = nil
		err := r.again(drop)
		if b.info.Flavor == server.MySQL {
			// It is all or nothing there: one that is half done was not ours.
			var e *DDLError
			if !errors.As(err, &e) || e.Remedy == "" {
				t.Fatalf("%v", err)
			}
		} else if err != nil {
			t.Fatal(err)
		} else {
			b.want("SHOW TABLES LIKE 'y'")
		}
		r.crash = func(at string) error { return errCrash }
		database := r.statement("DROP DATABASE " + b.schema + "_gone")
		if err := r.run(database); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		b.exec("DROP TABLE " + b.schema + "_gone.t")
		r.crash = nil
		if err := r.again(database); err != nil {
			t.Fatal(err)
		}
		b.want("SHOW DATABASES LIKE '" + b.schema + "\\_gone'")
	})
}

func TestDDLPolicy(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		r := b.replay()
		b.exec("CREATE TABLE x (id INT PRIMARY KEY)")
		for text, want := range map[string]Decision{
			"ANALYZE TABLE x":                                     Skipped,
			"CREATE USER u@h IDENTIFIED BY 'x'":                   Skipped,
			"GRANT SELECT ON *.* TO u@h":                          Skipped,
			"CREATE TEMPORARY TABLE q (id INT)":                   Skipped,
			"FLUSH TABLES":                                        Skipped,
			"CREATE TABLE mysql.zz (id INT)":                      Skipped,
			"DROP TABLE twinspan.ddl_state":                       Skipped,
			"DROP DATABASE twinspan":                              Skipped,
			"TRUNCATE TABLE x":                                    Replayed,
			"ALTER DATABASE " + b.schema + " COLLATE utf8mb4_bin": Replayed,
		} {
			r.last = ""
			if err := r.run(r.statement(text)); err != nil || r.last != want {
				t.Errorf("%s: %q, %v", text, r.last, err)
			}
		}
		for _, text := range []string{"INSERT INTO x VALUES (1)", "ALTER TABLE x DISCARD TABLESPACE", "FROBNICATE TABLE x", "DROP TABLE x, mysql.user", "ALTER TABLE x ADD COLUMN id INT"} {
			err := r.run(r.statement(text))
			var e *DDLError
			if !errors.As(err, &e) || !errors.Is(err, ErrDDL) || e.Remedy == "" || e.Text != text {
				t.Errorf("%s: %v", text, err)
			}
		}
		b.want("SELECT COUNT(*) FROM x", "0")
	})
}

func TestDDLParks(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		r := b.replay()
		parked := "SELECT kind, verb, object_name, table_name, renamed FROM twinspan.parked_definition WHERE stream = '" + t.Name() + "' ORDER BY entry_offset"
		b.exec("CREATE TABLE x (id INT PRIMARY KEY)", "CREATE TABLE y (id INT PRIMARY KEY)")
		r.must("CREATE DEFINER=`root`@`%` TRIGGER t1 AFTER INSERT ON x FOR EACH ROW BEGIN SET @a = 1; SET @b = 2; END")
		r.must("CREATE TRIGGER t2 AFTER DELETE ON y FOR EACH ROW SET @a = 1")
		r.must("CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @a = 1")
		r.must("ALTER EVENT e DISABLE")
		if r.last != Parked {
			t.Errorf("decision %s", r.last)
		}
		b.want("SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()", "0")
		b.want("SELECT COUNT(*) FROM information_schema.events WHERE event_schema = DATABASE()", "0")
		b.want(parked, "trigger|CREATE|t1|x|0", "trigger|CREATE|t2|y|0", "event|CREATE|e||0", "event|ALTER|e||0")
		r.must("DROP TRIGGER t1")
		r.must("RENAME TABLE y TO z")
		b.want(parked, "trigger|CREATE|t2|y|1", "event|CREATE|e||0", "event|ALTER|e||0")
		r.must("DROP EVENT e")
		b.want(parked, "trigger|CREATE|t2|y|1", "event|CREATE|e||0", "event|ALTER|e||0", "event|DROP|e||0")
		b.exec("CREATE TRIGGER old AFTER DELETE ON x FOR EACH ROW SET @a = 1")
		r.must("DROP TRIGGER old")
		b.want("SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()", "0")
	})
}

// TestDDLSession checks that a statement sees the session of its event.
func TestDDLSession(t *testing.T) {
	onEach(t, func(t *testing.T, b *bench) {
		r := b.replay()
		d := r.statement(`CREATE TABLE "q" ("id" INT PRIMARY KEY, "c" VARCHAR(10) DEFAULT 'a\b')`)
		d.SQLMode = 1<<2 | 1<<20 // ANSI_QUOTES, NO_BACKSLASH_ESCAPES
		if err := r.run(d); err != nil {
			t.Fatal(err)
		}
		b.exec("INSERT INTO q (id) VALUES (1)")
		b.want("SELECT HEX(c) FROM q", "615C62")

		gbk := r.statement("CREATE TABLE `\xb6\xa9\xb5\xa5` (`\xb1\xe0\xba\xc5` INT PRIMARY KEY COMMENT '\xd6\xd0\x5c\x5c')")
		gbk.CharsetClient, gbk.CollationConnection = 28, 28
		if err := r.run(gbk); err != nil {
			t.Fatal(err)
		}
		b.want("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = '订单'", "订单|编号")

		b.exec("CREATE TABLE child (id INT PRIMARY KEY, p INT)")
		fk := r.statement("ALTER TABLE child ADD CONSTRAINT f FOREIGN KEY (p) REFERENCES missing (id)")
		if err := r.run(fk); !errors.Is(err, ErrDDL) {
			t.Errorf("foreign keys unchecked: %v", err)
		}
		fk.Flags2 = flagNoForeignKeys
		if err := r.run(fk); err != nil {
			t.Errorf("foreign keys checked: %v", err)
		}

		db := r.statement("CREATE DATABASE " + b.schema + "_l1")
		db.CollationServer = 8 // latin1_swedish_ci
		defer b.exec("DROP DATABASE IF EXISTS " + b.schema + "_l1")
		if err := r.run(db); err != nil {
			t.Fatal(err)
		}
		b.want("SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = '"+b.schema+"_l1'", "latin1_swedish_ci")

		zone := r.statement("CREATE TABLE zoned (t TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00')")
		zone.TimeZone = "+05:00"
		if err := r.run(zone); err != nil {
			t.Fatal(err)
		}
		b.exec("INSERT INTO zoned () VALUES ()")
		b.want("SELECT t FROM zoned", "2019-12-31 19:00:00")

		bad := r.statement("CREATE TABLE never (id INT)")
		bad.Variables = map[string]string{"lc_time_names": "'x'; DROP TABLE child"}
		if err := r.run(bad); !errors.Is(err, ErrDDL) {
			t.Errorf("%v", err)
		}
		bad.Variables = map[string]string{"lc_time_names": "'de_DE'", "auto_increment_increment": "1"}
		if err := r.run(bad); err != nil {
			t.Error(err)
		}
		b.want("SELECT @@sql_mode", b.rows("SELECT @@sql_mode")[0])
	})
}
