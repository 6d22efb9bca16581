package producer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twinspan/twinspan/change"
	"github.com/twinspan/twinspan/internal/mysqltest"
	"github.com/twinspan/twinspan/producer/binlog"
)

// statementsOf is one line for each DDL with its class, and for each row.
func statementsOf(t testing.TB, flavor string, l *memLog) []string {
	t.Helper()
	txs := readLog(t, flavor, l.all())
	once(t, txs)
	var out []string
	for _, x := range txs {
		for i, d := range x.ddl {
			out = append(out, x.classes[i]+": "+strings.ToLower(strings.Join(strings.Fields(strings.ReplaceAll(d, "`", "")), " ")))
		}
		for _, r := range x.rows {
			out = append(out, fmt.Sprintf("%s %s %s>%s", r.Table.Name, r.Op, texts(r.Before), texts(r.After)))
		}
	}
	return out
}

// TestStatements runs one of each kind that a server logs, in the order of its
// binlog, and compares what the log has of it.
func TestStatements(t *testing.T) {
	const my, maria, both = 1, 2, 3
	type step struct {
		on   int
		sql  string   // several, separated by ";;"
		want []string // nil: nothing at all
	}
	steps := []step{
		{both, "CREATE DATABASE d", []string{"create_database: create database d"}},
		{both, "USE d;;CREATE TABLE t (id INT PRIMARY KEY, v INT)", []string{"create_table: create table t (id int primary key, v int)"}},
		{both, "CREATE TABLE d.m (id INT PRIMARY KEY) ENGINE=MyISAM", []string{"create_table: create table d.m (id int primary key) engine=myisam"}},
		{both, "INSERT INTO d.m VALUES (1),(2)", []string{"d.m insert >1", "d.m insert >2"}},
		{both, "BEGIN;;INSERT INTO d.t VALUES (1,1);;SAVEPOINT a;;INSERT INTO d.t VALUES (2,2);;ROLLBACK TO a;;RELEASE SAVEPOINT a;;INSERT INTO d.t VALUES (3,3);;COMMIT",
			[]string{"d.t insert >1,1", "d.t insert >3,3"}},
		{both, "BEGIN;;INSERT INTO d.t VALUES (4,4);;ROLLBACK", nil},
		{both, "USE d;;CREATE TEMPORARY TABLE x (id INT);;INSERT INTO x VALUES (1);;INSERT INTO t SELECT id+10, id FROM x;;DROP TEMPORARY TABLE x", []string{"d.t insert >11,1"}},
		{both, "ANALYZE TABLE d.t", nil},
		{both, "OPTIMIZE TABLE d.t", nil},
		{both, "FLUSH TABLES", nil},
		{both, "CREATE USER 'u'@'%' IDENTIFIED BY 'Secret-123'", []string{"account: *"}},
		{both, "GRANT SELECT ON d.* TO 'u'@'%'", []string{"account: *"}},
		{both, "CREATE VIEW d.w AS SELECT id FROM d.t", []string{"view: *"}},
		{both, "CREATE TRIGGER d.g BEFORE INSERT ON d.t FOR EACH ROW SET NEW.v = NEW.v + 100", []string{"trigger: *"}},
		{both, "INSERT INTO d.t VALUES (5,5)", []string{"d.t insert >5,105"}},
		{both, "CREATE PROCEDURE d.p() BEGIN INSERT INTO d.t VALUES (6,6); UPDATE d.t SET v=0 WHERE id=6; END", []string{"routine: *"}},
		{both, "CALL d.p()", []string{"d.t insert >6,106", "d.t update 6,106>6,0"}},
		{both, "CREATE FUNCTION d.f() RETURNS INT DETERMINISTIC RETURN 3", []string{"routine: *"}},
		{both, "CREATE EVENT d.e ON SCHEDULE EVERY 1 DAY DO DELETE FROM d.t", []string{"event: *"}},
		{both, "CREATE TABLE d.l LIKE d.t", []string{"create_table: create table d.l like d.t"}},
		{both, "RENAME TABLE d.l TO d.l2, d.m TO d.m2", []string{"rename_table: rename table d.l to d.l2, d.m to d.m2"}},
		{both, "TRUNCATE d.m2", []string{"truncate_table: truncate d.m2"}},
		{both, "CREATE INDEX i ON d.t (v)", []string{"create_index: create index i on d.t (v)"}},
		{both, "CREATE TABLE d.parts (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN MAXVALUE)", []string{"create_table: *"}},
		{both, "CREATE TABLE d.one (id INT PRIMARY KEY)", []string{"create_table: *"}},
		{both, "INSERT INTO d.parts VALUES (1),(20)", []string{"d.parts insert >1", "d.parts insert >20"}},
		{both, "ALTER TABLE d.parts EXCHANGE PARTITION a WITH TABLE d.one", []string{"exchange_partition: *"}},
		{both, "SET sql_mode=CONCAT(@@sql_mode,',ANSI_QUOTES');;CREATE TABLE \"d\".\"q uote\" (\"a`b\" INT PRIMARY KEY);;INSERT INTO \"d\".\"q uote\" VALUES (1)",
			[]string{"create_table: *", "d.q uote insert >1"}},
		{both, "SET NAMES gbk;;CREATE TABLE d.`\xb6\xa9\xb5\xa5` (`\xc3\xfb` VARCHAR(10) CHARACTER SET gbk)", []string{"create_table: *"}},
		{both, "SET NAMES utf8mb4;;INSERT INTO d.`订单` VALUES ('名')", []string{"d.订单 insert >\xc3\xfb"}},
		{both, "CREATE TABLE d.parent (id INT PRIMARY KEY)", []string{"create_table: *"}},
		{both, "CREATE TABLE d.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.parent (id) ON DELETE CASCADE)", []string{"create_table: *"}},
		{both, "INSERT INTO d.parent VALUES (1);;INSERT INTO d.child VALUES (1,1)", []string{"d.parent insert >1", "d.child insert >1,1"}},
		{my, "DELETE FROM d.parent", []string{"d.child delete 1,1>", "d.parent delete 1>"}},
		{maria, "DELETE FROM d.parent", []string{"d.parent delete 1>"}},
		{maria, "CREATE SEQUENCE d.s", []string{"sequence: *"}},
		{maria, "SELECT NEXTVAL(d.s)", []string{"d.s insert >1001,1,9223372036854775806,1,1,1000,0,0"}},
		{maria, "CREATE OR REPLACE TABLE d.l2 SELECT 1 AS a", []string{"create_table: *", "d.l2 insert >1"}},
		{maria, "SET SESSION binlog_alter_two_phase=ON;;ALTER TABLE d.t ADD z INT", []string{"alter_table: alter table d.t add z int"}},
		{my, "ALTER TABLE d.t ADD z INT", []string{"alter_table: alter table d.t add z int"}},
		{both, "UPDATE d.t SET z=1 WHERE id=1", []string{"d.t update 1,1,NULL>1,1,1"}},
		{both, "DROP TABLE IF EXISTS d.nothing", []string{"drop_table: *"}},
		{both, "DROP TABLE d.m2", []string{"drop_table: *"}}, // a DROP DATABASE would name it apart
		{both, "DROP DATABASE d", []string{"drop_database: drop database d"}},
	}
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
			on := my
			if f.IsMariaDB() {
				on = maria
			}
			for _, s := range steps {
				if s.on&on == 0 {
					continue
				}
				before := len(statementsOf(t, string(f.Server()), p.log))
				srv.Exec(t, strings.Split(s.sql, ";;")...)
				p.holds(t, srv)
				got := statementsOf(t, string(f.Server()), p.log)[before:]
				same := len(got) == len(s.want)
				for i := 0; same && i < len(got); i++ {
					prefix, any := strings.CutSuffix(s.want[i], "*")
					same = got[i] == s.want[i] || any && strings.HasPrefix(got[i], prefix)
				}
				if !same {
					t.Errorf("%s\n got: %q\nwant: %q", s.sql, got, s.want)
				}
			}
		})
	}
}

// TestSession: the settings that a statement ran under come with it.
func TestSession(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		t.Run(string(f), func(t *testing.T) {
			srv := mysqltest.Start(t, f)
			p := start(t, srv, newMemLog(), func(c *Config) { c.Start = StartEarliest })
			srv.Exec(t, "CREATE DATABASE d", "USE d", "SET SESSION time_zone='+05:30', foreign_key_checks=0, sql_mode='ANSI_QUOTES,NO_ENGINE_SUBSTITUTION', "+
				"lc_time_names='de_DE', timestamp=1600000000.123456, auto_increment_increment=3, auto_increment_offset=2",
				"SET NAMES latin1", "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a TIMESTAMP(6) DEFAULT NOW(6))", "ALTER TABLE t ADD b DATETIME(6) DEFAULT NOW(6)",
				"CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1")
			p.holds(t, srv)
			var all []*change.DDL
			for _, x := range readLog(t, string(f.Server()), p.log.all()) {
				all = append(all, x.full...)
			}
			if len(all) != 4 {
				t.Fatalf("%d statements", len(all))
			}
			alter := all[2]
			if alter.DefaultSchema != "d" || alter.SQLMode&4 == 0 || alter.Flags2&(1<<26) == 0 || alter.CharsetClient == 0 || alter.CollationServer == 0 {
				t.Errorf("session: %+v", *alter)
			}
			if alter.Timestamp.Unix() != 1600000000 || all[0].DefaultSchema != "" {
				t.Errorf("%+v", *alter)
			}
			if alter.Timestamp.Nanosecond() != 123456000 || alter.TimeZone != "+05:30" {
				t.Errorf("time: %s in %q", alter.Timestamp, alter.TimeZone)
			}
		})
	}
}

// TestHaltOnUnclassified: statements whose effect on the target is not certain.
func TestHaltOnUnclassified(t *testing.T) {
	for _, f := range mysqltest.Flavors() {
		srv := mysqltest.Start(t, f)
		for name, bad := range map[string]string{
			"tablespace from a file": "ALTER TABLE d.t DISCARD TABLESPACE",
			"two worlds":             "DROP TABLE d.t, twinspan.x",
		} {
			t.Run(name+"/"+string(f), func(t *testing.T) {
				srv.Exec(t, "DROP DATABASE IF EXISTS d", "DROP DATABASE IF EXISTS twinspan", "CREATE DATABASE d", "CREATE DATABASE twinspan",
					"CREATE TABLE d.t (id INT PRIMARY KEY)", "CREATE TABLE twinspan.x (id INT)")
				p := startNow(t, srv, nil)
				srv.Exec(t, bad)
				p.halts(t, binlog.HaltUnclassified)
			})
		}
	}
}
